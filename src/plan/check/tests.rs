//! Hand-made plans for the verifier: one that it accepts, and broken ones with the text of every error.
//!
//! Gets nothing, returns nothing. For each of P1 to P10 there is at least one plan that breaks it; mutations of single
//! transitions are all refused, and no number, however absurd, makes it panic. Never uses the lowering.

mod many;

use std::fmt::Write as _;

use super::*;
use crate::base::arena::Arena;
use crate::base::limits::Limits;
use crate::base::role::{InputRole, OutputRole};
use crate::base::step::StepShape;
use crate::plan::command::*;
use crate::plan::weights::{StateBuffer, StateLayout, WeightBuffer, WeightLayout, WeightPiece};
use crate::plan::{PLAN_VERSION, ValuePlace};

const UPLOAD: BufferId = BufferId::new(0);
const TOKENS: BufferId = BufferId::new(1);
const H: BufferId = BufferId::new(2);
const W: BufferId = BufferId::new(3);
const Y: BufferId = BufferId::new(4);
const WKV: BufferId = BufferId::new(5);
const LOGITS: BufferId = BufferId::new(6);
const KEPT: BufferId = BufferId::new(7);

const MR: Usage = Usage::MAP_READ;
const MW: Usage = Usage::MAP_WRITE;
const CS: Usage = Usage::COPY_SRC;
const CD: Usage = Usage::COPY_DST;
const SR: Usage = Usage::STORAGE_READ;
const SW: Usage = Usage::STORAGE_WRITE;

fn all_of(buffer: BufferId, size_bytes: u64) -> Slice {
    Slice { buffer, offset_bytes: 0, size_bytes }
}

fn transition(buffer: BufferId, from: Usage, to: Usage) -> Transition {
    Transition { buffer, from, to }
}

fn kernel(label: &str, bindings: &[(&str, bool, bool)]) -> Kernel {
    let binding =
        |&(label, reads, writes): &(&str, bool, bool)| Binding { label: label.to_owned(), writes, reads, min_bytes: 0 };
    Kernel {
        label: label.to_owned(),
        wgsl: String::new(),
        entry: "main".to_owned(),
        bindings: bindings.iter().map(binding).collect(),
        workgroup_size: [64, 1, 1],
        workgroup_bytes: 256,
        runtime_checks: true,
        zero_workgroup_memory: true,
        needs_subgroups: false,
        needs_cooperative_matrix: false,
        needs_wide_words: false,
        origins: Vec::new(),
    }
}

fn dispatch(label: &str, kernel: u32, bindings: Vec<Slice>) -> Command {
    let place = "test.ron:1:1".to_owned();
    Command::Dispatch(Dispatch {
        label: label.to_owned(),
        kernel: KernelId::new(kernel),
        bindings,
        workgroups: [1, 1, 1],
        place,
    })
}

fn copy(label: &str, from: Slice, to: Slice) -> Command {
    Command::Copy(Copy { label: label.to_owned(), from, to })
}

fn value(path: &str, buffer: BufferId, first_level: u32, last_level: u32) -> ValuePlace {
    let (path, dtype, shape) = (path.to_owned(), DType::F32, vec![4, 4]);
    ValuePlace { path, dtype, shape, buffer, offset_bytes: 0, size_bytes: 64, first_level, last_level }
}

fn buffers() -> Arena<Buffer> {
    let mut buffers = Arena::new();
    for (label, kind, size_bytes, rest) in [
        ("upload", BufferKind::HostWrite, 16, MW),
        ("tokens", BufferKind::Input, 16, SR),
        ("h", BufferKind::Slot, 64, SR),
        ("w", BufferKind::Weight { index: 0 }, 64, SR),
        ("y", BufferKind::Slot, 64, CS),
        ("wkv.0", BufferKind::State { index: 0 }, 64, SW),
        ("logits", BufferKind::HostRead, 64, MR),
        ("kept", BufferKind::HostRead, 64, MR),
    ] {
        buffers.push(Buffer { label: label.to_owned(), kind, size_bytes, rest });
    }
    buffers
}

