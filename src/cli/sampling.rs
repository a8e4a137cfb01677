//! Flags that say how tokens are drawn, and what ends a text.
//!
//! Gets flags, returns them as the library takes them. A value that makes no sense is refused as it is read, a token
//! that the model does not have before a device is asked for. Never draws.

use clap::{Args, ValueEnum};

use crate::generate::batch::Draw;
use crate::generate::continuation::Rules;
use crate::generate::sample::Sampling;

/// Where tokens are drawn.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DrawnOn {
    /// On a GPU, where it can be: without biases, penalties, `--typical` and `--logprobs`
    Auto,
    /// By the steps themselves, so that the next one need not wait for the host
    Device,
    /// From logits that the host reads
    Host,
}

impl DrawnOn {
    /// Whether steps are to draw: on a device of this kind, by these rules, if the graph has such steps.
    pub(super) fn draws(self, kind: &str, rules: &Rules<'_>, has_steps: bool) -> Result<bool, String> {
        let refusal = match (has_steps, Draw::new(&rules.sampling, 0, 0), rules.top) {
            (false, ..) => Some("what is run has no steps that draw"),
            (_, None, _) => Some("steps draw without biases, penalties and `--typical`"),
            (.., Some(_)) => Some("steps that draw give no log-probabilities"),
            _ => None,
        };
        match (self, refusal) {
            (Self::Host, _) => Ok(false),
            // What plays the device is the host, which draws faster on its own.
            (Self::Auto, refusal) => Ok(refusal.is_none() && kind != "cpu"),
            (Self::Device, None) => Ok(true),
            (Self::Device, Some(refusal)) => Err(format!("`--draw device`: {refusal}")),
        }
    }
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Sampling, in this order")]
pub(super) struct SamplingArgs {
    /// Add a number to the logit of a token, as in 261=-2.5; 0=-inf rules it out (may be repeated, or separated by
    /// commas; those of one token add up)
    #[arg(long, value_name = "TOKEN=VALUE", value_delimiter = ',', value_parser = bias)]
    logit_bias: Vec<(u32, f32)>,
    /// Take this off the logit of every token that was generated before
    #[arg(long, value_name = "A", default_value_t = 0.0, value_parser = finite, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Take this off it for each time it was generated
    #[arg(long, value_name = "A", default_value_t = 0.0, value_parser = finite, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// What each further token leaves of the times counted, for --frequency-penalty
    #[arg(long, value_name = "D", default_value_t = 0.996, value_parser = share, allow_negative_numbers = true)]
    penalty_decay: f32,
    /// Draw from this many of the likeliest tokens; 0 from all
    #[arg(long, value_name = "K", default_value_t = 0, allow_negative_numbers = true)]
    top_k: u32,
    /// Draw from the tokens that surprise about as much as is to be expected, which together have this much of the
    /// probability; 1 from all
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = share, allow_negative_numbers = true)]
    typical: f32,
    /// Draw from the likeliest tokens that together have this much of the probability; 1 from all
    #[arg(long, value_name = "P", default_value_t = 0.9, value_parser = share, allow_negative_numbers = true)]
    top_p: f32,
    /// Draw from tokens with at least this share of the likeliest one's probability; 0 from all
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share, allow_negative_numbers = true)]
    min_p: f32,
    /// Below 1, likely tokens become likelier, above, less so; 0 always takes the likeliest
    #[arg(long, value_name = "T", default_value_t = 0.8, value_parser = non_negative, allow_negative_numbers = true)]
    temperature: f32,
    /// Where tokens are drawn; a seed draws another text on the host than on a device
    #[arg(long, value_name = "WHERE", value_enum, default_value_t = DrawnOn::Auto)]
    pub draw: DrawnOn,
    /// The same seed draws the same text
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "What ends a text")]
pub(super) struct EndArgs {
    /// Stop when this token is generated, with `none` at no token (may be repeated) [default: 0 for the built-in model,
    /// and where the vocabulary has no bytes for 0, as that of World models; none otherwise]
    #[arg(long, value_name = "ID|none", value_parser = stop_token)]
    stop_token: Vec<StopToken>,
    /// Stop when the text goes on with this, which is not printed; \n, \t, \r and \\ stand for a line's end, a tab, a
    /// return and a backslash (may be repeated)
    #[arg(long, value_name = "TEXT", value_parser = stop_text, conflicts_with = "print_tokens")]
    stop: Vec<String>,
}

