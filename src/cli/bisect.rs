//! `graphc bisect`: two configurations side by side, and the first value that parts.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

use crate::base::diag::nearest;
use crate::base::limits::Limits;
use crate::cli::compile::limits;
use crate::cli::executor::{self, Chosen, ExecutorChoice};
use crate::cli::plans::{self, What};
use crate::cli::run::DEMO_TEXT_BOUNDARY;
use crate::cli::{Failure, Format, Fuse, ModelArgs, files, print_result, text};
use crate::compile::Compiler;
use crate::exec::Executor;
use crate::exec::hal::HalOptions;
use crate::exec::reference::ReferenceOptions;
use crate::exec::wgpu::{WgpuBackend, WgpuOptions};
use crate::inspect::bisect::{self, BisectError, Settings, Side, Source, Tolerance};
use crate::kernel::tuning::Tuning;

/// More prompt than anyone compares by: a bound on what is read into memory.
const MAX_PROMPT_BYTES: u64 = 64 << 20;

/// Tokens of a step unless it is said: each by itself, so that every state is seen.
const DEFAULT_STEP_TOKENS: u32 = 1;

#[derive(Args, Debug)]
#[command(
    mut_arg("graph", |arg| arg.index(3)),
    mut_arg("keep", |arg| arg.hide(true)),
    after_help = "\
A configuration is an executor (auto, hal, wgpu, reference where it is built in) and parts of the form NAME=VALUE, \
joined by commas, in any order, each of them optional:
  device=SUBSTRING   the first device with this in its name
  step-tokens=T      steps of T tokens, the last one padded [default: 1]
  weights=FILE       another checkpoint, or another storage format of the same
  graph=GRAPH        another graph, a file or a name; graphs=DIR, shaders=DIR: other folders
  target=TARGET      compiled for this target, not for the device (see compile)
  fuse=on|off        as the graph is written, or fused as `run` does it: then those values are compared that are left
                     [default: off]
  batch-invariant    only kernel variants of that kind
  plan=FILE          a plan file as it is, in place of a graph; give it `compile --keep` for what it is to show
What is not said of one side holds for both: --weights, --graphs, --shaders, GRAPH.

  graphc bisect hal wgpu --prompt 'Once'
  graphc bisect hal hal,step-tokens=16 --prompt-file FILE
  graphc bisect hal,fuse=on hal,fuse=off --prompt 'Once'
  graphc bisect hal,shaders=shaders hal,shaders=mine --tokens 1,2,3 --tolerance 1e-5,1e-4
  graphc bisect hal hal,weights=model.f16.safetensors --weights model.safetensors --prompt 'Once' --tolerance 0,1e-2"
)]
pub(super) struct BisectArgs {
    /// One configuration, as in `hal` or `hal,device=llvmpipe,step-tokens=16`
    #[arg(index = 1, value_name = "A", value_parser = configuration)]
    a: Configuration,
    /// The other one
    #[arg(index = 2, value_name = "B", value_parser = configuration)]
    b: Configuration,
    #[command(flatten)]
    model: ModelArgs,
    /// The text to run
    #[arg(long, value_name = "TEXT", group = "given")]
    prompt: Option<String>,
    /// The text to run, in a file
    #[arg(long, value_name = "FILE", group = "given")]
    prompt_file: Option<PathBuf>,
    /// The tokens to run, as in 1,2,3
    #[arg(long, value_name = "IDS", group = "given", value_delimiter = ',')]
    tokens: Option<Vec<u32>>,
    /// The text of each token, as `run` takes it
    #[arg(long, value_name = "FILE")]
    vocabulary: Option<PathBuf>,
    /// How far two elements may be apart: ABS, plus REL times the largest magnitude of their row (a token's part of a
    /// value); 0 wants every bit to be the same
    #[arg(long, value_name = "ABS[,REL]", default_value = "1e-5,1e-3", value_parser = tolerance,
          allow_negative_numbers = true)]
    tolerance: Tolerance,
    /// Memory for the values that are looked at, in MiB; where a model has more of them, the tokens are run several
    /// times with some of them
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    memory: u64,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// A configuration as it was written, and what it means.
#[derive(Debug, Clone)]
struct Configuration {
    text: String,
    executor: ExecutorChoice,
    device: Option<String>,
    step_tokens: Option<u32>,
    weights: Option<PathBuf>,
    graph: Option<String>,
    graphs: Option<PathBuf>,
    shaders: Option<PathBuf>,
    target: Option<String>,
    tuning: Option<PathBuf>,
    batch_invariant: bool,
    fuse: Option<Fuse>,
    plan: Option<String>,
}

/// Names of parts with a value.
const PARTS: [&str; 10] =
    ["device", "step-tokens", "weights", "graph", "graphs", "shaders", "target", "tuning", "fuse", "plan"];

