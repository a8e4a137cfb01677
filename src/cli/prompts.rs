//! The file of `graphc run --prompts`, and what comes of it.
//!
//! Gets the text of a file, returns its prompts; gets what each goes on with, in any order, and prints it in the
//! file's. A file whose first line begins with `{` is JSON lines and is answered with JSON lines; any other holds a
//! prompt a line, and each answer stands below a line that repeats it. Blank lines are skipped. Never runs anything.

use serde::Deserialize;

use crate::base::diag::Diagnostic;
use crate::base::span::{SourceId, SourceMap, Span};
use crate::cli::{Failure, answer, print_result, rendered, text};
use crate::generate::GenerateError;
use crate::generate::continuation::Continued;
use crate::generate::queue::Prompt;
use crate::generate::vocabulary::Vocabulary;

/// What holds for a prompt that does not say otherwise.
pub(super) struct Defaults<'v> {
    /// How many tokens to generate.
    pub count: u32,
    pub seed: u64,
    /// The token before every text.
    pub start: Option<u32>,
    /// The token before every list of tokens.
    pub start_of_tokens: Option<u32>,
    /// Size of the vocabulary, if it is known.
    pub size: Option<u64>,
    /// The vocabulary, instead of the one that models of this size have.
    pub vocabulary: Option<&'v Vocabulary>,
}

/// Tokens beyond the vocabulary that are named in a list: more of them are one mistake.
pub(super) const MAX_STRAY: usize = 8;

/// What a prompt is called in the results.
enum Label {
    Json(serde_json::Value),
    Text { number: u64, line: String },
}

/// The prompts of a file.
pub(super) struct List {
    pub prompts: Vec<Prompt>,
    labels: Vec<Label>,
}

/// The fields of [`Line`].
const FIELDS: [&str; 5] = ["id", "prompt", "tokens", "n", "seed"];

/// A line of a JSON lines file.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<serde_json::Value>,
    prompt: Option<String>,
    tokens: Option<Vec<u32>>,
    n: Option<u32>,
    seed: Option<u64>,
}

/// The prompts of a text; `name` is its file's. All that is wrong comes out together.
pub(super) fn parse(name: &str, text: &str, defaults: &Defaults<'_>) -> Result<List, Failure> {
    let lines = || text.lines().zip(1u64..).filter(|(line, _)| !line.trim().is_empty());
    let is_json = lines().next().is_some_and(|(line, _)| line.trim_start().starts_with('{'));
    let mut list = List { prompts: Vec::new(), labels: Vec::new() };
    let mut map = SourceMap::new();
    let source = map.add(name, text);
    let mut wrong = Vec::new();
    for (line, number) in lines() {
        // Both are of one text, so their addresses tell how far in the line begins.
        let place = Place { source, start: line.as_ptr() as usize - text.as_ptr() as usize, line };
        let read = match is_json {
            true => json(&place),
            false => Ok(Line { prompt: Some(line.to_owned()), ..Line::default() }),
        };
        let read = read.map_err(|error| vec![error]);
        match read.and_then(|mut read| Ok((read.id.take(), prompt(read, &place, defaults)?))) {
            Ok((id, prompt)) => {
                list.prompts.push(prompt);
                list.labels.push(match is_json {
                    true => Label::Json(id.unwrap_or_else(|| number.into())),
                    false => Label::Text { number, line: line.to_owned() },
                });
            }
            Err(mut found) => wrong.append(&mut found),
        }
    }
    if !wrong.is_empty() {
        return Err(Failure::Diagnostics(rendered(&wrong, &map)));
    }
    if list.prompts.is_empty() {
        return Err(Failure::Environment(format!("`{name}` is blank: there is no prompt in it")));
    }
    Ok(list)
}

/// A line in its file.
struct Place<'t> {
    source: SourceId,
    /// Its first byte.
    start: usize,
    line: &'t str,
}

impl Place<'_> {
    /// Some bytes of the line.
    fn span(&self, range: std::ops::Range<usize>) -> Span {
        Span::new(self.source, self.start + range.start..self.start + range.end)
    }

    /// All of the line but the blanks around it.
    fn whole(&self) -> Span {
        let begin = self.line.len() - self.line.trim_start().len();
        self.span(begin..self.line.trim_end().len())
    }

    /// Where `serde_json` found something wrong: it counts bytes from 1, and stands on the last one that it read. What
    /// is shown is the string or the word that ends there, or the byte alone.
    fn of(&self, error: &serde_json::Error) -> Span {
        let end = error.column().min(self.line.trim_end().len());
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        let start = match self.line.as_bytes()[..end].split_last() {
            Some((b'"', before)) => before.iter().rposition(|byte| *byte == b'"').unwrap_or(before.len()),
            Some((last, before)) if is_word(last) => {
                before.iter().rposition(|byte| !is_word(byte)).map_or(0, |at| at + 1)
            }
            _ => end.saturating_sub(1),
        };
        self.span(start..end)
    }
}

