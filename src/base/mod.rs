//! What every stage uses and that knows no stage: typed indices, source places, diagnostics, element types, roles.
//!
//! Gets nothing, returns nothing, never mentions a graph, a kernel or a GPU.

pub mod arena;
pub mod diag;
pub mod dtype;
pub mod expr;
pub mod fmt;
pub mod limits;
pub mod raw;
pub mod role;
pub mod span;
pub mod step;
