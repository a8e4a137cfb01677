//! `graphc tune`: measures what kernels leave open, and keeps what is fastest.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::cli::compile::json;
use crate::cli::executor::{self, Chosen, ExecutorChoice};
use crate::cli::input::Input;
use crate::cli::{Failure, Format, ModelArgs, files, input, print_result, tuning};
use crate::compile::Compiler;
use crate::exec::Executor;
use crate::exec::hal::HalOptions;
use crate::exec::reference::ReferenceOptions;
use crate::exec::wgpu::{WgpuBackend, WgpuOptions};
use crate::inspect::tune::{Step, Trial, TuneOptions, Tuned, tune};
use crate::kernel::tuning::Tuning;

/// Tokens of a step.
const MAX_TOKENS: u64 = 65535;

#[derive(Args, Debug)]
pub(super) struct TuneArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// What runs the steps
    #[arg(long, value_enum, default_value_t = ExecutorChoice::Auto)]
    executor: ExecutorChoice,
    /// Use the first device with this in its name
    #[arg(long, value_name = "SUBSTRING")]
    device: Option<String>,
    /// Tokens of each sequence, of each step to tune, as in 1,64; 1 is decoding
    #[arg(long, value_name = "T,…", default_value = "1", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=65535))]
    tokens: Vec<u32>,
    /// Sequences of a step
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    sequences: u32,
    /// Rounds of each candidate, of which the median is taken
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Write the choices to this file [default: a file of the device in the user's cache folder, which from then on
    /// counts wherever plans are compiled for the device]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How to print what was tried
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Report<'a> {
    device: &'a str,
    driver: &'a str,
    executor: &'a str,
    rounds: u32,
    trials: &'a [Trial],
    steps: &'a [Step],
    file: String,
    choices: usize,
}

pub(super) fn run(args: &TuneArgs) -> Result<(), Failure> {
    let sequences = u64::from(args.sequences);
    if let Some(tokens) = args.tokens.iter().find(|tokens| u64::from(**tokens) * sequences > MAX_TOKENS) {
        let message = format!("`--tokens {tokens}` of each of {sequences} sequences: a step has at most {MAX_TOKENS}");
        return Err(Failure::Environment(message));
    }
    if !args.model.keep.is_empty() {
        return Err(Failure::Environment("`--keep` is for `run` and `compile`: nothing is kept here".into()));
    }
    if args.model.batch_invariant {
        let message = "`--batch-invariant` is not tuned for: choices that change the order of a sum do not count there";
        return Err(Failure::Environment(message.into()));
    }
    let mut input = input::read(&args.model)?;
    let hal = HalOptions { track: false, validation_layers: false, dropped: None };
    let wgpu = WgpuOptions { backend: WgpuBackend::Native, track: false, validation_layers: false };
    let reference = ReferenceOptions { track: false, ..ReferenceOptions::new() };
    let chosen = executor::choose(args.executor, args.device.as_deref(), &hal, &wgpu, &reference)?;
    let device = chosen.device();
    let Some(path) = args.output.clone().or_else(|| tuning::own_file(device)) else {
        return Err(Failure::Environment("there is no cache folder to keep the choices in: give `-o FILE`".into()));
    };
    // Whatever it is written to, what is there for other uses stays: a device runs more than one model.
    let (asked, kernels) = (args.model.tuning.as_deref(), &input.kernels);
    let before = tuning::read(asked, Some(device), kernels, &mut input.sources)?;
    match &chosen {
        Chosen::Hal(executor) => run_on(executor, "hal", (&input, before.as_ref()), &path, args),
        Chosen::Wgpu(executor) => run_on(executor, "wgpu", (&input, before.as_ref()), &path, args),
        Chosen::Reference(executor) => run_on(executor, "reference", (&input, before.as_ref()), &path, args),
    }
}

fn run_on<E: Executor>(
    executor: &E,
    name: &str,
    (input, before): (&Input, Option<&Tuning>),
    path: &Path,
    args: &TuneArgs,
) -> Result<(), Failure> {
    let limits = &executor.device().limits;
    let Input { sources, graph, kernels, rules, checkpoint, .. } = input;
    let compiler = Compiler {
        graph,
        kernels,
        sources,
        index: checkpoint.index(),
        limits,
        keep: &[],
        batch_invariant: false,
        draws: false,
        tuning: before,
        fuse: rules.as_ref(),
        copies: args.model.fuse.takes_copies(),
    };
    let options = TuneOptions { tokens: args.tokens.clone(), sequences: args.sequences, rounds: args.rounds };
    let bar = match std::io::stderr().is_terminal() {
        true => indicatif::ProgressBar::new_spinner(),
        false => indicatif::ProgressBar::hidden(),
    };
    let tuned = tune(executor, compiler, checkpoint, &options, &mut |trial| bar.set_message(line(trial)));
    bar.finish_and_clear();
    let tuned = tuned?;
    if let Some(folder) = path.parent().filter(|_| args.output.is_none()) {
        std::fs::create_dir_all(folder).map_err(|error| files::cannot_write(path, &error))?;
    }
    files::write(path, tuned.tuning.print().as_bytes())?;
    let Tuned { tuning, trials, steps } = &tuned;
    let (file, choices) = (path.display().to_string(), tuning.choices.len());
    print_result(&match args.format {
        Format::Text => table(&tuned, &file),
        Format::Json => {
            let (device, driver, rounds) = (&tuning.device, &tuning.driver, args.rounds);
            json(&Report { device, driver, executor: name, rounds, trials, steps, file, choices })
        }
    })
}

/// A candidate in a line.
fn line(trial: &Trial) -> String {
    let Trial { tokens, kernel, at, change, ratio, .. } = trial;
    format!("{tokens} tokens, {kernel} at {at}: {change}: {ratio:.3}")
}

/// What was tried, for readers.
fn table(tuned: &Tuned, file: &str) -> String {
    let Tuned { tuning, trials, steps } = tuned;
    let mut rows = vec![["tokens", "kernel", "ops", "at", "change", "ratio", "noise", ""].map(str::to_owned)];
    rows.extend(trials.iter().map(|trial| {
        let Trial { tokens, kernel, at, ops, change, ratio, noise, kept } = trial;
        let kept = if *kept { "kept" } else { "" };
        let (tokens, ops) = (tokens.to_string(), ops.to_string());
        let (ratio, noise) = (format!("{ratio:.4}"), format!("{noise:.4}"));
        [tokens, kernel.clone(), ops, at.clone(), change.clone(), ratio, noise, kept.to_owned()]
    }));
    let widths: Vec<usize> =
        (0..rows[0].len()).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    let padded = |row: &[String; 8]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let mut text: String = rows.iter().map(padded).collect();
    for Step { tokens, before_us, after_us, ratio, noise, kept } in steps {
        let verdict = match kept {
            true => "",
            false => ": nothing is kept for it",
        };
        let times = format!("{before_us:.1} us before, {after_us:.1} us after");
        text += &format!("{tokens} tokens a sequence: {times}, {ratio:.4} (noise {noise:.4}){verdict}\n");
    }
    text + &format!("{} choices in `{file}`\n", tuning.choices.len())
}
