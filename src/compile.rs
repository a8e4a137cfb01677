//! All stages in one call: graph to checked plan.
//!
//! Gets a parsed graph and kernels ([`Program`]), a checkpoint's index and a step shape; returns every stage's result,
//! so that each can be printed. Pure: equal inputs give equal plans. Never touches a device or a file.

use std::fmt;

use crate::base::arena::Arena;
use crate::base::diag::{self, Diagnostic};
use crate::base::limits::Limits;
use crate::base::span::SourceMap;
use crate::base::step::StepShape;
use crate::checkpoint::Index;
use crate::fuse::{self, Applied, Rules};
use crate::graph::{self, Graph};
use crate::kernel::tuning::Tuning;
use crate::kernel::{self, KernelLib, reflect};
use crate::model::{self, Model, Op, Origin, Request, ValueId};
use crate::plan::check::{CheckError, Promise, check};
use crate::plan::command::Kernel;
use crate::plan::file::{PlanFile, digest, from_text};
use crate::plan::usage::Usage;
#[cfg(doc)]
use crate::plan::weights::StateLayout;
use crate::plan::{CheckedPlan, Plan, lower};
use crate::schedule::{self, Schedule};
use crate::sources;

/// A graph and kernels, with the texts that they were parsed from.
#[derive(Clone, Debug)]
pub struct Program {
    /// The texts of both, for places.
    pub sources: SourceMap,
    /// The graph.
    pub graph: Graph,
    /// The kernels.
    pub kernels: KernelLib,
    /// The rewrite rules; nothing to compile the graph as it is written.
    pub rules: Option<Rules>,
}

impl Program {
    /// A graph that is built in, by its path without the ending, as in `rwkv7`; and the kernels that are built in.
    ///
    /// # Errors
    /// If there is no such graph.
    pub fn built_in(name: &str) -> Result<Self, CompileError> {
        let texts = sources::graphs(None).expect("what is built in needs no reading");
        let parts = sources::parts(None).expect("what is built in needs no reading");
        let shaders = sources::shaders(None).expect("what is built in needs no reading");
        let path = format!("{name}.ron");
        let Some((path, text)) = texts.into_iter().find(|(other, _)| *other == path) else {
            let unknown = Diagnostic::placeless(format!("no graph `{name}` is built in"));
            return Err(CompileError::wrong(vec![unknown], &SourceMap::new()));
        };
        let parts: Vec<_> = parts.into_iter().map(|(path, text)| (format!("graphs/{path}"), text)).collect();
        let mut program = Self::with_parts(&format!("graphs/{path}"), &text, &parts, &shaders)?;
        program.read_rules(&sources::rewrites(None).expect("what is built in needs no reading"))?;
        Ok(program)
    }

    /// Adds the rewrite rules of these texts: paths relative to the folder of graphs, as [`sources::rewrites`] returns
    /// them. Rules for kernels that the program does not have are left out.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn read_rules(&mut self, texts: &[(String, String)]) -> Result<(), CompileError> {
        let Self { sources, kernels, .. } = self;
        let files = fuse::add(sources, texts);
        let wrong = |wrong| CompileError::wrong(wrong, sources);
        self.rules = Some(fuse::parse(sources, &files, kernels, fuse::Unknown::LeftOut).map_err(wrong)?);
        Ok(())
    }

    /// Takes the graph of another text, which `path` names in diagnostics, in the place of this one.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read_graph(&mut self, path: &str, text: &str) -> Result<(), CompileError> {
        let source = self.sources.add(path, text);
        self.graph = graph::parse(&self.sources, source).map_err(|wrong| CompileError::wrong(wrong, &self.sources))?;
        Ok(())
    }

    /// The graph of a text, which `path` names in diagnostics, and the kernels of others: paths relative to their
    /// folder and texts, as [`sources::shaders`] returns them.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    pub fn parse(path: &str, graph: &str, shaders: &[(String, String)]) -> Result<Self, CompileError> {
        Self::with_parts(path, graph, &[], shaders)
    }

    /// As [`Self::parse`], for a graph that includes parts: paths, in the folder `parts` beside that of the graph, and
    /// texts.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    pub fn with_parts(
        path: &str,
        graph: &str,
        parts: &[(String, String)],
        shaders: &[(String, String)],
    ) -> Result<Self, CompileError> {
        let mut sources = SourceMap::new();
        let (mut kernels, mut wrong) = kernel::load(&mut sources, shaders);
        distrust_foreign(&mut kernels, shaders);
        let source = sources.add(path, graph);
        for (path, text) in parts {
            sources.add(path.as_str(), text.as_str());
        }
        match graph::parse(&sources, source) {
            Ok(graph) if wrong.is_empty() => Ok(Self { sources, graph, kernels, rules: None }),
            Ok(_) => Err(CompileError::wrong(wrong, &sources)),
            Err(more) => {
                wrong.extend(more);
                Err(CompileError::wrong(wrong, &sources))
            }
        }
    }

    /// A compiler for a checkpoint and a device, that keeps no values, takes every variant of a kernel, applies all
    /// rules and knows of no tuning.
    pub const fn compiler<'a>(&'a self, index: &'a Index, limits: &'a Limits) -> Compiler<'a> {
        let Self { sources, graph, kernels, rules } = self;
        let (keep, batch_invariant, draws, tuning, fuse) = (&[], false, false, None, rules.as_ref());
        let copies = true;
        Compiler { graph, kernels, sources, index, limits, keep, batch_invariant, draws, tuning, fuse, copies }
    }
}

