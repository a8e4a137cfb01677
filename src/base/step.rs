//! The numbers for which a model is compiled.
//!
//! Gets and returns nothing but numbers; every stage after the graph is made for one of these. Never says which token
//! is where: that is input.

use serde::{Deserialize, Serialize};

/// Size of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepShape {
    /// `T`: tokens of a step, padding included.
    pub tokens: u32,
    /// `S`: sequences of a step.
    pub sequences: u32,
    /// `R`: output rows of a step.
    pub rows: u32,
    /// `B`: sequences a session holds.
    pub capacity: u32,
}
