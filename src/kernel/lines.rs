//! Which lines of a text read and write each binding.
//!
//! Gets complete WGSL and which of its lines an author wrote, returns the lines on which the entry point reaches its
//! bindings, as naga's IR has them: loads, stores and atomics of the entry point and of all that it calls. An access on
//! a line that the compiler wrote (an accessor) is followed to the author's line that calls it; where a call stands on
//! such a line too (a map), to the author's expressions that use what was read, or make what is written. What holds
//! then: every binding that is read or written has a line that does so. Never searches the text, never believes a name.

use std::collections::{BTreeMap, BTreeSet};

use naga::{Arena, Block, Expression, Function, Handle, Module, Span, Statement};

/// A line that reads or writes a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineAccess {
    /// The binding's number in group 0.
    pub binding: u32,
    /// The line of the text, from 1. One that the compiler wrote only where no author's line is behind the access.
    pub line: u32,
    /// Whether it reads.
    pub reads: bool,
    /// Whether it writes.
    pub writes: bool,
}

/// The lines that read or write bindings, by binding, then in the text's order. `is_authors` tells lines (from 1) that
/// an author wrote from those that the compiler did.
///
/// # Errors
/// What naga complains about, as one line. A text that was reflected has nothing to complain about.
pub fn accesses(text: &str, is_authors: &dyn Fn(u32) -> bool) -> Result<Vec<LineAccess>, String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|error| error.message().to_owned())?;
    let starts: Vec<usize> = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let lines = Lines { starts, is_authors };
    // A function is declared before those that call it, so what it reaches is known when a call is met.
    let mut known: BTreeMap<Handle<Function>, Reached> = BTreeMap::new();
    for (handle, function) in module.functions.iter() {
        let reached = Walk { module: &module, function, lines: &lines, known: &known }.function();
        known.insert(handle, reached);
    }
    let mut found = Reached::default();
    for entry in &module.entry_points {
        let walk = Walk { module: &module, function: &entry.function, lines: &lines, known: &known };
        found.extend(walk.function());
    }
    let mut merged: BTreeMap<(u32, u32), (bool, bool)> = BTreeMap::new();
    for Access { binding, writes, line, .. } in found.0 {
        let (reads_here, writes_here) = merged.entry((binding, line)).or_default();
        *reads_here |= !writes;
        *writes_here |= writes;
    }
    let access = |((binding, line), (reads, writes))| LineAccess { binding, line, reads, writes };
    Ok(merged.into_iter().map(access).collect())
}

/// Where lines begin, and whose they are.
struct Lines<'a> {
    starts: Vec<usize>,
    is_authors: &'a dyn Fn(u32) -> bool,
}

impl Lines<'_> {
    /// The line on which a span begins, if it is anywhere.
    fn of(&self, span: Span) -> Option<u32> {
        let start = span.to_range()?.start;
        Some(self.starts.partition_point(|line| *line <= start) as u32)
    }

    /// The same, if an author wrote that line.
    fn authors(&self, span: Span) -> Option<u32> {
        self.of(span).filter(|line| (self.is_authors)(*line))
    }
}

/// One way in which a function reaches a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Access {
    binding: u32,
    writes: bool,
    line: u32,
    /// Whether `line` is an author's; if not, calls of the function are asked.
    is_authors: bool,
}

/// All ways in which a function, with what it calls, reaches bindings.
#[derive(Clone, Debug, Default)]
struct Reached(BTreeSet<Access>);

impl Reached {
    fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

/// A called function and its arguments.
type Call = (Handle<Function>, Vec<Handle<Expression>>);

struct Walk<'a> {
    module: &'a Module,
    function: &'a Function,
    lines: &'a Lines<'a>,
    known: &'a BTreeMap<Handle<Function>, Reached>,
}

