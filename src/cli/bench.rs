//! `graphc bench`: how fast a model runs, how fast it could, and where the time goes.

use std::path::PathBuf;

use clap::Args;

use crate::cli::cache::CacheArgs;
use crate::cli::compile::json;
use crate::cli::executor::{self, Chosen, ExecutorChoice};
use crate::cli::input::Input;
use crate::cli::{Failure, Format, ModelArgs, files, input, print_result, tuning};
use crate::compile::{Compiler, Program};
use crate::exec::Executor;
use crate::exec::hal::HalOptions;
use crate::exec::reference::ReferenceOptions;
use crate::exec::wgpu::{WgpuBackend, WgpuOptions};
use crate::inspect::bench::results::Results;
use crate::inspect::bench::{BenchOptions, Report, bench};
use crate::inspect::profile::{self, ProfileOptions, Profiled, profile};
use crate::kernel::tuning::Tuning;

/// The built-in graph of the streaming read.
const STREAM_GRAPH: &str = "tools/bandwidth";

/// Tokens of a step.
const MAX_TOKENS: u64 = 65535;

#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// What runs the plan
    #[arg(long, value_enum, default_value_t = ExecutorChoice::Auto)]
    executor: ExecutorChoice,
    /// Use the first device with this in its name
    #[arg(long, value_name = "SUBSTRING")]
    device: Option<String>,
    #[command(flatten)]
    cache: CacheArgs,
    /// Tokens of the prompt
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65536))]
    prefill: u32,
    /// Tokens to decode in a round
    #[arg(long, value_name = "TOKENS", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65536))]
    decode: u32,
    /// Sequences to decode at once; rates are those of all together
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    sequences: u32,
    /// Rounds, of which the median is taken; one more is run before
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Time a step level by level and command by command instead, and print where its time goes
    #[arg(long)]
    profile: bool,
    /// Tokens of each sequence of the step that is profiled [default: 1, which is decoding]
    #[arg(long, value_name = "T", requires = "profile", value_parser = clap::value_parser!(u32).range(1..=65535))]
    profile_tokens: Option<u32>,
    /// Write the profile to this file, as JSON; `compile --roofline=FILE` reads it
    #[arg(long, value_name = "FILE", requires = "profile")]
    profile_json: Option<PathBuf>,
    /// Write some steps of the profile to this file, for trace viewers such as Perfetto
    #[arg(long, value_name = "FILE", requires = "profile")]
    trace: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(args: BenchArgs) -> Result<(), Failure> {
    let tokens = args.profile_tokens.unwrap_or(1);
    if u64::from(tokens) * u64::from(args.sequences) > MAX_TOKENS {
        let message = format!(
            "`--profile-tokens {tokens}` of each of {} sequences: a step has at most {MAX_TOKENS} tokens",
            args.sequences
        );
        return Err(Failure::Environment(message));
    }
    let mut input = input::read(&args.model)?;
    // Nothing is checked along the way, in debug builds either: that would be measured, too.
    let hal = HalOptions { track: false, validation_layers: false, dropped: None };
    let wgpu = WgpuOptions { backend: WgpuBackend::Native, track: false, validation_layers: false };
    let reference = ReferenceOptions { track: false, ..ReferenceOptions::new() };
    let mut chosen = executor::choose(args.executor, args.device.as_deref(), &hal, &wgpu, &reference)?;
    let kept = args.cache.give(&mut chosen);
    let (asked, device) = (args.model.tuning.as_deref(), Some(chosen.device()));
    let tuning = tuning::read(asked, device, &input.kernels, &mut input.sources)?;
    let tuning = tuning.as_ref();
    match &chosen {
        Chosen::Hal(executor) => run_on(executor, "hal", (&input, tuning), &args),
        Chosen::Wgpu(executor) => run_on(executor, "wgpu", (&input, tuning), &args),
        Chosen::Reference(executor) => run_on(executor, "reference", (&input, tuning), &args),
    }?;
    kept.keep(&chosen);
    Ok(())
}