/// Has kernels run with all checks that differ in any text from those built in, whatever their manifests say: the
/// built-in ones were looked at, with every index that they compute.
pub fn distrust_foreign(kernels: &mut KernelLib, shaders: &[(String, String)]) {
    let built_in = sources::shaders(None).expect("what is built in needs no reading");
    let foreign: Vec<&str> = shaders
        .iter()
        .filter(|(path, text)| !built_in.iter().any(|(other, built_in)| other == path && built_in == text))
        .map(|(path, _)| path.as_str())
        .collect();
    let is_foreign = |path: &str| foreign.contains(&path);
    // Any kernel may import a shared text.
    let shared = foreign.iter().any(|path| path.starts_with("shared/"));
    kernels.distrust(&|kernel| {
        let texts = kernel.variants.iter().any(|variant| is_foreign(&variant.template.file));
        !shared && !texts && !is_foreign(&format!("{}.ron", kernel.name))
    });
}

/// What a model is compiled from.
#[derive(Clone, Copy, Debug)]
pub struct Compiler<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// The kernels.
    pub kernels: &'a KernelLib,
    /// The texts of both, for places.
    pub sources: &'a SourceMap,
    /// The checkpoint's names and shapes.
    pub index: &'a Index,
    /// What the device offers.
    pub limits: &'a Limits,
    /// Paths of values to make outputs, as in `layer3.wkv`.
    pub keep: &'a [String],
    /// Whether to take only variants of kernels whose order of summation does not depend on the step's shape.
    pub batch_invariant: bool,
    /// Whether steps draw the next tokens themselves, instead of giving logits. Both kinds expect the same weights, and
    /// a session for those that draw runs both: see [`StateLayout::begins_with`].
    pub draws: bool,
    /// What to take where kernels leave something open; nothing to take what their manifests do. Plans of any tuning
    /// expect the same weights and the same state.
    pub tuning: Option<&'a Tuning>,
    /// The rules by which ops are put together; nothing to compile the graph as it is written.
    pub fuse: Option<&'a Rules>,
    /// Whether rules may take copies of weights that lie by columns: memory for time. Plans with and without expect
    /// other weights.
    pub copies: bool,
}

/// What each stage made.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The typed graph, fused.
    pub model: Model,
    /// What was fused.
    pub applied: Applied,
    /// Its order.
    pub schedule: Schedule,
    /// The plan.
    pub plan: CheckedPlan,
    /// What is surely not meant, yet no error.
    pub lints: Vec<Diagnostic>,
    /// What further plans of the same session agree on: see [`Compiler::compile_beside`].
    pub agreed: Agreed,
}

/// Why a graph cannot be compiled.
#[derive(Debug)]
#[non_exhaustive]
pub enum CompileError {
    /// Something is wrong with the author's files, as rendered text and as data.
    Wrong {
        /// The diagnostics, each with the lines it points at.
        rendered: String,
        /// The same with the escape sequences that colour a terminal.
        in_colour: String,
        /// The same as data.
        diagnostics: Vec<Diagnostic>,
    },
    /// The device is too small.
    TooSmall(Vec<String>),
    /// The plan breaks promises: a stage has a bug.
    Refused(Vec<CheckError>),
}

