//! What `run` runs: a graph, compiled as step sizes come up, or plan files, as they are.
//!
//! Gets flags, returns the graph or the verified plans, with the weights that they belong to. What holds then: the
//! plans are for these weights and run over one session, and give the rows of logits that are wanted. A flag that needs
//! a graph is refused by name. Never compiles.

use std::io::Read;
use std::path::Path;

use crate::base::limits::Limits;
use crate::base::role::OutputRole;
use crate::base::step::StepShape;
use crate::checkpoint::Checkpoint;
use crate::cli::input::Input;
use crate::cli::{Failure, Fuse, ModelArgs, files, input, tuning};
use crate::compile::{Program, open_plan};
use crate::exec::DeviceInfo;
use crate::generate::Rows;
use crate::generate::plans::{PlanSet, wanted_rows};
use crate::kernel::tuning::Tuning;
use crate::plan::file::{self, PlanFile};

/// More plan than any model has: a bound on what is read into memory.
const MAX_PLAN_BYTES: u64 = 1 << 30;

/// How many prompts run side by side unless it is said.
const DEFAULT_SEQUENCES: u32 = 8;

/// What is run, on which weights.
pub(super) struct Source {
    pub what: What,
    pub checkpoint: Checkpoint,
    /// Whether the checkpoint is the one built into the program.
    pub is_demo: bool,
}

/// What steps come from.
pub(super) enum What {
    Graph(Box<Program>),
    Plans { plans: PlanSet, paths: Vec<String> },
}

/// The graph of `model`, or its plan and the further ones; `step_tokens` is that flag.
pub(super) fn read(model: &ModelArgs, further: &[String], step_tokens: Option<u32>) -> Result<Source, Failure> {
    let first = model.graph.as_deref().filter(|path| is_plan(path));
    let Some(first) = first else {
        if let Some(path) = further.first() {
            let message = "a graph is run alone; several files are plans of one model, the first one too";
            return Err(Failure::Environment(format!("unexpected `{path}`: {message}")));
        }
        let Input { sources, graph, kernels, rules, checkpoint, is_demo } = input::read(model)?;
        let program = Box::new(Program { sources, graph, kernels, rules });
        return Ok(Source { what: What::Graph(program), checkpoint, is_demo });
    };
    let needs_graph = [
        ("--graphs", model.graphs.is_some()),
        ("--shaders", model.shaders.is_some()),
        ("--keep", !model.keep.is_empty()),
        ("--batch-invariant", model.batch_invariant),
        ("--fuse", model.fuse != Fuse::default()),
        ("--set", !model.set.is_empty()),
        ("--tuning", model.tuning.is_some()),
        ("--step-tokens", step_tokens.is_some()),
    ];
    if let Some((flag, _)) = needs_graph.iter().find(|(_, is_given)| *is_given) {
        let message = "is for graphs, which are compiled when they are run; a plan runs as it is";
        return Err(Failure::Environment(format!("`{flag}` {message}: `{first}`")));
    }
    let (checkpoint, is_demo) = input::checkpoint(model)?;
    let fingerprint = checkpoint.fingerprint();
    let wrong =
        |path: &str, reason: &dyn std::fmt::Display| Failure::Diagnostics(format!("error: `{path}`: {reason}\n"));
    let paths: Vec<String> =
        std::iter::once(first).chain(further.iter().map(String::as_str)).map(str::to_owned).collect();
    let mut plans = Vec::new();
    for path in &paths {
        let text = plan_text(path)?.ok_or_else(|| {
            let reason = format!("expected a plan file, whose first line is `{}`", file::HEADER);
            wrong(path, &reason)
        })?;
        plans.push(open_plan(&text, &fingerprint).map_err(|error| wrong(path, &error))?);
    }
    let plans = PlanSet::new(plans).map_err(|error| wrong(&paths[error.plan], &error.reason))?;
    Ok(Source { what: What::Plans { plans, paths }, checkpoint, is_demo })
}

/// Whether a file begins as plan files do.
pub(super) fn is_plan(path: &str) -> bool {
    let mut begin = [0; file::HEADER.len()];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut begin));
    read.is_ok() && begin == *file::HEADER.as_bytes()
}