fn configuration(text: &str) -> Result<Configuration, String> {
    let mut found = Configuration {
        text: text.to_owned(),
        executor: ExecutorChoice::Auto,
        device: None,
        step_tokens: None,
        weights: None,
        graph: None,
        graphs: None,
        shaders: None,
        target: None,
        tuning: None,
        batch_invariant: false,
        fuse: None,
        plan: None,
    };
    let mut given: Vec<&str> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let name = match part.split_once('=') {
            None if part == "batch-invariant" => {
                found.batch_invariant = true;
                "batch-invariant"
            }
            None => {
                found.executor = ExecutorChoice::from_str(part, false).map_err(|_| unknown_word(part))?;
                "executor"
            }
            Some((name, "")) => return Err(format!("`{name}=` has no value")),
            Some((name, value)) => {
                found.set(name, value)?;
                name
            }
        };
        if given.contains(&name) {
            return Err(format!("`{name}` is said twice"));
        }
        given.push(name);
    }
    let with_graphs = ["step-tokens", "graph", "graphs", "shaders", "target", "tuning", "fuse", "batch-invariant"];
    if let (Some(plan), Some(name)) = (&found.plan, given.iter().find(|name| with_graphs.contains(name))) {
        return Err(format!("`{name}` is for graphs, which are compiled; `{plan}` is run as it is"));
    }
    Ok(found)
}

fn unknown_word(word: &str) -> String {
    let executors = ExecutorChoice::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let known: Vec<String> = executors.map(|value| value.get_name().to_owned()).collect();
    let near = nearest(word, known.iter().map(String::as_str).chain(PARTS).chain(["batch-invariant"]));
    let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    let (known, parts) = (known.join(", "), PARTS.join("=, "));
    format!("expected an executor ({known}), `batch-invariant`, or one of {parts}=, found `{word}`{near}")
}

impl Configuration {
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let (text, path) = (Some(value.to_owned()), Some(PathBuf::from(value)));
        match name {
            "device" => self.device = text,
            "graph" => self.graph = text,
            "target" => self.target = text,
            "plan" => self.plan = text,
            "weights" => self.weights = path,
            "graphs" => self.graphs = path,
            "shaders" => self.shaders = path,
            "tuning" => self.tuning = path,
            "fuse" => {
                let wrong = |_| format!("`fuse={value}`: expected on, no-copies or off");
                self.fuse = Some(Fuse::from_str(value, false).map_err(wrong)?);
            }
            "step-tokens" => {
                let tokens = value.parse().ok().filter(|tokens| (1..=4096).contains(tokens));
                self.step_tokens = Some(tokens.ok_or_else(|| format!("`step-tokens={value}`: expected 1 to 4096"))?);
            }
            other => return Err(unknown_word(other)),
        }
        Ok(())
    }

    /// Where this side's graph, kernels and weights come from.
    fn model(&self, both: &ModelArgs) -> ModelArgs {
        let or = |own: &Option<PathBuf>, both: &Option<PathBuf>| own.as_ref().or(both.as_ref()).cloned();
        ModelArgs {
            graph: self.graph.as_ref().or(both.graph.as_ref()).cloned(),
            weights: or(&self.weights, &both.weights),
            graphs: or(&self.graphs, &both.graphs),
            shaders: or(&self.shaders, &both.shaders),
            tuning: or(&self.tuning, &both.tuning),
            batch_invariant: self.batch_invariant || both.batch_invariant,
            fuse: self.fuse.unwrap_or(Fuse::Off),
            ..both.clone()
        }
    }
}

fn tolerance(text: &str) -> Result<Tolerance, String> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    let (absolute, relative) = text.split_once(',').map_or((text, "0"), |parts| parts);
    let parts = number(absolute).zip(number(relative));
    let (absolute, relative) = parts.ok_or("expected one or two numbers of 0 or more, as in 1e-5,1e-3")?;
    Ok(Tolerance { absolute, relative })
}

/// A side, read and on an open device.
struct Opened {
    input: plans::Source,
    executor: Chosen,
    limits: Limits,
    tuning: Option<Tuning>,
    step_tokens: u32,
    batch_invariant: bool,
    copies: bool,
    /// Whether only values that fusing leaves are looked at: to keep the others would undo it.
    only_left: bool,
}

