//! Any legal order gives the same bits: a plan's levels are no accident of timing.
//!
//! Gets the shipped graph and random ones; delays steps at random as far as what waits for them allows, shuffles each
//! level, lowers that, and runs it on a device beside the order that the planner chose. What then holds: outputs and
//! states are equal to the bit. Never delays a step beyond the last level.

mod support;

use fastrand::Rng;
use graphc::base::limits::Limits;
use graphc::base::role::InputRole;
use graphc::base::span::SourceMap;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::exec::{Executor, Inputs, Session, Weights};
use graphc::graph::{self, Graph};
use graphc::inspect::oracle::unordered;
use graphc::kernel::{self, KernelLib};
use graphc::model::{self, Model, Origin, Request};
use graphc::plan::{CheckedPlan, check, lower};
use graphc::schedule::{self, Schedule, Step, accesses};
use graphc::sources;
use support::graphs::{KERNELS, RandomGraph};
use support::runner::{AnyExecutor, Kind, Program};

const SHAPE: StepShape = StepShape { tokens: 7, sequences: 3, rows: 3, capacity: 3 };

#[test]
fn random_orders_of_random_graphs_give_the_same_bits() {
    let Some(executor) = AnyExecutor::find(Kind::Hal, "llvmpipe") else { return };
    let files: Vec<(String, String)> = KERNELS.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
    let mut sources = SourceMap::new();
    let (kernels, wrong) = kernel::load(&mut sources, &files);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let mut moved = 0;
    for seed in 0..16 {
        let random = RandomGraph::new(seed);
        let source = sources.add(format!("{seed}.ron"), random.text.clone());
        let graph = graph::parse(&sources, source).expect("a sound graph");
        let compiled =
            Compiled::new(&graph, &kernels, &sources, &random.checkpoint, &executor.device().limits, &random.keep);
        moved += compiled.compare(&executor, &format!("random graph {seed}"), 3);
    }
    assert!(moved > 100, "only {moved} steps were in another level");
}

#[test]
fn random_orders_of_the_built_in_model_give_the_same_bits() {
    let Some(executor) = AnyExecutor::find(Kind::Hal, "llvmpipe") else { return };
    let checkpoint = Checkpoint::from_static("the built-in model", sources::DEMO_MODEL).expect("a sound checkpoint");
    let Program { sources, graph, kernels, .. } = Program::rwkv7();
    let compiled = Compiled::new(&graph, &kernels, &sources, &checkpoint, &executor.device().limits, &[]);
    let moved = compiled.compare(&executor, "the built-in model", 2);
    assert!(moved > 100, "only {moved} steps were in another level");
}

/// A model and all that lowering it takes.
struct Compiled<'a> {
    model: Model,
    schedule: Schedule,
    sources: &'a SourceMap,
    checkpoint: &'a Checkpoint,
    limits: &'a Limits,
}

impl<'a> Compiled<'a> {
    fn new(
        graph: &Graph,
        kernels: &KernelLib,
        sources: &'a SourceMap,
        checkpoint: &'a Checkpoint,
        limits: &'a Limits,
        keep: &[String],
    ) -> Self {
        let request =
            Request { shape: SHAPE, limits, keep, batch_invariant: false, draws: false, tuning: None, copies: true };
        let (model, _) = model::build(graph, kernels, sources, checkpoint.index(), &request).expect("a sound graph");
        let schedule = schedule::build(&model).expect("a graph with an order");
        Self { model, schedule, sources, checkpoint, limits }
    }

    fn lower(&self, schedule: &Schedule) -> CheckedPlan {
        let layout = lower::lay_out(&self.model, &[], &[]);
        let rests = lower::state_rests(&self.model, schedule);
        let plan = lower::lower(&self.model, schedule, self.sources, self.limits, &layout, &rests);
        let plan = plan.expect("sound kernels");
        let plan = check::check(plan).unwrap_or_else(|errors| panic!("{errors:?}"));
        assert_eq!(unordered(&plan), []);
        plan
    }

    /// Runs the planner's order and random ones; returns how many steps were in another level.
    fn compare(&self, executor: &AnyExecutor, what: &str, orders: u64) -> usize {
        let expected = self.run(executor, &self.lower(&self.schedule));
        let mut moved = 0;
        for seed in 0..orders {
            let (schedule, count) = self.delayed(&mut Rng::with_seed(seed));
            moved += count;
            let found = self.run(executor, &self.lower(&schedule));
            assert!(found == expected, "{what}, order {seed}: other bits than in the planner's order");
        }
        moved
    }

