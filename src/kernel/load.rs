//! Kernel files to a [`KernelLib`].
//!
//! Gets named texts, returns every kernel that is right and a diagnostic for everything that is not: manifests against
//! their grammar, texts against naga, ports against texts. Imports (`#import "shared/NAME.wgsl"` on a line of its own)
//! are spliced in once each, with a map back to their files. Never touches the disk.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::base::diag::{Diagnostic, Severity};
use crate::base::dtype::DType;
use crate::base::fmt;
use crate::base::raw::{Entries, Name, Raw, Reader, Spanned, given};
use crate::base::span::{SourceId, SourceMap, Span};
use crate::kernel::compose::{Part, PortBinding, compose, data_name};
use crate::kernel::reflect::{ReflectedBinding, reflect};
use crate::kernel::tune::tune;
use crate::kernel::{
    Access, ConstDef, ConstValue, GUARD_FACTS, KernelDef, KernelLib, Line, LineOrigin, Override, OwnBinding, PortDef,
    PortUse, Template, Variant, format_fact, unknown_name, unroll, unusable_name, words,
};

/// The file whose functions every map may call.
const MAP_PRELUDE: &str = "shared/map.wgsl";

/// Number of the first port's binding while a text is looked at by itself: far from those that an author would choose
/// for bindings of the text's own.
const FIRST_PORT: u32 = 1000;

/// Widths of accessors.
const WIDTHS: [u32; 4] = [1, 2, 4, 8];

#[derive(Deserialize)]
#[serde(rename = "Kernel", deny_unknown_fields)]
struct KernelSyntax<'a> {
    #[serde(default)]
    doc: String,
    #[serde(default)]
    unchecked: bool,
    #[serde(borrow)]
    ports: Entries<'a>,
    #[serde(borrow, default)]
    consts: Entries<'a>,
    #[serde(borrow, default)]
    needs: Vec<Raw<'a>>,
    #[serde(borrow)]
    dispatch: Vec<Raw<'a>>,
    #[serde(borrow, default)]
    variants: Vec<Raw<'a>>,
    #[serde(borrow, default, deserialize_with = "given")]
    tune: Option<Raw<'a>>,
}

#[derive(Deserialize)]
#[serde(rename = "Variant", deny_unknown_fields)]
struct VariantSyntax<'a> {
    #[serde(borrow)]
    when: Raw<'a>,
    #[serde(borrow)]
    source: Raw<'a>,
    #[serde(borrow)]
    dispatch: Vec<Raw<'a>>,
    #[serde(default = "yes")]
    batch_invariant: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(rename = "Port")]
struct PortSyntax<'a>(DType, #[serde(borrow)] Vec<Raw<'a>>);

#[derive(Deserialize)]
enum ConstSyntax {
    Required,
}

/// Loads all kernels among `files`: paths relative to the shader folder, with `/` between their parts, and texts. Every
/// text is added to `sources` as `shaders/PATH`. Returns the kernels that are right, and a diagnostic for everything
/// that is wrong.
pub fn load(sources: &mut SourceMap, files: &[(String, String)]) -> (KernelLib, Vec<Diagnostic>) {
    let ids: BTreeMap<&str, SourceId> = files
        .iter()
        .map(|(path, text)| (path.as_str(), sources.add(format!("shaders/{path}"), text.as_str())))
        .collect();
    let sources = &*sources;
    let loader = Loader { sources, ids: &ids };
    let mut lib = KernelLib::default();
    let mut diagnostics = Vec::new();
    if ids.contains_key(MAP_PRELUDE) {
        match loader.splice(MAP_PRELUDE) {
            Ok(lines) => lib.map_prelude = lines,
            Err(diagnostic) => diagnostics.push(diagnostic),
        }
    }
    for (path, id) in &ids {
        let Some(name) = path.strip_suffix(".ron") else { continue };
        let mut reader = Reader::new(sources, *id);
        match loader.kernel(&mut reader, name, *id) {
            Some(kernel) => lib.kernels.push(kernel),
            None => lib.broken.push(name.to_owned()),
        }
        diagnostics.append(&mut reader.diagnostics);
    }
    (lib, diagnostics)
}

