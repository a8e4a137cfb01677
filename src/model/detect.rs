//! Which graph a checkpoint is for.
//!
//! Gets graphs and a checkpoint's index, returns the one graph whose tensors are all there, whose absent ones are
//! absent and whose conditions hold. A checkpoint that fits none is refused with what each graph missed. Never prefers
//! one graph to another.

use std::collections::BTreeSet;
use std::fmt;

use crate::base::raw::Spanned;
use crate::base::step::StepShape;
use crate::checkpoint::Index;
use crate::graph::Graph;
use crate::model::dims::Dims;
use crate::model::weights::find;

/// Why no graph, or more than one, fits a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectError {
    /// None fits: for each graph, what it missed.
    None(Vec<(String, Vec<String>)>),
    /// Several fit.
    Several(Vec<String>),
}

impl fmt::Display for DetectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None(missed) => {
                f.write_str("the checkpoint fits no known graph")?;
                for (graph, reasons) in missed {
                    write!(f, "\n  {graph}: {}", reasons.join("; "))?;
                }
                Ok(())
            }
            Self::Several(graphs) => {
                write!(f, "the checkpoint fits several graphs, name one of them: {}", graphs.join(", "))
            }
        }
    }
}

impl std::error::Error for DetectError {}

/// What keeps a checkpoint from being this graph's; empty if it is.
pub fn misfits(graph: &Graph, index: &Index) -> Vec<String> {
    let stored = |name: &str| find(graph, index, name).map(|(stored, _)| stored.into_owned());
    let missing = graph.detect.has.iter().filter(|name| stored(&name.text).is_none());
    let surplus = graph.detect.lacks.iter().filter_map(|name| stored(&name.text));
    let found: Vec<String> = missing
        .map(|name| format!("`{}` is missing", name.text))
        .chain(surplus.map(|name| format!("`{name}` is there and should not be")))
        .collect();
    // What conditions ask about is there only if the tensors are.
    if found.is_empty() { unmet(graph, index) } else { found }
}

/// The conditions that do not hold.
fn unmet(graph: &Graph, index: &Index) -> Vec<String> {
    let layout = graph.layouts.first().expect("a graph has at least one layout");
    let one = StepShape { tokens: 1, sequences: 1, rows: 1, capacity: 1 };
    let dims = Dims::new(graph, index, layout, (one, false));
    let reason = |condition: &Spanned| match dims.eval(condition, &[]) {
        Ok(0) => {
            let named = condition.expr.names().into_iter().collect::<BTreeSet<_>>().into_iter();
            let values: Vec<String> =
                named.filter_map(|name| Some(format!("`{name}` is {}", dims.get(name)?))).collect();
            Some(format!("`{}` does not hold: {}", condition.expr, values.join(", ")))
        }
        Ok(_) => None,
        Err(wrong) => Some(format!("`{}` has no value: {}", condition.expr, wrong.message)),
    };
    graph.detect.when.iter().filter_map(reason).collect()
}

/// The index of the graph that fits.
///
/// # Errors
/// If none or several fit.
pub fn detect(graphs: &[Graph], index: &Index) -> Result<usize, DetectError> {
    let fitting: Vec<usize> = (0..graphs.len()).filter(|at| misfits(&graphs[*at], index).is_empty()).collect();
    match fitting.as_slice() {
        [one] => Ok(*one),
        [] => Err(DetectError::None(
            graphs.iter().map(|graph| (graph.name.text.clone(), misfits(graph, index))).collect(),
        )),
        several => Err(DetectError::Several(several.iter().map(|at| graphs[*at].name.text.clone()).collect())),
    }
}