/// Tokens are uploaded and embedded as `h`; `y` is `h` times a weight; `h` updates the state; the host gets both.
fn levels() -> Vec<Level> {
    let h = all_of(H, 64);
    vec![
        Level {
            barrier: vec![transition(UPLOAD, MW, CS), transition(TOKENS, SR, CD)],
            commands: vec![copy("tokens", all_of(UPLOAD, 16), all_of(TOKENS, 16))],
        },
        Level {
            barrier: vec![transition(TOKENS, CD, SR), transition(H, SR, SW)],
            commands: vec![dispatch("embed", 0, vec![all_of(TOKENS, 16), h])],
        },
        Level {
            barrier: vec![
                transition(H, SW, CS | SR),
                transition(Y, CS, SW),
                transition(WKV, SW, SW),
                transition(KEPT, MR, CD),
            ],
            commands: vec![
                dispatch("mul", 1, vec![h, all_of(W, 64), all_of(Y, 64)]),
                dispatch("update", 2, vec![h, all_of(WKV, 64)]),
                copy("kept", h, all_of(KEPT, 64)),
            ],
        },
        Level {
            barrier: vec![transition(Y, SW, CS), transition(LOGITS, MR, CD)],
            commands: vec![copy("logits", all_of(Y, 64), all_of(LOGITS, 64))],
        },
    ]
}

/// A correct plan with every kind of buffer and transition.
fn good() -> Plan {
    let mut kernels = Arena::new();
    kernels.push(kernel("embed", &[("ids", true, false), ("out", false, true)]));
    kernels.push(kernel("mul", &[("a", true, false), ("b", true, false), ("out", false, true)]));
    kernels.push(kernel("update", &[("x", true, false), ("state", true, true)]));
    let piece = |tensor: &str, offset_bytes| WeightPiece {
        tensor: tensor.to_owned(),
        buffer: 0,
        offset_bytes,
        dtype: DType::F16,
        count: 16,
        transpose: Some((2, 8)),
    };
    let output = |name: &str, role, buffer| PlanOutput {
        name: name.to_owned(),
        role,
        dtype: DType::F32,
        shape: vec![4, 4],
        slice: all_of(buffer, 64),
    };
    Plan {
        version: PLAN_VERSION,
        graph: "test".to_owned(),
        shape: StepShape { tokens: 4, sequences: 1, rows: 4, capacity: 1 },
        dims: vec![("C".to_owned(), 4)],
        limits: Limits::webgpu(),
        weights: WeightLayout {
            buffers: vec![WeightBuffer { label: "w".to_owned(), size_bytes: 64, record_bytes: None }],
            pieces: vec![piece("a.weight", 0), piece("b.weight", 32)],
        },
        state: StateLayout {
            buffers: vec![StateBuffer {
                label: "wkv.0".to_owned(),
                dtype: DType::F32,
                rows: 1,
                row_shape: vec![4, 4],
                init_bits: 0,
                init_weight: None,
                rest: SW,
            }],
        },
        buffers: buffers(),
        kernels,
        levels: levels(),
        leave: vec![
            transition(UPLOAD, CS, MW),
            transition(H, CS | SR, SR),
            transition(KEPT, CD, MR),
            transition(LOGITS, CD, MR),
        ],
        inputs: vec![PlanInput {
            name: "tokens".to_owned(),
            role: InputRole::TokenIds,
            count: 4,
            slice: all_of(UPLOAD, 16),
        }],
        outputs: vec![output("logits", OutputRole::Logits, LOGITS), output("h", OutputRole::Kept, KEPT)],
        values: vec![value("h", H, 1, 2), value("y", Y, 2, 3)],
        longest_chain: 4,
    }
}

/// What `check` says of the good plan after a change, one error a line.
fn broken(change: impl FnOnce(&mut Plan)) -> String {
    let mut plan = good();
    change(&mut plan);
    report(plan)
}

fn report(plan: Plan) -> String {
    let mut text = String::new();
    for error in check(plan).err().unwrap_or_default() {
        writeln!(text, "{error}").expect("a string takes every text");
    }
    text
}

/// Expects exactly these errors, each beside the change that causes it.
macro_rules! refused {
    ($change:expr, $($line:expr),+ $(,)?) => {
        assert_eq!(broken($change), concat!($($line, "\n"),+))
    };
}

fn dispatch_at(plan: &mut Plan, level: usize, index: usize) -> &mut Dispatch {
    match &mut plan.levels[level].commands[index] {
        Command::Dispatch(dispatch) => dispatch,
        Command::Copy(copy) => panic!("`{}` is a copy", copy.label),
    }
}

fn copy_at(plan: &mut Plan, level: usize, index: usize) -> &mut Copy {
    match &mut plan.levels[level].commands[index] {
        Command::Copy(copy) => copy,
        Command::Dispatch(dispatch) => panic!("`{}` is a dispatch", dispatch.label),
    }
}

#[test]
fn accepts_a_correct_plan() {
    let checked = check(good()).expect("the plan is correct");
    assert_eq!(*checked, good());
    assert_eq!(checked.summary().transitions, 14);
}

