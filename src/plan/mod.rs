//! The plan: every command of one step, every transition, every byte, and nothing that needs anything else to run but
//! inputs and weights.
//!
//! Gets a schedule and limits ([`lower::lower`]), returns a [`Plan`]; [`check::check`] turns it into a [`CheckedPlan`],
//! of which P1 to P10 hold:
//!
//! - P1 every id is in range. P2 every slice lies in its buffer and meets the device's alignment and size limits.
//! - P3 at each command, the tracked usage of every buffer contains the usage the command needs.
//! - P4 if one of two consecutive uses writes, a transition stands between them, even when the usage is equal, unless
//!   both write in one usage and share no bytes. And no transition stands without need.
//! - P5 one dispatch never binds a buffer through two bindings of which one writes.
//! - P6 values alive together never overlap. P7 nothing is read before it is written, uploaded or carried over.
//! - P8 each buffer leaves the plan in the usage it entered with, so that plans can follow each other in any order.
//! - P9 dispatch counts are non-zero and within limits.
//! - P10 a host-visible buffer belongs to one step in flight: commands reach it only through copies, and it is at rest,
//!   in the host's usage, when the step ends.
//!
//! Equal inputs give equal plans, byte for byte. Never names a GPU type.

pub mod check;
pub mod command;
pub mod file;
pub mod index;
pub mod lower;
pub mod memory;
pub mod print;
pub mod reasons;
pub mod usage;
pub mod weights;

use serde::{Deserialize, Serialize};

use crate::base::arena::Arena;
use crate::base::limits::Limits;
use crate::base::step::StepShape;
use crate::plan::command::{Buffer, BufferId, Command, Kernel, Level, PlanInput, PlanOutput, Transition};

use crate::plan::weights::{StateLayout, WeightLayout};

/// Version of the plan's data; a plan of another version is refused.
pub const PLAN_VERSION: u32 = 4;

/// Where a value of the graph lives during a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValuePlace {
    /// Its path, as in `layer3.wkv`.
    pub path: String,
    /// Element type.
    pub dtype: crate::base::dtype::DType,
    /// Shape, outermost axis first.
    pub shape: Vec<u64>,
    /// The slot it lives in.
    pub buffer: BufferId,
    /// Its first byte there.
    pub offset_bytes: u64,
    /// Bytes it occupies: those of its shape, rounded up to whole words and to the widest element that a kernel loads.
    pub size_bytes: u64,
    /// The level that writes it, counted from 0.
    pub first_level: u32,
    /// The last level that uses it.
    pub last_level: u32,
}

/// Everything that one step does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_VERSION`] of the maker.
    pub version: u32,
    /// Name of the graph.
    pub graph: String,
    /// The numbers it is made for.
    pub shape: StepShape,
    /// Every dim of the graph with its number, in the graph's order.
    pub dims: Vec<(String, u64)>,
    /// What a device must offer: what the plan uses, no more.
    pub limits: Limits,
    /// Where the weights are expected.
    pub weights: WeightLayout,
    /// Where the state is expected.
    pub state: StateLayout,
    /// The buffers.
    pub buffers: Arena<Buffer>,
    /// The pipelines.
    pub kernels: Arena<Kernel>,
    /// The commands, level by level.
    pub levels: Vec<Level>,
    /// The last barrier call: takes buffers back to their rest usages.
    pub leave: Vec<Transition>,
    /// What the host writes before the step.
    pub inputs: Vec<PlanInput>,
    /// What the host reads after the step.
    pub outputs: Vec<PlanOutput>,
    /// The memory map of the slots.
    pub values: Vec<ValuePlace>,
    /// The length of the longest chain of dependent commands: a bound on the number of levels, computed from
    /// the accesses alone.
    pub longest_chain: u32,
}

/// Bytes of a slot in which nothing lives at the level where most lives in all slots together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The level.
    pub level: u32,
    /// The slot.
    pub buffer: BufferId,
    /// How many of its bytes are free there.
    pub free_bytes: u64,
    /// The value because of which the slot is as large as it is.
    pub value: String,
    /// The first and the last level of that value.
    pub levels: (u32, u32),
}

/// What a plan costs, in the words of `compile --emit summary`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Name of the graph.
    pub graph: String,
    /// The numbers the plan is made for.
    pub shape: StepShape,
    /// Dispatches of a step.
    pub dispatches: u64,
    /// Copies of a step.
    pub copies: u64,
    /// Levels, copies included.
    pub levels: u64,
    /// The longest chain of dependent commands.
    pub longest_chain: u64,
    /// `transition_buffers` calls of a step, the leaving one included.
    pub barriers: u64,
    /// Transitions in all of them.
    pub transitions: u64,
    /// Distinct pipelines.
    pub pipelines: u64,
    /// Slots.
    pub slots: u64,
    /// Bytes of all slots.
    pub slot_bytes: u64,
    /// The most bytes of values that live at one level, each up to where the next binding may begin: no assignment of
    /// slots can do with less.
    pub lower_bound_bytes: u64,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Bytes of the state of all sequences.
    pub state_bytes: u64,
    /// The weight layout's hash.
    pub weight_layout: String,
}

