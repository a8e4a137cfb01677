//! What differs between two plans, whatever their authors call things.
//!
//! Gets two checked plans, returns a [`Diff`]: figures, ops in one plan alone, ops in both that differ, transitions,
//! layouts, limits. Commands are paired by what they do and what they are connected to (`pair`), so that names of ops,
//! values, states and loop variables, numbers of slots, buffers and kernels, and the order of commands inside a level
//! are no differences. What holds then: a plan is the same as itself, and as that of a graph in which everything has
//! other names; [`Diff::is_same`] is false if one more command, byte or transition is in one of them. Never compares
//! numbers that plans compute.

mod flow;
mod pair;
pub mod print;
mod texts;

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::base::step::StepShape;
use crate::inspect::diff::flow::{Flow, Outside};
use crate::inspect::diff::pair::Pairs;
use crate::plan::Plan;
use crate::plan::command::{BufferId, BufferKind, Command, Slice, Transition};
use crate::plan::reasons::{Hazard, Party, Reasons, Use};
use crate::plan::usage::Usage;
use crate::plan::weights::{StateBuffer, WeightLayout, WeightPiece};

/// A number in both plans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metric {
    /// What is counted, in the words of `compile --emit summary`.
    pub name: &'static str,
    /// In the first plan.
    pub a: u64,
    /// In the second plan.
    pub b: u64,
}

/// Something that is not the same in both plans; nothing where a plan lacks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What differs.
    pub what: String,
    /// In the first plan.
    pub a: Option<String>,
    /// In the second plan.
    pub b: Option<String>,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Op {
    /// Its path in the graph.
    pub label: String,
    /// Its kernel, or `copy`.
    pub kernel: String,
    /// Its level.
    pub level: u32,
    /// Workgroups in x, y and z; nothing for a copy.
    pub workgroups: Option<[u32; 3]>,
    /// The graph's place that asked for it; empty for a copy.
    pub place: String,
}

/// A command of both plans that is not the same in both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangedOp {
    /// As the first plan has it.
    pub a: Op,
    /// As the second plan has it.
    pub b: Op,
    /// What differs.
    pub changes: Vec<Change>,
}

/// A transition of one plan that the other has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoneTransition {
    /// The barrier it stands in: that before this level; the number of levels stands for the leaving barrier.
    pub level: u32,
    /// The buffer.
    pub buffer: String,
    /// The usage it is in, as in `storage-write`.
    pub from: String,
    /// The usage it is in afterwards.
    pub to: String,
    /// Why it stands.
    pub reason: String,
}

/// All that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// The plans, as headings.
    pub plans: [Head; 2],
    /// Figures, in a fixed order, those that are equal included.
    pub metrics: Vec<Metric>,
    /// What a device must offer.
    pub limits: Vec<Change>,
    /// Inputs and outputs.
    pub host: Vec<Change>,
    /// Where weights lie.
    pub weights: Vec<Change>,
    /// State tensors.
    pub state: Vec<Change>,
    /// Sizes of slots: how many there are of each; and how many values lie elsewhere in them.
    pub slots: Vec<Change>,
    /// Commands of the first plan alone.
    pub only_a: Vec<Op>,
    /// Commands of the second plan alone.
    pub only_b: Vec<Op>,
    /// Commands of both that differ.
    pub changed: Vec<ChangedOp>,
    /// Transitions of the first plan alone.
    pub transitions_a: Vec<LoneTransition>,
    /// Transitions of the second plan alone.
    pub transitions_b: Vec<LoneTransition>,
}

/// Which plan it is. Names are for people: they are no difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    /// Name of the graph.
    pub graph: String,
    /// The numbers the plan is made for.
    pub shape: StepShape,
}

impl Diff {
    /// Whether nothing differs but names.
    pub fn is_same(&self) -> bool {
        let lists = [&self.limits, &self.host, &self.weights, &self.state, &self.slots];
        self.metrics.iter().all(|metric| metric.a == metric.b)
            && lists.iter().all(|list| list.is_empty())
            && self.only_a.is_empty()
            && self.only_b.is_empty()
            && self.changed.is_empty()
            && self.transitions_a.is_empty()
            && self.transitions_b.is_empty()
    }
}

