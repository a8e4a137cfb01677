//! Maps in the loads and stores of the ops around them.
//!
//! Gets a model, returns it with maps merged where they can be, and how many were. A map goes into the store of what it
//! computes with, if nothing else uses that; or into the loads of those who use it, if they are few and so are its
//! elements, since each of them computes it anew. What holds then: every value that is left is what it was, bit for bit
//! but for what a compiler contracts. Never changes a map.

use crate::base::arena::Arena;
use crate::base::dtype::DType;
use crate::base::raw::Name;
use crate::base::span::SourceMap;
use crate::fuse::order;
use crate::kernel::merge::{Merged, WithMap, into_load, into_store};
use crate::kernel::{KernelLib, PortUse, Template};
use crate::model::{Model, Op, OpArg, OpId, Origin, Request, ValueId};

/// More elements than a map has that is computed where it is loaded.
const MAX_LOADED: u64 = 1 << 15;

/// More ops than compute a map where they load it.
const MAX_READERS: usize = 2;

/// The model with its maps merged, and how many were.
pub(super) fn merge(model: Model, lib: &KernelLib, sources: &SourceMap, request: &Request<'_>) -> (Model, usize) {
    let mut merging = Merging {
        lib,
        sources,
        most: request.limits.max_storage_buffers_per_dispatch as usize,
        ops: model.ops.values().cloned().map(Some).collect(),
        readers: readers(&model),
        templates: model.templates.clone(),
        is_fixed: fixed(&model),
        model: &model,
        count: 0,
    };
    for map in model.ops.ids().filter(|op| model.ops[*op].kernel == "map") {
        merging.one(map);
    }
    let Merging { ops, templates, count, .. } = merging;
    let keys: Vec<u32> = (0..ops.len() as u32).collect();
    let mut values: Vec<_> = model.values.values().cloned().collect();
    for (at, op) in ops.iter().enumerate() {
        for value in op.iter().flat_map(|op| &op.args).filter_map(|arg| arg.output) {
            if let Origin::Op { op, .. } = &mut values[value.index()].origin {
                *op = OpId::new(at as u32);
            }
        }
    }
    match order::in_order(&model, values, ops, &keys, templates) {
        Some(merged) => (merged, count),
        None => (model, 0),
    }
}

/// By value: the ops that read it.
fn readers(model: &Model) -> Vec<Vec<OpId>> {
    let mut readers = vec![Vec::new(); model.values.len()];
    for (id, op) in model.ops.iter() {
        op.args.iter().filter_map(|arg| arg.input).for_each(|value| readers[value.index()].push(id));
    }
    readers
}

/// By value: whether it has to stay, since the host reads it, another value is a run of it, or it lives in a state.
fn fixed(model: &Model) -> Vec<bool> {
    let mut fixed: Vec<bool> = model.values.ids().map(|value| model.state_of(value).is_some()).collect();
    model.outputs.iter().for_each(|output| fixed[output.value.index()] = true);
    for (id, value) in model.values.iter() {
        if let Origin::View { of, .. } = value.origin {
            fixed[of.index()] = true;
            fixed[id.index()] = true;
        }
    }
    fixed
}

struct Merging<'a> {
    model: &'a Model,
    lib: &'a KernelLib,
    sources: &'a SourceMap,
    most: usize,
    ops: Vec<Option<Op>>,
    readers: Vec<Vec<OpId>>,
    is_fixed: Vec<bool>,
    templates: Arena<Template>,
    count: usize,
}

