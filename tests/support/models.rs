//! Random checkpoints of RWKV-4 to 7.
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

/// Dimensions of a model; the embedding width is `heads * head_size`, also where there are no heads.
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
    /// Rank of the decay adapter, of RWKV-7 and 6.
    pub rank_w: usize,
    /// Rank of the in-context learning rate adapter; of RWKV-6's adapter of the token shift.
    pub rank_a: usize,
    /// Rank of the value mix adapter.
    pub rank_v: usize,
    /// Rank of the gate adapter.
    pub rank_g: usize,
}

impl Shape {
    /// Two layers; heads and their channels, the width of the channel mix, the vocabulary, ranks w, a, v and g.
    pub const fn of_two_layers([heads, head_size]: [usize; 2], ffn: usize, vocab: usize, ranks: [usize; 4]) -> Self {
        let [rank_w, rank_a, rank_v, rank_g] = ranks;
        Self { layers: 2, heads, head_size, ffn, vocab, rank_w, rank_a, rank_v, rank_g }
    }

    /// Embedding width.
    pub const fn width(&self) -> usize {
        self.heads * self.head_size
    }
}

/// Which architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A mean of values per channel.
    V4,
    /// A state matrix a head, no gate, one decay and one bonus a head, the bonus as a logarithm.
    V5_0,
    /// With a gate, the bonus as it is.
    V5_1,
    /// A decay and a bonus for each channel.
    V5_2,
    /// Decay and token shift that depend on the token.
    V6,
    /// The delta rule.
    V7,
}

