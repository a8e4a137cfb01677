//! Whether what is measured computes what the graph says.
//!
//! Gets a batch of the graph as it is written, keeps what it computes (`expected`); gets the batch that is measured,
//! says how far it is from that (`compare`), and how far the graph as it is written is from itself in another order
//! (`reordered`). What holds then: both have read the same tokens, in the plans that
//! rounds run: the prompt, steps of one token of each sequence, and steps that draw. Never needs both batches at once,
//! so that a model which fills the memory can be compared.

use serde::Serialize;

use crate::exec::Session;
use crate::generate::batch::{Batch, Draw, DrawFeed, Feed, Logits, Next, SequenceId};
use crate::generate::sample::{Sampling, argmax};
use crate::generate::{GenerateError, Rows};

/// How far logits may be from those of `--fuse off`, relative to the largest: sums of fused kernels go another way,
/// tensor cores cut sums, and products of halves leave out what is below both halves of a float; all of that was at
/// most 4e-5 on an H100, where products that lost the lower halves were at 7e-4 and more. A model that multiplies
/// rounding from layer to layer may be beyond it; the median of rows then says more, and what another order of
/// summation does.
pub const TOLERANCE: f64 = 2e-4;

/// Steps of one token of each sequence.
const STEPS: usize = 8;

/// Fewer steps where the logits of all would be more than this, but one.
const LOGITS_BYTES: u64 = 256 << 20;

/// How far results are from those of the graph as it is written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Results {
    /// The largest difference of a logit; nothing if one is no number.
    pub fuse_off_difference: Option<f64>,
    /// By rows, the largest difference of a logit: the median of rows; nothing if one is no number.
    pub median_difference: Option<f64>,
    /// The largest logit of the graph as it is written, without its sign; nothing if one is no number.
    pub largest_logit: Option<f64>,
    /// How far logits may be apart, relative to the largest.
    pub tolerance: f64,
    /// Rows of logits that were compared: the prompt's last, and one for each sequence and step.
    pub rows: u64,
    /// Those of them whose largest logit is that of the same token.
    pub greedy_tokens_equal: u64,
    /// Tokens that steps drew, each after the same ones; nothing if there are no such steps.
    pub drawn_tokens: Option<u64>,
    /// Those of them that are the best by the logits of the graph as it is written.
    pub drawn_tokens_equal: Option<u64>,
    /// Whether no logit is further off than may be, and no drawn token's logit further below the best.
    pub are_right: bool,
    /// Where results are not right: the largest difference of a logit of the graph as it is written from itself, summed
    /// in another order (`--batch-invariant`). That is what rounding alone does to the model. Nothing elsewhere, if
    /// one is no number, or if it was summed in that order before.
    pub reordered_difference: Option<f64>,
}

/// What the graph as it is written computes.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// After the prompt.
    prompt: Vec<f32>,
    /// What each sequence read in each step, and the logits.
    steps: Vec<(Vec<u32>, Logits)>,
}

/// Runs the prompt, and then decodes greedily, each sequence from a token of its own.
pub(super) fn expected<S: Session>(
    batch: &mut Batch<'_, S>,
    sequences: u32,
    prompt: &[u32],
) -> Result<Expected, GenerateError> {
    let vocabulary = batch.options().vocabulary;
    let joined = (0..sequences).map(|_| batch.join()).collect::<Result<Vec<_>, _>>()?;
    let prompt = run_prompt(batch, &joined, prompt)?;
    let mut tokens: Vec<u32> = (0..u64::from(sequences)).map(|sequence| (sequence % vocabulary) as u32).collect();
    let mut steps = Vec::new();
    for _ in 0..steps_of(sequences, vocabulary) {
        let logits = run_step(batch, &joined, &tokens)?;
        let best = logits.iter().map(|rows| argmax(&rows[0])).collect();
        steps.push((std::mem::replace(&mut tokens, best), logits));
    }
    Ok(Expected { prompt, steps })
}