impl CompileError {
    fn wrong(diagnostics: Vec<Diagnostic>, sources: &SourceMap) -> Self {
        let (rendered, in_colour) =
            (diag::render(&diagnostics, sources), diag::render_in_colour(&diagnostics, sources));
        Self::Wrong { rendered, in_colour, diagnostics }
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong { rendered, .. } => f.write_str(rendered.trim_end()),
            Self::TooSmall(missing) => {
                write!(f, "the device is too small for this step: {}", missing.join("; "))
            }
            Self::Refused(errors) => {
                f.write_str("the plan was refused")?;
                errors.iter().try_for_each(|error| write!(f, "\n  {error}"))
            }
        }
    }
}

impl std::error::Error for CompileError {}

impl Compiler<'_> {
    /// Compiles for one step shape: `model::build`, `fuse::fuse`, `schedule::build`, `lower::lay_out`, `lower::lower`,
    /// `check`. Plans for all step shapes of a capacity expect the same weights and the same state.
    ///
    /// # Errors
    /// Everything that is wrong with the graph, or what the checker refuses.
    pub fn compile(&self, shape: StepShape) -> Result<Compiled, CompileError> {
        self.compile_with(shape, None)
    }

    /// The same plan, sooner: with what the same compiler found for another step size of the same capacity.
    ///
    /// # Errors
    /// As [`compile`](Self::compile).
    pub fn compile_beside(&self, shape: StepShape, agreed: &Agreed) -> Result<Compiled, CompileError> {
        self.compile_with(shape, Some(agreed))
    }

    fn compile_with(&self, shape: StepShape, agreed: Option<&Agreed>) -> Result<Compiled, CompileError> {
        let wrong = |diagnostics| CompileError::wrong(diagnostics, self.sources);
        let (model, lints) = self.model(shape)?;
        let (model, applied) = self.fused(model)?;
        let schedule = schedule::build(&model).map_err(wrong)?;
        let agreed = match agreed {
            Some(agreed) if agreed.rests.len() == model.state.len() => agreed.clone(),
            _ => self.agreed(&model, &schedule),
        };
        laid_out(&model, &agreed).map_err(wrong)?;
        let weights = lower::lay_out(&model, &agreed.joins, &agreed.transposed);
        let plan =
            lower::lower(&model, &schedule, self.sources, self.limits, &weights, &agreed.rests).map_err(wrong)?;
        let missing = self.limits.missing_for(&plan.limits);
        if !missing.is_empty() {
            return Err(CompileError::TooSmall(missing));
        }
        let plan = check(plan).map_err(CompileError::Refused)?;
        Ok(Compiled { model, applied, schedule, plan, lints, agreed })
    }

    /// The model alone as the graph is written, `model::build`, for those who ask what it computes; and its lints.
    ///
    /// # Errors
    /// Everything that is wrong with the graph.
    pub fn model(&self, shape: StepShape) -> Result<(Model, Vec<Diagnostic>), CompileError> {
        let request = self.request(shape);
        let built = model::build(self.graph, self.kernels, self.sources, self.index, &request);
        built.map_err(|diagnostics| CompileError::wrong(diagnostics, self.sources))
    }

    const fn request(&self, shape: StepShape) -> Request<'_> {
        let Self { limits, keep, batch_invariant, draws, tuning, copies, .. } = *self;
        Request { shape, limits, keep, batch_invariant, draws, tuning, copies }
    }

    fn fused(&self, model: Model) -> Result<(Model, Applied), CompileError> {
        let Some(rules) = self.fuse else { return Ok((model, Applied::default())) };
        let request = self.request(model.shape);
        let fused = fuse::fuse(model, rules, self.kernels, self.sources, &request);
        fused.map_err(|diagnostics| CompileError::wrong(diagnostics, self.sources))
    }

    /// What plans of all sizes agree on: what suits steps of one token, which are most of all steps, whatever a plan's
    /// own size, wherever it is made and however it is tuned. Of a graph that has no such step, each plan has its own
    /// way.
    fn agreed(&self, model: &Model, schedule: &Schedule) -> Agreed {
        let one = StepShape { tokens: 1, sequences: 1, rows: 1, capacity: model.shape.capacity };
        let of = |keep| {
            let compiler = Compiler { keep, tuning: None, ..*self };
            let (model, _) = compiler.fused(compiler.model(one).ok()?.0).ok()?;
            let rests = lower::state_rests(&model, &schedule::build(&model).ok()?);
            // Where steps of one token join none, rules may that are for many.
            let many = StepShape { tokens: MANY_TOKENS, ..one };
            let joins = match model.joins.is_empty() && self.fuse.is_some() {
                true => compiler.fused(compiler.model(many).ok()?.0).ok()?.0.joins,
                false => model.joins,
            };
            Some(Agreed { rests, joins, transposed: model.transposed })
        };
        // A kept value may be there in steps of other sizes only.
        let is_known = model.shape == one && self.tuning.is_none() && (self.fuse.is_none() || !model.joins.is_empty());
        let of_one = if is_known { None } else { of(self.keep).or_else(|| of(&[])) };
        let of_one = of_one.filter(|agreed| agreed.rests.len() == model.state.len());
        of_one.unwrap_or_else(|| Agreed {
            rests: lower::state_rests(model, schedule),
            joins: model.joins.clone(),
            transposed: model.transposed.clone(),
        })
    }
}

