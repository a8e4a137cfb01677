//! A plan small enough to be written by hand, for tests of executors alone.
//!
//! Gets a number of elements, returns a plan over one weight and one state buffer: `y = 2 x + w + s`, then `s += 1`, in
//! two dispatches through two slots of different rest usages. Never run by itself.

#![allow(dead_code, reason = "each test binary uses a different part of this module")]

use graphc::base::arena::Arena;
use graphc::base::dtype::DType;
use graphc::base::limits::Limits;
use graphc::base::role::{InputRole, OutputRole};
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::exec::{ExecError, Executor, Inputs, Session, Weights};
use graphc::plan::command::{
    Binding, Buffer, BufferId, BufferKind, Command, Copy, Dispatch, Kernel, KernelId, Level, PlanInput, PlanOutput,
    Slice, Transition,
};
use graphc::plan::usage::Usage;
use graphc::plan::weights::{StateBuffer, StateLayout, WeightBuffer, WeightLayout, WeightPiece};
use graphc::plan::{CheckedPlan, PLAN_VERSION, Plan, ValuePlace};

/// Elements of the weight, in bytes more than two staging buffers of an upload.
pub const WEIGHT_COUNT: u64 = (20 << 20) / 4;
/// Where plans bind it: past the first two staging buffers.
pub const WEIGHT_OFFSET_BYTES: u64 = 17 << 20;
/// Elements of one row of state.
pub const ROW_COUNT: u64 = 64;
/// Rows of state.
pub const ROWS: u64 = 3;
/// What state begins with.
pub const INIT: f32 = 1.5;

// Arrays stand in structs: for a bare array, naga writes accesses that the synchronisation validation does not see.
const DOUBLE: &str = "
struct Words { v: array<u32> }
struct Floats { v: array<f32> }
@group(0) @binding(0) var<storage, read> x: Words;
@group(0) @binding(1) var<storage, read_write> y: Floats;
@compute @workgroup_size(4)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    y.v[id.x] = f32(x.v[id.x]) * 2.0;
}";

const ADD: &str = "
struct Floats { v: array<f32> }
@group(0) @binding(0) var<storage, read> a: Floats;
@group(0) @binding(1) var<storage, read> w: Floats;
@group(0) @binding(2) var<storage, read_write> y: Floats;
@group(0) @binding(3) var<storage, read_write> s: Floats;
var<workgroup> shared_a: array<f32, 4>;
@compute @workgroup_size(4)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    shared_a[lane] = a.v[id.x];
    workgroupBarrier();
    y.v[id.x] = shared_a[lane] + w.v[id.x] + s.v[id.x];
    s.v[id.x] += 1.0;
}";

/// The one place that makes plans fit to be run.
pub fn checked(plan: Plan) -> CheckedPlan {
    graphc::plan::check::check(plan).unwrap()
}

/// The weight's element at an index into the slice that plans bind.
pub fn weight(index: usize) -> f32 {
    ((WEIGHT_OFFSET_BYTES / 4) as usize + index) as f32 % 1021.0
}

