//! `graphc run`: a prompt in, text out.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use crate::base::role::OutputRole;
use crate::cli::dump::{self, Dump, Watch};
use crate::cli::executor::{self, Chosen, ExecutorChoice};
use crate::cli::plans::{self, Source, What};
use crate::cli::prompts::{self, Defaults, List, MAX_STRAY, Printer};
use crate::cli::text::{self, Reading, Stop};
use crate::cli::{Failure, ModelArgs, cannot_print, files, log_sink};
use crate::compile::Compiler;
use crate::exec::hal::HalOptions;
use crate::exec::replay::TransitionAt;
use crate::exec::wgpu::{WgpuBackend, WgpuOptions};
use crate::exec::{CpuCost, DeviceInfo, Executor, MemoryUse, Session};
use crate::generate::batch::{Batch, Feed, SequenceId, SequenceState};
use crate::generate::queue::{self, Settings};
use crate::generate::sample::Sampler;
use crate::generate::state::{self, StateOwner};
use crate::generate::text::Utf8Stream;
use crate::generate::vocabulary::Vocabulary;
use crate::generate::{GenerateError, Rows, STEP_TOKENS};
use crate::tensor::Tensor;

/// The token with which the built-in model's texts begin and end.
pub(super) const DEMO_TEXT_BOUNDARY: u32 = 0;

/// More prompt than anyone means to give: a bound on what is read into memory.
const MAX_PROMPT_BYTES: u64 = 64 << 20;

/// More state than a sequence of any model has.
const MAX_STATE_BYTES: u64 = 4 << 30;

#[derive(Args, Debug)]
pub(super) struct RunArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Plans of `compile -o`, in place of a graph: what was compiled is run as it is, each step by the smallest that
    /// fits. Several are of one model and for sessions of one size
    #[arg(value_name = "PLAN")]
    plans: Vec<String>,
    /// The text to go on from
    #[arg(long, value_name = "TEXT", group = "given")]
    prompt: Option<String>,
    /// The text to go on from, in a file
    #[arg(long, value_name = "FILE", group = "given")]
    prompt_file: Option<PathBuf>,
    /// The tokens to go on from, as in 1,2,3
    #[arg(long, value_name = "IDS", group = "given", value_delimiter = ',')]
    tokens: Option<Vec<u32>>,
    /// Continue many prompts, side by side: a file of one a line, or of JSON lines, objects with `prompt` or `tokens`
    /// and perhaps `n`, `seed` and `id`. What follows on each is printed in the file's order, below a line that repeats
    /// the prompt, or as JSON lines of `id` and `text` or `tokens`. Blank lines are skipped
    #[arg(long, value_name = "FILE", group = "given", conflicts_with_all = ["logits", "all_positions", "state_out"])]
    prompts: Option<PathBuf>,
    /// How many of the prompts run side by side [default: all, at most 8]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=4096), requires = "prompts",
          conflicts_with_all = ["prompt", "prompt_file", "tokens"])]
    sequences: Option<u32>,
    /// How many tokens to generate; 0 only processes the prompt
    #[arg(short, value_name = "N", default_value_t = 200, allow_negative_numbers = true)]
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
    /// Write a value of the prompt to a safetensors file, with the tokens as its first axis, or one token's part of it:
    /// VALUE[@TOKEN]=FILE (may be repeated, for one file too). What tokens have no part of, as states, is written as it
    /// is after each step, or after the step that has the token; see --step-tokens
    #[arg(long, value_name = "VALUE[@TOKEN]=FILE", value_parser = dump::parse, conflicts_with = "prompts")]
    dump: Vec<Dump>,
    /// Go on from the state in this file, which `--state-out` wrote for the same model
    #[arg(long, value_name = "FILE")]
    state_in: Option<PathBuf>,
    /// Write the state after the prompt and all that was generated to this file
    #[arg(long, value_name = "FILE")]
    state_out: Option<PathBuf>,
    /// Run the prompt in steps of this many tokens
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=4096))]
    step_tokens: Option<u32>,
    /// Print token ids instead of text
    #[arg(long)]
    print_tokens: bool,
    /// Feed this token before the prompt [default: 0 before a text for the built-in model without `--state-in`, none
    /// otherwise]
    #[arg(long, value_name = "ID")]
    start_token: Option<u32>,
    /// Stop when this token is generated, with `none` never [default: 0 for the built-in model, and where the
    /// vocabulary has no bytes for 0, as that of World models; none otherwise]
    #[arg(long, value_name = "ID|none", value_parser = text::stop)]
    stop_token: Option<Stop>,
    /// The text of each token: a file of lines as 257 '\t\t' 2, which are id, literal and number of bytes [default:
    /// bytes for a model of 256 tokens, the World vocabulary for one of 65536]
    #[arg(long, value_name = "FILE")]
    vocabulary: Option<PathBuf>,
    /// Print what it cost, to stderr
    #[arg(long)]
    stats: bool,
    /// Check every command against tracked usage, and turn on Vulkan's validation layers where installed
    #[arg(long)]
    validate: bool,
    /// Leave out transition T of the barrier before level L, as in 3.0, and let the validation layers say what they see
    /// (hal)
    #[arg(long, value_name = "L.T", value_parser = dropped)]
    drop_transition: Option<TransitionAt>,
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

