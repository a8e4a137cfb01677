//! `graphc bench`: how fast a model runs, and how fast it could.

use clap::Args;

use crate::cli::executor::{self, Chosen, ExecutorChoice};
use crate::cli::input::Input;
use crate::cli::{Failure, Format, ModelArgs, input, print_result};
use crate::compile::{Compiler, Program};
use crate::exec::Executor;
use crate::exec::hal::HalOptions;
use crate::exec::reference::ReferenceOptions;
use crate::exec::wgpu::{WgpuBackend, WgpuOptions};
use crate::inspect::bench::{BenchOptions, Report, bench};

/// The built-in graph of the streaming read.
const STREAM_GRAPH: &str = "tools/bandwidth";

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
    /// Tokens of the prompt
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65536))]
    prefill: u32,
    /// Tokens to decode in a round
    #[arg(long, value_name = "TOKENS", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65536))]
    decode: u32,
    /// Rounds, of which the median is taken; one more is run before
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(args: BenchArgs) -> Result<(), Failure> {
    let input = input::read(&args.model)?;

    let options = BenchOptions { prefill_tokens: args.prefill, decode_tokens: args.decode, rounds: args.rounds };
    // Nothing is checked along the way, in debug builds either: that would be measured, too.
    let hal = HalOptions { track: false, validation_layers: false, dropped: None };
    let wgpu = WgpuOptions { backend: WgpuBackend::Native, track: false, validation_layers: false };
    let reference = ReferenceOptions { track: false, ..ReferenceOptions::new() };
    let report = match executor::choose(args.executor, args.device.as_deref(), &hal, &wgpu, &reference)? {
        Chosen::Hal(executor) => measure(&executor, "hal", &input, &args.model, &options)?,
        Chosen::Wgpu(executor) => measure(&executor, "wgpu", &input, &args.model, &options)?,
        Chosen::Reference(executor) => measure(&executor, "reference", &input, &args.model, &options)?,
    };
    print_result(&match args.format {
        Format::Text => table(&report),
        Format::Json => serde_json::to_string_pretty(&report).expect("a report is plain data") + "\n",
    })
}

fn measure<E: Executor>(
    executor: &E,
    name: &str,
    input: &Input,
    flags: &ModelArgs,
    options: &BenchOptions,
) -> Result<Report, Failure> {
    let limits = &executor.device().limits;
    let index = input.checkpoint.index();
    let Input { sources, graph, kernels, rules, .. } = input;
    let keep = flags.keep.as_slice();
    let (batch_invariant, fuse) = (flags.batch_invariant, rules.as_ref());
    let model = Compiler { graph, kernels, sources, index, limits, keep, batch_invariant, draws: false, fuse };
    // The program's own kernels, whatever folders were named; the graph has no weights, so that any checkpoint will do.
    let tool = Program::built_in(STREAM_GRAPH)?;
    let stream = tool.compiler(index, limits);
    Ok(bench(executor, name, model, &stream, &input.checkpoint, options)?)
}

/// The report for readers.
fn table(report: &Report) -> String {
    let gpu = report.gpu_us_per_step.map_or_else(|| "unknown".to_owned(), |us| format!("{us:.1} us a step"));
    let rows = [
        ("graph", report.graph.clone()),
        ("device", format!("{} ({})", report.device, report.driver)),
        ("executor", report.executor.clone()),
        ("plan", {
            let Report { dispatches, levels, barriers, .. } = report;
            format!("{dispatches} dispatches, {levels} levels, {barriers} barriers a step")
        }),
        ("prefill", format!("{:.1} tokens/s, {} tokens", report.prefill_tokens_per_s, report.prefill_tokens)),
        ("decode", format!("{:.1} tokens/s, the host waits for each", report.decode_tokens_per_s)),
        ("queued", format!("{:.1} tokens/s, two steps in flight", report.decode_queued_tokens_per_s)),
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
            format!("{:.1} GB/s, {mib:.1} MiB of weights a token", report.bandwidth_gb_per_s)
        }),
        ("share", format!("{:.3} of the bandwidth, queued", report.bandwidth_share)),
        ("rounds", format!("{} of {} decoded tokens each, medians", report.rounds, report.decode_tokens)),
    ];
    rows.iter().map(|(name, value)| format!("{name:<10}{value}\n")).collect()
}
