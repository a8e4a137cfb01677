//! One text that goes on: token after token, until something ends it.
//!
//! Gets a row of logits at a time, returns the token drawn and the text that is certain by now. What then holds: no
//! character is split, and of a text to stop at, or of what stands behind it in the same token, nothing is ever part of
//! the text. Never runs a model: whoever calls feeds it the tokens.

use crate::generate::GenerateError;
use crate::generate::batch::Draw;
use crate::generate::sample::{Sampler, Sampling};
use crate::generate::score::LogProbabilities;
use crate::generate::stop::StopTexts;
use crate::generate::text::Utf8Stream;
use crate::generate::vocabulary::Vocabulary;

/// How texts go on, and what ends them.
#[derive(Clone, Debug)]
pub struct Rules<'v> {
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Tokens that end a text; they are not part of it.
    pub stop_tokens: Vec<u32>,
    /// Texts that end a text, none of them empty; they are not part of it. They are found in text alone, so they take a
    /// vocabulary.
    pub stop_texts: Vec<String>,
    /// What makes tokens text; without it, there is no text.
    pub vocabulary: Option<&'v Vocabulary>,
    /// How many of the likeliest tokens are kept beside the one drawn, with their log-probabilities; nothing to keep
    /// none of these.
    pub top: Option<usize>,
}

/// What ended a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// There are as many tokens as were asked for.
    Count,
    /// This token was drawn.
    StopToken(u32),
    /// The text went on with this.
    StopText(String),
    /// Whoever asked for it wanted no more.
    Interrupted,
}

/// How likely the model held a token to be, before biases, penalties and filters.
#[derive(Clone, Debug, PartialEq)]
pub struct Likelihood {
    /// The natural logarithm of its probability.
    pub log_probability: f64,
    /// The likeliest tokens at its place, the likeliest first, and theirs.
    pub top: Vec<(u32, f64)>,
}

/// What a text went on with.
#[derive(Clone, Debug, PartialEq)]
pub struct Continued {
    /// Every token drawn but a stop token. If a text to stop at was found, those that it is made of are the last.
    pub tokens: Vec<u32>,
    /// The text, up to where a text to stop at begins; empty without a vocabulary.
    pub text: String,
    /// What ended it.
    pub finish: Finish,
    /// Of each token, if asked for.
    pub likelihoods: Vec<Likelihood>,
}

/// What a draw has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// The token, which comes next in the sequence; nothing if it was one that ends the text.
    pub token: Option<u32>,
    /// The text that is certain now and was not before.
    pub text: String,
}

/// A text that goes on.
#[derive(Clone, Debug)]
pub struct Continuation<'r> {
    rules: &'r Rules<'r>,
    count: u32,
    seed: u64,
    sampler: Sampler,
    stops: StopTexts<'r>,
    stream: Utf8Stream,
    tokens: Vec<u32>,
    text: String,
    likelihoods: Vec<Likelihood>,
    finish: Option<Finish>,
}

impl<'r> Continuation<'r> {
    /// Goes on for at most `count` tokens. The same seed draws the same ones.
    ///
    /// # Panics
    /// If the sampling is not [valid](Sampling::is_valid), or a text to stop at is empty.
    pub fn new(rules: &'r Rules<'r>, count: u32, seed: u64) -> Self {
        Self {
            rules,
            count,
            seed,
            sampler: Sampler::new(rules.sampling.clone(), seed),
            stops: StopTexts::new(&rules.stop_texts),
            stream: Utf8Stream::new(),
            tokens: Vec::new(),
            text: String::new(),
            likelihoods: Vec::new(),
            finish: (count == 0).then_some(Finish::Count),
        }
    }

    /// What ended it, if something has.
    pub const fn finish(&self) -> Option<&Finish> {
        self.finish.as_ref()
    }

    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many tokens may still be drawn.
    pub const fn left(&self) -> u32 {
        match self.finish {
            Some(_) => 0,
            None => self.count - self.tokens.len() as u32,
        }
    }

    /// How a step draws the token behind the next `ahead` ones; nothing if it cannot, by these rules: steps give no
    /// likelihoods, and see [`Draw::new`].
    pub fn draw_ahead(&self, ahead: u32) -> Option<Draw> {
        let number = self.tokens.len() as u32 + ahead;
        Draw::new(&self.rules.sampling, self.seed, number).filter(|_| self.rules.top.is_none())
    }

    /// Takes the next token, which was drawn elsewhere.
    ///
    /// # Panics
    /// If the text has ended.
    pub fn accept(&mut self, token: u32) -> Drawn {
        assert!(self.finish.is_none(), "the text has ended");
        if self.rules.stop_tokens.contains(&token) {
            return Drawn { token: None, text: self.end(Finish::StopToken(token)) };
        }
        self.tokens.push(token);
        let bytes = self.rules.vocabulary.and_then(|vocabulary| vocabulary.bytes(token)).unwrap_or_default();
        let piece = self.stream.push(bytes);
        let mut text = self.take(&piece);
        if self.finish.is_none() && self.tokens.len() == self.count as usize {
            text += &self.end(Finish::Count);
        }
        Drawn { token: Some(token), text }
    }