    /// A legal order with as many levels, and the number of steps that are in another level than the planner's.
    fn delayed(&self, rng: &mut Rng) -> (Schedule, usize) {
        let steps: Vec<(Step, usize)> = self
            .schedule
            .levels
            .iter()
            .enumerate()
            .flat_map(|(at, level)| level.iter().map(move |step| (*step, at)))
            .collect();
        let before = self.before(&steps);
        let count = self.schedule.levels.len();
        let mut latest = vec![count - 1; steps.len()];
        // Steps stand in the order of their levels, so that what waits for a step comes after it.
        for at in (0..steps.len()).rev() {
            for earlier in &before[at] {
                latest[*earlier] = latest[*earlier].min(latest[at] - 1);
            }
        }
        let mut chosen = vec![0; steps.len()];
        let mut levels = vec![Vec::new(); count];
        let mut moved = 0;
        for (at, (step, level)) in steps.iter().enumerate() {
            let least = before[at].iter().map(|earlier| chosen[*earlier] + 1).max().unwrap_or(0);
            chosen[at] = rng.usize(least..=latest[at]);
            moved += usize::from(chosen[at] != *level);
            levels[chosen[at]].push(*step);
        }
        levels.iter_mut().for_each(|level| rng.shuffle(level));
        let mut live = vec![None; self.model.values.len()];
        for (level, steps) in (0..).zip(&levels) {
            for step in steps {
                let (reads, writes) = accesses(&self.model, *step);
                for value in reads.into_iter().chain(writes) {
                    let range: &mut (u32, u32) = live[value.index()].get_or_insert((level, level));
                    range.1 = level;
                }
            }
        }
        (Schedule { levels, live, longest_chain: self.schedule.longest_chain }, moved)
    }

    /// What each step waits for.
    fn before(&self, steps: &[(Step, usize)]) -> Vec<Vec<usize>> {
        let mut definers = vec![None; self.model.values.len()];
        let mut readers = vec![Vec::new(); self.model.values.len()];
        for (at, (step, _)) in steps.iter().enumerate() {
            let (reads, writes) = accesses(&self.model, *step);
            reads.into_iter().for_each(|value| readers[value.index()].push(at));
            writes.into_iter().for_each(|value| definers[value.index()] = Some(at));
        }
        let mut before = vec![Vec::new(); steps.len()];
        for (at, (step, _)) in steps.iter().enumerate() {
            let (reads, writes) = accesses(&self.model, *step);
            before[at].extend(reads.iter().filter_map(|value| definers[value.index()]));
            for value in writes {
                if let Origin::Op { updates: Some(previous), .. } = self.model.values[value].origin {
                    before[at].extend(definers[previous.index()]);
                    before[at].extend(&readers[previous.index()]);
                }
            }
            before[at].retain(|other| *other != at);
        }
        before
    }

    /// Two steps of three sequences, one without tokens and none of them padding, which means nothing; the bits of all
    /// outputs and states.
    fn run(&self, executor: &AnyExecutor, plan: &CheckedPlan) -> Vec<u8> {
        let weights = Weights { layout: &plan.weights, checkpoint: self.checkpoint };
        let mut session = executor.open(&weights, &plan.state, &mut |_, _| ()).expect("the device runs");
        let id = session.prepare(plan.clone()).expect("the device runs");
        let mut bits = Vec::new();
        for first in [0, 1] {
            let inputs = Inputs::new()
                .with(InputRole::TokenIds, (0..7).map(|token| (token + first) % 3).collect())
                .with(InputRole::SequenceOffsets, vec![0, 4, 4, 7])
                .with(InputRole::StateRows, vec![2, 1, 0])
                .with(InputRole::OutputRows, vec![3, 0, 6]);
            let ticket = session.step(id, &inputs).expect("the device runs");
            for (_, _, tensor) in session.outputs(ticket).expect("the device runs").tensors {
                bits.extend(tensor.bytes);
            }
        }
        for index in 0..plan.state.buffers.len() as u32 {
            for row in [0, 2] {
                bits.extend(session.read_state(index, row).expect("the device runs").bytes);
            }
        }
        bits
    }
}
