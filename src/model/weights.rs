//! Names and shapes of weights as a graph sees them.
//!
//! Gets patterns (`{}` for a number) and stored shapes, returns logical shapes. Converters disagree about axes of 1,
//! which say nothing, so shapes are compared without them where their ranks differ. Never reads a weight's bytes.

use std::borrow::Cow;

use crate::checkpoint::{Index, TensorInfo};
use crate::graph::{Graph, Layout};

/// Whether a tensor's name is `pattern` with a number for `{}`.
pub fn matches(pattern: &str, name: &str) -> bool {
    number(pattern, name).is_some()
}

/// The number of a tensor's name, which stands where `pattern` has `{}`; empty if the pattern has none.
fn number<'n>(pattern: &str, name: &'n str) -> Option<&'n str> {
    match pattern.split_once("{}") {
        None => (pattern == name).then_some(""),
        Some((before, after)) => name
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .filter(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())),
    }
}

/// What a checkpoint holds of a weight, and the name that it has there: the graph's own, or the first of its aliases
/// that is there.
pub fn find<'i, 'n>(graph: &Graph, index: &'i Index, name: &'n str) -> Option<(Cow<'n, str>, &'i TensorInfo)> {
    if let Some(info) = index.get(name) {
        return Some((Cow::Borrowed(name), info));
    }
    graph.aliases.iter().find_map(|alias| {
        let other = alias.other.text.replace("{}", number(&alias.pattern.text, name)?);
        let info = index.get(&other)?;
        Some((Cow::Owned(other), info))
    })
}

/// A shape as the graph sees it; and rows and columns as stored, if they are stored the other way round.
pub type LogicalShape = (Vec<u64>, Option<(u64, u64)>);

/// Shape of a weight as the graph sees it in this layout, and its stored rows and columns if they are swapped: those of
/// each matrix, where there are several.
pub fn logical_shape(graph: &Graph, index: &Index, layout: &Layout, name: &str) -> Option<LogicalShape> {
    let stored = &find(graph, index, name)?.1.shape;
    if !layout.transposed.iter().any(|pattern| matches(&pattern.text, name)) {
        return Some((stored.clone(), None));
    }
    let squeezed = squeeze(stored);
    match *squeezed {
        [rows, columns] => Some((vec![columns, rows], Some((rows, columns)))),
        [many, rows, columns] => Some((vec![many, columns, rows], Some((rows, columns)))),
        // A low-rank pair of rank 1 has a single axis left: there is nothing to swap.
        [] | [_] => Some((stored.iter().rev().copied().collect(), None)),
        // More than a list of matrices: refused where it is used, see `is_transposable`.
        _ => Some((stored.clone(), None)),
    }
}

/// Whether a weight can be read in this layout: only vectors, matrices and lists of matrices can be transposed.
pub fn is_transposable(graph: &Graph, index: &Index, layout: &Layout, name: &str) -> bool {
    let swapped = layout.transposed.iter().any(|pattern| matches(&pattern.text, name));
    !swapped || find(graph, index, name).is_none_or(|(_, info)| squeeze(&info.shape).len() <= 3)
}

/// A shape without its axes of 1.
pub fn squeeze(shape: &[u64]) -> Vec<u64> {
    shape.iter().copied().filter(|extent| *extent != 1).collect()
}

/// The axes of a stored weight as a port of `rank` axes sees them, or nothing if it cannot.
pub fn with_rank(shape: &[u64], rank: usize) -> Option<Vec<u64>> {
    if shape.len() == rank {
        return Some(shape.to_vec());
    }
    let squeezed = squeeze(shape);
    let missing = rank.checked_sub(squeezed.len())?;
    // Axes of 1 come back at the front, where converters put them.
    Some(std::iter::repeat_n(1, missing).chain(squeezed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_numbers_only() {
        assert!(matches("blocks.{}.w", "blocks.12.w"));
        assert!(!matches("blocks.{}.w", "blocks.x.w"));
        assert!(!matches("blocks.{}.w", "blocks..w"));
        assert!(matches("emb", "emb"));
        assert_eq!(number("blocks.{}.w", "blocks.12.w"), Some("12"));
    }

    #[test]
    fn axes_of_one_come_and_go() {
        assert_eq!(with_rank(&[1, 1, 8], 1), Some(vec![8]));
        assert_eq!(with_rank(&[1, 8], 2), Some(vec![1, 8]));
        assert_eq!(with_rank(&[8], 2), Some(vec![1, 8]));
        assert_eq!(with_rank(&[3, 8], 1), None);
    }
}
