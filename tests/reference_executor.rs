//! The reference executor as a session: what it computes, keeps and refuses.
//!
//! Gets a plan written by hand, whose results are known to the last bit. What then holds: they are the same whatever
//! the number of threads, the size of subgroups and the order of plans, and errors leave the session as it was. Needs
//! no device.

mod hal_plan;
mod support;

use std::num::NonZeroUsize;

use graphc::base::arena::Arena;
use graphc::exec::reference::{ReferenceExecutor, ReferenceOptions, Sanitize};
use graphc::exec::{ExecError, Executor, Session};
use graphc::plan::command::Kernel;
use graphc::plan::usage::Usage;
use support::runner::{AnyExecutor, Program, decoder, run};
use support::{open, reference};

fn executor(options: ReferenceOptions) -> ReferenceExecutor {
    ReferenceExecutor::new(&options, None).expect("there is a CPU")
}

fn options() -> ReferenceOptions {
    ReferenceOptions { track: true, ..ReferenceOptions::new() }
}

#[test]
fn steps_of_two_plans_in_turn() {
    let sanitize = Some(Sanitize { not_finite: true });
    let variants = [
        options(),
        ReferenceOptions { threads: NonZeroUsize::new(1), subgroup_size: 4, ..options() },
        ReferenceOptions { threads: NonZeroUsize::new(3), ..options() },
        ReferenceOptions { sanitize, ..options() },
    ];
    for options in variants {
        // The smaller plan first, whose slots then have to grow, and last, where they do not.
        for counts in [[16, 64], [64, 16]] {
            let executor = executor(options);
            let mut session = hal_plan::open(&executor).expect("opened");
            hal_plan::alternate_between(&mut session, counts, 9, |step, found, expected| {
                assert_eq!(found, expected, "step {step}, {options:?}");
            });
            assert_eq!(executor.findings(), (Vec::new(), 0), "{options:?}");
            let memory = session.memory();
            assert_eq!(memory.slot_bytes, 2 * 64 * 4, "two slots of the larger plan");
            assert_eq!(memory.weight_bytes, hal_plan::WEIGHT_COUNT * 4);
            assert_eq!(session.cpu_cost().steps, 9);
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let checkpoint = open(&reference("synth-v7").expect("committed").join("model.safetensors"));
    let program = Program::rwkv7();
    let tokens: Vec<u32> = (0..12).map(|at| at * 53 % 322).collect();
    let [one, three] = [1, 3].map(|threads| {
        let executor = executor(ReferenceOptions { threads: NonZeroUsize::new(threads), ..options() });
        let limits = executor.device().limits.clone();
        let compiler = program.compiler(checkpoint.index(), &limits, &[]);
        run(&mut decoder(&AnyExecutor::Reference(executor), compiler, &checkpoint, &[1, 7]), &tokens, &[7, 1, 4])
    });
    assert!(one.bits() == three.bits(), "off by {:.2e}", one.distance(&three));
}

#[test]
fn outputs_are_kept_until_they_are_fetched_or_too_old() {
    let mut session = hal_plan::open(&executor(options())).expect("opened");
    let id = session.prepare(hal_plan::checked(hal_plan::plan(16))).expect("prepared");
    let tickets: Vec<_> = (0..3).map(|step| session.step(id, &hal_plan::inputs(16, step)).expect("a step")).collect();
    let text = session.outputs(tickets[0]).expect_err("discarded").to_string();
    assert!(text.ends_with("they were fetched or discarded before"), "{text}");
    session.outputs(tickets[2]).expect("kept");
    session.outputs(tickets[1]).expect("kept");
    session.outputs(tickets[2]).expect_err("fetched");
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let mut session = hal_plan::open(&executor(options())).expect("opened");
    let id = session.prepare(hal_plan::checked(hal_plan::plan(16))).expect("prepared");
    let mut other = hal_plan::plan(16);
    other.weights.pieces[0].tensor = "v".to_owned();
    let error = session.prepare(hal_plan::checked(other)).expect_err("other weights");
    assert!(matches!(error, ExecError::OtherLayout { .. }), "{error}");
    let mut large = hal_plan::plan(16);
    large.limits.max_invocations_per_workgroup = 4096;
    let error = session.prepare(hal_plan::checked(large)).expect_err("too much is asked for");
    assert!(matches!(error, ExecError::TooSmall { .. }), "{error}");
    let mut wrong = hal_plan::plan(64);
    let broken = wrong.kernels.values().cloned().map(|kernel| Kernel { wgsl: "fn main(".to_owned(), ..kernel });
    let broken: Vec<Kernel> = broken.collect();
    wrong.kernels = Arena::new();
    broken.into_iter().for_each(|kernel| {
        wrong.kernels.push(kernel);
    });
    session.prepare(hal_plan::checked(wrong)).expect_err("no WGSL");
    let error = session.step(id, &hal_plan::inputs(8, 0)).expect_err("too few elements");
    assert!(matches!(error, ExecError::Input { expected: 16, found: 8, .. }), "{error}");
    session.read_state(0, 99).expect_err("no such row");
    session.write_state(0, 0, &[0; 3]).expect_err("no row");
    let mut state = vec![hal_plan::INIT; 64];
    let ticket = session.step(id, &hal_plan::inputs(16, 0)).expect("a step");
    assert_eq!(hal_plan::first(&mut session, ticket), hal_plan::expected(16, 0, &mut state));
}

/// The tracker stands where no sanitizer does.
#[test]
fn a_tracked_step_stops_at_a_missing_transition() {
    let plan = hal_plan::plan(16);
    let (at, _) = graphc::inspect::verify::mutate::transitions(&plan)
        .find(|(_, planned)| planned.to == Usage::STORAGE_READ)
        .expect("something is read");
    let options = ReferenceOptions { dropped: Some(at), ..options() };
    let mut session = hal_plan::open(&executor(options)).expect("opened");
    let id = session.prepare(hal_plan::checked(plan)).expect("prepared");
    let error = session.step(id, &hal_plan::inputs(16, 0)).expect_err("a transition is missing");
    assert!(matches!(error, ExecError::Usage { .. }), "{error}");
}
