//! A session: prepared plans over one set of weights and state.
//!
//! Gets checked plans and the inputs of steps; returns outputs. What holds then: a frame is written, recorded and read
//! only after its last step has finished. Its commands are recorded while the GPU runs the other frame's, if it is free
//! then, and submitted again for every later step where the device allows it; nothing in them depends on what the host
//! writes. Never names a hal type: owners do that.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;
use wgpu_hal::Api;

use crate::base::limits::Limits;
use crate::exec::hal::clock::Clock;
use crate::exec::hal::device::{BindGroup, Buffer, Encoder, Gpu, HostBuffer, Pipeline, Timeline};
use crate::exec::hal::encode::{PlanRecorder, buffer_uses};
use crate::exec::hal::upload::{Resting, read_back, write};
use crate::exec::hal::{DEVICE_USES, HalOptions};
use crate::exec::replay::{Edit, Recorder, Tracker, replay};
use crate::exec::slots::SlotPool;
use crate::exec::times::{Grain, HostWork, StepLog};
use crate::exec::{
    CpuCost, ExecError, GpuCost, Inputs, MemoryUse, Outputs, PlanId, STEPS_IN_FLIGHT, Session, Ticket, bytes_of,
};
use crate::plan::command::{BufferId, BufferKind, Copy, Dispatch, Kernel, Transition};
use crate::plan::usage::Usage;
use crate::plan::weights::{StateBuffer, StateLayout};
use crate::plan::{CheckedPlan, Plan};
use crate::tensor::Tensor;

/// What lives as long as a session: weights and state, uploaded and at rest.
pub(super) struct Contents<A: Api> {
    pub(super) weights: Vec<Rc<Buffer<A>>>,
    pub(super) weight_hash: String,
    pub(super) weight_bytes: u64,
    pub(super) state: Vec<Rc<Buffer<A>>>,
    pub(super) state_layout: StateLayout,
}

/// What makes two kernels the same pipeline: text, entry point, each binding's writes and least bytes, checks, zeroing.
type PipelineKey = (String, String, Vec<(bool, u64)>, bool, bool);

/// Weights, state and prepared plans on one device.
pub struct HalSession<A: Api> {
    // Dropped first: waits until the GPU is done with everything below.
    timeline: Timeline<A>,
    plans: Vec<Prepared<A>>,
    /// What the slots of all plans are bound to. hal remembers no usages and slots have no contents between steps, so a
    /// fresh buffer is at rest as it is.
    slots: SlotPool<Rc<Buffer<A>>>,
    pipelines: HashMap<PipelineKey, Rc<Pipeline<A>>>,
    contents: Contents<A>,
    limits: Limits,
    options: HalOptions,
    cost: CpuCost,
    gpu_cost: GpuCost,
    gpu: Arc<Gpu<A>>,
}

/// A plan with everything it needs.
struct Prepared<A: Api> {
    frames: [Frame<A>; STEPS_IN_FLIGHT],
    bound: Bound<A>,
    /// By kernel id.
    kernels: Vec<Rc<Pipeline<A>>>,
    plan: CheckedPlan,
    /// Changes to the next step alone.
    edits: Vec<Edit>,
    /// Of a plan that is profiled.
    log: Option<StepLog>,
}

/// What a plan's commands reach.
struct Bound<A: Api> {
    /// By dispatch index.
    groups: Vec<BindGroup<A>>,
    /// By buffer id; nothing for host-visible ones, of which each frame has its own.
    buffers: Vec<Option<Rc<Buffer<A>>>>,
}

/// What commands a frame has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commands {
    /// None: they are to be recorded.
    Missing,
    /// For the next step alone.
    Once,
    /// For all steps to come.
    Kept,
}

/// What one step in flight has to itself (P10).
struct Frame<A: Api> {
    encoder: Encoder<A>,
    /// By buffer id; nothing for device buffers.
    hosts: Vec<Option<HostBuffer<A>>>,
    /// What its encoder holds for its next step, which has to wait for its last one.
    commands: Commands,
    /// What the timeline reaches when its last step has finished; zero before the first.
    value: u64,
    /// Whether that step's outputs wait to be fetched.
    is_unread: bool,
    /// Of a plan whose steps are timed.
    clock: Option<Clock<A>>,
    /// Whether the last step's time was not counted yet.
    is_untimed: bool,
}

