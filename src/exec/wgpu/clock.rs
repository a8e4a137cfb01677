//! How long the GPU takes for a step.
//!
//! Gets an encoder at the beginning and at the end of a step's commands, returns the time between the two once the step
//! has finished and its stamps are mapped. What holds then: the time is the GPU's own. Never counts a step whose
//! timestamps the device did not write.

use ::wgpu::{
    Buffer, BufferUsages, CommandEncoder, Features, QUERY_RESOLVE_BUFFER_ALIGNMENT, QUERY_SIZE, QuerySet,
    QuerySetDescriptor, QueryType,
};

use crate::exec::ExecError;
use crate::exec::wgpu::gpu::{Gpu, Mapping};

/// What a device needs to note the time between commands of an encoder.
pub(super) const FEATURES: Features = Features::TIMESTAMP_QUERY.union(Features::TIMESTAMP_QUERY_INSIDE_ENCODERS);

/// Begin and end.
const STAMP_COUNT: u32 = 2;

/// Two timestamps of one step in flight.
#[derive(Debug)]
pub(super) struct Clock {
    queries: QuerySet,
    /// Where the device puts the timestamps; wgpu lets no such buffer be mapped.
    resolved: Buffer,
    /// The timestamps as the host reads them.
    pub(super) stamps: Buffer,
    period_ns: f64,
}

impl Clock {
    /// A clock, or nothing where the device has no timestamps.
    pub(super) fn new(gpu: &Gpu) -> Result<Option<Self>, ExecError> {
        if !gpu.device.features().contains(FEATURES) {
            return Ok(None);
        }
        let label = Some("timestamps");
        let descriptor = QuerySetDescriptor { label, ty: QueryType::Timestamp, count: STAMP_COUNT };
        let what = || "a set of timestamps".to_owned();
        let queries = gpu.scoped(what, || gpu.device.create_query_set(&descriptor))?;
        let size_bytes = QUERY_RESOLVE_BUFFER_ALIGNMENT;
        let resolved = gpu.buffer("timestamps", size_bytes, BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC)?;
        let stamps = gpu.buffer("timestamps", size_bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST)?;
        Ok(Some(Self { queries, resolved, stamps, period_ns: f64::from(gpu.queue.get_timestamp_period()) }))
    }

    /// Notes the time before the first command.
    pub(super) fn begin(&self, encoder: &mut CommandEncoder) {
        encoder.write_timestamp(&self.queries, 0);
    }

    /// Notes the time after the last command, and hands both times to the host.
    pub(super) fn end(&self, encoder: &mut CommandEncoder) {
        encoder.write_timestamp(&self.queries, 1);
        encoder.resolve_query_set(&self.queries, 0..STAMP_COUNT, &self.resolved, 0);
        let size_bytes = u64::from(STAMP_COUNT * QUERY_SIZE);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.stamps, 0, size_bytes);
    }

    /// Nanoseconds between the two, of a step that has been waited for; nothing if the device wrote none, or began to
    /// count anew in between.
    pub(super) fn elapsed_ns(&self, mapping: &Mapping) -> Result<Option<u64>, ExecError> {
        let view = mapping.view(&self.stamps)?;
        let stamps = view.as_chunks::<{ QUERY_SIZE as usize }>().0;
        let ticks = u64::from_le_bytes(stamps[1]).checked_sub(u64::from_le_bytes(stamps[0]));
        Ok(ticks.filter(|ticks| *ticks > 0).map(|ticks| (ticks as f64 * self.period_ns) as u64))
    }
}
