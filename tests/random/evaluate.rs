//! Evaluates a random program directly, one lane at a time.
//!
//! Gets the statements and the words of a lane, returns the words that it writes. What holds then: integers wrap, shift
//! by the low five bits, and give the dividend or nothing where they are divided by zero; floats are rounded after each
//! operation, and `exp` is the same library's. Never looks at WGSL.

use super::program::{ARRAY, Expr, Function, Kind, Program, Statement, Ty};

/// Components, with what they are; truth values are 0 and 1.
#[derive(Clone, Debug)]
struct Value {
    kind: Kind,
    words: Vec<u32>,
}

/// How a statement ends.
enum Flow {
    On,
    Break,
    Continue,
    Return(Value),
}

struct Frame<'a> {
    program: &'a Program,
    inputs: &'a [u32],
    variables: Vec<Value>,
    list: [u32; ARRAY],
}

/// The words that a lane writes, and whether each is a float.
pub fn evaluate(program: &Program, inputs: &[u32]) -> Vec<(u32, bool)> {
    let mut frame = Frame::new(program, inputs, &program.main, Vec::new());
    frame.block(&program.main.body);
    let variables =
        frame.variables.iter().flat_map(|value| value.words.iter().map(|word| (*word, value.kind == Kind::F)));
    variables.chain(frame.list.iter().map(|word| (*word, false))).collect()
}

impl<'a> Frame<'a> {
    fn new(program: &'a Program, inputs: &'a [u32], function: &Function, arguments: Vec<Value>) -> Self {
        let mut variables = arguments;
        let rest = &function.variables[variables.len()..];
        variables.extend(rest.iter().map(|ty| Value { kind: ty.kind, words: vec![0; ty.width] }));
        Self { program, inputs, variables, list: [0; ARRAY] }
    }

    fn block(&mut self, list: &[Statement]) -> Flow {
        for statement in list {
            match self.statement(statement) {
                Flow::On => {}
                other => return other,
            }
        }
        Flow::On
    }

    fn word(&self, expr: &Expr) -> u32 {
        self.value(expr).words[0]
    }

    fn statement(&mut self, statement: &Statement) -> Flow {
        match statement {
            Statement::Assign(to, value) => self.variables[*to] = self.value(value),
            Statement::AssignPart(to, width, at, value) => {
                let (at, value) = (self.word(at) as usize % width, self.word(value));
                self.variables[*to].words[at] = value;
            }
            Statement::Store(at, value) => {
                let (at, value) = (self.word(at) as usize % ARRAY, self.word(value));
                self.list[at] = value;
            }
            Statement::If(condition, yes, no) => {
                return self.block(if self.word(condition) == 1 { yes } else { no });
            }
            Statement::Loop(_, bound, body) => {
                let mut round = 0;
                while round < self.word(bound) % 6 {
                    match self.block(body) {
                        Flow::Break => break,
                        Flow::On | Flow::Continue => {}
                        other => return other,
                    }
                    round += 1;
                }
            }
            Statement::Switch(value, cases) => {
                let at = self.word(value) as usize % cases.len();
                return match self.block(&cases[at]) {
                    Flow::Break => Flow::On,
                    other => other,
                };
            }
            Statement::BreakIf(condition) if self.word(condition) == 1 => return Flow::Break,
            Statement::ContinueIf(condition) if self.word(condition) == 1 => return Flow::Continue,
            Statement::ReturnIf(condition, value) if self.word(condition) == 1 => {
                return Flow::Return(self.value(value));
            }
            Statement::BreakIf(_) | Statement::ContinueIf(_) | Statement::ReturnIf(..) => {}
        }
        Flow::On
    }

    fn value(&self, expr: &Expr) -> Value {
        match expr {
            Expr::Input(at) => Value { kind: Kind::U, words: vec![self.inputs[*at]] },
            Expr::Constant(kind, word) => Value { kind: *kind, words: vec![*word] },
            Expr::Variable(at) => self.variables[*at].clone(),
            Expr::Element(at) => Value { kind: Kind::U, words: vec![self.list[self.word(at) as usize % ARRAY]] },
            Expr::One(name, a) => one(name, self.value(a)),
            Expr::Two(name, a, b) => two(name, &self.value(a), &self.value(b)),
            Expr::Select(no, yes, condition) => {
                let (no, yes, condition) = (self.value(no), self.value(yes), self.value(condition));
                let pick = |at: usize| if condition.words[at] == 1 { yes.words[at] } else { no.words[at] };
                Value { kind: no.kind, words: (0..no.words.len()).map(pick).collect() }
            }
            Expr::Convert(ty, a) => converted(*ty, &self.value(a)),
            Expr::Compose(ty, parts) => {
                Value { kind: ty.kind, words: parts.iter().flat_map(|part| self.value(part).words).collect() }
            }
            Expr::Component(a, at) => part(&self.value(a), *at),
            Expr::Index(a, at, width) => part(&self.value(a), self.word(at) as usize % width),
            Expr::Swizzle(a, parts) => {
                let value = self.value(a);
                Value { kind: value.kind, words: parts.iter().map(|part| value.words[*part]).collect() }
            }
            Expr::Call(at, arguments) => {
                let function = &self.program.functions[*at];
                let arguments = arguments.iter().map(|argument| self.value(argument)).collect();
                let mut frame = Frame::new(self.program, self.inputs, function, arguments);
                match frame.block(&function.body) {
                    Flow::Return(value) => value,
                    _ => frame.value(&function.result),
                }
            }
        }
    }
}