impl<A: Api> Frame<A> {
    fn new(gpu: &Arc<Gpu<A>>, plan: &Plan, grain: Option<Grain>) -> Result<Self, ExecError> {
        let host = |buffer: &crate::plan::command::Buffer| {
            let usage = match buffer.kind {
                BufferKind::HostWrite => Usage::MAP_WRITE.union(Usage::COPY_SRC),
                BufferKind::HostRead => Usage::MAP_READ.union(Usage::COPY_DST),
                _ => return Ok(None),
            };
            HostBuffer::new(gpu, &buffer.label, buffer.size_bytes, buffer_uses(usage)).map(Some)
        };
        let hosts = plan.buffers.values().map(host).collect::<Result<Vec<_>, _>>()?;
        let clock = grain.map(|grain| Clock::new(gpu, plan, grain)).transpose()?.flatten();
        let encoder = Encoder::new(gpu)?;
        let commands = Commands::Missing;
        Ok(Self { encoder, hosts, commands, value: 0, is_unread: false, clock, is_untimed: false })
    }

    fn is_recorded(&self) -> bool {
        self.commands != Commands::Missing
    }

    /// Counts the time of the last step, which has been waited for, unless that was done.
    fn count_time(&mut self, cost: &mut GpuCost, log: Option<&mut StepLog>) {
        if std::mem::take(&mut self.is_untimed)
            && let Some(times) = self.clock.as_ref().and_then(Clock::times)
        {
            cost.steps += 1;
            cost.ns += times.total_ns();
            if let Some(log) = log {
                log.steps.push(times);
            }
        }
    }
}

/// This frame's buffer for an input or output of the plan.
fn host<A: Api>(hosts: &mut [Option<HostBuffer<A>>], id: BufferId) -> &mut HostBuffer<A> {
    hosts[id.index()].as_mut().expect("inputs and outputs of a plan are in host-visible buffers (P10)")
}

impl<A: Api> Prepared<A> {
    /// Records the commands of a frame whose last step has finished.
    fn record(&mut self, frame: usize, options: &HalOptions, cost: &mut CpuCost) -> Result<(), ExecError> {
        let start = Instant::now();
        let mut edits = std::mem::take(&mut self.edits);
        let is_planned = edits.is_empty();
        edits.extend(options.dropped.map(|at| Edit { at, with: None }));
        let Self { frames, bound: Bound { groups, buffers }, plan, log, .. } = self;
        let Frame { encoder, hosts, commands, clock, .. } = &mut frames[frame];
        let mut tracker = options.track.then(|| Tracker::new(plan));
        let label = plan.graph.as_str();
        encoder.record(label, |encoder| {
            let mut recorder = PlanRecorder::<A>::new(encoder, label, buffers, groups, hosts, clock.as_ref());
            let result = replay(plan, &mut recorder, tracker.as_mut(), &edits);
            recorder.finish();
            result
        })?;
        *commands = if is_planned && encoder.keeps_commands() { Commands::Kept } else { Commands::Once };
        cost.recordings += 1;
        cost.record_ns += start.elapsed().as_nanos() as u64;
        if let Some(log) = log {
            log.note(HostWork::Record, start);
        }
        Ok(())
    }

    /// What the plan is bound to once its slots are those of this pool.
    fn rebound(&self, pool: &SlotPool<Rc<Buffer<A>>>) -> Result<Bound<A>, ExecError> {
        let mut buffers = self.bound.buffers.clone();
        for (id, slot) in pool.draw(&self.plan) {
            buffers[id.index()] = Some(slot);
        }
        let groups = bind_groups(&self.plan, &self.kernels, &buffers)?;
        Ok(Bound { groups, buffers })
    }

    /// Binds the plan anew. The GPU is done with all of its steps; what was recorded is recorded again when its turn
    /// comes.
    fn rebind(&mut self, bound: Bound<A>) {
        for frame in &mut self.frames {
            frame.encoder.reset();
            frame.commands = Commands::Missing;
        }
        self.bound = bound;
    }
}

