//! What is drawn from logits, and where texts stop, against the plainest way to say the same.
//!
//! Gets random logits and settings, and random texts, of seeds that are printed. What then holds: exactly the tokens
//! that the plain filters keep may be drawn, with their probabilities, whatever was drawn before; as often as these
//! say; and a text to stop at is found where it is first complete, wherever the text was cut. Needs no device.

use std::collections::BTreeMap;

use graphc::generate::sample::{Sampler, Sampling};
use graphc::generate::stop::StopTexts;

/// Sums nearer to a limit than this may fall on either side of it.
const NEAR: f64 = 1e-9;

/// The tokens that remain and their probabilities, by the definitions: each filter sorts all of them and adds up.
/// Nothing if rounding could decide.
fn plain(sampling: &Sampling, history: &[u32], logits: &[f32]) -> Option<BTreeMap<u32, f64>> {
    let score = |(token, logit): (u32, &f32)| {
        let biases = sampling.bias.iter().filter(|(other, _)| *other == token).map(|(_, bias)| f64::from(*bias));
        let ages = history.iter().rev().zip(0..).filter(|(other, _)| **other == token);
        let count: f64 = ages.map(|(_, age)| f64::from(sampling.decay).powi(age)).sum();
        let presence = if history.contains(&token) { f64::from(sampling.presence) } else { 0.0 };
        let score = f64::from(*logit) + biases.sum::<f64>() - presence - f64::from(sampling.frequency) * count;
        (token, score)
    };
    let mut left: Vec<(u32, f64)> = (0u32..).zip(logits).map(score).filter(|(_, score)| !score.is_nan()).collect();
    left.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if left.iter().any(|(_, score)| *score == f64::INFINITY) {
        left.retain(|(_, score)| *score == f64::INFINITY);
        left.iter_mut().for_each(|(_, score)| *score = 0.0);
    }
    left.retain(|(_, score)| *score > f64::NEG_INFINITY);
    if sampling.temperature == 0.0 {
        return Some(BTreeMap::from([(left[0].0, 1.0)]));
    }
    if sampling.top_k > 0 {
        left.truncate(sampling.top_k as usize);
    }
    if sampling.typical < 1.0 {
        let probabilities = softmax(&left, 1.0);
        let mean: f64 = probabilities.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        let best = left[0].1;
        let log_sum = left.iter().map(|(_, score)| (score - best).exp()).sum::<f64>().ln();
        let distance = |entry: &(u32, f64)| (best + log_sum - entry.1 - mean).abs();
        left.sort_by(|a, b| distance(a).total_cmp(&distance(b)).then(b.1.total_cmp(&a.1)).then(a.0.cmp(&b.0)));
        let is_unclear =
            |pair: &[(u32, f64)]| pair[0].1 != pair[1].1 && (distance(&pair[0]) - distance(&pair[1])).abs() < NEAR;
        if left.windows(2).any(is_unclear) {
            return None;
        }
        keep(&mut left, f64::from(sampling.typical))?;
        left.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    }
    if sampling.top_p < 1.0 {
        keep(&mut left, f64::from(sampling.top_p))?;
    }
    if sampling.min_p > 0.0 {
        let (best, least) = (left[0].1, f64::from(sampling.min_p));
        if left.iter().any(|(_, score)| ((score - best).exp() - least).abs() < NEAR && *score != best) {
            return None;
        }
        left.retain(|(_, score)| *score == best || (score - best).exp() >= least);
    }
    let probabilities = softmax(&left, f64::from(sampling.temperature));
    Some(left.iter().map(|(token, _)| *token).zip(probabilities).collect())
}

