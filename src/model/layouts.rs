//! Which of its layouts a graph's checkpoint is stored in.
//!
//! Gets a graph and a checkpoint's index, returns the first layout in which every weight that is used has the shape
//! that the graph states, or what does not fit the first of them. Never reads a weight's bytes.

use std::collections::BTreeSet;

use crate::base::diag::Diagnostic;
use crate::base::raw::{Name, Spanned};
use crate::base::step::StepShape;
use crate::checkpoint::Index;
use crate::graph::{Arg, Graph, Layout, Node};
use crate::model::build::{MAX_OPS, substitute};
use crate::model::dims::Dims;
use crate::model::weights::{logical_shape, matches, with_rank};

/// The first layout in which every weight that the graph uses has the shape that the graph states.
pub(super) fn choose_layout<'a>(
    graph: &'a Graph,
    index: &Index,
    shape: StepShape,
) -> Result<&'a Layout, Vec<Diagnostic>> {
    let mut first_misfit = None;
    for layout in &graph.layouts {
        let dims = Dims::new(graph, index, layout, shape);
        let mut used = BTreeSet::new();
        let mut variables = Vec::new();
        used_weights(&graph.ops, &dims, &mut variables, &mut used, &mut { MAX_OPS });
        let mut misfits = Vec::new();
        for stated in &graph.weights {
            for name in used.iter().filter(|name| matches(&stated.pattern.text, name)) {
                misfits.extend(misfit(index, layout, &dims, name, &stated.pattern, &stated.shape));
            }
        }
        if misfits.is_empty() {
            return Ok(layout);
        }
        first_misfit.get_or_insert((layout, misfits));
    }
    let (layout, misfits) = first_misfit.expect("a graph has at least one layout");
    Err(misfits.into_iter().map(|m| m.note(format!("the checkpoint was read as `{}`", layout.name))).collect())
}

fn misfit(
    index: &Index,
    layout: &Layout,
    dims: &Dims<'_>,
    name: &str,
    pattern: &Name,
    shape: &[Spanned],
) -> Option<Diagnostic> {
    let (found, _) = logical_shape(index, layout, name)?;
    let expected: Result<Vec<u64>, Diagnostic> = shape.iter().map(|expr| dims.extent(expr, &[])).collect();
    match expected {
        Err(diagnostic) => Some(diagnostic),
        Ok(expected) if with_rank(&found, expected.len()).as_ref() == Some(&expected) => None,
        Ok(expected) => {
            let message = format!("weight `{name}` has shape {found:?}, expected {expected:?}");
            Some(Diagnostic::error(pattern.span, message))
        }
    }
}

/// Names of all weights that the graph uses for this checkpoint.
///
/// `left` counts down nodes and rounds of loops: past the bound the graph is refused anyway, when it is built.
fn used_weights(
    nodes: &[Node],
    dims: &Dims<'_>,
    variables: &mut Vec<(String, u64)>,
    used: &mut BTreeSet<String>,
    left: &mut usize,
) {
    fn add(name: &Name, variables: &[(String, u64)], used: &mut BTreeSet<String>) {
        if let Some(weight) = name.text.strip_prefix("w.") {
            used.insert(substitute(weight, variables).0);
        }
    }
    for node in nodes {
        if *left == 0 {
            return;
        }
        *left -= 1;
        match node {
            Node::Op { args, .. } => {
                for (_, arg) in args {
                    if let Arg::Tensor(name) = arg {
                        add(name, variables, used);
                    }
                }
            }
            Node::Map { args, .. } => args.iter().for_each(|(_, name)| add(name, variables, used)),
            Node::Let { value, .. } => add(value, variables, used),
            Node::ForEach { variable, count, body } => {
                for at in 0..dims.eval(count, variables).unwrap_or(0).clamp(0, MAX_OPS as i64) as u64 {
                    if *left == 0 {
                        return;
                    }
                    *left -= 1;
                    variables.push((variable.text.clone(), at));
                    used_weights(body, dims, variables, used, left);
                    variables.pop();
                }
            }
            Node::If { condition, then, otherwise } => {
                let taken = dims.eval(condition, variables).is_ok_and(|value| value != 0);
                used_weights(if taken { then } else { otherwise }, dims, variables, used, left);
            }
        }
    }
}
