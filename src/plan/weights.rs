//! Where weights and state lie in a session's memory.
//!
//! Gets nothing by itself ([`lay_out`](crate::plan::lower::lay_out) and [`lower`](crate::plan::lower::lower) make these
//! from a model); returns buffers and the pieces in them. All plans of a session share one weight layout, named by a
//! hash, and one state layout. Weights never change, so they need no transitions. Never reads a checkpoint.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::dtype::DType;

/// Where every weight lies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightLayout {
    /// The buffers.
    pub buffers: Vec<WeightBuffer>,
    /// Every tensor, in the order in which it is uploaded.
    pub pieces: Vec<WeightPiece>,
}

/// A buffer of weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightBuffer {
    /// Name to print and to give the GPU object.
    pub label: String,
    /// Size in bytes, a multiple of four.
    pub size_bytes: u64,
    /// Set if the buffer packs small tensors: bytes of one record, a record per layer. An offset within a record is the
    /// same in every layer, so that one pipeline serves all of them and the record's base is the binding's offset.
    pub record_bytes: Option<u64>,
}

/// One tensor of the checkpoint in its buffer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightPiece {
    /// The tensor's name in the checkpoint.
    pub tensor: String,
    /// Index of its buffer.
    pub buffer: u32,
    /// Where it begins, a multiple of four.
    pub offset_bytes: u64,
    /// Its storage format, which is the checkpoint's own: nothing is converted on the way.
    pub dtype: DType,
    /// Number of elements.
    pub count: u64,
    /// Rows and columns as stored in the checkpoint, if the kernels want the matrix transposed, or each of a list.
    pub transpose: Option<(u64, u64)>,
}

impl WeightLayout {
    /// A name for this layout: the first 64 bits of a SHA-256 over every buffer and piece. A plan made for another
    /// layout has another hash.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for buffer in &self.buffers {
            hasher.update(format!("b {}\n", buffer.size_bytes));
        }
        for piece in &self.pieces {
            hasher.update(format!(
                "p {} {} {} {} {} {:?}\n",
                piece.tensor, piece.buffer, piece.offset_bytes, piece.dtype, piece.count, piece.transpose
            ));
        }
        hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Bytes of all buffers.
    pub fn size_bytes(&self) -> u64 {
        self.buffers.iter().map(|buffer| buffer.size_bytes).sum()
    }
}

/// Where every state tensor lies: one buffer each, so that a layer's write waits for that layer's reads alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateLayout {
    /// The buffers.
    pub buffers: Vec<StateBuffer>,
}

impl StateLayout {
    /// Whether a session of this layout has the state that plans of `other` expect: its first buffers are theirs. Steps
    /// that draw have more of them than the others of a graph, behind those, and all run in one session.
    pub fn begins_with(&self, other: &Self) -> bool {
        self.buffers.starts_with(&other.buffers)
    }
}

/// One state tensor: `rows` sequences of `row_shape` each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateBuffer {
    /// Its path, as in `wkv.3`.
    pub label: String,
    /// Element type.
    pub dtype: DType,
    /// How many sequences it holds.
    pub rows: u64,
    /// Shape of one sequence's state.
    pub row_shape: Vec<u64>,
    /// What every element is before the first token, as the bits of an `f32` (so that layouts can be compared).
    pub init_bits: u32,
    /// The weight whose elements are there instead, in every row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_weight: Option<StateWeight>,
    /// The usage in which steps expect it and leave it.
    pub rest: crate::plan::usage::Usage,
}

/// A tensor of the checkpoint that is a state before the first token, as f32, f16 or bf16.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateWeight {
    /// Its name in the checkpoint.
    pub tensor: String,
    /// Whether it lies with the last two axes of a row exchanged.
    pub transposed: bool,
}

impl StateBuffer {
    /// Elements of one row.
    pub fn row_count(&self) -> u64 {
        self.row_shape.iter().product()
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> u64 {
        self.dtype.storage_bytes(self.row_count())
    }

    /// Bytes of the buffer.
    pub fn size_bytes(&self) -> u64 {
        self.row_bytes() * self.rows
    }

    /// The bytes of one row before the first token, unless that is a weight.
    pub fn init_row(&self) -> Vec<u8> {
        let value = f32::from_bits(self.init_bits);
        let mut row: Vec<u8> = match self.dtype {
            DType::F32 => value.to_le_bytes().repeat(self.row_count() as usize),
            DType::F16 => half::f16::from_f32(value).to_le_bytes().repeat(self.row_count() as usize),
            DType::Bf16 => half::bf16::from_f32(value).to_le_bytes().repeat(self.row_count() as usize),
            DType::U32 => (value as u32).to_le_bytes().repeat(self.row_count() as usize),
        };
        row.resize(self.row_bytes() as usize, 0);
        row
    }
}