/// A checkpoint of one tensor.
pub fn checkpoint() -> Checkpoint {
    let header =
        format!(r#"{{"w":{{"dtype":"F32","shape":[{WEIGHT_COUNT}],"data_offsets":[0,{}]}}}}"#, WEIGHT_COUNT * 4);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend((0..WEIGHT_COUNT).flat_map(|index| (index as f32 % 1021.0).to_le_bytes()));
    Checkpoint::from_static("hand-made", bytes.leak()).expect("a checkpoint")
}

pub fn weight_layout() -> WeightLayout {
    WeightLayout {
        buffers: vec![WeightBuffer { label: "weights".to_owned(), size_bytes: WEIGHT_COUNT * 4, record_bytes: None }],
        pieces: vec![WeightPiece {
            tensor: "w".to_owned(),
            buffer: 0,
            offset_bytes: 0,
            dtype: DType::F32,
            count: WEIGHT_COUNT,
            transpose: None,
        }],
    }
}

pub fn state_layout() -> StateLayout {
    StateLayout {
        buffers: vec![StateBuffer {
            label: "s".to_owned(),
            dtype: DType::F32,
            rows: ROWS,
            row_shape: vec![ROW_COUNT],
            init_bits: INIT.to_bits(),
            init_weight: None,
            rest: Usage::STORAGE_WRITE,
        }],
    }
}

fn kernels() -> Arena<Kernel> {
    let kernel = |label: &str, wgsl: &str, bindings: &[(&str, bool, bool)], workgroup_bytes| Kernel {
        label: label.to_owned(),
        wgsl: wgsl.to_owned(),
        entry: "main".to_owned(),
        bindings: bindings
            .iter()
            .map(|(label, reads, writes)| Binding {
                label: (*label).to_owned(),
                writes: *writes,
                reads: *reads,
                min_bytes: 0,
            })
            .collect(),
        workgroup_size: [4, 1, 1],
        workgroup_bytes,
        runtime_checks: workgroup_bytes == 0,
        zero_workgroup_memory: false,
        needs_subgroups: false,
        needs_cooperative_matrix: false,
        needs_wide_words: false,
        origins: Vec::new(),
    };
    let mut kernels = Arena::new();
    kernels.push(kernel("double", DOUBLE, &[("x", true, false), ("y", false, true)], 0));
    let bindings = [("a", true, false), ("w", true, false), ("y", false, true), ("s", true, true)];
    kernels.push(kernel("add", ADD, &bindings, 16));
    kernels
}

/// `y [count] = 2 x + w + s` for row 0 of the state; `count` is a multiple of 4.
pub fn plan(count: u64) -> Plan {
    let size_bytes = count * 4;
    let mut buffers = Arena::new();
    let mut buffer =
        |label: &str, kind, size_bytes, rest| buffers.push(Buffer { label: label.to_owned(), kind, size_bytes, rest });
    let host_x = buffer("host x", BufferKind::HostWrite, size_bytes, Usage::MAP_WRITE);
    let x = buffer("x", BufferKind::Input, size_bytes, Usage::STORAGE_READ);
    let a = buffer("slot 0", BufferKind::Slot, size_bytes, Usage::STORAGE_READ);
    let y = buffer("slot 1", BufferKind::Slot, size_bytes, Usage::COPY_SRC);
    let w = buffer("weights", BufferKind::Weight { index: 0 }, WEIGHT_COUNT * 4, Usage::STORAGE_READ);
    let state = state_layout();
    let s = buffer("s", BufferKind::State { index: 0 }, state.buffers[0].size_bytes(), Usage::STORAGE_WRITE);
    let host_y = buffer("host y", BufferKind::HostRead, size_bytes, Usage::MAP_READ);

    let at = |buffer, offset_bytes| Slice { buffer, offset_bytes, size_bytes };
    let to = |buffer: BufferId, from, to| Transition { buffer, from, to };
    let copy =
        |label: &str, from, to| Command::Copy(Copy { label: label.to_owned(), from: at(from, 0), to: at(to, 0) });
    let dispatch = |label: &str, kernel, bindings| {
        Command::Dispatch(Dispatch {
            label: label.to_owned(),
            kernel: KernelId::new(kernel),
            bindings,
            workgroups: [(count / 4) as u32, 1, 1],
            place: "by-hand.ron:1:1".to_owned(),
        })
    };
    use Usage as U;
    let levels = vec![
        Level {
            barrier: vec![to(host_x, U::MAP_WRITE, U::COPY_SRC), to(x, U::STORAGE_READ, U::COPY_DST)],
            commands: vec![copy("upload x", host_x, x)],
        },
        Level {
            barrier: vec![to(x, U::COPY_DST, U::STORAGE_READ), to(a, U::STORAGE_READ, U::STORAGE_WRITE)],
            commands: vec![dispatch("double", 0, vec![at(x, 0), at(a, 0)])],
        },
        Level {
            barrier: vec![
                to(a, U::STORAGE_WRITE, U::STORAGE_READ),
                to(y, U::COPY_SRC, U::STORAGE_WRITE),
                to(s, U::STORAGE_WRITE, U::STORAGE_WRITE),
            ],
            commands: vec![dispatch("add", 1, vec![at(a, 0), at(w, WEIGHT_OFFSET_BYTES), at(y, 0), at(s, 0)])],
        },
        Level {
            barrier: vec![to(y, U::STORAGE_WRITE, U::COPY_SRC), to(host_y, U::MAP_READ, U::COPY_DST)],
            commands: vec![copy("read y", y, host_y)],
        },
    ];
    let value = |path: &str, buffer, first_level, last_level| ValuePlace {
        path: path.to_owned(),
        dtype: DType::F32,
        shape: vec![count],
        buffer,
        offset_bytes: 0,
        size_bytes,
        first_level,
        last_level,
    };
    Plan {
        version: PLAN_VERSION,
        graph: "by hand".to_owned(),
        shape: StepShape { tokens: count as u32, sequences: 1, rows: 1, capacity: ROWS as u32 },
        dims: Vec::new(),
        limits: Limits::webgpu(),
        weights: weight_layout(),
        state,
        buffers,
        kernels: kernels(),
        levels,
        leave: vec![to(host_x, U::COPY_SRC, U::MAP_WRITE), to(host_y, U::COPY_DST, U::MAP_READ)],
        inputs: vec![PlanInput { name: "x".to_owned(), role: InputRole::TokenIds, count, slice: at(host_x, 0) }],
        outputs: vec![PlanOutput {
            name: "y".to_owned(),
            role: OutputRole::Logits,
            dtype: DType::F32,
            shape: vec![1, count],
            slice: at(host_y, 0),
        }],
        values: vec![value("a", a, 1, 2), value("y", y, 2, 3)],
        longest_chain: 4,
    }
}

/// Opens a session on the weights and the state that [`plan`] expects.
pub fn open<E: Executor>(executor: &E) -> Result<E::Session, ExecError> {
    let (layout, checkpoint) = (weight_layout(), checkpoint());
    let mut calls = Vec::new();
    let session =
        executor.open(&Weights { layout: &layout, checkpoint: &checkpoint }, &state_layout(), &mut |done, total| {
            calls.push((done, total))
        })?;
    assert!(calls.is_sorted(), "progress never goes back: {calls:?}");
    assert_eq!(calls.last(), Some(&(WEIGHT_COUNT * 4, WEIGHT_COUNT * 4)), "progress ends at the end");
    Ok(session)
}

/// Inputs of `count` elements that differ from step to step.
pub fn inputs(count: u64, step: u32) -> Inputs {
    Inputs::new().with(InputRole::TokenIds, (0..count as u32).map(|index| index * 3 + step * 100).collect())
}

/// The formula, on the host: what the step returns, and the state after it.
pub fn expected(count: u64, step: u32, state: &mut [f32]) -> Vec<f32> {
    (0..count as usize)
        .map(|index| {
            let x = (index as u32 * 3 + step * 100) as f32;
            let y = 2.0 * x + weight(index) + state[index];
            state[index] += 1.0;
            y
        })
        .collect()
}

/// Alternates a small and a large plan for `steps` steps, one of them in flight all the time; calls `step_done` with
/// what each step returned and what it should have.
pub fn alternate<S: Session>(session: &mut S, steps: u32, step_done: impl FnMut(u32, Vec<f32>, Vec<f32>)) {
    alternate_between(session, [16, 64], steps, step_done);
}

/// The same with plans of these sizes, prepared in this order.
pub fn alternate_between<S: Session>(
    session: &mut S,
    counts: [u64; 2],
    steps: u32,
    mut step_done: impl FnMut(u32, Vec<f32>, Vec<f32>),
) {
    let plans = counts.map(|count| session.prepare(checked(plan(count))).expect("prepared"));
    let mut state = vec![INIT; ROW_COUNT as usize];
    let mut pending = None;
    for step in 0..steps {
        // Small, small, large, large, ...: a plan follows itself and the other one.
        let which = (step / 2 % 2) as usize;
        let ticket = session.step(plans[which], &inputs(counts[which], step)).expect("submitted");
        let after = (step, ticket, expected(counts[which], step, &mut state));
        if let Some((step, ticket, expected)) = pending.replace(after) {
            step_done(step, first(session, ticket), expected);
        }
    }
    let (step, ticket, expected) = pending.expect("there was a step");
    step_done(step, first(session, ticket), expected);
    let found = session.read_state(0, 0).expect("state").to_f32();
    step_done(steps, found, state);
}

/// The elements of a step's only output.
pub fn first<S: Session>(session: &mut S, ticket: graphc::exec::Ticket) -> Vec<f32> {
    let outputs = session.outputs(ticket).expect("outputs");
    outputs.role(OutputRole::Logits).expect("the only output").to_f32()
}