/// Compares two plans.
pub fn diff(a: &Plan, b: &Plan) -> Diff {
    let (states_a, states_b) = state_numbers(&a.state.buffers, &b.state.buffers);
    let (flow_a, flow_b) = (Flow::new(a, states_a), Flow::new(b, states_b));
    let pairs = pair::pair(&flow_a, &flow_b);
    let alone = |flow: &Flow, paired: &[Option<usize>]| {
        let nodes = (0..paired.len()).filter(|node| paired[*node].is_none());
        nodes.map(|node| op(flow, node)).collect::<Vec<_>>()
    };
    let (transitions_a, transitions_b) = transitions(&flow_a, &flow_b, &pairs);
    let head = |plan: &Plan| Head { graph: plan.graph.clone(), shape: plan.shape };
    Diff {
        plans: [head(a), head(b)],
        metrics: metrics(a, b),
        limits: limits(a, b),
        host: host(a, b),
        weights: weights(&a.weights, &b.weights),
        state: states(&flow_a, &flow_b),
        slots: slots(a, b).into_iter().chain(elsewhere(&flow_a, &flow_b, &pairs)).collect(),
        only_a: alone(&flow_a, &pairs.of_a),
        only_b: alone(&flow_b, &pairs.of_b),
        changed: changed(&flow_a, &flow_b, &pairs),
        transitions_a,
        transitions_b,
    }
}

fn metrics(a: &Plan, b: &Plan) -> Vec<Metric> {
    let figures = |plan: &Plan| {
        let StepShape { tokens, sequences, rows, capacity } = plan.shape;
        let shape = [("tokens", tokens), ("sequences", sequences), ("rows", rows), ("capacity", capacity)];
        let host = plan.buffers.values().filter(|buffer| buffer.kind.is_host_visible());
        let host = ("host_bytes", host.map(|buffer| buffer.size_bytes).sum());
        let shape = shape.map(|(name, number)| (name, u64::from(number)));
        shape.into_iter().chain(plan.summary().figures()).chain([host]).collect::<Vec<_>>()
    };
    let pairs = figures(a).into_iter().zip(figures(b));
    pairs.map(|((name, a), (_, b))| Metric { name, a, b }).collect()
}

/// What is in one list and not in the other, or has another text there, by its name; in the order of the first, then of
/// the second.
fn changes<K: Ord + Clone>(a: &[(K, String)], b: &[(K, String)], name: impl Fn(&K) -> String) -> Vec<Change> {
    let texts = |list: &[(K, String)]| list.iter().cloned().collect::<BTreeMap<K, String>>();
    let (in_a, in_b) = (texts(a), texts(b));
    let mut found = Vec::new();
    for (key, text) in a {
        let other = in_b.get(key);
        if other != Some(text) {
            found.push(Change { what: name(key), a: Some(text.clone()), b: other.cloned() });
        }
    }
    for (key, text) in b.iter().filter(|(key, _)| !in_a.contains_key(key)) {
        found.push(Change { what: name(key), a: None, b: Some(text.clone()) });
    }
    found
}

fn limits(a: &Plan, b: &Plan) -> Vec<Change> {
    let fields = |plan: &Plan| -> Vec<(String, String)> {
        let value = serde_json::to_value(&plan.limits).expect("limits hold nothing that JSON cannot");
        let fields = value.as_object().expect("limits are a struct").iter();
        fields.map(|(name, value)| (name.clone(), value.to_string())).collect()
    };
    changes(&fields(a), &fields(b), String::clone)
}

