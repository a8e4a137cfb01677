//! Text to [`Graph`].
//!
//! Gets one source, returns a graph or every diagnostic that can be found in one go: a bad entry does not hide the next
//! one. Never looks at a checkpoint, so it does not know whether a name means anything.

use crate::base::diag::Diagnostic;
use crate::base::raw::{Entries, Name, Raw, Reader};
use crate::base::role::OutputRole;
use crate::base::span::{SourceId, SourceMap};
use crate::graph::syntax::{
    ArgSyntax, DetectSyntax, DimSyntax, GraphSyntax, InitSyntax, InputSyntax, LayoutSyntax, NodeSyntax, OutputSyntax,
    StateSyntax,
};
use crate::graph::{
    Arg, Detect, Dim, DimKind, Graph, InitWeight, Input, Layout, Node, NumberPlace, Output, State, WeightShape,
};

/// In how many ways a graph's weights may be stored: each is tried, weight by weight.
const MAX_LAYOUTS: usize = 16;

/// How deep `ForEach` and `If` may nest.
const MAX_DEPTH: u32 = 16;

/// Parses a graph file.
///
/// # Errors
/// Every syntax error, unknown field, duplicate key and bad expression in the file.
pub fn parse(sources: &SourceMap, source: SourceId) -> Result<Graph, Vec<Diagnostic>> {
    let mut reader = Reader::new(sources, source);
    let graph = reader.file::<GraphSyntax<'_>>().and_then(|syntax| graph(&mut reader, syntax));
    match graph {
        Some(graph) if reader.diagnostics.is_empty() => Ok(graph),
        _ => Err(reader.diagnostics),
    }
}

fn graph<'a>(reader: &mut Reader<'a>, syntax: GraphSyntax<'a>) -> Option<Graph> {
    let name = reader.name(syntax.name);
    let detect = reader.node::<DetectSyntax<'_>>(syntax.detect);
    let detect = detect.map(|detect| Detect { has: names(reader, &detect.has), lacks: names(reader, &detect.lacks) });
    let weights = reader
        .entries(&syntax.weights, "weight")
        .into_iter()
        .filter_map(|(pattern, raw)| {
            let shape = reader.node::<Vec<Raw<'_>>>(raw)?;
            Some(WeightShape { pattern, shape: reader.exprs(&shape) })
        })
        .collect();
    let mut layouts: Vec<Layout> = syntax.layouts.iter().filter_map(|raw| layout(reader, raw)).collect();
    if syntax.layouts.len() > MAX_LAYOUTS {
        let message = format!("a graph has at most {MAX_LAYOUTS} layouts, found {}", syntax.layouts.len());
        let span = reader.span(syntax.layouts[MAX_LAYOUTS]);
        reader.diagnostics.push(Diagnostic::error(span, message));
    }
    if layouts.is_empty() {
        layouts.push(Layout { name: "stored".to_owned(), transposed: Vec::new() });
    }
    let dims = reader
        .entries(&syntax.dims, "dim")
        .into_iter()
        .filter_map(|(name, raw)| Some(Dim { name, kind: dim(reader, raw)? }))
        .collect();
    let state =
        reader.entries(&syntax.state, "state").into_iter().filter_map(|(name, raw)| state(reader, name, raw)).collect();
    let inputs = inputs(reader, &syntax.inputs);
    let outputs = outputs(reader, &syntax.outputs);
    let ops = nodes(reader, &syntax.ops, 0);
    Some(Graph { name: name?, doc: syntax.doc, detect: detect?, weights, layouts, dims, state, inputs, outputs, ops })
}

fn names<'a>(reader: &mut Reader<'a>, raws: &[Raw<'a>]) -> Vec<Name> {
    raws.iter().filter_map(|raw| reader.name(raw)).collect()
}

fn layout<'a>(reader: &mut Reader<'a>, raw: Raw<'a>) -> Option<Layout> {
    let syntax = reader.node::<LayoutSyntax<'_>>(raw)?;
    let name = reader.name(syntax.name)?.text;
    Some(Layout { name, transposed: names(reader, &syntax.transposed) })
}

fn dim<'a>(reader: &mut Reader<'a>, raw: Raw<'a>) -> Option<DimKind> {
    Some(match reader.node::<DimSyntax<'_>>(raw)? {
        DimSyntax::Weight(tensor, axis) => DimKind::Weight { tensor: reader.name(tensor)?, axis },
        DimSyntax::Count(pattern) => {
            let pattern = reader.name(pattern)?;
            if pattern.text.matches("{}").count() != 1 {
                let found = format!("`{}` has no single `{{}}` to count with", pattern.text);
                reader.diagnostics.push(Diagnostic::error(pattern.span, found));
            }
            DimKind::Count { pattern }
        }
        DimSyntax::Eval(expr) => DimKind::Eval(reader.expr(expr)?),
        DimSyntax::Tokens => DimKind::Tokens,
        DimSyntax::Sequences => DimKind::Sequences,
        DimSyntax::Rows => DimKind::Rows,
        DimSyntax::Capacity => DimKind::Capacity,
    })
}

