//! How likely a model holds tokens to be.
//!
//! Gets a row of logits, returns natural logarithms of probabilities: the model's own, before anything that sampling
//! does to them. The sums are in f64. A logit that is not a number has no probability. Never draws.

use crate::generate::GenerateError;
use crate::generate::sample::argmax;

/// The logarithms of a row's probabilities.
#[derive(Clone, Copy, Debug)]
pub struct LogProbabilities<'l> {
    logits: &'l [f32],
    best: f32,
    /// The logarithm of the sum of the exponentials, over the best.
    log_sum: f64,
}

impl<'l> LogProbabilities<'l> {
    /// Those of a row of logits.
    ///
    /// # Errors
    /// If no logit is above minus infinity.
    pub fn new(logits: &'l [f32]) -> Result<Self, GenerateError> {
        let best = logits.get(argmax(logits) as usize).copied().unwrap_or(f32::NEG_INFINITY);
        if best.is_nan() || best == f32::NEG_INFINITY {
            let not_numbers = logits.iter().filter(|logit| logit.is_nan()).count();
            return Err(GenerateError::NothingToDraw { logits: logits.len(), not_numbers });
        }
        let row = Self { logits, best, log_sum: 0.0 };
        let sum: f64 = logits.iter().map(|logit| libm::exp(row.over_best(*logit))).sum();
        Ok(Self { log_sum: libm::log(sum), ..row })
    }

    /// That of a token; minus infinity for one that cannot come, or is beyond the row.
    pub fn of(&self, token: u32) -> f64 {
        self.logits.get(token as usize).map_or(f64::NEG_INFINITY, |logit| self.over_best(*logit) - self.log_sum)
    }

    /// The likeliest tokens, the likeliest first and the lower of equals before the other, with their logarithms.
    pub fn top(&self, count: usize) -> Vec<(u32, f64)> {
        let mut tokens: Vec<(u32, f64)> =
            (0u32..).take(self.logits.len()).map(|token| (token, self.of(token))).collect();
        let order = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if count < tokens.len() {
            tokens.select_nth_unstable_by(count, order);
            tokens.truncate(count);
        }
        tokens.sort_unstable_by(order);
        tokens
    }

    /// How far a logit lies over the best. Where the best is infinite, those that are share all of the probability.
    fn over_best(&self, logit: f32) -> f64 {
        match (logit == self.best, logit.is_nan()) {
            (true, _) => 0.0,
            (_, true) => f64::NEG_INFINITY,
            _ => f64::from(logit) - f64::from(self.best),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_of_a_row_make_one() {
        let row = [0.5, -1.0, f32::NEG_INFINITY, 3.25, f32::NAN];
        let scores = LogProbabilities::new(&row).expect("a row");
        assert!(((0..5).map(|token| scores.of(token).exp()).sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((scores.of(3) - scores.of(0) - 2.75).abs() < 1e-12);
        assert_eq!([scores.of(2), scores.of(4), scores.of(5)], [f64::NEG_INFINITY; 3]);
        assert_eq!(scores.top(2).iter().map(|(token, _)| *token).collect::<Vec<_>>(), [3, 0]);
        assert_eq!(scores.top(9).len(), 5);
        // As far apart as f32 reaches, and many.
        let row: Vec<f32> = (0..70_000).map(|token| if token == 5 { 3e38 } else { -3e38 }).collect();
        assert_eq!(LogProbabilities::new(&row).expect("a row").of(5), 0.0);
        let even = vec![7.0; 65_536];
        assert!((LogProbabilities::new(&even).expect("a row").of(9) + 65_536f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn rows_without_a_number_are_refused_and_infinite_logits_share() {
        assert!(LogProbabilities::new(&[]).is_err());
        assert!(LogProbabilities::new(&[f32::NAN, f32::NEG_INFINITY]).is_err());
        let row = [f32::INFINITY, 1.0, f32::INFINITY];
        let scores = LogProbabilities::new(&row).expect("a row");
        assert_eq!([scores.of(0), scores.of(1)], [0.5f64.ln(), f64::NEG_INFINITY]);
    }
}
