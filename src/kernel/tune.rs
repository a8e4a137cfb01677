//! What a manifest leaves open: constants and texts that compute the same, of which a device may like one more than
//! another.
//!
//! Gets the field `tune` of a manifest, returns a [`Tune`] whose every name is one of the kernel's. What holds then: a
//! value that is offered is a whole number, and a text that is offered is one of the kernel's variants. Never knows
//! which value was chosen.

use serde::Deserialize;

use crate::base::diag::Diagnostic;
use crate::base::raw::{Entries, Name, Raw, Reader, Spanned};
use crate::kernel::{ConstDef, ConstValue, GUARD_FACTS, PortDef, Variant, format_fact, unknown_name};

/// What may be chosen for a kernel.
#[derive(Clone, Debug)]
pub struct Tune {
    /// What tells one use of the kernel from another: dims, and ports, of which the element type counts.
    pub by: Vec<Name>,
    /// Constants and the values that they may have in place of their own, in the manifest's order.
    pub consts: Vec<(Name, Vec<i64>)>,
    /// Texts that may stand in for each other where their guards hold, by their files.
    pub variants: Vec<Name>,
    /// What must all hold for the values chosen: over dims, constants and what the device offers.
    pub when: Vec<Spanned>,
    /// Which of the constants leave the order of every sum as it is.
    pub batch_invariant: Vec<Name>,
}

impl Tune {
    /// Whether a constant leaves the order of every sum as it is.
    pub fn is_batch_invariant(&self, name: &str) -> bool {
        self.batch_invariant.iter().any(|other| other.text == name)
    }

    /// The values that are offered for a constant.
    pub fn values(&self, name: &str) -> Option<&[i64]> {
        self.consts.iter().find(|(other, _)| other.text == name).map(|(_, values)| values.as_slice())
    }
}

#[derive(Deserialize)]
#[serde(rename = "Tune", deny_unknown_fields)]
struct TuneSyntax<'a> {
    #[serde(borrow)]
    by: Vec<Raw<'a>>,
    #[serde(borrow, default)]
    consts: Entries<'a>,
    #[serde(borrow, default)]
    variants: Vec<Raw<'a>>,
    #[serde(borrow, default)]
    when: Vec<Raw<'a>>,
    #[serde(borrow, default)]
    batch_invariant: Vec<Raw<'a>>,
}

/// A list of whole numbers, or nothing and a diagnostic.
fn whole_numbers<'a>(reader: &mut Reader<'a>, raw: Raw<'a>) -> Option<Vec<i64>> {
    let raws = reader.node::<Vec<Raw<'_>>>(raw)?;
    Some(raws.into_iter().filter_map(|raw| whole_number(reader, raw)).collect())
}

/// A whole number that constants can be, or nothing and a diagnostic.
pub(super) fn whole_number<'a>(reader: &mut Reader<'a>, raw: Raw<'a>) -> Option<i64> {
    let number = reader.node::<f64>(raw)?;
    if number.fract() == 0.0 && number.abs() <= f64::from(u32::MAX) {
        return Some(number as i64);
    }
    reader.diagnostics.push(Diagnostic::error(reader.span(raw), format!("expected a whole number, found {number}")));
    None
}

/// Reads what a manifest leaves open, against the rest of it.
pub(super) fn tune<'a>(
    reader: &mut Reader<'a>,
    raw: Raw<'a>,
    (ports, consts, variants): (&[PortDef], &[ConstDef], &[Variant]),
) -> Option<Tune> {
    let syntax = reader.node::<TuneSyntax<'_>>(raw)?;
    let names = |reader: &mut Reader<'a>, raws: &[Raw<'a>]| -> Vec<Name> {
        raws.iter().filter_map(|raw| reader.name(raw)).collect()
    };
    let by = names(reader, &syntax.by);
    let offered: Vec<(Name, Vec<i64>)> = reader
        .entries(&syntax.consts, "constant")
        .into_iter()
        .filter_map(|(name, raw)| Some((name, whole_numbers(reader, raw)?)))
        .collect();
    let texts = names(reader, &syntax.variants);
    let when = reader.exprs(&syntax.when);
    let batch_invariant = names(reader, &syntax.batch_invariant);
    let tune = Tune { by, consts: offered, variants: texts, when, batch_invariant };
    let mut found = unknown_names(&tune, ports, consts, variants);
    if tune.consts.is_empty() && tune.variants.is_empty() {
        found.push(Diagnostic::error(reader.span(raw), "there is nothing to choose: expected `consts` or `variants`"));
    }
    reader.diagnostics.append(&mut found);
    Some(tune)
}

/// Names that are none of the kernel's, and constants without a value to choose.
fn unknown_names(tune: &Tune, ports: &[PortDef], consts: &[ConstDef], variants: &[Variant]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let dims: Vec<&str> =
        ports.iter().flat_map(|port| &port.shape).filter_map(|extent| extent.expr.as_name()).collect();
    let port_names = || ports.iter().map(|port| port.name.text.as_str());
    for name in &tune.by {
        if !dims.contains(&name.text.as_str()) && !port_names().any(|port| port == name.text) {
            let message = format!("`{}` is no dim and no port of the kernel", name.text);
            let known = dims.iter().copied().chain(port_names());
            found.push(Diagnostic::error(name.span, message).suggest(&name.text, known));
        }
    }
    for (name, values) in &tune.consts {
        let known = consts.iter().find(|constant| constant.name == *name);
        let diagnostic = |message: String| Diagnostic::error(name.span, message);
        match known.map(|constant| &constant.value) {
            None => {
                let names = consts.iter().map(|constant| constant.name.text.as_str());
                found
                    .push(diagnostic(format!("the kernel has no constant `{}`", name.text)).suggest(&name.text, names));
            }
            Some(ConstValue::Required) => {
                let message = format!("every op gives `{}` itself, so there is nothing to choose", name.text);
                found.push(diagnostic(message));
            }
            Some(_) if values.is_empty() => found.push(diagnostic(format!("`{}` has no values", name.text))),
            Some(_) => {}
        }
    }
    let offered = || tune.consts.iter().map(|(name, _)| name.text.as_str());
    for name in tune.batch_invariant.iter().filter(|name| !offered().any(|other| other == name.text)) {
        let message = format!("`{}` is none of the constants to choose", name.text);
        found.push(Diagnostic::error(name.span, message).suggest(&name.text, offered()));
    }
    let files = || variants.iter().map(|variant| variant.template.file.as_str());
    for name in tune.variants.iter().filter(|name| !files().any(|file| file == name.text)) {
        let message = format!("`{}` is no text of the kernel", name.text);
        found.push(Diagnostic::error(name.span, message).suggest(&name.text, files()));
    }
    let known = |name: &str| {
        dims.contains(&name)
            || consts.iter().any(|constant| constant.name.text == name)
            || GUARD_FACTS.contains(&name)
            || format_fact(name).is_some_and(|(port, _)| port_names().any(|known| known == port))
    };
    for when in &tune.when {
        let Some(name) = unknown_name(&when.expr, &known) else { continue };
        let message = format!("unknown dim `{name}` in `{}`", when.expr);
        let known = dims.iter().copied().chain(consts.iter().map(|constant| constant.name.text.as_str()));
        found.push(Diagnostic::error(when.span, message).suggest(name, known));
    }
    found
}
