//! What the sanitizer of the reference executor finds, and where it is silent.
//!
//! Gets kernels of a few lines in a plan written by hand, each with one mistake, and beside it a twin without; and
//! plans with a transition changed. What then holds: every kind of mistake is found and said in the words of
//! `golden/sanitize/`, the twins and all built-in kernels are silent. Needs no device.

mod hal_plan;
mod support;

use graphc::base::arena::Arena;
use graphc::base::dtype::DType;
use graphc::base::limits::Limits;
use graphc::base::role::{InputRole, OutputRole};
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::exec::reference::{Check, Finding, ReferenceExecutor, ReferenceOptions, Sanitize};
use graphc::exec::replay::{Edit, TransitionAt};
use graphc::exec::{Executor, Inputs, Session, Weights};
use graphc::generate::Rows;
use graphc::inspect::verify::mutate::{mutants, transitions};
use graphc::plan::command::{
    Binding, Buffer, BufferId, BufferKind, Command, Copy, Dispatch, Kernel, KernelId, Level, LineOrigin, PlanInput,
    PlanOutput, Slice, Transition,
};
use graphc::plan::usage::Usage;
use graphc::plan::weights::{StateLayout, WeightLayout};
use graphc::plan::{CheckedPlan, PLAN_VERSION, Plan, ValuePlace, check};
use support::golden::{assert_golden, golden};
use support::guide::blocks;
use support::models::{Format, Shape, write_model};
use support::runner::{AnyExecutor, Program, decoder};
use support::{TempDir, open};

/// Elements of the input and of the value.
const COUNT: u64 = 16;

/// A kernel in a plan of its own: `y[i]` from `x[i]`, 16 elements each.
struct Case {
    /// The kernel's text behind the two bindings.
    body: &'static str,
    workgroups: u32,
    workgroup_bytes: u32,
    is_zeroed: bool,
    not_finite: bool,
}

/// A workgroup of 16 invocations and as many words of memory, which nobody zeroes.
const CASE: Case = Case { body: "", workgroups: 1, workgroup_bytes: 64, is_zeroed: false, not_finite: false };

const BINDINGS: &str = "struct Words { v: array<u32> }
struct Floats { v: array<f32> }
@group(0) @binding(0) var<storage, read> x: Words;
@group(0) @binding(1) var<storage, read_write> y: Floats;
";

fn kernel(case: &Case) -> Kernel {
    let binding = |label: &str, writes: bool| Binding { label: label.to_owned(), writes, reads: !writes, min_bytes: 4 };
    let origin = |line, file: &str| LineOrigin { line, file: file.to_owned(), file_line: 1 };
    Kernel {
        label: "case".to_owned(),
        wgsl: format!("{BINDINGS}{}", case.body),
        entry: "main".to_owned(),
        bindings: vec![binding("x", false), binding("y", true)],
        workgroup_size: [COUNT as u32 / case.workgroups, 1, 1],
        workgroup_bytes: case.workgroup_bytes,
        runtime_checks: true,
        zero_workgroup_memory: case.is_zeroed,
        needs_subgroups: false,
        needs_cooperative_matrix: false,
        needs_wide_words: false,
        origins: vec![origin(1, ""), origin(BINDINGS.lines().count() as u32 + 1, "case.wgsl")],
    }
}

