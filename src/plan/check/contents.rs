//! Follows which bytes mean something during the step: P6, P7.
//!
//! Gets the plan, returns errors about the memory map and about reads of bytes that nothing wrote. Then every use of a
//! slot lies in one value that lives there, values that live together share no bytes, lifetimes are true, and what is
//! read was written, uploaded or carried over. A dispatch that writes through a binding is taken to write all of it:
//! which elements it writes is the kernel's business. Never looks at usages.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::ranges::Ranges;
use super::{Access, At, Errors, Promise, accesses, hides_uses, is_allowed, lies_in, mentions, tensor_bytes};
use crate::plan::command::{Buffer, BufferId, BufferKind, Command, Slice};
use crate::plan::{Plan, ValuePlace};

const VALUES: At = At::Table("values");
const OUTPUTS: At = At::Table("outputs");

/// Inputs count as uploaded up to the next multiple of this many bytes, the widest element that a shader loads:
/// bindings hold whole elements, and what lies past the last number of an input belongs to no input.
const ELEMENT_BYTES: u64 = 16;

/// What is known of a buffer's bytes.
#[derive(Clone, Debug, Default)]
struct Content {
    /// Those that mean something: in a slot, of the values that live there.
    written: Ranges,
    /// The values of a slot, by their first level.
    values: Vec<usize>,
    /// How many of them have begun.
    begun: usize,
    /// Those of them that are not over.
    living: Living,
    /// Something about it cannot be followed; that was reported, and nothing more is.
    lost: bool,
}

/// Values that live in a slot at one moment, with no byte in common.
#[derive(Clone, Debug, Default)]
struct Living {
    /// By their first byte.
    by_offset: BTreeMap<u64, usize>,
    /// Their last levels and first bytes.
    ends: BinaryHeap<Reverse<(u32, u64)>>,
}

struct Contents<'e, 'p> {
    errors: &'e mut Errors<'p>,
    /// By buffer.
    contents: Vec<Content>,
    /// By value: the first and the last level that uses it.
    used: Vec<Option<(usize, usize)>>,
}

/// The whole step.
pub(super) fn check(errors: &mut Errors<'_>) {
    let plan = errors.plan;
    let mut contents = vec![Content::default(); plan.buffers.len()];
    for input in &plan.inputs {
        if let Some(content) = contents.get_mut(input.slice.buffer.index())
            && let Some(end) = input.slice.size_bytes.checked_next_multiple_of(ELEMENT_BYTES)
            && let Some(end) = input.slice.offset_bytes.checked_add(end)
        {
            content.written.add(input.slice.offset_bytes, end);
        }
    }
    places(errors, &mut contents);
    let mut contents = Contents { errors, contents, used: vec![None; plan.values.len()] };
    for (number, level) in plan.levels.iter().enumerate() {
        for (index, command) in level.commands.iter().enumerate() {
            contents.command(number, At::Command(number, index), command);
        }
    }
    contents.lifetimes();
    contents.outputs();
}

/// P6 of the memory map by itself; fills in the values of each slot.
fn places(errors: &mut Errors<'_>, contents: &mut [Content]) {
    let plan = errors.plan;
    for (index, value) in plan.values.iter().enumerate() {
        let path = &value.path;
        let Some(buffer) = plan.buffers.get(value.buffer) else {
            let (count, found) = (plan.buffers.len(), value.buffer);
            let reason = format!("`{path}`: expected a buffer below buf{count}, found {found}");
            errors.push(Promise::P1, VALUES, reason);
            continue;
        };
        let wrong = wrong_place(errors, index, buffer);
        let content = &mut contents[value.buffer.index()];
        content.lost |= !wrong.is_empty();
        content.values.push(index);
        for reason in wrong {
            errors.push(Promise::P6, VALUES, format!("`{path}`: {reason}"));
        }
    }
    for (id, content) in plan.buffers.ids().zip(contents) {
        content.values.sort_by_key(|value| plan.values[*value].first_level);
        apart(errors, id, content);
    }
}

/// What is wrong with the place of one value.
fn wrong_place(errors: &Errors<'_>, index: usize, buffer: &Buffer) -> Vec<String> {
    let (plan, value) = (errors.plan, &errors.plan.values[index]);
    let (name, found) = (errors.name(value.buffer), value.size_bytes);
    let mut wrong = Vec::new();
    if buffer.kind != BufferKind::Slot {
        wrong.push(format!("expected a slot, found {name}, which is {:?}", buffer.kind));
    }
    let most = buffer.size_bytes.saturating_sub(value.offset_bytes);
    match tensor_bytes(value.dtype, &value.shape) {
        Some(least) if (least.max(1)..=most).contains(&found) => {}
        Some(least) => {
            let from = match value.offset_bytes {
                0 => String::new(),
                offset => format!(" from {offset} on"),
            };
            wrong.push(format!(
                "expected {least} bytes for its shape and at most the {most} of {name}{from}, found {found}"
            ));
        }
        None => wrong.push("expected a shape whose size fits 64 bits, found a larger one".to_owned()),
    }
    let (first, last, count) = (value.first_level, value.last_level, plan.levels.len());
    if first > last || last as usize >= count {
        wrong.push(format!("expected levels in order and below {count}, found {first} to {last}"));
    }
    wrong
}