fn run_on<E: Executor>(
    executor: &E,
    name: &str,
    (input, tuning): (&Input, Option<&Tuning>),
    args: &BenchArgs,
) -> Result<(), Failure> {
    let limits = &executor.device().limits;
    let index = input.checkpoint.index();
    let Input { sources, graph, kernels, rules, checkpoint, .. } = input;
    let (keep, batch_invariant) = (args.model.keep.as_slice(), args.model.batch_invariant);
    let fuse = rules.as_ref();
    let (draws, copies) = (false, args.model.fuse.takes_copies());
    let model = Compiler { graph, kernels, sources, index, limits, keep, batch_invariant, draws, tuning, fuse, copies };
    // The program's own kernels, whatever folders were named; the graph has no weights, so that any checkpoint will do.
    let tool = Program::built_in(STREAM_GRAPH)?;
    let stream = tool.compiler(index, limits);
    let BenchArgs { prefill, decode, rounds, sequences, .. } = *args;
    if args.profile {
        let options = ProfileOptions { sequences, tokens: args.profile_tokens.unwrap_or(1), rounds };
        return show(&profile(executor, name, model, &stream, checkpoint, &options)?, args);
    }
    let options = BenchOptions { prefill_tokens: prefill, decode_tokens: decode, sequences, rounds };
    let report = bench(executor, name, model, &stream, checkpoint, &options)?;
    print_result(&match args.format {
        Format::Text => table(&report),
        Format::Json => json(&report),
    })?;
    match report.results.is_none_or(|results| results.are_right) {
        true => Ok(()),
        false => {
            let message = "error: the plans measured compute something else than those of `--fuse off`\n";
            Err(Failure::Diagnostics(message.to_owned()))
        }
    }
}

/// Writes the files that were asked for, and prints the profile.
fn show(profiled: &Profiled, args: &BenchArgs) -> Result<(), Failure> {
    if let Some(path) = &args.profile_json {
        files::write(path, json(&profiled.profile).as_bytes())?;
    }
    if let Some(path) = &args.trace {
        files::write(path, json(&profile::trace(profiled)).as_bytes())?;
    }
    print_result(&match args.format {
        Format::Text => profile::table(&profiled.profile),
        Format::Json => json(&profiled.profile),
    })
}

/// The report for readers.
fn table(report: &Report) -> String {
    let gpu = report.gpu_us_per_step.map_or_else(|| "unknown".to_owned(), |us| format!("{us:.1} us a step"));
    let together = match report.sequences {
        1 => String::new(),
        sequences => format!(", {sequences} sequences together"),
    };
    let rows = [
        ("graph", report.graph.clone()),
        ("device", format!("{} ({})", report.device, report.driver)),
        ("executor", report.executor.clone()),
        ("tuning", report.tuning.clone().unwrap_or_else(|| "none".to_owned())),
        ("plan", {
            let Report { dispatches, levels, barriers, .. } = report;
            format!("{dispatches} dispatches, {levels} levels, {barriers} barriers a step")
        }),
        ("prefill", format!("{:.1} tokens/s, {} tokens", report.prefill_tokens_per_s, report.prefill_tokens)),
        ("decode", format!("{:.1} tokens/s, the host waits for each{together}", report.decode_tokens_per_s)),
        ("queued", format!("{:.1} tokens/s, two steps in flight{together}", report.decode_queued_tokens_per_s)),
        ("carried", {
            let rate = report.decode_carried_tokens_per_s;
            rate.map_or_else(
                || "no steps that draw".to_owned(),
                |rate| format!("{rate:.1} tokens/s, drawn by the steps"),
            )
        }),
        ("CPU", format!("{:.1} us a step", report.cpu_us_per_step)),
        ("GPU", gpu),
        ("memory", {
            let mib = report.weight_bytes_per_token as f64 / f64::from(1 << 20);
            format!("{:.1} GB/s, {mib:.1} MiB of weights a step", report.bandwidth_gb_per_s)
        }),
        ("share", format!("{:.3} of the bandwidth, queued", report.bandwidth_share)),
        ("results", report.results.as_ref().map_or_else(|| "not compared: nothing is fused".to_owned(), compared)),
        ("rounds", format!("{} of {} decoded tokens each, medians", report.rounds, report.decode_tokens)),
    ];
    rows.iter().map(|(name, value)| format!("{name:<10}{value}\n")).collect()
}

/// How far results are from those of the graph as it is written.
fn compared(results: &Results) -> String {
    let Results { rows, greedy_tokens_equal, .. } = results;
    let how_far = match (results.fuse_off_difference, results.median_difference, results.largest_logit) {
        (Some(difference), Some(median), Some(largest)) => {
            let relation = if results.are_right { "within" } else { "WRONG: up to" };
            let side = if results.are_right { "of" } else { "from" };
            format!("{relation} {difference:.1e} {side} --fuse off, median {median:.1e} (largest logit {largest:.1})")
        }
        _ => "not those of --fuse off: logits that are no numbers".to_owned(),
    };
    let drawn = results.drawn_tokens.zip(results.drawn_tokens_equal);
    let drawn = drawn.map_or_else(String::new, |(all, equal)| format!(", drawn ones in {equal} of {all}"));
    let rounding = results.reordered_difference.map_or_else(String::new, |difference| {
        format!("; --fuse off summed in another order is up to {difference:.1e} from itself")
    });
    format!("{how_far}, greedy tokens equal in {greedy_tokens_equal} of {rows}{drawn}{rounding}")
}
