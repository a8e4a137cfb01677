//! What a plan consists of: buffers, kernels, levels of commands, transitions. No GPU types.
//!
//! Gets nothing, returns nothing: plain data that `lower` makes, `check` verifies, `print` lists and executors replay.
//! Any value can be expressed here, also a wrong one; only a [`CheckedPlan`](crate::plan::CheckedPlan) is known to be
//! right.

use serde::{Deserialize, Serialize};

use crate::base::arena::{Entity, Id};
use crate::base::dtype::DType;
use crate::base::role::{InputRole, OutputRole};
use crate::plan::usage::Usage;

/// A buffer of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    /// Name to print and to give the GPU object.
    pub label: String,
    /// Whose memory it is and how long it lives.
    pub kind: BufferKind,
    /// Size in bytes, a multiple of four.
    pub size_bytes: u64,
    /// The usage in which it enters and leaves every step (P8).
    pub rest: Usage,
}

impl Entity for Buffer {
    const PREFIX: &'static str = "buf";
}

/// Index of a [`Buffer`] in its plan.
pub type BufferId = Id<Buffer>;

/// Whose memory a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BufferKind {
    /// Buffer `index` of the session's weight layout; uploaded once, never written by a plan.
    Weight {
        /// Index into [`WeightLayout::buffers`](crate::plan::weights::WeightLayout::buffers).
        index: u32,
    },
    /// Buffer `index` of the session's state layout; lives across steps and is shared by all plans.
    State {
        /// Index into [`StateLayout::buffers`](crate::plan::weights::StateLayout::buffers).
        index: u32,
    },
    /// Memory of one step, shared over time by values that are never live together. Its contents do not survive the
    /// step; sessions draw slots of all their plans from one pool, a pool per rest usage.
    Slot,
    /// Device side of the step's inputs: written by a copy, read by dispatches. Its contents do not survive the step.
    Input,
    /// Host-visible, written by the host before the step, source of copies. One per step in flight (P10).
    HostWrite,
    /// Host-visible, destination of copies, read by the host after the step. One per step in flight (P10).
    HostRead,
}

impl BufferKind {
    /// Whether the host maps it, so that each step in flight needs its own.
    pub const fn is_host_visible(self) -> bool {
        matches!(self, Self::HostWrite | Self::HostRead)
    }
}

/// A range of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slice {
    /// Which buffer.
    pub buffer: BufferId,
    /// First byte.
    pub offset_bytes: u64,
    /// Length in bytes, never zero.
    pub size_bytes: u64,
}

impl Slice {
    /// One past the last byte, or nothing where the sum overflows.
    pub const fn end_bytes(self) -> Option<u64> {
        self.offset_bytes.checked_add(self.size_bytes)
    }
}

/// One compute pipeline: a kernel's text with every constant and storage format written out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// The kernel's name, with its storage formats where they are not f32.
    pub label: String,
    /// Complete WGSL.
    pub wgsl: String,
    /// Entry point.
    pub entry: String,
    /// Bindings of group 0, in order of their numbers, which are `0..len`.
    pub bindings: Vec<Binding>,
    /// Threads of one workgroup.
    pub workgroup_size: [u32; 3],
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Whether naga's index and loop checks are compiled in. The same in every executor, so that results are the same
    /// bits.
    pub runtime_checks: bool,
    /// Whether workgroup memory is zeroed first.
    pub zero_workgroup_memory: bool,
    /// Whether the text uses subgroup operations.
    pub needs_subgroups: bool,
    /// Whether the text uses cooperative matrices.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_cooperative_matrix: bool,
    /// Whether the text reads words of 64 bits.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_wide_words: bool,
    /// Where the text comes from: `(line, origin)` for each first line (from 1) of a run of lines of one origin.
    pub origins: Vec<LineOrigin>,
}

impl Entity for Kernel {
    const PREFIX: &'static str = "k";
}

impl Kernel {
    /// The author's file and line behind a line (from 1) of the text; nothing for a line that the compiler wrote.
    pub fn origin(&self, line: u32) -> Option<(&str, u32)> {
        let at = self.origins.partition_point(|run| run.line <= line).checked_sub(1)?;
        let run = &self.origins[at];
        (!run.file.is_empty()).then(|| (run.file.as_str(), run.file_line.saturating_add(line - run.line)))
    }
}

/// Index of a [`Kernel`] in its plan.
pub type KernelId = Id<Kernel>;

/// From `line` on, lines of a kernel's text come from `file`, starting at `file_line`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineOrigin {
    /// First line of the run in the kernel's text, from 1.
    pub line: u32,
    /// The file; empty for lines that the compiler wrote.
    pub file: String,
    /// The line in that file, from 1.
    pub file_line: u32,
}

/// One binding of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The ports that reach their tensors through this binding.
    pub label: String,
    /// `true` if the kernel writes through it (naga's analysis of the text, never a declaration).
    pub writes: bool,
    /// `true` if the kernel reads through it.
    pub reads: bool,
    /// Bytes that must be bound at least, by the type in the text; index checks do not know how much is bound to an
    /// array of fixed length.
    pub min_bytes: u64,
}

impl Binding {
    /// The usage a buffer must be in while bound here.
    pub const fn usage(&self) -> Usage {
        if self.writes { Usage::STORAGE_WRITE } else { Usage::STORAGE_READ }
    }
}

/// One dispatch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatch {
    /// The op's path in the graph, as in `layer3.wkv`.
    pub label: String,
    /// The pipeline.
    pub kernel: KernelId,
    /// What is bound, in the order of the kernel's bindings.
    pub bindings: Vec<Slice>,
    /// Workgroups in x, y and z.
    pub workgroups: [u32; 3],
    /// The graph place that asked for it, as `file:line:column`.
    pub place: String,
}

/// One copy between buffers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// What is copied, for listings.
    pub label: String,
    /// Source.
    pub from: Slice,
    /// Destination, of the same size.
    pub to: Slice,
}

/// One thing the GPU does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Runs a kernel.
    Dispatch(Dispatch),
    /// Copies bytes.
    Copy(Copy),
}

impl Command {
    /// The name to print.
    pub fn label(&self) -> &str {
        match self {
            Self::Dispatch(dispatch) => &dispatch.label,
            Self::Copy(copy) => &copy.label,
        }
    }
}

/// Takes one buffer from one usage to another: orders and makes visible that buffer only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Which buffer.
    pub buffer: BufferId,
    /// The usage it is in.
    pub from: Usage,
    /// The usage it is in afterwards: after a write, the union of all reads before the next write.
    pub to: Usage,
}

/// Commands of which none depends on another, behind one barrier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// Transitions before the level's first command: one `transition_buffers` call, no call if empty.
    pub barrier: Vec<Transition>,
    /// The commands, in the graph's order.
    pub commands: Vec<Command>,
}

/// An input of a step: what the host writes where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanInput {
    /// The graph's name.
    pub name: String,
    /// What the host must put there.
    pub role: InputRole,
    /// Number of `u32` elements.
    pub count: u64,
    /// Where, in a [`BufferKind::HostWrite`] buffer.
    pub slice: Slice,
}

/// An output of a step: what the host reads where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanOutput {
    /// The graph's name, or the path of a kept value.
    pub name: String,
    /// What it is.
    pub role: OutputRole,
    /// Element type.
    pub dtype: DType,
    /// Shape, outermost axis first.
    pub shape: Vec<u64>,
    /// Where, in a [`BufferKind::HostRead`] buffer.
    pub slice: Slice,
}
