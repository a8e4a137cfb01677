//! Adapters of low rank, added to a checkpoint's weights.
//!
//! Gets a checkpoint, a file of adapters and their alpha; returns a checkpoint whose adapted weights are
//! `W + alpha / rank * up down` wherever they are read. What holds then: every tensor of the file is used, and every
//! adapted weight keeps its shape and element type. Nothing is computed before a weight is read, and then for that
//! weight alone, so that a model is never in memory twice.

use std::collections::BTreeSet;

use crate::base::dtype::DType;
use crate::checkpoint::names::{NameTable, adapter_at};
use crate::checkpoint::stored::Stored;
use crate::checkpoint::{Checkpoint, CheckpointError, TensorInfo};
use crate::tensor;

/// A product of two matrices that is added to a weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LowRank {
    /// `[rank, in]`.
    pub down: Matrix,
    /// `[out, rank]`.
    pub up: Matrix,
    /// What the product is multiplied by, as bits, so that checkpoints' indices can be compared.
    pub scale_bits: u32,
}

/// A matrix of another file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matrix {
    pub stored: Stored,
    pub dtype: DType,
    pub shape: [u64; 2],
}

impl Matrix {
    fn of(name: &str, info: &TensorInfo) -> Result<Self, String> {
        match (&info.dtype, info.shape.as_slice()) {
            (Ok(dtype), [rows, columns]) if *rows > 0 && *columns > 0 => {
                Ok(Self { stored: info.stored.clone(), dtype: *dtype, shape: [*rows, *columns] })
            }
            (dtype, shape) => {
                let dtype = dtype.as_ref().map_or_else(Clone::clone, ToString::to_string);
                Err(format!("`{name}` is {dtype}{shape:?}, expected a matrix of f32, f16 or bf16"))
            }
        }
    }

    fn turned(&self) -> Self {
        let [rows, columns] = self.shape;
        Self { stored: self.stored.swapped(&self.shape), dtype: self.dtype, shape: [columns, rows] }
    }

    fn values(&self, file: &[u8]) -> Vec<f32> {
        tensor::to_f32(self.dtype, &self.stored.read(file, &self.shape))
    }
}

impl LowRank {
    /// The two matrices whichever way round they lie, as long as their shapes leave no doubt.
    fn new(weight: &[u64], down: &Matrix, up: &Matrix, alpha: f32) -> Result<Self, String> {
        let &[rows, columns] = weight else {
            return Err(format!("the weight has shape {weight:?}, expected a matrix"));
        };
        let mut fitting = Vec::new();
        for down in [down.clone(), down.turned()] {
            for up in [up.clone(), up.turned()] {
                if down.shape[1] == columns && up.shape[0] == rows && down.shape[0] == up.shape[1] {
                    fitting.push((down.clone(), up));
                }
            }
        }
        match fitting.as_slice() {
            [] => Err(format!(
                "shapes {:?} and {:?} make no {weight:?}, which is `[rank, {columns}]` and `[{rows}, rank]`",
                down.shape, up.shape
            )),
            [(down, up)] => {
                let scale = alpha / down.shape[0] as f32;
                Ok(Self { down: down.clone(), up: up.clone(), scale_bits: scale.to_bits() })
            }
            _ => Err(format!("shapes {:?} and {:?} do not say which way round they lie", down.shape, up.shape)),
        }
    }
}

impl Checkpoint {
    /// This checkpoint with the adapters of another file added to its weights; what the file has besides, such as
    /// norms that were trained along, takes the place of this checkpoint's own. `tables` say how adapters are called.
    ///
    /// # Errors
    /// If a tensor of the file has no counterpart here, or shapes do not fit.
    pub fn with_lora(mut self, lora: Self, tables: &[NameTable], alpha: f32) -> Result<Self, CheckpointError> {
        let wrong = |reason| CheckpointError::Contents { name: lora.name.clone(), reason };
        if lora.index.is_empty() {
            return Err(wrong("it holds no tensors".into()));
        }
        let mut adapted = Vec::new();
        let mut used: BTreeSet<&str> = BTreeSet::new();
        for (name, down) in &lora.index.tensors {
            let Some(at) = adapter_at(tables, name, &self.index).map_err(wrong)? else { continue };
            let (up_name, up) = lora
                .index
                .tensors
                .get_key_value(&at.up)
                .ok_or_else(|| wrong(format!("it has `{}`, but not `{}`", at.down, at.up)))?;
            let base = &self.index.tensors[&at.weight];
            let product = base
                .dtype
                .clone()
                .and_then(|_| LowRank::new(&base.shape, &Matrix::of(name, down)?, &Matrix::of(up_name, up)?, alpha));
            let product = product.map_err(|reason| wrong(format!("`{name}` on `{}`: {reason}", at.weight)))?;
            adapted.push((at.weight, product));
            used.extend([name.as_str(), up_name.as_str()]);
        }
        let mut replaced = Vec::new();
        for (name, info) in lora.index.tensors.iter().filter(|(name, _)| !used.contains(name.as_str())) {
            let Some(base) = self.index.get(name) else {
                return Err(wrong(format!("`{name}` is no adapter, and the model has no such tensor")));
            };
            let squeezed = |shape: &[u64]| shape.iter().copied().filter(|extent| *extent != 1).collect::<Vec<_>>();
            if squeezed(&base.shape) != squeezed(&info.shape) || base.dtype.is_err() || info.dtype.is_err() {
                let (expected, found) = (&base.shape, &info.shape);
                return Err(wrong(format!("`{name}` has shape {found:?}, expected {expected:?} as in the model")));
            }
            replaced.push((name.clone(), info.clone()));
        }
        let files = self.files.len();
        for (name, info) in replaced {
            let base = self.index.tensors.get_mut(&name).expect("just found");
            (base.stored_dtype, base.stored) = (info.stored_dtype, info.stored.behind(files));
            // What was added to the tensor before has gone with it.
            base.added.clear();
        }
        for (name, LowRank { down, up, scale_bits }) in adapted {
            let behind = |matrix: Matrix| Matrix { stored: matrix.stored.behind(files), ..matrix };
            let product = LowRank { down: behind(down), up: behind(up), scale_bits };
            self.index.tensors.get_mut(&name).expect("just found").added.push(product);
        }
        self.files.extend(lora.files);
        Ok(self)
    }

    /// The elements of a weight with all that is added to it.
    pub(super) fn merged(&self, info: &TensorInfo, stored_dtype: DType, dtype: DType) -> Vec<u8> {
        let bytes = info.stored.read(self.file(&info.stored), &info.shape);
        let mut values = tensor::to_f32(stored_dtype, &bytes);
        for LowRank { down, up, scale_bits } in &info.added {
            let (scale, rank, columns) = (f32::from_bits(*scale_bits), down.shape[0] as usize, down.shape[1] as usize);
            let down = down.values(self.file(&down.stored));
            let up = up.values(self.file(&up.stored));
            let mut sum = vec![0.0_f32; columns];
            for (row, factors) in values.chunks_exact_mut(columns).zip(up.chunks_exact(rank)) {
                sum.fill(0.0);
                for (factor, down) in factors.iter().zip(down.chunks_exact(columns)) {
                    sum.iter_mut().zip(down).for_each(|(sum, down)| *sum += factor * down);
                }
                row.iter_mut().zip(&sum).for_each(|(value, sum)| *value += scale * sum);
            }
        }
        tensor::from_f32(dtype, &values)
    }
}
