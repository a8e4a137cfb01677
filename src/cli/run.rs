//! `graphc run`: a prompt in, text out.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use crate::base::limits::Limits;
use crate::base::role::OutputRole;
use crate::cli::cache::CacheArgs;
use crate::cli::chat::{self, ChatArgs, MAX_STATE_BYTES, Manner, Setting};
use crate::cli::dump::{self, Dump, Watch};
use crate::cli::executor::{self, Chosen, ExecutorChoice, SanitizeChoice};
use crate::cli::plans::{self, Source, What};
use crate::cli::prompts::{self, Defaults, List, MAX_STRAY, Printer};
use crate::cli::sampling::{self, EndArgs, SamplingArgs};
use crate::cli::{Failure, ModelArgs, answer, cannot_print, files, log_sink, print_result, text, tuning};
use crate::compile::Compiler;
use crate::exec::hal::HalOptions;
use crate::exec::reference::ReferenceOptions;
use crate::exec::replay::TransitionAt;
use crate::exec::wgpu::{WgpuBackend, WgpuOptions};
use crate::exec::{CpuCost, DeviceInfo, Executor, MemoryUse, Session};
use crate::generate::batch::{Batch, SequenceState, StartCost};
use crate::generate::continuation::{Continuation, Drawn, Rules};
use crate::generate::queue;
use crate::generate::state::{self, StateOwner};
use crate::generate::vocabulary::Vocabulary;
use crate::generate::{GenerateError, Rows, STEP_TOKENS};
use crate::kernel::tuning::Tuning;
use crate::tensor::Tensor;

/// The token with which the built-in model's texts begin and end.
pub(super) const DEMO_TEXT_BOUNDARY: u32 = 0;

/// More prompt than anyone means to give: a bound on what is read into memory.
const MAX_PROMPT_BYTES: u64 = 64 << 20;

/// How many tokens are generated unless it is said: on a prompt, and as an answer, which mostly ends by itself.
const DEFAULT_COUNT: u32 = 200;
const DEFAULT_ANSWER: u32 = 4096;

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
    /// How many tokens to generate at most; 0 only processes the prompt [default: 200, and 4096 for an answer of
    /// --chat]
    #[arg(short, value_name = "N", allow_negative_numbers = true)]
    n: Option<u32>,
    /// What runs the plan
    #[arg(long, value_enum, default_value_t = ExecutorChoice::Auto)]
    executor: ExecutorChoice,
    /// Use the first device with this in its name
    #[arg(long, value_name = "SUBSTRING")]
    device: Option<String>,
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
    /// Print a line of JSON for each prompt, or answer: text, tokens, what ended it, counts
    #[arg(long, conflicts_with = "print_tokens")]
    json: bool,
    /// With --json, add the log-probability of every token that was generated and of the N likeliest at its place, all
    /// as the model gives them, before penalties and filters
    #[arg(long, value_name = "N", requires = "json", value_parser = clap::value_parser!(u16).range(0..=1000))]
    logprobs: Option<u16>,
    /// Feed this token before the prompt [default: 0 before a text for the built-in model without `--state-in`, none
    /// otherwise]
    #[arg(long, value_name = "ID")]
    start_token: Option<u32>,
    /// The text of each token: a file of lines as 257 '\t\t' 2, which are id, literal and number of bytes [default:
    /// bytes for a model of 256 tokens, the World vocabulary for one of 65536]
    #[arg(long, value_name = "FILE")]
    vocabulary: Option<PathBuf>,
    #[command(flatten)]
    cache: CacheArgs,
    /// Print what it cost, to stderr
    #[arg(long)]
    stats: bool,
    /// Check every command against tracked usage, and turn on Vulkan's validation layers where installed
    #[arg(long)]
    validate: bool,
    /// Look at every access of every invocation, and say what is wrong with it (reference): indices out of bounds,
    /// reads of what nothing wrote, races, missing transitions; with `=nan` the first NaN or infinity, too
    #[arg(long, value_name = "WHAT", value_enum, num_args = 0..=1, require_equals = true,
          default_missing_value = "accesses")]
    sanitize: Option<SanitizeChoice>,
    /// Leave out transition T of the barrier before level L, as in 3.0, and let the validation layers say what they see
    /// (hal), or the sanitizer (reference)
    #[arg(long, value_name = "L.T", value_parser = dropped)]
    drop_transition: Option<TransitionAt>,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    end: EndArgs,
    #[command(flatten)]
    chat: ChatArgs,
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
    Chat(Manner),
}

