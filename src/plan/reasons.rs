//! Why a transition stands: who used its buffer before it, who will, and which hazard lies between.
//!
//! Gets a plan, returns the uses of each buffer and the reason of any transition, found by walking the plan; nothing of
//! it is stored there. What holds then: reasons name real uses, of this step or of the one before. For people alone:
//! never decides whether a transition is needed.

use std::fmt;

use crate::plan::Plan;
use crate::plan::command::{BufferId, Command, Slice, Transition};
use crate::plan::usage::Usage;

/// What a transition keeps apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hazard {
    /// A write, then a read that must see it.
    ReadAfterWrite,
    /// A read, then a write that must not be seen by it.
    WriteAfterRead,
    /// A write, then another that must win.
    WriteAfterWrite,
    /// Reads of different kinds: no hazard, a change of usage alone.
    ReadAfterRead,
}

impl Hazard {
    /// The hazard between two uses.
    pub const fn between(first_writes: bool, then_writes: bool) -> Self {
        match (first_writes, then_writes) {
            (true, false) => Self::ReadAfterWrite,
            (false, true) => Self::WriteAfterRead,
            (true, true) => Self::WriteAfterWrite,
            (false, false) => Self::ReadAfterRead,
        }
    }
}

impl fmt::Display for Hazard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadAfterWrite => "RAW",
            Self::WriteAfterRead => "WAR",
            Self::WriteAfterWrite => "WAW",
            Self::ReadAfterRead => "RAR",
        })
    }
}

/// One use of a buffer by a command of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Index of the level.
    pub level: usize,
    /// Index of the command in it.
    pub index: usize,
    /// What it uses the buffer as.
    pub usage: Usage,
    /// The bytes that it uses, as first byte and one past the last.
    pub bytes: (u64, u64),
}

impl Use {
    /// Whether two uses share bytes.
    pub const fn meets(self, other: Self) -> bool {
        self.bytes.0 < other.bytes.1 && other.bytes.0 < self.bytes.1
    }

    /// The label of the command.
    pub fn label(self, plan: &Plan) -> &str {
        plan.levels[self.level].commands[self.index].label()
    }
}

/// Who uses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// A command of this step.
    Command(Use),
    /// A command of the step before.
    StepBefore(Use),
    /// The host.
    Host,
    /// Nobody in this plan: another plan of the session, perhaps.
    Elsewhere,
}

impl Party {
    /// As in "`layer0.wkv` of the step before".
    pub fn text(self, plan: &Plan) -> String {
        match self {
            Self::Command(found) => format!("`{}`", found.label(plan)),
            Self::StepBefore(found) => format!("`{}` of the step before", found.label(plan)),
            Self::Host => "the host".to_owned(),
            Self::Elsewhere => "the step before".to_owned(),
        }
    }
}

/// Why a transition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Who used the buffer before.
    pub before: Party,
    /// Whether that wrote it.
    pub before_writes: bool,
    /// Who uses it next.
    pub after: Party,
    /// Whether that writes it.
    pub after_writes: bool,
    /// What is kept apart.
    pub hazard: Hazard,
}

impl Reason {
    /// As in "`x` wrote it, `y` reads it  (RAW)".
    pub fn text(&self, plan: &Plan) -> String {
        let verb = if self.after_writes { "writes" } else { "reads" };
        let past = if self.before_writes { "wrote" } else { "read" };
        let after = match self.after {
            Party::Elsewhere => "a later step".to_owned(),
            after => after.text(plan),
        };
        format!("{} {past} it, {after} {verb} it  ({})", self.before.text(plan), self.hazard)
    }
}

/// For each buffer of a plan, the commands that use it, in order.
#[derive(Clone, Debug)]
pub struct Reasons {
    uses: Vec<Vec<Use>>,
    /// For each buffer, the levels with a transition of it; the number of levels stands for the leaving barrier.
    barriers: Vec<Vec<usize>>,
}

