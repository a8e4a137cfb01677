//! `graphc convert`: a checkpoint of any kind as one safetensors file.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::base::dtype::DType;
use crate::checkpoint::write::{WriteError, WriteOptions, write};
use crate::cli::weights::{self, AdaptArgs};
use crate::cli::{Failure, files};

/// Bytes that are written at once.
const BUFFER_BYTES: usize = 1 << 20;

#[derive(Args, Debug)]
pub(super) struct ConvertArgs {
    /// A file of safetensors or torch (.pth), an index of shards (.index.json), or the folder of one
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The safetensors file to write
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Element type of all tensors [default: that of each]
    #[arg(long, value_enum, value_name = "DTYPE")]
    dtype: Option<Dtype>,
    /// Keep the names that tensors have in IN, which other programs may expect
    #[arg(long)]
    keep_names: bool,
    /// Write over a file that is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    adapt: AdaptArgs,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Dtype {
    F16,
    Bf16,
    F32,
}

impl From<Dtype> for DType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::Bf16,
            Dtype::F32 => Self::F32,
        }
    }
}

pub(super) fn run(args: ConvertArgs) -> Result<(), Failure> {
    let output = args.output.display();
    let is_file = std::fs::metadata(&args.output).is_ok_and(|found| found.is_file());
    if is_file && !args.force {
        return Err(Failure::Environment(format!("`{output}` is there already; `--force` writes over it")));
    }
    let checkpoint = weights::open(Some(&args.input), Some(&args.adapt))?;
    if checkpoint.index().is_empty() {
        return Err(Failure::Diagnostics(format!("error: `{}` holds no tensors\n", checkpoint.name())));
    }
    let options = WriteOptions { dtype: args.dtype.map(DType::from), stored_names: args.keep_names };
    let bytes = files::write_with(&args.output, |file| {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
        let bytes = write(&checkpoint, options, &mut out).map_err(|error| match error {
            WriteError::Io(error) => files::cannot_write(&args.output, &error),
            wrong => Failure::Diagnostics(format!("error: `{}`: {wrong}\n", checkpoint.name())),
        })?;
        out.flush().map_err(|error| files::cannot_write(&args.output, &error))?;
        Ok(bytes)
    })?;
    let count = checkpoint.index().len();
    eprintln!("wrote `{output}`: {count} tensors, {:.1} MiB", bytes as f64 / f64::from(1 << 20));
    Ok(())
}
