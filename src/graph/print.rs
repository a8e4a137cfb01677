//! [`Graph`] to canonical text.
//!
//! Gets a graph, returns RON that parses to the same graph: fields in a fixed order, one entry a line. Comments are not
//! part of a graph and are not printed. Never fails.

use std::fmt::Write;

use crate::base::raw::{Name, Spanned};
use crate::graph::{Arg, DimKind, Graph, Input, Node, Output, State};

/// The graph as RON.
pub fn print(graph: &Graph) -> String {
    let mut out = String::from("Graph(\n");
    let mut line = |indent: usize, text: String| {
        let _ = writeln!(out, "{:indent$}{text}", "", indent = indent * 4);
    };
    line(1, format!("name: {},", quoted(&graph.name.text)));
    line(1, format!("doc: {},", quoted(&graph.doc)));
    let (has, lacks, when) = (names(&graph.detect.has), names(&graph.detect.lacks), exprs(&graph.detect.when));
    let when = if when.is_empty() { String::new() } else { format!(", when: [{when}]") };
    line(1, format!("detect: (has: [{has}], lacks: [{lacks}]{when}),"));
    if !graph.settings.is_empty() {
        let settings: Vec<String> =
            graph.settings.iter().map(|one| format!("{}: {:?}", quoted(&one.name.text), one.value)).collect();
        line(1, format!("settings: {{{}}},", settings.join(", ")));
    }
    if !graph.aliases.is_empty() {
        line(1, "aliases: {".into());
        for group in graph.aliases.chunk_by(|one, next| one.pattern == next.pattern) {
            let others: Vec<String> = group.iter().map(|alias| quoted(&alias.other.text)).collect();
            line(2, format!("{}: [{}],", quoted(&group[0].pattern.text), others.join(", ")));
        }
        line(1, "},".into());
    }
    line(1, "weights: {".into());
    for weight in &graph.weights {
        line(2, format!("{}: [{}],", quoted(&weight.pattern.text), exprs(&weight.shape)));
    }
    line(1, "},".into());
    line(1, "layouts: [".into());
    for layout in &graph.layouts {
        line(2, format!("Layout(name: {}, transposed: [{}]),", quoted(&layout.name), names(&layout.transposed)));
    }
    line(1, "],".into());
    line(1, "dims: {".into());
    for dim in &graph.dims {
        line(2, format!("{}: {},", quoted(&dim.name.text), dim_kind(&dim.kind)));
    }
    line(1, "},".into());
    outside(1, (&graph.state, &graph.inputs, &graph.outputs), &mut line);
    if let Some(carry) = &graph.carry {
        line(1, "carry: Carry(".into());
        outside(2, (&carry.state, &carry.inputs, &carry.outputs), &mut line);
        line(1, "),".into());
    }
    line(1, "ops: [".into());
    nodes(&graph.ops, 2, &mut line);
    line(1, "],".into());
    line(0, ")".into());
    out
}

/// What a step shares with the world outside.
fn outside(
    indent: usize,
    (state, inputs, outputs): (&[State], &[Input], &[Output]),
    line: &mut impl FnMut(usize, String),
) {
    line(indent, "state: {".into());
    for state in state {
        let per = state.per.as_ref().map_or(String::new(), |per| format!("per: {}, ", quoted(per.expr.text())));
        let shape = exprs(&state.shape);
        let name = quoted(&state.name.text);
        let init = match &state.init_weight {
            None => format!("{:?}", state.init),
            Some(weight) => {
                let kind = if weight.transposed { "Transposed" } else { "Weight" };
                format!("{kind}({}, {:?})", quoted(&weight.pattern.text), state.init)
            }
        };
        line(indent + 1, format!("{name}: State(dtype: {}, {per}shape: [{shape}], init: {init}),", state.dtype));
    }
    line(indent, "},".into());
    line(indent, "inputs: {".into());
    for input in inputs {
        line(indent + 1, format!("{}: Input({}, [{}]),", quoted(&input.name.text), input.role, exprs(&input.shape)));
    }
    line(indent, "},".into());
    line(indent, "outputs: {".into());
    for output in outputs {
        line(indent + 1, format!("{}: Output({}),", quoted(&output.name.text), output.role));
    }
    line(indent, "},".into());
}

fn nodes(list: &[Node], indent: usize, line: &mut impl FnMut(usize, String)) {
    for node in list {
        match node {
            Node::Op { kernel, args } => {
                let args: Vec<String> =
                    args.iter().map(|(name, arg)| format!("{}: {}", quoted(&name.text), argument(arg))).collect();
                line(indent, format!("Op({}, {{{}}}),", quoted(&kernel.text), args.join(", ")));
            }
            Node::Map { expr, args, out } => {
                let args: Vec<String> =
                    args.iter().map(|(name, arg)| format!("{}: {}", quoted(&name.text), quoted(&arg.text))).collect();
                let (expr, out) = (quoted(&expr.text), quoted(&out.text));
                line(indent, format!("Map({expr}, {{{}}}, {out}),", args.join(", ")));
            }
            Node::Let { name, value } => {
                line(indent, format!("Let({}, {}),", quoted(&name.text), quoted(&value.text)));
            }
            Node::ForEach { variable, count, body } => {
                line(indent, format!("ForEach({}, {}, [", quoted(&variable.text), quoted(count.expr.text())));
                nodes(body, indent + 1, line);
                line(indent, "]),".into());
            }
            Node::If { condition, then, otherwise } => {
                line(indent, format!("If({}, [", quoted(condition.expr.text())));
                nodes(then, indent + 1, line);
                line(indent, "], [".into());
                nodes(otherwise, indent + 1, line);
                line(indent, "]),".into());
            }
        }
    }
}

fn argument(arg: &Arg) -> String {
    match arg {
        Arg::Tensor(name) => quoted(&name.text),
        Arg::Number(number, _) => format!("{number:?}"),
        Arg::Setting(name) => format!("Setting({})", quoted(&name.text)),
        Arg::Eval(spanned) => format!("Eval({})", quoted(spanned.expr.text())),
    }
}

fn dim_kind(kind: &DimKind) -> String {
    match kind {
        DimKind::Weight { tensor, axis } => format!("Weight({}, {axis})", quoted(&tensor.text)),
        DimKind::Count { pattern } => format!("Count({})", quoted(&pattern.text)),
        DimKind::Elements { tensor } => format!("Elements({})", quoted(&tensor.text)),
        DimKind::Eval(spanned) => format!("Eval({})", quoted(spanned.expr.text())),
        DimKind::Tokens => "Tokens".into(),
        DimKind::Sequences => "Sequences".into(),
        DimKind::Rows => "Rows".into(),
        DimKind::Capacity => "Capacity".into(),
        DimKind::Draws => "Draws".into(),
    }
}

fn names(list: &[Name]) -> String {
    list.iter().map(|name| quoted(&name.text)).collect::<Vec<_>>().join(", ")
}

fn exprs(list: &[Spanned]) -> String {
    list.iter().map(|spanned| quoted(spanned.expr.text())).collect::<Vec<_>>().join(", ")
}

/// A RON string literal.
fn quoted(text: &str) -> String {
    format!("{text:?}")
}