/// The text of a plan file; nothing if the file is none, or there is no such file.
fn plan_text(path: &str) -> Result<Option<String>, Failure> {
    if Path::new(path).exists() && !is_plan(path) {
        return Ok(None);
    }
    files::read_text(Path::new(path), "a plan", MAX_PLAN_BYTES).map(Some)
}

/// The plan in a plan file, not verified yet; nothing if the file is none, or there is no such file.
pub(super) fn read_file(path: &str) -> Result<Option<PlanFile>, Failure> {
    if !is_plan(path) {
        return Ok(None);
    }
    let Some(text) = plan_text(path)? else { return Ok(None) };
    let file = file::from_text(&text);
    file.map(Some).map_err(|error| Failure::Diagnostics(format!("error: `{path}`: {error}\n")))
}

impl Source {
    /// The tuning of a graph for a device, or without one, when `asked` is what `--tuning` says; plans have what they
    /// were compiled with.
    pub(super) fn tuning(
        &mut self,
        asked: Option<&Path>,
        device: Option<&DeviceInfo>,
    ) -> Result<Option<Tuning>, Failure> {
        match &mut self.what {
            What::Graph(program) => tuning::read(asked, device, &program.kernels, &mut program.sources),
            What::Plans { .. } => Ok(None),
        }
    }

    /// Name of the graph.
    pub(super) fn graph(&self) -> &str {
        match &self.what {
            What::Graph(program) => &program.graph.name.text,
            What::Plans { plans, .. } => plans.graph(),
        }
    }

    /// Columns of the logits: those of the plans, or of the graph's model; nothing if that fails, which
    /// running will then explain.
    pub(super) fn vocabulary(&self) -> Option<u64> {
        let limits = Limits::vulkan();
        match &self.what {
            What::Plans { plans, .. } => Some(plans.vocabulary()),
            What::Graph(program) => {
                let compiler = program.compiler(self.checkpoint.index(), &limits);
                let (model, _) = compiler.model(StepShape { tokens: 1, sequences: 1, rows: 1, capacity: 1 }).ok()?;
                let logits = model.outputs.iter().find(|output| output.role == OutputRole::Logits)?;
                model.values[logits.value].shape.last().copied()
            }
        }
    }

    /// How many of `count` prompts run side by side, when `asked` is what `--sequences` says.
    pub(super) fn side_by_side(&self, count: usize, asked: Option<u32>) -> Result<u32, Failure> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let What::Plans { plans, paths } = &self.what else {
            return Ok(count.min(asked.unwrap_or(DEFAULT_SEQUENCES)));
        };
        let capacity = plans.capacity();
        match asked {
            Some(asked) if asked > capacity => {
                let advice = format!("for more, compile a plan with `--capacity {asked}`");
                let path = &paths[0];
                let message = format!("`--sequences {asked}`: `{path}` holds {capacity} at once; {advice}");
                Err(Failure::Environment(message))
            }
            _ => Ok(count.min(asked.unwrap_or(capacity))),
        }
    }

    /// Whether there are the rows of logits that will be wanted: the last ones, or all, and then by whom.
    pub(super) fn check_rows(&self, all: Option<&str>) -> Result<(), Failure> {
        let What::Plans { plans, paths } = &self.what else { return Ok(()) };
        let shape = plans.plans().last().expect("there is a plan").shape;
        let lacking = |rows: Rows, why: &str| {
            let (found, expected) = (shape.rows, wanted_rows(shape, rows));
            let (paths, advice) = (paths.join("`, `"), format!("compile one with `--rows {expected}`"));
            let message = format!("{why}: expected a plan of {expected} rows, found {found} in `{paths}`; {advice}");
            Err(Failure::Environment(message))
        };
        if !plans.serves(Rows::Last) {
            return lacking(Rows::Last, "a step gives a row of logits for every sequence");
        }
        match all {
            Some(who) if !plans.serves(Rows::All) => {
                lacking(Rows::All, &format!("{who} wants a row of logits for every token of a step"))
            }
            _ => Ok(()),
        }
    }
}
