//! What kernels leave open, measured inside the real step.
//!
//! Gets an executor, a model's compiler and a checkpoint; returns the choices that made steps faster and all that was
//! tried. One use of a kernel is looked at after the other: each value that its manifest offers is compiled into the
//! whole step, which then runs in turns with the step as it is best so far, so that a clock that goes up or down, or
//! another program, hits both. What holds then: a choice is kept only if the median of its rounds is better by more
//! than they differ among themselves, and all choices for a step only if the tuned step beats the untuned one in the
//! same way. Never looks at what a step computes: that is for `verify`.

use serde::Serialize;

use crate::base::raw::Name;
use crate::base::span::Span;
use crate::base::step::StepShape;
use crate::checkpoint::Checkpoint;
use crate::compile::{CompileError, Compiler};
use crate::exec::{Executor, Inputs, PlanId, STEPS_IN_FLIGHT, Session, Weights};
use crate::generate::GenerateError;
use crate::inspect::bench::{queued, reset, step_inputs};
use crate::kernel::tune::Tune;
use crate::kernel::tuning::{Choice, Fact, Tuning};
use crate::model::{Model, Tunable};
use crate::plan::CheckedPlan;
use crate::plan::weights::StateLayout;

/// How long one side of a round takes, about: far longer than a clock's grain, short enough for turns.
const ROUND_SECONDS: f64 = 0.04;

/// Steps of one side of a round.
const MAX_STEPS: f64 = 512.0;
const MIN_STEPS: f64 = 2.0;

/// A gain that is worth a line of a file, however quiet the device is.
const MIN_GAIN: f64 = 0.002;

/// Rounds after which a candidate that lost every one of them is given up.
const EARLY_ROUNDS: usize = 3;

/// How often all that is open of one use is gone through: a second time if the first has changed anything, since one
/// constant's best value depends on the others'.
const MAX_PASSES: usize = 2;

/// What is tuned, and how long it is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TuneOptions {
    /// Tokens of each sequence, of each step to tune.
    pub tokens: Vec<u32>,
    /// Sequences of a step.
    pub sequences: u32,
    /// Rounds that are counted, of each candidate.
    pub rounds: u32,
}

/// One candidate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// Tokens of each sequence in the step.
    pub tokens: u32,
    /// The kernel.
    pub kernel: String,
    /// Which of its uses.
    pub at: String,
    /// How many ops of the step that are.
    pub ops: usize,
    /// What was changed, as in `ROWS 4 -> 8`.
    pub change: String,
    /// Time of the step by that without the change, the median of all rounds.
    pub ratio: f64,
    /// How far rounds lie from their median: three quarters of them no farther.
    pub noise: f64,
    /// Whether it was kept.
    pub kept: bool,
}

/// A step as a whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Tokens of each sequence.
    pub tokens: u32,
    /// Microseconds as the manifests have it.
    pub before_us: f64,
    /// Microseconds with all that was chosen.
    pub after_us: f64,
    /// Time with by time without, the median of all rounds; 1 if nothing was chosen.
    pub ratio: f64,
    /// As in [`Trial::noise`].
    pub noise: f64,
    /// Whether what was chosen for it was kept.
    pub kept: bool,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Tuned {
    /// The choices: those that the compiler had for other uses, and the new ones.
    pub tuning: Tuning,
    /// All that was tried, in order.
    pub trials: Vec<Trial>,
    /// The steps.
    pub steps: Vec<Step>,
}