fn softmax(left: &[(u32, f64)], temperature: f64) -> Vec<f64> {
    let best = left.iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = left.iter().map(|(_, score)| ((score - best) / temperature).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// Keeps the first ones until they have this share.
fn keep(left: &mut Vec<(u32, f64)>, share: f64) -> Option<()> {
    let mut sum = 0.0;
    for (at, probability) in softmax(left, 1.0).iter().enumerate() {
        sum += probability;
        if (sum - share).abs() < NEAR {
            return None;
        }
        if sum >= share {
            left.truncate(at + 1);
            break;
        }
    }
    Some(())
}

fn random_logits(rng: &mut fastrand::Rng) -> Vec<f32> {
    let is_coarse = rng.bool();
    let size = [1, 2, 5, 40, 400][rng.usize(..5)];
    let logit = |rng: &mut fastrand::Rng| match rng.u32(..60) {
        0 => f32::NAN,
        1 => f32::NEG_INFINITY,
        2 if rng.u32(..20) == 0 => f32::INFINITY,
        3 => rng.f32() * 1e30 - 5e29,
        // Many are equal.
        _ if is_coarse => rng.i32(-3..4) as f32,
        _ => rng.f32() * 12.0 - 6.0,
    };
    let mut logits: Vec<f32> = (0..size).map(|_| logit(rng)).collect();
    // At least one can be drawn.
    logits[rng.usize(..size)] = 1.0;
    logits
}

fn random_sampling(rng: &mut fastrand::Rng, size: usize) -> Sampling {
    let share = |rng: &mut fastrand::Rng| [0.0, 1.0, rng.f32(), rng.f32(), 1.0 - rng.f32() * 0.1][rng.usize(..5)];
    let penalty = |rng: &mut fastrand::Rng| if rng.bool() { 0.0 } else { rng.f32() * 2.0 - 0.5 };
    Sampling {
        temperature: [0.0, 1.0, 0.1 + rng.f32(), 5.0 * rng.f32() + 0.01][rng.usize(..4)],
        top_k: [0, 1, rng.u32(1..30), size as u32, u32::MAX][rng.usize(..5)],
        typical: if rng.bool() { 1.0 } else { share(rng) },
        top_p: if rng.bool() { 1.0 } else { share(rng) },
        min_p: if rng.bool() { 0.0 } else { share(rng) },
        presence: penalty(rng),
        frequency: penalty(rng),
        decay: [1.0, 0.996, rng.f32(), 0.0][rng.usize(..4)],
        bias: (0..rng.usize(..4)).map(|_| (rng.u32(..size as u32 + 2), rng.f32() * 4.0 - 2.0)).collect(),
    }
}

#[test]
fn filters_keep_what_the_plain_ones_keep() {
    let (mut compared, mut unclear) = (0, 0);
    for seed in 0..3000 {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let size = random_logits(&mut rng).len();
        let sampling = random_sampling(&mut rng, size);
        let mut sampler = Sampler::new(sampling.clone(), seed);
        let mut history = Vec::new();
        for _ in 0..6 {
            let mut logits = random_logits(&mut rng);
            logits.resize(size, 0.5);
            logits[rng.usize(..size)] = 1.0;
            let found = sampler.candidates(&logits).expect("one can be drawn");
            assert!(found.is_sorted_by_key(|(token, _)| *token), "{found:?}");
            match plain(&sampling, &history, &logits) {
                Some(expected) => {
                    compared += 1;
                    let tokens: Vec<u32> = found.iter().map(|(token, _)| *token).collect();
                    assert_eq!(tokens, expected.keys().copied().collect::<Vec<_>>(), "{sampling:?} {logits:?}");
                    for (token, probability) in &found {
                        assert!((probability - expected[token]).abs() < NEAR, "{token} {sampling:?} {logits:?}");
                    }
                }
                None => unclear += 1,
            }
            let drawn = sampler.pick(&logits).expect("one can be drawn");
            assert!(found.iter().any(|(token, probability)| *token == drawn && *probability > 0.0));
            history.push(drawn);
        }
    }
    assert!(compared > 10 * unclear, "{compared} compared, {unclear} unclear");
}

/// Pearson's statistic of draws against probabilities, over what 1 in 10 000 sets of fair draws exceeds (the
/// approximation of Wilson and Hilferty).
fn misfit(draws: &[u32], probabilities: &[(u32, f64)]) -> f64 {
    let total = draws.len() as f64;
    let term = |(token, probability): &(u32, f64)| {
        let found = draws.iter().filter(|draw| *draw == token).count() as f64;
        (found - total * probability).powi(2) / (total * probability)
    };
    let freedom = (probabilities.len() - 1) as f64;
    let spread = 2.0 / (9.0 * freedom);
    probabilities.iter().map(term).sum::<f64>() / (freedom * (1.0 - spread + 3.719 * spread.sqrt()).powi(3))
}

#[test]
fn draws_are_as_frequent_as_their_probabilities() {
    let logits: Vec<f32> = (0..12u8).map(|token| f32::from(token * 7 % 12) / 4.0).collect();
    let samplings = [
        Sampling::PLAIN,
        Sampling { temperature: 0.7, ..Sampling::PLAIN },
        Sampling { temperature: 1.5, top_k: 7, ..Sampling::PLAIN },
        Sampling { top_p: 0.8, ..Sampling::PLAIN },
        Sampling { min_p: 0.2, typical: 0.9, ..Sampling::PLAIN },
        Sampling { bias: vec![(3, 2.0), (0, -1.0)], ..Sampling::PLAIN },
    ];
    for (seed, sampling) in (1..).zip(samplings) {
        let mut sampler = Sampler::new(sampling.clone(), seed);
        let expected = sampler.candidates(&logits).expect("some");
        let draws: Vec<u32> = (0..20_000).map(|_| sampler.pick(&logits).expect("some")).collect();
        assert!(misfit(&draws, &expected) < 1.0, "{sampling:?}");
        // The test tells a temperature that is off.
        let wrong = Sampling { temperature: sampling.temperature * 1.3, ..sampling };
        let wrong = Sampler::new(wrong, seed).candidates(&logits).expect("some");
        assert!(misfit(&draws, &wrong) > 1.0, "{wrong:?}");
    }
}

#[test]
fn seeds_draw_differently_and_always_the_same() {
    let logits: Vec<f32> = (0..50u8).map(|token| f32::from(token % 7)).collect();
    let draw = |seed| {
        let mut sampler = Sampler::new(Sampling::PLAIN, seed);
        (0..40).map(|_| sampler.pick(&logits).expect("some")).collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let consecutive: Vec<u32> = (0..2000).map(|seed| draw(seed)[0]).collect();
    let expected = Sampler::new(Sampling::PLAIN, 0).candidates(&logits).expect("some");
    assert!(misfit(&consecutive, &expected) < 1.0, "consecutive seeds are as good as one");
}

/// What is shown, and the text that was found, character by character.
fn plain_stop<'s>(stops: &'s [String], text: &str) -> (String, Option<&'s str>) {
    for end in text.char_indices().map(|(at, c)| at + c.len_utf8()) {
        let complete = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str()));
        if let Some(found) = complete.max_by_key(|stop| stop.len()) {
            return (text[..end - found.len()].to_owned(), Some(found));
        }
    }
    (text.to_owned(), None)
}

