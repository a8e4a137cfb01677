//! Draws a token from a row of logits.
//!
//! Gets logits, returns a token, in this order: biases are added, tokens drawn before are made less likely, `top_k`,
//! `typical`, `top_p` and `min_p` each leave out some of what the one before has left, the temperature sharpens or
//! flattens what remains, and one is drawn; temperature 0 takes the best right after the penalties. What then holds:
//! the same logits and seed draw the same tokens on every machine, since the arithmetic is f64 of basic operations
//! alone, in the order of tokens. A logit that is not a number, or minus infinity, is never drawn.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::generate::GenerateError;

/// How tokens are drawn. Each filter works on what the one before has left, and on its probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the best; below 1, likely tokens become likelier, above, less so. Finite.
    pub temperature: f32,
    /// Only this many of the likeliest, the lower tokens of equals; 0 for all.
    pub top_k: u32,
    /// Only those whose surprise, -ln p, is nearest to the mean surprise, until they have this much of the probability
    /// (Meister et al. 2023, "Locally Typical Sampling"); 1 for all, 0 for the one nearest.
    pub typical: f32,
    /// Only the likeliest, until they have this much of the probability; 1 for all, 0 for the likeliest alone.
    pub top_p: f32,
    /// Only those with at least this share of the likeliest one's probability; 0 for all, 1 for its equals.
    pub min_p: f32,
    /// Taken off the logit of every token drawn before.
    pub presence: f32,
    /// Taken off it for each time it was drawn, with the weight that `decay` leaves of it.
    pub frequency: f32,
    /// What each further token leaves of the times counted before, 0 to 1.
    pub decay: f32,
    /// Added to the logits of tokens, again for each entry; minus infinity rules a token out.
    pub bias: Vec<(u32, f32)>,
}

impl Sampling {
    /// By the model's own probabilities: nothing is left out or changed.
    pub const PLAIN: Self = Self::at(1.0);

    /// The best token.
    pub const GREEDY: Self = Self::at(0.0);

    /// At a temperature, and nothing else.
    pub const fn at(temperature: f32) -> Self {
        Self {
            temperature,
            top_k: 0,
            typical: 1.0,
            top_p: 1.0,
            min_p: 0.0,
            presence: 0.0,
            frequency: 0.0,
            decay: 1.0,
            bias: Vec::new(),
        }
    }

    /// Whether every number is one that its field takes.
    pub fn is_valid(&self) -> bool {
        let shares = [self.typical, self.top_p, self.min_p, self.decay];
        let finite = [self.temperature, self.presence, self.frequency];
        self.temperature >= 0.0
            && finite.iter().all(|value| value.is_finite())
            && shares.iter().all(|share| (0.0..=1.0).contains(share))
            && self.bias.iter().all(|(_, bias)| *bias < f32::INFINITY)
    }
}

/// Draws the tokens of one text.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: fastrand::Rng,
    /// The tokens drawn so far, and how often, faded.
    drawn: BTreeMap<u32, f64>,
}

/// A token that may be drawn.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    token: u32,
    score: f64,
    /// A filter takes those with lower ranks first.
    rank: f64,
}

impl Candidate {
    /// By rank, then likeliest, then lowest: a total order, so that whatever sorts by it does the same everywhere.
    fn order(&self, other: &Self) -> Ordering {
        let likelier = || other.score.total_cmp(&self.score);
        self.rank.total_cmp(&other.rank).then_with(likelier).then_with(|| self.token.cmp(&other.token))
    }
}

impl Sampler {
    /// A sampler before its first token.
    ///
    /// # Panics
    /// If `sampling` is not [valid](Sampling::is_valid).
    pub fn new(sampling: Sampling, seed: u64) -> Self {
        assert!(sampling.is_valid(), "{sampling:?}");
        Self { sampling, random: fastrand::Rng::with_seed(seed), drawn: BTreeMap::new() }
    }

