//! The ops of a graph, with the parts that it includes put in their places.
//!
//! Gets raw nodes and the texts among which parts are found, returns nodes. What holds then: no `Include` is left, the
//! names of a part hold what they were given, and every place is that of the text in which an author wrote it. Parts
//! include no parts. Never looks at what a name means.

use crate::base::diag::Diagnostic;
use crate::base::raw::{Entries, Name, Raw, Reader, Spanned};
use crate::base::span::{SourceId, SourceMap};
use crate::graph::syntax::{ArgSyntax, NodeSyntax, PartSyntax};
use crate::graph::{Arg, Included, Node, NumberPlace, Setting};

/// How deep `ForEach` and `If` may nest.
const MAX_DEPTH: u32 = 16;

/// How often a graph may include a part: each time costs a part's size.
const MAX_INCLUDES: usize = 256;

/// More ops than any graph has: a bound on what parts, included again and again, add to it.
const MAX_INCLUDED_OPS: usize = 1 << 17;

/// The folder of parts, beside graphs.
const FOLDER: &str = "parts";

/// Reads ops.
pub(super) struct Ops<'a> {
    sources: &'a SourceMap,
    /// Path of the folder that the graph's parts are in, with a slash at its end.
    folder: String,
    /// Parts read so far; nothing for those that cannot be read.
    parts: Vec<(SourceId, Option<PartSyntax<'a>>)>,
    /// How many ops parts may still add.
    left: usize,
    /// Which parts were included, and where.
    pub(super) included: Included,
}

/// What the names of a text may take: `{hole}` and what goes there.
#[derive(Clone, Copy)]
struct Scope<'s> {
    settings: &'s [Setting],
    /// Nothing in a graph's own text.
    fills: Option<&'s [(String, String)]>,
}

impl<'a> Ops<'a> {
    /// For the ops of this graph.
    pub(super) fn new(sources: &'a SourceMap, graph: SourceId) -> Self {
        let beside =
            sources.source(graph).name.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        Self {
            sources,
            folder: format!("{beside}{FOLDER}/"),
            parts: Vec::new(),
            left: MAX_INCLUDED_OPS,
            included: Included::default(),
        }
    }

    /// The nodes of a graph.
    pub(super) fn read(&mut self, reader: &mut Reader<'a>, raws: &[Raw<'a>], settings: &[Setting]) -> Vec<Node> {
        self.nodes(reader, raws, Scope { settings, fills: None }, 0)
    }

    fn nodes(&mut self, reader: &mut Reader<'a>, raws: &[Raw<'a>], scope: Scope<'_>, depth: u32) -> Vec<Node> {
        let mut nodes = Vec::new();
        for raw in raws {
            if depth > MAX_DEPTH {
                let span = reader.span(raw);
                reader.diagnostics.push(Diagnostic::error(span, format!("ops nest more than {MAX_DEPTH} deep")));
                continue;
            }
            if scope.fills.is_some() {
                let Some(left) = self.left.checked_sub(1) else {
                    let message = format!("parts add more than {MAX_INCLUDED_OPS} ops to this graph");
                    reader.diagnostics.push(Diagnostic::error(reader.span(raw), message));
                    break;
                };
                self.left = left;
            }
            match reader.node::<NodeSyntax<'_>>(raw) {
                Some(NodeSyntax::Include(part, entries)) => {
                    nodes.extend(self.include(reader, part, &entries, scope, depth));
                }
                Some(syntax) => nodes.extend(self.node(reader, syntax, scope, depth)),
                None => {}
            }
        }
        nodes
    }

    fn node(&mut self, reader: &mut Reader<'a>, syntax: NodeSyntax<'a>, scope: Scope<'_>, depth: u32) -> Option<Node> {
        Some(match syntax {
            NodeSyntax::Op(kernel, entries) => {
                let kernel = scope.name(reader, kernel);
                let args = reader
                    .entries(&entries, "port")
                    .into_iter()
                    .filter_map(|(name, raw)| Some((name, scope.arg(reader, raw)?)))
                    .collect();
                Node::Op { kernel: kernel?, args }
            }
            NodeSyntax::Map(expr, entries, out) => {
                let expr = reader.name(expr);
                let args = reader
                    .entries(&entries, "operand")
                    .into_iter()
                    .filter_map(|(name, raw)| Some((name, scope.name(reader, raw)?)))
                    .collect();
                let out = scope.name(reader, out);
                Node::Map { expr: expr?, args, out: out? }
            }
            NodeSyntax::Let(name, value) => {
                let (name, value) = (scope.name(reader, name), scope.name(reader, value));
                Node::Let { name: name?, value: value? }
            }
            NodeSyntax::ForEach(variable, count, body) => {
                let (variable, count): (_, Option<Spanned>) = (reader.name(variable), reader.expr(count));
                let body = self.nodes(reader, &body, scope, depth + 1);
                Node::ForEach { variable: variable?, count: count?, body }
            }
            NodeSyntax::If(condition, then, otherwise) => {
                let condition = reader.expr(condition);
                let then = self.nodes(reader, &then, scope, depth + 1);
                let otherwise = self.nodes(reader, &otherwise, scope, depth + 1);
                Node::If { condition: condition?, then, otherwise }
            }
            NodeSyntax::Include(..) => unreachable!("parts are put in place by `nodes`"),
        })
    }

    /// The ops of a part, its holes filled.
    fn include(
        &mut self,
        reader: &mut Reader<'a>,
        part: Raw<'a>,
        entries: &Entries<'a>,
        scope: Scope<'_>,
        depth: u32,
    ) -> Vec<Node> {
        let Some(name) = reader.name(part) else { return Vec::new() };
        let given: Vec<(Name, Name)> = reader
            .entries(entries, "hole")
            .into_iter()
            .filter_map(|(name, raw)| Some((name, reader.name(raw)?)))
            .collect();
        let refused = match scope.fills {
            Some(_) => Some("a part includes no other part".to_owned()),
            None if self.included.0.len() >= MAX_INCLUDES => {
                Some(format!("a graph includes parts at most {MAX_INCLUDES} times"))
            }
            None => None,
        };
        if let Some(message) = refused {
            reader.diagnostics.push(Diagnostic::error(name.span, message));
            return Vec::new();
        }
        let path = format!("{}{}.ron", self.folder, name.text);
        let Some(source) = self.sources.find(&path) else {
            let known = self
                .sources
                .iter()
                .filter_map(|(_, source)| source.name.strip_prefix(&self.folder)?.strip_suffix(".ron"));
            let message = format!("there is no part `{}`", name.text);
            let found = Diagnostic::error(name.span, message).suggest(&name.text, known);
            reader.diagnostics.push(found.note(format!("it would be `{path}`")));
            return Vec::new();
        };
        self.included.0.push((source, name.span));
        let mut inside = Reader::new(self.sources, source);
        if !self.parts.iter().any(|(other, _)| *other == source) {
            let syntax = inside.file::<PartSyntax<'_>>();
            self.parts.push((source, syntax));
        }
        let read = self.parts.iter().find(|(other, _)| *other == source).and_then(|(_, syntax)| syntax.as_ref());
        let Some((takes, ops)) = read.map(|part| (part.takes.clone(), part.ops.clone())) else {
            reader.diagnostics.append(&mut inside.diagnostics);
            return Vec::new();
        };
        let fills = fills(reader, &mut inside, &name, &takes, given);
        let nodes = self.nodes(&mut inside, &ops, Scope { fills: Some(&fills), ..scope }, depth);
        reader.diagnostics.append(&mut inside.diagnostics);
        nodes
    }
}