struct Loader<'a> {
    sources: &'a SourceMap,
    ids: &'a BTreeMap<&'a str, SourceId>,
}

impl<'a> Loader<'a> {
    fn kernel(&self, reader: &mut Reader<'a>, name: &str, id: SourceId) -> Option<KernelDef> {
        let syntax = reader.file::<KernelSyntax<'_>>()?;
        let span = Span::new(id, fmt::extent(&self.sources.source(id).text));
        let ports: Vec<PortDef> = reader
            .entries(&syntax.ports, "port")
            .into_iter()
            .filter_map(|(name, raw)| port(reader, name, raw))
            .collect();
        let consts: Vec<ConstDef> = reader
            .entries(&syntax.consts, "constant")
            .into_iter()
            .filter_map(|(name, raw)| {
                check_name(reader, &name, "constant");
                Some(ConstDef { name, value: const_value(reader, raw)? })
            })
            .collect();
        let needs = reader.exprs(&syntax.needs);
        let mut variants = Vec::new();
        for raw in &syntax.variants {
            let Some(variant) = reader.node::<VariantSyntax<'_>>(raw) else { continue };
            let (when, source) = (reader.expr(variant.when), reader.name(variant.source));
            let dispatch = dispatch(reader, &variant.dispatch, raw);
            if let (Some(when), Some(source)) = (when, source) {
                let template = self.template(&source.text, source.span, &ports, &consts);
                let batch_invariant = variant.batch_invariant;
                let add = |template| variants.push(Variant { when: Some(when), dispatch, batch_invariant, template });
                push(reader, template, add);
            }
        }
        let base = self.template(&format!("{name}.wgsl"), Span { end: span.start + 1, ..span }, &ports, &consts);
        let whole = syntax.dispatch.first().copied();
        let dispatch = match whole {
            Some(raw) => dispatch(reader, &syntax.dispatch, raw),
            None => Vec::new(),
        };
        push(reader, base, |template| variants.push(Variant { when: None, dispatch, batch_invariant: true, template }));
        let tune = syntax.tune.and_then(|raw| tune(reader, raw, (&ports, &consts, &variants)));
        let unchecked = syntax.unchecked;
        variants.iter_mut().for_each(|variant: &mut Variant| variant.template.unchecked = unchecked);
        let doc = syntax.doc;
        let kernel = KernelDef { name: name.to_owned(), doc, span, unchecked, ports, consts, needs, variants, tune };
        let found = check(&kernel, span);
        reader.diagnostics.extend(found);
        let is_complete = kernel.variants.last().is_some_and(|variant| variant.when.is_none());
        let is_right = reader.diagnostics.iter().all(|diagnostic| diagnostic.severity == Severity::Lint);
        (is_complete && is_right).then_some(kernel)
    }

    /// The text of a file with its imports, each once.
    fn splice(&self, path: &str) -> Result<Vec<Line>, Diagnostic> {
        let mut lines = Vec::new();
        let mut done = Vec::new();
        let id = *self.ids.get(path).ok_or_else(|| Diagnostic::placeless(format!("there is no `shaders/{path}`")))?;
        self.splice_into(id, path, &mut lines, &mut done)?;
        Ok(lines)
    }

