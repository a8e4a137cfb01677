//! Checkpoints: safetensors and files of torch, whole or in shards, by memory map.
//!
//! Gets a file, a folder or bytes built into the program, returns an [`Index`] of names, shapes and element types, and
//! each tensor's bytes where they lie: no file is ever read into memory as a whole. What holds then: every element lies
//! in a file, and a tensor has as many as its shape says. What a tensor is called ([`names`]) and what is added to it
//! ([`Checkpoint::with_lora`]) is settled before anything asks. Never uploads.

mod lora;
pub mod names;
mod pickle;
pub mod shards;
mod stored;
mod torch;
pub mod write;
mod zip;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::SafeTensors;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::base::dtype::DType;
use crate::checkpoint::lora::LowRank;
use crate::checkpoint::stored::Stored;
use crate::tensor::Tensor;

/// What an index of shards is called, and the files that a folder may hold instead.
const INDEX_ENDING: &str = ".index.json";
const ENDINGS: [&str; 3] = ["safetensors", "pth", "bin"];

/// What a checkpoint holds, without its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    tensors: BTreeMap<String, TensorInfo>,
}

/// One tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type; nothing for types that graphc does not read, with their name.
    pub dtype: Result<DType, String>,
    /// Shape, outermost axis first.
    pub shape: Vec<u64>,
    /// Its name in the file, where that is another.
    called: Option<String>,
    stored: Stored,
    /// Its element type in the file.
    stored_dtype: Result<DType, String>,
    added: Vec<LowRank>,
}

impl TensorInfo {
    fn new(dtype: Result<DType, String>, shape: Vec<u64>, stored: Stored) -> Self {
        Self { stored_dtype: dtype.clone(), dtype, shape, called: None, stored, added: Vec::new() }
    }

    /// Bytes of all its elements.
    pub fn size_bytes(&self) -> u64 {
        let count = stored::product(&self.shape).unwrap_or(u64::MAX);
        self.dtype.as_ref().map_or(self.stored.size_bytes() as u64, |dtype| count * dtype.size_bytes())
    }

    /// Its name in the file, of a tensor that is called `name` now.
    pub fn stored_name<'n>(&'n self, name: &'n str) -> &'n str {
        self.called.as_deref().unwrap_or(name)
    }

    fn called(self, name: String) -> Self {
        Self { called: Some(name), ..self }
    }

    /// The same tensor with its last two axes exchanged, if it has two and elements that can be told apart.
    fn swapped(self) -> Self {
        if self.shape.len() < 2 || self.shape.len() > stored::MAX_AXES || self.dtype.is_err() {
            return self;
        }
        let stored = self.stored.swapped(&self.shape);
        let mut shape = self.shape;
        let last = shape.len() - 1;
        shape.swap(last - 1, last);
        Self { shape, stored, ..self }
    }

    /// One row of its first axis.
    fn row(&self, at: u64) -> Self {
        Self { shape: self.shape[1..].to_vec(), stored: self.stored.row(&self.shape, at), ..self.clone() }
    }
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
        source: Error,
    },
    /// The file is not safetensors, or a truncated or inconsistent one.
    Format {
        /// The file, or what stands for it.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The file is not one of torch that holds tensors alone.
    Torch {
        /// The file, or what stands for it.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// What files hold does not go together.
    Contents {
        /// The file, or what stands for it.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A file that an index names cannot be used.
    Shard {
        /// The index.
        index: PathBuf,
        /// Why.
        source: Box<CheckpointError>,
    },
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, source } => write!(f, "cannot read `{}`: {source}", path.display()),
            Self::Format { name, reason } => write!(f, "`{name}` is not a usable safetensors file: {reason}"),
            Self::Torch { name, reason } => write!(f, "`{name}` is not a usable file of torch: {reason}"),
            Self::Contents { name, reason } => write!(f, "`{name}`: {reason}"),
            Self::Shard { index, source } => write!(f, "a file that `{}` names: {source}", index.display()),
        }
    }
}

impl std::error::Error for CheckpointError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
            Self::Shard { source, .. } => Some(source),
            Self::Format { .. } | Self::Torch { .. } | Self::Contents { .. } => None,
        }
    }
}

/// What kind of file a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// A header of JSON, and elements.
    Safetensors,
    /// What `torch.save` writes.
    Torch,
}

/// A checkpoint whose bytes are mapped, not read.
#[derive(Debug)]
pub struct Checkpoint {
    name: String,
    container: Container,
    files: Vec<Bytes>,
    index: Index,
}

