//! Tuning files: what to take where manifests leave something open, as it was measured on a device.
//!
//! Gets a text ([`Tuning::parse`]), returns choices with their places; [`Tuning::mistakes`] holds them against kernels.
//! A text printed ([`Tuning::print`]) and parsed is the same choices, in a fixed order. Never measures, and never knows
//! which device is at hand.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::{self, Write as _};

use serde::Deserialize;

use crate::base::diag::Diagnostic;
use crate::base::dtype::DType;
use crate::base::fmt as layout;
use crate::base::raw::{Entries, Name, Raw, Reader, given};
use crate::base::span::{SourceId, SourceMap, Span};
use crate::kernel::KernelLib;
use crate::kernel::tune::{Tune, whole_number};

/// The word that a tuning file begins with.
const WORD: &str = "Tuning";

/// Choices for kernels.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    /// What the file is called, for reports.
    pub name: String,
    /// The device that they were measured on.
    pub device: String,
    /// Its driver, with version.
    pub driver: String,
    /// The choices; of those that are for one use, the one that says most of it counts, and of such the first.
    pub choices: Vec<Choice>,
}

/// What to take for some uses of a kernel.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The kernel.
    pub kernel: Name,
    /// Which uses: those of which all of this is true.
    pub at: Vec<(Name, Fact)>,
    /// Constants and their values.
    pub consts: Vec<(Name, i64)>,
    /// The text, by its file.
    pub variant: Option<Name>,
    /// Whether it is a mistake if the kernel's guards refuse it; if not, it is passed over.
    pub is_strict: bool,
    /// The choice as a whole.
    pub span: Span,
}

/// What is known of a use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// The size of a dim.
    Size(i64),
    /// How what is at a port is stored.
    Format(DType),
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "{size}"),
            Self::Format(dtype) => write!(f, "{dtype}"),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename = "Tuning", deny_unknown_fields)]
struct TuningSyntax<'a> {
    device: String,
    driver: String,
    #[serde(borrow)]
    choices: Vec<Raw<'a>>,
}

#[derive(Deserialize)]
#[serde(rename = "Choice", deny_unknown_fields)]
struct ChoiceSyntax<'a> {
    #[serde(borrow)]
    kernel: Raw<'a>,
    #[serde(borrow, default)]
    at: Entries<'a>,
    #[serde(borrow, default)]
    consts: Entries<'a>,
    #[serde(borrow, default, deserialize_with = "given")]
    variant: Option<Raw<'a>>,
}

/// Whether a text is that of a tuning file, right or wrong.
pub fn is_tuning(text: &str) -> bool {
    text[layout::extent(text)].starts_with(WORD)
}

impl Tuning {
    /// Reads a tuning file.
    ///
    /// # Errors
    /// Everything that is wrong with it by itself.
    pub fn parse(sources: &SourceMap, source: SourceId) -> Result<Self, Vec<Diagnostic>> {
        let mut reader = Reader::new(sources, source);
        let Some(TuningSyntax { device, driver, choices }) = reader.file() else { return Err(reader.diagnostics) };
        let choices = choices.into_iter().filter_map(|raw| choice(&mut reader, raw)).collect();
        let name = sources.source(source).name.clone();
        let tuning = Self { name, device, driver, choices };
        if reader.diagnostics.is_empty() { Ok(tuning) } else { Err(reader.diagnostics) }
    }

    /// The choice for a use of a kernel of which `fact` tells.
    pub fn choice(&self, kernel: &str, fact: &dyn Fn(&str) -> Option<Fact>) -> Option<&Choice> {
        let is_for = |choice: &&Choice| {
            choice.kernel.text == kernel && choice.at.iter().all(|(name, expected)| fact(&name.text) == Some(*expected))
        };
        // Of equal ones, this is the first.
        self.choices.iter().rev().filter(is_for).max_by_key(|choice| choice.at.len())
    }

    /// What is wrong with the choices for these kernels: the number of each, and why.
    pub fn mistakes(&self, lib: &KernelLib) -> Vec<(usize, Diagnostic)> {
        let mut found = Vec::new();
        let mut first: BTreeMap<(&str, Key), Span> = BTreeMap::new();
        for (nth, choice) in self.choices.iter().enumerate() {
            found.extend(mistakes(choice, lib).into_iter().map(|mistake| (nth, mistake)));
            let Name { text, span } = &choice.kernel;
            match first.entry((text, key(choice))) {
                Entry::Vacant(entry) => drop(entry.insert(*span)),
                Entry::Occupied(entry) => {
                    let message = format!("a second choice for the same uses of `{text}`");
                    found.push((nth, Diagnostic::error(*span, message).also(*entry.get(), "the first")));
                }
            }
        }
        found
    }

