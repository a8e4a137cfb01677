//! Slots: buffers shared over time by values that are never live together.
//!
//! Gets the live ranges and sizes of a schedule's values, returns a slot for each and the slots' sizes. Two values
//! share a slot only if one's last level lies before the other's first, so no dispatch finds an input and an output in
//! one buffer (P5) and no sharing adds a level. Deterministic: values in the order of their first level, ties in the
//! graph's order. Never looks at offsets: a value begins where its slot begins, since usage is tracked per whole
//! buffer.

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
pub fn assign(needs: &[Need]) -> (Vec<usize>, Vec<u64>) {
    struct Slot {
        size_bytes: u64,
        free_from: u32,
    }
    let mut order: Vec<usize> = (0..needs.len()).collect();
    // Within a level the largest first, so that it finds the slot that fits it best.
    order.sort_by_key(|at| (needs[*at].first, std::cmp::Reverse(needs[*at].size_bytes), *at));
    let mut slots: Vec<Slot> = Vec::new();
    let mut slot_of = vec![0; needs.len()];
    for at in order {
        let need = needs[at];
        let free = || slots.iter().enumerate().filter(|(_, slot)| slot.free_from <= need.first);
        // The smallest that is large enough; else the largest, which grows least; else a new one.
        let fits =
            free().filter(|(_, slot)| slot.size_bytes >= need.size_bytes).min_by_key(|(nth, s)| (s.size_bytes, *nth));
        let grows = || free().max_by_key(|(nth, slot)| (slot.size_bytes, std::cmp::Reverse(*nth)));
        let chosen = fits.or_else(grows).map(|(nth, _)| nth);
        let nth = chosen.unwrap_or_else(|| {
            slots.push(Slot { size_bytes: 0, free_from: 0 });
            slots.len() - 1
        });
        slots[nth].size_bytes = slots[nth].size_bytes.max(need.size_bytes);
        slots[nth].free_from = need.last + 1;
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
        let (slots, sizes) = assign(&[need(256, 0, 0), need(64, 0, 0), need(64, 1, 1), need(200, 1, 1)]);
        assert_eq!(slots, [0, 1, 1, 0]);
        assert_eq!(sizes, [256, 64]);
    }
}