fn plan(case: &Case) -> CheckedPlan {
    use Usage as U;
    let size_bytes = COUNT * 4;
    let mut buffers = Arena::new();
    let mut buffer = |label: &str, kind, rest| buffers.push(Buffer { label: label.into(), kind, size_bytes, rest });
    let host_x = buffer("host x", BufferKind::HostWrite, U::MAP_WRITE);
    let x = buffer("x", BufferKind::Input, U::STORAGE_READ);
    let y = buffer("slot0", BufferKind::Slot, U::COPY_SRC);
    let host_y = buffer("host y", BufferKind::HostRead, U::MAP_READ);
    let whole = |buffer| Slice { buffer, offset_bytes: 0, size_bytes };
    let to = |buffer: BufferId, from, to| Transition { buffer, from, to };
    let copy =
        |label: &str, from, to| Command::Copy(Copy { label: label.to_owned(), from: whole(from), to: whole(to) });
    let dispatch = Dispatch {
        label: "op".to_owned(),
        kernel: KernelId::new(0),
        bindings: vec![whole(x), whole(y)],
        workgroups: [case.workgroups, 1, 1],
        place: "case.ron:1:1".to_owned(),
    };
    let mut kernels = Arena::new();
    kernels.push(kernel(case));
    let plan = Plan {
        version: PLAN_VERSION,
        graph: "case".to_owned(),
        shape: StepShape { tokens: COUNT as u32, sequences: 1, rows: 1, capacity: 1 },
        dims: Vec::new(),
        limits: Limits::webgpu(),
        weights: WeightLayout::default(),
        state: StateLayout::default(),
        buffers,
        kernels,
        levels: vec![
            Level {
                barrier: vec![to(host_x, U::MAP_WRITE, U::COPY_SRC), to(x, U::STORAGE_READ, U::COPY_DST)],
                commands: vec![copy("upload x", host_x, x)],
            },
            Level {
                barrier: vec![to(x, U::COPY_DST, U::STORAGE_READ), to(y, U::COPY_SRC, U::STORAGE_WRITE)],
                commands: vec![Command::Dispatch(dispatch)],
            },
            Level {
                barrier: vec![to(y, U::STORAGE_WRITE, U::COPY_SRC), to(host_y, U::MAP_READ, U::COPY_DST)],
                commands: vec![copy("read y", y, host_y)],
            },
        ],
        leave: vec![to(host_x, U::COPY_SRC, U::MAP_WRITE), to(host_y, U::COPY_DST, U::MAP_READ)],
        inputs: vec![PlanInput { name: "x".to_owned(), role: InputRole::TokenIds, count: COUNT, slice: whole(host_x) }],
        outputs: vec![PlanOutput {
            name: "y".to_owned(),
            role: OutputRole::Logits,
            dtype: DType::F32,
            shape: vec![1, COUNT],
            slice: whole(host_y),
        }],
        values: vec![ValuePlace {
            path: "layer0.y".to_owned(),
            dtype: DType::F32,
            shape: vec![COUNT],
            buffer: y,
            offset_bytes: 0,
            size_bytes,
            first_level: 1,
            last_level: 2,
        }],
        longest_chain: 3,
    };
    check::check(plan).unwrap_or_else(|wrong| panic!("{wrong:#?}"))
}

fn executor(not_finite: bool) -> ReferenceExecutor {
    let sanitize = Some(Sanitize { not_finite });
    let options = ReferenceOptions { sanitize, track: false, ..ReferenceOptions::new() };
    ReferenceExecutor::new(&options, None).expect("there is a CPU")
}

/// What is found in three steps.
fn findings(case: &Case) -> Vec<Finding> {
    let executor = executor(case.not_finite);
    let checkpoint = Checkpoint::from_static("nothing", b"\x08\0\0\0\0\0\0\0{}      ").expect("no tensors");
    let weights = Weights { layout: &WeightLayout::default(), checkpoint: &checkpoint };
    let mut session = executor.open(&weights, &StateLayout::default(), &mut |_, _| ()).expect("opened");
    let id = session.prepare(plan(case)).unwrap_or_else(|error| panic!("{error}\n{}", case.body));
    for _ in 0..3 {
        let inputs = Inputs::new().with(InputRole::TokenIds, (0..COUNT as u32).collect());
        let ticket = session.step(id, &inputs).expect("a step");
        session.outputs(ticket).expect("outputs");
    }
    executor.findings().0
}

/// One mistake is found, as the golden file says; in the twin there is none.
fn assert_found(name: &str, check: Check, wrong: &Case, twin: &Case) {
    let found = findings(wrong);
    let checks: Vec<Check> = found.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, [check], "{name}: {found:#?}");
    assert_golden(&format!("sanitize/{name}.txt"), &found[0].to_string());
    let found = findings(twin);
    assert!(found.is_empty(), "{name}, the twin: {found:#?}");
}

const EACH: &str = "@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    y.v[lane] = f32(x.v[lane]);
}";

