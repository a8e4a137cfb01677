//! `graphc verify`: a plan proved by experiment.

mod rules;

use std::fmt::Write as _;
use std::io::IsTerminal;

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::base::limits::Limits;
use crate::base::step::StepShape;
use crate::checkpoint::Checkpoint;
use crate::cli::{Failure, Format, ModelArgs, input, log_sink, print_result, tuning};
use crate::compile::{Compiler, open_plan};
use crate::exec::hal::{HalOptions, VulkanExecutor};
use crate::exec::reference::{ReferenceExecutor, ReferenceOptions, Sanitize};
use crate::exec::wgpu::{WgpuBackend, WgpuExecutor, WgpuOptions};
use crate::exec::{ExecError, Executor, Inputs, PlanId, Session, Weights};
use crate::inspect::oracle;
use crate::inspect::verify::layer::{self, Mismatch};
use crate::inspect::verify::masks::{Event, Model};
use crate::inspect::verify::rules::Apart;
use crate::inspect::verify::{self, Trace, Trial};
use crate::plan::{CheckedPlan, Plan, file};

/// The version of the validation layer whose eyes `inspect::verify::masks` has.
const KNOWN_LAYER: (u32, u32, u32) = (1, 3, 239);

/// Makes that layer look across submissions; it reads the variable when it is loaded.
const LAYER_VARIABLE: &str = "VK_LAYER_ENABLES";
const ACROSS_SUBMISSIONS: &str = "VALIDATION_CHECK_ENABLE_SYNCHRONIZATION_VALIDATION_QUEUE_SUBMIT";

/// What the executor on the CPU is called; its numbers are close to a device's, not the same.
const REFERENCE: &str = "reference";

#[derive(Args, Debug)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Tokens of a step [default: 1]; steps of 1 and of 16 tokens run beside it
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=65535))]
    tokens: Option<u32>,
    /// Sequences of a step [default: 1]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=4096))]
    sequences: Option<u32>,
    /// Use the first device with this in its name
    #[arg(long, value_name = "SUBSTRING")]
    device: Option<String>,
    /// Try every transition, not one of each sort
    #[arg(long)]
    all: bool,
    /// Run each mutant in a step of its own under validation, which takes far longer
    #[arg(long)]
    one_by_one: bool,
    /// The tokens that steps are run with are drawn by this seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Print every mutant, with who noticed it
    #[arg(long)]
    list: bool,
    /// Try the rewrite rules, each by itself, and nothing else; needs no checkpoint. With a name, those that have it in
    /// theirs
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    rules: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    graph: String,
    shape: StepShape,
    levels: u64,
    /// A bound on the number of levels from below, computed from the commands, whatever the plan says of it.
    longest_chain: u64,
    barriers: u64,
    transitions: u64,
    /// Transitions of which there are mutants.
    sampled: usize,
    /// Transitions that those stand for.
    covered: usize,
    mutants: usize,
    killed_by_checker: usize,
    confirmed_by_oracle: usize,
    survivors: usize,
    /// Pairs of accesses of the intact plans that nothing orders.
    unordered: usize,
    visible_to_validation: usize,
    /// Nothing if there is no layer whose eyes are known, or no device.
    killed_by_validation: Option<usize>,
    /// Nothing if there is no layer, or no device.
    hazards: Option<usize>,
    /// Version of the validation layer.
    validation_layer: Option<String>,
    /// Steps that had mutants in them.
    mutant_steps: Option<u64>,
    /// Mutants that the reference executor's model of visibility notices; nothing if it cannot run the plan.
    killed_by_reference: Option<usize>,
    /// What its sanitizer finds in the intact plans.
    findings: Option<usize>,
    executors: Vec<Ran>,
    /// Whether all executors gave the same bits; nothing if there are not two.
    agree: Option<bool>,
    /// Steps that were compared.
    steps: usize,
    /// The plans against those of the graph as it is written; nothing if nothing is fused.
    fused: Option<Fused>,
    /// The rewrite rules, each by itself; nothing of plan files and where nothing is fused.
    rules: Option<rules::Found>,
    /// What could not be done, and why.
    notes: Vec<String>,
    /// Everything that is wrong.
    failures: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<Vec<Listed>>,
}

