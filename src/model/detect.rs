//! Which graph a checkpoint is for.
//!
//! Gets graphs and a checkpoint's index, returns the one graph whose tensors are all there and whose absent ones are
//! absent. A checkpoint that fits none is refused with what each graph missed. Never prefers one graph to another.

use std::fmt;

use crate::checkpoint::Index;
use crate::graph::Graph;

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
    let missing = graph.detect.has.iter().filter(|name| index.get(&name.text).is_none());
    let surplus = graph.detect.lacks.iter().filter(|name| index.get(&name.text).is_some());
    missing
        .map(|name| format!("`{}` is missing", name.text))
        .chain(surplus.map(|name| format!("`{}` is there and should not be", name.text)))
        .collect()
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
