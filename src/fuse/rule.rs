//! Rewrite rules as data.
//!
//! Gets RON files and the kernels that they name ([`parse`]), returns rules. What holds then: every op of a rule names
//! a
//! kernel and all of its ports, every name is defined before it is used or is free in the pattern, what the replacement
//! defines for others is defined by the pattern too, and no update of a state gets lost. Never looks at a model.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::base::diag::Diagnostic;
use crate::base::dtype::DType;
use crate::base::raw::{Entries, Name, Raw, Reader, Spanned, given};
use crate::base::span::{SourceId, SourceMap, Span};
use crate::kernel::{GUARD_FACTS, KernelDef, KernelLib, map, unknown_name};

/// Names of a step's size, which rules may use beside the dims of their own shapes.
pub const STEP_DIMS: [&str; 3] = ["T", "S", "R"];

/// The rules of all files, in the order in which they are tried: larger patterns first, then by name.
#[derive(Clone, Debug, Default)]
pub struct Rules(pub(super) Vec<Rule>);

impl Rules {
    /// All rules.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }

    /// The rule of this name alone, on any device; none if there is no such rule.
    pub fn only(&self, name: &str) -> Self {
        let rules = self.0.iter().filter(|rule| rule.name == name);
        Self(rules.map(|rule| Rule { on_any_device: true, ..rule.clone() }).collect())
    }
}

/// A pattern of ops and what takes its place.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name, which is that of its file.
    pub name: String,
    /// What it does, for readers.
    pub doc: String,
    /// The whole file.
    pub span: Span,
    /// Whether results do not depend on the size of a step that the rule applies to: whether it may be applied where
    /// that is asked for.
    pub batch_invariant: bool,
    /// Whether its guard takes it that the device has cooperative matrices: where the rule itself is tried, by kernels
    /// that every device can run.
    pub on_any_device: bool,
    /// When it may be applied: over its dims, the step's size and what the device offers.
    pub when: Option<Spanned>,
    /// When that is faster, over the same: nothing if it always is. Where the rule itself is tried, it need not be.
    pub pays: Option<Spanned>,
    /// Sizes to try it with: values of the dims of its shapes.
    pub examples: Vec<BTreeMap<String, u64>>,
    /// The shapes of variables, over dims that they define.
    pub shapes: Vec<(usize, Vec<Spanned>)>,
    /// Element types that variables must have.
    pub dtypes: Vec<(usize, DType)>,
    /// The tensors of both sides.
    pub variables: Vec<Variable>,
    /// What is looked for.
    pub pattern: Vec<Step>,
    /// What takes its place.
    pub replacement: Vec<Step>,
    /// Variables that both sides define: all that remains of the pattern.
    pub outputs: Vec<usize>,
}

impl Rule {
    /// Whether its replacement reads a weight by columns.
    pub fn takes_copies(&self) -> bool {
        let mut args = self.replacement.iter().flat_map(|step| &step.args);
        args.any(|arg| matches!(arg.input, Some(Term::Transposed(_))))
    }
}

/// A tensor of a rule.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name.
    pub name: Name,
    /// What it may stand for.
    pub kind: Kind,
    /// Whether the pattern uses it without defining it.
    pub is_free: bool,
}

/// What a variable may stand for, told by how its name begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `w.`: a weight.
    Weight,
    /// `state.`: a version of a state.
    State,
    /// `in.`: what the host fills.
    Input,
    /// Anything that is no weight.
    Value,
}

/// An op of a rule.
#[derive(Clone, Debug)]
pub struct Step {
    /// What computes it.
    pub action: Action,
    /// What each port is bound to; of a map, its operands in the order in which they come in the expression, and the
    /// result.
    pub args: Vec<StepArg>,
    /// Its constants.
    pub consts: Vec<(Name, ConstTerm)>,
    /// A map's expression as its author wrote it, with the names that `args` have for ports.
    pub expr: Option<Name>,
    /// Its place in the rule.
    pub span: Span,
}

/// What computes an op of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// This kernel.
    Kernel(String),
    /// A map, with its operands numbered as they come.
    Map(String),
}