impl Summary {
    /// Its numbers with their names, in the order of listings.
    pub const fn figures(&self) -> [(&'static str, u64); 12] {
        [
            ("dispatches", self.dispatches),
            ("copies", self.copies),
            ("levels", self.levels),
            ("longest_chain", self.longest_chain),
            ("barriers", self.barriers),
            ("transitions", self.transitions),
            ("pipelines", self.pipelines),
            ("slots", self.slots),
            ("slot_bytes", self.slot_bytes),
            ("lower_bound_bytes", self.lower_bound_bytes),
            ("weight_bytes", self.weight_bytes),
            ("state_bytes", self.state_bytes),
        ]
    }
}

impl Plan {
    /// The commands in order, without their levels.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.levels.iter().flat_map(|level| &level.commands)
    }

    /// The barrier calls in order, those without transitions left out.
    pub fn barriers(&self) -> impl Iterator<Item = &[Transition]> {
        let entering = self.levels.iter().map(|level| level.barrier.as_slice());
        entering.chain(std::iter::once(self.leave.as_slice())).filter(|barrier| !barrier.is_empty())
    }

    /// Bytes of the values that live at each level, each up to where the next binding may begin.
    pub fn live_bytes(&self) -> Vec<u64> {
        let alignment = u64::from(self.limits.min_storage_buffer_offset_alignment.max(1));
        let mut begins = vec![0_u64; self.levels.len()];
        let mut ends = vec![0_u64; self.levels.len()];
        for value in &self.values {
            let size_bytes = value.size_bytes.checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
            let (begin, end) = (&mut begins[value.first_level as usize], &mut ends[value.last_level as usize]);
            (*begin, *end) = (begin.saturating_add(size_bytes), end.saturating_add(size_bytes));
        }
        let mut live: u64 = 0;
        let level = |(begin, end): (&u64, &u64)| {
            live = live.saturating_add(*begin);
            let here = live;
            live = live.saturating_sub(*end);
            here
        };
        begins.iter().zip(&ends).map(level).collect()
    }

    /// What makes the slots larger than their lower bound: their free bytes at the level that makes the bound, and the
    /// values that need them elsewhere.
    pub fn gaps(&self) -> Vec<Gap> {
        let alignment = u64::from(self.limits.min_storage_buffer_offset_alignment.max(1));
        let live = self.live_bytes();
        let most = live.iter().max();
        let Some(level) = live.iter().position(|bytes| Some(bytes) == most) else { return Vec::new() };
        let level = level as u32;
        let mut taken = vec![0_u64; self.buffers.len()];
        let mut tops: Vec<Option<&ValuePlace>> = vec![None; self.buffers.len()];
        for value in &self.values {
            if (value.first_level..=value.last_level).contains(&level) {
                let size_bytes = value.size_bytes.checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
                let taken = &mut taken[value.buffer.index()];
                *taken = size_bytes.saturating_add(*taken);
            }
            let top = &mut tops[value.buffer.index()];
            let end = |value: &ValuePlace| value.offset_bytes + value.size_bytes;
            if top.is_none_or(|other| end(value) > end(other)) {
                *top = Some(value);
            }
        }
        let gap = |(buffer, top): (BufferId, &Option<&ValuePlace>)| {
            let free_bytes = self.buffers[buffer].size_bytes.saturating_sub(taken[buffer.index()]);
            let value = top.filter(|_| free_bytes > 0)?;
            let levels = (value.first_level, value.last_level);
            Some(Gap { level, buffer, free_bytes, value: value.path.clone(), levels })
        };
        self.buffers.ids().zip(&tops).filter_map(gap).collect()
    }

    /// What the plan costs.
    pub fn summary(&self) -> Summary {
        use crate::plan::command::BufferKind;
        let slots = || self.buffers.values().filter(|buffer| buffer.kind == BufferKind::Slot);
        let dispatches = self.commands().filter(|command| matches!(command, Command::Dispatch(_))).count() as u64;
        Summary {
            graph: self.graph.clone(),
            shape: self.shape,
            dispatches,
            copies: self.commands().count() as u64 - dispatches,
            levels: self.levels.len() as u64,
            longest_chain: u64::from(self.longest_chain),
            barriers: self.barriers().count() as u64,
            transitions: self.barriers().map(|barrier| barrier.len() as u64).sum(),
            pipelines: self.kernels.len() as u64,
            slots: slots().count() as u64,
            slot_bytes: slots().map(|buffer| buffer.size_bytes).sum(),
            lower_bound_bytes: self.live_bytes().into_iter().max().unwrap_or(0),
            weight_bytes: self.weights.size_bytes(),
            state_bytes: self.state.buffers.iter().map(weights::StateBuffer::size_bytes).sum(),
            weight_layout: self.weights.hash(),
        }
    }
}

/// A plan of which P1 to P10 hold. [`check::check`] alone makes one; executors take nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedPlan {
    plan: Plan,
}

impl std::ops::Deref for CheckedPlan {
    type Target = Plan;
    fn deref(&self) -> &Plan {
        &self.plan
    }
}
