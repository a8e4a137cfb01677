//! What naga can take: how deep a text nests and how long it is.
//!
//! Gets complete WGSL, returns the place where it goes further than any kernel does, and why. What holds then: naga,
//! which follows the structure of a text by recursion, stays within the stack of any thread. Its own limits cover
//! brackets and braces, and neither chains of operators, chains of `else` nor declarations that need each other. Never
//! parses: tokens are enough to count.

use std::ops::Range;

/// Bytes of a text, imports and accessors included.
const MAX_BYTES: usize = 256 << 10;

/// Brackets of any kind inside each other.
const MAX_BRACKETS: usize = 64;

/// Operators of an expression, as far as they may nest: a chain of them does, to the left.
const MAX_OPERATORS: usize = 512;

/// Branches of the text that follow on an `else`: a chain of them nests.
const MAX_ELSES: usize = 128;

/// Declarations of the module: each may need the next.
const MAX_DECLARATIONS: usize = 1000;

/// What is open at a place of a text.
struct Level {
    is_brace: bool,
    /// Operators since the last comma or the beginning of the statement, closed brackets included.
    operators: usize,
}

/// Whether naga can follow the text.
///
/// # Errors
/// Where it cannot, and why.
pub(super) fn check(text: &str) -> Result<(), (Range<usize>, String)> {
    if text.len() > MAX_BYTES {
        return Err((0..0, format!("the text has {} bytes with all that it imports, at most {MAX_BYTES}", text.len())));
    }
    let mut levels = vec![Level { is_brace: true, operators: 0 }];
    let (mut elses, mut declarations) = (0, 0);
    for (at, token) in tokens(text) {
        let range = at..at + token.len();
        match token {
            "(" | "[" | "{" => {
                levels.push(Level { is_brace: token == "{", operators: 1 });
                if levels.len() > MAX_BRACKETS {
                    return Err((range, format!("brackets nest more than {MAX_BRACKETS} deep")));
                }
            }
            ")" | "]" | "}" => {
                let closed = if levels.len() > 1 { levels.pop() } else { None };
                let top = levels.last_mut().expect("the outermost level is never closed");
                // A block ends the statement that it belongs to; a bracket is part of its expression.
                top.operators = match closed {
                    Some(Level { is_brace: false, operators }) => top.operators + operators,
                    _ => 0,
                };
            }
            "," => levels.last_mut().expect("a level").operators = 0,
            ";" => {
                // A bracket that was never closed is naga's to report; what follows is another statement all the same.
                levels.last_mut().expect("a level").operators = 0;
            }
            "else" => elses += 1,
            "const" | "fn" | "struct" | "alias" | "var" | "override" | "const_assert" if levels.len() == 1 => {
                declarations += 1;
            }
            _ if token.starts_with(|c: char| c.is_ascii_punctuation() && c != '_') => {
                levels.last_mut().expect("a level").operators += 1;
            }
            _ => {}
        }
        let operators: usize = levels.iter().rev().take_while(|level| !level.is_brace).map(|l| l.operators).sum();
        let at_brace = levels.iter().rev().find(|level| level.is_brace).map_or(0, |level| level.operators);
        for (count, most, what) in [
            (operators + at_brace, MAX_OPERATORS, "operators in one expression"),
            (elses, MAX_ELSES, "branches behind an `else`"),
            (declarations, MAX_DECLARATIONS, "declarations"),
        ] {
            if count > most {
                return Err((range, format!("more than {most} {what}")));
            }
        }
    }
    Ok(())
}

/// Words and single characters of punctuation, with their places; comments left out, which nest.
fn tokens(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = &text[at..];
            let first = rest.chars().next()?;
            if rest.starts_with("//") {
                at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                at += comment(rest);
            } else if first.is_alphanumeric() || first == '_' {
                let len = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
                at += len;
                return Some((at - len, &rest[..len]));
            } else {
                at += first.len_utf8();
                if !first.is_whitespace() {
                    return Some((at - first.len_utf8(), &rest[..first.len_utf8()]));
                }
            }
        }
    })
}

