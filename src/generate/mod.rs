//! Text from a session: tokenizing, steps, sampling.
//!
//! Gets a session, a compiler and tokens; returns logits, row by row, and samples from them. A prompt of any length is
//! cut into steps of a few sizes, the last one padded; padding belongs to no sequence and changes nothing. Never knows
//! an architecture.

pub mod batch;
pub mod sample;
pub mod state;
pub mod text;

use std::fmt;

use crate::base::role::{InputRole, OutputRole};
use crate::base::step::StepShape;
use crate::compile::{CompileError, Compiler};
use crate::exec::{ExecError, Inputs, Outputs, PlanId, Session, Ticket};
use crate::plan::CheckedPlan;

/// Step sizes, in tokens. Between them a step is padded to the next.
pub const STEP_TOKENS: [u32; 3] = [1, 16, 128];

/// Which rows of logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// The last token's.
    Last,
    /// Every token's.
    All,
}

/// Why tokens could not be run.
#[derive(Debug)]
#[non_exhaustive]
pub enum GenerateError {
    /// No plan for a step.
    Compile(CompileError),
    /// The executor failed.
    Exec(ExecError),
    /// A token that is not in the vocabulary.
    Token {
        /// The token.
        token: u32,
        /// Its place among the tokens given.
        at: usize,
        /// Size of the vocabulary.
        vocabulary: u64,
    },
    /// A graph whose outputs give no logits.
    NoLogits,
    /// A call that the sequences at hand do not allow.
    Sequence(String),
}

impl fmt::Display for GenerateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compile(error) => error.fmt(f),
            Self::Exec(error) => error.fmt(f),
            Self::Token { token, at, vocabulary } => {
                write!(f, "token {token} (number {at}, from 0) is not in the vocabulary of {vocabulary}")
            }
            Self::NoLogits => f.write_str("the graph has no output of role `logits`"),
            Self::Sequence(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for GenerateError {}

impl From<ExecError> for GenerateError {
    fn from(error: ExecError) -> Self {
        Self::Exec(error)
    }
}

impl From<CompileError> for GenerateError {
    fn from(error: CompileError) -> Self {
        Self::Compile(error)
    }
}

/// Runs one sequence on a session, compiling plans as step sizes come up.
#[derive(Debug)]
pub struct Decoder<'a, S> {
    session: S,
    compiler: Compiler<'a>,
    plans: Vec<(StepShape, PlanId)>,
    step_tokens: Vec<u32>,
    vocabulary: u64,
}

impl<'a, S: Session> Decoder<'a, S> {
    /// A decoder on a fresh session, whose weights and state are laid out as `compiler`'s plans expect. `step_tokens`
    /// are the step sizes to use, ascending; decoding uses the first, which is best 1. `vocabulary` is `V`: tokens are
    /// below it.
    ///
    /// # Panics
    /// If there are no step sizes, or they do not ascend.
    pub fn new(session: S, compiler: Compiler<'a>, step_tokens: Vec<u32>, vocabulary: u64) -> Self {
        assert!(!step_tokens.is_empty() && step_tokens.is_sorted(), "step sizes ascend");
        Self { session, compiler, plans: Vec::new(), step_tokens, vocabulary }
    }

    /// The session.
    pub fn session(&mut self) -> &mut S {
        &mut self.session
    }