#[derive(Clone, Debug)]
enum Bytes {
    Mapped(Arc<memmap2::Mmap>),
    Static(&'static [u8]),
    Owned(Arc<[u8]>),
}

impl Bytes {
    fn all(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// A tensor's bytes where they lie in their file, which stays mapped as long as this lives.
#[derive(Clone, Debug)]
pub struct SharedBytes {
    file: Bytes,
    range: Range<usize>,
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.file.all()[self.range.clone()]
    }
}

impl Checkpoint {
    /// Maps a checkpoint: a file of safetensors or torch; an index of several, `….index.json`; or a folder that has one
    /// index, or one such file.
    ///
    /// # Errors
    /// If a file cannot be read, is of neither kind or of lengths that contradict each other, or if the files are not
    /// what the index says.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let inside;
        let path = match path.is_dir() {
            true => {
                inside = in_folder(path).map_err(|source| CheckpointError::File { path: path.to_owned(), source })?;
                &inside
            }
            false => path,
        };
        match path.extension().is_some_and(|ending| ending == "json") {
            true => shards::open(path),
            false => Self::open_file(path),
        }
    }

    fn open_file(path: &Path) -> Result<Self, CheckpointError> {
        let file_error = |source| CheckpointError::File { path: path.to_owned(), source };
        let file = File::open(path).map_err(file_error)?;
        if file.metadata().map_err(file_error)?.is_dir() {
            return Err(file_error(Error::from(ErrorKind::IsADirectory)));
        }
        #[expect(
            unsafe_code,
            reason = "a memory map is how a model larger than memory is uploaded without a second copy"
        )]
        // SAFETY: the map is read-only and private to this value. Another process that truncates the file meanwhile
        // would raise SIGBUS on access, as with every mapped file; no Rust value is made from the bytes that could
        // become invalid.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(file_error)?;
        Self::new(path.display().to_string(), Bytes::Mapped(Arc::new(map)))
    }

    /// A checkpoint that is part of the program.
    ///
    /// # Errors
    /// If the bytes are no file of safetensors or torch.
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self, CheckpointError> {
        Self::new(name.to_owned(), Bytes::Static(bytes))
    }

    /// A checkpoint in memory, of these tensors; of several of one name, the last.
    pub fn from_tensors(name: &str, tensors: &[(String, Tensor)]) -> Self {
        Self::new(name.to_owned(), Bytes::Owned(write::in_memory(tensors).into())).expect("what is written can be read")
    }

    fn new(name: String, bytes: Bytes) -> Result<Self, CheckpointError> {
        let all = bytes.all();
        let (container, tensors) = match torch::is_torch(all) {
            true => match torch::tensors(all) {
                Ok(tensors) => (Container::Torch, tensors),
                Err(reason) => return Err(CheckpointError::Torch { name, reason }),
            },
            false => match safetensors(all) {
                Ok(tensors) => (Container::Safetensors, tensors),
                Err(reason) => return Err(CheckpointError::Format { name, reason }),
            },
        };
        Ok(Self { name, container, files: vec![bytes], index: Index { tensors } })
    }

    /// Takes another's tensors in; those of one name take the place of this one's.
    fn absorb(&mut self, other: Self) {
        let files = self.files.len();
        let behind = |info: TensorInfo| TensorInfo { stored: info.stored.behind(files), ..info };
        self.index.tensors.extend(other.index.tensors.into_iter().map(|(name, info)| (name, behind(info))));
        self.files.extend(other.files);
    }

    /// This checkpoint with the tensors of another file, which say in what state sequences begin. Where this one has
    /// such tensors as well, the other's are taken.
    ///
    /// # Errors
    /// If the file has none.
    pub fn with_initial_state(mut self, state: Self) -> Result<Self, CheckpointError> {
        if state.index.is_empty() {
            return Err(CheckpointError::Contents { name: state.name, reason: "it holds no tensors".into() });
        }
        self.absorb(state);
        Ok(self)
    }

    /// The file's name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What kind of file it is; of all its shards.
    pub const fn container(&self) -> Container {
        self.container
    }

    /// What it holds.
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// The file that a tensor lies in.
    fn file(&self, stored: &Stored) -> &[u8] {
        self.files[stored.file].all()
    }

    /// A tensor's bytes, row by row: where they lie, or a copy of this tensor alone if they lie otherwise or something
    /// is added to them.
    pub fn bytes(&self, tensor: &str) -> Option<Cow<'_, [u8]>> {
        let info = self.index.get(tensor)?;
        Some(match (&info.stored_dtype, &info.dtype) {
            (Ok(stored), Ok(dtype)) if stored != dtype || !info.added.is_empty() => {
                Cow::Owned(self.merged(info, *stored, *dtype))
            }
            _ => info.stored.read(self.file(&info.stored), &info.shape),
        })
    }

    /// A tensor's bytes where they lie, for those who go on reading them when the checkpoint is gone; nothing if
    /// [`bytes`](Self::bytes) are a copy.
    pub fn shared(&self, tensor: &str) -> Option<SharedBytes> {
        let Cow::Borrowed(bytes) = self.bytes(tensor)? else { return None };
        let file = &self.files[self.index.get(tensor)?.stored.file];
        let start = bytes.as_ptr() as usize - file.all().as_ptr() as usize;
        Some(SharedBytes { file: file.clone(), range: start..start + bytes.len() })
    }

    /// A name for the weights: the first 64 bits of a SHA-256 over every name, shape and element type and over the ends
    /// of each tensor's bytes, and of those of what is added to it. Two models that differ only in the middle of every
    /// tensor would share it; trained ones do not.
    pub fn fingerprint(&self) -> String {
        const END_BYTES: usize = 256;
        let mut hasher = Sha256::new();
        let ends = |hasher: &mut Sha256, bytes: &[u8]| {
            hasher.update(&bytes[..bytes.len().min(END_BYTES)]);
            hasher.update(&bytes[bytes.len().saturating_sub(END_BYTES)..]);
        };
        for (name, info) in &self.index.tensors {
            hasher.update(format!("{name} {:?} {:?}\n", info.shape, info.dtype));
            ends(&mut hasher, &info.stored.read(self.file(&info.stored), &info.shape));
            for LowRank { down, up, scale_bits } in &info.added {
                hasher.update(format!("+ {scale_bits:08x}\n"));
                for matrix in [down, up] {
                    ends(&mut hasher, &matrix.stored.read(self.file(&matrix.stored), &matrix.shape));
                }
            }
        }
        hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// A copy of a tensor, or nothing if it is absent or of a type that graphc does not read.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        let info = self.index.get(name)?;
        let dtype = info.dtype.clone().ok()?;
        Some(Tensor { dtype, shape: info.shape.clone(), bytes: self.bytes(name)?.into_owned() })
    }
}