impl<A: Api> HalSession<A> {
    pub(super) fn new(
        gpu: &Arc<Gpu<A>>,
        contents: Contents<A>,
        limits: Limits,
        options: HalOptions,
    ) -> Result<Self, ExecError> {
        Ok(Self {
            timeline: Timeline::new(gpu)?,
            plans: Vec::new(),
            slots: SlotPool::new(),
            pipelines: HashMap::new(),
            contents,
            limits,
            options,
            cost: CpuCost::default(),
            gpu_cost: GpuCost::default(),
            gpu: gpu.clone(),
        })
    }

    fn prepare_as(&mut self, plan: CheckedPlan, grain: Option<Grain>) -> Result<PlanId, ExecError> {
        self.admit(&plan)?;
        let slots = self.slots.grown_for(&plan, |label, size_bytes| {
            Buffer::new(&self.gpu, label, size_bytes, buffer_uses(DEVICE_USES)).map(Rc::new)
        })?;
        let kernels = self.pipelines(&plan)?;
        let buffers = self.device_buffers(&plan, &slots)?;
        let groups = bind_groups(&plan, &kernels, &buffers)?;
        let frames = [Frame::new(&self.gpu, &plan, grain)?, Frame::new(&self.gpu, &plan, grain)?];
        let mut rebound = Vec::new();
        for (nth, prepared) in self.plans.iter().enumerate() {
            if slots.rebinds(&self.slots, &prepared.plan) {
                rebound.push((nth, prepared.rebound(&slots)?));
            }
        }
        if !rebound.is_empty() {
            // What is replaced below is freed.
            self.timeline.wait_idle()?;
        }
        // Nothing fails from here on, so that plans and pool agree on every path.
        for (nth, bound) in rebound {
            self.plans[nth].rebind(bound);
        }
        self.slots = slots;
        let bound = Bound { groups, buffers };
        self.plans.push(Prepared { frames, bound, kernels, plan, edits: Vec::new(), log: None });
        Ok(PlanId(self.plans.len() - 1))
    }

    /// Changes transitions of the plan's next step, and of that step alone; what was recorded is recorded anew. What
    /// such a step computes means nothing: it is there to see what notices. That a transition does not exist is the
    /// step's error.
    ///
    /// # Panics
    /// If the session has prepared no such plan.
    pub fn edit_next(&mut self, plan: PlanId, edits: &[Edit]) {
        let prepared = &mut self.plans[plan.0];
        // Steps may be in flight: encoders are reset when they record.
        prepared.frames.iter_mut().for_each(|frame| frame.commands = Commands::Missing);
        prepared.edits = edits.to_vec();
    }

    /// Refuses a plan that this session or its device cannot run.
    fn admit(&self, plan: &Plan) -> Result<(), ExecError> {
        let (theirs, ours) = (plan.weights.hash(), &self.contents.weight_hash);
        if theirs != *ours {
            let reason = format!("it expects weight layout `{theirs}`, the session holds `{ours}`");
            return Err(ExecError::OtherLayout { reason });
        }
        if !self.contents.state_layout.begins_with(&plan.state) {
            let other = plan.state.buffers.iter().zip(&self.contents.state_layout.buffers).find(|(a, b)| a != b);
            let reason = match other {
                Some((theirs, ours)) => format!("it expects state {theirs:?}, the session holds {ours:?}"),
                None => {
                    let (theirs, ours) = (plan.state.buffers.len(), self.contents.state_layout.buffers.len());
                    format!("it expects {theirs} state buffers, the session holds {ours}")
                }
            };
            return Err(ExecError::OtherLayout { reason });
        }
        let missing = self.limits.missing_for(&plan.limits);
        if missing.is_empty() { Ok(()) } else { Err(ExecError::TooSmall { missing }) }
    }