impl Walk<'_> {
    fn function(&self) -> Reached {
        let mut reached = Reached::default();
        self.block(&self.function.body, &mut reached);
        reached
    }

    fn block(&self, block: &Block, reached: &mut Reached) {
        for (statement, span) in block.span_iter() {
            match statement {
                Statement::Emit(range) => {
                    for handle in range.clone() {
                        if let Expression::Load { pointer } = self.function.expressions[handle] {
                            self.touch(pointer, false, self.function.expressions.get_span(handle), reached);
                        }
                    }
                }
                Statement::Store { pointer, .. } => self.touch(*pointer, true, *span, reached),
                Statement::Atomic { pointer, .. } => {
                    self.touch(*pointer, false, *span, reached);
                    self.touch(*pointer, true, *span, reached);
                }
                Statement::Call { function, arguments, result } => {
                    self.call(*function, arguments, *result, *span, reached);
                }
                Statement::Block(inner) => self.block(inner, reached),
                Statement::If { accept, reject, .. } => {
                    self.block(accept, reached);
                    self.block(reject, reached);
                }
                Statement::Switch { cases, .. } => cases.iter().for_each(|case| self.block(&case.body, reached)),
                Statement::Loop { body, continuing, .. } => {
                    self.block(body, reached);
                    self.block(continuing, reached);
                }
                // Nothing else reaches storage.
                _ => {}
            }
        }
    }

    /// Notes an access through a pointer, if it points into a binding.
    fn touch(&self, mut pointer: Handle<Expression>, writes: bool, span: Span, reached: &mut Reached) {
        let global = loop {
            match &self.function.expressions[pointer] {
                Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => pointer = *base,
                Expression::GlobalVariable(global) => break *global,
                // Memory of the function's own; storage is never passed as an argument.
                _ => return,
            }
        };
        let Some(binding) = &self.module.global_variables[global].binding else { return };
        let line = self.lines.of(span).unwrap_or(1);
        let is_authors = (self.lines.is_authors)(line);
        reached.0.insert(Access { binding: binding.binding, writes, line, is_authors });
    }

    /// Takes over what a called function reaches: accesses without an author's line get one from this call, if there is
    /// one to be had.
    fn call(
        &self,
        callee: Handle<Function>,
        arguments: &[Handle<Expression>],
        result: Option<Handle<Expression>>,
        span: Span,
        reached: &mut Reached,
    ) {
        let Some(inner) = self.known.get(&callee) else { return };
        for access in &inner.0 {
            if access.is_authors {
                reached.0.insert(*access);
                continue;
            }
            let behind = match (self.lines.authors(span), access.writes) {
                (Some(line), _) => vec![line],
                (None, true) => self.makers(arguments),
                (None, false) => result.map_or_else(Vec::new, |result| self.users(result)),
            };
            if behind.is_empty() {
                let line = self.lines.of(span).unwrap_or(access.line);
                reached.0.insert(Access { line, ..*access });
            }
            reached.0.extend(behind.into_iter().map(|line| Access { line, is_authors: true, ..*access }));
        }
    }

    /// The author's lines whose expressions use a value, through lines of the compiler's if need be.
    fn users(&self, value: Handle<Expression>) -> Vec<u32> {
        let expressions: &Arena<Expression> = &self.function.expressions;
        let mut calls = BTreeMap::new();
        results(&self.function.body, &mut calls);
        let mut carriers = BTreeSet::from([value]);
        let mut lines = BTreeSet::new();
        // An expression stands behind its operands, the result of a call behind its arguments.
        for (handle, expression) in expressions.iter() {
            let call = calls.get(&handle);
            let operands = call.map_or_else(|| operands(expression), |(_, arguments)| arguments.clone());
            if operands.iter().any(|operand| carriers.contains(operand)) {
                match self.lines.authors(expressions.get_span(handle)) {
                    Some(line) => lines.extend([line]),
                    None => {
                        carriers.insert(handle);
                        lines.extend(call.map_or_else(BTreeSet::new, |(function, _)| self.authored(*function)));
                    }
                }
            }
        }
        lines.into_iter().collect()
    }

    /// The author's lines whose expressions make values, looked for through lines of the compiler's.
    fn makers(&self, values: &[Handle<Expression>]) -> Vec<u32> {
        let expressions: &Arena<Expression> = &self.function.expressions;
        let mut calls = BTreeMap::new();
        results(&self.function.body, &mut calls);
        let mut lines = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut open = values.to_vec();
        while let Some(handle) = open.pop() {
            if !seen.insert(handle) {
                continue;
            }
            match self.lines.authors(expressions.get_span(handle)) {
                Some(line) => {
                    lines.insert(line);
                }
                None => match calls.get(&handle) {
                    Some((function, _)) => lines.extend(self.authored(*function)),
                    None => open.extend(operands(&expressions[handle])),
                },
            }
        }
        lines.into_iter().collect()
    }

    /// The author's lines of a function that the compiler's lines call.
    fn authored(&self, function: Handle<Function>) -> BTreeSet<u32> {
        let expressions = &self.module.functions[function].expressions;
        expressions.iter().filter_map(|(handle, _)| self.lines.authors(expressions.get_span(handle))).collect()
    }
}