/// A line of JSON. `serde` would also read a list as the fields of a struct, one after the other.
fn json(place: &Place<'_>) -> Result<Line, Diagnostic> {
    if !place.line.trim_start().starts_with('{') {
        let message = "expected an object, as in `{\"prompt\": \"once\"}`: the file begins as JSON lines";
        return Err(Diagnostic::error(place.whole(), message));
    }
    serde_json::from_str(place.line).map_err(|error| {
        let text = error.to_string();
        // Behind this, it repeats the line, which is always the first, and the column.
        let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
        let field = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, expected one of "));
        match field {
            Some((field, _)) => Diagnostic::error(place.of(&error), format!("unknown field `{field}`"))
                .suggest(field, FIELDS)
                .note(format!("expected one of `{}`", FIELDS.join("`, `"))),
            None => Diagnostic::error(place.of(&error), message),
        }
    })
}

/// What a line asks for, or all that is wrong with it.
fn prompt(line: Line, place: &Place<'_>, defaults: &Defaults<'_>) -> Result<Prompt, Vec<Diagnostic>> {
    let wrong = |message: String| Diagnostic::error(place.whole(), message);
    let start = if line.tokens.is_some() { defaults.start_of_tokens } else { defaults.start };
    let mut tokens = Vec::from_iter(start);
    match (line.prompt, line.tokens) {
        (Some(text), None) => {
            let read = text::tokenize(&text, defaults.vocabulary, defaults.size);
            tokens.extend(read.map_err(|message| vec![wrong(message)])?);
        }
        (None, Some(given)) => tokens.extend(given),
        (Some(_), Some(_)) => return Err(vec![wrong("expected either `prompt` or `tokens`, found both".into())]),
        (None, None) => return Err(vec![wrong("expected either `prompt` or `tokens`, found neither".into())]),
    }
    if tokens.is_empty() {
        return Err(vec![wrong("nothing to go on from: it has no tokens".into())]);
    }
    if let Some(vocabulary) = defaults.size {
        let stray = tokens.iter().enumerate().filter(|(_, token)| u64::from(**token) >= vocabulary);
        let stray = stray.map(|(at, token)| wrong(GenerateError::Token { token: *token, at, vocabulary }.to_string()));
        let stray: Vec<Diagnostic> = stray.take(MAX_STRAY).collect();
        if !stray.is_empty() {
            return Err(stray);
        }
    }
    Ok(Prompt { tokens, count: line.n.unwrap_or(defaults.count), seed: line.seed.unwrap_or(defaults.seed) })
}

/// Prints results in the order of the prompts, each as soon as those before it are printed.
pub(super) struct Printer<'l> {
    list: &'l List,
    vocabulary: Option<&'l Vocabulary>,
    /// Whether all that is known is printed, as JSON lines.
    in_full: bool,
    waiting: Vec<Option<Continued>>,
    printed: usize,
}

impl<'l> Printer<'l> {
    /// Prints what follows on these prompts as text of this vocabulary, or as tokens.
    pub(super) fn new(list: &'l List, vocabulary: Option<&'l Vocabulary>, in_full: bool) -> Self {
        Self { list, vocabulary, in_full, waiting: vec![None; list.prompts.len()], printed: 0 }
    }

    /// Takes what was generated for a prompt.
    pub(super) fn take(&mut self, nth: usize, continued: Continued) -> Result<(), Failure> {
        self.waiting[nth] = Some(continued);
        while let Some(continued) = self.waiting.get_mut(self.printed).and_then(Option::take) {
            print_result(&self.entry(self.printed, &continued))?;
            self.printed += 1;
        }
        Ok(())
    }

    fn entry(&self, nth: usize, continued: &Continued) -> String {
        let Continued { tokens, text, .. } = continued;
        let text = self.vocabulary.map(|_| text);
        match &self.list.labels[nth] {
            label if self.in_full => {
                let id = match label {
                    Label::Json(id) => id.clone(),
                    Label::Text { number, .. } => (*number).into(),
                };
                answer::json(Some(&id), self.list.prompts[nth].tokens.len(), continued, self.vocabulary)
            }
            Label::Json(id) => match text {
                Some(text) => format!("{}\n", serde_json::json!({ "id": id, "text": text })),
                None => format!("{}\n", serde_json::json!({ "id": id, "tokens": tokens })),
            },
            Label::Text { number, line } => {
                let list = || tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
                let between = if nth > 0 { "\n" } else { "" };
                let text = text.cloned().unwrap_or_else(list);
                format!("{between}==> {number}: {line} <==\n{text}\n")
            }
        }
    }
}

