//! A plan as a graph of commands: who wrote what each of them reads, and what it takes from outside.
//!
//! Gets a checked plan, returns a node for each command, with a port for each binding or end of a copy. What holds
//! then: a node's sources are nodes before it. Slots are gone: a port knows the command that wrote what it reads,
//! wherever that lay. Never looks at labels of ops, values or buffers.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::inspect::diff::texts;
use crate::plan::Plan;
use crate::plan::command::{BufferKind, Command, Dispatch, Slice};

/// A command among others.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its level.
    pub level: usize,
    /// Its index in the level.
    pub index: usize,
    /// What it is bound to, in the order of the kernel's bindings; of a copy, source and destination.
    pub ports: Vec<Port>,
    /// Who reads what it writes: node and port.
    pub readers: Vec<(usize, usize)>,
}

/// One binding of a dispatch, or one end of a copy.
#[derive(Clone, Debug)]
pub struct Port {
    /// Where it is bound.
    pub slice: Slice,
    /// Whether the command reads through it.
    pub reads: bool,
    /// Whether the command writes through it.
    pub writes: bool,
    /// The node and port that wrote what is read here, if this step did.
    pub source: Option<(usize, usize)>,
    /// What is there that this step does not make.
    pub outside: Option<Outside>,
}

/// What a plan does not make itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outside {
    /// One tensor of the checkpoint.
    Weight(String),
    /// A record of small tensors: which one.
    Record(u64),
    /// A state tensor, by a number that plans which are compared agree on.
    State(u32),
    /// What the host writes: the roles' names.
    Inputs(Vec<&'static str>),
    /// What the host reads: the roles' names.
    Outputs(Vec<&'static str>),
}

/// How much two commands must have in common to be taken for each other, from all to little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// Kernel, dispatch size and what comes from outside.
    Whole,
    /// The dispatch size may differ.
    Resized,
    /// The kernel may be another variant, or be made for other numbers.
    Kin,
    /// The same weights, states and inputs; the kernel may be any.
    Outside,
}

/// All commands of a plan.
#[derive(Debug)]
pub struct Flow<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The nodes, in the plan's order.
    pub nodes: Vec<Node>,
    /// A number for each kernel, by its id.
    pub kernels: Vec<u64>,
    /// A number for each state tensor, that of the plan which this one is compared with.
    pub states: Vec<u32>,
}

impl<'a> Flow<'a> {
    /// Walks a plan; `states` are the numbers of its state tensors.
    pub fn new(plan: &'a Plan, states: Vec<u32>) -> Self {
        let mut nodes: Vec<Node> = Vec::new();
        // For each buffer, what was written last, and by which node and port.
        let mut writes: Vec<Vec<(Slice, (usize, usize))>> = vec![Vec::new(); plan.buffers.len()];
        for (level, commands) in plan.levels.iter().enumerate() {
            for (index, command) in commands.commands.iter().enumerate() {
                let node = nodes.len();
                let mut ports: Vec<Port> = Vec::new();
                for (nth, (slice, reads, writes_it)) in accesses(plan, command).into_iter().enumerate() {
                    let mut here = writes[slice.buffer.index()].iter().rev().filter(|_| reads);
                    let source = here.find(|(written, _)| overlap(*written, slice)).map(|(_, writer)| *writer);
                    // What a copy put into the inputs is the host's all the same, wherever it lies.
                    let source = source.filter(|_| plan.buffers[slice.buffer].kind != BufferKind::Input);
                    let outside = if source.is_none() { outside(plan, slice, &states) } else { None };
                    if let Some((writer, _)) = source {
                        nodes[writer].readers.push((node, nth));
                    }
                    ports.push(Port { slice, reads, writes: writes_it, source, outside });
                }
                for (nth, port) in ports.iter().enumerate().filter(|(_, port)| port.writes) {
                    let written = &mut writes[port.slice.buffer.index()];
                    written.retain(|(other, _)| !covers(port.slice, *other));
                    written.push((port.slice, (node, nth)));
                }
                nodes.push(Node { level, index, ports, readers: Vec::new() });
            }
        }
        Self { plan, nodes, kernels: plan.kernels.values().map(texts::kernel).collect(), states }
    }