#[test]
fn accepts_an_empty_plan() {
    let mut plan = good();
    (plan.buffers, plan.kernels) = (Arena::new(), Arena::new());
    (plan.levels, plan.leave, plan.inputs, plan.outputs, plan.values) = Default::default();
    plan.longest_chain = 0;
    assert_eq!(report(plan), "");
}

#[test]
fn accepts_a_slot_shared_over_time() {
    let mut plan = good();
    // `z` follows `h` in its slot, and a copy of it follows the other outputs.
    plan.levels.push(Level {
        barrier: vec![transition(H, CS | SR, SW)],
        commands: vec![dispatch("again", 0, vec![all_of(TOKENS, 16), all_of(H, 64)])],
    });
    plan.levels.push(Level {
        barrier: vec![transition(H, SW, CS), transition(KEPT, CD, CD)],
        commands: vec![copy("z", all_of(H, 64), all_of(KEPT, 64))],
    });
    plan.leave[1].from = CS;
    plan.values.push(value("z", H, 4, 5));
    plan.longest_chain = 6;
    assert_eq!(report(plan), "");
}

/// A correct plan in which `early` lies beside `y`, is written a level before it and is copied to the host with it.
fn side_by_side() -> Plan {
    let early = Slice { buffer: Y, offset_bytes: 256, size_bytes: 64 };
    let mut plan = good();
    plan.buffers[Y].size_bytes = 320;
    plan.values.push(ValuePlace { offset_bytes: 256, ..value("early", Y, 1, 3) });
    plan.levels[1].commands.push(dispatch("early", 0, vec![all_of(TOKENS, 16), early]));
    let y_writes = plan.levels[2].barrier.remove(1);
    plan.levels[1].barrier.push(y_writes);
    // The host gets `early` instead of `h`.
    let kept = plan.levels[2].barrier.remove(2);
    plan.levels[3].barrier.push(kept);
    plan.levels[2].commands.pop();
    plan.levels[3].commands.push(copy("kept", early, all_of(KEPT, 64)));
    plan.levels[2].barrier[0].to = SR;
    plan.leave.remove(1);
    plan
}

#[test]
fn accepts_values_side_by_side_whose_writes_need_no_transition_between() {
    assert_eq!(report(side_by_side()), "");
}

#[test]
fn p4_writes_beside_each_other() {
    let mut plan = side_by_side();
    plan.levels[2].barrier.push(transition(Y, SW, SW));
    assert_eq!(
        report(plan),
        "P4 at level 2: `buf4 y`: expected no transition from storage-write to storage-write, since what is written \
         after it shares no byte with what was written before, found one\n"
    );
    let mut plan = side_by_side();
    let twice = plan.levels[1].commands[1].clone();
    plan.levels[1].commands.push(twice);
    assert_eq!(
        report(plan),
        "P4 at level 1, `early`: `buf4 y`: it is written here and written by `early`: expected one of them in a later \
         level, found both\n"
    );
}

#[test]
fn p6_values_beside_each_other() {
    let mut plan = side_by_side();
    plan.values.last_mut().expect("`early`").offset_bytes = 60;
    assert_eq!(
        report(plan),
        "P6 at values: expected values apart in `buf4 y`, found `early` and `y` to share bytes at level 2\n"
    );
    let mut plan = side_by_side();
    plan.values.last_mut().expect("`early`").offset_bytes = 260;
    assert_eq!(
        report(plan),
        "P6 at values: `early`: expected 64 bytes for its shape and at most the 60 of `buf4 y` from 260 on, found 64\n"
    );
}

#[test]
fn p1_version() {
    refused!(|plan| plan.version = 7, "P1 at plan: expected version 4, found 7");
}

#[test]
fn p1_longest_chain() {
    refused!(|plan| plan.longest_chain = 5, "P1 at plan: expected a longest chain of its 4 levels, found 5");
}

#[test]
fn p2_offset_alignment() {
    for alignment in [0, 48] {
        let found = broken(|plan| plan.limits.min_storage_buffer_offset_alignment = alignment);
        assert_eq!(found, format!("P2 at plan: expected a power of two as offset alignment, found {alignment}\n"));
    }
}

#[test]
fn p2_bindings_of_fixed_size() {
    refused!(
        |plan| plan.kernels[KernelId::new(2)].bindings[1].min_bytes = 16_000_000,
        "P2 at level 2, `update`: binding 1: expected at least the 16000000 bytes of its type, found 64",
    );
}