/// How many steps are compared.
fn steps_of(sequences: u32, vocabulary: u64) -> usize {
    let step_bytes = u64::from(sequences) * vocabulary * 4;
    (LOGITS_BYTES / step_bytes.max(1)).clamp(1, STEPS as u64) as usize
}

/// Runs the same with what is measured.
pub(super) fn compare<S: Session>(
    batch: &mut Batch<'_, S>,
    joined: &[SequenceId],
    prompt: &[u32],
    expected: &Expected,
) -> Result<Results, GenerateError> {
    let apart = rows_apart(batch, joined, prompt, expected)?;
    let limit = apart.largest * TOLERANCE;
    // There is nothing to draw from what is no number.
    let drawn = match batch.draws() && apart.difference.is_finite() {
        true => Some(drawn(batch, joined, expected, limit)?),
        false => None,
    };
    let are_drawn_right = drawn.as_ref().is_none_or(|drawn| drawn.are_right);
    Ok(Results {
        fuse_off_difference: is_number(apart.difference),
        median_difference: is_number(apart.median()),
        largest_logit: is_number(apart.largest),
        tolerance: TOLERANCE,
        rows: apart.rows.len() as u64,
        greedy_tokens_equal: apart.equal,
        drawn_tokens: drawn.as_ref().map(|drawn| drawn.count),
        drawn_tokens_equal: drawn.as_ref().map(|drawn| drawn.equal),
        // What is no number is within nothing.
        are_right: apart.difference.is_finite() && apart.difference <= limit && are_drawn_right,
        reordered_difference: None,
    })
}

/// How far another order of summation is from what was expected, in a batch whose sequences none has joined.
pub(super) fn reordered<S: Session>(
    batch: &mut Batch<'_, S>,
    sequences: u32,
    prompt: &[u32],
    expected: &Expected,
) -> Result<Option<f64>, GenerateError> {
    let joined = (0..sequences).map(|_| batch.join()).collect::<Result<Vec<_>, _>>()?;
    Ok(is_number(rows_apart(batch, &joined, prompt, expected)?.difference).filter(|difference| *difference > 0.0))
}

fn is_number(value: f64) -> Option<f64> {
    Some(value).filter(|value| value.is_finite())
}

/// Runs the prompt and the steps, and compares all rows.
fn rows_apart<S: Session>(
    batch: &mut Batch<'_, S>,
    joined: &[SequenceId],
    prompt: &[u32],
    expected: &Expected,
) -> Result<Apart, GenerateError> {
    let mut apart = Apart::default();
    apart.row(&expected.prompt, &run_prompt(batch, joined, prompt)?);
    for (tokens, logits) in &expected.steps {
        let found = run_step(batch, joined, tokens)?;
        logits.iter().zip(&found).for_each(|(expected, found)| apart.row(&expected[0], &found[0]));
    }
    Ok(apart)
}

/// The logits after the prompt. All sequences are then before their first token.
fn run_prompt<S: Session>(
    batch: &mut Batch<'_, S>,
    joined: &[SequenceId],
    prompt: &[u32],
) -> Result<Vec<f32>, GenerateError> {
    batch.reset(joined[0])?;
    let (mut logits, _) = batch.run(&[Feed { sequence: joined[0], tokens: prompt }], Rows::Last)?;
    joined.iter().try_for_each(|sequence| batch.reset(*sequence))?;
    Ok(logits.swap_remove(0).swap_remove(0))
}

/// The logits after a token of each sequence.
fn run_step<S: Session>(
    batch: &mut Batch<'_, S>,
    joined: &[SequenceId],
    tokens: &[u32],
) -> Result<Logits, GenerateError> {
    let feed = |(sequence, token): (&SequenceId, _)| Feed { sequence: *sequence, tokens: std::slice::from_ref(token) };
    let feeds: Vec<Feed<'_>> = joined.iter().zip(tokens).map(feed).collect();
    Ok(batch.run(&feeds, Rows::Last)?.0)
}

/// How far rows are apart, so far.
#[derive(Debug, Default)]
struct Apart {
    /// Infinity once something is no number.
    difference: f64,
    largest: f64,
    /// Of each row.
    rows: Vec<f64>,
    equal: u64,
}

