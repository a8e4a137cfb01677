//! How long the GPU takes for a step and for its parts.
//!
//! Gets an encoder at the beginning, after each part and at the end of a step's commands, returns the moments once the
//! step has finished. What holds then: the time is the GPU's own, and begins when what was submitted before has ended.
//! Never counts a step whose timestamps the device did not write.

use std::num::NonZeroU64;
use std::sync::Arc;

use wgpu_hal::{Api, CommandEncoder as _, QUERY_SIZE};
use wgpu_types as wgt;

use crate::exec::ExecError;
use crate::exec::hal::device::{Buffer, Gpu, HostBuffer, QuerySet};
use crate::exec::hal::encode::{barrier, buffer_uses};
use crate::exec::times::{Grain, StepTimes};
use crate::plan::Plan;
use crate::plan::usage::Usage;

/// The timestamps of one step in flight.
pub(super) struct Clock<A: Api> {
    queries: QuerySet<A>,
    /// The timestamps as the host reads them; at rest in the host's usage.
    stamps: HostBuffer<A>,
    /// How many.
    count: u32,
    pub(super) grain: Grain,
    /// A buffer that no command uses, for barriers that keep commands apart.
    apart: Option<Buffer<A>>,
    period_ns: f64,
}

/// What keeps commands apart: whatever they are, those before are done, and seen, when those after begin.
const APART: Usage = Usage::COPY_SRC.union(Usage::COPY_DST).union(Usage::STORAGE_WRITE);

impl<A: Api> Clock<A> {
    /// A clock, or nothing where the device has no timestamps.
    pub(super) fn new(gpu: &Arc<Gpu<A>>, plan: &Plan, grain: Grain) -> Result<Option<Self>, ExecError> {
        let Some(period_ns) = gpu.timestamp_period_ns else { return Ok(None) };
        let usage = buffer_uses(Usage::MAP_READ.union(Usage::COPY_DST));
        let count = grain.moments(plan) as u32;
        let stamps = HostBuffer::new(gpu, "timestamps", u64::from(count) * QUERY_SIZE, usage)?;
        let queries = QuerySet::timestamps(gpu, count)?;
        let apart = (grain == Grain::Commands).then(|| Buffer::new(gpu, "apart", QUERY_SIZE, buffer_uses(APART)));
        Ok(Some(Self { queries, stamps, count, grain, apart: apart.transpose()?, period_ns: f64::from(period_ns) }))
    }

    /// Notes the time before the first command.
    pub(super) fn begin(&self, encoder: &mut A::CommandEncoder) {
        // SAFETY: the encoder is recording, no pass is open, and the step that used the queries before is waited for
        // before these commands are submitted, whether for the first time or again.
        unsafe { encoder.reset_queries(self.queries.raw(), 0..self.count) };
        self.note(encoder, 0);
    }

    /// Notes the time when all that was recorded so far is done; `moment` counts from 0 and comes up once.
    ///
    /// # Panics
    /// If the step has no such moment.
    pub(super) fn note(&self, encoder: &mut A::CommandEncoder, moment: u32) {
        assert!(moment < self.count, "a step has {} moments", self.count);
        // SAFETY: the encoder is recording and `begin` reset the query, which is written once. Where a pass is open,
        // the device has the feature that allows it: parts are not timed without.
        unsafe { encoder.write_timestamp(self.queries.raw(), moment) };
    }

    /// Keeps what comes from what came, if commands are timed one by one.
    pub(super) fn keep_apart(&self, encoder: &mut A::CommandEncoder) {
        if let Some(apart) = &self.apart {
            // SAFETY: the encoder is recording, and no command ever uses the buffer, so it is in any usage.
            unsafe { encoder.transition_buffers(std::iter::once(barrier(apart.raw(), APART, APART))) };
        }
    }

    /// Notes the time after the last command, and hands all times to the host.
    pub(super) fn end(&self, encoder: &mut A::CommandEncoder) {
        self.note(encoder, self.count - 1);
        let take = barrier(self.stamps.raw(), Usage::MAP_READ, Usage::COPY_DST);
        // SAFETY: the buffer rests in the host's usage, which `give` below leaves it in.
        unsafe { encoder.transition_buffers(std::iter::once(take)) };
        let stride: wgt::BufferSize = NonZeroU64::new(QUERY_SIZE).expect("a timestamp has bytes");
        // SAFETY: all queries were written above, and the buffer has room for them and is in the usage of a copy.
        unsafe { encoder.copy_query_results(self.queries.raw(), 0..self.count, self.stamps.raw(), 0, stride) };
        let give = barrier(self.stamps.raw(), Usage::COPY_DST, Usage::MAP_READ);
        // SAFETY: the buffer is in the usage that `take` put it in.
        unsafe { encoder.transition_buffers(std::iter::once(give)) };
    }

    /// The moments of a step that has been waited for; nothing if the device wrote none, or began to count anew in
    /// between.
    pub(super) fn times(&self) -> Option<StepTimes> {
        self.stamps.invalidate();
        let bytes = self.stamps.read(0, self.count as usize * QUERY_SIZE as usize);
        let ticks = bytes.as_chunks::<{ QUERY_SIZE as usize }>().0.iter().map(|ticks| u64::from_le_bytes(*ticks));
        StepTimes::of_ticks(&ticks.collect::<Vec<_>>(), self.period_ns)
    }
}
