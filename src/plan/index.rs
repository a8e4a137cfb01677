//! What lies where in a plan, found once and asked often.
//!
//! Gets a plan, returns the names of its commands and the values of each buffer in the order of their lives. What holds
//! then: a question takes the time of a binary search, so a listing of a plan takes time near the length of its text.
//! Never changes the plan, never sees one that was changed after it was made.

use std::collections::BTreeMap;

use crate::plan::command::{BufferId, Command, Slice};
use crate::plan::{Plan, ValuePlace};

/// Names and places of one plan.
#[derive(Clone, Debug)]
pub struct PlanIndex {
    /// For each command, its number among the dispatches; nothing for a copy.
    dispatches: Vec<Vec<Option<u32>>>,
    /// For each buffer, indices into [`Plan::values`] by their first level.
    values: Vec<Vec<usize>>,
    /// The same by buffer and first byte: those of one place never live together.
    places: BTreeMap<(BufferId, u64), Vec<usize>>,
}

impl PlanIndex {
    /// Walks the plan once.
    pub fn new(plan: &Plan) -> Self {
        let mut next = 0;
        let mut number = |command: &Command| {
            matches!(command, Command::Dispatch(_)).then(|| {
                next += 1;
                next - 1
            })
        };
        let dispatches = plan.levels.iter().map(|level| level.commands.iter().map(&mut number).collect()).collect();
        let mut values: Vec<Vec<usize>> = vec![Vec::new(); plan.buffers.len()];
        for (at, value) in plan.values.iter().enumerate() {
            values[value.buffer.index()].push(at);
        }
        let mut places: BTreeMap<(BufferId, u64), Vec<usize>> = BTreeMap::new();
        for of_buffer in &mut values {
            of_buffer.sort_by_key(|at| (plan.values[*at].first_level, *at));
            for at in of_buffer {
                let value = &plan.values[*at];
                places.entry((value.buffer, value.offset_bytes)).or_default().push(*at);
            }
        }
        Self { dispatches, values, places }
    }

    /// `d17`, or `copy`.
    pub fn name(&self, level: usize, index: usize) -> String {
        self.dispatches[level][index].map_or_else(|| "copy".to_owned(), |number| format!("d{number}"))
    }

    /// Level and index of a dispatch.
    pub fn dispatch(&self, number: u32) -> Option<(usize, usize)> {
        let first = |level: &Vec<Option<u32>>| level.iter().flatten().next().copied();
        // Levels of copies alone have no first dispatch; they belong to what comes before them.
        let at = self.dispatches.iter().rposition(|level| first(level).is_some_and(|first| first <= number))?;
        let index = self.dispatches[at].iter().position(|found| *found == Some(number))?;
        Some((at, index))
    }

    /// How many dispatches there are.
    pub fn dispatch_count(&self) -> u32 {
        self.dispatches.iter().flatten().flatten().count() as u32
    }

    /// Indices into [`Plan::values`] of what lives in a buffer, by first level.
    pub fn values(&self, buffer: BufferId) -> &[usize] {
        &self.values[buffer.index()]
    }

    /// The value in which a slice begins at a level.
    pub fn value_at<'a>(&self, plan: &'a Plan, slice: Slice, level: u32) -> Option<&'a ValuePlace> {
        // Nearly always the first place: a slice that begins inside a value is a piece of a large one.
        let places = self.places.range((slice.buffer, 0)..=(slice.buffer, slice.offset_bytes)).rev();
        let mut living = places.filter_map(|(_, of_place)| {
            let begun = of_place.partition_point(|at| plan.values[*at].first_level <= level);
            let last = &plan.values[*of_place.get(begun.checked_sub(1)?)?];
            (level <= last.last_level).then_some(last)
        });
        // Values that live together share no bytes, so no other value than the nearest can hold the slice.
        living.next().filter(|value| slice.offset_bytes - value.offset_bytes < value.size_bytes)
    }
}
