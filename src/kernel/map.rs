//! Maps: an elementwise expression as a kernel.
//!
//! Gets the author's WGSL expression and the shapes of its operands, returns a [`Template`] of one thread per element.
//! Operands broadcast as in NumPy: shapes are aligned at their last axes, an axis of 1 repeats. Arithmetic is f32.
//! Never changes the expression.

use std::fmt::Write;

use crate::base::diag::Diagnostic;
use crate::base::raw::Name;
use crate::base::span::Span;
use crate::kernel::compose::{Part, PortBinding, compose};
use crate::kernel::reflect::reflect;
use crate::kernel::{Access, KernelLib, Line, LineOrigin, PortUse, Template};

/// Threads of a map's workgroup.
const WORKGROUP: u64 = 64;

/// Workgroups in x before y is used.
const MAX_X: u64 = 32768;

/// A map as a kernel: its text and its dispatch size.
#[derive(Clone, Debug)]
pub struct MapKernel {
    /// The text; its ports are the operands, then the result.
    pub template: Template,
    /// Workgroups in x, y, z.
    pub workgroups: [u64; 3],
}

/// The shape to which `shapes` broadcast together, as NumPy has it.
///
/// # Errors
/// The indices into `shapes` of the first two that do not.
pub fn broadcast(shapes: &[&[u64]]) -> Result<Vec<u64>, (usize, usize)> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut out = vec![1; rank];
    let mut from = vec![0; rank];
    for (index, shape) in shapes.iter().enumerate() {
        for (axis, extent) in (rank - shape.len()..rank).zip(shape.iter()) {
            if *extent == 1 {
                continue;
            }
            if out[axis] != 1 && out[axis] != *extent {
                return Err((from[axis], index));
            }
            if out[axis] == 1 {
                (out[axis], from[axis]) = (*extent, index);
            }
        }
    }
    Ok(out)
}

/// Name of the result's port.
pub const RESULT: &str = "map_result";

/// Builds the kernel of a map. `expr` stands in `source`; `operands` are the names and shapes of what it uses, in the
/// order of the kernel's ports, and broadcast to `shape`.
///
/// # Errors
/// What naga says about the expression, at its place in the graph.
pub fn build(
    lib: &KernelLib,
    expr: &Name,
    source: &crate::base::span::Source,
    operands: &[(&str, &[u64])],
    shape: &[u64],
) -> Result<MapKernel, Diagnostic> {
    let count: u64 = shape.iter().product();
    // Four elements a thread where every operand has four of its own, or one for all.
    let fours: Option<Vec<String>> = operands.iter().map(|(_, operand)| index_of_four(operand, shape)).collect();
    let fours = fours.filter(|_| count.is_multiple_of(4));
    let threads = if fours.is_some() { count / 4 } else { count };
    let groups = threads.div_ceil(WORKGROUP);
    let workgroups = [groups.min(MAX_X), groups.div_ceil(MAX_X), 1];
    let mut lines = lib.map_prelude.clone();
    let mut head = format!(
        "@compute @workgroup_size({WORKGROUP})\nfn main(@builtin(global_invocation_id) graphc_id: vec3<u32>) {{\n"
    );
    let _ = writeln!(head, "    let graphc_index = graphc_id.x + graphc_id.y * {}u;", workgroups[0] * WORKGROUP);
    let _ = writeln!(head, "    if graphc_index >= {threads}u {{ return; }}");
    let mut loads = Vec::new();
    match &fours {
        None => {
            for (name, operand) in operands {
                let _ = writeln!(head, "    let {name} = load_{name}({});", index_expression(operand, shape));
                loads.push(1);
            }
            written(&mut lines, &head);
            written(&mut lines, "    let graphc_value: f32 =");
            expression_lines(&mut lines, expr, source);
            written(&mut lines, &format!("    ;\n    store_{RESULT}(graphc_index, graphc_value);\n}}"));
        }
        Some(indices) => {
            let parameters: Vec<String> = operands.iter().map(|(name, _)| format!("{name}: f32")).collect();
            written(&mut lines, &format!("fn graphc_map({}) -> f32 {{\n    return", parameters.join(", ")));
            expression_lines(&mut lines, expr, source);
            written(&mut lines, "    ;\n}");
            let mut values = [const { String::new() }; 4];
            for (at, ((name, operand), index)) in operands.iter().zip(indices).enumerate() {
                let is_shared = operand.iter().product::<u64>() == 1;
                let _ =
                    writeln!(head, "    let graphc_{at} = load_{name}{}({index});", if is_shared { "" } else { "4" });
                loads.push(if is_shared { 1 } else { 4 });
                for (value, lane) in values.iter_mut().zip([".x", ".y", ".z", ".w"]) {
                    let comma = if at == 0 { "" } else { ", " };
                    let _ = write!(value, "{comma}graphc_{at}{}", if is_shared { "" } else { lane });
                }
            }
            let values = values.map(|value| format!("graphc_map({value})")).join(", ");
            let _ = writeln!(head, "    store_{RESULT}4(graphc_index, vec4<f32>({values}));\n}}");
            written(&mut lines, &head);
        }
    }
    let read = |width| PortUse {
        loads: vec![width],
        stores: vec![],
        own: None,
        access: Access { reads: true, writes: false },
    };
    let stores = vec![if fours.is_some() { 4 } else { 1 }];
    let write = PortUse { loads: vec![], stores, own: None, access: Access { reads: false, writes: true } };
    let mut ports: Vec<PortUse> = loads.into_iter().map(read).collect();
    ports.push(write);
    let template = Template {
        file: source.name.clone(),
        lines,
        entry: "main".into(),
        ports,
        overrides: Vec::new(),
        unchecked: false,
    };
    validate(&template, operands, expr.span)?;
    Ok(MapKernel { template, workgroups })
}

