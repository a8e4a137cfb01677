//! `graphc compile`: any stage of a model, as text or JSON.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::base::limits::Limits;
use crate::base::raw::Reader;
use crate::base::span::SourceMap;
use crate::base::step::StepShape;
use crate::cli::input::{self, Input};
use crate::cli::{Failure, Fuse, ModelArgs, files, plans, print_result, rendered, tuning};
use crate::compile::{Compiled, Compiler, verify_file};
use crate::exec::wgpu::{WgpuBackend, WgpuExecutor, WgpuOptions};
use crate::exec::{DeviceInfo, Executor};
use crate::inspect::profile::{self, Profile};
use crate::inspect::traffic::traffic;
use crate::inspect::{dot, view};
use crate::plan::file::{self, PlanFile};
use crate::plan::{CheckedPlan, Gap, Plan, print};
use crate::{graph, model, schedule, sources};

/// More than the profile of any plan that can be made.
const MAX_PROFILE_BYTES: u64 = 1 << 28;

/// What a plan is made for.
#[derive(Args, Debug, Clone)]
pub(super) struct PlanArgs {
    /// Tokens of a step [default: 1]
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=65535))]
    pub tokens: Option<u32>,
    /// Sequences of a step [default: 1]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=65535))]
    pub sequences: Option<u32>,
    /// Rows of logits of a step [default: one per sequence]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=65535))]
    pub rows: Option<u32>,
    /// Sequences that a session of the plan holds [default: those of a step]
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u32).range(1..=65535))]
    pub capacity: Option<u32>,
    /// Compile a step that draws the next tokens itself, instead of giving logits
    #[arg(long)]
    pub draws: bool,
    /// What to compile for: webgpu, vulkan, device (the first one found), or a RON file of limits [default: vulkan]
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct CompileArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    plan: PlanArgs,
    /// Write the plan to this file, which `run` runs and `compile` prints again
    #[arg(short, long, value_name = "PLAN")]
    output: Option<PathBuf>,
    /// What to print [default: summary, or nothing with --output]
    #[arg(long, value_enum)]
    emit: Option<Emit>,
    /// Print the plan, and behind each line how many bytes it moves at most; with a file of `bench --profile-json`, how
    /// long that took and its share of the roofline
    #[arg(long, value_name = "PROFILE", num_args = 0..=1, require_equals = true)]
    roofline: Option<Option<PathBuf>>,
    /// How to print it; all but text and json print the plan, which is then the default of --emit
    #[arg(long, value_enum, default_value_t = StageFormat::Text)]
    format: StageFormat,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum StageFormat {
    Text,
    /// As in the files that are written and read as such: graphs and plans
    Ron,
    Json,
    /// For Graphviz
    Dot,
    /// A page that draws the plan, in one file
    Html,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Emit {
    Graph,
    Model,
    Schedule,
    Plan,
    Barriers,
    Memory,
    Summary,
    /// The WGSL of every kernel, as compiled
    Kernels,
}

pub(super) fn run(args: CompileArgs) -> Result<(), Failure> {
    let emit = emit(&args)?;
    if let Some(plan) = args.model.graph.as_deref().map(plans::read_file).transpose()?.flatten() {
        let mut idle = flags_for_graphs(&args.model, &args.plan);
        idle.extend(args.output.is_some().then_some("`--output`"));
        idle.extend(args.roofline.is_some().then_some("`--roofline`"));
        if !idle.is_empty() {
            let flags = idle.join(", ");
            let message = format!("a plan file is printed as it is: {flags} would change nothing without a graph");
            return Err(Failure::Environment(message));
        }
        return print_plan(args.model.graph.as_deref().unwrap_or_default(), plan, emit, args.format);
    }
    let mut input = input::read(&args.model)?;
    let target = target(args.plan.target.as_deref())?;
    if let Some(Emit::Graph) = emit {
        let text = match args.format {
            StageFormat::Json => json(&input.graph),
            _ => graph::print(&input.graph),
        };
        return print_result(&text);
    }
    let compiled = compile(&mut input, &args.model, &args.plan, &target)?;
    if let Some(path) = &args.output {
        let text = file::to_text(&compiled.plan, &input.checkpoint.fingerprint());
        files::write(path, text.as_bytes())?;
    }
    if let Some(profile) = &args.roofline {
        return print_result(&roofline(&compiled, profile.as_deref())?);
    }
    match emit {
        Some(emit) => print_result(&stage(&compiled, emit, args.format, &input.checkpoint.fingerprint())),
        None => Ok(()),
    }
}

/// Compiles what was read; lints go to stderr.
pub(super) fn compile(
    input: &mut Input,
    model: &ModelArgs,
    args: &PlanArgs,
    target: &Target,
) -> Result<Compiled, Failure> {
    let Target { limits, device } = target;
    let tuning = tuning::read(model.tuning.as_deref(), device.as_ref(), &input.kernels, &mut input.sources)?;
    let compiler = Compiler {
        graph: &input.graph,
        kernels: &input.kernels,
        sources: &input.sources,
        index: input.checkpoint.index(),
        limits,
        keep: &model.keep,
        batch_invariant: model.batch_invariant,
        draws: args.draws,
        tuning: tuning.as_ref(),
        fuse: input.rules.as_ref(),
        copies: model.fuse.takes_copies(),
    };
    let (tokens, sequences) = (args.tokens.unwrap_or(1), args.sequences.unwrap_or(1));
    let (rows, capacity) = (args.rows.unwrap_or(sequences), args.capacity.unwrap_or(sequences));
    if capacity < sequences {
        let message = format!("`--capacity {capacity}`: a step of {sequences} sequences needs as many");
        return Err(Failure::Environment(message));
    }
    let shape = StepShape { tokens, sequences, rows, capacity };
    let compiled = compiler.compile(shape)?;
    eprint!("{}", rendered(&compiled.lints, &input.sources));
    Ok(compiled)
}

/// The plan that a command is about: that of a plan file, verified, or of a graph, compiled.
pub(super) fn plan(model: &ModelArgs, args: &PlanArgs) -> Result<CheckedPlan, Failure> {
    let Some(file) = model.graph.as_deref().map(plans::read_file).transpose()?.flatten() else {
        let target = target(args.target.as_deref())?;
        return Ok(compile(&mut input::read(model)?, model, args, &target)?.plan);
    };
    let idle = flags_for_graphs(model, args).join(", ");
    match idle.is_empty() {
        true => verified(model.graph.as_deref().unwrap_or_default(), file),
        false => Err(Failure::Environment(format!(
            "a plan file is taken as it is: {idle} would change nothing without a graph"
        ))),
    }
}

/// The plan with the bytes of each command behind it, and its times where a profile has them.
fn roofline(compiled: &Compiled, path: Option<&Path>) -> Result<String, Failure> {
    let Compiled { model, plan, .. } = compiled;
    let profile = path.map(|path| {
        let text = files::read_text(path, "a profile", MAX_PROFILE_BYTES)?;
        serde_json::from_str(&text)
            .map_err(|error| Failure::Diagnostics(format!("error: `{}` is no profile: {error}\n", path.display())))
    });
    let profile: Option<Profile> = profile.transpose()?;
    let notes = profile::annotations(plan, &traffic(model, plan), profile.as_ref()).map_err(|reason| {
        let path = path.unwrap_or(Path::new("")).display();
        Failure::Diagnostics(format!("error: `{path}` is the profile of another plan: {reason}\n"))
    })?;
    Ok(print::annotated(plan, &notes))
}

/// What to print, where there is a form for it.
fn emit(args: &CompileArgs) -> Result<Option<Emit>, Failure> {
    if args.roofline.is_some() && (args.emit.is_some_and(|emit| emit != Emit::Plan) || args.format != StageFormat::Text)
    {
        let message = "`--roofline` stands behind the lines of a plan: expected `--emit plan` as text";
        return Err(Failure::Environment(message.to_owned()));
    }
    let Some(emit) = args.emit else {
        return Ok(match args.format {
            StageFormat::Ron | StageFormat::Dot | StageFormat::Html => Some(Emit::Plan),
            StageFormat::Text | StageFormat::Json => args.output.is_none().then_some(Emit::Summary),
        });
    };
    let has_form = match args.format {
        StageFormat::Text | StageFormat::Json => true,
        StageFormat::Ron => matches!(emit, Emit::Plan | Emit::Graph),
        StageFormat::Dot | StageFormat::Html => emit == Emit::Plan,
    };
    if has_form {
        return Ok(Some(emit));
    }
    let name = |value: Option<clap::builder::PossibleValue>| value.expect("none is hidden").get_name().to_owned();
    let (format, emit) = (name(args.format.to_possible_value()), name(emit.to_possible_value()));
    let also = if format == "ron" { "graph and plan" } else { "plan" };
    Err(Failure::Environment(format!(
        "`--emit {emit}` has no form `{format}`: expected text or json, or one of `--emit {also}`"
    )))
}

/// The flags given that say how a graph is compiled.
pub(super) fn flags_for_graphs(model: &ModelArgs, plan: &PlanArgs) -> Vec<&'static str> {
    let ModelArgs { weights, adapt, state_init, graphs, shaders, keep, batch_invariant, fuse, set, tuning, .. } = model;
    let flags = [
        ("`--weights`", weights.is_some()),
        ("`--names`", adapt.names.is_some()),
        ("`--lora`", !adapt.lora.is_empty()),
        ("`--state-init`", state_init.is_some()),
        ("`--graphs`", graphs.is_some()),
        ("`--shaders`", shaders.is_some()),
        ("`--keep`", !keep.is_empty()),
        ("`--batch-invariant`", *batch_invariant),
        ("`--fuse`", *fuse != Fuse::default()),
        ("`--set`", !set.is_empty()),
        ("`--tuning`", tuning.is_some()),
        ("`--tokens`", plan.tokens.is_some()),
        ("`--sequences`", plan.sequences.is_some()),
        ("`--rows`", plan.rows.is_some()),
        ("`--capacity`", plan.capacity.is_some()),
        ("`--draws`", plan.draws),
        ("`--target`", plan.target.is_some()),
    ];
    flags.into_iter().filter(|(_, is_given)| *is_given).map(|(flag, _)| flag).collect()
}

