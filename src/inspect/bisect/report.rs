//! What a bisection has found, as data: the parting, how the inputs of its op compared, the largest differences.
//!
//! Gets where something parts and what passes have noted, returns a [`Report`]. What holds then: every number is of
//! tokens and values up to the parting, none of what comes behind it. Never runs anything.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, Serializer};

use crate::exec::Executor;
use crate::inspect::bisect::compare::{Row, Tolerance, compare};
use crate::inspect::bisect::{Bisection, Found, High, Notes};
use crate::inspect::values::{Along, Computed, From, Taken, Value};

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the graph.
    pub graph: String,
    /// How many tokens were to be run.
    pub tokens: usize,
    /// How far values might be apart.
    pub tolerance: Tolerance,
    /// The sides.
    pub sides: [SideFacts; 2],
    /// How many values were compared.
    pub values: usize,
    /// How many times tokens were run from the first one on.
    pub passes: usize,
    /// The first value that parts, if one does.
    pub parting: Option<Parting>,
    /// Values that are not the same bit for bit up to there, by their place in the graph, in its order.
    pub kinds: Vec<KindDifference>,
    /// How many kinds of values there are up to there.
    pub kind_count: usize,
    /// Paths that one side alone has, A's and B's.
    pub alone: [Vec<String>; 2],
    /// Values of other shapes on each side, with both.
    pub unlike: Vec<String>,
}

/// A configuration as it was run.
#[derive(Clone, Debug, Serialize)]
pub struct SideFacts {
    /// Its device.
    pub device: String,
    /// Tokens of its steps.
    pub step_tokens: u32,
    /// Whether it is a plan as it was, of which outputs and states alone can be seen.
    pub is_plan: bool,
}

/// The first value that parts.
#[derive(Clone, Debug, Serialize)]
pub struct Parting {
    /// Its path.
    pub value: String,
    /// The token at which it parts, counted from 0.
    pub token: usize,
    /// That token's id.
    pub token_id: u32,
    /// Whether the value is as it is after a step that ends with that token, not that token's own.
    pub is_after_step: bool,
    /// The tokens of the step on each side, `begin .. end`.
    pub steps: [(usize, usize); 2],
    /// Who computes it; nothing if only plans were compared that do not tell.
    pub op: Option<OpFacts>,
    /// Its shape, with `T` for the tokens' axis.
    pub shape: String,
    /// Index of the element that differs most, on every axis; on that of tokens, among all tokens.
    pub at: Vec<usize>,
    /// That element on both sides.
    #[serde(serialize_with = "numbers")]
    pub elements: [f64; 2],
    /// How far they are apart.
    #[serde(serialize_with = "number")]
    pub difference: f64,
    /// How far they might be.
    pub allowed: f64,
    /// The largest magnitude in the token's row.
    pub scale: f64,
    /// What the op reads.
    pub inputs: Vec<InputFacts>,
}

/// The op that computes a value.
#[derive(Clone, Debug, Serialize)]
pub struct OpFacts {
    /// Its path.
    pub label: String,
    /// Its kernel, on both sides.
    pub kernel: [String; 2],
    /// The file of the kernel's text, on both sides; nothing of maps and of plans.
    pub file: [Option<String>; 2],
    /// Its place in the graph, on both sides.
    pub place: [String; 2],
    /// Whether both run the same text, constants and storage formats included.
    pub has_same_text: Option<bool>,
    /// Ports that are bound to other values on each side, with both.
    pub bound_apart: Vec<String>,
}

/// What an op reads, and how that compared.
#[derive(Clone, Debug, Serialize)]
pub struct InputFacts {
    /// The port.
    pub port: String,
    /// What it is bound to.
    pub value: String,
    /// The largest difference of it, up to the token at which the op's value parts.
    pub found: InputFound,
}

/// How an input compared.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InputFound {
    /// Every bit is the same.
    Same,
    /// Not every bit, and how far it is apart at most.
    Apart {
        /// The largest difference.
        #[serde(serialize_with = "number")]
        difference: f64,
        /// The largest magnitude beside it.
        scale: f64,
        /// Whether it is within the tolerance.
        is_within: bool,
    },
    /// It is not on both sides in one shape.
    NotCompared,
}

