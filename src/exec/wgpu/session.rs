//! Steps: inputs in, commands submitted, outputs out.
//!
//! Gets prepared plans and inputs, returns tickets and outputs. What holds then: at most [`STEPS_IN_FLIGHT`] steps of
//! a session have outputs outstanding, no two of them share a frame, and no buffer is mapped, or about to be, when
//! commands that use it are submitted. Never creates a GPU object in a step but its command buffer.

use std::collections::VecDeque;

use ::wgpu::{Buffer, CommandBuffer, CommandEncoder, CommandEncoderDescriptor, ComputePass, ComputePassDescriptor};

use crate::base::limits::Limits;
use crate::exec::replay::{Recorder, Tracker, replay};
use crate::exec::slots::SlotPool;
use crate::exec::times::{Grain, HostWork, StepLog};
use crate::exec::wgpu::clock::{self, Clock};
use crate::exec::wgpu::gpu::{DEVICE, Gpu, Mapping};
use crate::exec::wgpu::prepare::{Frame, PipelineCache, Prepared, prepare};
use crate::exec::{
    CpuCost, ExecError, GpuCost, Inputs, MemoryUse, Outputs, PlanId, STEPS_IN_FLIGHT, Session, Ticket, bytes_of,
};
use crate::plan::command::{BufferId, BufferKind, Copy, Dispatch, KernelId, Transition};
use crate::plan::weights::{StateBuffer, StateLayout};
use crate::plan::{CheckedPlan, Plan};
use crate::tensor::Tensor;

/// Weights, state and prepared plans on one wgpu device.
#[derive(Debug)]
pub struct WgpuSession {
    gpu: Gpu,
    limits: Limits,
    weight_layout: String,
    weights: Vec<Buffer>,
    state_layout: StateLayout,
    state: Vec<Buffer>,
    slots: SlotPool<Buffer>,
    pipelines: PipelineCache,
    plans: Vec<Prepared>,
    /// Steps whose outputs were not fetched yet, oldest first.
    flights: VecDeque<Flight>,
    next_ticket: u64,
    cost: CpuCost,
    gpu_cost: GpuCost,
    track: bool,
}

/// A submitted step.
#[derive(Debug)]
struct Flight {
    ticket: Ticket,
    plan: usize,
    frame: usize,
    submission: ::wgpu::SubmissionIndex,
    /// Of each buffer that the host reads.
    mappings: Vec<(BufferId, Mapping)>,
    /// Of the timestamps, if the plan's steps are timed.
    stamps: Option<Mapping>,
}

impl WgpuSession {
    pub(super) fn new(
        gpu: Gpu,
        limits: Limits,
        weight_layout: String,
        weights: Vec<Buffer>,
        state_layout: StateLayout,
        state: Vec<Buffer>,
        track: bool,
    ) -> Self {
        Self {
            gpu,
            limits,
            weight_layout,
            weights,
            state_layout,
            state,
            slots: SlotPool::new(),
            pipelines: PipelineCache::default(),
            plans: Vec::new(),
            flights: VecDeque::new(),
            next_ticket: 0,
            cost: CpuCost::default(),
            gpu_cost: GpuCost::default(),
            track,
        }
    }

    /// Whether a plan belongs here and fits the device.
    fn admit(&self, plan: &Plan) -> Result<(), ExecError> {
        let hash = plan.weights.hash();
        if hash != self.weight_layout {
            let reason = format!("it was made for weight layout {hash}, the session has {}", self.weight_layout);
            return Err(ExecError::OtherLayout { reason });
        }
        if !self.state_layout.begins_with(&plan.state) {
            let (theirs, ours) = (&plan.state.buffers, &self.state_layout.buffers);
            let reason = match theirs.iter().zip(ours).find(|(theirs, ours)| theirs != ours) {
                Some((theirs, ours)) => format!("it expects state {theirs:?}, the session has {ours:?}"),
                None => format!("it expects {} state buffers, the session has {}", theirs.len(), ours.len()),
            };
            return Err(ExecError::OtherLayout { reason });
        }
        let missing = self.limits.missing_for(&plan.limits);
        if missing.is_empty() { Ok(()) } else { Err(ExecError::TooSmall { missing }) }
    }

    /// A clock for each frame of a plan.
    fn clocks(&self, plan: &Plan, grain: Grain) -> Result<[Option<Clock>; STEPS_IN_FLIGHT], ExecError> {
        Ok([Clock::new(&self.gpu, plan, grain)?, Clock::new(&self.gpu, plan, grain)?])
    }

