//! Values of a graph's dims.
//!
//! Gets the graph's dims, a checkpoint's index, a layout and a step shape; returns numbers, each computed when it is
//! first asked for, so that a dim that nothing uses may be without a value. Never guesses: a missing weight is an error
//! at the dim.

use std::cell::RefCell;

use crate::base::diag::Diagnostic;
use crate::base::expr::EvalError;
use crate::base::raw::Spanned;
use crate::base::step::StepShape;
use crate::checkpoint::Index;
use crate::graph::{DimKind, Graph, Layout};
use crate::model::weights::{find, logical_shape};

/// More layers than any checkpoint has: a bound on counting.
const MAX_COUNT: i64 = 4096;

/// More dims than depend on each other in any graph: a bound on recursion.
const MAX_CHAIN: usize = 32;

enum Slot {
    Unasked,
    Asking,
    Known(i64),
    Failed,
}

/// The dims of one graph for one checkpoint, layout and step.
pub struct Dims<'a> {
    graph: &'a Graph,
    index: &'a Index,
    layout: &'a Layout,
    step: StepShape,
    draws: bool,
    slots: RefCell<Vec<Slot>>,
    /// What is wrong with dims that were asked for.
    diagnostics: RefCell<Vec<Diagnostic>>,
}

impl<'a> Dims<'a> {
    /// Dims of which none is computed yet, for a step that draws tokens or one that does not.
    pub fn new(graph: &'a Graph, index: &'a Index, layout: &'a Layout, (step, draws): (StepShape, bool)) -> Self {
        let slots = RefCell::new(graph.dims.iter().map(|_| Slot::Unasked).collect());
        Self { graph, index, layout, step, draws, slots, diagnostics: RefCell::default() }
    }

    /// The dim's value, or nothing if it is unknown or has none.
    pub fn get(&self, name: &str) -> Option<i64> {
        let at = self.graph.dims.iter().position(|dim| dim.name.text == name)?;
        match self.slots.borrow()[at] {
            Slot::Known(value) => return Some(value),
            Slot::Failed => return None,
            Slot::Asking => {
                let name = &self.graph.dims[at].name;
                let message = format!("dim `{}` depends on itself", name.text);
                self.diagnostics.borrow_mut().push(Diagnostic::error(name.span, message));
                return None;
            }
            Slot::Unasked => {}
        }
        let asking = self.slots.borrow().iter().filter(|slot| matches!(slot, Slot::Asking)).count();
        if asking > MAX_CHAIN {
            let name = &self.graph.dims[at].name;
            let message = format!("dim `{}` depends on a chain of more than {MAX_CHAIN} dims", name.text);
            self.diagnostics.borrow_mut().push(Diagnostic::error(name.span, message));
            return None;
        }
        self.slots.borrow_mut()[at] = Slot::Asking;
        let value = self.compute(at);
        self.slots.borrow_mut()[at] = value.map_or(Slot::Failed, Slot::Known);
        value
    }

    /// Names of all dims.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.graph.dims.iter().map(|dim| dim.name.text.as_str())
    }

    /// Every dim that has a value so far or can be given one quietly.
    pub fn all(&self) -> Vec<(String, u64)> {
        let before = self.diagnostics.borrow().len();
        let known =
            self.names().filter_map(|name| Some((name.to_owned(), u64::try_from(self.get(name)?).ok()?))).collect();
        self.diagnostics.borrow_mut().truncate(before);
        known
    }

    /// Value of an expression over dims and `extra` names.
    ///
    /// # Errors
    /// A diagnostic at the expression, or at the dim that has no value.
    pub fn eval(&self, spanned: &Spanned, extra: &[(String, u64)]) -> Result<i64, Diagnostic> {
        let before = self.diagnostics.borrow().len();
        let look_up = |name: &str| {
            let found = extra.iter().rev().find(|(other, _)| other == name).map(|(_, value)| *value as i64);
            found.or_else(|| self.get(name))
        };
        spanned.expr.eval(&look_up).map_err(|error| {
            // A dim that failed has said why, at its own place.
            if let Some(cause) = self.diagnostics.borrow_mut().drain(before..).next() {
                return cause.also(spanned.span, "needed here");
            }
            let diagnostic = Diagnostic::error(spanned.span, format!("`{}` has no value: {error}", spanned.expr));
            match &error {
                EvalError::Unknown(name) => {
                    let extra = extra.iter().map(|(name, _)| name.as_str());
                    diagnostic.suggest(name, self.names().chain(extra))
                }
                EvalError::Arithmetic(_) => diagnostic,
            }
        })
    }

    /// An expression that must be a positive extent.
    ///
    /// # Errors
    /// As [`Self::eval`], and if the value is not positive.
    pub fn extent(&self, spanned: &Spanned, extra: &[(String, u64)]) -> Result<u64, Diagnostic> {
        let value = self.eval(spanned, extra)?;
        match u64::try_from(value) {
            Ok(extent) if extent > 0 => Ok(extent),
            _ => Err(Diagnostic::error(spanned.span, format!("`{}` is {value}: an extent is positive", spanned.expr))),
        }
    }

    fn compute(&self, at: usize) -> Option<i64> {
        let dim = &self.graph.dims[at];
        let fail = |diagnostic: Diagnostic| {
            self.diagnostics.borrow_mut().push(diagnostic);
            None
        };
        match &dim.kind {
            DimKind::Tokens => Some(self.step.tokens.into()),
            DimKind::Sequences => Some(self.step.sequences.into()),
            DimKind::Rows => Some(self.step.rows.into()),
            DimKind::Capacity => Some(self.step.capacity.into()),
            DimKind::Draws => Some(self.draws.into()),
            DimKind::Eval(spanned) => self.eval(spanned, &[]).map_or_else(fail, Some),
            DimKind::Count { pattern } => {
                let exists =
                    |n: &i64| find(self.graph, self.index, &pattern.text.replace("{}", &n.to_string())).is_some();
                Some((0..MAX_COUNT).take_while(exists).count() as i64)
            }
            DimKind::Weight { tensor, .. } | DimKind::Elements { tensor }
                if find(self.graph, self.index, &tensor.text).is_none() =>
            {
                let message = format!("the checkpoint has no `{}`, which dim `{}` needs", tensor.text, dim.name.text);
                fail(Diagnostic::error(tensor.span, message).suggest(&tensor.text, self.index.names()))
            }
            DimKind::Elements { tensor } => {
                let (_, info) = find(self.graph, self.index, &tensor.text)?;
                let count = info.shape.iter().try_fold(1_u64, |count, extent| count.checked_mul(*extent));
                match count.and_then(|count| i64::try_from(count).ok()) {
                    Some(count) => Some(count),
                    None => fail(Diagnostic::error(
                        tensor.span,
                        format!("`{}` has shape {:?}: too many elements to count", tensor.text, info.shape),
                    )),
                }
            }
            DimKind::Weight { tensor, axis } => {
                let (shape, _) = logical_shape(self.graph, self.index, self.layout, &tensor.text)?;
                match shape.get(*axis as usize) {
                    Some(extent) => Some(*extent as i64),
                    None => fail(Diagnostic::error(
                        tensor.span,
                        format!("`{}` has shape {shape:?} and no axis {axis}", tensor.text),
                    )),
                }
            }
        }
    }
}
