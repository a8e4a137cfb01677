//! A text that goes on without the host: steps draw, and the next ones are submitted before a token is known.
//!
//! Gets a sequence and the first draw after all that it has read; returns what the [`Continuation`] says of each token
//! in turn. What then holds: the tokens are those that steps one after the other would draw, since what a step draws
//! depends on nothing that comes later. Never draws on the host.
//!
//! How far steps run ahead is what the state allows. A step cannot be taken back, and what ends a text (a token or a
//! text to stop at, or whoever reads it) is seen only when its token is on the host; by then, the sequence has read
//! tokens behind the end. Those are dropped, and most often nobody asks for the state: the sequence leaves, or is put
//! back into a state saved before. Where the state is asked for, no step is submitted before the token that it reads is
//! known to belong to the text; the token itself is carried all the same. A copy of the state at every token would cost
//! each step more than it saves.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use crate::exec::{STEPS_IN_FLIGHT, Session};
use crate::generate::GenerateError;
use crate::generate::batch::{Batch, DrawFeed, Flight, Next, SequenceId};
use crate::generate::continuation::{Continuation, Drawn};

/// Goes on from `first`, what the first draw has brought, until the continuation ends, or `take`, which gets all that
/// is drawn, breaks it off. Returns the number of steps run. With `all_read`, the sequence has read every token of the
/// text when this returns, and nothing else; otherwise its state means nothing.
///
/// # Errors
/// What `take` returns; and as [`Batch::submit_drawing`] and [`Batch::drawn`].
///
/// # Panics
/// If the text's rules ask for what steps cannot draw: see [`Continuation::draw_ahead`].
pub fn go_on<S: Session, E: From<GenerateError>>(
    batch: &mut Batch<'_, S>,
    sequence: SequenceId,
    continuation: &mut Continuation<'_>,
    first: Drawn,
    all_read: bool,
    take: &mut dyn FnMut(Drawn) -> Result<ControlFlow<()>, E>,
) -> Result<usize, E> {
    let mut ahead = Ahead { sequence, known: first.token, flights: VecDeque::new(), steps: 0 };
    let mut drawn = first;
    loop {
        let (own, is_over) = (drawn.token, continuation.finish().is_some());
        if !is_over && !all_read {
            ahead.submit(batch, continuation, STEPS_IN_FLIGHT)?;
        }
        if take(drawn)?.is_break() || is_over {
            if let Some(token) = own.filter(|_| all_read) {
                let draw = continuation.draw_ahead(0).expect("it has drawn before");
                batch.submit_drawing(&[DrawFeed { sequence, next: Next::Tokens(&[token]), draw }])?;
                ahead.steps += 1;
            }
            return Ok(ahead.steps);
        }
        ahead.submit(batch, continuation, 1)?;
        let flight = ahead.flights.pop_front().expect("a step was submitted");
        drawn = continuation.accept(batch.drawn(flight)?[0]);
    }
}

/// The steps on their way, each of which reads what the one before has drawn.
struct Ahead {
    sequence: SequenceId,
    /// The first one's token, which no step has left for the next.
    known: Option<u32>,
    flights: VecDeque<Flight>,
    /// How many were submitted.
    steps: usize,
}

impl Ahead {
    /// Submits steps until so many are on their way, or as many as the text may have tokens.
    fn submit<S: Session>(
        &mut self,
        batch: &mut Batch<'_, S>,
        continuation: &Continuation<'_>,
        depth: usize,
    ) -> Result<(), GenerateError> {
        while self.flights.len() < depth.min(continuation.left() as usize) {
            let draw = continuation.draw_ahead(self.flights.len() as u32).expect("rules that steps can draw by");
            let known = self.known.take();
            let next = known.as_ref().map_or(Next::Carried, |token| Next::Tokens(std::slice::from_ref(token)));
            self.flights.push_back(batch.submit_drawing(&[DrawFeed { sequence: self.sequence, next, draw }])?);
            self.steps += 1;
        }
        Ok(())
    }
}
