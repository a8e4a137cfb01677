//! The closed list of things a host fills before a step and reads after it.
//!
//! Gets a role's name from a graph, returns what the host must put there; so no tensor name stands in Rust. A graph may
//! use a role once at most. Never says which kernel uses it.
//!
//! Steps that *draw* tell the host the tokens that come next instead of logits, and keep them, so that the next step
//! can be submitted before the host has seen them: [`CARRIED`] stands for them among its tokens.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The token that stands, in a step that draws, for the one that the same sequence drew last; drawn itself where the
/// logits leave nothing to draw. No vocabulary has it.
pub const CARRIED: u32 = u32::MAX;

/// Words of [`InputRole::DrawRules`] for each sequence.
pub const DRAW_WORDS: u32 = 7;

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
    /// `u32 [7 S]`, in steps that draw: how each sequence draws. Of every seven words, the first is the temperature
    /// (the bits of an `f32`; 0 takes the best), the second `top_k` (0 for all), the third and fourth `top_p` and
    /// `min_p` (bits of an `f32`), the fifth and sixth the seed, its lower half first, and the last the number of the
    /// draw: equal seeds and numbers draw alike.
    DrawRules,
}

impl InputRole {
    /// Every role, in the order of their declaration.
    pub const ALL: [Self; 5] =
        [Self::TokenIds, Self::SequenceOffsets, Self::StateRows, Self::OutputRows, Self::DrawRules];

    /// The name as graphs spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TokenIds => "token_ids",
            Self::SequenceOffsets => "sequence_offsets",
            Self::StateRows => "state_rows",
            Self::OutputRows => "output_rows",
            Self::DrawRules => "draw_rules",
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
    /// `u32 [R]`: the token drawn for every wanted token, [`CARRIED`] where there was nothing to draw.
    NextToken,
    /// A value named with `--keep`, in its own shape.
    Kept,
}

impl OutputRole {
    /// The name as graphs spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::NextToken => "next_token",
            Self::Kept => "kept",
        }
    }
}

impl fmt::Display for OutputRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
