//! Slots: buffers shared by values, over time and side by side.
//!
//! Gets the sizes of a schedule's values and the levels that write and read them, returns a place for each and the
//! slots' sizes. What holds then: values that live in one level never overlap, and one's last level lies before the
//! other's first where they share bytes; in each level, all uses of a slot either write or read, and no step writes two
//! values in it, so no dispatch finds an output in a buffer that it binds twice (P5), the slot has one usage there, and
//! no sharing adds a level.
//! Deterministic. Never looks at what values are.

/// A value that needs memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Bytes, a multiple of the alignment that bindings need.
    pub size_bytes: u64,
    /// The levels that use it, in order, at least one.
    pub uses: Vec<NeedUse>,
}

/// What a level does with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeedUse {
    /// The level.
    pub level: u32,
    /// The step that writes it there, by a number of its own; nothing if it is only read.
    pub writer: Option<u32>,
}

impl Need {
    /// First level in which it is used.
    pub fn first(&self) -> u32 {
        self.uses[0].level
    }

    /// Last level in which it is used.
    pub fn last(&self) -> u32 {
        self.uses[self.uses.len() - 1].level
    }
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Index of the slot.
    pub slot: usize,
    /// Its first byte there.
    pub offset_bytes: u64,
}

/// What a level does with a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LevelUse {
    Nothing,
    Reads,
    /// By these steps.
    Writes(Vec<u32>),
}

#[derive(Debug)]
struct Slot {
    size_bytes: u64,
    /// By level.
    uses: Vec<LevelUse>,
    /// By level, the values that live in it, as first byte and one past the last.
    taken: Vec<Vec<(u64, u64)>>,
}

/// How many values all further attempts together may place: at most 20 ms of work.
const FURTHER_PLACEMENTS: usize = 20_000;

/// The most further attempts.
const FURTHER_ATTEMPTS: usize = 300;

/// The place of each need, and the bytes of each slot, at most `most_bytes` each unless a single need has more.
///
/// Packing is hard to do best, so two orders are tried and the smaller outcome is taken: the largest first, so that
/// small values settle in what large ones leave, and of equal ones the longest-lived; or first what takes the most
/// bytes over the most levels. Where that is more than a tenth over the least there can be, the order is changed here
/// and there, as often as `FURTHER_PLACEMENTS` allows, and a change stays if it takes no more.
pub fn assign(needs: &[Need], most_bytes: u64) -> (Vec<Spot>, Vec<u64>) {
    let span = |need: &Need| u64::from(need.last() - need.first()) + 1;
    let by_size = order(needs, |need| (need.size_bytes, span(need)));
    let by_area = order(needs, |need| (need.size_bytes.saturating_mul(span(need)), 0));
    let (largest, widest) = (pack(needs, most_bytes, &by_size), pack(needs, most_bytes, &by_area));
    let (mut order, mut best) = if cost(&widest) < cost(&largest) { (by_area, widest) } else { (by_size, largest) };
    let enough = u128::from(most_alive(needs)) * 11;
    let attempts = FURTHER_PLACEMENTS.checked_div(needs.len()).unwrap_or(0).min(FURTHER_ATTEMPTS);
    // Always the same numbers: equal needs have equal places.
    let mut random = fastrand::Rng::with_seed(1);
    for nth in 0..attempts {
        if u128::from(cost(&best).0) * 10 <= enough {
            break;
        }
        let mut changed = order.clone();
        let (one, other) = (random.usize(0..order.len()), random.usize(0..order.len()));
        if nth % 2 == 0 {
            let moved = changed.remove(one);
            changed.insert(other, moved);
        } else {
            changed.swap(one, other);
        }
        let found = pack(needs, most_bytes, &changed);
        if cost(&found) <= cost(&best) {
            order = changed;
        }
        // Places stay as they are where nothing is won.
        if cost(&found) < cost(&best) {
            best = found;
        }
    }
    best
}

/// Bytes of all slots, and how many there are.
fn cost((_, sizes): &(Vec<Spot>, Vec<u64>)) -> (u64, usize) {
    (sizes.iter().sum(), sizes.len())
}

/// The most bytes that live at one level.
fn most_alive(needs: &[Need]) -> u64 {
    let mut alive = vec![0_u64; level_count(needs)];
    for need in needs {
        let levels = &mut alive[need.first() as usize..=need.last() as usize];
        levels.iter_mut().for_each(|bytes| *bytes = bytes.saturating_add(need.size_bytes));
    }
    alive.into_iter().max().unwrap_or(0)
}