/// What `--stop-token` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StopToken {
    Never,
    At(u32),
}

impl SamplingArgs {
    pub(super) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            typical: self.typical,
            top_p: self.top_p,
            min_p: self.min_p,
            presence: self.presence_penalty,
            frequency: self.frequency_penalty,
            decay: self.penalty_decay,
            bias: self.logit_bias.clone(),
        }
    }
}

impl EndArgs {
    /// The tokens that end a text, if any flag says; none for `none`.
    pub(super) fn tokens(&self) -> Option<Vec<u32>> {
        let tokens = self.stop_token.iter().filter_map(|stop| match stop {
            StopToken::At(token) => Some(*token),
            StopToken::Never => None,
        });
        (!self.stop_token.is_empty()).then(|| tokens.collect())
    }

    /// The texts that end a text.
    pub(super) fn texts(&self) -> &[String] {
        &self.stop
    }

    /// What is wrong with the flags together.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.stop_token.contains(&StopToken::Never) && self.stop_token.len() > 1 {
            true => Err("`--stop-token none` stops at no token, so it stands alone".into()),
            false => Ok(()),
        }
    }
}

/// What is wrong with tokens named in flags, for a model of this many; a line each.
pub(super) fn stray(sampling: &SamplingArgs, end: &EndArgs, vocabulary: u64) -> String {
    let biased = sampling.logit_bias.iter().map(|(token, _)| ("logit-bias", *token));
    let stops = end.tokens().into_iter().flatten().map(|token| ("stop-token", token));
    let stray = stops.chain(biased).filter(|(_, token)| u64::from(*token) >= vocabulary);
    let line = |(flag, token)| format!("error: `--{flag} {token}` is not in the vocabulary of {vocabulary}\n");
    stray.map(line).collect()
}

fn non_negative(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("expected a number of 0 or more".into()),
    }
}

fn finite(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err("expected a number".into()),
    }
}

fn share(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 to 1".into()),
    }
}

fn bias(text: &str) -> Result<(u32, f32), String> {
    let parsed = text.split_once('=').and_then(|(token, value)| Some((token.parse().ok()?, value.parse().ok()?)));
    match parsed {
        Some((token, value)) if value < f32::INFINITY => Ok((token, value)),
        _ => Err("expected a token and a number, as in 261=-2.5 or 0=-inf".into()),
    }
}

fn stop_token(text: &str) -> Result<StopToken, String> {
    match text {
        "none" => Ok(StopToken::Never),
        id => id.parse().map(StopToken::At).map_err(|_| "expected a token id, or `none`".into()),
    }
}

fn stop_text(text: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        plain.push(match (c, (c == '\\').then(|| characters.next())) {
            (c, None) => c,
            (_, Some(Some('n'))) => '\n',
            (_, Some(Some('t'))) => '\t',
            (_, Some(Some('r'))) => '\r',
            (_, Some(Some('\\'))) => '\\',
            (_, Some(other)) => {
                let found = other.map_or_else(String::new, String::from);
                return Err(format!("`\\{found}` begins no escape, expected one of \\n \\t \\r \\\\"));
            }
        });
    }
    if plain.is_empty() { Err("expected a text that is not empty".into()) } else { Ok(plain) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_stop_texts_are_read() {
        assert_eq!(stop_text("\\n\\nUser:").as_deref(), Ok("\n\nUser:"));
        assert_eq!(stop_text("a\\\\n\\t\\ré").as_deref(), Ok("a\\n\t\ré"));
        for (text, part) in [("", "not empty"), ("a\\", "`\\` begins no escape"), ("\\é", "`\\é` begins no escape")] {
            assert!(stop_text(text).expect_err("refused").contains(part), "{text}");
        }
    }

    #[test]
    fn biases_are_numbers_below_infinity() {
        assert_eq!(bias("3=-2.5"), Ok((3, -2.5)));
        assert_eq!(bias("3=-inf"), Ok((3, f32::NEG_INFINITY)));
        for text in ["x", "3", "3=", "=1", "3=inf", "3=nan", "-3=1", "3=1=2"] {
            assert!(bias(text).is_err(), "{text}");
        }
    }
}
