//! Many sequences on one session: each step runs tokens of any of them, packed.
//!
//! Gets tokens for some sequences, returns logits for each; takes plans as step sizes come up, compiled or ready-made
//! ([`plans`](crate::generate::plans) says which), all of them drawing memory from one pool. Sequences join, leave and
//! fork between any two steps; each has a row of the state buffers to itself. Padding belongs to no sequence and
//! changes nothing. Never samples, never knows an architecture.

mod carry;

use std::time::{Duration, Instant};

use crate::base::role::{DRAW_WORDS, InputRole, OutputRole};
use crate::base::step::StepShape;
use crate::checkpoint::Checkpoint;
use crate::compile::Compiler;
use crate::exec::{ExecError, Executor, Inputs, Outputs, PlanId, Progress, Session, Ticket, Weights};
use crate::generate::plans::{Compiling, PlanSet, Source, Step};
use crate::generate::{GenerateError, Rows};
use crate::plan::weights::StateLayout;
use crate::tensor::Tensor;

pub use carry::{Draw, DrawFeed, Flight, Next};

/// A sequence of a [`Batch`]. Ids are never used again, so one that has left is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(u64);

/// Tokens for one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Feed<'t> {
    /// Whose tokens.
    pub sequence: SequenceId,
    /// The tokens that follow those fed before.
    pub tokens: &'t [u32],
}

/// The state of one sequence: one tensor per state buffer, without the sequences' axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceState {
    /// Path and value of each state tensor, in the layout's order.
    pub tensors: Vec<(String, Tensor)>,
}

/// How a batch cuts work into steps.
#[derive(Clone, Debug)]
pub struct BatchOptions {
    /// Sequences that the session holds at once.
    pub capacity: u32,
    /// Token counts of a step, ascending; a step is padded to the next.
    pub step_tokens: Vec<u32>,
    /// Size of the vocabulary, which every token lies below.
    pub vocabulary: u64,
}

/// How long it has taken to make a batch ready, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartCost {
    /// Compiling plans.
    pub compile: Duration,
    /// Opening the session: buffers, and weights and state on their way into them.
    pub upload: Duration,
    /// Preparing plans: above all making their pipelines.
    pub prepare: Duration,
}

/// Sequences on a session.
#[derive(Debug)]
pub struct Batch<'a, S> {
    session: S,
    source: Source<'a>,
    options: BatchOptions,
    /// What a sequence's state is: the session's, but for what steps that draw keep for the next one alone.
    state: StateLayout,
    /// By size, and whether they draw.
    plans: Vec<((StepShape, bool), PlanId)>,
    /// Who lives in each row of the state buffers.
    rows: Vec<Option<SequenceId>>,
    /// A row of each state that begins as a weight does: read from the session before its first sequence.
    initial: Option<Vec<Option<Vec<u8>>>>,
    next_id: u64,
    cost: StartCost,
    /// Whether copies of weights were left out, for which there was no memory.
    lacks_copies: bool,
}

/// What is to be run of one sequence: its row of the state and its tokens.
type Part<'t> = (u32, &'t [u32]);

/// The logits of a run: for each feed, in the feeds' order, a row for each token wanted.
pub type Logits = Vec<Vec<Vec<f32>>>;

