//! The wgpu executor on hand-written plans: on whatever Vulkan, Metal or DX12 device there is, and on wgpu's no-op
//! device.
//!
//! A plan takes tokens `x`, has `a = factor * x`, `b = a + w` in slots, counts its steps in the state, and reads back
//! `b` and the state. The no-op device executes copies alone: it proves that the calls are valid, not that they are
//! right.

use graphc::base::arena::Arena;
use graphc::base::dtype::DType;
use graphc::base::limits::Limits;
use graphc::base::role::{InputRole, OutputRole};
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::exec::wgpu::{WgpuBackend, WgpuExecutor, WgpuOptions, WgpuSession};
use graphc::exec::{ExecError, Executor, Inputs, PlanId, Session, Ticket, Weights};
use graphc::plan::command::{
    Binding, Buffer, BufferId, BufferKind, Command, Copy, Dispatch, Kernel, KernelId, Level, PlanInput, PlanOutput,
    Slice, Transition,
};
use graphc::plan::usage::Usage;
use graphc::plan::weights::{StateBuffer, StateLayout, WeightBuffer, WeightLayout, WeightPiece};
use graphc::plan::{CheckedPlan, PLAN_VERSION, Plan, ValuePlace};
use graphc::tensor::to_f32;

const NATIVE: WgpuOptions = WgpuOptions { backend: WgpuBackend::Native, track: true, validation_layers: false };
const NOOP: WgpuOptions = WgpuOptions { backend: WgpuBackend::Noop, ..NATIVE };

/// `w` as the checkpoint has it, `[2, 4]`, and as the layout wants it, `[4, 2]`.
const STORED: [f32; 8] = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0];
const TRANSPOSED: [f32; 8] = [10.0, 50.0, 20.0, 60.0, 30.0, 70.0, 40.0, 80.0];

/// Elements of a row of the state, its rows, and its initial value.
const STATE_COUNT: u64 = 4;
const STATE_ROWS: u64 = 3;
const STATE_INIT: f32 = 0.5;

fn checked(plan: Plan) -> CheckedPlan {
    graphc::plan::check::check(plan).unwrap()
}

