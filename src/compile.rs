//! All stages in one call: graph to checked plan.
//!
//! Gets a parsed graph, kernels, a checkpoint's index and a step shape; returns every stage's result, so that each can
//! be printed. Pure: equal inputs give equal plans. Never touches a device or a file.

use std::fmt;

use crate::base::diag::{self, Diagnostic};
use crate::base::limits::Limits;
use crate::base::span::SourceMap;
use crate::base::step::StepShape;
use crate::checkpoint::Index;
use crate::graph::Graph;
use crate::kernel::KernelLib;
use crate::model::{self, Model, Request};
use crate::plan::check::{CheckError, check};
use crate::plan::{CheckedPlan, lower};
use crate::schedule::{self, Schedule};

/// What a model is compiled from.
#[derive(Clone, Copy, Debug)]
pub struct Compiler<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// The kernels.
    pub kernels: &'a KernelLib,
    /// The texts of both, for places.
    pub sources: &'a SourceMap,
    /// The checkpoint's names and shapes.
    pub index: &'a Index,
    /// What the device offers.
    pub limits: &'a Limits,
    /// Paths of values to make outputs.
    pub keep: &'a [String],
}

/// What each stage made.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The typed graph.
    pub model: Model,
    /// Its order.
    pub schedule: Schedule,
    /// The plan.
    pub plan: CheckedPlan,
    /// What is surely not meant, yet no error.
    pub lints: Vec<Diagnostic>,
}

/// Why a graph cannot be compiled.
#[derive(Debug)]
#[non_exhaustive]
pub enum CompileError {
    /// Something is wrong with the author's files, as rendered text and as data.
    Wrong {
        /// The diagnostics, each with the lines it points at.
        rendered: String,
        /// The same as data.
        diagnostics: Vec<Diagnostic>,
    },
    /// The plan breaks promises: the device is too small for it, or a stage has a bug.
    Refused(Vec<CheckError>),
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong { rendered, .. } => f.write_str(rendered.trim_end()),
            Self::Refused(errors) => {
                f.write_str("the plan was refused")?;
                errors.iter().try_for_each(|error| write!(f, "\n  {error}"))
            }
        }
    }
}

impl std::error::Error for CompileError {}

impl Compiler<'_> {
    /// Compiles for one step shape.
    ///
    /// # Errors
    /// Everything that is wrong with the graph, or what the checker refuses.
    pub fn compile(&self, shape: StepShape) -> Result<Compiled, CompileError> {
        let wrong = |diagnostics: Vec<Diagnostic>| CompileError::Wrong {
            rendered: diag::render(&diagnostics, self.sources),
            diagnostics,
        };
        let request = Request { shape, limits: self.limits, keep: self.keep };
        let (model, lints) =
            model::build(self.graph, self.kernels, self.sources, self.index, &request).map_err(wrong)?;
        let schedule = schedule::build(&model).map_err(wrong)?;
        let weights = lower::lay_out(&model);
        let plan = lower::lower(&model, &schedule, self.sources, self.limits, &weights).map_err(wrong)?;
        let plan = check(plan).map_err(CompileError::Refused)?;
        Ok(Compiled { model, schedule, plan, lints })
    }
}