/// The plan of a file, of which all that a plan promises holds.
pub(super) fn verified(path: &str, file: PlanFile) -> Result<CheckedPlan, Failure> {
    verify_file(file).map_err(|error| Failure::Diagnostics(format!("error: `{path}`: {error}\n")))
}

/// Prints a plan from its file alone; what came before it is not in there.
fn print_plan(path: &str, file: PlanFile, emit: Option<Emit>, format: StageFormat) -> Result<(), Failure> {
    let fingerprint = file.model.clone();
    let plan = verified(path, file)?;
    match plan_text(&plan, emit.unwrap_or(Emit::Summary), format, &fingerprint) {
        Some(text) => print_result(&text),
        None => {
            Err(Failure::Environment("a plan file holds the plan, not the graph, model or schedule before it".into()))
        }
    }
}

fn stage(compiled: &Compiled, emit: Emit, format: StageFormat, fingerprint: &str) -> String {
    let Compiled { model, schedule, plan, .. } = compiled;
    match (emit, format) {
        (Emit::Model, StageFormat::Json) => json(model),
        (Emit::Model, _) => model::print(model),
        (Emit::Schedule, StageFormat::Json) => json(schedule),
        (Emit::Schedule, _) => schedule::print(schedule, model),
        _ => plan_text(plan, emit, format, fingerprint).expect("the stages before the plan are printed above"),
    }
}

