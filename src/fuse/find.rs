//! Where a rule's pattern stands in a model.
//!
//! Gets a model and a rule, returns every place where the pattern stands, no op in two of them. What holds then: each
//! tensor of the pattern stands for one value, what the replacement leaves out is used by nothing else, nothing between
//! the ops of a place lies on a way from one to another, and the guard holds. Never changes the model.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::diag::Diagnostic;
use crate::base::expr::EvalError;
use crate::base::raw::Spanned;
use crate::base::span::SourceMap;
use crate::fuse::rule::{Action, ConstTerm, Kind, Rule, Step, Term, canonical};
use crate::kernel::{ConstValue, KernelLib};
use crate::model::weights::with_rank;
use crate::model::{Model, Op, OpId, Origin, Request, ValueId};

/// A place where a pattern stands.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The op of each step of the pattern.
    pub ops: Vec<OpId>,
    /// What each variable of the pattern stands for; nothing for those of the replacement alone.
    pub values: Vec<Option<ValueId>>,
    /// The rule's dims here, the step's size among them.
    pub dims: BTreeMap<String, i64>,
    /// The constants that the pattern leaves open.
    pub consts: BTreeMap<String, f64>,
}

/// What is asked of a model again and again.
pub(super) struct Finder<'a> {
    model: &'a Model,
    lib: &'a KernelLib,
    request: &'a Request<'a>,
    /// By value: the ops that read it, in order.
    readers: Vec<Vec<OpId>>,
    is_output: Vec<bool>,
    /// By op: its expression as rules have it, and which operand has which number; nothing of kernels.
    maps: Vec<Option<(String, Vec<usize>)>>,
    /// Weights that some text binds by itself, which begin where a binding may.
    alone: BTreeSet<&'a str>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(model: &'a Model, (lib, sources): (&'a KernelLib, &SourceMap), request: &'a Request<'a>) -> Self {
        let mut readers = vec![Vec::new(); model.values.len()];
        for (id, op) in model.ops.iter() {
            for value in op.args.iter().filter_map(|arg| arg.input) {
                let readers: &mut Vec<OpId> = &mut readers[value.index()];
                if readers.last() != Some(&id) {
                    readers.push(id);
                }
            }
        }
        let mut is_output = vec![false; model.values.len()];
        model.outputs.iter().for_each(|output| is_output[output.value.index()] = true);
        let map = |op: &Op| {
            let operands: Vec<&str> = op.args.iter().filter(|arg| arg.input.is_some()).map(|arg| &*arg.port).collect();
            (op.kernel == "map").then(|| canonical(sources.text(op.span), &operands))
        };
        let maps = model.ops.values().map(map).collect();
        let alone = model.weights.iter().filter(|weight| weight.bound_alone).map(|weight| weight.tensor.as_str());
        Self { model, lib, request, readers, is_output, maps, alone: alone.collect() }
    }

    /// Every place of a rule, found from the step that the fewest ops are like.
    pub(super) fn places(&self, rule: &Rule) -> Result<Vec<Place>, Diagnostic> {
        let like = |step: &Step| self.model.ops.ids().filter(|op| self.is_same(step, *op)).collect::<Vec<_>>();
        let starts = rule.pattern.iter().map(like).enumerate().min_by_key(|(_, ops)| ops.len());
        let (start, ops) = starts.unwrap_or_default();
        let mut places = Vec::new();
        let mut taken = vec![false; self.model.ops.len()];
        for first in ops {
            let mut search = Search {
                finder: self,
                rule,
                taken: &taken,
                ops: vec![None; rule.pattern.len()],
                values: vec![None; rule.variables.len()],
                consts: BTreeMap::new(),
                given: Vec::new(),
                wrong: None,
            };
            let found = search.with(start, first);
            if let Some(wrong) = search.wrong {
                return Err(wrong);
            }
            if let Some(place) = found {
                place.ops.iter().for_each(|op| taken[op.index()] = true);
                places.push(place);
            }
        }
        Ok(places)
    }

    /// The number that a constant has where an op does not give it.
    fn default(&self, op: &Op, constant: &str) -> Option<f64> {
        let found = self.lib.get(&op.kernel)?.consts.iter().find(|found| found.name.text == constant)?;
        if let ConstValue::Number(number) = found.value { Some(number) } else { None }
    }

    /// Whether an op does what a step does, whatever it is bound to.
    fn is_same(&self, step: &Step, op: OpId) -> bool {
        match (&step.action, &self.maps[op.index()]) {
            (Action::Kernel(kernel), None) => *kernel == self.model.ops[op].kernel,
            (Action::Map(expr), Some((text, _))) => expr == text,
            _ => false,
        }
    }
}

