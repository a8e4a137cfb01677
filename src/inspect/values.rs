//! The values of a graph as they can be looked at: who computes each, from what, and which axis is the tokens'.
//!
//! Gets a graph's compiler ([`Values::of_graph`]) or a plan ([`Values::of_plan`]), returns the values in the order of
//! the graph; and cuts what steps give into the parts of single tokens ([`row`]). What holds then: every value has a
//! path of its own, and what it is computed from stands before it. Never runs anything.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::base::dtype::DType;
use crate::base::role::OutputRole;
use crate::base::span::{SourceMap, Span};
use crate::base::step::StepShape;
use crate::compile::{CompileError, Compiler};
use crate::model::{Model, Origin, ValueId};
use crate::plan::Plan;
use crate::plan::command::Command;
use crate::tensor::Tensor;

/// Where the tokens of a step are in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    /// On this axis, so many indices in a row for each.
    Tokens {
        /// The axis.
        axis: usize,
        /// Indices of a token.
        each: usize,
    },
    /// On the first axis there are the rows that were asked for: the first is the step's last token's.
    Last,
    /// Nowhere: the value is of the step as a whole.
    Step,
}

/// How the host gets a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// As an output of its path's name.
    Output,
    /// From this buffer of the session's state, after the step.
    State(u32),
}

/// A value that can be looked at.
#[derive(Clone, Debug)]
pub struct Value {
    /// Its path, as in `layer3.wkv#1`.
    pub path: String,
    /// Element type.
    pub dtype: DType,
    /// Shape in a step, outermost axis first.
    pub shape: Vec<u64>,
    /// Where the tokens are.
    pub along: Along,
    /// How the host gets it.
    pub read: Read,
    /// Index into [`Values::ops`]; nothing if a plan does not tell who computes it.
    pub op: Option<usize>,
    /// Index into [`Values::kinds`]: values of one place of the graph are of one kind.
    pub kind: usize,
    /// The state tensor that it is a version of.
    pub state: Option<u32>,
}

impl Value {
    /// The shape of a token's part, or of the whole value where tokens have none.
    pub fn row_shape(&self) -> Vec<u64> {
        self.along.row_shape(&self.shape)
    }

    /// Bytes of the value of one step.
    pub fn size_bytes(&self) -> u64 {
        self.dtype.storage_bytes(self.shape.iter().product())
    }
}

impl Along {
    /// Which part of a value is `token`'s, of a step of the tokens `begin .. end`; nothing if it has none.
    pub fn part(self, token: usize, (begin, end): (usize, usize)) -> Option<Part> {
        let is_last = token + 1 == end;
        match self {
            Self::Tokens { axis, each } => Some(Part::Indices { axis, first: (token - begin) * each, count: each }),
            Self::Last => is_last.then_some(Part::Indices { axis: 0, first: 0, count: 1 }),
            Self::Step => is_last.then_some(Part::Whole),
        }
    }

    /// The shape of a token's part of a value, or of the whole value where tokens have none.
    pub fn row_shape(self, shape: &[u64]) -> Vec<u64> {
        let mut shape = shape.to_vec();
        match self {
            Self::Tokens { axis, each } if each > 1 => shape[axis] = each as u64,
            Self::Tokens { axis, .. } => drop(shape.remove(axis)),
            Self::Last => drop(shape.remove(0)),
            Self::Step => {}
        }
        shape
    }
}

/// A token's part of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The elements of these indices on an axis.
    Indices {
        /// The axis.
        axis: usize,
        /// The first index on it.
        first: usize,
        /// How many.
        count: usize,
    },
}

/// What computes a value.
#[derive(Clone, Debug)]
pub struct Computed {
    /// Path of the op.
    pub label: String,
    /// Its kernel.
    pub kernel: String,
    /// The kernel's file; nothing of maps, whose text is the graph's, and where a plan does not tell.
    pub file: Option<String>,
    /// Its place in the graph, as `file:line:column`.
    pub place: String,
    /// What it reads; nothing where a plan does not tell.
    pub inputs: Vec<Taken>,
}

/// What an op reads through a port.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The port.
    pub port: String,
    /// The path of what it is bound to.
    pub path: String,
    /// What that is.
    pub from: From,
}

/// Where what an op reads comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// This tensor of the checkpoint.
    Weight(String),
    /// The host.
    Host,
    /// The step before: this state tensor.
    State(u32),
    /// Another op of this step.
    Op,
}

