//! What tensors are called, and how they lie: tables from the names of files to those of graphs.
//!
//! Gets RON, one table a file, and a checkpoint; returns the checkpoint by the names that graphs know, of which one
//! table at most is responsible. What holds then: no two tensors have one name, and every name says where it came from.
//! Tables are data: nothing here knows a tensor or a format. Never reads a tensor's elements.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::base::diag::Diagnostic;
use crate::base::raw::{Entries, Name, Raw, Reader};
use crate::base::span::{SourceId, SourceMap};
use crate::checkpoint::{Checkpoint, CheckpointError, Container, Index, TensorInfo};

/// More rules, and longer names, than any table has: a bound on what is compared with each tensor.
const MAX_RULES: usize = 4096;
const MAX_NAME_BYTES: usize = 512;

/// How one family of files calls its tensors.
#[derive(Clone, Debug)]
pub struct NameTable {
    /// What to call it.
    pub name: String,
    /// A file is of this family if one of these holds.
    when: Vec<When>,
    /// Names of the files, `{}` for a number, and what they become.
    rename: BTreeMap<String, Target>,
    /// Names of graphs whose tensors lie with their last two axes exchanged in these files.
    swapped: Vec<String>,
    /// How adapters that are added to weights are called.
    adapters: Vec<AdapterNames>,
}

/// A kind of file, and tensors that must be in it.
#[derive(Clone, Debug)]
struct When {
    container: Option<Container>,
    has: Vec<Pattern>,
}

/// What a tensor becomes.
#[derive(Clone, Debug)]
enum Target {
    /// It has this name.
    Name(String),
    /// Each of its rows is a tensor by itself.
    Rows(Vec<String>),
}

/// A name with one part left open: `{}` is a number, `*` is anything.
#[derive(Clone, Debug)]
struct Pattern {
    before: String,
    after: String,
    open: Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Nothing,
    Number,
    Anything,
}

impl Pattern {
    fn new(text: &str) -> Self {
        let halves = |open: &str| text.split_once(open).map(|(before, after)| (before.to_owned(), after.to_owned()));
        let ((before, after), open) = match (halves("{}"), halves("*")) {
            (Some(halves), _) => (halves, Open::Number),
            (_, Some(halves)) => (halves, Open::Anything),
            _ => ((text.to_owned(), String::new()), Open::Nothing),
        };
        Self { before, after, open }
    }

    /// What stands for the open part, if this is the name's pattern.
    fn part<'n>(&self, name: &'n str) -> Option<&'n str> {
        let part = name.strip_prefix(self.before.as_str())?.strip_suffix(self.after.as_str())?;
        let fits = match self.open {
            Open::Nothing => part.is_empty(),
            Open::Number => !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()),
            Open::Anything => !part.is_empty(),
        };
        fits.then_some(part)
    }

    fn with(&self, part: &str) -> String {
        format!("{}{part}{}", self.before, self.after)
    }
}

/// How the two matrices of an adapter are called, and the weight that their product is added to; `*` is the same in
/// all three.
#[derive(Clone, Debug)]
struct AdapterNames {
    down: Pattern,
    up: Pattern,
    weight: Pattern,
}

#[derive(Deserialize)]
#[serde(rename = "Names", deny_unknown_fields)]
struct TableSyntax<'a> {
    #[serde(borrow)]
    name: Raw<'a>,
    #[serde(default, rename = "doc")]
    _doc: String,
    #[serde(borrow, default)]
    when: Vec<Raw<'a>>,
    #[serde(borrow, default)]
    rename: Entries<'a>,
    #[serde(borrow, default)]
    swapped: Vec<Raw<'a>>,
    #[serde(borrow, default)]
    adapters: Vec<Raw<'a>>,
}

#[derive(Deserialize)]
#[serde(rename = "When", deny_unknown_fields)]
struct WhenSyntax<'a> {
    #[serde(default, deserialize_with = "given")]
    container: Option<Container>,
    #[serde(borrow)]
    has: Vec<Raw<'a>>,
}

/// A field that may be left out, written without `Some(…)`.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Container>, D::Error> {
    Container::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(rename = "Adapter", deny_unknown_fields)]
struct AdapterSyntax<'a> {
    #[serde(borrow)]
    down: Raw<'a>,
    #[serde(borrow)]
    up: Raw<'a>,
    #[serde(borrow)]
    weight: Raw<'a>,
}

/// Parses a table.
///
/// # Errors
/// Every syntax error, unknown field, duplicate name and pattern that cannot be one.
pub fn parse(sources: &SourceMap, source: SourceId) -> Result<NameTable, Vec<Diagnostic>> {
    let mut reader = Reader::new(sources, source);
    let table = reader.file::<TableSyntax<'_>>().and_then(|syntax| table(&mut reader, syntax));
    match table {
        Some(table) if reader.diagnostics.is_empty() => Ok(table),
        _ => Err(reader.diagnostics),
    }
}