#[test]
fn texts_to_stop_at_are_found_wherever_the_text_is_cut() {
    let mut found = 0;
    for seed in 0..5000 {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let word = |rng: &mut fastrand::Rng, most: usize| -> String {
            (0..rng.usize(1..=most)).map(|_| ['a', 'b', 'é', '\n'][rng.usize(..4)]).collect()
        };
        let stops: Vec<String> = (0..rng.usize(..4)).map(|_| word(&mut rng, 5)).collect();
        let text = word(&mut rng, 60);
        let mut stream = StopTexts::new(&stops);
        let (mut shown, mut stopped) = (String::new(), None);
        let mut rest = text.as_str();
        while !rest.is_empty() && stopped.is_none() {
            let cut = rest.char_indices().map(|(at, _)| at).nth(rng.usize(1..6)).unwrap_or(rest.len());
            let released = stream.push(&rest[..cut]);
            shown += &released.text;
            stopped = released.found;
            rest = &rest[cut..];
            let so_far = text.len() - rest.len();
            let longest = stops.iter().map(String::len).max().unwrap_or(0);
            assert!(stopped.is_some() || shown.len() + longest.max(1) > so_far, "no more is held than may be needed");
        }
        if stopped.is_none() {
            shown += &stream.finish();
        }
        found += usize::from(stopped.is_some());
        assert_eq!((shown, stopped), plain_stop(&stops, &text), "{stops:?} in {text:?}");
    }
    assert!((1000..4500).contains(&found), "{found} of 5000: both ends are met");
}