/// What a port is bound to.
#[derive(Clone, Debug)]
pub struct StepArg {
    /// The port.
    pub port: String,
    /// What it reads or updates.
    pub input: Option<Term>,
    /// What it defines.
    pub output: Option<Term>,
}

/// One tensor, or several one after the other.
#[derive(Clone, Debug)]
pub enum Term {
    /// This variable.
    One(usize),
    /// These, joined.
    Join(Vec<usize>),
    /// This weight, a matrix, by columns.
    Transposed(usize),
}

impl Term {
    /// The variables.
    pub fn variables(&self) -> &[usize] {
        match self {
            Self::One(one) | Self::Transposed(one) => std::slice::from_ref(one),
            Self::Join(many) => many,
        }
    }
}

/// A constant of an op of a rule.
#[derive(Clone, Debug)]
pub enum ConstTerm {
    /// This number.
    Number(f64),
    /// This value over the rule's dims.
    Eval(Spanned),
    /// In the pattern any number, in the replacement that number.
    Any(Name),
}

#[derive(Deserialize)]
#[serde(rename = "Rewrite", deny_unknown_fields)]
struct RewriteSyntax<'a> {
    #[serde(default)]
    doc: String,
    #[serde(default)]
    batch_invariant: bool,
    #[serde(borrow, default)]
    shapes: Entries<'a>,
    #[serde(borrow, default)]
    dtypes: Entries<'a>,
    #[serde(borrow, default, deserialize_with = "given")]
    when: Option<Raw<'a>>,
    #[serde(borrow, default, deserialize_with = "given")]
    pays: Option<Raw<'a>>,
    #[serde(default)]
    examples: Vec<BTreeMap<String, u64>>,
    #[serde(borrow)]
    pattern: Vec<Raw<'a>>,
    #[serde(borrow)]
    replacement: Vec<Raw<'a>>,
}