/// What each call in a block calls, and with which arguments, by its result.
fn results(block: &Block, calls: &mut BTreeMap<Handle<Expression>, Call>) {
    for statement in block.iter() {
        match statement {
            Statement::Call { function, arguments, result: Some(result) } => {
                calls.insert(*result, (*function, arguments.clone()));
            }
            Statement::Block(inner) => results(inner, calls),
            Statement::If { accept, reject, .. } => {
                results(accept, calls);
                results(reject, calls);
            }
            Statement::Switch { cases, .. } => cases.iter().for_each(|case| results(&case.body, calls)),
            Statement::Loop { body, continuing, .. } => {
                results(body, calls);
                results(continuing, calls);
            }
            _ => {}
        }
    }
}

/// The values that an expression is made of.
fn operands(expression: &Expression) -> Vec<Handle<Expression>> {
    match expression {
        Expression::Compose { components, .. } => components.clone(),
        Expression::Access { base, index } => vec![*base, *index],
        Expression::AccessIndex { base, .. } => vec![*base],
        Expression::Splat { value, .. } => vec![*value],
        Expression::Swizzle { vector, .. } => vec![*vector],
        Expression::Load { pointer } => vec![*pointer],
        Expression::Unary { expr, .. } | Expression::As { expr, .. } => vec![*expr],
        Expression::Binary { left, right, .. } => vec![*left, *right],
        Expression::Select { condition, accept, reject } => vec![*condition, *accept, *reject],
        Expression::Relational { argument, .. } => vec![*argument],
        Expression::Math { arg, arg1, arg2, arg3, .. } => {
            [Some(*arg), *arg1, *arg2, *arg3].into_iter().flatten().collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(binding, line, "r", "w" or "rw")` of a text in which lines that begin with `/*c*/` are the compiler's.
    fn found(text: &str) -> Vec<(u32, u32, &'static str)> {
        let lines: Vec<&str> = text.lines().collect();
        let found = accesses(text, &|line| !lines[line as usize - 1].starts_with("/*c*/")).expect("valid");
        let mode = |access: &LineAccess| match (access.reads, access.writes) {
            (true, true) => "rw",
            (true, false) => "r",
            _ => "w",
        };
        found.iter().map(|access| (access.binding, access.line, mode(access))).collect()
    }

    const BINDINGS: &str = "\
/*c*/ @group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
/*c*/ @group(0) @binding(1) var<storage, read_write> y: array<f32>;
/*c*/ @group(0) @binding(2) var<storage, read_write> n: atomic<u32>;
/*c*/ fn load_x(i: u32) -> vec4<f32> { return x[i]; }
/*c*/ fn store_y(i: u32, v: f32) { y[i] = v; }
";

    #[test]
    fn loads_stores_and_atomics_have_their_lines() {
        let text = format!(
            "{BINDINGS}@compute @workgroup_size(1) fn main() {{
    let p = &x[1];
    if (*p).y > 0.0 {{
        y[2] += 1.0;
    }}
    atomicAdd(&n, 1u);
    let length = arrayLength(&x);
}}"
        );
        assert_eq!(found(&text), [(0, 8, "r"), (1, 9, "rw"), (2, 11, "rw")]);
    }

    #[test]
    fn accessors_are_followed_to_the_lines_that_call_them() {
        let text = format!(
            "{BINDINGS}fn twice(i: u32) -> f32 {{
    return 2.0 * load_x(i).x;
}}
fn unused() {{ store_y(0u, 0.0); }}
@compute @workgroup_size(1) fn main() {{
    // load_x(7u) in a comment is none, and so is a variable of that name.
    var load = twice(3u);
    for (var i = 0u; i < 4u; i++) {{
        store_y(i,
            load);
    }}
}}"
        );
        assert_eq!(found(&text), [(0, 7, "r"), (1, 14, "w")]);
    }

    #[test]
    fn calls_on_lines_of_the_compilers_are_followed_through_their_values() {
        let text = format!(
            "{BINDINGS}fn half(v: f32) -> f32 {{ return 0.5 * v; }}
@compute @workgroup_size(1)
/*c*/ fn main() {{
/*c*/     let a = load_x(0u);
/*c*/     let b = load_x(1u).x;
/*c*/     let value: f32 = (
        max(a.x, 0.0)
        + 2.0 * half(b)
/*c*/     );
/*c*/     store_y(0u, value);
/*c*/ }}"
        );
        assert_eq!(found(&text), [(0, 12, "r"), (0, 13, "r"), (1, 12, "w")]);
    }

    #[test]
    fn an_access_that_no_author_is_behind_keeps_its_own_line() {
        let text = format!(
            "{BINDINGS}/*c*/ @compute @workgroup_size(1) fn main() {{
/*c*/     let a = load_x(0u);
/*c*/     store_y(0u, a.x);
/*c*/ }}"
        );
        assert_eq!(found(&text), [(0, 7, "r"), (1, 8, "w")]);
    }
}
