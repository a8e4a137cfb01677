//! Runs models on real devices, through either executor.
//!
//! Gets texts, a checkpoint and part of a device's name; returns logits and states as they come off the device. What
//! then holds: both executors are driven by the same code, so a difference between two results is theirs. Never
//! compares with anything, and never chooses a device that was not named.

use graphc::base::limits::Limits;
use graphc::base::role::OutputRole;
use graphc::base::span::SourceMap;
use graphc::base::step::StepShape;
use graphc::checkpoint::{Checkpoint, Index};
use graphc::compile::{self, Compiler};
use graphc::exec::hal::{HalOptions, VulkanExecutor};
use graphc::exec::reference::{ReferenceExecutor, ReferenceOptions};
use graphc::exec::times::{Grain, StepLog};
use graphc::exec::wgpu::{WgpuBackend, WgpuExecutor, WgpuOptions};
use graphc::exec::{
    CpuCost, DeviceInfo, ExecError, Executor, GpuCost, Inputs, MemoryUse, Outputs, PlanId, Progress, Session, Ticket,
    Weights,
};
use graphc::fuse::{self, Rules};
use graphc::generate::batch::Batch;
use graphc::generate::{Decoder, Rows};
use graphc::graph::{self, Graph};
use graphc::kernel::{self, KernelLib};
use graphc::plan::CheckedPlan;
use graphc::plan::weights::StateLayout;
use graphc::sources;
use graphc::tensor::Tensor;

use super::skip;

/// Software drivers, by a part of their devices' names: they are everywhere, and differ in width of subgroups (8 and
/// 4), in offset alignment and in the number of buffers that a dispatch may bind. `GRAPHC_TEST_DEVICE`, part of a name,
/// is what [`AnyExecutor::find`] takes in place of both.
pub const DEVICES: [&str; 2] = ["llvmpipe", "SwiftShader"];

/// A graph and kernels, parsed.
#[derive(Debug)]
pub struct Program {
    /// The texts of both.
    pub sources: SourceMap,
    /// The graph.
    pub graph: Graph,
    /// The kernels.
    pub kernels: KernelLib,
    /// The rewrite rules; nothing to compile the graph as it is written.
    pub rules: Option<Rules>,
}

impl Program {
    /// RWKV-7 as it is built in.
    pub fn rwkv7() -> Self {
        let graphs = sources::graphs(None).expect("built in");
        let (path, text) = graphs.into_iter().find(|(path, _)| path == "rwkv7.ron").expect("built in");
        Self::parse(&path, text, &sources::shaders(None).expect("built in"))
    }

    /// A graph that is built in, with other values for some of its settings.
    ///
    /// # Panics
    /// If there is no such graph, or no such setting.
    pub fn built_in(name: &str, settings: &[(&str, f64)]) -> Self {
        let compile::Program { sources, graph, kernels, .. } =
            compile::Program::built_in(name).unwrap_or_else(|error| panic!("{error}"));
        let settings: Vec<(String, f64)> = settings.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let graph = graph::with_settings(&graph, &settings).unwrap_or_else(|error| panic!("{error}"));
        Self { sources, graph, kernels, rules: None }
    }

    /// The same with the rewrite rules that are built in.
    pub fn fused(self) -> Self {
        self.fused_by(&sources::rewrites(None).expect("built in"))
    }

    /// The same with the rewrite rules of these texts.
    pub fn fused_by(mut self, texts: &[(String, String)]) -> Self {
        let files = fuse::add(&mut self.sources, texts);
        let rules = fuse::parse(&self.sources, &files, &self.kernels, fuse::Unknown::LeftOut);
        self.rules = Some(rules.unwrap_or_else(|wrong| panic!("{wrong:#?}")));
        self
    }

    /// Any texts.
    ///
    /// # Panics
    /// If they are wrong.
    pub fn parse(path: &str, graph: String, shaders: &[(String, String)]) -> Self {
        let mut sources = SourceMap::new();
        let (kernels, wrong) = kernel::load(&mut sources, shaders);
        assert!(wrong.is_empty(), "{wrong:#?}");
        let source = sources.add(path.to_owned(), graph);
        let graph = graph::parse(&sources, source).unwrap_or_else(|wrong| panic!("{wrong:#?}"));
        Self { sources, graph, kernels, rules: None }
    }

    /// A compiler for a checkpoint and a device.
    pub const fn compiler<'a>(&'a self, index: &'a Index, limits: &'a Limits, keep: &'a [String]) -> Compiler<'a> {
        let Self { sources, graph, kernels, rules } = self;
        // As the graph is written, so that sequences' numbers do not depend on how they are cut; or fused.
        let (batch_invariant, fuse) = (rules.is_none(), rules.as_ref());
        Compiler {
            graph,
            kernels,
            sources,
            index,
            limits,
            keep,
            batch_invariant,
            draws: false,
            tuning: None,
            fuse,
            copies: true,
        }
    }
}

