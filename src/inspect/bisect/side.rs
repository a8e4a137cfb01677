//! One of the two configurations: what it computes, and a pass over the tokens with some values kept.
//!
//! Gets an executor, a graph to compile or a plan, and tokens; returns the values of one step after the other. What
//! holds then: a pass begins before the first token, in a session of its own, and holds the values of one step. Never
//! compares.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::Checkpoint;
use crate::compile::Compiler;
use crate::exec::{Executor, Session};
use crate::generate::batch::{Batch, Feed, SequenceId};
use crate::generate::plans::PlanSet;
use crate::generate::{GenerateError, Rows};
use crate::inspect::bisect::BisectError;
use crate::inspect::values::{Part, Read, Value, Values, step_shape};
use crate::plan::command::Command;
use crate::plan::{CheckedPlan, Plan};
use crate::tensor::Tensor;

/// A configuration.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a, E> {
    /// What runs it.
    pub executor: &'a E,
    /// Where plans come from.
    pub source: Source<'a>,
    /// The weights.
    pub checkpoint: &'a Checkpoint,
}

/// Where the plans of a side come from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A graph, compiled for steps of so many tokens.
    Graph {
        /// Compiles it; what it is told to keep does not count.
        compiler: Compiler<'a>,
        /// Tokens of a step, the last one padded.
        step_tokens: u32,
        /// Whether only values that fusing leaves are looked at: to keep the others would undo it.
        only_left: bool,
    },
    /// A plan as it is.
    Plan(&'a CheckedPlan),
}

impl<'a, E: Executor> Side<'a, E> {
    /// What can be looked at.
    pub(super) fn values(&self) -> Result<Values, GenerateError> {
        match self.source {
            Source::Graph { compiler, step_tokens, only_left } => {
                let mut values = Values::of_graph(&compiler, step_tokens)?;
                if only_left {
                    let fused = Compiler { keep: &[], ..compiler }.compile(step_shape(step_tokens))?.model;
                    let left: BTreeSet<&str> = fused.values.values().map(|value| value.path.as_str()).collect();
                    let is_there = |value: &Value| value.read != Read::Output || left.contains(value.path.as_str());
                    values.values.retain(is_there);
                }
                Ok(values)
            }
            Source::Plan(plan) => Ok(Values::of_plan(plan)),
        }
    }

    /// Whether it is a plan as it is.
    pub(super) const fn is_plan(&self) -> bool {
        matches!(self.source, Source::Plan(_))
    }

    /// Name of the graph.
    pub(super) fn graph(&self) -> &str {
        match self.source {
            Source::Graph { compiler, .. } => &compiler.graph.name.text,
            Source::Plan(plan) => &plan.graph,
        }
    }

    /// Tokens of a step.
    pub(super) fn step_tokens(&self) -> u32 {
        match self.source {
            Source::Graph { step_tokens, .. } => step_tokens,
            Source::Plan(plan) => plan.shape.tokens,
        }
    }

    /// The plan that gives these values besides its outputs.
    pub(super) fn plan(&self, keep: &[String]) -> Result<CheckedPlan, GenerateError> {
        match self.source {
            Source::Graph { compiler, step_tokens, .. } => {
                Ok(Compiler { keep, ..compiler }.compile(step_shape(step_tokens))?.plan)
            }
            Source::Plan(plan) => Ok(plan.clone()),
        }
    }

    /// Begins a pass over tokens that gives these values.
    pub(super) fn pass<'t>(
        &self,
        values: Vec<&'t Value>,
        tokens: &'t [u32],
    ) -> Result<Pass<'t, E::Session>, BisectError> {
        let outputs = values.iter().filter(|value| value.read == Read::Output);
        let keep: Vec<String> = outputs.map(|value| value.path.clone()).collect();
        let plan = self.plan(&keep)?;
        let set = PlanSet::new(vec![plan.clone()]).map_err(BisectError::Plan)?;
        let rows = if set.serves(Rows::All) { Rows::All } else { Rows::Last };
        let mut batch = Batch::open_plans(self.executor, set, self.checkpoint, 1, &mut |_, _| ())?;
        let sequence = batch.join()?;
        let step = (0, 0);
        Ok(Pass { batch, plan, sequence, rows, tokens, values, step, given: Vec::new() })
    }
}

/// A pass over the tokens.
pub(super) struct Pass<'t, S> {
    batch: Batch<'static, S>,
    plan: CheckedPlan,
    sequence: SequenceId,
    rows: Rows,
    tokens: &'t [u32],
    values: Vec<&'t Value>,
    /// The tokens of the last step, `begin .. end`.
    step: (usize, usize),
    /// What that step gave, by [`Self::values`].
    given: Vec<Option<Tensor>>,
}

impl<S: Session> Pass<'_, S> {
    /// Runs steps until the last one has this token.
    pub(super) fn reach(&mut self, token: usize) -> Result<(), GenerateError> {
        while self.step.1 <= token {
            let begin = self.step.1;
            let end = (begin + self.plan.shape.tokens as usize).min(self.tokens.len());
            // What the step before gave makes room first.
            self.given.clear();
            let feed = Feed { sequence: self.sequence, tokens: &self.tokens[begin..end] };
            let (_, outputs) = self.batch.run(&[feed], self.rows)?;
            let mut outputs: BTreeMap<String, Tensor> =
                outputs.tensors.into_iter().map(|(name, _, tensor)| (name, tensor)).collect();
            let reads_state = self.values.iter().any(|value| matches!(value.read, Read::State(_)));
            let state = if reads_state { self.batch.save(self.sequence)?.tensors } else { Vec::new() };
            let given = self.values.iter().map(|value| match value.read {
                Read::Output => outputs.remove(&value.path),
                Read::State(buffer) => state.get(buffer as usize).map(|(_, tensor)| tensor.clone()),
            });
            self.given = given.collect();
            self.step = (begin, end);
        }
        Ok(())
    }

    /// The tokens of the last step, `begin .. end`.
    pub(super) const fn step(&self) -> (usize, usize) {
        self.step
    }

    /// A value of the last step, and which part of it is a token's.
    pub(super) fn given(&self, nth: usize, token: usize) -> Option<(&Tensor, Part)> {
        let tensor = self.given[nth].as_ref()?;
        Some((tensor, self.values[nth].along.part(token, self.step)?))
    }

    /// The text that an op runs.
    pub(super) fn text(&self, op: &str) -> Option<&str> {
        text(&self.plan, op)
    }
}

fn text<'p>(plan: &'p Plan, op: &str) -> Option<&'p str> {
    plan.commands().find_map(|command| match command {
        Command::Dispatch(dispatch) if dispatch.label == op => Some(plan.kernels[dispatch.kernel].wgsl.as_str()),
        _ => None,
    })
}
