//! How long the GPU takes for a step.
//!
//! Gets an encoder at the beginning and at the end of a step's commands, returns the time between the two once the step
//! has finished. What holds then: the time is the GPU's own, and begins when what was submitted before has ended. Never
//! counts a step whose timestamps the device did not write.

use std::num::NonZeroU64;
use std::sync::Arc;

use wgpu_hal::{Api, CommandEncoder as _, QUERY_SIZE};
use wgpu_types as wgt;

use crate::exec::ExecError;
use crate::exec::hal::device::{Gpu, HostBuffer, QuerySet};
use crate::exec::hal::encode::{barrier, buffer_uses};
use crate::plan::usage::Usage;

/// Begin and end.
const STAMP_COUNT: u32 = 2;

/// Two timestamps of one step in flight.
pub(super) struct Clock<A: Api> {
    queries: QuerySet<A>,
    /// The timestamps as the host reads them; at rest in the host's usage.
    stamps: HostBuffer<A>,
    period_ns: f64,
}

impl<A: Api> Clock<A> {
    /// A clock, or nothing where the device has no timestamps.
    pub(super) fn new(gpu: &Arc<Gpu<A>>) -> Result<Option<Self>, ExecError> {
        let Some(period_ns) = gpu.timestamp_period_ns else { return Ok(None) };
        let usage = buffer_uses(Usage::MAP_READ.union(Usage::COPY_DST));
        let size_bytes = u64::from(STAMP_COUNT) * QUERY_SIZE;
        let stamps = HostBuffer::new(gpu, "timestamps", size_bytes, usage)?;
        let queries = QuerySet::timestamps(gpu, STAMP_COUNT)?;
        Ok(Some(Self { queries, stamps, period_ns: f64::from(period_ns) }))
    }

    /// Notes the time before the first command.
    pub(super) fn begin(&self, encoder: &mut A::CommandEncoder) {
        // SAFETY: the encoder is recording, no pass is open, and the step that used the queries before was waited for.
        unsafe { encoder.reset_queries(self.queries.raw(), 0..STAMP_COUNT) };
        // SAFETY: the query was reset just now.
        unsafe { encoder.write_timestamp(self.queries.raw(), 0) };
    }

    /// Notes the time after the last command, and hands both times to the host.
    pub(super) fn end(&self, encoder: &mut A::CommandEncoder) {
        // SAFETY: the encoder is recording, no pass is open, and `begin` reset the query.
        unsafe { encoder.write_timestamp(self.queries.raw(), 1) };
        let take = barrier(self.stamps.raw(), Usage::MAP_READ, Usage::COPY_DST);
        // SAFETY: the buffer rests in the host's usage, which `give` below leaves it in.
        unsafe { encoder.transition_buffers(std::iter::once(take)) };
        let stride: wgt::BufferSize = NonZeroU64::new(QUERY_SIZE).expect("a timestamp has bytes");
        // SAFETY: both queries were written above, and the buffer has room for them and is in the usage of a copy.
        unsafe { encoder.copy_query_results(self.queries.raw(), 0..STAMP_COUNT, self.stamps.raw(), 0, stride) };
        let give = barrier(self.stamps.raw(), Usage::COPY_DST, Usage::MAP_READ);
        // SAFETY: the buffer is in the usage that `take` put it in.
        unsafe { encoder.transition_buffers(std::iter::once(give)) };
    }

    /// Nanoseconds between the two, of a step that has been waited for; nothing if the device wrote none, or began to
    /// count anew in between.
    pub(super) fn elapsed_ns(&self) -> Option<u64> {
        self.stamps.invalidate();
        let stamp = |number: u64| {
            let bytes = self.stamps.read(number * QUERY_SIZE, QUERY_SIZE as usize);
            u64::from_le_bytes(bytes.try_into().expect("a timestamp has eight bytes"))
        };
        let ticks = stamp(1).checked_sub(stamp(0)).filter(|ticks| *ticks > 0)?;
        Some((ticks as f64 * self.period_ns) as u64)
    }
}
