//! Slots: buffers shared over time by values that are never live together.
//!
//! Gets the live ranges and sizes of a schedule's values, returns a slot for each and the slots' sizes. Two values
//! share a slot only if one's last level lies before the other's first, so no dispatch finds an input and an output in
//! one buffer (P5) and no sharing adds a level. Deterministic. Never looks at offsets: a value begins where its slot
//! begins, since usage is tracked per whole buffer.

/// A value that needs memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Bytes.
    pub size_bytes: u64,
    /// First level in which it is used.
    pub first: u32,
    /// Last level in which it is used.
    pub last: u32,
}

/// The slot of each need, and the bytes of each slot.
///
/// Largest first: a slot then never grows, and a value takes the smallest slot that is free for all of its life. On
/// live ranges alone, first come first served would be optimal; with sizes it lets small values settle in large slots.
pub fn assign(needs: &[Need]) -> (Vec<usize>, Vec<u64>) {
    struct Slot {
        size_bytes: u64,
        /// Live ranges of its values, by first level; they do not overlap.
        taken: Vec<(u32, u32)>,
    }
    let mut order: Vec<usize> = (0..needs.len()).collect();
    order.sort_by_key(|at| (std::cmp::Reverse(needs[*at].size_bytes), needs[*at].first, *at));
    let mut slots: Vec<Slot> = Vec::new();
    let mut slot_of = vec![0; needs.len()];
    for at in order {
        let need = needs[at];
        // Where the need would stand among a slot's ranges, if it overlaps none of them.
        let place = |slot: &Slot| {
            let place = slot.taken.partition_point(|(first, _)| *first < need.first);
            let before = place.checked_sub(1).is_none_or(|before| slot.taken[before].1 < need.first);
            let after = slot.taken.get(place).is_none_or(|after| need.last < after.0);
            (before && after).then_some(place)
        };
        let free = slots.iter().enumerate().filter_map(|(nth, slot)| Some((slot.size_bytes, nth, place(slot)?))).min();
        let (nth, place) = free.map(|(_, nth, place)| (nth, place)).unwrap_or_else(|| {
            slots.push(Slot { size_bytes: need.size_bytes, taken: Vec::new() });
            (slots.len() - 1, 0)
        });
        slots[nth].taken.insert(place, (need.first, need.last));
        slot_of[at] = nth;
    }
    (slot_of, slots.into_iter().map(|slot| slot.size_bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_share_only_when_a_level_lies_between() {
        let need = |first, last| Need { size_bytes: 64, first, last };
        // The second ends where the third begins, in the same level: they may not share.
        let (slots, sizes) = assign(&[need(0, 1), need(1, 2), need(2, 3)]);
        assert_eq!(slots, [0, 1, 0]);
        assert_eq!(sizes, [64, 64]);
    }

    #[test]
    fn the_best_fitting_slot_is_taken() {
        let need = |size_bytes, first, last| Need { size_bytes, first, last };
        let (slots, sizes) = assign(&[need(64, 0, 0), need(256, 0, 0), need(64, 1, 1), need(200, 1, 1)]);
        assert_eq!(slots, [1, 0, 1, 0]);
        assert_eq!(sizes, [256, 64]);
    }
}
