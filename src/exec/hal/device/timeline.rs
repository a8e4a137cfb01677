//! Command buffers on their way to the GPU, and how far it has got.
//!
//! Gets what is to be recorded; returns values to wait for. What holds then: what is submitted is not in flight, and is
//! submitted a second time only where the device keeps commands. Never knows what is in a command buffer.

use std::cell::Cell;
use std::sync::Arc;

use wgpu_hal::{self as hal, Api, CommandEncoder as _, Device as _, Queue as _};

use crate::exec::ExecError;
use crate::exec::hal::device::{Fence, Gpu, failed};

/// An encoder and at most one command buffer of it, which is recorded, submitted and waited for; then it is submitted
/// again, where the device [`keeps`](Self::keeps_commands) commands, or another is recorded in its place.
pub(in crate::exec::hal) struct Encoder<A: Api> {
    // Dropped first: encoders free their own pool, and the device must outlive it.
    raw: A::CommandEncoder,
    recorded: Option<A::CommandBuffer>,
    /// What the timeline reaches when the last submission has finished; zero if what is recorded was never submitted.
    value: u64,
    gpu: Arc<Gpu<A>>,
}

impl<A: Api> Encoder<A> {
    /// An encoder that holds nothing.
    pub(in crate::exec::hal) fn new(gpu: &Arc<Gpu<A>>) -> Result<Self, ExecError> {
        let description = hal::CommandEncoderDescriptor { label: None, queue: &gpu.queue };
        // SAFETY: the queue is this device's.
        let raw = unsafe { gpu.device.create_command_encoder(&description) }
            .map_err(|error| failed("a command encoder", &error))?;
        Ok(Self { raw, recorded: None, value: 0, gpu: gpu.clone() })
    }

    /// Whether what was recorded may be submitted again once its submission has been waited for.
    pub(in crate::exec::hal) fn keeps_commands(&self) -> bool {
        self.gpu.keeps_commands
    }

    /// Frees the command buffer recorded before, if any, and records another. The caller has waited for the former's
    /// submission, if there was one. If `record` fails, the encoder holds nothing.
    pub(in crate::exec::hal) fn record(
        &mut self,
        label: &str,
        record: impl FnOnce(&mut A::CommandEncoder) -> Result<(), ExecError>,
    ) -> Result<(), ExecError> {
        self.reset();
        // SAFETY: the encoder is closed: every path below closes it.
        unsafe { self.raw.begin_encoding(Some(label)) }.map_err(|error| failed("recording commands", &error))?;
        if let Err(error) = record(&mut self.raw) {
            // SAFETY: it is recording since the line above.
            unsafe { self.raw.discard_encoding() };
            return Err(error);
        }
        // SAFETY: it is recording, and `record` left no pass open.
        let commands = unsafe { self.raw.end_encoding() }.map_err(|error| failed("recording commands", &error))?;
        self.recorded = Some(commands);
        Ok(())
    }

    /// Frees what was recorded, submitted or not. The caller has waited for its submission, if there was one.
    pub(in crate::exec::hal) fn reset(&mut self) {
        self.value = 0;
        let recorded = self.recorded.take();
        // SAFETY: the encoder is closed, this is its only command buffer, and its submission has been waited for.
        unsafe { self.raw.reset_all(recorded.into_iter()) };
    }
}

impl<A: Api> Drop for Encoder<A> {
    fn drop(&mut self) {
        self.reset();
    }
}

/// A fence and how far it has been asked to count: what is submitted through it finishes in order. Waits when dropped,
/// so declare it before what it runs on in a struct, and after it among locals.
pub(in crate::exec::hal) struct Timeline<A: Api> {
    fence: Fence<A>,
    submitted: u64,
    /// The highest value that was waited for.
    reached: Cell<u64>,
    has_failed: bool,
}

impl<A: Api> Timeline<A> {
    /// Nothing submitted yet.
    pub(in crate::exec::hal) fn new(gpu: &Arc<Gpu<A>>) -> Result<Self, ExecError> {
        // SAFETY: nothing is asked of the caller.
        let raw = unsafe { gpu.device.create_fence() }.map_err(|error| failed("a fence", &error))?;
        let fence = Fence { raw: Some(raw), gpu: gpu.clone() };
        Ok(Self { fence, submitted: 0, reached: Cell::new(0), has_failed: false })
    }

    /// Submits what the encoder has recorded; returns the value to wait for, which is never zero. The encoder is
    /// submitted through this timeline alone.
    ///
    /// # Panics
    /// If the encoder holds nothing, or what may not be submitted again, or not yet.
    pub(in crate::exec::hal) fn submit(&mut self, encoder: &mut Encoder<A>) -> Result<u64, ExecError> {
        if self.has_failed {
            // hal chains submissions by semaphores: what follows a failed one would wait for ever.
            return Err(ExecError::Device { reason: "an earlier submission failed".to_owned() });
        }
        let commands = encoder.recorded.as_ref().expect("what is submitted was recorded before");
        assert!(encoder.value == 0 || encoder.keeps_commands(), "the device takes a command buffer once");
        assert!(encoder.value <= self.reached.get(), "a command buffer is waited for before it is submitted again");
        let value = self.submitted + 1;
        let queue = &self.fence.gpu.queue;
        // SAFETY: the buffer is of this device and lives on in its encoder; it was not submitted before, or may be
        // again and is not in flight, as asserted. What it uses is kept alive by owners that go after this timeline has
        // been waited for, and its encoder dropped or reset. P3 and P4 order its commands, P8 those of two submissions.
        let result = unsafe { queue.submit(&[commands], &[], (self.fence.raw(), value)) };
        if let Err(error) = result {
            self.has_failed = true;
            return Err(failed("submitting commands", &error));
        }
        self.submitted = value;
        encoder.value = value;
        Ok(value)
    }

    /// Waits until the submission with this value has finished.
    pub(in crate::exec::hal) fn wait(&self, value: u64) -> Result<(), ExecError> {
        debug_assert!(value <= self.submitted, "only what was submitted can be waited for");
        if value <= self.reached.get() {
            return Ok(());
        }
        // SAFETY: the value was submitted.
        let result = unsafe { self.fence.gpu.device.wait(self.fence.raw(), value, None) };
        match result {
            Ok(true) => {
                self.reached.set(value);
                Ok(())
            }
            Ok(false) => Err(ExecError::Device { reason: "waiting for a step timed out".to_owned() }),
            Err(error) => Err(failed("waiting for a step", &error)),
        }
    }

    /// Waits for everything.
    pub(in crate::exec::hal) fn wait_idle(&self) -> Result<(), ExecError> {
        self.wait(self.submitted)
    }

    /// The value of the last submission that has finished, without waiting.
    pub(in crate::exec::hal) fn finished(&self) -> Result<u64, ExecError> {
        // SAFETY: the fence is this device's.
        let value = unsafe { self.fence.gpu.device.get_fence_value(self.fence.raw()) };
        value.map_err(|error| failed("asking for finished steps", &error))
    }
}

impl<A: Api> Drop for Timeline<A> {
    fn drop(&mut self) {
        // A lost device runs nothing any more, so there is nothing to do about an error, and nothing left to wait for.
        let _ = self.wait_idle();
    }
}