impl<'a, S: Session> Batch<'a, S> {
    /// Opens a session for `capacity` sequences and makes a batch of it. `step_tokens` are as in [`BatchOptions`]. If
    /// the compiler's steps draw, those of the batch may: see [`submit_drawing`](Self::submit_drawing). Where the
    /// device has no memory for copies of weights, its steps do without: see [`lacks_copies`](Self::lacks_copies).
    ///
    /// # Errors
    /// If the model cannot be compiled, gives no logits, or the device fails.
    ///
    /// # Panics
    /// If there is no step size, step sizes do not ascend, or `capacity` is 0.
    pub fn open(
        executor: &impl Executor<Session = S>,
        compiler: Compiler<'a>,
        checkpoint: &Checkpoint,
        (capacity, step_tokens): (u32, Vec<u32>),
        progress: Progress<'_>,
    ) -> Result<Self, GenerateError> {
        // Weights and state are laid out alike for every size of a step, whatever the graph asks about it.
        let began = Instant::now();
        let one = StepShape { tokens: 1, sequences: 1, rows: 1, capacity };
        let compiled = compiler.compile(one)?;
        let drawing = match compiler.draws {
            true => Some(Compiler { draws: false, ..compiler }.model(one)?.0),
            false => None,
        };
        let (plan, plain) = (&compiled.plan, drawing.as_ref().unwrap_or(&compiled.model));
        let compile = began.elapsed();
        let logits = plain.outputs.iter().find(|output| output.role == OutputRole::Logits);
        let columns = logits.and_then(|output| plain.values[output.value].shape.last().copied());
        let vocabulary = columns.ok_or(GenerateError::NoLogits)?;
        let began = Instant::now();
        let weights = Weights { layout: &plan.weights, checkpoint };
        let session = match executor.open(&weights, &plan.state, &mut *progress) {
            Err(ExecError::OutOfMemory { .. }) if compiled.agreed.has_copies() => {
                let compiler = Compiler { copies: false, ..compiler };
                let mut batch = Self::open(executor, compiler, checkpoint, (capacity, step_tokens), progress)?;
                batch.cost.compile += compile;
                batch.lacks_copies = true;
                return Ok(batch);
            }
            opened => opened?,
        };
        // What follows is for the next step that draws alone.
        let state = StateLayout { buffers: plan.state.buffers[..plain.state.len()].to_vec() };
        let cost = StartCost { compile, upload: began.elapsed(), prepare: Duration::ZERO };
        let options = BatchOptions { capacity, step_tokens, vocabulary };
        let source = Source::Compiler(Box::new(Compiling::begun(compiler, compiled)));
        Ok(Self { cost, ..Self::of(session, source, options, state) })
    }

    /// A batch without sequences on a session of `options.capacity` rows; `state` is that of steps that give logits.
    ///
    /// # Panics
    /// If there is no step size, step sizes do not ascend, or the capacity is 0.
    pub fn new(session: S, compiler: Compiler<'a>, options: BatchOptions, state: StateLayout) -> Self {
        Self::of(session, Source::Compiler(Box::new(Compiling::new(compiler))), options, state)
    }

    /// Opens a session for plans that came ready-made, and makes a batch of at most `capacity` sequences of it. Every
    /// step takes the smallest plan that fits, padded.
    ///
    /// # Errors
    /// If the device lacks what a plan needs, or fails.
    ///
    /// # Panics
    /// If `capacity` is 0 or more than the plans have rows of state for.
    pub fn open_plans(
        executor: &impl Executor<Session = S>,
        plans: PlanSet,
        checkpoint: &Checkpoint,
        capacity: u32,
        progress: Progress<'_>,
    ) -> Result<Self, GenerateError> {
        assert!(capacity <= plans.capacity(), "{capacity} sequences in {} rows of state", plans.capacity());
        // Before gigabytes are uploaded for nothing.
        let limits = &executor.device().limits;
        let missing = plans.plans().iter().map(|plan| limits.missing_for(&plan.limits)).find(|m| !m.is_empty());
        if let Some(missing) = missing {
            return Err(ExecError::TooSmall { missing }.into());
        }
        let (weights, state) = (plans.plans()[0].weights.clone(), plans.state_layout().clone());
        let began = Instant::now();
        let session = executor.open(&Weights { layout: &weights, checkpoint }, &state, progress)?;
        let cost = StartCost { upload: began.elapsed(), ..StartCost::default() };
        let options = BatchOptions { capacity, step_tokens: plans.step_tokens(), vocabulary: plans.vocabulary() };
        Ok(Self { cost, ..Self::of(session, Source::Set(plans), options, state) })
    }

    fn of(session: S, source: Source<'a>, options: BatchOptions, state: StateLayout) -> Self {
        let sizes = &options.step_tokens;
        assert!(!sizes.is_empty() && sizes[0] > 0 && sizes.is_sorted(), "step sizes ascend from 1 or more");
        assert!(options.capacity > 0, "a session holds a sequence");
        let rows = vec![None; options.capacity as usize];
        let (plans, cost) = (Vec::new(), StartCost::default());
        Self { session, source, options, state, plans, rows, initial: None, next_id: 0, cost, lacks_copies: false }
    }

    /// Whether copies of weights, which some rules take for speed, were left out for lack of memory.
    pub const fn lacks_copies(&self) -> bool {
        self.lacks_copies
    }

    /// The session.
    pub fn session(&mut self) -> &mut S {
        &mut self.session
    }

    /// How it was made.
    pub const fn options(&self) -> &BatchOptions {
        &self.options
    }

    /// Where the session's state lies.
    pub const fn state_layout(&self) -> &StateLayout {
        &self.state
    }