/// The largest difference among the values of one place of the graph.
#[derive(Clone, Debug, Serialize)]
pub struct KindDifference {
    /// What they are called together, as in `layer*.wkv`.
    pub kind: String,
    /// The value that differs most.
    pub value: String,
    /// Where it does.
    pub token: usize,
    /// How far.
    #[serde(serialize_with = "number")]
    pub difference: f64,
    /// The largest magnitude of that token's row.
    pub scale: f64,
}

fn number<S: Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
    // JSON has no word for these.
    if number.is_finite() { to.serialize_f64(*number) } else { to.serialize_str(&number.to_string()) }
}

fn numbers<S: Serializer>(both: &[f64; 2], to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Number(#[serde(serialize_with = "number")] f64);
    both.map(Number).serialize(to)
}

impl InputFound {
    fn of(high: Option<&High>) -> Self {
        match high {
            None => Self::Same,
            Some(High { difference, scale, is_within, .. }) => {
                Self::Apart { difference: *difference, scale: *scale, is_within: *is_within }
            }
        }
    }

    /// Whether it is on both sides, and within the tolerance.
    pub const fn is_within(&self) -> bool {
        matches!(self, Self::Same | Self::Apart { is_within: true, .. })
    }
}

impl<E: Executor> Bisection<'_, E> {
    /// All that is to be told.
    pub(super) fn report(
        &self,
        found: Option<&Found>,
        notes: &Notes,
        alone: [Vec<String>; 2],
        unlike: Vec<String>,
    ) -> Report {
        let (kinds, kind_count) = self.kinds(found, notes);
        let facts = |side: usize| SideFacts {
            device: self.sides[side].executor.device().name.clone(),
            step_tokens: self.sides[side].step_tokens(),
            is_plan: self.sides[side].is_plan(),
        };
        Report {
            graph: self.sides[self.lead].graph().to_owned(),
            tokens: self.settings.tokens.len(),
            tolerance: self.settings.tolerance,
            sides: [facts(0), facts(1)],
            values: self.pairs.len(),
            passes: notes.passes,
            parting: found.map(|found| self.parting(found, notes)),
            kinds,
            kind_count,
            alone,
            unlike,
        }
    }

    fn parting(&self, found: &Found, notes: &Notes) -> Parting {
        let value = self.value(found.pair, self.lead);
        let (shape, at) = coordinates(value, found.token, found.apart.at);
        let op = self.op(found.pair, self.lead);
        let facts = op.map(|lead| {
            let both = [0, 1].map(|side| self.op(found.pair, side).unwrap_or(lead));
            OpFacts {
                label: lead.label.clone(),
                kernel: both.map(|op| op.kernel.clone()),
                file: both.map(|op| op.file.clone()),
                place: both.map(|op| op.place.clone()),
                has_same_text: found.has_same_text,
                bound_apart: bound_apart(both),
            }
        });
        // Inputs of the host are the same by what was asked for.
        let taken = op.into_iter().flat_map(|op| &op.inputs).filter(|taken| taken.from != From::Host);
        let inputs = taken.map(|taken| {
            let (port, value) = (taken.port.clone(), taken.path.clone());
            InputFacts { port, value, found: self.input(taken, found, notes) }
        });
        Parting {
            value: value.path.clone(),
            token: found.token,
            token_id: self.settings.tokens[found.token],
            is_after_step: value.along == Along::Step,
            steps: found.steps,
            op: facts,
            shape,
            at,
            elements: found.apart.elements,
            difference: found.apart.difference,
            allowed: found.apart.allowed,
            scale: found.apart.scale,
            inputs: inputs.collect(),
        }
    }

    /// How what an op reads compared.
    fn input(&self, taken: &Taken, found: &Found, notes: &Notes) -> InputFound {
        let mut pairs = (0..self.pairs.len()).rev();
        let value = |pair: usize| self.value(pair, self.lead);
        match &taken.from {
            From::Host => InputFound::Same,
            From::Weight(tensor) => self.weight(tensor),
            // The last version of the steps before.
            From::State(state) => match pairs.find(|pair| value(*pair).state == Some(*state)) {
                Some(pair) => InputFound::of(notes.high(pair, found.token)),
                None => InputFound::NotCompared,
            },
            From::Op => match pairs.find(|pair| value(*pair).path == taken.path) {
                Some(pair) => InputFound::of(notes.high(pair, found.token + 1)),
                None => InputFound::NotCompared,
            },
        }
    }

    /// How a weight of both checkpoints compares; as it is stored, whatever its layout.
    fn weight(&self, name: &str) -> InputFound {
        let tensor = |side: usize| {
            let checkpoint = self.sides[side].checkpoint;
            let info = checkpoint.index().get(name)?;
            let dtype = *info.dtype.as_ref().ok()?;
            Some((&info.shape, dtype, checkpoint.bytes(name)?))
        };
        let (Some((shape, dtype, one)), Some((other_shape, other_dtype, other))) = (tensor(0), tensor(1)) else {
            return InputFound::NotCompared;
        };
        if shape != other_shape {
            return InputFound::NotCompared;
        }
        let (one, other) = (Row { dtype, bytes: &one }, Row { dtype: other_dtype, bytes: &other });
        match compare(one, other, self.settings.tolerance) {
            None => InputFound::Same,
            Some(apart) => {
                let (difference, scale) = (apart.difference, apart.scale);
                InputFound::Apart { difference, scale, is_within: !apart.parts }
            }
        }
    }

    /// The largest difference of each kind up to the parting, and how many kinds there are up to there.
    fn kinds(&self, found: Option<&Found>, notes: &Notes) -> (Vec<KindDifference>, usize) {
        let mut largest: BTreeMap<usize, (&Value, &High)> = BTreeMap::new();
        let mut all = BTreeSet::new();
        for pair in 0..self.pairs.len() {
            // Behind the parting there are the tokens before it.
            let before = match found {
                Some(found) => found.token + usize::from(pair <= found.pair),
                None => self.settings.tokens.len(),
            };
            let value = self.value(pair, self.lead);
            if before > 0 {
                all.insert(value.kind);
            }
            let Some(high) = notes.high(pair, before) else { continue };
            let known = largest.entry(value.kind).or_insert((value, high));
            if high.difference > known.1.difference {
                *known = (value, high);
            }
        }
        let kinds = largest.into_iter().map(|(kind, (value, high))| KindDifference {
            kind: self.values[self.lead].kinds[kind].clone(),
            value: value.path.clone(),
            token: high.token,
            difference: high.difference,
            scale: high.scale,
        });
        (kinds.collect(), all.len())
    }
}

