//! Reads RON with places: every part of a file stays a slice of its text until it is understood.
//!
//! Gets a source, returns raw nodes whose byte range in it is known, and typed values from them. Syntax errors become
//! diagnostics at the very character, also inside nested nodes; a bad node does not stop its neighbours from being
//! read. Duplicate keys of a map are kept, so that they can be reported. Never knows what a graph or a kernel is.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use ron::value::RawValue;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::base::diag::Diagnostic;
use crate::base::expr::Expr;
use crate::base::span::{SourceId, SourceMap, Span};

/// A node of a file, not yet understood.
pub type Raw<'a> = &'a RawValue;

/// A map in file order, duplicate keys included.
#[derive(Debug, Default)]
pub struct Entries<'a>(pub Vec<(Raw<'a>, Raw<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for EntriesVisitor<'a> {
            type Value = Entries<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map `{ \"name\": value, … }`")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

/// A field that may be left out, written without `Some(…)`.
pub(crate) fn given<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Raw<'a>>, D::Error> {
    Raw::deserialize(deserializer).map(Some)
}

/// A word of the author's with its place.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(transparent)]
pub struct Name {
    /// The word.
    pub text: String,
    /// Its place, without the quotes.
    #[serde(skip)]
    pub span: Span,
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// An expression of the author's with its place.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(transparent)]
pub struct Spanned {
    /// The expression.
    pub expr: Expr,
    /// Its place, without the quotes.
    #[serde(skip)]
    pub span: Span,
}

impl PartialEq for Spanned {
    fn eq(&self, other: &Self) -> bool {
        self.expr == other.expr
    }
}

/// Reads one source and collects what is wrong with it.
#[derive(Debug)]
pub struct Reader<'a> {
    source: SourceId,
    text: &'a str,
    /// What is wrong so far.
    pub diagnostics: Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    /// A reader of one of the map's sources.
    pub fn new(sources: &'a SourceMap, source: SourceId) -> Self {
        Self { source, text: &sources.source(source).text, diagnostics: Vec::new() }
    }

    /// The whole file as `T`, or nothing and a diagnostic.
    pub fn file<T: Deserialize<'a>>(&mut self) -> Option<T> {
        let text = self.text;
        self.parse(text, 0)
    }

    /// A node as `T`, or nothing and a diagnostic.
    pub fn node<T: Deserialize<'a>>(&mut self, raw: Raw<'a>) -> Option<T> {
        let text = raw.get_ron();
        let start = self.offset(text);
        self.parse(text, start)
    }

    /// The place of a node, without the white space and comments around it.
    pub fn span(&self, raw: Raw<'a>) -> Span {
        let text = raw.trim().get_ron();
        let start = self.offset(text);
        Span::new(self.source, start..start + text.len())
    }

    /// A string node, or nothing and a diagnostic.
    pub fn name(&mut self, raw: Raw<'a>) -> Option<Name> {
        let text = self.node::<String>(raw)?;
        Some(Name { text, span: self.inside(raw) })
    }

    /// A string node that is an expression, or nothing and a diagnostic.
    pub fn expr(&mut self, raw: Raw<'a>) -> Option<Spanned> {
        let Name { text, span } = self.name(raw)?;
        match Expr::parse(&text) {
            Ok(expr) => Some(Spanned { expr, span }),
            Err(error) => {
                let at = (span.start as usize + error.at).min(span.end as usize);
                let place = Span::new(self.source, at..(at + 1).min(span.end as usize).max(at));
                self.diagnostics.push(
                    Diagnostic::error(place, format!("`{text}` is not an expression over dims")).label(error.message),
                );
                None
            }
        }
    }

    /// A list of expressions; the bad ones are left out, with a diagnostic each.
    pub fn exprs(&mut self, raws: &[Raw<'a>]) -> Vec<Spanned> {
        raws.iter().filter_map(|raw| self.expr(raw)).collect()
    }

    /// The entries of a map by name, in file order, with a diagnostic for each duplicate.
    pub fn entries(&mut self, entries: &Entries<'a>, what: &str) -> Vec<(Name, Raw<'a>)> {
        let mut seen: Vec<(Name, Raw<'a>)> = Vec::with_capacity(entries.0.len());
        let mut first_given: HashMap<String, Span> = HashMap::new();
        for (key, value) in &entries.0 {
            let Some(name) = self.name(key) else { continue };
            match first_given.get(&name.text) {
                Some(first) => self.diagnostics.push(
                    Diagnostic::error(name.span, format!("duplicate {what} `{}`", name.text))
                        .also(*first, "first given here"),
                ),
                None => {
                    first_given.insert(name.text.clone(), name.span);
                    seen.push((name, value));
                }
            }
        }
        seen
    }

    /// The place of a string's characters: the node without its quotes, unless it is written in some other way.
    fn inside(&self, raw: Raw<'a>) -> Span {
        let span = self.span(raw);
        let text = &self.text[span.start as usize..span.end as usize];
        match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(_) => Span { start: span.start + 1, end: span.end - 1, ..span },
            None => span,
        }
    }

    /// Where a slice of this reader's text begins.
    fn offset(&self, slice: &str) -> usize {
        let offset = (slice.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        assert!(offset <= self.text.len(), "raw nodes are slices of the text they were read from");
        offset
    }

    fn parse<T: Deserialize<'a>>(&mut self, text: &'a str, start: usize) -> Option<T> {
        match ron::from_str(text) {
            Ok(value) => Some(value),
            Err(error) => {
                let from = start + position(text, error.span.start.line, error.span.start.col);
                let to = start + position(text, error.span.end.line, error.span.end.col);
                let end = to.max(from).min(self.text.len());
                let span = Span::new(self.source, from.min(end)..end);
                self.diagnostics.push(syntax_error(span, &error.code));
                None
            }
        }
    }
}

fn syntax_error(span: Span, code: &ron::Error) -> Diagnostic {
    use ron::Error as E;
    match code {
        E::NoSuchStructField { expected, found, .. } => {
            Diagnostic::error(span, format!("unknown field `{found}`")).suggest(found, expected.iter().copied()).note(
                format!("expected one of {}", expected.iter().map(|e| format!("`{e}`")).collect::<Vec<_>>().join(", ")),
            )
        }
        E::NoSuchEnumVariant { expected, found, .. } => {
            Diagnostic::error(span, format!("unknown word `{found}`")).suggest(found, expected.iter().copied()).note(
                format!("expected one of {}", expected.iter().map(|e| format!("`{e}`")).collect::<Vec<_>>().join(", ")),
            )
        }
        E::MissingStructField { field, .. } => Diagnostic::error(span, format!("missing field `{field}`")),
        E::DuplicateStructField { field, .. } => Diagnostic::error(span, format!("duplicate field `{field}`")),
        E::ExceededRecursionLimit => Diagnostic::error(span, "brackets nest too deeply"),
        other => {
            let text = other.to_string();
            let mut characters = text.chars();
            let lower = characters.next().map(|c| c.to_lowercase().collect::<String>()).unwrap_or_default();
            Diagnostic::error(span, format!("{lower}{}", characters.as_str()))
        }
    }
}

/// Byte offset of a line and column (in characters), both counted from 1.
fn position(text: &str, line: usize, column: usize) -> usize {
    let line_start = match line {
        0 | 1 => 0,
        _ => text.match_indices('\n').nth(line - 2).map_or(text.len(), |(at, _)| at + 1),
    };
    let rest = &text[line_start..];
    line_start + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at)
}
