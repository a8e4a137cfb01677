//! A rule's pattern as a graph of its own.
//!
//! Gets a rule and sizes, returns the text of a graph that computes the pattern and nothing else, and the tensors that
//! it reads. What holds then: what is free in the pattern is a weight, a state, an input or a row of numbers for each
//! token; all that the rule defines for others is there to be kept. The roles of inputs are told by the ports that they
//! are at. Never compiles.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::base::dtype::DType;
use crate::base::role::InputRole;
use crate::base::step::StepShape;
use crate::fuse::{Action, ConstTerm, Kind, Rule, Step, Term};
use crate::inspect::verify::rules::shapes;
use crate::kernel::KernelLib;

/// Rows of numbers that a value takes turns in.
const ROWS: u64 = 8;

/// What a constant is that a pattern leaves open.
const OPEN_CONSTANT: f64 = 1e-3;

/// A graph for a rule.
pub(super) struct Written {
    /// Its text.
    pub text: String,
    /// Paths of what the rule defines for others.
    pub keep: Vec<String>,
    /// Tensors of the checkpoint, by name and shape.
    pub weights: Vec<Weight>,
    /// The step.
    pub shape: StepShape,
}

/// A tensor of the checkpoint.
pub(super) struct Weight {
    pub name: String,
    pub shape: Vec<u64>,
    /// Whether it is multiplied with a vector: its rows sum up.
    pub is_matrix: bool,
}

/// The graph for a rule in these sizes.
///
/// # Errors
/// What of the rule cannot be a graph, in words.
pub(super) fn write(rule: &Rule, lib: &KernelLib, dims: &BTreeMap<String, u64>) -> Result<Written, String> {
    let size = |name: &str| dims.get(name).map_or(1, |size| *size as u32);
    let shape = StepShape { tokens: size("T"), sequences: size("S"), rows: size("R"), capacity: size("S") + 2 };
    let StepShape { tokens, sequences, rows, capacity } = shape;
    let sizes = [("T", tokens), ("S", sequences), ("R", rows), ("B", capacity)];
    let mut all: BTreeMap<String, i64> = dims.iter().map(|(name, size)| (name.clone(), *size as i64)).collect();
    all.extend(sizes.map(|(name, size)| (name.to_owned(), size.into())));
    let shapes = shapes::infer(rule, lib, &all);
    let mut writer = Writer { rule, lib, dims: all, shapes, weights: Vec::new(), ops: String::new() };
    let inputs = writer.inputs()?;
    let states = writer.states()?;
    writer.free(&inputs)?;
    rule.pattern.iter().try_for_each(|step| writer.step(step))?;
    let mut text = format!("Graph(\n    name: \"{}\",\n    detect: (has: [], lacks: []),\n", rule.name);
    text += "    dims: {\"T\": Tokens, \"S\": Sequences, \"R\": Rows, \"B\": Capacity},\n";
    let _ = writeln!(text, "    state: {{{states}}},\n    inputs: {{");
    for (role, name) in &inputs {
        let _ = writeln!(text, "        \"{name}\": Input({role}, [\"{}\"]),", extent(*role));
    }
    let _ = writeln!(text, "    }},\n    outputs: {{}},\n    ops: [\n{}    ],\n)", writer.ops);
    let kept = rule.outputs.iter().filter(|output| rule.variables[**output].kind != Kind::State);
    let keep = kept.map(|output| writer.name(*output)).collect();
    Ok(Written { text, keep, weights: writer.weights, shape })
}

/// The one axis of an input.
const fn extent(role: InputRole) -> &'static str {
    match role {
        InputRole::TokenIds => "T",
        InputRole::SequenceOffsets => "S + 1",
        InputRole::StateRows => "S",
        InputRole::OutputRows => "R",
        InputRole::DrawRules => "7 * S",
    }
}

struct Writer<'a> {
    rule: &'a Rule,
    lib: &'a KernelLib,
    dims: BTreeMap<String, i64>,
    shapes: Vec<Option<Vec<u64>>>,
    weights: Vec<Weight>,
    ops: String,
}

