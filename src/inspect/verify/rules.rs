//! Every rewrite rule by itself: the graph that its pattern is, with the rule and without it.
//!
//! Gets rules, kernels and an executor; returns how far results are apart. What holds then: a rule that was tried was
//! applied, in sizes of its examples or beside them; outputs and all rows of all states were compared after several
//! steps on random weights and random states. Never judges how fast a replacement is.

mod graph;
mod shapes;

use std::collections::BTreeMap;

use crate::base::dtype::DType;
use crate::base::limits::Limits;
use crate::base::role::InputRole;
use crate::base::step::StepShape;
use crate::checkpoint::Checkpoint;
use crate::compile::{CompileError, Compiled, Compiler, Program};
use crate::exec::{ExecError, Executor, Inputs, Session, Weights};
use crate::fuse::{Rule, Rules};
use crate::inspect::verify::rules::graph::{Weight, Written};
use crate::inspect::verify::{self, Trace};
use crate::plan::Plan;
use crate::tensor::{self, Tensor};

/// Names that sizes of a step have in kernels and rules.
const SIZES: [&str; 4] = ["T", "S", "R", "B"];

/// The kernel that gives a pattern what it takes.
const FEED: &str = "graphc_feed";

/// Element types of the weights that a rule is tried with.
pub const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

/// Steps of a trial: two of one row of the state, one of another, one of the first again.
const STEPS: usize = 4;

/// Draws of sizes beside a rule's examples, of which those are left in which it can be applied.
const DRAWS: usize = 6;

/// Rules and the kernels that they are about.
#[derive(Debug)]
pub struct Rig {
    program: Program,
    rules: Rules,
}

/// A rule in some sizes, on weights of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The rule.
    pub rule: String,
    /// Sizes of its dims.
    pub dims: BTreeMap<String, u64>,
    /// The weights' element type.
    pub dtype: DType,
    /// Whether the rule says of these sizes that it can be applied in them.
    pub is_example: bool,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rule `{}`,", self.rule)?;
        self.dims.iter().try_for_each(|(name, size)| write!(f, " {name}={size}"))?;
        write!(f, ", {}", self.dtype)
    }
}

/// How far two traces are apart, relative to the largest element of each tensor, or to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Apart {
    /// The largest difference.
    pub difference: f32,
    /// Where it is, in words.
    pub at: String,
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was tried.
    Apart(Apart),
    /// The rule cannot be applied in these sizes, or not on such a device.
    Inapplicable,
}

impl Rig {
    /// Rules and kernels by their texts, as `sources` has them.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    pub fn new(shaders: &[(String, String)], rules: &[(String, String)]) -> Result<Self, CompileError> {
        let feed = [
            (format!("{FEED}.ron"), include_str!("rules/feed.ron").to_owned()),
            (format!("{FEED}.wgsl"), include_str!("rules/feed.wgsl").to_owned()),
        ];
        let shaders = [shaders, &feed].concat();
        let mut program = Program::parse("rules", EMPTY, &shaders)?;
        program.read_rules(rules)?;
        let rules = program.rules.take().unwrap_or_default();
        Ok(Self { program, rules })
    }

    /// The rules, in the order in which they are tried.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The cases of a rule: its examples with weights of every type, and some sizes near one of them.
    pub fn cases(&self, rule: &Rule, seed: u64) -> Vec<Case> {
        let mut random = fastrand::Rng::with_seed(seed);
        let case = |dims: &BTreeMap<String, u64>, dtype, is_example| Case {
            rule: rule.name.clone(),
            dims: dims.clone(),
            dtype,
            is_example,
        };
        // A rule may be about weights of one element type.
        let of_rule = |dtype: &DType| rule.dtypes.iter().all(|(_, asked)| asked == dtype);
        let dtypes: Vec<DType> = DTYPES.into_iter().filter(of_rule).collect();
        let examples = rule.examples.iter().flat_map(|dims| dtypes.iter().map(|dtype| case(dims, *dtype, true)));
        let mut cases: Vec<Case> = examples.collect();
        for _ in 0..if rule.examples.is_empty() { 0 } else { DRAWS } {
            let mut dims = rule.examples[random.usize(..rule.examples.len())].clone();
            let names: Vec<String> =
                graph::dims(rule).into_iter().filter(|name| dims.contains_key(*name)).map(str::to_owned).collect();
            let Some(name) = names.get(random.usize(..names.len().max(1))) else { continue };
            let size = if random.bool() { 8 * random.u64(1..=24) } else { random.u64(1..=200) };
            dims.insert(name.clone(), size);
            cases.push(case(&dims, dtypes[random.usize(..dtypes.len())], false));
        }
        cases
    }

    /// How many numbers the weights of a case have: a measure for what it costs.
    ///
    /// # Errors
    /// If its rule's pattern cannot be a graph.
    pub fn cost(&self, case: &Case) -> Result<u64, String> {
        let weights = self.written(case)?.weights;
        Ok(weights.iter().map(|weight| weight.shape.iter().product::<u64>()).sum())
    }

    fn written(&self, case: &Case) -> Result<Written, String> {
        let rule = self.rules.iter().find(|rule| rule.name == case.rule).ok_or("there is no such rule")?;
        graph::write(rule, &self.program.kernels, &case.dims)
    }

    /// Runs a case on an executor, compiled for these limits, and compares.
    ///
    /// # Errors
    /// What is wrong with the rule or its replacement, or the executor, in words.
    pub fn run<E: Executor>(
        &self,
        case: &Case,
        (executor, limits): (&E, &Limits),
        seed: u64,
    ) -> Result<Outcome, String> {
        let Written { text, keep, weights, shape } = self.written(case)?;
        let mut program = self.program.clone();
        program.read_graph(&format!("{case}"), &text).map_err(|error| format!("{error}\n{text}"))?;
        let mut random = fastrand::Rng::with_seed(seed);
        let checkpoint = checkpoint(&weights, case.dtype, &mut random);
        let rules = self.rules.only(&case.rule);
        let compiler =
            |fuse| Compiler { keep: &keep, fuse, ..program.compiler(checkpoint.index(), limits) }.compile(shape);
        let plain = match compiler(None) {
            Ok(plain) => plain,
            Err(_) if !case.is_example => return Ok(Outcome::Inapplicable),
            Err(error) => return Err(format!("its pattern is no graph: {error}\n{text}")),
        };
        let fused = compiler(Some(&rules)).map_err(|error| error.to_string())?;
        if fused.applied.rules.iter().all(|(_, count)| *count == 0) {
            return Ok(Outcome::Inapplicable);
        }
        let [one, other] = [plain, fused].map(|compiled| trace(executor, &checkpoint, compiled, seed));
        let words = |error: ExecError| error.to_string();
        Ok(Outcome::Apart(apart(&one.map_err(words)?, &other.map_err(words)?)))
    }
}