pub(super) fn run(args: BisectArgs) -> Result<(), Failure> {
    if !args.model.keep.is_empty() {
        return Err(Failure::Environment("`--keep` is for `run` and `compile`: here every value is kept".into()));
    }
    let sides = [Opened::new(&args.a, &args.model)?, Opened::new(&args.b, &args.model)?];
    let tokens = tokens(&args, &sides[0])?;
    let bar = bar();
    let settings = Settings { tokens: &tokens, tolerance: args.tolerance, held_bytes: args.memory << 20 };
    let [a, b] = &sides;
    let found = bisect::bisect([a.side(), b.side()], settings, &mut |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let names = [args.a.text.as_str(), args.b.text.as_str()];
    let report = found.map_err(|(side, error)| failure(side.map(|side| (["A", "B"][side], names[side])), error))?;
    print_result(&match args.format {
        Format::Text => bisect::text(&report, names),
        Format::Json => {
            let mut json = serde_json::to_value(&report).expect("a report holds nothing that JSON cannot");
            for (side, name) in names.into_iter().enumerate() {
                json["sides"][side]["name"] = name.into();
            }
            format!("{json:#}\n")
        }
    })?;
    match report.parting {
        None => Ok(()),
        Some(_) => Err(Failure::Diagnostics(String::new())),
    }
}

impl Opened {
    fn new(own: &Configuration, both: &ModelArgs) -> Result<Self, Failure> {
        let model = own.model(both);
        let model = match &own.plan {
            // What is said of both sides is of graphs.
            Some(plan) => {
                let (graph, fuse) = (Some(plan.clone()), Fuse::default());
                ModelArgs { graph, graphs: None, shaders: None, batch_invariant: false, tuning: None, fuse, ..model }
            }
            None => model,
        };
        if let Some(path) = own.plan.as_deref().filter(|path| !plans::is_plan(path)) {
            // What is there is read for the reason, if there is one.
            files::read(Path::new(path), "a plan", u64::MAX)?;
            let message = format!("`plan={path}`: expected a plan file, as `compile -o` writes it");
            return Err(Failure::Environment(message));
        }
        let mut input = plans::read(&model, &[], own.step_tokens)?;
        let track = cfg!(debug_assertions);
        let hal = HalOptions { track, validation_layers: false, dropped: None };
        let wgpu = WgpuOptions { backend: WgpuBackend::Native, track, validation_layers: false };
        let executor = executor::choose(own.executor, own.device.as_deref(), &hal, &wgpu, &ReferenceOptions::new())?;
        let limits = match &own.target {
            Some(target) => limits(target)?,
            None => executor.device().limits.clone(),
        };
        // Sides are to differ in what was said of them, not in what was kept for their devices.
        let tuning = input.tuning(model.tuning.as_deref(), None)?;
        let step_tokens = own.step_tokens.unwrap_or(DEFAULT_STEP_TOKENS);
        let copies = model.fuse.takes_copies();
        let only_left = own.fuse.is_some_and(|fuse| fuse != Fuse::Off);
        Ok(Self {
            input,
            executor,
            limits,
            tuning,
            step_tokens,
            batch_invariant: model.batch_invariant,
            copies,
            only_left,
        })
    }

    fn side(&self) -> Side<'_, Chosen> {
        let (checkpoint, batch_invariant, copies) = (&self.input.checkpoint, self.batch_invariant, self.copies);
        let source = match &self.input.what {
            What::Graph(program) => {
                let compiler = program.compiler(checkpoint.index(), &self.limits);
                let compiler = Compiler { batch_invariant, copies, tuning: self.tuning.as_ref(), ..compiler };
                Source::Graph { compiler, step_tokens: self.step_tokens, only_left: self.only_left }
            }
            What::Plans { plans, .. } => Source::Plan(&plans.plans()[0]),
        };
        Side { executor: &self.executor, source, checkpoint }
    }
}

/// What is run, as tokens of the first side's vocabulary.
fn tokens(args: &BisectArgs, side: &Opened) -> Result<Vec<u32>, Failure> {
    if let Some(tokens) = &args.tokens {
        return Ok(tokens.clone());
    }
    let text = match (&args.prompt, &args.prompt_file) {
        (Some(text), _) => text.clone(),
        (_, Some(path)) => files::read_text(path, "a prompt", MAX_PROMPT_BYTES)?,
        _ => String::new(),
    };
    if text.is_empty() {
        return Err(Failure::Environment(
            "nothing to run: give a non-empty `--prompt`, `--prompt-file` or `--tokens`".into(),
        ));
    }
    let size = side.input.vocabulary();
    let given = args.vocabulary.as_deref().map(|path| text::from_file(path, size)).transpose()?;
    let mut tokens = Vec::from_iter(side.input.is_demo.then_some(DEMO_TEXT_BOUNDARY));
    let wrong = |message| Failure::Diagnostics(format!("error: {message}\n"));
    tokens.extend(text::tokenize(&text, given.as_ref(), size).map_err(wrong)?);
    Ok(tokens)
}

/// What is wrong, and on which side.
fn failure(side: Option<(&str, &str)>, error: BisectError) -> Failure {
    let failure = match error {
        BisectError::Run(error) => Failure::from(error),
        other => Failure::Diagnostics(format!("error: {other}\n")),
    };
    let Some((side, name)) = side else { return failure };
    match failure {
        Failure::Diagnostics(text) => Failure::Diagnostics(format!("{text}side {side}, `{name}`\n")),
        Failure::Environment(text) => Failure::Environment(format!("{text} (side {side}, `{name}`)")),
    }
}

/// A bar on a terminal, nothing elsewhere.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("comparing {bar:30} {pos}/{len} tokens");
    ProgressBar::new(0).with_style(style.expect("the template is right"))
}
