//! What is made once per plan: pipelines, bind groups, buffers of its own.
//!
//! Gets a checked plan and a session's shared objects, returns a [`Prepared`]. What holds then: a step needs no new
//! object but a command buffer. What failed to be made is in no cache and in no pool. Never records and never submits.

use std::collections::HashMap;

use ::wgpu::{
    BindGroup, BindGroupDescriptor, BindGroupEntry, BindGroupLayout, BindGroupLayoutDescriptor, BindGroupLayoutEntry,
    BindingResource, BindingType, Buffer, BufferBinding, BufferBindingType, BufferSize, BufferUsages, CommandBuffer,
    ComputePipeline, ComputePipelineDescriptor, PipelineCompilationOptions, PipelineLayoutDescriptor,
    ShaderModuleDescriptor, ShaderSource, ShaderStages,
};

use crate::exec::slots::SlotPool;
use crate::exec::times::StepLog;
use crate::exec::wgpu::clock::Clock;
use crate::exec::wgpu::gpu::{DEVICE, Gpu};
use crate::exec::{ExecError, Inputs, STEPS_IN_FLIGHT};
use crate::plan::command::{BufferId, BufferKind, Command, Dispatch, Kernel};
use crate::plan::{CheckedPlan, Plan};

/// A plan with everything that its steps need.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) plan: CheckedPlan,
    /// In the order of the plan's kernels.
    pub(super) pipelines: Vec<Pipeline>,
    /// In the order of the plan's dispatches. Both frames use them: dispatches never bind a host-visible buffer (P10).
    pub(super) bind_groups: Vec<BindGroup>,
    /// The host-visible buffers that the host writes.
    pub(super) host_writes: Vec<HostWrite>,
    pub(super) frames: [Frame; STEPS_IN_FLIGHT],
    /// Of a plan that is profiled.
    pub(super) log: Option<StepLog>,
}

/// What one step in flight has to itself.
#[derive(Debug)]
pub(super) struct Frame {
    /// In the order of the plan's buffers; those that the host reads are this frame's alone, the others are shared.
    pub(super) buffers: Vec<Buffer>,
    /// The next step's commands, if they are recorded.
    pub(super) recorded: Option<CommandBuffer>,
    /// Of a plan whose steps are timed.
    pub(super) clock: Option<Clock>,
}

/// A buffer that the host fills before each step, and what it will hold.
///
/// One is enough for all steps in flight (P10): the host never maps it. `Queue::write_buffer` copies the bytes into
/// staging memory at once and into the buffer only when the queue comes to the next submission, behind all steps
/// before.
#[derive(Debug)]
pub(super) struct HostWrite {
    pub(super) id: BufferId,
    pub(super) buffer: Buffer,
    pub(super) bytes: Vec<u8>,
}

impl Prepared {
    /// Puts the inputs where the next step's writes take them from.
    pub(super) fn fill(&mut self, inputs: &Inputs) -> Result<(), ExecError> {
        for input in &self.plan.inputs {
            let elements = inputs.get(input)?;
            let host = self.host_writes.iter_mut().find(|host| host.id == input.slice.buffer);
            let host = host.expect("an input lies in a host-written buffer (P1)");
            let at = input.slice.offset_bytes as usize;
            for (word, element) in host.bytes[at..].as_chunks_mut::<4>().0.iter_mut().zip(elements) {
                *word = element.to_le_bytes();
            }
        }
        Ok(())
    }

    /// What binds the plan to the slots of this pool.
    pub(super) fn rebound(&self, gpu: &Gpu, pool: &SlotPool<Buffer>) -> Result<Rebound, ExecError> {
        let slots = pool.draw(&self.plan);
        let mut buffers = self.frames[0].buffers.clone();
        slots.iter().for_each(|(id, slot)| buffers[id.index()] = slot.clone());
        Ok(Rebound { bind_groups: bind_groups(gpu, &self.plan, &self.pipelines, &buffers)?, slots })
    }

    /// Binds the plan to other slots; what was recorded ahead is recorded again when its turn comes. wgpu keeps the
    /// ones before for as long as a step in flight uses them.
    pub(super) fn rebind(&mut self, rebound: Rebound) {
        self.bind_groups = rebound.bind_groups;
        for frame in &mut self.frames {
            frame.recorded = None;
            rebound.slots.iter().for_each(|(id, slot)| frame.buffers[id.index()] = slot.clone());
        }
    }
}

/// A plan's bind groups and slots, where a pool has grown.
pub(super) struct Rebound {
    bind_groups: Vec<BindGroup>,
    slots: HashMap<BufferId, Buffer>,
}

/// The pipelines of all plans of a session.
#[derive(Debug, Default)]
pub(super) struct PipelineCache {
    made: HashMap<PipelineKey, Pipeline>,
}

/// All that wgpu is told about a kernel, but its label.
#[derive(Debug, PartialEq, Eq, Hash)]
struct PipelineKey {
    wgsl: String,
    entry: String,
    zero_workgroup_memory: bool,
    runtime_checks: bool,
    /// Of each binding: whether it is written, and its least bytes.
    bindings: Vec<(bool, u64)>,
}

/// A compiled kernel and the types of its bindings.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    pub(super) pipeline: ComputePipeline,
    layout: BindGroupLayout,
}