#[derive(Deserialize)]
enum StepSyntax<'a> {
    Op(#[serde(borrow)] Raw<'a>, #[serde(borrow)] Entries<'a>),
    Map(#[serde(borrow)] Raw<'a>, #[serde(borrow)] Entries<'a>, #[serde(borrow)] Raw<'a>),
}

#[derive(Deserialize)]
enum TermSyntax<'a> {
    #[serde(borrow)]
    Eval(Raw<'a>),
    #[serde(borrow)]
    Any(Raw<'a>),
    #[serde(borrow)]
    Join(Vec<Raw<'a>>),
    #[serde(borrow)]
    Transposed(Raw<'a>),
}

/// What to do with rules for kernels that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// They are mistakes.
    Wrong,
    /// They are for other kernels.
    LeftOut,
}

/// Adds the texts of rules to `sources`, by paths relative to the folder of graphs; returns each rule's name and text.
pub fn add(sources: &mut SourceMap, texts: &[(String, String)]) -> Vec<(String, SourceId)> {
    let name =
        |path: &str| path.rsplit('/').next().and_then(|file| file.strip_suffix(".ron")).unwrap_or(path).to_owned();
    texts.iter().map(|(path, text)| (name(path), sources.add(format!("graphs/{path}"), text.as_str()))).collect()
}

/// Parses the rules of some files, each against the kernels.
///
/// # Errors
/// Everything that is wrong with any of them.
pub fn parse(
    sources: &SourceMap,
    files: &[(String, SourceId)],
    lib: &KernelLib,
    unknown: Unknown,
) -> Result<Rules, Vec<Diagnostic>> {
    let mut rules = Vec::new();
    let mut diagnostics = Vec::new();
    for (name, source) in files {
        let mut reader = Reader::new(sources, *source);
        let syntax = reader.file::<RewriteSyntax<'_>>();
        if unknown == Unknown::LeftOut && syntax.as_ref().is_some_and(|syntax| !has_kernels(&mut reader, lib, syntax)) {
            continue;
        }
        let rule = syntax.and_then(|syntax| rule(&mut reader, lib, name, *source, syntax));
        rules.extend(rule.filter(|_| reader.diagnostics.is_empty()));
        diagnostics.append(&mut reader.diagnostics);
    }
    rules.sort_by(|a: &Rule, b: &Rule| b.pattern.len().cmp(&a.pattern.len()).then_with(|| a.name.cmp(&b.name)));
    if diagnostics.is_empty() { Ok(Rules(rules)) } else { Err(diagnostics) }
}

/// Whether all kernels of a rule are there.
fn has_kernels<'a>(reader: &mut Reader<'a>, lib: &KernelLib, syntax: &RewriteSyntax<'a>) -> bool {
    syntax.pattern.iter().chain(&syntax.replacement).all(|raw| match reader.node::<StepSyntax<'_>>(raw) {
        Some(StepSyntax::Op(kernel, _)) => reader.name(kernel).is_none_or(|name| lib.get(&name.text).is_some()),
        _ => true,
    })
}

fn rule<'a>(
    reader: &mut Reader<'a>,
    lib: &KernelLib,
    name: &str,
    source: SourceId,
    syntax: RewriteSyntax<'a>,
) -> Option<Rule> {
    let mut sides = Sides { lib, variables: Vec::new(), names: BTreeMap::new(), last: None };
    let pattern = sides.steps(reader, &syntax.pattern);
    let (first, last) = (sides.names.clone(), sides.names.clone());
    // The replacement begins with what the pattern found.
    sides.names = first.into_keys().filter_map(|name| Some((name.clone(), sides.free(&name)?))).collect();
    sides.last = Some(last);
    let known = sides.variables.len();
    let replacement = sides.steps(reader, &syntax.replacement);
    let defined = |steps: &[Step]| -> Vec<usize> {
        let outputs = steps.iter().flat_map(|step| &step.args).filter_map(|arg| arg.output.as_ref());
        outputs.flat_map(|term| term.variables().to_vec()).collect()
    };
    let (before, after) = (defined(&pattern), defined(&replacement));
    let outputs: Vec<usize> = after.iter().copied().filter(|variable| before.contains(variable)).collect();
    // What an op is to define that could not be read is not missed.
    let are_whole = (pattern.len(), replacement.len()) == (syntax.pattern.len(), syntax.replacement.len());
    if are_whole {
        let unbound = sides.unbound(known);
        reader.diagnostics.extend(unbound);
        reader.diagnostics.extend(unfound(&pattern, &replacement));
        let lost = sides.lost(&pattern, &before, &outputs);
        reader.diagnostics.extend(lost);
    }
    if syntax.pattern.is_empty() || syntax.replacement.is_empty() {
        let span = Span::new(source, 0..1);
        reader.diagnostics.push(Diagnostic::error(span, "expected ops, and replacements for what they define"));
        return None;
    }
    if pattern.is_empty() {
        return None;
    }
    let shapes = sides.shapes(reader, &syntax.shapes);
    let dtypes = sides.dtypes(reader, &syntax.dtypes);
    let when = syntax.when.and_then(|when| reader.expr(when));
    let pays = syntax.pays.and_then(|pays| reader.expr(pays));
    let rule = Rule {
        name: name.to_owned(),
        doc: syntax.doc,
        span: pattern[0].span,
        batch_invariant: syntax.batch_invariant,
        on_any_device: false,
        when,
        pays,
        examples: syntax.examples,
        shapes,
        dtypes,
        variables: sides.variables,
        pattern,
        replacement,
        outputs,
    };
    let unknown = unknown_dims(&rule);
    reader.diagnostics.extend(unknown);
    Some(rule)
}

/// A diagnostic for each join of a pattern, which could stand for nothing, for each transposed tensor where there is no
/// such thing, and for each number that the replacement takes from a constant that the pattern does not have.
fn unfound(pattern: &[Step], replacement: &[Step]) -> Vec<Diagnostic> {
    let is_join = |term: &Option<Term>| matches!(term, Some(Term::Join(_)));
    let joins = pattern.iter().filter_map(|step| {
        let arg = step.args.iter().find(|arg| is_join(&arg.input) || is_join(&arg.output))?;
        let message = format!("port `{}` of a pattern is given several tensors", arg.port);
        Some(Diagnostic::error(step.span, message).note("graphs join nothing: `Join` is for replacements"))
    });
    let is_transposed = |term: &Option<Term>| matches!(term, Some(Term::Transposed(_)));
    let in_pattern = pattern.iter().flat_map(|step| step.args.iter().map(move |arg| (step, arg)));
    let transposed = in_pattern.filter(|(_, arg)| is_transposed(&arg.input) || is_transposed(&arg.output));
    let transposed = transposed.map(|(step, arg)| {
        let message = format!("port `{}` of a pattern is given a transposed weight", arg.port);
        Diagnostic::error(step.span, message).note("graphs transpose nothing: `Transposed` is for replacements")
    });
    let anys = |steps: &[Step]| -> Vec<Name> {
        let consts = steps.iter().flat_map(|step| &step.consts);
        consts.filter_map(|(_, term)| if let ConstTerm::Any(name) = term { Some(name.clone()) } else { None }).collect()
    };
    let found = anys(pattern);
    let numbers = anys(replacement).into_iter().filter(|name| !found.contains(name)).map(|name| {
        let known = found.iter().map(|name| name.text.as_str());
        let message = format!("the pattern has no constant `Any(\"{}\")`", name.text);
        Diagnostic::error(name.span, message).suggest(&name.text, known)
    });
    joins.chain(transposed).chain(numbers).collect()
}