/// A step of one sequence, with as many rows of logits as tokens.
pub const fn all_rows(tokens: u32) -> StepShape {
    StepShape { tokens, sequences: 1, rows: tokens, capacity: 1 }
}

/// The plan for a shape.
///
/// # Panics
/// If it cannot be compiled.
pub fn compile(compiler: &Compiler<'_>, shape: StepShape) -> CheckedPlan {
    compiler.compile(shape).unwrap_or_else(|error| panic!("{error}")).plan
}

/// Which executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The safe one.
    Wgpu,
    /// The explicit one, on Vulkan.
    Hal,
    /// The one on the CPU, whatever the device.
    Reference,
}

/// Both executors that take a device.
pub const KINDS: [Kind; 2] = [Kind::Wgpu, Kind::Hal];

/// Every executor on every device, with the device's name.
pub fn everywhere() -> impl Iterator<Item = (&'static str, Kind)> {
    let devices = DEVICES.iter().flat_map(|device| KINDS.map(|kind| (*device, kind)));
    devices.chain([("the CPU", Kind::Reference)])
}

/// Any executor.
pub enum AnyExecutor {
    /// The safe one.
    Wgpu(WgpuExecutor),
    /// The explicit one.
    Hal(VulkanExecutor),
    /// The one on the CPU.
    Reference(ReferenceExecutor),
}

impl AnyExecutor {
    /// The executor on the device whose name contains `device`; nothing, and a word about it, if there is no such
    /// device. What is set as `GRAPHC_TEST_DEVICE` takes the place of any name.
    ///
    /// # Panics
    /// If there is one and it fails, or if `CI` forbids to skip.
    pub fn find(kind: Kind, device: &str) -> Option<Self> {
        let chosen = std::env::var("GRAPHC_TEST_DEVICE");
        let device = chosen.as_deref().unwrap_or(device);
        let hal = HalOptions { track: true, validation_layers: false, dropped: None };
        let wgpu = WgpuOptions { backend: WgpuBackend::Native, track: true, validation_layers: false };
        let found = match kind {
            Kind::Wgpu => WgpuExecutor::new(&wgpu, Some(device)).map(Self::Wgpu),
            Kind::Hal => VulkanExecutor::new(&hal, Some(device)).map(Self::Hal),
            Kind::Reference => ReferenceExecutor::new(&ReferenceOptions::new(), None).map(Self::Reference),
        };
        match found {
            Ok(executor) => Some(executor),
            Err(ExecError::NoDevice { reason }) => {
                let advice = match std::env::var_os("VK_ICD_FILENAMES") {
                    Some(_) => "`VK_ICD_FILENAMES` does not name its driver's manifest",
                    None => {
                        "to test on it, set `VK_ICD_FILENAMES` to the paths of the drivers' manifests, separated \
                         by `:`, as in `.../lvp_icd.x86_64.json:.../vk_swiftshader_icd.json`"
                    }
                };
                skip(&format!("no `{device}` for {kind:?}: {reason}; {advice}"));
                None
            }
            Err(error) => panic!("{error}"),
        }
    }
}

impl Executor for AnyExecutor {
    type Session = AnySession;

    fn device(&self) -> &DeviceInfo {
        match self {
            Self::Wgpu(executor) => executor.device(),
            Self::Hal(executor) => executor.device(),
            Self::Reference(executor) => executor.device(),
        }
    }

    fn open(
        &self,
        weights: &Weights<'_>,
        state: &StateLayout,
        progress: Progress<'_>,
    ) -> Result<AnySession, ExecError> {
        let session: Box<dyn Session> = match self {
            Self::Wgpu(executor) => Box::new(executor.open(weights, state, progress)?),
            Self::Hal(executor) => Box::new(executor.open(weights, state, progress)?),
            Self::Reference(executor) => Box::new(executor.open(weights, state, progress)?),
        };
        Ok(AnySession { session, state: state.clone() })
    }
}

/// A session of either executor, which also knows its state's layout.
pub struct AnySession {
    session: Box<dyn Session>,
    state: StateLayout,
}

impl AnySession {
    /// Makes the next token the first one.
    pub fn reset(&mut self) {
        for (index, buffer) in self.state.buffers.iter().enumerate() {
            self.session.write_state(index as u32, 0, &buffer.init_row()).expect("the state is written");
        }
    }

    /// Every state tensor of the first sequence, by its label, such as `att_s.0`.
    pub fn states(&mut self) -> Vec<(String, Vec<f32>)> {
        let read = |(index, label): (usize, &String)| {
            let tensor = self.session.read_state(index as u32, 0).expect("the state is read");
            (label.clone(), tensor.to_f32())
        };
        self.state.buffers.iter().map(|buffer| &buffer.label).enumerate().map(read).collect()
    }
}