    /// Draws the next token by the logits that follow on all before it.
    ///
    /// # Errors
    /// If no token can be drawn.
    ///
    /// # Panics
    /// If the text has ended.
    pub fn draw(&mut self, logits: &[f32]) -> Result<Drawn, GenerateError> {
        assert!(self.finish.is_none(), "the text has ended");
        let token = self.sampler.pick(logits)?;
        if let Some(top) = self.rules.top
            && !self.rules.stop_tokens.contains(&token)
        {
            let scores = LogProbabilities::new(logits)?;
            self.likelihoods.push(Likelihood { log_probability: scores.of(token), top: scores.top(top) });
        }
        Ok(self.accept(token))
    }

    /// Ends it here. Returns the rest of the text.
    pub fn interrupt(&mut self) -> String {
        match self.finish {
            None => self.end(Finish::Interrupted),
            Some(_) => String::new(),
        }
    }

    /// All of it. One that nothing has ended counts as interrupted.
    pub fn into_continued(mut self) -> Continued {
        self.interrupt();
        let Self { tokens, text, finish, likelihoods, .. } = self;
        Continued { tokens, text, finish: finish.unwrap_or(Finish::Interrupted), likelihoods }
    }

    /// Takes text, returns what of it and of that before is certain.
    fn take(&mut self, piece: &str) -> String {
        let released = self.stops.push(piece);
        self.finish = released.found.map(|found| Finish::StopText(found.to_owned()));
        self.text += &released.text;
        released.text
    }

    /// Ends the text, unless what is left of it makes a text to stop at. Returns the rest.
    fn end(&mut self, finish: Finish) -> String {
        let broken = std::mem::take(&mut self.stream).finish();
        let mut text = self.take(broken);
        if self.finish.is_none() {
            let held = self.stops.finish();
            self.text += &held;
            text += &held;
            self.finish = Some(finish);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static BYTES: Vocabulary = Vocabulary::byte_level();

    fn rules(stop_texts: &[&str]) -> Rules<'static> {
        Rules {
            sampling: Sampling::GREEDY,
            stop_tokens: vec![0],
            stop_texts: stop_texts.iter().map(|text| (*text).to_owned()).collect(),
            vocabulary: Some(&BYTES),
            top: Some(2),
        }
    }

    /// Goes on with these bytes as long as it does; returns what came out on the way, and all of it.
    fn run(rules: &Rules<'_>, count: u32, bytes: &[u8]) -> (String, Continued) {
        let mut continuation = Continuation::new(rules, count, 1);
        let mut streamed = String::new();
        for byte in bytes {
            if continuation.finish().is_some() {
                break;
            }
            let mut logits = vec![0.0; 256];
            logits[usize::from(*byte)] = 9.0;
            streamed += &continuation.draw(&logits).expect("numbers").text;
        }
        streamed += &continuation.interrupt();
        (streamed, continuation.into_continued())
    }

    #[test]
    fn what_ends_a_text_is_told() {
        let ends = |stops: &[&str], count, bytes: &[u8]| {
            let rules = rules(stops);
            let (streamed, continued) = run(&rules, count, bytes);
            assert_eq!(streamed, continued.text, "what was streamed is the text");
            assert_eq!(continued.likelihoods.len(), continued.tokens.len());
            (continued.text, continued.tokens.len(), continued.finish)
        };
        let text = |text: &str| text.to_owned();
        assert_eq!(ends(&[], 3, b"abcd"), (text("abc"), 3, Finish::Count));
        assert_eq!(ends(&[], 0, b"abcd"), (text(""), 0, Finish::Count));
        assert_eq!(ends(&[], 9, b"ab\0d"), (text("ab"), 2, Finish::StopToken(0)));
        assert_eq!(ends(&[], 9, b"ab"), (text("ab"), 2, Finish::Interrupted));
        assert_eq!(ends(&["cd"], 9, b"abcde"), (text("ab"), 4, Finish::StopText("cd".into())));
        assert_eq!(ends(&["cd"], 4, b"abcde"), (text("ab"), 4, Finish::StopText("cd".into())), "not the count");
        assert_eq!(ends(&["cd"], 3, b"abcde"), (text("abc"), 3, Finish::Count), "what was held comes out");
        assert_eq!(ends(&["cd"], 9, b"abc\0"), (text("abc"), 3, Finish::StopToken(0)));
        assert_eq!(ends(&["é!"], 9, "aé!".as_bytes()), (text("a"), 4, Finish::StopText("é!".into())));
        assert_eq!(ends(&["x"], 2, "aé".as_bytes()), (text("a\u{fffd}"), 2, Finish::Count), "a broken character");
    }

    #[test]
    fn likelihoods_are_the_model_s_own() {
        let rules = Rules { sampling: Sampling { bias: vec![(1, 100.0)], ..Sampling::GREEDY }, ..rules(&[]) };
        let mut continuation = Continuation::new(&rules, 5, 1);
        let drawn = continuation.draw(&[2.0, 1.0, 0.0]).expect("numbers");
        assert_eq!(drawn.token, Some(1));
        let [likelihood] = continuation.into_continued().likelihoods.try_into().expect("one");
        let log_sum = (2f64.exp() + 1f64.exp() + 1.0).ln();
        assert!((likelihood.log_probability - (1.0 - log_sum)).abs() < 1e-12);
        assert_eq!(likelihood.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [0, 1]);
    }
}
