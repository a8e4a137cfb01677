//! Mutants of a plan: one transition removed, or with another usage, or of another buffer.
//!
//! Gets a plan that is checked, returns its mutants and, of each, who notices: the checker by a broken promise, the
//! oracle by an unordered pair. What holds then: every mutant differs from the plan in one transition, and is legal by
//! itself: its usages are usages of its buffer's kind. The plan is as it was after each. Never runs anything.

use std::collections::HashMap;

use crate::exec::replay::{Edit, TransitionAt};
use crate::inspect::oracle::{Unordered, unordered_at};
use crate::plan::Plan;
use crate::plan::check::{CheckError, violations};
use crate::plan::command::{BufferId, BufferKind, Command, Transition};
use crate::plan::reasons::{Reasons, usages};
use crate::plan::usage::Usage;

/// What is wrong with a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The transition is missing.
    Removed,
    /// It begins in another usage.
    From,
    /// It leads to another usage.
    To,
    /// It is of another buffer.
    Buffer,
}

/// A plan with one transition changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// The change.
    pub edit: Edit,
    /// What is wrong.
    pub kind: Kind,
}

impl Mutant {
    /// As in "level 5, transition 1, `buf3 slot2` storage-write -> storage-read: removed".
    pub fn text(&self, plan: &Plan) -> String {
        let TransitionAt { level, transition } = self.edit.at;
        let place = if level == plan.levels.len() { "leave".to_owned() } else { format!("level {level}") };
        let planned = barrier(plan, level)[transition];
        let name = |buffer: BufferId| format!("`{buffer} {}`", plan.buffers[buffer].label);
        let change = match self.edit.with {
            None => "removed".to_owned(),
            Some(with) if self.kind == Kind::Buffer => format!("of {} instead", name(with.buffer)),
            Some(with) if self.kind == Kind::From => format!("from {} instead", with.from),
            Some(with) => format!("to {} instead", with.to),
        };
        let Transition { buffer, from, to } = planned;
        format!("{place}, transition {transition}, {} {from} -> {to}: {change}", name(buffer))
    }
}

/// Who notices a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The first promise that the checker finds broken.
    pub refusal: Option<CheckError>,
    /// The first pair of accesses that the oracle finds unordered.
    pub pair: Option<Unordered>,
}

/// The transitions before a level; the number of levels stands for the leaving barrier.
pub fn barrier(plan: &Plan, level: usize) -> &[Transition] {
    plan.levels.get(level).map_or(&plan.leave, |level| &level.barrier)
}

fn barrier_mut(plan: &mut Plan, level: usize) -> &mut Vec<Transition> {
    match level < plan.levels.len() {
        true => &mut plan.levels[level].barrier,
        false => &mut plan.leave,
    }
}

/// Every transition of a plan, in order.
pub fn transitions(plan: &Plan) -> impl Iterator<Item = (TransitionAt, Transition)> {
    (0..=plan.levels.len()).flat_map(move |level| {
        let barrier = barrier(plan, level).iter().enumerate();
        barrier.map(move |(transition, planned)| (TransitionAt { level, transition }, *planned))
    })
}

/// The usages that a transition may be tried with, by the kind of its buffer.
fn legal(kind: BufferKind) -> &'static [Usage] {
    const DEVICE: [Usage; 5] = [
        Usage::STORAGE_READ,
        Usage::STORAGE_WRITE,
        Usage::COPY_SRC,
        Usage::COPY_DST,
        Usage::STORAGE_READ.union(Usage::COPY_SRC),
    ];
    match kind {
        BufferKind::HostWrite => &[Usage::MAP_WRITE, Usage::COPY_SRC],
        BufferKind::HostRead => &[Usage::MAP_READ, Usage::COPY_DST],
        BufferKind::Weight { .. } | BufferKind::State { .. } | BufferKind::Slot | BufferKind::Input => &DEVICE,
    }
}

/// All mutants of one transition.
pub fn mutants(plan: &Plan, at: TransitionAt) -> Vec<Mutant> {
    let planned = barrier(plan, at.level)[at.transition];
    let usages = legal(plan.buffers[planned.buffer].kind);
    let with = |kind, with| Mutant { edit: Edit { at, with: Some(with) }, kind };
    let mut found = vec![Mutant { edit: Edit { at, with: None }, kind: Kind::Removed }];
    let other = |usage| usages.iter().copied().filter(move |other| *other != usage);
    found.extend(other(planned.from).map(|from| with(Kind::From, Transition { from, ..planned })));
    found.extend(other(planned.to).map(|to| with(Kind::To, Transition { to, ..planned })));
    found.extend(others(plan, at, planned).map(|buffer| with(Kind::Buffer, Transition { buffer, ..planned })));
    found
}

