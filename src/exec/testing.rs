//! A session and a plan for tests of what executors keep to themselves: as little as can be prepared and run.
//!
//! Gets an executor, returns a session without weights and state, and a plan that takes one token to the device and
//! does nothing with it. Never part of the library.

use crate::base::arena::Arena;
use crate::base::limits::Limits;
use crate::base::role::InputRole;
use crate::base::step::StepShape;
use crate::checkpoint::Checkpoint;
use crate::exec::{Executor, Inputs, Weights};
use crate::plan::command::{Buffer, BufferId, BufferKind, Command, Copy, Level, PlanInput, Slice, Transition};
use crate::plan::usage::Usage;
use crate::plan::weights::{StateLayout, WeightLayout};
use crate::plan::{CheckedPlan, PLAN_VERSION, Plan, check};

/// A session for plans without weights and state.
pub(super) fn open<E: Executor>(executor: &E) -> E::Session {
    let nothing = b"\x08\0\0\0\0\0\0\0{}      ";
    let checkpoint = Checkpoint::from_static("nothing", nothing).expect("a checkpoint of no tensors");
    let weights = Weights { layout: &WeightLayout::default(), checkpoint: &checkpoint };
    executor.open(&weights, &StateLayout::default(), &mut |_, _| ()).unwrap_or_else(|error| panic!("{error}"))
}

/// The plan's one token.
pub(super) fn inputs() -> Inputs {
    Inputs::new().with(InputRole::TokenIds, vec![7])
}

/// The plan.
pub(super) fn plan() -> CheckedPlan {
    let mut buffers = Arena::new();
    let mut buffer = |label: &str, kind, rest| buffers.push(Buffer { label: label.into(), kind, size_bytes: 4, rest });
    let host = buffer("host", BufferKind::HostWrite, Usage::MAP_WRITE);
    let device = buffer("device", BufferKind::Input, Usage::COPY_DST);
    let whole = |buffer: BufferId| Slice { buffer, offset_bytes: 0, size_bytes: 4 };
    let barrier = vec![
        Transition { buffer: host, from: Usage::MAP_WRITE, to: Usage::COPY_SRC },
        Transition { buffer: device, from: Usage::COPY_DST, to: Usage::COPY_DST },
    ];
    let copy = Copy { label: "upload".into(), from: whole(host), to: whole(device) };
    let plan = Plan {
        version: PLAN_VERSION,
        graph: "one token".into(),
        shape: StepShape { tokens: 1, sequences: 1, rows: 1, capacity: 1 },
        dims: Vec::new(),
        limits: Limits::webgpu(),
        weights: WeightLayout::default(),
        state: StateLayout::default(),
        kernels: Arena::new(),
        buffers,
        levels: vec![Level { barrier, commands: vec![Command::Copy(copy)] }],
        leave: vec![Transition { buffer: host, from: Usage::COPY_SRC, to: Usage::MAP_WRITE }],
        inputs: vec![PlanInput { name: "x".into(), role: InputRole::TokenIds, count: 1, slice: whole(host) }],
        outputs: Vec::new(),
        values: Vec::new(),
        longest_chain: 1,
    };
    check::check(plan).expect("a sound plan")
}
