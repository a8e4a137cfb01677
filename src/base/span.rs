//! Places in source texts.
//!
//! Gets named texts, returns a [`SourceId`] for each; a [`Span`] is a byte range in one of them. Spans survive into
//! plans, so every later stage can point at the line an author wrote. Never reads files.

use serde::{Deserialize, Serialize};

use crate::base::arena::{Arena, Entity, Id};

/// A named text: a graph, a kernel manifest, a WGSL file.
#[derive(Clone, Debug)]
pub struct Source {
    /// Name to print, usually a path.
    pub name: String,
    /// The text.
    pub text: String,
}

impl Entity for Source {
    const PREFIX: &'static str = "source";
}

/// Which text.
pub type SourceId = Id<Source>;

/// A byte range in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    /// Which text.
    pub source: SourceId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// A span of `source`.
    pub fn new(source: SourceId, range: std::ops::Range<usize>) -> Self {
        Self { source, start: range.start as u32, end: range.end as u32 }
    }
}

/// All texts that spans may point into.
#[derive(Clone, Debug, Default)]
pub struct SourceMap {
    sources: Arena<Source>,
}

impl SourceMap {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> SourceId {
        self.sources.push(Source { name: name.into(), text: text.into() })
    }

    /// The text and its name.
    pub fn source(&self, id: SourceId) -> &Source {
        &self.sources[id]
    }

    /// The first text of this name.
    pub fn find(&self, name: &str) -> Option<SourceId> {
        self.sources.iter().find(|(_, source)| source.name == name).map(|(id, _)| id)
    }

    /// The bytes of a span as text.
    pub fn text(&self, span: Span) -> &str {
        &self.sources[span.source].text[self.range(span)]
    }

    /// The bytes of a span, moved to where characters begin. A span inside a string counts from the string's first
    /// character, and escapes can shift it.
    pub fn range(&self, span: Span) -> std::ops::Range<usize> {
        let text = &self.sources[span.source].text;
        let start = text.floor_char_boundary(span.start as usize);
        start..text.floor_char_boundary(span.end as usize).max(start)
    }

    /// Line and column of a span's start, counted from 1; the column counts characters.
    pub fn line_column(&self, span: Span) -> (u32, u32) {
        let before = &self.sources[span.source].text[..self.range(span).start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() as u32 + 1, before[line_start..].chars().count() as u32 + 1)
    }

    /// `name:line:column` of a span's start.
    pub fn place(&self, span: Span) -> String {
        let (line, column) = self.line_column(span);
        format!("{}:{line}:{column}", self.sources[span.source].name)
    }

    /// All texts with their ids, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (SourceId, &Source)> {
        self.sources.iter()
    }
}
