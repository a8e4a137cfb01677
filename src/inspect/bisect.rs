//! Two configurations run side by side, and the first value that parts.
//!
//! Gets two sides (an executor, a graph or a plan, weights each), tokens and a tolerance; returns a [`Report`]. What
//! holds then: every value that both sides have was compared at every token before the one at which the first parts,
//! and at that token every value before it in the order of the graph. So all that it was computed from in this and in
//! earlier tokens is within the tolerance, weights aside. Values are kept as outputs, as many at once as the bound on
//! bytes allows; where there are more, the tokens are run again with others kept. That changes which values share
//! memory, and nothing that is computed. Never says which side is right.

mod compare;
mod print;
mod report;
mod side;

pub use compare::Tolerance;
pub use print::text;
pub use report::{InputFacts, InputFound, KindDifference, OpFacts, Parting, Report, SideFacts};
pub use side::{Side, Source};

use std::collections::BTreeMap;
use std::fmt;

use crate::exec::Executor;
use crate::generate::GenerateError;
use crate::generate::plans::PlanSetError;
use crate::inspect::bisect::compare::{Apart, Row, compare};
use crate::inspect::values::{Along, Computed, Value, Values, row};

/// Copies of a value that are in memory at once on each side: one for each step in flight, and one that is compared.
const COPIES: u64 = 3;

/// How to compare.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// What to run.
    pub tokens: &'a [u32],
    /// How far values may be apart.
    pub tolerance: Tolerance,
    /// Bytes of values to hold at once; a value that is larger is held alone.
    pub held_bytes: u64,
}

/// Why two sides cannot be compared.
#[derive(Debug)]
#[non_exhaustive]
pub enum BisectError {
    /// One of them does not run.
    Run(GenerateError),
    /// A plan that no tokens can be run by.
    Plan(PlanSetError),
    /// No value is on both sides in one shape.
    NothingInCommon {
        /// What there is.
        reason: String,
    },
}

impl fmt::Display for BisectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(error) => error.fmt(f),
            Self::Plan(error) => f.write_str(&error.reason),
            Self::NothingInCommon { reason } => write!(f, "the two have no value in common: {reason}"),
        }
    }
}

impl std::error::Error for BisectError {}

impl From<GenerateError> for BisectError {
    fn from(error: GenerateError) -> Self {
        Self::Run(error)
    }
}

/// Which of the two sides something is wrong with; nothing if it is both together.
pub type Failed = (Option<usize>, BisectError);

fn of_side<T, E: Into<BisectError>>(side: usize, result: Result<T, E>) -> Result<T, Failed> {
    result.map_err(|error| (Some(side), error.into()))
}

/// A value that both sides have: its indices into the values of either.
type Pair = [usize; 2];

/// A difference larger than those at all tokens before it.
#[derive(Clone, Copy)]
struct High {
    token: usize,
    difference: f64,
    scale: f64,
    is_within: bool,
}

/// What passes have noted so far.
struct Notes {
    /// By pair, in the order of tokens.
    highs: Vec<Vec<High>>,
    passes: usize,
}

impl Notes {
    /// The largest difference of a pair before a token.
    fn high(&self, pair: usize, before: usize) -> Option<&High> {
        self.highs[pair].iter().rfind(|high| high.token < before)
    }

    fn note(&mut self, pair: usize, token: usize, apart: &Apart) {
        let highs = &mut self.highs[pair];
        if highs.last().is_none_or(|last| apart.difference > last.difference) {
            let Apart { difference, scale, parts, .. } = *apart;
            highs.push(High { token, difference, scale, is_within: !parts });
        }
    }
}

/// Where something parts: first by token, then by the order of the graph.
#[derive(Clone, Copy)]
struct Found {
    token: usize,
    pair: usize,
    apart: Apart,
    steps: [(usize, usize); 2],
    has_same_text: Option<bool>,
}

