//! graphc.

pub mod base;
pub mod checkpoint;
pub mod cli;
pub mod compile;
pub mod exec;
pub mod generate;
pub mod graph;
pub mod kernel;
pub mod model;
pub mod plan;
pub mod schedule;
pub mod sources;
pub mod tensor;
