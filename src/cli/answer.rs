//! What a model goes on with: generated a token at a time, and told to programs.
//!
//! Gets a sequence and the logits after all that it has read, returns what followed on them, drawn by steps themselves
//! where a batch has such and the rules allow it; gets that, returns a line of JSON. Never prints.

use std::ops::ControlFlow;

use serde::Serialize;
use serde_json::Value;

use crate::cli::Failure;
use crate::exec::Session;
use crate::generate::batch::{Batch, Feed, SequenceId};
use crate::generate::continuation::{Continuation, Continued, Drawn, Finish};
use crate::generate::vocabulary::Vocabulary;
use crate::generate::{Rows, ahead};

/// Goes on until the continuation ends, or `take`, which gets all that is drawn, breaks it off. Returns the number of
/// steps run. `logits` are those after all that the sequence has read; with `all_read`, it has read every token when
/// this returns, otherwise all but the last, or some more where steps draw.
pub(super) fn generate<S: Session>(
    batch: &mut Batch<'_, S>,
    sequence: SequenceId,
    continuation: &mut Continuation<'_>,
    mut logits: Vec<f32>,
    all_read: bool,
    take: &mut dyn FnMut(Drawn) -> Result<ControlFlow<()>, Failure>,
) -> Result<usize, Failure> {
    if batch.draws() && continuation.draw_ahead(0).is_some() && continuation.finish().is_none() {
        let first = continuation.draw(&logits)?;
        return ahead::go_on(batch, sequence, continuation, first, all_read, take);
    }
    let mut steps = 0;
    while continuation.finish().is_none() {
        let drawn = continuation.draw(&logits)?;
        let token = drawn.token;
        let goes_on = take(drawn)?.is_continue();
        if let Some(token) = token
            && (all_read || goes_on && continuation.finish().is_none())
        {
            let (mut rows, _) = batch.run(&[Feed { sequence, tokens: &[token] }], Rows::Last)?;
            logits = rows.remove(0).remove(0);
            steps += 1;
        }
        if !goes_on {
            break;
        }
    }
    Ok(steps)
}

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    tokens: &'a [u32],
    /// Which of the ends it was.
    finish: &'static str,
    /// The token or the text to stop at, if that was it.
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Value>,
    prompt_tokens: usize,
    generated_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<Chosen>>,
}

/// A token that was drawn.
#[derive(Serialize)]
struct Chosen {
    #[serde(flatten)]
    token: Likely,
    top: Vec<Likely>,
}

/// A token and how likely it was; a probability of 0 has no logarithm in JSON, and is `null`.
#[derive(Serialize)]
struct Likely {
    token: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    logprob: f64,
}

/// What a prompt of this many tokens went on with, as a line of JSON. With a vocabulary, tokens have text.
pub(super) fn json(
    id: Option<&Value>,
    prompt_tokens: usize,
    continued: &Continued,
    vocabulary: Option<&Vocabulary>,
) -> String {
    let likely = |token: u32, logprob: f64| {
        let text = vocabulary.map(|vocabulary| vocabulary.decode(&[token]));
        Likely { token, text, logprob }
    };
    let logprobs = || {
        let tokens = continued.tokens.iter().zip(&continued.likelihoods);
        let chosen = tokens.map(|(token, likelihood)| Chosen {
            token: likely(*token, likelihood.log_probability),
            top: likelihood.top.iter().map(|(token, logprob)| likely(*token, *logprob)).collect(),
        });
        chosen.collect()
    };
    let (finish, stop) = match &continued.finish {
        Finish::Count => ("count", None),
        Finish::StopToken(token) => ("stop_token", Some(Value::from(*token))),
        Finish::StopText(text) => ("stop_text", Some(Value::from(text.as_str()))),
        Finish::Interrupted => ("interrupted", None),
    };
    let line = Line {
        id,
        text: vocabulary.map(|_| continued.text.as_str()),
        tokens: &continued.tokens,
        finish,
        stop,
        prompt_tokens,
        generated_tokens: continued.tokens.len(),
        logprobs: (!continued.likelihoods.is_empty()).then(logprobs),
    };
    serde_json::to_string(&line).expect("a line is plain data") + "\n"
}
