//! Which plan runs a step, and how much of what is waiting the step takes.
//!
//! Gets how many tokens are left of each feed, returns the next step and the size of its plan: one that is compiled for
//! the step, padded to a few sizes, or the smallest that fits of plans that came ready-made ([`PlanSet`]). What holds
//! then: the step fits the plan, and no plan at hand could take more tokens. Never runs a step, never looks at tokens.

use std::fmt;

use crate::base::dtype::DType;
use crate::base::role::OutputRole;
use crate::base::step::StepShape;
use crate::compile::{Agreed, Compiled, Compiler};
use crate::generate::batch::BatchOptions;
use crate::generate::{GenerateError, Rows};
use crate::plan::weights::StateLayout;
use crate::plan::{CheckedPlan, Plan};

/// More tokens, sequences or rows than any step has: a bound on what a plan from elsewhere makes the host allocate.
const MAX_EXTENT: u32 = 65535;

/// What one step takes: of each feed, by its index, this many tokens.
pub(super) type Step = Vec<(usize, usize)>;

/// Plans made beforehand, such as those of files, that run over one session: one or more sizes of a step of one model.
#[derive(Clone, Debug)]
pub struct PlanSet {
    /// The smallest first; never empty.
    plans: Vec<CheckedPlan>,
    vocabulary: u64,
}

/// Why a plan cannot run, or not beside the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanSetError {
    /// Which of the plans given.
    pub plan: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for PlanSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plan {}, from 0: {}", self.plan, self.reason)
    }
}

impl std::error::Error for PlanSetError {}

impl PlanSet {
    /// Plans that run tokens over one session; of several of one size the first is taken.
    ///
    /// # Errors
    /// If one gives no logits, has a step of no usable size, or expects other weights, another state or another graph
    /// than the first.
    ///
    /// # Panics
    /// If there are no plans.
    pub fn new(plans: Vec<CheckedPlan>) -> Result<Self, PlanSetError> {
        assert!(!plans.is_empty(), "there is a plan");
        let mut vocabulary = None;
        for (nth, plan) in plans.iter().enumerate() {
            let wrong = |reason| PlanSetError { plan: nth, reason };
            let columns = columns(plan).map_err(wrong)?;
            agree(plan, &plans[0]).map_err(wrong)?;
            if *vocabulary.get_or_insert(columns) != columns {
                let expected = vocabulary.unwrap_or_default();
                return Err(wrong(format!(
                    "expected {expected} columns of logits, as the first plan, found {columns}"
                )));
            }
        }
        let mut plans = plans;
        plans.sort_by_key(|plan| plan.shape);
        plans.dedup_by_key(|plan| plan.shape);
        Ok(Self { plans, vocabulary: vocabulary.unwrap_or_default() })
    }

    /// The plans, the smallest first.
    pub fn plans(&self) -> &[CheckedPlan] {
        &self.plans
    }

    /// Name of the graph that they were made from.
    pub fn graph(&self) -> &str {
        &self.plans[0].graph
    }

    /// Size of the vocabulary.
    pub const fn vocabulary(&self) -> u64 {
        self.vocabulary
    }

    /// How many sequences a session of theirs holds.
    pub fn capacity(&self) -> u32 {
        self.plans[0].shape.capacity
    }

    /// Where a session of theirs has its state.
    pub fn state_layout(&self) -> &StateLayout {
        &self.plans[0].state
    }

    /// Whether one of them gives such rows of logits.
    pub fn serves(&self, rows: Rows) -> bool {
        self.sizes(rows).next().is_some()
    }

    /// Token counts of their steps, ascending.
    pub(super) fn step_tokens(&self) -> Vec<u32> {
        let mut tokens: Vec<u32> = self.plans.iter().map(|plan| plan.shape.tokens).collect();
        tokens.dedup();
        tokens
    }

    /// The plan of this size.
    pub(super) fn plan(&self, shape: StepShape) -> Option<&CheckedPlan> {
        self.plans.iter().find(|plan| plan.shape == shape)
    }

    /// Sizes of the plans that give such rows, the smallest first.
    fn sizes(&self, rows: Rows) -> impl Iterator<Item = StepShape> {
        let serves = move |shape: &StepShape| shape.rows >= wanted_rows(*shape, rows);
        self.plans.iter().map(|plan| plan.shape).filter(serves)
    }

