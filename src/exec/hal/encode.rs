//! Commands of a plan as calls of a hal encoder.
//!
//! Gets what [`replay`](crate::exec::replay::replay) calls a recorder with, and the buffers and bind groups prepared
//! for the plan; returns nothing but the commands in the encoder. What holds then: one `transition_buffers` call per
//! barrier, no pass open after [`finish`](PlanRecorder::finish). Never creates an object, never submits, never decides
//! what to wait for.

use std::num::NonZeroU64;
use std::rc::Rc;

use wgpu_hal::{self as hal, Api, CommandEncoder as _};
use wgpu_types as wgt;

use crate::exec::ExecError;
use crate::exec::hal::clock::Clock;
use crate::exec::hal::device::{BindGroup, Buffer, HostBuffer, Pipeline};
use crate::exec::replay::Recorder;
use crate::exec::times::Grain;
use crate::plan::command::{BufferId, Copy, Dispatch, Transition};
use crate::plan::usage::Usage;

/// The same usage in hal's words.
pub(super) fn buffer_uses(usage: Usage) -> wgt::BufferUses {
    let pairs = [
        (Usage::MAP_READ, wgt::BufferUses::MAP_READ),
        (Usage::MAP_WRITE, wgt::BufferUses::MAP_WRITE),
        (Usage::COPY_SRC, wgt::BufferUses::COPY_SRC),
        (Usage::COPY_DST, wgt::BufferUses::COPY_DST),
        (Usage::STORAGE_READ, wgt::BufferUses::STORAGE_READ_ONLY),
        (Usage::STORAGE_WRITE, wgt::BufferUses::STORAGE_READ_WRITE),
    ];
    pairs.into_iter().filter(|(ours, _)| usage.contains(*ours)).map(|(_, theirs)| theirs).collect()
}

/// One transition in hal's words.
pub(super) fn barrier<B: hal::DynBuffer>(buffer: &B, from: Usage, to: Usage) -> hal::BufferBarrier<'_, B> {
    hal::BufferBarrier { buffer, usage: hal::StateTransition { from: buffer_uses(from), to: buffer_uses(to) } }
}

/// One copied range in hal's words.
pub(super) fn region(from_offset_bytes: u64, to_offset_bytes: u64, size_bytes: u64) -> hal::BufferCopy {
    let size = NonZeroU64::new(size_bytes).expect("a slice is never empty (P2)");
    hal::BufferCopy { src_offset: from_offset_bytes, dst_offset: to_offset_bytes, size }
}

/// Records one step of a plan for one frame.
pub(super) struct PlanRecorder<'a, A: Api> {
    encoder: &'a mut A::CommandEncoder,
    /// By buffer id; nothing for those that each frame has its own of.
    buffers: &'a [Option<Rc<Buffer<A>>>],
    /// By dispatch index.
    groups: &'a [BindGroup<A>],
    /// By buffer id; nothing for those that are in `buffers`.
    hosts: &'a [Option<HostBuffer<A>>],
    /// Label of compute passes.
    label: &'a str,
    /// Of a step whose time is noted.
    clock: Option<&'a Clock<A>>,
    /// Its next moment.
    moment: u32,
    is_pass_open: bool,
    bound: Option<&'a Rc<Pipeline<A>>>,
}

impl<'a, A: Api> PlanRecorder<'a, A> {
    /// A recorder that writes into `encoder`, which is recording; begins with the clock's first moment.
    pub(super) fn new(
        encoder: &'a mut A::CommandEncoder,
        label: &'a str,
        buffers: &'a [Option<Rc<Buffer<A>>>],
        groups: &'a [BindGroup<A>],
        hosts: &'a [Option<HostBuffer<A>>],
        clock: Option<&'a Clock<A>>,
    ) -> Self {
        if let Some(clock) = clock {
            clock.begin(encoder);
        }
        Self { encoder, buffers, groups, hosts, label, clock, moment: 1, is_pass_open: false, bound: None }
    }

    /// Ends the pass that is open, if any, and notes the clock's last moment; the encoder may be ended then.
    pub(super) fn finish(mut self) {
        self.end_pass();
        if let Some(clock) = self.clock {
            clock.end(self.encoder);
        }
    }

