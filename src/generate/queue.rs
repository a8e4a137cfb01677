//! Many prompts over the rows of one batch: as one is done, the next takes its place.
//!
//! Gets prompts, returns what each goes on with, as soon as it is done. Every step takes a token of each sequence that
//! decodes and fills what is left of it with prompts, so that a long prompt holds nobody up. What a prompt goes on with
//! depends on nothing but itself and its seed, as long as the kernels sum in an order that does not depend on company.
//! Never runs more sequences than the batch has rows.

use std::ops::ControlFlow;

use crate::exec::Session;
use crate::generate::batch::{Batch, Feed, SequenceId, SequenceState};
use crate::generate::sample::Sampler;
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

/// How all of them are continued.
#[derive(Clone, Debug)]
pub struct Settings<'s> {
    /// As in [`Sampler::new`].
    pub temperature: f32,
    /// As in [`Sampler::new`].
    pub top_p: f32,
    /// The token that ends a text; it is not part of it.
    pub stop: Option<u32>,
    /// The state in which every prompt begins, instead of the initial one.
    pub begin: Option<&'s SequenceState>,
}

/// A sequence of the batch.
struct Active {
    prompt: usize,
    sequence: SequenceId,
    /// Tokens that are still to be read.
    pending: Vec<u32>,
    sampler: Sampler,
    generated: Vec<u32>,
}

/// Continues all prompts, until `done` breaks it off. `done` is called with a prompt's index and what was generated, in
/// the order in which they are done.
///
/// # Errors
/// As [`Batch::run`] and [`Batch::join`].
pub fn run<S: Session>(
    batch: &mut Batch<'_, S>,
    prompts: &[Prompt],
    settings: &Settings<'_>,
    done: &mut dyn FnMut(usize, Vec<u32>) -> ControlFlow<()>,
) -> Result<(), GenerateError> {
    let mut waiting = prompts.iter().enumerate();
    let mut active: Vec<Active> = Vec::new();
    loop {
        while batch.len() < batch.options().capacity as usize
            && let Some((nth, prompt)) = waiting.next()
        {
            if prompt.count > 0 {
                active.push(begin(batch, nth, prompt, settings)?);
            } else if done(nth, Vec::new()).is_break() {
                return Ok(());
            }
        }
        if active.is_empty() {
            return Ok(());
        }
        let left: Vec<usize> = active.iter().map(|active| active.pending.len()).collect();
        let step = batch.next_step(&left, Rows::Last)?;
        let feed = |(at, count): &(usize, usize)| {
            let active: &Active = &active[*at];
            Feed { sequence: active.sequence, tokens: &active.pending[..*count] }
        };
        let feeds: Vec<Feed<'_>> = step.iter().map(feed).collect();
        let (logits, _) = batch.run(&feeds, Rows::Last)?;
        let mut ended = Vec::new();
        for ((at, count), rows) in step.iter().zip(&logits) {
            let active = &mut active[*at];
            active.pending.drain(..count);
            if active.pending.is_empty() && active.draw(&rows[0], &prompts[active.prompt], settings) {
                ended.push(*at);
            }
        }
        // From the last on, so that the places of those before stay.
        for at in ended.into_iter().rev() {
            let ended = active.remove(at);
            batch.leave(ended.sequence)?;
            if done(ended.prompt, ended.generated).is_break() {
                return Ok(());
            }
        }
    }
}

fn begin<S: Session>(
    batch: &mut Batch<'_, S>,
    nth: usize,
    prompt: &Prompt,
    settings: &Settings<'_>,
) -> Result<Active, GenerateError> {
    let sequence = batch.join()?;
    if let Some(state) = settings.begin {
        batch.load(sequence, state)?;
    }
    Ok(Active {
        prompt: nth,
        sequence,
        pending: prompt.tokens.clone(),
        sampler: Sampler::new(settings.temperature, settings.top_p, prompt.seed),
        generated: Vec::new(),
    })
}

impl Active {
    /// Draws the next token. Returns whether that was the last.
    fn draw(&mut self, logits: &[f32], prompt: &Prompt, settings: &Settings<'_>) -> bool {
        let token = self.sampler.pick(logits);
        if Some(token) == settings.stop {
            return true;
        }
        self.generated.push(token);
        self.pending.push(token);
        self.generated.len() == prompt.count as usize
    }
}
