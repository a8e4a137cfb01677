//! What a kernel is, whatever its author calls things.
//!
//! Gets a kernel of a plan, returns a number that two kernels share if they differ in nothing but names: the text's
//! tokens without comments and white space, every name that the text declares replaced by the order of its first
//! appearance in the text or in its function, and what the plan says of the kernel beside its text. Never parses WGSL
//! properly: members of structs keep their names, and a function in which one name shadows another may count as
//! different where it is not.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::plan::command::Kernel;

/// The number of a kernel.
pub fn kernel(kernel: &Kernel) -> u64 {
    let mut hasher = DefaultHasher::new();
    text(&kernel.wgsl, &mut hasher);
    let facts = (kernel.workgroup_size, kernel.workgroup_bytes, kernel.runtime_checks, kernel.zero_workgroup_memory);
    facts.hash(&mut hasher);
    for binding in &kernel.bindings {
        (binding.reads, binding.writes, binding.min_bytes).hash(&mut hasher);
    }
    hasher.finish()
}

fn text(wgsl: &str, hasher: &mut DefaultHasher) {
    let tokens = tokens(wgsl);
    let globals = globals(&tokens);
    let mut order: HashMap<&str, usize> = HashMap::new();
    let mut at = 0;
    while at < tokens.len() {
        let end = if tokens[at] == "fn" { function_end(&tokens, at) } else { at + 1 };
        // Names inside a function are its own, and may be those of another function as well.
        let locals = if tokens[at] == "fn" { declared(&tokens[(at + 2).min(end)..end]) } else { HashSet::new() };
        let mut local_order: HashMap<&str, usize> = HashMap::new();
        for at in at..end {
            let token = tokens[at];
            let is_member = at > 0 && tokens[at - 1] == ".";
            let (kind, order) = match () {
                () if is_member => (0, None),
                () if locals.contains(token) => (1, Some(&mut local_order)),
                () if globals.contains(token) => (2, Some(&mut order)),
                () => (0, None),
            };
            match order {
                Some(order) => {
                    let next = order.len();
                    (kind, *order.entry(token).or_insert(next)).hash(hasher);
                }
                None => token.hash(hasher),
            }
        }
        at = end;
    }
}

/// One past the `}` that ends the function at `start`.
fn function_end(tokens: &[&str], start: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match *token {
            "{" => depth += 1,
            "}" if depth == 1 => return at + 1,
            "}" => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}

/// The names that a text declares outside functions, those of the functions included.
fn globals<'a>(tokens: &[&'a str]) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    let mut at = 0;
    while at < tokens.len() {
        let end = tokens[at..].iter().position(|token| *token == "fn").map_or(tokens.len(), |next| at + next);
        names.extend(declared(&tokens[at..end]));
        names.extend(tokens.get(end + 1));
        at = function_end(tokens, end);
    }
    names
}

/// Words, numbers and signs, without comments. Signs of several characters are several tokens.
fn tokens(wgsl: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = wgsl.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else {
            let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let length = if word > 0 { word } else { first.len_utf8() };
            found.push(&rest[..length]);
            length
        };
        rest = rest[length..].trim_start();
    }
    found
}

/// The names that tokens declare: functions, types, constants, variables and parameters.
fn declared<'a>(tokens: &[&'a str]) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at] {
            "fn" | "let" | "const" | "override" | "alias" => names.extend(tokens.get(at + 1)),
            "var" => {
                // `var<storage, read_write> name`
                let after = match tokens.get(at + 1) {
                    Some(&"<") => tokens[at..].iter().position(|token| *token == ">").map(|end| at + end + 1),
                    _ => Some(at + 1),
                };
                names.extend(after.and_then(|after| tokens.get(after)));
            }
            "struct" => {
                names.extend(tokens.get(at + 1));
                at += tokens[at..].iter().position(|token| *token == "}").unwrap_or(0);
            }
            // Parameters, behind their attributes if they have any.
            ":" if at > 1 && ["(", ",", ")"].contains(&tokens[at - 2]) => {
                names.insert(tokens[at - 1]);
            }
            _ => {}
        }
        at += 1;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(wgsl: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        text(wgsl, &mut hasher);
        hasher.finish()
    }

    const TEXT: &str = "struct Data { v: array<f32> }\n\
        @group(0) @binding(0) var<storage, read_write> data: Data;\n\
        const N: u32 = 4u;\n\
        fn load_x(i: u32) -> f32 { return data.v[i]; }\n\
        @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {\n\
            var x = 1.0; for (var i = 0u; i < N; i++) { x += load_x(i + id.x); } data.v[id.x] = x;\n\
        }";

    #[test]
    fn names_comments_and_white_space_are_nothing() {
        let mut renamed = TEXT.to_owned();
        for (from, to) in [("load_x", "load_left"), ("N", "COUNT"), ("main", "run"), ("data:", "place:")] {
            renamed = renamed.replace(from, to);
        }
        let renamed = renamed.replace("data.v", "place.v").replace("var x =", "var /* sum */ x =\n  // of all\n ");
        assert_ne!(renamed, TEXT);
        assert_eq!(number(&renamed), number(TEXT));
    }

    #[test]
    fn functions_have_names_of_their_own() {
        let text = |of_g: &str, of_h: &str| {
            format!("fn g({of_g}: f32) -> f32 {{ return {of_g}; }} fn h({of_h}: f32) -> f32 {{ return g({of_h}); }}")
        };
        assert_eq!(number(&text("x", "x")), number(&text("x", "y")));
        assert_eq!(number(&text("x", "x")), number(&text("a", "b")));
        assert_ne!(number(&text("x", "x")), number(&text("x", "x").replace("g(x)", "h(x)")));
    }

    #[test]
    fn numbers_signs_and_which_name_is_used_where_are_something() {
        for (from, to) in
            [("4u", "5u"), ("x +=", "x -="), ("i + id.x", "i + id.y"), ("load_x(i +", "load_x(N +"), ("f32>", "u32>")]
        {
            assert!(TEXT.contains(from), "{from}");
            assert_ne!(number(&TEXT.replace(from, to)), number(TEXT), "{from} -> {to}");
        }
    }
}
