//! Proof by experiment that a plan's transitions are sufficient and each of them necessary, and that executors agree.
//!
//! Gets plans and sessions; returns what was found. What holds then: of every transition tried, removing it or changing
//! one of its three parts is noticed by the checker and by the oracle, unless the mutant is named as a survivor; and
//! the intact plans gave the same bits on every executor, step by step, states included, unless the difference is
//! named. Never touches the plan that is looked at: mutants are made of a copy.

pub mod layer;
pub mod masks;
pub mod mutate;
pub mod rules;

use crate::base::role::{InputRole, OutputRole};
use crate::exec::reference::sanitize::shadow::{self, Footprints};
use crate::exec::{ExecError, Inputs, PlanId, Session, Ticket};
use crate::inspect::oracle::{longest_chain, unordered, unordered_between};
use crate::inspect::verify::layer::Sighting;
use crate::inspect::verify::masks::Model;
use crate::inspect::verify::mutate::{Verdict, judge, mutants, sorts, transitions};
use crate::plan::Plan;
use crate::plan::weights::StateLayout;
use crate::tensor::{self, Tensor};

/// A mutant and all that can be said of it without running it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The mutant, and what a validation layer should say of it.
    pub sighting: Sighting,
    /// Who notices it.
    pub verdict: Verdict,
}

impl Tried {
    /// Whether the checker or the oracle has nothing against it.
    pub fn survives(&self) -> bool {
        self.verdict.refusal.is_none() || self.verdict.pair.is_none()
    }
}

/// The mutants of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// How many transitions have mutants.
    pub sampled: usize,
    /// How many those stand for: all, since what is left out is like one that is tried.
    pub covered: usize,
    /// The mutants, by transition.
    pub mutants: Vec<Tried>,
}

/// Tries every transition of a plan, or one of each sort. `progress` is called with transitions done and their number.
pub fn try_mutants(plan: &Plan, model: &Model<'_>, all: bool, progress: &mut dyn FnMut(u64, u64)) -> Trial {
    let sampled: Vec<_> = match all {
        true => transitions(plan).map(|(at, _)| (at, 1)).collect(),
        false => sorts(plan),
    };
    let mut copy = plan.clone();
    let mut tried = Vec::new();
    for (done, (at, _)) in sampled.iter().enumerate() {
        for mutant in mutants(plan, *at) {
            let verdict = judge(&mut copy, &mutant);
            let predicted = model.predict(&[mutant.edit]);
            tried.push(Tried { sighting: Sighting { mutant, predicted }, verdict });
        }
        progress(done as u64 + 1, sampled.len() as u64);
    }
    assert!(copy == *plan, "every mutant was changed back");
    Trial { sampled: sampled.len(), covered: sampled.iter().map(|(_, count)| count).sum(), mutants: tried }
}

/// Pairs of accesses that nothing orders in plans that follow each other in any order, in words.
pub fn unordered_pairs(plans: &[&Plan]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, plan) in plans.iter().enumerate() {
        found.extend(unordered(plan).iter().map(|pair| format!("{} plan: {}", tokens(plan), pair.text(plan))));
        for other in plans.iter().enumerate().filter(|(of, _)| *of != at).map(|(_, other)| other) {
            let pairs = unordered_between(plan, other);
            let both = format!("{} plan before the {} plan", tokens(plan), tokens(other));
            found.extend(pairs.iter().map(|pair| {
                let (buffer, label) = (pair.buffer, &plan.buffers[pair.buffer].label);
                format!("{both}: {} at `{buffer} {label}`, and nothing orders the two accesses", pair.hazard)
            }));
        }
    }
    found
}

/// Plans that have other than as many levels as the longest chain of their commands, in words. Whatever a plan says of
/// that chain itself: it may come from a file.
pub fn needless_levels(plans: &[&Plan]) -> Vec<String> {
    let wrong =
        plans.iter().map(|plan| (plan, longest_chain(plan))).filter(|(plan, least)| plan.levels.len() != *least);
    let words = |(plan, least): (&&Plan, usize)| {
        let found = plan.levels.len();
        format!("{} plan: expected the {least} levels of its longest chain of commands, found {found}", tokens(plan))
    };
    wrong.map(words).collect()
}

fn tokens(plan: &Plan) -> String {
    format!("T={}", plan.shape.tokens)
}

/// How many steps of a [`script`] it takes until every plan has run, and the first one again.
pub const fn steps_of_all(plans: &[&Plan]) -> usize {
    if plans.len() > 1 { plans.len() + 1 } else { plans.len() }
}

/// The steps of a comparison: which plan, and its inputs. First all plans and the first one again; then every plan
/// follows itself and every other one.
pub fn script(plans: &[&Plan], seed: u64) -> Vec<(usize, Inputs)> {
    let mut random = fastrand::Rng::with_seed(seed);
    let pairs = (0..plans.len()).flat_map(|one| (0..plans.len()).flat_map(move |other| [one, other]));
    let all = (0..plans.len()).cycle().take(steps_of_all(plans));
    all.chain(pairs).map(|plan| (plan, inputs(plans[plan], &mut random))).collect()
}