/// A search from one op for the pattern's first step.
struct Search<'a, 'f> {
    finder: &'f Finder<'a>,
    rule: &'f Rule,
    taken: &'f [bool],
    /// The op of each step, once found.
    ops: Vec<Option<OpId>>,
    values: Vec<Option<ValueId>>,
    consts: BTreeMap<String, f64>,
    /// Constants of ops that have to be what an expression says.
    given: Vec<(&'f Spanned, f64)>,
    wrong: Option<Diagnostic>,
}

/// How far a search had got.
struct Mark {
    values: Vec<Option<ValueId>>,
    consts: BTreeMap<String, f64>,
    given: usize,
}

impl<'f> Search<'_, 'f> {
    /// The steps that are left, those first that leave the least choice.
    fn rest(&mut self) -> Option<Place> {
        let open = (0..self.ops.len()).filter(|step| self.ops[*step].is_none());
        let choices = open.map(|step| (step, self.candidates(&self.rule.pattern[step])));
        let Some((step, ops)) = choices.min_by_key(|(_, ops)| ops.len()) else { return self.complete() };
        ops.into_iter().find_map(|op| self.with(step, op))
    }

    /// What is found with an op as this step; as if nothing had been tried if that is nothing.
    fn with(&mut self, step: usize, op: OpId) -> Option<Place> {
        if self.taken[op.index()] || self.ops.contains(&Some(op)) {
            return None;
        }
        let mark = Mark { values: self.values.clone(), consts: self.consts.clone(), given: self.given.len() };
        let is_like = self.is_like(&self.rule.pattern[step], op);
        self.ops[step] = Some(op);
        let found = if is_like { self.rest() } else { None };
        if found.is_none() {
            self.ops[step] = None;
            (self.values, self.consts) = (mark.values, mark.consts);
            self.given.truncate(mark.given);
        }
        found
    }

    /// Ops that may be a step: those around what is known of it.
    fn candidates(&self, step: &Step) -> Vec<OpId> {
        let known = |term: &Option<Term>| match term {
            Some(Term::One(variable)) => self.values[*variable],
            _ => None,
        };
        let model = self.finder.model;
        let definer = |value: ValueId| match model.values[value].origin {
            Origin::Op { op, .. } => Some(op),
            _ => None,
        };
        if let Some(op) = step.args.iter().filter_map(|arg| known(&arg.output)).find_map(definer) {
            return vec![op];
        }
        let read = step.args.iter().filter_map(|arg| known(&arg.input));
        let around = read.map(|value| &self.finder.readers[value.index()]).min_by_key(|readers| readers.len());
        let same = |op: &OpId| self.finder.is_same(step, *op);
        match around {
            Some(readers) => readers.iter().copied().filter(same).collect(),
            None => model.ops.ids().filter(same).collect(),
        }
    }

    /// Whether an op is like a step, which then fixes what the step's variables stand for.
    fn is_like(&mut self, step: &'f Step, id: OpId) -> bool {
        let op = &self.finder.model.ops[id];
        if !self.finder.is_same(step, id) {
            return false;
        }
        let order = self.finder.maps[id.index()].as_ref().map(|(_, order)| order);
        if op.given.keys().any(|name| !step.consts.iter().any(|(other, _)| other.text == *name)) {
            return false;
        }
        for (name, term) in &step.consts {
            let given = op.given.get(&name.text).copied();
            match (term, given) {
                (ConstTerm::Number(expected), Some(number)) if *expected == number => {}
                (ConstTerm::Eval(expr), Some(number)) => self.given.push((expr, number)),
                (ConstTerm::Any(open), _) => {
                    let Some(number) = given.or_else(|| self.finder.default(op, &name.text)) else { return false };
                    if *self.consts.entry(open.text.clone()).or_insert(number) != number {
                        return false;
                    }
                }
                _ => return false,
            }
        }
        step.args.iter().enumerate().all(|(at, arg)| {
            let found = match order {
                // The result comes last on both sides.
                Some(order) => order.get(at).map_or(op.args.last(), |operand| op.args.get(*operand)),
                None => op.args.iter().find(|other| other.port == arg.port),
            };
            found.is_some_and(|found| {
                self.stands(arg.input.as_ref(), found.input) && self.stands(arg.output.as_ref(), found.output)
            })
        })
    }