/// Tunes steps of these sizes. What the compiler's own tuning chooses for the uses in them is measured anew. `tell`
/// hears of each candidate as it is done.
///
/// # Errors
/// If the model cannot be compiled as it is, or the device fails.
///
/// # Panics
/// If there is nothing to run: no steps, no rounds.
pub fn tune<E: Executor>(
    executor: &E,
    compiler: Compiler<'_>,
    checkpoint: &Checkpoint,
    options: &TuneOptions,
    tell: &mut dyn FnMut(&Trial),
) -> Result<Tuned, GenerateError> {
    assert!(!options.tokens.is_empty() && options.rounds > 0, "there is something to measure");
    let device = executor.device();
    let mut tuning = compiler.tuning.cloned().unwrap_or_default();
    (tuning.device, tuning.driver) = (device.name.clone(), device.driver.clone());
    let shapes: Vec<(u32, StepShape)> =
        options.tokens.iter().map(|tokens| (*tokens, shape(options, *tokens))).collect();
    for (_, shape) in &shapes {
        let model = Compiler { tuning: Some(&tuning), ..compiler }.compile(*shape)?.model;
        let uses = uses(&model);
        let is_measured = |choice: &Choice| uses.iter().any(|used| used.is(choice));
        tuning.choices.retain(|choice| !is_measured(choice));
    }
    let plan = Compiler { tuning: Some(&tuning), ..compiler }.compile(shapes[0].1)?.plan;
    let weights = Weights { layout: &plan.weights, checkpoint };
    let mut session = executor.open(&weights, &plan.state, &mut |_, _| ())?;
    let state = plan.state.clone();
    let mut tuned = Tuned { tuning, trials: Vec::new(), steps: Vec::new() };
    for (tokens, shape) in shapes {
        let race =
            Race { session: &mut session, inputs: step_inputs(options.sequences, tokens), state: &state, steps: 2 };
        step(race, compiler, (tokens, shape), options.rounds, &mut tuned, tell)?;
    }
    Ok(tuned)
}

fn shape(options: &TuneOptions, tokens: u32) -> StepShape {
    let sequences = options.sequences;
    StepShape { tokens: tokens * sequences, sequences, rows: sequences, capacity: sequences }
}

/// Uses of a kernel that a choice cannot tell apart.
struct Used {
    tunable: Tunable,
    ops: usize,
}

impl Used {
    /// Whether a choice is for these uses and no others.
    fn is(&self, choice: &Choice) -> bool {
        let at: Vec<(&str, Fact)> = choice.at.iter().map(|(name, fact)| (name.text.as_str(), *fact)).collect();
        choice.kernel.text == self.tunable.kernel
            && at.len() == self.tunable.at.len()
            && self.tunable.at.iter().all(|(name, fact)| at.contains(&(name.as_str(), *fact)))
    }

    fn at(&self) -> String {
        self.tunable.at.iter().map(|(name, fact)| format!("{name} {fact}")).collect::<Vec<_>>().join(", ")
    }
}

/// What a model uses of kernels that leave something open, in the order of its ops.
fn uses(model: &Model) -> Vec<Used> {
    let mut found: Vec<Used> = Vec::new();
    for op in model.ops.values() {
        let Some(tunable) = &op.tunable else { continue };
        let is_same = |used: &&mut Used| used.tunable.kernel == tunable.kernel && used.tunable.at == tunable.at;
        match found.iter_mut().find(is_same) {
            Some(used) => used.ops += 1,
            None => found.push(Used { tunable: tunable.clone(), ops: 1 }),
        }
    }
    found
}

/// One change to what is taken for a use.
#[derive(Clone, Debug)]
enum Change {
    Const(Name, i64),
    Variant(Name),
}

/// Two plans in turns.
struct Race<'s, S: Session> {
    session: &'s mut S,
    inputs: Inputs,
    state: &'s StateLayout,
    /// Steps of one side of a round.
    steps: u32,
}

/// How two plans compare: the ratio of their times, and their seconds a step.
struct Found {
    ratio: f64,
    noise: f64,
    seconds: [f64; 2],
}

impl Found {
    fn is_better(&self) -> bool {
        self.ratio < 1.0 - self.noise.max(MIN_GAIN)
    }
}