    fn prepare_with(
        &mut self,
        plan: CheckedPlan,
        clocks: [Option<Clock>; STEPS_IN_FLIGHT],
    ) -> Result<PlanId, ExecError> {
        let id = self.prepare(plan)?;
        for (frame, clock) in self.plans[id.0].frames.iter_mut().zip(clocks) {
            frame.clock = clock;
        }
        Ok(id)
    }

    /// Waits for the oldest steps and discards their outputs until another one may be submitted.
    fn make_room(&mut self) -> Result<(), ExecError> {
        while self.flights.len() >= STEPS_IN_FLIGHT {
            let Some(oldest) = self.flights.pop_front() else { break };
            let waited = self.wait(&oldest);
            self.release(&oldest);
            waited?;
        }
        Ok(())
    }

    /// Waits for a step, and counts its time.
    fn wait(&mut self, flight: &Flight) -> Result<(), ExecError> {
        self.gpu.wait(Some(flight.submission.clone()))?;
        let clock = &self.plans[flight.plan].frames[flight.frame].clock;
        if let (Some(clock), Some(stamps)) = (clock, &flight.stamps)
            && let Some(times) = clock.times(stamps)?
        {
            self.gpu_cost.steps += 1;
            self.gpu_cost.ns += times.total_ns();
            if let Some(log) = &mut self.plans[flight.plan].log {
                log.steps.push(times);
            }
        }
        Ok(())
    }

    /// Gives a step's read-back buffers back to its frame. wgpu refuses to submit commands that use a mapped buffer.
    fn release(&self, flight: &Flight) {
        let frame = &self.plans[flight.plan].frames[flight.frame];
        for (id, _) in &flight.mappings {
            frame.buffers[id.index()].unmap();
        }
        if let (Some(clock), Some(_)) = (&frame.clock, &flight.stamps) {
            clock.stamps.unmap();
        }
    }

    /// Records a frame's commands, unless they are.
    fn record(&mut self, plan: usize, frame: usize) -> Result<(), ExecError> {
        if self.plans[plan].frames[frame].recorded.is_some() {
            return Ok(());
        }
        let watch = Stopwatch::start();
        let recorded = record(&self.gpu, &self.plans[plan], frame, self.track)?;
        self.plans[plan].frames[frame].recorded = Some(recorded);
        self.cost.recordings += 1;
        self.cost.record_ns += watch.elapsed_ns();
        watch.note(HostWork::Record, &mut self.plans[plan].log);
        self.gpu.healthy()
    }

    /// Writes the inputs, submits what is recorded, and asks for the read-back buffers.
    fn submit(&mut self, plan: usize, frame: usize) -> Result<Ticket, ExecError> {
        let watch = Stopwatch::start();
        let prepared = &mut self.plans[plan];
        for host in &prepared.host_writes {
            self.gpu.queue.write_buffer(&host.buffer, 0, &host.bytes);
        }
        let Frame { buffers, recorded, clock } = &mut prepared.frames[frame];
        let submission = self.gpu.queue.submit(recorded.take());
        // Asking now saves a second poll in `outputs`: the mapping is there when the wait for the submission returns.
        let read = prepared.plan.buffers.iter().filter(|(_, buffer)| buffer.kind == BufferKind::HostRead);
        let mappings = read.map(|(id, _)| (id, Mapping::start(&buffers[id.index()]))).collect();
        let stamps = clock.as_ref().map(|clock| Mapping::start(&clock.stamps));
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.flights.push_back(Flight { ticket, plan, frame, submission, mappings, stamps });
        self.cost.steps += 1;
        self.cost.submit_ns += watch.elapsed_ns();
        watch.note(HostWork::Submit, &mut self.plans[plan].log);
        self.gpu.healthy()?;
        Ok(ticket)
    }

