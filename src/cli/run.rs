//! `graphc run`: a prompt in, text out.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use crate::base::limits::Limits;
use crate::base::role::OutputRole;
use crate::base::step::StepShape;
use crate::cli::executor::{self, Chosen, ExecutorChoice};
use crate::cli::input::Input;
use crate::cli::{Failure, ModelArgs, input, log_sink};
use crate::compile::Compiler;
use crate::exec::hal::HalOptions;
use crate::exec::replay::Dropped;
use crate::exec::wgpu::{WgpuBackend, WgpuOptions};
use crate::exec::{CpuCost, DeviceInfo, Executor, Session, Weights};
use crate::generate::sample::Sampler;
use crate::generate::text::{BYTE_VOCABULARY, Utf8Stream, bytes_to_tokens};
use crate::generate::{Decoder, Rows, STEP_TOKENS};
use crate::tensor::Tensor;

/// The token with which the built-in model's texts begin and end.
const DEMO_TEXT_BOUNDARY: u32 = 0;

/// More prompt than anyone means to give: a bound on what is read into memory.
const MAX_PROMPT_BYTES: u64 = 64 << 20;

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The text to go on from
    #[arg(long, value_name = "TEXT", group = "given")]
    prompt: Option<String>,
    /// The text to go on from, in a file
    #[arg(long, value_name = "FILE", group = "given")]
    prompt_file: Option<PathBuf>,
    /// The tokens to go on from, as in 1,2,3
    #[arg(long, value_name = "IDS", group = "given", value_delimiter = ',')]
    tokens: Option<Vec<u32>>,
    /// How many tokens to generate; 0 only processes the prompt
    #[arg(short, value_name = "N", default_value_t = 200)]
    n: u32,
    /// What runs the plan
    #[arg(long, value_enum, default_value_t = ExecutorChoice::Auto)]
    executor: ExecutorChoice,
    /// Use the first device with this in its name
    #[arg(long, value_name = "SUBSTRING")]
    device: Option<String>,
    /// 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.8, value_parser = non_negative, allow_negative_numbers = true)]
    temperature: f32,
    /// Draw from the likeliest tokens that have this much of the probability
    #[arg(long, value_name = "P", default_value_t = 0.9, value_parser = probability, allow_negative_numbers = true)]
    top_p: f32,
    /// The same seed draws the same text
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Write the prompt's logits, f32 [rows, V], and kept values of its last step to a safetensors file
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// Logits of every position of the prompt, not of the last alone
    #[arg(long, requires = "logits")]
    all_positions: bool,
    /// Run the prompt in steps of this many tokens
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=4096))]
    step_tokens: Option<u32>,
    /// Print token ids instead of text
    #[arg(long)]
    print_tokens: bool,
    /// Feed this token before the prompt [default: 0 for the built-in model, none otherwise]
    #[arg(long, value_name = "ID")]
    start_token: Option<u32>,
    /// Stop when this token is generated [default: 0 for the built-in model, none otherwise]
    #[arg(long, value_name = "ID")]
    stop_token: Option<u32>,
    /// Print what it cost, to stderr
    #[arg(long)]
    stats: bool,
    /// Check every command against tracked usage, and turn on Vulkan's validation layers where installed
    #[arg(long)]
    validate: bool,
    /// Leave out transition T of the barrier before level L, as in 3.0, and let the validation layers say what they see
    /// (hal)
    #[arg(long, value_name = "L.T", value_parser = dropped)]
    drop_transition: Option<Dropped>,
}

fn non_negative(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("expected a number of 0 or more".into()),
    }
}

fn probability(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 to 1".into()),
    }
}

fn dropped(text: &str) -> Result<Dropped, String> {
    let parsed = text.split_once('.').and_then(|(level, transition)| {
        Some(Dropped { level: level.parse().ok()?, transition: transition.parse().ok()? })
    });
    parsed.ok_or_else(|| "expected a level and a transition, as in 3.0".into())
}

pub(super) fn run(args: RunArgs) -> Result<(), Failure> {
    log_sink::install(args.validate || args.drop_transition.is_some());
    let input = input::read(&args.model)?;
    let prompt = prompt(&args, &input)?;
    let tracked = args.drop_transition.is_none() && (args.validate || cfg!(debug_assertions));
    let hal_options = HalOptions {
        track: tracked,
        validation_layers: args.validate || args.drop_transition.is_some(),
        dropped: args.drop_transition,
    };
    let wgpu_options = WgpuOptions { backend: WgpuBackend::Native, track: tracked, validation_layers: args.validate };
    match executor::choose(args.executor, args.device.as_deref(), &hal_options, &wgpu_options)? {
        Chosen::Hal(executor) => with_executor(executor, &args, &input, &prompt)?,
        Chosen::Wgpu(executor) => with_executor(executor, &args, &input, &prompt)?,
    }
    match log_sink::errors() {
        0 => Ok(()),
        count => Err(Failure::Diagnostics(format!("error: validation reported {count} errors\n"))),
    }
}

