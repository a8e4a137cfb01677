//! Sets of bytes of one buffer.
//!
//! Gets ranges, returns whether and where others meet them. What holds then: ranges are disjoint, in order and do not
//! touch, so looking one up takes logarithmic time. Never knows whose bytes they are.

/// Disjoint ranges in order that do not touch, as first byte and one past the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Every byte there could be.
    pub(super) fn all() -> Self {
        Self(vec![(0, u64::MAX)])
    }

    pub(super) fn add(&mut self, start: u64, end: u64) {
        let first = self.0.partition_point(|range| range.1 < start);
        let last = self.0.partition_point(|range| range.0 <= end);
        let joined =
            self.0[first..last].iter().fold((start, end), |all, range| (all.0.min(range.0), all.1.max(range.1)));
        self.0.splice(first..last, [joined]);
    }

    pub(super) fn remove(&mut self, start: u64, end: u64) {
        let first = self.0.partition_point(|range| range.1 <= start);
        let last = self.0.partition_point(|range| range.0 < end);
        if first < last {
            let (before, after) = ((self.0[first].0, start), (end, self.0[last - 1].1));
            self.0.splice(first..last, [before, after].into_iter().filter(|range| range.0 < range.1));
        }
    }

    /// Whether it has a byte from `start` to `end`.
    pub(super) fn meets(&self, start: u64, end: u64) -> bool {
        self.within(start, end).next().is_some()
    }

    /// The first byte from `start` to `end` that is not in it.
    pub(super) fn first_gap(&self, start: u64, end: u64) -> Option<u64> {
        let at = self.0.partition_point(|range| range.1 <= start);
        match self.0.get(at) {
            Some(range) if range.0 <= start => (range.1 < end).then_some(range.1),
            _ => Some(start),
        }
    }

    /// What it has from `start` to `end`.
    pub(super) fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let at = self.0.partition_point(|range| range.1 <= start);
        self.0[at..].iter().take_while(move |range| range.0 < end).map(move |r| (r.0.max(start), r.1.min(end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_and_removed_is_there_and_gone() {
        let mut ranges = Ranges::default();
        ranges.add(0, 8);
        ranges.add(16, 24);
        ranges.add(8, 12);
        assert_eq!(ranges, Ranges(vec![(0, 12), (16, 24)]));
        ranges.remove(4, 20);
        assert_eq!(ranges, Ranges(vec![(0, 4), (20, 24)]));
        ranges.remove(4, 20);
        ranges.remove(0, 0);
        assert_eq!(ranges, Ranges(vec![(0, 4), (20, 24)]));
        assert!(ranges.meets(3, 5) && !ranges.meets(4, 20) && ranges.meets(0, 100));
        assert_eq!((ranges.first_gap(0, 4), ranges.first_gap(2, 6), ranges.first_gap(8, 9)), (None, Some(4), Some(8)));
    }
}
