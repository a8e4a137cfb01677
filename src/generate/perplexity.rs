//! How well a model foretells a text.
//!
//! Gets tokens, returns the sum of their surprises: of each but the first, -ln of the probability that the model gave
//! it after all before it. The text is run in pieces of the largest step with the state carried on, in one pass, so
//! memory does not grow with its length. Never knows what tokens stand for.

use crate::exec::Session;
use crate::generate::batch::{Batch, Feed, SequenceId};
use crate::generate::score::LogProbabilities;
use crate::generate::{GenerateError, Rows};

/// How well a text was foretold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Surprise {
    /// The tokens that count.
    pub tokens: u64,
    /// The sum of their surprises, in units of the natural logarithm; infinite if one was held to be impossible.
    pub nats: f64,
}

impl Surprise {
    /// The perplexity of a token: how many equally likely ones would surprise as much.
    pub fn perplexity(&self) -> f64 {
        (self.nats / self.tokens as f64).exp()
    }

    /// The bits that a coder led by the model takes for each byte, if these tokens stand for `bytes`.
    pub fn bits_per_byte(&self, bytes: u64) -> f64 {
        self.nats / bytes as f64 / std::f64::consts::LN_2
    }
}

/// Measures the surprise of all tokens but the first, on a sequence of its own. `progress` is called with how many
/// tokens are done.
///
/// # Errors
/// If there are fewer than two tokens, one is out of range, a logit is not a number, all rows of the batch are taken,
/// a plan cannot be made, or the device fails.
pub fn measure<S: Session>(
    batch: &mut Batch<'_, S>,
    tokens: &[u32],
    progress: &mut dyn FnMut(usize),
) -> Result<Surprise, GenerateError> {
    let Some((_, scored)) = tokens.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return Err(GenerateError::Sequence("a text to measure has at least two tokens".into()));
    };
    // The last is foretold and never read, so it is in no feed that would say so.
    let vocabulary = batch.options().vocabulary;
    let stray = tokens.iter().enumerate().find(|(_, token)| u64::from(**token) >= vocabulary);
    if let Some((at, token)) = stray {
        return Err(GenerateError::Token { token: *token, at, vocabulary });
    }
    let sequence = batch.join()?;
    let nats = sum(batch, sequence, tokens, progress);
    batch.leave(sequence)?;
    Ok(Surprise { tokens: scored.len() as u64, nats: nats? })
}

fn sum<S: Session>(
    batch: &mut Batch<'_, S>,
    sequence: SequenceId,
    tokens: &[u32],
    progress: &mut dyn FnMut(usize),
) -> Result<f64, GenerateError> {
    let piece = *batch.options().step_tokens.last().expect("there is a size") as usize;
    let mut nats = 0.0;
    let mut done = 0;
    while done < tokens.len() - 1 {
        let end = (tokens.len() - 1).min(done + piece);
        let (mut logits, _) = batch.run(&[Feed { sequence, tokens: &tokens[done..end] }], Rows::All)?;
        for (at, row) in (done + 1..).zip(logits.remove(0)) {
            if row.iter().any(|logit| logit.is_nan()) {
                return Err(GenerateError::NotANumber { at });
            }
            nats -= LogProbabilities::new(&row)?.of(tokens[at]);
        }
        done = end;
        progress(done);
    }
    Ok(nats)
}
