//! `graphc perplexity`: how well a model foretells a text.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::cli::cache::CacheArgs;
use crate::cli::executor::{self, Chosen, ExecutorChoice};
use crate::cli::plans::{self, Source};
use crate::cli::run::{DEMO_TEXT_BOUNDARY, Kept, open};
use crate::cli::{Failure, ModelArgs, files, print_result, text};
use crate::exec::Executor;
use crate::exec::hal::HalOptions;
use crate::exec::reference::ReferenceOptions;
use crate::exec::wgpu::{WgpuBackend, WgpuOptions};
use crate::generate::perplexity::{Surprise, measure};
use crate::generate::{GenerateError, STEP_TOKENS};

/// More text than anyone waits for: a bound on what is read into memory.
const MAX_TEXT_BYTES: u64 = 1 << 30;

#[derive(Args, Debug)]
pub(super) struct PerplexityArgs {
    /// The text
    file: PathBuf,
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
    /// Feed this token before the text, so that the text's first counts too [default: 0 for the built-in model, and
    /// where the vocabulary has no bytes for 0, as that of World models; none otherwise]
    #[arg(long, value_name = "ID")]
    start_token: Option<u32>,
    /// The text of each token, as for `run`
    #[arg(long, value_name = "FILE")]
    vocabulary: Option<PathBuf>,
    /// Run the text in steps of this many tokens
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=4096))]
    step_tokens: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Serialize)]
struct Report {
    bits_per_byte: f64,
    /// Per token.
    perplexity: f64,
    nats: f64,
    /// The tokens that count, and the bytes they stand for.
    tokens: u64,
    bytes: u64,
    start_token: Option<u32>,
}

pub(super) fn run(args: &PerplexityArgs) -> Result<(), Failure> {
    if !args.model.keep.is_empty() {
        return Err(Failure::Environment("`--keep` is for `run` and `compile`: nothing is kept here".into()));
    }
    let mut input = plans::read(&args.model, &[], args.step_tokens)?;
    input.check_rows(Some("`perplexity`"))?;
    // A model of no known size cannot be run, and running says why.
    let size = input.vocabulary();
    let given = args.vocabulary.as_deref().map(|path| text::from_file(path, size)).transpose()?;
    let text = files::read_text(&args.file, "a text", MAX_TEXT_BYTES)?;
    let wrong = |message| Failure::Diagnostics(format!("error: `{}`: {message}\n", args.file.display()));
    let tokens = text::tokenize(&text, given.as_ref(), size).map_err(wrong)?;
    let vocabulary = given.as_ref().or_else(|| text::built_in(size?));
    let end_of_text = || if input.is_demo { Some(DEMO_TEXT_BOUNDARY) } else { vocabulary?.end_of_text() };
    let start = args.start_token.or_else(end_of_text);
    if let (Some(token), Some(vocabulary)) = (start, size)
        && u64::from(token) >= vocabulary
    {
        return Err(GenerateError::Token { token, at: 0, vocabulary }.into());
    }
    // What nothing comes before is not foretold.
    let unscored = tokens.first().filter(|_| start.is_none());
    let skipped = unscored.and_then(|token| vocabulary?.bytes(*token)).map_or(0, <[u8]>::len);
    let tokens: Vec<u32> = start.into_iter().chain(tokens).collect();
    if tokens.len() < 2 {
        let reason = "a single token, and nothing before it that could foretell it; give a `--start-token`";
        return Err(wrong(reason.into()));
    }
    let hal = HalOptions { track: cfg!(debug_assertions), validation_layers: false, dropped: None };
    let wgpu = WgpuOptions { backend: WgpuBackend::Native, track: cfg!(debug_assertions), validation_layers: false };
    let reference = ReferenceOptions::new();
    let mut chosen = executor::choose(args.executor, args.device.as_deref(), &hal, &wgpu, &reference)?;
    let cache = args.cache.give(&mut chosen);
    let tuning = input.tuning(args.model.tuning.as_deref(), Some(chosen.device()))?;
    let kept = Kept {
        keep: &args.model.keep,
        batch_invariant: args.model.batch_invariant,
        copies: args.model.fuse.takes_copies(),
        draws: false,
        tuning: tuning.as_ref(),
    };
    let surprise = match &chosen {
        Chosen::Hal(executor) => surprise(executor, args, (&input, kept), &tokens)?,
        Chosen::Wgpu(executor) => surprise(executor, args, (&input, kept), &tokens)?,
        Chosen::Reference(executor) => surprise(executor, args, (&input, kept), &tokens)?,
    };
    cache.keep(&chosen);
    let bytes = (text.len() - skipped) as u64;
    let (bits_per_byte, perplexity) = (surprise.bits_per_byte(bytes), surprise.perplexity());
    let Surprise { tokens, nats } = surprise;
    let report = Report { bits_per_byte, perplexity, nats, tokens, bytes, start_token: start };
    print_result(&if args.json { json(&report) } else { table(&report) })
}

fn surprise<E: Executor>(
    executor: &E,
    args: &PerplexityArgs,
    (input, kept): (&Source, Kept<'_>),
    tokens: &[u32],
) -> Result<Surprise, Failure> {
    let sizes = args.step_tokens.map_or_else(|| STEP_TOKENS.to_vec(), |size| vec![size]);
    let limits = executor.device().limits.clone();
    let mut batch = open(executor, input, kept, &limits, (1, sizes))?;
    let bar = match std::io::stderr().is_terminal() {
        true => indicatif::ProgressBar::new(tokens.len() as u64 - 1),
        false => indicatif::ProgressBar::hidden(),
    };
    let surprise = measure(&mut batch, tokens, &mut |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    Ok(surprise?)
}

fn json(report: &Report) -> String {
    serde_json::to_string(report).expect("a report is plain data") + "\n"
}

fn table(report: &Report) -> String {
    let Report { bits_per_byte, perplexity, tokens, bytes, start_token, .. } = report;
    let behind = match start_token {
        Some(token) => format!("behind token {token}"),
        None => "behind the first, which nothing foretells".into(),
    };
    format!(
        "{bits_per_byte:.5} bits per byte, {bytes} bytes\n{perplexity:.4} perplexity of a token, {tokens} tokens \
         {behind}\n"
    )
}
