//! Puts replacements in the places of patterns.
//!
//! Gets a model, a rule and its places; returns the model with the replacements. What holds then: each value that the
//! replacement keeps has the shape that it had, ops stand in an order in which everything is defined before it is used,
//! and no value is left that nothing defines. Never looks for a place.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::arena::{Arena, Id};
use crate::base::diag::Diagnostic;
use crate::base::dtype::DType;
use crate::base::span::{SourceMap, Span};
use crate::fuse::find::Place;
use crate::fuse::order;
use crate::fuse::rule::{Action, ConstTerm, Rule, Step, Term};
use crate::kernel::{Access, KernelLib, Template, map};
use crate::model::bind::{Bound, PortShape, Taken};
use crate::model::{Model, Op, OpArg, OpId, Origin, Request, Value, ValueId};

/// The model with a rule applied at some places; nothing if the places cannot all be rewritten together.
///
/// # Errors
/// If a replacement's shapes clash: the rule's guard is not strict enough.
pub(super) fn apply(
    model: &Model,
    rule: &Rule,
    places: &[Place],
    (lib, sources): (&KernelLib, &SourceMap),
    request: &Request<'_>,
) -> Result<Option<Model>, Vec<Diagnostic>> {
    let mut parts = Parts {
        rule,
        lib,
        sources,
        request,
        values: model.values.values().cloned().collect(),
        templates: model.templates.clone(),
        ops: model.ops.values().cloned().map(Some).collect(),
        keys: (0..model.ops.len() as u32).collect(),
        paths: model.values.values().map(|value| value.path.clone()).collect(),
        joins: BTreeMap::new(),
        transposed: BTreeMap::new(),
    };
    for place in places {
        parts.replace(place).map_err(|wrong| vec![wrong])?;
    }
    Ok(order::in_order(model, parts.values, parts.ops, &parts.keys, parts.templates))
}

/// A model on its way.
struct Parts<'a> {
    rule: &'a Rule,
    lib: &'a KernelLib,
    sources: &'a SourceMap,
    request: &'a Request<'a>,
    values: Vec<Value>,
    templates: Arena<Template>,
    /// The ops before, those that were replaced left out, then the new ones.
    ops: Vec<Option<Op>>,
    /// Where each op would stand by itself.
    keys: Vec<u32>,
    paths: BTreeSet<String>,
    /// What was joined, and whether row after row.
    joins: BTreeMap<(Vec<ValueId>, bool), ValueId>,
    /// What is read by columns.
    transposed: BTreeMap<ValueId, ValueId>,
}