/// The prompt as tokens.
fn prompt(args: &RunArgs, input: &Input) -> Result<Vec<u32>, Failure> {
    let text = match (&args.prompt, &args.prompt_file) {
        (Some(text), _) => Some(text.clone()),
        (_, Some(path)) => {
            let fail = |source| Failure::from(crate::sources::ReadError { path: path.clone(), source });
            let bytes = std::fs::metadata(path).map_err(fail)?.len();
            if bytes > MAX_PROMPT_BYTES {
                let path = path.display();
                return Err(Failure::Environment(format!(
                    "`{path}` has {bytes} bytes, a prompt at most {MAX_PROMPT_BYTES}"
                )));
            }
            let bytes = std::fs::read(path).map_err(fail)?;
            if bytes.is_empty() {
                // Whoever names a file means what is in it; most likely what should have written it has failed.
                return Err(Failure::Environment(format!("`{}` is empty: there is no prompt in it", path.display())));
            }
            let text = String::from_utf8(bytes);
            Some(text.map_err(|error| {
                Failure::Diagnostics(format!("error: `{}` is not UTF-8: {error}\n", path.display()))
            })?)
        }
        _ => None,
    };
    let mut tokens = Vec::new();
    tokens.extend(args.start_token.or(input.is_demo.then_some(DEMO_TEXT_BOUNDARY)));
    match (text, &args.tokens) {
        (Some(text), _) => {
            let vocabulary = vocabulary(input);
            if vocabulary.is_some_and(|size| size != BYTE_VOCABULARY) {
                let size = vocabulary.unwrap_or_default();
                return Err(Failure::Diagnostics(format!(
                    "error: the model has {size} tokens and no known tokenizer; give `--tokens 1,2,3` instead of text\n"
                )));
            }
            tokens.extend(bytes_to_tokens(&text));
        }
        (None, Some(given)) => tokens.extend(given),
        (None, None) => {}
    }
    if tokens.is_empty() {
        return Err(Failure::Environment(
            "nothing to go on from: give a non-empty `--prompt`, `--prompt-file` or `--tokens`, or a `--start-token`"
                .into(),
        ));
    }
    Ok(tokens)
}

/// Columns of the logits, found by compiling for a baseline; nothing if that fails, which running will then explain.
fn vocabulary(input: &Input) -> Option<u64> {
    let limits = Limits::vulkan();
    let compiler = compiler(input, &limits, &[]);
    let compiled = compiler.compile(StepShape { tokens: 1, sequences: 1, rows: 1, capacity: 1 }).ok()?;
    let logits = compiled.plan.outputs.iter().find(|output| output.role == OutputRole::Logits)?;
    logits.shape.last().copied()
}

fn compiler<'a>(input: &'a Input, limits: &'a Limits, keep: &'a [String]) -> Compiler<'a> {
    let index = input.checkpoint.index();
    Compiler { graph: &input.graph, kernels: &input.kernels, sources: &input.sources, index, limits, keep }
}

fn with_executor<E: Executor>(executor: E, args: &RunArgs, input: &Input, prompt: &[u32]) -> Result<(), Failure> {
    let limits = executor.device().limits.clone();
    let compiler = compiler(input, &limits, &args.model.keep);
    let step_tokens = match args.step_tokens {
        Some(1) => vec![1],
        Some(tokens) => vec![1, tokens],
        None => STEP_TOKENS.to_vec(),
    };
    // Weight and state layouts are the same for every step size.
    let first = compiler.compile(StepShape { tokens: 1, sequences: 1, rows: 1, capacity: 1 })?.plan;
    let logits = first.outputs.iter().find(|output| output.role == OutputRole::Logits);
    let vocabulary =
        logits.and_then(|output| output.shape.last().copied()).ok_or(crate::generate::GenerateError::NoLogits)?;
    let weights = Weights { layout: &first.weights, checkpoint: &input.checkpoint };
    let bar = progress_bar(first.weights.size_bytes());
    let session = executor.open(&weights, &first.state, &mut |done, _| bar.set_position(done))?;
    bar.finish_and_clear();
    let mut decoder = Decoder::new(session, compiler, step_tokens, vocabulary);
    let rows = if args.all_positions { Rows::All } else { Rows::Last };
    decoder.prepare(prompt.len(), rows)?;
    let mut stats = Stats::default();
    let began = Instant::now();
    let (logits, outputs) = decoder.run(prompt, rows)?;
    stats.prompt = (prompt.len(), began.elapsed());
    if let Some(path) = &args.logits {
        let kept = outputs.tensors.iter().filter(|(_, role, _)| *role == OutputRole::Kept);
        let mut tensors = vec![("logits".to_owned(), stack(&logits, vocabulary))];
        tensors.extend(kept.map(|(name, _, tensor)| (name.clone(), tensor.clone())));
        write_tensors(path, &tensors)?;
    }
    let last = logits.last().expect("a prompt has a last token").clone();
    let before = decoder.session().cpu_cost();
    let began = Instant::now();
    let generated = generate(&mut decoder, args, input.is_demo, vocabulary, last)?;
    stats.decode = (generated, began.elapsed());
    stats.cost = (before, decoder.session().cpu_cost());
    if args.stats {
        stats.print(executor.device());
    }
    Ok(())
}