#[test]
fn an_index_out_of_bounds() {
    let body = "@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    y.v[lane] = f32(x.v[lane + 1u]);
}";
    assert_found("out_of_bounds", Check::OutOfBounds, &Case { body, ..CASE }, &Case { body: EACH, ..CASE });
}

#[test]
fn an_index_out_of_an_invocations_own_array() {
    let (body, twin) = (
        "@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    var own = array<u32, 4>(1u, 2u, 3u, 4u);
    own[lane / 2u] += x.v[lane];
    y.v[lane] = f32(own[0]);
}",
        "@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    var own = array<u32, 4>(1u, 2u, 3u, 4u);
    own[lane / 4u] += x.v[lane];
    y.v[lane] = f32(own[0]);
}",
    );
    assert_found("out_of_own_bounds", Check::OutOfBounds, &Case { body, ..CASE }, &Case { body: twin, ..CASE });
}

#[test]
fn an_output_that_is_not_written_whole() {
    let body = "@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    if lane != 5u {
        y.v[lane] = f32(x.v[lane]);
    }
}";
    assert_found("unwritten_output", Check::Unwritten, &Case { body, ..CASE }, &Case { body: EACH, ..CASE });
}

/// The value of the step before is still there, and means nothing.
#[test]
fn a_value_that_is_read_before_it_is_written() {
    let body = "@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    y.v[lane] += f32(x.v[lane]);
}";
    let twin = "@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    y.v[lane] = 1.0;
    y.v[lane] += f32(x.v[lane]);
}";
    assert_found("unwritten_value", Check::Unwritten, &Case { body, ..CASE }, &Case { body: twin, ..CASE });
}

#[test]
fn workgroup_memory_that_nobody_wrote() {
    let body = "var<workgroup> sums: array<f32, 16>;
@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    if lane < 8u {
        sums[lane] = f32(x.v[lane]);
    }
    workgroupBarrier();
    y.v[lane] = sums[15u - lane];
}";
    let wrong = Case { body, ..CASE };
    assert_found("unwritten_workgroup", Check::Unwritten, &wrong, &Case { is_zeroed: true, ..Case { body, ..CASE } });
}

#[test]
fn a_race_in_workgroup_memory() {
    let body = "var<workgroup> sums: array<f32, 16>;
@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    sums[lane] = f32(x.v[lane]);
    y.v[lane] = sums[15u - lane];
}";
    let twin = "var<workgroup> sums: array<f32, 16>;
@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    sums[lane] = f32(x.v[lane]);
    workgroupBarrier();
    y.v[lane] = sums[15u - lane];
}";
    assert_found("race_workgroup", Check::Race, &Case { body, ..CASE }, &Case { body: twin, ..CASE });
}

/// A word that all read is written by the first of them before all others are known to have read it.
#[test]
fn a_write_that_races_with_reads_of_others() {
    let body = "var<workgroup> sum: f32;
@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    if lane == 0u {
        sum = 1.0;
    }
    workgroupBarrier();
    let first = sum;
    if lane == 0u {
        sum = f32(x.v[3]);
    }
    workgroupBarrier();
    y.v[lane] = first + sum;
}";
    let twin = "var<workgroup> sum: f32;
@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    if lane == 0u {
        sum = 1.0;
    }
    workgroupBarrier();
    let first = sum;
    workgroupBarrier();
    if lane == 0u {
        sum = f32(x.v[3]);
    }
    workgroupBarrier();
    y.v[lane] = first + sum;
}";
    let bytes = |body| Case { body, workgroup_bytes: 4, ..CASE };
    assert_found("race_with_reads", Check::Race, &bytes(body), &bytes(twin));
}

/// All read what the first of them has written.
#[test]
fn a_read_of_all_that_races_with_a_write() {
    let body = "var<workgroup> sum: f32;
@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    if lane == 0u {
        sum = f32(x.v[3]);
    }
    y.v[lane] = sum;
}";
    let twin = "var<workgroup> sum: f32;
