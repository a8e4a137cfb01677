//! The facts of an explanation, gathered from the plan.
//!
//! Gets a plan and a target that exists, returns what there is to say of it as data. What holds then: uses are those
//! between the transitions around a barrier, of this step or of its neighbours, since a plan is replayed after itself.
//! Never words anything but what may go wrong and why a command waits: `text` does the rest.

use std::cell::OnceCell;

use crate::inspect::explain::chain::{At, Chains, Need, accesses};
use crate::inspect::explain::target::Target;
use crate::inspect::explain::{
    BarrierFacts, BoundTo, BufferFacts, BufferName, CommandFacts, CommandName, Danger, LevelFacts, Link, Piece,
    PortLines, SourceLine, Subject, Tenant, Touch, TransitionFacts, ValueFacts, When,
};
use crate::inspect::oracle::{self, Unordered};
use crate::kernel::lines::{self, LineAccess};
use crate::plan::command::{Binding, BufferId, BufferKind, Command, KernelId, Slice, Transition};
use crate::plan::index::PlanIndex;
use crate::plan::reasons::{Hazard, Reasons, Use};
use crate::plan::usage::Usage;
use crate::plan::{Plan, ValuePlace};

/// A plan and what is asked of it again and again.
pub(super) struct Facts<'a> {
    pub(super) plan: &'a Plan,
    pub(super) index: PlanIndex,
    reasons: Reasons,
    chains: Chains,
    /// For each kernel, the lines that reach its bindings, once they are asked for.
    lines: Vec<OnceCell<Vec<LineAccess>>>,
}

/// A use of a buffer in one of three steps; nothing stands for the host.
type Party = (When, Option<Use>);