fn level_count(needs: &[Need]) -> usize {
    needs.iter().map(|need| need.last() as usize + 1).max().unwrap_or(0)
}

/// Needs by descending `weight`, then from the first level on.
fn order(needs: &[Need], weight: impl Fn(&Need) -> (u64, u64)) -> Vec<usize> {
    let mut order: Vec<usize> = (0..needs.len()).collect();
    order.sort_by_key(|at| (std::cmp::Reverse(weight(&needs[*at])), needs[*at].first(), *at));
    order
}

/// Places needs in this order. A value takes the place by which the slots grow the least; among those the tightest gap.
fn pack(needs: &[Need], most_bytes: u64, order: &[usize]) -> (Vec<Spot>, Vec<u64>) {
    let levels = level_count(needs);
    let mut slots: Vec<Slot> = Vec::new();
    let mut spots = vec![Spot { slot: 0, offset_bytes: 0 }; needs.len()];
    for &at in order {
        let need = &needs[at];
        // By growth, then by what the gap leaves, then by slot.
        let mut best: Option<(u64, u64, usize, u64)> = None;
        for (nth, slot) in slots.iter().enumerate().filter(|(_, slot)| slot.admits(need)) {
            let (offset_bytes, rest_bytes) = slot.gap(need);
            let end = offset_bytes + need.size_bytes;
            let growth = end.saturating_sub(slot.size_bytes);
            if growth == 0 || end <= most_bytes {
                let found = (growth, rest_bytes, nth, offset_bytes);
                best = Some(best.map_or(found, |best| best.min(found)));
            }
        }
        let (slot, offset_bytes) = match best.filter(|(growth, ..)| *growth < need.size_bytes) {
            Some((_, _, slot, offset_bytes)) => (slot, offset_bytes),
            None => {
                slots.push(Slot {
                    size_bytes: 0,
                    uses: vec![LevelUse::Nothing; levels],
                    taken: vec![Vec::new(); levels],
                });
                (slots.len() - 1, 0)
            }
        };
        slots[slot].take(need, offset_bytes);
        spots[at] = Spot { slot, offset_bytes };
    }
    (spots, slots.into_iter().map(|slot| slot.size_bytes).collect())
}

impl Slot {
    /// Whether every level would still either write or read the slot, and no step write it twice.
    fn admits(&self, need: &Need) -> bool {
        let fits = |need: &NeedUse| match (&self.uses[need.level as usize], need.writer) {
            (LevelUse::Nothing, _) | (LevelUse::Reads, None) => true,
            (LevelUse::Writes(writers), Some(writer)) => !writers.contains(&writer),
            (LevelUse::Reads, Some(_)) | (LevelUse::Writes(_), None) => false,
        };
        need.uses.iter().all(fits)
    }

    /// The tightest gap that is free for all of the need's life, or else what lies behind all that is taken then: its
    /// first byte, and how many bytes would remain of a gap.
    fn gap(&self, need: &Need) -> (u64, u64) {
        let lifetime = need.first() as usize..=need.last() as usize;
        let mut taken: Vec<(u64, u64)> = self.taken[lifetime].iter().flatten().copied().collect();
        taken.sort_unstable();
        let mut best: Option<(u64, u64)> = None;
        let mut free_from = 0;
        for (start, end) in taken.into_iter().chain([(self.size_bytes, self.size_bytes)]) {
            let rest = start.saturating_sub(free_from).checked_sub(need.size_bytes);
            if let Some(rest) = rest.filter(|rest| best.is_none_or(|(least, _)| *rest < least)) {
                best = Some((rest, free_from));
            }
            if start < self.size_bytes {
                free_from = free_from.max(end);
            }
        }
        best.map_or((free_from, 0), |(rest, offset_bytes)| (offset_bytes, rest))
    }

