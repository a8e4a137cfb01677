//! State files: what a sequence has read so far, as a file.
//!
//! Gets a sequence's state and the model it belongs to, returns safetensors bytes, and back. A tensor that has one
//! buffer per layer is one tensor of the file, the layers first. The file names its version, graph and model; another
//! model's is refused. Never touches the disk or a device.

use std::collections::BTreeMap;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::base::dtype::DType;
use crate::checkpoint::explain;
use crate::generate::batch::SequenceState;
use crate::plan::weights::{StateBuffer, StateLayout};
use crate::tensor::Tensor;

/// Version of the file; another is refused.
const VERSION: &str = "1";

/// What `format` is in the file's metadata.
const FORMAT: &str = "graphc-state";

/// Which model a state belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateOwner {
    /// Name of the graph.
    pub graph: String,
    /// [`Checkpoint::fingerprint`](crate::checkpoint::Checkpoint::fingerprint) of the weights.
    pub fingerprint: String,
}

/// A state tensor's name and layer: `att_x.3` is layer 3 of `att_x`.
fn split(label: &str) -> (&str, Option<usize>) {
    match label.rsplit_once('.') {
        Some((name, layer)) => match layer.parse() {
            Ok(layer) => (name, Some(layer)),
            Err(_) => (label, None),
        },
        None => (label, None),
    }
}

fn file_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::Bf16 => Dtype::BF16,
        DType::U32 => Dtype::U32,
    }
}

/// Bytes of a row without the padding that fills its last word.
fn unpadded(buffer: &StateBuffer) -> usize {
    (buffer.row_count() * buffer.dtype.size_bytes()) as usize
}

/// A state as the bytes of a safetensors file.
///
/// # Errors
/// If the state is not of this layout.
pub fn to_bytes(state: &SequenceState, layout: &StateLayout, owner: &StateOwner) -> Result<Vec<u8>, String> {
    let mut stacked: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for ((label, tensor), buffer) in state.tensors.iter().zip(&layout.buffers) {
        let (name, layer) = split(label);
        let bytes = &tensor.bytes[..unpadded(buffer)];
        match stacked.iter_mut().find(|(other, ..)| other == name) {
            Some((_, _, shape, all)) => {
                shape[0] += 1;
                all.extend_from_slice(bytes);
            }
            None => {
                let layers = layer.is_some().then_some(1);
                let shape = layers.into_iter().chain(buffer.row_shape.iter().map(|extent| *extent as usize)).collect();
                stacked.push((name.to_owned(), file_dtype(buffer.dtype), shape, bytes.to_vec()));
            }
        }
    }
    let views: Result<Vec<(String, TensorView<'_>)>, String> = stacked
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(|error| error.to_string())?;
            Ok((name.clone(), view))
        })
        .collect();
    let bytes = safetensors::serialize(views?, None).map_err(|error| error.to_string())?;
    Ok(with_metadata(&bytes, owner))
}

/// The same file with metadata in its header. `safetensors` takes them as a hash map and writes them in its order, so
/// that equal states would not be equal files.
fn with_metadata(bytes: &[u8], owner: &StateOwner) -> Vec<u8> {
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize;
    let tensors = &rest[..length];
    let metadata: BTreeMap<&str, &str> = BTreeMap::from([
        ("format", FORMAT),
        ("version", VERSION),
        ("graph", &owner.graph),
        ("model", &owner.fingerprint),
    ]);
    let metadata = serde_json::to_string(&metadata).expect("strings are JSON");
    let separator = if tensors.trim_ascii() == b"{}" { "" } else { "," };
    let mut header = format!("{{\"__metadata__\":{metadata}{separator}").into_bytes();
    header.extend_from_slice(&tensors[1..]);
    // Tensors begin at a multiple of eight; their offsets count from there.
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes(), header.as_slice(), &rest[length..]].concat()
}