fn table<'a>(reader: &mut Reader<'a>, syntax: TableSyntax<'a>) -> Option<NameTable> {
    let name = reader.name(syntax.name)?;
    let rules = syntax.rename.0.len() + syntax.swapped.len() + syntax.adapters.len() + syntax.when.len();
    if rules > MAX_RULES {
        let message = format!("a table has at most {MAX_RULES} rules, found {rules}");
        reader.diagnostics.push(Diagnostic::error(name.span, message));
        return None;
    }
    let mut rename = BTreeMap::new();
    for (from, raw) in reader.entries(&syntax.rename, "name") {
        let is_list = raw.trim().get_ron().starts_with('[');
        let targets = match is_list {
            true => reader.node::<Vec<Raw<'_>>>(raw).unwrap_or_default(),
            false => vec![raw],
        };
        let targets: Vec<Name> = targets.into_iter().filter_map(|raw| reader.name(raw)).collect();
        check_rule(reader, &from, &targets);
        let mut texts: Vec<String> = targets.into_iter().map(|target| target.text).collect();
        let target = match is_list {
            true => Target::Rows(texts),
            false => Target::Name(texts.pop().unwrap_or_default()),
        };
        rename.insert(from.text, target);
    }
    let swapped = syntax.swapped.iter().filter_map(|raw| Some(reader.name(raw)?.text)).collect();
    let when = syntax.when.iter().filter_map(|raw| when(reader, raw)).collect();
    let adapters = syntax.adapters.iter().filter_map(|raw| adapter(reader, raw)).collect();
    Some(NameTable { name: name.text, when, rename, swapped, adapters })
}

fn when<'a>(reader: &mut Reader<'a>, raw: Raw<'a>) -> Option<When> {
    let syntax = reader.node::<WhenSyntax<'_>>(raw)?;
    if syntax.has.is_empty() {
        let span = reader.span(raw);
        reader.diagnostics.push(Diagnostic::error(span, "`has` is empty: every file would be of this table"));
    }
    let has = syntax.has.iter().filter_map(|raw| Some(Pattern::new(&reader.name(raw)?.text))).collect();
    Some(When { container: syntax.container, has })
}

fn adapter<'a>(reader: &mut Reader<'a>, raw: Raw<'a>) -> Option<AdapterNames> {
    let syntax = reader.node::<AdapterSyntax<'_>>(raw)?;
    let mut pattern = |raw| {
        let name = reader.name(raw)?;
        if name.text.matches('*').count() != 1 {
            let message = format!("`{}` has no single `*` for what adapter and weight share", name.text);
            reader.diagnostics.push(Diagnostic::error(name.span, message));
        }
        Some(Pattern::new(&name.text))
    };
    Some(AdapterNames { down: pattern(syntax.down)?, up: pattern(syntax.up)?, weight: pattern(syntax.weight)? })
}

/// A rule's names can be told apart, and carry one number over or none.
fn check_rule(reader: &mut Reader<'_>, from: &Name, targets: &[Name]) {
    let numbers = |name: &Name| name.text.matches("{}").count();
    for name in std::iter::once(from).chain(targets) {
        let message = if name.text.len() > MAX_NAME_BYTES {
            format!("a name of {} bytes, at most {MAX_NAME_BYTES}", name.text.len())
        } else if numbers(name) > 1 {
            format!("`{}` has more than one `{{}}`", name.text)
        } else if numbers(name) != numbers(from) {
            format!("`{}` carries no number over, or one that `{}` has not", name.text, from.text)
        } else {
            continue;
        };
        reader.diagnostics.push(Diagnostic::error(name.span, message));
    }
}

impl NameTable {
    /// Whether a file is of this family.
    fn fits(&self, container: Container, index: &Index) -> bool {
        let has = |pattern: &Pattern| match pattern.open {
            Open::Nothing => index.get(&pattern.before).is_some(),
            _ => index.names().any(|name| pattern.part(name).is_some()),
        };
        self.when.iter().any(|when| when.container.is_none_or(|kind| kind == container) && when.has.iter().all(has))
    }