fn part(value: &Value, at: usize) -> Value {
    Value { kind: value.kind, words: vec![value.words[at]] }
}

fn f(word: u32) -> f32 {
    f32::from_bits(word)
}

fn one(name: &str, a: Value) -> Value {
    if name == "all" {
        return Value { kind: Kind::B, words: vec![u32::from(a.words.iter().all(|word| *word == 1))] };
    }
    let op = |word: &u32| match (name, a.kind) {
        ("!", _) => 1 - word,
        ("~", _) => !word,
        ("abs", Kind::I) => (*word as i32).wrapping_abs() as u32,
        ("abs", Kind::F) => f(*word).abs().to_bits(),
        ("abs", _) => *word,
        ("floor", _) => f(*word).floor().to_bits(),
        ("sqrt", _) => f(*word).sqrt().to_bits(),
        ("exp", _) => libm::expf(f(*word)).to_bits(),
        ("countOneBits", _) => word.count_ones(),
        ("reverseBits", _) => word.reverse_bits(),
        ("countTrailingZeros", _) => word.trailing_zeros(),
        ("firstLeadingBit", Kind::I) => {
            (if (*word as i32) < 0 { !word } else { *word }).checked_ilog2().unwrap_or(u32::MAX)
        }
        ("firstLeadingBit", _) => word.checked_ilog2().unwrap_or(u32::MAX),
        other => panic!("{other:?}"),
    };
    Value { kind: a.kind, words: a.words.iter().map(op).collect() }
}

fn two(name: &str, a: &Value, b: &Value) -> Value {
    if name == "dot" {
        let sum = a.words.iter().zip(&b.words).fold(0_u32, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b)));
        return Value { kind: a.kind, words: vec![sum] };
    }
    let is_comparison = matches!(name, "==" | "!=" | "<" | "<=" | ">" | ">=");
    let op = |(a_word, b_word): (&u32, &u32)| match a.kind {
        _ if is_comparison => u32::from(compared(name, a.kind, *a_word, *b_word)),
        Kind::F => floats(name, f(*a_word), f(*b_word)).to_bits(),
        kind => integers(name, kind == Kind::I, *a_word, *b_word),
    };
    let kind = if is_comparison { Kind::B } else { a.kind };
    Value { kind, words: a.words.iter().zip(&b.words).map(op).collect() }
}

fn compared(name: &str, kind: Kind, a: u32, b: u32) -> bool {
    let order = match kind {
        Kind::F => f(a).partial_cmp(&f(b)),
        Kind::I => Some((a as i32).cmp(&(b as i32))),
        _ => Some(a.cmp(&b)),
    };
    let Some(order) = order else { return name == "!=" };
    match name {
        "==" => order.is_eq(),
        "!=" => order.is_ne(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    }
}

fn floats(name: &str, a: f32, b: f32) -> f32 {
    match name {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a / b,
        // The first of two equal ones, the other where one is no number.
        "min" if b < a || a.is_nan() => b,
        "max" if b > a || a.is_nan() => b,
        "min" | "max" => a,
        "step" if a <= b => 1.0,
        "step" => 0.0,
        other => panic!("{other}"),
    }
}

fn integers(name: &str, is_signed: bool, a: u32, b: u32) -> u32 {
    let (i, j) = (a as i32, b as i32);
    match (name, is_signed) {
        ("+", _) => a.wrapping_add(b),
        ("-", _) => a.wrapping_sub(b),
        ("*", _) => a.wrapping_mul(b),
        ("/", _) if b == 0 => a,
        ("%", _) if b == 0 => 0,
        ("/", true) => i.wrapping_div(j) as u32,
        ("%", true) => i.wrapping_rem(j) as u32,
        ("/", false) => a / b,
        ("%", false) => a % b,
        ("&", _) => a & b,
        ("|", _) => a | b,
        ("^", _) => a ^ b,
        ("<<", _) => a.wrapping_shl(b),
        (">>", true) => i.wrapping_shr(b) as u32,
        (">>", false) => a.wrapping_shr(b),
        ("min", true) => i.min(j) as u32,
        ("max", true) => i.max(j) as u32,
        ("min", false) => a.min(b),
        ("max", false) => a.max(b),
        other => panic!("{other:?}"),
    }
}

fn converted(to: Ty, a: &Value) -> Value {
    let op = |word: &u32| {
        let word = *word;
        match (a.kind, to.kind) {
            (Kind::F, Kind::F) => word,
            // To the nearest that both types have.
            (Kind::F, Kind::I) => f64::from(f(word)).clamp(-2_147_483_648.0, 2_147_483_520.0) as i32 as u32,
            (Kind::F, Kind::U) => f64::from(f(word)).clamp(0.0, 4_294_967_040.0) as u32,
            (Kind::F, Kind::B) => u32::from(f(word) != 0.0),
            (Kind::I, Kind::F) => (word as i32 as f32).to_bits(),
            (_, Kind::F) => (word as f32).to_bits(),
            (_, Kind::B) => u32::from(word != 0),
            _ => word,
        }
    };
    Value { kind: to.kind, words: a.words.iter().map(op).collect() }
}
