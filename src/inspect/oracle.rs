//! The oracle: every pair of conflicting accesses of a plan that nothing orders, found by comparing each with each.
//!
//! Gets plans, returns unordered pairs. The contract is that of wgpu-hal: each buffer is a state machine of its own,
//! and a transition orders and makes visible that buffer alone. So an access is ordered before a later one if the
//! buffer's transitions between them lead from the usage of the first to that of the second without a gap. Two accesses
//! in one step conflict if they share bytes and one writes; of different steps, whatever their bytes, since a session's
//! pools may give the buffer to other plans between them. What holds then: a plan without unordered pairs is free of
//! hazards, replayed after itself too. Shares no code with the lowering or the checker, on purpose: it compares all
//! pairs where those keep states, so that they do not err alike. Never fast: its time grows with the square of a
//! buffer's accesses.

use std::collections::HashMap;

use crate::plan::Plan;
use crate::plan::command::{Buffer, BufferId, BufferKind, Command, Level, Slice, Transition};
use crate::plan::reasons::Hazard;
use crate::plan::usage::Usage;

/// Two accesses of one buffer, of which one writes, that no transitions order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unordered {
    /// The buffer, in the plan of the first access.
    pub buffer: BufferId,
    /// The access that comes first in the plan.
    pub first: Access,
    /// The access that comes after it, or in the same level.
    pub second: Access,
    /// What may go wrong.
    pub hazard: Hazard,
}

/// Who accesses a buffer, in which of two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// 0 for the first step, 1 for the one after it.
    pub step: usize,
    /// Level and index of the command; nothing if it is the host.
    pub command: Option<(usize, usize)>,
    /// What the buffer is used as.
    pub usage: Usage,
    /// Whether that writes it.
    pub writes: bool,
    /// The bytes it touches, as first byte and one past the last.
    pub bytes: (u64, u64),
}

impl Access {
    /// As in "`layer0.wkv` (level 12)" or "the host".
    fn text(&self, plan: &Plan) -> String {
        let step = if self.step == 0 { "" } else { " of the next step" };
        match self.command {
            Some((level, index)) => {
                format!("`{}` (level {level}){step}", plan.levels[level].commands[index].label())
            }
            None => format!("the host{step}"),
        }
    }
}

impl Unordered {
    /// The pair in words; both steps are of `plan`.
    pub fn text(&self, plan: &Plan) -> String {
        let verb = |access: &Access| if access.writes { "writes" } else { "reads" };
        format!(
            "{} at `{} {}`: {} {} it and {} {} it, and nothing orders them",
            self.hazard,
            self.buffer,
            plan.buffers[self.buffer].label,
            self.first.text(plan),
            verb(&self.first),
            self.second.text(plan),
            verb(&self.second),
        )
    }
}

/// Unordered pairs of a plan that is replayed after itself.
pub fn unordered(plan: &Plan) -> Vec<Unordered> {
    plan.buffers.ids().flat_map(|buffer| unordered_at(plan, buffer)).collect()
}

/// Unordered pairs of one buffer of a plan that is replayed after itself: within a step, and from one to the next.
pub fn unordered_at(plan: &Plan, buffer: BufferId) -> Vec<Unordered> {
    let mut history = History::default();
    history.append(plan, buffer, 0);
    history.append(plan, buffer, 1);
    history.unordered(buffer)
}

/// Unordered pairs of an access in `one` and an access in `other`, which is replayed after it in the same session. Both
/// have the same weights and states; and a slot of one may be any slot of the other that rests in the same usage, since
/// which buffers the session's pools give is not the plan's to say.
pub fn unordered_between(one: &Plan, other: &Plan) -> Vec<Unordered> {
    let meet = |a: &Buffer, b: &Buffer| match (a.kind, b.kind) {
        (BufferKind::Slot, BufferKind::Slot) => a.rest == b.rest,
        // Inputs and host-visible buffers belong to one plan.
        (BufferKind::Weight { .. } | BufferKind::State { .. }, _) => a.kind == b.kind,
        _ => false,
    };
    let mut found = Vec::new();
    for (buffer, a) in one.buffers.iter() {
        for (same, _) in other.buffers.iter().filter(|(_, b)| meet(a, b)) {
            let mut history = History::default();
            history.append(one, buffer, 0);
            history.append(other, same, 1);
            found.extend(history.unordered(buffer).into_iter().filter(|pair| pair.first.step != pair.second.step));
        }
    }
    found
}

/// What happens to one buffer, in order.
#[derive(Debug, Default)]
struct History {
    transitions: Vec<(Usage, Usage)>,
    /// Each access with the number of transitions before it.
    accesses: Vec<(Access, usize)>,
}

impl History {
    /// Goes on with one step of a plan.
    fn append(&mut self, plan: &Plan, buffer: BufferId, step: usize) {
        let bytes = (0, plan.buffers[buffer].size_bytes);
        let host = |usage| Access { step, command: None, usage, writes: usage == Usage::MAP_WRITE, bytes };
        if plan.buffers[buffer].kind == BufferKind::HostWrite {
            self.access(host(Usage::MAP_WRITE));
        }
        for (number, Level { barrier, commands }) in plan.levels.iter().enumerate() {
            self.barrier(barrier, buffer);
            for (index, command) in commands.iter().enumerate() {
                for (usage, slice) in uses(plan, command, buffer) {
                    let writes = usage == Usage::STORAGE_WRITE || usage == Usage::COPY_DST;
                    let bytes = (slice.offset_bytes, slice.offset_bytes + slice.size_bytes);
                    self.access(Access { step, command: Some((number, index)), usage, writes, bytes });
                }
            }
        }
        self.barrier(&plan.leave, buffer);
        if plan.buffers[buffer].kind == BufferKind::HostRead {
            self.access(host(Usage::MAP_READ));
        }
    }