impl Parts<'_> {
    fn replace(&mut self, place: &Place) -> Result<(), Diagnostic> {
        let first = place.ops.iter().map(|op| op.index()).min().expect("a pattern has ops");
        let span = self.ops[first].as_ref().expect("places share no ops").span;
        for op in &place.ops {
            self.ops[op.index()] = None;
        }
        let mut values = place.values.clone();
        for step in &self.rule.replacement {
            let op = self.op(step, place, &mut values, span)?;
            self.ops.push(Some(op));
            self.keys.push(first as u32);
        }
        Ok(())
    }

    fn op(&mut self, step: &Step, place: &Place, values: &mut [Option<ValueId>], span: Span) -> Result<Op, Diagnostic> {
        let Action::Kernel(name) = &step.action else { return self.map(step, values) };
        let kernel = self.lib.get(name).expect("rules name kernels");
        let by_rows = |at: usize| kernel.ports[at].shape.len() > 1;
        let args = step.args.iter().enumerate();
        let inputs: Vec<Option<ValueId>> =
            args.map(|(at, arg)| arg.input.as_ref().map(|term| self.read(term, values, by_rows(at)))).collect();
        let given = self.given(step, place)?;
        let shapes: Vec<Option<PortShape<'_>>> = inputs
            .iter()
            .map(|input| {
                let value = &self.values[(*input)?.index()];
                let is_weight =
                    matches!(value.origin, Origin::Weight { .. } | Origin::Transposed { .. } | Origin::Join { .. });
                let (shape, dtype, name) = (&value.shape, value.dtype, &value.path);
                Some(PortShape { shape, dtype, is_weight, name, span: step.span })
            })
            .collect();
        let bound = Bound::new(kernel, &shapes, &given, step.span).map_err(|mut wrong| wrong.swap_remove(0))?;
        let Taken { bound, variant, tunable } = bound.take(kernel, &given, self.request, step.span)?;
        let workgroups = bound.workgroups(variant, step.span)?;
        let consts = bound.wgsl_consts(variant, step.span)?;
        let template = self.template(&variant.template);
        let id = OpId::new(self.ops.len() as u32);
        let mut args = Vec::new();
        for (at, (arg, port)) in step.args.iter().zip(&kernel.ports).enumerate() {
            let output = match &arg.output {
                None => None,
                Some(term) => {
                    let shape = match inputs[at] {
                        Some(previous) => self.values[previous.index()].shape.clone(),
                        None => bound.shape(&port.shape, step.span)?,
                    };
                    let dtype = port.dtype.unwrap_or(DType::F32);
                    Some(self.define(term, values, (id, inputs[at]), (dtype, shape), step)?)
                }
            };
            args.push(OpArg { port: arg.port.clone(), access: kernel.access(at), input: inputs[at], output });
        }
        let label = args.iter().find_map(|arg| arg.output).map_or_else(String::new, |value| self.label(value));
        Ok(Op { label, kernel: name.clone(), template, args, consts, given, workgroups, tunable, span })
    }

    /// A map, whose place is in the rule, where its expression is.
    fn map(&mut self, step: &Step, values: &mut [Option<ValueId>]) -> Result<Op, Diagnostic> {
        let (operands, result) = step.args.split_at(step.args.len() - 1);
        let expr = step.expr.as_ref().expect("maps have expressions");
        let mut args = Vec::new();
        let mut shapes: Vec<(&str, Vec<u64>)> = Vec::new();
        for arg in operands {
            let value = self.read(arg.input.as_ref().expect("operands are read"), values, true);
            let shape = &self.values[value.index()].shape;
            // Of axes of 1 at the front of a weight, nothing is meant.
            let leading = shape.iter().take_while(|extent| **extent == 1).count();
            let is_weight = matches!(self.values[value.index()].origin, Origin::Weight { .. });
            let from = if is_weight { leading.min(shape.len().saturating_sub(1)) } else { 0 };
            shapes.push((&arg.port, shape[from..].to_vec()));
            let access = Access { reads: true, writes: false };
            args.push(OpArg { port: arg.port.clone(), access, input: Some(value), output: None });
        }
        let borrowed: Vec<(&str, &[u64])> = shapes.iter().map(|(name, shape)| (*name, shape.as_slice())).collect();
        let all: Vec<&[u64]> = borrowed.iter().map(|(_, shape)| *shape).collect();
        let shape = map::broadcast(&all).map_err(|(one, other)| {
            let [(one, a), (other, b)] = [&shapes[one], &shapes[other]];
            Diagnostic::error(step.span, format!("shapes clash: `{one}` is {a:?}, `{other}` is {b:?}"))
        })?;
        let kernel = map::build(self.lib, expr, self.sources.source(expr.span.source), &borrowed, &shape)?;
        let template = self.template(&kernel.template);
        let id = OpId::new(self.ops.len() as u32);
        let output = self.define(
            result[0].output.as_ref().expect("a map has a result"),
            values,
            (id, None),
            (DType::F32, shape),
            step,
        )?;
        let access = Access { reads: false, writes: true };
        args.push(OpArg { port: map::RESULT.to_owned(), access, input: None, output: Some(output) });
        let (label, workgroups) = (self.label(output), kernel.workgroups.map(|size| size as u32));
        let (consts, given) = (Vec::new(), BTreeMap::new());
        let (tunable, span) = (None, step.span);
        Ok(Op { label, kernel: "map".into(), template, args, consts, given, workgroups, tunable, span })
    }

    /// What an op is called that defines a value: by the first of several.
    fn label(&self, value: ValueId) -> String {
        let of = |other: &&Value| matches!(other.origin, Origin::View { of, .. } if of == value);
        self.values.iter().find(of).unwrap_or(&self.values[value.index()]).path.clone()
    }

    fn given(&self, step: &Step, place: &Place) -> Result<BTreeMap<String, f64>, Diagnostic> {
        let number = |term: &ConstTerm| match term {
            ConstTerm::Number(number) => Ok(*number),
            ConstTerm::Eval(spanned) => {
                let value = spanned.expr.eval(&|name| place.dims.get(name).copied());
                let fail = |error| Diagnostic::error(spanned.span, format!("`{}` has no value: {error}", spanned.expr));
                value.map(|value| value as f64).map_err(fail)
            }
            ConstTerm::Any(name) => place.consts.get(&name.text).copied().ok_or_else(|| {
                Diagnostic::error(name.span, format!("the pattern has no constant `Any(\"{}\")`", name.text))
            }),
        };
        step.consts.iter().map(|(name, term)| Ok((name.text.clone(), number(term)?))).collect()
    }

    /// The value that a term reads: what is joined, row after row if a port takes rows and all rows are alike.
    fn read(&mut self, term: &Term, values: &[Option<ValueId>], by_rows: bool) -> ValueId {
        let known = |variable: usize| values[variable].expect("what is read was found or defined");
        let parts: Vec<ValueId> = match term {
            Term::One(variable) => return known(*variable),
            Term::Transposed(variable) => return self.transposed(known(*variable)),
            Term::Join(variables) => variables.iter().map(|variable| known(*variable)).collect(),
        };
        if let Some(value) = self.joins.get(&(parts.clone(), by_rows)) {
            return *value;
        }
        let all: Vec<&Value> = parts.iter().map(|part| &self.values[part.index()]).collect();
        // Of axes of 1 at the front of a weight, nothing is meant.
        let trimmed = |shape: &[u64]| shape[shape.iter().take_while(|extent| **extent == 1).count()..].to_vec();
        let shapes: Vec<Vec<u64>> = all.iter().map(|value| trimmed(&value.shape)).collect();
        let tail = |shape: &[u64]| shape.get(1..).unwrap_or_default().to_vec();
        let is_matrix = by_rows && shapes.iter().all(|shape| !shape.is_empty() && tail(shape) == tail(&shapes[0]));
        let shape = match is_matrix {
            true => [vec![shapes.iter().map(|shape| shape[0]).sum()], tail(&shapes[0])].concat(),
            false => vec![all.iter().map(|value| value.count()).sum()],
        };
        let path = all.iter().map(|value| value.path.as_str()).collect::<Vec<_>>().join(" + ");
        let dtype = all[0].dtype;
        let origin = Origin::Join { parts: parts.clone() };
        self.values.push(Value { path, dtype, shape, origin });
        let value = ValueId::new(self.values.len() as u32 - 1);
        self.joins.insert((parts, by_rows), value);
        value
    }

    /// A weight by columns: the last two axes of its shape are exchanged.
    fn transposed(&mut self, of: ValueId) -> ValueId {
        if let Some(value) = self.transposed.get(&of) {
            return *value;
        }
        let Value { path, dtype, shape, .. } = &self.values[of.index()];
        let (path, dtype, mut shape) = (format!("{path} by columns"), *dtype, shape.clone());
        if let [.., rows, columns] = shape.as_mut_slice() {
            std::mem::swap(rows, columns);
        }
        self.values.push(Value { path, dtype, shape, origin: Origin::Transposed { of } });
        let value = ValueId::new(self.values.len() as u32 - 1);
        self.transposed.insert(of, value);
        value
    }

    /// The value that a term defines: what others know already keeps its name and its shape.
    fn define(
        &mut self,
        term: &Term,
        values: &mut [Option<ValueId>],
        (op, updates): (OpId, Option<ValueId>),
        (dtype, shape): (DType, Vec<u64>),
        step: &Step,
    ) -> Result<ValueId, Diagnostic> {
        let origin = Origin::Op { op, updates };
        match term {
            Term::One(variable) => match values[*variable] {
                Some(known) => {
                    let value = &mut self.values[known.index()];
                    // A kernel may call flat what others see by rows.
                    if value.count() != shape.iter().product::<u64>() {
                        return Err(clash(step, &value.path, &value.shape, &shape));
                    }
                    value.origin = origin;
                    Ok(known)
                }
                None => {
                    let name = self.rule.variables[*variable].name.text.clone();
                    let value = self.new_value(values, &name, (dtype, shape), origin);
                    values[*variable] = Some(value);
                    Ok(value)
                }
            },
            Term::Transposed(_) => unreachable!("rules define nothing by columns"),
            Term::Join(variables) => {
                let known: Vec<ValueId> = variables.iter().filter_map(|variable| values[*variable]).collect();
                let count: u64 = known.iter().map(|value| self.values[value.index()].count()).sum();
                if known.len() != variables.len() || count != shape.iter().product::<u64>() {
                    return Err(clash(step, "what is joined", &[count], &shape));
                }
                let whole = self.new_value(values, &self.rule.name.clone(), (dtype, shape), origin);
                let mut first = 0;
                for value in known {
                    let value = &mut self.values[value.index()];
                    value.origin = Origin::View { of: whole, first };
                    first += value.count();
                }
                Ok(whole)
            }
        }
    }

    /// A value that the rule alone knows, named beside those of its place.
    fn new_value(
        &mut self,
        values: &[Option<ValueId>],
        name: &str,
        (dtype, shape): (DType, Vec<u64>),
        origin: Origin,
    ) -> ValueId {
        let beside = self.rule.outputs.first().and_then(|output| values[*output]);
        let path = beside.map_or("", |value| &self.values[value.index()].path);
        let prefix = path.rsplit_once('.').map_or(String::new(), |(prefix, _)| format!("{prefix}."));
        let mut path = format!("{prefix}{name}");
        let mut number = 0;
        while !self.paths.insert(path.clone()) {
            number += 1;
            path = format!("{prefix}{name}#{number}");
        }
        self.values.push(Value { path, dtype, shape, origin });
        ValueId::new(self.values.len() as u32 - 1)
    }

    fn template(&mut self, template: &Template) -> Id<Template> {
        let known = self.templates.iter().find(|(_, other)| other.file == template.file && *other == template);
        match known.map(|(id, _)| id) {
            Some(id) => id,
            None => self.templates.push(template.clone()),
        }
    }
}

fn clash(step: &Step, name: &str, expected: &[u64], found: &[u64]) -> Diagnostic {
    let message = format!("shapes clash: `{name}` is {expected:?}, the replacement gives {found:?}");
    Diagnostic::error(step.span, message)
}