/// A diagnostic for each name in a rule's expressions that means nothing.
fn unknown_dims(rule: &Rule) -> Vec<Diagnostic> {
    let shapes = rule.shapes.iter().flat_map(|(_, shape)| shape);
    let dims: Vec<&str> = shapes.filter_map(|extent| extent.expr.as_name()).chain(STEP_DIMS).collect();
    let consts = rule.pattern.iter().chain(&rule.replacement).flat_map(|step| &step.consts);
    let evals = consts.filter_map(|(_, term)| if let ConstTerm::Eval(expr) = term { Some(expr) } else { None });
    let shapes = rule.shapes.iter().flat_map(|(_, shape)| shape);
    let known = |name: &str| dims.contains(&name);
    let facts = |name: &str| known(name) || GUARD_FACTS.contains(&name);
    let exprs = shapes.chain(evals).filter_map(|spanned| Some((spanned, unknown_name(&spanned.expr, &known)?)));
    let unknown = |(spanned, name): (&Spanned, &str)| {
        let message = format!("unknown dim `{name}` in `{}`", spanned.expr);
        Diagnostic::error(spanned.span, message).suggest(name, dims.iter().copied())
    };
    let mut wrong: Vec<Diagnostic> = exprs
        .map(unknown)
        .map(|diagnostic| diagnostic.note("a rule's dims are the names in its `shapes`, and T, S, R"))
        .collect();
    for when in rule.when.iter().chain(&rule.pays) {
        for name in when.expr.names().into_iter().filter(|name| !facts(name)) {
            let message = format!("unknown name `{name}` in a rule's guard");
            let known = dims.iter().copied().chain(GUARD_FACTS);
            let note =
                format!("dims are the names in `shapes`, and T, S, R; of the device: {}", GUARD_FACTS.join(", "));
            wrong.push(Diagnostic::error(when.span, message).suggest(name, known).note(note));
        }
    }
    wrong
}

/// Both sides while they are read.
struct Sides<'l> {
    lib: &'l KernelLib,
    variables: Vec<Variable>,
    /// What each name means here.
    names: BTreeMap<String, usize>,
    /// What each name means at the end of the pattern; nothing while that is read.
    last: Option<BTreeMap<String, usize>>,
}