fn checkpoint() -> Checkpoint {
    let file = format!("graphc-wgpu-{}-{:?}.safetensors", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(file);
    let bytes: Vec<u8> = STORED.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = |dtype, shape: &[usize], bytes| safetensors::tensor::TensorView::new(dtype, shape.to_vec(), bytes);
    let tensors = [
        ("odd", view(safetensors::Dtype::F16, &[3], &[1, 2, 3, 4, 5, 6]).expect("three halves")),
        ("w", view(safetensors::Dtype::F32, &[2, 4], &bytes).expect("eight numbers")),
    ];
    safetensors::serialize_to_file(tensors, None, &path).expect("a checkpoint is written");
    let checkpoint = Checkpoint::open(&path).expect("a checkpoint is read");
    // The map keeps the bytes; where a mapped file cannot be removed, the system's clean-up does it.
    let _ = std::fs::remove_file(&path);
    checkpoint
}

/// `odd` is no whole number of words, which wgpu does not upload as it is.
fn weight_layout() -> WeightLayout {
    let piece = |tensor: &str, buffer, dtype, count, transpose| WeightPiece {
        tensor: tensor.to_owned(),
        buffer,
        offset_bytes: 0,
        dtype,
        count,
        transpose,
    };
    let buffer = |label: &str, size_bytes| WeightBuffer { label: label.to_owned(), size_bytes, record_bytes: None };
    WeightLayout {
        buffers: vec![buffer("small", 8), buffer("matrix", 32)],
        pieces: vec![piece("odd", 0, DType::F16, 3, None), piece("w", 1, DType::F32, 8, Some((2, 4)))],
    }
}

fn state_layout() -> StateLayout {
    StateLayout {
        buffers: vec![StateBuffer {
            label: "steps".to_owned(),
            dtype: DType::F32,
            rows: STATE_ROWS,
            row_shape: vec![STATE_COUNT],
            init_bits: STATE_INIT.to_bits(),
            init_weight: None,
            rest: Usage::COPY_SRC,
        }],
    }
}

/// Whether a kernel reads a binding, and whether it writes it.
type Access = (bool, bool);
const READ: Access = (true, false);
const WRITE: Access = (false, true);
const UPDATE: Access = (true, true);

fn kernel(label: &str, globals: &str, body: &str, bindings: &[(&str, Access)]) -> Kernel {
    let wgsl = format!(
        "struct A {{ v: array<f32> }}\nstruct U {{ v: array<u32> }}\n{globals}\n\
         @compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{ let i = id.x; {body} }}\n"
    );
    let binding = |(label, (reads, writes)): &(&str, Access)| Binding {
        label: (*label).to_owned(),
        reads: *reads,
        writes: *writes,
        min_bytes: 0,
    };
    Kernel {
        label: label.to_owned(),
        wgsl,
        entry: "main".to_owned(),
        bindings: bindings.iter().map(binding).collect(),
        workgroup_size: [4, 1, 1],
        workgroup_bytes: 0,
        runtime_checks: true,
        zero_workgroup_memory: false,
        needs_subgroups: false,
        needs_cooperative_matrix: false,
        needs_wide_words: false,
        origins: Vec::new(),
    }
}

fn kernels(factor: u32) -> Arena<Kernel> {
    let mut kernels = Arena::new();
    kernels.push(kernel(
        "scale",
        "@group(0) @binding(0) var<storage, read> x: U; @group(0) @binding(1) var<storage, read_write> y: A;",
        &format!("if (i < arrayLength(&y.v)) {{ y.v[i] = f32(x.v[i]) * {factor}.0; }}"),
        &[("x", READ), ("y", WRITE)],
    ));
    kernels.push(kernel(
        "count",
        "@group(0) @binding(0) var<storage, read_write> state: A;",
        "if (i < arrayLength(&state.v)) { state.v[i] = state.v[i] + 1.0; }",
        &[("state", UPDATE)],
    ));
    kernels.push(kernel(
        "add",
        "@group(0) @binding(0) var<storage, read> x: A; @group(0) @binding(1) var<storage, read> w: A;\n\
         @group(0) @binding(2) var<storage, read_write> y: A;",
        "if (i < arrayLength(&y.v)) { y.v[i] = x.v[i] + w.v[i]; }",
        &[("x", READ), ("w", READ), ("y", WRITE)],
    ));
    kernels
}

const HOST_IN: BufferId = BufferId::new(0);
const INPUT: BufferId = BufferId::new(1);
const A: BufferId = BufferId::new(2);
const B: BufferId = BufferId::new(3);
const W: BufferId = BufferId::new(4);
const STATE: BufferId = BufferId::new(5);
const OUT_B: BufferId = BufferId::new(6);
const OUT_STATE: BufferId = BufferId::new(7);

fn buffers(size_bytes: u64) -> Arena<Buffer> {
    let mut buffers = Arena::new();
    let mut buffer = |label: &str, kind, size_bytes, rest| {
        buffers.push(Buffer { label: label.to_owned(), kind, size_bytes, rest });
    };
    buffer("host in", BufferKind::HostWrite, size_bytes, Usage::MAP_WRITE);
    buffer("in", BufferKind::Input, size_bytes, Usage::STORAGE_READ);
    buffer("slot0", BufferKind::Slot, size_bytes, Usage::STORAGE_READ);
    buffer("slot1", BufferKind::Slot, size_bytes, Usage::COPY_SRC);
    buffer("matrix", BufferKind::Weight { index: 1 }, 32, Usage::STORAGE_READ);
    buffer("steps", BufferKind::State { index: 0 }, STATE_ROWS * STATE_COUNT * 4, Usage::COPY_SRC);
    buffer("host b", BufferKind::HostRead, size_bytes, Usage::MAP_READ);
    buffer("host steps", BufferKind::HostRead, STATE_COUNT * 4, Usage::MAP_READ);
    buffers
}

fn levels(whole: impl Fn(BufferId) -> Slice, row: Slice, workgroups: u32) -> Vec<Level> {
    let to = |buffer, from, to| Transition { buffer, from, to };
    let dispatch = |label: &str, kernel, bindings, workgroups| {
        let (label, place) = (label.to_owned(), "test:1:1".to_owned());
        let kernel = KernelId::new(kernel);
        Command::Dispatch(Dispatch { label, kernel, bindings, workgroups: [workgroups, 1, 1], place })
    };
    let copy = |label: &str, from, to| Command::Copy(Copy { label: label.to_owned(), from, to });
    let (read, write) = (Usage::STORAGE_READ, Usage::STORAGE_WRITE);
    let (copy_src, copy_dst) = (Usage::COPY_SRC, Usage::COPY_DST);
    let w = Slice { size_bytes: whole(A).size_bytes, ..whole(W) };
    vec![
        Level {
            barrier: vec![to(HOST_IN, Usage::MAP_WRITE, copy_src), to(INPUT, read, copy_dst)],
            commands: vec![copy("in", whole(HOST_IN), whole(INPUT))],
        },
        Level {
            barrier: vec![to(INPUT, copy_dst, read), to(A, read, write), to(STATE, copy_src, write)],
            commands: vec![
                dispatch("a", 0, vec![whole(INPUT), whole(A)], workgroups),
                dispatch("count", 1, vec![row], 1),
            ],
        },
        Level {
            barrier: vec![
                to(A, write, read),
                to(B, copy_src, write),
                to(STATE, write, copy_src),
                to(OUT_STATE, Usage::MAP_READ, copy_dst),
            ],
            commands: vec![
                dispatch("b", 2, vec![whole(A), w, whole(B)], workgroups),
                copy("steps", row, whole(OUT_STATE)),
            ],
        },
        Level {
            barrier: vec![to(B, write, copy_src), to(OUT_B, Usage::MAP_READ, copy_dst)],
            commands: vec![copy("b", whole(B), whole(OUT_B))],
        },
    ]
}

/// The plan for `count` tokens.
fn plan(count: u32, factor: u32) -> Plan {
    let size_bytes = u64::from(count) * 4;
    let buffers = buffers(size_bytes);
    let whole = |buffer: BufferId| Slice { buffer, offset_bytes: 0, size_bytes: buffers[buffer].size_bytes };
    let row = Slice { buffer: STATE, offset_bytes: 0, size_bytes: STATE_COUNT * 4 };
    let output = |name: &str, role, shape, slice| {
        let name = name.to_owned();
        PlanOutput { name, role, dtype: DType::F32, shape, slice }
    };
    let value = |path: &str, buffer, first_level, last_level| {
        let (path, shape) = (path.to_owned(), vec![u64::from(count)]);
        ValuePlace { path, dtype: DType::F32, shape, buffer, offset_bytes: 0, size_bytes, first_level, last_level }
    };
    Plan {
        version: PLAN_VERSION,
        graph: "hand-written".to_owned(),
        shape: StepShape { tokens: count, sequences: 1, rows: count, capacity: STATE_ROWS as u32 },
        dims: vec![("T".to_owned(), u64::from(count))],
        limits: Limits::webgpu(),
        weights: weight_layout(),
        state: state_layout(),
        kernels: kernels(factor),
        levels: levels(whole, row, count.div_ceil(4)),
        leave: [
            (HOST_IN, Usage::COPY_SRC, Usage::MAP_WRITE),
            (OUT_B, Usage::COPY_DST, Usage::MAP_READ),
            (OUT_STATE, Usage::COPY_DST, Usage::MAP_READ),
        ]
        .map(|(buffer, from, to)| Transition { buffer, from, to })
        .to_vec(),
        inputs: vec![PlanInput {
            name: "x".to_owned(),
            role: InputRole::TokenIds,
            count: u64::from(count),
            slice: whole(HOST_IN),
        }],
        outputs: vec![
            output("b", OutputRole::Logits, vec![u64::from(count)], whole(OUT_B)),
            output("steps", OutputRole::Kept, vec![STATE_COUNT], whole(OUT_STATE)),
        ],
        values: vec![value("a", A, 1, 2), value("b", B, 2, 3)],
        longest_chain: 4,
        buffers,
    }
}

/// A session on whatever device there is; nothing if there is none, which only continuous integration may not have.
fn native() -> Option<WgpuSession> {
    match WgpuExecutor::new(&NATIVE, None) {
        Ok(executor) => Some(open(&executor)),
        Err(error) if std::env::var("CI").is_ok_and(|value| value == "true") => panic!("{error}"),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

fn open(executor: &WgpuExecutor) -> WgpuSession {
    let (layout, checkpoint) = (weight_layout(), checkpoint());
    let mut last = (0, 0);
    let session = executor
        .open(&Weights { layout: &layout, checkpoint: &checkpoint }, &state_layout(), &mut |done, all| {
            last = (done, all)
        })
        .expect("a session");
    assert_eq!(last, (38, 38), "3 halves and 8 numbers are uploaded");
    session
}

fn submit(session: &mut WgpuSession, plan: PlanId, tokens: &[u32]) -> Ticket {
    let inputs = Inputs::new().with(InputRole::TokenIds, tokens.to_vec());
    session.step(plan, &inputs).expect("a step")
}

/// `b` for these tokens, by hand.
fn expected(tokens: &[u32], factor: f32) -> Vec<f32> {
    tokens.iter().zip(TRANSPOSED).map(|(token, w)| *token as f32 * factor + w).collect()
}

#[test]
fn plans_take_turns_and_share_the_state() {
    // In one order the second needs larger slots than the first, which then is bound to them too.
    for order in [[4, 8], [8, 4]] {
        let Some(session) = native() else { return };
        take_turns(session, order);
    }
}

fn take_turns(mut session: WgpuSession, order: [u32; 2]) {
    let mut prepare = |count| session.prepare(checked(plan(count, if count == 4 { 2 } else { 3 }))).expect("prepared");
    let [first, second] = order.map(|count| (count, prepare(count)));
    let (four, eight) = if first.0 == 4 { (first.1, second.1) } else { (second.1, first.1) };
    assert_eq!(session.memory().slot_bytes, 2 * 8 * 4, "two slots of the larger plan");
    for step in 0..5u32 {
        let tokens: Vec<u32> = (0..8).map(|at| step * 10 + at).collect();
        let (id, tokens, factor) = if step % 2 == 0 { (four, &tokens[..4], 2.0) } else { (eight, &tokens[..], 3.0) };
        let ticket = submit(&mut session, id, tokens);
        let outputs = session.outputs(ticket).expect("outputs");
        assert_eq!(outputs.role(OutputRole::Logits).expect("b").to_f32(), expected(tokens, factor), "step {step}");
        let steps = outputs.named("steps").expect("the state").to_f32();
        assert_eq!(steps, [STATE_INIT + (step + 1) as f32; STATE_COUNT as usize], "step {step}");
    }
    assert_eq!(session.cpu_cost().steps, 5);
}

#[test]
fn slots_grow_under_steps_in_flight() {
    let Some(mut session) = native() else { return };
    let four = session.prepare(checked(plan(4, 2))).expect("prepared");
    let running = [[1, 2, 3, 4], [5, 6, 7, 8]].map(|tokens| (submit(&mut session, four, &tokens), tokens));
    let eight = session.prepare(checked(plan(8, 3))).expect("prepared");
    let read = |session: &mut WgpuSession, ticket| {
        session.outputs(ticket).expect("outputs").role(OutputRole::Logits).expect("b").to_f32()
    };
    for (ticket, tokens) in running {
        assert_eq!(read(&mut session, ticket), expected(&tokens, 2.0));
    }
    let large = submit(&mut session, eight, &[9; 8]);
    let small = submit(&mut session, four, &[7; 4]);
    assert_eq!(read(&mut session, large), expected(&[9; 8], 3.0));
    assert_eq!(read(&mut session, small), expected(&[7; 4], 2.0));
}

#[test]
fn slots_that_cannot_grow_stay_as_they_are() {
    let mut session = open(&WgpuExecutor::new(&NOOP, None).expect("the no-op device is always there"));
    let four = session.prepare(checked(plan(4, 2))).expect("prepared");
    let running = submit(&mut session, four, &[0; 4]);
    let before = session.memory();
    assert_eq!(before.slot_bytes, 2 * 4 * 4);
    assert_eq!((before.weight_bytes, before.state_bytes), (40, STATE_ROWS * STATE_COUNT * 4));
    assert_eq!((before.input_bytes, before.host_bytes), (16, 16 + 2 * (16 + STATE_COUNT * 4)));
    // Its slots are made before its kernel is found not to parse.
    let mut broken = plan(8, 3);
    broken.kernels[KernelId::new(0)].wgsl = "fn main( {".to_owned();
    session.prepare(checked(broken)).expect_err("no WGSL");
    assert_eq!(session.memory(), before);
    session.outputs(running).expect("outputs");
    let again = submit(&mut session, four, &[0; 4]);
    session.outputs(again).expect("outputs");
}

#[test]
fn two_steps_are_in_flight_and_the_oldest_outputs_are_discarded() {
    let Some(mut session) = native() else { return };
    let four = session.prepare(checked(plan(4, 2))).expect("prepared");
    let tokens: Vec<[u32; 4]> = (0..7).map(|step| [step, step + 1, step + 2, step + 3]).collect();
    let tickets: Vec<Ticket> = tokens.iter().map(|tokens| submit(&mut session, four, tokens)).collect();
    assert!(session.outputs(tickets[4]).expect_err("discarded").to_string().contains("discarded"));
    // The newer first, then another step while the older is still outstanding: the frames are not simply in turn.
    let read = |session: &mut WgpuSession, ticket| {
        session.outputs(ticket).expect("outputs").role(OutputRole::Logits).expect("b").to_f32()
    };
    assert_eq!(read(&mut session, tickets[6]), expected(&tokens[6], 2.0));
    let last = submit(&mut session, four, &[9, 9, 9, 9]);
    assert_eq!(read(&mut session, tickets[5]), expected(&tokens[5], 2.0));
    assert_eq!(read(&mut session, last), expected(&[9; 4], 2.0));
    session.outputs(last).expect_err("fetched before");
}

#[test]
fn state_rows_are_read_and_written() {
    let Some(mut session) = native() else { return };
    let four = session.prepare(checked(plan(4, 2))).expect("prepared");
    for row in 0..STATE_ROWS {
        assert_eq!(session.read_state(0, row).expect("a row").to_f32(), [STATE_INIT; STATE_COUNT as usize]);
    }
    let values: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    session.write_state(0, 2, &values).expect("written");
    session.write_state(0, 0, &values).expect("written");
    submit(&mut session, four, &[0; 4]);
    let rows: Vec<Vec<f32>> =
        (0..STATE_ROWS).map(|row| to_f32(DType::F32, &session.read_state(0, row).expect("a row").bytes)).collect();
    assert_eq!(rows, [vec![2.0, 3.0, 4.0, 5.0], vec![STATE_INIT; 4], vec![1.0, 2.0, 3.0, 4.0]]);
    assert!(matches!(session.read_state(0, STATE_ROWS), Err(ExecError::OtherLayout { .. })));
    assert!(matches!(session.write_state(0, 0, &values[..8]), Err(ExecError::OtherLayout { .. })));
}

#[test]
fn what_does_not_fit_is_refused_and_the_session_lives_on() {
    let Some(mut session) = native() else { return };
    let mut broken = plan(4, 2);
    broken.kernels[KernelId::new(0)].wgsl = "fn main( {".to_owned();
    let error = session.prepare(checked(broken)).expect_err("no WGSL").to_string();
    assert!(error.contains("kernel `scale`"), "{error}");
    let mut mismatched = plan(4, 2);
    mismatched.kernels[KernelId::new(1)].bindings[0].writes = false;
    let both = Usage::STORAGE_READ | Usage::COPY_SRC;
    mismatched.levels[1].barrier[2].to = both;
    mismatched.levels[2].barrier.remove(2);
    mismatched.leave.push(Transition { buffer: STATE, from: both, to: Usage::COPY_SRC });
    let error = session.prepare(checked(mismatched)).expect_err("a written binding, said to be read").to_string();
    assert!(error.contains("kernel `count`"), "{error}");
    let mut large = plan(4, 2);
    large.limits.max_invocations_per_workgroup = u32::MAX;
    assert!(matches!(session.prepare(checked(large)), Err(ExecError::TooSmall { .. })));
    let mut other = plan(4, 2);
    other.weights.pieces[0].count = 2;
    assert!(matches!(session.prepare(checked(other)), Err(ExecError::OtherLayout { .. })));
    let mut other = plan(4, 2);
    other.state.buffers[0].init_bits = 0;
    assert!(matches!(session.prepare(checked(other)), Err(ExecError::OtherLayout { .. })));

    let four = session.prepare(checked(plan(4, 2))).expect("prepared");
    let short = Inputs::new().with(InputRole::TokenIds, vec![1]);
    assert!(matches!(session.step(four, &short), Err(ExecError::Input { expected: 4, found: 1, .. })));
    let ticket = submit(&mut session, four, &[1, 2, 3, 4]);
    let outputs = session.outputs(ticket).expect("outputs");
    assert_eq!(outputs.role(OutputRole::Logits).expect("b").to_f32(), expected(&[1, 2, 3, 4], 2.0));
}

#[test]
fn the_no_op_device_runs() {
    let executor = WgpuExecutor::new(&NOOP, None).expect("the no-op device is always there");
    assert_eq!(executor.device().api, "noop");
    assert_eq!(WgpuExecutor::devices(&NOOP), [executor.device().clone()]);
    let mut session = open(&executor);
    let four = session.prepare(checked(plan(4, 2))).expect("prepared");
    let eight = session.prepare(checked(plan(8, 3))).expect("prepared");
    for _ in 0..3 {
        let first = submit(&mut session, four, &[0; 4]);
        let second = submit(&mut session, eight, &[0; 8]);
        // Dispatches do nothing, so that the state stays at its first value, which copies carry out.
        let steps = session.outputs(second).expect("outputs").named("steps").expect("the state").to_f32();
        assert_eq!(steps, [STATE_INIT; STATE_COUNT as usize]);
        session.outputs(first).expect("outputs");
    }
    assert_eq!(session.cpu_cost().steps, 6);
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let error = WgpuExecutor::new(&NOOP, Some("no such device")).expect_err("no device").to_string();
    assert!(error.contains("no such device") && error.contains("noop"), "{error}");
    assert!(WgpuExecutor::new(&NOOP, Some("NOOP WGPU")).is_ok(), "names are compared whatever their case");
}