/// The one checkpoint of a folder: its index of shards, or its one file.
fn in_folder(folder: &Path) -> Result<PathBuf, Error> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.sort();
    let is_index = |path: &&PathBuf| path.to_string_lossy().ends_with(INDEX_ENDING);
    let is_file = |path: &&PathBuf| {
        path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| ENDINGS.contains(&ending))
    };
    let indices: Vec<&PathBuf> = files.iter().filter(is_index).collect();
    let found = if indices.is_empty() { files.iter().filter(is_file).collect() } else { indices };
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let reason = match found.as_slice() {
        [one] => return Ok((*one).clone()),
        [] => format!(
            "it is a directory without a checkpoint: no `*{INDEX_ENDING}`, no `*.{}`",
            ENDINGS.join("`, no `*.")
        ),
        [one, other, ..] => {
            format!("it is a directory of several checkpoints, name one: `{}`, `{}`", name(one), name(other))
        }
    };
    Err(Error::new(ErrorKind::IsADirectory, reason))
}

/// The tensors of a safetensors file.
fn safetensors(all: &[u8]) -> Result<BTreeMap<String, TensorInfo>, String> {
    let file = SafeTensors::deserialize(all).map_err(|error| explain(&error, all.len()))?;
    let mut tensors = BTreeMap::new();
    for (tensor, view) in file.iter() {
        let dtype = match view.dtype() {
            safetensors::Dtype::F32 => Ok(DType::F32),
            safetensors::Dtype::F16 => Ok(DType::F16),
            safetensors::Dtype::BF16 => Ok(DType::Bf16),
            other => Err(format!("{other:?}")),
        };
        let start = view.data().as_ptr() as usize - all.as_ptr() as usize;
        let element_bytes = dtype.as_ref().map_or(1, |dtype| dtype.size_bytes() as usize);
        let stored = Stored::contiguous(start..start + view.data().len(), element_bytes);
        let shape = view.shape().iter().map(|extent| *extent as u64).collect();
        tensors.insert(tensor.to_owned(), TensorInfo::new(dtype, shape, stored));
    }
    Ok(tensors)
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
