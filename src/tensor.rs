//! Host tensors: element type, shape, bytes.
//!
//! Gets bytes from checkpoints and read-backs, returns them as `f32`; compares within a stated tolerance. Never touches
//! a GPU and never computes a layer.

use crate::base::dtype::DType;

/// A tensor in host memory, row-major, little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Element type.
    pub dtype: DType,
    /// Shape, outermost axis first.
    pub shape: Vec<u64>,
    /// The elements.
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// Number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product::<u64>() as usize
    }

    /// The elements as `f32`; exact for every type but large `u32`.
    pub fn to_f32(&self) -> Vec<f32> {
        to_f32(self.dtype, &self.bytes)[..self.count()].to_vec()
    }

    /// An `f32` tensor.
    ///
    /// # Panics
    /// If `values` does not fill `shape` exactly.
    pub fn from_f32(shape: Vec<u64>, values: &[f32]) -> Self {
        assert_eq!(shape.iter().product::<u64>(), values.len() as u64, "values fill the shape");
        Self { dtype: DType::F32, shape, bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
    }
}

/// Little-endian bytes of any element type as `f32`; bytes at the end that make no whole element are left out.
pub fn to_f32(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let halves = || bytes.as_chunks::<2>().0.iter().copied();
    let words = || bytes.as_chunks::<4>().0.iter().copied();
    match dtype {
        DType::F32 => words().map(f32::from_le_bytes).collect(),
        DType::F16 => halves().map(|half| half::f16::from_le_bytes(half).to_f32()).collect(),
        DType::Bf16 => halves().map(|half| half::bf16::from_le_bytes(half).to_f32()).collect(),
        DType::U32 => words().map(|word| u32::from_le_bytes(word) as f32).collect(),
    }
}

/// Numbers as little-endian bytes of any element type, halves rounded to nearest, ties to even.
pub fn from_f32(dtype: DType, values: &[f32]) -> Vec<u8> {
    match dtype {
        DType::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect(),
        DType::Bf16 => values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect(),
        DType::U32 => values.iter().flat_map(|value| (*value as u32).to_le_bytes()).collect(),
    }
}

/// How far two tensors are apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Largest absolute difference; infinite where exactly one of two elements is not a number.
    pub max: f32,
    /// Index of the element where it is.
    pub at: usize,
    /// Root of the mean square of all differences.
    pub rms: f32,
}

/// Compares element by element.
///
/// # Panics
/// If the lengths differ.
pub fn difference(found: &[f32], expected: &[f32]) -> Difference {
    assert_eq!(found.len(), expected.len(), "tensors of one shape");
    let mut worst = Difference { max: 0.0, at: 0, rms: 0.0 };
    let mut squares = 0.0f64;
    for (at, (a, b)) in found.iter().zip(expected).enumerate() {
        let distance = match (a.is_nan(), b.is_nan()) {
            (true, true) => 0.0,
            (false, false) if a == b => 0.0,
            (false, false) => (a - b).abs(),
            _ => f32::INFINITY,
        };
        squares += f64::from(distance) * f64::from(distance);
        if distance > worst.max {
            worst = Difference { max: distance, at, rms: 0.0 };
        }
    }
    worst.rms = (squares / found.len().max(1) as f64).sqrt() as f32;
    worst
}
