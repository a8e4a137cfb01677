//! Commands that the hal executor records once and submits for every step.
//!
//! Gets plans written by hand and the built-in model's, on the no-op back end and on software drivers; compares what
//! steps return with the formula, with commands recorded anew for each step, and with the reference executor. What
//! validation says of such steps is in `hal_validation.rs`.

mod hal_plan;
mod support;

use graphc::base::limits::Limits;
use graphc::base::role::{InputRole, OutputRole};
use graphc::checkpoint::Checkpoint;
use graphc::exec::hal::{Backend, HalExecutor, HalOptions, HalSession};
use graphc::exec::reference::{ReferenceExecutor, ReferenceOptions};
use graphc::exec::replay::{Edit, TransitionAt};
use graphc::exec::times::{Grain, HostWork};
use graphc::exec::{ExecError, Executor, Inputs, PlanId, STEPS_IN_FLIGHT, Session, Weights};
use graphc::inspect::bench::step_inputs;
use graphc::plan::CheckedPlan;
use graphc::sources;
use graphc::tensor::Tensor;
use hal_plan::{INIT, ROW_COUNT, checked, expected, first, inputs, open, plan};
use support::runner::{DEVICES, Program, all_rows, compile};
use support::skip;
use wgpu_hal::Api;
use wgpu_hal::api::{Noop, Vulkan};

const IN_FLIGHT: u64 = STEPS_IN_FLIGHT as u64;

/// Edited steps are to be submitted, so that nothing is tracked.
const UNTRACKED: HalOptions = HalOptions { track: false, validation_layers: false, dropped: None };

fn noop() -> HalExecutor<Noop> {
    HalExecutor::new(&UNTRACKED, None).expect("the no-op device is always there")
}

/// The software drivers that are there.
fn software() -> impl Iterator<Item = HalExecutor<Vulkan>> {
    let tracked = HalOptions { track: true, ..UNTRACKED };
    DEVICES.iter().filter_map(move |device| match HalExecutor::new(&tracked, Some(device)) {
        Ok(executor) => Some(executor),
        Err(ExecError::NoDevice { reason }) => {
            skip(&reason);
            None
        }
        Err(error) => panic!("{error}"),
    })
}

/// Waits for each step, then has as many in flight as may be; `right` compares what a step returns with the formula.
fn steps_are_recorded_once<B: Backend>(executor: &HalExecutor<B>, right: fn(Vec<f32>, Vec<f32>)) {
    let mut session = open(executor).expect("open");
    let mut state = vec![INIT; ROW_COUNT as usize];
    let small = session.prepare(checked(plan(16))).expect("prepared");
    for step in 0..7 {
        let ticket = session.step(small, &inputs(16, step)).expect("submitted");
        let expected = expected(16, step, &mut state);
        right(first(&mut session, ticket), expected);
    }
    assert_eq!(session.cpu_cost().recordings, IN_FLIGHT);
    // Larger slots: the small plan is bound to them, and what it had is no good any more.
    let large = session.prepare(checked(plan(64))).expect("prepared");
    let mut flights = Vec::new();
    for step in 7..25 {
        let (count, id) = [(16, small), (64, large)][(step as usize / 3) % 2];
        let ticket = session.step(id, &inputs(count, step)).expect("submitted");
        flights.push((ticket, expected(count, step, &mut state)));
        if flights.len() == STEPS_IN_FLIGHT {
            let (ticket, expected) = flights.remove(0);
            right(first(&mut session, ticket), expected);
        }
    }
    let cost = session.cpu_cost();
    assert_eq!((cost.steps, cost.recordings), (25, 3 * IN_FLIGHT), "the small plan again, and the large one");
}

#[test]
fn noop_steps_are_recorded_once() {
    steps_are_recorded_once(&noop(), |found, expected| assert_eq!(found.len(), expected.len()));
}

/// Several devices at once, each of an instance of its own.
#[test]
fn vulkan_steps_are_recorded_once() {
    let executors: Vec<_> = software().collect();
    for executor in &executors {
        steps_are_recorded_once(executor, |found, expected| assert_eq!(found, expected));
    }
}

fn step<A: Api>(session: &mut HalSession<A>, id: PlanId, number: u32) {
    let ticket = session.step(id, &inputs(16, number)).expect("submitted");
    session.outputs(ticket).expect("outputs");
}

