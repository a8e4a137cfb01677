//! Writes a kernel's final text: bindings and accessors for the storage formats at hand, constants as numbers.
//!
//! Gets a [`Template`] and what each port is bound to, returns complete WGSL with a map back to the files. Accessors:
//! `load_PORT(i)` is element `i`; `load_PORT2(i)`, `load_PORT4(i)` and `load_PORT8(i)` are the 2, 4 and 8 elements from
//! `2i`, `4i` and `8i` on, as `vec2<f32>`, `vec4<f32>` and `mat2x4<f32>` (of `u32` where the port is `u32`, which has
//! no `8`); `store_PORT(i, v)`, `store_PORT2` and `store_PORT4` write likewise. Only those that the text calls are
//! written. A binding's element is as wide as its narrowest accessor allows, so a kernel that only calls `load_PORT8`
//! on f16 reads `vec4<u32>`; or `vec2<u64>`, where nothing writes the binding and the device is better at that. Arrays
//! are wrapped in a struct, since Vulkan's synchronization validation does not see writes to a bare array. Never
//! decides formats, offsets or which ports share a binding.

use std::fmt::Write;

use crate::base::dtype::DType;
use crate::kernel::{Line, PortUse, Template, unroll};

/// What a port of a template is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortBinding {
    /// The port's name.
    pub port: String,
    /// How its elements are stored.
    pub dtype: DType,
    /// Whether any kernel text may write through it: `read_write` if so.
    pub writes: bool,
    /// The bindings it reaches its elements through, in order; more than one if the tensor is larger than a binding may
    /// be.
    pub parts: Vec<Part>,
}

/// A run of a port's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Binding number.
    pub binding: u32,
    /// The element of the binding where the run begins, a multiple of eight.
    pub first: u64,
    /// How many elements; the last part may be followed by padding.
    pub count: u64,
}

/// A complete text.
#[derive(Clone, Debug, PartialEq)]
pub struct Composed {
    /// Its lines.
    pub lines: Vec<Line>,
}

impl Composed {
    /// The text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(&line.text);
            text.push('\n');
        }
        text
    }
}

/// Composes the text of `template`. `ports` are in the order of the template's; `consts` gives every override its value
/// as WGSL, as in `("C", "256u")`. With `wide_words`, what is read in elements of eight halves is read as two words of
/// 64 bits.
pub fn compose(template: &Template, ports: &[PortBinding], consts: &[(String, String)], wide_words: bool) -> Composed {
    let mut directives = Vec::new();
    let mut body = Vec::new();
    for (index, line) in template.lines.iter().enumerate() {
        let is_directive = ["enable ", "requires ", "diagnostic("].iter().any(|word| line.text.starts_with(word));
        if line.text.starts_with("enable subgroups;") {
            // WGSL asks for it; naga 30 does not know it and goes by capability alone. May go with the naga that knows
            // it.
            directives.push(Line { text: format!("// {}", line.text), origin: line.origin });
        } else if is_directive {
            directives.push(line.clone());
        } else if let Some(constant) = template.overrides.iter().find(|constant| constant.line == index) {
            let value = consts.iter().find(|(name, _)| *name == constant.name).map_or("", |(_, value)| value);
            let text = format!("const {}: {} = {value};", constant.name, constant.ty);
            body.push(Line { text, origin: line.origin });
        } else {
            body.push(line.clone());
        }
    }
    let mut lines = directives;
    let written = prelude(template, ports, wide_words);
    lines.extend(written.lines().map(|text| Line { text: text.to_owned(), origin: None }));
    lines.extend(unroll::expand(body, consts));
    Composed { lines }
}

/// Name of the variable of a binding that accessors go through.
pub(super) fn data_name(number: u32) -> String {
    format!("graphc_data{number}")
}