fn state<'a>(reader: &mut Reader<'a>, name: Name, raw: Raw<'a>) -> Option<State> {
    let syntax = reader.node::<StateSyntax<'_>>(raw)?;
    let per = match syntax.per {
        Some(per) => Some(reader.expr(per)?),
        None => None,
    };
    let shape = reader.exprs(&syntax.shape);
    let (init, init_weight) = init(reader, syntax.init)?;
    if let Some(InitWeight { pattern, .. }) = &init_weight
        && pattern.text.matches("{}").count() != usize::from(per.is_some())
    {
        let expected = if per.is_some() { "expected a single `{}` for the layer's number" } else { "expected no `{}`" };
        let message = format!("`{}` does not name a weight for each `{}`: {expected}", pattern.text, name.text);
        reader.diagnostics.push(Diagnostic::error(pattern.span, message));
    }
    Some(State { name, dtype: syntax.dtype, per, shape, init, init_weight })
}

/// A number, or a weight and a number.
fn init<'a>(reader: &mut Reader<'a>, raw: Raw<'a>) -> Option<(f32, Option<InitWeight>)> {
    if !raw.trim().get_ron().ends_with(')') {
        return Some((reader.node(raw)?, None));
    }
    let (pattern, init, transposed) = match reader.node::<InitSyntax<'_>>(raw)? {
        InitSyntax::Weight(pattern, init) => (pattern, init, false),
        InitSyntax::Transposed(pattern, init) => (pattern, init, true),
    };
    Some((init, Some(InitWeight { pattern: reader.name(pattern)?, transposed })))
}

fn inputs<'a>(reader: &mut Reader<'a>, entries: &Entries<'a>) -> Vec<Input> {
    let mut inputs: Vec<Input> = Vec::new();
    for (name, raw) in reader.entries(entries, "input") {
        let Some(InputSyntax(role, shape)) = reader.node(raw) else { continue };
        if let Some(other) = inputs.iter().find(|other| other.role == role) {
            let found = Diagnostic::error(name.span, format!("role `{role}` is given to two inputs"));
            reader.diagnostics.push(found.also(other.name.span, "first given here"));
        }
        let shape = reader.exprs(&shape);
        inputs.push(Input { name, role, shape });
    }
    inputs
}

fn outputs<'a>(reader: &mut Reader<'a>, entries: &Entries<'a>) -> Vec<Output> {
    let mut outputs: Vec<Output> = Vec::new();
    for (name, raw) in reader.entries(entries, "output") {
        let Some(OutputSyntax(role)) = reader.node(raw) else { continue };
        if role == OutputRole::Kept {
            let message = "role `kept` is for values named with `--keep`, not for graphs";
            reader.diagnostics.push(Diagnostic::error(name.span, message));
        }
        if let Some(other) = outputs.iter().find(|other| other.role == role) {
            let found = Diagnostic::error(name.span, format!("role `{role}` is given to two outputs"));
            reader.diagnostics.push(found.also(other.name.span, "first given here"));
        }
        outputs.push(Output { name, role });
    }
    outputs
}

fn nodes<'a>(reader: &mut Reader<'a>, raws: &[Raw<'a>], depth: u32) -> Vec<Node> {
    raws.iter().filter_map(|raw| node(reader, raw, depth)).collect()
}

fn node<'a>(reader: &mut Reader<'a>, raw: Raw<'a>, depth: u32) -> Option<Node> {
    if depth > MAX_DEPTH {
        let span = reader.span(raw);
        reader.diagnostics.push(Diagnostic::error(span, format!("ops nest more than {MAX_DEPTH} deep")));
        return None;
    }
    Some(match reader.node::<NodeSyntax<'_>>(raw)? {
        NodeSyntax::Op(kernel, entries) => {
            let kernel = reader.name(kernel);
            let args = reader
                .entries(&entries, "port")
                .into_iter()
                .filter_map(|(name, raw)| Some((name, arg(reader, raw)?)))
                .collect();
            Node::Op { kernel: kernel?, args }
        }
        NodeSyntax::Map(expr, entries, out) => {
            let expr = reader.name(expr);
            let args = reader
                .entries(&entries, "operand")
                .into_iter()
                .filter_map(|(name, raw)| Some((name, reader.name(raw)?)))
                .collect();
            let out = reader.name(out);
            Node::Map { expr: expr?, args, out: out? }
        }
        NodeSyntax::Let(name, value) => {
            let (name, value) = (reader.name(name), reader.name(value));
            Node::Let { name: name?, value: value? }
        }
        NodeSyntax::ForEach(variable, count, body) => {
            let (variable, count) = (reader.name(variable), reader.expr(count));
            let body = nodes(reader, &body, depth + 1);
            Node::ForEach { variable: variable?, count: count?, body }
        }
        NodeSyntax::If(condition, then, otherwise) => {
            let condition = reader.expr(condition);
            let (then, otherwise) = (nodes(reader, &then, depth + 1), nodes(reader, &otherwise, depth + 1));
            Node::If { condition: condition?, then, otherwise }
        }
    })
}

fn arg<'a>(reader: &mut Reader<'a>, raw: Raw<'a>) -> Option<Arg> {
    let span = reader.span(raw);
    let text = raw.trim().get_ron();
    if text.starts_with(['"', 'r']) {
        return reader.name(raw).map(Arg::Tensor);
    }
    if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return reader.node::<f64>(raw).map(|number| Arg::Number(number, NumberPlace(span)));
    }
    let ArgSyntax::Eval(expr) = reader.node::<ArgSyntax<'_>>(raw)?;
    reader.expr(expr).map(Arg::Eval)
}