/// The state in the bytes of a file.
///
/// # Errors
/// If the bytes are no state file, one of another version or model, or not of this layout.
pub fn from_bytes(bytes: &[u8], layout: &StateLayout, owner: &StateOwner) -> Result<SequenceState, String> {
    let unusable = |error| format!("it is no usable safetensors file: {}", explain(&error, bytes.len()));
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(unusable)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let expect = |key: &str, expected: &str, what: &str| match metadata.get(key).map(String::as_str) {
        Some(found) if found == expected => Ok(()),
        found => Err(format!("its {what} is `{}`, expected `{expected}`", found.unwrap_or("none"))),
    };
    expect("format", FORMAT, "format")?;
    expect("version", VERSION, "version")?;
    expect("graph", &owner.graph, "graph")?;
    expect("model", &owner.fingerprint, "model")?;
    let file = SafeTensors::deserialize(bytes).map_err(unusable)?;
    let mut tensors = Vec::new();
    for buffer in &layout.buffers {
        let (name, layer) = split(&buffer.label);
        let tensor = file.tensor(name).map_err(|_| format!("it has no tensor `{name}`"))?;
        let skip = usize::from(layer.is_some());
        let shape: Vec<u64> = tensor.shape().iter().skip(skip).map(|extent| *extent as u64).collect();
        let size = unpadded(buffer);
        let start = layer.unwrap_or(0) * size;
        let row = tensor.data().get(start..start + size);
        let (Some(row), true) = (row, shape == buffer.row_shape && tensor.dtype() == file_dtype(buffer.dtype)) else {
            let expected = format!("{}{:?}", buffer.dtype, buffer.row_shape);
            return Err(format!("`{name}` has shape {:?}, expected layers of {expected}", tensor.shape()));
        };
        let mut bytes = row.to_vec();
        bytes.resize(buffer.row_bytes() as usize, 0);
        tensors.push((buffer.label.clone(), Tensor { dtype: buffer.dtype, shape, bytes }));
    }
    Ok(SequenceState { tensors })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::usage::Usage;

    fn layout() -> StateLayout {
        let buffer = |label: &str, extent| StateBuffer {
            label: label.into(),
            dtype: DType::F32,
            rows: 2,
            row_shape: vec![extent],
            init_bits: 0,
            init_weight: None,
            rest: Usage::STORAGE_READ,
        };
        StateLayout { buffers: vec![buffer("x.0", 2), buffer("x.1", 2), buffer("once", 3)] }
    }

    fn state() -> SequenceState {
        let tensor = |values: &[f32]| Tensor::from_f32(vec![values.len() as u64], values);
        SequenceState {
            tensors: vec![
                ("x.0".into(), tensor(&[1.0, 2.0])),
                ("x.1".into(), tensor(&[3.0, 4.0])),
                ("once".into(), tensor(&[5.0, 6.0, 7.0])),
            ],
        }
    }

    fn owner() -> StateOwner {
        StateOwner { graph: "g".into(), fingerprint: "f".into() }
    }

    #[test]
    fn a_state_comes_back_and_its_layers_are_one_tensor() {
        let bytes = to_bytes(&state(), &layout(), &owner()).expect("fits");
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        assert_eq!(file.tensor("x").expect("stacked").shape(), [2, 2]);
        assert_eq!(from_bytes(&bytes, &layout(), &owner()), Ok(state()));
        assert_eq!(to_bytes(&state(), &layout(), &owner()), Ok(bytes), "equal states are equal files");
        // A graph without state has files, too.
        let nothing = SequenceState { tensors: Vec::new() };
        let bytes = to_bytes(&nothing, &StateLayout::default(), &owner()).expect("fits");
        assert_eq!(from_bytes(&bytes, &StateLayout::default(), &owner()), Ok(nothing));
    }

    #[test]
    fn another_models_state_is_refused() {
        let bytes = to_bytes(&state(), &layout(), &owner()).expect("fits");
        let other = StateOwner { fingerprint: "other".into(), ..owner() };
        assert_eq!(from_bytes(&bytes, &layout(), &other), Err("its model is `f`, expected `other`".into()));
        let mut narrow = layout();
        narrow.buffers[2].row_shape = vec![4];
        assert!(from_bytes(&bytes, &narrow, &owner()).expect_err("another shape").contains("`once` has shape [3]"));
        assert!(from_bytes(&bytes[..40], &layout(), &owner()).is_err());
    }
}