/// The graph of a program that has none yet.
const EMPTY: &str = r#"Graph(
    name: "none", detect: (has: [], lacks: []),
    dims: {"T": Tokens},
    inputs: {"tokens": Input(token_ids, ["T"])},
    outputs: {},
    ops: [Op("graphc_feed", {"tokens": "in.tokens", "table": "w.table", "y": "y"})],
)"#;

/// Numbers around 0 whose sums over rows of a matrix stay about as large.
fn checkpoint(weights: &[Weight], dtype: DType, random: &mut fastrand::Rng) -> Checkpoint {
    let tensors: Vec<(String, Tensor)> = weights
        .iter()
        .map(|Weight { name, shape, is_matrix }| {
            let columns = shape.last().copied().unwrap_or(1) as f32;
            let scale = if *is_matrix { (3.0 / columns).sqrt() } else { 1.0 };
            let count = shape.iter().product::<u64>();
            let values: Vec<f32> = (0..count).map(|_| scale * (2.0 * random.f32() - 1.0)).collect();
            (name.clone(), Tensor { dtype, shape: shape.clone(), bytes: tensor::from_f32(dtype, &values) })
        })
        .collect();
    Checkpoint::from_tensors("random weights", &tensors)
}

/// Runs the steps of a trial from random states.
fn trace<E: Executor>(
    executor: &E,
    checkpoint: &Checkpoint,
    compiled: Compiled,
    seed: u64,
) -> Result<Trace, ExecError> {
    let plan = compiled.plan;
    let weights = Weights { layout: &plan.weights, checkpoint };
    let mut session = executor.open(&weights, &plan.state, &mut |_, _| ())?;
    let mut random = fastrand::Rng::with_seed(seed);
    for (at, buffer) in plan.state.buffers.iter().enumerate() {
        for row in 0..buffer.rows {
            let values: Vec<f32> = (0..buffer.row_count()).map(|_| 2.0 * random.f32() - 1.0).collect();
            let mut bytes = tensor::from_f32(buffer.dtype, &values);
            bytes.resize(buffer.row_bytes() as usize, 0);
            session.write_state(at as u32, row, &bytes)?;
        }
    }
    let steps: Vec<(usize, Inputs)> = (0..STEPS).map(|step| (0, inputs(&plan, step, &mut random))).collect();
    let id = session.prepare(plan.clone())?;
    verify::trace(&mut session, &[id], &steps, &plan.state)
}

/// Sequences of about equal length, in other rows of the state in one of the steps, never in the first alone.
fn inputs(plan: &Plan, step: usize, random: &mut fastrand::Rng) -> Inputs {
    let StepShape { tokens, sequences, capacity, .. } = plan.shape;
    let share = |nth: u64, of: u64| (nth * u64::from(tokens) / of.max(1)) as u32;
    let first = if step == 2 { 0 } else { 1 };
    plan.inputs.iter().fold(Inputs::new(), |inputs, input| {
        let numbers = 0..input.count;
        let elements = match input.role {
            InputRole::TokenIds => numbers.map(|_| random.u32(0..64)).collect(),
            InputRole::SequenceOffsets => numbers.map(|nth| share(nth, sequences.into())).collect(),
            InputRole::StateRows => numbers.map(|nth| (nth as u32 + first) % capacity).collect(),
            InputRole::OutputRows => numbers.map(|nth| share(nth + 1, input.count).saturating_sub(1)).collect(),
            // All zero: the best.
            InputRole::DrawRules => vec![0; input.count as usize],
        };
        inputs.with(input.role, elements)
    })
}

/// How far two traces of the same steps are apart.
pub fn apart(one: &Trace, other: &Trace) -> Apart {
    let mut found = Apart { difference: 0.0, at: "nowhere".to_owned() };
    if one.len() != other.len() {
        return Apart { difference: f32::INFINITY, at: format!("{} results and {}", one.len(), other.len()) };
    }
    for ((name, a), (_, b)) in one.iter().zip(other) {
        let (a, b) = (a.to_f32(), b.to_f32());
        if a.len() != b.len() {
            return Apart { difference: f32::INFINITY, at: format!("{name}: {} elements and {}", a.len(), b.len()) };
        }
        let largest = a.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
        let tensor::Difference { max, at, .. } = tensor::difference(&b, &a);
        if max / largest > found.difference {
            found = Apart { difference: max / largest, at: format!("{name}, element {at}") };
        }
    }
    found
}
