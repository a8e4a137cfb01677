//! Where the time of a step goes.
//!
//! Gets an executor, a model's compiler and that of a streaming read; returns a [`Profile`] and what its trace is drawn
//! from. What holds then: the step was timed three times over, in turns: as a whole, by level, and by command, so that
//! what the timestamps themselves cost can be seen; every time is the median of all steps counted; the times of levels
//! were taken with their commands side by side, those of commands one after the other. Never prints.

mod groups;
mod print;
mod trace;

use serde::{Deserialize, Serialize};

use crate::base::step::StepShape;
use crate::checkpoint::Checkpoint;
use crate::compile::{Compiled, Compiler};
use crate::exec::times::{Grain, HostSpan, HostWork, StepLog};
use crate::exec::{ExecError, Executor, Inputs, PlanId, Session, Weights};
use crate::generate::GenerateError;
use crate::inspect::bench::{bandwidth, reset, step_inputs};
use crate::inspect::traffic::{Traffic, traffic};
use crate::plan::Plan;
use crate::plan::command::Command;
use crate::plan::index::PlanIndex;
use crate::plan::weights::StateLayout;

pub use groups::Group;
pub use print::{annotations, table};
pub use trace::trace;

/// Steps of a round: enough that the first, which nothing runs before, does not count.
const ROUND_STEPS: u32 = 8;

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileOptions {
    /// Sequences of a step.
    pub sequences: u32,
    /// Tokens of each of them.
    pub tokens: u32,
    /// Rounds that are counted, of eight steps for each way to time them.
    pub rounds: u32,
}

/// What a time means against the device's bandwidth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roofline {
    /// Microseconds, the median of all steps.
    pub us: f64,
    /// Bytes read and written at most.
    pub bytes: u64,
    /// Both of these, in 10^9 bytes a second.
    pub gb_per_s: f64,
    /// The same as a share of the device's bandwidth; more than 1 where bytes come from a cache.
    pub bandwidth_share: f64,
    /// Microseconds that its bytes at full bandwidth do not explain: waiting for what came before, filling the device
    /// and draining it, arithmetic; 0 where there are none.
    pub drain_us: f64,
}

impl Roofline {
    fn new(us: f64, bytes: u64, bytes_per_us: f64) -> Self {
        let floor_us = bytes as f64 / bytes_per_us;
        // A time too short to be told from none has no rate.
        let rate = if us > 0.0 { bytes as f64 / us } else { 0.0 };
        Self {
            us,
            bytes,
            gb_per_s: rate / 1e3,
            bandwidth_share: rate / bytes_per_us,
            drain_us: (us - floor_us).max(0.0),
        }
    }
}

/// A command, run alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandTime {
    /// As in listings: `d17`, or `copy`.
    pub name: String,
    /// The op's path, or what is copied.
    pub label: String,
    /// The kernel; nothing for a copy.
    pub kernel: Option<String>,
    /// Its time and bytes.
    #[serde(flatten)]
    pub roofline: Roofline,
    /// The bytes, by whose memory they are.
    pub traffic: Traffic,
}

/// A level, its commands side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelTime {
    /// Its number.
    pub level: u64,
    /// What its commands have in common with those of other layers.
    pub pattern: String,
    /// Its time, barrier included, and the bytes of all its commands.
    #[serde(flatten)]
    pub roofline: Roofline,
    /// The commands.
    pub commands: Vec<CommandTime>,
}