impl Session for AnySession {
    fn prepare(&mut self, plan: CheckedPlan) -> Result<PlanId, ExecError> {
        self.session.prepare(plan)
    }

    fn step(&mut self, plan: PlanId, inputs: &Inputs) -> Result<Ticket, ExecError> {
        self.session.step(plan, inputs)
    }

    fn outputs(&mut self, ticket: Ticket) -> Result<Outputs, ExecError> {
        self.session.outputs(ticket)
    }

    fn read_state(&mut self, buffer: u32, row: u64) -> Result<Tensor, ExecError> {
        self.session.read_state(buffer, row)
    }

    fn write_state(&mut self, buffer: u32, row: u64, row_bytes: &[u8]) -> Result<(), ExecError> {
        self.session.write_state(buffer, row, row_bytes)
    }

    fn prepare_timed(&mut self, plan: CheckedPlan) -> Result<PlanId, ExecError> {
        self.session.prepare_timed(plan)
    }

    fn prepare_profiled(&mut self, plan: CheckedPlan, grain: Grain) -> Result<PlanId, ExecError> {
        self.session.prepare_profiled(plan, grain)
    }

    fn take_log(&mut self, plan: PlanId) -> StepLog {
        self.session.take_log(plan)
    }

    fn memory(&self) -> MemoryUse {
        self.session.memory()
    }

    fn cpu_cost(&self) -> CpuCost {
        self.session.cpu_cost()
    }

    fn gpu_cost(&self) -> GpuCost {
        self.session.gpu_cost()
    }
}

/// A decoder on a session of its own.
///
/// # Panics
/// If the model cannot be compiled or the device fails.
pub fn decoder<'a>(
    executor: &AnyExecutor,
    compiler: Compiler<'a>,
    checkpoint: &Checkpoint,
    step_tokens: &[u32],
) -> Decoder<'a, AnySession> {
    let plan = compile(&compiler, all_rows(1));
    let logits = plan.outputs.iter().find(|output| output.role == OutputRole::Logits).expect("logits");
    let vocabulary = *logits.shape.last().expect("rows of logits");
    let weights = Weights { layout: &plan.weights, checkpoint };
    let session = executor.open(&weights, &plan.state, &mut |_, _| ()).unwrap_or_else(|error| panic!("{error}"));
    Decoder::new(session, compiler, step_tokens.to_vec(), vocabulary)
}

/// A batch on a session of its own, for as many sequences.
///
/// # Panics
/// If the model cannot be compiled or the device fails.
pub fn batch<'a>(
    executor: &AnyExecutor,
    compiler: Compiler<'a>,
    checkpoint: &Checkpoint,
    (capacity, step_tokens): (u32, &[u32]),
) -> Batch<'a, AnySession> {
    Batch::open(executor, compiler, checkpoint, (capacity, step_tokens.to_vec()), &mut |_, _| ())
        .unwrap_or_else(|error| panic!("{error}"))
}

/// What a sequence gave.
#[derive(Clone, Debug)]
pub struct Ran {
    /// A row per token.
    pub logits: Vec<Vec<f32>>,
    /// The state after the last token, as [`AnySession::states`] has it.
    pub states: Vec<(String, Vec<f32>)>,
}

impl Ran {
    /// Every number's bits: equal if and only if the results are.
    pub fn bits(&self) -> Vec<u32> {
        let states = self.states.iter().map(|(_, values)| values);
        self.logits.iter().chain(states).flatten().map(|value| value.to_bits()).collect()
    }

    /// Largest absolute difference of any number.
    pub fn distance(&self, other: &Self) -> f32 {
        let all = |ran: &Self| -> Vec<f32> {
            ran.logits.iter().chain(ran.states.iter().map(|(_, values)| values)).flatten().copied().collect()
        };
        graphc::tensor::difference(&all(self), &all(other)).max
    }
}

/// Runs a sequence from its start, fed in pieces of these sizes, in turn.
///
/// # Panics
/// If the device fails.
pub fn run(decoder: &mut Decoder<'_, AnySession>, tokens: &[u32], pieces: &[usize]) -> Ran {
    decoder.session().reset();
    let mut logits = Vec::new();
    let mut done = 0;
    for piece in pieces.iter().cycle() {
        if done == tokens.len() {
            break;
        }
        let fed = &tokens[done..tokens.len().min(done + piece)];
        logits.extend(decoder.run(fed, Rows::All).unwrap_or_else(|error| panic!("{error}")).0);
        done += fed.len();
    }
    Ran { logits, states: decoder.session().states() }
}
