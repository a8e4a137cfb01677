//! The slots of all plans of a session, as one pool for each rest usage.
//!
//! Gets plans, returns a buffer for each of their slots: the *n*th largest slot of a plan that rests in a usage has the
//! *n*th buffer of that usage's pool. What holds then: a buffer is as large as the largest plan needs it, whatever the
//! order in which plans came, so that the pool has the bytes of the largest plan, not of all. Never frees a buffer that
//! a plan is still bound to, and never looks at contents: none survives a step.

use std::collections::{BTreeMap, HashMap};

use crate::plan::Plan;
use crate::plan::command::{BufferId, BufferKind};
use crate::plan::usage::Usage;

/// Buffers by rest usage and place; `B` is an executor's handle of a buffer.
#[derive(Clone, Debug)]
pub(super) struct SlotPool<B> {
    by_rest: BTreeMap<Usage, Vec<Pooled<B>>>,
}

#[derive(Clone, Debug)]
struct Pooled<B> {
    size_bytes: u64,
    buffer: B,
}

/// Where a slot of a plan is in the pool.
struct Place {
    slot: BufferId,
    size_bytes: u64,
    rest: Usage,
    nth: usize,
}

impl<B: Clone> SlotPool<B> {
    /// A pool without buffers.
    pub(super) const fn new() -> Self {
        Self { by_rest: BTreeMap::new() }
    }

    /// This pool with room for a plan: buffers that are missing or too small are made, the others are the same ones.
    /// If one cannot be made, those made before it are dropped, and this pool is as it was.
    pub(super) fn grown_for<E>(&self, plan: &Plan, mut make: impl FnMut(&str, u64) -> Result<B, E>) -> Result<Self, E> {
        let mut grown = self.clone();
        for Place { size_bytes, rest, nth, .. } in places(plan) {
            let pool = grown.by_rest.entry(rest).or_default();
            if pool.get(nth).is_some_and(|pooled| pooled.size_bytes >= size_bytes) {
                continue;
            }
            let buffer = make(&format!("slot {nth} at rest in {rest}"), size_bytes)?;
            let pooled = Pooled { size_bytes, buffer };
            match pool.get_mut(nth) {
                Some(smaller) => *smaller = pooled,
                None => pool.push(pooled),
            }
        }
        Ok(grown)
    }

    /// Whether a plan, for which this pool has room, is bound to other buffers in `before`.
    pub(super) fn rebinds(&self, before: &Self, plan: &Plan) -> bool {
        let size_bytes = |pool: &Self, place: &Place| pool.at(place).size_bytes;
        places(plan).iter().any(|place| size_bytes(self, place) != size_bytes(before, place))
    }

    /// The buffer of each slot of a plan, for which the pool has room.
    pub(super) fn draw(&self, plan: &Plan) -> HashMap<BufferId, B> {
        places(plan).into_iter().map(|place| (place.slot, self.at(&place).buffer.clone())).collect()
    }

    /// Bytes of all buffers.
    pub(super) fn size_bytes(&self) -> u64 {
        self.by_rest.values().flatten().map(|pooled| pooled.size_bytes).sum()
    }

    fn at(&self, place: &Place) -> &Pooled<B> {
        &self.by_rest[&place.rest][place.nth]
    }
}

/// The place of every slot of a plan, in the order of places.
fn places(plan: &Plan) -> Vec<Place> {
    let mut slots: Vec<_> = plan.buffers.iter().filter(|(_, buffer)| buffer.kind == BufferKind::Slot).collect();
    slots.sort_by_key(|(id, buffer)| (buffer.rest, std::cmp::Reverse(buffer.size_bytes), *id));
    let mut places: Vec<Place> = Vec::with_capacity(slots.len());
    for (slot, buffer) in slots {
        let nth = places.last().filter(|before| before.rest == buffer.rest).map_or(0, |before| before.nth + 1);
        places.push(Place { slot, size_bytes: buffer.size_bytes, rest: buffer.rest, nth });
    }
    places
}

