//! How fast a model runs, and how fast it could.
//!
//! Gets an executor, a model's compiler and that of a streaming read; returns a [`Report`]. What holds then: every
//! figure is the median of several rounds of one run, after a round that is not counted, each from the same initial
//! state; the device's bandwidth was measured by the same executor in the same run; a model that is fused was compared
//! with the graph as it is written, in the plans that rounds run ([`Results`]). Never prints, and never samples but
//! greedily.

pub mod results;

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::base::role::{CARRIED, DRAW_WORDS, InputRole};
use crate::base::step::StepShape;
use crate::checkpoint::Checkpoint;
use crate::compile::Compiler;
use crate::exec::{ExecError, Executor, Inputs, PlanId, STEPS_IN_FLIGHT, Session, Weights};
use crate::generate::batch::{Batch, Feed, SequenceId};
use crate::generate::sample::argmax;
use crate::generate::{GenerateError, Rows, STEP_TOKENS};
use crate::inspect::bench::results::{Expected, Results};
use crate::model::{Model, Origin, ValueId};
use crate::plan::CheckedPlan;
use crate::plan::weights::StateLayout;

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BenchOptions {
    /// Tokens of the prompt.
    pub prefill_tokens: u32,
    /// Steps of one token of each sequence, in a round.
    pub decode_tokens: u32,
    /// Sequences decoded at once.
    pub sequences: u32,
    /// Rounds that are counted.
    pub rounds: u32,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Name of the graph.
    pub graph: String,
    /// Name of the device.
    pub device: String,
    /// Its driver.
    pub driver: String,
    /// `hal` or `wgpu`.
    pub executor: String,
    /// The tuning file that plans were compiled with, if there was one.
    pub tuning: Option<String>,
    /// Tokens of the prompt.
    pub prefill_tokens: u32,
    /// Steps of a round of decoding.
    pub decode_tokens: u32,
    /// Sequences decoded at once.
    pub sequences: u32,
    /// Rounds that were counted.
    pub rounds: u32,
    /// Dispatches of a decode step.
    pub dispatches: u64,
    /// Levels of a decode step, copies included.
    pub levels: u64,
    /// Barrier calls of a decode step: the plan's, which the `wgpu` executor leaves to wgpu.
    pub barriers: u64,
    /// Tokens of one sequence's prompt by the time until the last one's logits are on the host.
    pub prefill_tokens_per_s: f64,
    /// Synchronised decoding, of all sequences together: the host waits for each step's logits, takes the best of each
    /// sequence and submits the next step.
    pub decode_tokens_per_s: f64,
    /// Decoding of all sequences together with two steps in flight, tokens known beforehand, the host reading nothing
    /// in between.
    pub decode_queued_tokens_per_s: f64,
    /// Decoding with the best token drawn by the steps themselves: each is submitted before the host knows the token
    /// that it reads, and the host reads them all; nothing if the graph has no steps that draw.
    pub decode_carried_tokens_per_s: Option<f64>,
    /// Recording, where the commands of a step are not those of one before it, and submitting, by step of synchronised
    /// decoding.
    pub cpu_us_per_step: f64,
    /// From a step's first command to the end of its last, by the GPU's clock, two steps in flight; nothing if it has
    /// no clock that the executor can use.
    pub gpu_us_per_step: Option<f64>,
    /// Bytes of weights that a decode step reads: [`weight_bytes_read`].
    pub weight_bytes_per_token: u64,
    /// What a kernel that only reads gets from the device, in 10^9 bytes a second.
    pub bandwidth_gb_per_s: f64,
    /// `weight_bytes_per_token` by the time of a step of queued decoding, as a share of the bandwidth: 1 is the floor
    /// that no decoder gets below, however many sequences share a step. More than 1 where the weights stay in a cache.
    pub bandwidth_share: f64,
    /// How far results are from those of the graph as it is written; nothing, and no fields, if it is run as such.
    #[serde(flatten)]
    pub results: Option<Results>,
}

