//! Names and shapes of weights as a graph sees them.
//!
//! Gets patterns (`{}` for a number) and stored shapes, returns logical shapes. Converters disagree about axes of 1,
//! which say nothing, so shapes are compared without them where their ranks differ. Never reads a weight's bytes.

use crate::checkpoint::Index;
use crate::graph::Layout;

/// Whether a tensor's name is `pattern` with a number for `{}`.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once("{}") {
        None => pattern == name,
        Some((before, after)) => name
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())),
    }
}

/// A shape as the graph sees it; and rows and columns as stored, if they are stored the other way round.
pub type LogicalShape = (Vec<u64>, Option<(u64, u64)>);

/// Shape of a weight as the graph sees it in this layout, and its stored rows and columns if they are swapped.
pub fn logical_shape(index: &Index, layout: &Layout, name: &str) -> Option<LogicalShape> {
    let stored = &index.get(name)?.shape;
    if !layout.transposed.iter().any(|pattern| matches(&pattern.text, name)) {
        return Some((stored.clone(), None));
    }
    let squeezed = squeeze(stored);
    match *squeezed {
        [rows, columns] => Some((vec![columns, rows], Some((rows, columns)))),
        // A low-rank pair of rank 1 has a single axis left: there is nothing to swap.
        [] | [_] => Some((stored.iter().rev().copied().collect(), None)),
        // More than a matrix: refused where it is used, see `is_transposable`.
        _ => Some((stored.clone(), None)),
    }
}

/// Whether a weight can be read in this layout: only matrices and vectors can be transposed.
pub fn is_transposable(index: &Index, layout: &Layout, name: &str) -> bool {
    let swapped = layout.transposed.iter().any(|pattern| matches(&pattern.text, name));
    !swapped || index.get(name).is_none_or(|info| squeeze(&info.shape).len() <= 2)
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
    }

    #[test]
    fn axes_of_one_come_and_go() {
        assert_eq!(with_rank(&[1, 1, 8], 1), Some(vec![8]));
        assert_eq!(with_rank(&[1, 8], 2), Some(vec![1, 8]));
        assert_eq!(with_rank(&[8], 2), Some(vec![1, 8]));
        assert_eq!(with_rank(&[3, 8], 1), None);
    }
}
