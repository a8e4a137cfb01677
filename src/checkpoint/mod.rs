//! Checkpoints: safetensors by memory map.
//!
//! Gets a file or bytes built into the program, returns an [`Index`] of names, shapes and element types, and each
//! tensor's bytes where they lie: the file is never read into memory as a whole. What holds then: every range lies in
//! the file and is as long as its shape says. Never converts, never uploads.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

use crate::base::dtype::DType;
use crate::tensor::Tensor;

/// What a checkpoint holds, without its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    tensors: BTreeMap<String, TensorInfo>,
}

/// One tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type as stored; nothing for types that graphc does not read, with their name.
    pub dtype: Result<DType, String>,
    /// Shape as stored, outermost axis first.
    pub shape: Vec<u64>,
    range: Range<usize>,
}

impl Index {
    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// All names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }
}

/// Why a checkpoint cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be read.
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not safetensors, or a truncated or inconsistent one.
    Format {
        /// The file, or what stands for it.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, source } => write!(f, "cannot read `{}`: {source}", path.display()),
            Self::Format { name, reason } => write!(f, "`{name}` is not a usable safetensors file: {reason}"),
        }
    }
}

impl std::error::Error for CheckpointError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
            Self::Format { .. } => None,
        }
    }
}

/// A checkpoint whose bytes are mapped, not read.
#[derive(Debug)]
pub struct Checkpoint {
    name: String,
    bytes: Bytes,
    index: Index,
}

#[derive(Debug)]
enum Bytes {
    Mapped(memmap2::Mmap),
    Static(&'static [u8]),
}

impl Checkpoint {
    /// Maps a safetensors file.
    ///
    /// # Errors
    /// If the file cannot be read, or is no safetensors file of consistent lengths.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let file_error = |source| CheckpointError::File { path: path.to_owned(), source };
        let file = File::open(path).map_err(file_error)?;
        if file.metadata().map_err(file_error)?.is_dir() {
            return Err(file_error(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
        }
        #[expect(
            unsafe_code,
            reason = "a memory map is how a model larger than memory is uploaded without a second copy"
        )]
        // SAFETY: the map is read-only and private to this value. Another process that truncates the file meanwhile
        // would raise SIGBUS on access, as with every mapped file; no Rust value is made from the bytes that could
        // become invalid.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(file_error)?;
        Self::new(path.display().to_string(), Bytes::Mapped(map))
    }

    /// A checkpoint that is part of the program.
    ///
    /// # Errors
    /// If the bytes are no safetensors file.
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self, CheckpointError> {
        Self::new(name.to_owned(), Bytes::Static(bytes))
    }

    fn new(name: String, bytes: Bytes) -> Result<Self, CheckpointError> {
        let all: &[u8] = match &bytes {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        };
        let file = SafeTensors::deserialize(all)
            .map_err(|error| CheckpointError::Format { name: name.clone(), reason: explain(&error, all.len()) })?;
        let mut tensors = BTreeMap::new();
        for (tensor, view) in file.iter() {
            let dtype = match view.dtype() {
                safetensors::Dtype::F32 => Ok(DType::F32),
                safetensors::Dtype::F16 => Ok(DType::F16),
                safetensors::Dtype::BF16 => Ok(DType::Bf16),
                other => Err(format!("{other:?}")),
            };
            let start = view.data().as_ptr() as usize - all.as_ptr() as usize;
            let range = start..start + view.data().len();
            let shape = view.shape().iter().map(|extent| *extent as u64).collect();
            tensors.insert(tensor.to_owned(), TensorInfo { dtype, shape, range });
        }
        Ok(Self { name, bytes, index: Index { tensors } })
    }

    /// The file's name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it holds.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// A tensor's bytes, where they lie.
    pub fn bytes(&self, tensor: &str) -> Option<&[u8]> {
        let all: &[u8] = match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        };
        self.index.get(tensor).map(|info| &all[info.range.clone()])
    }

    /// A name for the weights: the first 64 bits of a SHA-256 over every name, shape and element type and over the ends
    /// of each tensor's bytes. Two models that differ only in the middle of every tensor would share it; trained ones
    /// do not.
    pub fn fingerprint(&self) -> String {
        const END_BYTES: usize = 256;
        let mut hasher = Sha256::new();
        for (name, info) in &self.index.tensors {
            hasher.update(format!("{name} {:?} {:?}\n", info.shape, info.dtype));
            let bytes = self.bytes(name).unwrap_or_default();
            hasher.update(&bytes[..bytes.len().min(END_BYTES)]);
            hasher.update(&bytes[bytes.len().saturating_sub(END_BYTES)..]);
        }
        hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// A copy of a tensor, or nothing if it is absent or of a type that graphc does not read.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        let info = self.index.get(name)?;
        let dtype = info.dtype.clone().ok()?;
        Some(Tensor { dtype, shape: info.shape.clone(), bytes: self.bytes(name)?.to_vec() })
    }
}

/// What is wrong with a safetensors file, in the words of someone who has to mend it.
pub(crate) fn explain(error: &safetensors::SafeTensorError, len: usize) -> String {
    use safetensors::SafeTensorError as E;
    match error {
        E::HeaderTooSmall => format!("it has {len} bytes; a header alone takes at least 8"),
        E::HeaderTooLarge => "its first 8 bytes, the header's length, are absurdly large".to_owned(),
        E::InvalidHeaderLength => format!("its header would be longer than the whole file of {len} bytes: truncated?"),
        E::MetadataIncompleteBuffer => {
            format!(
                "its header describes more or fewer bytes than the file's {len}: truncated, or something was appended"
            )
        }
        E::InvalidHeaderStart | E::InvalidHeader(_) => "it has no header: another format?".to_owned(),
        E::InvalidHeaderDeserialization(error) => {
            format!("its header is not the JSON of a safetensors file: {error}")
        }
        E::InvalidOffset(name) => format!("the bytes of `{name}` do not follow on those of the tensor before it"),
        E::TensorInvalidInfo | E::ValidationOverflow => {
            "a tensor's shape and its bytes do not agree, or its size is beyond all numbers".to_owned()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncated_files_are_refused_by_name() {
        let dir = std::env::temp_dir().join(format!("graphc-checkpoint-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary folder");
        let path = dir.join("truncated.safetensors");
        std::fs::write(&path, [200, 0, 0, 0, 0, 0, 0, 0, b'{']).expect("written");
        let error = Checkpoint::open(&path).expect_err("truncated").to_string();
        assert!(error.contains("truncated.safetensors") && error.contains("truncated?"), "{error}");
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
