//! How long the GPU takes for a step and for its parts.
//!
//! Gets an encoder at the beginning, after each part and at the end of a step's commands, returns the moments once the
//! step has finished and its stamps are mapped. What holds then: the time is the GPU's own. Never counts a step whose
//! timestamps the device did not write.

use ::wgpu::{
    Buffer, BufferUsages, CommandEncoder, ComputePass, Features, QUERY_RESOLVE_BUFFER_ALIGNMENT, QUERY_SET_MAX_QUERIES,
    QUERY_SIZE, QuerySet, QuerySetDescriptor, QueryType,
};

use crate::exec::ExecError;
use crate::exec::times::{Grain, StepTimes};
use crate::exec::wgpu::gpu::{Gpu, Mapping};
use crate::plan::Plan;

/// What a device needs to note the time between commands of an encoder.
pub(super) const FEATURES: Features = Features::TIMESTAMP_QUERY.union(Features::TIMESTAMP_QUERY_INSIDE_ENCODERS);

/// What it needs to note the time between dispatches of a pass, too.
pub(super) const FEATURES_IN_PASSES: Features = FEATURES.union(Features::TIMESTAMP_QUERY_INSIDE_PASSES);

/// The timestamps of one step in flight.
#[derive(Debug)]
pub(super) struct Clock {
    queries: QuerySet,
    /// Where the device puts the timestamps; wgpu lets no such buffer be mapped.
    resolved: Buffer,
    /// The timestamps as the host reads them.
    pub(super) stamps: Buffer,
    /// How many.
    count: u32,
    pub(super) grain: Grain,
    period_ns: f64,
}

impl Clock {
    /// A clock, or nothing where the device has no timestamps.
    pub(super) fn new(gpu: &Gpu, plan: &Plan, grain: Grain) -> Result<Option<Self>, ExecError> {
        let features = if grain == Grain::Step { FEATURES } else { FEATURES_IN_PASSES };
        if !gpu.device.features().contains(features) {
            return Ok(None);
        }
        let count = grain.moments(plan) as u32;
        if count > QUERY_SET_MAX_QUERIES {
            let reason =
                format!("wgpu has {QUERY_SET_MAX_QUERIES} timestamps at most, a step of this plan takes {count}");
            return Err(ExecError::NoClock { reason });
        }
        let label = Some("timestamps");
        let descriptor = QuerySetDescriptor { label, ty: QueryType::Timestamp, count };
        let what = || "a set of timestamps".to_owned();
        let queries = gpu.scoped(what, || gpu.device.create_query_set(&descriptor))?;
        let size_bytes = u64::from(count * QUERY_SIZE).next_multiple_of(QUERY_RESOLVE_BUFFER_ALIGNMENT);
        let resolved = gpu.buffer("timestamps", size_bytes, BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC)?;
        let stamps = gpu.buffer("timestamps", size_bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST)?;
        let period_ns = f64::from(gpu.queue.get_timestamp_period());
        Ok(Some(Self { queries, resolved, stamps, count, grain, period_ns }))
    }

    /// Notes the time before the first command.
    pub(super) fn begin(&self, encoder: &mut CommandEncoder) {
        encoder.write_timestamp(&self.queries, 0);
    }

    /// Notes the time when all that was recorded so far is done, in the pass that is open, if any; `moment` counts from
    /// 0 and comes up once.
    pub(super) fn note(&self, encoder: &mut CommandEncoder, pass: Option<&mut ComputePass<'static>>, moment: u32) {
        match pass {
            Some(pass) => pass.write_timestamp(&self.queries, moment),
            None => encoder.write_timestamp(&self.queries, moment),
        }
    }

    /// Notes the time after the last command, and hands all times to the host.
    pub(super) fn end(&self, encoder: &mut CommandEncoder) {
        encoder.write_timestamp(&self.queries, self.count - 1);
        encoder.resolve_query_set(&self.queries, 0..self.count, &self.resolved, 0);
        let size_bytes = u64::from(self.count * QUERY_SIZE);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.stamps, 0, size_bytes);
    }

    /// The moments of a step that has been waited for; nothing if the device wrote none, or began to count anew in
    /// between.
    pub(super) fn times(&self, mapping: &Mapping) -> Result<Option<StepTimes>, ExecError> {
        let view = mapping.view(&self.stamps)?;
        let ticks = view.as_chunks::<{ QUERY_SIZE as usize }>().0.iter().map(|ticks| u64::from_le_bytes(*ticks));
        Ok(StepTimes::of_ticks(&ticks.take(self.count as usize).collect::<Vec<_>>(), self.period_ns))
    }
}
