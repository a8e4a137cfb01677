//! Follows the usage of every buffer through the plan: P3, P4, P5, P8.
//!
//! Gets the plan, returns errors about transitions that are missing, wrong or needless. Then a buffer is in a usage
//! that contains what each command does with it, conflicting uses are apart, and every single transition is needed.
//! After an error it carries on as if the plan had been right there. Usage is tracked per whole buffer; bytes tell
//! only whether two writes in one usage conflict.
//!
//! Necessary means, for a transition in a level: the buffer is used before its next transition, in every usage of `to`
//! (those of its rest usage aside, if it leaves in that); it was not in `to` already; and no transition before it could
//! have gone there at once. One from a write to the same one stands between writes that share bytes. For one in
//! `leave`: the buffer was not at rest, and could not have been earlier.

use super::parts::{may_be_in, rests_well};
use super::ranges::Ranges;
use super::{At, Errors, Promise, accesses, hides_uses, is_allowed, mentions};
use crate::plan::command::{Buffer, BufferId, BufferKind, Command, Slice, Transition};
use crate::plan::usage::Usage;

/// How a buffer came into its usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// It rested in it since earlier steps.
    Rest,
    /// By the transition in this barrier.
    Barrier(usize),
    /// Assumed after an error, so nothing is said of how it came there.
    Assumed,
}

/// What is known of a buffer.
#[derive(Clone, Debug)]
struct Tracked {
    usage: Usage,
    arrival: Arrival,
    /// Its uses since then. Earlier steps used it in its rest usage, as far as this one can know.
    used: Usage,
    /// The bytes that were written since then; all of them if an earlier step may have.
    written: Ranges,
    /// If it came from a write to the same: the bytes written before, until one of them is written again.
    rewrites: Option<Ranges>,
    /// The last use in this step.
    last: Option<At>,
    /// Something names it in a way that cannot be followed; that was reported, and nothing more is.
    lost: bool,
}

struct Usages<'e, 'p> {
    errors: &'e mut Errors<'p>,
    /// By buffer.
    tracked: Vec<Tracked>,
    hides_uses: bool,
}

/// The whole step.
pub(super) fn check(errors: &mut Errors<'_>) {
    let plan = errors.plan;
    let at_rest = |buffer: &Buffer| {
        let (rest, lost) = (buffer.rest, !rests_well(buffer));
        let written = if rest.writes() { Ranges::all() } else { Ranges::default() };
        Tracked { usage: rest, arrival: Arrival::Rest, used: rest, written, rewrites: None, last: None, lost }
    };
    let tracked = plan.buffers.values().map(at_rest).collect();
    let mut usages = Usages { errors, tracked, hides_uses: hides_uses(plan) };
    for (number, level) in plan.levels.iter().enumerate() {
        usages.barrier(number, &level.barrier);
        for (index, command) in level.commands.iter().enumerate() {
            usages.command(At::Command(number, index), command);
        }
    }
    usages.barrier(plan.levels.len(), &plan.leave);
    usages.end();
}

impl Usages<'_, '_> {
    fn push(&mut self, promise: Promise, at: At, buffer: BufferId, reason: &str) {
        let name = self.errors.name(buffer);
        self.errors.push(promise, at, format!("{name}: {reason}"));
    }

    fn lose(&mut self, buffer: BufferId) {
        if let Some(tracked) = self.tracked.get_mut(buffer.index()) {
            tracked.lost = true;
        }
    }

    fn barrier(&mut self, barrier: usize, transitions: &[Transition]) {
        for transition in transitions {
            self.transition(barrier, *transition);
        }
    }