#[cfg(test)]
#[path = "../../tests/fuzzing/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::continuation::Finish;

    const DEFAULTS: Defaults<'_> =
        Defaults { count: 7, seed: 1, start: Some(0), start_of_tokens: None, size: Some(256), vocabulary: None };
    static BYTES: Vocabulary = Vocabulary::byte_level();

    fn read(text: &str) -> Result<List, String> {
        parse("p", text, &DEFAULTS).map_err(|failure| match failure {
            Failure::Diagnostics(text) | Failure::Environment(text) => text,
        })
    }

    fn prompt(tokens: &[u32], count: u32, seed: u64) -> Prompt {
        Prompt { tokens: tokens.to_vec(), count, seed }
    }

    fn said(tokens: &[u32]) -> Continued {
        let (tokens, text) = (tokens.to_vec(), BYTES.decode(tokens));
        Continued { tokens, text, finish: Finish::Count, likelihoods: Vec::new() }
    }

    #[test]
    fn a_prompt_a_line() {
        let list = read("ab\n\n c\n").expect("two prompts");
        assert_eq!(list.prompts, [prompt(&[0, 97, 98], 7, 1), prompt(&[0, 32, 99], 7, 1)]);
        let printer = Printer::new(&list, Some(&BYTES), false);
        assert_eq!(printer.entry(0, &said(&[104, 105])), "==> 1: ab <==\nhi\n");
        assert_eq!(printer.entry(1, &said(&[104, 0xc3])), "\n==> 3:  c <==\nh\u{fffd}\n");
        assert_eq!(Printer::new(&list, None, false).entry(0, &said(&[104, 105])), "==> 1: ab <==\n104,105\n");
    }

    #[test]
    fn json_lines_are_answered_in_kind() {
        let list =
            read("{\"prompt\": \"a\\nb\"}\n{\"tokens\": [5], \"n\": 2, \"id\": \"x\", \"seed\": 9}\n").expect("two");
        assert_eq!(list.prompts, [prompt(&[0, 97, 10, 98], 7, 1), prompt(&[5], 2, 9)]);
        assert_eq!(
            Printer::new(&list, Some(&BYTES), false).entry(0, &said(&[34, 10])),
            "{\"id\":1,\"text\":\"\\\"\\n\"}\n"
        );
        assert_eq!(Printer::new(&list, None, false).entry(1, &said(&[3, 4])), "{\"id\":\"x\",\"tokens\":[3,4]}\n");
        assert_eq!(
            Printer::new(&list, Some(&BYTES), true).entry(1, &said(&[97, 98])),
            "{\"id\":\"x\",\"text\":\"ab\",\"tokens\":[97,98],\"finish\":\"count\",\"prompt_tokens\":1,\
             \"generated_tokens\":2}\n"
        );
    }

    #[test]
    fn all_that_is_wrong_is_said_with_its_line() {
        let message =
            read("{\"prompt\": \"a\"}\n{}\n{\"tokens\": [1, 256]}\n{\"promt\": \"a\"}\n[").err().expect("wrong");
        for part in [
            "error: expected either `prompt` or `tokens`, found neither\n  ┌─ p:2:1\n",
            "error: token 256 (number 1, from 0) is not in the vocabulary of 256\n  ┌─ p:3:1\n",
            "error: unknown field `promt`\n  ┌─ p:4:2\n",
            "  = did you mean `prompt`?\n",
            "the file begins as JSON lines\n  ┌─ p:5:1\n",
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(message.matches("error: ").count(), 4, "{message}");
        assert_eq!(read(" \n\n").err().as_deref(), Some("`p` is blank: there is no prompt in it"));
    }

    /// What `tests/fuzz.rs` does with the readers of the library.
    #[test]
    fn what_nobody_would_write_is_read_or_refused() {
        let seeds = [
            include_bytes!("../../tests/fuzz_corpus/prompts/lines.jsonl").to_vec(),
            include_bytes!("../../tests/fuzz_corpus/prompts/texts.txt").to_vec(),
        ];
        let words = mutate::words(&seeds);
        let mut read_well = 0;
        for round in 0..3000 {
            let input = mutate::mutated(&mut fastrand::Rng::with_seed(round), &seeds, &words);
            match read(&String::from_utf8_lossy(&input)) {
                Ok(list) => {
                    read_well += 1;
                    let printer = Printer::new(&list, Some(&BYTES), false);
                    (0..list.prompts.len()).for_each(|nth| drop(printer.entry(nth, &said(&[104, 0xff]))));
                }
                Err(message) => assert!(!message.is_empty(), "round {round}"),
            }
        }
        assert!((300..2700).contains(&read_well), "{read_well} of 3000 are right: both paths are met");
    }
}
