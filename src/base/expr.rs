//! Integer expressions over named dims: shapes, conditions, dispatch sizes.
//!
//! Gets text, returns an [`Expr`]; evaluates it with a look-up of names. Graphs and kernel manifests share this one
//! language: `+ - * / %`, comparisons, `&& || !`, parentheses, and `ceil_div`, `floor_div`, `min`, `max`. Division by
//! `/` must be exact, so that a wrong shape is an error, not a rounding. Truth is 1, falsehood 0. Never knows what a
//! name means.

use std::fmt;

use serde::{Serialize, Serializer};

/// A parsed expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expr {
    text: String,
    root: Node,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Number(i64),
    Name(String),
    Not(Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    Call(Function, Box<Node>, Box<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Eq,
    Ne,
    Le,
    Lt,
    Ge,
    Gt,
    And,
    Or,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    CeilDiv,
    FloorDiv,
    Min,
    Max,
}

/// Why an expression cannot be read: what is wrong and at which byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Byte offset in the text.
    pub at: usize,
    /// What is wrong.
    pub message: String,
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvalError {
    /// A name that means nothing here.
    Unknown(String),
    /// `/` or `%` by zero, or `/` with a remainder, or a number past 63 bits.
    Arithmetic(String),
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "unknown dim `{name}`"),
            Self::Arithmetic(what) => f.write_str(what),
        }
    }
}

/// How deep parentheses and operators may nest.
const MAX_DEPTH: u32 = 64;

/// How many operators an expression may have: a chain of them nests to the left.
const MAX_OPERATORS: u32 = 1000;

impl Expr {
    /// Parses an expression.
    ///
    /// # Errors
    /// Where the text is no expression.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut parser = Parser { text, at: 0, depth: 0, operators: 0 };
        let root = parser.binary(0)?;
        parser.skip_space();
        if parser.at < text.len() {
            return Err(parser.error("expected an operator or the end"));
        }
        Ok(Self { text: text.to_owned(), root })
    }

    /// The text it was parsed from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name, if the expression is nothing but a name.
    pub fn as_name(&self) -> Option<&str> {
        match &self.root {
            Node::Name(name) => Some(name),
            _ => None,
        }
    }

    /// Every name in it, in order, repeated as in the text.
    pub fn names(&self) -> Vec<&str> {
        fn walk<'a>(node: &'a Node, names: &mut Vec<&'a str>) {
            match node {
                Node::Number(_) => {}
                Node::Name(name) => names.push(name),
                Node::Not(inner) => walk(inner, names),
                Node::Binary(_, a, b) | Node::Call(_, a, b) => {
                    walk(a, names);
                    walk(b, names);
                }
            }
        }
        let mut names = Vec::new();
        walk(&self.root, &mut names);
        names
    }

    /// Its value, with `dim` giving the value of each name.
    ///
    /// # Errors
    /// If a name is unknown or the arithmetic has no exact result.
    pub fn eval(&self, dim: &dyn Fn(&str) -> Option<i64>) -> Result<i64, EvalError> {
        eval(&self.root, dim)
    }
}

impl Serialize for Expr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A chain of operators nests to the left and is walked in a loop: recursion is as deep as the author's parentheses, so
/// that dims may ask for other dims from within.
fn eval(node: &Node, dim: &dyn Fn(&str) -> Option<i64>) -> Result<i64, EvalError> {
    let mut chain = Vec::new();
    let mut first = node;
    while let Node::Binary(operator, left, right) = first {
        chain.push((*operator, &**right));
        first = left;
    }
    let mut value = operand(first, dim)?;
    for (operator, right) in chain.into_iter().rev() {
        value = match (operator, value) {
            // The right side of `&&` and `||` is evaluated only when it matters, so a guard can protect a division.
            (Operator::And, 0) => 0,
            (Operator::And, _) => i64::from(eval(right, dim)? != 0),
            (Operator::Or, 0) => i64::from(eval(right, dim)? != 0),
            (Operator::Or, _) => 1,
            (operator, left) => apply(operator, left, eval(right, dim)?)?,
        };
    }
    Ok(value)
}

/// The value of what is no chain of operators.
fn operand(node: &Node, dim: &dyn Fn(&str) -> Option<i64>) -> Result<i64, EvalError> {
    Ok(match node {
        Node::Number(number) => *number,
        Node::Name(name) => dim(name).ok_or_else(|| EvalError::Unknown(name.clone()))?,
        Node::Not(inner) => i64::from(eval(inner, dim)? == 0),
        Node::Call(function, a, b) => {
            let (a, b) = (eval(a, dim)?, eval(b, dim)?);
            match function {
                Function::Min => a.min(b),
                Function::Max => a.max(b),
                Function::CeilDiv | Function::FloorDiv if b <= 0 => {
                    return Err(EvalError::Arithmetic(format!("{a} cannot be divided by {b}")));
                }
                Function::FloorDiv => a.div_euclid(b),
                Function::CeilDiv => a.div_euclid(b) + i64::from(a.rem_euclid(b) != 0),
            }
        }
        Node::Binary(..) => eval(node, dim)?,
    })
}