/// All that a device is to do.
struct Task<'a> {
    args: &'a RunArgs,
    input: &'a Source,
    work: Work,
    /// What makes tokens text, if anything is known to.
    vocabulary: Option<&'a Vocabulary>,
    /// What is taken where kernels leave something open.
    tuning: Option<&'a Tuning>,
    /// How many sequences run side by side.
    capacity: u32,
    /// The file of the state to begin in.
    state_in: Option<Vec<u8>>,
    /// When the program began, and for how long it read files and opened the device.
    began: Instant,
    opening: (Duration, Duration),
}

pub(super) fn run(args: RunArgs) -> Result<(), Failure> {
    let began = Instant::now();
    check_executor(&args)?;
    if !args.model.keep.is_empty() && args.logits.is_none() {
        let why = match args.prompts {
            Some(_) => "which `--prompts` does not take",
            None => "where kept values are written",
        };
        return Err(Failure::Environment(format!("`--keep` takes `--logits FILE`, {why}")));
    }
    args.end.check().map_err(Failure::Environment)?;
    log_sink::install(args.validate || args.drop_transition.is_some());
    let mut input = plans::read(&args.model, &args.plans, args.step_tokens)?;
    if !args.dump.is_empty() && matches!(input.what, What::Plans { .. }) {
        let message =
            "`--dump` is for graphs, which are compiled when they are run; a plan has what it was compiled with";
        return Err(Failure::Environment(message.into()));
    }
    input.check_rows(args.all_positions.then_some("`--all-positions`"))?;
    let size = input.vocabulary();
    check_tokens(&args, size)?;
    let state_in = args.state_in.as_deref().map(|path| files::read(path, "a state", MAX_STATE_BYTES)).transpose()?;
    let given = args.vocabulary.as_deref().map(|path| text::from_file(path, size)).transpose()?;
    let vocabulary = given.as_ref().or_else(|| text::built_in(size?));
    let takes_text = args.chat.chat || !args.end.texts().is_empty();
    // A model of no known size cannot be run, and running says why.
    if let (true, None, Some(size)) = (takes_text, vocabulary, size) {
        let flag = if args.chat.chat { "--chat" } else { "--stop" };
        let message = format!("`{flag}` is about text: give `--vocabulary FILE` for a model of {size} tokens");
        return Err(Failure::Diagnostics(format!("error: {message}\n")));
    }
    let work = match &args.prompts {
        _ if args.chat.chat => Work::Chat(Manner::read(&args.chat)?),
        Some(path) => Work::Many(prompts(&args, &input, size, path, given.as_ref())?),
        None => Work::One(prompt(&args, &input, size, given.as_ref())?),
    };
    if let Work::One(prompt) = &work {
        dump::check(&args.dump, prompt.len())?;
    }
    let capacity = match &work {
        Work::One(_) | Work::Chat(_) => 1,
        Work::Many(list) => input.side_by_side(list.prompts.len(), args.sequences)?,
    };
    let read = began.elapsed();
    let mut chosen = choose(&args)?;
    let kept = args.cache.give(&mut chosen);
    let tuning = input.tuning(args.model.tuning.as_deref(), Some(chosen.device()))?;
    let tuning = tuning.as_ref();
    let opening = (read, began.elapsed() - read);
    let task = Task { args: &args, input: &input, work, vocabulary, tuning, capacity, state_in, began, opening };
    match &chosen {
        Chosen::Hal(executor) => with_executor(executor, &task)?,
        Chosen::Wgpu(executor) => with_executor(executor, &task)?,
        Chosen::Reference(executor) => {
            let ran = with_executor(executor, &task);
            executor::check_findings(executor)?;
            ran?;
        }
    }
    kept.keep(&chosen);
    match log_sink::errors() {
        0 => Ok(()),
        count => Err(Failure::Diagnostics(format!("error: validation reported {count} errors\n"))),
    }
}