/// Everything that a step computes.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// The values, in the order of the graph.
    pub values: Vec<Value>,
    /// The ops.
    pub ops: Vec<Computed>,
    /// What values are called that stand at one place of the graph, as in `layer*.wkv`.
    pub kinds: Vec<String>,
}

/// A step of one sequence that gives a row for every token.
pub const fn step_shape(tokens: u32) -> StepShape {
    StepShape { tokens, sequences: 1, rows: tokens, capacity: 1 }
}

impl Values {
    /// The values of a step of [`step_shape`]. Which axis is the tokens' is found by the shapes that the same values
    /// have in a step of another size.
    ///
    /// # Errors
    /// Everything that is wrong with the graph.
    pub fn of_graph(compiler: &Compiler<'_>, tokens: u32) -> Result<Self, CompileError> {
        let compiler = Compiler { keep: &[], ..*compiler };
        let (model, _) = compiler.model(step_shape(tokens))?;
        let others = [1, tokens + 1].into_iter().filter(|other| *other != tokens);
        let other = others.into_iter().find_map(|other| Some((other, compiler.model(step_shape(other)).ok()?.0)));
        let shapes = other.iter().flat_map(|(_, model)| model.values.values());
        let shapes: BTreeMap<&str, &[u64]> =
            shapes.map(|value| (value.path.as_str(), value.shape.as_slice())).collect();
        let along = |path: &str, shape: &[u64]| match (&other, shapes.get(path)) {
            (Some((extent, _)), Some(differing)) if differing.len() == shape.len() => {
                growing((shape, u64::from(tokens)), (differing, u64::from(*extent)))
            }
            _ => leading(shape, tokens),
        };
        Ok(Self::of_model(&model, &along, compiler.sources))
    }

    /// Where the tokens are in the values that a graph gives under these names, further names of values included.
    ///
    /// # Errors
    /// Everything that is wrong with the graph, and with the names.
    pub fn along(compiler: &Compiler<'_>, tokens: u32, names: &[String]) -> Result<Vec<Along>, CompileError> {
        let values = Self::of_graph(compiler, tokens)?;
        let (model, _) = Compiler { keep: names, ..*compiler }.model(step_shape(tokens))?;
        let path = |name: &String| {
            let output = model.outputs.iter().find(|output| output.name == *name)?;
            Some(model.values[output.value].path.as_str())
        };
        let value = |name| values.values.iter().find(|value| path(name) == Some(value.path.as_str()));
        Ok(names.iter().map(|name| value(name).map_or(Along::Step, |value| value.along)).collect())
    }

    fn of_model(model: &Model, along: &dyn Fn(&str, &[u64]) -> Along, sources: &SourceMap) -> Self {
        let mut found = Self::default();
        let mut kinds: BTreeMap<(Span, usize), Vec<String>> = BTreeMap::new();
        let mut of_values: Vec<(Span, usize)> = Vec::new();
        for (nth, op) in model.ops.values().enumerate() {
            let taken = op.args.iter().filter_map(|arg| arg.input.map(|input| (&arg.port, input)));
            let inputs = taken.map(|(port, input)| Taken {
                port: port.clone(),
                path: model.values[input].path.clone(),
                from: origin(model, input),
            });
            // The text of a map is in the graph itself.
            let file = &model.templates[op.template].file;
            let is_map = sources.source(op.span.source).name == *file;
            found.ops.push(Computed {
                label: op.label.clone(),
                kernel: op.kernel.clone(),
                file: (!is_map).then(|| format!("shaders/{file}")),
                place: sources.place(op.span),
                inputs: inputs.collect(),
            });
            for (at, output) in op.args.iter().enumerate().filter_map(|(at, arg)| Some((at, arg.output?))) {
                let value = &model.values[output];
                kinds.entry((op.span, at)).or_default().push(value.path.clone());
                of_values.push((op.span, at));
                let state = model.state_of(output);
                found.values.push(Value {
                    path: value.path.clone(),
                    dtype: value.dtype,
                    shape: value.shape.clone(),
                    along: if state.is_some() { Along::Step } else { along(&value.path, &value.shape) },
                    read: Read::Output,
                    op: Some(nth),
                    kind: 0,
                    state,
                });
            }
        }
        for (value, key) in found.values.iter_mut().zip(&of_values) {
            value.kind = kinds.keys().position(|other| other == key).unwrap_or_default();
        }
        found.kinds = kinds.values().map(|paths| kind(paths)).collect();
        found
    }