#[test]
fn p1_ids_of_commands() {
    refused!(
        |plan| dispatch_at(plan, 2, 1).kernel = KernelId::new(9),
        "P1 at level 2, `update`: expected a kernel below k3, found k9",
    );
    refused!(
        |plan| {
            dispatch_at(plan, 2, 1).bindings.pop();
        },
        "P1 at level 2, `update`: expected 2 bindings as in `k2 update`, found 1",
    );
    refused!(
        |plan| dispatch_at(plan, 1, 0).bindings[0].buffer = BufferId::new(8),
        "P1 at level 1, `embed`: binding 0: expected a buffer below buf8, found buf8",
    );
}

#[test]
fn p1_ids_of_tables() {
    refused!(
        |plan| plan.leave.push(transition(BufferId::new(u32::MAX), SR, SR)),
        "P1 at leave: transition: expected a buffer below buf8, found buf4294967295",
    );
    refused!(
        |plan| plan.inputs.push(PlanInput {
            name: "x".to_owned(),
            role: InputRole::OutputRows,
            count: 4,
            slice: all_of(BufferId::new(8), 16),
        }),
        "P1 at inputs: input `x`: expected a buffer below buf8, found buf8",
    );
    refused!(
        |plan| plan.outputs[1].slice.buffer = BufferId::new(8),
        "P1 at outputs: output `h`: expected a buffer below buf8, found buf8",
    );
    refused!(
        |plan| plan.values.push(value("x", BufferId::new(8), 0, 0)),
        "P1 at values: `x`: expected a buffer below buf8, found buf8",
    );
}

#[test]
fn p1_layouts() {
    refused!(
        |plan| plan.buffers[W].kind = BufferKind::Weight { index: 1 },
        "P1 at buffers: `buf3 w`: expected a weight index below 1, found 1",
    );
    refused!(
        |plan| plan.buffers[WKV].kind = BufferKind::State { index: 1 },
        "P1 at buffers: `buf5 wkv.0`: expected a state index below 1, found 1",
    );
    refused!(
        |plan| plan.buffers[WKV].size_bytes = 128,
        "P1 at buffers: `buf5 wkv.0`: expected 64 bytes as in the state layout, found 128",
    );
    refused!(
        |plan| {
            let twin = plan.buffers[W].clone();
            plan.buffers.push(twin);
        },
        "P1 at buffers: expected one buffer for weight 0, found `buf3 w` and `buf8 w`",
    );
    refused!(
        |plan| plan.weights.pieces[1].buffer = 1,
        "P1 at weights: piece `b.weight`: expected a buffer index below 1, found 1",
    );
    refused!(
        |plan| plan.weights.pieces[1].offset_bytes = 28,
        "P1 at weights: expected pieces apart from each other, found `a.weight` and `b.weight` to share bytes of `w`",
    );
}

#[test]
fn p1_sizes_of_the_step() {
    refused!(
        |plan| plan.shape.tokens = 5,
        "P1 at inputs: input `tokens`: expected 5 elements, its role being `token_ids`, found 4",
    );
    for (role, expected) in [(InputRole::SequenceOffsets, 2), (InputRole::StateRows, 1), (InputRole::OutputRows, 4)] {
        let found = broken(|plan| (plan.inputs[0].role, plan.inputs[0].count) = (role, 3));
        let reason = format!("input `tokens`: expected {expected} elements, its role being `{role}`, found 3\n");
        assert!(found.starts_with(&format!("P1 at inputs: {reason}")), "{found}");
    }
    refused!(
        |plan| plan.shape.rows = 1,
        "P1 at outputs: output `logits`: expected 1 rows, as the step has, found [4, 4]",
    );
    refused!(
        |plan| plan.shape.capacity = 2,
        "P1 at state: `wkv.0`: expected 2 rows, as many as the step's session has, found 1",
    );
}

#[test]
fn p2_layouts() {
    refused!(
        |plan| plan.weights.pieces[1].offset_bytes = 36,
        "P2 at weights: piece `b.weight`: expected elements from a multiple of 4 within the 64 bytes of `w`, \
         found 16 of f16 from 36",
    );
    refused!(
        |plan| plan.weights.pieces[0].transpose = Some((u64::MAX, 2)),
        "P2 at weights: piece `a.weight`: expected 16 elements to transpose, found 18446744073709551615 x 2",
    );
    refused!(
        |plan| plan.state.buffers[0].row_shape = vec![u64::MAX, 2],
        "P2 at state: `wkv.0`: expected a size that fits 64 bits, found a larger one",
    );
}