/// Inputs and outputs by their roles; outputs that share a role are told apart by their order.
fn host(a: &Plan, b: &Plan) -> Vec<Change> {
    let ends = |plan: &Plan| -> Vec<(String, String)> {
        let inputs =
            plan.inputs.iter().map(|input| (format!("input {}", input.role), format!("u32 [{}]", input.count)));
        let outputs = plan.outputs.iter().map(|output| {
            let same = plan.outputs.iter().filter(|other| other.role == output.role);
            let nth = same.take_while(|other| other.name != output.name).count();
            let nth = if nth == 0 { String::new() } else { format!(" {}", nth + 1) };
            (format!("output {}{nth}", output.role), format!("{} {:?}", output.dtype, output.shape))
        });
        inputs.chain(outputs).collect()
    };
    changes(&ends(a), &ends(b), String::clone)
}

/// Tensors that only one plan takes, or that are stored or laid out differently.
fn weights(a: &WeightLayout, b: &WeightLayout) -> Vec<Change> {
    let text = |layout: &WeightLayout, piece: &WeightPiece| {
        let buffer = &layout.buffers[piece.buffer as usize];
        let transposed = if piece.transpose.is_some() { " transposed" } else { "" };
        let place = match buffer.record_bytes {
            Some(bytes) => format!(
                "record {} of {bytes} bytes, byte {}",
                piece.offset_bytes / bytes.max(1),
                piece.offset_bytes % bytes.max(1)
            ),
            None => format!("byte {} of {}", piece.offset_bytes, buffer.size_bytes),
        };
        format!("{} [{}]{transposed}, {place}", piece.dtype, piece.count)
    };
    let pieces = |layout: &WeightLayout| -> Vec<(String, String)> {
        layout.pieces.iter().map(|piece| (piece.tensor.clone(), text(layout, piece))).collect()
    };
    changes(&pieces(a), &pieces(b), |tensor| format!("`{tensor}`"))
}

/// Numbers for the state tensors of two plans: those of one label share theirs, then, in order, those that are alike.
fn state_numbers(a: &[StateBuffer], b: &[StateBuffer]) -> (Vec<u32>, Vec<u32>) {
    let of_a: Vec<u32> = (0..a.len() as u32).collect();
    let like = |one: &StateBuffer, other: &StateBuffer| {
        let first = |buffer: &StateBuffer| (buffer.init_bits, buffer.init_weight.clone());
        (one.dtype, &one.row_shape, first(one)) == (other.dtype, &other.row_shape, first(other))
    };
    let by_label: HashMap<&str, usize> =
        a.iter().enumerate().map(|(nth, buffer)| (buffer.label.as_str(), nth)).collect();
    let mut taken = vec![false; a.len()];
    let mut of_b: Vec<Option<u32>> = Vec::with_capacity(b.len());
    for buffer in b {
        let found = by_label.get(buffer.label.as_str()).copied();
        found.into_iter().for_each(|nth| taken[nth] = true);
        of_b.push(found.map(|nth| nth as u32));
    }
    let mut next = a.len() as u32;
    let numbers = b.iter().zip(of_b).map(|(buffer, found)| {
        found.unwrap_or_else(|| match (0..a.len()).find(|nth| !taken[*nth] && like(&a[*nth], buffer)) {
            Some(nth) => {
                taken[nth] = true;
                nth as u32
            }
            None => {
                next += 1;
                next - 1
            }
        })
    });
    let of_b = numbers.collect();
    (of_a, of_b)
}

fn states(a: &Flow, b: &Flow) -> Vec<Change> {
    let list = |flow: &Flow| -> Vec<(u32, String)> {
        let texts = flow.plan.state.buffers.iter().map(|buffer| {
            let number = f32::from_bits(buffer.init_bits).to_string();
            let init = buffer.init_weight.as_ref().map_or(number, |weight| format!("`{}`", weight.tensor));
            let StateBuffer { dtype, row_shape, rows, rest, .. } = buffer;
            format!("{dtype} {row_shape:?} x {rows} rows, first {init}, rests in {rest}")
        });
        flow.states.iter().copied().zip(texts).collect()
    };
    changes(&list(a), &list(b), |number| format!("`{}`", a.state(*number).or_else(|| b.state(*number)).unwrap_or("?")))
}

