//! Planner, checker and oracle hold each other to account.
//!
//! Gets plans of shipped graphs; asks the oracle, which shares no code with the other two, whether all conflicting
//! accesses are ordered, and whether each transition is needed for that.

mod support;

use graphc::base::limits::Limits;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::inspect::oracle::{unordered, unordered_at, unordered_between};
use graphc::plan::{CheckedPlan, Plan};
use graphc::sources;
use support::runner::{Program, compile};

fn plan(tokens: u32, sequences: u32) -> CheckedPlan {
    let checkpoint = Checkpoint::from_static("the built-in model", sources::DEMO_MODEL).expect("a sound checkpoint");
    let shape = StepShape { tokens, sequences, rows: sequences, capacity: 4 };
    compile(&Program::rwkv7().compiler(checkpoint.index(), &Limits::vulkan(), &[]), shape)
}

#[test]
fn the_oracle_finds_nothing_in_plans_of_the_built_in_model() {
    let plans = [plan(1, 1), plan(32, 1), plan(32, 4)];
    for plan in &plans {
        let found = unordered(plan);
        assert!(found.is_empty(), "{}", found[0].text(plan));
        for other in &plans {
            assert_eq!(unordered_between(plan, other), [], "{:?} then {:?}", plan.shape, other.shape);
        }
    }
}

#[test]
fn without_any_one_transition_the_oracle_finds_an_unordered_pair_at_its_buffer() {
    let plan = plan(1, 1);
    for level in 0..=plan.levels.len() {
        for at in 0.. {
            let mut broken: Plan = (*plan).clone();
            let barrier = broken.levels.get_mut(level).map_or(&mut broken.leave, |level| &mut level.barrier);
            if at == barrier.len() {
                break;
            }
            let removed = barrier.remove(at);
            assert!(!unordered_at(&broken, removed.buffer).is_empty(), "transition {level}.{at}: {removed:?}");
        }
    }
}
