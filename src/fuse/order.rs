//! A model put in order again after ops of it were exchanged.
//!
//! Gets values and ops, some of which are gone; returns a model of those that are left. What holds then: ops stand in
//! an
//! order in which everything is defined before it is used and every reader of a version comes before the next one is
//! written, as near to where they stood as that allows; no value is left whose definer is gone. Never looks at what an
//! op computes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::base::arena::Arena;
use crate::kernel::Template;
use crate::model::{InputTensor, Model, Op, OpId, Origin, OutputTensor, Value, ValueId};

/// Puts ops in order: `keys` says where each would stand by itself. Nothing if they wait for each other in a circle.
pub(super) fn in_order(
    model: &Model,
    values: Vec<Value>,
    ops: Vec<Option<Op>>,
    keys: &[u32],
    templates: Arena<Template>,
) -> Option<Model> {
    let order = order(&values, &ops, keys)?;
    let mut number = vec![None; ops.len()];
    for (new, old) in (0u32..).zip(&order) {
        number[*old] = Some(OpId::new(new));
    }
    let mut moved: Vec<Option<ValueId>> = vec![None; values.len()];
    let mut kept = Arena::new();
    let is_there = |value: &Value| match &value.origin {
        Origin::Op { op, .. } => number[op.index()].is_some(),
        _ => true,
    };
    for (old, value) in values.iter().enumerate() {
        moved[old] = is_there(value).then(|| kept.push(value.clone()));
    }
    let to = |value: ValueId| moved[value.index()].expect("what is used is defined");
    let mut renamed = Arena::new();
    for value in kept.values() {
        let mut value: Value = value.clone();
        match &mut value.origin {
            Origin::Op { op, updates } => {
                *op = number[op.index()].expect("its op is there");
                *updates = updates.map(to);
            }
            Origin::Join { parts } => parts.iter_mut().for_each(|part| *part = to(*part)),
            Origin::View { of, .. } | Origin::Transposed { of } => *of = to(*of),
            Origin::Weight { .. } | Origin::State { .. } | Origin::Input { .. } => {}
        }
        renamed.push(value);
    }
    let mut ops = ops;
    let mut ordered = Arena::new();
    for old in order {
        let mut op = ops[old].take().expect("ops in order are there");
        for arg in &mut op.args {
            arg.input = arg.input.map(to);
            arg.output = arg.output.map(to);
        }
        ordered.push(op);
    }
    let inputs = model.inputs.iter().map(|input| InputTensor { value: to(input.value), ..input.clone() }).collect();
    let outputs =
        model.outputs.iter().map(|output| OutputTensor { value: to(output.value), ..output.clone() }).collect();
    Some(Model { values: renamed, ops: ordered, inputs, outputs, templates, ..shell(model) })
}

/// What of a model ops and values are no part of.
fn shell(model: &Model) -> Model {
    Model {
        graph: model.graph.clone(),
        layout: model.layout.clone(),
        shape: model.shape,
        dims: model.dims.clone(),
        weights: model.weights.clone(),
        joins: model.joins.clone(),
        transposed: model.transposed.clone(),
        state: model.state.clone(),
        values: Arena::new(),
        ops: Arena::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        templates: Arena::new(),
    }
}

/// The ops that are left, each after those that it waits for.
fn order(values: &[Value], ops: &[Option<Op>], keys: &[u32]) -> Option<Vec<usize>> {
    let whole = |value: ValueId| match values[value.index()].origin {
        Origin::View { of, .. } => of,
        _ => value,
    };
    let mut definer: BTreeMap<ValueId, usize> = BTreeMap::new();
    let mut readers: BTreeMap<ValueId, Vec<usize>> = BTreeMap::new();
    let left = || ops.iter().enumerate().filter_map(|(at, op)| Some((at, op.as_ref()?)));
    for (at, op) in left() {
        for arg in &op.args {
            definer.extend(arg.output.map(|value| (value, at)));
            if let Some(value) = arg.input {
                readers.entry(whole(value)).or_default().push(at);
            }
        }
    }
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); ops.len()];
    let mut waits = vec![0usize; ops.len()];
    let mut edge = |from: usize, to: usize| {
        if from != to {
            after[from].push(to);
            waits[to] += 1;
        }
    };
    for (at, op) in left() {
        for arg in &op.args {
            let input = arg.input.map(whole);
            input.and_then(|value| definer.get(&value)).into_iter().for_each(|definer| edge(*definer, at));
            if let (Some(previous), Some(_)) = (input, arg.output) {
                readers.get(&previous).into_iter().flatten().for_each(|reader| edge(*reader, at));
            }
        }
    }
    let mut ready: BinaryHeap<Reverse<(u32, usize)>> =
        left().filter(|(at, _)| waits[*at] == 0).map(|(at, _)| Reverse((keys[at], at))).collect();
    let mut order = Vec::new();
    while let Some(Reverse((_, at))) = ready.pop() {
        order.push(at);
        for next in &after[at] {
            waits[*next] -= 1;
            if waits[*next] == 0 {
                ready.push(Reverse((keys[*next], *next)));
            }
        }
    }
    (order.len() == left().count()).then_some(order)
}
