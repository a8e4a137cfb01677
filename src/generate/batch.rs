//! Many sequences on one session: each step runs tokens of any of them, packed.
//!
//! Gets tokens for some sequences, returns logits for each; compiles plans as step sizes come up, padded to a few sizes
//! so that there are few plans, all of them drawing memory from one pool. Sequences join, leave and fork between any
//! two steps; each has a row of the state buffers to itself. Padding belongs to no sequence and changes nothing. Never
//! samples, never knows an architecture.

use crate::base::role::{InputRole, OutputRole};
use crate::base::step::StepShape;
use crate::compile::Compiler;
use crate::exec::{Inputs, Outputs, PlanId, Session, Ticket};
use crate::generate::{GenerateError, Rows};
use crate::plan::CheckedPlan;
use crate::plan::weights::StateLayout;
use crate::tensor::Tensor;

/// A sequence of a [`Batch`]. Ids are never used again, so one that has left is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(u64);

/// Tokens for one sequence, and which of their logits are wanted.
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

/// For each feed, the rows of logits that were wanted.
pub type FeedLogits = Vec<Vec<Vec<f32>>>;

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

/// Sequences on a session.
#[derive(Debug)]
pub struct Batch<'a, S> {
    session: S,
    compiler: Compiler<'a>,
    options: BatchOptions,
    state: StateLayout,
    plans: Vec<(StepShape, PlanId)>,
    /// Who lives in each row of the state buffers.
    rows: Vec<Option<SequenceId>>,
    next_id: u64,
}

/// What one step is to run: for each sequence its row of the state and its tokens.
type Part<'t> = (u32, &'t [u32]);

impl<'a, S: Session> Batch<'a, S> {
    /// A batch without sequences on a session that was opened with `state` of `options.capacity` rows.
    ///
    /// # Panics
    /// If there is no step size, or step sizes do not ascend.
    pub fn new(session: S, compiler: Compiler<'a>, options: BatchOptions, state: StateLayout) -> Self {
        let sizes = &options.step_tokens;
        assert!(!sizes.is_empty() && sizes[0] > 0 && sizes.is_sorted(), "step sizes ascend from 1 or more");
        let rows = vec![None; options.capacity as usize];
        Self { session, compiler, options, state, plans: Vec::new(), rows, next_id: 0 }
    }