    /// As a file, laid out as `base::fmt` does: by kernels, then by what tells uses apart.
    ///
    /// # Panics
    /// Never: what is printed is RON.
    pub fn print(&self) -> String {
        let mut choices: Vec<&Choice> = self.choices.iter().collect();
        choices.sort_by_key(|choice| (choice.kernel.text.clone(), key(choice)));
        let mut text = format!("{WORD}(\ndevice: {:?},\ndriver: {:?},\nchoices: [\n", self.device, self.driver);
        for Choice { kernel, at, consts, variant, .. } in choices {
            let at: Vec<String> = at.iter().map(|(name, fact)| format!("{:?}: {fact}", name.text)).collect();
            let _ = write!(text, "Choice(kernel: {:?}, at: {{{}}}", kernel.text, at.join(", "));
            if !consts.is_empty() {
                let all: Vec<String> = consts.iter().map(|(name, value)| format!("{:?}: {value}", name.text)).collect();
                let _ = write!(text, ", consts: {{{}}}", all.join(", "));
            }
            if let Some(variant) = variant {
                let _ = write!(text, ", variant: {:?}", variant.text);
            }
            text += "),\n";
        }
        text += "],\n)\n";
        let mut map = SourceMap::new();
        let source = map.add("tuning", text);
        layout::format(&map, source).expect("what is printed is RON")
    }
}

/// What tells uses apart, in a fixed order.
type Key = Vec<(String, Fact)>;

fn key(choice: &Choice) -> Key {
    let mut key: Key = choice.at.iter().map(|(name, fact)| (name.text.clone(), *fact)).collect();
    key.sort();
    key
}

fn choice<'a>(reader: &mut Reader<'a>, raw: Raw<'a>) -> Option<Choice> {
    let syntax = reader.node::<ChoiceSyntax<'_>>(raw)?;
    let span = reader.span(raw);
    let kernel = reader.name(syntax.kernel);
    let at = reader.entries(&syntax.at, "condition");
    let at = at.into_iter().filter_map(|(name, raw)| Some((name, fact(reader, raw)?))).collect();
    let consts = reader.entries(&syntax.consts, "constant");
    let consts: Vec<(Name, i64)> =
        consts.into_iter().filter_map(|(name, raw)| Some((name, whole_number(reader, raw)?))).collect();
    let variant = syntax.variant.and_then(|raw| reader.name(raw));
    if syntax.consts.0.is_empty() && syntax.variant.is_none() {
        reader.diagnostics.push(Diagnostic::error(span, "nothing is chosen: expected `consts` or `variant`"));
    }
    Some(Choice { kernel: kernel?, at, consts, variant, is_strict: true, span })
}

fn fact<'a>(reader: &mut Reader<'a>, raw: Raw<'a>) -> Option<Fact> {
    let is_word = raw.trim().get_ron().starts_with(|c: char| c.is_ascii_alphabetic());
    if is_word { reader.node(raw).map(Fact::Format) } else { whole_number(reader, raw).map(Fact::Size) }
}

fn mistakes(choice: &Choice, lib: &KernelLib) -> Vec<Diagnostic> {
    let name = &choice.kernel.text;
    // What is wrong with a kernel is said of its own files.
    if lib.is_broken(name) {
        return Vec::new();
    }
    let Some(kernel) = lib.get(name) else {
        let message = format!("there is no kernel `{name}`");
        let known = lib.iter().map(|kernel| kernel.name.as_str());
        return vec![Diagnostic::error(choice.kernel.span, message).suggest(name, known)];
    };
    let Some(tune) = &kernel.tune else {
        let message = format!("the manifest of `{name}` leaves nothing to choose");
        return vec![Diagnostic::error(choice.kernel.span, message).note("what may be chosen is in its field `tune`")];
    };
    let listed = |names: &mut dyn Iterator<Item = &str>| {
        let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let mut found = Vec::new();
    let by = || tune.by.iter().map(|name| name.text.as_str());
    for (condition, fact) in &choice.at {
        let is_port = kernel.ports.iter().any(|port| port.name == *condition);
        let message = match fact {
            _ if !by().any(|other| other == condition.text) => {
                let message = format!("uses of `{name}` are not told apart by `{}`", condition.text);
                let note = format!("they are by {}", listed(&mut by()));
                found.push(Diagnostic::error(condition.span, message).suggest(&condition.text, by()).note(note));
                continue;
            }
            Fact::Size(_) if is_port => format!("port `{}` has an element type, as in `f16`", condition.text),
            Fact::Format(_) if !is_port => format!("dim `{}` has a size, found an element type", condition.text),
            _ => continue,
        };
        found.push(Diagnostic::error(condition.span, message));
    }
    found.extend(choice.consts.iter().filter_map(|(constant, value)| not_offered(tune, name, constant, *value)));
    let texts = || tune.variants.iter().map(|text| text.text.as_str());
    if let Some(variant) = choice.variant.as_ref().filter(|variant| !texts().any(|text| text == variant.text)) {
        let message = format!("`{}` is no text of `{name}` to choose", variant.text);
        let note = format!("there are {}", listed(&mut texts()));
        found.push(Diagnostic::error(variant.span, message).suggest(&variant.text, texts()).note(note));
    }
    found
}

/// What is wrong with a constant and its value, if anything is.
fn not_offered(tune: &Tune, kernel: &str, constant: &Name, value: i64) -> Option<Diagnostic> {
    let Some(values) = tune.values(&constant.text) else {
        let known = || tune.consts.iter().map(|(name, _)| name.text.as_str());
        let message = format!("`{kernel}` has no constant `{}` to choose", constant.text);
        return Some(Diagnostic::error(constant.span, message).suggest(&constant.text, known()));
    };
    let all = values.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    let message = format!("`{}` is {value}, expected one of {all}", constant.text);
    (!values.contains(&value)).then(|| Diagnostic::error(constant.span, message))
}