/// Bindings and accessors.
fn prelude(template: &Template, ports: &[PortBinding], wide_words: bool) -> String {
    let mut bindings: Vec<(u32, DType, u32, bool)> = Vec::new();
    for (port, used) in ports.iter().zip(&template.ports) {
        if used.own.is_some() {
            continue;
        }
        let width = granularity(port, used);
        for part in &port.parts {
            match bindings.iter_mut().find(|(number, ..)| *number == part.binding) {
                Some((_, _, narrowest, writes)) => {
                    *narrowest = width.min(*narrowest);
                    *writes |= port.writes;
                }
                None => bindings.push((part.binding, port.dtype, width, port.writes)),
            }
        }
    }
    // A port's accessors see elements of one type, whichever of its bindings they come from.
    while let Some((port, width)) = ports.iter().find_map(|port| Some((port, uneven(port, &bindings)?))) {
        for part in &port.parts {
            bindings.iter_mut().filter(|binding| binding.0 == part.binding).for_each(|binding| binding.2 = width);
        }
    }
    bindings.sort_unstable_by_key(|(number, ..)| *number);
    let is_wide = |(_, dtype, width, writes): &(u32, DType, u32, bool)| {
        wide_words && matches!(dtype, DType::F16 | DType::Bf16) && *width == 8 && !writes
    };
    let wide: Vec<u32> = bindings.iter().filter(|binding| is_wide(binding)).map(|(number, ..)| *number).collect();
    let mut out = String::new();
    for (number, dtype, width, writes) in &bindings {
        let mode = if *writes { "read_write" } else { "read" };
        let (narrow, name) = (element_type(*dtype, *width), data_name(*number));
        let element = if wide.contains(number) { WIDE.to_owned() } else { narrow };
        let _ = writeln!(out, "struct GraphcData{number} {{ v: array<{element}> }}");
        let _ = writeln!(out, "@group(0) @binding({number}) var<storage, {mode}> {name}: GraphcData{number};");
    }
    if !wide.is_empty() {
        out.push_str(SPLIT);
    }
    for (port, used) in ports.iter().zip(&template.ports) {
        if used.own.is_none() {
            let width = bindings.iter().find(|(number, ..)| *number == port.parts[0].binding).map_or(1, |b| b.2);
            accessors(&mut out, port, used, (width, &wide));
        }
    }
    out
}

/// The narrowest element of a port's bindings, if they differ.
fn uneven(port: &PortBinding, bindings: &[(u32, DType, u32, bool)]) -> Option<u32> {
    let of = |part: &Part| bindings.iter().find(|(number, ..)| *number == part.binding).map(|binding| binding.2);
    let widths: Vec<u32> = port.parts.iter().filter_map(of).collect();
    let narrowest = *widths.iter().min()?;
    (widths.iter().max() != Some(&narrowest)).then_some(narrowest)
}

/// The widest element through which all accessors of a port can work, in tensor elements: none reaches across where a
/// part begins.
fn granularity(port: &PortBinding, used: &PortUse) -> u32 {
    let begins = |width: &u32| {
        let mut passed = 0;
        port.parts.iter().all(|part| {
            let fits = part.first.is_multiple_of((*width).into()) && u64::is_multiple_of(passed, (*width).into());
            passed += part.count;
            fits
        })
    };
    let narrowest = used.loads.iter().chain(&used.stores).copied().min().unwrap_or(1);
    let narrowest = [8, 4, 2].into_iter().filter(|width| *width <= narrowest).find(begins).unwrap_or(1);
    match port.dtype {
        DType::F32 | DType::U32 => narrowest.min(4),
        // A 32-bit word holds two elements, so even a scalar accessor goes through one.
        DType::F16 | DType::Bf16 => narrowest.max(2),
    }
}

fn element_type(dtype: DType, width: u32) -> String {
    let (scalar, lanes) = match dtype {
        DType::F32 => ("f32", width),
        DType::U32 => ("u32", width),
        DType::F16 | DType::Bf16 => ("u32", width / 2),
    };
    if lanes == 1 { scalar.to_owned() } else { format!("vec{lanes}<{scalar}>") }
}

/// A binding's element of words of 64 bits.
const WIDE: &str = "vec2<u64>";