/// Opens the device that was asked for, to be used as it was asked for.
fn choose(args: &RunArgs) -> Result<Chosen, Failure> {
    let tracked = args.drop_transition.is_none() && (args.validate || cfg!(debug_assertions));
    let hal_options = HalOptions {
        track: tracked,
        validation_layers: args.validate || args.drop_transition.is_some(),
        dropped: args.drop_transition,
    };
    let wgpu_options = WgpuOptions { backend: WgpuBackend::Native, track: tracked, validation_layers: args.validate };
    let reference_options = ReferenceOptions {
        track: tracked,
        sanitize: args.sanitize.map(SanitizeChoice::meant),
        dropped: args.drop_transition,
        ..ReferenceOptions::new()
    };
    executor::choose(args.executor, args.device.as_deref(), &hal_options, &wgpu_options, &reference_options)
}

/// Refuses flags that ask something of an executor which cannot do it.
fn check_executor(args: &RunArgs) -> Result<(), Failure> {
    let is_reference = args.executor == ExecutorChoice::Reference;
    if args.sanitize.is_some() && !is_reference {
        return Err(Failure::Environment(
            "`--sanitize` takes `--executor reference`: no other looks at every access".into(),
        ));
    }
    let shows_dropped = args.executor == ExecutorChoice::Hal || args.sanitize.is_some();
    if args.drop_transition.is_some() && !shows_dropped {
        return Err(Failure::Environment(
            "`--drop-transition` takes `--executor hal`, or `--executor reference --sanitize`: nothing else notices"
                .into(),
        ));
    }
    Ok(())
}

/// Refuses tokens given by number that the model does not have, all of them, before a device is asked for.
fn check_tokens(args: &RunArgs, size: Option<u64>) -> Result<(), Failure> {
    // A model of no known size cannot be run, and running says why.
    let Some(vocabulary) = size else { return Ok(()) };
    let fed = args.start_token.iter().chain(args.tokens.iter().flatten()).enumerate();
    let stray = fed.filter(|(_, token)| u64::from(**token) >= vocabulary).take(MAX_STRAY);
    let mut wrong: String = stray
        .map(|(at, token)| format!("error: {}\n", GenerateError::Token { token: *token, at, vocabulary }))
        .collect();
    wrong += &sampling::stray(&args.sampling, &args.end, vocabulary);
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Diagnostics(wrong)) }
}

/// The token that is fed before every text. A list of tokens is taken as it is, unless a start token is asked for.
fn start_token(args: &RunArgs, input: &Source) -> Option<u32> {
    args.start_token.or((input.is_demo && args.state_in.is_none()).then_some(DEMO_TEXT_BOUNDARY))
}