    /// The pipelines of the plan's kernels, by their ids. Those that no plan had before are made on all threads: each
    /// goes through naga and the driver's compiler on its own, which is most of what preparing a plan takes.
    fn pipelines(&mut self, plan: &Plan) -> Result<Vec<Rc<Pipeline<A>>>, ExecError> {
        let keys: Vec<PipelineKey> = plan.kernels.values().map(pipeline_key).collect();
        let mut missing: Vec<(&PipelineKey, &Kernel)> = Vec::new();
        let mut seen = HashSet::new();
        for (key, kernel) in keys.iter().zip(plan.kernels.values()) {
            if !self.pipelines.contains_key(key) && seen.insert(key) {
                missing.push((key, kernel));
            }
        }
        let gpu = &self.gpu;
        let made: Vec<_> = missing.par_iter().map(|(_, kernel)| Pipeline::new(gpu, kernel)).collect();
        // The first failure in the plan's order, whichever thread was first. What is made is kept whatever fails.
        let mut failure = None;
        for ((key, _), made) in missing.into_iter().zip(made) {
            match made {
                Ok(pipeline) => drop(self.pipelines.insert(key.clone(), Rc::new(pipeline))),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or_else(|| Ok(keys.iter().map(|key| self.pipelines[key].clone()).collect()), Err)
    }

    /// The device buffer of every buffer of the plan that has one.
    fn device_buffers(
        &self,
        plan: &Plan,
        slots: &SlotPool<Rc<Buffer<A>>>,
    ) -> Result<Vec<Option<Rc<Buffer<A>>>>, ExecError> {
        let slots = slots.draw(plan);
        let mut buffers = Vec::with_capacity(plan.buffers.len());
        for (id, buffer) in plan.buffers.iter() {
            buffers.push(match buffer.kind {
                BufferKind::Weight { index } => Some(self.contents.weights[index as usize].clone()),
                BufferKind::State { index } => Some(self.contents.state[index as usize].clone()),
                BufferKind::Slot => Some(slots[&id].clone()),
                BufferKind::Input => {
                    let uses = buffer_uses(DEVICE_USES);
                    Some(Rc::new(Buffer::new(&self.gpu, &buffer.label, buffer.size_bytes, uses)?))
                }
                BufferKind::HostWrite | BufferKind::HostRead => None,
            });
        }
        Ok(buffers)
    }
}

fn pipeline_key(kernel: &Kernel) -> PipelineKey {
    let bindings = kernel.bindings.iter().map(|binding| (binding.writes, binding.min_bytes)).collect();
    let (checks, zero) = (kernel.runtime_checks, kernel.zero_workgroup_memory);
    (kernel.wgsl.clone(), kernel.entry.clone(), bindings, checks, zero)
}

/// The bind group of every dispatch, in order.
fn bind_groups<A: Api>(
    plan: &Plan,
    kernels: &[Rc<Pipeline<A>>],
    buffers: &[Option<Rc<Buffer<A>>>],
) -> Result<Vec<BindGroup<A>>, ExecError> {
    let mut recorder = GroupMaker { kernels, buffers, groups: Vec::new() };
    replay(plan, &mut recorder, None, &[])?;
    Ok(recorder.groups)
}

impl<A: Api> Contents<A> {
    /// A row of a state buffer, and the buffer's layout.
    ///
    /// # Panics
    /// If there is no such row.
    fn row(&self, buffer: u32, row: u64) -> (Resting<'_, A>, &StateBuffer) {
        let layout = &self.state_layout.buffers[buffer as usize];
        assert!(row < layout.rows, "`{}` has {} rows, row {row} was asked for", layout.label, layout.rows);
        let buffer = &self.state[buffer as usize];
        (Resting { buffer, rest: layout.rest, offset_bytes: row * layout.row_bytes() }, layout)
    }
}

/// Makes the bind group of every dispatch that it is called with.
struct GroupMaker<'a, A: Api> {
    /// By kernel id.
    kernels: &'a [Rc<Pipeline<A>>],
    buffers: &'a [Option<Rc<Buffer<A>>>],
    groups: Vec<BindGroup<A>>,
}

impl<A: Api> Recorder for GroupMaker<'_, A> {
    fn barrier(&mut self, _: &[Transition]) -> Result<(), ExecError> {
        Ok(())
    }

