//! The verifier: the one way from a [`Plan`] to a [`CheckedPlan`].
//!
//! Gets any plan, also one from a file; returns a [`CheckedPlan`], of which P1 to P10 hold, or every broken promise it
//! finds. It replays the plan's data symbolically: `parts` looks at each buffer, kernel and command by itself, `usages`
//! follows the usage of each buffer, `contents` follows which bytes mean something. It shares the data types and the
//! rules of [`Usage`] with the lowering, nothing else. Never panics, whatever the plan says, and never mends one.

mod contents;
mod parts;
mod ranges;
#[cfg(test)]
mod tests;
mod usages;

use std::fmt;

use crate::base::dtype::DType;
use crate::plan::command::{Buffer, BufferId, BufferKind, Command, Slice};
use crate::plan::usage::Usage;
use crate::plan::{CheckedPlan, Plan};

/// Verifies P1 to P10.
///
/// # Errors
/// As [`violations`] finds them.
pub fn check(plan: Plan) -> Result<CheckedPlan, Vec<CheckError>> {
    let list = violations(&plan);
    if list.is_empty() { Ok(CheckedPlan { plan }) } else { Err(list) }
}

/// Every broken promise that can be told apart from the consequences of another one, the parts first, then what the
/// replay finds. A command with an id out of range is not looked at further.
pub fn violations(plan: &Plan) -> Vec<CheckError> {
    let mut errors = Errors { plan, list: Vec::new() };
    parts::check(&mut errors);
    usages::check(&mut errors);
    contents::check(&mut errors);
    errors.list
}

/// What a checked plan promises; the texts stand in [`crate::plan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// Every id is in range, and what two tables say of one thing agrees.
    P1,
    /// Every slice lies in its buffer; sizes and alignments are within the limits.
    P2,
    /// The tracked usage contains the usage that a command needs.
    P3,
    /// A transition stands wherever one of two consecutive uses writes, and nowhere without need.
    P4,
    /// A dispatch does not bind a buffer twice if it writes it.
    P5,
    /// Values that live together do not overlap.
    P6,
    /// Nothing is read before it is written, uploaded or carried over.
    P7,
    /// Buffers leave in the usage in which they entered.
    P8,
    /// Dispatch counts are non-zero and within limits.
    P9,
    /// Host-visible buffers are reached through copies alone and rest in the host's usage.
    P10,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A promise that a plan breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckError {
    /// Which promise.
    pub promise: Promise,
    /// Where, as in "level 3, `layer0.wkv`", "leave" or "buffers".
    pub place: String,
    /// What was expected and what was found.
    pub reason: String,
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.promise, self.place, self.reason)
    }
}

impl std::error::Error for CheckError {}

/// The plan and what was found in it so far.
struct Errors<'a> {
    plan: &'a Plan,
    list: Vec<CheckError>,
}

impl Errors<'_> {
    fn push(&mut self, promise: Promise, at: At, reason: String) {
        self.list.push(CheckError { promise, place: at.text(self.plan), reason });
    }

    /// The buffer as errors name it.
    fn name(&self, id: BufferId) -> String {
        let label = self.plan.buffers.get(id).map_or("?", |buffer| buffer.label.as_str());
        format!("`{id} {label}`")
    }
}

/// A place in a plan; becomes text only if there is something to say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// One of the plan's tables.
    Table(&'static str),
    /// The barrier of a level; that of the level after the last one is the leaving barrier.
    Barrier(usize),
    /// A command: its level and its index there.
    Command(usize, usize),
}

impl At {
    fn text(self, plan: &Plan) -> String {
        match self {
            Self::Table(name) => name.to_owned(),
            Self::Barrier(level) if level == plan.levels.len() => "leave".to_owned(),
            Self::Barrier(level) => format!("level {level}"),
            Self::Command(level, index) => {
                let command = plan.levels.get(level).and_then(|level| level.commands.get(index));
                format!("level {level}, `{}`", command.map_or("?", Command::label))
            }
        }
    }
}

