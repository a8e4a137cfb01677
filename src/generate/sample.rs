//! Picks a token from a row of logits.
//!
//! Gets logits, returns a token: the best at temperature 0, else one drawn from the smallest set of tokens whose
//! probabilities reach `top_p`. The same seed draws the same tokens. Never changes a logit.

/// How tokens are picked.
#[derive(Debug)]
pub struct Sampler {
    temperature: f32,
    top_p: f32,
    random: fastrand::Rng,
}

impl Sampler {
    /// A sampler. `temperature` 0 is greedy; `top_p` 1 draws from all tokens.
    pub fn new(temperature: f32, top_p: f32, seed: u64) -> Self {
        Self { temperature, top_p, random: fastrand::Rng::with_seed(seed) }
    }

    /// Picks a token. Ties go to the lower token; a logit that is not a number is never picked.
    ///
    /// # Panics
    /// If there are no logits.
    pub fn pick(&mut self, logits: &[f32]) -> u32 {
        assert!(!logits.is_empty(), "a row of logits has a vocabulary");
        if self.temperature <= 0.0 {
            return argmax(logits);
        }
        let best = logits[argmax(logits) as usize];
        if !best.is_finite() {
            return argmax(logits);
        }
        let mut weights: Vec<(u32, f64)> = (0u32..)
            .zip(logits)
            .map(|(token, logit)| (token, f64::from((logit - best) / self.temperature).exp()))
            .filter(|(_, weight)| *weight > 0.0)
            .collect();
        weights.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
        let mut kept = 0.0;
        let nucleus = weights.iter().position(|(_, weight)| {
            kept += weight;
            kept >= total * f64::from(self.top_p)
        });
        weights.truncate(nucleus.map_or(weights.len(), |last| last + 1));
        let mut left = self.random.f64() * weights.iter().map(|(_, weight)| weight).sum::<f64>();
        for (token, weight) in &weights {
            left -= weight;
            if left < 0.0 {
                return *token;
            }
        }
        weights.last().map_or_else(|| argmax(logits), |(token, _)| *token)
    }
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

    #[test]
    fn greedy_takes_the_best_and_the_lower_of_equals() {
        assert_eq!(Sampler::new(0.0, 1.0, 0).pick(&[0.0, 3.0, 3.0, f32::NAN]), 1);
    }

    #[test]
    fn a_small_nucleus_is_greedy() {
        let mut sampler = Sampler::new(1.0, 0.0, 7);
        assert!((0..100).all(|_| sampler.pick(&[0.0, 5.0, 1.0]) == 1));
    }

    #[test]
    fn draws_follow_the_probabilities_and_the_seed() {
        let draw = |seed| {
            let mut sampler = Sampler::new(1.0, 1.0, seed);
            (0..10_000).map(|_| sampler.pick(&[0.0, 2.0f32.ln(), f32::NEG_INFINITY])).collect::<Vec<_>>()
        };
        let ones = draw(1).iter().filter(|token| **token == 1).count();
        assert!((6_400..6_900).contains(&ones), "{ones} of 10000, expected two thirds");
        assert!(!draw(1).contains(&2));
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}