/// Measures a model. `stream` compiles the graph of the streaming read, whose state of `B` rows a step reads `T` times.
///
/// # Errors
/// If a plan cannot be made or the device fails.
///
/// # Panics
/// If there is nothing to run: no tokens, no rounds.
pub fn bench<E: Executor>(
    executor: &E,
    name: &str,
    model: Compiler<'_>,
    stream: &Compiler<'_>,
    checkpoint: &Checkpoint,
    options: &BenchOptions,
) -> Result<Report, GenerateError> {
    let BenchOptions { prefill_tokens, decode_tokens, sequences, rounds } = *options;
    assert!(prefill_tokens > 0 && decode_tokens > 0 && sequences > 0 && rounds > 0, "there is something to run");
    let bytes_per_s = bandwidth(executor, stream, checkpoint, rounds)?;
    let expected = match model.fuse {
        Some(_) => Some(unfused(executor, model, checkpoint, options)?),
        None => None,
    };

    let draws = model.graph.carry.is_some();
    let opened = if draws { Compiler { draws, keep: &[], ..model } } else { model };
    let mut batch = Batch::open(executor, opened, checkpoint, sizes(sequences), &mut |_, _| ())?;
    // Plans of the session's weights.
    let model = Compiler { copies: model.copies && !batch.lacks_copies(), ..model };
    let compiled = model.compile(decode_shape(sequences))?;
    let (weight_bytes, plan) = (weight_bytes_read(&compiled.model), compiled.plan);
    batch.prepare(&[prefill_tokens as usize], Rows::Last)?;
    batch.prepare(&vec![1; sequences as usize], Rows::Last)?;
    let drawing = match draws {
        true => Some(Compiler { draws, keep: &[], ..model }.compile(decode_shape(sequences))?.plan),
        false => None,
    };

    let joined = (0..sequences).map(|_| batch.join()).collect::<Result<Vec<_>, _>>()?;
    let prompt = prompt(prefill_tokens, batch.options().vocabulary);
    let seconds = seconds(&mut batch, &joined, &prompt, (&plan, drawing), options)?;
    let compare = |expected| results::compare(&mut batch, &joined, &prompt, expected);
    let mut results = expected.as_ref().map(compare).transpose()?;
    drop(batch);
    if let (Some(results), Some(expected)) = (&mut results, &expected)
        && !results.are_right
    {
        let model = Compiler { batch_invariant: true, ..as_written(model) };
        let mut batch = Batch::open(executor, model, checkpoint, sizes(sequences), &mut |_, _| ())?;
        results.reordered_difference = results::reordered(&mut batch, sequences, &prompt, expected)?;
    }

    let (summary, device) = (plan.summary(), executor.device());
    Ok(Report {
        graph: summary.graph,
        device: device.name.clone(),
        driver: device.driver.clone(),
        executor: name.to_owned(),
        tuning: model.tuning.map(|tuning| tuning.name.clone()),
        prefill_tokens,
        decode_tokens,
        sequences,
        rounds,
        dispatches: summary.dispatches,
        levels: summary.levels,
        barriers: summary.barriers,
        prefill_tokens_per_s: f64::from(prefill_tokens) / seconds.prefill,
        decode_tokens_per_s: f64::from(sequences) / seconds.synced,
        decode_queued_tokens_per_s: f64::from(sequences) / seconds.queued,
        decode_carried_tokens_per_s: seconds.carried.map(|seconds| f64::from(sequences) / seconds),
        cpu_us_per_step: seconds.cpu * 1e6,
        gpu_us_per_step: seconds.gpu.map(|seconds| seconds * 1e6),
        weight_bytes_per_token: weight_bytes,
        bandwidth_gb_per_s: bytes_per_s / 1e9,
        bandwidth_share: weight_bytes as f64 / seconds.queued / bytes_per_s,
        results,
    })
}

/// Rows of state, and tokens of steps.
fn sizes(sequences: u32) -> (u32, Vec<u32>) {
    let larger = STEP_TOKENS.into_iter().filter(|size| *size > sequences);
    (sequences, std::iter::once(sequences).chain(larger).collect())
}

/// The tokens of a prompt.
fn prompt(tokens: u32, vocabulary: u64) -> Vec<u32> {
    (0..u64::from(tokens)).map(|at| (at % vocabulary) as u32).collect()
}

