//! Where a tensor's elements lie in a file, and how they are read from there.
//!
//! Gets a range of a file, a shape and, where elements do not follow on each other, their strides; returns the elements
//! row by row: borrowed where they lie so, else gathered into a copy of that tensor alone. What holds then: every
//! element lies in the file, and no copy is larger than what the file holds of the tensor. Never converts a number.

use std::borrow::Cow;
use std::ops::Range;

/// More axes than any tensor has: a bound on what is done for each element.
pub(super) const MAX_AXES: usize = 8;

/// A tensor's place in one of a checkpoint's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Number of the file.
    pub file: usize,
    /// Where its first element begins.
    start: usize,
    /// Bytes of all elements.
    size_bytes: usize,
    /// Bytes of one element, where elements can be told apart.
    element_bytes: usize,
    /// How many elements lie between two neighbours of each axis; nothing if the elements follow on each other.
    strides: Option<Vec<u64>>,
}

impl Stored {
    /// Elements that follow on each other.
    pub fn contiguous(range: Range<usize>, element_bytes: usize) -> Self {
        Self { file: 0, start: range.start, size_bytes: range.len(), element_bytes, strides: None }
    }

    /// Elements `strides` apart, the first of them `first` elements behind the beginning of `storage`.
    pub fn strided(
        storage: &Range<usize>,
        element_bytes: usize,
        first: u64,
        shape: &[u64],
        strides: &[u64],
    ) -> Result<Self, String> {
        if shape.len() != strides.len() || shape.len() > MAX_AXES {
            return Err(format!(
                "expected at most {MAX_AXES} axes and a stride for each, found {shape:?}, {strides:?}"
            ));
        }
        let room = (storage.len() / element_bytes.max(1)) as u64;
        let beyond = || format!("shape {shape:?} with strides {strides:?} from {first} on is beyond {room} elements");
        let count = product(shape).filter(|count| *count <= room).ok_or_else(beyond)?;
        let last = shape.iter().zip(strides).try_fold(first, |last, (extent, stride)| {
            extent.saturating_sub(1).checked_mul(*stride).and_then(|further| last.checked_add(further))
        });
        if count > 0 && last.is_none_or(|last| last >= room) {
            return Err(beyond());
        }
        let start = if count > 0 { storage.start + first as usize * element_bytes } else { storage.start };
        let follows = strides_of(shape);
        let is_contiguous = shape.iter().zip(strides).zip(&follows).all(|((extent, a), b)| *extent <= 1 || a == b);
        let strides = (count > 0 && !is_contiguous).then(|| strides.to_vec());
        Ok(Self { file: 0, start, size_bytes: count as usize * element_bytes, element_bytes, strides })
    }

    /// Bytes of all elements.
    pub const fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// The elements of a tensor of this shape, row by row, from the bytes of its file.
    pub fn read<'a>(&self, file: &'a [u8], shape: &[u64]) -> Cow<'a, [u8]> {
        let Some(strides) = &self.strides else {
            return Cow::Borrowed(&file[self.start..self.start + self.size_bytes]);
        };
        let mut bytes = Vec::with_capacity(self.size_bytes);
        let mut at = vec![0; shape.len()];
        let (&inner, &inner_stride) = shape.last().zip(strides.last()).expect("without axes, elements follow on");
        while bytes.len() < self.size_bytes {
            let row: u64 = at.iter().zip(strides).map(|(at, stride)| at * stride).sum();
            for column in 0..inner {
                let begin = self.start + (row + column * inner_stride) as usize * self.element_bytes;
                bytes.extend_from_slice(&file[begin..begin + self.element_bytes]);
            }
            // The next row: the outer axes count on, the innermost of them first.
            for axis in (0..shape.len() - 1).rev() {
                at[axis] += 1;
                if at[axis] < shape[axis] {
                    break;
                }
                at[axis] = 0;
            }
        }
        Cow::Owned(bytes)
    }

    /// The same elements with the last two axes of `shape` exchanged, which the shape then has to be as well.
    pub fn swapped(&self, shape: &[u64]) -> Self {
        let mut strides = self.strides.clone().unwrap_or_else(|| strides_of(shape));
        let mut turned = shape.to_vec();
        if let [.., rows, columns] = strides.as_mut_slice() {
            std::mem::swap(rows, columns);
        }
        if let [.., rows, columns] = turned.as_mut_slice() {
            std::mem::swap(rows, columns);
        }
        let follows = strides_of(&turned);
        let is_contiguous = turned.iter().zip(&strides).zip(&follows).all(|((extent, a), b)| *extent <= 1 || a == b);
        Self { strides: (self.size_bytes > 0 && !is_contiguous).then_some(strides), ..self.clone() }
    }

    /// Row `at` of the first axis of `shape`.
    pub fn row(&self, shape: &[u64], at: u64) -> Self {
        let strides = self.strides.clone().unwrap_or_else(|| strides_of(shape));
        let size_bytes = self.size_bytes / shape[0].max(1) as usize;
        let start = self.start + (at * strides[0]) as usize * self.element_bytes;
        let strides = self.strides.as_ref().map(|_| strides[1..].to_vec());
        Self { start, size_bytes, strides, ..self.clone() }
    }

    /// The same in a later file.
    pub fn behind(self, files: usize) -> Self {
        Self { file: self.file + files, ..self }
    }
}