/// How many slots there are of each size, from the largest on.
fn slots(a: &Plan, b: &Plan) -> Vec<Change> {
    let mut counts: BTreeMap<u64, [usize; 2]> = BTreeMap::new();
    for (nth, plan) in [a, b].into_iter().enumerate() {
        for buffer in plan.buffers.values().filter(|buffer| buffer.kind == BufferKind::Slot) {
            counts.entry(buffer.size_bytes).or_default()[nth] += 1;
        }
    }
    let differ = counts.into_iter().rev().filter(|(_, [a, b])| a != b);
    let text = |count: usize| (count > 0).then(|| count.to_string());
    differ.map(|(bytes, [a, b])| Change { what: format!("of {bytes} bytes"), a: text(a), b: text(b) }).collect()
}

/// How many values that both plans have lie at another offset, or with others than before: a slot is the slot of the
/// other plan in which most of its values lie.
fn elsewhere(a: &Flow, b: &Flow, pairs: &Pairs) -> Option<Change> {
    let mut places: Vec<(Slice, Slice)> = Vec::new();
    for (one, other) in pairs.of_a.iter().enumerate().filter_map(|(one, other)| Some((one, (*other)?))) {
        let ports = a.nodes[one].ports.iter().zip(&b.nodes[other].ports);
        let both = ports.filter(|(one, other)| one.writes && other.writes).map(|(one, other)| (one.slice, other.slice));
        let is_slot = |plan: &Plan, slice: Slice| plan.buffers[slice.buffer].kind == BufferKind::Slot;
        places.extend(both.filter(|(one, other)| is_slot(a.plan, *one) && is_slot(b.plan, *other)));
    }
    let mut counts: BTreeMap<BufferId, BTreeMap<BufferId, usize>> = BTreeMap::new();
    for (one, other) in &places {
        *counts.entry(one.buffer).or_default().entry(other.buffer).or_default() += 1;
    }
    let most = |counts: &BTreeMap<BufferId, usize>| counts.iter().max_by_key(|(_, count)| **count).map(|(to, _)| *to);
    let is_there = |(one, other): &&(Slice, Slice)| {
        one.offset_bytes == other.offset_bytes && counts.get(&one.buffer).and_then(most) == Some(other.buffer)
    };
    let count = places.len() - places.iter().filter(is_there).count();
    let all = places.len();
    (count > 0).then(|| Change {
        what: "values that lie elsewhere".into(),
        a: None,
        b: Some(format!("{count} of {all}")),
    })
}

fn op(flow: &Flow, node: usize) -> Op {
    let level = flow.nodes[node].level as u32;
    match flow.command(node) {
        Command::Dispatch(dispatch) => Op {
            label: dispatch.label.clone(),
            kernel: flow.plan.kernels[dispatch.kernel].label.clone(),
            level,
            workgroups: Some(dispatch.workgroups),
            place: dispatch.place.clone(),
        },
        Command::Copy(copy) => {
            Op { label: copy.label.clone(), kernel: "copy".into(), level, workgroups: None, place: String::new() }
        }
    }
}

