//! Two rows of numbers, and how far they may be apart.
//!
//! Gets the bytes of the same part of a value from both sides, returns the largest difference and whether it is too
//! large. What holds then: rows of the same bits never part, and where exactly one of two elements is no number, or
//! infinite, they always do. Never knows which value it is.

use std::fmt;

use crate::base::dtype::DType;

/// How far two elements may be apart: `absolute`, and `relative` times the largest finite magnitude of their row on
/// either side. Elements of a row are sums over the same terms, so what rounding does to a small one depends on its
/// neighbours rather than on itself. Without both, every bit must be the same.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Tolerance {
    /// In the value's own unit.
    pub absolute: f64,
    /// Of the row's largest magnitude.
    pub relative: f64,
}

impl Tolerance {
    /// Whether every bit must be the same.
    pub fn is_exact(self) -> bool {
        self.absolute == 0.0 && self.relative == 0.0
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { absolute, relative } = self;
        match (*absolute, *relative) {
            (0.0, 0.0) => f.write_str("none: every bit"),
            (_, 0.0) => write!(f, "{absolute:e}"),
            (0.0, _) => write!(f, "{relative:e} of a row's largest magnitude"),
            _ => write!(f, "{absolute:e}, and {relative:e} of a row's largest magnitude"),
        }
    }
}

/// Elements in the order of memory, and what they are.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Element type.
    pub dtype: DType,
    /// The elements.
    pub bytes: &'a [u8],
}

/// How far two rows are apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Apart {
    /// Largest absolute difference; infinite where exactly one of two elements is not a number, or they are not the
    /// same infinity. 0 of numbers that have other bits, as 0 and -0.
    pub difference: f64,
    /// The largest finite magnitude in the rows.
    pub scale: f64,
    /// The first element of that difference.
    pub at: usize,
    /// That element on both sides.
    pub elements: [f64; 2],
    /// How far elements of these rows may be apart.
    pub allowed: f64,
    /// Whether they are too far apart.
    pub parts: bool,
}

/// Compares rows; nothing if every bit is the same.
///
/// # Panics
/// If the rows have not as many elements.
pub fn compare(a: Row<'_>, b: Row<'_>, tolerance: Tolerance) -> Option<Apart> {
    if a.dtype == b.dtype && a.bytes == b.bytes {
        return None;
    }
    let (one, other) = (numbers(a), numbers(b));
    assert_eq!(one.len(), other.len(), "rows of one shape");
    let finite = one.iter().chain(&other).map(|element| element.abs()).filter(|element| element.is_finite());
    let scale = finite.fold(0.0, f64::max);
    let has_same_bits = |at: usize| {
        let (size, same) = (a.dtype.size_bytes() as usize, a.dtype == b.dtype);
        same && a.bytes[at * size..(at + 1) * size] == b.bytes[at * size..(at + 1) * size]
    };
    let mut worst: Option<(f64, usize)> = None;
    for (at, (x, y)) in one.iter().zip(&other).enumerate() {
        let difference = distance(*x, *y);
        let is_worse = worst.is_none_or(|(most, _)| difference > most);
        if is_worse && (difference > 0.0 || a.dtype == b.dtype && !has_same_bits(at)) {
            worst = Some((difference, at));
        }
    }
    // Of two element types, the numbers may all be the same.
    let (difference, at) = worst?;
    let allowed = tolerance.absolute + tolerance.relative * scale;
    let parts = tolerance.is_exact() || difference > allowed;
    Some(Apart { difference, scale, at, elements: [one[at], other[at]], allowed, parts })
}

fn distance(x: f64, y: f64) -> f64 {
    let is_same = x == y || x.is_nan() && y.is_nan();
    let difference = if is_same { 0.0 } else { (x - y).abs() };
    if difference.is_nan() { f64::INFINITY } else { difference }
}

/// Elements as numbers, all of them exact.
fn numbers(row: Row<'_>) -> Vec<f64> {
    match row.dtype {
        DType::U32 => row.bytes.as_chunks::<4>().0.iter().map(|word| f64::from(u32::from_le_bytes(*word))).collect(),
        dtype => crate::tensor::to_f32(dtype, row.bytes).into_iter().map(f64::from).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXACT: Tolerance = Tolerance { absolute: 0.0, relative: 0.0 };

    fn apart(a: &[f32], b: &[f32], tolerance: Tolerance) -> Option<Apart> {
        let bytes = |row: &[f32]| row.iter().flat_map(|element| element.to_le_bytes()).collect::<Vec<u8>>();
        let (a, b) = (bytes(a), bytes(b));
        let row = |bytes| Row { dtype: DType::F32, bytes };
        compare(row(&a), row(&b), tolerance)
    }

    #[test]
    fn the_largest_difference_is_found_and_measured_by_its_row() {
        let (a, b) = ([1.0, -200.0, 0.25, 0.5], [1.0, -200.5, 0.5, 1.0]);
        let within = Tolerance { absolute: 0.1, relative: 0.002 };
        let found = apart(&a, &b, within).expect("other bits");
        assert_eq!((found.difference, found.at, found.elements), (0.5, 1, [-200.0, -200.5]));
        assert_eq!((found.scale, found.parts), (200.5, false));
        assert!((found.allowed - 0.501).abs() < 1e-12);
        assert!(apart(&a, &b, Tolerance { relative: 0.001, ..within }).expect("other bits").parts);
        assert_eq!(apart(&a, &a, EXACT), None);
    }

    #[test]
    fn what_is_no_number_or_infinite_parts_unless_both_are() {
        let (nan, inf, wide) = (f32::NAN, f32::INFINITY, Tolerance { absolute: 1e30, relative: 1.0 });
        for (a, b) in [(nan, 1.0), (1.0, nan), (inf, 1.0), (inf, -inf), (nan, inf)] {
            let found = apart(&[0.0, a], &[0.0, b], wide).expect("other bits");
            assert!(found.parts && found.difference == f64::INFINITY && found.at == 1, "{a} {b}: {found:?}");
        }
        assert_eq!(apart(&[nan, inf], &[nan, inf], wide), None);
        assert!(!apart(&[nan, inf, 1.0], &[nan, inf, 2.0], wide).expect("other bits").parts);
    }

    #[test]
    fn without_tolerance_other_bits_of_one_number_part_too() {
        let found = apart(&[1.0, 0.0], &[1.0, -0.0], EXACT).expect("other bits");
        assert_eq!((found.difference, found.at, found.parts), (0.0, 1, true));
        let least = Tolerance { absolute: 1e-30, relative: 0.0 };
        assert!(!apart(&[1.0, 0.0], &[1.0, -0.0], least).expect("other bits").parts);
    }
}
