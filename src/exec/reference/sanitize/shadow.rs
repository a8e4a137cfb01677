//! What each command of one real step touched, and what that says of the same step with other transitions.
//!
//! Gets the words that a sanitized step read and wrote, and edits of its transitions; returns what the model of
//! visibility has against them. What holds then: a step with edits is followed as if it had run between two intact
//! ones, on the words that its kernels really touch, without running any: thousands of mutants take a second. Never
//! changes what was recorded.

use crate::exec::reference::sanitize::order::{Track, Use, Wrong};
use crate::exec::replay::{Edit, edited};
use crate::plan::Plan;
use crate::plan::command::{BufferId, Transition};

/// Who uses a buffer: a command by its number in the plan, or the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Party {
    /// Before the first command.
    HostBefore,
    Command(usize),
    /// Behind the last.
    HostAfter,
}

/// The uses of every buffer in one step.
#[derive(Clone, Debug, Default)]
pub struct Footprints {
    /// By buffer of the plan, in order.
    pub(super) uses: Vec<Vec<Use<Party>>>,
}

impl Footprints {
    /// Whether no step was looked at.
    pub fn is_empty(&self) -> bool {
        self.uses.is_empty()
    }
}

/// A step with edits among intact ones.
const STEPS: u64 = 3;
const EDITED: u64 = 1;

/// What a step with these edits does wrong, between two intact steps of the same plan; nothing if it is not noticed.
/// Transitions of a buffer order that buffer alone, so only those are followed that an edit is about.
///
/// # Panics
/// If the footprints are another plan's.
pub fn noticed(plan: &Plan, footprints: &Footprints, edits: &[Edit]) -> Option<String> {
    let planned = |edit: &Edit| {
        let barrier = plan.levels.get(edit.at.level).map_or(&plan.leave, |level| &level.barrier);
        barrier.get(edit.at.transition).map(|transition| transition.buffer)
    };
    let mut buffers: Vec<BufferId> =
        edits.iter().flat_map(|edit| [planned(edit), edit.with.map(|with| with.buffer)]).flatten().collect();
    buffers.sort_unstable();
    buffers.dedup();
    buffers.into_iter().find_map(|buffer| wrong_at(plan, footprints, edits, buffer))
}

/// What three intact steps do wrong, at any buffer.
pub fn intact(plan: &Plan, footprints: &Footprints) -> Option<String> {
    plan.buffers.ids().find_map(|buffer| wrong_at(plan, footprints, &[], buffer))
}

fn wrong_at(plan: &Plan, footprints: &Footprints, edits: &[Edit], buffer: BufferId) -> Option<String> {
    assert_eq!(footprints.uses.len(), plan.buffers.len(), "footprints of this plan");
    let rest = plan.buffers[buffer].rest;
    let mut track = Track::new(rest);
    let uses = &footprints.uses[buffer.index()];
    for step in 0..STEPS {
        let edits = if step == EDITED { edits } else { &[] };
        let (mut next, mut number) = (0, 0);
        let mut apply_until = |party: &dyn Fn(Party) -> bool, track: &mut Track<(u64, Party)>| {
            let mut wrong = None;
            while wrong.is_none() && uses.get(next).is_some_and(|found| party(found.who)) {
                let Use { who, usage, reads, writes, .. } = uses[next].clone();
                wrong = track.apply(Use { who: (step, who), step, usage, reads, writes }).into_iter().next();
                next += 1;
            }
            wrong
        };
        let host = apply_until(&|party| party == Party::HostBefore, &mut track);
        let wrong = host.or_else(|| {
            for level in 0..=plan.levels.len() {
                if let Some(wrong) = barrier(plan, level, edits, buffer, &mut track) {
                    return Some(wrong);
                }
                number += plan.levels.get(level).map_or(0, |level| level.commands.len());
                let end = number;
                let in_level = |party| matches!(party, Party::Command(command) if command < end);
                if let Some(wrong) = apply_until(&in_level, &mut track) {
                    return Some(wrong);
                }
            }
            apply_until(&|_| true, &mut track)
        });
        if let Some(wrong) = wrong.or_else(|| track.end(step, rest)) {
            return Some(text(plan, buffer, &wrong));
        }
    }
    None
}

/// The transitions of one buffer before a level.
fn barrier<W: Clone>(
    plan: &Plan,
    level: usize,
    edits: &[Edit],
    buffer: BufferId,
    track: &mut Track<W>,
) -> Option<Wrong<W>> {
    let planned = plan.levels.get(level).map_or(&plan.leave, |level| &level.barrier);
    let changed: Vec<Transition>;
    let barrier = match edits.iter().any(|edit| edit.at.level == level) {
        true => {
            changed = edited(level, planned, edits);
            &changed
        }
        false => planned,
    };
    let mut here = barrier.iter().filter(|transition| transition.buffer == buffer);
    here.find_map(|transition| track.transition(transition.from, transition.to))
}

/// As in "RAW at `buf3 slot1`: `double` and then `add`, and nothing orders them".
fn text(plan: &Plan, buffer: BufferId, wrong: &Wrong<(u64, Party)>) -> String {
    let name = format!("`{buffer} {}`", plan.buffers[buffer].label);
    let party = |(step, party): (u64, Party)| {
        let of = if step == EDITED { "" } else { " of another step" };
        match party {
            Party::Command(number) => {
                format!("`{}`{of}", plan.commands().nth(number).map_or("?", |command| command.label()))
            }
            Party::HostBefore | Party::HostAfter => format!("the host{of}"),
        }
    };
    match wrong {
        Wrong::Unordered { hazard, before, after, .. } => {
            format!("{hazard} at {name}: {} and then {}, and nothing orders them", party(before.0), party(after.0))
        }
        Wrong::Usage { state, needed, who } => format!("{} needs {name} in {needed}, it is in {state}", party(*who)),
        Wrong::From { state, from } => format!("a transition takes {name} from {from}, it is in {state}"),
        Wrong::Rest { state, rest } => format!("a step leaves {name} in {state}, it rests in {rest}"),
    }
}