    /// What a name becomes, `{}` filled in; nothing if no rule is for it.
    ///
    /// # Errors
    /// If two rules are for it.
    fn target(&self, name: &str) -> Result<Option<Target>, String> {
        if name.len() > MAX_NAME_BYTES {
            return Ok(None);
        }
        let mut found: Option<(String, Target)> = self.rename.get(name).map(|to| (name.to_owned(), to.clone()));
        let mut at = 0;
        for part in name.split('.') {
            let end = at + part.len();
            if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
                let pattern = format!("{}{{}}{}", &name[..at], &name[end..]);
                if let Some(target) = self.rename.get(&pattern) {
                    let fill = |to: &String| to.replacen("{}", part, 1);
                    let target = match target {
                        Target::Name(to) => Target::Name(fill(to)),
                        Target::Rows(rows) => Target::Rows(rows.iter().map(fill).collect()),
                    };
                    if let Some((other, _)) = found.replace((pattern.clone(), target)) {
                        return Err(format!("`{name}` is both `{other}` and `{pattern}` of `{}`", self.name));
                    }
                }
            }
            at = end + 1;
        }
        Ok(found.map(|(_, target)| target))
    }

    fn renamed(&self, index: Index) -> Result<Index, String> {
        let swapped: Vec<Pattern> = self.swapped.iter().map(|text| Pattern::new(text)).collect();
        let mut tensors: BTreeMap<String, TensorInfo> = BTreeMap::new();
        let mut add = |name: String, info: TensorInfo| {
            let is_swapped = swapped.iter().any(|pattern| pattern.part(&name).is_some());
            let info = if is_swapped { info.swapped() } else { info };
            match tensors.entry(name) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(info);
                    Ok(())
                }
                std::collections::btree_map::Entry::Occupied(entry) => {
                    let (one, other) = (entry.get().stored_name(entry.key()), info.stored_name(entry.key()));
                    Err(format!("`{one}` and `{other}` would both be `{}`, says `{}`", entry.key(), self.name))
                }
            }
        };
        for (stored, info) in index.tensors {
            match self.target(&stored)? {
                None => add(stored, info)?,
                Some(Target::Name(name)) => add(name, info.called(stored))?,
                Some(Target::Rows(names)) => {
                    if info.dtype.is_err() || info.shape.first() != Some(&(names.len() as u64)) {
                        let (expected, found) = (names.len(), &info.shape);
                        return Err(format!("`{stored}` has shape {found:?}, expected {expected} rows"));
                    }
                    for (row, name) in names.into_iter().enumerate() {
                        add(name, info.row(row as u64).called(stored.clone()))?;
                    }
                }
            }
        }
        Ok(Index { tensors })
    }
}

impl Checkpoint {
    /// The same checkpoint by the names that graphs know. A file that is of no table's family keeps its names.
    ///
    /// # Errors
    /// If it is of two families, or two of its tensors would have one name.
    pub fn renamed(mut self, tables: &[NameTable]) -> Result<Self, CheckpointError> {
        let fitting: Vec<&NameTable> = tables.iter().filter(|table| table.fits(self.container, &self.index)).collect();
        let renamed = match fitting.as_slice() {
            [] => return Ok(self),
            [table] => table.renamed(std::mem::take(&mut self.index)),
            several => {
                let names = several.iter().map(|table| format!("`{}`", table.name)).collect::<Vec<_>>().join(", ");
                Err(format!("its tensors have names of more than one kind: {names}"))
            }
        };
        match renamed {
            Ok(index) => Ok(Self { index, ..self }),
            Err(reason) => Err(CheckpointError::Contents { name: self.name, reason }),
        }
    }
}

/// Where adapters add: their weight by the name of graphs, and the names of their two matrices.
pub(super) struct AdapterAt {
    pub weight: String,
    pub down: String,
    pub up: String,
}

/// The adapter that a tensor is the first matrix of, if it is one; `base` is what is adapted.
///
/// # Errors
/// If the weight's name can be read in two ways.
pub(super) fn adapter_at(tables: &[NameTable], name: &str, base: &Index) -> Result<Option<AdapterAt>, String> {
    let all = tables.iter().flat_map(|table| &table.adapters);
    // The longest pattern says most: one with a prefix is meant where there is that prefix.
    let found = all.filter_map(|adapter| Some((adapter, adapter.down.part(name)?))).min_by_key(|(_, part)| part.len());
    let Some((names, part)) = found else { return Ok(None) };
    let (stored, up) = (names.weight.with(part), names.up.with(part));
    let mut weights: Vec<String> = base.get(&stored).map(|_| stored.clone()).into_iter().collect();
    for table in tables {
        if let Some(Target::Name(to)) = table.target(&stored)?
            && base.get(&to).is_some()
            && !weights.contains(&to)
        {
            weights.push(to);
        }
    }
    match weights.as_slice() {
        [weight] => Ok(Some(AdapterAt { weight: weight.clone(), down: name.to_owned(), up })),
        [] => Err(format!("`{name}` adapts `{stored}`, which the model does not have")),
        [one, other, ..] => Err(format!("`{name}` adapts `{stored}`, which may be `{one}` or `{other}`")),
    }
}