    fn next(&self, left: &[usize], rows: Rows) -> Option<(Step, StepShape)> {
        let total = |step: &Step| step.iter().map(|(_, count)| count).sum::<usize>();
        let mut most = Step::new();
        for shape in self.sizes(rows) {
            let step = share(left, shape.tokens as usize, shape.sequences as usize);
            if total(&step) > total(&most) {
                most = step;
            }
        }
        let fits = |shape: &StepShape| shape.tokens as usize >= total(&most) && shape.sequences as usize >= most.len();
        let shape = self.sizes(rows).find(fits)?;
        Some((most, shape))
    }
}

/// Rows of logits that a plan of this size must give.
pub const fn wanted_rows(shape: StepShape, rows: Rows) -> u32 {
    match rows {
        Rows::Last => shape.sequences,
        Rows::All => shape.tokens,
    }
}

/// Columns of a plan's logits, if it is one that can run tokens.
fn columns(plan: &Plan) -> Result<u64, String> {
    let StepShape { tokens, sequences, rows, capacity } = plan.shape;
    let extents = [("tokens", tokens), ("sequences", sequences), ("rows", rows), ("capacity", capacity)];
    if let Some((what, found)) = extents.into_iter().find(|(_, extent)| !(1..=MAX_EXTENT).contains(extent)) {
        return Err(format!("expected 1 to {MAX_EXTENT} as the {what} of its step, found {found}"));
    }
    let logits = plan.outputs.iter().find(|output| output.role == OutputRole::Logits);
    let Some(logits) = logits else {
        return Err(GenerateError::NoLogits.to_string());
    };
    match (logits.dtype, logits.shape.as_slice()) {
        (DType::F32, [found, columns]) if *found == u64::from(rows) => Ok(*columns),
        (dtype, shape) => Err(format!("expected logits f32[{rows}, …], found {dtype}{shape:?}")),
    }
}

/// Whether a session for one plan is one for the other.
fn agree(plan: &Plan, first: &Plan) -> Result<(), String> {
    if plan.graph != first.graph {
        return Err(format!("expected a plan of graph `{}`, as the first, found one of `{}`", first.graph, plan.graph));
    }
    let (expected, found) = (first.weights.hash(), plan.weights.hash());
    if expected != found {
        return Err(format!("expected weight layout `{expected}`, as in the first plan, found `{found}`"));
    }
    let (expected, found) = (first.shape.capacity, plan.shape.capacity);
    if expected != found {
        return Err(format!("expected a session of {expected} sequences, as in the first plan, found one of {found}"));
    }
    let (expected, found) = (&first.state.buffers, &plan.state.buffers);
    match expected.iter().zip(found).find(|(expected, found)| expected != found) {
        Some((expected, found)) => Err(format!("expected state {expected:?}, as in the first plan, found {found:?}")),
        None if expected.len() != found.len() => {
            let (expected, found) = (expected.len(), found.len());
            Err(format!("expected {expected} state buffers, as in the first plan, found {found}"))
        }
        None => Ok(()),
    }
}

/// Where a batch takes plans from.
#[derive(Debug)]
pub(super) enum Source<'a> {
    /// Compiled as steps come up.
    Compiler(Box<Compiling<'a>>),
    /// Ready-made.
    Set(PlanSet),
}

/// A compiler, and what its plans so far spare those to come.
#[derive(Debug)]
pub(super) struct Compiling<'a> {
    compiler: Compiler<'a>,
    /// What plans agree on: of those that give logits, and of those that draw.
    agreed: [Option<Agreed>; 2],
    /// A plan that was compiled before it was asked for, and whether it draws.
    first: Option<(bool, CheckedPlan)>,
}

impl<'a> Compiling<'a> {
    pub(super) const fn new(compiler: Compiler<'a>) -> Self {
        Self { compiler, agreed: [None, None], first: None }
    }

    /// With what the compiler has made already.
    pub(super) fn begun(compiler: Compiler<'a>, compiled: Compiled) -> Self {
        let mut found = Self::new(compiler);
        // What is kept of a step that draws, it draws without.
        if compiler.keep.is_empty() || !compiler.draws {
            found.agreed[usize::from(compiler.draws)] = Some(compiled.agreed);
            found.first = Some((compiler.draws, compiled.plan));
        }
        found
    }