impl Sides<'_> {
    fn steps<'a>(&mut self, reader: &mut Reader<'a>, raws: &[Raw<'a>]) -> Vec<Step> {
        raws.iter().filter_map(|raw| self.step(reader, raw)).collect()
    }

    fn step<'a>(&mut self, reader: &mut Reader<'a>, raw: Raw<'a>) -> Option<Step> {
        match reader.node::<StepSyntax<'_>>(raw)? {
            StepSyntax::Op(kernel, entries) => {
                let kernel = reader.name(kernel)?;
                let entries = reader.entries(&entries, "port");
                self.op(reader, &kernel, entries)
            }
            StepSyntax::Map(expr, entries, out) => {
                let (expr, out) = (reader.name(expr)?, reader.name(out)?);
                let mut operands: Vec<(Name, Name)> = Vec::new();
                for (name, raw) in reader.entries(&entries, "operand") {
                    operands.push((name, reader.name(raw)?));
                }
                let names: Vec<&str> = operands.iter().map(|(name, _)| name.text.as_str()).collect();
                let (text, order) = canonical(&expr.text, &names);
                let mut args = Vec::new();
                for at in order {
                    let input = Term::One(self.used(&operands[at].1));
                    args.push(StepArg { port: operands[at].0.text.clone(), input: Some(input), output: None });
                }
                let output = Some(Term::One(self.defined(&out)));
                args.push(StepArg { port: map::RESULT.to_owned(), input: None, output });
                let span = expr.span;
                Some(Step { action: Action::Map(text), args, consts: Vec::new(), expr: Some(expr), span })
            }
        }
    }

    fn op<'a>(&mut self, reader: &mut Reader<'a>, name: &Name, entries: Vec<(Name, Raw<'a>)>) -> Option<Step> {
        let Some(kernel) = self.lib.get(&name.text) else {
            if !self.lib.is_broken(&name.text) {
                let known = self.lib.iter().map(|kernel| kernel.name.as_str());
                let message = format!("unknown op `{}`", name.text);
                reader.diagnostics.push(Diagnostic::error(name.span, message).suggest(&name.text, known));
            }
            return None;
        };
        let mut consts = Vec::new();
        let mut terms: BTreeMap<&str, Tensors> = BTreeMap::new();
        let mut is_right = true;
        for (entry, raw) in &entries {
            let port = kernel.ports.iter().find(|port| port.name == *entry);
            let is_const = kernel.consts.iter().any(|constant| constant.name == *entry);
            match (port, is_const, term(reader, raw)?) {
                (Some(port), _, Ok(tensors)) => drop(terms.insert(&port.name.text, tensors)),
                (None, true, Err(constant)) => consts.push((entry.clone(), constant)),
                (None, false, _) => {
                    let message = format!("`{}` has no port or constant `{}`", name.text, entry.text);
                    let known = kernel.ports.iter().map(|port| port.name.text.as_str());
                    let known = known.chain(kernel.consts.iter().map(|constant| constant.name.text.as_str()));
                    let listed = known.clone().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                    let diagnostic = Diagnostic::error(entry.span, message).suggest(&entry.text, known);
                    reader.diagnostics.push(diagnostic.note(format!("it has {listed}")));
                }
                (port, ..) => {
                    let words = ["a tensor's name", "a number"];
                    let [expected, found] = if port.is_some() { words } else { [words[1], "a name"] };
                    let message = format!("`{}` of `{}` takes {expected}, found {found}", entry.text, name.text);
                    reader.diagnostics.push(Diagnostic::error(reader.span(raw), message));
                    is_right = false;
                }
            }
        }
        if !is_right {
            return None;
        }
        let args = self.args(reader, kernel, name, &terms)?;
        Some(Step { action: Action::Kernel(name.text.clone()), args, consts, expr: None, span: name.span })
    }

    /// What each port is bound to, in the kernel's order: first all that is read, then all that is defined.
    fn args(
        &mut self,
        reader: &mut Reader<'_>,
        kernel: &KernelDef,
        op: &Name,
        terms: &BTreeMap<&str, Tensors>,
    ) -> Option<Vec<StepArg>> {
        let mut args = Vec::new();
        for (at, port) in kernel.ports.iter().enumerate() {
            let Some(tensors) = terms.get(port.name.text.as_str()) else {
                let message = format!("port `{}` of `{}` is given nothing", port.name.text, kernel.name);
                reader.diagnostics.push(Diagnostic::error(op.span, message).also(port.name.span, "the port"));
                return None;
            };
            let is_state = tensors.names().iter().any(|name| name.text.starts_with("state."));
            let takes = kernel.access(at).reads || is_state;
            if let Tensors::Transposed(name) = tensors
                && (kernel.access(at).writes || !name.text.starts_with("w."))
            {
                let message = format!("`{}` is no weight that is read, and cannot be transposed", name.text);
                reader.diagnostics.push(Diagnostic::error(name.span, message).also(port.name.span, "the port"));
                return None;
            }
            let input = takes.then(|| tensors.term(|name| self.used(name)));
            args.push(StepArg { port: port.name.text.clone(), input, output: None });
        }
        for (at, port) in kernel.ports.iter().enumerate().filter(|(at, _)| kernel.access(*at).writes) {
            args[at].output = Some(terms[port.name.text.as_str()].term(|name| self.defined(name)));
        }
        Some(args)
    }

    /// The variable that a name means; a free one if it means nothing yet.
    fn used(&mut self, name: &Name) -> usize {
        if let Some(known) = self.names.get(&name.text) {
            return *known;
        }
        let variable = self.variable(name, true);
        self.names.insert(name.text.clone(), variable);
        variable
    }

    /// A new variable of this name; in the replacement, the one that the pattern leaves under the name, if any.
    fn defined(&mut self, name: &Name) -> usize {
        let known = self.last.as_ref().and_then(|last| last.get(&name.text).copied());
        let variable = match known.filter(|known| !self.variables[*known].is_free) {
            Some(known) => known,
            None => self.variable(name, false),
        };
        self.names.insert(name.text.clone(), variable);
        variable
    }

    fn variable(&mut self, name: &Name, is_free: bool) -> usize {
        let kinds = [("w.", Kind::Weight), ("state.", Kind::State), ("in.", Kind::Input)];
        let kind =
            kinds.into_iter().find(|(start, _)| name.text.starts_with(start)).map_or(Kind::Value, |(_, kind)| kind);
        self.variables.push(Variable { name: name.clone(), kind, is_free });
        self.variables.len() - 1
    }

    /// A diagnostic for each name that the replacement uses and that stands for nothing there; `known` is how many
    /// variables the pattern has.
    fn unbound(&self, known: usize) -> Vec<Diagnostic> {
        let (pattern, replacement) = self.variables.split_at(known);
        let unbound = replacement.iter().filter(|variable| variable.is_free);
        unbound
            .map(|Variable { name, .. }| {
                let message = format!("`{}` stands for nothing in the replacement", name.text);
                let diagnostic = Diagnostic::error(name.span, message);
                match pattern.iter().find(|variable| variable.name == *name) {
                    Some(defined) => diagnostic
                        .also(defined.name.span, "defined by the pattern")
                        .note("what the pattern defines is gone, unless the replacement defines it before it is used"),
                    None => {
                        let free = pattern.iter().filter(|variable| variable.is_free);
                        diagnostic.suggest(&name.text, free.map(|variable| variable.name.text.as_str()))
                    }
                }
            })
            .collect()
    }

    /// A diagnostic for each state that the pattern updates and the replacement does not, and for each value that the
    /// pattern defines for others alone, and that they would not find. `before` is what the pattern defines, `outputs`
    /// what of it the replacement defines.
    fn lost(&self, pattern: &[Step], before: &[usize], outputs: &[usize]) -> Vec<Diagnostic> {
        let inputs = pattern.iter().flat_map(|step| &step.args).filter_map(|arg| arg.input.as_ref());
        let read: Vec<usize> = inputs.flat_map(|term| term.variables().to_vec()).collect();
        let mut wrong = Vec::new();
        for variable in before.iter().filter(|variable| !outputs.contains(variable)) {
            let Variable { name, kind, .. } = &self.variables[*variable];
            let is_last = self.last.as_ref().is_some_and(|last| last.get(&name.text) == Some(variable));
            if *kind == Kind::State && is_last {
                let message = format!("the replacement does not update `{}`", name.text);
                wrong.push(Diagnostic::error(name.span, message).label("updated here"));
            } else if *kind == Kind::Value && !read.contains(variable) {
                let message = format!("the replacement does not define `{}`", name.text);
                wrong.push(Diagnostic::error(name.span, message).label("for others to read: nothing here does"));
            }
        }
        wrong
    }

    /// The variable that the pattern uses under this name without defining it.
    fn free(&self, name: &str) -> Option<usize> {
        self.variables.iter().position(|variable| variable.is_free && variable.name.text == name)
    }

    fn shapes<'a>(&self, reader: &mut Reader<'a>, entries: &Entries<'a>) -> Vec<(usize, Vec<Spanned>)> {
        let mut shapes = Vec::new();
        for (name, raw) in reader.entries(entries, "shape") {
            let Some(extents) = reader.node::<Vec<Raw<'_>>>(raw) else { continue };
            let extents = reader.exprs(&extents);
            shapes.extend(self.known(reader, &name).map(|variable| (variable, extents)));
        }
        shapes
    }

    fn dtypes<'a>(&self, reader: &mut Reader<'a>, entries: &Entries<'a>) -> Vec<(usize, DType)> {
        let mut dtypes = Vec::new();
        for (name, raw) in reader.entries(entries, "element type") {
            let Some(dtype) = reader.node::<DType>(raw) else { continue };
            dtypes.extend(self.known(reader, &name).map(|variable| (variable, dtype)));
        }
        dtypes
    }

    /// The first variable of this name.
    fn known(&self, reader: &mut Reader<'_>, name: &Name) -> Option<usize> {
        let found = self.variables.iter().position(|variable| variable.name == *name);
        if found.is_none() {
            let known = self.variables.iter().map(|variable| variable.name.text.as_str());
            let message = format!("the rule has no `{}`", name.text);
            reader.diagnostics.push(Diagnostic::error(name.span, message).suggest(&name.text, known));
        }
        found
    }
}