    /// What a plan gives: its outputs, and the state that it leaves.
    pub fn of_plan(plan: &Plan) -> Self {
        let mut found = Self::default();
        let (tokens, rows) = (plan.shape.tokens, plan.shape.rows);
        let mut ops: BTreeMap<&str, usize> = BTreeMap::new();
        for command in plan.commands() {
            let Command::Dispatch(dispatch) = command else { continue };
            ops.insert(&dispatch.label, found.ops.len());
            found.ops.push(Computed {
                label: dispatch.label.clone(),
                // Without its storage formats, as a graph says it.
                kernel: plan.kernels[dispatch.kernel].label.split('.').next().unwrap_or_default().to_owned(),
                file: None,
                place: dispatch.place.clone(),
                inputs: Vec::new(),
            });
        }
        for output in &plan.outputs {
            let along = match output.role {
                OutputRole::Logits if rows < tokens => Along::Last,
                OutputRole::Logits => Along::Tokens { axis: 0, each: 1 },
                _ => leading(&output.shape, tokens),
            };
            found.values.push(Value {
                path: output.name.clone(),
                dtype: output.dtype,
                shape: output.shape.clone(),
                along,
                read: Read::Output,
                op: ops.get(output.name.as_str()).copied(),
                kind: found.kinds.len(),
                state: None,
            });
            found.kinds.push(output.name.clone());
        }
        found.add_states(plan);
        found
    }

    /// With the states after a step beside their versions within it, as plans give them that keep no versions.
    pub fn with_states(mut self, plan: &Plan) -> Self {
        let writers: BTreeMap<u32, usize> =
            self.values.iter().filter_map(|value| Some((value.state?, value.op?))).collect();
        let before = self.values.len();
        self.add_states(plan);
        for mut value in self.values.split_off(before) {
            value.op = value.state.and_then(|state| writers.get(&state).copied());
            // Where it gets its last version.
            let last = self.values.iter().rposition(|other| other.state == value.state);
            self.values.insert(last.map_or(self.values.len(), |last| last + 1), value);
        }
        self
    }

    /// Learns from `other` where the tokens are in values of a plan's step of so many tokens and rows, as far as shapes
    /// alone do not tell.
    pub fn learn(&mut self, other: &Self, (tokens, rows): (u32, u32)) {
        let known: BTreeMap<&str, &Value> = other.values.iter().map(|value| (value.path.as_str(), value)).collect();
        for value in self.values.iter_mut().filter(|value| value.along == Along::Step) {
            let Some(Value { along: Along::Tokens { axis, each }, shape, .. }) = known.get(value.path.as_str()) else {
                continue;
            };
            let extent = value.shape.get(*axis).copied().filter(|_| shape.len() == value.shape.len());
            if extent == Some(*each as u64 * u64::from(tokens)) {
                value.along = Along::Tokens { axis: *axis, each: *each };
            } else if extent == Some(u64::from(rows)) && (*axis, *each) == (0, 1) {
                value.along = Along::Last;
            }
        }
    }

    fn add_states(&mut self, plan: &Plan) {
        for (state, buffer) in (0..).zip(&plan.state.buffers) {
            let path = format!("state.{}", buffer.label);
            self.values.push(Value {
                path: path.clone(),
                dtype: buffer.dtype,
                shape: buffer.row_shape.clone(),
                along: Along::Step,
                read: Read::State(state),
                op: None,
                kind: self.kinds.len(),
                state: Some(state),
            });
            self.kinds.push(path);
        }
    }
}

/// The tokens' axis, by shapes in steps of two sizes: the first that grows as the step does.
fn growing((shape, tokens): (&[u64], u64), (other, extent): (&[u64], u64)) -> Along {
    let each = |one: u64, other: u64| {
        let each = one / tokens;
        (each > 0 && each * tokens == one && each * extent == other).then_some(each as usize)
    };
    let axes = shape.iter().zip(other).enumerate();
    let found = axes.into_iter().find_map(|(axis, (one, other))| Some((axis, each(*one, *other)?)));
    found.map_or(Along::Step, |(axis, each)| Along::Tokens { axis, each })
}