    fn splice_into(
        &self,
        id: SourceId,
        path: &str,
        lines: &mut Vec<Line>,
        done: &mut Vec<String>,
    ) -> Result<(), Diagnostic> {
        done.push(path.to_owned());
        let mut offset = 0u32;
        for (number, text) in (1u32..).zip(self.sources.source(id).text.split('\n')) {
            let span = Span::new(id, offset as usize..offset as usize + text.len());
            match text.trim_start().strip_prefix("#import") {
                Some(rest) => {
                    let target = rest.trim().trim_matches('"');
                    let Some(import) = self.ids.get(target) else {
                        let known = self.ids.keys().copied().filter(|path| path.ends_with(".wgsl"));
                        return Err(Diagnostic::error(span, format!("there is no `shaders/{target}` to import"))
                            .suggest(target, known));
                    };
                    if !done.iter().any(|other| other == target) {
                        self.splice_into(*import, target, lines, done)?;
                    }
                }
                None => lines.push(Line {
                    text: text.trim_end_matches('\r').to_owned(),
                    origin: Some(LineOrigin { source: id, offset, prefix: 0, number }),
                }),
            }
            offset += text.len() as u32 + 1;
        }
        Ok(())
    }

    /// A text as a template: which accessors it calls, and what naga finds in it.
    fn template(
        &self,
        path: &str,
        asked: Span,
        ports: &[PortDef],
        consts: &[ConstDef],
    ) -> Result<(Template, Vec<Diagnostic>), Vec<Diagnostic>> {
        if !self.ids.contains_key(path) {
            return Err(vec![Diagnostic::error(asked, format!("there is no `shaders/{path}`"))]);
        }
        let lines = self.splice(path).map_err(|diagnostic| vec![diagnostic])?;
        let words: Vec<&str> = lines.iter().flat_map(|line| words(&line.text)).collect();
        let uses = ports.iter().map(|port| port_use(&words, &port.name.text)).collect();
        let overrides = overrides(&lines);
        let (file, entry) = (path.to_owned(), String::new());
        let mut template = Template { file, lines, entry, ports: uses, overrides, unchecked: false };
        let mut diagnostics = check_overrides(&template, consts, asked);
        let known = |name: &str| template.overrides.iter().any(|constant| constant.name == name);
        let repeated = |name: &str| {
            known(name)
                || template.lines.iter().any(|line| line.text.trim_start().starts_with(&format!("#unroll {name} in ")))
        };
        diagnostics.extend(unroll::check(&template.lines, &repeated));
        if !diagnostics.is_empty() {
            return Err(diagnostics);
        }
        self.analyse(&mut template, ports, asked, &mut diagnostics);
        let (lints, errors): (Vec<_>, Vec<_>) = diagnostics.into_iter().partition(|d| d.severity == Severity::Lint);
        if errors.is_empty() { Ok((template, lints)) } else { Err(errors) }
    }