#[test]
fn p2_buffers() {
    refused!(
        |plan| plan.buffers[H].size_bytes = 66,
        "P2 at buffers: `buf2 h`: expected a positive multiple of 4 of at most 268435456 bytes, found 66",
    );
    refused!(
        |plan| plan.buffers[H].size_bytes = 1 << 40,
        "P2 at buffers: `buf2 h`: expected a positive multiple of 4 of at most 268435456 bytes, found 1099511627776",
    );
    refused!(
        |plan| {
            plan.limits.max_buffer_bytes = u64::MAX;
            plan.buffers[H].size_bytes = u64::MAX - 3;
        },
        "P2 at buffers: expected sizes whose sum fits 64 bits, found more",
    );
}

#[test]
fn p2_kernels() {
    refused!(
        |plan| plan.limits.max_storage_buffers_per_dispatch = 2,
        "P2 at kernels: `k1 mul`: expected at most 2 bindings, found 3",
    );
    let kernel = KernelId::new(0);
    refused!(
        |plan| plan.kernels[kernel].workgroup_size = [16, 0, 1],
        "P2 at kernels: `k0 embed`: expected a workgroup size from 1 x 1 x 1 to 256 x 256 x 64, found 16 x 0 x 1",
    );
    refused!(
        |plan| plan.kernels[kernel].workgroup_size = [256, 2, 1],
        "P2 at kernels: `k0 embed`: expected at most 256 invocations per workgroup, found 512",
    );
    refused!(
        |plan| plan.kernels[kernel].workgroup_bytes = 16388,
        "P2 at kernels: `k0 embed`: expected at most 16384 bytes of workgroup memory, found 16388",
    );
    refused!(
        |plan| plan.kernels[kernel].needs_subgroups = true,
        "P2 at kernels: `k0 embed`: expected no subgroup operations, found that it needs them",
    );
    refused!(
        |plan| plan.kernels[kernel].needs_cooperative_matrix = true,
        "P2 at kernels: `k0 embed`: expected no cooperative matrices, found that it needs them",
    );
    refused!(
        |plan| plan.kernels[kernel].needs_wide_words = true,
        "P2 at kernels: `k0 embed`: expected no words of 64 bits, found that it needs them",
    );
}

#[test]
fn p2_bindings() {
    refused!(
        |plan| dispatch_at(plan, 1, 0).bindings[0].size_bytes = 20,
        "P2 at level 1, `embed`: binding 0: expected at least 1 byte within the 16 of `buf1 tokens`, found 20 from 0",
    );
    refused!(
        |plan| dispatch_at(plan, 2, 0).bindings[1] = Slice { buffer: W, offset_bytes: u64::MAX, size_bytes: 4 },
        "P2 at level 2, `mul`: binding 1: expected at least 1 byte within the 64 of `buf3 w`, \
         found 4 from 18446744073709551615",
    );
    refused!(
        |plan| dispatch_at(plan, 2, 0).bindings[1] = Slice { buffer: W, offset_bytes: 32, size_bytes: 32 },
        "P2 at level 2, `mul`: binding 1: expected an offset that 256 divides, found 32",
    );
    refused!(
        |plan| dispatch_at(plan, 2, 0).bindings[1].size_bytes = 30,
        "P2 at level 2, `mul`: binding 1: expected a multiple of 4 of at most 134217728 bytes, found 30",
    );
}

#[test]
fn p2_copies() {
    refused!(
        |plan| copy_at(plan, 3, 0).from.size_bytes = 60,
        "P2 at level 3, `logits`: expected as many bytes in the destination as in the source, 60, found 64",
        "P7 at outputs: output `logits`: expected bytes 0 to 64 of `buf6 logits` to be written, found that byte 60 is \
         not",
    );
    refused!(
        |plan| (copy_at(plan, 3, 0).from.offset_bytes, copy_at(plan, 3, 0).from.size_bytes) = (2, 62),
        "P2 at level 3, `logits`: source: expected offset and size in multiples of 4, found 62 bytes from 2",
        "P2 at level 3, `logits`: expected as many bytes in the destination as in the source, 62, found 64",
        "P7 at outputs: output `logits`: expected bytes 0 to 64 of `buf6 logits` to be written, found that byte 62 is \
         not",
    );
    refused!(
        |plan| {
            let itself = copy("itself", all_of(H, 32), Slice { buffer: H, offset_bytes: 32, size_bytes: 32 });
            plan.levels[2].commands.push(itself);
        },
        "P2 at level 2, `itself`: expected two buffers, found a copy from `buf2 h` to itself",
    );
}

