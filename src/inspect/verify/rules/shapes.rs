//! Shapes of a rule's tensors, for sizes of its dims.
//!
//! Gets a rule, its kernels and sizes; returns the shape of every tensor as far as the rule's own shapes, the ports of
//! its kernels and broadcasting tell. Where a map leaves a choice, a value is as large as the map's result and a weight
//! is a row of it. Never looks at a checkpoint.

use std::collections::BTreeMap;

use crate::fuse::{Action, ConstTerm, Kind, Rule, Step, Term};
use crate::kernel::{KernelLib, map};
use crate::model::weights::with_rank;

/// How little is known of a shape that is taken all the same: first what unification tells, at last what is usual.
const WILLINGNESS: [Willing; 4] = [Willing::Told, Willing::Sized, Willing::Row, Willing::Alike];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Willing {
    /// Ports whose dims other ports of the op tell; results of maps.
    Told,
    /// Ports whose dims are sizes of the step; operands of maps as large as the result.
    Sized,
    /// A weight in a map is a row.
    Row,
    /// A value in a map is like the others.
    Alike,
}

/// Shapes by variable; nothing where they cannot be told. `dims` are the rule's and the sizes of the step.
pub(super) fn infer(rule: &Rule, lib: &KernelLib, dims: &BTreeMap<String, i64>) -> Vec<Option<Vec<u64>>> {
    let mut shapes = Shapes { rule, lib, dims, of: vec![None; rule.variables.len()] };
    for (variable, extents) in &rule.shapes {
        let eval = |name: &str| dims.get(name).copied();
        let extents = extents.iter().map(|extent| u64::try_from(extent.expr.eval(&eval).ok()?).ok());
        if let Some(shape) = extents.collect() {
            shapes.set(*variable, shape);
        }
    }
    while WILLINGNESS.iter().any(|willing| shapes.more(*willing)) {}
    shapes.of
}

struct Shapes<'a> {
    rule: &'a Rule,
    lib: &'a KernelLib,
    dims: &'a BTreeMap<String, i64>,
    of: Vec<Option<Vec<u64>>>,
}

impl Shapes<'_> {
    /// Notes a shape, of a state for all its versions; returns whether that is news.
    fn set(&mut self, variable: usize, shape: Vec<u64>) -> bool {
        let Self { rule, of, .. } = self;
        let found = &rule.variables[variable];
        let mut is_news = false;
        for (at, other) in rule.variables.iter().enumerate() {
            let is_version =
                found.kind == Kind::State && other.kind == Kind::State && other.name.text == found.name.text;
            if (at == variable || is_version) && of[at].is_none() {
                of[at] = Some(shape.clone());
                is_news = true;
            }
        }
        is_news
    }

    /// Goes through all steps once; returns whether anything was learnt.
    fn more(&mut self, willing: Willing) -> bool {
        let rule = self.rule;
        let mut is_news = false;
        for step in rule.pattern.iter().chain(&rule.replacement) {
            is_news |= match &step.action {
                Action::Kernel(kernel) => self.kernel(kernel, step, willing),
                Action::Map(_) => self.map(step, willing),
            };
        }
        is_news
    }

    fn kernel(&mut self, name: &str, step: &Step, willing: Willing) -> bool {
        let Some(kernel) = self.lib.get(name) else { return false };
        let mut names: BTreeMap<&str, i64> = BTreeMap::new();
        let bound = || {
            kernel.ports.iter().zip(&step.args).flat_map(|(port, arg)| {
                let terms = [&arg.input, &arg.output].into_iter().flatten();
                terms
                    .filter_map(move |term| if let Term::One(variable) = term { Some((port, *variable)) } else { None })
            })
        };
        for (port, variable) in bound() {
            let Some(shape) = &self.of[variable] else { continue };
            let rank = port.shape.len();
            let is_weight = self.rule.variables[variable].kind == Kind::Weight;
            let shape = if is_weight { with_rank(shape, rank) } else { Some(shape.clone()) };
            for (expr, extent) in port.shape.iter().zip(shape.filter(|shape| shape.len() == rank).unwrap_or_default()) {
                expr.expr.as_name().map(|name| names.entry(name).or_insert(extent as i64));
            }
        }
        for (name, term) in &step.consts {
            let number = match term {
                ConstTerm::Number(number) => Some(*number as i64),
                ConstTerm::Eval(expr) => expr.expr.eval(&|name| self.dims.get(name).copied()).ok(),
                ConstTerm::Any(_) => None,
            };
            number.map(|number| names.entry(&name.text).or_insert(number));
        }
        if willing >= Willing::Sized {
            for (name, size) in self.dims.iter().filter(|(name, _)| super::SIZES.contains(&name.as_str())) {
                names.entry(name).or_insert(*size);
            }
        }
        let eval = |name: &str| names.get(name).copied();
        let told: Vec<(usize, Vec<u64>)> = bound()
            .filter(|(_, variable)| self.of[*variable].is_none())
            .filter_map(|(port, variable)| {
                let extents = port.shape.iter().map(|extent| u64::try_from(extent.expr.eval(&eval).ok()?).ok());
                Some((variable, extents.collect::<Option<_>>()?))
            })
            .collect();
        told.into_iter().fold(false, |is_news, (variable, shape)| self.set(variable, shape) || is_news)
    }

    fn map(&mut self, step: &Step, willing: Willing) -> bool {
        let variables: Vec<usize> =
            step.args.iter().filter_map(|arg| only(arg.input.as_ref().or(arg.output.as_ref()))).collect();
        let Some((result, operands)) = variables.split_last() else { return false };
        let is_weight = |variable: usize| self.rule.variables[variable].kind == Kind::Weight;
        let known: Vec<&Vec<u64>> = operands.iter().filter_map(|operand| self.of[*operand].as_ref()).collect();
        let open = |weight: bool| {
            operands.iter().copied().find(|operand| self.of[*operand].is_none() && is_weight(*operand) == weight)
        };
        let values = operands.iter().filter(|operand| !is_weight(**operand)).chain([result]);
        let alike = values.filter_map(|variable| self.of[*variable].clone()).max_by_key(Vec::len);
        let told = match willing {
            Willing::Told if self.of[*result].is_none() && known.len() == operands.len() => {
                let shapes: Vec<&[u64]> = known.iter().map(|shape| shape.as_slice()).collect();
                map::broadcast(&shapes).ok().map(|shape| (*result, shape))
            }
            Willing::Sized => open(false).zip(self.of[*result].clone()),
            Willing::Row => open(true).zip(alike.and_then(|shape| Some(vec![*shape.last()?]))),
            Willing::Alike => open(false).zip(alike),
            Willing::Told => None,
        };
        told.is_some_and(|(variable, shape)| self.set(variable, shape))
    }
}

fn only(term: Option<&Term>) -> Option<usize> {
    if let Some(Term::One(variable)) = term { Some(*variable) } else { None }
}