    /// Composes the text once with every port writable and asks naga what it does with each.
    fn analyse(&self, template: &mut Template, ports: &[PortDef], asked: Span, diagnostics: &mut Vec<Diagnostic>) {
        let unfit =
            ports.iter().zip(&template.ports).filter_map(|(port, used)| unfit_accessor(port, used, port.dtype?));
        let before = diagnostics.len();
        diagnostics.extend(unfit);
        if diagnostics.len() > before {
            return;
        }
        let bindings: Vec<PortBinding> = ports
            .iter()
            .zip(0u32..)
            .map(|(port, number)| PortBinding {
                port: port.name.text.clone(),
                dtype: port.dtype.unwrap_or(DType::F32),
                writes: true,
                parts: vec![Part { binding: FIRST_PORT + number, first: 0, count: 1 }],
            })
            .collect();
        // A port without accessors may be declared by the text itself; for this first look nothing is written for it.
        let mut probe = template.clone();
        for used in &mut probe.ports {
            if used.loads.is_empty() && used.stores.is_empty() {
                used.own = Some(OwnBinding { number: 0, declared_write: false });
            }
        }
        let consts: Vec<(String, String)> =
            template.overrides.iter().map(|constant| (constant.name.clone(), sample(constant))).collect();
        let reflection = match reflect(&compose(&probe, &bindings, &consts, false), asked) {
            Ok(reflection) => reflection,
            Err(diagnostic) => return diagnostics.push(diagnostic),
        };
        let is_accessed = |binding: &ReflectedBinding| binding.name == data_name(binding.number);
        template.entry = reflection.entry.clone();
        for (at, port) in ports.iter().enumerate() {
            let used = &mut template.ports[at];
            let accessed = !used.loads.is_empty() || !used.stores.is_empty();
            let own = |binding: &&ReflectedBinding| binding.name == port.name.text;
            let found = match accessed {
                true => reflection.bindings.iter().find(|binding| binding.name == data_name(FIRST_PORT + at as u32)),
                false => reflection.bindings.iter().find(own),
            };
            let Some(binding) = found else {
                let name = &port.name.text;
                diagnostics.push(
                    Diagnostic::error(
                        port.name.span,
                        format!("port `{name}` is not used by `shaders/{}`", template.file),
                    )
                    .note(format!(
                        "expected calls of `load_{name}(i)` or `store_{name}(i, value)`, or a binding `{name}`"
                    )),
                );
                continue;
            };
            used.access = binding.access;
            if !accessed {
                let declared_write = binding.declared_write && binding.access.writes;
                used.own = Some(OwnBinding { number: binding.number, declared_write });
                if binding.declared_write && !declared_write {
                    diagnostics.extend(declare_read_only(&mut template.lines, &port.name));
                }
            }
            if !used.access.reads && !used.access.writes {
                let name = &port.name.text;
                let message = format!("port `{name}` is declared, but the entry point neither reads nor writes it");
                diagnostics.push(Diagnostic::error(port.name.span, message));
            }
        }
        for binding in &reflection.bindings {
            if !is_accessed(binding) && !ports.iter().any(|port| port.name.text == binding.name) {
                let message = format!("`shaders/{}` binds `{}`, which is no port", template.file, binding.name);
                diagnostics.push(
                    Diagnostic::error(asked, message)
                        .suggest(&binding.name, ports.iter().map(|port| port.name.text.as_str())),
                );
            }
        }
    }
}

fn push(
    reader: &mut Reader<'_>,
    template: Result<(Template, Vec<Diagnostic>), Vec<Diagnostic>>,
    add: impl FnOnce(Template),
) {
    match template {
        Ok((template, mut lints)) => {
            reader.diagnostics.append(&mut lints);
            add(template);
        }
        Err(mut diagnostics) => reader.diagnostics.append(&mut diagnostics),
    }
}

/// Makes a text's own binding read-only where the text only reads it: as `read_write` it would cost a barrier wherever
/// the op stands.
fn declare_read_only(lines: &mut [Line], port: &Name) -> Option<Diagnostic> {
    let declares =
        |line: &&mut Line| line.text.contains("var<storage") && words(&line.text).any(|word| word == port.text);
    let Some(line) = lines.iter_mut().find(declares) else {
        let message = format!("`{}` is declared `read_write` and only read", port.text);
        return Some(Diagnostic::error(port.span, message).note("declare it `read`, on the line of its `var`"));
    };
    let lint = line.origin.map(|origin| {
        let column = line.text.find("read_write").unwrap_or(0);
        let start = origin.offset as usize + column;
        let span = Span::new(origin.source, start..start + "read_write".len());
        let message = format!("`{}` is declared `read_write` and only read", port.text);
        Diagnostic::lint(span, message).note("it is bound read-only; declare it `read`")
    });
    line.text = line.text.replace("read_write", "read");
    lint
}

fn port<'a>(reader: &mut Reader<'a>, name: Name, raw: Raw<'a>) -> Option<PortDef> {
    if name.text.ends_with(|c: char| c.is_ascii_digit()) {
        let message = format!("port `{}` ends in a digit, which is where accessors say how wide they are", name.text);
        reader.diagnostics.push(Diagnostic::error(name.span, message));
    }
    check_name(reader, &name, "port");
    let (dtype, shape) = match raw.trim().get_ron().starts_with('[') {
        true => (None, reader.node::<Vec<Raw<'_>>>(raw)?),
        false => {
            let PortSyntax(dtype, shape) = reader.node(raw)?;
            (Some(dtype), shape)
        }
    };
    Some(PortDef { name, dtype, shape: reader.exprs(&shape) })
}