/// Refuses a model that reads weights by columns of which the session has no such copy.
fn laid_out(model: &Model, agreed: &Agreed) -> Result<(), Vec<Diagnostic>> {
    let Some(tensor) = model.transposed.iter().find(|tensor| !agreed.transposed.contains(tensor)) else {
        return Ok(());
    };
    let is_it = |value: ValueId| match model.values[value].origin {
        Origin::Transposed { of } => {
            matches!(&model.values[of].origin, Origin::Weight { tensor: other, .. } if other == tensor)
        }
        _ => false,
    };
    let reads = |op: &&Op| op.args.iter().filter_map(|arg| arg.input).any(is_it);
    let op = model.ops.values().find(reads).expect("what is read by columns is read by an op");
    let (StepShape { tokens, rows, .. }, kernel) = (model.shape, &op.kernel);
    let message = format!(
        "`{kernel}` reads weight `{tensor}` by columns in a step of {tokens} tokens and {rows} rows, and nothing does \
         in one of one token and row"
    );
    let note = "weights lie by columns where steps of one token read them so: a rule for other steps cannot begin it";
    Err(vec![Diagnostic::error(op.span, message).note(note)])
}

/// Tokens of a step for whose sake weights may lie side by side if none of one token wants them to.
const MANY_TOKENS: u32 = 64;

/// What plans of a session have in common.
#[derive(Clone, Debug)]
pub struct Agreed {
    /// Where states rest.
    rests: Vec<Usage>,
    /// Weights that lie side by side.
    joins: Vec<Vec<String>>,
    /// Weights that lie by columns, too.
    transposed: Vec<String>,
}

impl Agreed {
    /// Whether weights lie by columns, too.
    pub const fn has_copies(&self) -> bool {
        !self.transposed.is_empty()
    }
}

/// Why a plan file cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum PlanFileError {
    /// It is no plan file, or one of another version.
    Format(String),
    /// It was made for other weights.
    OtherModel {
        /// Fingerprint of the weights it was made for.
        expected: String,
        /// Fingerprint of the weights at hand.
        found: String,
    },
    /// It is not as it was made, in a way that breaks no promise of plans.
    Changed {
        /// Digest of what it was made with.
        expected: String,
        /// Digest of what it holds.
        found: String,
    },
    /// Its plan breaks promises.
    Refused(Vec<CheckError>),
    /// A kernel's text is not what the plan says of it, or would run unguarded.
    Kernel {
        /// The promise that would not hold.
        promise: Promise,
        /// The kernel.
        kernel: String,
        /// What differs.
        reason: String,
    },
}

impl fmt::Display for PlanFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(reason) => write!(f, "it is no plan of this program: {reason}"),
            Self::OtherModel { expected, found } => {
                write!(f, "it was made for the weights {expected}, these are {found}")
            }
            Self::Changed { expected, found } => {
                write!(f, "it was changed after it was made: it promises contents of digest {expected}, found {found}")
            }
            Self::Refused(errors) => {
                f.write_str("its plan was refused")?;
                errors.iter().try_for_each(|error| write!(f, "\n  {error}"))
            }
            Self::Kernel { promise, kernel, reason } => write!(f, "{promise} at kernel `{kernel}`: {reason}"),
        }
    }
}