    fn plan(&mut self, shape: StepShape, draws: bool) -> Result<CheckedPlan, GenerateError> {
        if let Some((_, plan)) = self.first.take_if(|(drawing, plan)| *drawing == draws && plan.shape == shape) {
            return Ok(plan);
        }
        let keep = if draws { &[] } else { self.compiler.keep };
        let compiler = Compiler { keep, draws, ..self.compiler };
        let agreed = &mut self.agreed[usize::from(draws)];
        let compiled = match agreed {
            Some(agreed) => compiler.compile_beside(shape, agreed)?,
            None => compiler.compile(shape)?,
        };
        *agreed = Some(compiled.agreed);
        Ok(compiled.plan)
    }
}

impl Source<'_> {
    /// The next step when `left` is still to be run of each feed, and the size of its plan.
    pub(super) fn next(
        &self,
        options: &BatchOptions,
        left: &[usize],
        rows: Rows,
    ) -> Result<(Step, StepShape), GenerateError> {
        match self {
            Self::Compiler(_) => {
                let sizes = &options.step_tokens;
                let step = share(left, sizes[sizes.len() - 1] as usize, usize::MAX);
                let shape = padded(options, &step, rows);
                Ok((step, shape))
            }
            Self::Set(set) => set.next(left, rows).ok_or(GenerateError::NoRows(rows)),
        }
    }

    /// Whether there are plans that draw.
    pub(super) const fn draws(&self) -> bool {
        match self {
            Self::Compiler(compiling) => compiling.compiler.draws,
            Self::Set(_) => false,
        }
    }

    /// The plan of a size that [`next`](Self::next) has named. What is kept of one that gives logits is not of one that
    /// draws, whose outputs nobody looks at but for tokens.
    pub(super) fn plan(&mut self, shape: StepShape, draws: bool) -> Result<CheckedPlan, GenerateError> {
        match self {
            Self::Compiler(compiling) => compiling.plan(shape, draws),
            Self::Set(set) => Ok(set.plan(shape).expect("a size of one of its plans").clone()),
        }
    }
}

/// The size of a plan to compile for a step.
fn padded(options: &BatchOptions, step: &[(usize, usize)], rows: Rows) -> StepShape {
    let total: usize = step.iter().map(|(_, count)| count).sum();
    let sizes = &options.step_tokens;
    let tokens = sizes.iter().copied().find(|size| *size as usize >= total).expect("a step fits the largest size");
    // No step has more sequences than there are, so a bucket above the capacity is never needed.
    let sequences = (step.len() as u32).next_power_of_two().min(options.capacity);
    let rows = if rows == Rows::All { tokens } else { sequences };
    StepShape { tokens, sequences, rows, capacity: options.capacity }
}

/// Which feeds a step of at most `room` tokens of at most `seats` feeds takes, and how many tokens of each, when `left`
/// is still to be run of them: the shortest feeds, in equal shares, where what a short feed leaves goes to longer ones.
/// A feed that gets nothing waits for shorter ones to end. In the feeds' order.
fn share(left: &[usize], mut room: usize, seats: usize) -> Step {
    let mut feeds: Vec<usize> = (0..left.len()).filter(|feed| left[*feed] > 0).collect();
    feeds.sort_by_key(|feed| left[*feed]);
    feeds.truncate(seats);
    let mut step = Vec::with_capacity(feeds.len());
    for (nth, feed) in feeds.iter().enumerate() {
        let count = left[*feed].min((room / (feeds.len() - nth)).max(1)).min(room);
        if count > 0 {
            step.push((*feed, count));
        }
        room -= count;
    }
    step.sort_unstable();
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_shared_and_what_short_feeds_leave_goes_to_long_ones() {
        let share = |left: &[usize], room| share(left, room, usize::MAX);
        assert_eq!(share(&[1], 128), [(0, 1)]);
        assert_eq!(share(&[300], 128), [(0, 128)]);
        assert_eq!(share(&[300, 1], 128), [(0, 127), (1, 1)]);
        assert_eq!(share(&[300, 0, 300], 128), [(0, 64), (2, 64)]);
        assert_eq!(share(&[300, 10, 300, 1], 15), [(0, 5), (1, 4), (2, 5), (3, 1)]);
        assert_eq!(share(&[2, 1, 3], 2), [(0, 1), (1, 1)], "the longest waits");
        assert!(share(&[0, 0], 5).is_empty());
    }

    #[test]
    fn a_step_of_few_seats_takes_the_shortest_feeds_whole() {
        assert_eq!(share(&[300, 10, 300, 1], 128, 2), [(1, 10), (3, 1)]);
        assert_eq!(share(&[300, 10, 300], 128, 1), [(1, 10)]);
        assert_eq!(share(&[7, 7, 7], 8, 2), [(0, 4), (1, 4)]);
    }
}