/// What a shape alone says of the tokens' axis.
fn leading(shape: &[u64], tokens: u32) -> Along {
    let is_leading = tokens > 1 && shape.first() == Some(&u64::from(tokens));
    if is_leading { Along::Tokens { axis: 0, each: 1 } } else { Along::Step }
}

fn origin(model: &Model, value: ValueId) -> From {
    match &model.values[value].origin {
        Origin::Weight { tensor, .. } => From::Weight(tensor.clone()),
        Origin::State { state } => From::State(*state),
        Origin::Input { .. } => From::Host,
        Origin::Op { .. } | Origin::View { .. } => From::Op,
        Origin::Join { .. } | Origin::Transposed { .. } => From::Weight(model.values[value].path.clone()),
    }
}

/// What the values of one place are called together: their path, with `*` where a number of it differs.
fn kind(paths: &[String]) -> String {
    let parts = |path: &str| -> Vec<String> {
        let mut parts: Vec<String> = Vec::new();
        let mut was_digit = None;
        for c in path.chars() {
            let is_digit = c.is_ascii_digit();
            match parts.last_mut().filter(|_| was_digit == Some(is_digit)) {
                Some(part) => part.push(c),
                None => parts.push(c.to_string()),
            }
            was_digit = Some(is_digit);
        }
        parts
    };
    let mut name = parts(&paths[0]);
    for path in &paths[1..] {
        for (part, other) in name.iter_mut().zip(parts(path)) {
            if *part != other {
                *part = "*".to_owned();
            }
        }
    }
    name.concat()
}

/// The bytes of a part of a tensor, without what pads them.
pub fn row(tensor: &Tensor, part: Part) -> Cow<'_, [u8]> {
    let element_bytes = tensor.dtype.size_bytes() as usize;
    let count = |axes: &[u64]| axes.iter().product::<u64>() as usize;
    let Part::Indices { axis, first, count: indices } = part else {
        return Cow::Borrowed(&tensor.bytes[..count(&tensor.shape) * element_bytes]);
    };
    let (outer, extent) = (count(&tensor.shape[..axis]), tensor.shape[axis] as usize);
    let index_bytes = count(&tensor.shape[axis + 1..]) * element_bytes;
    let run = |nth: usize| {
        let begin = (nth * extent + first) * index_bytes;
        &tensor.bytes[begin..begin + indices * index_bytes]
    };
    if outer == 1 { Cow::Borrowed(run(0)) } else { Cow::Owned((0..outer).flat_map(run).copied().collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_cut_out_on_any_axis() {
        let values: Vec<f32> = (0..24_u8).map(f32::from).collect();
        let tensor = Tensor::from_f32(vec![2, 3, 4], &values);
        let row = |part| crate::tensor::to_f32(DType::F32, &row(&tensor, part));
        let indices = |axis, first, count| row(Part::Indices { axis, first, count });
        assert_eq!(row(Part::Whole), values);
        assert_eq!(indices(0, 1, 1), values[12..]);
        assert_eq!(indices(1, 2, 1), [8.0, 9.0, 10.0, 11.0, 20.0, 21.0, 22.0, 23.0]);
        assert_eq!(indices(2, 2, 2), [2.0, 3.0, 6.0, 7.0, 10.0, 11.0, 14.0, 15.0, 18.0, 19.0, 22.0, 23.0]);
    }

    #[test]
    fn the_axis_of_tokens_is_the_one_that_grows_with_the_step() {
        assert_eq!(growing((&[4, 4], 4), (&[4, 9], 9)), Along::Tokens { axis: 1, each: 1 });
        assert_eq!(growing((&[1, 1], 1), (&[1, 2], 2)), Along::Tokens { axis: 1, each: 1 });
        assert_eq!(growing((&[12, 4], 4), (&[27, 4], 9)), Along::Tokens { axis: 0, each: 3 });
        assert_eq!(growing((&[4, 5], 4), (&[4, 5], 9)), Along::Step);
    }

    #[test]
    fn a_kind_is_named_by_what_its_values_share() {
        let name = |paths: &[&str]| kind(&paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>());
        assert_eq!(name(&["layer0.wkv", "layer1.wkv", "layer11.wkv"]), "layer*.wkv");
        assert_eq!(name(&["state.att_x2.0#1", "state.att_x2.1#1"]), "state.att_x2.*#1");
        assert_eq!(name(&["emb"]), "emb");
    }
}