    fn transition(&mut self, barrier: usize, Transition { buffer: id, from, to }: Transition) {
        let Some(buffer) = self.errors.plan.buffers.get(id) else {
            return;
        };
        let at = At::Barrier(barrier);
        if matches!(buffer.kind, BufferKind::Weight { .. }) {
            let reason = format!("expected no transition of a weight, found one from {from} to {to}");
            return self.push(Promise::P7, at, id, &reason);
        }
        if !may_be_in(buffer.kind, to) {
            return self.lose(id);
        }
        let nothing = Tracked { used: Usage::empty(), written: Ranges::default(), ..self.tracked[id.index()].clone() };
        let before = std::mem::replace(&mut self.tracked[id.index()], nothing);
        if before.arrival == Arrival::Barrier(barrier) {
            self.tracked[id.index()] = before;
            let reason = format!("expected at most one transition in a barrier, found another from {from} to {to}");
            return self.push(Promise::P4, at, id, &reason);
        }
        let followed = !before.lost && before.arrival != Arrival::Assumed;
        if followed && before.usage != from {
            let reason = format!("expected a transition from {}, in which it is, found one from {from}", before.usage);
            self.push(Promise::P4, at, id, &reason);
        } else if followed {
            self.necessary(barrier, id, &before, to);
        }
        let is_used = followed && before.usage == from && !before.used.is_empty();
        let rewrites = (is_used && from == to && to.writes()).then_some(before.written);
        let tracked = &mut self.tracked[id.index()];
        (tracked.usage, tracked.arrival, tracked.rewrites) = (to, Arrival::Barrier(barrier), rewrites);
    }

    /// P4 the other way: this transition is needed, and the one before it was.
    fn necessary(&mut self, barrier: usize, id: BufferId, before: &Tracked, to: Usage) {
        let Tracked { usage, used, arrival, .. } = *before;
        let leaving = barrier == self.errors.plan.levels.len();
        let rest = self.errors.plan.buffers[id].rest;
        if let Arrival::Barrier(earlier) = arrival
            && !self.hides_uses
        {
            let unused = usage - used;
            if used.is_empty() {
                let next = At::Barrier(barrier).text(self.errors.plan);
                let reason = format!("expected a use as {usage} before the transition at {next}, found none");
                self.push(Promise::P4, At::Barrier(earlier), id, &reason);
            } else if !unused.is_empty() {
                let reason = format!("expected a transition to {used}, as it is used afterwards, found one to {usage}");
                self.push(Promise::P4, At::Barrier(earlier), id, &reason);
            } else {
                self.rewritten(earlier, id, before);
            }
        }
        let reason = if leaving && usage == rest {
            format!("expected no transition, since it is in {rest}, its rest, found one to {to}")
        } else if usage.writes() || to.writes() {
            return;
        } else if !leaving && usage.contains(to) {
            format!("expected no transition between reads, since {usage} contains {to}, found one")
        } else if let Arrival::Barrier(earlier) = arrival
            && (!leaving || rest.contains(used))
        {
            let all = if leaving { rest } else { usage | to };
            format!("expected the transition at level {earlier} to lead to {all} at once, found another one to {to}")
        } else {
            return;
        };
        self.push(Promise::P4, At::Barrier(barrier), id, &reason);
    }

    /// P4 of a transition from a write to the same one: it stands between writes that share bytes.
    fn rewritten(&mut self, barrier: usize, id: BufferId, since: &Tracked) {
        if since.rewrites.is_some() {
            let reason = format!(
                "expected no transition from {0} to {0}, since what is written after it shares no byte with what was \
                 written before, found one",
                since.usage
            );
            self.push(Promise::P4, At::Barrier(barrier), id, &reason);
        }
    }

