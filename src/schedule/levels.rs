//! Levels: the longest chain to each step.
//!
//! Gets a model's steps in file order, returns a level for each, as early as its dependencies allow. A step depends on
//! the one that defines what it reads; one that writes a tensor in place also on every reader of the version before.
//! Those are all the dependencies there are, so the number of levels is the longest chain. Never looks at memory.

use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::base::diag::Diagnostic;
use crate::model::{Model, Origin, ValueId};
use crate::schedule::{Step, accesses};

/// The level of each step, and the number of steps in the longest chain.
pub(super) fn assign(model: &Model, steps: &[Step]) -> Result<(Vec<u32>, u32), Vec<Diagnostic>> {
    let mut graph: DiGraph<usize, ()> = DiGraph::with_capacity(steps.len(), steps.len() * 4);
    let nodes: Vec<NodeIndex> = (0..steps.len()).map(|step| graph.add_node(step)).collect();
    let mut definer: Vec<Option<usize>> = vec![None; model.values.len()];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); model.values.len()];
    for (at, step) in steps.iter().enumerate() {
        let (reads, writes) = accesses(model, *step);
        reads.into_iter().for_each(|value| readers[value.index()].push(at));
        writes.into_iter().for_each(|value| definer[value.index()] = Some(at));
    }
    for (at, step) in steps.iter().enumerate() {
        let (reads, writes) = accesses(model, *step);
        for value in reads {
            if let Some(definer) = definer[value.index()] {
                graph.update_edge(nodes[definer], nodes[at], ());
            }
        }
        for previous in writes.into_iter().filter_map(|value| previous(model, value)) {
            let before = readers[previous.index()].iter().chain(&definer[previous.index()]);
            for other in before.filter(|other| **other != at) {
                graph.update_edge(nodes[*other], nodes[at], ());
            }
        }
    }
    let order = toposort(&graph, None).map_err(|cycle| vec![cyclic(model, steps[graph[cycle.node_id()]])])?;
    let mut level_of = vec![0u32; steps.len()];
    for node in order {
        let level = level_of[graph[node]];
        for next in graph.neighbors(node) {
            let next = &mut level_of[graph[next]];
            *next = (*next).max(level + 1);
        }
    }
    let longest = level_of.iter().max().map_or(0, |last| last + 1);
    Ok((level_of, longest))
}

/// The version that a value overwrites.
fn previous(model: &Model, value: ValueId) -> Option<ValueId> {
    match model.values[value].origin {
        Origin::Op { updates, .. } => updates,
        _ => None,
    }
}

fn cyclic(model: &Model, step: Step) -> Diagnostic {
    match step {
        Step::Op(op) => {
            let op = &model.ops[op];
            let message = format!("`{}` uses a tensor both before and after it is overwritten", op.label);
            Diagnostic::error(op.span, message)
                .note("an old version of a tensor must be used by ops that do not depend on the new one")
        }
        Step::Upload | Step::Fetch { .. } => {
            Diagnostic::placeless("an output is a version of a tensor that is overwritten by what depends on it")
        }
    }
}
