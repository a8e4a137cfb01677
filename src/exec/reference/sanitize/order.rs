//! One buffer as a usage state machine, and which uses of it nothing orders.
//!
//! Gets the uses and transitions of a buffer in the order in which they are recorded, across steps and plans; returns
//! what is wrong with each. What holds then: two uses that share words, one of them a write, are ordered by a
//! transition that begins in what the first one used the buffer as; and each use found the buffer in its usage. Shares
//! nothing with the checker or the oracle, whose verdicts it is held against. Never looks at what the words hold.
//!
//! A write becomes visible, and a read done with, by a transition of that very buffer out of the usage that it was made
//! in. Until then it is *pending*, and whatever meets it is a hazard. In one step, uses meet in words; uses of two
//! steps meet whatever their words, since between steps a buffer may be given to another plan.

use std::sync::Arc;

use crate::plan::reasons::Hazard;
use crate::plan::usage::Usage;

/// Stands for the site of what no instruction did.
pub(super) const NO_SITE: u32 = u32::MAX;

/// Words that one instruction touched, before any other of its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u32,
    end: u32,
    site: u32,
}

/// Words that a command touched in one way, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    runs: Vec<Run>,
}

impl Touched {
    /// A range of words that no instruction touched.
    pub(super) fn range(first: usize, end: usize) -> Self {
        Self { runs: vec![Run { first: first as u32, end: end as u32, site: NO_SITE }] }
    }

    /// Adds a word behind all others.
    pub(super) fn push(&mut self, word: usize, site: u32) {
        let word = word as u32;
        match self.runs.last_mut() {
            Some(last) if last.end == word && last.site == site => last.end += 1,
            _ => self.runs.push(Run { first: word, end: word + 1, site }),
        }
    }

    /// The first word that both touched, with both sites.
    fn meets(&self, other: &Self) -> Option<(u32, u32, u32)> {
        let (mut one, mut two) = (self.runs.iter().peekable(), other.runs.iter().peekable());
        while let (Some(a), Some(b)) = (one.peek(), two.peek()) {
            if a.first.max(b.first) < a.end.min(b.end) {
                return Some((a.first.max(b.first), a.site, b.site));
            }
            if a.end <= b.end {
                one.next()
            } else {
                two.next()
            };
        }
        None
    }

    fn first(&self) -> Option<(u32, u32)> {
        self.runs.first().map(|run| (run.first, run.site))
    }
}

/// A command's use of a buffer; `W` says whose it is.
#[derive(Clone, Debug)]
pub(super) struct Use<W> {
    pub(super) who: W,
    pub(super) step: u64,
    pub(super) usage: Usage,
    pub(super) reads: Arc<Touched>,
    pub(super) writes: Arc<Touched>,
}

impl<W> Use<W> {
    /// What goes wrong if nothing orders `self` and a later use: the hazard, a word, and the site of each.
    fn meets(&self, later: &Self) -> Option<(Hazard, u32, u32, u32)> {
        let pairs = [
            (Hazard::ReadAfterWrite, &self.writes, &later.reads),
            (Hazard::WriteAfterWrite, &self.writes, &later.writes),
            (Hazard::WriteAfterRead, &self.reads, &later.writes),
        ];
        if self.step == later.step {
            let met = |(hazard, one, other): (Hazard, &Arc<Touched>, &Arc<Touched>)| {
                one.meets(other).map(|(word, site, other_site)| (hazard, word, site, other_site))
            };
            return pairs.into_iter().find_map(met);
        }
        pairs.into_iter().find_map(|(hazard, one, other)| {
            let ((_, site), (word, other_site)) = (one.first()?, other.first()?);
            Some((hazard, word, site, other_site))
        })
    }
}

/// What is wrong with a use or a transition.
#[derive(Clone, Debug)]
pub(super) enum Wrong<W> {
    /// Nothing orders two uses.
    Unordered { hazard: Hazard, word: u32, before: (W, u32), after: (W, u32) },
    /// A use finds the buffer in another usage.
    Usage { state: Usage, needed: Usage, who: W },
    /// A transition finds the buffer in another usage.
    From { state: Usage, from: Usage },
    /// A step leaves the buffer in another usage than the next one expects.
    Rest { state: Usage, rest: Usage },
}

/// Pending uses that are kept, at most: a sound plan has as many as a level has commands.
const MAX_PENDING: usize = 4096;

/// A buffer.
#[derive(Clone, Debug)]
pub(super) struct Track<W> {
    state: Usage,
    pending: Vec<Use<W>>,
}