#[test]
fn an_edited_step_leaves_no_commands_behind() {
    let mut session = open(&noop()).expect("open");
    let id = session.prepare(checked(plan(16))).expect("prepared");
    (0..5).for_each(|number| step(&mut session, id, number));
    assert_eq!(session.cpu_cost().recordings, IN_FLIGHT);
    session.edit_next(id, &[Edit { at: TransitionAt { level: 2, transition: 0 }, with: None }]);
    // The edited step, and the other frame's next one as it is planned.
    step(&mut session, id, 5);
    assert_eq!(session.cpu_cost().recordings, 2 * IN_FLIGHT);
    // One that is recorded already, meanwhile the edited frame anew.
    step(&mut session, id, 6);
    assert_eq!(session.cpu_cost().recordings, 2 * IN_FLIGHT + 1);
    (7..12).for_each(|number| step(&mut session, id, number));
    assert_eq!(session.cpu_cost().recordings, 2 * IN_FLIGHT + 1);
}

fn model() -> (Checkpoint, CheckedPlan) {
    let checkpoint = Checkpoint::from_static("the built-in model", sources::DEMO_MODEL).expect("built in");
    let program = Program::rwkv7().fused();
    let plan = compile(&program.compiler(checkpoint.index(), &Limits::vulkan(), &[]), all_rows(1));
    (checkpoint, plan)
}

/// One token, another for each step.
fn token(step: u32) -> Inputs {
    step_inputs(1, 1).with(InputRole::TokenIds, vec![65 + step * 7 % 58])
}

const TOKENS: u32 = 9;

/// The logits of each step; `before` may do something to the session.
fn logits<S: Session>(session: &mut S, id: PlanId, before: impl Fn(&mut S)) -> Vec<Tensor> {
    let step = |number| {
        before(session);
        let ticket = session.step(id, &token(number)).expect("submitted");
        session.outputs(ticket).expect("outputs").role(OutputRole::Logits).expect("logits").clone()
    };
    (0..TOKENS).map(step).collect()
}

#[test]
fn a_model_says_the_same_by_kept_commands() {
    let (checkpoint, plan) = model();
    let weights = Weights { layout: &plan.weights, checkpoint: &checkpoint };
    let reference = ReferenceExecutor::new(&ReferenceOptions::new(), None).expect("always there");
    let mut session = reference.open(&weights, &plan.state, &mut |_, _| ()).expect("open");
    let id = session.prepare(plan.clone()).expect("prepared");
    let right = logits(&mut session, id, |_| ());
    assert!(right.windows(2).all(|pair| pair[0] != pair[1]), "steps differ");
    for executor in software() {
        let name = &executor.device().name;
        let [kept, fresh] = [false, true].map(|anew| {
            let mut session = executor.open(&weights, &plan.state, &mut |_, _| ()).expect("open");
            let id = session.prepare(plan.clone()).expect("prepared");
            let logits = logits(&mut session, id, |session| {
                if anew {
                    session.edit_next(id, &[]);
                }
            });
            (logits, session.cpu_cost().recordings)
        });
        assert_eq!(kept.1, IN_FLIGHT, "{name}");
        assert!(fresh.1 >= u64::from(TOKENS), "{name}: {} recordings", fresh.1);
        assert!(kept.0 == fresh.0, "{name}: the same commands");
        for (step, (found, right)) in kept.0.iter().zip(&right).enumerate() {
            let (found, right) = (found.to_f32(), right.to_f32());
            let largest = right.iter().fold(0.0_f32, |most, logit| most.max(logit.abs()));
            let apart = found.iter().zip(&right).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
            // Sums and exponentials are the driver's own; a step that reads the wrong token is off by the whole.
            assert!(apart <= 2e-4 * largest, "{name}, step {step}: {apart} of {largest}");
        }
    }
}

/// Timestamps are taken anew by the same commands.
#[test]
fn a_clock_goes_on_by_kept_commands() {
    let (checkpoint, plan) = model();
    let weights = Weights { layout: &plan.weights, checkpoint: &checkpoint };
    for executor in software() {
        let name = &executor.device().name;
        let mut session = executor.open(&weights, &plan.state, &mut |_, _| ()).expect("open");
        let id = session.prepare_profiled(plan.clone(), Grain::Levels).expect("it has a clock");
        logits(&mut session, id, |_| ());
        let log = session.take_log(id);
        assert_eq!(log.steps.len(), TOKENS as usize, "{name}");
        let recordings = log.host.iter().filter(|span| span.work == HostWork::Record).count();
        assert_eq!(recordings, STEPS_IN_FLIGHT, "{name}");
        let moments: Vec<u64> = log.steps.iter().flat_map(|step| step.moments_ns.clone()).collect();
        assert!(moments.is_sorted(), "{name}: a step's times are later than those of the step before: {moments:?}");
        let ends = log.steps.windows(2).map(|pair| (pair[0].moments_ns.last(), pair[1].moments_ns.last()));
        assert!(ends.into_iter().all(|(before, after)| before < after), "{name}: {moments:?}");
    }
}