    /// How long all that was made once has taken.
    pub const fn start_cost(&self) -> StartCost {
        self.cost
    }

    /// How many plans have been prepared: at most one for each step size, power of two of sequences and kind of
    /// [`Rows`], drawing or not, or those that came ready-made.
    pub const fn plan_count(&self) -> usize {
        self.plans.len()
    }

    /// How many sequences there are.
    pub fn len(&self) -> usize {
        self.rows.iter().flatten().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A new sequence, before its first token.
    ///
    /// # Errors
    /// If all rows are taken, or the device fails.
    pub fn join(&mut self) -> Result<SequenceId, GenerateError> {
        self.learn_initial()?;
        let (id, row) = self.take_row()?;
        if let Err(error) = self.write_initial(row) {
            self.rows[row as usize] = None;
            return Err(error);
        }
        Ok(id)
    }

    /// Ends a sequence; its row is free for others.
    ///
    /// # Errors
    /// If it has left before.
    pub fn leave(&mut self, sequence: SequenceId) -> Result<(), GenerateError> {
        let row = self.row(sequence)?;
        self.rows[row as usize] = None;
        Ok(())
    }

    /// Takes a sequence back to before its first token.
    ///
    /// # Errors
    /// If it has left, or the device fails.
    pub fn reset(&mut self, sequence: SequenceId) -> Result<(), GenerateError> {
        let row = self.row(sequence)?;
        self.write_initial(row)
    }

    /// A second sequence in the same state; both go on alike, bit for bit.
    ///
    /// # Errors
    /// If all rows are taken, the sequence has left, or the device fails.
    pub fn fork(&mut self, sequence: SequenceId) -> Result<SequenceId, GenerateError> {
        let state = self.save(sequence)?;
        let (id, row) = self.take_row()?;
        if let Err(error) = self.write(row, &state) {
            self.rows[row as usize] = None;
            return Err(error);
        }
        Ok(id)
    }

    /// The state of a sequence.
    ///
    /// # Errors
    /// If it has left, or the device fails.
    pub fn save(&mut self, sequence: SequenceId) -> Result<SequenceState, GenerateError> {
        let row = self.row(sequence)?;
        let mut tensors = Vec::with_capacity(self.state.buffers.len());
        for (index, buffer) in (0u32..).zip(&self.state.buffers) {
            tensors.push((buffer.label.clone(), self.session.read_state(index, u64::from(row))?));
        }
        Ok(SequenceState { tensors })
    }

    /// Puts a sequence into a state saved before, of this or another sequence of the same model.
    ///
    /// # Errors
    /// If the sequence has left, the state is not one of this model, or the device fails.
    pub fn load(&mut self, sequence: SequenceId, state: &SequenceState) -> Result<(), GenerateError> {
        let row = self.row(sequence)?;
        self.write(row, state)
    }

    /// Runs tokens of any sequences, each after those run before it; long ones take several steps. Returns the logits
    /// wanted of each feed, and the outputs of the last step.
    ///
    /// # Errors
    /// If nothing is fed, a feed is empty, its sequence has left or appears twice, or a token is out of range: then
    /// nothing was run. If a plan cannot be made or the device fails: then what the sequences have read is not known,
    /// and they are best reset.
    pub fn run(&mut self, feeds: &[Feed<'_>], rows: Rows) -> Result<(Logits, Outputs), GenerateError> {
        let parts = self.parts(feeds)?;
        let mut left: Vec<usize> = parts.iter().map(|(_, tokens)| tokens.len()).collect();
        let mut logits = vec![Vec::new(); feeds.len()];
        let mut pending: Option<(Ticket, Step)> = None;
        while left.iter().any(|left| *left > 0) {
            let (step, shape) = self.source.next(&self.options, &left, rows)?;
            let ticket = self.submit(&parts, &left, &step, (shape, rows), None)?;
            step.iter().for_each(|(feed, count)| left[*feed] -= count);
            // The step before is read while this one runs.
            if let Some((ticket, wanted)) = pending.replace((ticket, wanted(&step, &left, rows)))
                && wanted.iter().any(|(_, rows)| *rows > 0)
            {
                self.collect(ticket, &wanted, rows, &mut logits)?;
            }
        }
        let (ticket, wanted) = pending.ok_or(GenerateError::Sequence("there is nothing to run".into()))?;
        let outputs = self.collect(ticket, &wanted, rows, &mut logits)?;
        Ok((logits, outputs))
    }

    /// Prepares the plans that a [`run`](Self::run) of feeds of these many tokens takes, the largest first, so that no
    /// memory has to grow.
    ///
    /// # Errors
    /// If a plan cannot be compiled or prepared, or none gives such rows.
    pub fn prepare(&mut self, feeds: &[usize], rows: Rows) -> Result<(), GenerateError> {
        let mut left = feeds.to_vec();
        let mut shapes = Vec::new();
        while left.iter().any(|left| *left > 0) {
            let (step, shape) = self.source.next(&self.options, &left, rows)?;
            step.iter().for_each(|(feed, count)| left[*feed] -= count);
            shapes.push(shape);
        }
        shapes.sort_unstable();
        shapes.dedup();
        shapes.into_iter().rev().try_for_each(|shape| self.plan(shape, false).map(drop))
    }

    /// What the next step of a run takes when `left` is still to be run of each feed.
    pub(super) fn next_step(&self, left: &[usize], rows: Rows) -> Result<Step, GenerateError> {
        Ok(self.source.next(&self.options, left, rows)?.0)
    }

    fn row(&self, sequence: SequenceId) -> Result<u32, GenerateError> {
        let row = self.rows.iter().position(|other| *other == Some(sequence));
        row.map(|row| row as u32).ok_or_else(|| GenerateError::Sequence("the sequence has left".into()))
    }

    fn take_row(&mut self) -> Result<(SequenceId, u32), GenerateError> {
        let full =
            || GenerateError::Sequence(format!("all {} sequences of the session are taken", self.options.capacity));
        let row = self.rows.iter().position(Option::is_none).ok_or_else(full)?;
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.rows[row] = Some(id);
        Ok((id, row as u32))
    }

    /// Keeps what a fresh session's state is where that is more than a number.
    fn learn_initial(&mut self) -> Result<(), GenerateError> {
        if self.initial.is_none() {
            let mut initial = Vec::with_capacity(self.state.buffers.len());
            for (index, buffer) in (0u32..).zip(&self.state.buffers) {
                initial.push(match buffer.init_weight {
                    Some(_) => Some(self.session.read_state(index, 0)?.bytes),
                    None => None,
                });
            }
            self.initial = Some(initial);
        }
        Ok(())
    }

    fn write_initial(&mut self, row: u32) -> Result<(), GenerateError> {
        for (index, buffer) in (0u32..).zip(&self.state.buffers) {
            let learnt = self.initial.as_ref().and_then(|rows| rows[index as usize].as_deref());
            match learnt {
                Some(bytes) => self.session.write_state(index, u64::from(row), bytes)?,
                None => self.session.write_state(index, u64::from(row), &buffer.init_row())?,
            }
        }
        Ok(())
    }

    fn write(&mut self, row: u32, state: &SequenceState) -> Result<(), GenerateError> {
        let fits = state.tensors.len() == self.state.buffers.len()
            && state.tensors.iter().zip(&self.state.buffers).all(|((path, tensor), buffer)| {
                *path == buffer.label && tensor.dtype == buffer.dtype && tensor.bytes.len() as u64 == buffer.row_bytes()
            });
        if !fits {
            return Err(GenerateError::Sequence("the state is not one of this model".into()));
        }
        for (index, (_, tensor)) in (0u32..).zip(&state.tensors) {
            self.session.write_state(index, u64::from(row), &tensor.bytes)?;
        }
        Ok(())
    }

    fn parts<'t>(&self, feeds: &[Feed<'t>]) -> Result<Vec<Part<'t>>, GenerateError> {
        let vocabulary = self.options.vocabulary;
        for feed in feeds {
            let stray = feed.tokens.iter().enumerate().find(|(_, token)| u64::from(**token) >= vocabulary);
            if let Some((at, token)) = stray {
                return Err(GenerateError::Token { token: *token, at, vocabulary });
            }
        }
        self.places(feeds)
    }

    /// Where feeds live; what their tokens are is not looked at.
    fn places<'t>(&self, feeds: &[Feed<'t>]) -> Result<Vec<Part<'t>>, GenerateError> {
        let mut parts: Vec<Part<'t>> = Vec::with_capacity(feeds.len());
        for feed in feeds {
            let row = self.row(feed.sequence)?;
            if feed.tokens.is_empty() {
                return Err(GenerateError::Sequence("a feed has no tokens".into()));
            }
            if parts.iter().any(|(other, _)| *other == row) {
                return Err(GenerateError::Sequence("a sequence is fed twice at once".into()));
            }
            parts.push((row, feed.tokens));
        }
        Ok(parts)
    }

    fn plan(&mut self, shape: StepShape, draws: bool) -> Result<PlanId, GenerateError> {
        if let Some((_, id)) = self.plans.iter().find(|(other, _)| *other == (shape, draws)) {
            return Ok(*id);
        }
        let began = Instant::now();
        let plan = self.source.plan(shape, draws)?;
        let compiled = began.elapsed();
        let id = self.session.prepare(plan)?;
        self.cost.compile += compiled;
        self.cost.prepare += began.elapsed() - compiled;
        self.plans.push(((shape, draws), id));
        Ok(id)
    }

    /// Submits one step of feeds of which `left` is still to be run; one that draws by these rules, of each of its
    /// sequences, if there are any.
    fn submit(
        &mut self,
        parts: &[Part<'_>],
        left: &[usize],
        step: &[(usize, usize)],
        (shape, rows): (StepShape, Rows),
        rules: Option<Vec<u32>>,
    ) -> Result<Ticket, GenerateError> {
        let plan = self.plan(shape, rules.is_some())?;
        let mut tokens = Vec::with_capacity(shape.tokens as usize);
        let mut offsets = vec![0];
        let mut state_rows = Vec::with_capacity(shape.sequences as usize);
        let mut last_rows = Vec::with_capacity(shape.sequences as usize);
        for (feed, count) in step {
            let (row, all) = parts[*feed];
            let begin = all.len() - left[*feed];
            tokens.extend_from_slice(&all[begin..begin + count]);
            offsets.push(tokens.len() as u32);
            state_rows.push(row);
            last_rows.push(tokens.len() as u32 - 1);
        }
        // Sequences without tokens and tokens without a sequence: both are padding.
        offsets.resize(shape.sequences as usize + 1, tokens.len() as u32);
        state_rows.resize(shape.sequences as usize, 0);
        tokens.resize(shape.tokens as usize, 0);
        let mut output_rows = if rows == Rows::All { (0..shape.tokens).collect() } else { last_rows };
        output_rows.resize(shape.rows as usize, 0);
        let inputs = Inputs::new()
            .with(InputRole::TokenIds, tokens)
            .with(InputRole::SequenceOffsets, offsets)
            .with(InputRole::StateRows, state_rows)
            .with(InputRole::OutputRows, output_rows);
        let inputs = match rules {
            None => inputs,
            Some(mut rules) => {
                rules.resize((shape.sequences * DRAW_WORDS) as usize, 0);
                inputs.with(InputRole::DrawRules, rules)
            }
        };
        Ok(self.session.step(plan, &inputs)?)
    }

    /// Waits for a step and appends its wanted rows of logits to those of its feeds.
    fn collect(
        &mut self,
        ticket: Ticket,
        wanted: &[(usize, usize)],
        rows: Rows,
        logits: &mut [Vec<Vec<f32>>],
    ) -> Result<Outputs, GenerateError> {
        let outputs = self.session.outputs(ticket)?;
        let tensor = outputs.role(OutputRole::Logits).ok_or(GenerateError::NoLogits)?;
        let width = *tensor.shape.last().ok_or(GenerateError::NoLogits)? as usize;
        let values = tensor.to_f32();
        let mut all = values.chunks_exact(width).map(<[f32]>::to_vec);
        for (feed, count) in wanted {
            logits[*feed].extend(all.by_ref().take(*count));
            if rows == Rows::Last && *count == 0 {
                // The row of a feed that has tokens left.
                all.next();
            }
        }
        Ok(outputs)
    }
}

/// How many rows of logits are wanted of each feed of a step, when `left` is what then remains to be run.
fn wanted(step: &[(usize, usize)], left: &[usize], rows: Rows) -> Step {
    let count = |(feed, count): (usize, usize)| match rows {
        Rows::All => count,
        Rows::Last => usize::from(left[feed] == 0),
    };
    step.iter().map(|step| (step.0, count(*step))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_row_alone_is_wanted_of_a_feed_that_ends() {
        assert_eq!(wanted(&[(0, 3), (2, 4)], &[2, 0, 0], Rows::Last), [(0, 0), (2, 1)]);
        assert_eq!(wanted(&[(0, 3), (2, 4)], &[2, 0, 0], Rows::All), [(0, 3), (2, 4)]);
    }
}