    fn take(&mut self, need: &Need, offset_bytes: u64) {
        let end = offset_bytes + need.size_bytes;
        self.size_bytes = self.size_bytes.max(end);
        for level in need.first()..=need.last() {
            self.taken[level as usize].push((offset_bytes, end));
        }
        for NeedUse { level, writer } in &need.uses {
            let here = &mut self.uses[*level as usize];
            match (here, writer) {
                (LevelUse::Writes(writers), Some(writer)) => writers.push(*writer),
                (here, Some(writer)) => *here = LevelUse::Writes(vec![*writer]),
                (here, None) => *here = LevelUse::Reads,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written in its first level by the step of a number, read in its last.
    fn written_by(writer: u32, size_bytes: u64, first: u32, last: u32) -> Need {
        let uses = vec![NeedUse { level: first, writer: Some(writer) }, NeedUse { level: last, writer: None }];
        Need { size_bytes, uses }
    }

    /// The same by a step that writes nothing else.
    fn need(size_bytes: u64, first: u32, last: u32) -> Need {
        thread_local!(static NEXT: std::cell::Cell<u32> = const { std::cell::Cell::new(0) });
        written_by(NEXT.replace(NEXT.get() + 1), size_bytes, first, last)
    }

    fn spots(needs: &[Need]) -> (Vec<(usize, u64)>, Vec<u64>) {
        let (spots, sizes) = assign(needs, u64::MAX);
        (spots.iter().map(|spot| (spot.slot, spot.offset_bytes)).collect(), sizes)
    }

    #[test]
    fn values_share_bytes_only_when_a_level_lies_between() {
        // The second is written in the level that reads the first: no slot may hold both. The third finds the first's
        // place free.
        let found = spots(&[need(64, 0, 1), need(64, 1, 2), need(64, 2, 3)]);
        assert_eq!(found, (vec![(0, 0), (1, 0), (0, 0)], vec![64, 64]));
    }

    #[test]
    fn small_values_lie_side_by_side_where_a_large_one_lay() {
        // 64 + 192 bytes fit the 256 of the one before.
        let found = spots(&[need(256, 0, 1), need(64, 2, 4), need(192, 2, 3)]);
        assert_eq!(found, (vec![(0, 0), (0, 192), (0, 0)], vec![256]));
    }

    #[test]
    fn no_level_reads_and_writes_a_slot() {
        // The third is read in level 3, which writes the second: it may not take the room beside the third.
        let found = spots(&[need(256, 0, 1), need(128, 3, 4), need(128, 2, 3)]);
        assert_eq!(found, (vec![(0, 0), (1, 0), (0, 0)], vec![256, 128]));
    }

    #[test]
    fn no_step_writes_a_slot_twice() {
        let found = spots(&[need(256, 0, 1), written_by(99, 128, 2, 3), written_by(99, 128, 2, 3)]);
        assert_eq!(found, (vec![(0, 0), (0, 0), (1, 0)], vec![256, 128]));
    }

    #[test]
    fn the_tightest_gap_is_taken() {
        let found = spots(&[need(512, 0, 1), need(256, 0, 1), need(128, 2, 3), need(256, 2, 3), need(64, 2, 3)]);
        assert_eq!(found, (vec![(0, 0), (1, 0), (0, 0), (1, 0), (0, 128)], vec![512, 256]));
    }

    #[test]
    fn what_two_orders_leave_wide_is_packed_again() {
        // Chains of values of many sizes, three alive at a time, each read where the next one of its chain is written.
        let sizes = [5, 3, 8, 1, 7, 2, 6, 4, 9];
        let chain = |nth: usize| {
            (0..12).map(move |at| need(256 * sizes[(nth * 4 + at * 5) % 9], (at + nth) as u32, (at + nth) as u32 + 1))
        };
        let needs: Vec<Need> = (0..3).flat_map(chain).collect();
        let two_orders = [
            pack(&needs, u64::MAX, &order(&needs, |need| (need.size_bytes, 2))),
            pack(&needs, u64::MAX, &order(&needs, |need| (2 * need.size_bytes, 0))),
        ];
        let (before, after) = (two_orders.iter().map(cost).min().expect("two"), cost(&assign(&needs, u64::MAX)));
        assert!(most_alive(&needs) <= after.0 && after.0 < before.0, "{before:?}, then {after:?}");
        assert_eq!(assign(&needs, u64::MAX), assign(&needs, u64::MAX), "equal needs have equal places");
    }

    #[test]
    fn a_slot_grows_where_that_takes_less_than_a_new_one_and_may_be() {
        let needs = [need(256, 0, 1), need(192, 2, 3), need(128, 2, 3)];
        assert_eq!(assign(&needs, 320).1, [320]);
        assert_eq!(assign(&needs, 319).1, [256, 128]);
    }
}
