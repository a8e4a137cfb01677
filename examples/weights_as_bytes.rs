//! Writes an RWKV-7 checkpoint whose large matrices are signed bytes, for the graph of `benches/levers/bytes`.
//!
//! Gets a checkpoint and a file name, writes safetensors. What then holds: of each matrix of [`MATRICES`], `[O, I]`,
//! there is `NAME.codes`, `[O, I / 4]`, words of four signed bytes, the lowest byte first, and `NAME.scales`,
//! `[O, I / 128]` rounded up, halves: what 128 columns of a row are multiplied by. An element is its code times its
//! scale, which is the largest of them over 127. Words are called F32, since of the types that checkpoints may have
//! that one is as long: nothing computes with such numbers. All other tensors are as they were. The matrix's own name
//! is left out, so that no other graph takes the file for one of its own. Never holds more than a matrix and all scales
//! in memory.
//!
//! ```sh
//! cargo run --release --example weights_as_bytes -- MODEL.safetensors OUT.safetensors
//! ```

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use graphc::base::dtype::DType;
use graphc::checkpoint::{Checkpoint, TensorInfo};
use graphc::tensor;
use serde_json::{Map, json};

/// Columns of a row that share a scale.
const BLOCK: usize = 128;

/// What becomes bytes, `{}` for the layer.
const MATRICES: [&str; 11] = [
    "blocks.{}.att.receptance.weight",
    "blocks.{}.att.key.weight",
    "blocks.{}.att.value.weight",
    "blocks.{}.att.output.weight",
    "blocks.{}.att.w1",
    "blocks.{}.att.a1",
    "blocks.{}.att.v1",
    "blocks.{}.att.g1",
    "blocks.{}.ffn.key.weight",
    "blocks.{}.ffn.value.weight",
    "head.weight",
];

/// The first of each low-rank pair, which files may hold as `[C, R]`.
const LOW_RANK: [&str; 4] = [".att.w1", ".att.a1", ".att.v1", ".att.g1"];

/// A matrix that becomes bytes.
struct Matrix<'a> {
    name: &'a str,
    rows: usize,
    columns: usize,
    dtype: DType,
    /// Whether the file has columns where rows are wanted.
    is_transposed: bool,
}

