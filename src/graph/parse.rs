//! Text to [`Graph`].
//!
//! Gets one source, returns a graph or every diagnostic that can be found in one go: a bad entry does not hide the next
//! one. Never looks at a checkpoint, so it does not know whether a name means anything.

use std::collections::HashSet;

use crate::base::diag::Diagnostic;
use crate::base::raw::{Entries, Name, Raw, Reader};
use crate::base::role::OutputRole;
use crate::base::span::{SourceId, SourceMap};
use crate::graph::ops::Ops;
use crate::graph::syntax::{
    CarrySyntax, DetectSyntax, DimSyntax, GraphSyntax, InitSyntax, InputSyntax, LayoutSyntax, OutputSyntax, StateSyntax,
};
use crate::graph::{
    Alias, Carry, Detect, Dim, DimKind, Graph, Included, InitWeight, Input, Layout, Output, Setting, State, WeightShape,
};

/// In how many ways a graph's weights may be stored: each is tried, weight by weight.
const MAX_LAYOUTS: usize = 16;

/// How many further names a graph's weights may have: each is looked for, weight by weight.
const MAX_ALIASES: usize = 256;

/// Parses a graph file. The parts that it includes are found by their names among `sources`: in the folder `parts`
/// beside the graph.
///
/// # Errors
/// Every syntax error, unknown field, duplicate key and bad expression in the file and the parts that it includes.
pub fn parse(sources: &SourceMap, source: SourceId) -> Result<Graph, Vec<Diagnostic>> {
    let mut reader = Reader::new(sources, source);
    let mut ops = Ops::new(sources, source);
    let graph = reader.file::<GraphSyntax<'_>>().and_then(|syntax| graph(&mut reader, &mut ops, syntax));
    match graph {
        Some(graph) if reader.diagnostics.is_empty() => Ok(graph),
        _ => Err(distinct(ops.included.placed(reader.diagnostics))),
    }
}

/// A part that is included twice is read twice: what is wrong with it is said once.
fn distinct(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut seen = HashSet::new();
    diagnostics.retain(|found| seen.insert((found.labels.first().map(|label| label.0), found.message.clone())));
    diagnostics
}

fn graph<'a>(reader: &mut Reader<'a>, ops: &mut Ops<'a>, syntax: GraphSyntax<'a>) -> Option<Graph> {
    let name = reader.name(syntax.name);
    let detect = reader.node::<DetectSyntax<'_>>(syntax.detect);
    let detect = detect.map(|detect| Detect {
        has: names(reader, &detect.has),
        lacks: names(reader, &detect.lacks),
        when: reader.exprs(&detect.when),
    });
    let settings = settings(reader, &syntax.settings);
    let aliases = aliases(reader, &syntax.aliases);
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
    let state = states(reader, &syntax.state);
    let inputs = inputs(reader, &syntax.inputs, &[]);
    let outputs = outputs(reader, &syntax.outputs, false);
    let carry = syntax.carry.and_then(|raw| carry(reader, raw, (&state, &inputs)));
    let nodes = ops.read(reader, &syntax.ops, &settings);
    let included: Included = ops.included.clone();
    Some(Graph {
        name: name?,
        doc: syntax.doc,
        detect: detect?,
        settings,
        aliases,
        weights,
        layouts,
        dims,
        state,
        inputs,
        outputs,
        carry,
        ops: nodes,
        included,
    })
}

fn settings<'a>(reader: &mut Reader<'a>, entries: &Entries<'a>) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (name, raw) in reader.entries(entries, "setting") {
        let Some(value) = reader.node::<f64>(raw) else { continue };
        if !value.is_finite() {
            let message = format!("setting `{}` is {value}, expected a finite number", name.text);
            reader.diagnostics.push(Diagnostic::error(reader.span(raw), message));
        }
        settings.push(Setting { name, value });
    }
    settings
}