/// Words of 64 bits as twice as many of 32, in the order of memory.
const SPLIT: &str = "\
fn graphc_split(w: vec2<u64>) -> vec4<u32> {
    return vec4<u32>(u32(w.x), u32(w.x >> 32u), u32(w.y), u32(w.y >> 32u));
}
";

/// The accessors of a port whose bindings' elements are `width` of its own; those of `wide` are words of 64 bits.
fn accessors(out: &mut String, port: &PortBinding, used: &PortUse, (width, wide): (u32, &[u32])) {
    let name = &port.port;
    if !used.loads.is_empty() {
        let element = element_type(port.dtype, width);
        let _ = write!(out, "fn graphc_word_{name}(i: u32) -> {element} {{ ");
        let mut passed = 0;
        for (nth, part) in port.parts.iter().enumerate() {
            let shift = offset(part.first, passed, width);
            let element = format!("graphc_data{}.v[i{shift}]", part.binding);
            let read = match wide.contains(&part.binding) {
                true => format!("return graphc_split({element});"),
                false => format!("return {element};"),
            };
            passed += part.count;
            if nth + 1 < port.parts.len() {
                let _ = write!(out, "if i < {}u {{ {read} }} ", passed / u64::from(width));
            } else {
                let _ = writeln!(out, "{read} }}");
            }
        }
    }
    for load in &used.loads {
        let (suffix, ty, value) = match port.dtype {
            DType::F32 | DType::U32 => load_plain(name, port.dtype, *load, width),
            DType::F16 | DType::Bf16 => load_half(name, port.dtype, *load, width),
        };
        let _ = writeln!(out, "fn load_{name}{suffix}(i: u32) -> {ty} {{ {value} }}");
    }
    for store in &used.stores {
        store_accessor(out, port, *store, width);
    }
}

/// ` + 5u` or ` - 5u`: how far an index into the port is from one into the binding, in binding elements.
fn offset(first: u64, passed: u64, width: u32) -> String {
    let (first, passed) = (first / u64::from(width), passed / u64::from(width));
    match first.cmp(&passed) {
        std::cmp::Ordering::Equal => String::new(),
        std::cmp::Ordering::Greater => format!(" + {}u", first - passed),
        std::cmp::Ordering::Less => format!(" - {}u", passed - first),
    }
}

fn suffix(width: u32) -> String {
    if width == 1 { String::new() } else { width.to_string() }
}

fn load_plain(name: &str, dtype: DType, load: u32, width: u32) -> (String, String, String) {
    let scalar = if dtype == DType::F32 { "f32" } else { "u32" };
    let ty = match load {
        1 => scalar.to_owned(),
        8 => "mat2x4<f32>".to_owned(),
        _ => format!("vec{load}<{scalar}>"),
    };
    let words = load / width;
    let parts: Vec<String> = (0..words)
        .map(|word| match (words, word) {
            (1, _) => format!("graphc_word_{name}(i)"),
            (_, 0) => format!("graphc_word_{name}(i * {words}u)"),
            _ => format!("graphc_word_{name}(i * {words}u + {word}u)"),
        })
        .collect();
    let value = match (words, load, width) {
        (1, ..) => format!("return {};", parts[0]),
        // A matrix is made of columns or of scalars, not of halves of columns.
        (_, 8, 2) => {
            format!("return {ty}(vec4<f32>({}, {}), vec4<f32>({}, {}));", parts[0], parts[1], parts[2], parts[3])
        }
        _ => format!("return {ty}({});", parts.join(", ")),
    };
    (suffix(load), ty, value)
}