#[test]
fn p2_inputs_and_outputs() {
    refused!(
        |plan| plan.inputs[0].count = u64::MAX,
        "P1 at inputs: input `tokens`: expected 4 elements, its role being `token_ids`, found 18446744073709551615",
        "P2 at inputs: input `tokens`: expected a size that fits 64 bits, found a larger one in 16 bytes",
    );
    refused!(|plan| plan.outputs[0].shape = vec![4, 3], "P2 at outputs: output `logits`: expected 48 bytes, found 64",);
    refused!(
        |plan| plan.outputs[1].slice.buffer = H,
        "P2 at outputs: output `h`: expected a HostRead buffer, found `buf2 h`, which is Slot",
    );
}

#[test]
fn p3_a_usage_that_does_not_contain_the_use() {
    refused!(
        |plan| {
            plan.levels[2].barrier[0].to = SR;
            plan.leave[1].from = SR;
        },
        "P3 at level 2, `kept`: `buf2 h`: expected a usage that contains copy-src, found storage-read",
    );
    refused!(
        |plan| {
            plan.levels[1].barrier[1].to = CD;
            plan.levels[2].barrier[0].from = CD;
        },
        "P3 at level 1, `embed`: `buf2 h`: expected a usage that contains storage-write, found copy-dst",
    );
}

#[test]
fn p3_a_usage_that_does_not_exist() {
    refused!(
        |plan| plan.levels[1].barrier[1].to = SR | SW,
        "P3 at level 1: `buf2 h`: expected reads alone or one kind of write, found storage-read+storage-write (0x30)",
    );
    refused!(
        |plan| plan.buffers[H].rest = Usage::from_bits_retain(0x50),
        "P3 at buffers: `buf2 h`: expected reads alone or one kind of write, found storage-read (0x50)",
    );
}

#[test]
fn p4_a_missing_transition() {
    refused!(
        |plan| {
            plan.levels[2].barrier.remove(0);
        },
        "P4 at level 2, `mul`: `buf2 h`: it is read here and was written at level 1, `embed`: \
         expected a transition between, found none",
    );
    refused!(
        |plan| {
            plan.levels[0].barrier.remove(1);
        },
        "P4 at level 0, `tokens`: `buf1 tokens`: it is written here and was read by an earlier step: \
         expected a transition between, found none",
    );
}

#[test]
fn p4_write_after_write_in_equal_usage() {
    refused!(
        |plan| {
            plan.levels[2].barrier.remove(2);
        },
        "P4 at level 2, `update`: `buf5 wkv.0`: it is written here and was written by an earlier step: \
         expected a transition between, found none",
    );
    let again = || dispatch("again", 2, vec![all_of(H, 64), all_of(WKV, 64)]);
    refused!(
        |plan| {
            plan.levels[3].commands.push(again());
            plan.values[0].last_level = 3;
        },
        "P4 at level 3, `again`: `buf5 wkv.0`: it is written here and was written at level 2, `update`: \
         expected a transition between, found none",
    );
    refused!(
        |plan| plan.levels[2].commands.push(again()),
        "P4 at level 2, `again`: `buf5 wkv.0`: it is written here and written by `update`: \
         expected one of them in a later level, found both",
    );
}

#[test]
fn p4_a_wrong_transition() {
    refused!(
        |plan| plan.levels[2].barrier[0].from = SR,
        "P4 at level 2: `buf2 h`: expected a transition from storage-write, in which it is, found one from \
         storage-read",
    );
    refused!(
        |plan| plan.levels[2].barrier.push(transition(WKV, SW, SW)),
        "P4 at level 2: `buf5 wkv.0`: expected at most one transition in a barrier, \
         found another from storage-write to storage-write",
    );
}

#[test]
fn p4_a_needless_transition() {
    refused!(
        |plan| plan.levels[3].barrier.push(transition(WKV, SW, SW)),
        "P4 at level 3: `buf5 wkv.0`: expected a use as storage-write before the step ends, found none",
    );
    refused!(
        |plan| plan.levels[0].barrier.push(transition(H, SR, SW)),
        "P4 at level 1: `buf2 h`: expected a transition from storage-write, in which it is, found one from \
         storage-read",
    );
    refused!(
        |plan| {
            plan.levels[0].barrier.push(transition(H, SR, SW));
            plan.levels[1].barrier[1].from = SW;
        },
        "P4 at level 0: `buf2 h`: expected a use as storage-write before the transition at level 1, found none",
    );
    refused!(
        |plan| plan.leave.push(transition(WKV, SW, SW)),
        "P4 at leave: `buf5 wkv.0`: expected no transition, since it is in storage-write, its rest, \
         found one to storage-write",
    );
}