    /// The session.
    pub fn session(&mut self) -> &mut S {
        &mut self.session
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
    /// wanted for each feed, in the feeds' order, and the outputs of the last step.
    ///
    /// # Errors
    /// If a feed is empty or its sequence has left or appears twice, a token is out of range, a plan cannot be made, or
    /// the device fails.
    pub fn run(&mut self, feeds: &[Feed<'_>], rows: Rows) -> Result<(FeedLogits, Outputs), GenerateError> {
        let parts = self.parts(feeds)?;
        let mut logits = vec![Vec::new(); feeds.len()];
        let mut done = vec![0; feeds.len()];
        let mut pending: Option<(Ticket, Vec<(usize, usize)>)> = None;
        let mut outputs = None;
        while let Some(step) = self.next_step(&parts, &done) {
            let (ticket, counts) = self.submit(&parts, &done, &step, rows)?;
            counts.iter().for_each(|(feed, count)| done[*feed] += count);
            // The step before is read while this one runs.
            if let Some((ticket, counts)) = pending.replace((ticket, counts)) {
                outputs = Some(self.collect(ticket, &counts, rows, &mut logits)?);
            }
        }
        if let Some((ticket, counts)) = pending {
            outputs = Some(self.collect(ticket, &counts, rows, &mut logits)?);
        }
        if rows == Rows::Last {
            // Of a feed that took several steps, the last step's row counts.
            logits.iter_mut().for_each(|rows: &mut Vec<Vec<f32>>| drop(rows.drain(..rows.len().saturating_sub(1))));
        }
        let outputs = outputs.ok_or(GenerateError::Sequence("there is nothing to run".into()))?;
        Ok((logits, outputs))
    }

    /// Prepares the plans of these step sizes, the largest first, so that all share the largest one's memory.
    ///
    /// # Errors
    /// If a plan cannot be compiled or prepared.
    pub fn prepare(&mut self, steps: &[(u32, u32)], rows: Rows) -> Result<(), GenerateError> {
        let mut shapes: Vec<StepShape> =
            steps.iter().map(|(tokens, sequences)| self.shape(*tokens as usize, *sequences as usize, rows)).collect();
        shapes.sort_unstable();
        shapes.dedup();
        shapes.into_iter().rev().try_for_each(|shape| self.plan(shape).map(drop))
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

    fn write_initial(&mut self, row: u32) -> Result<(), GenerateError> {
        for (index, buffer) in (0u32..).zip(&self.state.buffers) {
            self.session.write_state(index, u64::from(row), &buffer.init_row())?;
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
        let mut parts: Vec<Part<'t>> = Vec::with_capacity(feeds.len());
        for feed in feeds {
            let row = self.row(feed.sequence)?;
            if feed.tokens.is_empty() {
                return Err(GenerateError::Sequence("a feed has no tokens".into()));
            }
            if parts.iter().any(|(other, _)| *other == row) {
                return Err(GenerateError::Sequence("a sequence is fed twice at once".into()));
            }
            let vocabulary = self.options.vocabulary;
            let stray = feed.tokens.iter().enumerate().find(|(_, token)| u64::from(**token) >= vocabulary);
            if let Some((at, token)) = stray {
                return Err(GenerateError::Token { token: *token, at, vocabulary });
            }
            parts.push((row, feed.tokens));
        }
        Ok(parts)
    }

    /// Which feeds the next step takes, and how many tokens of each: as many as the largest step holds, every feed
    /// getting its share, in the feeds' order.
    fn next_step(&self, parts: &[Part<'_>], done: &[usize]) -> Option<Vec<(usize, usize)>> {
        let mut room = *self.options.step_tokens.last().expect("there is a step size") as usize;
        let mut waiting = parts.iter().zip(done).filter(|((_, tokens), done)| tokens.len() > **done).count();
        let mut step = Vec::new();
        for (feed, ((_, tokens), done)) in parts.iter().zip(done).enumerate() {
            let left = tokens.len() - done;
            if left == 0 {
                continue;
            }
            let count = left.min((room / waiting).max(1)).min(room);
            waiting -= 1;
            if count > 0 {
                step.push((feed, count));
                room -= count;
            }
        }
        (!step.is_empty()).then_some(step)
    }

    fn shape(&self, tokens: usize, sequences: usize, rows: Rows) -> StepShape {
        let sizes = &self.options.step_tokens;
        let tokens = sizes.iter().copied().find(|size| *size as usize >= tokens).unwrap_or(sizes[sizes.len() - 1]);
        let sequences = (sequences as u32).next_power_of_two().min(self.options.capacity.max(1));
        let rows = if rows == Rows::All { tokens } else { sequences };
        StepShape { tokens, sequences, rows, capacity: self.options.capacity }
    }

    fn plan(&mut self, shape: StepShape) -> Result<PlanId, GenerateError> {
        if let Some((_, id)) = self.plans.iter().find(|(other, _)| *other == shape) {
            return Ok(*id);
        }
        let plan: CheckedPlan = self.compiler.compile(shape)?.plan;
        let id = self.session.prepare(plan)?;
        self.plans.push((shape, id));
        Ok(id)
    }

    /// Submits one step. Returns its ticket, and feed and token count of each sequence in it.
    fn submit(
        &mut self,
        parts: &[Part<'_>],
        done: &[usize],
        step: &[(usize, usize)],
        rows: Rows,
    ) -> Result<(Ticket, Vec<(usize, usize)>), GenerateError> {
        let total = step.iter().map(|(_, count)| count).sum();
        let shape = self.shape(total, step.len(), rows);
        let plan = self.plan(shape)?;
        let mut tokens = Vec::with_capacity(shape.tokens as usize);
        let mut offsets = vec![0];
        let mut state_rows = Vec::with_capacity(shape.sequences as usize);
        let mut last_rows = Vec::with_capacity(shape.sequences as usize);
        for (feed, count) in step {
            let (row, all) = parts[*feed];
            tokens.extend_from_slice(&all[done[*feed]..done[*feed] + count]);
            offsets.push(tokens.len() as u32);
            state_rows.push(row);
            last_rows.push(tokens.len() as u32 - 1);
        }
        // Sequences without tokens and tokens without a sequence: both are padding.
        offsets.resize(shape.sequences as usize + 1, total as u32);
        state_rows.resize(shape.sequences as usize, 0);
        last_rows.resize(shape.sequences as usize, 0);
        tokens.resize(shape.tokens as usize, 0);
        let wanted = if rows == Rows::All { (0..shape.tokens).collect() } else { last_rows };
        let inputs = Inputs::new()
            .with(InputRole::TokenIds, tokens)
            .with(InputRole::SequenceOffsets, offsets)
            .with(InputRole::StateRows, state_rows)
            .with(InputRole::OutputRows, wanted);
        Ok((self.session.step(plan, &inputs)?, step.to_vec()))
    }

    /// Waits for a step and appends its rows of logits to those of its feeds.
    fn collect(
        &mut self,
        ticket: Ticket,
        step: &[(usize, usize)],
        rows: Rows,
        logits: &mut [Vec<Vec<f32>>],
    ) -> Result<Outputs, GenerateError> {
        let outputs = self.session.outputs(ticket)?;
        let tensor = outputs.role(OutputRole::Logits).ok_or(GenerateError::NoLogits)?;
        let width = *tensor.shape.last().ok_or(GenerateError::NoLogits)? as usize;
        let values = tensor.to_f32();
        let mut all = values.chunks_exact(width).map(<[f32]>::to_vec);
        for (feed, count) in step {
            let count = if rows == Rows::All { *count } else { 1 };
            logits[*feed].extend(all.by_ref().take(count));
        }
        Ok(outputs)
    }
}