/// Number of elements, if it is one.
pub(super) fn product(shape: &[u64]) -> Option<u64> {
    // An axis of 0 anywhere makes it 0, however large the others are.
    match shape.contains(&0) {
        true => Some(0),
        false => shape.iter().try_fold(1_u64, |count, extent| count.checked_mul(*extent)),
    }
}

/// Strides of a tensor whose elements follow on each other.
fn strides_of(shape: &[u64]) -> Vec<u64> {
    let mut strides = vec![1_u64; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: [u8; 13] = [99, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

    #[test]
    fn strides_swaps_and_rows_pick_the_elements_they_say() {
        let storage = 1..13;
        let whole = Stored::contiguous(storage.clone(), 1);
        assert!(matches!(whole.read(&FILE, &[3, 4]), Cow::Borrowed([0, 1, 2, ..])));
        assert_eq!(*whole.swapped(&[3, 4]).read(&FILE, &[4, 3]), [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
        assert_eq!(whole.swapped(&[3, 4]).swapped(&[4, 3]), whole, "twice is not at all");
        assert_eq!(*whole.swapped(&[2, 2, 3]).read(&FILE, &[2, 3, 2]), [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert!(
            matches!(whole.swapped(&[12, 1]).read(&FILE, &[1, 12]), Cow::Borrowed(_)),
            "an axis of 1 costs nothing"
        );
        assert_eq!(*whole.row(&[3, 4], 2).read(&FILE, &[4]), [8, 9, 10, 11]);
        let columns = Stored::strided(&storage, 1, 1, &[3, 2], &[4, 2]).expect("within");
        assert_eq!(*columns.read(&FILE, &[3, 2]), [1, 3, 5, 7, 9, 11]);
        assert_eq!(*columns.row(&[3, 2], 1).read(&FILE, &[2]), [5, 7]);
        let follows = Stored::strided(&storage, 1, 4, &[1, 4], &[9, 1]).expect("within");
        assert!(matches!(follows.read(&FILE, &[1, 4]), Cow::Borrowed([4, 5, 6, 7])));
    }

    #[test]
    fn what_lies_outside_is_refused() {
        let storage = 1..13;
        let strided = |first, shape: &[u64], strides: &[u64]| Stored::strided(&storage, 1, first, shape, strides);
        assert!(strided(0, &[3, 4], &[4, 1]).is_ok());
        assert!(strided(1, &[3, 4], &[4, 1]).is_err());
        assert!(strided(0, &[3, 4], &[5, 1]).is_err());
        assert!(strided(0, &[13], &[0]).is_err(), "more elements than there are");
        assert!(strided(0, &[u64::MAX, 2], &[1, 1]).is_err());
        assert!(strided(u64::MAX, &[1], &[1]).is_err());
        assert!(strided(0, &[2], &[u64::MAX]).is_err());
        assert!(strided(0, &[1; 9], &[1; 9]).is_err());
        assert_eq!(strided(u64::MAX, &[0, u64::MAX], &[1, 1]).expect("nothing").size_bytes(), 0);
    }
}
