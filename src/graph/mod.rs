//! A model as its author wrote it: nodes in file order, a place for each.
//!
//! Gets RON ([`parse`]), returns a [`Graph`]; [`print()`] turns it back into canonical text. What holds then: the file
//! is well-formed, every expression parses, no key is given twice, every role is used once at most. Names are resolved
//! later, in [`model`](crate::model), since what they mean depends on the checkpoint. Never reads a checkpoint or a
//! kernel.

mod parse;
mod print;
mod syntax;

pub use parse::parse;
pub use print::print;

use serde::Serialize;

use crate::base::dtype::DType;
use crate::base::raw::{Name, Spanned};
use crate::base::role::{InputRole, OutputRole};
use crate::base::span::Span;

/// A graph file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Graph {
    /// The architecture's name.
    pub name: Name,
    /// What it is, for readers.
    pub doc: String,
    /// Which checkpoints are this model.
    pub detect: Detect,
    /// Shapes of weights, by pattern, where the graph states them: they tell the layouts apart.
    pub weights: Vec<WeightShape>,
    /// How checkpoints may store the weights; the first that fits is taken. Never empty.
    pub layouts: Vec<Layout>,
    /// The dims, in file order.
    pub dims: Vec<Dim>,
    /// What is carried from step to step.
    pub state: Vec<State>,
    /// What the host fills.
    pub inputs: Vec<Input>,
    /// What the host reads: values of these names at the end of the graph.
    pub outputs: Vec<Output>,
    /// The ops.
    pub ops: Vec<Node>,
}

/// Which checkpoints a graph is for: those with all of `has` and none of `lacks`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detect {
    /// Tensors that must be there.
    pub has: Vec<Name>,
    /// Tensors that must not.
    pub lacks: Vec<Name>,
}

/// The shape that a graph states for some weights.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WeightShape {
    /// The weights' names, `{}` standing for a number.
    pub pattern: Name,
    /// Their shape.
    pub shape: Vec<Spanned>,
}

/// One way in which checkpoints store the weights.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Layout {
    /// What to call it.
    pub name: String,
    /// Matrices that this layout stores transposed, by pattern.
    pub transposed: Vec<Name>,
}

/// A named number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dim {
    /// Its name.
    pub name: Name,
    /// Where its value comes from.
    pub kind: DimKind,
}

/// Where a dim's value comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum DimKind {
    /// The extent of one axis of a weight.
    Weight {
        /// The weight.
        tensor: Name,
        /// The axis, from 0.
        axis: u32,
    },
    /// How many of `pattern` with 0, 1, 2, … for `{}` the checkpoint holds.
    Count {
        /// The pattern.
        pattern: Name,
    },
    /// An expression over other dims.
    Eval(Spanned),
    /// Tokens of a step.
    Tokens,
    /// Sequences of a step.
    Sequences,
    /// Output rows of a step.
    Rows,
    /// Sequences that a session holds.
    Capacity,
}

/// A tensor carried from step to step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct State {
    /// Its name; `state.NAME` in ops, `state.NAME.{layer}` if there is one per layer.
    pub name: Name,
    /// Element type.
    pub dtype: DType,
    /// How many there are, if not one.
    pub per: Option<Spanned>,
    /// Shape of each; the first axis is the sequences of the session.
    pub shape: Vec<Spanned>,
    /// What every element is before the first token.
    pub init: f32,
    /// The weight that is there instead, in checkpoints that have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_weight: Option<InitWeight>,
}

/// A weight that may say what a state is before the first token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InitWeight {
    /// Its name, `{}` for the layer's number if there is a state per layer.
    pub pattern: Name,
    /// Whether its last two axes are exchanged.
    pub transposed: bool,
}

/// What the host fills before a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Input {
    /// Its name; `in.NAME` in ops.
    pub name: Name,
    /// What the host puts there.
    pub role: InputRole,
    /// Its shape.
    pub shape: Vec<Spanned>,
}

/// What the host reads after a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Output {
    /// The value's name.
    pub name: Name,
    /// What it is.
    pub role: OutputRole,
}

/// One entry of the op list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Node {
    /// Runs a kernel.
    Op {
        /// The kernel's name.
        kernel: Name,
        /// What its ports and constants are, by name.
        args: Vec<(Name, Arg)>,
    },
    /// Computes an expression for every element.
    Map {
        /// A WGSL expression over the operands.
        expr: Name,
        /// The operands, by the name they have in the expression.
        args: Vec<(Name, Name)>,
        /// The value it defines.
        out: Name,
    },
    /// Gives a value a further name.
    Let {
        /// The new name.
        name: Name,
        /// The value.
        value: Name,
    },
    /// Repeats the body, with `{variable}` standing for 0, 1, 2, ….
    ForEach {
        /// The variable.
        variable: Name,
        /// How often.
        count: Spanned,
        /// What to repeat.
        body: Vec<Node>,
    },
    /// One of two bodies.
    If {
        /// The condition, over dims and loop variables.
        condition: Spanned,
        /// Taken if it is not zero.
        then: Vec<Node>,
        /// Taken otherwise.
        otherwise: Vec<Node>,
    },
}

/// What a port or a constant is given.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Arg {
    /// A tensor: a value's name, `w.`, `state.` or `in.` and a name.
    Tensor(Name),
    /// A number for a constant.
    Number(f64, #[serde(skip)] NumberPlace),
    /// An expression over dims for a constant.
    Eval(Spanned),
}

/// Where a number stands. All places are equal, so that graphs compare by what they say.
#[derive(Clone, Copy, Debug)]
pub struct NumberPlace(pub Span);

impl PartialEq for NumberPlace {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Arg {
    /// Its place.
    pub fn span(&self) -> Span {
        match self {
            Self::Tensor(name) => name.span,
            Self::Number(_, place) => place.0,
            Self::Eval(spanned) => spanned.span,
        }
    }
}