/// Names of ports and constants are words of WGSL, and not of those that the compiler writes.
fn check_name(reader: &mut Reader<'_>, name: &Name, what: &str) {
    if let Some(reason) = unusable_name(&name.text) {
        let message = format!("`{}` is no name for a {what}", name.text);
        reader.diagnostics.push(Diagnostic::error(name.span, message).note(reason));
    }
}

fn const_value<'a>(reader: &mut Reader<'a>, raw: Raw<'a>) -> Option<ConstValue> {
    let text = raw.trim().get_ron();
    if text.starts_with('"') {
        return reader.expr(raw).map(ConstValue::Eval);
    }
    if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return reader.node(raw).map(ConstValue::Number);
    }
    let ConstSyntax::Required = reader.node(raw)?;
    Some(ConstValue::Required)
}

fn dispatch<'a>(reader: &mut Reader<'a>, raws: &[Raw<'a>], place: Raw<'a>) -> Vec<Spanned> {
    if raws.is_empty() || raws.len() > 3 {
        let message = format!("a dispatch has one to three sizes, found {}", raws.len());
        let span = reader.span(place);
        reader.diagnostics.push(Diagnostic::error(span, message));
    }
    reader.exprs(raws)
}

/// What only the whole kernel shows: guards over known names, variants that agree on every access.
fn check(kernel: &KernelDef, span: Span) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    if kernel.variants.is_empty() {
        return diagnostics;
    }
    let dims: Vec<&str> = kernel.ports.iter().flat_map(|port| &port.shape).flat_map(|s| s.expr.names()).collect();
    let known = |name: &str| {
        dims.contains(&name)
            || kernel.consts.iter().any(|constant| constant.name.text == name)
            || GUARD_FACTS.contains(&name)
            || format_fact(name).is_some_and(|(port, _)| kernel.ports.iter().any(|known| known.name.text == port))
    };
    let exprs = kernel.variants.iter().flat_map(|variant| variant.dispatch.iter().chain(&variant.when));
    let exprs = exprs.chain(&kernel.needs);
    let consts = kernel.consts.iter().filter_map(|constant| match &constant.value {
        ConstValue::Eval(spanned) => Some(spanned),
        _ => None,
    });
    for spanned in exprs.chain(consts) {
        if let Some(name) = unknown_name(&spanned.expr, &known) {
            let candidates = dims.iter().copied().chain(kernel.consts.iter().map(|c| c.name.text.as_str()));
            let message = format!("unknown dim `{name}` in `{}`", spanned.expr);
            diagnostics.push(Diagnostic::error(spanned.span, message).suggest(name, candidates));
        }
    }
    let first: Vec<Access> = kernel.variants[0].template.ports.iter().map(|port| port.access).collect();
    for variant in &kernel.variants[1..] {
        for ((port, used), access) in kernel.ports.iter().zip(&variant.template.ports).zip(&first) {
            if used.access != *access {
                let (name, one, other) = (&port.name.text, &kernel.variants[0].template.file, &variant.template.file);
                let message = format!("`{one}` and `{other}` do not access port `{name}` alike");
                diagnostics
                    .push(Diagnostic::error(port.name.span, message).note("one op means one set of reads and writes"));
            }
        }
    }
    for variant in &kernel.variants {
        diagnostics.extend(check_storage(kernel, variant));
    }
    if !first.iter().any(|access| access.writes) {
        diagnostics.push(Diagnostic::error(Span { end: span.start + 1, ..span }, "the kernel writes nothing"));
    }
    diagnostics
}

/// An accessor that a port's element type does not have.
fn unfit_accessor(port: &PortDef, used: &PortUse, dtype: DType) -> Option<Diagnostic> {
    let name = &port.name.text;
    match dtype {
        DType::F16 | DType::Bf16 if used.stores.contains(&1) => {
            let message = format!("`store_{name}` writes single elements of `{name}`, which is stored in pairs");
            let note = format!("use `store_{name}2` or `store_{name}4`: a store fills whole 32-bit words");
            Some(Diagnostic::error(port.name.span, message).note(note))
        }
        DType::U32 if used.loads.contains(&8) => {
            let message = format!("`load_{name}8` gives a matrix, and matrices hold floats; `{name}` is u32");
            Some(Diagnostic::error(port.name.span, message).note(format!("use `load_{name}4`")))
        }
        _ => None,
    }
}