    fn access(&mut self, access: Access) {
        self.accesses.push((access, self.transitions.len()));
    }

    fn barrier(&mut self, barrier: &[Transition], buffer: BufferId) {
        let here = barrier.iter().filter(|transition| transition.buffer == buffer);
        self.transitions.extend(here.map(|transition| (transition.from, transition.to)));
    }

    /// All conflicting pairs that are not ordered. Those within the second step are those within the first.
    fn unordered(&self, buffer: BufferId) -> Vec<Unordered> {
        let mut found = Vec::new();
        if !self.accesses.iter().any(|(access, _)| access.writes) {
            return found;
        }
        // How many gaps there are before each transition: where one does not begin in what the one before led to.
        let mut gaps = vec![0; self.transitions.len()];
        for at in 1..gaps.len() {
            gaps[at] = gaps[at - 1] + usize::from(self.transitions[at - 1].1 != self.transitions[at].0);
        }
        for (nth, (first, from)) in self.accesses.iter().enumerate().filter(|(_, (access, _))| access.step == 0) {
            for (second, to) in &self.accesses[nth + 1..] {
                let ordered = to > from
                    && self.transitions[*from].0.contains(first.usage)
                    && self.transitions[to - 1].1.contains(second.usage)
                    && gaps[*from] == gaps[to - 1];
                let apart =
                    first.step == second.step && (first.bytes.1 <= second.bytes.0 || second.bytes.1 <= first.bytes.0);
                if (first.writes || second.writes) && !apart && !ordered {
                    let hazard = Hazard::between(first.writes, second.writes);
                    found.push(Unordered { buffer, first: *first, second: *second, hazard });
                }
            }
        }
        found
    }
}

/// How a command uses a buffer, and which slice of it, once for each binding or end of a copy.
fn uses(plan: &Plan, command: &Command, buffer: BufferId) -> Vec<(Usage, Slice)> {
    match command {
        Command::Dispatch(dispatch) => {
            let bindings = &plan.kernels[dispatch.kernel].bindings;
            let here = dispatch.bindings.iter().zip(bindings).filter(|(slice, _)| slice.buffer == buffer);
            let usage = |writes| if writes { Usage::STORAGE_WRITE } else { Usage::STORAGE_READ };
            here.map(|(slice, binding)| (usage(binding.writes), *slice)).collect()
        }
        Command::Copy(copy) => {
            let ends = [(copy.from, Usage::COPY_SRC), (copy.to, Usage::COPY_DST)];
            ends.into_iter().filter(|(slice, _)| slice.buffer == buffer).map(|(slice, usage)| (usage, slice)).collect()
        }
    }
}

/// The longest chain of commands of which each depends on the one before: it reads what that wrote, or writes what that
/// read or wrote, where values that share a slot count as apart. From the commands' accesses alone: no plan that does
/// the same has fewer levels.
pub fn longest_chain(plan: &Plan) -> usize {
    let mut places: HashMap<(BufferId, Option<usize>), Place> = HashMap::new();
    let mut values: Vec<Vec<usize>> = vec![Vec::new(); plan.buffers.len()];
    for (index, value) in plan.values.iter().enumerate() {
        values[value.buffer.index()].push(index);
    }
    values.iter_mut().for_each(|here| here.sort_by_key(|index| plan.values[*index].first_level));
    let longest_life = plan.values.iter().map(|value| value.last_level - value.first_level).max().unwrap_or(0);
    let mut longest = 0;
    for (number, level) in plan.levels.iter().enumerate() {
        let mut done = Vec::new();
        for command in &level.commands {
            let touched: Vec<_> = touches(plan, command)
                .into_iter()
                .map(|(buffer, writes, offset)| {
                    let here = &values[buffer.index()];
                    let value = |index: &usize| &plan.values[*index];
                    let from = here.partition_point(|at| value(at).first_level + longest_life < number as u32);
                    let to = here.partition_point(|at| value(at).first_level as usize <= number);
                    let holds = |at: &&usize| {
                        (value(at).offset_bytes..value(at).offset_bytes + value(at).size_bytes).contains(&offset)
                            && value(at).last_level as usize >= number
                    };
                    ((buffer, here[from..to].iter().find(holds).copied()), writes)
                })
                .collect();
            let before = touched.iter().map(|(key, writes)| {
                let place = places.get(key).copied().unwrap_or_default();
                if *writes { place.written.max(place.read) } else { place.written }
            });
            let length = before.max().unwrap_or(0) + 1;
            longest = longest.max(length);
            done.extend(touched.into_iter().map(|(key, writes)| (key, writes, length)));
        }
        // Commands of a level do not wait for each other.
        for (key, writes, length) in done {
            let place = places.entry(key).or_default();
            let longest = if writes { &mut place.written } else { &mut place.read };
            *longest = length.max(*longest);
        }
    }
    longest
}

/// The longest chains that end with a write and with a read of a place.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    written: usize,
    read: usize,
}

/// The buffers that a command touches, whether it writes them, and the first byte.
fn touches(plan: &Plan, command: &Command) -> Vec<(BufferId, bool, u64)> {
    match command {
        Command::Dispatch(dispatch) => {
            let bound = dispatch.bindings.iter().zip(&plan.kernels[dispatch.kernel].bindings);
            bound.map(|(slice, binding)| (slice.buffer, binding.writes, slice.offset_bytes)).collect()
        }
        Command::Copy(copy) => {
            vec![(copy.from.buffer, false, copy.from.offset_bytes), (copy.to.buffer, true, copy.to.offset_bytes)]
        }
    }
}
