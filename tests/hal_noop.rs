//! The hal executor on the no-op back end, which drops dispatches but executes copies, and on Vulkan where there is
//! one.
//!
//! Gets a plan written by hand; the no-op back end shows that every call runs and every object is freed without a
//! panic, errors half-way included, Vulkan that the numbers are right. Never compares two executors.

mod hal_plan;

use graphc::base::arena::Arena;
use graphc::base::dtype::DType;
use graphc::exec::hal::{Backend, HalExecutor, HalOptions, HalSession};
use graphc::exec::replay::{Edit, TransitionAt};
use graphc::exec::{ExecError, Executor, Inputs, PlanId, Session, Weights};
use graphc::plan::command::{KernelId, Transition};
use graphc::plan::usage::Usage;
use graphc::plan::weights::{StateBuffer, WeightPiece};
use hal_plan::{INIT, ROW_COUNT, alternate, alternate_between, checked, expected, first, inputs, open, plan};
use wgpu_hal::api::{Noop, Vulkan};

fn options() -> HalOptions {
    HalOptions { track: true, validation_layers: false, dropped: None }
}

fn noop() -> HalExecutor<Noop> {
    HalExecutor::new(&options(), None).expect("the no-op device is always there")
}

/// The Vulkan executor, or nothing where there is no device; continuous integration always has one.
fn vulkan(options: &HalOptions) -> Option<HalExecutor<Vulkan>> {
    match HalExecutor::new(options, None) {
        Ok(executor) => Some(executor),
        Err(ExecError::NoDevice { reason }) if std::env::var("CI").as_deref() != Ok("true") => {
            eprintln!("skipped: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn noop_runs_steps_and_frees_everything() {
    let mut session = open(&noop()).expect("open");
    let mut calls = 0;
    alternate(&mut session, 6, |_, found, expected| {
        assert_eq!(found.len(), expected.len());
        calls += 1;
    });
    assert_eq!(calls, 7, "six steps and the state");
    let cost = session.cpu_cost();
    assert_eq!(cost.steps, 6);
    assert!(cost.record_ns > 0 && cost.submit_ns > 0, "{cost:?}");
}

#[test]
fn vulkan_computes_the_formula() {
    let Some(executor) = vulkan(&options()) else { return };
    assert!(!executor.device().name.is_empty() && executor.device().api == "vulkan", "{:?}", executor.device());
    let mut session = open(&executor).expect("open");
    alternate(&mut session, 10, |step, found, expected| assert_eq!(found, expected, "step {step}"));
}

/// Bytes of the slots of a plan for `count` elements: `a` and `y`.
fn slot_bytes(count: u64) -> u64 {
    2 * count * 4
}

fn slots_are_the_largest_plans<A: Backend>(executor: &HalExecutor<A>, step_done: fn(u32, Vec<f32>, Vec<f32>)) {
    for counts in [[16, 64], [64, 16]] {
        let mut session = open(executor).expect("open");
        assert_eq!(session.memory().slot_bytes, 0);
        alternate_between(&mut session, counts, 9, step_done);
        let memory = session.memory();
        assert_eq!(memory.slot_bytes, slot_bytes(64), "{counts:?}");
        assert_eq!(memory.weight_bytes, hal_plan::weight_layout().size_bytes());
        assert_eq!(memory.state_bytes, hal_plan::ROWS * ROW_COUNT * 4);
        // One buffer each of the inputs; what the host writes and reads, for two steps in flight.
        assert_eq!((memory.input_bytes, memory.host_bytes), ((16 + 64) * 4, 2 * 2 * (16 + 64) * 4));
    }
}

#[test]
fn noop_slots_are_the_largest_plans_whatever_the_order() {
    slots_are_the_largest_plans(&noop(), |_, found, expected| assert_eq!(found.len(), expected.len()));
}

#[test]
fn vulkan_slots_are_the_largest_plans_whatever_the_order() {
    let Some(executor) = vulkan(&options()) else { return };
    slots_are_the_largest_plans(&executor, |step, found, expected| assert_eq!(found, expected, "step {step}"));
}

/// Grows the slots while steps run, commands are recorded ahead and outputs are unread.
#[test]
fn vulkan_slots_grow_under_steps_in_flight() {
    let Some(executor) = vulkan(&options()) else { return };
    let mut session = open(&executor).expect("open");
    let mut state = vec![INIT; ROW_COUNT as usize];
    let mut plans = vec![(16, session.prepare(checked(plan(16))).expect("prepared"))];
    for (round, count) in [(0, 20), (1, 24), (2, 64)] {
        let mut running = Vec::new();
        for step in [round * 2, round * 2 + 1] {
            let (count, id) = plans[step as usize % plans.len()];
            let ticket = session.step(id, &inputs(count, step)).expect("submitted");
            running.push((ticket, expected(count, step, &mut state)));
        }
        plans.push((count, session.prepare(checked(plan(count))).expect("prepared")));
        assert_eq!(session.memory().slot_bytes, slot_bytes(count));
        for (ticket, expected) in running {
            assert_eq!(first(&mut session, ticket), expected, "round {round}");
        }
    }
    for (count, id) in plans {
        let ticket = session.step(id, &inputs(count, 9)).expect("submitted");
        assert_eq!(first(&mut session, ticket), expected(count, 9, &mut state), "{count} elements");
    }
}

#[test]
fn noop_slots_that_cannot_grow_stay_as_they_are() {
    let mut session = open(&noop()).expect("open");
    let small = session.prepare(checked(plan(16))).expect("prepared");
    let running = session.step(small, &inputs(16, 0)).expect("submitted");
    let before = session.memory();
    // Its slots are made before its kernel is found not to parse.
    let mut broken = plan(64);
    broken.kernels[KernelId::new(1)].wgsl = "fn main() { let x: u32 = 1.5; }".to_owned();
    session.prepare(checked(broken)).expect_err("it does not parse");
    assert_eq!(session.memory(), before);
    session.outputs(running).expect("outputs");
    let again = session.step(small, &inputs(16, 1)).expect("submitted");
    session.outputs(again).expect("outputs");
    session.prepare(checked(plan(64))).expect("there is room for that");
    assert_eq!(session.memory().slot_bytes, slot_bytes(64));
}

fn state_goes_there_and_back<A: Backend>(executor: &HalExecutor<A>) {
    let mut session = open(executor).expect("open");
    let row = |session: &mut HalSession<A>, row| session.read_state(0, row).expect("state");
    for number in 0..hal_plan::ROWS {
        assert_eq!(row(&mut session, number).to_f32(), vec![INIT; ROW_COUNT as usize], "row {number} begins so");
    }
    let bytes: Vec<u8> = (0..ROW_COUNT).flat_map(|index| (index as f32).to_le_bytes()).collect();
    session.write_state(0, 1, &bytes).expect("written");
    assert_eq!(row(&mut session, 1).bytes, bytes);
    assert_eq!(row(&mut session, 1).shape, [ROW_COUNT]);
    assert_eq!(row(&mut session, 0).to_f32(), vec![INIT; ROW_COUNT as usize], "the row before is untouched");
    assert_eq!(row(&mut session, 2).to_f32(), vec![INIT; ROW_COUNT as usize], "the row after is untouched");
}

#[test]
fn noop_state_goes_there_and_back() {
    state_goes_there_and_back(&noop());
}

#[test]
fn vulkan_state_goes_there_and_back() {
    if let Some(executor) = vulkan(&options()) {
        state_goes_there_and_back(&executor);
    }
}

fn a_kernel_that_fails_leaves_nothing_behind<A: Backend>(executor: &HalExecutor<A>) {
    let mut session = open(executor).expect("open");
    let mut broken = plan(16);
    broken.kernels[KernelId::new(1)].wgsl = "fn main() { let x: u32 = 1.5; }".to_owned();
    let error = session.prepare(checked(broken)).expect_err("it does not parse").to_string();
    assert!(error.contains("`add` does not compile"), "{error}");
    let good = session.prepare(checked(plan(16))).expect("the session is as it was");
    assert_eq!(good, PlanId(0));
    let ticket = session.step(good, &inputs(16, 0)).expect("submitted");
    session.outputs(ticket).expect("outputs");
}

#[test]
fn noop_kernel_that_fails_leaves_nothing_behind() {
    a_kernel_that_fails_leaves_nothing_behind(&noop());
}

#[test]
fn vulkan_kernel_that_fails_leaves_nothing_behind() {
    if let Some(executor) = vulkan(&options()) {
        a_kernel_that_fails_leaves_nothing_behind(&executor);
    }
}

#[test]
fn dropping_a_session_with_steps_in_flight_waits_for_them() {
    let Some(executor) = vulkan(&options()) else { return };
    let mut session = open(&executor).expect("open");
    // The session keeps the device, not the executor.
    drop(executor);
    let plan = session.prepare(checked(plan(64))).expect("prepared");
    for step in 0..3 {
        session.step(plan, &inputs(64, step)).expect("submitted");
    }
}

#[test]
fn foreign_plans_are_refused() {
    let mut session = open(&noop()).expect("open");
    let mut other = plan(16);
    other.weights.pieces[0].tensor = "v".to_owned();
    let error = session.prepare(checked(other)).expect_err("another weight layout");
    assert!(matches!(error, ExecError::OtherLayout { .. }), "{error}");
    let mut other = plan(16);
    other.state.buffers[0].init_bits = 0;
    let error = session.prepare(checked(other)).expect_err("another state layout");
    assert!(matches!(error, ExecError::OtherLayout { .. }), "{error}");
    let Some(executor) = vulkan(&options()) else { return };
    let mut session = open(&executor).expect("open");
    let mut other = plan(16);
    other.limits.max_buffer_bytes = u64::MAX;
    let error = session.prepare(checked(other)).expect_err("no device has that");
    assert!(matches!(&error, ExecError::TooSmall { missing } if missing[0].contains("max_buffer_bytes")), "{error}");
}

#[test]
fn layouts_that_would_be_written_out_of_bounds_are_refused() {
    let (executor, checkpoint) = (noop(), hal_plan::checkpoint());
    let opened = |layout: &_, state: &_| {
        executor.open(&Weights { layout, checkpoint: &checkpoint }, state, &mut |_, _| ()).map(drop)
    };
    let refused = |layout: &_, state: &_, name: &str| {
        let error = opened(layout, state).expect_err("refused");
        assert!(matches!(&error, ExecError::OtherLayout { reason } if reason.contains(name)), "{error}");
    };
    let pieces: [fn(&mut WeightPiece); 7] = [
        |piece| piece.tensor = "v".to_owned(),
        |piece| piece.dtype = DType::U32,
        |piece| piece.count -= 1,
        |piece| piece.transpose = Some((2, piece.count)),
        |piece| piece.buffer = 1,
        |piece| piece.offset_bytes = 2,
        |piece| piece.offset_bytes = u64::MAX - 3,
    ];
    let (weights, state) = (hal_plan::weight_layout(), hal_plan::state_layout());
    for change in pieces {
        let mut changed = weights.clone();
        change(&mut changed.pieces[0]);
        refused(&changed, &state, &format!("weight `{}`", changed.pieces[0].tensor));
    }
    let mut small = weights.clone();
    small.buffers[0].size_bytes -= 4;
    refused(&small, &state, "weight `w`");
    let mut twice = weights.clone();
    twice.pieces.push(twice.pieces[0].clone());
    refused(&twice, &state, "weight `w`: expected it to begin behind `w`, which ends at");
    // The no-op device has limits like any other.
    let mut large = weights.clone();
    large.buffers[0].size_bytes = u64::MAX - 7;
    let (label, offered) = (&large.buffers[0].label, executor.device().limits.max_buffer_bytes);
    assert_eq!(
        opened(&large, &state).expect_err("no device has that").to_string(),
        format!(
            "the device is too small for this plan: `max_buffer_bytes`: 18446744073709551608 needed for `{label}`, \
             {offered} offered"
        )
    );
    let rows: [fn(&mut StateBuffer); 5] = [
        |buffer| buffer.rows = 0,
        |buffer| buffer.row_shape = vec![4, 0],
        |buffer| buffer.rows = u64::MAX,
        |buffer| buffer.rest = Usage::MAP_READ,
        |buffer| buffer.rest = Usage::STORAGE_READ | Usage::STORAGE_WRITE,
    ];
    for change in rows {
        let mut changed = state.clone();
        change(&mut changed.buffers[0]);
        refused(&weights, &changed, "state `s`");
    }
    opened(&weights, &state).expect("unchanged");
}

#[test]
fn inputs_that_do_not_fit_submit_nothing() {
    let mut session = open(&noop()).expect("open");
    let plan = session.prepare(checked(plan(16))).expect("prepared");
    let error = session.step(plan, &inputs(15, 0)).expect_err("one too few");
    assert!(matches!(error, ExecError::Input { expected: 16, found: 15, .. }), "{error}");
    assert!(session.step(plan, &Inputs::new()).is_err());
    assert_eq!(session.cpu_cost().steps, 0);
}

#[test]
fn outputs_are_fetched_once_and_discarded_by_the_step_after_the_next() {
    let mut session = open(&noop()).expect("open");
    let plan = session.prepare(checked(plan(16))).expect("prepared");
    let tickets: Vec<_> = (0..3).map(|step| session.step(plan, &inputs(16, step)).expect("submitted")).collect();
    let error = session.outputs(tickets[0]).expect_err("discarded by the third step").to_string();
    assert!(error.contains("fetched or discarded"), "{error}");
    session.outputs(tickets[2]).expect("outputs may be fetched in any order");
    session.outputs(tickets[1]).expect("outputs");
    assert!(session.outputs(tickets[1]).is_err(), "a second time");
}

#[test]
fn an_edit_is_of_the_next_step_alone() {
    let mut session = open(&noop()).expect("open");
    let id = session.prepare(checked(plan(4))).expect("prepared");
    let mut step = |edits: &[Edit]| {
        session.edit_next(id, edits);
        let ticket = session.step(id, &inputs(4, 0))?;
        session.outputs(ticket).map(drop)
    };
    step(&[]).expect("nothing is changed");
    let at = |level, transition| TransitionAt { level, transition };
    let planned = plan(4).levels[1].barrier[0];
    let wrong = Transition { from: Usage::COPY_SRC, ..planned };
    for with in [None, Some(wrong)] {
        let found = step(&[Edit { at: at(1, 0), with }]);
        assert!(matches!(found, Err(ExecError::Usage { .. })), "{with:?}: {found:?}");
        step(&[]).expect("nothing is changed");
    }
    step(&[Edit { at: at(1, 0), with: Some(planned) }]).expect("it is the plan's own transition");
    let found = step(&[Edit { at: at(9, 0), with: None }]);
    assert!(matches!(found, Err(ExecError::NoTransition { .. })), "{found:?}");
}

#[test]
fn a_dropped_transition_is_noticed_by_the_tracker() {
    for (level, transition) in [(0, 0), (2, 0), (2, 2), (4, 1)] {
        let options = HalOptions { dropped: Some(TransitionAt { level, transition }), ..options() };
        let executor = HalExecutor::<Noop>::new(&options, None).expect("no-op");
        let mut session = open(&executor).expect("open");
        let plan = session.prepare(checked(plan(16))).expect("prepared");
        let error = session.step(plan, &inputs(16, 0)).expect_err("a transition is missing");
        assert!(matches!(error, ExecError::Usage { .. }), "{error}");
    }
}

#[test]
fn an_unknown_device_is_told_with_those_there_are() {
    let Err(error) = HalExecutor::<Noop>::new(&options(), Some("Voodoo")) else { panic!("there is no such device") };
    let error = error.to_string();
    assert!(error.contains("voodoo") && error.contains("noop"), "{error}");
    assert!(HalExecutor::<Noop>::new(&options(), Some("NOOP")).is_ok(), "case does not matter");
    let devices = HalExecutor::<Noop>::devices(&options()).expect("devices");
    assert_eq!((devices.len(), devices[0].api.as_str()), (1, "noop"));
}

#[test]
fn an_empty_plan_runs() {
    let mut empty = plan(16);
    empty.levels.clear();
    empty.longest_chain = 0;
    empty.leave.clear();
    empty.inputs.clear();
    empty.outputs.clear();
    empty.values.clear();
    empty.buffers = Arena::new();
    empty.kernels = Arena::new();
    let mut session = open(&noop()).expect("open");
    let plan = session.prepare(checked(empty)).expect("prepared");
    let ticket = session.step(plan, &Inputs::new()).expect("submitted");
    assert!(session.outputs(ticket).expect("outputs").tensors.is_empty());
}
