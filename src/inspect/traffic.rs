//! How many bytes the commands of a plan move at most.
//!
//! Gets a model and its plan, returns for every command the bytes it reads and writes, by whose memory they are. What
//! holds then: a tensor of an op counts whole, once if its kernel reads or writes it, twice if it does both, and a copy
//! counts its bytes twice. Two things are known to be less: of a state that has rows for more sequences than a step
//! has, those of the step count alone; and weights of an op that also takes the token ids count nothing, since such an
//! op looks a few rows up in a table. Never guesses what stays in a cache: what two ops read counts for both.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::base::role::InputRole;
use crate::model::{Model, Op, ValueId};
use crate::plan::Plan;
use crate::plan::command::{BufferKind, Command, Copy};

/// Bytes that are read and written, by whose memory they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Of weights.
    pub weight_bytes: u64,
    /// Of the state of sequences.
    pub state_bytes: u64,
    /// Of values of the step.
    pub value_bytes: u64,
    /// Of inputs, and of what the host writes and reads.
    pub host_bytes: u64,
}

impl Traffic {
    /// All of them.
    pub const fn bytes(self) -> u64 {
        self.weight_bytes + self.state_bytes + self.value_bytes + self.host_bytes
    }
}

impl std::ops::Add for Traffic {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            weight_bytes: self.weight_bytes + other.weight_bytes,
            state_bytes: self.state_bytes + other.state_bytes,
            value_bytes: self.value_bytes + other.value_bytes,
            host_bytes: self.host_bytes + other.host_bytes,
        }
    }
}

impl std::iter::Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(traffic: I) -> Self {
        traffic.fold(Self::default(), std::ops::Add::add)
    }
}

/// What each command moves, level by level.
///
/// # Panics
/// If the plan was not made from the model.
pub fn traffic(model: &Model, plan: &Plan) -> Vec<Vec<Traffic>> {
    // Labels are paths of values, so that nearly every one is one op's alone.
    let mut ops: BTreeMap<&str, VecDeque<&Op>> = BTreeMap::new();
    for op in model.ops.values() {
        ops.entry(&op.label).or_default().push_back(op);
    }
    let mut of_command = |command: &Command| match command {
        Command::Dispatch(dispatch) => {
            let op = ops.get_mut(dispatch.label.as_str()).and_then(VecDeque::pop_front);
            of_op(model, plan, op.expect("every dispatch is an op of the model"))
        }
        Command::Copy(copy) => of_copy(plan, copy),
    };
    plan.levels.iter().map(|level| level.commands.iter().map(&mut of_command).collect()).collect()
}

fn of_op(model: &Model, plan: &Plan, op: &Op) -> Traffic {
    let input_role = |value: ValueId| model.inputs.iter().find(|input| input.value == value).map(|input| input.role);
    let values = op.args.iter().filter_map(|arg| arg.input.or(arg.output));
    let looks_up = values.clone().any(|value| input_role(value) == Some(InputRole::TokenIds));
    let (sequences, capacity) = (u64::from(plan.shape.sequences), u64::from(plan.shape.capacity.max(1)));
    let mut found = Traffic::default();
    for (arg, id) in op.args.iter().zip(values) {
        let value = &model.values[id];
        let bytes = value.dtype.storage_bytes(value.count());
        let times = u64::from(arg.access.reads) + u64::from(arg.access.writes);
        let (sum, bytes) = match value.origin {
            _ if model.is_weight(id) => (&mut found.weight_bytes, if looks_up { 0 } else { bytes }),
            _ if model.state_of(id).is_some() => (&mut found.state_bytes, bytes / capacity * sequences.min(capacity)),
            _ if input_role(id).is_some() => (&mut found.host_bytes, bytes),
            _ => (&mut found.value_bytes, bytes),
        };
        *sum += bytes * times;
    }
    found
}

fn of_copy(plan: &Plan, copy: &Copy) -> Traffic {
    let mut found = Traffic::default();
    for slice in [copy.from, copy.to] {
        let sum = match plan.buffers[slice.buffer].kind {
            BufferKind::Weight { .. } => &mut found.weight_bytes,
            BufferKind::State { .. } => &mut found.state_bytes,
            BufferKind::Slot => &mut found.value_bytes,
            BufferKind::Input | BufferKind::HostWrite | BufferKind::HostRead => &mut found.host_bytes,
        };
        *sum += slice.size_bytes;
    }
    found
}