/// What is written, in the file's order: by the size of an element, so that each begins at a multiple of its own.
enum Part<'a> {
    Codes(Matrix<'a>),
    Scales(Matrix<'a>),
    Copy(&'a str, &'a TensorInfo, DType),
}

fn main() -> ExitCode {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = paths.as_slice() else {
        eprintln!("usage: weights_as_bytes MODEL.safetensors OUT.safetensors");
        return ExitCode::from(2);
    };
    let start = Instant::now();
    match convert(Path::new(from), Path::new(to)) {
        Ok((count, size_bytes)) => {
            let seconds = start.elapsed().as_secs_f64();
            println!("{to}: {count} matrices as bytes, {:.2} GB in {seconds:.1} s", size_bytes as f64 / 1e9);
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Writes the file; returns how many matrices became bytes, and how long the file is.
pub fn convert(from: &Path, to: &Path) -> Result<(usize, u64), String> {
    let checkpoint = Checkpoint::open(from).map_err(|error| error.to_string())?;
    let parts = parts(&checkpoint)?;
    // The file that is read is mapped, not copied.
    if from.canonicalize().is_ok_and(|from| to.canonicalize().is_ok_and(|to| from == to)) {
        return Err(format!("`{}` would be written over itself", to.display()));
    }
    let count = parts.iter().filter(|part| matches!(part, Part::Scales(_))).count();
    if count == 0 {
        return Err(format!("`{}` has none of the matrices of an RWKV-7 model", checkpoint.name()));
    }
    let written = File::create(to).and_then(|file| write(&checkpoint, &parts, BufWriter::new(file)));
    written.map(|size_bytes| (count, size_bytes)).map_err(|error| format!("cannot write `{}`: {error}", to.display()))
}

fn parts(checkpoint: &Checkpoint) -> Result<Vec<Part<'_>>, String> {
    let index = checkpoint.index();
    let width = index.get("emb.weight").and_then(|info| info.shape.last()).copied();
    let width = width.ok_or(format!("`{}` has no `emb.weight`", checkpoint.name()))?;
    let raw = LOW_RANK.iter().any(|ending| {
        let pairs = index.names().filter(|name| name.ends_with(ending)).filter_map(|name| index.get(name));
        pairs.map(squeezed).any(|shape| shape.first() == Some(&width) && shape.last() != Some(&width))
    });
    let mut parts = Vec::new();
    for name in index.names() {
        let info = index.get(name).expect("one of its names");
        let dtype = info.dtype.clone().map_err(|found| format!("`{name}` is {found}, expected f32, f16 or bf16"))?;
        if !is_matrix(name) {
            parts.push(Part::Copy(name, info, dtype));
            continue;
        }
        let is_transposed = raw && LOW_RANK.iter().any(|ending| name.ends_with(ending));
        let (rows, columns) = match squeezed(info)[..] {
            [rows, columns] if !is_transposed => (rows as usize, columns as usize),
            [columns, rows] => (rows as usize, columns as usize),
            _ => return Err(format!("`{name}` has the shape {:?}, expected rows and columns", info.shape)),
        };
        if columns % 8 != 0 {
            return Err(format!("`{name}` has {columns} columns, expected a multiple of 8"));
        }
        let matrix = || Matrix { name, rows, columns, dtype, is_transposed };
        parts.push(Part::Codes(matrix()));
        parts.push(Part::Scales(matrix()));
    }
    parts.sort_by_key(|part| Reverse(part.entry().1.size_bytes()));
    Ok(parts)
}

/// The extents of a tensor but for those of 1.
fn squeezed(info: &TensorInfo) -> Vec<u64> {
    info.shape.iter().copied().filter(|extent| *extent != 1).collect()
}

fn is_matrix(name: &str) -> bool {
    MATRICES.iter().any(|pattern| match pattern.split_once("{}") {
        None => name == *pattern,
        Some((before, after)) => name
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(|layer| layer.bytes().all(|byte| byte.is_ascii_digit())),
    })
}

impl Part<'_> {
    /// Its name, element type and shape in the file.
    fn entry(&self) -> (String, DType, Vec<u64>) {
        match self {
            Self::Codes(matrix) => {
                (format!("{}.codes", matrix.name), DType::F32, vec![matrix.rows as u64, matrix.columns as u64 / 4])
            }
            Self::Scales(matrix) => {
                let blocks = matrix.columns.div_ceil(BLOCK) as u64;
                (format!("{}.scales", matrix.name), DType::F16, vec![matrix.rows as u64, blocks])
            }
            Self::Copy(name, info, dtype) => ((*name).to_owned(), *dtype, info.shape.clone()),
        }
    }
}

fn write(checkpoint: &Checkpoint, parts: &[Part<'_>], mut out: impl Write) -> std::io::Result<u64> {
    let mut map = Map::from_iter([("__metadata__".to_owned(), json!({"format": "pt"}))]);
    let mut end = 0;
    for (name, dtype, shape) in parts.iter().map(Part::entry) {
        let begin = end;
        end += shape.iter().product::<u64>() * dtype.size_bytes();
        let kind = dtype.to_string().to_uppercase();
        map.insert(name, json!({"dtype": kind, "shape": shape, "data_offsets": [begin, end]}));
    }
    let mut header = serde_json::to_vec(&map)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    // Codes come before scales, whose elements are shorter, so scales wait here: a 64th of the codes.
    let mut scales = BTreeMap::new();
    for part in parts {
        match part {
            Part::Codes(matrix) => {
                scales.insert(matrix.name, write_codes(checkpoint, matrix, &mut out)?);
            }
            Part::Scales(matrix) => out.write_all(&scales.remove(matrix.name).expect("codes come first"))?,
            Part::Copy(name, ..) => out.write_all(&checkpoint.bytes(name).expect("one of its names"))?,
        }
    }
    out.flush()?;
    Ok(8 + header.len() as u64 + end)
}

/// Writes the codes of a matrix, row by row; returns its scales.
fn write_codes(checkpoint: &Checkpoint, matrix: &Matrix<'_>, out: &mut impl Write) -> std::io::Result<Vec<u8>> {
    let mut bytes = checkpoint.bytes(matrix.name).expect("one of its names");
    let size = matrix.dtype.size_bytes() as usize;
    if matrix.is_transposed {
        let elements = (0..matrix.rows * matrix.columns).flat_map(|at| {
            let from = (at % matrix.columns * matrix.rows + at / matrix.columns) * size;
            bytes[from..from + size].iter().copied()
        });
        bytes = Cow::Owned(elements.collect());
    }
    let mut scales = Vec::with_capacity(matrix.rows * matrix.columns.div_ceil(BLOCK));
    let mut codes = Vec::with_capacity(matrix.columns);
    for row in bytes.chunks_exact(matrix.columns * size) {
        codes.clear();
        for block in tensor::to_f32(matrix.dtype, row).chunks(BLOCK) {
            let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            // Codes are for the scale as the file has it.
            let scale = tensor::from_f32(DType::F16, &[largest / 127.0]);
            let stored = tensor::to_f32(DType::F16, &scale)[0];
            let inverse = if stored > 0.0 { 1.0 / stored } else { 0.0 };
            codes.extend(block.iter().map(|value| code(value * inverse)));
            scales.extend(scale);
        }
        out.write_all(&codes)?;
    }
    Ok(scales)
}

/// The nearest whole number of at most 127 as the byte that it is.
fn code(value: f32) -> u8 {
    // From 2^23 to 2^24 floats are whole, so the addition rounds, and leaves the number in the lowest bits. Without
    // instructions of its own a processor rounds by a call.
    const WHOLE: f32 = 12_582_912.0;
    (value.clamp(-127.0, 127.0) + WHOLE).to_bits() as u8
}