    fn dispatch(&mut self, _: usize, dispatch: &Dispatch) -> Result<(), ExecError> {
        let bound = dispatch.bindings.iter().map(|slice| {
            let buffer = self.buffers[slice.buffer.index()].clone();
            let buffer = buffer.expect("host-visible buffers are reached through copies only (P10)");
            (buffer, slice.offset_bytes, slice.size_bytes)
        });
        let kernel = &self.kernels[dispatch.kernel.index()];
        self.groups.push(BindGroup::new(kernel, &dispatch.label, bound.collect())?);
        Ok(())
    }

    fn copy(&mut self, _: &Copy) -> Result<(), ExecError> {
        Ok(())
    }
}

impl<A: Api> Session for HalSession<A> {
    fn prepare(&mut self, plan: CheckedPlan) -> Result<PlanId, ExecError> {
        self.prepare_as(plan, None)
    }

    fn prepare_timed(&mut self, plan: CheckedPlan) -> Result<PlanId, ExecError> {
        self.prepare_as(plan, Some(Grain::Step))
    }

    fn prepare_profiled(&mut self, plan: CheckedPlan, grain: Grain) -> Result<PlanId, ExecError> {
        if !self.gpu.timestamps_in_passes {
            let reason = "the device has no timestamps inside compute passes (TIMESTAMP_QUERY_INSIDE_PASSES)";
            return Err(ExecError::NoClock { reason: reason.to_owned() });
        }
        let id = self.prepare_as(plan, Some(grain))?;
        self.plans[id.0].log = Some(StepLog::default());
        Ok(id)
    }