#[cfg(test)]
mod tests {
    use std::rc::{Rc, Weak};

    use super::*;
    use crate::base::arena::Arena;
    use crate::base::limits::Limits;
    use crate::base::step::StepShape;
    use crate::plan::PLAN_VERSION;
    use crate::plan::command::Buffer;
    use crate::plan::weights::{StateLayout, WeightLayout};

    const READ: Usage = Usage::STORAGE_READ;
    const COPY: Usage = Usage::COPY_SRC;

    /// A plan of nothing but slots, of these bytes and rests.
    fn plan(slots: &[(u64, Usage)]) -> Plan {
        let mut buffers = Arena::new();
        for (size_bytes, rest) in slots {
            let label = format!("slot{}", buffers.len());
            buffers.push(Buffer { label, kind: BufferKind::Slot, size_bytes: *size_bytes, rest: *rest });
        }
        Plan {
            version: PLAN_VERSION,
            graph: "slots".to_owned(),
            shape: StepShape { tokens: 1, sequences: 1, rows: 1, capacity: 1 },
            dims: Vec::new(),
            limits: Limits::webgpu(),
            weights: WeightLayout::default(),
            state: StateLayout::default(),
            buffers,
            kernels: Arena::new(),
            levels: Vec::new(),
            leave: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            values: Vec::new(),
            longest_chain: 0,
        }
    }

    /// What a session does with its pool: a buffer is its size.
    fn prepare(pool: &SlotPool<Rc<u64>>, plan: &Plan) -> SlotPool<Rc<u64>> {
        pool.grown_for(plan, |_, size_bytes| Ok::<_, ()>(Rc::new(size_bytes))).expect("there is room")
    }

    #[test]
    fn the_order_of_plans_does_not_matter() {
        let plans = [plan(&[(64, READ), (16, READ), (32, COPY)]), plan(&[(16, READ), (256, READ), (128, COPY)])];
        for order in [[0, 1], [1, 0]] {
            let pool = order.iter().fold(SlotPool::new(), |pool, nth| prepare(&pool, &plans[*nth]));
            // The largest at rest in each usage, then the second largest: those of the second plan.
            assert_eq!(pool.size_bytes(), 256 + 16 + 128, "{order:?}");
            let drawn: Vec<u64> = plans[0].buffers.ids().map(|id| *pool.draw(&plans[0])[&id]).collect();
            assert_eq!(drawn, [256, 16, 128], "{order:?}");
        }
    }

    #[test]
    fn a_plan_is_bound_anew_only_where_one_of_its_slots_has_grown() {
        let (reads, copies) = (plan(&[(64, READ)]), plan(&[(64, COPY)]));
        let before = prepare(&prepare(&SlotPool::new(), &reads), &copies);
        let after = prepare(&before, &plan(&[(65, COPY), (8, READ)]));
        assert!(after.rebinds(&before, &copies) && !after.rebinds(&before, &reads));
        let smaller = Rc::downgrade(&before.draw(&copies)[&copies.buffers.ids().next().expect("a slot")]);
        drop(before);
        assert_eq!(smaller.upgrade(), None, "nothing holds the smaller buffer any more");
    }

    #[test]
    fn what_cannot_grow_stays_as_it_was_and_keeps_nothing() {
        let before = prepare(&SlotPool::new(), &plan(&[(64, READ), (64, COPY)]));
        let mut made: Vec<Weak<u64>> = Vec::new();
        let failed = before.grown_for(&plan(&[(128, READ), (128, COPY)]), |label, size_bytes| {
            if !made.is_empty() {
                return Err(label.to_owned());
            }
            let buffer = Rc::new(size_bytes);
            made.push(Rc::downgrade(&buffer));
            Ok(buffer)
        });
        assert_eq!(failed.expect_err("the second"), "slot 0 at rest in storage-read");
        assert_eq!(made[0].upgrade(), None, "the first is freed");
        assert_eq!(before.size_bytes(), 128);
    }
}