fn aliases<'a>(reader: &mut Reader<'a>, entries: &Entries<'a>) -> Vec<Alias> {
    let mut aliases = Vec::new();
    for (pattern, raw) in reader.entries(entries, "alias") {
        let others = reader.node::<Vec<Raw<'_>>>(raw).unwrap_or_default();
        for other in names(reader, &others) {
            let holes = |name: &Name| name.text.matches("{}").count();
            if holes(&pattern) > 1 || holes(&pattern) != holes(&other) {
                let message = format!("`{}` cannot be another name of `{}`", other.text, pattern.text);
                let note = "both have one `{}` for a layer's number, or neither has";
                reader.diagnostics.push(Diagnostic::error(other.span, message).note(note));
            }
            aliases.push(Alias { pattern: pattern.clone(), other });
        }
    }
    if let Some(over) = aliases.get(MAX_ALIASES) {
        let message = format!("a graph has at most {MAX_ALIASES} aliases, found {}", aliases.len());
        reader.diagnostics.push(Diagnostic::error(over.other.span, message));
    }
    aliases
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
        DimSyntax::Elements(tensor) => DimKind::Elements { tensor: reader.name(tensor)? },
        DimSyntax::Eval(expr) => DimKind::Eval(reader.expr(expr)?),
        DimSyntax::Tokens => DimKind::Tokens,
        DimSyntax::Sequences => DimKind::Sequences,
        DimSyntax::Rows => DimKind::Rows,
        DimSyntax::Capacity => DimKind::Capacity,
        DimSyntax::Draws => DimKind::Draws,
    })
}

fn states<'a>(reader: &mut Reader<'a>, entries: &Entries<'a>) -> Vec<State> {
    reader.entries(entries, "state").into_iter().filter_map(|(name, raw)| state(reader, name, raw)).collect()
}

/// What there is in steps that draw, beside the states and inputs of every step.
fn carry<'a>(reader: &mut Reader<'a>, raw: Raw<'a>, (state, input): (&[State], &[Input])) -> Option<Carry> {
    let syntax = reader.node::<CarrySyntax<'_>>(raw)?;
    let found = Carry {
        state: states(reader, &syntax.state),
        inputs: inputs(reader, &syntax.inputs, input),
        outputs: outputs(reader, &syntax.outputs, true),
    };
    let mut known = |before: Option<&Name>, name: &Name| {
        if let Some(before) = before {
            let message = format!("`{}` is there in every step already", name.text);
            reader.diagnostics.push(Diagnostic::error(name.span, message).also(before.span, "first given here"));
        }
    };
    for one in &found.state {
        known(state.iter().map(|other| &other.name).find(|other| **other == one.name), &one.name);
    }
    for one in &found.inputs {
        known(input.iter().map(|other| &other.name).find(|other| **other == one.name), &one.name);
    }
    Some(found)
}

fn state<'a>(reader: &mut Reader<'a>, name: Name, raw: Raw<'a>) -> Option<State> {
    let syntax = reader.node::<StateSyntax<'_>>(raw)?;
    let per = match syntax.per {
        Some(per) => Some(reader.expr(per)?),
        None => None,
    };
    let shape = reader.exprs(&syntax.shape);
    let (init, init_weight) = init(reader, syntax.init)?;
    if !init.is_finite() {
        let message = format!("state `{}` begins as {init}, expected a finite number", name.text);
        reader.diagnostics.push(Diagnostic::error(reader.span(syntax.init), message));
    }
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

/// Inputs, which share no role with each other or those `before`.
fn inputs<'a>(reader: &mut Reader<'a>, entries: &Entries<'a>, before: &[Input]) -> Vec<Input> {
    let mut inputs: Vec<Input> = Vec::new();
    for (name, raw) in reader.entries(entries, "input") {
        let Some(InputSyntax(role, shape)) = reader.node(raw) else { continue };
        if let Some(other) = before.iter().chain(&inputs).find(|other| other.role == role) {
            let found = Diagnostic::error(name.span, format!("role `{role}` is given to two inputs"));
            reader.diagnostics.push(found.also(other.name.span, "first given here"));
        }
        let shape = reader.exprs(&shape);
        inputs.push(Input { name, role, shape });
    }
    inputs
}

/// Outputs of steps that draw, or of others: only the former have drawn a token.
fn outputs<'a>(reader: &mut Reader<'a>, entries: &Entries<'a>, draws: bool) -> Vec<Output> {
    let mut outputs: Vec<Output> = Vec::new();
    for (name, raw) in reader.entries(entries, "output") {
        let Some(OutputSyntax(role)) = reader.node(raw) else { continue };
        if role == OutputRole::Kept {
            let message = "role `kept` is for values named with `--keep`, not for graphs";
            reader.diagnostics.push(Diagnostic::error(name.span, message));
        }
        if role == OutputRole::NextToken && !draws {
            let message = "role `next_token` is for steps that draw";
            let note = "it stands among the outputs of `carry`";
            reader.diagnostics.push(Diagnostic::error(name.span, message).note(note));
        }
        if let Some(other) = outputs.iter().find(|other| other.role == role) {
            let found = Diagnostic::error(name.span, format!("role `{role}` is given to two outputs"));
            reader.diagnostics.push(found.also(other.name.span, "first given here"));
        }
        outputs.push(Output { name, role });
    }
    outputs
}
