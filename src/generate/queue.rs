//! Many prompts over the rows of one batch: as one is done, the next takes its place.
//!
//! Gets prompts, returns what each goes on with, as soon as it is done. Every step takes a token of each sequence that
//! decodes and fills what is left of it with prompts, so that a long prompt holds nobody up. What a prompt goes on with
//! depends on nothing but itself and its seed, as long as the kernels sum in an order that does not depend on company.
//! Steps draw the tokens themselves where the batch has such and the rules allow it; then one is submitted before the
//! tokens of the one before are known, and what it draws for a sequence that has ended meanwhile is dropped. Never runs
//! more sequences than the batch has rows.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use crate::exec::{STEPS_IN_FLIGHT, Session};
use crate::generate::batch::{Batch, DrawFeed, Feed, Flight, Next, SequenceId, SequenceState};
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
    /// Draws on their way, where steps draw.
    flying: u32,
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
    let mut waiting = Waiting { prompts, next: 0, rules, begin };
    let mut active: Vec<Active<'_>> = Vec::new();
    if batch.draws() && Continuation::new(rules, 1, 0).draw_ahead(0).is_some() {
        return run_drawing(batch, waiting, done);
    }
    loop {
        if waiting.fill(batch, &mut active, done)?.is_break() || active.is_empty() {
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
        if leave(batch, &mut active, ended, done)?.is_break() {
            return Ok(());
        }
    }
}

/// What is called with a prompt's index and what it went on with.
type Done<'d> = &'d mut dyn FnMut(usize, Continued) -> ControlFlow<()>;

/// Prompts that have no row yet.
struct Waiting<'r> {
    prompts: &'r [Prompt],
    next: usize,
    rules: &'r Rules<'r>,
    begin: Option<&'r SequenceState>,
}

impl<'r> Waiting<'r> {
    /// Gives free rows to prompts, as long as there are both.
    fn fill<S: Session>(
        &mut self,
        batch: &mut Batch<'_, S>,
        active: &mut Vec<Active<'r>>,
        done: Done<'_>,
    ) -> Result<ControlFlow<()>, GenerateError> {
        while batch.len() < batch.options().capacity as usize
            && let Some(prompt) = self.prompts.get(self.next)
        {
            let nth = self.next;
            self.next += 1;
            let continuation = Continuation::new(self.rules, prompt.count, prompt.seed);
            if continuation.finish().is_none() {
                let sequence = batch.join()?;
                self.begin.map_or(Ok(()), |state| batch.load(sequence, state))?;
                active.push(Active { prompt: nth, sequence, pending: prompt.tokens.clone(), flying: 0, continuation });
            } else if done(nth, continuation.into_continued()).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Takes sequences that have ended, at these places in ascending order, out of the batch.
fn leave<S: Session>(
    batch: &mut Batch<'_, S>,
    active: &mut Vec<Active<'_>>,
    ended: Vec<usize>,
    done: Done<'_>,
) -> Result<ControlFlow<()>, GenerateError> {
    // From the last on, so that the places of those before stay.
    for at in ended.into_iter().rev() {
        let ended = active.remove(at);
        batch.leave(ended.sequence)?;
        if done(ended.prompt, ended.continuation.into_continued()).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// A step on its way: whose each of its tokens is; nobody's where a prompt has more to read.
type Flying = (Flight, Vec<Option<SequenceId>>);

/// As [`run`], with steps that draw.
fn run_drawing<'r, S: Session>(
    batch: &mut Batch<'_, S>,
    mut waiting: Waiting<'r>,
    done: Done<'_>,
) -> Result<(), GenerateError> {
    let mut active: Vec<Active<'r>> = Vec::new();
    let mut flying: VecDeque<Flying> = VecDeque::new();
    loop {
        if waiting.fill(batch, &mut active, done)?.is_break() {
            return Ok(());
        }
        while flying.len() < STEPS_IN_FLIGHT
            && let Some(next) = submit(batch, &mut active)?
        {
            flying.push_back(next);
        }
        let Some((flight, owners)) = flying.pop_front() else { return Ok(()) };
        let mut ended = Vec::new();
        for (token, owner) in batch.drawn(flight)?.into_iter().zip(owners) {
            // One that has ended has left.
            let Some(at) = owner.and_then(|owner| active.iter().position(|active| active.sequence == owner)) else {
                continue;
            };
            let Active { flying, continuation, .. } = &mut active[at];
            *flying -= 1;
            continuation.accept(token);
            ended.extend(continuation.finish().is_some().then_some(at));
        }
        ended.sort_unstable();
        if leave(batch, &mut active, ended, done)?.is_break() {
            return Ok(());
        }
    }
}

/// Submits a step of all that have something to read, if any has.
fn submit<S: Session>(batch: &mut Batch<'_, S>, active: &mut [Active<'_>]) -> Result<Option<Flying>, GenerateError> {
    // Those that have read their prompt read what they drew, as long as they may draw more.
    let left = |active: &Active<'_>| match active.pending.len() {
        0 => usize::from(active.flying < active.continuation.left()),
        left => left,
    };
    let left: Vec<usize> = active.iter().map(left).collect();
    if left.iter().all(|left| *left == 0) {
        return Ok(None);
    }
    let step = batch.next_step(&left, Rows::Last)?;
    let feed = |(at, count): &(usize, usize)| {
        let Active { sequence, pending, flying, continuation, .. } = &active[*at];
        let next = if pending.is_empty() { Next::Carried } else { Next::Tokens(&pending[..*count]) };
        let draw = continuation.draw_ahead(*flying).expect("rules that steps can draw by");
        DrawFeed { sequence: *sequence, next, draw }
    };
    let feeds: Vec<DrawFeed<'_>> = step.iter().map(feed).collect();
    let flight = batch.submit_drawing(&feeds)?;
    let owner = |(at, count): &(usize, usize)| {
        let Active { sequence, pending, flying, .. } = &mut active[*at];
        pending.drain(..(*count).min(pending.len()));
        let draws = pending.is_empty();
        *flying += u32::from(draws);
        draws.then_some(*sequence)
    };
    Ok(Some((flight, step.iter().map(owner).collect())))
}