impl<W: Clone> Track<W> {
    /// A buffer at rest that nobody has used.
    pub(super) const fn new(rest: Usage) -> Self {
        Self { state: rest, pending: Vec::new() }
    }

    pub(super) fn transition(&mut self, from: Usage, to: Usage) -> Option<Wrong<W>> {
        let state = std::mem::replace(&mut self.state, to);
        if state != from {
            // It orders nothing: what it was to follow happened in another usage.
            return Some(Wrong::From { state, from });
        }
        self.pending.retain(|pending| !from.contains(pending.usage));
        None
    }

    pub(super) fn apply(&mut self, later: Use<W>) -> Vec<Wrong<W>> {
        let unordered = |pending: &Use<W>| {
            let (hazard, word, site, later_site) = pending.meets(&later)?;
            let (before, after) = ((pending.who.clone(), site), (later.who.clone(), later_site));
            Some(Wrong::Unordered { hazard, word, before, after })
        };
        let mut wrong: Vec<Wrong<W>> = self.pending.iter().filter_map(unordered).collect();
        if wrong.is_empty() && !self.state.contains(later.usage) {
            let (state, needed, who) = (self.state, later.usage, later.who.clone());
            wrong.push(Wrong::Usage { state, needed, who });
        }
        if self.pending.len() < MAX_PENDING {
            self.pending.push(later);
        }
        wrong
    }

    /// Ends a step. What is wrong is said once: the next step finds the buffer at rest.
    pub(super) fn end(&mut self, step: u64, rest: Usage) -> Option<Wrong<W>> {
        // What an older step left pending has met this one's uses, if there were any.
        self.pending.retain(|pending| pending.step == step);
        let state = std::mem::replace(&mut self.state, rest);
        (state != rest).then_some(Wrong::Rest { state, rest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Usage = Usage::STORAGE_READ;
    const WRITE: Usage = Usage::STORAGE_WRITE;

    fn words(first: usize, end: usize) -> Arc<Touched> {
        Arc::new(if first < end { Touched::range(first, end) } else { Touched::default() })
    }

    fn read(who: &'static str, step: u64, range: (usize, usize)) -> Use<&'static str> {
        Use { who, step, usage: READ, reads: words(range.0, range.1), writes: words(0, 0) }
    }

    fn write(who: &'static str, step: u64, range: (usize, usize)) -> Use<&'static str> {
        Use { who, step, usage: WRITE, reads: words(0, 0), writes: words(range.0, range.1) }
    }

    fn hazard(wrong: &[Wrong<&'static str>]) -> Option<Hazard> {
        wrong.iter().find_map(|wrong| match wrong {
            Wrong::Unordered { hazard, .. } => Some(*hazard),
            _ => None,
        })
    }

    #[test]
    fn a_transition_orders_what_it_begins_in_and_nothing_else() {
        let mut track = Track::new(WRITE);
        assert!(track.apply(write("a", 0, (0, 4))).is_empty());
        // Side by side in one usage: nothing need stand between.
        assert!(track.apply(write("b", 0, (4, 8))).is_empty());
        assert_eq!(hazard(&track.apply(write("c", 0, (7, 9)))), Some(Hazard::WriteAfterWrite));
        assert!(track.transition(WRITE, READ).is_none());
        assert!(track.apply(read("d", 0, (0, 9))).is_empty());
        assert!(matches!(track.apply(write("e", 0, (9, 10))).as_slice(), [Wrong::Usage { .. }]));
        assert_eq!(hazard(&track.apply(write("f", 0, (0, 1)))), Some(Hazard::WriteAfterRead));
    }

    #[test]
    fn a_transition_from_elsewhere_makes_nothing_visible() {
        let mut track = Track::new(WRITE);
        assert!(track.apply(write("a", 0, (0, 4))).is_empty());
        assert!(matches!(track.transition(Usage::COPY_DST, READ), Some(Wrong::From { state: WRITE, .. })));
        assert_eq!(hazard(&track.apply(read("b", 0, (3, 4)))), Some(Hazard::ReadAfterWrite));
        assert!(track.apply(read("c", 0, (4, 5))).is_empty(), "other words");
    }

    #[test]
    fn steps_meet_whatever_their_words() {
        let mut track = Track::new(WRITE);
        assert!(track.apply(write("a", 0, (0, 4))).is_empty());
        assert!(track.end(0, WRITE).is_none());
        assert_eq!(hazard(&track.apply(write("b", 1, (8, 9)))), Some(Hazard::WriteAfterWrite));
        assert!(matches!(track.end(1, READ), Some(Wrong::Rest { state: WRITE, rest: READ })));
    }
}