/// What goes into the holes of a part: all that it takes must be given, and nothing else.
fn fills<'a>(
    reader: &mut Reader<'a>,
    inside: &mut Reader<'a>,
    part: &Name,
    takes: &[Raw<'a>],
    given: Vec<(Name, Name)>,
) -> Vec<(String, String)> {
    let takes: Vec<Name> = takes.iter().filter_map(|raw| inside.name(raw)).collect();
    for (name, _) in given.iter().filter(|(name, _)| !takes.contains(name)) {
        let message = format!("part `{}` takes no `{}`", part.text, name.text);
        let known = takes.iter().map(|take| take.text.as_str());
        reader.diagnostics.push(Diagnostic::error(name.span, message).suggest(&name.text, known));
    }
    for take in takes.iter().filter(|take| !given.iter().any(|(name, _)| name == *take)) {
        let message = format!("`{}` of part `{}` is given nothing", take.text, part.text);
        reader.diagnostics.push(Diagnostic::error(part.span, message).also(take.span, "taken here"));
    }
    given.into_iter().map(|(name, value)| (name.text, value.text)).collect()
}

impl Scope<'_> {
    /// A string node with its holes filled, once: what is put in is not looked at again.
    fn name<'a>(&self, reader: &mut Reader<'a>, raw: Raw<'a>) -> Option<Name> {
        let mut name = reader.name(raw)?;
        let fills = self.fills.unwrap_or_default();
        let (mut filled, mut rest) = (String::new(), name.text.as_str());
        while let Some((before, after)) = rest.split_once('{') {
            filled += before;
            let hole = after.split_once('}');
            let fill = hole.and_then(|(hole, _)| fills.iter().find(|(other, _)| other == hole));
            match (fill, hole) {
                (Some((_, value)), Some((_, behind))) => {
                    filled += value;
                    rest = behind;
                }
                _ => {
                    filled.push('{');
                    rest = after;
                }
            }
        }
        filled += rest;
        name.text = filled;
        Some(name)
    }

    fn arg<'a>(&self, reader: &mut Reader<'a>, raw: Raw<'a>) -> Option<Arg> {
        let span = reader.span(raw);
        let text = raw.trim().get_ron();
        if text.starts_with(['"', 'r']) {
            return self.name(reader, raw).map(Arg::Tensor);
        }
        if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
            let number = reader.node::<f64>(raw)?;
            if !number.is_finite() {
                let message = format!("an argument is {number}, expected a finite number");
                reader.diagnostics.push(Diagnostic::error(span, message));
            }
            return Some(Arg::Number(number, NumberPlace(span)));
        }
        match reader.node::<ArgSyntax<'_>>(raw)? {
            ArgSyntax::Eval(expr) => reader.expr(expr).map(Arg::Eval),
            ArgSyntax::Setting(name) => {
                let name = reader.name(name)?;
                if !self.settings.iter().any(|setting| setting.name == name) {
                    let known = self.settings.iter().map(|setting| setting.name.text.as_str());
                    let message = format!("the graph has no setting `{}`", name.text);
                    reader.diagnostics.push(Diagnostic::error(name.span, message).suggest(&name.text, known));
                }
                Some(Arg::Setting(name))
            }
        }
    }
}
