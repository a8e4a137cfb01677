//! Diagnostics: what is wrong with an author's input, and where.
//!
//! Gets a message, labelled spans and notes; returns text with the offending lines. A diagnostic always says what was
//! expected and what was found. Never prints by itself, never describes the environment or a bug of graphc's own.

use codespan_reporting::diagnostic as codespan;
use codespan_reporting::files::SimpleFiles;
use codespan_reporting::term;
use codespan_reporting::term::termcolor::Buffer;

use crate::base::span::{SourceMap, Span};

/// How much a diagnostic weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The input cannot be used.
    Error,
    /// The input can be used, yet something in it is surely not meant.
    Lint,
}

/// One thing wrong with an input.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// How much it weighs.
    pub severity: Severity,
    /// What is wrong: lower case, no full stop, names in backticks.
    pub message: String,
    /// Where; the first label is the place itself, the others are related places.
    pub labels: Vec<(Span, String)>,
    /// What was expected, what would help.
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            labels: vec![(span, String::new())],
            notes: Vec::new(),
        }
    }

    /// An error that no single place shows, such as a checkpoint that fits no graph.
    pub fn placeless(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), labels: Vec::new(), notes: Vec::new() }
    }

    /// A lint at `span`.
    pub fn lint(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Lint, ..Self::error(span, message) }
    }

    /// The same with a text on its place.
    pub fn label(mut self, text: impl Into<String>) -> Self {
        if let Some(first) = self.labels.first_mut() {
            first.1 = text.into();
        }
        self
    }

    /// The same with a related place.
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push((span, text.into()));
        self
    }

    /// The same with a note.
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// The same with a suggestion, where one of `candidates` is near `found`.
    pub fn suggest<'a>(self, found: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(found, candidates) {
            Some(near) => self.note(format!("did you mean `{near}`?")),
            None => self,
        }
    }
}

/// Longer names than people write: near ones are not looked for.
const MAX_NAME_BYTES: usize = 200;

/// Longer lines than people read: they are named and not shown.
const MAX_LINE_BYTES: usize = 2000;