/// How far fused plans are from those of the graph as it is written.
#[derive(Debug, Serialize)]
struct Fused {
    executor: &'static str,
    /// The largest difference of any output or state, relative to its largest element, or to 1.
    difference: f32,
    /// Where that is.
    at: String,
    /// Steps that were compared.
    steps: usize,
}

#[derive(Debug, Serialize)]
struct Ran {
    executor: &'static str,
    device: String,
    driver: String,
}

#[derive(Debug, Serialize)]
struct Listed {
    mutant: String,
    refusal: Option<String>,
    pair: Option<String>,
    visible: bool,
    noticed: Option<bool>,
    reference: Option<String>,
}

/// What runs of a plan and its mutants have shown of each mutant.
#[derive(Debug, Default)]
struct Noticed {
    /// Whether the layer reports it; nothing where mutants do not run.
    by_layer: Option<Vec<bool>>,
    /// What the reference executor has against it.
    by_reference: Option<Vec<Option<String>>>,
}

/// The devices to run on: the same one, for both executors.
struct Devices {
    hal: Option<VulkanExecutor>,
    wgpu: Option<WgpuExecutor>,
}

/// What is verified.
struct Subject {
    checkpoint: Checkpoint,
    /// The plan, and those that are run beside it.
    plans: Vec<CheckedPlan>,
    /// The same of the graph as it is written; none where nothing is fused.
    unfused: Vec<CheckedPlan>,
}