#[test]
fn p4_needless_transitions_between_reads() {
    // The copy of `h` in a level of its own, behind a transition of its own.
    let late_copy = |plan: &mut Plan, to: Usage| {
        let kept = plan.levels[2].commands.remove(2);
        plan.levels[3].commands.push(kept);
        let from = plan.levels[2].barrier[0].to;
        plan.levels[3].barrier.push(transition(H, from, to));
        plan.leave[1].from = to;
        plan.values[0].last_level = 3;
    };
    refused!(
        |plan| {
            plan.levels[2].barrier[0].to = SR;
            late_copy(plan, CS);
        },
        "P4 at level 3: `buf2 h`: expected the transition at level 2 to lead to copy-src+storage-read at once, \
         found another one to copy-src",
    );
    refused!(
        |plan| late_copy(plan, CS),
        "P4 at level 2: `buf2 h`: expected a transition to storage-read, as it is used afterwards, \
         found one to copy-src+storage-read",
        "P4 at level 3: `buf2 h`: expected no transition between reads, since copy-src+storage-read contains copy-src, \
         found one",
    );
    refused!(
        |plan| {
            plan.buffers[H].rest = CS | SR;
            plan.levels[1].barrier[1].from = CS | SR;
            plan.levels[2].commands.remove(2);
            plan.levels[2].barrier.pop();
            plan.outputs.pop();
            plan.levels[2].barrier[0].to = SR;
            plan.leave[2].from = MR;
            plan.leave[1] = transition(H, SR, CS | SR);
            plan.leave.remove(2);
        },
        "P4 at leave: `buf2 h`: expected the transition at level 2 to lead to copy-src+storage-read at once, \
         found another one to copy-src+storage-read",
    );
}

#[test]
fn p5_a_buffer_bound_twice() {
    refused!(
        |plan| dispatch_at(plan, 2, 1).bindings[0] = all_of(WKV, 64),
        "P5 at level 2, `update`: `buf5 wkv.0`: expected one binding, since the dispatch writes it, \
         found 2 bindings to it",
    );
    // Reads may share a buffer.
    assert_eq!(broken(|plan| dispatch_at(plan, 2, 0).bindings[1] = all_of(H, 64)), "");
}

#[test]
fn p6_values() {
    refused!(
        |plan| plan.values.push(value("x", H, 2, 3)),
        "P6 at values: expected values apart in `buf2 h`, found `h` and `x` to share bytes at level 2",
    );
    refused!(
        |plan| plan.values[0].first_level = 2,
        "P6 at level 1, `embed`: `buf2 h`: expected a value to live there at level 1, found none",
    );
    refused!(
        |plan| plan.values[0].last_level = 3,
        "P6 at values: `h`: expected uses from level 1 to 3, found uses from 1 to 2",
    );
    refused!(
        |plan| plan.values[0].last_level = 4,
        "P6 at values: `h`: expected levels in order and below 4, found 1 to 4",
    );
    refused!(
        |plan| (plan.values[0].size_bytes, plan.values[0].shape) = (32, vec![8]),
        "P6 at level 1, `embed`: `buf2 h`: expected a slice of the 32 bytes of `h`, found one that ends at 64",
        "P6 at level 2, `mul`: `buf2 h`: expected a slice of the 32 bytes of `h`, found one that ends at 64",
        "P6 at level 2, `update`: `buf2 h`: expected a slice of the 32 bytes of `h`, found one that ends at 64",
        "P6 at level 2, `kept`: `buf2 h`: expected a slice of the 32 bytes of `h`, found one that ends at 64",
    );
    refused!(
        |plan| plan.values[0].size_bytes = 68,
        "P6 at values: `h`: expected 64 bytes for its shape and at most the 64 of `buf2 h`, found 68",
    );
    refused!(
        |plan| plan.values[0].buffer = WKV,
        "P6 at values: `h`: expected a slot, found `buf5 wkv.0`, which is State { index: 0 }",
        "P6 at level 1, `embed`: `buf2 h`: expected a value to live there at level 1, found none",
    );
}

#[test]
fn p6_inputs_that_overlap() {
    refused!(
        |plan| {
            let twin = plan.inputs[0].clone();
            plan.inputs.push(PlanInput { name: "rows".to_owned(), ..twin });
        },
        "P6 at inputs: expected bytes of their own, found input `tokens` and input `rows` to share some of `buf0 \
         upload`",
    );
}