    /// The outputs of a step that has been waited for.
    fn fetch(&self, flight: &Flight) -> Result<Outputs, ExecError> {
        let prepared = &self.plans[flight.plan];
        let buffers = &prepared.frames[flight.frame].buffers;
        let mut views = Vec::with_capacity(flight.mappings.len());
        for (id, mapping) in &flight.mappings {
            views.push((*id, mapping.view(&buffers[id.index()])?));
        }
        let tensors = prepared.plan.outputs.iter().map(|output| {
            let view = views.iter().find(|(id, _)| *id == output.slice.buffer);
            let (_, view) = view.expect("an output lies in a host-read buffer (P1)");
            let at = output.slice.offset_bytes as usize;
            // The slice is whole words; an odd number of halves leaves the last one's upper half out.
            let size_bytes = output.shape.iter().product::<u64>() * output.dtype.size_bytes();
            let bytes = view[at..at + size_bytes as usize].to_vec();
            (output.name.clone(), output.role, Tensor { dtype: output.dtype, shape: output.shape.clone(), bytes })
        });
        Ok(Outputs { tensors: tensors.collect() })
    }

    /// Where a row of the state lies, and its size.
    fn row(&self, buffer: u32, row: u64) -> Result<(&Buffer, u64, u64), ExecError> {
        let layout = self.state_layout.buffers.get(buffer as usize).filter(|layout| row < layout.rows);
        match layout {
            Some(layout) => Ok((&self.state[buffer as usize], row * layout.row_bytes(), layout.row_bytes())),
            None => Err(ExecError::OtherLayout { reason: format!("the session has no row {row} in state {buffer}") }),
        }
    }
}

impl Session for WgpuSession {
    fn prepare(&mut self, plan: CheckedPlan) -> Result<PlanId, ExecError> {
        self.admit(&plan)?;
        self.gpu.healthy()?;
        let slots = self.slots.grown_for(&plan, |label, size_bytes| self.gpu.buffer(label, size_bytes, DEVICE))?;
        let prepared = prepare(&self.gpu, plan, &self.weights, &self.state, &slots, &mut self.pipelines)?;
        let mut rebound = Vec::new();
        for (nth, other) in self.plans.iter().enumerate() {
            if slots.rebinds(&self.slots, &other.plan) {
                rebound.push((nth, other.rebound(&self.gpu, &slots)?));
            }
        }
        // Nothing fails from here on, so that plans and pool agree on every path.
        for (nth, rebound) in rebound {
            self.plans[nth].rebind(rebound);
        }
        self.slots = slots;
        self.plans.push(prepared);
        Ok(PlanId(self.plans.len() - 1))
    }

    fn prepare_timed(&mut self, plan: CheckedPlan) -> Result<PlanId, ExecError> {
        let clocks = self.clocks(&plan, Grain::Step)?;
        self.prepare_with(plan, clocks)
    }

    fn prepare_profiled(&mut self, plan: CheckedPlan, grain: Grain) -> Result<PlanId, ExecError> {
        if !self.gpu.device.features().contains(clock::FEATURES_IN_PASSES) {
            let reason = format!("the device lacks one of {}", clock::FEATURES_IN_PASSES);
            return Err(ExecError::NoClock { reason });
        }
        let clocks = self.clocks(&plan, grain)?;
        let id = self.prepare_with(plan, clocks)?;
        self.plans[id.0].log = Some(StepLog::default());
        Ok(id)
    }

