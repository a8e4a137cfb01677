//! A checkpoint as one safetensors file.
//!
//! Gets a checkpoint, an element type or none, and a writer; writes a header and each tensor after the other, row by
//! row. What holds then: equal checkpoints give equal files, and no more than one tensor is in memory at a time, and
//! that only if it does not lie in its file as it is written. Never opens a file.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Error, Write};

use serde_json::{Map, Value, json};

use crate::base::dtype::DType;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::tensor::{self, Tensor};

/// How many bytes are converted at a time.
const PART_BYTES: usize = 1 << 20;

/// How a checkpoint is written.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// Element type of all tensors; each keeps its own without.
    pub dtype: Option<DType>,
    /// Whether tensors are called what their file called them.
    pub stored_names: bool,
}

/// Why a checkpoint cannot be written.
#[derive(Debug)]
#[non_exhaustive]
pub enum WriteError {
    /// The writer failed.
    Io(Error),
    /// A tensor is of a type that graphc does not read.
    Dtype {
        /// The tensor.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// A number is larger than any of the element type asked for.
    Range {
        /// The tensor.
        tensor: String,
        /// The number.
        value: f32,
        /// The type.
        dtype: DType,
    },
    /// A file called two tensors alike, or one that is several here.
    Name {
        /// The name.
        name: String,
    },
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Dtype { tensor, found } => write!(f, "`{tensor}` is {found}, expected f32, f16 or bf16"),
            Self::Range { tensor, value, dtype } => {
                write!(f, "`{tensor}` has a {value:e}, which is beyond {dtype}; bf16 and f32 hold it")
            }
            Self::Name { name } => {
                write!(f, "several tensors were `{name}` in their file, so they cannot keep their names")
            }
        }
    }
}

impl std::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// Writes a checkpoint; returns how many bytes the file has.
///
/// # Errors
/// If the writer fails, or a tensor cannot be written so.
pub fn write(checkpoint: &Checkpoint, options: WriteOptions, out: &mut dyn Write) -> Result<u64, WriteError> {
    let mut tensors: Vec<(&str, &TensorInfo, DType)> = Vec::new();
    for name in checkpoint.index().names() {
        let info = checkpoint.index().get(name).expect("one of its names");
        match &info.dtype {
            Ok(dtype) => tensors.push((name, info, options.dtype.unwrap_or(*dtype))),
            Err(found) => return Err(WriteError::Dtype { tensor: name.to_owned(), found: found.clone() }),
        }
    }
    // Wide elements first, so that each begins at a multiple of its size.
    tensors.sort_by_key(|(_, _, dtype)| std::cmp::Reverse(dtype.size_bytes()));
    let (header, size_bytes) = header(&tensors, options.stored_names)?;
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(WriteError::Io)?;
    out.write_all(&header).map_err(WriteError::Io)?;
    for (name, info, dtype) in tensors {
        let (bytes, from) = (checkpoint.bytes(name).expect("one of its names"), info.dtype.clone().unwrap_or(dtype));
        if from == dtype {
            out.write_all(&bytes).map_err(WriteError::Io)?;
            continue;
        }
        for part in bytes.chunks(PART_BYTES) {
            let values = tensor::to_f32(from, part);
            let converted = tensor::from_f32(dtype, &values);
            let is_lost = |(value, after): (&f32, f32)| value.is_finite() && !after.is_finite();
            let lost = values.iter().zip(tensor::to_f32(dtype, &converted)).position(is_lost);
            if let Some(at) = lost {
                return Err(WriteError::Range { tensor: name.to_owned(), value: values[at], dtype });
            }
            out.write_all(&converted).map_err(WriteError::Io)?;
        }
    }
    Ok(8 + header.len() as u64 + size_bytes)
}

/// A file of these tensors; of several of one name, the last.
pub(super) fn in_memory(tensors: &[(String, Tensor)]) -> Vec<u8> {
    let mut tensors: Vec<&(String, Tensor)> =
        BTreeMap::from_iter(tensors.iter().map(|one| (&one.0, one))).into_values().collect();
    // Wide elements first, so that each begins at a multiple of its size.
    tensors.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.dtype.size_bytes()));
    let (mut map, mut end) = (Map::new(), 0);
    for (name, Tensor { dtype, shape, .. }) in &tensors {
        map.insert(name.clone(), entry(*dtype, shape, &mut end));
    }
    let mut header = serde_json::to_vec(&map).expect("names and numbers are JSON");
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.append(&mut header);
    tensors.iter().for_each(|(_, tensor)| file.extend(&tensor.bytes));
    file
}

/// What a header says of a tensor that begins at `end`, which is moved behind it.
fn entry(dtype: DType, shape: &[u64], end: &mut u64) -> Value {
    let kind = match dtype {
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::Bf16 => "BF16",
        DType::U32 => "U32",
    };
    let begin = *end;
    *end += shape.iter().product::<u64>() * dtype.size_bytes();
    json!({"dtype": kind, "shape": shape, "data_offsets": [begin, *end]})
}

/// The header of a file, and how many bytes follow it.
fn header(tensors: &[(&str, &TensorInfo, DType)], stored_names: bool) -> Result<(Vec<u8>, u64), WriteError> {
    // What readers elsewhere look for before they trust a file.
    let mut map = Map::from_iter([("__metadata__".to_owned(), json!({"format": "pt"}))]);
    let mut end = 0;
    for (name, info, dtype) in tensors {
        let name = if stored_names { info.stored_name(name) } else { name };
        let entry = entry(*dtype, &info.shape, &mut end);
        if map.insert(name.to_owned(), entry).is_some() {
            return Err(WriteError::Name { name: name.to_owned() });
        }
    }
    let mut header = serde_json::to_vec(&map).expect("names and numbers are JSON");
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok((header, end))
}