/// Tokens at random for sequences of equal length, each in the row of its number.
fn inputs(plan: &Plan, random: &mut fastrand::Rng) -> Inputs {
    let logits = plan.outputs.iter().find(|output| output.role == OutputRole::Logits);
    let vocabulary = logits.and_then(|output| output.shape.last()).map_or(1, |columns| (*columns).max(1));
    let vocabulary = u32::try_from(vocabulary).unwrap_or(u32::MAX);
    let (tokens, sequences) = (u64::from(plan.shape.tokens), u64::from(plan.shape.sequences));
    let share = |nth: u64, of: u64| (nth * tokens / of.max(1)).min(tokens) as u32;
    plan.inputs.iter().fold(Inputs::new(), |inputs, input| {
        let numbers = 0..input.count;
        let elements = match input.role {
            InputRole::TokenIds => numbers.map(|_| random.u32(0..vocabulary)).collect(),
            InputRole::SequenceOffsets => numbers.map(|nth| share(nth, sequences)).collect(),
            InputRole::StateRows => numbers.map(|nth| nth as u32).collect(),
            // The last token of each share.
            InputRole::OutputRows => numbers.map(|nth| share(nth + 1, input.count).saturating_sub(1)).collect(),
            // The best: a temperature of 0.
            InputRole::DrawRules => numbers.map(|_| 0).collect(),
        };
        inputs.with(input.role, elements)
    })
}

/// What steps gave: each output of each step, then each row of each state buffer, with a name for each.
pub type Trace = Vec<(String, Tensor)>;

/// Runs steps, two in flight, and reads everything that they leave behind.
///
/// # Errors
/// If a step fails.
pub fn trace<S: Session>(
    session: &mut S,
    plans: &[PlanId],
    steps: &[(usize, Inputs)],
    state: &StateLayout,
) -> Result<Trace, ExecError> {
    let mut found = Trace::new();
    let mut take = |session: &mut S, (step, ticket): (usize, Ticket)| -> Result<(), ExecError> {
        let outputs = session.outputs(ticket)?.tensors.into_iter();
        found.extend(outputs.map(|(name, _, tensor)| (format!("output `{name}` of step {step}"), tensor)));
        Ok(())
    };
    let mut flying = None;
    for (step, (plan, inputs)) in steps.iter().enumerate() {
        let ticket = session.step(plans[*plan], inputs)?;
        if let Some(before) = flying.replace((step, ticket)) {
            take(session, before)?;
        }
    }
    flying.map_or(Ok(()), |last| take(session, last))?;
    for (number, buffer) in state.buffers.iter().enumerate() {
        for row in 0..buffer.rows {
            let name = format!("state `{}`, row {row}, after {} steps", buffer.label, steps.len());
            found.push((name, session.read_state(number as u32, row)?));
        }
    }
    Ok(found)
}

/// The first thing in which two traces of the same steps differ, in words.
pub fn difference(one: &Trace, other: &Trace) -> Option<String> {
    if one.len() != other.len() {
        return Some(format!("expected as many results, found {} and {}", one.len(), other.len()));
    }
    one.iter().zip(other).find(|((_, a), (_, b))| a != b).map(|((name, a), (_, b))| {
        let count = a.bytes.iter().zip(&b.bytes).filter(|(a, b)| a != b).count();
        format!("{name}: expected the same bits, found {count} of {} bytes that differ", a.bytes.len())
    })
}

/// How far results on the CPU may be from those of a device, relative to the largest element of a tensor: the rounding
/// of some hundred additions, in whatever order.
pub const TOLERANCE: f32 = 1e-4;

/// The first thing in which traces of the same steps on unlike devices are further apart than rounding explains, in
/// words. Of the longer trace, the steps that the other has too are looked at.
pub fn distance(one: &Trace, other: &Trace) -> Option<String> {
    let pairs = other.iter().filter_map(|(name, b)| Some((name, &one.iter().find(|(same, _)| same == name)?.1, b)));
    pairs.into_iter().find_map(|(name, a, b)| {
        let (a, b) = (a.to_f32(), b.to_f32());
        if a.len() != b.len() {
            return Some(format!("{name}: expected {} elements, found {}", a.len(), b.len()));
        }
        let largest = a.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let tensor::Difference { max, at, .. } = tensor::difference(&b, &a);
        let limit = TOLERANCE * largest.max(1.0);
        (max > limit).then(|| format!("{name}: expected element {at} within {limit:.1e}, found it {max:.1e} off"))
    })
}

/// What the reference executor's model of visibility has against each mutant; nothing where it notices none. One step
/// that ran with its sanitizer says which words the commands touch; no mutant runs.
pub fn notice(plan: &Plan, footprints: &Footprints, trial: &Trial) -> Vec<Option<String>> {
    let notice = |tried: &Tried| shadow::noticed(plan, footprints, &[tried.sighting.mutant.edit]);
    trial.mutants.iter().map(notice).collect()
}

/// The mutants alone.
pub fn sightings(trial: &Trial) -> Vec<Sighting> {
    trial.mutants.iter().map(|tried| tried.sighting.clone()).collect()
}