    /// Draws a token, and counts it for the penalties.
    ///
    /// # Errors
    /// If no logit is above minus infinity.
    pub fn pick(&mut self, logits: &[f32]) -> Result<u32, GenerateError> {
        let candidates = self.candidates(logits)?;
        let token = match candidates.as_slice() {
            [(only, _)] if self.sampling.temperature == 0.0 => *only,
            _ => {
                let mut left = self.random.f64();
                let drawn = candidates.iter().find(|(_, probability)| {
                    left -= probability;
                    left < 0.0
                });
                // Rounding may leave a little of the probability to nobody.
                let last = candidates.iter().rev().find(|(_, probability)| *probability > 0.0);
                drawn.or(last).expect("the likeliest has some probability").0
            }
        };
        self.drawn.values_mut().for_each(|count| *count *= f64::from(self.sampling.decay));
        *self.drawn.entry(token).or_insert(0.0) += 1.0;
        Ok(token)
    }

    /// The tokens that the next [`pick`](Self::pick) may draw, ascending, and their probabilities.
    ///
    /// # Errors
    /// If no logit is above minus infinity.
    pub fn candidates(&self, logits: &[f32]) -> Result<Vec<(u32, f64)>, GenerateError> {
        let mut left = self.scored(logits);
        let Some(best) = left.iter().copied().min_by(Candidate::order) else {
            let not_numbers = logits.iter().filter(|logit| logit.is_nan()).count();
            return Err(GenerateError::NothingToDraw { logits: logits.len(), not_numbers });
        };
        if self.sampling.temperature == 0.0 {
            return Ok(vec![(best.token, 1.0)]);
        }
        self.filter(&mut left);
        let temperature = f64::from(self.sampling.temperature);
        let weights = weights(&left, |over_best| over_best / temperature);
        let total: f64 = weights.iter().sum();
        Ok(left.iter().zip(weights).map(|(candidate, weight)| (candidate.token, weight / total)).collect())
    }

    /// Logits with biases and penalties, of what can be drawn; ranked by likelihood.
    fn scored(&self, logits: &[f32]) -> Vec<Candidate> {
        let Sampling { presence, frequency, .. } = self.sampling;
        let mut scores: Vec<f64> = logits.iter().map(|logit| f64::from(*logit)).collect();
        let mut add = |token: u32, value: f64| {
            if let Some(score) = scores.get_mut(token as usize) {
                *score += value;
            }
        };
        self.sampling.bias.iter().for_each(|(token, bias)| add(*token, f64::from(*bias)));
        let penalty = |count: f64| f64::from(presence) + f64::from(frequency) * count;
        self.drawn.iter().for_each(|(token, count)| add(*token, -penalty(*count)));
        if scores.contains(&f64::INFINITY) {
            // What remains of a softmax as some logits grow beyond all others: those alone, alike.
            scores.iter_mut().for_each(|score| *score = if *score == f64::INFINITY { 0.0 } else { f64::NAN });
        }
        let drawable = (0u32..).zip(scores).filter(|(_, score)| score.is_finite());
        drawable.map(|(token, score)| Candidate { token, score, rank: -score }).collect()
    }

    fn filter(&self, left: &mut Vec<Candidate>) {
        let Sampling { top_k, typical, top_p, min_p, .. } = self.sampling;
        if top_k > 0 && (top_k as usize) < left.len() {
            left.select_nth_unstable_by(top_k as usize, Candidate::order);
            left.truncate(top_k as usize);
            left.sort_unstable_by_key(|candidate| candidate.token);
        }
        if typical < 1.0 {
            let weights = weights(left, |over_best| over_best);
            let (best, log_total) = (best(left), libm::log(weights.iter().sum()));
            let surprise = |candidate: &Candidate| best + log_total - candidate.score;
            let mean: f64 = left.iter().zip(&weights).map(|(candidate, weight)| surprise(candidate) * weight).sum();
            let mean = mean / weights.iter().sum::<f64>();
            let ranks: Vec<f64> = left.iter().map(|candidate| (surprise(candidate) - mean).abs()).collect();
            left.iter_mut().zip(ranks).for_each(|(candidate, rank)| candidate.rank = rank);
            keep_share(left, f64::from(typical));
            left.iter_mut().for_each(|candidate| candidate.rank = -candidate.score);
        }
        if top_p < 1.0 {
            keep_share(left, f64::from(top_p));
        }
        if min_p > 0.0 {
            let least = best(left) + libm::log(f64::from(min_p));
            left.retain(|candidate| candidate.score >= least);
        }
    }
}