    fn take_log(&mut self, plan: PlanId) -> StepLog {
        self.plans[plan.0].log.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn step(&mut self, plan: PlanId, inputs: &Inputs) -> Result<Ticket, ExecError> {
        self.gpu.healthy()?;
        let watch = Stopwatch::start();
        self.plans[plan.0].fill(inputs)?;
        self.cost.submit_ns += watch.elapsed_ns();
        self.make_room()?;
        // One step in flight at most now, so that one of the two frames is free; normally they take turns.
        let taken = |frame: &usize| self.flights.iter().any(|flight| flight.plan == plan.0 && flight.frame == *frame);
        let recorded = |frame: &usize| self.plans[plan.0].frames[*frame].recorded.is_some();
        let free = || (0..STEPS_IN_FLIGHT).filter(|frame| !taken(frame));
        let frame = free().find(recorded).or_else(|| free().next()).expect("fewer steps in flight than frames");
        self.record(plan.0, frame)?;
        let ticket = self.submit(plan.0, frame)?;
        // This step runs, so its ticket is returned whatever happens here: the next step records and reports.
        let _ = self.record(plan.0, (frame + 1) % STEPS_IN_FLIGHT);
        Ok(ticket)
    }

    fn outputs(&mut self, ticket: Ticket) -> Result<Outputs, ExecError> {
        self.gpu.healthy()?;
        let at = self.flights.iter().position(|flight| flight.ticket == ticket);
        let Some(flight) = at.and_then(|at| self.flights.remove(at)) else {
            let reason = format!("the outputs of step {} were fetched or discarded before", ticket.0);
            return Err(ExecError::Device { reason });
        };
        let outputs = self.wait(&flight).and_then(|()| self.fetch(&flight));
        self.release(&flight);
        outputs
    }

    /// The tensor's bytes are those of a whole row, as [`Session::write_state`] takes them: whole 32-bit words.
    fn read_state(&mut self, buffer: u32, row: u64) -> Result<Tensor, ExecError> {
        let (source, offset_bytes, size_bytes) = self.row(buffer, row)?;
        let bytes = self.gpu.read(source, offset_bytes, size_bytes)?;
        let layout = &self.state_layout.buffers[buffer as usize];
        Ok(Tensor { dtype: layout.dtype, shape: layout.row_shape.clone(), bytes })
    }

    /// Does not wait: the queue puts the write behind all steps submitted before and ahead of all after, which is the
    /// same.
    fn write_state(&mut self, buffer: u32, row: u64, row_bytes: &[u8]) -> Result<(), ExecError> {
        let (target, offset_bytes, size_bytes) = self.row(buffer, row)?;
        if row_bytes.len() as u64 != size_bytes {
            let reason = format!("a row of state {buffer} has {size_bytes} bytes, {} were given", row_bytes.len());
            return Err(ExecError::OtherLayout { reason });
        }
        self.gpu.scoped(
            || format!("{size_bytes} bytes of staging memory"),
            || {
                self.gpu.queue.write_buffer(target, offset_bytes, row_bytes);
                self.gpu.queue.submit([]);
            },
        )
    }

    fn memory(&self) -> MemoryUse {
        let plans = || self.plans.iter().map(|prepared| &*prepared.plan);
        let read = |plan: &Plan| bytes_of(plan, BufferKind::HostRead) * STEPS_IN_FLIGHT as u64;
        MemoryUse {
            weight_bytes: self.weights.iter().map(Buffer::size).sum(),
            state_bytes: self.state_layout.buffers.iter().map(StateBuffer::size_bytes).sum(),
            slot_bytes: self.slots.size_bytes(),
            input_bytes: plans().map(|plan| bytes_of(plan, BufferKind::Input)).sum(),
            // What the host writes is there once, see `HostWrite`.
            host_bytes: plans().map(|plan| bytes_of(plan, BufferKind::HostWrite) + read(plan)).sum(),
        }
    }

    fn cpu_cost(&self) -> CpuCost {
        self.cost
    }

    fn gpu_cost(&self) -> GpuCost {
        self.gpu_cost
    }
}

/// Records a step of a plan for one of its frames.
fn record(gpu: &Gpu, prepared: &Prepared, frame: usize, track: bool) -> Result<CommandBuffer, ExecError> {
    let label = Some(prepared.plan.graph.as_str());
    let encoder = gpu.device.create_command_encoder(&CommandEncoderDescriptor { label });
    let clock = prepared.frames[frame].clock.as_ref();
    let buffers = &prepared.frames[frame].buffers;
    let mut recording = Recording { prepared, buffers, clock, moment: 1, pass: None, pipeline: None, encoder };
    if let Some(clock) = clock {
        clock.begin(&mut recording.encoder);
    }
    let mut tracker = track.then(|| Tracker::new(&prepared.plan));
    replay(&prepared.plan, &mut recording, tracker.as_mut(), &[])?;
    recording.end_pass();
    if let Some(clock) = clock {
        clock.end(&mut recording.encoder);
    }
    Ok(recording.encoder.finish())
}

/// A command buffer in the making. The pass comes before the encoder, so that it is dropped, and thereby ended, first.
struct Recording<'a> {
    prepared: &'a Prepared,
    buffers: &'a [Buffer],
    /// Of a step whose time is noted.
    clock: Option<&'a Clock>,
    /// Its next moment.
    moment: u32,
    /// Open from the first dispatch after a copy to the next copy: passes cost more than dispatches.
    pass: Option<ComputePass<'static>>,
    /// What is set in the open pass.
    pipeline: Option<KernelId>,
    encoder: CommandEncoder,
}