fn validate(template: &Template, operands: &[(&str, &[u64])], span: Span) -> Result<(), Diagnostic> {
    let names = operands.iter().map(|(name, _)| *name).chain([RESULT]);
    let ports: Vec<PortBinding> = names
        .enumerate()
        .map(|(at, name)| PortBinding {
            port: name.to_owned(),
            dtype: crate::base::dtype::DType::F32,
            writes: at == operands.len(),
            parts: vec![Part { binding: at as u32, first: 0, count: 1 }],
        })
        .collect();
    reflect(&compose(template, &ports, &[], false), span).map(drop)
}

/// Index of an operand's element for the result's element `graphc_index`.
pub(super) fn index_expression(operand: &[u64], shape: &[u64]) -> String {
    let count: u64 = operand.iter().product();
    let total: u64 = shape.iter().product();
    if count == total {
        return "graphc_index".into();
    }
    if count == 1 {
        return "0u".into();
    }
    if shape.ends_with(operand) {
        return format!("graphc_index % {count}u");
    }
    let mut terms = Vec::new();
    let (mut stride_out, mut stride_in) = (1u64, 1u64);
    for (nth, extent) in shape.iter().rev().enumerate() {
        let own = operand.len().checked_sub(nth + 1).map_or(1, |axis| operand[axis]);
        if own != 1 {
            terms.push(format!("graphc_index / {stride_out}u % {extent}u * {stride_in}u"));
        }
        stride_out *= extent;
        stride_in *= own;
    }
    terms.join(" + ")
}

/// Index of four elements of an operand for the result's four elements `graphc_index`; of one element, if it has one
/// alone. Nothing if four of the result's elements need others than four that follow each other.
fn index_of_four(operand: &[u64], shape: &[u64]) -> Option<String> {
    let (count, total) = (operand.iter().product::<u64>(), shape.iter().product::<u64>());
    match () {
        () if count == 1 => Some("0u".into()),
        () if !count.is_multiple_of(4) => None,
        () if count == total => Some("graphc_index".into()),
        () if shape.ends_with(operand) => Some(format!("graphc_index % {}u", count / 4)),
        () => None,
    }
}

pub(super) fn written(lines: &mut Vec<Line>, text: &str) {
    lines.extend(text.lines().map(|text| Line { text: text.to_owned(), origin: None }));
}

/// The expression on lines of its own, in parentheses, each with its place in the graph.
pub(super) fn expression_lines(lines: &mut Vec<Line>, expr: &Name, source: &crate::base::span::Source) {
    written(lines, "    (");
    let before = &source.text[..expr.span.start as usize];
    let first = before.matches('\n').count() as u32 + 1;
    let mut offset = expr.span.start;
    for (number, text) in (first..).zip(expr.text.split('\n')) {
        let origin = LineOrigin { source: expr.span.source, offset, prefix: 0, number };
        lines.push(Line { text: text.to_owned(), origin: Some(origin) });
        offset += text.len() as u32 + 1;
    }
    written(lines, "    )");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_broadcast_from_the_right() {
        assert_eq!(broadcast(&[&[4, 8], &[8]]), Ok(vec![4, 8]));
        assert_eq!(broadcast(&[&[4, 1], &[1, 8]]), Ok(vec![4, 8]));
        assert_eq!(broadcast(&[&[4, 8], &[4]]), Err((0, 1)));
    }

    #[test]
    fn operands_are_indexed_by_their_own_strides() {
        assert_eq!(index_expression(&[8], &[4, 8]), "graphc_index % 8u");
        assert_eq!(index_expression(&[4, 1], &[4, 8]), "graphc_index / 8u % 4u * 1u");
        assert_eq!(
            index_expression(&[2, 1, 3], &[2, 5, 3]),
            "graphc_index / 1u % 3u * 1u + graphc_index / 15u % 2u * 3u"
        );
    }
}