fn best(left: &[Candidate]) -> f64 {
    left.iter().map(|candidate| candidate.score).fold(f64::NEG_INFINITY, f64::max)
}

/// Probabilities up to a common factor; the best has 1. `libm` gives the same bits everywhere, which the exponential
/// function of the platform does not.
fn weights(left: &[Candidate], scale: impl Fn(f64) -> f64) -> Vec<f64> {
    let best = best(left);
    left.iter().map(|candidate| libm::exp(scale(candidate.score - best))).collect()
}

/// Keeps candidates of the lowest ranks until they have this share of the probability, at least one.
fn keep_share(left: &mut Vec<Candidate>, share: f64) {
    let best = best(left);
    let weight = |candidate: &Candidate| libm::exp(candidate.score - best);
    let enough = left.iter().map(weight).sum::<f64>() * share;
    // Most often a few of many thousands are kept, so only the first ones are sorted, and more where they do not do.
    let mut sorted = 0;
    let kept = loop {
        sorted = (sorted * 8).max(64).min(left.len());
        if sorted < left.len() {
            left.select_nth_unstable_by(sorted, Candidate::order);
        }
        left[..sorted].sort_unstable_by(Candidate::order);
        let mut sum = 0.0;
        let last = left[..sorted].iter().position(|candidate| {
            sum += weight(candidate);
            sum >= enough
        });
        match last {
            Some(last) => break last + 1,
            None if sorted == left.len() => break sorted,
            None => {}
        }
    };
    left.truncate(kept);
    left.sort_unstable_by_key(|candidate| candidate.token);
}