/// The candidate nearest to `found` by edit distance, if it is near enough to be a slip of the keyboard.
pub fn nearest<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // What nobody could have typed by hand is no slip of the hand: comparing takes the product of both lengths.
    if found.len() > MAX_NAME_BYTES {
        return None;
    }
    let limit = found.chars().count().div_ceil(3).max(1);
    candidates
        .into_iter()
        // A difference in length takes as many letters; one has up to four bytes.
        .filter(|candidate| {
            candidate.len() <= 4 * (found.len() + limit) && found.len() <= 4 * (candidate.len() + limit)
        })
        .map(|candidate| (distance(found, candidate), candidate))
        // A name of one letter is near to no other: nothing of it would stay.
        .filter(|(distance, _)| *distance <= limit && *distance < found.chars().count())
        .min_by_key(|(distance, candidate)| (*distance, *candidate))
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters, two neighbours in the wrong order being one slip.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut next = vec![i + 1; b.len() + 1];
        for (j, cb) in b.iter().enumerate() {
            next[j + 1] = (row[j] + usize::from(ca != cb)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *ca == b[j - 1] && a[i - 1] == *cb {
                next[j + 1] = next[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

/// Renders diagnostics as text, each with the lines it points at.
pub fn render(diagnostics: &[Diagnostic], sources: &SourceMap) -> String {
    let mut out = Buffer::no_color();
    emit(&mut out, diagnostics, sources);
    text(out)
}

/// The same with the escape sequences that colour a terminal.
pub fn render_in_colour(diagnostics: &[Diagnostic], sources: &SourceMap) -> String {
    let mut out = Buffer::ansi();
    emit(&mut out, diagnostics, sources);
    text(out)
}

fn text(out: Buffer) -> String {
    String::from_utf8(out.into_inner()).expect("diagnostics are made of strings")
}

fn emit(out: &mut Buffer, diagnostics: &[Diagnostic], sources: &SourceMap) {
    let mut files = SimpleFiles::new();
    for (_, source) in sources.iter() {
        // Ids of `SimpleFiles` count up from zero in the order of adding, as ours do.
        files.add(source.name.as_str(), source.text.as_str());
    }
    let rich = term::Config::default();
    let brief = term::Config { display_style: term::DisplayStyle::Medium, ..term::Config::default() };
    for diagnostic in diagnostics {
        let severity = match diagnostic.severity {
            Severity::Error => codespan::Severity::Error,
            Severity::Lint => codespan::Severity::Warning,
        };
        let labels = diagnostic.labels.iter().enumerate().map(|(nth, (span, text))| {
            let range = sources.range(*span);
            let label = match nth {
                0 => codespan::Label::primary(span.source.index(), range),
                _ => codespan::Label::secondary(span.source.index(), range),
            };
            label.with_message(text)
        });
        let rendered = codespan::Diagnostic::new(severity)
            .with_message(&diagnostic.message)
            .with_labels(labels.collect())
            .with_notes(diagnostic.notes.clone());
        let is_long = diagnostic.labels.iter().any(|(span, _)| line_bytes(*span, sources) > MAX_LINE_BYTES);
        let config = if is_long { &brief } else { &rich };
        term::emit_to_write_style(out, config, &files, &rendered)
            .expect("spans come from these very sources, and writing to memory does not fail");
    }
}

/// Length of the longer one of the lines on which a span begins and ends: those are shown.
fn line_bytes(span: Span, sources: &SourceMap) -> usize {
    let text = &sources.source(span.source).text;
    let line = |at: usize| {
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        text[at..].find('\n').map_or(text.len(), |newline| at + newline) - start
    };
    let range = sources.range(span);
    line(range.start).max(line(range.end))
}

/// Diagnostics as data for other programs: a list of `{severity, message, labels, notes}`, a label being `{file, line,
/// column, end_line, end_column, text}`. Lines and columns count from 1, columns in characters; the end is the place
/// behind the last character.
pub fn to_json(diagnostics: &[Diagnostic], sources: &SourceMap) -> serde_json::Value {
    let label = |(span, text): &(Span, String)| {
        let (line, column) = sources.line_column(*span);
        let (end_line, end_column) = sources.line_column(Span { start: span.end, ..*span });
        let file = &sources.source(span.source).name;
        serde_json::json!({
            "file": file, "line": line, "column": column, "end_line": end_line, "end_column": end_column, "text": text,
        })
    };
    let one = |diagnostic: &Diagnostic| {
        let severity = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Lint => "lint",
        };
        let labels: Vec<serde_json::Value> = diagnostic.labels.iter().map(label).collect();
        serde_json::json!({
            "severity": severity, "message": diagnostic.message, "labels": labels, "notes": diagnostic.notes,
        })
    };
    diagnostics.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_the_line_and_the_suggestion() {
        let mut sources = SourceMap::new();
        let id = sources.add("a.ron", "Graph(\n    nam: \"x\",\n)");
        let diagnostic =
            Diagnostic::error(Span::new(id, 11..14), "unknown field `nam`").suggest("nam", ["name", "doc", "ops"]);
        let text = render(&[diagnostic], &sources);
        assert!(text.contains("a.ron:2:5"), "{text}");
        assert!(text.contains("did you mean `name`?"), "{text}");
    }

    #[test]
    fn colours_change_no_text() {
        let mut sources = SourceMap::new();
        let id = sources.add("a.ron", "Graph(\n    nam: \"x\",\n)");
        let diagnostics = [Diagnostic::lint(Span::new(id, 11..14), "a lint").label("here").note("a note")];
        let plain = render(&diagnostics, &sources);
        let coloured = render_in_colour(&diagnostics, &sources);
        assert!(!plain.contains('\x1b') && coloured.contains('\x1b'), "{plain}{coloured}");
        let mut pieces = coloured.split('\x1b').map(|piece| piece.split_once('m').map_or(piece, |(_, rest)| rest));
        let first = coloured.split('\x1b').next().unwrap_or("");
        pieces.next();
        assert_eq!(format!("{first}{}", pieces.collect::<String>()), plain);
    }

    #[test]
    fn data_names_lines_and_columns() {
        let mut sources = SourceMap::new();
        let id = sources.add("a.ron", "«»(\n    nam: 1)");
        let json = to_json(&[Diagnostic::error(Span::new(id, 4..13), "wrong").note("a note")], &sources);
        let expected = r#"[{"labels":[{"column":3,"end_column":8,"end_line":2,"file":"a.ron","line":1,"text":""}],
            "message":"wrong","notes":["a note"],"severity":"error"}]"#;
        assert_eq!(json, serde_json::from_str::<serde_json::Value>(expected).expect("JSON"));
    }

    #[test]
    fn far_names_are_not_suggested() {
        assert_eq!(nearest("layer_norm", ["embed", "linear"]), None);
        assert_eq!(nearest("X", ["B", "C"]), None);
        assert_eq!(nearest("layernorm", ["embed", "layer_norm"]), Some("layer_norm"));
        assert_eq!(nearest("layer3.wvk", ["layer3.k", "layer3.v", "layer3.wkv"]), Some("layer3.wkv"));
    }
}
