//! Random RWKV-7 checkpoints.
//!
//! Gets a shape, a seed and a file format, writes a safetensors file. What then holds: every term of the formula moves
//! the logits, values stay bounded over hundreds of tokens, and the values depend on the seed and the tensor's name
//! alone, so the same seed in another format is the same model. Never holds more than one small tensor in memory:
//! multi-gigabyte files are streamed.

#![allow(dead_code, reason = "each test binary uses a different part of the support modules")]

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use graphc::base::dtype::DType;
use half::{bf16, f16};

/// Dimensions of an RWKV-7 model; the embedding width is `heads * head_size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of blocks.
    pub layers: usize,
    /// Heads of a block.
    pub heads: usize,
    /// Channels of a head.
    pub head_size: usize,
    /// Width of the channel mix.
    pub ffn: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// Rank of the decay adapter.
    pub rank_w: usize,
    /// Rank of the in-context learning rate adapter.
    pub rank_a: usize,
    /// Rank of the value mix adapter.
    pub rank_v: usize,
    /// Rank of the gate adapter.
    pub rank_g: usize,
}

impl Shape {
    /// Embedding width.
    pub const fn width(&self) -> usize {
        self.heads * self.head_size
    }
}

/// Which way round the low-rank matrices lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[out, in]`, as the usual conversion to safetensors leaves them.
    Converted,
    /// `[in, out]`, as in a `.pth` file.
    Raw,
}

/// How a model is stored; its values do not depend on it, but for the rounding to `dtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Element type of every tensor: `f32`, `f16` or `bf16`.
    pub dtype: DType,
    /// Orientation of the low-rank matrices.
    pub layout: Layout,
    /// Whether block 0 has the `v0`, `v1` and `v2` that take no part in its computation.
    pub block0_v: bool,
    /// Whether vectors are `[C]` instead of `[1, 1, C]`.
    pub squeeze: bool,
}

impl Format {
    /// What the usual conversion gives, in this element type.
    pub const fn converted(dtype: DType) -> Self {
        Self { dtype, layout: Layout::Converted, block0_v: false, squeeze: false }
    }

    /// What a `.pth` file holds, in this element type.
    pub const fn raw(dtype: DType) -> Self {
        Self { dtype, layout: Layout::Raw, block0_v: true, squeeze: false }
    }
}

/// Writes a random model; returns the file's size in bytes.
///
/// # Errors
/// If the file cannot be written.
pub fn write_model(path: &Path, shape: &Shape, seed: u64, format: &Format) -> io::Result<u64> {
    let specs = specs(shape, format);
    let header = header(&specs, format.dtype);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let mut size_bytes = 8 + header.len() as u64;
    for spec in &specs {
        let mut rng = fastrand::Rng::with_seed(seed_of(seed, &spec.name));
        match format.dtype {
            DType::F32 => write_tensor(&mut file, spec, &mut rng, f32::to_le_bytes)?,
            DType::F16 => write_tensor(&mut file, spec, &mut rng, |value| f16::from_f32(value).to_le_bytes())?,
            DType::Bf16 => write_tensor(&mut file, spec, &mut rng, |value| bf16::from_f32(value).to_le_bytes())?,
            DType::U32 => panic!("weights are no integers"),
        }
        size_bytes += spec.count() as u64 * format.dtype.size_bytes();
    }
    file.flush()?;
    Ok(size_bytes)
}

/// Distribution of a tensor's elements.
#[derive(Clone, Copy, Debug)]
enum Fill {
    Normal { mean: f32, deviation: f32 },
    Uniform { low: f32, high: f32 },
}

/// One tensor to write.
#[derive(Debug)]
struct Spec {
    name: String,
    /// Shape in the file.
    shape: Vec<usize>,
    fill: Fill,
    /// Whether the file holds the transpose of the `[out, in]` matrix that is generated.
    transposed: bool,
}