    /// Notes a moment, if it is one of the clock's.
    fn note(&mut self, grain: Grain) {
        if let Some(clock) = self.clock.filter(|clock| clock.grain == grain) {
            clock.note(self.encoder, self.moment);
            clock.keep_apart(self.encoder);
            self.moment += 1;
        }
    }

    fn end_pass(&mut self) {
        if std::mem::take(&mut self.is_pass_open) {
            self.bound = None;
            // SAFETY: a pass is open, as `is_pass_open` said.
            unsafe { self.encoder.end_compute_pass() };
        }
    }

    /// Opens a pass unless one is open: dispatches share one as long as nothing is copied between them.
    fn begin_pass(&mut self) {
        if !std::mem::replace(&mut self.is_pass_open, true) {
            let description = hal::ComputePassDescriptor { label: Some(self.label), timestamp_writes: None };
            // SAFETY: the encoder is recording and no pass is open.
            unsafe { self.encoder.begin_compute_pass(&description) };
        }
    }
}

/// The hal buffer of a plan's buffer. Free of `self`, so that the encoder stays borrowable.
fn raw<'a, A: Api>(
    buffers: &'a [Option<Rc<Buffer<A>>>],
    hosts: &'a [Option<HostBuffer<A>>],
    id: BufferId,
) -> &'a A::Buffer {
    match (&buffers[id.index()], &hosts[id.index()]) {
        (Some(buffer), _) => buffer.raw(),
        (None, Some(host)) => host.raw(),
        (None, None) => unreachable!("`prepare` creates every buffer of a plan on one side or the other"),
    }
}

impl<A: Api> Recorder for PlanRecorder<'_, A> {
    fn barrier(&mut self, transitions: &[Transition]) -> Result<(), ExecError> {
        let (buffers, hosts) = (self.buffers, self.hosts);
        let barriers = transitions
            .iter()
            .map(|transition| barrier(raw(buffers, hosts, transition.buffer), transition.from, transition.to));
        // SAFETY: the encoder is recording; every buffer is in `from` (P3, debug-checked by the tracker). Transitions
        // inside a compute pass are legal in hal's back ends: none of them has an object for compute passes that
        // forbids it.
        unsafe { self.encoder.transition_buffers(barriers) };
        Ok(())
    }

    fn dispatch(&mut self, index: usize, dispatch: &Dispatch) -> Result<(), ExecError> {
        self.begin_pass();
        let group = &self.groups[index];
        if !self.bound.is_some_and(|bound| Rc::ptr_eq(bound, &group.pipeline)) {
            // SAFETY: a pass is open, the pipeline is this device's and outlives the frame.
            unsafe { self.encoder.set_compute_pipeline(group.pipeline.pipeline.raw()) };
            self.bound = Some(&group.pipeline);
        }
        // SAFETY: the group was made for this pipeline's layout; its buffers are in the usages it needs (P3, P4, P5).
        unsafe { self.encoder.set_bind_group(group.pipeline.layout.raw(), 0, group.raw(), &[]) };
        // SAFETY: pipeline and group are set; the counts are within the limits (P9).
        unsafe { self.encoder.dispatch_workgroups(dispatch.workgroups) };
        Ok(())
    }

    fn copy(&mut self, copy: &Copy) -> Result<(), ExecError> {
        self.end_pass();
        let from = raw(self.buffers, self.hosts, copy.from.buffer);
        let to = raw(self.buffers, self.hosts, copy.to.buffer);
        let regions = std::iter::once(region(copy.from.offset_bytes, copy.to.offset_bytes, copy.from.size_bytes));
        // SAFETY: no pass is open; both slices lie in their buffers (P2), which are in the usages of a copy (P3, P4).
        unsafe { self.encoder.copy_buffer_to_buffer(from, to, regions) };
        Ok(())
    }

    fn command_done(&mut self) {
        self.note(Grain::Commands);
    }

    fn level_done(&mut self) {
        self.note(Grain::Levels);
    }
}
