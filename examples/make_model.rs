//! Writes a random model of RWKV-4 to 7 for benchmarks: sizes and timing are those of a real one, the text is not.
//!
//! Gets a file name and a shape, writes safetensors. What then holds: the same flags give the same bytes. Never holds
//! the model in memory.
//!
//! ```sh
//! cargo run --release --example make_model -- OUT.safetensors --layers 24 --heads 32 --head-size 64 --vocab 65536 \
//!     --ranks 96,96,64,256 --dtype f16 --seed 1
//! ```

#[path = "../tests/support/models.rs"]
mod models;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

use graphc::base::dtype::DType;
use models::{Format, Layout, Shape, Version, write_version};

const USAGE: &str = "usage: make_model OUT.safetensors [--version rwkv7] [--layers 24] [--heads 32] [--head-size 64] \
    [--ffn 4C] [--vocab 65536] [--ranks W,A,V,G|DECAY,SHIFT] [--dtype f16|f32|bf16] [--layout converted|raw] \
    [--block0-v] [--squeeze] [--seed 1]";

struct Request {
    path: PathBuf,
    version: Version,
    shape: Shape,
    seed: u64,
    format: Format,
}

fn main() -> ExitCode {
    let request = match parse(std::env::args().skip(1)) {
        Ok(request) => request,
        Err(message) => {
            eprintln!("{message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let start = Instant::now();
    match write_version(&request.path, request.version, &request.shape, request.seed, &request.format) {
        Ok(size_bytes) => {
            let seconds = start.elapsed().as_secs_f64();
            println!("{}: {:.2} GB in {seconds:.1} s", request.path.display(), size_bytes as f64 / 1e9);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot write `{}`: {error}", request.path.display());
            ExitCode::from(2)
        }
    }
}

/// Reads the flags; what is left out is as in the published model of 1.5 billion parameters.
fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Request, String> {
    let (mut path, mut version) = (None, Version::V7);
    let mut shape = Shape {
        layers: 24,
        heads: 32,
        head_size: 64,
        ffn: 0,
        vocab: 65536,
        rank_w: 96,
        rank_a: 96,
        rank_v: 64,
        rank_g: 256,
    };
    let mut seed = 1;
    let mut format = Format::converted(DType::F16);
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("`{flag}` needs a value"));
        match flag.as_str() {
            "--version" => version = named_version(&value()?)?,
            "--layers" => shape.layers = size(&value()?)?,
            "--heads" => shape.heads = size(&value()?)?,
            "--head-size" => shape.head_size = size(&value()?)?,
            "--ffn" => shape.ffn = size(&value()?)?,
            "--vocab" => shape.vocab = size(&value()?)?,
            "--ranks" => {
                let ranks = value()?.split(',').map(size).collect::<Result<Vec<_>, _>>()?;
                match ranks[..] {
                    [w, a, v, g] => {
                        (shape.rank_w, shape.rank_a, shape.rank_v, shape.rank_g) = (w, a, v, g);
                    }
                    [decay, shift] => (shape.rank_w, shape.rank_a) = (decay, shift),
                    _ => return Err("expected four ranks, w,a,v,g, or two of rwkv6: decay,shift".to_owned()),
                }
            }
            "--dtype" => format.dtype = dtype(&value()?)?,
            "--layout" => format.layout = layout(&value()?)?,
            "--block0-v" => format.block0_v = true,
            "--squeeze" => format.squeeze = true,
            "--seed" => seed = number(&value()?)?,
            other if other.starts_with('-') => return Err(format!("unknown flag `{other}`")),
            _ if path.is_none() => path = Some(PathBuf::from(flag)),
            other => return Err(format!("unexpected `{other}`")),
        }
    }
    if shape.ffn == 0 {
        shape.ffn = 4 * shape.width();
    }
    Ok(Request { path: path.ok_or("a file name is missing")?, version, shape, seed, format })
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("expected a number, found `{text}`"))
}

fn size(text: &str) -> Result<usize, String> {
    number(text).and_then(|size| if size == 0 { Err("a size is at least 1".to_owned()) } else { Ok(size) })
}

/// A version by the name of its graph, or without `rwkv`.
fn named_version(text: &str) -> Result<Version, String> {
    let found = Version::ALL.into_iter().find(|(name, _)| *name == text || name.strip_prefix("rwkv") == Some(text));
    let known = Version::ALL.map(|(name, _)| name).join(", ");
    found.map(|(_, version)| version).ok_or(format!("unknown version `{text}`, expected one of {known}"))
}

fn dtype(text: &str) -> Result<DType, String> {
    let types = [DType::F16, DType::F32, DType::Bf16];
    types.into_iter().find(|dtype| dtype.to_string() == text).ok_or(format!("unknown element type `{text}`"))
}

fn layout(text: &str) -> Result<Layout, String> {
    match text {
        "converted" => Ok(Layout::Converted),
        "raw" => Ok(Layout::Raw),
        other => Err(format!("unknown layout `{other}`")),
    }
}