/// Where the time of a step goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Name of the graph.
    pub graph: String,
    /// The size of the step.
    pub shape: StepShape,
    /// Name of the device.
    pub device: String,
    /// Its driver.
    pub driver: String,
    /// `hal`, `wgpu` or `reference`.
    pub executor: String,
    /// Steps that were counted, for each way to time them.
    pub steps: u64,
    /// What a kernel that only reads gets from the device, in 10^9 bytes a second.
    pub bandwidth_gb_per_s: f64,
    /// Microseconds of a step of which only begin and end were timed.
    pub step_us: f64,
    /// Of a step that was timed by level: the times of all levels and of the leaving barrier together.
    pub levels_us: f64,
    /// Of a step that was timed by command: the times of all commands and of the leaving barrier together.
    pub commands_us: f64,
    /// Of the leaving barrier, timed by level.
    pub leave_us: f64,
    /// Microseconds of the CPU for recording a step of which only begin and end were timed, whenever that was; 0 of an
    /// executor that records nothing.
    pub record_us: f64,
    /// How many of `steps` were recorded: the commands of the others were submitted again.
    pub recorded_steps: u64,
    /// Microseconds of the CPU for submitting such a step.
    pub submit_us: f64,
    /// Bytes of all commands.
    pub traffic: Traffic,
    /// The levels, in order.
    pub levels: Vec<LevelTime>,
    /// Levels alike, those that take most time first.
    pub level_groups: Vec<Group>,
    /// Commands alike, those that take most time first.
    pub command_groups: Vec<Group>,
}

/// A profile and the steps of its last round.
#[derive(Clone, Debug)]
pub struct Profiled {
    /// What was found.
    pub profile: Profile,
    /// Steps timed by level.
    pub by_level: StepLog,
    /// Steps timed by command.
    pub by_command: StepLog,
}

/// Measures a model. `stream` compiles the graph of the streaming read, as for [`bench`](crate::inspect::bench::bench).
///
/// # Errors
/// If a plan cannot be made, the device fails, or it cannot tell when parts of a step are done.
///
/// # Panics
/// If there is nothing to run: no tokens, no sequences, no rounds.
pub fn profile<E: Executor>(
    executor: &E,
    name: &str,
    model: Compiler<'_>,
    stream: &Compiler<'_>,
    checkpoint: &Checkpoint,
    options: &ProfileOptions,
) -> Result<Profiled, GenerateError> {
    let ProfileOptions { sequences, tokens, rounds } = *options;
    assert!(sequences > 0 && tokens > 0 && rounds > 0, "there is something to run");
    let shape = StepShape { tokens: sequences * tokens, sequences, rows: sequences, capacity: sequences };
    let compiled = model.compile(shape)?;
    let plan = &compiled.plan;
    let weights = Weights { layout: &plan.weights, checkpoint };
    let mut session = executor.open(&weights, &plan.state, &mut |_, _| ())?;
    let mut passes =
        [Grain::Step, Grain::Levels, Grain::Commands].map(|grain| Pass { grain, id: PlanId(0), times: Vec::new() });
    for pass in &mut passes {
        pass.id = session.prepare_profiled(plan.clone(), pass.grain)?;
    }
    let inputs = step_inputs(sequences, tokens);
    let (mut host, mut before) = (Vec::new(), Vec::new());
    let mut last = Vec::new();
    for round in 0..=rounds {
        last.clear();
        // In turn, so that a clock that goes up or down changes all alike.
        for pass in &mut passes {
            let log = run_round(&mut session, pass.id, &inputs, &plan.state)?;
            let is_counted = round > 0;
            if is_counted {
                pass.times.extend(log.steps.iter().map(|step| step.parts_ns().collect::<Vec<_>>()));
            }
            if pass.grain == Grain::Step {
                if is_counted { &mut host } else { &mut before }.extend(log.host.clone());
            }
            last.push(log);
        }
    }
    let bytes_per_us = bandwidth(executor, stream, checkpoint, rounds)? / 1e6;
    let [whole, by_level, by_command] = passes.map(|pass| pass.medians_us());
    let of = |spans: &[HostSpan], work| -> Vec<f64> {
        spans.iter().filter(|span| span.work == work).map(|span| span.ns as f64 / 1e3).collect()
    };
    let (recorded, submitted) = (of(&host, HostWork::Record), of(&host, HostWork::Submit));
    let recorded_steps = recorded.len() as u64;
    // Where commands are kept, the round that does not count has made them.
    let recorded = if recorded.is_empty() { of(&before, HostWork::Record) } else { recorded };
    let levels = levels(&compiled, &by_level, &by_command, bytes_per_us);
    let device = executor.device();
    let profile = Profile {
        graph: plan.graph.clone(),
        shape,
        device: device.name.clone(),
        driver: device.driver.clone(),
        executor: name.to_owned(),
        steps: u64::from(rounds * ROUND_STEPS),
        bandwidth_gb_per_s: bytes_per_us / 1e3,
        step_us: whole.iter().sum(),
        levels_us: by_level.iter().sum(),
        commands_us: by_command.iter().sum(),
        leave_us: by_level.last().copied().unwrap_or(0.0),
        record_us: median(recorded.into_iter()),
        recorded_steps,
        submit_us: median(submitted.into_iter()),
        traffic: levels.iter().flat_map(|level| &level.commands).map(|command| command.traffic).sum(),
        level_groups: groups::of_levels(&levels, bytes_per_us),
        command_groups: groups::of_commands(&levels, bytes_per_us),
        levels,
    };
    let mut last = last.into_iter().skip(1);
    let (by_level, by_command) = (last.next().unwrap_or_default(), last.next().unwrap_or_default());
    Ok(Profiled { profile, by_level, by_command })
}