impl<'a> Facts<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        let index = PlanIndex::new(plan);
        let chains = Chains::new(plan, &index);
        let lines = vec![OnceCell::new(); plan.kernels.len()];
        Self { plan, index, reasons: Reasons::new(plan), chains, lines }
    }

    pub(super) fn subject(&self, target: Target) -> Subject {
        match target {
            Target::Barrier(number) => Subject::Barrier(self.barrier(number)),
            Target::Transition(number, at) => Subject::Transition(self.transition(number, at)),
            Target::Value(at) => Subject::Value(self.value(at)),
            Target::Buffer(buffer, piece) => Subject::Buffer(self.buffer(buffer, piece)),
            Target::Command(at) => Subject::Command(self.command(at)),
            Target::Level(level) => Subject::Level(self.level(level)),
        }
    }

    /// The transitions before a level; the number of levels stands for the leaving barrier.
    pub(super) fn transitions(&self, number: usize) -> &'a [Transition] {
        self.plan.levels.get(number).map_or(&self.plan.leave, |level| &level.barrier)
    }

    fn barrier(&self, number: usize) -> BarrierFacts {
        let transitions = (0..self.transitions(number).len()).map(|at| {
            let chain = Vec::new();
            TransitionFacts { chain, ..self.transition(number, at) }
        });
        BarrierFacts {
            name: format!("b{number}"),
            leaves: number == self.plan.levels.len(),
            transitions: transitions.collect(),
            commands: self.commands(number),
            chain: self.chain_of_level(number),
        }
    }

    fn transition(&self, number: usize, at: usize) -> TransitionFacts {
        let transition = self.transitions(number)[at];
        let parties = (self.before(number, transition.buffer), self.after(number, transition.buffer));
        let hazard = self.reasons.of(self.plan, number, &transition).hazard;
        let (culprits, beyond) = self.culprits(number, at, &parties);
        let is_in = |party: &&Party, access: fn(&Unordered) -> &oracle::Access| {
            culprits.is_empty() || culprits.iter().any(|pair| is_party(party, access(pair)))
        };
        let before: Vec<Party> = parties.0.iter().filter(|party| is_in(party, |pair| &pair.first)).copied().collect();
        let after: Vec<Party> = parties.1.iter().filter(|party| is_in(party, |pair| &pair.second)).copied().collect();
        let all: Vec<&ValuePlace> =
            self.index.values(transition.buffer).iter().map(|at| &self.plan.values[*at]).collect();
        let concerns = |value: &&&ValuePlace| {
            before.iter().chain(&after).any(|(_, found)| found.is_some_and(|found| meets(value, found.bytes)))
        };
        let first = after.iter().find_map(|(when, found)| found.filter(|_| *when == When::Now));
        TransitionFacts {
            name: format!("b{number}.{at}"),
            buffer: self.buffer_name(transition.buffer),
            from: transition.from.to_string(),
            to: transition.to.to_string(),
            hazard: hazard.to_string(),
            elsewhere: parties.0.len() + parties.1.len() - before.len() - after.len(),
            before: self.touches(&before, transition.buffer, transition.from),
            after: self.touches(&after, transition.buffer, transition.to),
            tenants: all.iter().filter(concerns).map(|value| tenant(value)).collect(),
            tenant_count: all.len(),
            is_direct: !culprits.is_empty(),
            further: beyond.len().saturating_sub(usize::from(culprits.is_empty())),
            without: match culprits.is_empty() {
                false => culprits.iter().map(|pair| self.danger(pair)).collect(),
                true => self.nearest(&beyond).map(|pair| self.danger(pair)).into_iter().collect(),
            },
            chain: first.map_or_else(Vec::new, |found| self.chain((found.level, found.index))),
        }
    }

    fn value(&self, at: usize) -> ValueFacts {
        let value = &self.plan.values[at];
        let others = self.index.values(value.buffer).iter().filter(|other| **other != at);
        let others: Vec<&ValuePlace> = others.map(|other| &self.plan.values[*other]).collect();
        let bytes = (value.offset_bytes, value.offset_bytes.saturating_add(value.size_bytes));
        let lives = value.first_level..=value.last_level;
        let uses = self.reasons.uses(value.buffer).iter();
        let here = uses.filter(|found| lives.contains(&(found.level as u32)));
        let here = here.filter(|found| found.bytes.0 < bytes.1 && bytes.0 < found.bytes.1);
        let here: Vec<Party> = here.map(|found| (When::Now, Some(*found))).collect();
        let touches = self.touches(&here, value.buffer, Usage::empty());
        let same_bytes = || others.iter().filter(|other| meets(other, bytes));
        let before = same_bytes().filter(|other| other.last_level < value.first_level).max_by_key(|o| o.last_level);
        let after = same_bytes().filter(|other| value.last_level < other.first_level).min_by_key(|o| o.first_level);
        let is_beside = |other: &&&ValuePlace| {
            other.first_level <= value.last_level && value.first_level <= other.last_level && !meets(other, bytes)
        };
        let end = after.map_or(value.last_level, |next| next.first_level);
        ValueFacts {
            value: tenant(value),
            buffer: self.buffer_name(value.buffer),
            slot_bytes: self.plan.buffers[value.buffer].size_bytes,
            writers: touches.iter().filter(|touch| touch.writes).cloned().collect(),
            readers: touches.into_iter().filter(|touch| touch.reads).collect(),
            before: before.map(|other| tenant(other)),
            after: after.map(|other| tenant(other)),
            beside: others.iter().filter(is_beside).map(|other| tenant(other)).collect(),
            tenant_count: others.len() + 1,
            transitions: self.transitions_of(value.buffer, value.first_level as usize, end as usize),
        }
    }

    fn buffer(&self, id: BufferId, piece: Option<Piece>) -> BufferFacts {
        let buffer = &self.plan.buffers[id];
        let uses: Vec<Party> = self.reasons.uses(id).iter().map(|found| (When::Now, Some(*found))).collect();
        BufferFacts {
            buffer: self.buffer_name(id),
            size_bytes: buffer.size_bytes,
            rest: buffer.rest.to_string(),
            piece,
            tenants: self.tenants(id),
            uses: self.touches(&uses, id, Usage::empty()),
            transitions: self.transitions_of(id, 0, self.plan.levels.len()),
        }
    }

    fn command(&self, at: At) -> CommandFacts {
        let command = self.command_at(at);
        let touches =
            accesses(self.plan, command).into_iter().enumerate().map(|(nth, (slice, reads, writes))| BoundTo {
                buffer: self.buffer_name(slice.buffer),
                offset_bytes: slice.offset_bytes,
                size_bytes: slice.size_bytes,
                port: self.port(at, nth, slice, reads, writes),
            });
        let touches: Vec<BoundTo> = touches.collect();
        let is_own = |transition: &&(usize, &Transition)| {
            accesses(self.plan, command).iter().any(|(slice, ..)| slice.buffer == transition.1.buffer)
        };
        let before: Vec<(usize, &Transition)> = self.transitions(at.0).iter().enumerate().collect();
        let mut needs: Vec<Need> = self.chains.needs(at).to_vec();
        needs.dedup_by_key(|need| (need.on, need.slice.buffer));
        CommandFacts {
            command: self.command_name(at),
            workgroups: match command {
                Command::Dispatch(dispatch) => Some(dispatch.workgroups),
                Command::Copy(_) => None,
            },
            touches,
            transitions: before.iter().filter(is_own).map(|(nth, _)| format!("b{}.{nth}", at.0)).collect(),
            needs: needs.iter().map(|need| self.link(need.on, Some((at.0, *need)))).collect(),
            chain: self.chain(at),
        }
    }

    fn level(&self, level: usize) -> LevelFacts {
        let number = level as u32;
        let alive = self.plan.values.iter().filter(|value| value.first_level <= number && number <= value.last_level);
        let mut alive: Vec<Tenant> = alive.map(tenant).collect();
        alive.sort_by_key(|tenant| std::cmp::Reverse(tenant.size_bytes));
        LevelFacts {
            level: number,
            commands: self.commands(level),
            transitions: (0..self.transitions(level).len()).map(|at| format!("b{level}.{at}")).collect(),
            alive_bytes: alive.iter().map(|tenant| tenant.size_bytes).sum(),
            alive,
            chain: self.chain_of_level(level),
        }
    }

    fn command_at(&self, (level, index): At) -> &'a Command {
        &self.plan.levels[level].commands[index]
    }

    pub(super) fn command_name(&self, at: At) -> CommandName {
        let command = self.command_at(at);
        let (kernel, place) = match command {
            Command::Dispatch(dispatch) => {
                (Some(self.plan.kernels[dispatch.kernel].label.clone()), Some(dispatch.place.clone()))
            }
            Command::Copy(_) => (None, None),
        };
        let (name, label) = (self.index.name(at.0, at.1), command.label().to_owned());
        CommandName { name, label, level: at.0 as u32, kernel, place }
    }

    fn commands(&self, level: usize) -> Vec<CommandName> {
        let count = self.plan.levels.get(level).map_or(0, |level| level.commands.len());
        (0..count).map(|index| self.command_name((level, index))).collect()
    }

    fn buffer_name(&self, id: BufferId) -> BufferName {
        let buffer = &self.plan.buffers[id];
        let kind = match buffer.kind {
            BufferKind::Weight { .. } => "weight",
            BufferKind::State { .. } => "state",
            BufferKind::Slot => "slot",
            BufferKind::Input => "input",
            BufferKind::HostWrite => "host-write",
            BufferKind::HostRead => "host-read",
        };
        BufferName { id: id.to_string(), label: buffer.label.clone(), kind }
    }

    fn tenants(&self, id: BufferId) -> Vec<Tenant> {
        self.index.values(id).iter().map(|at| tenant(&self.plan.values[*at])).collect()
    }

    /// Names of a buffer's transitions in the barriers from one number to another.
    fn transitions_of(&self, id: BufferId, first: usize, last: usize) -> Vec<String> {
        let of = |number: usize| {
            let here = self.transitions(number).iter().enumerate().filter(|(_, found)| found.buffer == id);
            here.map(|(at, _)| format!("b{number}.{at}")).collect::<Vec<_>>()
        };
        (first..=last).flat_map(of).collect()
    }

    /// Who uses a buffer between the transition before this barrier and the barrier.
    fn before(&self, number: usize, id: BufferId) -> Vec<Party> {
        let (barriers, uses) = (self.reasons.barriers(id), self.reasons.uses(id));
        let from = barriers.iter().copied().rfind(|other| *other < number);
        let now = uses.iter().filter(|found| from.is_none_or(|from| from <= found.level) && found.level < number);
        let mut parties: Vec<Party> = now.map(|found| (When::Now, Some(*found))).collect();
        if from.is_none() {
            let wrapped = match self.plan.buffers[id].kind {
                // The host writes before the step's first command, and has read before the next step begins.
                BufferKind::HostWrite => vec![(When::Now, None)],
                BufferKind::HostRead => vec![(When::Before, None)],
                _ => {
                    let last = barriers.last().copied().unwrap_or(0);
                    let earlier = uses.iter().filter(|found| last <= found.level);
                    earlier.map(|found| (When::Before, Some(*found))).collect()
                }
            };
            parties.splice(0..0, wrapped);
        }
        parties
    }

    /// Who uses a buffer between this barrier and the transition after it.
    fn after(&self, number: usize, id: BufferId) -> Vec<Party> {
        let (barriers, uses) = (self.reasons.barriers(id), self.reasons.uses(id));
        let until = barriers.iter().copied().find(|other| number < *other);
        let now = uses.iter().filter(|found| number <= found.level && until.is_none_or(|until| found.level < until));
        let mut parties: Vec<Party> = now.map(|found| (When::Now, Some(*found))).collect();
        if until.is_none() {
            match self.plan.buffers[id].kind {
                BufferKind::HostWrite => parties.push((When::Next, None)),
                BufferKind::HostRead => parties.push((When::Now, None)),
                _ => {
                    let first = barriers.first().copied().unwrap_or(0);
                    let later = uses.iter().filter(|found| found.level < first);
                    parties.extend(later.map(|found| (When::Next, Some(*found))));
                }
            }
        }
        parties
    }

    /// Parties as data; what the host does follows from the usage it has the buffer in.
    fn touches(&self, parties: &[Party], id: BufferId, host: Usage) -> Vec<Touch> {
        let mut touches: Vec<Touch> = Vec::new();
        let mut last = None;
        for (when, found) in parties {
            let Some(found) = found else {
                let (command, ports) = (None, Vec::new());
                touches.push(Touch { when: *when, command, reads: !host.writes(), writes: host.writes(), ports });
                continue;
            };
            let at = (found.level, found.index);
            let here = accesses(self.plan, self.command_at(at)).into_iter().enumerate();
            let ports: Vec<PortLines> = here
                .filter(|(_, (slice, ..))| slice.buffer == id && slice_bytes(*slice) == found.bytes)
                .map(|(nth, (slice, reads, writes))| self.port(at, nth, slice, reads, writes))
                .collect();
            let (reads, writes) = (ports.iter().any(|port| port.reads), ports.iter().any(|port| port.writes));
            // A command that binds a buffer twice is one party.
            if last.replace((*when, at)) == Some((*when, at))
                && let Some(touch) = touches.last_mut()
            {
                let is_new = |port: &PortLines| touch.ports.iter().all(|other| other.port != port.port);
                let new: Vec<PortLines> = ports.into_iter().filter(is_new).collect();
                touch.ports.extend(new);
                (touch.reads, touch.writes) = (touch.reads | reads, touch.writes | writes);
                continue;
            }
            touches.push(Touch { when: *when, command: Some(self.command_name(at)), reads, writes, ports });
        }
        touches
    }

    /// A binding of a command with the lines that reach it.
    fn port(&self, at: At, nth: usize, slice: Slice, reads: bool, writes: bool) -> PortLines {
        let value = self.index.value_at(self.plan, slice, at.0 as u32).map(|value| value.path.clone());
        let (port, lines) = match self.command_at(at) {
            Command::Dispatch(dispatch) => {
                let Binding { label, .. } = &self.plan.kernels[dispatch.kernel].bindings[nth];
                (label.clone(), self.lines(dispatch.kernel, nth as u32))
            }
            Command::Copy(_) => (if writes { "destination" } else { "source" }.to_owned(), Vec::new()),
        };
        PortLines { port, value, reads, writes, lines }
    }

    /// The lines that reach a binding of a kernel.
    fn lines(&self, kernel: KernelId, binding: u32) -> Vec<SourceLine> {
        let known = &self.plan.kernels[kernel];
        let found = self.lines[kernel.index()].get_or_init(|| {
            let is_authors = |line: u32| known.origin(line).is_some();
            // A text that does not parse has no lines to show; executors refuse it.
            lines::accesses(&known.wgsl, &is_authors).unwrap_or_default()
        });
        let here = found.iter().filter(|access| access.binding == binding);
        let line = |access: &LineAccess| {
            let text = known.wgsl.lines().nth(access.line as usize - 1).unwrap_or("").trim().to_owned();
            let (file, line) = match known.origin(access.line) {
                Some((file, line)) => (Some(file.to_owned()), line),
                None => (None, access.line),
            };
            SourceLine { file, line, text, reads: access.reads, writes: access.writes }
        };
        here.map(line).collect()
    }

    /// The longest chain to a command.
    fn chain(&self, at: At) -> Vec<Link> {
        let chain = self.chains.chain(at);
        chain.into_iter().map(|(at, need)| self.link(at, need.map(|need| (at.0, need)))).collect()
    }

    /// The longest chain to any command of a level.
    fn chain_of_level(&self, level: usize) -> Vec<Link> {
        let count = self.plan.levels.get(level).map_or(0, |level| level.commands.len());
        let longest = (0..count).map(|index| (level, index)).rev().max_by_key(|at| self.chains.length(*at));
        longest.map_or_else(Vec::new, |at| self.chain(at))
    }

    /// A command, and why some command at a level waits for another.
    fn link(&self, at: At, need: Option<(usize, Need)>) -> Link {
        let because = need.map(|(level, need)| {
            let value = self.index.value_at(self.plan, need.slice, level as u32);
            let name = value.map_or(&self.plan.buffers[need.slice.buffer].label, |value| &value.path);
            match need.hazard {
                Hazard::ReadAfterWrite | Hazard::ReadAfterRead => format!("reads `{name}`"),
                Hazard::WriteAfterRead => format!("overwrites `{name}`, which was read"),
                Hazard::WriteAfterWrite => format!("writes `{name}` again"),
            }
        });
        Link { command: self.command_name(at), because }
    }

    /// What nothing orders without a transition: the pairs of the accesses right before and after it, of those that
    /// share bytes if any do; and all other pairs.
    fn culprits(
        &self,
        number: usize,
        at: usize,
        (before, after): &(Vec<Party>, Vec<Party>),
    ) -> (Vec<Unordered>, Vec<Unordered>) {
        let mut broken: Plan = self.plan.clone();
        let transition = broken.levels.get_mut(number).map_or(&mut broken.leave, |level| &mut level.barrier).remove(at);
        let found = oracle::unordered_at(&broken, transition.buffer);
        let is_near = |pair: &&Unordered| {
            let steps = pair.second.step as i32 - pair.first.step as i32;
            let firsts = || before.iter().filter(|party| is_party(party, &pair.first));
            let seconds = || after.iter().filter(|party| is_party(party, &pair.second));
            firsts().any(|first| seconds().any(|second| second.0 as i32 - first.0 as i32 == steps))
        };
        let (near, mut beyond): (Vec<Unordered>, Vec<Unordered>) = found.into_iter().partition(|pair| is_near(&pair));
        let is_any_shared = near.iter().any(shares_bytes);
        let (culprits, more) = near.into_iter().partition(|pair| !is_any_shared || shares_bytes(pair));
        beyond.extend::<Vec<Unordered>>(more);
        (culprits, beyond)
    }

    /// The pair that lies closest together, of those that share bytes if any do.
    fn nearest<'p>(&self, pairs: &'p [Unordered]) -> Option<&'p Unordered> {
        let levels = self.plan.levels.len();
        let moment = |access: &oracle::Access| access.step * levels + access.command.map_or(0, |(level, _)| level);
        pairs.iter().min_by_key(|pair| (!shares_bytes(pair), moment(&pair.second).abs_diff(moment(&pair.first))))
    }

    fn danger(&self, pair: &Unordered) -> Danger {
        let crosses = pair.second.step > pair.first.step;
        let step = if crosses && pair.second.command.is_some() { " of the next step" } else { "" };
        let (first, second) = (self.party_text(&pair.first), self.party_text(&pair.second) + step);
        let bytes = |access: &oracle::Access| self.bytes(access, pair.buffer);
        let (one, two) = (bytes(&pair.first), bytes(&pair.second));
        let words = match pair.hazard {
            _ if !shares_bytes(pair) => format!(
                "nothing orders {first} before {second}: they use other bytes, but between two steps the session may \
                 give the buffer to another plan"
            ),
            Hazard::ReadAfterWrite => format!(
                "{second} may read before {first} has written, or not see what it wrote: it then finds {} instead of \
                 {one}",
                self.stale(&pair.first, pair.buffer)
            ),
            Hazard::WriteAfterRead => {
                format!("{second} may write while {first} still reads: {first} then finds {two} instead of {one}")
            }
            Hazard::WriteAfterWrite | Hazard::ReadAfterRead => {
                let reads = |at: At| {
                    let here = accesses(self.plan, self.command_at(at)).into_iter();
                    here.filter(|(slice, ..)| slice.buffer == pair.buffer).any(|(_, reads, _)| reads)
                };
                let also = match pair.second.command.is_some_and(reads) {
                    true => format!("; {second} reads it too, and may do so before {first} has written"),
                    false => String::new(),
                };
                format!("{first} and {second} both write, and either may come last: the older bytes may stay{also}")
            }
        };
        Danger { hazard: pair.hazard.to_string(), first, second, words }
    }

    fn party_text(&self, access: &oracle::Access) -> String {
        access.command.map_or_else(|| "the host".to_owned(), |at| format!("`{}`", self.command_at(at).label()))
    }

    /// What an access finds or leaves in a buffer, in words.
    fn bytes(&self, access: &oracle::Access, id: BufferId) -> String {
        let (offset_bytes, size_bytes) = (access.bytes.0, access.bytes.1 - access.bytes.0);
        let slice = Slice { buffer: id, offset_bytes, size_bytes };
        let value = access.command.and_then(|(level, _)| self.index.value_at(self.plan, slice, level as u32));
        match value {
            Some(value) => format!("`{}`", value.path),
            None if access.writes => format!("what {} wrote", self.party_text(access)),
            None => "what was there before".to_owned(),
        }
    }

    /// What lies in a buffer until an access has written it, in words.
    fn stale(&self, access: &oracle::Access, id: BufferId) -> String {
        let values = self.index.values(id).iter().map(|at| &self.plan.values[*at]);
        let values: Vec<&ValuePlace> = values.filter(|value| meets(value, access.bytes)).collect();
        let label = &self.plan.buffers[id].label;
        let level = access.command.map_or(0, |(level, _)| level as u32);
        let earlier = values.iter().filter(|value| value.last_level < level).max_by_key(|value| value.last_level);
        let last = values.iter().max_by_key(|value| value.last_level);
        match (earlier, last) {
            (Some(value), _) => format!("what is left of `{}` in {label}", value.path),
            (None, Some(last)) => format!("what the step before left of `{}` in {label}", last.path),
            (None, None) => "what was there before".to_owned(),
        }
    }
}

/// Whether an access of the oracle's is by this party.
fn is_party(party: &Party, access: &oracle::Access) -> bool {
    match (party.1, access.command) {
        (Some(found), Some(at)) => (found.level, found.index) == at && found.bytes == access.bytes,
        (None, None) => true,
        _ => false,
    }
}

fn shares_bytes(pair: &Unordered) -> bool {
    pair.first.bytes.0 < pair.second.bytes.1 && pair.second.bytes.0 < pair.first.bytes.1
}

/// Whether a value has any of these bytes of its slot.
fn meets(value: &ValuePlace, bytes: (u64, u64)) -> bool {
    value.offset_bytes < bytes.1 && bytes.0 < value.offset_bytes.saturating_add(value.size_bytes)
}

fn slice_bytes(slice: Slice) -> (u64, u64) {
    (slice.offset_bytes, slice.offset_bytes.saturating_add(slice.size_bytes))
}

fn tenant(value: &ValuePlace) -> Tenant {
    Tenant {
        path: value.path.clone(),
        shape: format!("{}{:?}", value.dtype, value.shape),
        offset_bytes: value.offset_bytes,
        size_bytes: value.size_bytes,
        first_level: value.first_level,
        last_level: value.last_level,
    }
}