fn dropped(text: &str) -> Result<TransitionAt, String> {
    let parsed = text.split_once('.').and_then(|(level, transition)| {
        Some(TransitionAt { level: level.parse().ok()?, transition: transition.parse().ok()? })
    });
    parsed.ok_or_else(|| "expected a level and a transition, as in 3.0".into())
}

/// What is to be run.
enum Work {
    One(Vec<u32>),
    Many(List),
}

/// All that a device is to do.
struct Task<'a> {
    args: &'a RunArgs,
    input: &'a Source,
    work: Work,
    /// That of `--vocabulary`.
    vocabulary: Option<Vocabulary>,
    /// How many sequences run side by side.
    capacity: u32,
    /// The file of the state to begin in.
    state_in: Option<Vec<u8>>,
}

pub(super) fn run(args: RunArgs) -> Result<(), Failure> {
    if args.drop_transition.is_some() && args.executor != ExecutorChoice::Hal {
        return Err(Failure::Environment(
            "`--drop-transition` takes `--executor hal`: no other has transitions".into(),
        ));
    }
    if !args.model.keep.is_empty() && args.logits.is_none() {
        let why = match args.prompts {
            Some(_) => "which `--prompts` does not take",
            None => "where kept values are written",
        };
        return Err(Failure::Environment(format!("`--keep` takes `--logits FILE`, {why}")));
    }
    log_sink::install(args.validate || args.drop_transition.is_some());
    let input = plans::read(&args.model, &args.plans, args.step_tokens)?;
    if !args.dump.is_empty() && matches!(input.what, What::Plans { .. }) {
        let message =
            "`--dump` is for graphs, which are compiled when they are run; a plan has what it was compiled with";
        return Err(Failure::Environment(message.into()));
    }
    input.check_rows(args.all_positions)?;
    check_tokens(&args, &input)?;
    let state_in = args.state_in.as_deref().map(|path| files::read(path, "a state", MAX_STATE_BYTES)).transpose()?;
    let given = args.vocabulary.as_deref().map(|path| text::from_file(path, input.vocabulary())).transpose()?;
    let work = match &args.prompts {
        Some(path) => Work::Many(prompts(&args, &input, path, given.as_ref())?),
        None => Work::One(prompt(&args, &input, given.as_ref())?),
    };
    if let Work::One(prompt) = &work {
        dump::check(&args.dump, prompt.len())?;
    }
    let capacity = match &work {
        Work::One(_) => 1,
        Work::Many(list) => input.side_by_side(list.prompts.len(), args.sequences)?,
    };
    let task = Task { args: &args, input: &input, work, vocabulary: given, capacity, state_in };
    let tracked = args.drop_transition.is_none() && (args.validate || cfg!(debug_assertions));
    let hal_options = HalOptions {
        track: tracked,
        validation_layers: args.validate || args.drop_transition.is_some(),
        dropped: args.drop_transition,
    };
    let wgpu_options = WgpuOptions { backend: WgpuBackend::Native, track: tracked, validation_layers: args.validate };
    match executor::choose(args.executor, args.device.as_deref(), &hal_options, &wgpu_options)? {
        Chosen::Hal(executor) => with_executor(executor, &task)?,
        Chosen::Wgpu(executor) => with_executor(executor, &task)?,
    }
    match log_sink::errors() {
        0 => Ok(()),
        count => Err(Failure::Diagnostics(format!("error: validation reported {count} errors\n"))),
    }
}