impl std::error::Error for PlanFileError {}

/// Reads a plan file for a model's weights: verifies the plan and that every kernel's text does what the plan says it
/// does.
///
/// # Errors
/// If any of that does not hold.
pub fn open_plan(text: &str, fingerprint: &str) -> Result<CheckedPlan, PlanFileError> {
    let file = from_text(text).map_err(PlanFileError::Format)?;
    if file.model != fingerprint {
        return Err(PlanFileError::OtherModel { expected: file.model, found: fingerprint.to_owned() });
    }
    guarded(&verify_file(file)?)
}

/// Verifies the plan of a file, whatever weights it is for: what [`verify_plan`] does, and that the file is as it was
/// made. Broken promises come first, since they say more.
///
/// # Errors
/// If any of that does not hold.
pub fn verify_file(file: PlanFile) -> Result<CheckedPlan, PlanFileError> {
    let (expected, found) = (file.digest, digest(&file.plan, &file.model));
    let plan = verify_plan(file.plan)?;
    if expected == found { Ok(plan) } else { Err(PlanFileError::Changed { expected, found }) }
}

/// Verifies a plan that comes from outside the program: its promises, and that every kernel's text does what the plan
/// says it does. It is for looking at: what is to run is [`guarded`] as well.
///
/// # Errors
/// If any of that does not hold.
pub fn verify_plan(plan: Plan) -> Result<CheckedPlan, PlanFileError> {
    for kernel in plan.kernels.values() {
        let wrong = |reason| PlanFileError::Kernel { promise: Promise::P1, kernel: kernel.label.clone(), reason };
        check_kernel(kernel).map_err(wrong)?;
    }
    check(plan).map_err(PlanFileError::Refused)
}

/// The same plan with all checks in its kernels, so that each stays within its bindings and sees no memory of others,
/// whatever its text says. Going without is for this program's own kernels, and that a text is one of those a file
/// cannot prove.
///
/// # Errors
/// None that the plan did not have before.
pub fn guarded(plan: &CheckedPlan) -> Result<CheckedPlan, PlanFileError> {
    let mut kernels = Arena::new();
    for kernel in plan.kernels.values() {
        kernels.push(Kernel { runtime_checks: true, zero_workgroup_memory: true, ..kernel.clone() });
    }
    check(Plan { kernels, ..(**plan).clone() }).map_err(PlanFileError::Refused)
}

/// Compares what a plan says of a kernel with what naga finds in its text.
fn check_kernel(kernel: &Kernel) -> Result<(), String> {
    let found = reflect::reflect_text(&kernel.wgsl)?;
    let same = |what: &str, says: &dyn fmt::Debug, is: &dyn fmt::Debug| match format!("{says:?}") == format!("{is:?}") {
        true => Ok(()),
        false => Err(format!("the plan says {what} {says:?}, the text has {is:?}")),
    };
    same("entry", &kernel.entry, &found.entry)?;
    same("workgroup size", &kernel.workgroup_size, &found.workgroup_size)?;
    same("workgroup bytes", &kernel.workgroup_bytes, &found.workgroup_bytes)?;
    same("subgroups", &kernel.needs_subgroups, &found.needs_subgroups)?;
    same("cooperative matrices", &kernel.needs_cooperative_matrix, &found.needs_cooperative_matrix)?;
    same("words of 64 bits", &kernel.needs_wide_words, &found.needs_wide_words)?;
    // A declared write that never happens would let a plan count bytes as written that are not; the lowering declares
    // none.
    if let Some(binding) = found.bindings.iter().find(|binding| binding.declared_write && !binding.access.writes) {
        return Err(format!("the text declares `{}` as written, and never writes it", binding.name));
    }
    let says = (0_u32..).zip(&kernel.bindings);
    let says: Vec<_> =
        says.map(|(number, binding)| (number, binding.reads, binding.writes, binding.min_bytes)).collect();
    let is = found.bindings.iter();
    let is: Vec<_> =
        is.map(|binding| (binding.number, binding.access.reads, binding.access.writes, binding.min_bytes)).collect();
    same("bindings (number, reads, writes, least bytes)", &says, &is)
}
