//! The typed graph: every tensor has a shape and an element type, every op a kernel and a dispatch size.
//!
//! Gets a [`Graph`](crate::graph::Graph), a [`KernelLib`](crate::kernel::KernelLib) and the index of a checkpoint
//! ([`build`]), returns a [`Model`] for one step shape. What holds then: loops and conditions are unrolled, every name
//! is resolved, every value is defined before it is used, all shapes agree, and an update names the version it
//! consumes. Never orders ops, never assigns memory.

pub mod bind;
mod build;
mod chain;
pub mod detect;
mod dims;
mod layouts;
mod names;
mod print;
mod reach;
pub mod weights;

pub use build::{Request, build};
pub use chain::longest_chain;
pub use names::{check_names, check_unused};
pub use print::print;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::base::arena::{Arena, Entity, Id};
use crate::base::dtype::DType;
use crate::base::role::{InputRole, OutputRole};
use crate::base::span::Span;
use crate::base::step::StepShape;
use crate::kernel::tuning::Fact;
use crate::kernel::{Access, Template};

/// A typed graph.
#[derive(Clone, Debug, Serialize)]
pub struct Model {
    /// Name of the graph.
    pub graph: String,
    /// Which of the graph's layouts the checkpoint has.
    pub layout: String,
    /// The numbers it is made for.
    pub shape: StepShape,
    /// Every dim that has a value, in the graph's order.
    pub dims: Vec<(String, u64)>,
    /// Every weight that a step of some size uses: what a session holds, whatever this step uses of it.
    pub weights: Vec<WeightTensor>,
    /// Weights that some op reads as one, by the names of their tensors: a layout does well to put them side by side.
    pub joins: Vec<Vec<String>>,
    /// Weights that some op reads by columns, by the names of their tensors: a layout has a copy of each that lies so.
    pub transposed: Vec<String>,
    /// Every tensor of this step.
    pub values: Arena<Value>,
    /// The ops, in file order with loops unrolled.
    pub ops: Arena<Op>,
    /// The state tensors.
    pub state: Vec<StateTensor>,
    /// The inputs.
    pub inputs: Vec<InputTensor>,
    /// The outputs, kept values last.
    pub outputs: Vec<OutputTensor>,
    /// The kernel texts that the ops use.
    #[serde(skip)]
    pub templates: Arena<Template>,
}

/// A tensor of the model: written once, by its origin.
#[derive(Clone, Debug, Serialize)]
pub struct Value {
    /// Its path, as in `layer3.wkv`; a second value of one name is `layer3.x#1`.
    pub path: String,
    /// Element type.
    pub dtype: DType,
    /// Shape, outermost axis first.
    pub shape: Vec<u64>,
    /// Where it comes from.
    pub origin: Origin,
}

impl Value {
    /// Number of elements.
    pub fn count(&self) -> u64 {
        self.shape.iter().product()
    }
}

impl Entity for Value {
    const PREFIX: &'static str = "v";
}

/// Index of a [`Value`].
pub type ValueId = Id<Value>;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Origin {
    /// The checkpoint.
    Weight {
        /// The tensor's name.
        tensor: String,
        /// The name with `{}` for the layer's number.
        pattern: String,
        /// The layer's number, if the name has one.
        index: Option<u64>,
        /// Rows and columns as stored, if stored transposed.
        transpose: Option<(u64, u64)>,
    },
    /// The step before: the first version of state tensor `state`.
    State {
        /// Index into [`Model::state`].
        state: u32,
    },
    /// The host.
    Input {
        /// Index into [`Model::inputs`].
        input: u32,
    },
    /// An op.
    Op {
        /// Which.
        op: OpId,
        /// The version it is an update of, in the same memory.
        updates: Option<ValueId>,
    },
    /// A weight, a matrix, by columns.
    Transposed {
        /// The weight.
        of: ValueId,
    },
    /// Weights one after the other, as one tensor.
    Join {
        /// The weights, all of one element type.
        parts: Vec<ValueId>,
    },
    /// A run of the elements of a value that an op defines.
    View {
        /// The value.
        of: ValueId,
        /// The run's first element, a multiple of eight.
        first: u64,
    },
}