impl Spec {
    fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// All tensors in file order.
fn specs(shape: &Shape, format: &Format) -> Vec<Spec> {
    let width = shape.width();
    let mut list = List { specs: Vec::new(), width, format: *format };
    list.matrix("emb.weight", [shape.vocab, width], (width as f32).sqrt());
    list.norm("blocks.0.ln0", 1.0);
    for layer in 0..shape.layers {
        list.block(layer, shape);
    }
    list.norm("ln_out", 1.0);
    // Logits with a deviation of 2.5: their range is then about 20, as in trained models.
    list.matrix("head.weight", [shape.vocab, width], 2.5);
    list.specs
}

/// A growing list of tensors.
struct List {
    specs: Vec<Spec>,
    width: usize,
    format: Format,
}

impl List {
    /// The tensors of one block.
    ///
    /// The gains make each branch of the formula comparable with what it is added to: adapters as large as their bias,
    /// a bonus as large as the normalised output, and branches that add 0.5 to 1 to a residual stream that starts at 1.
    /// `w0` covers both the channels that forget within a few tokens and those that keep for hundreds.
    fn block(&mut self, layer: usize, shape: &Shape) {
        let (width, ffn) = (self.width, shape.ffn);
        let att = format!("blocks.{layer}.att");
        self.norm(&format!("blocks.{layer}.ln1"), 1.0);
        self.norm(&format!("blocks.{layer}.ln2"), 1.0);
        for mix in ["x_r", "x_w", "x_k", "x_v", "x_a", "x_g"] {
            self.vector(&format!("{att}.{mix}"), Fill::Uniform { low: -0.1, high: 1.1 });
        }
        self.vector(&format!("{att}.w0"), Fill::Normal { mean: -2.5, deviation: 2.0 });
        self.vector(&format!("{att}.a0"), Fill::Normal { mean: 0.0, deviation: 1.0 });
        self.vector(&format!("{att}.k_k"), Fill::Normal { mean: 0.85, deviation: 0.2 });
        self.vector(&format!("{att}.k_a"), Fill::Normal { mean: 1.0, deviation: 0.2 });
        self.push(
            format!("{att}.r_k"),
            vec![shape.heads, shape.head_size],
            Fill::Normal { mean: 0.0, deviation: 0.3 },
            false,
        );
        self.adapter(&format!("{att}.w"), shape.rank_w, 1.0);
        self.adapter(&format!("{att}.a"), shape.rank_a, 1.0);
        self.adapter(&format!("{att}.g"), shape.rank_g, 2.0);
        if layer > 0 || self.format.block0_v {
            self.vector(&format!("{att}.v0"), Fill::Normal { mean: 0.0, deviation: 1.0 });
            self.adapter(&format!("{att}.v"), shape.rank_v, 1.0);
        }
        for (name, gain) in [("receptance", 1.0), ("key", 1.0), ("value", 1.0), ("output", 0.7)] {
            self.matrix(&format!("{att}.{name}.weight"), [width, width], gain);
        }
        self.norm(&format!("{att}.ln_x"), 0.75);
        self.vector(&format!("blocks.{layer}.ffn.x_k"), Fill::Uniform { low: -0.1, high: 1.1 });
        self.matrix(&format!("blocks.{layer}.ffn.key.weight"), [ffn, width], 1.0);
        self.matrix(&format!("blocks.{layer}.ffn.value.weight"), [width, ffn], 0.7);
    }

    fn push(&mut self, name: String, shape: Vec<usize>, fill: Fill, transposed: bool) {
        self.specs.push(Spec { name, shape, fill, transposed });
    }

    /// A matrix that turns inputs of deviation 1 into outputs of deviation `gain`.
    fn matrix(&mut self, name: &str, [rows, columns]: [usize; 2], gain: f32) {
        let fill = Fill::Normal { mean: 0.0, deviation: gain / (columns as f32).sqrt() };
        self.push(name.to_owned(), vec![rows, columns], fill, false);
    }

    /// The two matrices of an adapter, whose names are `name` followed by 1 and 2.
    fn adapter(&mut self, name: &str, rank: usize, gain: f32) {
        let raw = self.format.layout == Layout::Raw;
        for (suffix, [rows, columns], gain) in [(1, [rank, self.width], 1.0), (2, [self.width, rank], gain)] {
            let fill = Fill::Normal { mean: 0.0, deviation: gain / (columns as f32).sqrt() };
            let shape = if raw { vec![columns, rows] } else { vec![rows, columns] };
            self.push(format!("{name}{suffix}"), shape, fill, raw);
        }
    }

    /// A per-channel parameter, which checkpoints keep with two axes of one.
    fn vector(&mut self, name: &str, fill: Fill) {
        let shape = if self.format.squeeze { vec![self.width] } else { vec![1, 1, self.width] };
        self.push(name.to_owned(), shape, fill, false);
    }