/// Two numbers and what stands between them.
fn apply(operator: Operator, a: i64, b: i64) -> Result<i64, EvalError> {
    let overflow = || EvalError::Arithmetic("the number is too large".to_owned());
    Ok(match operator {
        Operator::Add => a.checked_add(b).ok_or_else(overflow)?,
        Operator::Sub => a.checked_sub(b).ok_or_else(overflow)?,
        Operator::Mul => a.checked_mul(b).ok_or_else(overflow)?,
        Operator::Div | Operator::Rem if b == 0 => {
            return Err(EvalError::Arithmetic(format!("{a} cannot be divided by 0")));
        }
        Operator::Div if a.checked_rem(b).ok_or_else(overflow)? != 0 => {
            return Err(EvalError::Arithmetic(format!("{a} is not a multiple of {b}")));
        }
        Operator::Div => a / b,
        Operator::Rem => a.checked_rem(b).ok_or_else(overflow)?,
        Operator::Eq => i64::from(a == b),
        Operator::Ne => i64::from(a != b),
        Operator::Le => i64::from(a <= b),
        Operator::Lt => i64::from(a < b),
        Operator::Ge => i64::from(a >= b),
        Operator::Gt => i64::from(a > b),
        Operator::And => i64::from(a != 0 && b != 0),
        Operator::Or => i64::from(a != 0 || b != 0),
    })
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    operators: u32,
}

/// Operators with their binding strength; longer spellings before their prefixes.
const OPERATORS: [(&str, Operator, u32); 13] = [
    ("||", Operator::Or, 1),
    ("&&", Operator::And, 2),
    ("==", Operator::Eq, 3),
    ("!=", Operator::Ne, 3),
    ("<=", Operator::Le, 4),
    (">=", Operator::Ge, 4),
    ("<", Operator::Lt, 4),
    (">", Operator::Gt, 4),
    ("+", Operator::Add, 5),
    ("-", Operator::Sub, 5),
    ("*", Operator::Mul, 6),
    ("/", Operator::Div, 6),
    ("%", Operator::Rem, 6),
];

impl Parser<'_> {
    fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError { at: self.at, message: message.into() }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn binary(&mut self, min_strength: u32) -> Result<Node, SyntaxError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        let mut left = self.atom()?;
        loop {
            self.skip_space();
            let Some((token, operator, strength)) =
                OPERATORS.into_iter().find(|(token, _, _)| self.rest().starts_with(token))
            else {
                break;
            };
            if strength <= min_strength {
                break;
            }
            self.at += token.len();
            self.operators += 1;
            if self.operators > MAX_OPERATORS {
                return Err(self.error("the expression is too long"));
            }
            let right = self.binary(strength)?;
            left = Node::Binary(operator, Box::new(left), Box::new(right));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn atom(&mut self) -> Result<Node, SyntaxError> {
        if self.eat("!") {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(self.error("nested too deeply"));
            }
            let inner = self.atom()?;
            self.depth -= 1;
            return Ok(Node::Not(Box::new(inner)));
        }
        if self.eat("(") {
            let inner = self.binary(0)?;
            return if self.eat(")") { Ok(inner) } else { Err(self.error("expected `)`")) };
        }
        let word = self.rest().find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(self.rest().len());
        let start = self.at;
        let text = self.text;
        let word = &text[start..start + word];
        if word.is_empty() {
            return Err(self.error("expected a number, a dim or `(`"));
        }
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            let number = word.parse().map_err(|_| self.error(format!("`{word}` is no number")))?;
            self.at += word.len();
            return Ok(Node::Number(number));
        }
        self.at += word.len();
        if !self.eat("(") {
            return Ok(Node::Name(word.to_owned()));
        }
        let function = match word {
            "ceil_div" => Function::CeilDiv,
            "floor_div" => Function::FloorDiv,
            "min" => Function::Min,
            "max" => Function::Max,
            _ => {
                self.at = start;
                return Err(self.error(format!("no function `{word}`: there are ceil_div, floor_div, min, max")));
            }
        };
        let a = self.binary(0)?;
        if !self.eat(",") {
            return Err(self.error("expected `,`: the functions take two numbers"));
        }
        let b = self.binary(0)?;
        if !self.eat(")") {
            return Err(self.error("expected `)`"));
        }
        Ok(Node::Call(function, Box::new(a), Box::new(b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<i64, EvalError> {
        Expr::parse(text).expect("parses").eval(&|name| match name {
            "C" => Some(192),
            "N" => Some(64),
            _ => None,
        })
    }

    #[test]
    fn arithmetic_follows_the_usual_strengths() {
        assert_eq!(value("2 + 3 * 4"), Ok(14));
        assert_eq!(value("10 - 3 - 2"), Ok(5));
        assert_eq!(value("C / N == 3 && !(C < N)"), Ok(1));
        assert_eq!(value("ceil_div(C + 1, N) + min(1, 2) + max(1, 2) + floor_div(C - 1, N)"), Ok(4 + 1 + 2 + 2));
        assert_eq!(value("N == 0 || C / N == 3"), Ok(1));
    }

    #[test]
    fn inexact_division_and_unknown_names_have_no_value() {
        assert_eq!(value("C / 5"), Err(EvalError::Arithmetic("192 is not a multiple of 5".into())));
        assert_eq!(value("X + 1"), Err(EvalError::Unknown("X".into())));
        assert!(value("(0 - 9223372036854775807 - 1) / (0 - 1)").is_err());
        assert_eq!(value("C % 0"), Err(EvalError::Arithmetic("192 cannot be divided by 0".into())));
    }

    #[test]
    fn syntax_errors_say_where() {
        assert_eq!(Expr::parse("C +").expect_err("ends early").at, 3);
        assert_eq!(Expr::parse("C N").expect_err("no operator").at, 2);
        assert_eq!(Expr::parse("round(C, 2)").expect_err("no such function").at, 0);
        assert!(Expr::parse(&"(".repeat(10_000)).is_err());
        assert!(Expr::parse(&"!".repeat(10_000)).is_err());
        assert!(Expr::parse(&"1+".repeat(10_000)).is_err());
    }
}
