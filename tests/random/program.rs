//! Random programs and their WGSL.
//!
//! Gets a seed, returns statements over typed variables that always end: loops count to a bound below six. What holds
//! then: every operation has one result by the specification, also at its edges. Never makes a program whose result
//! depends on the order of lanes.

use std::fmt::Write as _;

use fastrand::Rng;

/// Words that a lane reads.
pub const INPUTS: usize = 8;
/// Elements of each program's array.
pub const ARRAY: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    U,
    I,
    F,
    B,
}

/// A scalar, or a vector of two to four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ty {
    pub kind: Kind,
    pub width: usize,
}

impl Ty {
    pub const fn scalar(kind: Kind) -> Self {
        Self { kind, width: 1 }
    }

    pub fn text(self) -> String {
        let scalar = match self.kind {
            Kind::U => "u32",
            Kind::I => "i32",
            Kind::F => "f32",
            Kind::B => "bool",
        };
        if self.width == 1 { scalar.to_owned() } else { format!("vec{}<{scalar}>", self.width) }
    }
}

#[derive(Clone, Debug)]
pub enum Expr {
    /// A word that the lane reads, as u32.
    Input(usize),
    Constant(Kind, u32),
    Variable(usize),
    /// An element of the array, by a u32.
    Element(Box<Expr>),
    /// By name: a prefix operator or a function of one operand.
    One(&'static str, Box<Expr>),
    /// By name: an infix operator or a function of two.
    Two(&'static str, Box<Expr>, Box<Expr>),
    Select(Box<Expr>, Box<Expr>, Box<Expr>),
    Convert(Ty, Box<Expr>),
    Compose(Ty, Vec<Expr>),
    /// A component by a number that is known.
    Component(Box<Expr>, usize),
    /// A component by a u32, and how many there are.
    Index(Box<Expr>, Box<Expr>, usize),
    Swizzle(Box<Expr>, Vec<usize>),
    Call(usize, Vec<Expr>),
}

#[derive(Clone, Debug)]
pub enum Statement {
    Assign(usize, Expr),
    /// A component of a vector by a u32.
    AssignPart(usize, usize, Expr, Expr),
    Store(Expr, Expr),
    If(Expr, Vec<Statement>, Vec<Statement>),
    /// The counter's number, its bound, and the body.
    Loop(usize, Expr, Vec<Statement>),
    Switch(Expr, Vec<Vec<Statement>>),
    BreakIf(Expr),
    ContinueIf(Expr),
    ReturnIf(Expr, Expr),
}

/// Parameters are its first variables.
#[derive(Clone, Debug)]
pub struct Function {
    pub parameters: usize,
    pub variables: Vec<Ty>,
    pub body: Vec<Statement>,
    pub result: Expr,
    pub ty: Ty,
}

/// Functions, and the variables and statements of the entry point.
#[derive(Clone, Debug)]
pub struct Program {
    pub functions: Vec<Function>,
    pub main: Function,
}

const PARTS: [&str; 4] = ["x", "y", "z", "w"];

impl Program {
    /// Words that a lane writes: all variables and the array.
    pub fn width(&self) -> usize {
        self.main.variables.iter().map(|ty| ty.width).sum::<usize>() + ARRAY
    }

    pub fn text(&self, head: &str, lanes: usize) -> String {
        let mut text = format!("{head}var<private> first: u32;\nvar<private> zero: u32;\n");
        for (at, function) in self.functions.iter().enumerate() {
            let parameters: Vec<String> =
                (0..function.parameters).map(|at| format!("p{at}: {}", function.variables[at].text())).collect();
            writeln!(text, "fn f{at}({}) -> {} {{", parameters.join(", "), function.ty.text()).expect("a string");
            declare(&mut text, function);
            statements(&mut text, &function.body);
            writeln!(text, "return {};\n}}", expression(&function.result)).expect("a string");
        }
        let width = self.width();
        writeln!(
            text,
            "@compute @workgroup_size({lanes})\nfn main(@builtin(global_invocation_id) id: vec3<u32>) {{\n\
             first = id.x * {INPUTS}u;"
        )
        .expect("a string");
        declare(&mut text, &self.main);
        statements(&mut text, &self.main.body);
        let mut place = 0;
        for (at, ty) in self.main.variables.iter().enumerate() {
            for part in PARTS.iter().take(ty.width) {
                let value = if ty.width == 1 { format!("v{at}") } else { format!("v{at}.{part}") };
                let word = match ty.kind {
                    Kind::U => value,
                    Kind::B => format!("select(0u, 1u, {value})"),
                    _ => format!("bitcast<u32>({value})"),
                };
                writeln!(text, "y.v[id.x * {width}u + {place}u] = {word};").expect("a string");
                place += 1;
            }
        }
        for at in 0..ARRAY {
            writeln!(text, "y.v[id.x * {width}u + {}u] = list[{at}];", place + at).expect("a string");
        }
        text + "}\n"
    }
}

fn declare(text: &mut String, function: &Function) {
    for (at, ty) in function.variables.iter().enumerate() {
        let init = if at < function.parameters { format!(" = p{at}") } else { String::new() };
        writeln!(text, "var v{at}: {}{init};", ty.text()).expect("a string");
    }
    writeln!(text, "var list: array<u32, {ARRAY}>;").expect("a string");
}

fn statements(text: &mut String, list: &[Statement]) {
    for statement in list {
        *text += &match statement {
            Statement::Assign(to, value) => format!("v{to} = {};\n", expression(value)),
            Statement::AssignPart(to, width, at, value) => {
                format!("v{to}[{} % {width}u] = {};\n", expression(at), expression(value))
            }
            Statement::Store(at, value) => format!("list[{} % {ARRAY}u] = {};\n", expression(at), expression(value)),
            Statement::If(condition, yes, no) => {
                format!("if {} {{\n{}}} else {{\n{}}}\n", expression(condition), block(yes), block(no))
            }
            Statement::Loop(counter, bound, body) => {
                let bound = expression(bound);
                format!("for (var k{counter} = 0u; k{counter} < {bound} % 6u; k{counter}++) {{\n{}}}\n", block(body))
            }
            Statement::Switch(value, cases) => {
                let count = cases.len();
                let mut all = format!("switch {} % {count}u {{\n", expression(value));
                for (at, case) in cases.iter().enumerate() {
                    let label = if at + 1 == count { "default".to_owned() } else { format!("case {at}u") };
                    all += &format!("{label}: {{\n{}}}\n", block(case));
                }
                all + "}\n"
            }
            Statement::BreakIf(condition) => format!("if {} {{ break; }}\n", expression(condition)),
            Statement::ContinueIf(condition) => format!("if {} {{ continue; }}\n", expression(condition)),
            Statement::ReturnIf(condition, value) => {
                format!("if {} {{ return {}; }}\n", expression(condition), expression(value))
            }
        };
    }
}

fn block(list: &[Statement]) -> String {
    let mut text = String::new();
    statements(&mut text, list);
    text
}

fn expression(expr: &Expr) -> String {
    match expr {
        Expr::Input(at) => format!("x.v[first + {at}u]"),
        // Where all operands are known, an overflow would be an error.
        Expr::Constant(Kind::U, word) => format!("({word}u + zero)"),
        Expr::Constant(Kind::I, word) => format!("bitcast<i32>({word}u + zero)"),
        Expr::Constant(Kind::F, word) => format!("bitcast<f32>({word}u + zero)"),
        Expr::Constant(Kind::B, word) => format!("({word}u + zero == 1u)"),
        Expr::Variable(at) => format!("v{at}"),
        Expr::Element(at) => format!("list[{} % {ARRAY}u]", expression(at)),
        Expr::One(name, a) if name.len() == 1 => format!("({name}{})", expression(a)),
        Expr::One(name, a) => format!("{name}({})", expression(a)),
        Expr::Two(name, a, b) if name.starts_with(char::is_alphabetic) => {
            format!("{name}({}, {})", expression(a), expression(b))
        }
        Expr::Two(name, a, b) => format!("({} {name} {})", expression(a), expression(b)),
        Expr::Select(no, yes, condition) => {
            format!("select({}, {}, {})", expression(no), expression(yes), expression(condition))
        }
        Expr::Convert(ty, a) => format!("{}({})", ty.text(), expression(a)),
        Expr::Compose(ty, parts) => {
            let parts: Vec<String> = parts.iter().map(expression).collect();
            format!("{}({})", ty.text(), parts.join(", "))
        }
        Expr::Component(a, at) => format!("{}.{}", expression(a), PARTS[*at]),
        Expr::Index(a, at, width) => format!("{}[{} % {width}u]", expression(a), expression(at)),
        Expr::Swizzle(a, parts) => {
            let parts: String = parts.iter().map(|part| PARTS[*part]).collect();
            format!("{}.{parts}", expression(a))
        }
        Expr::Call(at, arguments) => {
            let arguments: Vec<String> = arguments.iter().map(expression).collect();
            format!("f{at}({})", arguments.join(", "))
        }
    }
}

/// Makes programs.
pub struct Random {
    random: Rng,
    has_floats: bool,
    functions: Vec<Function>,
    /// Of what is made now.
    variables: Vec<Ty>,
    counters: usize,
    /// What a function returns that may do so early.
    returns: Option<Ty>,
}

impl Random {
    pub fn new(seed: u64, has_floats: bool) -> Self {
        Self {
            random: Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            has_floats,
            functions: Vec::new(),
            variables: Vec::new(),
            counters: 0,
            returns: None,
        }
    }

    pub fn program(mut self) -> Program {
        for _ in 0..self.random.usize(0..3) {
            let parameters = self.random.usize(0..3);
            let function = self.function(parameters, 2);
            self.functions.push(function);
        }
        let main = self.function(0, 6);
        Program { functions: self.functions, main }
    }

    fn function(&mut self, parameters: usize, statements: usize) -> Function {
        let count = parameters.max(1) + self.random.usize(1..4);
        self.variables = (0..count).map(|_| self.ty()).collect();
        let ty = self.ty();
        self.returns = (statements < 6).then_some(ty);
        let mut body = Vec::new();
        for _ in 0..statements + self.random.usize(0..statements) {
            let statement = self.statement(3, false);
            body.push(statement);
        }
        let result = self.expr(ty, 2);
        Function { parameters, variables: std::mem::take(&mut self.variables), body, result, ty }
    }

    fn kind(&mut self) -> Kind {
        match self.random.u32(0..7) {
            0..=2 => Kind::U,
            3 => Kind::I,
            4 => Kind::B,
            _ if self.has_floats => Kind::F,
            _ => Kind::I,
        }
    }

    fn ty(&mut self) -> Ty {
        let kind = self.kind();
        Ty { kind, width: if self.random.bool() { 1 } else { self.random.usize(2..=4) } }
    }

    fn u(&mut self, depth: usize) -> Expr {
        self.expr(Ty::scalar(Kind::U), depth)
    }

    fn condition(&mut self) -> Expr {
        self.expr(Ty::scalar(Kind::B), 2)
    }

    fn block(&mut self, depth: usize, in_loop: bool) -> Vec<Statement> {
        (0..self.random.usize(0..4)).map(|_| self.statement(depth, in_loop)).collect()
    }

    fn statement(&mut self, depth: usize, in_loop: bool) -> Statement {
        let at = self.random.usize(0..self.variables.len());
        let ty = self.variables[at];
        match self.random.u32(0..if depth == 0 { 6 } else { 12 }) {
            0 | 1 => Statement::Assign(at, self.expr(ty, 3)),
            2 if ty.width > 1 => {
                let index = self.u(1);
                Statement::AssignPart(at, ty.width, index, self.expr(Ty::scalar(ty.kind), 2))
            }
            3 => {
                let index = self.u(1);
                Statement::Store(index, self.u(2))
            }
            4 if in_loop => {
                let condition = self.condition();
                if self.random.bool() { Statement::BreakIf(condition) } else { Statement::ContinueIf(condition) }
            }
            5 if self.returns.is_some() => {
                let ty = self.returns.expect("it is");
                Statement::ReturnIf(self.condition(), self.expr(ty, 1))
            }
            6 | 7 => {
                let condition = self.condition();
                let yes = self.block(depth - 1, in_loop);
                Statement::If(condition, yes, self.block(depth - 1, in_loop))
            }
            8 | 9 => {
                let bound = self.u(1);
                self.counters += 1;
                let counter = self.counters;
                Statement::Loop(counter, bound, self.block(depth - 1, true))
            }
            10 => {
                let value = self.u(1);
                let count = self.random.usize(1..4);
                Statement::Switch(value, (0..count).map(|_| self.block(depth - 1, in_loop)).collect())
            }
            _ => Statement::Assign(at, self.expr(ty, 2)),
        }
    }

    fn boxed(&mut self, ty: Ty, depth: usize) -> Box<Expr> {
        Box::new(self.expr(ty, depth))
    }

    /// Something of a type without operands.
    fn leaf(&mut self, ty: Ty) -> Expr {
        let same: Vec<usize> = (0..self.variables.len()).filter(|at| self.variables[*at] == ty).collect();
        if let (Some(at), true) = (self.random.choice(&same), self.random.u32(0..4) > 0) {
            return Expr::Variable(*at);
        }
        if ty.width > 1 {
            let parts = (0..ty.width).map(|_| self.leaf(Ty::scalar(ty.kind))).collect();
            return Expr::Compose(ty, parts);
        }
        let input = Expr::Input(self.random.usize(0..INPUTS));
        match (ty.kind, self.random.bool()) {
            (Kind::U, true) => input,
            (Kind::U, false) => Expr::Constant(Kind::U, [0, 1, 2, 3, 7, 31, 33, u32::MAX][self.random.usize(0..8)]),
            (Kind::I, false) => Expr::Constant(Kind::I, [0, 1, 5, u32::MAX, 0x8000_0000][self.random.usize(0..5)]),
            (Kind::F, false) => {
                let value: f32 = [0.0, 1.0, -1.5, 3.25, 1e20, 1e-3][self.random.usize(0..6)];
                Expr::Constant(Kind::F, value.to_bits())
            }
            (Kind::B, false) => Expr::Constant(Kind::B, self.random.u32(0..2)),
            _ => Expr::Convert(ty, Box::new(input)),
        }
    }

    fn expr(&mut self, ty: Ty, depth: usize) -> Expr {
        if depth == 0 {
            return self.leaf(ty);
        }
        let depth = depth - 1;
        match self.random.u32(0..16) {
            0 => self.leaf(ty),
            1 => {
                let condition = Ty { kind: Kind::B, width: ty.width };
                let (no, yes) = (self.boxed(ty, depth), self.boxed(ty, depth));
                Expr::Select(no, yes, self.boxed(condition, depth))
            }
            2 => {
                let from = Ty { kind: self.kind(), width: ty.width };
                Expr::Convert(ty, self.boxed(from, depth))
            }
            3 if ty.width > 1 => {
                Expr::Compose(ty, (0..ty.width).map(|_| self.expr(Ty::scalar(ty.kind), depth)).collect())
            }
            3 | 4 if ty.width == 1 => {
                let width = self.random.usize(2..=4);
                let vector = self.boxed(Ty { kind: ty.kind, width }, depth);
                if self.random.bool() {
                    Expr::Component(vector, self.random.usize(0..width))
                } else {
                    Expr::Index(vector, Box::new(self.u(depth)), width)
                }
            }
            4 => {
                let width = self.random.usize(2..=4);
                let parts = (0..ty.width).map(|_| self.random.usize(0..width)).collect();
                Expr::Swizzle(self.boxed(Ty { kind: ty.kind, width }, depth), parts)
            }
            5 if ty == Ty::scalar(Kind::U) => Expr::Element(Box::new(self.u(depth))),
            6 | 7 => {
                let fit: Vec<usize> = (0..self.functions.len()).filter(|at| self.functions[*at].ty == ty).collect();
                let Some(at) = self.random.choice(fit) else { return self.operation(ty, depth) };
                let types = self.functions[at].variables[..self.functions[at].parameters].to_vec();
                Expr::Call(at, types.into_iter().map(|ty| self.expr(ty, depth)).collect())
            }
            _ => self.operation(ty, depth),
        }
    }

    fn operation(&mut self, ty: Ty, depth: usize) -> Expr {
        let mut named = |names: &[&'static str]| names[self.random.usize(0..names.len())];
        match ty.kind {
            Kind::B => {
                let name = named(&["==", "!=", "<", "<=", ">", ">=", "&", "|", "!", "all"]);
                if name == "all" && ty.width == 1 {
                    let width = self.random.usize(2..=4);
                    return Expr::One(name, self.boxed(Ty { kind: Kind::B, width }, depth));
                }
                if matches!(name, "!" | "all") {
                    return Expr::One("!", self.boxed(ty, depth));
                }
                let of = match name {
                    "&" | "|" => Kind::B,
                    _ => match self.kind() {
                        Kind::B => Kind::I,
                        kind => kind,
                    },
                };
                let of = Ty { kind: of, width: ty.width };
                Expr::Two(name, self.boxed(of, depth), self.boxed(of, depth))
            }
            Kind::F => {
                let name =
                    named(&["+", "-", "*", "/", "+", "*", "min", "max", "step", "-", "floor", "exp", "abs", "sqrt"]);
                let is_one = matches!(name, "floor" | "exp" | "abs" | "sqrt");
                let a = self.boxed(ty, depth);
                if is_one { Expr::One(name, a) } else { Expr::Two(name, a, self.boxed(ty, depth)) }
            }
            Kind::U | Kind::I => {
                let name = named(&[
                    "+",
                    "-",
                    "*",
                    "/",
                    "%",
                    "&",
                    "|",
                    "^",
                    "<<",
                    ">>",
                    "min",
                    "max",
                    "~",
                    "abs",
                    "countOneBits",
                    "reverseBits",
                    "firstLeadingBit",
                    "countTrailingZeros",
                    "dot",
                ]);
                if name == "dot" && ty.width == 1 {
                    let of = Ty { kind: ty.kind, width: self.random.usize(2..=4) };
                    return Expr::Two(name, self.boxed(of, depth), self.boxed(of, depth));
                }
                let name = if name == "dot" { "+" } else { name };
                let a = self.boxed(ty, depth);
                match name {
                    "<<" | ">>" => Expr::Two(name, a, self.boxed(Ty { kind: Kind::U, width: ty.width }, depth)),
                    _ if name.len() > 3 || matches!(name, "~" | "abs") => Expr::One(name, a),
                    _ => Expr::Two(name, a, self.boxed(ty, depth)),
                }
            }
        }
    }
}