struct Bisection<'a, E> {
    sides: [Side<'a, E>; 2],
    values: [Values; 2],
    /// The side whose order and ops are told of.
    lead: usize,
    /// In the order of the graph.
    pairs: Vec<Pair>,
    settings: Settings<'a>,
}

/// Runs two sides and finds the first value that parts. `progress` is called with tokens done and their number, of all
/// passes.
///
/// # Errors
/// If a side cannot be compiled or run, or the two have nothing in common.
pub fn bisect<E: Executor>(
    sides: [Side<'_, E>; 2],
    settings: Settings<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, Failed> {
    let values = values(&sides)?;
    let lead = usize::from(sides[0].is_plan() && !sides[1].is_plan());
    let (pairs, alone, unlike) = pairs(&values, lead);
    if pairs.is_empty() {
        let [a, b] = [0, 1].map(|side| values[side].values.len());
        let reason = format!("A has {a}, B {b}, of other names or shapes");
        return Err((None, BisectError::NothingInCommon { reason }));
    }
    let mut notes = Notes { highs: vec![Vec::new(); pairs.len()], passes: 0 };
    let bisection = Bisection { sides, values, lead, pairs, settings };
    let found = bisection.search(&mut notes, progress)?;
    Ok(bisection.report(found.as_ref(), &notes, alone, unlike))
}

/// What can be looked at on both sides: every value, or what a plan gives if one of them is a plan.
fn values<E: Executor>(sides: &[Side<'_, E>; 2]) -> Result<[Values; 2], Failed> {
    let mut found = [of_side(0, sides[0].values())?, of_side(1, sides[1].values())?];
    if sides.iter().any(Side::is_plan) {
        for (side, values) in found.iter_mut().enumerate().filter(|(side, _)| !sides[*side].is_plan()) {
            let plan = of_side(side, sides[side].plan(&[]))?;
            *values = std::mem::take(values).with_states(&plan);
        }
        for side in [0, 1] {
            if let Source::Plan(plan) = sides[side].source {
                let other = found[1 - side].clone();
                found[side].learn(&other, (plan.shape.tokens, plan.shape.rows));
            }
        }
    }
    Ok(found)
}

/// Values of both sides with one path and one shape, in the order of `lead`; paths of one side alone; and values that
/// differ in shape.
fn pairs(values: &[Values; 2], lead: usize) -> (Vec<Pair>, [Vec<String>; 2], Vec<String>) {
    let by_path = |side: usize| -> BTreeMap<&str, usize> {
        values[side].values.iter().enumerate().map(|(nth, value)| (value.path.as_str(), nth)).collect()
    };
    let known = [by_path(0), by_path(1)];
    let alone = |side: usize| -> Vec<String> {
        let paths = values[side].values.iter().map(|value| &value.path);
        paths.filter(|path| !known[1 - side].contains_key(path.as_str())).cloned().collect()
    };
    let (mut pairs, mut unlike) = (Vec::new(), Vec::new());
    for value in &values[lead].values {
        let path = value.path.as_str();
        let (Some(a), Some(b)) = (known[0].get(path), known[1].get(path)) else { continue };
        let (one, other) = (&values[0].values[*a], &values[1].values[*b]);
        let is_whole = |value: &Value| value.along == Along::Step;
        if one.row_shape() == other.row_shape() && is_whole(one) == is_whole(other) {
            pairs.push([*a, *b]);
        } else {
            unlike.push(format!("{path}: {:?} in A, {:?} in B", one.shape, other.shape));
        }
    }
    (pairs, [alone(0), alone(1)], unlike)
}

impl<E: Executor> Bisection<'_, E> {
    /// A value of a pair on one side.
    fn value(&self, pair: usize, side: usize) -> &Value {
        &self.values[side].values[self.pairs[pair][side]]
    }

    /// What computes it there.
    fn op(&self, pair: usize, side: usize) -> Option<&Computed> {
        self.value(pair, side).op.map(|op| &self.values[side].ops[op])
    }

    /// The first value that parts, by token and then by the order of the graph. What one pass has found bounds the
    /// tokens of those that follow.
    fn search(&self, notes: &mut Notes, progress: &mut dyn FnMut(u64, u64)) -> Result<Option<Found>, Failed> {
        let mut first: Option<Found> = None;
        let groups = self.groups();
        let tokens = self.settings.tokens.len();
        for (nth, group) in groups.iter().enumerate() {
            let end = match &first {
                None => tokens,
                // Values in front of the one found may part at its token too, those behind it only earlier.
                Some(found) => found.token + usize::from(group[0] < found.pair),
            };
            let (before, all) = ((nth * tokens) as u64, (groups.len() * tokens) as u64);
            let found = self.pass(group, end, notes, &mut |token| progress(before + token as u64, all))?;
            let place = |found: &Found| (found.token, found.pair);
            let is_first = |found: &Found| first.as_ref().is_none_or(|first| place(found) < place(first));
            first = found.filter(is_first).or(first);
        }
        Ok(first)
    }

    /// The pairs in groups whose values can be held at once, each in the order of the graph. If there are several
    /// groups, the first is what a step leaves: almost whatever goes wrong is seen in it, and then the other passes
    /// take fewer tokens.
    fn groups(&self) -> Vec<Vec<usize>> {
        let bytes = |pair: usize| [0, 1].map(|side| self.value(pair, side).size_bytes() * COPIES).iter().sum::<u64>();
        let held_bytes = self.settings.held_bytes;
        let mut order: Vec<usize> = (0..self.pairs.len()).collect();
        if order.iter().map(|pair| bytes(*pair)).sum::<u64>() > held_bytes {
            let states = order.iter().filter_map(|pair| Some((self.value(*pair, self.lead).state?, *pair)));
            let last: BTreeMap<u32, usize> = states.collect();
            let left: Vec<usize> = last.into_values().chain([self.pairs.len() - 1]).collect();
            order.sort_by_key(|pair| (!left.contains(pair), *pair));
        }
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut held = 0;
        for pair in order {
            let size_bytes = bytes(pair);
            match groups.last_mut() {
                Some(group) if held + size_bytes <= held_bytes => group.push(pair),
                _ => {
                    groups.push(vec![pair]);
                    held = 0;
                }
            }
            held += size_bytes;
        }
        groups.iter_mut().for_each(|group| group.sort_unstable());
        groups
    }

    /// Runs the tokens before `end` with a group of values kept, up to the first that parts.
    fn pass(
        &self,
        group: &[usize],
        end: usize,
        notes: &mut Notes,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Option<Found>, Failed> {
        if end == 0 {
            return Ok(None);
        }
        notes.passes += 1;
        let of = |side: usize| group.iter().map(|pair| self.value(*pair, side)).collect::<Vec<_>>();
        let tokens = self.settings.tokens;
        let begin = |side: usize| of_side(side, self.sides[side].pass(of(side), tokens));
        let mut passes = [begin(0)?, begin(1)?];
        for token in 0..end {
            for (side, pass) in passes.iter_mut().enumerate() {
                of_side(side, pass.reach(token))?;
            }
            for (nth, pair) in group.iter().enumerate() {
                let [Some((a, part_a)), Some((b, part_b))] = [0, 1].map(|side| passes[side].given(nth, token)) else {
                    // It has no part of this token's, or not on both sides.
                    continue;
                };
                let (one, other) = (row(a, part_a), row(b, part_b));
                let (one, other) = (Row { dtype: a.dtype, bytes: &one }, Row { dtype: b.dtype, bytes: &other });
                let Some(apart) = compare(one, other, self.settings.tolerance) else { continue };
                notes.note(*pair, token, &apart);
                if apart.parts {
                    let text = |side: usize| passes[side].text(&self.op(*pair, side)?.label);
                    let has_same_text = text(0).zip(text(1)).map(|(a, b)| a == b);
                    let steps = [passes[0].step(), passes[1].step()];
                    return Ok(Some(Found { token, pair: *pair, apart, steps, has_same_text }));
                }
            }
            progress(token + 1);
        }
        Ok(None)
    }
}