/// P6: values of a slot that live together share no bytes.
fn apart(errors: &mut Errors<'_>, id: BufferId, content: &mut Content) {
    let plan = errors.plan;
    if content.lost {
        return;
    }
    let mut living = Living::default();
    for &index in &content.values {
        let value = &plan.values[index];
        living.leave(value.first_level as usize);
        match living.meets(plan, value).map(|other| &plan.values[other]) {
            Some(other) => {
                let (level, name) = (value.first_level, errors.name(id));
                let reason = format!(
                    "expected values apart in {name}, found `{}` and `{}` to share bytes at level {level}",
                    other.path, value.path
                );
                errors.push(Promise::P6, VALUES, reason);
                content.lost = true;
            }
            None => living.enter(index, value),
        }
    }
}

impl Living {
    fn enter(&mut self, index: usize, value: &ValuePlace) {
        self.by_offset.insert(value.offset_bytes, index);
        self.ends.push(Reverse((value.last_level, value.offset_bytes)));
    }

    /// Values whose last level lies before this one are over.
    fn leave(&mut self, level: usize) {
        while let Some(Reverse((_, offset))) = self.ends.peek().copied().filter(|end| (end.0.0 as usize) < level) {
            self.ends.pop();
            self.by_offset.remove(&offset);
        }
    }

    /// A value that shares bytes with this one.
    fn meets(&self, plan: &Plan, value: &ValuePlace) -> Option<usize> {
        let end = value.offset_bytes.saturating_add(value.size_bytes);
        let (_, other) = self.by_offset.range(..end).next_back()?;
        let place = &plan.values[*other];
        (place.offset_bytes + place.size_bytes > value.offset_bytes).then_some(*other)
    }

    /// The value that holds a byte.
    fn at(&self, plan: &Plan, offset_bytes: u64) -> Option<usize> {
        let (first, index) = self.by_offset.range(..=offset_bytes).next_back()?;
        (offset_bytes - first < plan.values[*index].size_bytes).then_some(*index)
    }
}

impl Content {
    /// Goes on to a level: values end and begin.
    fn advance(&mut self, plan: &Plan, level: usize) {
        self.living.leave(level);
        while let Some(&next) = self.values.get(self.begun)
            && plan.values[next].first_level as usize <= level
        {
            self.begun += 1;
            if plan.values[next].last_level as usize >= level {
                self.living.enter(next, &plan.values[next]);
            }
        }
    }
}

impl Contents<'_, '_> {
    fn command(&mut self, level: usize, at: At, command: &Command) {
        let plan = self.errors.plan;
        let Some(accesses) = accesses(plan, command) else {
            return self.lose(command);
        };
        // What is wrong with a slice by itself was reported with the command's parts.
        let sound = |access: &Access| {
            let buffer = &plan.buffers[access.slice.buffer];
            is_allowed(buffer.kind, access.usage) && lies_in(access.slice, buffer)
        };
        if !accesses.iter().all(sound) || accesses.len() < mentions(command).len() {
            return self.lose(command);
        }
        for access in &accesses {
            self.enter(level, at, *access);
        }
        for access in accesses.iter().filter(|access| access.reads) {
            self.read(at, *access);
        }
        match command {
            Command::Dispatch(_) => {
                for Access { slice, .. } in accesses.iter().filter(|access| access.writes) {
                    let end = slice.offset_bytes.saturating_add(slice.size_bytes);
                    self.contents[slice.buffer.index()].written.add(slice.offset_bytes, end);
                }
            }
            Command::Copy(copy) => self.copied(copy.from, copy.to),
        }
    }

    fn lose(&mut self, command: &Command) {
        for buffer in mentions(command) {
            if let Some(content) = self.contents.get_mut(buffer.index()) {
                content.lost = true;
            }
        }
    }