    /// Weight and bias of a norm, the weights around `mean`.
    fn norm(&mut self, name: &str, mean: f32) {
        let weight = Fill::Uniform { low: mean - 0.5, high: mean + 0.5 };
        self.push(format!("{name}.weight"), vec![self.width], weight, false);
        self.push(format!("{name}.bias"), vec![self.width], Fill::Normal { mean: 0.0, deviation: 0.1 }, false);
    }
}

/// The JSON header, padded so that the data begins at a multiple of 8 bytes.
fn header(specs: &[Spec], dtype: DType) -> String {
    let dtype_name = match dtype {
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::Bf16 => "BF16",
        DType::U32 => "U32",
    };
    let mut header = String::from(r#"{"__metadata__":{"format":"pt"}"#);
    let mut start = 0;
    for spec in specs {
        let end = start + spec.count() as u64 * dtype.size_bytes();
        // The debug form of a plain name and of a list of integers is JSON.
        header += &format!(
            r#",{:?}:{{"dtype":"{dtype_name}","shape":{:?},"data_offsets":[{start},{end}]}}"#,
            spec.name, spec.shape
        );
        start = end;
    }
    header.push('}');
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    header
}

/// A seed for each tensor (FNV-1a over its name), so that leaving one tensor out does not change the next.
fn seed_of(seed: u64, name: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    name.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Random bits of one element, an index into a table of 2^12 encoded values.
///
/// Converting each element to `f16` would be most of the time of a large model; looking it up costs next to nothing,
/// and 4096 different values are plenty for sums over hundreds of them.
const TABLE_BITS: usize = 12;
const TABLE_LEN: usize = 1 << TABLE_BITS;
/// Elements drawn from one 64-bit random number.
const PER_DRAW: usize = 64 / TABLE_BITS;
/// Elements written at a time, a multiple of [`PER_DRAW`] so that chunks do not change the values.
const CHUNK: usize = PER_DRAW << 16;

fn write_tensor<const SIZE: usize>(
    file: &mut impl Write,
    spec: &Spec,
    rng: &mut fastrand::Rng,
    encode: impl Fn(f32) -> [u8; SIZE],
) -> io::Result<()> {
    let table: Vec<[u8; SIZE]> = table(spec.fill).into_iter().map(encode).collect();
    let table: &[[u8; SIZE]; TABLE_LEN] = table.first_chunk().expect("a full table");
    if spec.transposed {
        let [rows, columns] = spec.shape[..] else { panic!("`{}` is no matrix", spec.name) };
        let mut generated = vec![[0; SIZE]; rows * columns];
        draw(rng, table, &mut generated);
        for row in 0..rows {
            for column in 0..columns {
                file.write_all(&generated[column * rows + row])?;
            }
        }
        return Ok(());
    }
    let mut chunk = vec![[0; SIZE]; spec.count().min(CHUNK)];
    let mut left = spec.count();
    while left > 0 {
        let part = &mut chunk[..left.min(CHUNK)];
        draw(rng, table, part);
        file.write_all(part.as_flattened())?;
        left -= part.len();
    }
    Ok(())
}

fn draw<const SIZE: usize>(rng: &mut fastrand::Rng, table: &[[u8; SIZE]; TABLE_LEN], out: &mut [[u8; SIZE]]) {
    for few in out.chunks_mut(PER_DRAW) {
        let mut bits = rng.u64(..);
        for slot in few {
            *slot = table[bits as usize % TABLE_LEN];
            bits >>= TABLE_BITS;
        }
    }
}

/// Values whose uniform choice has the distribution.
fn table(fill: Fill) -> Vec<f32> {
    match fill {
        Fill::Uniform { low, high } => {
            (0..TABLE_LEN).map(|at| low + (high - low) * ((at as f32 + 0.5) / TABLE_LEN as f32)).collect()
        }
        Fill::Normal { mean, deviation } => standard_normal().iter().map(|value| mean + deviation * value).collect(),
    }
}

/// A sample of the standard normal distribution of mean 0 and deviation 1 (Box-Muller, and the negative of each value).
fn standard_normal() -> &'static [f32] {
    static SAMPLE: std::sync::LazyLock<Vec<f32>> = std::sync::LazyLock::new(|| {
        let mut rng = fastrand::Rng::with_seed(0);
        let half: Vec<f64> = (0..TABLE_LEN / 2)
            .map(|_| (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos())
            .collect();
        let deviation = (half.iter().map(|value| value * value).sum::<f64>() / half.len() as f64).sqrt();
        half.iter().flat_map(|value| [(value / deviation) as f32, (-value / deviation) as f32]).collect()
    });
    &SAMPLE
}