impl Recording<'_> {
    fn end_pass(&mut self) {
        self.pass = None;
        self.pipeline = None;
    }

    /// Notes a moment, if it is one of the clock's.
    fn note(&mut self, grain: Grain) {
        if let Some(clock) = self.clock.filter(|clock| clock.grain == grain) {
            clock.note(&mut self.encoder, self.pass.as_mut(), self.moment);
            self.moment += 1;
        }
    }
}

impl Recorder for Recording<'_> {
    /// wgpu works out its own barriers when it takes the commands.
    fn barrier(&mut self, _: &[Transition]) -> Result<(), ExecError> {
        Ok(())
    }

    fn dispatch(&mut self, index: usize, dispatch: &Dispatch) -> Result<(), ExecError> {
        let pass = self.pass.get_or_insert_with(|| {
            let label = Some(self.prepared.plan.graph.as_str());
            let pass = self.encoder.begin_compute_pass(&ComputePassDescriptor { label, timestamp_writes: None });
            pass.forget_lifetime()
        });
        if self.pipeline != Some(dispatch.kernel) {
            pass.set_pipeline(&self.prepared.pipelines[dispatch.kernel.index()].pipeline);
            self.pipeline = Some(dispatch.kernel);
        }
        pass.set_bind_group(0, &self.prepared.bind_groups[index], &[]);
        let [x, y, z] = dispatch.workgroups;
        pass.dispatch_workgroups(x, y, z);
        Ok(())
    }

    fn copy(&mut self, copy: &Copy) -> Result<(), ExecError> {
        self.end_pass();
        let (from, to) = (&self.buffers[copy.from.buffer.index()], &self.buffers[copy.to.buffer.index()]);
        let size_bytes = copy.from.size_bytes;
        self.encoder.copy_buffer_to_buffer(from, copy.from.offset_bytes, to, copy.to.offset_bytes, size_bytes);
        Ok(())
    }

    fn command_done(&mut self) {
        self.note(Grain::Commands);
    }

    fn level_done(&mut self) {
        self.note(Grain::Levels);
    }
}

/// Measures CPU time where there is a clock: `Instant::now` panics on `wasm32-unknown-unknown`.
struct Stopwatch {
    #[cfg(not(target_arch = "wasm32"))]
    started: std::time::Instant,
}

impl Stopwatch {
    fn start() -> Self {
        Self {
            #[cfg(not(target_arch = "wasm32"))]
            started: std::time::Instant::now(),
        }
    }

    fn elapsed_ns(&self) -> u64 {
        #[cfg(not(target_arch = "wasm32"))]
        return self.started.elapsed().as_nanos() as u64;
        #[cfg(target_arch = "wasm32")]
        return 0;
    }

    /// Tells the log of a plan that is profiled.
    fn note(&self, work: HostWork, log: &mut Option<StepLog>) {
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(log) = log {
            log.note(work, self.started);
        }
        #[cfg(target_arch = "wasm32")]
        let _ = (work, log);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::testing;
    use crate::exec::wgpu::{WgpuBackend, WgpuExecutor, WgpuOptions};

    /// On the no-op device, and on a real one where there is one.
    #[test]
    fn a_device_lost_under_a_step_is_an_error_of_every_call_after() {
        for backend in [WgpuBackend::Noop, WgpuBackend::Native] {
            let options = WgpuOptions { backend, track: true, validation_layers: false };
            let Ok(executor) = WgpuExecutor::new(&options, None) else {
                println!("skipped: no device of {backend:?}");
                continue;
            };
            let mut session = testing::open(&executor);
            let id = session.prepare(testing::plan()).expect("prepared");
            let first = session.step(id, &testing::inputs()).expect("submitted");
            session.outputs(first).expect("outputs");
            let second = session.step(id, &testing::inputs()).expect("submitted");
            session.gpu.device.destroy();
            let error = session.outputs(second).expect_err("the device is gone");
            assert!(matches!(error, ExecError::Lost { .. }), "{backend:?}: {error}");
            let text = error.to_string();
            assert!(text.starts_with("the device was lost: destroyed"), "{backend:?}: {text}");
            assert!(
                text.ends_with(
                    "; start again, with smaller steps if its driver stopped one that took too long, and \
                                    see the system's log"
                ),
                "{backend:?}: {text}"
            );
            let later = [
                session.step(id, &testing::inputs()).map(drop),
                session.outputs(first).map(drop),
                session.prepare(testing::plan()).map(drop),
            ];
            for result in later {
                assert_eq!(result.expect_err("still gone").to_string(), text, "{backend:?}");
            }
        }
    }
}
