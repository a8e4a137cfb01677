//! A model as its author wrote it: nodes in file order, a place for each.
//!
//! Gets RON ([`parse`]), returns a [`Graph`]; [`print()`] turns it back into canonical text. What holds then: the file
//! is well-formed, every expression parses, no key is given twice, every role is used once at most, and the ops of
//! every included part stand where it was included. Names are resolved later, in [`model`](crate::model), since what
//! they mean depends on the checkpoint. Never reads a checkpoint or a kernel.

mod ops;
mod parse;
mod print;
mod settings;
mod syntax;

pub use parse::parse;
pub use print::print;
pub use settings::{SettingError, with_settings};

use serde::Serialize;

use crate::base::diag::Diagnostic;
use crate::base::dtype::DType;
use crate::base::raw::{Name, Spanned};
use crate::base::role::{InputRole, OutputRole};
use crate::base::span::{SourceId, Span};

/// A graph file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Graph {
    /// The architecture's name.
    pub name: Name,
    /// What it is, for readers.
    pub doc: String,
    /// Which checkpoints are this model.
    pub detect: Detect,
    /// Numbers that no checkpoint tells and that whoever runs the model may give.
    pub settings: Vec<Setting>,
    /// Further names under which checkpoints may hold a weight, in the order in which they are looked for.
    pub aliases: Vec<Alias>,
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
    /// What there is in steps that draw, if the graph has such steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carry: Option<Carry>,
    /// The ops, those of included parts among them.
    pub ops: Vec<Node>,
    /// Which parts were included, and where.
    #[serde(skip)]
    pub included: Included,
}

/// Which checkpoints a graph is for: those with all of `has`, none of `lacks`, and for which all of `when` holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detect {
    /// Tensors that must be there.
    pub has: Vec<Name>,
    /// Tensors that must not.
    pub lacks: Vec<Name>,
    /// Conditions over dims.
    pub when: Vec<Spanned>,
}

/// A number that no checkpoint tells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// Its name.
    pub name: Name,
    /// Its value, unless another is given.
    pub value: f64,
}

/// A further name of some weights.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alias {
    /// The weights' names as the graph has them, `{}` standing for a number.
    pub pattern: Name,
    /// What the checkpoint may call them instead.
    pub other: Name,
}

/// Which parts a graph includes. All are equal, so that graphs compare by what they say.
#[derive(Clone, Debug, Default)]
pub struct Included(Vec<(SourceId, Span)>);

impl PartialEq for Included {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Included {
    /// Whether a text is among the parts.
    pub fn contains(&self, part: SourceId) -> bool {
        self.0.iter().any(|(other, _)| *other == part)
    }

    /// Tells of each diagnostic inside a part where the part was included.
    pub fn placed(&self, mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
        for diagnostic in &mut diagnostics {
            let Some(place) = diagnostic.labels.first().map(|label| label.0.source) else { continue };
            for (_, span) in self.0.iter().filter(|(part, _)| *part == place) {
                if !diagnostic.labels.iter().any(|(other, _)| other == span) {
                    diagnostic.labels.push((*span, "included here".to_owned()));
                }
            }
        }
        diagnostics
    }
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
    /// How many elements a weight has, whatever its axes.
    Elements {
        /// The weight.
        tensor: Name,
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
    /// 1 in a step that draws, 0 in one that does not.
    Draws,
}

/// What there is in steps that draw the next tokens themselves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Carry {
    /// What is carried beside the states of every step, for the next step that draws alone.
    pub state: Vec<State>,
    /// What the host fills beside the inputs of every step.
    pub inputs: Vec<Input>,
    /// What the host reads in place of the outputs of other steps.
    pub outputs: Vec<Output>,
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
    /// One of the graph's settings for a constant.
    Setting(Name),
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
            Self::Tensor(name) | Self::Setting(name) => name.span,
            Self::Number(_, place) => place.0,
            Self::Eval(spanned) => spanned.span,
        }
    }
}
