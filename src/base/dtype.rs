//! Element types of tensors.
//!
//! Gets a name, returns its size and back; the names are those of graphs, manifests, listings and plans. Never says how
//! a kernel computes: arithmetic is f32 whatever the storage.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How one element of a tensor is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an `F32`.
    Bf16,
    /// Unsigned 32-bit integer.
    U32,
}

impl DType {
    /// Bytes of one element.
    pub const fn size_bytes(self) -> u64 {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Bytes of `count` elements in a buffer: whole 32-bit words, since that is what a shader reads.
    pub const fn storage_bytes(self, count: u64) -> u64 {
        (count * self.size_bytes()).div_ceil(4) * 4
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::U32 => "u32",
        })
    }
}