    /// Whether a variable can stand for a value, which it does from then on.
    fn stands(&mut self, term: Option<&Term>, value: Option<ValueId>) -> bool {
        let (variable, value) = match (term, value) {
            (Some(Term::One(variable)), Some(value)) => (*variable, value),
            (None, None) => return true,
            _ => return false,
        };
        if let Some(known) = self.values[variable] {
            return known == value;
        }
        let model = self.finder.model;
        let is_weight = matches!(model.values[value].origin, Origin::Weight { .. });
        let fits = match self.rule.variables[variable].kind {
            Kind::Weight => is_weight,
            Kind::State => model.state_of(value).is_some(),
            Kind::Input => matches!(model.values[value].origin, Origin::Input { .. }),
            Kind::Value => !is_weight && model.state_of(value).is_none(),
        };
        if fits {
            self.values[variable] = Some(value);
        }
        fits
    }

    /// The place, if all that has to hold of it does.
    fn complete(&mut self) -> Option<Place> {
        let dims = self.dims()?;
        let eval = |spanned: &Spanned| spanned.expr.eval(&|name| dims.get(name).copied());
        let given = self.given.iter().all(|(expr, number)| eval(expr).is_ok_and(|value| value as f64 == *number));
        let values = &self.finder.model.values;
        let dtype = |variable: usize| self.values[variable].map(|value| values[value].dtype);
        let typed =
            self.rule.dtypes.iter().all(|(variable, expected)| dtype(*variable).is_none_or(|found| found == *expected));
        if !given || !typed || !self.is_closed() || !self.joins_fit() || !self.are_matrices() || !self.guard(&dims)? {
            return None;
        }
        let ops = self.ops.iter().copied().collect::<Option<_>>()?;
        Some(Place { ops, values: self.values.clone(), dims, consts: self.consts.clone() })
    }

    /// The rule's dims, of which the shapes of what was found leave no choice.
    fn dims(&self) -> Option<BTreeMap<String, i64>> {
        let shape = self.finder.model.shape;
        let size = [("T", shape.tokens), ("S", shape.sequences), ("R", shape.rows)];
        let mut dims: BTreeMap<String, i64> =
            size.into_iter().map(|(name, size)| (name.to_owned(), size.into())).collect();
        let mut later = Vec::new();
        for (variable, extents) in &self.rule.shapes {
            let Some(value) = self.values[*variable] else { continue };
            let found = &self.finder.model.values[value];
            let shape = match found.origin {
                Origin::Weight { .. } => with_rank(&found.shape, extents.len())?,
                _ => found.shape.clone(),
            };
            if shape.len() != extents.len() {
                return None;
            }
            for (expr, extent) in extents.iter().zip(shape) {
                match expr.expr.as_name() {
                    Some(name) if !dims.contains_key(name) => drop(dims.insert(name.to_owned(), extent as i64)),
                    _ => later.push((expr, extent as i64)),
                }
            }
        }
        let eval = |spanned: &Spanned| spanned.expr.eval(&|name| dims.get(name).copied());
        later.into_iter().all(|(expr, extent)| eval(expr).is_ok_and(|value| value == extent)).then_some(dims)
    }

    fn guard(&mut self, dims: &BTreeMap<String, i64>) -> Option<bool> {
        let pays = self.rule.pays.as_ref().filter(|_| !self.rule.on_any_device);
        for guard in self.rule.when.iter().chain(pays) {
            if !self.holds(guard, dims)? {
                return Some(false);
            }
        }
        Some(true)
    }