/// Bindings that a text declares itself must count from 0, so that all bindings of a kernel are `0..len`.
fn check_storage(kernel: &KernelDef, variant: &Variant) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let used = || kernel.ports.iter().zip(&variant.template.ports);
    let mut own: Vec<(u32, &PortDef)> = used().filter_map(|(port, used)| Some((used.own?.number, port))).collect();
    own.sort_by_key(|(number, _)| *number);
    for (expected, (number, port)) in (0u32..).zip(own) {
        if number != expected {
            let message = format!("`{}` has binding {number}, expected {expected}", port.name.text);
            let note = "bindings that a text declares itself are numbered from 0 without gaps";
            diagnostics.push(Diagnostic::error(port.name.span, message).note(note));
        }
    }
    diagnostics
}

fn port_use(words: &[&str], port: &str) -> PortUse {
    let widths = |verb: &str| -> Vec<u32> {
        let called = |width: &u32| {
            let name = if *width == 1 { format!("{verb}_{port}") } else { format!("{verb}_{port}{width}") };
            words.contains(&name.as_str())
        };
        WIDTHS.into_iter().filter(called).collect()
    };
    let stores = widths("store").into_iter().filter(|width| *width <= 4).collect();
    PortUse { loads: widths("load"), stores, own: None, access: Access::default() }
}

/// The `override` declarations of a text, one a line.
fn overrides(lines: &[Line]) -> Vec<Override> {
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(rest) = line.text.trim_start().strip_prefix("override ") else { continue };
        let declaration = rest.split(';').next().unwrap_or("");
        let (typed, default) = match declaration.split_once('=') {
            Some((typed, default)) => (typed, Some(default.trim().to_owned())),
            None => (declaration, None),
        };
        let (name, ty) = typed.split_once(':').unwrap_or((typed, "f32"));
        found.push(Override { name: name.trim().to_owned(), ty: ty.trim().to_owned(), default, line: index });
    }
    found
}

fn check_overrides(template: &Template, consts: &[ConstDef], asked: Span) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    for constant in consts {
        let name = &constant.name.text;
        let declared = template.overrides.iter().any(|other| other.name == *name);
        // A constant may also serve the manifest's own expressions alone, or another variant.
        if !declared && matches!(constant.value, ConstValue::Number(_)) {
            let message = format!("constant `{name}` is not an `override` of `shaders/{}`", template.file);
            let names = template.overrides.iter().map(|other| other.name.as_str());
            diagnostics.push(Diagnostic::error(constant.name.span, message).suggest(name, names));
        }
    }
    for declared in &template.overrides {
        let known = consts.iter().any(|constant| constant.name.text == declared.name);
        if !known && declared.default.is_none() {
            let origin = template.lines[declared.line].origin;
            let span = origin.map_or(asked, |origin| {
                let start = origin.offset as usize;
                Span::new(origin.source, start..start + template.lines[declared.line].text.len())
            });
            let message = format!("`override {}` has no value: the manifest has no such constant", declared.name);
            let names = consts.iter().map(|constant| constant.name.text.as_str());
            diagnostics.push(Diagnostic::error(span, message).suggest(&declared.name, names));
        }
    }
    diagnostics
}

/// A value with which a text can be parsed before any is known: small, a multiple of sixteen, not zero, so that
/// whatever
/// is repeated for a share of it is there.
fn sample(constant: &Override) -> String {
    match (&constant.default, constant.ty.as_str()) {
        (Some(default), _) => default.clone(),
        (None, "f32") => "1.0".into(),
        (None, "bool") => "true".into(),
        (None, _) => "16".into(),
    }
}