pub(super) fn run(args: VerifyArgs) -> Result<(), Failure> {
    look_across_submissions();
    log_sink::install_keeping();
    if let Some(only) = &args.rules {
        return rules::run(&args, only);
    }
    let mut notes = Vec::new();
    let devices = devices(args.device.as_deref(), &mut notes)?;
    let subject = subject(&args, &devices)?;
    let plans: Vec<&Plan> = subject.plans.iter().map(|plan| &**plan).collect();
    let plan = plans[0];
    let model = Model::new(plan);
    let bar = bar("judging mutants");
    let trial = verify::try_mutants(plan, &model, args.all, &mut |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let mut report = report(plan, &trial, notes);
    for tried in trial.mutants.iter().filter(|tried| tried.survives()) {
        let who = match (&tried.verdict.refusal, &tried.verdict.pair) {
            (None, None) => "the checker accepts it and the oracle finds no unordered pair",
            (None, _) => "the checker accepts it",
            _ => "the oracle finds no unordered pair",
        };
        report.failures.push(format!("survivor: {}: {who}", tried.sighting.mutant.text(plan)));
    }
    let pairs = verify::unordered_pairs(&plans);
    report.unordered = pairs.len();
    report.failures.extend(pairs);
    report.failures.extend(verify::needless_levels(&plans));
    let noticed = run_steps(&args, &subject, &devices, &model, &trial, &mut report)?;
    if !subject.unfused.is_empty() {
        report.fused = fused(&args, &subject, &devices)?;
        let far = report.fused.as_ref().filter(|fused| fused.difference > verify::TOLERANCE);
        let words = far.map(|Fused { executor, difference, at, .. }| {
            format!("fused and unfused plans differ on {executor} by {difference:.1e} at {at}")
        });
        report.failures.extend(words);
        let mut found = rules::find(&args.model, &Devices { hal: None, wgpu: None }, (args.seed, ""), &mut |_| Ok(()))?;
        report.failures.append(&mut found.failures);
        report.rules = Some(found);
    }
    if args.list {
        report.list = Some(list(plan, &trial, &noticed));
    }
    print_result(&match args.format {
        Format::Text => text(&report),
        Format::Json => serde_json::to_string_pretty(&report).expect("a report is plain data") + "\n",
    })?;
    match report.failures.as_slice() {
        [] => Ok(()),
        failures => Err(Failure::Diagnostics(failures.iter().map(|failure| format!("error: {failure}\n")).collect())),
    }
}

/// Whether the layer would look across submissions.
fn looks_across_submissions() -> bool {
    std::env::var(LAYER_VARIABLE).is_ok_and(|found| found.contains(ACROSS_SUBMISSIONS))
}

/// Starts the program again with the layer's variable set, unless it is: the layer reads it from the environment that
/// the process began with, which cannot be changed safely. Where that cannot be done, what goes on will say so.
fn look_across_submissions() {
    #[cfg(unix)]
    if !looks_across_submissions()
        && let Ok(program) = std::env::current_exe()
    {
        use std::os::unix::process::CommandExt;
        let found = std::env::var(LAYER_VARIABLE).unwrap_or_default();
        let value =
            if found.is_empty() { ACROSS_SUBMISSIONS.to_owned() } else { format!("{found}:{ACROSS_SUBMISSIONS}") };
        let _failed =
            std::process::Command::new(program).args(std::env::args_os().skip(1)).env(LAYER_VARIABLE, value).exec();
    }
}

fn devices(substring: Option<&str>, notes: &mut Vec<String>) -> Result<Devices, Failure> {
    // Mutants are there to be recorded, so nothing stops them; the intact plans are checked.
    let hal = HalOptions { track: false, validation_layers: true, dropped: None };
    let wgpu = WgpuOptions { backend: WgpuBackend::Native, track: true, validation_layers: false };
    let hal = VulkanExecutor::new(&hal, substring);
    let same = hal.as_ref().ok().map(|executor| executor.device().name.clone());
    let wgpu = WgpuExecutor::new(&wgpu, same.as_deref().or(substring));
    if let (Some(_), Err(error), Err(_)) = (substring, &hal, &wgpu) {
        return Err(Failure::environment(error));
    }
    let mut found = |name: &str, error: ExecError| notes.push(format!("nothing runs on {name}: {error}"));
    Ok(Devices {
        hal: hal.map_err(|error| found("hal", error)).ok(),
        wgpu: wgpu.map_err(|error| found("wgpu", error)).ok(),
    })
}

fn subject(args: &VerifyArgs, devices: &Devices) -> Result<Subject, Failure> {
    if let Some(path) = args.model.graph.as_deref()
        && let Ok(text) = std::fs::read_to_string(path)
        && text.starts_with(file::HEADER)
    {
        return plan_file(args, path, &text);
    }
    let mut input = input::read(&args.model)?;
    let device = match devices {
        Devices { hal: Some(executor), .. } => Some(executor.device()),
        Devices { wgpu: Some(executor), .. } => Some(executor.device()),
        _ => None,
    };
    let limits = device.map_or_else(Limits::vulkan, |device| device.limits.clone());
    let tuning = tuning::read(args.model.tuning.as_deref(), device, &input.kernels, &mut input.sources)?;
    let compiler = Compiler {
        graph: &input.graph,
        kernels: &input.kernels,
        sources: &input.sources,
        index: input.checkpoint.index(),
        limits: &limits,
        keep: &args.model.keep,
        batch_invariant: args.model.batch_invariant,
        draws: false,
        tuning: tuning.as_ref(),
        fuse: input.rules.as_ref(),
        copies: args.model.fuse.takes_copies(),
    };
    let mut sizes = vec![args.tokens.unwrap_or(1)];
    sizes.extend([1, 16].into_iter().filter(|size| Some(*size) != args.tokens.or(Some(1))));
    let sequences = args.sequences.unwrap_or(1);
    let plans = |compiler: Compiler<'_>| {
        let plans = sizes.iter().map(|tokens| {
            let shape = StepShape { tokens: *tokens, sequences, rows: sequences, capacity: sequences };
            Ok(compiler.compile(shape)?.plan)
        });
        plans.collect::<Result<Vec<_>, Failure>>()
    };
    let unfused = match compiler.fuse {
        Some(_) => plans(Compiler { fuse: None, ..compiler })?,
        None => Vec::new(),
    };
    let plans = plans(compiler)?;
    Ok(Subject { checkpoint: input.checkpoint, plans, unfused })
}