/// Pairs whose halves are not the same.
fn changed(a: &Flow, b: &Flow, pairs: &Pairs) -> Vec<ChangedOp> {
    let moved = moved(a, b, pairs);
    let both = pairs.of_a.iter().enumerate().filter_map(|(node, partner)| Some((node, (*partner)?)));
    let all = both.map(|(one, other)| {
        let (op_a, op_b) = (op(a, one), op(b, other));
        let mut changes = Vec::new();
        let mut change = |what: String, a: String, b: String| changes.push(Change { what, a: Some(a), b: Some(b) });
        if let (Some(dispatch_a), Some(dispatch_b)) = (a.dispatch(one), b.dispatch(other)) {
            if op_a.kernel != op_b.kernel {
                change("kernel".into(), op_a.kernel.clone(), op_b.kernel.clone());
            } else if a.kernels[dispatch_a.kernel.index()] != b.kernels[dispatch_b.kernel.index()] {
                change("text of kernel".into(), op_a.kernel.clone(), op_b.kernel.clone());
            }
            if dispatch_a.workgroups != dispatch_b.workgroups {
                let text = |[x, y, z]: [u32; 3]| format!("{x} x {y} x {z}");
                change("workgroups".into(), text(dispatch_a.workgroups), text(dispatch_b.workgroups));
            }
        }
        operands(a, b, pairs, (one, other), &mut change);
        if moved[one] {
            change("level".into(), op_a.level.to_string(), op_b.level.to_string());
        }
        ChangedOp { a: op_a, b: op_b, changes }
    });
    all.filter(|op| !op.changes.is_empty()).collect()
}

/// Ports of a pair that take something else.
fn operands(
    a: &Flow,
    b: &Flow,
    pairs: &Pairs,
    (one, other): (usize, usize),
    change: &mut impl FnMut(String, String, String),
) {
    let (ports_a, ports_b) = (&a.nodes[one].ports, &b.nodes[other].ports);
    if ports_a.len() != ports_b.len() {
        change("bindings".into(), ports_a.len().to_string(), ports_b.len().to_string());
        return;
    }
    for (nth, (port_a, port_b)) in ports_a.iter().zip(ports_b).enumerate() {
        let is_same = match (port_a.source, port_b.source) {
            (Some((from_a, nth_a)), Some((from_b, nth_b))) => {
                nth_a == nth_b && pairs.of_a[from_a] == Some(from_b)
                    // What stands in both plans' places and is in neither's pairs is told where it is missing.
                    || pairs.of_a[from_a].is_none() && pairs.of_b[from_b].is_none()
            }
            (None, None) => port_a.outside == port_b.outside,
            _ => false,
        };
        if !is_same {
            let name = b.dispatch(other).map(|dispatch| &b.plan.kernels[dispatch.kernel].bindings[nth].label);
            let what = name.map_or_else(|| "copy".to_owned(), |name| format!("`{name}`"));
            change(what, operand(a, port_a), operand(b, port_b));
        }
    }
}

/// What a port takes, in words.
fn operand(flow: &Flow, port: &flow::Port) -> String {
    match (port.source, &port.outside) {
        (Some((from, _)), _) => format!("`{}`", flow.command(from).label()),
        (None, Some(Outside::Weight(tensor))) => format!("weight `{tensor}`"),
        (None, Some(Outside::Record(record))) => format!("record {record} of small weights"),
        (None, Some(Outside::State(number))) => format!("state `{}`", flow.state(*number).unwrap_or("?")),
        (None, Some(Outside::Inputs(roles))) => format!("input {}", roles.join(", ")),
        (None, Some(Outside::Outputs(roles))) => format!("output {}", roles.join(", ")),
        (None, None) => "memory of the step".to_owned(),
    }
}

/// Nodes of the first plan that did not go where most of their level went: a level that merely has another number, as
/// something before it is gone, has not moved.
fn moved(a: &Flow, b: &Flow, pairs: &Pairs) -> Vec<bool> {
    let mut goes: Vec<BTreeMap<usize, usize>> = vec![BTreeMap::new(); a.plan.levels.len()];
    for (node, partner) in pairs.of_a.iter().enumerate() {
        if let Some(partner) = partner {
            *goes[a.nodes[node].level].entry(b.nodes[*partner].level).or_default() += 1;
        }
    }
    let most = |goes: &BTreeMap<usize, usize>| goes.iter().max_by_key(|(_, count)| **count).map(|(level, _)| *level);
    let to: Vec<Option<usize>> = goes.iter().map(most).collect();
    let is_moved = |(node, partner): (usize, &Option<usize>)| {
        partner.is_some_and(|partner| to[a.nodes[node].level] != Some(b.nodes[partner].level))
    };
    pairs.of_a.iter().enumerate().map(is_moved).collect()
}