    /// The command of a node.
    pub fn command(&self, node: usize) -> &'a Command {
        &self.plan.levels[self.nodes[node].level].commands[self.nodes[node].index]
    }

    /// The dispatch of a node, if it is one.
    pub fn dispatch(&self, node: usize) -> Option<&'a Dispatch> {
        match self.command(node) {
            Command::Dispatch(dispatch) => Some(dispatch),
            Command::Copy(_) => None,
        }
    }

    /// The label of the state tensor of this number.
    pub fn state(&self, number: u32) -> Option<&'a str> {
        let nth = self.states.iter().position(|other| *other == number)?;
        Some(self.plan.state.buffers[nth].label.as_str())
    }

    /// A number for a command by itself, which commands that are alike share.
    pub fn key(&self, node: usize, likeness: Likeness) -> u64 {
        let mut hasher = DefaultHasher::new();
        if let Some(dispatch) = self.dispatch(node) {
            match likeness {
                Likeness::Whole => (self.kernels[dispatch.kernel.index()], dispatch.workgroups).hash(&mut hasher),
                Likeness::Resized => self.kernels[dispatch.kernel.index()].hash(&mut hasher),
                Likeness::Kin => family(&self.plan.kernels[dispatch.kernel].label).hash(&mut hasher),
                Likeness::Outside => "dispatch".hash(&mut hasher),
            }
        }
        for port in &self.nodes[node].ports {
            match likeness {
                Likeness::Outside if port.outside.is_none() => {}
                Likeness::Outside => port.outside.hash(&mut hasher),
                _ => (port.reads, port.writes, &port.outside).hash(&mut hasher),
            }
        }
        hasher.finish()
    }
}

/// A kernel's name without its storage formats.
pub fn family(label: &str) -> &str {
    label.split('.').next().unwrap_or(label)
}

/// What a command touches, and whether it reads and writes there.
fn accesses(plan: &Plan, command: &Command) -> Vec<(Slice, bool, bool)> {
    match command {
        Command::Dispatch(dispatch) => {
            let bindings = &plan.kernels[dispatch.kernel].bindings;
            let pairs = dispatch.bindings.iter().zip(bindings);
            pairs.map(|(slice, binding)| (*slice, binding.reads, binding.writes)).collect()
        }
        Command::Copy(copy) => vec![(copy.from, true, false), (copy.to, false, true)],
    }
}

/// What lies in a slice that this step has not made.
fn outside(plan: &Plan, slice: Slice, states: &[u32]) -> Option<Outside> {
    let roles_at = |to: Slice| -> Vec<&'static str> {
        plan.inputs.iter().filter(|input| overlap(input.slice, to)).map(|input| input.role.name()).collect()
    };
    match plan.buffers[slice.buffer].kind {
        BufferKind::Weight { index } => {
            let buffer = plan.weights.buffers.get(index as usize)?;
            if let Some(record_bytes) = buffer.record_bytes {
                return Some(Outside::Record(slice.offset_bytes / record_bytes.max(1)));
            }
            let mut here = plan.weights.pieces.iter().filter(|piece| piece.buffer == index);
            let first = here.next()?;
            let packed = here.next().is_some();
            Some(if packed { Outside::Record(0) } else { Outside::Weight(first.tensor.clone()) })
        }
        BufferKind::State { index } => states.get(index as usize).copied().map(Outside::State),
        BufferKind::HostWrite => Some(Outside::Inputs(roles_at(slice))),
        BufferKind::Input => {
            // Seen through the copies that fill it.
            let copies = plan.commands().filter_map(|command| match command {
                Command::Copy(copy) if copy.to.buffer == slice.buffer => Some(copy),
                _ => None,
            });
            let mut roles = Vec::new();
            for copy in copies {
                let from = slice.offset_bytes.max(copy.to.offset_bytes);
                let to = (slice.offset_bytes.saturating_add(slice.size_bytes))
                    .min(copy.to.offset_bytes.saturating_add(copy.to.size_bytes));
                if from < to {
                    let offset_bytes = copy.from.offset_bytes.saturating_add(from - copy.to.offset_bytes);
                    roles.extend(roles_at(Slice { buffer: copy.from.buffer, offset_bytes, size_bytes: to - from }));
                }
            }
            Some(Outside::Inputs(roles))
        }
        BufferKind::HostRead => {
            let outputs = plan.outputs.iter().filter(|output| overlap(output.slice, slice));
            Some(Outside::Outputs(outputs.map(|output| output.role.name()).collect()))
        }
        BufferKind::Slot => None,
    }
}

fn covers(one: Slice, other: Slice) -> bool {
    let end = |slice: Slice| slice.offset_bytes.saturating_add(slice.size_bytes);
    one.buffer == other.buffer && one.offset_bytes <= other.offset_bytes && end(other) <= end(one)
}

fn overlap(one: Slice, other: Slice) -> bool {
    one.buffer == other.buffer
        && one.offset_bytes < other.offset_bytes.saturating_add(other.size_bytes)
        && other.offset_bytes < one.offset_bytes.saturating_add(one.size_bytes)
}