impl Merging<'_> {
    fn one(&mut self, id: OpId) {
        let Some(map) = self.ops[id.index()].clone() else { return };
        let (operands, result) = map.args.split_at(map.args.len() - 1);
        let Some(result) = result[0].output else { return };
        // The text of a map that something was merged into before is no expression any more.
        if map.kernel != "map" {
            return;
        }
        if !self.stored_by_producer(id, &map, operands, result) {
            self.loaded_by_readers(id, &map, operands, result);
        }
    }

    /// The shape of an operand as the map sees it: a weight's axes of 1 at the front say nothing.
    fn shape(&self, value: ValueId) -> &[u64] {
        let value = &self.model.values[value];
        let leading = value.shape.iter().take_while(|extent| **extent == 1).count();
        match value.origin {
            Origin::Weight { .. } => &value.shape[leading.min(value.shape.len().saturating_sub(1))..],
            _ => &value.shape,
        }
    }

    fn with_map<T>(&self, map: &Op, operands: &[OpArg], result: ValueId, then: impl FnOnce(Merged<'_>) -> T) -> T {
        let expr = Name { text: self.sources.text(map.span).to_owned(), span: map.span };
        let operands: Vec<(&str, &[u64])> =
            operands.iter().map(|arg| (arg.port.as_str(), self.shape(arg.input.expect("operands are read")))).collect();
        let source = self.sources.source(map.span.source);
        then(Merged { expr: &expr, source, operands: &operands, shape: &self.model.values[result].shape })
    }

    /// Into the store of an operand that nothing else uses: of the latest one.
    fn stored_by_producer(&mut self, id: OpId, map: &Op, operands: &[OpArg], result: ValueId) -> bool {
        let count = self.model.values[result].count();
        let candidates = operands.iter().enumerate().filter_map(|(at, arg)| {
            let value = arg.input?;
            let producer = self.definer(value)?;
            let alone = self.readers[value.index()] == [id] && !self.is_fixed[value.index()];
            let whole = self.model.values[value].count() == count && self.model.values[value].dtype == DType::F32;
            let before = operands.iter().filter(|other| other.input != Some(value));
            let known = before.filter_map(|other| self.definer(other.input?)).all(|other| other < producer);
            (alone && whole && known && self.is_first(value)).then_some((producer, at, value))
        });
        let Some((producer, through, value)) = candidates.max() else { return false };
        let Some(op) = self.ops[producer.index()].clone() else { return false };
        let Some(port) = op.args.iter().position(|arg| arg.output == Some(value)) else { return false };
        let template = &self.templates[op.template];
        let used = &template.ports[port];
        if used.own.is_some() || !used.loads.is_empty() || used.stores.is_empty() {
            return false;
        }
        let merged = self.with_map(map, operands, result, |map| {
            into_store(self.lib, template, port, &op.args[port].port, map, through)
        });
        let others = operands.iter().enumerate().filter(|(at, _)| *at != through).map(|(_, arg)| arg.clone());
        let last = OpArg { output: Some(result), ..op.args[port].clone() };
        let args = others.chain([last]).collect();
        let Some(mut op) = self.replaced(op, port, merged, args) else { return false };
        op.label = self.model.values[result].path.clone();
        self.ops[producer.index()] = Some(op);
        self.ops[id.index()] = None;
        self.moved(id, &[producer], operands);
        self.count += 1;
        true
    }

    /// Into the loads of the ops that use it.
    fn loaded_by_readers(&mut self, id: OpId, map: &Op, operands: &[OpArg], result: ValueId) {
        let mut readers = self.readers[result.index()].clone();
        readers.dedup();
        let states = operands.iter().filter_map(|arg| arg.input).any(|value| self.model.state_of(value).is_some());
        let few =
            !readers.is_empty() && readers.len() <= MAX_READERS && self.model.values[result].count() <= MAX_LOADED;
        if states || !few || self.is_fixed[result.index()] {
            return;
        }
        let mut replaced = Vec::new();
        for reader in &readers {
            let Some(op) = self.ops[reader.index()].clone() else { return };
            let Some(op) = self.loading(op, map, operands, result) else { return };
            replaced.push((*reader, op));
        }
        for (reader, op) in replaced {
            self.ops[reader.index()] = Some(op);
        }
        self.ops[id.index()] = None;
        self.moved(id, &readers, operands);
        self.count += 1;
    }

    /// An op that computes a map where it loads it.
    fn loading(&mut self, op: Op, map: &Op, operands: &[OpArg], result: ValueId) -> Option<Op> {
        let mut op = op;
        // A map has its text in the graph; what it loads is for its own line to say.
        if op.kernel == "map" {
            return None;
        }
        while let Some(port) = op.args.iter().position(|arg| arg.input == Some(result)) {
            let template = &self.templates[op.template];
            let PortUse { loads, own, .. } = &template.ports[port];
            if own.is_some() || loads.is_empty() || op.args[port].output.is_some() {
                return None;
            }
            let merged = self
                .with_map(map, operands, result, |map| into_load(self.lib, template, port, &op.args[port].port, map));
            op = self.replaced(op, port, merged, operands.to_vec())?;
        }
        Some(op)
    }

    /// An op with others in the place of one of its arguments; nothing if a dispatch could bind too many buffers then.
    fn replaced(&mut self, mut op: Op, port: usize, merged: WithMap, args: Vec<OpArg>) -> Option<Op> {
        let WithMap { template, ports } = merged;
        let named = ports.into_iter().zip(args).map(|(port, arg)| OpArg { port, ..arg });
        op.args.splice(port..=port, named);
        if self.bindings(&op) > self.most {
            return None;
        }
        let known = self.templates.iter().find(|(_, other)| other.file == template.file && **other == template);
        op.template = match known.map(|(id, _)| id) {
            Some(id) => id,
            None => self.templates.push(template),
        };
        if !op.kernel.ends_with("+map") {
            op.kernel += "+map";
        }
        Some(op)
    }

    /// How many buffers a dispatch may have to bind at most: inputs share one, runs of a value too; any other value
    /// takes
    /// one at each port that it is at.
    fn bindings(&self, op: &Op) -> usize {
        let values = op.args.iter().filter_map(|arg| arg.output.or(arg.input));
        let (mut records, mut others): (Vec<Option<ValueId>>, usize) = (Vec::new(), 0);
        for value in values {
            match self.model.values[value].origin {
                Origin::Input { .. } => records.push(None),
                Origin::View { of, .. } => records.push(Some(of)),
                _ => others += 1,
            }
        }
        records.sort_unstable();
        records.dedup();
        records.len() + others
    }

    /// Notes that others read a map's operands now.
    fn moved(&mut self, from: OpId, to: &[OpId], operands: &[OpArg]) {
        for value in operands.iter().filter_map(|arg| arg.input) {
            let readers = &mut self.readers[value.index()];
            readers.retain(|reader| *reader != from);
            readers.extend(to);
            readers.sort_unstable();
        }
    }

    fn is_first(&self, value: ValueId) -> bool {
        matches!(self.model.values[value].origin, Origin::Op { updates: None, .. })
    }

    /// The op that defines a value now.
    fn definer(&self, value: ValueId) -> Option<OpId> {
        let whole = self.model.whole(value);
        let Origin::Op { op, .. } = self.model.values[whole].origin else { return None };
        if self.ops[op.index()].as_ref().is_some_and(|op| op.args.iter().any(|arg| arg.output == Some(whole))) {
            return Some(op);
        }
        let defines =
            |op: &Option<Op>| op.as_ref().is_some_and(|op| op.args.iter().any(|arg| arg.output == Some(whole)));
        self.ops.iter().position(defines).map(|at| OpId::new(at as u32))
    }
}