/// The tensors of an entry, by their names.
enum Tensors {
    /// One, or several one after the other.
    Joined(Vec<Name>),
    /// One by columns.
    Transposed(Name),
}

impl Tensors {
    fn names(&self) -> &[Name] {
        match self {
            Self::Joined(names) => names,
            Self::Transposed(name) => std::slice::from_ref(name),
        }
    }

    /// The same by variables.
    fn term(&self, variable: impl FnMut(&Name) -> usize) -> Term {
        let variables: Vec<usize> = self.names().iter().map(variable).collect();
        match (self, variables.as_slice()) {
            (Self::Transposed(_), [one]) => Term::Transposed(*one),
            (_, [one]) => Term::One(*one),
            _ => Term::Join(variables),
        }
    }
}

/// The tensors of an entry, or its number.
fn term<'a>(reader: &mut Reader<'a>, raw: Raw<'a>) -> Option<Result<Tensors, ConstTerm>> {
    let text = raw.trim().get_ron();
    if text.starts_with(['"', 'r']) {
        return reader.name(raw).map(|name| Ok(Tensors::Joined(vec![name])));
    }
    if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return reader.node::<f64>(raw).map(|number| Err(ConstTerm::Number(number)));
    }
    match reader.node::<TermSyntax<'_>>(raw)? {
        TermSyntax::Eval(expr) => reader.expr(expr).map(|expr| Err(ConstTerm::Eval(expr))),
        TermSyntax::Any(name) => reader.name(name).map(|name| Err(ConstTerm::Any(name))),
        TermSyntax::Join(names) => {
            let names = names.iter().map(|name| reader.name(name)).collect::<Option<_>>();
            names.map(|names| Ok(Tensors::Joined(names)))
        }
        TermSyntax::Transposed(name) => reader.name(name).map(|name| Ok(Tensors::Transposed(name))),
    }
}

