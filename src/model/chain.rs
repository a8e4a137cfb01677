//! How many steps of a model must follow each other, whatever order they are put in.
//!
//! Gets a model, returns the length of its longest chain of dependent steps: copies of the inputs, ops, copies of the
//! outputs. What holds then: no plan of the model has fewer levels. It asks what each step waits for, backwards, and
//! knows nothing of how steps are scheduled, so that a schedule can be measured by it. Never orders anything.

use crate::model::{Model, OpId, Origin, ValueId};

/// Who uses a version of a tensor without defining the next one.
#[derive(Clone, Default)]
struct Readers {
    ops: Vec<OpId>,
    is_output: bool,
}

struct Chains<'a> {
    model: &'a Model,
    readers: Vec<Readers>,
    /// By op: the longest chain that ends with it, once known.
    length: Vec<Option<u32>>,
    /// By op: whether it waits, or has waited, for others to be known.
    is_entered: Vec<bool>,
}

/// The longest chain of dependent steps.
///
/// # Panics
/// If steps depend on each other in a circle: such a model has no schedule either.
pub fn longest_chain(model: &Model) -> u32 {
    let mut readers = vec![Readers::default(); model.values.len()];
    for (id, op) in model.ops.iter() {
        let read = op.args.iter().filter_map(|arg| arg.input);
        read.for_each(|value| readers[viewed(model, value).index()].ops.push(id));
    }
    model.outputs.iter().for_each(|output| readers[viewed(model, output.value).index()].is_output = true);
    let mut chains =
        Chains { model, readers, length: vec![None; model.ops.len()], is_entered: vec![false; model.ops.len()] };
    let ops = model.ops.ids().map(|op| chains.ending_with(op)).max().unwrap_or(0);
    let outputs = model.outputs.iter().map(|output| chains.known(output.value) + 1).max().unwrap_or(0);
    ops.max(outputs).max(u32::from(!model.inputs.is_empty()))
}

/// What has to be there for a value to be read.
fn viewed(model: &Model, value: ValueId) -> ValueId {
    if let Origin::View { of, .. } = model.values[value].origin { of } else { value }
}

impl Chains<'_> {
    /// The longest chain that ends with an op. Without recursion: chains are as long as models are deep.
    fn ending_with(&mut self, op: OpId) -> u32 {
        let mut waiting = vec![op];
        while let Some(&next) = waiting.last() {
            if self.length[next.index()].is_some() {
                waiting.pop();
            } else if std::mem::replace(&mut self.is_entered[next.index()], true) {
                // All that it waits for was computed since it was entered.
                self.length[next.index()] = Some(self.longest_before(next) + 1);
            } else {
                let unknown = self.before(next).into_iter().filter(|before| self.length[before.index()].is_none());
                for before in unknown {
                    assert!(!self.is_entered[before.index()], "`{}` waits for itself", self.model.ops[before].label);
                    waiting.push(before);
                }
            }
        }
        self.length[op.index()].expect("just computed")
    }

    /// The ops that an op waits for.
    fn before(&self, op: OpId) -> Vec<OpId> {
        let mut before = Vec::new();
        for arg in &self.model.ops[op].args {
            before.extend(arg.input.and_then(|value| self.definer(value)));
            if let Some(previous) = self.overwritten(arg.output) {
                before.extend(self.definer(previous));
                before.extend(&self.readers[previous.index()].ops);
            }
        }
        before.retain(|other| *other != op);
        before
    }

    fn longest_before(&self, op: OpId) -> u32 {
        let args = &self.model.ops[op].args;
        let read = args.iter().filter_map(|arg| arg.input).map(|value| self.known(value));
        let overwritten = args.iter().filter_map(|arg| self.overwritten(arg.output)).map(|previous| {
            let readers = &self.readers[previous.index()];
            let ops =
                readers.ops.iter().filter(|reader| **reader != op).filter_map(|reader| self.length[reader.index()]);
            let fetched = if readers.is_output { self.known(previous) + 1 } else { 0 };
            ops.max().unwrap_or(0).max(fetched).max(self.known(previous))
        });
        read.chain(overwritten).max().unwrap_or(0)
    }

    /// The version that a value overwrites.
    fn overwritten(&self, value: Option<ValueId>) -> Option<ValueId> {
        match self.model.values[value?].origin {
            Origin::Op { updates, .. } => updates,
            _ => None,
        }
    }

    fn definer(&self, value: ValueId) -> Option<OpId> {
        match self.model.values[viewed(self.model, value)].origin {
            Origin::Op { op, .. } => Some(op),
            _ => None,
        }
    }

    /// The longest chain that ends with a value's definition, of which what it waits for is known.
    fn known(&self, value: ValueId) -> u32 {
        match self.model.values[viewed(self.model, value)].origin {
            Origin::Input { .. } => 1,
            Origin::Op { op, .. } => self.length[op.index()].expect("its definer comes before"),
            Origin::Weight { .. } | Origin::Transposed { .. } | Origin::Join { .. } | Origin::State { .. } => 0,
            Origin::View { .. } => unreachable!("views are of values that ops define"),
        }
    }
}