impl Writer<'_> {
    /// What a variable is called in the graph: values of one name are told apart.
    fn name(&self, variable: usize) -> String {
        let found = &self.rule.variables[variable];
        let before = self.rule.variables[..variable].iter().any(|other| other.name.text == found.name.text);
        match found.kind == Kind::Value && before {
            true => format!("{}_{variable}", found.name.text),
            false => found.name.text.clone(),
        }
    }

    fn shape(&self, variable: usize) -> Result<&[u64], String> {
        let name = &self.rule.variables[variable].name.text;
        self.shapes[variable].as_deref().ok_or_else(|| format!("nothing tells the shape of `{name}`"))
    }

    /// Where each variable is used, as kernels and their ports.
    fn uses(&self, variable: usize) -> impl Iterator<Item = (&str, &str)> {
        let is_it = move |term: &Option<Term>| matches!(term, Some(Term::One(other)) if *other == variable);
        self.rule
            .pattern
            .iter()
            .filter_map(|step| Some((step, if let Action::Kernel(name) = &step.action { name } else { return None })))
            .flat_map(move |(step, kernel)| {
                let args = step.args.iter().filter(move |arg| is_it(&arg.input));
                args.map(move |arg| (kernel.as_str(), arg.port.as_str()))
            })
    }

    /// The inputs: the role of each tells the shape of its ports over the sizes of a step.
    fn inputs(&self) -> Result<BTreeMap<InputRole, String>, String> {
        let mut inputs = BTreeMap::new();
        for (variable, found) in self.free_of(Kind::Input) {
            let role = self.uses(variable).find_map(|(kernel, port)| {
                let port = self.lib.get(kernel)?.ports.iter().find(|other| other.name.text == port)?;
                let [axis] = port.shape.as_slice() else { return None };
                InputRole::ALL.into_iter().find(|role| axis.expr.text().trim() == extent(*role))
            });
            let role = role.ok_or_else(|| format!("nothing tells the role of `{found}`"))?;
            if inputs.insert(role, found.trim_start_matches("in.").to_owned()).is_some() {
                return Err(format!("two inputs are {role}"));
            }
        }
        if self.free_of(Kind::Value).next().is_some() {
            inputs.entry(InputRole::TokenIds).or_insert_with(|| "fed_tokens".to_owned());
        }
        Ok(inputs)
    }

    fn free_of(&self, kind: Kind) -> impl Iterator<Item = (usize, &str)> {
        let variables = self.rule.variables.iter().enumerate();
        variables
            .filter(move |(_, found)| found.is_free && found.kind == kind)
            .map(|(at, found)| (at, found.name.text.as_str()))
    }

    fn states(&self) -> Result<String, String> {
        let mut states = String::new();
        for (variable, name) in self.free_of(Kind::State) {
            let row: String = self.shape(variable)?[1..].iter().map(|extent| format!(", \"{extent}\"")).collect();
            let name = name.trim_start_matches("state.");
            let dtype = self.dtype(variable);
            let _ = write!(states, "\"{name}\": State(dtype: {dtype}, shape: [\"B\"{row}], init: 0.0), ");
        }
        Ok(states)
    }

    /// The element type that some op of the pattern insists on.
    fn dtype(&self, variable: usize) -> DType {
        let asked = self.rule.pattern.iter().find_map(|step| {
            let Action::Kernel(kernel) = &step.action else { return None };
            let is_it = |term: &Option<Term>| term.as_ref().is_some_and(|term| term.variables().contains(&variable));
            let arg = step.args.iter().find(|arg| is_it(&arg.input) || is_it(&arg.output))?;
            self.lib.get(kernel)?.ports.iter().find(|port| port.name.text == arg.port)?.dtype
        });
        asked.unwrap_or(DType::F32)
    }

    /// Weights, and ops for the values that the pattern is given.
    fn free(&mut self, inputs: &BTreeMap<InputRole, String>) -> Result<(), String> {
        let owned = |found: (usize, &str)| (found.0, found.1.to_owned());
        for (variable, name) in self.free_of(Kind::Weight).map(owned).collect::<Vec<_>>() {
            let shape = self.shape(variable)?.to_vec();
            let is_matrix = shape.len() > 1;
            self.weights.push(Weight { name: name.trim_start_matches("w.").to_owned(), shape, is_matrix });
        }
        for (variable, name) in self.free_of(Kind::Value).map(owned).collect::<Vec<_>>() {
            let (table, shape) = (format!("fed.{name}"), self.shape(variable)?.to_vec());
            let (&[tokens, columns], Some(input)) = (shape.as_slice(), inputs.get(&InputRole::TokenIds)) else {
                return Err(format!("`{name}` is {shape:?}, expected rows of tokens"));
            };
            if tokens as i64 != self.dims["T"] {
                return Err(format!("`{name}` is {shape:?}, expected a row for each token"));
            }
            let y = self.name(variable);
            let feed = super::FEED;
            let _ = writeln!(
                self.ops,
                "        Op(\"{feed}\", {{\"tokens\": \"in.{input}\", \"table\": \"w.{table}\", \"y\": \"{y}\"}}),"
            );
            self.weights.push(Weight { name: table, shape: vec![ROWS, columns], is_matrix: false });
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let name = |term: &Option<Term>| match term {
            Some(Term::One(variable)) => Ok(Some(self.name(*variable))),
            Some(Term::Join(_)) => Err("a pattern joins nothing".to_owned()),
            Some(Term::Transposed(_)) => Err("a pattern transposes nothing".to_owned()),
            None => Ok(None),
        };
        let mut entries = Vec::new();
        for arg in &step.args {
            let named = name(&arg.input)?.or(name(&arg.output)?).unwrap_or_default();
            entries.push((arg.port.clone(), named));
        }
        let Action::Kernel(kernel) = &step.action else {
            let result = entries.pop().map(|(_, name)| name).unwrap_or_default();
            let expr = step.expr.as_ref().map_or("", |expr| expr.text.as_str());
            let operands: String = entries.iter().map(|(port, name)| format!("\"{port}\": \"{name}\", ")).collect();
            let _ = writeln!(self.ops, "        Map(\"{expr}\", {{{operands}}}, \"{result}\"),");
            return Ok(());
        };
        let mut text: String = entries.iter().map(|(port, name)| format!("\"{port}\": \"{name}\", ")).collect();
        for (constant, term) in &step.consts {
            let number = match term {
                ConstTerm::Number(number) => *number,
                ConstTerm::Eval(expr) => {
                    let value = expr.expr.eval(&|name| self.dims.get(name).copied());
                    value.map_err(|error| format!("`{}` has no value: {error}", expr.expr))? as f64
                }
                ConstTerm::Any(_) => OPEN_CONSTANT,
            };
            let _ = match number.fract() == 0.0 {
                true => write!(text, "\"{}\": {}, ", constant.text, number as i64),
                false => write!(text, "\"{}\": {number:?}, ", constant.text),
            };
        }
        let _ = writeln!(self.ops, "        Op(\"{kernel}\", {{{text}}}),");
        Ok(())
    }
}

/// The dims that a rule's shapes have.
pub(super) fn dims(rule: &Rule) -> BTreeSet<&str> {
    let extents = rule.shapes.iter().flat_map(|(_, shape)| shape);
    extents.filter_map(|extent| extent.expr.as_name()).collect()
}
