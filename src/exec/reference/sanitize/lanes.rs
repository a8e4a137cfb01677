//! One dispatch under the eyes of the sanitizer.
//!
//! Gets every access of every invocation, in order; returns what each binding's words were touched by, and what was
//! wrong within the dispatch: indices out of bounds, reads of what nothing wrote, invocations that race, barriers that
//! not all reach. What holds then: each kind of mistake of an instruction is kept once, with the first place where it
//! shows. Never looks across dispatches.
//!
//! Order is told by *eras*: one begins with each workgroup and behind each barrier. Two accesses of one word, one of
//! them a write, race if they are of different invocations in one era, or of different workgroups, whenever that is.

use std::collections::HashSet;

use crate::exec::reference::sanitize::order::Touched;
use crate::exec::reference::watch::{Access, Kind, Space, Watch};

/// A set of words.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    bits: Vec<u64>,
}

impl Words {
    pub(super) fn new(count: usize, holds: bool) -> Self {
        Self { bits: vec![if holds { u64::MAX } else { 0 }; count.div_ceil(64)] }
    }

    pub(super) fn has(&self, word: usize) -> bool {
        self.bits.get(word / 64).is_some_and(|bits| bits >> (word % 64) & 1 == 1)
    }

    pub(super) fn set(&mut self, word: usize, holds: bool) {
        if let Some(bits) = self.bits.get_mut(word / 64) {
            let bit = 1 << (word % 64);
            *bits = if holds { *bits | bit } else { *bits & !bit };
        }
    }

    pub(super) fn set_range(&mut self, range: std::ops::Range<usize>, holds: bool) {
        range.for_each(|word| self.set(word, holds));
    }

    pub(super) fn clear(&mut self) {
        self.bits.fill(0);
    }
}

const ATOMIC: u8 = 1;
/// Of several invocations in this era; the mark names the first.
const SEVERAL: u8 = 2;
/// Another workgroup did so before.
const FOREIGN: u8 = 4;
/// The lower half of the word, and the upper.
const LOW: u8 = 8;
const HIGH: u8 = 16;
const HALVES: u8 = LOW | HIGH;

/// Who touched a word last; nobody in era 0.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    era: u32,
    site: u32,
    lane: u16,
    flags: u8,
}

/// The era it is, and the one in which the workgroup began.
#[derive(Clone, Copy, Debug)]
struct Era {
    now: u32,
    first: u32,
}

impl Era {
    const fn workgroup(&mut self) {
        self.now += 1;
        self.first = self.now;
    }
}

impl Mark {
    /// Whether an access that touches the same now would race with what the mark stands for.
    const fn races(self, by: Self, era: Era) -> bool {
        let is_other = self.lane != by.lane || (self.flags | by.flags) & SEVERAL != 0;
        self.era != 0
            && self.flags & by.flags & ATOMIC == 0
            && self.flags & by.flags & HALVES != 0
            && (self.era < era.first || self.flags & FOREIGN != 0 || self.era == era.now && is_other)
    }

    /// The mark of both.
    const fn with(self, by: Self, era: Era) -> Self {
        if self.era == 0 {
            return by;
        }
        let both_atomic = by.flags & (self.flags | !ATOMIC);
        if self.era < era.first {
            return Self { flags: both_atomic | FOREIGN, ..by };
        }
        let foreign = self.flags & FOREIGN;
        if self.era < era.now {
            let flags = if foreign != 0 { both_atomic | FOREIGN } else { by.flags };
            return Self { flags, ..by };
        }
        let several = if self.lane != by.lane { SEVERAL } else { 0 };
        let atomic = self.flags & by.flags & ATOMIC;
        Self { flags: (self.flags | by.flags) & !ATOMIC | atomic | several, ..self }
    }
}

/// What is known of the words behind a binding, or of a workgroup's memory.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    /// Of the bound block.
    pub(super) block: usize,
    /// Where the binding begins in it.
    pub(super) first_word: usize,
    /// By word of the binding; nothing where nobody asks.
    reads: Vec<Mark>,
    stores: Vec<Mark>,
}

impl Shadow {
    /// For a binding of `count` words, whose reads and writes are followed or not.
    pub(super) fn new(block: usize, first_word: usize, count: usize, (reads, writes): (bool, bool)) -> Self {
        let marks = |are_kept: bool| vec![Mark::default(); if are_kept { count } else { 0 }];
        Self { block, first_word, reads: marks(reads), stores: marks(writes) }
    }

    /// The words of the block that were read, and those that were written.
    pub(super) fn touched(&self) -> (Touched, Touched) {
        let collect = |marks: &[Mark]| {
            let mut touched = Touched::default();
            let found = marks.iter().enumerate().filter(|(_, mark)| mark.era != 0);
            found.for_each(|(word, mark)| touched.push(self.first_word + word, mark.site));
            touched
        };
        (collect(&self.reads), collect(&self.stores))
    }

    /// Notes an access; returns the site that it races with.
    fn access(&mut self, word: usize, by: Mark, kind: Kind, era: Era) -> Option<u32> {
        let (reads, writes) = (kind != Kind::Store, kind != Kind::Load);
        let mut other = None;
        if let Some(store) = self.stores.get_mut(word) {
            other = store.races(by, era).then_some(store.site);
            if writes {
                *store = store.with(by, era);
            }
        }
        if let Some(read) = self.reads.get_mut(word) {
            if writes && other.is_none() {
                other = read.races(by, era).then_some(read.site);
            }
            if reads {
                *read = read.with(by, era);
            }
        }
        other
    }
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mistake {
    OutOfBounds {
        space: Option<Space>,
        index: u32,
        length: u32,
    },
    Unwritten {
        space: Space,
        word: usize,
    },
    /// Another site touched the word.
    Race {
        space: Space,
        word: usize,
        writes: bool,
        other: u32,
    },
    Barrier {
        arrived: u32,
        lanes: u32,
    },
    NotFinite {
        space: Space,
        word: usize,
        value: f32,
    },
}

/// Where and by whom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) mistake: Mistake,
    pub(super) site: u32,
    pub(super) workgroup: [u32; 3],
    /// Nothing of a barrier, which is a workgroup's.
    pub(super) lane: Option<u32>,
}

