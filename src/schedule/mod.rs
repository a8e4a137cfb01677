//! The order of a model's ops: levels, and when each value is live.
//!
//! Gets a [`Model`], returns a [`Schedule`] ([`build`]). What holds then: no step depends on another of its level;
//! every step comes after all it depends on; there are exactly as many levels as the longest chain of dependent steps
//! has members. Copies of inputs and outputs are steps like any other. Deterministic: inside a level, steps are in file
//! order. Never assigns memory, never places a transition.

mod levels;

use std::fmt::Write;

use serde::Serialize;

use crate::base::diag::Diagnostic;
use crate::model::{Model, OpId, ValueId};

/// Something that a plan does in a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Step {
    /// Copies all inputs to the device.
    Upload,
    /// Runs an op.
    Op(OpId),
    /// Copies output `index` of the model to where the host reads it.
    Fetch {
        /// Index into [`Model::outputs`].
        index: u32,
    },
}

/// Ops in levels.
#[derive(Clone, Debug, Serialize)]
pub struct Schedule {
    /// The steps of each level, in file order.
    pub levels: Vec<Vec<Step>>,
    /// For every value of the model, the levels of its first and last use; nothing for weights and values never
    /// touched.
    pub live: Vec<Option<(u32, u32)>>,
    /// Members of the longest chain of dependent steps.
    pub longest_chain: u32,
}

/// Schedules a model.
///
/// # Errors
/// If an old version of a tensor is used in a way that no order allows: by what depends on its own overwriting.
pub fn build(model: &Model) -> Result<Schedule, Vec<Diagnostic>> {
    let steps = steps(model);
    let (level_of, longest_chain) = levels::assign(model, &steps)?;
    let count = level_of.iter().max().map_or(0, |last| last + 1);
    let mut levels = vec![Vec::new(); count as usize];
    let mut live: Vec<Option<(u32, u32)>> = vec![None; model.values.len()];
    for (step, level) in steps.iter().zip(&level_of) {
        levels[*level as usize].push(*step);
        let (reads, writes) = accesses(model, *step);
        for value in reads.into_iter().chain(writes) {
            if model.is_weight(value) {
                continue;
            }
            let range = live[value.index()].get_or_insert((*level, *level));
            *range = (range.0.min(*level), range.1.max(*level));
        }
    }
    debug_assert_eq!(count, longest_chain, "as many levels as the longest chain");
    Ok(Schedule { levels, live, longest_chain })
}

/// All steps, in file order: what ties are broken by.
fn steps(model: &Model) -> Vec<Step> {
    let upload = (!model.inputs.is_empty()).then_some(Step::Upload);
    let ops = model.ops.ids().map(Step::Op);
    let fetches = (0..model.outputs.len() as u32).map(|index| Step::Fetch { index });
    upload.into_iter().chain(ops).chain(fetches).collect()
}

/// The versions that a step reads and those that it defines; a view is the value that it is a run of.
pub fn accesses(model: &Model, step: Step) -> (Vec<ValueId>, Vec<ValueId>) {
    match step {
        Step::Upload => (Vec::new(), model.inputs.iter().map(|input| input.value).collect()),
        Step::Op(op) => {
            let args = &model.ops[op].args;
            let reads = args.iter().filter_map(|arg| arg.input).map(|value| model.whole(value)).collect();
            (reads, args.iter().filter_map(|arg| arg.output).collect())
        }
        Step::Fetch { index } => (vec![model.whole(model.outputs[index as usize].value)], Vec::new()),
    }
}

/// The schedule as a listing.
pub fn print(schedule: &Schedule, model: &Model) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "schedule {}  {} levels, longest chain {}",
        model.graph,
        schedule.levels.len(),
        schedule.longest_chain
    );
    for (number, level) in schedule.levels.iter().enumerate() {
        let _ = writeln!(out, "level {number}");
        for step in level {
            let text = match step {
                Step::Upload => "upload inputs".to_owned(),
                Step::Op(op) => {
                    let op_ = &model.ops[*op];
                    let defined: Vec<String> = op_
                        .args
                        .iter()
                        .filter_map(|arg| arg.output)
                        .map(|value| match schedule.live[value.index()] {
                            Some((_, last)) => format!("{} (until level {last})", model.values[value].path),
                            None => model.values[value].path.clone(),
                        })
                        .collect();
                    format!("{op} {}: {}", op_.kernel, defined.join(", "))
                }
                Step::Fetch { index } => format!("fetch {}", model.outputs[*index as usize].name),
            };
            let _ = writeln!(out, "  {text}");
        }
    }
    out
}