    fn command(&mut self, at: At, command: &Command) {
        let plan = self.errors.plan;
        let Some(accesses) = accesses(plan, command) else {
            return mentions(command).into_iter().for_each(|buffer| self.lose(buffer));
        };
        let mut uses = accesses;
        // Stable, so that errors come in the order of the bindings where they are about one buffer.
        uses.sort_by_key(|access| access.slice.buffer);
        for uses in uses.chunk_by(|one, other| one.slice.buffer == other.slice.buffer) {
            let Slice { buffer, offset_bytes, size_bytes } = uses[0].slice;
            let usage = uses.iter().fold(Usage::empty(), |all, access| all | access.usage);
            if !is_allowed(plan.buffers[buffer].kind, usage) {
                self.lose(buffer);
            } else if usage.is_legal() && (uses.len() == 1 || !usage.writes()) {
                let end = offset_bytes.saturating_add(size_bytes);
                self.use_buffer(at, buffer, usage, (offset_bytes, end));
            } else {
                // A copy from a buffer to itself was reported with the command's parts.
                if matches!(command, Command::Dispatch(_)) {
                    let count = uses.len();
                    let reason =
                        format!("expected one binding, since the dispatch writes it, found {count} bindings to it");
                    self.push(Promise::P5, at, buffer, &reason);
                }
                self.lose(buffer);
            }
        }
    }

    /// A use of a buffer; `start` and `end` are the bytes that it writes, if it does.
    fn use_buffer(&mut self, at: At, id: BufferId, usage: Usage, (start, end): (u64, u64)) {
        let tracked = &self.tracked[id.index()];
        let Tracked { usage: state, arrival, used, last, lost, .. } = *tracked;
        if lost {
            return;
        }
        let conflict = match usage.writes() {
            // Writes in one usage are apart if their bytes are.
            true if used == usage => tracked.written.meets(start, end),
            true => !used.is_empty(),
            false => used.writes(),
        };
        let missing = !state.contains(usage) && arrival != Arrival::Assumed;
        if conflict {
            let (now, then) = (verb(usage), verb(used));
            let reason = match (last, at) {
                (Some(At::Command(level, index)), At::Command(here, _)) if level == here => {
                    let other = self.errors.plan.levels[level].commands[index].label();
                    format!(
                        "it is {now} here and {then} by `{other}`: expected one of them in a later level, found both"
                    )
                }
                (Some(last), _) => {
                    let last = last.text(self.errors.plan);
                    format!("it is {now} here and was {then} at {last}: expected a transition between, found none")
                }
                (None, _) => {
                    format!(
                        "it is {now} here and was {then} by an earlier step: expected a transition between, found none"
                    )
                }
            };
            self.push(Promise::P4, at, id, &reason);
        } else if missing {
            let reason = format!("expected a usage that contains {usage}, found {state}");
            self.push(Promise::P3, at, id, &reason);
        }
        let tracked = &mut self.tracked[id.index()];
        tracked.last = Some(at);
        if usage.writes() {
            tracked.written.add(start, end);
            tracked.rewrites.take_if(|before| before.meets(start, end));
        }
        if conflict || missing {
            (tracked.usage, tracked.arrival, tracked.used) = (usage, Arrival::Assumed, usage);
        } else {
            tracked.used |= usage;
            if arrival == Arrival::Assumed {
                tracked.usage |= usage;
            }
        }
    }

    /// P8, and P4 for the last transition before `leave`.
    fn end(&mut self) {
        let plan = self.errors.plan;
        for (id, buffer) in plan.buffers.iter() {
            let tracked = self.tracked[id.index()].clone();
            let Tracked { usage, arrival, used, lost, .. } = tracked;
            if lost || arrival == Arrival::Assumed {
                continue;
            }
            if let Arrival::Barrier(level) = arrival
                && !self.hides_uses
                && !used.is_empty()
            {
                self.rewritten(level, id, &tracked);
            }
            if let Arrival::Barrier(level) = arrival
                && level < plan.levels.len()
                && used.is_empty()
                && !self.hides_uses
            {
                let reason = format!("expected a use as {usage} before the step ends, found none");
                self.push(Promise::P4, At::Barrier(level), id, &reason);
            }
            if usage != buffer.rest {
                let reason = format!("expected {}, its rest, found that it leaves in {usage}", buffer.rest);
                self.push(Promise::P8, At::Barrier(plan.levels.len()), id, &reason);
            }
        }
    }
}

fn verb(usage: Usage) -> &'static str {
    if usage.writes() { "written" } else { "read" }
}