    fn holds(&mut self, when: &Spanned, dims: &BTreeMap<String, i64>) -> Option<bool> {
        let limits = self.finder.request.limits;
        let fact = |name: &str| match name {
            "cooperative_matrix" if self.rule.on_any_device => Some(1),
            _ => limits.fact(name),
        };
        let holds = when.expr.eval(&|name| fact(name).or_else(|| dims.get(name).copied()));
        match holds {
            Ok(value) => Some(value != 0),
            // A dim of a variable that this place does not have.
            Err(EvalError::Unknown(_)) => Some(false),
            Err(error @ EvalError::Arithmetic(_)) => {
                let message = format!("the guard has no value: {error}");
                self.wrong.get_or_insert(Diagnostic::error(when.span, message));
                None
            }
        }
    }

    /// Whether nothing outside uses what the replacement leaves out, and nothing outside lies between the ops found.
    fn is_closed(&self) -> bool {
        let Finder { model, readers, is_output, .. } = self.finder;
        let defined = self.rule.pattern.iter().flat_map(|step| &step.args).filter_map(|arg| arg.output.as_ref());
        let left_out = defined.flat_map(Term::variables).filter(|variable| !self.rule.outputs.contains(variable));
        let is_used = |value: ValueId| {
            is_output[value.index()] || readers[value.index()].iter().any(|reader| !self.ops.contains(&Some(*reader)))
        };
        if left_out.filter_map(|variable| self.values[*variable]).any(is_used) {
            return false;
        }
        let numbers = || self.ops.iter().flatten().map(|op| op.index());
        let (Some(first), Some(last)) = (numbers().min(), numbers().max()) else { return false };
        let mut after: BTreeSet<ValueId> = BTreeSet::new();
        for id in (first..=last).map(|number| OpId::new(number as u32)) {
            let op = &model.ops[id];
            let is_inside = self.ops.contains(&Some(id));
            let depends = op.args.iter().filter_map(|arg| arg.input).any(|value| after.contains(&model.whole(value)));
            if is_inside && depends {
                return false;
            }
            let comes_after = depends || op.args.iter().filter_map(|arg| arg.input).any(|value| self.defines(value));
            if !is_inside && comes_after {
                after.extend(op.args.iter().filter_map(|arg| arg.output));
            }
        }
        true
    }

    /// Whether one of the ops found defines a value.
    fn defines(&self, value: ValueId) -> bool {
        let whole = self.finder.model.whole(value);
        matches!(self.finder.model.values[whole].origin, Origin::Op { op, .. } if self.ops.contains(&Some(op)))
    }

    /// Whether what the replacement reads by columns are matrices, and no lists of them.
    fn are_matrices(&self) -> bool {
        let args = self.rule.replacement.iter().flat_map(|step| &step.args);
        args.filter_map(|arg| arg.input.as_ref()).all(|term| {
            let Term::Transposed(variable) = term else { return true };
            let found = self.values[*variable].map(|value| self.finder.model.values[value].shape.as_slice());
            matches!(found, Some([leading @ .., _, _]) if leading.iter().all(|extent| *extent == 1))
        })
    }

    /// Whether what the replacement joins can be: element by element in eights, weights of one element type.
    fn joins_fit(&self) -> bool {
        let model = self.finder.model;
        let args = self.rule.replacement.iter().flat_map(|step| &step.args);
        let mut terms = args.flat_map(|arg| [&arg.input, &arg.output]).flatten();
        terms.all(|term| {
            let Term::Join(variables) = term else { return true };
            let found: Vec<_> = variables.iter().filter_map(|variable| self.values[*variable]).collect();
            let whole = found.iter().all(|value| model.values[*value].count().is_multiple_of(8));
            let dtype = found.first().map(|value| model.values[*value].dtype);
            let alike = found.iter().all(|value| Some(model.values[*value].dtype) == dtype);
            let alone = found.iter().any(|value| match &model.values[*value].origin {
                Origin::Weight { tensor, .. } => self.finder.alone.contains(tensor.as_str()),
                _ => false,
            });
            // An update in place begins where its tensor begins.
            let updated = found.iter().any(|value| {
                self.finder.readers[value.index()].iter().any(|reader| {
                    let mut args = model.ops[*reader].args.iter();
                    args.any(|arg| arg.input == Some(*value) && arg.output.is_some())
                })
            });
            whole && alike && !alone && !updated
        })
    }
}