/// A plan from its file, by itself: what else it may meet is not in there.
fn plan_file(args: &VerifyArgs, path: &str, text: &str) -> Result<Subject, Failure> {
    let (model, is_tuned) = (&args.model, args.model.tuning.is_some());
    let is_given = args.tokens.is_some() || args.sequences.is_some() || model.batch_invariant || is_tuned;
    if is_given || !model.keep.is_empty() {
        let message = "a plan file is verified as it is; `--tokens`, `--sequences`, `--keep`, `--batch-invariant` and \
                       `--tuning` need a graph";
        return Err(Failure::Environment(message.into()));
    }
    let (checkpoint, _) = input::checkpoint(&args.model)?;
    let wrong = |error| Failure::Diagnostics(format!("error: `{path}`: {error}\n"));
    let plan = open_plan(text, &checkpoint.fingerprint()).map_err(wrong)?;
    Ok(Subject { checkpoint, plans: vec![plan], unfused: Vec::new() })
}

/// What needs no device.
fn report(plan: &Plan, trial: &Trial, notes: Vec<String>) -> Report {
    let summary = plan.summary();
    let count = |of: &dyn Fn(&verify::Tried) -> bool| trial.mutants.iter().filter(|tried| of(tried)).count();
    Report {
        graph: summary.graph,
        shape: summary.shape,
        levels: summary.levels,
        longest_chain: oracle::longest_chain(plan) as u64,
        barriers: summary.barriers,
        transitions: summary.transitions,
        sampled: trial.sampled,
        covered: trial.covered,
        mutants: trial.mutants.len(),
        killed_by_checker: count(&|tried| tried.verdict.refusal.is_some()),
        confirmed_by_oracle: count(&|tried| tried.verdict.pair.is_some()),
        survivors: count(&verify::Tried::survives),
        unordered: 0,
        visible_to_validation: count(&|tried| !tried.sighting.predicted.is_empty()),
        killed_by_validation: None,
        hazards: None,
        validation_layer: None,
        mutant_steps: None,
        killed_by_reference: None,
        findings: None,
        executors: Vec::new(),
        agree: None,
        steps: 0,
        fused: None,
        rules: None,
        notes,
        failures: Vec::new(),
        list: None,
    }
}

/// Runs the steps on every executor, and the mutants on hal. Returns who noticed which mutants.
fn run_steps(
    args: &VerifyArgs,
    subject: &Subject,
    devices: &Devices,
    model: &Model<'_>,
    trial: &Trial,
    report: &mut Report,
) -> Result<Noticed, Failure> {
    let plans: Vec<&Plan> = subject.plans.iter().map(|plan| &**plan).collect();
    let steps = verify::script(&plans, args.seed);
    let mut traces = Vec::new();
    let mut noticed = Noticed::default();
    if let Some(executor) = &devices.hal {
        let (mut session, ids) = open(executor, subject)?;
        traces.push(verify::trace(&mut session, &ids, &steps, &subject.plans[0].state)?);
        report.executors.push(ran("hal", executor));
        let version = executor.validation_layer();
        report.validation_layer = version.map(|(major, minor, patch)| format!("{major}.{minor}.{patch}"));
        let (hazards, other): (Vec<_>, Vec<_>) =
            log_sink::take().into_iter().partition(|text| text.contains("SYNC-HAZARD"));
        report.hazards = version.map(|_| hazards.len());
        report.failures.extend(hazards.iter().map(|text| format!("hazard of the intact plans: {text}")));
        report.failures.extend(other.iter().map(|text| format!("validation of the intact plans: {text}")));
        match version {
            None => report.notes.push(
                "nothing listens for hazards: validation layers are not installed (Debian: vulkan-validationlayers)"
                    .to_owned(),
            ),
            Some(_) if !looks_across_submissions() => report.notes.push(format!(
                "mutants do not run, and hazards between steps go unseen: set {LAYER_VARIABLE}={ACROSS_SUBMISSIONS}"
            )),
            Some(KNOWN_LAYER) => {
                let mut step = |edits: &[_]| {
                    session.edit_next(ids[0], edits);
                    let ticket = session.step(ids[0], &steps[0].1)?;
                    session.outputs(ticket).map(|_| log_sink::take())
                };
                noticed.by_layer = Some(under_layer(args, plans[0], model, trial, &mut step, report)?);
            }
            Some(_) => report.notes.push(format!(
                "mutants do not run: what validation sees is known of version {}.{}.{} alone",
                KNOWN_LAYER.0, KNOWN_LAYER.1, KNOWN_LAYER.2
            )),
        }
    }
    if let Some(executor) = &devices.wgpu {
        let (mut session, ids) = open(executor, subject)?;
        traces.push(verify::trace(&mut session, &ids, &steps, &subject.plans[0].state)?);
        report.executors.push(ran("wgpu", executor));
    }
    compare(&traces, report);
    report.steps = if traces.is_empty() { 0 } else { steps.len() };
    noticed.by_reference = on_reference(args, subject, trial, traces.first(), report)?;
    Ok(noticed)
}

