//! Fewer ops that compute the same: rewrite rules, and maps in the loads and stores of their neighbours.
//!
//! Gets a [`Model`] and [`Rules`], returns a model ([`fuse`]) and how often each rule was applied. What holds then: the
//! model computes the same outputs and states from the same weights, to within rounding; every kept value is still
//! there. A rule is a file of RON; nothing here knows an architecture. Deterministic. Never schedules, never looks at
//! memory.

mod apply;
mod find;
mod idle;
mod maps;
mod order;
mod rule;

pub use idle::idle;
pub use rule::{Action, ConstTerm, Kind, Rule, Rules, STEP_DIMS, Step, StepArg, Term, Unknown, Variable, add, parse};

use std::collections::BTreeSet;

use crate::base::diag::Diagnostic;
use crate::base::span::SourceMap;
use crate::fuse::find::Finder;
use crate::kernel::KernelLib;
use crate::model::{Model, Origin, Request, ValueId};

/// What was done to a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// How often each rule was applied, in the order in which they are tried.
    pub rules: Vec<(String, usize)>,
    /// How many maps went into another op.
    pub maps: usize,
}

/// Applies all rules to a model, one after the other, then puts maps into the ops around them.
///
/// # Errors
/// If a rule is wrong in a way that shows with this model's shapes only.
pub fn fuse(
    model: Model,
    rules: &Rules,
    lib: &KernelLib,
    sources: &SourceMap,
    request: &Request<'_>,
) -> Result<(Model, Applied), Vec<Diagnostic>> {
    let mut model = model;
    let mut applied = Applied::default();
    for rule in rules.iter() {
        let copies = !rule.takes_copies() || request.copies;
        let admitted = copies && (rule.batch_invariant || !request.batch_invariant);
        let places = match admitted {
            true => Finder::new(&model, (lib, sources), request).places(rule).map_err(|wrong| vec![wrong])?,
            false => Vec::new(),
        };
        let rewritten =
            if places.is_empty() { None } else { apply::apply(&model, rule, &places, (lib, sources), request)? };
        applied.rules.push((rule.name.clone(), if rewritten.is_some() { places.len() } else { 0 }));
        model = rewritten.unwrap_or(model);
    }
    let (mut model, maps) = maps::merge(model, lib, sources, request);
    applied.maps = maps;
    (model.joins, model.transposed) = (joins(&model), transposed(&model));
    Ok((model, applied))
}

/// The name of a weight's tensor.
fn tensor(model: &Model, value: ValueId) -> Option<String> {
    match &model.values[value].origin {
        Origin::Weight { tensor, .. } => Some(tensor.clone()),
        _ => None,
    }
}

/// The weights that ops of a model read one after the other, by the names of their tensors.
fn joins(model: &Model) -> Vec<Vec<String>> {
    let joins = model.values.values().filter_map(|value| match &value.origin {
        Origin::Join { parts } => Some(parts.iter().filter_map(|part| tensor(model, *part)).collect()),
        _ => None,
    });
    joins.collect()
}

/// The weights that ops of a model read by columns, by the names of their tensors.
fn transposed(model: &Model) -> Vec<String> {
    let read = model.ops.values().flat_map(|op| &op.args).filter_map(|arg| arg.input);
    let transposed = read.filter_map(|value| match model.values[value].origin {
        Origin::Transposed { of } => tensor(model, of),
        _ => None,
    });
    transposed.collect::<BTreeSet<_>>().into_iter().collect()
}
