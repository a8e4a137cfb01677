//! What naga finds in a text: entry point, bindings, accesses, workgroup size.
//!
//! Gets complete WGSL, returns a [`Reflection`], or naga's complaint at its place in the author's file. What is said
//! about reads and writes comes from naga's analysis of the entry point and all it calls. Never trusts a declaration.

use naga::valid::{Capabilities, GlobalUse, ValidationFlags, Validator};

use crate::base::diag::Diagnostic;
use crate::base::span::{SourceId, Span};
use crate::kernel::compose::Composed;
use crate::kernel::{Access, Line, bounds, uses_cooperative_matrices, uses_subgroups, uses_wide_words};

/// What naga found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reflection {
    /// Name of the one compute entry point.
    pub entry: String,
    /// Threads of a workgroup.
    pub workgroup_size: [u32; 3],
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Whether it uses subgroup operations, or seems to.
    pub needs_subgroups: bool,
    /// Whether it uses cooperative matrices, or seems to.
    pub needs_cooperative_matrix: bool,
    /// Whether its accessors read words of 64 bits.
    pub needs_wide_words: bool,
    /// The bindings of group 0, by number.
    pub bindings: Vec<ReflectedBinding>,
}

/// A storage binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReflectedBinding {
    /// The variable's name.
    pub name: String,
    /// Its number in group 0.
    pub number: u32,
    /// What the entry point does with it.
    pub access: Access,
    /// Whether it is declared `read_write`.
    pub declared_write: bool,
    /// Bytes that its type has at least: with one element where the last array has no length.
    pub min_bytes: u64,
}

/// Parses and validates a composed text.
///
/// `fallback` is the place for errors in lines that the compiler wrote.
///
/// # Errors
/// What naga complains about, and anything but exactly one compute entry point.
pub fn reflect(composed: &Composed, fallback: Span) -> Result<Reflection, Diagnostic> {
    let text = composed.text();
    bounds::check(&text).map_err(|(range, reason)| {
        diagnostic(composed, &text, fallback, &reason, vec![(Some(range), String::new())])
    })?;
    let module = naga::front::wgsl::parse_str(&text).map_err(|error| {
        let labels = error.labels().map(|(span, label)| (span.to_range(), label.to_owned())).collect();
        diagnostic(composed, &text, fallback, error.message(), labels)
    })?;
    let mut validator = Validator::new(ValidationFlags::all(), capabilities(&text));
    validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE);
    validator.subgroup_operations(naga::valid::SubgroupOperationSet::all());
    let info = validator.validate(&module).map_err(|error| {
        let labels = error.spans().map(|(span, label)| (span.to_range(), label.clone())).collect();
        let mut message = error.as_inner().to_string();
        let mut source = std::error::Error::source(error.as_inner());
        while let Some(inner) = source {
            message = format!("{message}: {inner}");
            source = inner.source();
        }
        diagnostic(composed, &text, fallback, &message, labels)
    })?;
    let [entry] = module.entry_points.as_slice() else {
        let found = format!("expected one compute entry point, found {}", module.entry_points.len());
        return Err(Diagnostic::error(fallback, found));
    };
    if let Some((span, message, label)) = unsupported(&module) {
        return Err(diagnostic(composed, &text, fallback, &message, vec![(span.to_range(), label.to_owned())]));
    }
    let mut layouter = naga::proc::Layouter::default();
    let _ = layouter.update(module.to_ctx());
    let mut reflection = Reflection {
        entry: entry.name.clone(),
        workgroup_size: entry.workgroup_size,
        workgroup_bytes: 0,
        needs_subgroups: text.lines().any(uses_subgroups),
        needs_cooperative_matrix: text.lines().any(uses_cooperative_matrices),
        needs_wide_words: text.lines().any(uses_wide_words),
        bindings: Vec::new(),
    };
    let uses = info.get_entry_point(0);
    for (handle, variable) in module.global_variables.iter() {
        let used = uses[handle];
        match (variable.space, &variable.binding) {
            (naga::AddressSpace::WorkGroup, _) if !used.is_empty() => {
                let size_bytes = layouter[variable.ty].size.checked_next_multiple_of(16).unwrap_or(u32::MAX);
                reflection.workgroup_bytes = reflection.workgroup_bytes.saturating_add(size_bytes);
            }
            (naga::AddressSpace::Storage { access }, Some(binding)) => {
                reflection.bindings.push(ReflectedBinding {
                    name: variable.name.clone().unwrap_or_default(),
                    number: binding.binding,
                    access: Access {
                        reads: used.intersects(GlobalUse::READ | GlobalUse::ATOMIC),
                        writes: used.intersects(GlobalUse::WRITE | GlobalUse::ATOMIC),
                    },
                    declared_write: access.contains(naga::StorageAccess::STORE),
                    min_bytes: u64::from(layouter[variable.ty].size),
                });
            }
            _ => {}
        }
    }
    reflection.bindings.sort_by_key(|binding| binding.number);
    Ok(reflection)
}

/// What naga accepts and plans have no words for: its place, what is said of it and beside it.
fn unsupported(module: &naga::Module) -> Option<(naga::Span, String, &'static str)> {
    if let Some((handle, constant)) = module.overrides.iter().next() {
        let message = format!("`{}` is an override without a value", constant.name.as_deref().unwrap_or("?"));
        let label = "expected `override NAME: TYPE`, one a line; `@id` attributes are not supported";
        return Some((module.overrides.get_span(handle), message, label));
    }
    module.global_variables.iter().find_map(|(handle, variable)| {
        let group = variable.binding?.group;
        if group == 0 && matches!(variable.space, naga::AddressSpace::Storage { .. }) {
            return None;
        }
        let (name, space) = (variable.name.as_deref().unwrap_or("?"), variable.space);
        let message = format!("`{name}` is bound as {space:?} in group {group}, expected storage in group 0");
        Some((module.global_variables.get_span(handle), message, ""))
    })
}