/// Runs every plan on the CPU, under the sanitizer, and compares with what a device gave; then shows the model of
/// visibility the mutants. Returns what it has against each.
fn on_reference(
    args: &VerifyArgs,
    subject: &Subject,
    trial: &Trial,
    device: Option<&Trace>,
    report: &mut Report,
) -> Result<Option<Vec<Option<String>>>, Failure> {
    let plans: Vec<&Plan> = subject.plans.iter().map(|plan| &**plan).collect();
    let sanitize = Some(Sanitize { not_finite: false });
    let usual = ReferenceOptions::new();
    // Plans for subgroups of eight lanes are run by such.
    let subgroup_size = if plans.iter().any(|plan| plan.limits.octets) { 8 } else { usual.subgroup_size };
    let executor = ReferenceExecutor::new(&ReferenceOptions { sanitize, subgroup_size, ..usual }, None)?;
    let (mut session, ids) = match open(&executor, subject) {
        Ok(opened) => opened,
        Err(Failure::Environment(reason)) => {
            report.notes.push(format!("nothing runs on the reference executor: {reason}"));
            return Ok(None);
        }
        Err(failure) => return Err(failure),
    };
    let mut steps = verify::script(&plans, args.seed);
    steps.truncate(verify::steps_of_all(&plans));
    let trace = verify::trace(&mut session, &ids, &steps, &plans[0].state)?;
    report.executors.push(ran(REFERENCE, &executor));
    let far = device.and_then(|device| verify::distance(device, &trace));
    report.failures.extend(far.map(|found| format!("the reference executor is off at {found}")));
    let (findings, omitted) = executor.findings();
    report.findings = Some(findings.len() + omitted as usize);
    // A finding begins with its severity, as all failures will.
    let words = findings.iter().map(|finding| finding.to_string().trim_start_matches("error: ").to_owned());
    report.failures.extend(words);
    let footprints = session.footprints(ids[0]).expect("its plan has run");
    let noticed = verify::notice(plans[0], footprints, trial);
    report.killed_by_reference = Some(noticed.iter().flatten().count());
    for (tried, _) in trial.mutants.iter().zip(&noticed).filter(|(_, noticed)| noticed.is_none()) {
        let mutant = tried.sighting.mutant.text(plans[0]);
        report.failures.push(format!("the reference executor does not notice: {mutant}"));
    }
    Ok(Some(noticed))
}

/// Runs the same steps by fused plans and by others, on a device if there is one, and compares.
fn fused(args: &VerifyArgs, subject: &Subject, devices: &Devices) -> Result<Option<Fused>, Failure> {
    let script: Vec<&Plan> = subject.plans.iter().map(|plan| &**plan).collect();
    let mut steps = verify::script(&script, args.seed);
    let (executor, traces) = match devices {
        Devices { hal: Some(executor), .. } => ("hal", both(executor, subject, &steps)?),
        Devices { wgpu: Some(executor), .. } => ("wgpu", both(executor, subject, &steps)?),
        _ => {
            steps.truncate(verify::steps_of_all(&script));
            let executor = ReferenceExecutor::new(&ReferenceOptions::new(), None)?;
            match both(&executor, subject, &steps) {
                Ok(traces) => (REFERENCE, traces),
                // It was said why that executor cannot run it.
                Err(Failure::Environment(_)) => return Ok(None),
                Err(failure) => return Err(failure),
            }
        }
    };
    let Apart { difference, at } = verify::rules::apart(&traces[0], &traces[1]);
    Ok(Some(Fused { executor, difference, at, steps: steps.len() }))
}