/// Ports of an op that are bound to other values on each side.
fn bound_apart([a, b]: [&Computed; 2]) -> Vec<String> {
    let other = |taken: &Taken| b.inputs.iter().find(|other| other.port == taken.port);
    let pairs = a.inputs.iter().filter_map(|taken| Some((taken, other(taken)?)));
    let apart = pairs.filter(|(one, other)| one.path != other.path);
    apart.map(|(one, other)| format!("{} is {} in A, {} in B", one.port, one.path, other.path)).collect()
}

/// The shape of a value in words, and the index on every axis of an element of a token's part.
fn coordinates(value: &Value, token: usize, element: usize) -> (String, Vec<usize>) {
    let mut rest = element;
    let mut at: Vec<usize> = Vec::new();
    for extent in value.row_shape().iter().rev() {
        at.insert(0, rest % *extent as usize);
        rest /= *extent as usize;
    }
    let mut axes: Vec<String> = value.shape.iter().map(u64::to_string).collect();
    match value.along {
        Along::Tokens { axis, each: 1 } => {
            at.insert(axis, token);
            axes[axis] = "T".to_owned();
        }
        Along::Tokens { axis, each } => {
            at[axis] += token * each;
            axes[axis] = format!("{each}T");
        }
        Along::Last => {
            at.insert(0, token);
            axes[0] = "T".to_owned();
        }
        Along::Step => {}
    }
    (format!("{}[{}]", value.dtype, axes.join(", ")), at)
}