/// The prompt as tokens.
fn prompt(args: &RunArgs, input: &Source, size: Option<u64>, given: Option<&Vocabulary>) -> Result<Vec<u32>, Failure> {
    let text = match (&args.prompt, &args.prompt_file) {
        (Some(text), _) => Some(text.clone()),
        (_, Some(path)) => Some(files::read_text(path, "a prompt", MAX_PROMPT_BYTES)?),
        _ => None,
    };
    let start = if args.tokens.is_some() { args.start_token } else { start_token(args, input) };
    let mut tokens = Vec::from_iter(start);
    if let Some(text) = text {
        let wrong = |message| Failure::Diagnostics(format!("error: {message}\n"));
        tokens.extend(text::tokenize(&text, given, size).map_err(wrong)?);
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

/// How many tokens to generate at most.
fn count(args: &RunArgs) -> u32 {
    args.n.unwrap_or(if args.chat.chat { DEFAULT_ANSWER } else { DEFAULT_COUNT })
}

/// The prompts of a file.
fn prompts(
    args: &RunArgs,
    input: &Source,
    size: Option<u64>,
    path: &Path,
    given: Option<&Vocabulary>,
) -> Result<List, Failure> {
    let text = files::read_text(path, "prompts", MAX_PROMPT_BYTES)?;
    let (count, seed, start) = (count(args), args.sampling.seed, start_token(args, input));
    let start_of_tokens = args.start_token;
    let defaults = Defaults { count, seed, start, start_of_tokens, size, vocabulary: given };
    prompts::parse(&path.display().to_string(), &text, &defaults)
}

fn with_executor<E: Executor>(executor: &E, task: &Task<'_>) -> Result<(), Failure> {
    let Task { args, input, capacity, .. } = task;
    let limits = executor.device().limits.clone();
    let keep = dump::kept(&args.model.keep, &args.dump);
    let mut rules = rules(task);
    let has_steps = matches!(&input.what, What::Graph(program) if program.graph.carry.is_some());
    let draws = args.sampling.draw.draws(&executor.device().kind, &rules, has_steps).map_err(Failure::Environment)?;
    let (batch_invariant, copies) = (args.model.batch_invariant, args.model.fuse.takes_copies());
    let kept = Kept { keep: &keep, batch_invariant, copies, draws, tuning: task.tuning };
    let sizes = (*capacity, step_tokens(args, *capacity));
    let mut watch = Watch::nothing();
    if let What::Graph(program) = &input.what {
        let Kept { keep, batch_invariant, copies, tuning, .. } = kept;
        let compiler = program.compiler(input.checkpoint.index(), &limits);
        let compiler = Compiler { keep, batch_invariant, copies, tuning, ..compiler };
        watch = Watch::new(&args.dump, &compiler, sizes.1.last().copied().expect("there is a size"))?;
    }
    let mut batch = open(executor, input, kept, &limits, sizes)?;
    let begin = task.state_in.as_deref().map(|bytes| {
        let path = args.state_in.as_deref().unwrap_or(Path::new("")).display();
        let refuse = |reason| Failure::Diagnostics(format!("error: `{path}` is no state of this model: {reason}\n"));
        state::from_bytes(bytes, batch.state_layout(), &owner(input)).map_err(refuse)
    });
    let begin = begin.transpose()?;
    let stats = match &task.work {
        Work::One(prompt) => one(&mut batch, (task, &watch), prompt, begin.as_ref(), &rules)?,
        Work::Many(list) => many(&mut batch, args, list, begin.as_ref(), &rules)?,
        Work::Chat(manner) => {
            rules.stop_texts.extend_from_slice(manner.stops());
            converse(&mut batch, task, manner, begin.as_ref(), &rules)?
        }
    };
    if args.stats {
        print_start(task, stats.ready, batch.start_cost());
        stats.print(executor.device(), task.tuning, batch.session().memory());
    }
    Ok(())
}

/// What of steps is kept, and how they are made.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a> {
    /// Values that are outputs.
    pub keep: &'a [String],
    /// Whether a sequence's bits are to depend on nothing but itself.
    pub batch_invariant: bool,
    /// Whether rules may take copies of weights.
    pub copies: bool,
    /// Whether steps may draw.
    pub draws: bool,
    /// What is taken where kernels leave something open.
    pub tuning: Option<&'a Tuning>,
}

/// A batch of `capacity` sequences, with steps of these sizes, of the graph or the plans at hand.
pub(super) fn open<'a, E: Executor>(
    executor: &E,
    input: &'a Source,
    Kept { keep, batch_invariant, copies, draws, tuning }: Kept<'a>,
    limits: &'a Limits,
    (capacity, step_tokens): (u32, Vec<u32>),
) -> Result<Batch<'a, E::Session>, Failure> {
    let bar = progress_bar();
    let progress = &mut |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    };
    let (checkpoint, index) = (&input.checkpoint, input.checkpoint.index());
    let batch = match &input.what {
        What::Graph(program) => {
            let compiler = Compiler { keep, batch_invariant, copies, draws, tuning, ..program.compiler(index, limits) };
            Batch::open(executor, compiler, checkpoint, (capacity, step_tokens), progress)?
        }
        What::Plans { plans, .. } => Batch::open_plans(executor, plans.clone(), checkpoint, capacity, progress)?,
    };
    bar.finish_and_clear();
    if batch.lacks_copies() {
        eprintln!("note: the device has no memory for copies of weights by columns; steps of one token take longer");
    }
    Ok(batch)
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
    rules: &Rules<'_>,
) -> Result<Stats, Failure> {
    let Task { args, input, .. } = task;
    let rows = if args.all_positions { Rows::All } else { Rows::Last };
    batch.prepare(&[prompt.len()], watch.rows(rows))?;
    prepare_one(batch)?;
    let sequence = batch.join()?;
    begin.map_or(Ok(()), |state| batch.load(sequence, state))?;
    let began = Instant::now();
    let mut stats = Stats { unit: "steps", ready: Some(began), ..Stats::default() };
    let (logits, outputs) = watch.run(batch, sequence, prompt, rows)?;
    stats.prompt = (prompt.len(), began.elapsed());
    if let Some(path) = &args.logits {
        let dumped = dump::kept(&[], &args.dump);
        let kept = outputs.tensors.iter().filter(|(name, role, _)| {
            // What is kept for a dump alone goes there; a plan has what it was compiled with.
            *role == OutputRole::Kept && (args.model.keep.contains(name) || !dumped.contains(name))
        });
        let mut tensors = vec![("logits".to_owned(), stack(&logits, batch.options().vocabulary))];
        tensors.extend(kept.map(|(name, _, tensor)| (name.clone(), tensor.clone())));
        files::write_tensors(path, &tensors)?;
    }
    let last = logits.last().expect("a prompt has a last token").clone();
    let before = batch.session().cpu_cost();
    let began = Instant::now();
    let mut continuation = Continuation::new(rules, count(args), args.sampling.seed);
    let mut printer = Stream { is_text: rules.vocabulary.is_some(), is_silent: args.json, nth: 0 };
    let is_read = args.state_out.is_some();
    let steps =
        answer::generate(batch, sequence, &mut continuation, last, is_read, &mut |drawn| printer.print(&drawn))?;
    stats.decode = (steps, began.elapsed());
    stats.cost = (before, batch.session().cpu_cost());
    match args.json {
        true => print_result(&answer::json(None, prompt.len(), &continuation.into_continued(), rules.vocabulary))?,
        false if count(args) > 0 => print_result("\n")?,
        false => {}
    }
    if let Some(path) = &args.state_out {
        let state = batch.save(sequence)?;
        let fail = |error| Failure::Environment(format!("cannot write `{}`: {error}", path.display()));
        files::write(path, &state::to_bytes(&state, batch.state_layout(), &owner(input)).map_err(fail)?)?;
    }
    Ok(stats)
}