impl<S: Session> Race<'_, S> {
    fn prepare(&mut self, plan: CheckedPlan) -> Result<PlanId, GenerateError> {
        let id = self.session.prepare_timed(plan)?;
        // What is done once, by the driver too, is done here. The time of a frame counts when its next step is
        // submitted, so each has a second one.
        queued(self.session, (id, &self.inputs), self.state, 2 * STEPS_IN_FLIGHT as u32)?;
        Ok(id)
    }

    /// Seconds of a step, by the device's clock if it has one.
    fn seconds(&mut self, plan: PlanId) -> Result<f64, GenerateError> {
        reset(self.session, self.state)?;
        let before = self.session.gpu_cost();
        let wall = queued(self.session, (plan, &self.inputs), self.state, self.steps)?;
        let after = self.session.gpu_cost();
        let count = after.steps - before.steps;
        Ok(if count > 0 { (after.ns - before.ns) as f64 / 1e9 / count as f64 } else { wall })
    }

    /// Has both run in turns, and each first in half of the rounds.
    fn run(&mut self, [a, b]: [PlanId; 2], rounds: u32) -> Result<Found, GenerateError> {
        let (mut ratios, mut seconds) = (Vec::new(), [Vec::new(), Vec::new()]);
        for round in 0..rounds {
            let (first, second) = if round % 2 == 0 { (a, b) } else { (b, a) };
            let (one, other) = (self.seconds(first)?, self.seconds(second)?);
            let (of_a, of_b) = if round % 2 == 0 { (one, other) } else { (other, one) };
            seconds[0].push(of_a);
            seconds[1].push(of_b);
            ratios.push(of_b / of_a);
            if ratios.len() == EARLY_ROUNDS && ratios.iter().all(|ratio| *ratio > 1.0) {
                break;
            }
        }
        let ratio = quantile(&ratios, 2);
        let deviations: Vec<f64> = ratios.iter().map(|other| (other - ratio).abs()).collect();
        Ok(Found { ratio, noise: quantile(&deviations, 3), seconds: seconds.map(|of| quantile(&of, 2)) })
    }
}

/// The value below which so many quarters of the values are, the upper one of two.
fn quantile(values: &[f64], quarters: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[(values.len() * quarters / 4).min(values.len() - 1)]
}

/// Tunes one step.
fn step<S: Session>(
    mut race: Race<'_, S>,
    compiler: Compiler<'_>,
    (tokens, shape): (u32, StepShape),
    rounds: u32,
    tuned: &mut Tuned,
    tell: &mut dyn FnMut(&Trial),
) -> Result<(), GenerateError> {
    let compiled = Compiler { tuning: Some(&tuned.tuning), ..compiler }.compile(shape)?;
    let untuned = (tuned.tuning.clone(), race.prepare(compiled.plan.clone())?);
    let seconds = race.seconds(untuned.1)?;
    race.steps = (ROUND_SECONDS / seconds).clamp(MIN_STEPS, MAX_STEPS) as u32;
    let mut best = (compiled.plan, untuned.1);
    for mut used in uses(&compiled.model) {
        let kernel = compiler.kernels.get(&used.tunable.kernel).expect("ops are of kernels");
        let tune = kernel.tune.as_ref().expect("what leaves nothing open is no such use");
        for _ in 0..MAX_PASSES {
            let mut is_changed = false;
            for change in changes(tune, &used.tunable) {
                let Some(described) = described(&change, &used.tunable) else { continue };
                let candidate = with(&tuned.tuning, &used, &change, kernel.span);
                let Some(plan) = admitted(&Compiler { tuning: Some(&candidate), ..compiler }, shape)? else { continue };
                // What a text does not look at is no change.
                if plan == best.0 {
                    continue;
                }
                let id = race.prepare(plan.clone())?;
                let found = race.run([best.1, id], rounds)?;
                let (Found { ratio, noise, .. }, kept) = (&found, found.is_better());
                let (kernel, at, ops) = (used.tunable.kernel.clone(), used.at(), used.ops);
                let (ratio, noise) = (*ratio, *noise);
                tuned.trials.push(Trial { tokens, kernel, at, ops, change: described, ratio, noise, kept });
                tell(tuned.trials.last().expect("just pushed"));
                if kept {
                    (best, tuned.tuning, is_changed) = ((plan, id), candidate, true);
                    used.take(&change);
                }
            }
            if !is_changed {
                break;
            }
        }
    }
    let mut found = Step { tokens, before_us: 0.0, after_us: 0.0, ratio: 1.0, noise: 0.0, kept: false };
    if best.1 == untuned.1 {
        found.before_us = race.seconds(untuned.1)? * 1e6;
        found.after_us = found.before_us;
    } else {
        let whole = race.run([untuned.1, best.1], rounds)?;
        [found.before_us, found.after_us] = whole.seconds.map(|seconds| seconds * 1e6);
        (found.ratio, found.noise, found.kept) = (whole.ratio, whole.noise, whole.is_better());
        if !found.kept {
            tuned.tuning = untuned.0;
        }
    }
    tuned.steps.push(found);
    Ok(())
}

