//! Text from a session: tokenizing, steps, sampling.
//!
//! Gets a session, a compiler and tokens; returns logits, row by row, and samples from them. Prompts of any length are
//! cut into steps of a few sizes, which are padded; padding belongs to no sequence and changes nothing. Never knows an
//! architecture.

pub mod ahead;
pub mod batch;
pub mod continuation;
pub mod perplexity;
pub mod plans;
pub mod queue;
pub mod sample;
pub mod score;
pub mod state;
pub mod stop;
pub mod text;
pub mod vocabulary;

use std::fmt;

use crate::compile::{CompileError, Compiler};
use crate::exec::{ExecError, Outputs, Session};
use crate::generate::batch::{Batch, BatchOptions, Feed, SequenceId};
use crate::plan::weights::StateLayout;

/// Step sizes, in tokens. Between them a step is padded to the next.
pub const STEP_TOKENS: [u32; 7] = [1, 16, 32, 64, 128, 256, 512];

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
    /// Text that no token of the vocabulary covers.
    NoToken {
        /// The character that is not covered, or not to its end.
        character: char,
        /// The byte of the text at which no token goes on.
        at: usize,
    },
    /// Logits of which none is above minus infinity, perhaps because of biases.
    NothingToDraw {
        /// How many logits there are.
        logits: usize,
        /// How many of them are no numbers.
        not_numbers: usize,
    },
    /// Logits of which a step that draws found none above minus infinity.
    NothingDrawn,
    /// A token whose probability cannot be told, since a logit of its row is not a number.
    NotANumber {
        /// The token's place among those given.
        at: usize,
    },
    /// A graph whose outputs give no logits.
    NoLogits,
    /// No plan that came ready-made gives such rows of logits.
    NoRows(Rows),
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
            Self::NoToken { character, at } => {
                let character = character.escape_debug();
                write!(f, "the vocabulary has no token for `{character}` (byte {at} of the text, from 0)")
            }
            Self::NothingToDraw { logits, not_numbers } => {
                let others = logits - not_numbers;
                write!(f, "no token can be drawn: {not_numbers} of {logits} logits are not numbers, {others} are -inf")
            }
            Self::NothingDrawn => f.write_str("no token can be drawn: no logit is a number above -inf"),
            Self::NotANumber { at } => {
                write!(f, "token number {at}, from 0, has no probability: the model gives logits that are not numbers")
            }
            Self::NoLogits => f.write_str("the graph has no output of role `logits`"),
            Self::NoRows(rows) => {
                let what = if *rows == Rows::All { "token" } else { "sequence" };
                write!(f, "expected a plan with a row of logits for every {what} of its step, found none")
            }
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

/// A [`Batch`] of one sequence, from its first token on.
#[derive(Debug)]
pub struct Decoder<'a, S> {
    batch: Batch<'a, S>,
    sequence: SequenceId,
}

impl<'a, S: Session> Decoder<'a, S> {
    /// A decoder on a fresh session of one row of state, whose weights and state are laid out as `compiler`'s plans
    /// expect. `step_tokens` are the step sizes to use, ascending; decoding uses the first, which is best 1.
    /// `vocabulary` is `V`: tokens are below it.
    ///
    /// # Panics
    /// If there are no step sizes, or they do not ascend.
    pub fn new(session: S, compiler: Compiler<'a>, step_tokens: Vec<u32>, vocabulary: u64) -> Self {
        let options = BatchOptions { capacity: 1, step_tokens, vocabulary };
        // A fresh session's state is the initial one, and this sequence is never saved or reset: the batch has to know
        // of no state.
        let mut batch = Batch::new(session, compiler, options, StateLayout::default());
        let sequence = batch.join().expect("a batch has room for one sequence and no state to write");
        Self { batch, sequence }
    }

    /// The session.
    pub fn session(&mut self) -> &mut S {
        self.batch.session()
    }

    /// Prepares every plan that a prompt of this many tokens and decoding after it need, the largest first, so that all
    /// plans share the largest one's memory.
    ///
    /// # Errors
    /// If a plan cannot be compiled or prepared.
    pub fn prepare(&mut self, prompt_tokens: usize, rows: Rows) -> Result<(), GenerateError> {
        self.batch.prepare(&[prompt_tokens], rows)?;
        self.batch.prepare(&[1], Rows::Last)
    }

    /// Runs tokens after those run before. Returns the wanted rows of logits, `V` numbers each, in the order of the
    /// tokens; and the outputs of the last step, padding rows included.
    ///
    /// # Errors
    /// If there are no tokens or one is out of range, a plan cannot be made, or the device fails.
    pub fn run(&mut self, tokens: &[u32], rows: Rows) -> Result<(Vec<Vec<f32>>, Outputs), GenerateError> {
        let (mut logits, outputs) = self.batch.run(&[Feed { sequence: self.sequence, tokens }], rows)?;
        Ok((logits.remove(0), outputs))
    }
}
