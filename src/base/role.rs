//! The closed list of things a host fills before a step and reads after it.
//!
//! Gets a role's name from a graph, returns what the host must put there; so no tensor name stands in Rust. A graph may
//! use a role once at most. Never says which kernel uses it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the host fills before a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputRole {
    /// `u32 [T]`: the tokens of all sequences of the step, packed one sequence after the other; padding at the end.
    TokenIds,
    /// `u32 [S + 1]`: sequence `s` owns tokens `offsets[s] .. offsets[s + 1]`; what lies past the last is padding.
    SequenceOffsets,
    /// `u32 [S]`: the row of the state buffers that sequence `s` lives in; distinct among sequences that have tokens.
    StateRows,
    /// `u32 [R]`: the tokens (indices into `T`) whose output rows are wanted.
    OutputRows,
}

impl InputRole {
    /// Every role, in the order of their declaration.
    pub const ALL: [Self; 4] = [Self::TokenIds, Self::SequenceOffsets, Self::StateRows, Self::OutputRows];

    /// The name as graphs spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TokenIds => "token_ids",
            Self::SequenceOffsets => "sequence_offsets",
            Self::StateRows => "state_rows",
            Self::OutputRows => "output_rows",
        }
    }
}

impl fmt::Display for InputRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the host reads after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputRole {
    /// `f32 [R, V]`: a row of scores over the vocabulary for every wanted token.
    Logits,
    /// A value named with `--keep`, in its own shape.
    Kept,
}

impl OutputRole {
    /// The name as graphs spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::Kept => "kept",
        }
    }
}

impl fmt::Display for OutputRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