fn load_half(name: &str, dtype: DType, load: u32, width: u32) -> (String, String, String) {
    let unpack = |word: &str| match dtype {
        DType::F16 => format!("unpack2x16float({word})"),
        _ => format!("vec2<f32>(bitcast<f32>({word} << 16u), bitcast<f32>({word} & 0xffff0000u))"),
    };
    if load == 1 {
        let value = format!("let p = {}; return select(p.x, p.y, (i & 1u) == 1u);", unpack("w"));
        return (String::new(), "f32".into(), format!("let w = graphc_word_{name}(i / 2u); {value}"));
    }
    // The 32-bit words that make up the value, read through as many binding elements as it takes.
    let (reads, lanes) = (load.div_ceil(width), width.min(load) / 2);
    let mut value = String::new();
    let mut pairs = Vec::new();
    for read in 0..reads {
        let index = match (reads, read) {
            (1, _) => "i".to_owned(),
            (_, 0) => format!("i * {reads}u"),
            _ => format!("i * {reads}u + {read}u"),
        };
        let _ = write!(value, "let w{read} = graphc_word_{name}({index}); ");
        for lane in 0..lanes {
            let component =
                if lanes == 1 { String::new() } else { format!(".{}", ["x", "y", "z", "w"][lane as usize]) };
            pairs.push(unpack(&format!("w{read}{component}")));
        }
    }
    let ty = if load == 8 { "mat2x4<f32>".to_owned() } else { format!("vec{load}<f32>") };
    let _ = match pairs.len() {
        1 => write!(value, "return {};", pairs[0]),
        2 => write!(value, "return {ty}({});", pairs.join(", ")),
        _ => {
            write!(value, "return {ty}(vec4<f32>({}, {}), vec4<f32>({}, {}));", pairs[0], pairs[1], pairs[2], pairs[3])
        }
    };
    (suffix(load), ty, value)
}

fn store_accessor(out: &mut String, port: &PortBinding, store: u32, width: u32) {
    let (name, part) = (&port.port, &port.parts[0]);
    let scalar = if port.dtype == DType::U32 { "u32" } else { "f32" };
    let ty = if store == 1 { scalar.to_owned() } else { format!("vec{store}<{scalar}>") };
    let target = |index: String| format!("graphc_data{}.v[{index}{}]", part.binding, offset(part.first, 0, width));
    let _ = write!(out, "fn store_{name}{}(i: u32, value: {ty}) {{ ", suffix(store));
    let pack = |low: &str| match port.dtype {
        DType::F16 => format!("pack2x16float({low})"),
        // Rounds to nearest, ties to even, as conversions to bf16 do elsewhere.
        _ => format!("graphc_pack_bf16({low})"),
    };
    let components = ["x", "y", "z", "w"];
    match port.dtype {
        DType::F32 | DType::U32 if store == width => {
            let _ = write!(out, "{} = value; ", target("i".into()));
        }
        DType::F32 | DType::U32 => {
            for (at, lanes) in components[..store as usize].chunks(width as usize).enumerate() {
                let index = format!("i * {}u + {at}u", store / width);
                let _ = write!(out, "{} = value.{}; ", target(index), lanes.concat());
            }
        }
        DType::F16 | DType::Bf16 => {
            let pairs: Vec<String> =
                (0..store / 2).map(|pair| pack(&format!("value.{}", ["xy", "zw"][pair as usize]))).collect();
            if store == width {
                let ty = element_type(port.dtype, width);
                let value = if pairs.len() == 1 { pairs[0].clone() } else { format!("{ty}({})", pairs.join(", ")) };
                let _ = write!(out, "{} = {value}; ", target("i".into()));
            } else {
                for (at, pair) in pairs.iter().enumerate() {
                    let _ = write!(out, "{} = {pair}; ", target(format!("i * {}u + {at}u", pairs.len())));
                }
            }
        }
    }
    out.push_str("}\n");
    if port.dtype == DType::Bf16 && !out.contains("fn graphc_pack_bf16") {
        out.push_str(PACK_BF16);
    }
}