    /// Prepares every plan that a prompt of this many tokens and decoding after it need, the largest first, so that all
    /// plans share the largest one's memory.
    ///
    /// # Errors
    /// If a plan cannot be compiled or prepared.
    pub fn prepare(&mut self, prompt_tokens: usize, rows: Rows) -> Result<(), GenerateError> {
        let mut shapes: Vec<StepShape> =
            cut(prompt_tokens, &self.step_tokens).into_iter().map(|(_, size)| shape(size, rows)).collect();
        shapes.push(shape(self.step_tokens[0], Rows::Last));
        shapes.sort_unstable();
        shapes.dedup();
        shapes.into_iter().rev().try_for_each(|shape| self.plan(shape).map(drop))
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

    /// Runs tokens after those run before. Returns the wanted rows of logits, `V` numbers each, in the order of the
    /// tokens; and the outputs of the last step, padding rows included.
    ///
    /// # Errors
    /// If a token is out of range, a plan cannot be made, or the device fails.
    ///
    /// # Panics
    /// If there are no tokens.
    pub fn run(&mut self, tokens: &[u32], rows: Rows) -> Result<(Vec<Vec<f32>>, Outputs), GenerateError> {
        assert!(!tokens.is_empty(), "a step has tokens");
        if let Some((at, token)) = tokens.iter().enumerate().find(|(_, token)| u64::from(**token) >= self.vocabulary) {
            return Err(GenerateError::Token { token: *token, at, vocabulary: self.vocabulary });
        }
        let mut logits = Vec::new();
        let mut pending: Option<(Ticket, usize)> = None;
        let mut done = 0;
        for (count, size) in cut(tokens.len(), &self.step_tokens) {
            let plan = self.plan(shape(size, rows))?;
            let ticket = self.session.step(plan, &inputs(&tokens[done..done + count], size, rows))?;
            done += count;
            // The step before is read while this one runs.
            if let (Some((ticket, count)), Rows::All) = (pending, rows) {
                self.collect(ticket, count, &mut logits)?;
            }
            pending = Some((ticket, count));
        }
        let (ticket, count) = pending.expect("there is at least one step");
        let wanted = if rows == Rows::All { count } else { 1 };
        let outputs = self.collect(ticket, wanted, &mut logits)?;
        Ok((logits, outputs))
    }

    fn collect(&mut self, ticket: Ticket, rows: usize, logits: &mut Vec<Vec<f32>>) -> Result<Outputs, GenerateError> {
        let outputs = self.session.outputs(ticket)?;
        let tensor = outputs.role(OutputRole::Logits).ok_or(GenerateError::NoLogits)?;
        let values = tensor.to_f32();
        let width = *tensor.shape.last().ok_or(GenerateError::NoLogits)? as usize;
        logits.extend(values.chunks_exact(width).take(rows).map(<[f32]>::to_vec));
        Ok(outputs)
    }
}

fn shape(tokens: u32, rows: Rows) -> StepShape {
    let rows = if rows == Rows::All { tokens } else { 1 };
    StepShape { tokens, sequences: 1, rows, capacity: 1 }
}

/// Cuts tokens into steps: how many each takes, and its size with padding.
fn cut(mut tokens: usize, sizes: &[u32]) -> Vec<(usize, u32)> {
    let largest = *sizes.last().expect("there is a step size");
    let mut steps = Vec::new();
    while tokens > 0 {
        let fits = sizes.iter().copied().find(|size| *size as usize >= tokens);
        let size = fits.unwrap_or(largest);
        let count = tokens.min(size as usize);
        steps.push((count, size));
        tokens -= count;
    }
    steps
}

fn inputs(tokens: &[u32], size: u32, rows: Rows) -> Inputs {
    let count = tokens.len() as u32;
    let mut padded = tokens.to_vec();
    padded.resize(size as usize, 0);
    let wanted = match rows {
        Rows::Last => vec![count - 1],
        Rows::All => (0..size).collect(),
    };
    Inputs::new()
        .with(InputRole::TokenIds, padded)
        .with(InputRole::SequenceOffsets, vec![0, count])
        .with(InputRole::StateRows, vec![0])
        .with(InputRole::OutputRows, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_cut_into_the_sizes_there_are() {
        assert_eq!(cut(1, &STEP_TOKENS), [(1, 1)]);
        assert_eq!(cut(2, &STEP_TOKENS), [(2, 16)]);
        assert_eq!(cut(130, &STEP_TOKENS), [(128, 128), (2, 16)]);
        assert_eq!(cut(10, &[3]), [(3, 3), (3, 3), (3, 3), (1, 3)]);
    }
}
