//! What the sanitizer found, in words.
//!
//! Gets mistakes with their places, returns diagnostics that show the lines of the kernels. What holds then: findings
//! that differ in nothing but where they happened are one, and their number is bounded. Never prints.

use std::collections::HashSet;
use std::fmt;

use serde::Serialize;

use crate::base::diag::{Diagnostic, render};
use crate::base::span::{SourceMap, Span};

/// What was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// An index that is not below the length of what it indexes.
    OutOfBounds,
    /// A read of memory that nothing has written.
    Unwritten,
    /// Two invocations of a dispatch touch a word, one of them writes it, and nothing orders them.
    Race,
    /// A barrier that not all invocations of a workgroup reach.
    Barrier,
    /// Two commands touch a word, one of them writes it, and no transition orders them.
    Unordered,
    /// A buffer is in another usage than a command, a transition or the next step needs.
    Usage,
    /// A NaN or an infinity is stored.
    NotFinite,
}

/// A line of a kernel, or a command that has none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Place {
    /// The file of the line; a name of the kernel for a line that its author has not written.
    pub file: String,
    /// From 1; 0 where there is no line.
    pub line: u32,
    /// The line.
    pub text: String,
    /// Who did what there.
    pub label: String,
    /// The op's path, or the copy's label.
    pub command: String,
    /// The kernel, if it is a dispatch.
    pub kernel: Option<String>,
    /// The place in the graph, as `file:line:column`; empty for a copy.
    pub graph: String,
}

/// One thing wrong with what a step did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked for.
    pub check: Check,
    /// What is wrong.
    pub message: String,
    /// Where; of two that meet, the later one first.
    pub places: Vec<Place>,
    /// The label of the buffer, or what it is.
    pub buffer: String,
    /// What else there is to know.
    pub notes: Vec<String>,
}

impl Finding {
    /// What makes two findings one: the check, the lines, the buffer.
    fn key(&self) -> String {
        let place = |place: &Place| match place.line {
            0 => place.command.clone(),
            line => format!("{}:{line}", place.file),
        };
        let places: Vec<String> = self.places.iter().map(place).collect();
        format!("{:?} {places:?} {}", self.check, self.buffer)
    }

    /// As a diagnostic with the lines that it points at.
    fn diagnostic(&self) -> (Diagnostic, SourceMap) {
        let mut files: Vec<(&str, Vec<&Place>)> = Vec::new();
        for place in self.places.iter().filter(|place| place.line > 0) {
            match files.iter_mut().find(|(file, _)| *file == place.file) {
                Some((_, places)) => places.push(place),
                None => files.push((&place.file, vec![place])),
            }
        }
        // Of each file, the lines alone that are shown, each at its own number.
        let mut sources = SourceMap::new();
        let mut ids = Vec::new();
        for (file, places) in &files {
            let last = places.iter().map(|place| place.line).max().unwrap_or(0);
            let line = |number: u32| places.iter().find(|place| place.line == number).map_or("", |place| &place.text);
            let text: Vec<&str> = (1..=last).map(line).collect();
            ids.push((*file, sources.add(*file, text.join("\n"))));
        }
        let mut diagnostic = Diagnostic::placeless(&self.message);
        for place in self.places.iter().filter(|place| place.line > 0) {
            let (_, id) = ids.iter().find(|(file, _)| *file == place.file).expect("every file was added");
            let text = &sources.source(*id).text;
            let start: usize = text.split('\n').take(place.line as usize - 1).map(|line| line.len() + 1).sum();
            let indent = place.text.len() - place.text.trim_start().len();
            let span = Span::new(*id, start + indent..start + place.text.trim_end().len());
            diagnostic = diagnostic.also(span, &place.label);
        }
        for place in self.places.iter().filter(|place| place.line == 0) {
            diagnostic = diagnostic.note(&place.label);
        }
        let diagnostic = self.notes.iter().fold(diagnostic, |diagnostic, note| diagnostic.note(note));
        (diagnostic, sources)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (diagnostic, sources) = self.diagnostic();
        f.write_str(&render(&[diagnostic], &sources))
    }
}

/// Findings that are kept; whoever has mended these sees the next ones.
const MAX_FINDINGS: usize = 20;

/// Findings, each once.
#[derive(Debug, Default)]
pub(in crate::exec::reference) struct Findings {
    list: Vec<Finding>,
    keys: HashSet<String>,
    omitted: u64,
}

impl Findings {
    pub(in crate::exec::reference) fn push(&mut self, finding: Finding) {
        if self.list.len() == MAX_FINDINGS {
            self.omitted += u64::from(!self.keys.contains(&finding.key()));
        } else if self.keys.insert(finding.key()) {
            self.list.push(finding);
        }
    }

    pub(in crate::exec::reference) fn list(&self) -> &[Finding] {
        &self.list
    }

    /// How many were left out, for being too many.
    pub(in crate::exec::reference) const fn omitted(&self) -> u64 {
        self.omitted
    }
}