@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    if lane == 0u {
        sum = f32(x.v[3]);
        y.v[15] = sum;
    }
    workgroupBarrier();
    if lane < 15u {
        y.v[lane] = sum;
    }
}";
    let bytes = |body| Case { body, workgroup_bytes: 4, ..CASE };
    assert_found("race_read_of_all", Check::Race, &bytes(body), &bytes(twin));
}

/// A barrier for workgroup memory orders nothing in a buffer.
#[test]
fn a_race_in_a_buffer() {
    let body = "@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    y.v[lane] = f32(x.v[lane]);
    workgroupBarrier();
    let other = y.v[15u - lane];
    storageBarrier();
    y.v[lane] = other;
}";
    let twin = "@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    y.v[lane] = f32(x.v[lane]);
    storageBarrier();
    let other = y.v[15u - lane];
    storageBarrier();
    y.v[lane] = other;
}";
    assert_found("race_buffer", Check::Race, &Case { body, ..CASE }, &Case { body: twin, ..CASE });
}

#[test]
fn a_race_between_workgroups() {
    let body = "@compute @workgroup_size(4)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    y.v[id.x] = f32(x.v[id.x]);
    storageBarrier();
    if id.x >= 4u {
        y.v[id.x - 4u] = 1.0;
    }
}";
    let twin = "@compute @workgroup_size(4)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    y.v[id.x] = f32(x.v[id.x]);
    storageBarrier();
    y.v[id.x ^ 1u] = 1.0;
}";
    let four = |body| Case { body, workgroups: 4, ..CASE };
    assert_found("race_workgroups", Check::Race, &four(body), &four(twin));
}

#[test]
fn atomics_do_not_race_with_each_other() {
    let body = "var<workgroup> count: atomic<u32>;
@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    atomicAdd(&count, x.v[lane]);
    workgroupBarrier();
    y.v[lane] = f32(atomicLoad(&count));
}";
    let found = findings(&Case { body, workgroup_bytes: 4, is_zeroed: true, ..CASE });
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_barrier_that_not_all_reach() {
    let body = "@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    y.v[lane] = f32(x.v[lane]);
    for (var i = 0u; i < lane; i++) {
        storageBarrier();
    }
}";
    let twin = "@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    y.v[lane] = f32(x.v[lane]);
    for (var i = 0u; i < 3u; i++) {
        storageBarrier();
    }
}";
    assert_found("barrier", Check::Barrier, &Case { body, ..CASE }, &Case { body: twin, ..CASE });
}

#[test]
fn an_infinity_is_found_where_it_is_asked_for() {
    let body = "@compute @workgroup_size(16)
fn main(@builtin(local_invocation_index) lane: u32) {
    y.v[lane] = 1.0 / f32(x.v[lane]);
}";
    let wrong = Case { body, not_finite: true, ..CASE };
    assert_found("not_finite", Check::NotFinite, &wrong, &Case { body, ..CASE });
}

/// What is found in a step of the plan over weights and state, with these edits, among intact ones.
fn with_edits(edits: &[Edit]) -> Vec<Finding> {
    let executor = executor(false);
    let mut session = hal_plan::open(&executor).expect("opened");
    let id = session.prepare(hal_plan::checked(hal_plan::plan(COUNT))).expect("prepared");
    for step in 0..3 {
        if step == 1 {
            session.edit_next(id, edits);
        }
        let ticket = session.step(id, &hal_plan::inputs(COUNT, step)).expect("a step");
        session.outputs(ticket).expect("outputs");
    }
    executor.findings().0
}