/// A dispatch that is watched.
pub(in crate::exec::reference) struct Lanes<'a> {
    /// Words that hold something, by block.
    written: &'a mut [Words],
    /// By binding.
    shadows: Vec<Shadow>,
    memory: Shadow,
    /// Whether the plan zeroes workgroup memory.
    is_zeroed: bool,
    storage: Era,
    shared: Era,
    workgroup: [u32; 3],
    looks_for_not_finite: bool,
    events: Vec<Event>,
    seen: HashSet<(u8, u32, u32, Option<Space>)>,
}

impl<'a> Lanes<'a> {
    pub(super) fn new(
        written: &'a mut [Words],
        shadows: Vec<Shadow>,
        (workgroup_bytes, is_zeroed): (u32, bool),
        looks_for_not_finite: bool,
    ) -> Self {
        let era = Era { now: 0, first: 0 };
        Self {
            written,
            shadows,
            memory: Shadow::new(0, 0, workgroup_bytes.div_ceil(4) as usize, (true, true)),
            is_zeroed,
            storage: era,
            shared: era,
            workgroup: [0; 3],
            looks_for_not_finite,
            events: Vec::new(),
            seen: HashSet::new(),
        }
    }

    /// What was found, and what is known of each binding.
    pub(super) fn finish(self) -> (Vec<Event>, Vec<Shadow>) {
        (self.events, self.shadows)
    }

    fn report(&mut self, mistake: Mistake, site: u32, lane: Option<u32>) {
        let key = match mistake {
            Mistake::OutOfBounds { space, .. } => (0, site, 0, space),
            Mistake::Unwritten { space, .. } => (1, site, 0, Some(space)),
            Mistake::Race { space, other, .. } => (2, site, other, Some(space)),
            Mistake::Barrier { .. } => (3, site, 0, None),
            // The first one alone: what is computed from it is no finite number either.
            Mistake::NotFinite { .. } => (4, 0, 0, None),
        };
        if self.seen.insert(key) {
            self.events.push(Event { mistake, site, workgroup: self.workgroup, lane });
        }
    }

    /// Whether the word holds something.
    fn holds(&self, space: Space, word: usize) -> bool {
        match space {
            Space::Binding(binding) => {
                let shadow = &self.shadows[binding as usize];
                self.written[shadow.block].has(shadow.first_word + word)
            }
            // A store of this workgroup, in whatever era.
            Space::Workgroup => {
                self.is_zeroed || self.memory.stores.get(word).is_none_or(|mark| mark.era >= self.shared.first)
            }
        }
    }
}

impl Watch for Lanes<'_> {
    const IS_WATCHING: bool = true;

    fn workgroup(&mut self, workgroup: [u32; 3]) {
        self.workgroup = workgroup;
        self.storage.workgroup();
        self.shared.workgroup();
    }

    fn access(&mut self, access: &Access, float: Option<f32>) {
        let Access { site, space, kind, offset_bytes, size_bytes, lane, is_shared } = *access;
        let word = offset_bytes as usize / 4;
        let halves = match (size_bytes, offset_bytes % 4) {
            (2, 0) => LOW,
            (2, _) => HIGH,
            _ => HALVES,
        };
        if kind != Kind::Store && !self.holds(space, word) {
            self.report(Mistake::Unwritten { space, word }, site, Some(lane));
        }
        let flags = halves | if kind == Kind::Atomic { ATOMIC } else { 0 } | if is_shared { SEVERAL } else { 0 };
        let mark = |era: Era| Mark { era: era.now, site, lane: lane as u16, flags };
        let other = match space {
            Space::Binding(binding) => {
                let shadow = &mut self.shadows[binding as usize];
                if kind != Kind::Load {
                    self.written[shadow.block].set(shadow.first_word + word, true);
                }
                shadow.access(word, mark(self.storage), kind, self.storage)
            }
            Space::Workgroup => {
                let (shadow, era) = (&mut self.memory, self.shared);
                // What another workgroup did was done to other memory.
                for marks in [&mut shadow.reads, &mut shadow.stores] {
                    if let Some(mark) = marks.get_mut(word).filter(|mark| mark.era < era.first) {
                        *mark = Mark::default();
                    }
                }
                shadow.access(word, mark(era), kind, era)
            }
        };
        if let Some(other) = other {
            let writes = kind != Kind::Load;
            self.report(Mistake::Race { space, word, writes, other }, site, Some(lane));
        }
        if let Some(value) = float.filter(|value| self.looks_for_not_finite && !value.is_finite()) {
            self.report(Mistake::NotFinite { space, word, value }, site, Some(lane));
        }
    }

    fn out_of_bounds(&mut self, site: u32, space: Option<Space>, lane: u32, index: u32, length: u32) {
        self.report(Mistake::OutOfBounds { space, index, length }, site, Some(lane));
    }

    fn barrier(&mut self, site: u32, storage: bool, workgroup: bool, arrived: u32, lanes: u32) {
        if arrived != lanes {
            self.report(Mistake::Barrier { arrived, lanes }, site, None);
        }
        self.storage.now += u32::from(storage);
        self.shared.now += u32::from(workgroup);
    }
}