/// Refuses tokens given by number that the model does not have, all of them, before a device is asked for.
fn check_tokens(args: &RunArgs, input: &Source) -> Result<(), Failure> {
    let stop = match args.stop_token {
        Some(Stop::At(token)) => Some(token),
        _ => None,
    };
    if stop.is_none() && args.start_token.is_none() && args.tokens.is_none() {
        return Ok(());
    }
    // A model of no known size cannot be run, and running says why.
    let Some(vocabulary) = input.vocabulary() else { return Ok(()) };
    let is_stray = |token: u32| u64::from(token) >= vocabulary;
    let fed = args.start_token.iter().chain(args.tokens.iter().flatten()).enumerate();
    let stray = fed.filter(|(_, token)| is_stray(**token)).take(MAX_STRAY);
    let mut wrong: String = stray
        .map(|(at, token)| format!("error: {}\n", GenerateError::Token { token: *token, at, vocabulary }))
        .collect();
    if let Some(stop) = stop.filter(|stop| is_stray(*stop)) {
        wrong += &format!("error: `--stop-token {stop}` is not in the vocabulary of {vocabulary}\n");
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Diagnostics(wrong)) }
}

/// The token that is fed before every text. A list of tokens is taken as it is, unless a start token is asked for.
fn start_token(args: &RunArgs, input: &Source) -> Option<u32> {
    args.start_token.or((input.is_demo && args.state_in.is_none()).then_some(DEMO_TEXT_BOUNDARY))
}

/// The prompt as tokens.
fn prompt(args: &RunArgs, input: &Source, given: Option<&Vocabulary>) -> Result<Vec<u32>, Failure> {
    let text = match (&args.prompt, &args.prompt_file) {
        (Some(text), _) => Some(text.clone()),
        (_, Some(path)) => Some(files::read_text(path, "a prompt", MAX_PROMPT_BYTES)?),
        _ => None,
    };
    let start = if args.tokens.is_some() { args.start_token } else { start_token(args, input) };
    let mut tokens = Vec::from_iter(start);
    if let Some(text) = text {
        let wrong = |message| Failure::Diagnostics(format!("error: {message}\n"));
        tokens.extend(text::tokenize(&text, given, input.vocabulary()).map_err(wrong)?);
    }
    tokens.extend(args.tokens.iter().flatten());
    if tokens.is_empty() {
        return Err(Failure::Environment(
            "nothing to go on from: give a non-empty `--prompt`, `--prompt-file` or `--tokens`, or a `--start-token`"
                .into(),
        ));
    }
    Ok(tokens)
}

/// The prompts of a file.
fn prompts(args: &RunArgs, input: &Source, path: &Path, given: Option<&Vocabulary>) -> Result<List, Failure> {
    let text = files::read_text(path, "prompts", MAX_PROMPT_BYTES)?;
    let (count, seed, start) = (args.n, args.seed, start_token(args, input));
    let start_of_tokens = args.start_token;
    let defaults = Defaults { count, seed, start, start_of_tokens, size: input.vocabulary(), vocabulary: given };
    prompts::parse(&path.display().to_string(), &text, &defaults)
}

fn with_executor<E: Executor>(executor: E, task: &Task<'_>) -> Result<(), Failure> {
    let Task { args, input, capacity, .. } = task;
    let limits = executor.device().limits.clone();
    let bar = progress_bar();
    let progress = &mut |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    };
    let (checkpoint, index) = (&input.checkpoint, input.checkpoint.index());
    let (keep, mut watch) = (dump::kept(&args.model.keep, &args.dump), Watch::nothing());
    let mut batch = match &input.what {
        What::Graph(program) => {
            let (keep, batch_invariant) = (keep.as_slice(), args.model.batch_invariant);
            let compiler = Compiler { keep, batch_invariant, ..program.compiler(index, &limits) };
            let largest = step_tokens(args, *capacity).last().copied();
            watch = Watch::new(&args.dump, &compiler, largest.expect("there is a size"))?;
            Batch::open(&executor, compiler, checkpoint, (*capacity, step_tokens(args, *capacity)), progress)?
        }
        What::Plans { plans, .. } => Batch::open_plans(&executor, plans.clone(), checkpoint, *capacity, progress)?,
    };
    bar.finish_and_clear();
    let begin = task.state_in.as_deref().map(|bytes| {
        let path = args.state_in.as_deref().unwrap_or(Path::new("")).display();
        let refuse = |reason| Failure::Diagnostics(format!("error: `{path}` is no state of this model: {reason}\n"));
        state::from_bytes(bytes, batch.state_layout(), &owner(input)).map_err(refuse)
    });
    let begin = begin.transpose()?;
    let reading = reading(task, batch.options().vocabulary);
    let stats = match &task.work {
        Work::One(prompt) => one(&mut batch, (task, &watch), prompt, begin.as_ref(), reading)?,
        Work::Many(list) => many(&mut batch, args, list, begin.as_ref(), reading)?,
    };
    if args.stats {
        stats.print(executor.device(), batch.session().memory());
    }
    Ok(())
}