fn both<E: Executor>(executor: &E, subject: &Subject, steps: &[(usize, Inputs)]) -> Result<[Trace; 2], Failure> {
    let trace = |plans: &[CheckedPlan]| {
        let (mut session, ids) = open_plans(executor, subject, plans)?;
        Ok::<_, Failure>(verify::trace(&mut session, &ids, steps, &plans[0].state)?)
    };
    Ok([trace(&subject.unfused)?, trace(&subject.plans)?])
}

fn open<E: Executor>(executor: &E, subject: &Subject) -> Result<(E::Session, Vec<PlanId>), Failure> {
    open_plans(executor, subject, &subject.plans)
}

fn open_plans<E: Executor>(
    executor: &E,
    subject: &Subject,
    plans: &[CheckedPlan],
) -> Result<(E::Session, Vec<PlanId>), Failure> {
    let first = &plans[0];
    let weights = Weights { layout: &first.weights, checkpoint: &subject.checkpoint };
    let bar = bar("loading weights");
    let mut session = executor.open(&weights, &first.state, &mut |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    let ids = plans.iter().map(|plan| session.prepare(plan.clone())).collect::<Result<_, _>>()?;
    Ok((session, ids))
}

fn ran<E: Executor>(executor: &'static str, on: &E) -> Ran {
    Ran { executor, device: on.device().name.clone(), driver: on.device().driver.clone() }
}

fn compare(traces: &[Trace], report: &mut Report) {
    let [one, other] = traces else {
        report.notes.push("bits are not compared: it takes hal and wgpu".to_owned());
        return;
    };
    let difference = verify::difference(one, other);
    report.agree = Some(difference.is_none());
    report.failures.extend(difference.map(|found| format!("hal and wgpu differ at {found}")));
}

/// Runs the mutants under validation.
fn under_layer(
    args: &VerifyArgs,
    plan: &Plan,
    model: &Model<'_>,
    trial: &Trial,
    step: layer::RunStep<'_>,
    report: &mut Report,
) -> Result<Vec<bool>, Failure> {
    let bar = bar("running mutants");
    bar.set_length(trial.mutants.len() as u64);
    let sightings = verify::sightings(trial);
    let findings = layer::run(plan, model, &sightings, args.one_by_one, step, &mut |done| bar.set_position(done))?;
    bar.finish_and_clear();
    report.killed_by_validation = Some(findings.noticed.iter().filter(|noticed| **noticed).count());
    report.mutant_steps = Some(findings.steps);
    for Mismatch { mutant, missing, extra, other } in &findings.mismatches {
        let words = |events: &[Event]| events.iter().map(|event| event.text(plan)).collect::<Vec<_>>().join("; ");
        let mut line = format!("validation: {}", sightings[*mutant].mutant.text(plan));
        if !missing.is_empty() {
            let _ = write!(line, ": expected a report that {}", words(missing));
        }
        if !extra.is_empty() {
            let _ = write!(line, ": expected no report that {}", words(extra));
        }
        if !other.is_empty() {
            let _ = write!(line, ": expected no other report, found {}", other.join("; "));
        }
        report.failures.push(line);
    }
    Ok(findings.noticed)
}

fn list(plan: &Plan, trial: &Trial, noticed: &Noticed) -> Vec<Listed> {
    let listed = trial.mutants.iter().enumerate().map(|(at, tried)| Listed {
        mutant: tried.sighting.mutant.text(plan),
        refusal: tried.verdict.refusal.as_ref().map(ToString::to_string),
        pair: tried.verdict.pair.as_ref().map(|pair| pair.text(plan)),
        visible: !tried.sighting.predicted.is_empty(),
        noticed: noticed.by_layer.as_ref().map(|noticed| noticed[at]),
        reference: noticed.by_reference.as_ref().and_then(|noticed| noticed[at].clone()),
    });
    listed.collect()
}

/// The report for readers.
fn text(report: &Report) -> String {
    let mut out = String::new();
    let StepShape { tokens, sequences, rows, capacity } = report.shape;
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<11}{value}");
    };
    row("graph", format!("{}  T={tokens} S={sequences} R={rows} B={capacity}", report.graph));
    row("plan", format!("{} levels, the longest chain has {}", report.levels, report.longest_chain));
    row("barriers", format!("{}, of {} transitions", report.barriers, report.transitions));
    row("tried", format!("{} transitions, which stand for {}", report.sampled, report.covered));
    row("mutants", {
        let Report { mutants, killed_by_checker, confirmed_by_oracle, survivors, .. } = report;
        let found =
            format!("{killed_by_checker} refused by the checker, {confirmed_by_oracle} confirmed by the oracle");
        format!("{mutants}: {found}, {survivors} survive")
    });
    row("unordered", format!("{} pairs of accesses of the intact plans", report.unordered));
    let on_a_device = report.executors.iter().filter(|ran| ran.executor != REFERENCE);
    let names: Vec<String> = on_a_device.map(|ran| format!("{} on {}", ran.executor, ran.device)).collect();
    row(
        "executors",
        match (names.as_slice(), report.agree) {
            ([], _) => "none".to_owned(),
            (_, None) => format!("{}, {} steps", names.join(", "), report.steps),
            (_, Some(agree)) => {
                format!(
                    "{}: {} bits in {} steps",
                    names.join(", "),
                    if agree { "the same" } else { "other" },
                    report.steps
                )
            }
        },
    );
    row(
        "validation",
        match (&report.validation_layer, report.hazards) {
            (Some(version), Some(hazards)) => format!("{version}, {hazards} hazards of the intact plans"),
            _ => "none".to_owned(),
        },
    );
    row(
        "visible",
        match (report.killed_by_validation, report.mutant_steps) {
            (Some(killed), Some(steps)) => format!(
                "{} mutants, of which validation reports {killed}, in {steps} steps with mutants",
                report.visible_to_validation
            ),
            _ => format!("{} mutants, none of them run", report.visible_to_validation),
        },
    );
    row(
        "reference",
        match (report.killed_by_reference, report.findings) {
            (Some(killed), Some(findings)) => {
                format!("{killed} mutants noticed, {findings} findings of its sanitizer in the intact plans")
            }
            _ => "none".to_owned(),
        },
    );
    if let Some(Fused { executor, difference, at, steps }) = &report.fused {
        row(
            "fused",
            format!("within {difference:.1e} of the graph as it is written, {steps} steps on {executor}, at {at}"),
        );
    }
    report.notes.iter().for_each(|note| row("note", note.clone()));
    out += &report.rules.as_ref().map_or_else(String::new, rules::text);
    for Listed { mutant, refusal, pair, visible, noticed, reference } in report.list.iter().flatten() {
        let _ = writeln!(out, "\n{mutant}");
        let _ = writeln!(out, "  checker     {}", refusal.as_deref().unwrap_or("accepts it"));
        let _ = writeln!(out, "  oracle      {}", pair.as_deref().unwrap_or("finds nothing"));
        let visible = if *visible { "visible" } else { "not visible" };
        let noticed = noticed.map_or("not run", |noticed| if noticed { "reported" } else { "not reported" });
        let _ = writeln!(out, "  validation  {visible}, {noticed}");
        let _ = writeln!(out, "  reference   {}", reference.as_deref().unwrap_or("notices nothing"));
    }
    out
}

/// A bar on a terminal, nothing elsewhere.
fn bar(what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template(&format!("{what} {{bar:30}} {{pos}}/{{len}}"));
    ProgressBar::new(0).with_style(style.expect("the template is right"))
}