/// A plan, and what makes its slots larger than their lower bound.
#[derive(Serialize)]
struct WithGaps<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    gaps: Vec<Gap>,
}

/// What a plan alone can show; `fingerprint` is that of its weights.
fn plan_text(plan: &CheckedPlan, emit: Emit, format: StageFormat, fingerprint: &str) -> Option<String> {
    let is_json = format == StageFormat::Json;
    Some(match emit {
        Emit::Graph | Emit::Model | Emit::Schedule => return None,
        Emit::Plan => match format {
            StageFormat::Text => print::plan(plan),
            StageFormat::Json => json(&WithGaps { plan, gaps: plan.gaps() }),
            StageFormat::Ron => file::to_text(plan, fingerprint),
            StageFormat::Dot => dot::plan(plan),
            StageFormat::Html => view::html(plan),
        },
        Emit::Barriers if is_json => json(&plan.barriers().collect::<Vec<_>>()),
        Emit::Barriers => print::barriers(plan),
        Emit::Memory if is_json => json(&serde_json::json!({
            "buffers": plan.buffers, "values": plan.values, "gaps": plan.gaps(),
            "slot_bytes": plan.summary().slot_bytes, "lower_bound_bytes": plan.summary().lower_bound_bytes,
        })),
        Emit::Memory => print::memory(plan),
        Emit::Summary if is_json => json(&plan.summary()),
        Emit::Summary => print::summary(plan),
        Emit::Kernels if is_json => json(&plan.kernels),
        Emit::Kernels => {
            plan.kernels.iter().map(|(id, kernel)| format!("// {id} {}\n{}\n", kernel.label, kernel.wgsl)).collect()
        }
    })
}

pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("stages hold nothing that JSON cannot") + "\n"
}

/// What plans are for.
pub(super) struct Target {
    limits: Limits,
    /// The device, if it is one that is there.
    device: Option<DeviceInfo>,
}

/// What `--target` names.
pub(super) fn target(name: Option<&str>) -> Result<Target, Failure> {
    match name.unwrap_or("vulkan") {
        "device" => {
            let device = device()?;
            Ok(Target { limits: device.limits.clone(), device: Some(device) })
        }
        other => Ok(Target { limits: limits(other)?, device: None }),
    }
}

/// The first device that is there.
fn device() -> Result<DeviceInfo, Failure> {
    let options = WgpuOptions { backend: WgpuBackend::Native, track: false, validation_layers: false };
    Ok(WgpuExecutor::new(&options, None)?.device().clone())
}

pub(super) fn limits(target: &str) -> Result<Limits, Failure> {
    match target {
        "webgpu" => Ok(Limits::webgpu()),
        "vulkan" => Ok(Limits::vulkan()),
        "device" => Ok(device()?.limits),
        path if Path::new(path).is_file() => {
            let text = sources::read_text(Path::new(path))?;
            let mut map = SourceMap::new();
            let source = map.add(path, text);
            let mut reader = Reader::new(&map, source);
            let limits = reader.file();
            limits.ok_or_else(|| Failure::Diagnostics(rendered(&reader.diagnostics, &map)))
        }
        other => Err(Failure::Environment(format!(
            "`--target {other}`: expected webgpu, vulkan, device or a RON file of limits"
        ))),
    }
}