impl Version {
    /// All of them, by the names of their graphs.
    pub const ALL: [(&'static str, Self); 6] = [
        ("rwkv4", Self::V4),
        ("rwkv5.0", Self::V5_0),
        ("rwkv5.1", Self::V5_1),
        ("rwkv5.2", Self::V5_2),
        ("rwkv6", Self::V6),
        ("rwkv7", Self::V7),
    ];
}

/// Which way round the low-rank matrices lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[out, in]`, as the usual conversion to safetensors leaves them.
    Converted,
    /// `[in, out]`, as in a `.pth` file, with the names that tensors have there.
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
    /// Whether vectors are `[C]` instead of `[1, 1, C]`, and numbers for each head `[H]` instead of `[H, 1]`.
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

/// Writes a random RWKV-7 model; returns the file's size in bytes.
///
/// # Errors
/// If the file cannot be written.
pub fn write_model(path: &Path, shape: &Shape, seed: u64, format: &Format) -> io::Result<u64> {
    write_version(path, Version::V7, shape, seed, format)
}

/// Writes a random model of any version; returns the file's size in bytes.
///
/// # Errors
/// If the file cannot be written.
pub fn write_version(path: &Path, version: Version, shape: &Shape, seed: u64, format: &Format) -> io::Result<u64> {
    let specs = specs(version, shape, format);
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
    /// Name after the usual conversion, which also seeds the values.
    name: String,
    /// Name in the file.
    stored: String,
    /// Shape in the file.
    shape: Vec<usize>,
    fill: Fill,
    /// Whether the file holds the transpose of the `[out, in]` matrix that is generated, or of each of a list.
    transposed: bool,
}

impl Spec {
    fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// All tensors in file order.
fn specs(version: Version, shape: &Shape, format: &Format) -> Vec<Spec> {
    let width = shape.width();
    let mut list = List { specs: Vec::new(), width, version, format: *format };
    list.matrix("emb.weight", [shape.vocab, width], (width as f32).sqrt());
    list.norm("blocks.0.ln0", 1.0);
    for layer in 0..shape.layers {
        match version {
            Version::V7 => list.block(layer, shape),
            _ => list.elder_block(layer, shape),
        }
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
    version: Version,
    format: Format,
}

impl List {
    /// The tensors of one block.
    ///
    /// The gains make each branch of the formula comparable with what it is added to: adapters as large as their bias,
    /// a bonus as large as the normalised output. `w0` covers both the channels that forget within a few tokens and
    /// those that keep for hundreds.
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
        for (name, gain) in [("receptance", 1.0), ("key", 1.0), ("value", 1.0), ("output", branch_gain(shape.layers))] {
            self.matrix(&format!("{att}.{name}.weight"), [width, width], gain);
        }
        self.norm(&format!("{att}.ln_x"), 0.75);
        self.vector(&format!("blocks.{layer}.ffn.x_k"), Fill::Uniform { low: -0.1, high: 1.1 });
        self.matrix(&format!("blocks.{layer}.ffn.key.weight"), [ffn, width], 1.0);
        self.matrix(&format!("blocks.{layer}.ffn.value.weight"), [width, ffn], branch_gain(shape.layers));
    }

    /// The tensors of one block of RWKV-4 to 6. Decays reach from what is forgotten at once to what stays for a hundred
    /// tokens, and bonuses weigh as much as the state.
    fn elder_block(&mut self, layer: usize, shape: &Shape) {
        let (width, ffn, version) = (self.width, shape.ffn, self.version);
        let att = format!("blocks.{layer}.att");
        let has_gate = !matches!(version, Version::V4 | Version::V5_0);
        self.norm(&format!("blocks.{layer}.ln1"), 1.0);
        self.norm(&format!("blocks.{layer}.ln2"), 1.0);
        let mixes: &[&str] = match version {
            Version::V6 => &["x", "w", "k", "v", "r", "g"],
            _ if has_gate => &["k", "v", "r", "g"],
            _ => &["k", "v", "r"],
        };
        for mix in mixes {
            self.vector(&format!("{att}.time_mix_{mix}"), Fill::Uniform { low: -0.1, high: 1.1 });
        }
        let (decays, firsts) = (Fill::Uniform { low: -4.5, high: 0.5 }, Fill::Normal { mean: 0.3, deviation: 0.6 });
        let channels = match version {
            Version::V4 => vec![width],
            Version::V5_0 | Version::V5_1 if self.format.squeeze => vec![shape.heads],
            Version::V5_0 | Version::V5_1 => vec![shape.heads, 1],
            _ => vec![shape.heads, shape.head_size],
        };
        match version {
            Version::V6 => self.vector(&format!("{att}.time_decay"), decays),
            _ => self.push(format!("{att}.time_decay"), channels.clone(), decays, false),
        }
        self.push(format!("{att}.time_first"), channels, firsts, false);
        if version == Version::V6 {
            let raw = self.format.layout == Layout::Raw;
            let rank = shape.rank_a;
            let fill =
                |columns: usize, gain: f32| Fill::Normal { mean: 0.0, deviation: gain / (columns as f32).sqrt() };
            let swapped = |[rows, columns]: [usize; 2]| if raw { vec![columns, rows] } else { vec![rows, columns] };
            self.push(format!("{att}.time_mix_w1"), swapped([5 * rank, width]), fill(width, 1.0), raw);
            let up = [vec![5], swapped([width, rank])].concat();
            self.push(format!("{att}.time_mix_w2"), up, fill(rank, 0.3), raw);
            self.adapter(&format!("{att}.time_decay_w"), shape.rank_w, 0.5);
        }
        for (name, gain) in [("receptance", 1.0), ("key", 1.0), ("value", 1.0), ("output", branch_gain(shape.layers))] {
            self.matrix(&format!("{att}.{name}.weight"), [width, width], gain);
        }
        if has_gate {
            self.matrix(&format!("{att}.gate.weight"), [width, width], 2.0);
        }
        if version != Version::V4 {
            self.norm(&format!("{att}.ln_x"), 0.75);
        }
        for mix in ["k", "r"] {
            self.vector(&format!("blocks.{layer}.ffn.time_mix_{mix}"), Fill::Uniform { low: -0.1, high: 1.1 });
        }
        self.matrix(&format!("blocks.{layer}.ffn.key.weight"), [ffn, width], 1.0);
        self.matrix(&format!("blocks.{layer}.ffn.receptance.weight"), [width, width], 1.0);
        self.matrix(&format!("blocks.{layer}.ffn.value.weight"), [width, ffn], branch_gain(shape.layers));
    }

    fn push(&mut self, name: String, shape: Vec<usize>, fill: Fill, transposed: bool) {
        let raw = self.format.layout == Layout::Raw;
        let stored = match self.version {
            Version::V6 if raw => name.replace("time_mix_", "time_maa_").replace("time_first", "time_faaaa"),
            Version::V5_1 | Version::V5_2 if raw => name.replace("time_first", "time_faaaa"),
            _ => name.clone(),
        };
        self.specs.push(Spec { name, stored, shape, fill, transposed });
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

/// The gain of what ends a branch, which is added to a residual stream that starts at 1: 0.7 of three layers or fewer.
///
/// All branches of a deep model together add what those of three layers do, as in trained models, whose streams grow
/// slowly. With 0.7 at every depth each layer multiplies what rounding has changed by 1.5, since norms of the heads
/// divide by sums that cancel: after 24 layers two orders of summation gave logits 5e-3 of the largest apart, with this
/// gain 5e-7.
fn branch_gain(layers: usize) -> f32 {
    0.7 * (3.0 / layers as f32).min(1.0)
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
            spec.stored, spec.shape
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
        let [.., rows, columns] = spec.shape[..] else { panic!("`{}` is no matrix", spec.name) };
        let mut generated = vec![[0; SIZE]; spec.count()];
        draw(rng, table, &mut generated);
        for matrix in generated.chunks_exact(rows * columns) {
            for row in 0..rows {
                for column in 0..columns {
                    file.write_all(&matrix[column * rows + row])?;
                }
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