impl Reasons {
    /// Walks the plan.
    pub fn new(plan: &Plan) -> Self {
        let mut uses: Vec<Vec<Use>> = vec![Vec::new(); plan.buffers.len()];
        for (level, commands) in plan.levels.iter().enumerate() {
            for (index, command) in commands.commands.iter().enumerate() {
                for (slice, usage) in slices(plan, command) {
                    let bytes = (slice.offset_bytes, slice.offset_bytes.saturating_add(slice.size_bytes));
                    uses[slice.buffer.index()].push(Use { level, index, usage, bytes });
                }
            }
        }
        let mut barriers: Vec<Vec<usize>> = vec![Vec::new(); plan.buffers.len()];
        for (number, barrier) in plan.levels.iter().map(|level| &level.barrier).chain([&plan.leave]).enumerate() {
            barrier.iter().for_each(|transition| barriers[transition.buffer.index()].push(number));
        }
        Self { uses, barriers }
    }

    /// The uses of a buffer, in order.
    pub fn uses(&self, buffer: BufferId) -> &[Use] {
        &self.uses[buffer.index()]
    }

    /// The levels with a transition of a buffer, in order; the number of levels stands for the leaving barrier.
    pub fn barriers(&self, buffer: BufferId) -> &[usize] {
        &self.barriers[buffer.index()]
    }

    /// The reason of a transition in the barrier before `level`; the number of levels stands for the leaving barrier.
    pub fn of(&self, plan: &Plan, level: usize, transition: &Transition) -> Reason {
        let (uses, barriers) = (self.uses(transition.buffer), self.barriers(transition.buffer));
        let is_host = plan.buffers[transition.buffer].kind.is_host_visible();
        // Between the transitions around this one, those count that share bytes; without any, the nearest.
        let at = barriers.partition_point(|other| *other < level);
        let from = at.checked_sub(1).map(|at| barriers[at]);
        let until = barriers[at..].iter().find(|other| level < **other);
        let begin = uses.partition_point(|found| from.is_some_and(|from| found.level < from));
        let next = uses.partition_point(|found| found.level < level);
        let end = uses.partition_point(|found| until.is_none_or(|until| found.level < *until));
        let wrapped = match (from, barriers.last()) {
            (None, Some(last)) if !is_host => &uses[uses.partition_point(|found| found.level < *last)..],
            _ => &[],
        };
        let now = uses[begin..next].iter().map(|found| Party::Command(*found));
        let before: Vec<Party> = wrapped.iter().map(|found| Party::StepBefore(*found)).chain(now).collect();
        let meets = |party: &&Party, after: &Use| match party {
            Party::Command(found) | Party::StepBefore(found) => found.meets(*after),
            Party::Host | Party::Elsewhere => false,
        };
        let pair = uses[next..end].iter().find_map(|after| {
            let before = before.iter().rev().find(|party| meets(party, after))?;
            Some((*before, *after))
        });
        let after = pair.map(|(_, after)| after).or_else(|| uses[next..end].first().copied());
        let before = pair.map(|(before, _)| before).or_else(|| before.last().copied());
        let (before, before_writes) = match before {
            Some(Party::Command(found) | Party::StepBefore(found)) => (before, found.usage.writes()),
            _ => (None, transition.from.writes()),
        };
        let before = before.unwrap_or(if is_host { Party::Host } else { Party::Elsewhere });
        let (after, after_writes) = match after {
            Some(found) => (Party::Command(found), found.usage.writes()),
            None if is_host => (Party::Host, transition.to.writes()),
            // A step that takes a state back to its rest leaves it to others.
            None => (Party::Elsewhere, transition.to.writes()),
        };
        Reason { before, before_writes, after, after_writes, hazard: Hazard::between(before_writes, after_writes) }
    }
}

/// The slices that a command names, with what it uses each as.
pub fn slices(plan: &Plan, command: &Command) -> Vec<(Slice, Usage)> {
    match command {
        Command::Dispatch(dispatch) => {
            let bindings = &plan.kernels[dispatch.kernel].bindings;
            dispatch.bindings.iter().zip(bindings).map(|(slice, binding)| (*slice, binding.usage())).collect()
        }
        Command::Copy(copy) => vec![(copy.from, Usage::COPY_SRC), (copy.to, Usage::COPY_DST)],
    }
}

/// The buffers that a command names, with what it uses each as.
pub fn usages(plan: &Plan, command: &Command) -> Vec<(BufferId, Usage)> {
    slices(plan, command).into_iter().map(|(slice, usage)| (slice.buffer, usage)).collect()
}