/// One kernel call.
#[derive(Clone, Debug, Serialize)]
pub struct Op {
    /// Path of the first value it computes, or of the state that it updates if it does nothing else.
    pub label: String,
    /// Name of the kernel.
    pub kernel: String,
    /// The kernel's text.
    pub template: Id<Template>,
    /// What each port is bound to, in the order of the template's ports.
    pub args: Vec<OpArg>,
    /// The constants, as WGSL.
    pub consts: Vec<(String, String)>,
    /// The constants that the graph gives, by name.
    #[serde(skip)]
    pub given: BTreeMap<String, f64>,
    /// Workgroups in x, y, z.
    pub workgroups: [u32; 3],
    /// What its kernel leaves open, if anything.
    #[serde(skip)]
    pub tunable: Option<Tunable>,
    /// Its place in the graph.
    #[serde(skip)]
    pub span: Span,
}

impl Entity for Op {
    const PREFIX: &'static str = "op";
}

/// What a kernel leaves open, as it was taken for one op.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tunable {
    /// The kernel, whatever maps are in its loads and stores.
    pub kernel: String,
    /// What tells this use of the kernel from others.
    pub at: Vec<(String, Fact)>,
    /// The constants that a tuning may choose, but for those that the op gives, with their values.
    pub consts: Vec<(String, i64)>,
    /// The text, by its file.
    pub variant: String,
}

/// Index of an [`Op`].
pub type OpId = Id<Op>;

impl Entity for Template {
    const PREFIX: &'static str = "t";
}

/// What a port is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpArg {
    /// The port.
    pub port: String,
    /// What the kernel does with it.
    pub access: Access,
    /// The version it reads or updates; nothing if the op defines a new value here.
    pub input: Option<ValueId>,
    /// The version it defines.
    pub output: Option<ValueId>,
}

/// A tensor carried from step to step, in a buffer of its own.
#[derive(Clone, Debug, Serialize)]
pub struct StateTensor {
    /// Its path, as in `wkv.3`.
    pub path: String,
    /// Element type.
    pub dtype: DType,
    /// Shape; the first axis is the session's sequences.
    pub shape: Vec<u64>,
    /// What every element is before the first token.
    pub init: f32,
    /// The weight whose elements are there instead, for every sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_weight: Option<StateWeight>,
}

/// A weight that is a state before the first token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StateWeight {
    /// Its name.
    pub tensor: String,
    /// Whether it lies with its last two axes exchanged.
    pub transposed: bool,
}

/// A tensor of the checkpoint that steps use.
#[derive(Clone, Debug, Serialize)]
pub struct WeightTensor {
    /// Its name.
    pub tensor: String,
    /// The name with `{}` for the layer's number.
    pub pattern: String,
    /// The layer's number, if the name has one.
    pub index: Option<u64>,
    /// Element type.
    pub dtype: DType,
    /// Number of elements.
    pub count: u64,
    /// Rows and columns as ops see them, of a matrix or of each of a list.
    #[serde(skip)]
    pub matrix: Option<(u64, u64)>,
    /// Rows and columns as stored, if stored transposed.
    pub transpose: Option<(u64, u64)>,
    /// Whether a kernel may reach it through a binding of its text's own, which begins at the weight.
    pub bound_alone: bool,
}

/// What the host fills.
#[derive(Clone, Debug, Serialize)]
pub struct InputTensor {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: InputRole,
    /// Its value.
    pub value: ValueId,
}

/// What the host reads.
#[derive(Clone, Debug, Serialize)]
pub struct OutputTensor {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: OutputRole,
    /// Its value.
    pub value: ValueId,
}

impl Model {
    /// The value whose elements a view is a run of; any other value itself.
    pub fn whole(&self, value: ValueId) -> ValueId {
        match self.values[value].origin {
            Origin::View { of, .. } => of,
            _ => value,
        }
    }

    /// Whether a value is made of weights alone, which never change.
    pub fn is_weight(&self, value: ValueId) -> bool {
        let origin = &self.values[value].origin;
        matches!(origin, Origin::Weight { .. } | Origin::Transposed { .. } | Origin::Join { .. })
    }

    /// The state tensor whose memory a value lives in, if any.
    pub fn state_of(&self, mut value: ValueId) -> Option<u32> {
        loop {
            match &self.values[value].origin {
                Origin::State { state } => return Some(*state),
                Origin::Op { updates: Some(previous), .. } => value = *previous,
                _ => return None,
            }
        }
    }
}
