//! The command line.
//!
//! Gets arguments, returns an exit code: 0 fine, 1 diagnostics, 2 flags or environment. Results go to stdout alone,
//! everything else to stderr. Flags are typed here and given their meaning in the file of their subcommand. Never
//! decides what a stage does.

mod answer;
mod bench;
mod bisect;
mod cache;
mod chat;
mod check;
mod compile;
mod convert;
mod devices;
mod diff;
mod dump;
mod executor;
mod explain;
mod files;
mod fmt;
mod input;
mod log_sink;
mod perplexity;
mod plans;
mod prompts;
mod run;
mod sampling;
mod text;
mod tune;
mod tuning;
mod verify;
mod weights;

use std::fmt::Display;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::base::diag::{self, Diagnostic};
use crate::base::span::SourceMap;
use crate::checkpoint::CheckpointError;

/// Compiles RWKV models, written as RON graphs over WGSL kernels, into exact GPU command streams, and replays them.
#[derive(Parser, Debug)]
#[command(name = "graphc", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a model on a prompt and print what it says
    Run(Box<run::RunArgs>),
    /// Measure how well a model foretells a text: bits per byte, and perplexity
    Perplexity(Box<perplexity::PerplexityArgs>),
    /// Compile a model for one step size and print any stage of it
    Compile(compile::CompileArgs),
    /// Explain one thing of a plan: why a barrier stands, where a value lives, what a command waits for
    Explain(Box<explain::ExplainArgs>),
    /// Compare two plans, or one with a budget
    Diff(Box<diff::DiffArgs>),
    /// Check graphs and kernels: every diagnostic and lint
    Check(check::CheckArgs),
    /// Write a checkpoint of any kind as one safetensors file, by the names that graphs know
    Convert(convert::ConvertArgs),
    /// Measure how fast a model runs, and how fast the device could
    Bench(bench::BenchArgs),
    /// Measure what kernels leave open inside the real step, and keep what is fastest for this device
    Tune(Box<tune::TuneArgs>),
    /// Prove a plan by experiment: executors agree, its transitions are sufficient, and each is necessary
    Verify(verify::VerifyArgs),
    /// Run two configurations side by side, and find the first value that parts
    Bisect(Box<bisect::BisectArgs>),
    /// Lay out graphs and manifests in the canonical way
    Fmt(fmt::FmtArgs),
    /// List devices, and which executors can use them
    Devices(devices::DevicesArgs),
}

/// Where graph, kernels and weights come from.
#[derive(Args, Debug, Clone)]
struct ModelArgs {
    /// The graph: a file, or the name of one that is built in [default: found by the checkpoint's tensor names]
    graph: Option<String>,
    /// The checkpoint: a file of safetensors or torch (.pth), an index of shards (.index.json), or the folder of one
    /// [default: the small model built into the program]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    adapt: weights::AdaptArgs,
    /// Begin in the trained states of this file instead of the checkpoint's own or the graph's initial ones
    #[arg(long, value_name = "FILE")]
    state_init: Option<PathBuf>,
    /// Read graphs from this folder instead of those built in
    #[arg(long, value_name = "DIR")]
    graphs: Option<PathBuf>,
    /// Read kernels from this folder instead of those built in
    #[arg(long, value_name = "DIR")]
    shaders: Option<PathBuf>,
    /// Run kernels of `--shaders` that say `unchecked: true` without checks, as those built in: what such a kernel
    /// indexes
    /// is its author's word
    #[arg(long, requires = "shaders")]
    trust_kernels: bool,
    /// Make this value an output, by its path as in layer3.wkv (may be repeated)
    #[arg(long, value_name = "VALUE")]
    keep: Vec<String>,
    /// Only take variants of kernels whose order of summation does not depend on the size of a step, so that a
    /// sequence's numbers are the same, bit for bit, whatever runs beside it
    #[arg(long)]
    batch_invariant: bool,
    /// Put ops together by the rewrite rules, and maps into the ops around them, or compile the graph as it is written;
    /// no-copies leaves out rules that take copies of weights, a quarter of a large model, to save time
    #[arg(long, value_enum, default_value_t = Fuse::On)]
    fuse: Fuse,
    /// Give one of the graph's settings, numbers that no checkpoint tells, another value, as in gn_eps=1e-5 (may be
    /// repeated)
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, f64)>,
    /// Take what this file chooses where kernels leave something open, or `none` what their manifests do [default: what
    /// `tune` has kept for the device that plans are for]
    #[arg(long, value_name = "FILE|none")]
    tuning: Option<PathBuf>,
}