/// Buffers that a transition might be of by mistake: the first other one that the level's commands use, and the one
/// after it in the plan. Neither has a transition in this barrier: two of one buffer would be wrong by that alone.
fn others(plan: &Plan, at: TransitionAt, planned: Transition) -> impl Iterator<Item = BufferId> {
    let is_host = plan.buffers[planned.buffer].kind.is_host_visible();
    let here = barrier(plan, at.level);
    let may_be = |buffer: &BufferId| {
        let kind = plan.buffers[*buffer].kind;
        !matches!(kind, BufferKind::Weight { .. })
            && kind.is_host_visible() == is_host
            && here.iter().all(|transition| transition.buffer != *buffer)
    };
    let commands = plan.levels.get(at.level).map_or(&[][..], |level| &level.commands);
    let used = commands.iter().flat_map(|command| usages(plan, command)).map(|(buffer, _)| buffer).find(may_be);
    let mut after = plan.buffers.ids().skip(planned.buffer.index() + 1).chain(plan.buffers.ids());
    let next = after.find(|buffer| may_be(buffer) && Some(*buffer) != used);
    used.into_iter().chain(next)
}

/// Looks at a mutant with the checker's and the oracle's eyes. The plan is changed for that, and changed back.
pub fn judge(plan: &mut Plan, mutant: &Mutant) -> Verdict {
    let Edit { at: TransitionAt { level, transition }, with } = mutant.edit;
    let planned = barrier(plan, level)[transition];
    let transitions = barrier_mut(plan, level);
    match with {
        Some(with) => transitions[transition] = with,
        None => drop(transitions.remove(transition)),
    }
    let refusal = violations(plan).into_iter().next();
    // Transitions of a buffer order that buffer alone, so no other can have lost anything.
    let wrong = with.map(|with| with.buffer).filter(|buffer| *buffer != planned.buffer);
    let mut changed = std::iter::once(planned.buffer).chain(wrong);
    let pair = changed.find_map(|buffer| unordered_at(plan, buffer).into_iter().next());
    let transitions = barrier_mut(plan, level);
    match with {
        Some(_) => transitions[transition] = planned,
        None => transitions.insert(transition, planned),
    }
    Verdict { refusal, pair }
}

/// One of each sort of transitions, with how many there are of it. Two are of a sort if they stand in barriers of the
/// same changes before the same kernels, change a buffer of the same kind in the same way, and the same kernels use
/// that buffer before and after them, as many levels away. So layers that look alike are tried once.
pub fn sorts(plan: &Plan) -> Vec<(TransitionAt, usize)> {
    let reasons = Reasons::new(plan);
    let levels: Vec<String> = (0..=plan.levels.len()).map(|level| level_sort(plan, level)).collect();
    let mut places: HashMap<(&str, String), usize> = HashMap::new();
    let mut found: Vec<(TransitionAt, usize)> = Vec::new();
    for (at, planned) in transitions(plan) {
        let key = (levels[at.level].as_str(), transition_sort(plan, &reasons, at.level, planned));
        let place = *places.entry(key).or_insert_with(|| {
            found.push((at, 0));
            found.len() - 1
        });
        found[place].1 += 1;
    }
    found
}

/// What a command is, whichever buffers it uses.
fn command_sort(command: &Command) -> String {
    match command {
        Command::Dispatch(dispatch) => dispatch.kernel.to_string(),
        Command::Copy(_) => "copy".to_owned(),
    }
}

fn level_sort(plan: &Plan, level: usize) -> String {
    let mut changes: Vec<String> = barrier(plan, level).iter().map(|planned| change_sort(plan, planned)).collect();
    changes.sort_unstable();
    let commands = plan.levels.get(level).map_or(&[][..], |level| &level.commands);
    let commands: Vec<String> = commands.iter().map(command_sort).collect();
    format!("{changes:?} {commands:?}")
}

fn change_sort(plan: &Plan, Transition { buffer, from, to }: &Transition) -> String {
    let kind = match plan.buffers[*buffer].kind {
        BufferKind::Weight { .. } => "weight",
        BufferKind::State { .. } => "state",
        BufferKind::Slot => "slot",
        BufferKind::Input => "input",
        BufferKind::HostWrite => "host write",
        BufferKind::HostRead => "host read",
    };
    format!("{kind} {from} {to}")
}

fn transition_sort(plan: &Plan, reasons: &Reasons, level: usize, planned: Transition) -> String {
    let uses = reasons.uses(planned.buffer);
    let next = uses.partition_point(|found| found.level < level);
    let user = |at: Option<usize>| match at.and_then(|at| uses.get(at)) {
        Some(found) => {
            let command = command_sort(&plan.levels[found.level].commands[found.index]);
            format!("{command} {} {}", found.usage, found.level.abs_diff(level))
        }
        // Of another step: how far that is says nothing.
        None => "elsewhere".to_owned(),
    };
    let (before, after) = (user(next.checked_sub(1)), user(Some(next)));
    format!("{} | {before} | {after}", change_sort(plan, &planned))
}