/// The token with the largest logit, the lower one of equals.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0u32, f32::NEG_INFINITY);
    for (token, logit) in (0u32..).zip(logits) {
        if *logit > best.1 {
            best = (token, *logit);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(change: impl FnOnce(&mut Sampling), seed: u64) -> Sampler {
        let mut sampling = Sampling::PLAIN;
        change(&mut sampling);
        Sampler::new(sampling, seed)
    }

    /// The tokens that may be drawn.
    fn kept(change: impl FnOnce(&mut Sampling), logits: &[f32]) -> Vec<u32> {
        let candidates = sampler(change, 0).candidates(logits).expect("some can be drawn");
        assert!((candidates.iter().map(|(_, probability)| probability).sum::<f64>() - 1.0).abs() < 1e-12);
        candidates.into_iter().map(|(token, _)| token).collect()
    }

    const NAN: f32 = f32::NAN;
    const INF: f32 = f32::INFINITY;

    #[test]
    fn greedy_takes_the_best_and_the_lower_of_equals() {
        let mut greedy = Sampler::new(Sampling::GREEDY, 0);
        assert_eq!(greedy.pick(&[0.0, 3.0, 3.0, NAN]).expect("some"), 1);
        assert_eq!(greedy.pick(&[NAN, -INF, -5.0]).expect("one"), 2);
        assert_eq!(greedy.pick(&[1.0, INF, INF]).expect("some"), 1);
    }

    #[test]
    fn the_ends_of_every_filter() {
        let logits = [0.0, 5.0, 1.0, 5.0];
        for (top_k, expected) in [(0, vec![0, 1, 2, 3]), (1, vec![1]), (2, vec![1, 3]), (4, vec![0, 1, 2, 3])] {
            assert_eq!(kept(|s| s.top_k = top_k, &logits), expected, "top_k {top_k}");
        }
        assert_eq!(kept(|s| s.top_k = u32::MAX, &logits), [0, 1, 2, 3]);
        assert_eq!(kept(|s| s.top_p = 0.0, &logits), [1]);
        assert_eq!(kept(|s| s.top_p = 0.6, &logits), [1, 3]);
        assert_eq!(kept(|s| s.min_p = 1.0, &logits), [1, 3]);
        assert_eq!(kept(|s| s.min_p = 0.01, &logits), [1, 2, 3]);
        assert_eq!(kept(|s| s.typical = 0.0, &logits).len(), 1);
        // Of one likely and many unlikely tokens, the mean surprise is nearest to the unlikely ones'.
        let flat: Vec<f32> = std::iter::once(2.0).chain([0.0; 40]).collect();
        assert_eq!(kept(|s| s.typical = 0.0, &flat), [1]);
        assert_eq!(kept(|s| s.typical = 0.5, &flat)[0], 1, "the likeliest is left out");
        assert_eq!(kept(|s| s.temperature = f32::MIN_POSITIVE, &logits).len(), 4, "a temperature leaves nothing out");
    }

    #[test]
    fn what_is_no_number_is_never_drawn_and_nothing_at_all_is_an_error() {
        assert_eq!(kept(|_| (), &[NAN, 0.0, -INF, -1e30]), [1, 3]);
        assert_eq!(kept(|_| (), &[INF, 0.0, NAN, INF]), [0, 3], "the infinite ones share it");
        assert_eq!(kept(|s| s.bias = vec![(0, -INF)], &[INF, 0.0, 1.0]), [1, 2], "ruled out all the same");
        for logits in [&[][..], &[NAN], &[-INF, NAN]] {
            for sampling in [Sampling::PLAIN, Sampling::GREEDY] {
                let error = Sampler::new(sampling, 0).pick(logits).expect_err("nothing to draw");
                assert!(matches!(error, GenerateError::NothingToDraw { .. }), "{error}");
            }
        }
        assert!(sampler(|s| s.bias = vec![(0, -INF), (1, -INF)], 0).pick(&[0.0, 1.0]).is_err());
    }

    #[test]
    fn biases_add_up_and_beyond_the_logits_do_nothing() {
        let biased = sampler(|s| s.bias = vec![(0, 1.0), (0, 1.0), (9, 3.0)], 0);
        let probabilities = biased.candidates(&[0.0, 2.0]).expect("two");
        assert_eq!(probabilities, [(0, 0.5), (1, 0.5)]);
    }

    #[test]
    fn penalties_follow_what_was_drawn() {
        let penalties = |sampling: &mut Sampling| {
            *sampling = Sampling { temperature: 0.0, presence: 1.0, frequency: 0.5, decay: 0.5, ..Sampling::PLAIN };
        };
        let mut sampler = sampler(penalties, 0);
        // 0 has 3, then 3 - 1 - 0.5, below 2; then, faded, 3 - 1 - 0.25, above 2 - 1 - 0.5.
        let drawn: Vec<u32> = (0..3).map(|_| sampler.pick(&[3.0, 2.0]).expect("two")).collect();
        assert_eq!(drawn, [0, 1, 0]);
        let expected = BTreeMap::from([(0, 1.25), (1, 0.5)]);
        assert_eq!(sampler.drawn, expected);
    }

    #[test]
    fn a_seed_draws_the_same_on_every_machine() {
        let logits: Vec<f32> = (0..100u16).map(|token| f32::from(token * 37 % 101) / 20.0).collect();
        let mut sampler = sampler(|s| (s.temperature, s.top_p, s.typical) = (0.8, 0.95, 0.9), 7);
        let drawn: Vec<u32> = (0..12).map(|_| sampler.pick(&logits).expect("some")).collect();
        assert_eq!(
            drawn,
            [79, 24, 70, 49, 16, 19, 79, 13, 19, 46, 60, 5],
            "another text for everybody who kept a seed"
        );
    }
}
