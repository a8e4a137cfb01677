//! Maps inside the accessors of other kernels.
//!
//! Gets a template, one of its ports and a map; returns the template with the map between the port's accessor and
//! memory: what the text stores through the port goes through the map first ([`into_store`]), or what it loads from the
//! port is computed where it is loaded ([`into_load`]). The text itself stays as its author wrote it; only the
//! accessors
//! that it calls are other ones. Never asks whether that pays.

use std::fmt::Write;

use crate::base::raw::Name;
use crate::base::span::Source;
use crate::kernel::map::{expression_lines, index_expression, written};
use crate::kernel::{Access, KernelLib, Line, PortUse, Template, words};

/// A map that is to be merged: its expression, its operands by name and shape, and the shape of its result.
#[derive(Clone, Copy, Debug)]
pub struct Merged<'a> {
    /// The expression.
    pub expr: &'a Name,
    /// The text in which it stands.
    pub source: &'a Source,
    /// Operands, in the map's order.
    pub operands: &'a [(&'a str, &'a [u64])],
    /// The result's shape.
    pub shape: &'a [u64],
}

/// A template with a map in it, and the names of its new ports: those that take the place of the old one come last.
#[derive(Clone, Debug)]
pub struct WithMap {
    /// The template.
    pub template: Template,
    /// The ports that take the place of the old one, in order: operands, of a store also the result.
    pub ports: Vec<String>,
}

/// Names in the template's text are told apart by how many maps went into it before.
fn prefix(template: &Template) -> String {
    let merged = template.lines.iter().filter(|line| line.text.starts_with("fn graphc_map_")).count();
    format!("graphc_m{merged}")
}

/// Puts a map behind what a text stores through port `at`: operand `through` is what it stores.
pub fn into_store(
    lib: &KernelLib,
    template: &Template,
    at: usize,
    port: &str,
    map: Merged<'_>,
    through: usize,
) -> WithMap {
    let prefix = prefix(template);
    let mut lines = template.lines.clone();
    functions(&mut lines, lib, &prefix, map);
    let used = &template.ports[at];
    let others: Vec<usize> = (0..map.operands.len()).filter(|operand| *operand != through).collect();
    for width in &used.stores {
        let (suffix, ty) = (suffix(*width), vector(*width));
        let loads = others.iter().map(|operand| load(&prefix, map, *operand, *width)).collect::<String>();
        let value = per_element(*width, |lane| {
            let values = (0..map.operands.len()).map(|operand| match operand == through {
                true => format!("value{lane}"),
                false => format!("o{operand}{lane}"),
            });
            format!("graphc_map_{prefix}({})", values.collect::<Vec<_>>().join(", "))
        });
        let body = format!("{loads}    store_{prefix}_out{suffix}(i, {value});\n");
        written(&mut lines, &format!("fn store_{port}{suffix}(i: u32, value: {ty}) {{\n{body}}}"));
    }
    let widest = used.stores.clone();
    let mut ports = Vec::new();
    let mut uses = Vec::new();
    for operand in others {
        ports.push(format!("{prefix}_{}", letters(operand)));
        uses.push(operand_use(map, operand, &widest));
    }
    ports.push(format!("{prefix}_out"));
    uses.push(PortUse { loads: vec![], stores: used.stores.clone(), own: None, access: used.access });
    replaced(template, lines, at, ports, uses)
}

/// Computes a map where a text loads it from port `at`.
pub fn into_load(lib: &KernelLib, template: &Template, at: usize, port: &str, map: Merged<'_>) -> WithMap {
    let prefix = prefix(template);
    let mut lines = template.lines.clone();
    functions(&mut lines, lib, &prefix, map);
    let used = &template.ports[at];
    let fours = used.loads.iter().any(|width| *width >= 4);
    // An eight is two fours.
    let mut widths: Vec<u32> = used.loads.iter().copied().filter(|width| *width < 8).collect();
    if used.loads.contains(&8) && !widths.contains(&4) {
        widths.push(4);
    }
    for width in &widths {
        let (suffix, ty) = (suffix(*width), vector(*width));
        let loads = (0..map.operands.len()).map(|operand| load(&prefix, map, operand, *width)).collect::<String>();
        let value = per_element(*width, |lane| {
            let values = (0..map.operands.len()).map(|operand| format!("o{operand}{lane}"));
            format!("graphc_map_{prefix}({})", values.collect::<Vec<_>>().join(", "))
        });
        written(&mut lines, &format!("fn load_{port}{suffix}(i: u32) -> {ty} {{\n{loads}    return {value};\n}}"));
    }
    if used.loads.contains(&8) {
        let value = format!("mat2x4<f32>(load_{port}4(i * 2u), load_{port}4(i * 2u + 1u))");
        written(&mut lines, &format!("fn load_{port}8(i: u32) -> mat2x4<f32> {{\n    return {value};\n}}"));
    }
    debug_assert!(!widths.is_empty() || !fours, "a port that is loaded has a width");
    let (mut ports, mut uses) = (Vec::new(), Vec::new());
    for operand in 0..map.operands.len() {
        ports.push(format!("{prefix}_{}", letters(operand)));
        uses.push(operand_use(map, operand, &widths));
    }
    replaced(template, lines, at, ports, uses)
}

fn replaced(template: &Template, lines: Vec<Line>, at: usize, ports: Vec<String>, uses: Vec<PortUse>) -> WithMap {
    let mut all = template.ports.clone();
    all.splice(at..=at, uses);
    WithMap { template: Template { lines, ports: all, ..template.clone() }, ports }
}