impl Apart {
    fn row(&mut self, expected: &[f32], found: &[f32]) {
        assert_eq!(expected.len(), found.len(), "rows are as wide as the vocabulary");
        let mut row = 0.0_f64;
        for (expected, found) in expected.iter().copied().map(f64::from).zip(found.iter().copied().map(f64::from)) {
            let difference = (expected - found).abs();
            row = row.max(if difference.is_nan() { f64::INFINITY } else { difference });
            self.largest = self.largest.max(expected.abs());
        }
        self.difference = self.difference.max(row);
        self.rows.push(row);
        self.equal += u64::from(argmax(expected) == argmax(found));
    }

    /// How far a row is apart than which half of them are no further.
    fn median(&self) -> f64 {
        let mut rows = self.rows.clone();
        rows.sort_unstable_by(f64::total_cmp);
        rows.get(rows.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
    }
}

/// What steps drew.
#[derive(Debug)]
struct Drawn {
    count: u64,
    equal: u64,
    are_right: bool,
}

/// Has steps draw the best token, each sequence for as long as it goes the way of the graph as it is written.
fn drawn<S: Session>(
    batch: &mut Batch<'_, S>,
    joined: &[SequenceId],
    expected: &Expected,
    limit: f64,
) -> Result<Drawn, GenerateError> {
    joined.iter().try_for_each(|sequence| batch.reset(*sequence))?;
    let draw = Draw::new(&Sampling::GREEDY, 0, 0).expect("steps can take the best");
    let mut goes_on = vec![true; joined.len()];
    let mut drawn = Drawn { count: 0, equal: 0, are_right: true };
    for (nth, (tokens, logits)) in expected.steps.iter().enumerate() {
        let next = |at: usize| if nth == 0 { Next::Tokens(&tokens[at..=at]) } else { Next::Carried };
        let feed = |(at, sequence): (usize, &SequenceId)| DrawFeed { sequence: *sequence, next: next(at), draw };
        let feeds: Vec<DrawFeed<'_>> = joined.iter().enumerate().map(feed).collect();
        let flight = batch.submit_drawing(&feeds)?;
        let found = batch.drawn(flight)?;
        for (at, token) in found.into_iter().enumerate() {
            if !goes_on[at] {
                continue;
            }
            let row = &logits[at][0];
            let best = argmax(row);
            drawn.count += 1;
            drawn.equal += u64::from(token == best);
            // Of two that are as good, either may be taken; but what follows is then another text.
            let logit = |token: u32| row.get(token as usize).copied().map_or(f64::NAN, f64::from);
            drawn.are_right &= logit(best) - logit(token) <= 2.0 * limit;
            goes_on[at] = token == best;
        }
    }
    Ok(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_apart_are_told_by_their_largest_difference() {
        let mut apart = Apart::default();
        apart.row(&[1.0, -4.0, 3.0], &[1.0, -4.5, 3.25]);
        apart.row(&[0.5, 0.25, 0.0], &[0.25, 0.5, 0.0]);
        assert_eq!((apart.difference, apart.largest, apart.equal), (0.5, 4.0, 1));
        assert_eq!((apart.rows.as_slice(), apart.median()), (&[0.5, 0.25][..], 0.25));
    }

    #[test]
    fn what_is_no_number_is_apart_from_everything() {
        for (expected, found) in [(f32::NAN, 1.0), (1.0, f32::NAN), (f32::INFINITY, f32::INFINITY)] {
            let mut apart = Apart::default();
            apart.row(&[expected, 0.0], &[found, 0.0]);
            apart.row(&[1.0, 0.0], &[1.0, 0.0]);
            assert_eq!(apart.difference, f64::INFINITY, "{expected} and {found}");
        }
    }

    #[test]
    fn steps_are_as_many_as_their_logits_have_room_for() {
        assert_eq!(steps_of(1, 65536), 8);
        assert_eq!(steps_of(256, 65536), 4);
        assert_eq!(steps_of(4096, 65536), 1);
        assert_eq!(steps_of(4096, 1 << 40), 1);
    }
}