/// An expression with its operands numbered as they come and its words one space apart; and which operand has which
/// number. Operands that are not in it have none.
pub fn canonical(expr: &str, operands: &[&str]) -> (String, Vec<usize>) {
    let (mut text, mut order) = (String::new(), Vec::new());
    let mut rest = expr.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let end =
            if is_word(first) { rest.find(|c: char| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let word = &rest[..end];
        match operands.iter().position(|operand| *operand == word) {
            Some(operand) => {
                let at = order.iter().position(|other| *other == operand).unwrap_or_else(|| {
                    order.push(operand);
                    order.len() - 1
                });
                text += &format!("${at} ");
            }
            None => text += &format!("{word} "),
        }
        rest = rest[end..].trim_start();
    }
    (text, order)
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn expressions_are_equal_whatever_their_operands_are_called() {
        let one = canonical("x + (prev - x) * mu", &["x", "prev", "mu"]);
        assert_eq!(one, ("$0 + ( $1 - $0 ) * $2 ".to_owned(), vec![0, 1, 2]));
        assert_eq!(canonical("a+(b- a)*c", &["c", "b", "a"]), (one.0, vec![2, 1, 0]));
        assert_ne!(canonical("a + (b - c) * c", &["a", "b", "c"]).0, canonical("a + (b - a) * c", &["a", "b", "c"]).0);
    }
}