#[test]
fn p7_reads_of_nothing() {
    refused!(
        |plan| dispatch_at(plan, 1, 0).bindings[1].size_bytes = 32,
        "P7 at level 2, `mul`: `buf2 h`: expected bytes 0 to 64 to be written before they are read, \
         found that byte 32 is not",
    );
    refused!(
        |plan| plan.kernels[KernelId::new(0)].bindings[1].reads = true,
        "P7 at level 1, `embed`: `buf2 h`: expected bytes 0 to 64 to be written before they are read, \
         found that byte 0 is not",
    );
    // The host writes nothing: the copy carries the gap along. Half an element is padding, no gap.
    refused!(
        |plan| plan.inputs.clear(),
        "P7 at level 1, `embed`: `buf1 tokens`: expected bytes 0 to 16 to be written before they are read, \
         found that byte 0 is not",
    );
    let three = |plan: &mut Plan| {
        plan.shape.tokens = 3;
        (plan.inputs[0].count, plan.inputs[0].slice.size_bytes) = (3, 12);
    };
    assert_eq!(broken(three), "");
    refused!(
        |plan| (copy_at(plan, 3, 0).from.size_bytes, copy_at(plan, 3, 0).to.size_bytes) = (32, 32),
        "P7 at outputs: output `logits`: expected bytes 0 to 64 of `buf6 logits` to be written, found that byte 32 is \
         not",
    );
}

#[test]
fn p7_weights_never_change() {
    refused!(
        |plan| plan.kernels[KernelId::new(1)].bindings[1].writes = true,
        "P7 at level 2, `mul`: binding 1: expected weights to be read alone, found `buf3 w` as storage-write",
    );
    refused!(
        |plan| plan.levels[2].barrier.push(transition(W, SR, SR)),
        "P7 at level 2: `buf3 w`: expected no transition of a weight, found one from storage-read to storage-read",
    );
}

#[test]
fn p8_leaves_as_it_came() {
    refused!(
        |plan| {
            plan.leave.remove(1);
        },
        "P8 at leave: `buf2 h`: expected storage-read, its rest, found that it leaves in copy-src+storage-read",
    );
    refused!(
        |plan| plan.leave[1].to = CS,
        "P8 at leave: `buf2 h`: expected storage-read, its rest, found that it leaves in copy-src",
    );
    refused!(
        |plan| plan.state.buffers[0].rest = SR,
        "P8 at buffers: `buf5 wkv.0`: expected rest storage-read as in the state layout, found storage-write",
    );
}

#[test]
fn p9_workgroups() {
    refused!(
        |plan| dispatch_at(plan, 2, 0).workgroups = [4, 0, 1],
        "P9 at level 2, `mul`: expected 1 to 65535 workgroups in each direction, found 4 x 0 x 1",
    );
    refused!(
        |plan| dispatch_at(plan, 2, 0).workgroups = [65536, 1, 1],
        "P9 at level 2, `mul`: expected 1 to 65535 workgroups in each direction, found 65536 x 1 x 1",
    );
}

#[test]
fn p10_host_buffers() {
    refused!(
        |plan| dispatch_at(plan, 1, 0).bindings[0].buffer = UPLOAD,
        "P10 at level 1, `embed`: binding 0: expected a host-written buffer as copy-src alone, \
         found `buf0 upload` as storage-read",
        "P4 at level 1: `buf1 tokens`: expected a use as storage-read before the step ends, found none",
    );
    refused!(
        |plan| plan.levels[3].commands.push(copy("back", all_of(KEPT, 64), all_of(WKV, 64))),
        "P10 at level 3, `back`: source: expected a host-read buffer as copy-dst alone, found `buf7 kept` as copy-src",
        "P4 at level 3, `back`: `buf5 wkv.0`: it is written here and was written at level 2, `update`: \
         expected a transition between, found none",
    );
    refused!(
        |plan| plan.buffers[Y].rest = CS | MR,
        "P10 at buffers: `buf4 y`: expected no rest in a map usage, found map-read+copy-src",
    );
    refused!(
        |plan| plan.levels[2].barrier[0].to = MW,
        "P10 at level 2: `buf2 h`: expected no transition to a map usage, found one to map-write",
    );
}

#[test]
fn p10_host_buffers_rest_with_the_host() {
    refused!(
        |plan| {
            plan.buffers[UPLOAD].rest = CS;
            plan.levels[0].barrier.remove(0);
            plan.leave.remove(0);
        },
        "P10 at buffers: `buf0 upload`: expected rest map-write, found copy-src",
    );
}
