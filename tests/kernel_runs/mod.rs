//! One kernel run by itself: words in, words out, on any executor.
//!
//! Gets the text of a kernel that reads `x` at binding 0 and writes `y` at binding 1, returns what `y` holds after a
//! plan of one dispatch. What holds then: the text went through an executor as every plan's kernels do, with checks of
//! indices and zeroed workgroup memory. Never looks at what the text computes.

#![allow(dead_code, reason = "each test binary uses a different part of this module")]

use graphc::base::arena::Arena;
use graphc::base::dtype::DType;
use graphc::base::limits::Limits;
use graphc::base::role::{InputRole, OutputRole};
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::exec::hal::{HalExecutor, HalOptions};
use graphc::exec::reference::{ReferenceExecutor, ReferenceOptions, ReferenceSession};
use graphc::exec::{ExecError, Executor, Inputs, Session, Weights};
use graphc::plan::command::{
    Binding, Buffer, BufferKind, Command, Copy, Dispatch, Kernel, KernelId, Level, LineOrigin, PlanInput, PlanOutput,
    Slice, Transition,
};
use graphc::plan::usage::Usage;
use graphc::plan::weights::{StateLayout, WeightLayout};
use graphc::plan::{CheckedPlan, PLAN_VERSION, Plan, ValuePlace, check};
use wgpu_hal::api::Vulkan;

/// Where texts are said to come from.
pub const FILE: &str = "conformance.wgsl";

/// What both bindings are; in structs, as kernels of graphs have them.
pub const HEAD: &str = "struct Words { v: array<u32> }
@group(0) @binding(0) var<storage, read> x: Words;
@group(0) @binding(1) var<storage, read_write> y: Words;
";

/// A dispatch of a kernel.
pub struct Job {
    pub text: String,
    /// What `x` holds.
    pub words: Vec<u32>,
    /// Words of `y`, which begins with zeros.
    pub count: usize,
    pub workgroup_size: u32,
    pub workgroups: u32,
    pub needs_subgroups: bool,
}

fn kernel(job: &Job) -> Kernel {
    let binding = |label: &str, writes| Binding { label: label.to_owned(), reads: true, writes, min_bytes: 0 };
    Kernel {
        label: "conformance".to_owned(),
        wgsl: job.text.clone(),
        entry: "main".to_owned(),
        bindings: vec![binding("x", false), binding("y", true)],
        workgroup_size: [job.workgroup_size, 1, 1],
        workgroup_bytes: 0,
        runtime_checks: true,
        zero_workgroup_memory: true,
        needs_subgroups: job.needs_subgroups,
        needs_cooperative_matrix: false,
        needs_wide_words: false,
        origins: vec![LineOrigin { line: 1, file: FILE.to_owned(), file_line: 1 }],
    }
}