impl PipelineCache {
    fn get(&mut self, gpu: &Gpu, kernel: &Kernel) -> Result<Pipeline, ExecError> {
        let key = PipelineKey {
            wgsl: kernel.wgsl.clone(),
            entry: kernel.entry.clone(),
            zero_workgroup_memory: kernel.zero_workgroup_memory,
            runtime_checks: kernel.runtime_checks,
            bindings: kernel.bindings.iter().map(|binding| (binding.writes, binding.min_bytes)).collect(),
        };
        if let Some(pipeline) = self.made.get(&key) {
            return Ok(pipeline.clone());
        }
        let made = gpu.scoped(|| format!("kernel `{}`", kernel.label), || make_pipeline(gpu, kernel))?;
        self.made.insert(key, made.clone());
        Ok(made)
    }
}

/// Always with naga's run-time checks, see the executor's module.
fn make_pipeline(gpu: &Gpu, kernel: &Kernel) -> Pipeline {
    let label = Some(kernel.label.as_str());
    let entries: Vec<BindGroupLayoutEntry> = (0..)
        .zip(&kernel.bindings)
        .map(|(binding, port)| BindGroupLayoutEntry {
            binding,
            visibility: ShaderStages::COMPUTE,
            ty: BindingType::Buffer {
                ty: BufferBindingType::Storage { read_only: !port.writes },
                has_dynamic_offset: false,
                min_binding_size: BufferSize::new(port.min_bytes),
            },
            count: None,
        })
        .collect();
    let layout = gpu.device.create_bind_group_layout(&BindGroupLayoutDescriptor { label, entries: &entries });
    let pipeline_layout = gpu.device.create_pipeline_layout(&PipelineLayoutDescriptor {
        label,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let source = ShaderSource::Wgsl(kernel.wgsl.as_str().into());
    let module = gpu.device.create_shader_module(ShaderModuleDescriptor { label, source });
    let pipeline = gpu.device.create_compute_pipeline(&ComputePipelineDescriptor {
        label,
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some(&kernel.entry),
        compilation_options: PipelineCompilationOptions {
            constants: &[],
            zero_initialize_workgroup_memory: kernel.zero_workgroup_memory,
        },
        cache: None,
    });
    Pipeline { pipeline, layout }
}

/// Makes what a plan needs.
pub(super) fn prepare(
    gpu: &Gpu,
    plan: CheckedPlan,
    weights: &[Buffer],
    state: &[Buffer],
    slots: &SlotPool<Buffer>,
    cache: &mut PipelineCache,
) -> Result<Prepared, ExecError> {
    let drawn = slots.draw(&plan);
    let mut buffers = Vec::with_capacity(plan.buffers.len());
    let mut host_writes = Vec::new();
    for (id, buffer) in plan.buffers.iter() {
        buffers.push(match buffer.kind {
            BufferKind::Weight { index } => weights[index as usize].clone(),
            BufferKind::State { index } => state[index as usize].clone(),
            BufferKind::Slot => drawn[&id].clone(),
            BufferKind::Input => gpu.buffer(&buffer.label, buffer.size_bytes, DEVICE)?,
            BufferKind::HostRead => read_back(gpu, &plan, id)?,
            BufferKind::HostWrite => {
                let usage = BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
                let made = gpu.buffer(&buffer.label, buffer.size_bytes, usage)?;
                let bytes = vec![0; buffer.size_bytes as usize];
                host_writes.push(HostWrite { id, buffer: made.clone(), bytes });
                made
            }
        });
    }
    let pipelines = plan.kernels.values().map(|kernel| cache.get(gpu, kernel)).collect::<Result<Vec<_>, _>>()?;
    let bind_groups = bind_groups(gpu, &plan, &pipelines, &buffers)?;
    let mut second = buffers.clone();
    for (id, buffer) in plan.buffers.iter() {
        if buffer.kind == BufferKind::HostRead {
            second[id.index()] = read_back(gpu, &plan, id)?;
        }
    }
    let frames = [buffers, second].map(|buffers| Frame { buffers, recorded: None, clock: None });
    Ok(Prepared { plan, pipelines, bind_groups, host_writes, frames, log: None })
}

fn read_back(gpu: &Gpu, plan: &Plan, id: BufferId) -> Result<Buffer, ExecError> {
    let buffer = &plan.buffers[id];
    gpu.buffer(&buffer.label, buffer.size_bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST)
}

/// The bind group of every dispatch, in order.
fn bind_groups(
    gpu: &Gpu,
    plan: &Plan,
    pipelines: &[Pipeline],
    buffers: &[Buffer],
) -> Result<Vec<BindGroup>, ExecError> {
    let dispatches = plan.commands().filter_map(|command| match command {
        Command::Dispatch(dispatch) => Some(dispatch),
        Command::Copy(_) => None,
    });
    dispatches.map(|dispatch| bind_group(gpu, &pipelines[dispatch.kernel.index()].layout, dispatch, buffers)).collect()
}

fn bind_group(
    gpu: &Gpu,
    layout: &BindGroupLayout,
    dispatch: &Dispatch,
    buffers: &[Buffer],
) -> Result<BindGroup, ExecError> {
    let entries: Vec<BindGroupEntry<'_>> = (0..)
        .zip(&dispatch.bindings)
        .map(|(binding, slice)| BindGroupEntry {
            binding,
            resource: BindingResource::Buffer(BufferBinding {
                buffer: &buffers[slice.buffer.index()],
                offset: slice.offset_bytes,
                size: BufferSize::new(slice.size_bytes),
            }),
        })
        .collect();
    let descriptor = BindGroupDescriptor { label: Some(&dispatch.label), layout, entries: &entries };
    let what = || format!("bindings of `{}`", dispatch.label);
    gpu.scoped(what, || gpu.device.create_bind_group(&descriptor))
}