/// What the graph as it is written computes, in a session that has ended when this returns.
fn unfused<E: Executor>(
    executor: &E,
    model: Compiler<'_>,
    checkpoint: &Checkpoint,
    options: &BenchOptions,
) -> Result<Expected, GenerateError> {
    let BenchOptions { prefill_tokens, sequences, .. } = *options;
    let mut batch = Batch::open(executor, as_written(model), checkpoint, sizes(sequences), &mut |_, _| ())?;
    let prompt = prompt(prefill_tokens, batch.options().vocabulary);
    results::expected(&mut batch, sequences, &prompt)
}

fn as_written(model: Compiler<'_>) -> Compiler<'_> {
    Compiler { fuse: None, keep: &[], ..model }
}

/// Seconds of the whole prompt, and of a step.
struct Seconds {
    prefill: f64,
    synced: f64,
    cpu: f64,
    queued: f64,
    carried: Option<f64>,
    gpu: Option<f64>,
}

fn seconds<S: Session>(
    batch: &mut Batch<'_, S>,
    joined: &[SequenceId],
    prompt: &[u32],
    (plan, drawing): (&CheckedPlan, Option<CheckedPlan>),
    options: &BenchOptions,
) -> Result<Seconds, GenerateError> {
    let BenchOptions { decode_tokens, sequences, rounds, .. } = *options;
    let began = Instant::now();
    while began.elapsed() < WARM {
        prefill(batch, joined[0], prompt)?;
    }
    let [prefill] = medians(rounds, || Ok([prefill(batch, joined[0], prompt)?]))?;
    let [synced, cpu] = medians(rounds, || synced(batch, joined, decode_tokens))?;
    let session = batch.session();
    let inputs = step_inputs(sequences, 1);
    let step = session.prepare(plan.clone())?;
    let timed = session.prepare_timed(plan.clone())?;
    // In turn, so that a clock that goes up or down changes both alike.
    let [queued_step, gpu] = medians(rounds, || {
        let untimed = queued(session, (step, &inputs), &plan.state, decode_tokens)?;
        let before = session.gpu_cost();
        queued(session, (timed, &inputs), &plan.state, decode_tokens)?;
        let after = session.gpu_cost();
        Ok([untimed, (after.ns - before.ns) as f64 / 1e9 / (after.steps - before.steps) as f64])
    })?;
    let carried = match drawing {
        Some(drawing) => {
            let id = session.prepare(drawing)?;
            Some(medians(rounds, || Ok([carried(session, id, &plan.state, (sequences, decode_tokens))?]))?[0])
        }
        None => None,
    };
    // Where no steps were timed, 0 by 0 is no number.
    let gpu = Some(gpu).filter(|seconds| seconds.is_finite());
    Ok(Seconds { prefill, synced, cpu, queued: queued_step, carried, gpu })
}

/// For how long prompts are run before the first that counts: a GPU that has waited for its pipelines to be made
/// begins at a fraction of its clock, and a prompt ends before it has got up. Rounds of decoding are long enough.
const WARM: Duration = Duration::from_millis(500);

/// Runs a prompt from the initial state; returns seconds.
fn prefill<S: Session>(batch: &mut Batch<'_, S>, sequence: SequenceId, prompt: &[u32]) -> Result<f64, GenerateError> {
    batch.reset(sequence)?;
    let began = Instant::now();
    batch.run(&[Feed { sequence, tokens: prompt }], Rows::Last)?;
    Ok(began.elapsed().as_secs_f64())
}

/// A step of one token of each of so many sequences.
const fn decode_shape(sequences: u32) -> StepShape {
    StepShape { tokens: sequences, sequences, rows: sequences, capacity: sequences }
}

/// Runs a round that is not counted, then those that are; returns the median of each figure, the upper one of two.
pub(super) fn medians<const N: usize>(
    rounds: u32,
    mut round: impl FnMut() -> Result<[f64; N], GenerateError>,
) -> Result<[f64; N], GenerateError> {
    round()?;
    let rounds = (0..rounds).map(|_| round()).collect::<Result<Vec<_>, _>>()?;
    Ok(std::array::from_fn(|figure| {
        let mut values: Vec<f64> = rounds.iter().map(|values| values[figure]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }))
}

/// Makes the next token of every sequence the first one, so that rounds are alike and states stay finite.
pub(super) fn reset(session: &mut impl Session, state: &StateLayout) -> Result<(), ExecError> {
    (0..).zip(&state.buffers).try_for_each(|(index, buffer)| {
        let row = buffer.init_row();
        (0..buffer.rows).try_for_each(|at| session.write_state(index, at, &row))
    })
}

/// Decodes greedily; returns seconds, and those of them that the CPU took, a step.
fn synced<S: Session>(
    batch: &mut Batch<'_, S>,
    sequences: &[SequenceId],
    steps: u32,
) -> Result<[f64; 2], GenerateError> {
    sequences.iter().try_for_each(|sequence| batch.reset(*sequence))?;
    let before = batch.session().cpu_cost();
    let began = Instant::now();
    let mut tokens = vec![0; sequences.len()];
    for _ in 0..steps {
        let feed =
            |(sequence, token): (&SequenceId, _)| Feed { sequence: *sequence, tokens: std::slice::from_ref(token) };
        let feeds: Vec<Feed<'_>> = sequences.iter().zip(&tokens).map(feed).collect();
        let (logits, _) = batch.run(&feeds, Rows::Last)?;
        tokens = logits.iter().map(|rows| argmax(&rows[0])).collect();
    }
    let seconds = began.elapsed().as_secs_f64() / f64::from(steps);
    let after = batch.session().cpu_cost();
    let ns = after.record_ns + after.submit_ns - before.record_ns - before.submit_ns;
    Ok([seconds, ns as f64 / f64::from(steps) / 1e9])
}

/// Runs steps without reading anything but the last one's outputs; returns seconds a step.
pub(super) fn queued(
    session: &mut impl Session,
    (plan, inputs): (PlanId, &Inputs),
    state: &StateLayout,
    steps: u32,
) -> Result<f64, GenerateError> {
    reset(session, state)?;
    let began = Instant::now();
    let mut last = session.step(plan, inputs)?;
    for _ in 1..steps {
        last = session.step(plan, inputs)?;
    }
    session.outputs(last)?;
    Ok(began.elapsed().as_secs_f64() / f64::from(steps))
}

/// Decodes greedily by steps that draw, as many in flight as may be; returns seconds a step.
fn carried(
    session: &mut impl Session,
    plan: PlanId,
    state: &StateLayout,
    (sequences, steps): (u32, u32),
) -> Result<f64, GenerateError> {
    reset(session, state)?;
    // All zero: the best.
    let rules = vec![0; (DRAW_WORDS * sequences) as usize];
    let began = Instant::now();
    let mut flights = VecDeque::new();
    for step in 0..steps {
        let token = if step == 0 { 0 } else { CARRIED };
        let tokens = vec![token; sequences as usize];
        let inputs = step_inputs(sequences, 1);
        let inputs = inputs.with(InputRole::TokenIds, tokens).with(InputRole::DrawRules, rules.clone());
        flights.push_back(session.step(plan, &inputs)?);
        if flights.len() == STEPS_IN_FLIGHT
            && let Some(oldest) = flights.pop_front()
        {
            session.outputs(oldest)?;
        }
    }
    for flight in flights {
        session.outputs(flight)?;
    }
    Ok(began.elapsed().as_secs_f64() / f64::from(steps))
}

/// So many tokens of each of so many sequences, all of them token 0, and a row of logits for each sequence.
pub fn step_inputs(sequences: u32, tokens: u32) -> Inputs {
    let ends = (0..=sequences).map(|sequence| sequence * tokens);
    Inputs::new()
        .with(InputRole::TokenIds, vec![0; (sequences * tokens) as usize])
        .with(InputRole::SequenceOffsets, ends.clone().collect())
        .with(InputRole::StateRows, (0..sequences).collect())
        .with(InputRole::OutputRows, ends.skip(1).map(|end| end - 1).collect())
}

/// What the streaming read reads: far more than caches hold, and often, so that beginning and end do not count.
const STREAM_BYTES: u64 = 1 << 30;
const STREAM_PASSES: u32 = 8;
/// The same where a CPU plays the device.
const STREAM_BYTES_CPU: u64 = 128 << 20;
const STREAM_PASSES_CPU: u32 = 1;
/// Steps of a round: as many as may be in flight.
const STREAM_STEPS: u32 = 2;

/// Bytes a second that the streaming read gets. What it writes is not counted: a 128th of what it reads.
pub(super) fn bandwidth<E: Executor>(
    executor: &E,
    stream: &Compiler<'_>,
    checkpoint: &Checkpoint,
    rounds: u32,
) -> Result<f64, GenerateError> {
    let limits = &executor.device().limits;
    let (wanted, passes) = match executor.device().kind.as_str() {
        "cpu" => (STREAM_BYTES_CPU, STREAM_PASSES_CPU),
        _ => (STREAM_BYTES, STREAM_PASSES),
    };
    let size_bytes = wanted.min(limits.max_storage_buffer_binding_bytes).min(limits.max_buffer_bytes);
    let row_bytes: u64 =
        stream.compile(decode_shape(1))?.plan.state.buffers.iter().map(|buffer| buffer.row_bytes()).sum();
    let capacity = (size_bytes / row_bytes).clamp(1, limits.max_workgroups_per_dimension.into()) as u32;
    let plan = stream.compile(StepShape { tokens: passes, capacity, ..decode_shape(1) })?.plan;
    let weights = Weights { layout: &plan.weights, checkpoint };
    let mut session = executor.open(&weights, &plan.state, &mut |_, _| ())?;
    let id = session.prepare(plan)?;
    let inputs = Inputs::new().with(InputRole::OutputRows, vec![0]);
    let [seconds] = medians(rounds, || {
        let began = Instant::now();
        let mut last = session.step(id, &inputs)?;
        for _ in 1..STREAM_STEPS {
            last = session.step(id, &inputs)?;
        }
        session.outputs(last)?;
        Ok([began.elapsed().as_secs_f64() / f64::from(STREAM_STEPS)])
    })?;
    Ok((u64::from(capacity) * row_bytes * u64::from(passes)) as f64 / seconds)
}

/// Bytes of weights that one step reads: those of every op, each tensor once, but for ops that also take the token ids.
/// Those look rows up in a table, and read next to nothing of it.
pub fn weight_bytes_read(model: &Model) -> u64 {
    let is_tokens =
        |value: ValueId| model.inputs.iter().any(|input| input.value == value && input.role == InputRole::TokenIds);
    let mut read: BTreeSet<ValueId> = BTreeSet::new();
    for op in model.ops.values() {
        let values = || op.args.iter().filter_map(|arg| arg.input);
        if values().any(is_tokens) {
            continue;
        }
        for value in values() {
            match &model.values[value].origin {
                Origin::Weight { .. } | Origin::Transposed { .. } => drop(read.insert(value)),
                Origin::Join { parts } => read.extend(parts),
                _ => {}
            }
        }
    }
    read.iter().map(|value| model.values[*value].dtype.storage_bytes(model.values[*value].count())).sum()
}

/// CPU time of a step of one token.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct CpuStep {
    /// Microseconds of recording; 0 where commands are submitted again.
    pub record_us: f64,
    /// Microseconds of writing inputs and submitting.
    pub submit_us: f64,
}

impl CpuStep {
    /// Both together.
    pub fn us(&self) -> f64 {
        self.record_us + self.submit_us
    }
}

/// The CPU time of a step of a plan for one token, the host waiting for each: of several rounds the cheapest, since
/// whatever else the machine does can only add to it. A round before is not counted.
///
/// # Errors
/// If the device fails.
pub fn cheapest_step<E: Executor>(
    executor: &E,
    plan: &CheckedPlan,
    checkpoint: &Checkpoint,
    rounds: u32,
    steps: u32,
) -> Result<CpuStep, ExecError> {
    let weights = Weights { layout: &plan.weights, checkpoint };
    let mut session = executor.open(&weights, &plan.state, &mut |_, _| ())?;
    let id = session.prepare(plan.clone())?;
    let mut best = CpuStep { record_us: f64::INFINITY, submit_us: f64::INFINITY };
    for round in 0..=rounds {
        let before = session.cpu_cost();
        for _ in 0..steps {
            let ticket = session.step(id, &step_inputs(1, 1))?;
            session.outputs(ticket)?;
        }
        let after = session.cpu_cost();
        let per_step = |ns: u64| ns as f64 / f64::from(steps) / 1e3;
        let found = CpuStep {
            record_us: per_step(after.record_ns - before.record_ns),
            submit_us: per_step(after.submit_ns - before.submit_ns),
        };
        if round > 0 && found.us() < best.us() {
            best = found;
        }
    }
    Ok(best)
}