const PACK_BF16: &str = "\
fn graphc_round_bf16(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}
fn graphc_pack_bf16(value: vec2<f32>) -> u32 {
    return graphc_round_bf16(value.x) | (graphc_round_bf16(value.y) << 16u);
}
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Access;

    /// A template that calls nothing, of ports with these widths of loads and stores.
    fn template(ports: &[(&[u32], &[u32])]) -> Template {
        let ports = ports.iter().map(|(loads, stores)| PortUse {
            loads: loads.to_vec(),
            stores: stores.to_vec(),
            own: None,
            access: Access::default(),
        });
        let (file, entry) = ("a.wgsl".to_owned(), "main".to_owned());
        Template { file, lines: Vec::new(), entry, ports: ports.collect(), overrides: Vec::new(), unchecked: true }
    }

    fn port(port: &str, dtype: DType, writes: bool, parts: &[(u32, u64, u64)]) -> PortBinding {
        let parts =
            parts.iter().map(|(binding, first, count)| Part { binding: *binding, first: *first, count: *count });
        PortBinding { port: port.to_owned(), dtype, writes, parts: parts.collect() }
    }

    fn text(template: &Template, ports: &[PortBinding], wide_words: bool) -> String {
        compose(template, ports, &[], wide_words).text()
    }

    #[test]
    fn halves_are_read_as_words_of_64_bits() {
        let eights = template(&[(&[8], &[])]);
        let found = text(&eights, &[port("w", DType::F16, false, &[(0, 0, 64)])], true);
        let expected = "\
struct GraphcData0 { v: array<vec2<u64>> }
@group(0) @binding(0) var<storage, read> graphc_data0: GraphcData0;
fn graphc_split(w: vec2<u64>) -> vec4<u32> {
    return vec4<u32>(u32(w.x), u32(w.x >> 32u), u32(w.y), u32(w.y >> 32u));
}
fn graphc_word_w(i: u32) -> vec4<u32> { return graphc_split(graphc_data0.v[i]); }
fn load_w8(i: u32) -> mat2x4<f32> { let w0 = graphc_word_w(i); return mat2x4<f32>(vec4<f32>(unpack2x16float(w0.x), \
            unpack2x16float(w0.y)), vec4<f32>(unpack2x16float(w0.z), unpack2x16float(w0.w))); }
";
        assert_eq!(found, expected);
        // What is done with the words, and where they lie, is the same as with words of 32 bits.
        for dtype in [DType::F16, DType::Bf16] {
            let packed = [port("w", dtype, false, &[(2, 24, 40), (0, 0, 64)])];
            let [narrow, wide] = [false, true].map(|wide_words| text(&eights, &packed, wide_words));
            assert!(wide.contains("if i < 5u { return graphc_split(graphc_data2.v[i + 3u]); }"), "{wide}");
            assert!(wide.contains(" return graphc_split(graphc_data0.v[i - 5u]); }"), "{wide}");
            let split: String = SPLIT.to_owned();
            let back = wide.replace(&split, "").replace("graphc_split(", "").replace("u]);", "u];");
            assert_eq!(back.replace("array<vec2<u64>>", "array<vec4<u32>>"), narrow);
        }
    }

    #[test]
    fn only_what_is_read_by_eights_alone_is() {
        let same = |template: &Template, ports: &[PortBinding]| {
            assert_eq!(text(template, ports, true), text(template, ports, false));
        };
        let (halves, rows) = (DType::F16, [(0, 0, 64)]);
        same(&template(&[(&[4, 8], &[])]), &[port("w", halves, false, &rows)]);
        same(&template(&[(&[8], &[])]), &[port("w", DType::F32, false, &rows)]);
        same(&template(&[(&[8], &[])]), &[port("w", halves, true, &rows)]);
        same(&template(&[(&[8], &[4])]), &[port("w", halves, true, &rows)]);
        // A part that begins within an eight, and a binding that another port reads by fours or writes.
        same(&template(&[(&[8], &[])]), &[port("w", halves, false, &[(0, 4, 64)])]);
        let both = [port("w", halves, false, &rows), port("x", halves, false, &[(0, 64, 64)])];
        same(&template(&[(&[8], &[]), (&[4], &[])]), &both);
        let written = [port("w", halves, false, &rows), port("x", halves, true, &[(0, 64, 64)])];
        same(&template(&[(&[8], &[]), (&[8], &[])]), &written);
    }
}