/// The map as a function of its operands, and the functions that maps may call, under names that no text has.
fn functions(lines: &mut Vec<Line>, lib: &KernelLib, prefix: &str, map: Merged<'_>) {
    let known: Vec<&str> = lib.map_prelude.iter().filter_map(|line| line.text.strip_prefix("fn ")).collect();
    let known: Vec<&str> = known.iter().filter_map(|rest| rest.split('(').next()).collect();
    if !lines.iter().any(|line| line.text.starts_with("// graphc: functions of maps")) {
        written(lines, "// graphc: functions of maps");
        for line in &lib.map_prelude {
            lines.push(Line { text: renamed(&line.text, &known), origin: line.origin });
        }
    }
    let parameters: Vec<String> =
        map.operands.iter().map(|(name, _)| format!("{}: f32", renamed(name, &known))).collect();
    written(lines, &format!("fn graphc_map_{prefix}({}) -> f32 {{\n    return", parameters.join(", ")));
    let mut expression = Vec::new();
    expression_lines(&mut expression, map.expr, map.source);
    lines.extend(expression.into_iter().map(|line| Line { text: renamed(&line.text, &known), origin: line.origin }));
    written(lines, "    ;\n}");
}

/// A line with the names of known functions changed to ones that no kernel has.
fn renamed(line: &str, known: &[&str]) -> String {
    if !words(line).any(|word| known.contains(&word)) {
        return line.to_owned();
    }
    let mut out = String::new();
    let mut rest = line;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    while let Some(first) = rest.chars().next() {
        let end = match is_word(first) {
            true => rest.find(|c: char| !is_word(c)).unwrap_or(rest.len()),
            false => rest.find(is_word).unwrap_or(rest.len()),
        };
        let word = &rest[..end];
        if known.contains(&word) {
            out.push_str("graphc_fn_");
        }
        out.push_str(word);
        rest = &rest[end..];
    }
    out
}

/// How many elements of an operand follow each other where `width` of the result do: all, or one that all share.
fn loaded(map: Merged<'_>, operand: usize, width: u32) -> Loaded {
    let shape = map.operands[operand].1;
    let (count, total): (u64, u64) = (shape.iter().product(), map.shape.iter().product());
    let fits = count % u64::from(width) == 0;
    match () {
        () if count == 1 => Loaded::Shared,
        () if count == total && fits => Loaded::Whole(None),
        () if map.shape.ends_with(shape) && fits => Loaded::Whole(Some(count / u64::from(width))),
        () => Loaded::Singly,
    }
}

enum Loaded {
    /// One element for all.
    Shared,
    /// As many at once as the result has, of a tensor that repeats after this many of them.
    Whole(Option<u64>),
    /// Each by itself.
    Singly,
}

/// The line that loads an operand's elements as `oN`.
fn load(prefix: &str, map: Merged<'_>, operand: usize, width: u32) -> String {
    let (name, (suffix, ty)) = (format!("load_{prefix}_{}", letters(operand)), (suffix(width), vector(width)));
    let value = match loaded(map, operand, width) {
        Loaded::Shared if width == 1 => format!("{name}(0u)"),
        Loaded::Shared => format!("{ty}({name}(0u))"),
        Loaded::Whole(None) => format!("{name}{suffix}(i)"),
        Loaded::Whole(Some(repeats)) => format!("{name}{suffix}(i % {repeats}u)"),
        Loaded::Singly => {
            let index = |element: String| {
                format!(
                    "{name}({})",
                    index_expression(map.operands[operand].1, map.shape).replace("graphc_index", &element)
                )
            };
            let all: Vec<String> = (0..width).map(|lane| index(format!("(i * {width}u + {lane}u)"))).collect();
            if width == 1 { all[0].clone() } else { format!("{ty}({})", all.join(", ")) }
        }
    };
    let mut line = String::new();
    let _ = writeln!(line, "    let o{operand} = {value};");
    line
}

/// How an operand's port is used by accessors of these widths.
fn operand_use(map: Merged<'_>, operand: usize, widths: &[u32]) -> PortUse {
    let of = |width: &u32| match loaded(map, operand, *width) {
        Loaded::Whole(_) => *width,
        Loaded::Shared | Loaded::Singly => 1,
    };
    let mut loads: Vec<u32> = widths.iter().map(of).collect();
    loads.sort_unstable();
    loads.dedup();
    PortUse { loads, stores: vec![], own: None, access: Access { reads: true, writes: false } }
}

/// A value of as many elements, each made for the lane's component.
fn per_element(width: u32, element: impl Fn(&str) -> String) -> String {
    match width {
        1 => element(""),
        _ => {
            let lanes = [".x", ".y", ".z", ".w"];
            let all: Vec<String> = lanes[..width as usize].iter().map(|lane| element(lane)).collect();
            format!("{}({})", vector(width), all.join(", "))
        }
    }
}

fn suffix(width: u32) -> String {
    if width == 1 { String::new() } else { width.to_string() }
}

fn vector(width: u32) -> String {
    if width == 1 { "f32".to_owned() } else { format!("vec{width}<f32>") }
}

/// A number in letters: names of ports do not end in digits.
fn letters(number: usize) -> String {
    let letter = |digit: usize| char::from(b'a' + digit as u8);
    if number < 26 {
        letter(number).to_string()
    } else {
        format!("{}{}", letters(number / 26 - 1), letter(number % 26))
    }
}
