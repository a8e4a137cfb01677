//! Steps that draw: the tokens that come next are chosen on the device, where the next step finds them.
//!
//! Gets what each sequence reads, perhaps what it drew last without the host's knowing it, and how it draws; returns
//! what is on its way, and later the tokens. What holds then: steps can be submitted one after the other, and the host
//! reads a few numbers of each, some steps later. A sequence's state is that after all it has read, as in other steps.
//! Never looks at logits.

use crate::base::dtype::DType;
use crate::base::role::{CARRIED, OutputRole};
use crate::exec::{Session, Ticket};
use crate::generate::batch::{Batch, Feed, SequenceId};
use crate::generate::sample::Sampling;
use crate::generate::{GenerateError, Rows};

/// One draw of a text: how, and which.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    words: [u32; 7],
}

impl Draw {
    /// The draw of this number of a text with this seed; nothing if a step cannot draw like this: it does not know
    /// biases, penalties or `typical`. Equal seeds and numbers draw alike from equal logits, though not what a
    /// [`Sampler`](crate::generate::sample::Sampler) draws.
    pub fn new(sampling: &Sampling, seed: u64, number: u32) -> Option<Self> {
        let Sampling { temperature, top_k, typical, top_p, min_p, presence, frequency, decay: _, bias } = sampling;
        let is_plain = *typical == 1.0 && *presence == 0.0 && *frequency == 0.0 && bias.is_empty();
        let seeds = [seed as u32, (seed >> 32) as u32];
        let words = [temperature.to_bits(), *top_k, top_p.to_bits(), min_p.to_bits(), seeds[0], seeds[1], number];
        is_plain.then_some(Self { words })
    }

    /// As [`InputRole::DrawRules`](crate::base::role::InputRole::DrawRules) has it.
    pub const fn words(&self) -> [u32; 7] {
        self.words
    }
}

/// What a sequence reads.
#[derive(Clone, Copy, Debug)]
pub enum Next<'t> {
    /// Tokens that the host knows.
    Tokens(&'t [u32]),
    /// The token that its last step drew.
    Carried,
}

/// What a sequence reads, and how it then draws.
#[derive(Clone, Copy, Debug)]
pub struct DrawFeed<'t> {
    /// Which sequence.
    pub sequence: SequenceId,
    /// What it reads.
    pub next: Next<'t>,
    /// How it draws what follows.
    pub draw: Draw,
}

/// A step on its way that draws.
#[derive(Debug)]
pub struct Flight {
    ticket: Ticket,
    /// Sequences of the step.
    count: usize,
}

impl<S: Session> Batch<'_, S> {
    /// Whether it has steps that draw.
    pub const fn draws(&self) -> bool {
        self.source.draws()
    }

    /// Submits one step in which every sequence reads what it is fed and draws a token, without waiting for it. As many
    /// as [`STEPS_IN_FLIGHT`](crate::exec::STEPS_IN_FLIGHT) may be on their way; the tokens of older ones are lost.
    ///
    /// # Errors
    /// If it is too much for a step, a feed is empty, its sequence has left or appears twice, or a token is out of
    /// range: then nothing was run. If a plan cannot be made or the device fails.
    ///
    /// # Panics
    /// If the batch has no steps that draw.
    pub fn submit_drawing(&mut self, feeds: &[DrawFeed<'_>]) -> Result<Flight, GenerateError> {
        assert!(self.draws(), "the batch was opened for steps that draw");
        let known: Vec<Feed<'_>> = feeds.iter().filter_map(|feed| feed.feed(true)).collect();
        self.parts(&known)?;
        let all: Vec<Feed<'_>> = feeds.iter().filter_map(|feed| feed.feed(false)).collect();
        let parts = self.places(&all)?;
        let left: Vec<usize> = parts.iter().map(|(_, tokens)| tokens.len()).collect();
        let (step, shape) = self.source.next(&self.options, &left, Rows::Last)?;
        if step.len() != left.len() || step.iter().zip(&left).any(|((_, count), left)| count != left) {
            let total: usize = left.iter().sum();
            return Err(GenerateError::Sequence(format!("{total} tokens do not fit a step that draws")));
        }
        let rules = feeds.iter().flat_map(|feed| feed.draw.words).collect();
        let ticket = self.submit(&parts, &left, &step, (shape, Rows::Last), Some(rules))?;
        Ok(Flight { ticket, count: feeds.len() })
    }

    /// Waits for a step that draws. Returns the token of each of its feeds, in their order.
    ///
    /// # Errors
    /// If the device fails, or there was nothing to draw from.
    pub fn drawn(&mut self, flight: Flight) -> Result<Vec<u32>, GenerateError> {
        let outputs = self.session.outputs(flight.ticket)?;
        let tokens = outputs.role(OutputRole::NextToken).filter(|tokens| tokens.dtype == DType::U32);
        let tokens = tokens.ok_or(GenerateError::NoLogits)?;
        let words = tokens.bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        let drawn: Vec<u32> = words.take(flight.count).collect();
        if drawn.contains(&CARRIED) { Err(GenerateError::NothingDrawn) } else { Ok(drawn) }
    }

    /// Prepares the plans that steps of one sequence take which draw, for these many tokens in turn and for one.
    ///
    /// # Errors
    /// If a plan cannot be compiled or prepared.
    pub fn prepare_drawing(&mut self, mut tokens: usize) -> Result<(), GenerateError> {
        let mut shapes = vec![self.source.next(&self.options, &[1], Rows::Last)?.1];
        while tokens > 0 {
            let (step, shape) = self.source.next(&self.options, &[tokens], Rows::Last)?;
            step.iter().for_each(|(_, count)| tokens -= count);
            shapes.push(shape);
        }
        shapes.sort_unstable();
        shapes.dedup();
        // The largest first, so that no memory has to grow.
        shapes.into_iter().rev().try_for_each(|shape| self.plan(shape, true).map(drop))
    }

    /// Reads tokens, in as many steps as it takes, and draws what follows on them.
    ///
    /// # Errors
    /// As [`submit_drawing`](Self::submit_drawing).
    pub fn read_drawing(&mut self, sequence: SequenceId, tokens: &[u32], draw: Draw) -> Result<Flight, GenerateError> {
        let mut done = 0;
        loop {
            let (step, _) = self.source.next(&self.options, &[tokens.len() - done], Rows::Last)?;
            let count: usize = step.iter().map(|(_, count)| count).sum();
            let next = Next::Tokens(&tokens[done..done + count]);
            let flight = self.submit_drawing(&[DrawFeed { sequence, next, draw }])?;
            done += count;
            if done == tokens.len() {
                return Ok(flight);
            }
        }
    }
}

impl<'t> DrawFeed<'t> {
    /// The tokens as a step has them; with `known`, only those that the host knows.
    fn feed(&self, known: bool) -> Option<Feed<'t>> {
        let tokens: &[u32] = match self.next {
            Next::Tokens(tokens) => tokens,
            Next::Carried if known => return None,
            Next::Carried => &[CARRIED],
        };
        Some(Feed { sequence: self.sequence, tokens })
    }
}
