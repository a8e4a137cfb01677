//! Compiles RWKV models, written as data, into exact GPU command streams, and replays them.
//!
//! A model is a graph of ops in RON over kernels in WGSL. The compiler lowers it to a plan: every dispatch, every copy,
//! every buffer and every usage transition of one step, checked before anything runs. Executors replay that plan.
//!
//! ```text
//!  graph RON ──graph::parse──▶ Graph ─┐
//!  kernel RON, WGSL ──kernel::load──▶ KernelLib ─┤
//!  checkpoint ──Checkpoint::index──▶ Index ──────┴─model::build──▶ Model
//!                                                                    │ schedule::build
//!                                                                    ▼
//!  CheckedPlan ◀──plan::check::check── Plan ◀──plan::lower::lower── Schedule
//!      │
//!      └──Session::prepare──▶ PlanId ──Session::step(inputs)──▶ Ticket ──Session::outputs──▶ Outputs
//! ```
//!
//! Every arrow is one public function that borrows what it gets and returns something new; [`compile::Compiler`] is
//! those from `model::build` to `check` in one call. Compiling is pure and deterministic: it asks no device and reads
//! no clock.
//!
//! # Example
//!
//! Compiles the model that is built into the crate for steps of one token, which takes no device:
//!
//! ```
//! use graphc::base::{limits::Limits, step::StepShape};
//! use graphc::{checkpoint::Checkpoint, compile::Program, plan, sources};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let checkpoint = Checkpoint::from_static("the built-in model", sources::DEMO_MODEL)?;
//! let program = Program::built_in("rwkv7")?;
//! let limits = Limits::vulkan();
//! let compiler = program.compiler(checkpoint.index(), &limits);
//! let compiled = compiler.compile(StepShape { tokens: 1, sequences: 1, rows: 1, capacity: 1 })?;
//! print!("{}", plan::print::summary(&compiled.plan));
//!
//! // As many levels as the longest chain of dependent commands, and at most one barrier call around each.
//! let summary = compiled.plan.summary();
//! assert_eq!(summary.levels, summary.longest_chain);
//! assert!(summary.barriers <= summary.levels + 1);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/run_tokens.rs` goes on from here: it opens a session on a device and runs tokens. The formats of graphs
//! and kernels are described in `docs/format.md`, the shape of the code in `ARCHITECTURE.md`.

// In the order of the pipeline: what everything uses, what is read, the stages, what runs plans, what people call.
pub mod base;
pub mod tensor;

pub mod sources;

pub mod checkpoint;
pub mod graph;
pub mod kernel;

pub mod fuse;
pub mod model;
pub mod schedule;

pub mod plan;

pub mod compile;

pub mod exec;
pub mod generate;

pub mod inspect;

pub mod cli;