    fn take_log(&mut self, plan: PlanId) -> StepLog {
        self.plans[plan.0].log.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn step(&mut self, plan: PlanId, inputs: &Inputs) -> Result<Ticket, ExecError> {
        let prepared = &mut self.plans[plan.0];
        for input in &prepared.plan.inputs {
            inputs.get(input)?;
        }
        let frames = &prepared.frames;
        // A frame whose outputs nobody waits for before one whose outputs would be lost; then the one that is ready;
        // then the oldest.
        let current = (0..STEPS_IN_FLIGHT)
            .min_by_key(|at| (frames[*at].is_unread, !frames[*at].is_recorded(), frames[*at].value))
            .expect("there is at least one frame");
        self.timeline.wait(prepared.frames[current].value)?;
        prepared.frames[current].count_time(&mut self.gpu_cost, prepared.log.as_mut());
        if !prepared.frames[current].is_recorded() {
            prepared.record(current, &self.options, &mut self.cost)?;
        }

        let start = Instant::now();
        let frame = &mut prepared.frames[current];
        for input in &prepared.plan.inputs {
            let bytes = bytemuck::cast_slice(inputs.get(input)?);
            host(&mut frame.hosts, input.slice.buffer).write(input.slice.offset_bytes, bytes);
        }
        frame.hosts.iter().flatten().for_each(HostBuffer::flush);
        frame.value = self.timeline.submit(&mut frame.encoder)?;
        if frame.commands == Commands::Once {
            frame.commands = Commands::Missing;
        }
        frame.is_unread = true;
        frame.is_untimed = frame.clock.is_some();
        let ticket = Ticket(frame.value);
        self.cost.submit_ns += start.elapsed().as_nanos() as u64;
        self.cost.steps += 1;
        if let Some(log) = &mut prepared.log {
            log.note(HostWork::Submit, start);
        }

        let next = (current + 1) % STEPS_IN_FLIGHT;
        // Only what costs no waiting: a frame still in flight is recorded when its turn comes, while the other one
        // runs.
        let frame = &prepared.frames[next];
        if !frame.is_recorded() && self.timeline.finished().is_ok_and(|finished| frame.value <= finished) {
            // This step runs, so its ticket is returned whatever happens here: the next step records and reports.
            let _ = prepared.record(next, &self.options, &mut self.cost);
        }
        Ok(ticket)
    }

    fn outputs(&mut self, ticket: Ticket) -> Result<Outputs, ExecError> {
        let found = self.plans.iter_mut().find_map(|prepared| {
            let frame = prepared.frames.iter_mut().find(|frame| frame.is_unread && frame.value == ticket.0)?;
            Some((&prepared.plan, frame, prepared.log.as_mut()))
        });
        let Some((plan, frame, log)) = found else {
            let reason = format!("step {} has no outputs: they were fetched or discarded before", ticket.0);
            return Err(ExecError::Device { reason });
        };
        self.timeline.wait(frame.value)?;
        frame.count_time(&mut self.gpu_cost, log);
        frame.is_unread = false;
        frame.hosts.iter().flatten().for_each(HostBuffer::invalidate);
        let tensors = plan.outputs.iter().map(|output| {
            let size_bytes = output.shape.iter().product::<u64>() * output.dtype.size_bytes();
            assert!(size_bytes <= output.slice.size_bytes, "an output fits its slice (P2)");
            let bytes =
                host(&mut frame.hosts, output.slice.buffer).read(output.slice.offset_bytes, size_bytes as usize);
            (output.name.clone(), output.role, Tensor { dtype: output.dtype, shape: output.shape.clone(), bytes })
        });
        Ok(Outputs { tensors: tensors.collect() })
    }

    fn read_state(&mut self, buffer: u32, row: u64) -> Result<Tensor, ExecError> {
        self.timeline.wait_idle()?;
        let (range, layout) = self.contents.row(buffer, row);
        let bytes = read_back(&self.gpu, &mut self.timeline, &range, layout.row_bytes())?;
        Ok(Tensor { dtype: layout.dtype, shape: layout.row_shape.clone(), bytes })
    }

    fn write_state(&mut self, buffer: u32, row: u64, row_bytes: &[u8]) -> Result<(), ExecError> {
        self.timeline.wait_idle()?;
        let (range, layout) = self.contents.row(buffer, row);
        assert_eq!(row_bytes.len() as u64, layout.row_bytes(), "the bytes are one row of `{}`", layout.label);
        write(&self.gpu, &mut self.timeline, &range, row_bytes)
    }

    fn memory(&self) -> MemoryUse {
        let plans = || self.plans.iter().map(|prepared| &*prepared.plan);
        let host = |plan: &Plan| bytes_of(plan, BufferKind::HostWrite) + bytes_of(plan, BufferKind::HostRead);
        MemoryUse {
            weight_bytes: self.contents.weight_bytes,
            state_bytes: self.contents.state_layout.buffers.iter().map(StateBuffer::size_bytes).sum(),
            slot_bytes: self.slots.size_bytes(),
            input_bytes: plans().map(|plan| bytes_of(plan, BufferKind::Input)).sum(),
            // Each frame has its own.
            host_bytes: plans().map(|plan| host(plan) * STEPS_IN_FLIGHT as u64).sum(),
        }
    }

    fn cpu_cost(&self) -> CpuCost {
        self.cost
    }

    fn gpu_cost(&self) -> GpuCost {
        self.gpu_cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::hal::NoopExecutor;
    use crate::exec::replay::TransitionAt;
    use crate::exec::testing;

    /// A step that was submitted runs, and its ticket is the only way to its outputs.
    #[test]
    fn a_ticket_is_kept_when_the_next_step_cannot_be_recorded() {
        let options = HalOptions { track: true, validation_layers: false, dropped: None };
        let mut session = testing::open(&NoopExecutor::new(&options, None).expect("the no-op device"));
        let id = session.prepare(testing::plan()).expect("prepared");
        // The first frame is recorded as it should be; all that come after are refused by the tracker.
        session.plans[id.0].record(0, &options, &mut CpuCost::default()).expect("recorded");
        session.options.dropped = Some(TransitionAt { level: 0, transition: 0 });
        let ticket = session.step(id, &testing::inputs()).expect("submitted");
        assert!(!session.plans[id.0].frames[1].is_recorded(), "recording the next step failed");
        assert_eq!(session.cpu_cost().steps, 1);
        let error = session.step(id, &testing::inputs()).expect_err("the next step reports it");
        session.outputs(ticket).expect("its outputs can be had");
        assert!(matches!(error, ExecError::Usage { .. }), "{error}");
    }
}