/// The sizes of steps, in tokens.
fn step_tokens(args: &RunArgs, capacity: u32) -> Vec<u32> {
    let mut sizes = match args.step_tokens {
        Some(tokens) => vec![1, tokens],
        None => STEP_TOKENS.to_vec(),
    };
    let largest = *sizes.last().expect("there is a size");
    // When several sequences decode, a step has a token of each.
    let powers = (1..12).map(|power| 1 << power);
    sizes.extend(powers.filter(|size| *size <= capacity.next_power_of_two() && *size <= largest));
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// Which model a state belongs to.
fn owner(input: &Source) -> StateOwner {
    StateOwner { graph: input.graph().to_owned(), fingerprint: input.checkpoint.fingerprint() }
}

/// Reads one prompt and goes on from it.
fn one<S: Session>(
    batch: &mut Batch<'_, S>,
    (task, watch): (&Task<'_>, &Watch<'_>),
    prompt: &[u32],
    begin: Option<&SequenceState>,
    reading: Reading<'_>,
) -> Result<Stats, Failure> {
    let Task { args, input, .. } = task;
    let rows = if args.all_positions { Rows::All } else { Rows::Last };
    batch.prepare(&[prompt.len()], watch.rows(rows))?;
    batch.prepare(&[1], Rows::Last)?;
    let sequence = batch.join()?;
    begin.map_or(Ok(()), |state| batch.load(sequence, state))?;
    let mut stats = Stats { unit: "steps", ..Stats::default() };
    let began = Instant::now();
    let (logits, outputs) = watch.run(batch, sequence, prompt, rows)?;
    stats.prompt = (prompt.len(), began.elapsed());
    if let Some(path) = &args.logits {
        let kept = outputs.tensors.iter().filter(|(name, role, _)| {
            // What is kept for a dump alone goes there.
            *role == OutputRole::Kept && args.model.keep.contains(name)
        });
        let mut tensors = vec![("logits".to_owned(), stack(&logits, batch.options().vocabulary))];
        tensors.extend(kept.map(|(name, _, tensor)| (name.clone(), tensor.clone())));
        files::write_tensors(path, &tensors)?;
    }
    let last = logits.last().expect("a prompt has a last token").clone();
    let before = batch.session().cpu_cost();
    let began = Instant::now();
    let generated = generate(batch, sequence, args, reading, last)?;
    stats.decode = (generated, began.elapsed());
    stats.cost = (before, batch.session().cpu_cost());
    if let Some(path) = &args.state_out {
        let state = batch.save(sequence)?;
        let fail = |error| Failure::Environment(format!("cannot write `{}`: {error}", path.display()));
        files::write(path, &state::to_bytes(&state, batch.state_layout(), &owner(input)).map_err(fail)?)?;
    }
    Ok(stats)
}

/// Goes on from many prompts, side by side.
fn many<S: Session>(
    batch: &mut Batch<'_, S>,
    args: &RunArgs,
    list: &List,
    begin: Option<&SequenceState>,
    reading: Reading<'_>,
) -> Result<Stats, Failure> {
    let side_by_side = batch.options().capacity as usize;
    let largest = *batch.options().step_tokens.last().expect("there is a size") as usize;
    // The largest step first: the others share its memory.
    batch.prepare(&vec![(largest / side_by_side).max(1); side_by_side], Rows::Last)?;
    let (temperature, top_p) = (args.temperature, args.top_p);
    let settings = Settings { temperature, top_p, stop: reading.stop, begin };
    let mut printer = Printer::new(list, reading.text);
    let (mut generated, mut failure) = (0, None);
    let before = batch.session().cpu_cost();
    let began = Instant::now();
    queue::run(batch, &list.prompts, &settings, &mut |nth, tokens| {
        generated += tokens.len();
        match printer.take(nth, tokens) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    let read = list.prompts.iter().map(|prompt| prompt.tokens.len()).sum();
    let cost = (before, batch.session().cpu_cost());
    // Prompts are read while others decode, so both take all of the time.
    let took = began.elapsed();
    let stats = Stats { prompt: (read, took), decode: (generated, took), unit: "tokens", cost };
    failure.map_or(Ok(stats), Err)
}

/// How what a model of `size` tokens generates is read.
fn reading<'t>(task: &'t Task<'_>, size: u64) -> Reading<'t> {
    let Task { args, input, .. } = task;
    let vocabulary = task.vocabulary.as_ref().or_else(|| text::built_in(size));
    let stop = match args.stop_token {
        Some(Stop::Never) => None,
        Some(Stop::At(token)) => Some(token),
        None if input.is_demo => Some(DEMO_TEXT_BOUNDARY),
        None => vocabulary.and_then(Vocabulary::end_of_text),
    };
    Reading { stop, text: vocabulary.filter(|_| !args.print_tokens) }
}

/// Generates and prints. Returns the number of steps taken. If the state is wanted, everything printed is read.
fn generate<S: Session>(
    batch: &mut Batch<'_, S>,
    sequence: SequenceId,
    args: &RunArgs,
    reading: Reading<'_>,
    mut logits: Vec<f32>,
) -> Result<usize, Failure> {
    let mut sampler = Sampler::new(args.temperature, args.top_p, args.seed);
    let mut stream = Utf8Stream::new();
    let mut out = std::io::stdout().lock();
    let mut steps = 0;
    for nth in 0..args.n {
        let token = sampler.pick(&logits);
        if Some(token) == reading.stop {
            break;
        }
        let text = match (reading.text, nth) {
            (Some(vocabulary), _) => stream.push(vocabulary.bytes(token).unwrap_or_default()),
            (None, 0) => token.to_string(),
            (None, _) => format!(",{token}"),
        };
        match write!(out, "{text}").and_then(|()| out.flush()) {
            Ok(()) => {}
            // Whoever read the text has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(steps),
            Err(error) => return Err(cannot_print(&error)),
        }
        if nth + 1 < args.n || args.state_out.is_some() {
            let (mut rows, _) = batch.run(&[Feed { sequence, tokens: &[token] }], Rows::Last)?;
            logits = rows.remove(0).remove(0);
            steps += 1;
        }
    }
    if args.n > 0 {
        match writeln!(out, "{}", stream.finish()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(cannot_print(&error)),
            _ => {}
        }
    }
    Ok(steps)
}

/// A bar on a terminal, nothing elsewhere.
fn progress_bar() -> indicatif::ProgressBar {
    if !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style =
        indicatif::ProgressStyle::with_template("loading weights {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    indicatif::ProgressBar::new(0).with_style(style.expect("the template is right"))
}

fn stack(rows: &[Vec<f32>], width: u64) -> Tensor {
    Tensor::from_f32(vec![rows.len() as u64, width], &rows.concat())
}

/// What a run cost.
#[derive(Default)]
struct Stats {
    prompt: (usize, Duration),
    decode: (usize, Duration),
    /// What `decode` counts.
    unit: &'static str,
    cost: (CpuCost, CpuCost),
}

impl Stats {
    fn print(&self, device: &DeviceInfo, memory: MemoryUse) {
        let rate = |(count, time): (usize, Duration)| count as f64 / time.as_secs_f64().max(1e-9);
        let (before, after) = self.cost;
        let steps = (after.steps - before.steps).max(1);
        let cpu_us =
            (after.record_ns + after.submit_ns - before.record_ns - before.submit_ns) as f64 / steps as f64 / 1e3;
        eprintln!("device   {} ({}, {})", device.name, device.api, device.driver);
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        eprintln!(
            "memory   weights {:.2} MiB, state {:.2}, slots {:.2}, inputs {:.2}, the host's {:.2}",
            mebibytes(memory.weight_bytes),
            mebibytes(memory.state_bytes),
            mebibytes(memory.slot_bytes),
            mebibytes(memory.input_bytes),
            mebibytes(memory.host_bytes)
        );
        eprintln!("prompt   {} tokens, {:.1} tokens/s", self.prompt.0, rate(self.prompt));
        let decode = (self.decode.0, self.unit, rate(self.decode));
        eprintln!("decode   {} {}, {:.1} tokens/s, {cpu_us:.1} us of CPU a step", decode.0, decode.1, decode.2);
    }
}