/// What makes a transition what it is, by numbers that both plans share.
type Essence = (BufferEssence, Usage, Usage, Hazard, [Partner; 2], bool);

/// Whose memory it is; of states also which.
type BufferEssence = (&'static str, Option<u32>);

/// Who used the buffer: a command by its pair, or by its own plan alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Partner {
    Pair { node: usize, is_before: bool },
    Alone { node: usize, is_first: bool, is_before: bool },
    Host,
    Elsewhere,
}

/// Transitions that only one plan has.
fn transitions(a: &Flow, b: &Flow, pairs: &Pairs) -> (Vec<LoneTransition>, Vec<LoneTransition>) {
    let name_a = |node: usize, is_before: bool| match pairs.of_a[node] {
        Some(_) => Partner::Pair { node, is_before },
        None => Partner::Alone { node, is_first: true, is_before },
    };
    let name_b = |node: usize, is_before: bool| match pairs.of_b[node] {
        Some(node) => Partner::Pair { node, is_before },
        None => Partner::Alone { node, is_first: false, is_before },
    };
    let (all_a, all_b) = (essences(a, name_a), essences(b, name_b));
    let mut balance: HashMap<Essence, usize> = HashMap::new();
    for (essence, _) in &all_a {
        *balance.entry(*essence).or_default() += 1;
    }
    let mut only_b = Vec::new();
    for (essence, transition) in all_b {
        match balance.get_mut(&essence) {
            Some(count) if *count > 0 => *count -= 1,
            _ => only_b.push(transition),
        }
    }
    let mut only_a = Vec::new();
    // Of equal ones, the last are left over.
    for (essence, transition) in all_a.into_iter().rev() {
        let count = balance.get_mut(&essence).expect("counted above");
        if *count > 0 {
            *count -= 1;
            only_a.push(transition);
        }
    }
    only_a.reverse();
    (only_a, only_b)
}

fn essences(flow: &Flow, name: impl Fn(usize, bool) -> Partner) -> Vec<(Essence, LoneTransition)> {
    let plan = flow.plan;
    let reasons = Reasons::new(plan);
    let firsts: Vec<usize> = plan
        .levels
        .iter()
        .scan(0, |next, level| {
            *next += level.commands.len();
            Some(*next - level.commands.len())
        })
        .collect();
    let node = |found: Use| firsts[found.level] + found.index;
    let partner = |party: Party| match party {
        Party::Command(found) => name(node(found), false),
        Party::StepBefore(found) => name(node(found), true),
        Party::Host => Partner::Host,
        Party::Elsewhere => Partner::Elsewhere,
    };
    let leave = plan.leave.iter().map(|transition| (plan.levels.len(), transition));
    let barriers = plan.levels.iter().enumerate().flat_map(|(level, it)| it.barrier.iter().map(move |t| (level, t)));
    let all = barriers.chain(leave).map(|(level, transition): (usize, &Transition)| {
        let reason = reasons.of(plan, level, transition);
        let parties = [partner(reason.before), partner(reason.after)];
        let is_leaving = level == plan.levels.len();
        let Transition { buffer, from, to } = *transition;
        let lone = LoneTransition {
            level: level as u32,
            buffer: plan.buffers[buffer].label.clone(),
            from: from.to_string(),
            to: to.to_string(),
            reason: reason.text(plan),
        };
        ((essence(flow, buffer), from, to, reason.hazard, parties, is_leaving), lone)
    });
    all.collect()
}

fn essence(flow: &Flow, buffer: BufferId) -> BufferEssence {
    match flow.plan.buffers[buffer].kind {
        BufferKind::Weight { .. } => ("weight", None),
        BufferKind::State { index } => ("state", flow.states.get(index as usize).copied()),
        BufferKind::Slot => ("slot", None),
        BufferKind::Input => ("input", None),
        BufferKind::HostWrite => ("host-write", None),
        BufferKind::HostRead => ("host-read", None),
    }
}
