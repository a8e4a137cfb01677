//! Lines that a text repeats.
//!
//! Gets lines with `#unroll NAME in COUNT` … `#end` around some of them, and the values of constants; returns the lines
//! between them COUNT times, `${NAME}` standing for 0, 1, 2, …. So a text can have as many variables, or elements of an
//! array that it never indexes by a variable, as a constant says: those stay in registers, whatever a driver makes of
//! loops. What holds then: every line still has its place in its file. Never looks at what a line says.

use std::collections::BTreeMap;

use crate::base::diag::Diagnostic;
use crate::base::expr::Expr;
use crate::base::span::Span;
use crate::kernel::Line;

/// More lines than any text has that a device can run: a bound on what repeating adds.
const MAX_LINES: usize = 1 << 14;

/// How deep repeated lines may nest.
const MAX_DEPTH: usize = 4;

/// A line that begins repetition, or ends it.
enum Mark<'l> {
    Begin(&'l str, &'l str),
    End,
}

fn mark(line: &str) -> Option<Mark<'_>> {
    let rest = line.trim_start();
    if rest.trim_end() == "#end" {
        return Some(Mark::End);
    }
    let (name, count) = rest.strip_prefix("#unroll ")?.split_once(" in ").unwrap_or(("", ""));
    Some(Mark::Begin(name.trim(), count.trim()))
}

/// What is wrong with the marks of a text; `known` are the constants that counts may be made of.
pub(super) fn check(lines: &[Line], known: &dyn Fn(&str) -> bool) -> Vec<Diagnostic> {
    let mut wrong = Vec::new();
    let mut open: Vec<&Line> = Vec::new();
    for line in lines {
        match mark(&line.text) {
            None => {}
            Some(Mark::Begin(name, count)) => {
                let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let count = Expr::parse(count).ok();
                let unknown = count.as_ref().and_then(|count| count.names().into_iter().find(|name| !known(name)));
                if name.is_empty() || !name.chars().all(is_word) || count.is_none() {
                    wrong.push(at(line, "expected `#unroll NAME in COUNT`".to_owned()));
                } else if let Some(unknown) = unknown {
                    wrong.push(at(line, format!("`{unknown}` is no `override` of this text")));
                }
                open.push(line);
                if open.len() > MAX_DEPTH {
                    wrong.push(at(line, format!("repeated lines nest more than {MAX_DEPTH} deep")));
                }
            }
            Some(Mark::End) if open.pop().is_none() => wrong.push(at(line, "`#end` of nothing".to_owned())),
            Some(Mark::End) => {}
        }
    }
    wrong.extend(open.first().map(|line| at(line, "`#unroll` without an `#end`".to_owned())));
    wrong
}

fn at(line: &Line, message: String) -> Diagnostic {
    match line.origin {
        Some(origin) => {
            let start = origin.offset as usize;
            Diagnostic::error(Span::new(origin.source, start..start + line.text.len()), message)
        }
        None => Diagnostic::placeless(message),
    }
}

/// The lines with every repetition written out. `consts` gives constants as WGSL, as in `("ROWS", "8u")`.
pub(super) fn expand(lines: Vec<Line>, consts: &[(String, String)]) -> Vec<Line> {
    if !lines.iter().any(|line| mark(&line.text).is_some()) {
        return lines;
    }
    let number = |text: &str| text.trim_end_matches(['u', 'i']).parse::<i64>().ok();
    let consts: BTreeMap<&str, i64> =
        consts.iter().filter_map(|(name, value)| Some((name.as_str(), number(value)?))).collect();
    let mut out = Vec::new();
    repeat(&lines, &consts, &mut Vec::new(), &mut out);
    out
}

fn repeat(lines: &[Line], consts: &BTreeMap<&str, i64>, variables: &mut Vec<(String, i64)>, out: &mut Vec<Line>) {
    let mut at = 0;
    while at < lines.len() && out.len() < MAX_LINES {
        let line = &lines[at];
        match mark(&line.text) {
            Some(Mark::Begin(name, count)) => {
                let end = end(lines, at);
                let lookup = |name: &str| {
                    let variable = variables.iter().rev().find(|(other, _)| other == name);
                    variable.map(|(_, value)| *value).or_else(|| consts.get(name).copied())
                };
                let count = Expr::parse(count).ok().and_then(|count| count.eval(&lookup).ok()).unwrap_or(0);
                for value in 0..count {
                    variables.push((name.to_owned(), value));
                    repeat(&lines[at + 1..end], consts, variables, out);
                    variables.pop();
                }
                at = end;
            }
            Some(Mark::End) => {}
            None => {
                let mut line = line.clone();
                if line.text.contains("${") {
                    for (name, value) in &*variables {
                        line.text = line.text.replace(&format!("${{{name}}}"), &value.to_string());
                    }
                }
                out.push(line);
            }
        }
        at += 1;
    }
}

/// The line that ends the repetition that begins at `begin`; the last one if none does.
fn end(lines: &[Line], begin: usize) -> usize {
    let mut depth = 0;
    for (at, line) in lines.iter().enumerate().skip(begin) {
        match mark(&line.text) {
            Some(Mark::Begin(..)) => depth += 1,
            Some(Mark::End) if depth == 1 => return at,
            Some(Mark::End) => depth -= 1,
            None => {}
        }
    }
    lines.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Line> {
        text.lines().map(|text| Line { text: text.to_owned(), origin: None }).collect()
    }

    fn expanded(text: &str, consts: &[(&str, &str)]) -> String {
        let consts: Vec<_> = consts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        expand(lines(text), &consts).into_iter().map(|line| line.text).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn lines_are_repeated_with_numbers() {
        let text = "a\n#unroll r in ROWS\nlet w${r} = x[${r}u];\n#end\nb";
        assert_eq!(expanded(text, &[("ROWS", "2u")]), "a\nlet w0 = x[0u];\nlet w1 = x[1u];\nb");
        assert_eq!(expanded(text, &[("ROWS", "0u")]), "a\nb");
    }

    #[test]
    fn repetitions_nest_and_counts_are_expressions() {
        let text = "#unroll n in A / 2\n#unroll r in n + 1\n${n}${r}\n#end\n#end";
        assert_eq!(expanded(text, &[("A", "4u")]), "00\n10\n11");
    }

    #[test]
    fn marks_have_to_be_whole() {
        let wrong = |text: &str| -> Vec<String> {
            check(&lines(text), &|name| name == "ROWS").into_iter().map(|wrong| wrong.message).collect()
        };
        assert_eq!(wrong("#unroll r in ROWS\n#end"), Vec::<String>::new());
        assert_eq!(wrong("#unroll r in ROWS"), ["`#unroll` without an `#end`"]);
        assert_eq!(wrong("#end"), ["`#end` of nothing"]);
        assert_eq!(wrong("#unroll r in 2 *\n#end"), ["expected `#unroll NAME in COUNT`"]);
        assert_eq!(wrong("#unroll r in LINES\n#end"), ["`LINES` is no `override` of this text"]);
    }
}