    /// P6: in a slot, one value that lives there takes the access. A new value finds nothing written.
    fn enter(&mut self, level: usize, at: At, access: Access) {
        let (plan, id) = (self.errors.plan, access.slice.buffer);
        let content = &mut self.contents[id.index()];
        if plan.buffers[id].kind != BufferKind::Slot || content.lost {
            return;
        }
        content.advance(plan, level);
        let name = self.errors.name(id);
        let Some(live) = content.living.at(plan, access.slice.offset_bytes) else {
            content.lost = true;
            let from = match access.slice.offset_bytes {
                0 => String::new(),
                offset => format!(" from byte {offset} on"),
            };
            let reason = format!("{name}: expected a value to live there{from} at level {level}, found none");
            return self.errors.push(Promise::P6, at, reason);
        };
        let value = &plan.values[live];
        let value_end = value.offset_bytes + value.size_bytes;
        let used = &mut self.used[live];
        if used.is_none() {
            content.written.remove(value.offset_bytes, value_end);
        }
        *used = Some((used.map_or(level, |used| used.0), level));
        let end = access.slice.offset_bytes.saturating_add(access.slice.size_bytes);
        if end > value_end {
            let (path, bytes) = (&value.path, value.size_bytes);
            let reason =
                format!("{name}: expected a slice of the {bytes} bytes of `{path}`, found one that ends at {end}");
            self.errors.push(Promise::P6, at, reason);
        }
    }

    /// P7: every byte was written. What is wrong is said once: then it counts as written.
    fn read(&mut self, at: At, access: Access) {
        let (slice, id) = (access.slice, access.slice.buffer);
        let content = &mut self.contents[id.index()];
        let transient = matches!(self.errors.plan.buffers[id].kind, BufferKind::Slot | BufferKind::Input);
        if content.lost || !transient {
            return;
        }
        let end = slice.offset_bytes.saturating_add(slice.size_bytes);
        if let Some(gap) = content.written.first_gap(slice.offset_bytes, end) {
            content.written.add(slice.offset_bytes, end);
            let (name, start) = (self.errors.name(id), slice.offset_bytes);
            let reason = format!(
                "{name}: expected bytes {start} to {end} to be written before they are read, found that byte {gap} is \
                 not"
            );
            self.errors.push(Promise::P7, at, reason);
        }
    }

    /// A copy carries along what its source has: the gaps between inputs stay gaps on the device.
    fn copied(&mut self, from: Slice, to: Slice) {
        let source = &self.contents[from.buffer.index()];
        let from_host = self.errors.plan.buffers[from.buffer].kind == BufferKind::HostWrite;
        let size = from.size_bytes.min(to.size_bytes);
        let ranges: Vec<(u64, u64)> = if from_host && !source.lost {
            let end = from.offset_bytes.saturating_add(size);
            let within = source.written.within(from.offset_bytes, end);
            within.map(|(start, end)| (start - from.offset_bytes, end - from.offset_bytes)).collect()
        } else {
            vec![(0, size)]
        };
        let target = &mut self.contents[to.buffer.index()];
        for (start, end) in ranges {
            let at = |offset: u64| to.offset_bytes.saturating_add(offset);
            target.written.add(at(start), at(end));
        }
    }

    /// P6: the memory map says of each value just the levels that use it, or its bound on memory would be false.
    fn lifetimes(&mut self) {
        let plan = self.errors.plan;
        if hides_uses(plan) {
            return;
        }
        for (value, used) in plan.values.iter().zip(&self.used) {
            if self.contents.get(value.buffer.index()).is_none_or(|content| content.lost) {
                continue;
            }
            let (path, first, last) = (&value.path, value.first_level, value.last_level);
            let found = match used {
                Some((from, to)) if (*from, *to) == (first as usize, last as usize) => continue,
                Some((from, to)) => format!("uses from {from} to {to}"),
                None => "none".to_owned(),
            };
            let reason = format!("`{path}`: expected uses from level {first} to {last}, found {found}");
            self.errors.push(Promise::P6, VALUES, reason);
        }
    }

    /// P7: what the host reads was written in this step.
    fn outputs(&mut self) {
        let plan = self.errors.plan;
        for output in &plan.outputs {
            let slice = output.slice;
            let Some(buffer) = plan.buffers.get(slice.buffer) else {
                continue;
            };
            let content = &self.contents[slice.buffer.index()];
            if content.lost || buffer.kind != BufferKind::HostRead || !lies_in(slice, buffer) {
                continue;
            }
            let end = slice.offset_bytes.saturating_add(slice.size_bytes);
            if let Some(gap) = content.written.first_gap(slice.offset_bytes, end) {
                let (name, start) = (self.errors.name(slice.buffer), slice.offset_bytes);
                let reason = format!(
                    "output `{}`: expected bytes {start} to {end} of {name} to be written, found that byte {gap} is \
                     not",
                    output.name
                );
                self.errors.push(Promise::P7, OUTPUTS, reason);
            }
        }
    }
}