/// Steps timed in one way.
struct Pass {
    grain: Grain,
    id: PlanId,
    /// Of each step counted, the nanoseconds of each part.
    times: Vec<Vec<u64>>,
}

impl Pass {
    /// Of each part, the median over all steps, in microseconds.
    fn medians_us(&self) -> Vec<f64> {
        let parts = self.times.first().map_or(0, Vec::len);
        (0..parts).map(|part| median(self.times.iter().map(|step| step[part] as f64 / 1e3))).collect()
    }
}

/// The upper median; 0 of nothing.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Runs steps from the initial state with two in flight, each waited for, so that each is in the log.
fn run_round(
    session: &mut impl Session,
    plan: PlanId,
    inputs: &Inputs,
    state: &StateLayout,
) -> Result<StepLog, ExecError> {
    reset(session, state)?;
    let mut before = None;
    for _ in 0..ROUND_STEPS {
        let ticket = session.step(plan, inputs)?;
        if let Some(before) = before.replace(ticket) {
            session.outputs(before)?;
        }
    }
    before.map(|ticket| session.outputs(ticket)).transpose()?;
    let log = session.take_log(plan);
    if log.steps.is_empty() {
        return Err(ExecError::NoClock { reason: "the device wrote no timestamps".to_owned() });
    }
    Ok(log)
}

/// The levels of a plan with their times; `by_level` and `by_command` are in microseconds.
fn levels(compiled: &Compiled, by_level: &[f64], by_command: &[f64], bytes_per_us: f64) -> Vec<LevelTime> {
    let plan: &Plan = &compiled.plan;
    let index = PlanIndex::new(plan);
    let mut command_us = by_command.iter().copied();
    let traffic = traffic(&compiled.model, plan);
    let of_level = |(number, ((level, traffic), us)): (usize, ((_, &Vec<Traffic>), &f64))| {
        let level: &crate::plan::command::Level = level;
        let commands: Vec<CommandTime> = level
            .commands
            .iter()
            .zip(traffic)
            .enumerate()
            .map(|(at, (command, traffic))| CommandTime {
                name: index.name(number, at),
                label: command.label().to_owned(),
                kernel: match command {
                    Command::Dispatch(dispatch) => Some(plan.kernels[dispatch.kernel].label.clone()),
                    Command::Copy(_) => None,
                },
                roofline: Roofline::new(command_us.next().unwrap_or(0.0), traffic.bytes(), bytes_per_us),
                traffic: *traffic,
            })
            .collect();
        LevelTime {
            level: number as u64,
            pattern: groups::pattern(&commands),
            roofline: Roofline::new(*us, commands.iter().map(|command| command.roofline.bytes).sum(), bytes_per_us),
            commands,
        }
    };
    plan.levels.iter().zip(&traffic).zip(by_level).enumerate().map(of_level).collect()
}