/// Generates and prints. Returns the number of steps taken.
fn generate<S: Session>(
    decoder: &mut Decoder<'_, S>,
    args: &RunArgs,
    is_demo: bool,
    vocabulary: u64,
    mut logits: Vec<f32>,
) -> Result<usize, Failure> {
    let mut sampler = Sampler::new(args.temperature, args.top_p, args.seed);
    let stop = args.stop_token.or(is_demo.then_some(DEMO_TEXT_BOUNDARY));
    let as_text = vocabulary == BYTE_VOCABULARY && !args.print_tokens;
    let mut stream = Utf8Stream::new();
    let mut out = std::io::stdout().lock();
    let mut steps = 0;
    for nth in 0..args.n {
        let token = sampler.pick(&logits);
        if Some(token) == stop {
            break;
        }
        let text = match (as_text, nth) {
            (true, _) => stream.push(&[token as u8]),
            (false, 0) => token.to_string(),
            (false, _) => format!(",{token}"),
        };
        if write!(out, "{text}").and_then(|()| out.flush()).is_err() {
            // Whoever read the text has seen enough.
            return Ok(steps);
        }
        if nth + 1 < args.n {
            (logits, _) = decoder.run(&[token], Rows::Last).map(|(mut rows, outputs)| (rows.remove(0), outputs))?;
            steps += 1;
        }
    }
    if args.n > 0 {
        let _ = writeln!(out, "{}", stream.finish());
    }
    Ok(steps)
}

/// A bar on a terminal, nothing elsewhere.
fn progress_bar(total_bytes: u64) -> indicatif::ProgressBar {
    if !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style =
        indicatif::ProgressStyle::with_template("loading weights {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    indicatif::ProgressBar::new(total_bytes).with_style(style.expect("the template is right"))
}

fn stack(rows: &[Vec<f32>], width: u64) -> Tensor {
    Tensor::from_f32(vec![rows.len() as u64, width], &rows.concat())
}

/// Writes a safetensors file, under another name first, so that no half-written file is ever found under its own.
fn write_tensors(path: &std::path::Path, tensors: &[(String, Tensor)]) -> Result<(), Failure> {
    use safetensors::tensor::{Dtype, TensorView};
    let fail =
        |error: &dyn std::fmt::Display| Failure::Environment(format!("cannot write `{}`: {error}", path.display()));
    let mut views = Vec::new();
    for (name, tensor) in tensors {
        let values = tensor.to_f32();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape: Vec<usize> = tensor.shape.iter().map(|extent| *extent as usize).collect();
        views.push((name.clone(), shape, bytes));
    }
    let views: Result<Vec<(String, TensorView<'_>)>, _> = views
        .iter()
        .map(|(name, shape, bytes)| TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (name.clone(), view)))
        .collect();
    let bytes = safetensors::serialize(views.map_err(|error| fail(&error))?, None).map_err(|error| fail(&error))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.part", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        fail(&error)
    })
}

/// What a run cost.
#[derive(Default)]
struct Stats {
    prompt: (usize, Duration),
    decode: (usize, Duration),
    cost: (CpuCost, CpuCost),
}

impl Stats {
    fn print(&self, device: &DeviceInfo) {
        let rate = |(count, time): (usize, Duration)| count as f64 / time.as_secs_f64().max(1e-9);
        let (before, after) = self.cost;
        let steps = (after.steps - before.steps).max(1);
        let cpu_us =
            (after.record_ns + after.submit_ns - before.record_ns - before.submit_ns) as f64 / steps as f64 / 1e3;
        eprintln!("device   {} ({}, {})", device.name, device.api, device.driver);
        eprintln!("prompt   {} tokens, {:.1} tokens/s", self.prompt.0, rate(self.prompt));
        eprintln!("decode   {} steps, {:.1} tokens/s, {cpu_us:.1} us of CPU a step", self.decode.0, rate(self.decode));
    }
}