/// `x` goes up, and `zeros` into the slot; then the dispatch, then the slot comes back.
pub fn plan(job: &Job) -> CheckedPlan {
    use Usage as U;
    let (count, out) = (job.words.len() as u64, job.count as u64);
    let mut buffers = Arena::new();
    let mut buffer =
        |label: &str, kind, size_bytes, rest| buffers.push(Buffer { label: label.to_owned(), kind, size_bytes, rest });
    let host_x = buffer("host x", BufferKind::HostWrite, count * 4, U::MAP_WRITE);
    let host_zeros = buffer("host zeros", BufferKind::HostWrite, out * 4, U::MAP_WRITE);
    let x = buffer("x", BufferKind::Input, count * 4, U::STORAGE_READ);
    let y = buffer("slot 0", BufferKind::Slot, out * 4, U::COPY_SRC);
    let host_y = buffer("host y", BufferKind::HostRead, out * 4, U::MAP_READ);
    let whole = |buffer, count: u64| Slice { buffer, offset_bytes: 0, size_bytes: count * 4 };
    let to = |buffer, from, to| Transition { buffer, from, to };
    let copy = |label: &str, from, to| Command::Copy(Copy { label: label.to_owned(), from, to });
    let mut kernels = Arena::new();
    kernels.push(kernel(job));
    let dispatch = Command::Dispatch(Dispatch {
        label: "conformance".to_owned(),
        kernel: KernelId::new(0),
        bindings: vec![whole(x, count), whole(y, out)],
        workgroups: [job.workgroups, 1, 1],
        place: "by-hand.ron:1:1".to_owned(),
    });
    let up = vec![
        to(host_x, U::MAP_WRITE, U::COPY_SRC),
        to(host_zeros, U::MAP_WRITE, U::COPY_SRC),
        to(x, U::STORAGE_READ, U::COPY_DST),
        to(y, U::COPY_SRC, U::COPY_DST),
    ];
    let levels = vec![
        Level {
            barrier: up,
            commands: vec![
                copy("upload x", whole(host_x, count), whole(x, count)),
                copy("upload zeros", whole(host_zeros, out), whole(y, out)),
            ],
        },
        Level {
            barrier: vec![to(x, U::COPY_DST, U::STORAGE_READ), to(y, U::COPY_DST, U::STORAGE_WRITE)],
            commands: vec![dispatch],
        },
        Level {
            barrier: vec![to(y, U::STORAGE_WRITE, U::COPY_SRC), to(host_y, U::MAP_READ, U::COPY_DST)],
            commands: vec![copy("read y", whole(y, out), whole(host_y, out))],
        },
    ];
    let input =
        |name: &str, role, count, buffer| PlanInput { name: name.to_owned(), role, count, slice: whole(buffer, count) };
    let plan = Plan {
        version: PLAN_VERSION,
        graph: "conformance".to_owned(),
        shape: StepShape { tokens: count as u32, sequences: 1, rows: out as u32, capacity: 1 },
        dims: Vec::new(),
        limits: Limits { max_storage_buffers_per_dispatch: 2, ..Limits::vulkan() },
        weights: WeightLayout::default(),
        state: StateLayout::default(),
        kernels,
        buffers,
        levels,
        leave: vec![
            to(host_x, U::COPY_SRC, U::MAP_WRITE),
            to(host_zeros, U::COPY_SRC, U::MAP_WRITE),
            to(host_y, U::COPY_DST, U::MAP_READ),
        ],
        inputs: vec![
            input("x", InputRole::TokenIds, count, host_x),
            input("zeros", InputRole::OutputRows, out, host_zeros),
        ],
        outputs: vec![PlanOutput {
            name: "y".to_owned(),
            role: OutputRole::Logits,
            dtype: DType::F32,
            shape: vec![out, 1],
            slice: whole(host_y, out),
        }],
        values: vec![ValuePlace {
            path: "y".to_owned(),
            dtype: DType::F32,
            shape: vec![out],
            buffer: y,
            offset_bytes: 0,
            size_bytes: out * 4,
            first_level: 0,
            last_level: 2,
        }],
        longest_chain: 3,
    };
    check::check(plan).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// A session for plans without weights and state.
pub fn open<E: Executor>(executor: &E) -> E::Session {
    let checkpoint = Checkpoint::from_static("nothing", b"\x08\0\0\0\0\0\0\0{}      ").expect("a checkpoint");
    let weights = Weights { layout: &WeightLayout::default(), checkpoint: &checkpoint };
    executor.open(&weights, &StateLayout::default(), &mut |_, _| ()).unwrap_or_else(|error| panic!("{error}"))
}

/// What the dispatch leaves in `y`.
pub fn run<S: Session>(session: &mut S, job: &Job) -> Result<Vec<u32>, ExecError> {
    let plan = session.prepare(plan(job))?;
    let inputs =
        Inputs::new().with(InputRole::TokenIds, job.words.clone()).with(InputRole::OutputRows, vec![0; job.count]);
    let ticket = session.step(plan, &inputs)?;
    let outputs = session.outputs(ticket)?;
    let bytes = &outputs.role(OutputRole::Logits).expect("the only output").bytes;
    Ok(bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes"))).collect())
}

/// The interpreter, with subgroups of this size.
pub fn reference(subgroup_size: u32) -> ReferenceSession {
    let options = ReferenceOptions { subgroup_size, ..ReferenceOptions::new() };
    open(&ReferenceExecutor::new(&options, None).unwrap_or_else(|error| panic!("{error}")))
}

/// The device whose name contains this; why there is none, else.
pub fn device(name: &str) -> Result<HalExecutor<Vulkan>, String> {
    let options = HalOptions { track: false, validation_layers: false, dropped: None };
    match HalExecutor::<Vulkan>::new(&options, Some(name)) {
        Ok(executor) => Ok(executor),
        Err(ExecError::NoDevice { reason }) => Err(reason),
        Err(error) => panic!("{error}"),
    }
}

/// Software drivers that are to be there.
pub const DEVICES: [&str; 2] = ["llvmpipe", "SwiftShader"];