/// One way in which a command touches a buffer.
#[derive(Clone, Copy, Debug)]
struct Access {
    slice: Slice,
    usage: Usage,
    reads: bool,
    writes: bool,
}

/// What a command touches, as far as its buffers exist; reads stand before writes in a copy. Nothing if the kernel does
/// not exist or has another number of bindings: then nobody knows what the command does with its buffers.
fn accesses(plan: &Plan, command: &Command) -> Option<Vec<Access>> {
    let mut accesses: Vec<Access> = match command {
        Command::Dispatch(dispatch) => {
            let kernel = plan.kernels.get(dispatch.kernel)?;
            if kernel.bindings.len() != dispatch.bindings.len() {
                return None;
            }
            let pairs = dispatch.bindings.iter().zip(&kernel.bindings);
            pairs
                .map(|(slice, binding)| Access {
                    slice: *slice,
                    usage: binding.usage(),
                    reads: binding.reads,
                    writes: binding.writes,
                })
                .collect()
        }
        Command::Copy(copy) => vec![
            Access { slice: copy.from, usage: Usage::COPY_SRC, reads: true, writes: false },
            Access { slice: copy.to, usage: Usage::COPY_DST, reads: false, writes: true },
        ],
    };
    accesses.retain(|access| plan.buffers.get(access.slice.buffer).is_some());
    Some(accesses)
}

/// The buffers that a command names, whatever it does with them.
fn mentions(command: &Command) -> Vec<BufferId> {
    match command {
        Command::Dispatch(dispatch) => dispatch.bindings.iter().map(|slice| slice.buffer).collect(),
        Command::Copy(copy) => vec![copy.from.buffer, copy.to.buffer],
    }
}

/// Whether some command names what does not exist. Uses that seem to be missing may then be among those it hides, so
/// nothing is said of them.
fn hides_uses(plan: &Plan) -> bool {
    plan.commands().any(|command| accesses(plan, command).is_none_or(|known| known.len() < mentions(command).len()))
}

/// Whether commands may use a buffer of this kind so (P10, and that weights never change).
fn is_allowed(kind: BufferKind, usage: Usage) -> bool {
    match kind {
        BufferKind::HostWrite => usage == Usage::COPY_SRC,
        BufferKind::HostRead => usage == Usage::COPY_DST,
        BufferKind::Weight { .. } => !usage.writes(),
        BufferKind::State { .. } | BufferKind::Slot | BufferKind::Input => true,
    }
}

/// Whether a slice is not empty and lies in the buffer.
fn lies_in(slice: Slice, buffer: &Buffer) -> bool {
    slice.size_bytes > 0 && slice.end_bytes().is_some_and(|end| end <= buffer.size_bytes)
}

/// Bytes of a tensor in a buffer, or nothing where they do not fit 64 bits.
fn tensor_bytes(dtype: DType, shape: &[u64]) -> Option<u64> {
    let count = shape.iter().try_fold(1_u64, |count, axis| count.checked_mul(*axis))?;
    count.checked_mul(dtype.size_bytes())?.checked_next_multiple_of(4)
}

/// Pairs of neighbours that share bytes, among `(buffer, first byte, one past the last, index)`.
fn overlaps(mut ranges: Vec<(usize, u64, u64, usize)>) -> Vec<(usize, usize)> {
    ranges.sort_unstable();
    let mut pairs = Vec::new();
    let mut furthest: Option<(usize, u64, usize)> = None;
    for (buffer, start, end, index) in ranges {
        match furthest {
            Some((in_buffer, reach, owner)) if in_buffer == buffer && start < reach => {
                pairs.push((owner, index));
                if end > reach {
                    furthest = Some((buffer, end, index));
                }
            }
            _ => furthest = Some((buffer, end, index)),
        }
    }
    pairs
}
