//! Which of its layouts a graph's checkpoint is stored in.
//!
//! Gets a graph and a checkpoint's index, returns the first layout in which every weight that steps of any size use has
//! the shape that the graph states, or what does not fit the first of them. Never reads a weight's bytes.

use crate::base::diag::Diagnostic;
use crate::base::raw::{Name, Spanned};
use crate::base::step::StepShape;
use crate::checkpoint::Index;
use crate::graph::{Graph, Layout};
use crate::kernel::KernelLib;
use crate::model::dims::Dims;
use crate::model::reach::{Reach, reach};
use crate::model::weights::{logical_shape, matches, with_rank};

/// The first layout in which every weight that the graph uses has the shape that the graph states; and what the graph
/// may reach. Neither depends on the size of the step.
pub(super) fn choose_layout<'a>(
    graph: &'a Graph,
    lib: &KernelLib,
    index: &Index,
    step: (StepShape, bool),
) -> Result<(&'a Layout, Reach), Vec<Diagnostic>> {
    let mut first_misfit = None;
    for layout in &graph.layouts {
        let dims = Dims::new(graph, index, layout, step);
        let reach = reach(graph, lib, index, &dims);
        let mut misfits = Vec::new();
        for stated in &graph.weights {
            for name in reach.weights.keys().filter(|name| matches(&stated.pattern.text, name)) {
                misfits.extend(misfit((graph, index, layout), &dims, name, &stated.pattern, &stated.shape));
            }
        }
        if misfits.is_empty() {
            return Ok((layout, reach));
        }
        first_misfit.get_or_insert((layout, misfits));
    }
    let (layout, misfits) = first_misfit.expect("a graph has at least one layout");
    Err(misfits.into_iter().map(|m| m.note(format!("the checkpoint was read as `{}`", layout.name))).collect())
}

fn misfit(
    (graph, index, layout): (&Graph, &Index, &Layout),
    dims: &Dims<'_>,
    name: &str,
    pattern: &Name,
    shape: &[Spanned],
) -> Option<Diagnostic> {
    let (found, _) = logical_shape(graph, index, layout, name)?;
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