/// The findings of a plan without one of its transitions, all of them, one behind the other.
#[test]
fn a_missing_transition() {
    let plan = hal_plan::plan(COUNT);
    assert_eq!(with_edits(&[]), []);
    let find = |from: Usage, to: Usage, label: &str| {
        let found = transitions(&plan).find(|(_, planned)| {
            (planned.from, planned.to) == (from, to) && plan.buffers[planned.buffer].label == label
        });
        found.unwrap_or_else(|| panic!("no transition of {label} from {from} to {to}")).0
    };
    let cases = [
        ("raw", find(Usage::STORAGE_WRITE, Usage::STORAGE_READ, "slot 0"), "RAW"),
        ("raw_copy", find(Usage::STORAGE_WRITE, Usage::COPY_SRC, "slot 1"), "RAW"),
        ("war", find(Usage::STORAGE_READ, Usage::STORAGE_WRITE, "slot 0"), "WAR"),
        // What synchronization validation never sees: a write after a write of two dispatches.
        ("waw", find(Usage::STORAGE_WRITE, Usage::STORAGE_WRITE, "s"), "WAW"),
    ];
    for (name, at, hazard) in cases {
        let found = with_edits(&[Edit { at, with: None }]);
        let unordered = found
            .iter()
            .any(|finding| finding.check == Check::Unordered && (finding.message.contains(hazard) || hazard == "WAW"));
        assert!(unordered, "{name}: {found:#?}");
        let text: String = found.iter().map(ToString::to_string).collect();
        assert_golden(&format!("sanitize/{name}.txt"), &text);
    }
}

#[test]
fn every_mutant_is_noticed() {
    let plan = hal_plan::plan(COUNT);
    let mut count = 0;
    for (at, _) in transitions(&plan) {
        for mutant in mutants(&plan, at) {
            let found = with_edits(&[mutant.edit]);
            assert!(!found.is_empty(), "{}", mutant.text(&plan));
            count += 1;
        }
    }
    assert!(count > 50, "{count} mutants");
}

#[test]
fn a_transition_that_is_not_there_is_an_error() {
    let executor = executor(false);
    let mut session = hal_plan::open(&executor).expect("opened");
    let id = session.prepare(hal_plan::checked(hal_plan::plan(COUNT))).expect("prepared");
    session.edit_next(id, &[Edit { at: TransitionAt { level: 9, transition: 0 }, with: None }]);
    session.step(id, &hal_plan::inputs(COUNT, 0)).expect_err("no such level");
}

/// The page shows messages as they are: those of the golden files.
#[test]
fn the_page_shows_what_is_printed() {
    let page = std::fs::read_to_string("docs/sanitizer.md").expect("the page is there");
    let shown = blocks(&page).into_iter().filter_map(|block| Some((block.info.strip_prefix("text ")?, block.text)));
    let mut count = 0;
    for (name, text) in shown {
        let kept = std::fs::read_to_string(golden(&format!("sanitize/{name}.txt"))).expect("a golden file");
        assert_eq!(text, kept, "{name}");
        count += 1;
    }
    assert_eq!(count, 2);
}

/// Shapes for which kernels take other paths than for published models, and sizes of steps that pad.
#[test]
fn built_in_kernels_are_silent() {
    let shapes = [
        Shape { layers: 2, heads: 1, head_size: 65, ffn: 129, vocab: 67, rank_w: 1, rank_a: 7, rank_v: 10, rank_g: 33 },
        Shape { layers: 2, heads: 3, head_size: 10, ffn: 50, vocab: 77, rank_w: 1, rank_a: 7, rank_v: 10, rank_g: 3 },
        Shape { layers: 1, heads: 2, head_size: 32, ffn: 96, vocab: 99, rank_w: 8, rank_a: 12, rank_v: 4, rank_g: 20 },
    ];
    for (shape, dtype) in shapes.iter().zip([DType::F16, DType::F32, DType::Bf16]) {
        let dir = TempDir::new();
        let path = dir.file("model.safetensors");
        write_model(&path, shape, 5, &Format::converted(dtype)).expect("written");
        let (checkpoint, program, executor) = (open(&path), Program::rwkv7(), executor(true));
        let any = AnyExecutor::Reference(executor.clone());
        let limits = executor.device().limits.clone();
        let mut decoder = decoder(&any, program.compiler(checkpoint.index(), &limits, &[]), &checkpoint, &[1, 7]);
        for fed in [&[3, 1, 4, 1, 5][..], &[9], &[2, 6, 5, 3, 5, 8, 9, 7, 9, 3]] {
            decoder.run(fed, Rows::All).unwrap_or_else(|error| panic!("{error}"));
        }
        let (found, omitted) = executor.findings();
        let texts: String = found.iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "{dtype}, {shape:?}, and {omitted} more:\n{texts}");
    }
}