/// Bytes of the block comment at the beginning of a text.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(found) = text[at..].find(['/', '*']) {
        at += found;
        let here = &text[at..];
        match (here.starts_with("/*"), here.starts_with("*/")) {
            (true, _) => (depth, at) = (depth + 1, at + 2),
            (_, true) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> Option<String> {
        check(text).err().map(|(range, reason)| format!("{}: {reason}", &text[range]))
    }

    #[test]
    fn chains_are_counted_where_they_nest() {
        let sum = |count: usize| format!("fn f() {{ let y = x{}; }}", " + x".repeat(count));
        assert_eq!(refusal(&sum(500)), None);
        assert_eq!(refusal(&sum(600)).as_deref(), Some("+: more than 512 operators in one expression"));
        // Neither statements nor elements of a list nest.
        assert_eq!(refusal(&format!("fn f() {{ {} }}", "y = x + x * x; ".repeat(5000))), None);
        assert_eq!(refusal(&format!("fn f() {{ {} }}", "if x > 1 { y = x; } ".repeat(5000))), None);
        assert_eq!(refusal(&format!("const A = array({});", "1.0 + 2.0, ".repeat(5000))), None);
        // What is in brackets belongs to the expression around them.
        let halves = format!("fn f() {{ let y = (x{}){}; }}", " + x".repeat(300), " + x".repeat(300));
        assert!(refusal(&halves).is_some());
        let deep = format!("fn f() {{ let y = {}x{}; }}", "f(x + ".repeat(63), ")".repeat(63));
        assert_eq!(refusal(&deep).as_deref(), Some("(: brackets nest more than 64 deep"));
    }

    #[test]
    fn branches_and_declarations_are_counted() {
        let elses = |count: usize| format!("fn f() {{ if a {{ }} {} }}", "else if a { }".repeat(count));
        assert_eq!(refusal(&elses(128)), None);
        assert_eq!(refusal(&elses(129)).as_deref(), Some("else: more than 128 branches behind an `else`"));
        assert_eq!(refusal(&"const a = b;\n".repeat(1000)), None);
        assert_eq!(refusal(&"const a = b;\n".repeat(1001)).as_deref(), Some("const: more than 1000 declarations"));
    }

    #[test]
    fn comments_say_nothing() {
        assert_eq!(refusal(&format!("/*{}*/ fn f() {{}} // {}", "/* ( */".repeat(1000), "+".repeat(1000))), None);
        assert_eq!(refusal(&"/*".repeat(100_000)), None);
        assert!(refusal(&" ".repeat(MAX_BYTES + 1)).is_some());
    }

    /// At the very bounds, on a stack as small as any thread's.
    #[test]
    fn naga_can_take_what_is_let_through() {
        let head = "@group(0) @binding(0) var<storage, read_write> y: array<f32>;\n";
        let body = |text: String| format!("{head}@compute @workgroup_size(1) fn main() {{ let a = y[1]; {text} }}");
        let texts = [
            body(format!("y[0] = a{};", "+a".repeat(500))),
            body(format!("y[0] = {}a;", "- ".repeat(500))),
            body(format!("y[0] = {}a;", "*&".repeat(240))),
            body(format!("y[0] = vec4(a){}.x;", ".xyzw".repeat(490))),
            body(format!("y[0] = {}a{};", "abs(".repeat(60), ")".repeat(60))),
            body(format!("if a > 0.0 {{ y[0] = a; }} {}", "else if a > 0.0 { y[0] = a; }".repeat(128))),
            format!(
                "{}const c0 = 1.0;\n{}",
                (1..990).rev().map(|n| format!("const c{n} = c{};\n", n - 1)).collect::<String>(),
                body("y[0] = c989;".into())
            ),
        ];
        for text in texts {
            assert_eq!(refusal(&text), None);
            let run = move || drop(crate::kernel::reflect::reflect_text(&text));
            let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run);
            thread.expect("a thread").join().expect("no panic");
        }
    }
}