/// All that may be changed of a use, one thing at a time.
fn changes(tune: &Tune, tunable: &Tunable) -> Vec<Change> {
    let is_open = |name: &Name| tunable.consts.iter().any(|(other, _)| *other == name.text);
    let consts = tune.consts.iter().filter(|(name, _)| is_open(name));
    let values = consts.flat_map(|(name, values)| values.iter().map(|value| Change::Const(name.clone(), *value)));
    // Texts first: which constants matter depends on them.
    let texts = tune.variants.iter().map(|name| Change::Variant(name.clone()));
    texts.chain(values).collect()
}

/// A change in words; nothing if it is what is taken already.
fn described(change: &Change, tunable: &Tunable) -> Option<String> {
    match change {
        Change::Const(name, value) => {
            let (_, now) = tunable.consts.iter().find(|(other, _)| *other == name.text)?;
            (now != value).then(|| format!("{} {now} -> {value}", name.text))
        }
        Change::Variant(name) => {
            (tunable.variant != name.text).then(|| format!("{} -> {}", tunable.variant, name.text))
        }
    }
}

impl Used {
    fn take(&mut self, change: &Change) {
        match change {
            Change::Variant(name) => self.tunable.variant.clone_from(&name.text),
            Change::Const(name, value) => {
                let known = self.tunable.consts.iter_mut().find(|(other, _)| *other == name.text);
                known.expect("only what is open is changed").1 = *value;
            }
        }
    }
}

/// The choices with one more change to one use. Places are those of the kernel's manifest: there is no file yet.
fn with(tuning: &Tuning, used: &Used, change: &Change, span: Span) -> Tuning {
    let mut tuning = tuning.clone();
    let name = |text: &str| Name { text: text.to_owned(), span };
    let at = match tuning.choices.iter().position(|choice| used.is(choice)) {
        Some(at) => at,
        None => {
            let at = used.tunable.at.iter().map(|(word, fact)| (name(word), *fact)).collect();
            let kernel = name(&used.tunable.kernel);
            tuning.choices.push(Choice { kernel, at, consts: Vec::new(), variant: None, is_strict: true, span });
            tuning.choices.len() - 1
        }
    };
    let choice = &mut tuning.choices[at];
    match change {
        Change::Variant(text) => choice.variant = Some(name(&text.text)),
        Change::Const(constant, value) => {
            choice.consts.retain(|(other, _)| other.text != constant.text);
            choice.consts.push((name(&constant.text), *value));
            choice.consts.sort_by(|(one, _), (other, _)| one.text.cmp(&other.text));
        }
    }
    tuning
}

/// The plan, unless the kernel's guards or the device refuse what was chosen.
fn admitted(compiler: &Compiler<'_>, shape: StepShape) -> Result<Option<CheckedPlan>, GenerateError> {
    match compiler.compile(shape) {
        Ok(compiled) => Ok(Some(compiled.plan)),
        Err(CompileError::Wrong { .. } | CompileError::TooSmall(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarters_of_values_are_counted_from_below() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!([1, 2, 3, 4].map(|quarters| quantile(&values, quarters)), [2.0, 3.0, 4.0, 5.0]);
        assert_eq!(quantile(&[7.0], 3), 7.0);
    }

    #[test]
    fn a_gain_within_the_noise_is_none() {
        let found = |ratio, noise| Found { ratio, noise, seconds: [1.0, 1.0] }.is_better();
        assert!(found(0.98, 0.01) && found(0.99, 0.0));
        assert!(!found(0.995, 0.01) && !found(0.999, 0.0) && !found(1.0, 0.0) && !found(1.1, 0.5));
    }
}