#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Fuse {
    #[default]
    On,
    /// By those rules alone that take no copies of weights: slower steps, less memory.
    NoCopies,
    Off,
}

impl Fuse {
    /// Whether rules may take copies of weights.
    fn takes_copies(self) -> bool {
        self != Self::NoCopies
    }
}

/// `NAME=VALUE`.
fn setting(text: &str) -> Result<(String, f64), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let number = value.parse().map_err(|_| format!("expected a number behind `{name}=`, found `{value}`"))?;
    Ok((name.to_owned(), number))
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

/// Why a command stopped.
#[derive(Debug)]
enum Failure {
    /// Something is wrong with an input: exit code 1. The text is complete.
    Diagnostics(String),
    /// Flags or environment: exit code 2.
    Environment(String),
}

impl Failure {
    fn environment(error: impl Display) -> Self {
        Self::Environment(error.to_string())
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        match &error {
            // A shard that is not there fails as a file does, whatever named it.
            CheckpointError::File { .. } => Self::environment(error),
            CheckpointError::Shard { source, .. } if matches!(**source, CheckpointError::File { .. }) => {
                Self::environment(error)
            }
            _ => Self::Diagnostics(format!("error: {error}\n")),
        }
    }
}

impl From<crate::sources::ReadError> for Failure {
    fn from(error: crate::sources::ReadError) -> Self {
        Self::environment(error)
    }
}

impl From<crate::exec::ExecError> for Failure {
    fn from(error: crate::exec::ExecError) -> Self {
        match error {
            // A plan that does what it must not is wrong input, whoever made it.
            crate::exec::ExecError::Usage { .. } => Self::Diagnostics(format!("error: {error}\n")),
            other => Self::environment(other),
        }
    }
}

impl From<crate::compile::CompileError> for Failure {
    fn from(error: crate::compile::CompileError) -> Self {
        match error {
            crate::compile::CompileError::Wrong { rendered, in_colour, .. } => {
                Self::Diagnostics(if wants_colour() { in_colour } else { rendered })
            }
            other => Self::Diagnostics(format!("error: {other}\n")),
        }
    }
}

impl From<crate::generate::GenerateError> for Failure {
    fn from(error: crate::generate::GenerateError) -> Self {
        match error {
            crate::generate::GenerateError::Compile(error) => error.into(),
            crate::generate::GenerateError::Exec(error) => error.into(),
            other => Self::Diagnostics(format!("error: {other}\n")),
        }
    }
}

/// Whether what goes to stderr is coloured: if that is a terminal and `NO_COLOR` is not set.
fn wants_colour() -> bool {
    let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !is_unwanted
}

/// Diagnostics as they go to stderr.
fn rendered(diagnostics: &[Diagnostic], sources: &SourceMap) -> String {
    match wants_colour() {
        true => diag::render_in_colour(diagnostics, sources),
        false => diag::render(diagnostics, sources),
    }
}

fn cannot_print(error: &std::io::Error) -> Failure {
    Failure::Environment(format!("cannot write to the standard output: {error}"))
}

/// Prints a result. Whoever closes the pipe early has seen enough: that is no failure of the program's.
fn print_result(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(cannot_print(&error)),
        _ => Ok(()),
    }
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let result = match cli.command {
        Command::Run(args) => run::run(*args),
        Command::Perplexity(args) => perplexity::run(&args),
        Command::Compile(args) => compile::run(args),
        Command::Explain(args) => explain::run(*args),
        Command::Diff(args) => diff::run(*args),
        Command::Check(args) => check::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Tune(args) => tune::run(&args),
        Command::Verify(args) => verify::run(args),
        Command::Bisect(args) => bisect::run(*args),
        Command::Fmt(args) => fmt::run(args),
        Command::Devices(args) => devices::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Diagnostics(text)) => {
            eprint!("{text}");
            ExitCode::from(1)
        }
        Err(Failure::Environment(text)) => {
            eprintln!("error: {text}");
            ExitCode::from(2)
        }
    }
}