/// Parses and validates a complete text whose author is not at hand, such as a plan file's.
///
/// # Errors
/// What naga complains about, as one line.
pub fn reflect_text(text: &str) -> Result<Reflection, String> {
    let lines = text.lines().map(|line| Line { text: line.to_owned(), origin: None }).collect();
    let nowhere = Span::new(SourceId::new(0), 0..0);
    reflect(&Composed { lines }, nowhere).map_err(|diagnostic| diagnostic.message)
}

/// What kernels may use: WebGPU's own set, subgroups, and cooperative matrices with the halves that they are made of,
/// which is what executors turn on. Other kernels unpack halves into f32. Numbers of 64 bits are for accessors alone.
fn capabilities(text: &str) -> Capabilities {
    let matrices = Capabilities::COOPERATIVE_MATRIX | Capabilities::SHADER_FLOAT16;
    let mut all = Capabilities::SUBGROUP | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    all.set(matrices, text.lines().any(uses_cooperative_matrices));
    all.set(Capabilities::SHADER_INT64, text.lines().any(uses_wide_words));
    all
}

/// naga's complaint, moved from the composed text to the files it came from.
fn diagnostic(
    composed: &Composed,
    text: &str,
    fallback: Span,
    message: &str,
    labels: Vec<(Option<std::ops::Range<usize>>, String)>,
) -> Diagnostic {
    let mut result: Option<Diagnostic> = None;
    let mut strays = Vec::new();
    for (range, label) in labels {
        match range.and_then(|range| original(composed, text, range)) {
            Some(span) => {
                result = Some(match result {
                    None => Diagnostic::error(span, message).label(label),
                    Some(diagnostic) => diagnostic.also(span, label),
                });
            }
            None => strays.push(label),
        }
    }
    let diagnostic = result.unwrap_or_else(|| Diagnostic::error(fallback, message));
    strays.into_iter().filter(|label| !label.is_empty()).fold(diagnostic, Diagnostic::note)
}

/// The place in the author's file of a range of the composed text, if its first line comes from one.
fn original(composed: &Composed, text: &str, range: std::ops::Range<usize>) -> Option<Span> {
    let before = text.get(..range.start)?;
    let line = before.matches('\n').count();
    let column = range.start - before.rfind('\n').map_or(0, |at| at + 1);
    let line = composed.lines.get(line)?;
    let origin = line.origin?;
    let column = column.checked_sub(origin.prefix as usize)?;
    let line_end = line.text.len() - origin.prefix as usize;
    let start = origin.offset as usize + column.min(line_end);
    let end = origin.offset as usize + (column + range.len()).min(line_end);
    Some(Span::new(origin.source, start..end.max(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: &str = "@compute @workgroup_size(1) fn main() { y[0] = 1.0; }";

    fn refusal(text: &str) -> String {
        reflect_text(text).expect_err("refused")
    }

    #[test]
    fn bindings_are_storage_in_group_0() {
        let uniform = format!(
            "@group(0) @binding(0) var<storage, read_write> y: array<f32>;
            @group(0) @binding(1) var<uniform> u: vec4<f32>; {MAIN}"
        );
        assert_eq!(refusal(&uniform), "`u` is bound as Uniform in group 0, expected storage in group 0");
        let group = format!("@group(1) @binding(0) var<storage, read_write> y: array<f32>; {MAIN}");
        assert!(refusal(&group).ends_with("in group 1, expected storage in group 0"));
    }

    #[test]
    fn bindings_have_a_least_size() {
        let text = "struct S { a: vec4<f32>, v: array<vec2<f32>> }
            @group(0) @binding(0) var<storage, read> x: array<f32, 4000000>;
            @group(0) @binding(1) var<storage, read> z: S;
            @group(0) @binding(2) var<storage, read_write> y: array<f32>;
            @compute @workgroup_size(1) fn main() { y[0] = x[0] + z.v[0].x; }";
        let found = reflect_text(text).expect("valid").bindings;
        let sizes: Vec<u64> = found.iter().map(|binding| binding.min_bytes).collect();
        // A struct is rounded up to the alignment of its widest member.
        assert_eq!(sizes, [16_000_000, 32, 4]);
    }

    #[test]
    fn overrides_are_written_out() {
        let text = format!(
            "@group(0) @binding(0) var<storage, read_write> y: array<f32>;
            @id(1) override C: u32 = 4u; {MAIN}"
        );
        assert_eq!(refusal(&text), "`C` is an override without a value");
    }

    #[test]
    fn workgroup_memory_beyond_all_numbers_does_not_overflow() {
        let text = "@group(0) @binding(0) var<storage, read_write> y: array<f32>;
            var<workgroup> a: array<f32, 500000000>;
            var<workgroup> b: array<f32, 500000000>;
            var<workgroup> c: array<f32, 500000000>;
            @compute @workgroup_size(1) fn main() { y[0] = a[0] + b[0] + c[0]; }";
        if let Ok(found) = reflect_text(text) {
            assert_eq!(found.workgroup_bytes, u32::MAX);
        }
    }
}
