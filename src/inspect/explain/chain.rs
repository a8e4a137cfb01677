//! Chains: which commands of a step depend on which, and the longest way to each.
//!
//! Gets a plan, returns for every command how many commands have to run one after the other before it, and the last of
//! those. Two commands depend on each other if one writes what the other uses, of one value: values that merely share a
//! slot do not, since the planner chose that. What holds then: a plan of our own has each command in the level that its
//! chain asks for. Never looks at transitions: they follow from the order, and not the order from them.

use std::collections::BTreeMap;

use crate::plan::Plan;
use crate::plan::command::{BufferId, Command, Slice};
use crate::plan::index::PlanIndex;
use crate::plan::reasons::Hazard;

/// A command by its level and its index there.
pub(super) type At = (usize, usize);

/// Why a command waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// Which it waits for.
    pub on: At,
    /// What both use.
    pub slice: Slice,
    /// Who does what.
    pub hazard: Hazard,
}

/// The dependencies within a step.
#[derive(Clone, Debug)]
pub(super) struct Chains {
    /// For each command: what it waits for.
    needs: Vec<Vec<Vec<Need>>>,
    /// For each command: how many commands its longest chain has, itself included.
    lengths: Vec<Vec<u32>>,
}

/// Who used a value since it was last written, and who wrote it.
#[derive(Default)]
struct Uses {
    writers: Vec<At>,
    readers: Vec<At>,
}

impl Chains {
    pub(super) fn new(plan: &Plan, index: &PlanIndex) -> Self {
        let mut uses: BTreeMap<(BufferId, Option<&str>), Uses> = BTreeMap::new();
        let mut chains = Self { needs: Vec::new(), lengths: Vec::new() };
        for (number, level) in plan.levels.iter().enumerate() {
            let key = |slice: Slice| {
                let value = index.value_at(plan, slice, number as u32);
                (slice.buffer, value.map(|value| value.path.as_str()))
            };
            let accesses: Vec<_> = level.commands.iter().map(|command| accesses(plan, command)).collect();
            // Commands of a level see what earlier levels did, not each other.
            let mut level_needs = vec![Vec::new(); level.commands.len()];
            for (needs, accesses) in level_needs.iter_mut().zip(&accesses) {
                for (slice, _, writes) in accesses {
                    let Some(found) = uses.get(&key(*slice)) else { continue };
                    let need = |hazard| move |on: &At| Need { on: *on, slice: *slice, hazard };
                    let written = if *writes { Hazard::WriteAfterWrite } else { Hazard::ReadAfterWrite };
                    needs.extend(found.writers.iter().map(need(written)));
                    if *writes {
                        needs.extend(found.readers.iter().map(need(Hazard::WriteAfterRead)));
                    }
                }
            }
            for (at, accesses) in accesses.iter().enumerate() {
                for (slice, _, writes) in accesses {
                    let found = uses.entry(key(*slice)).or_default();
                    match writes {
                        true => *found = Uses { writers: vec![(number, at)], readers: Vec::new() },
                        false => found.readers.push((number, at)),
                    }
                }
            }
            let length = |needs: &Vec<Need>| needs.iter().map(|need| chains.length(need.on)).max().unwrap_or(0) + 1;
            let lengths = level_needs.iter().map(length).collect();
            chains.lengths.push(lengths);
            chains.needs.push(level_needs);
        }
        chains
    }

    /// How many commands the longest chain to a command has, itself included.
    pub(super) fn length(&self, (level, index): At) -> u32 {
        self.lengths[level][index]
    }

    /// What a command waits for.
    pub(super) fn needs(&self, (level, index): At) -> &[Need] {
        &self.needs[level][index]
    }

    /// The longest chain that ends at a command, from its beginning; each with what it waits for in the one before.
    pub(super) fn chain(&self, to: At) -> Vec<(At, Option<Need>)> {
        let mut chain = Vec::new();
        let mut next = Some(to);
        // Each member lies in an earlier level than the last, so this ends.
        while let Some(at) = next {
            // The first of the longest, so that equal plans are explained alike.
            let longest = |best: Option<Need>, need: &Need| match best {
                Some(best) if self.length(best.on) >= self.length(need.on) => Some(best),
                _ => Some(*need),
            };
            let need = self.needs(at).iter().fold(None, longest);
            chain.push((at, need));
            next = need.map(|need| need.on);
        }
        chain.reverse();
        chain
    }
}

/// What a command touches: the slice, whether it reads it, whether it writes it.
pub(super) fn accesses(plan: &Plan, command: &Command) -> Vec<(Slice, bool, bool)> {
    match command {
        Command::Dispatch(dispatch) => {
            let bound = dispatch.bindings.iter().zip(&plan.kernels[dispatch.kernel].bindings);
            bound.map(|(slice, binding)| (*slice, binding.reads, binding.writes)).collect()
        }
        Command::Copy(copy) => vec![(copy.from, true, false), (copy.to, false, true)],
    }
}