/// Prepares the steps of one token.
fn prepare_one<S: Session>(batch: &mut Batch<'_, S>) -> Result<(), GenerateError> {
    if batch.draws() { batch.prepare_drawing(1) } else { batch.prepare(&[1], Rows::Last) }
}

/// Goes on from many prompts, side by side.
fn many<S: Session>(
    batch: &mut Batch<'_, S>,
    args: &RunArgs,
    list: &List,
    begin: Option<&SequenceState>,
    rules: &Rules<'_>,
) -> Result<Stats, Failure> {
    let side_by_side = batch.options().capacity as usize;
    let largest = *batch.options().step_tokens.last().expect("there is a size") as usize;
    // The largest step first: the others share its memory.
    batch.prepare(&vec![(largest / side_by_side).max(1); side_by_side], Rows::Last)?;
    let mut printer = Printer::new(list, rules.vocabulary, args.json);
    let (mut generated, mut failure) = (0, None);
    let before = batch.session().cpu_cost();
    let began = Instant::now();
    queue::run(batch, &list.prompts, rules, begin, &mut |nth, continued| {
        generated += continued.tokens.len();
        match printer.take(nth, continued) {
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
    let stats = Stats { prompt: (read, took), decode: (generated, took), unit: "tokens", cost, ready: Some(began) };
    failure.map_or(Ok(stats), Err)
}

/// Converses until there is no more input.
fn converse<S: Session>(
    batch: &mut Batch<'_, S>,
    task: &Task<'_>,
    manner: &Manner,
    begin: Option<&SequenceState>,
    rules: &Rules<'_>,
) -> Result<Stats, Failure> {
    let Task { args, input, vocabulary, .. } = task;
    prepare_one(batch)?;
    let before = batch.session().cpu_cost();
    let ready = Some(Instant::now());
    let setting = Setting {
        manner,
        rules,
        vocabulary: vocabulary.expect("checked with the flags"),
        count: count(args),
        seed: args.sampling.seed,
        start: start_token(args, input),
        begin,
        owner: owner(input),
        json: args.json,
        state_out: args.state_out.as_deref(),
    };
    let cost = chat::run(batch, &setting)?;
    let cpu = (before, batch.session().cpu_cost());
    Ok(Stats { prompt: cost.read, decode: cost.generated, unit: "steps", cost: cpu, ready })
}

/// How texts go on, by the flags.
fn rules<'t>(task: &Task<'t>) -> Rules<'t> {
    let Task { args, input, vocabulary, .. } = task;
    let default = || match input.is_demo {
        true => Some(DEMO_TEXT_BOUNDARY),
        false => vocabulary.and_then(Vocabulary::end_of_text),
    };
    Rules {
        sampling: args.sampling.sampling(),
        stop_tokens: args.end.tokens().unwrap_or_else(|| Vec::from_iter(default())),
        stop_texts: args.end.texts().to_vec(),
        vocabulary: vocabulary.filter(|_| !args.print_tokens),
        top: args.logprobs.map(usize::from),
    }
}

/// Prints what is generated as it comes: text, or tokens with commas between.
struct Stream {
    is_text: bool,
    is_silent: bool,
    nth: usize,
}

impl Stream {
    fn print(&mut self, drawn: &Drawn) -> Result<ControlFlow<()>, Failure> {
        let text = match (drawn.token, self.nth) {
            _ if self.is_text => drawn.text.clone(),
            (None, _) => String::new(),
            (Some(token), 0) => token.to_string(),
            (Some(token), _) => format!(",{token}"),
        };
        self.nth += 1;
        if self.is_silent {
            return Ok(ControlFlow::Continue(()));
        }
        let mut out = std::io::stdout().lock();
        match write!(out, "{text}").and_then(|()| out.flush()) {
            Ok(()) => Ok(ControlFlow::Continue(())),
            // Whoever read the text has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            Err(error) => Err(cannot_print(&error)),
        }
    }
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
    /// When the first step could be run.
    ready: Option<Instant>,
}

/// Prints what the time until the first step went to.
fn print_start(task: &Task<'_>, ready: Option<Instant>, cost: StartCost) {
    let ready = ready.map_or(Duration::ZERO, |ready| ready - task.began);
    let (read, device) = task.opening;
    let StartCost { compile, upload, prepare } = cost;
    let [ready, read, device, compile, upload, prepare] =
        [ready, read, device, compile, upload, prepare].map(|time| time.as_secs_f64());
    eprintln!(
        "start    {ready:.3} s: files {read:.3}, device {device:.3}, compiling {compile:.3}, uploading {upload:.3}, \
         pipelines {prepare:.3}"
    );
}

impl Stats {
    fn print(&self, device: &DeviceInfo, tuning: Option<&Tuning>, memory: MemoryUse) {
        let rate = |(count, time): (usize, Duration)| count as f64 / time.as_secs_f64().max(1e-9);
        let (before, after) = self.cost;
        let steps = (after.steps - before.steps).max(1);
        let cpu_us =
            (after.record_ns + after.submit_ns - before.record_ns - before.submit_ns) as f64 / steps as f64 / 1e3;
        eprintln!("device   {} ({}, {})", device.name, device.api, device.driver);
        eprintln!("tuning   {}", tuning::line(tuning));
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
