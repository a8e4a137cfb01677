//! Many prompts over the rows of one batch: as one is done, the next takes its place.
//!
//! Gets prompts, returns what each goes on with, as soon as it is done. Every step takes a token of each sequence that
//! decodes and fills what is left of it with prompts, so that a long prompt holds nobody up. What a prompt goes on with
//! depends on nothing but itself and its seed, as long as the kernels sum in an order that does not depend on company.
//! Never runs more sequences than the batch has rows.

use std::ops::ControlFlow;

use crate::exec::Session;
use crate::generate::batch::{Batch, Feed, SequenceId, SequenceState};
use crate::generate::continuation::{Continuation, Continued, Rules};
use crate::generate::{GenerateError, Rows};

/// What is to be continued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Its tokens, at least one.
    pub tokens: Vec<u32>,
    /// How many tokens to generate at most.
    pub count: u32,
    /// Seed of its draws.
    pub seed: u64,
}

/// A sequence of the batch.
struct Active<'r> {
    prompt: usize,
    sequence: SequenceId,
    /// Tokens that are still to be read.
    pending: Vec<u32>,
    continuation: Continuation<'r>,
}

/// Continues all prompts by the same rules, each with draws, penalties and an end of its own, until `done` breaks it
/// off. They start in the state `begin`, or in the initial one. `done` is called with a prompt's index and what it went
/// on with, in the order in which they are done.
///
/// # Errors
/// As [`Batch::run`] and [`Batch::join`].
pub fn run<S: Session>(
    batch: &mut Batch<'_, S>,
    prompts: &[Prompt],
    rules: &Rules<'_>,
    begin: Option<&SequenceState>,
    done: &mut dyn FnMut(usize, Continued) -> ControlFlow<()>,
) -> Result<(), GenerateError> {
    let mut waiting = prompts.iter().enumerate();
    let mut active: Vec<Active<'_>> = Vec::new();
    loop {
        while batch.len() < batch.options().capacity as usize
            && let Some((nth, prompt)) = waiting.next()
        {
            let continuation = Continuation::new(rules, prompt.count, prompt.seed);
            if continuation.finish().is_none() {
                let sequence = batch.join()?;
                begin.map_or(Ok(()), |state| batch.load(sequence, state))?;
                active.push(Active { prompt: nth, sequence, pending: prompt.tokens.clone(), continuation });
            } else if done(nth, continuation.into_continued()).is_break() {
                return Ok(());
            }
        }
        if active.is_empty() {
            return Ok(());
        }
        let left: Vec<usize> = active.iter().map(|active| active.pending.len()).collect();
        let step = batch.next_step(&left, Rows::Last)?;
        let feed = |(at, count): &(usize, usize)| {
            let active: &Active<'_> = &active[*at];
            Feed { sequence: active.sequence, tokens: &active.pending[..*count] }
        };
        let feeds: Vec<Feed<'_>> = step.iter().map(feed).collect();
        let (logits, _) = batch.run(&feeds, Rows::Last)?;
        let mut ended = Vec::new();
        for ((at, count), rows) in step.iter().zip(&logits) {
            let Active { pending, continuation, .. } = &mut active[*at];
            pending.drain(..count);
            if pending.is_empty() {
                pending.extend(continuation.draw(&rows[0])?.token);
                ended.extend(continuation.finish().is_some().then_some(*at));
            }
        }
        // From the last on, so that the places of those before stay.
        for at in ended.into_iter().rev() {
            let ended = active.remove(at);
            batch.leave(ended.sequence)?;
            if done(ended.prompt, ended.continuation.into_continued()).is_break() {
                return Ok(());
            }
        }
    }
}
