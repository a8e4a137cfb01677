//! One opened device: its failures as values, its buffers, uploads and waits.
//!
//! Gets an adapter, returns a [`Gpu`]. What holds then: an error of wgpu that belongs to a call made inside
//! [`Gpu::scoped`] is that call's result; any other, and the loss of the device, is kept and returned by every later
//! [`Gpu::healthy`]. Never lets wgpu's own handler panic, and never knows a plan.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use ::wgpu::{
    Adapter, Buffer, BufferDescriptor, BufferUsages, Device, DeviceDescriptor, ErrorFilter, ExperimentalFeatures,
    Features, MapMode, MemoryHints, PollType, Queue, SubmissionIndex, Trace,
};

use crate::exec::ExecError;
use crate::exec::hal::{are_promised, matrices_allowed};
use crate::exec::wgpu::clock;
use crate::plan::weights::{StateLayout, WeightLayout};

/// What kernels with cooperative matrices need of a device.
const MATRIX_FEATURES: Features =
    Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(Features::SHADER_F16).union(Features::SUBGROUP);

/// Whether an adapter has all that [`Limits::cooperative_matrix`](crate::base::limits::Limits) promises.
pub(super) fn has_matrices(adapter: &Adapter) -> bool {
    let info = adapter.get_info();
    adapter.features().contains(MATRIX_FEATURES)
        && (info.subgroup_min_size, info.subgroup_max_size) == (32, 32)
        && adapter.cooperative_matrix_properties().iter().any(are_promised)
}

/// Whether every subgroup has eight lanes.
pub(super) fn has_octets(adapter: &Adapter) -> bool {
    let info = adapter.get_info();
    adapter.features().contains(Features::SUBGROUP) && (info.subgroup_min_size, info.subgroup_max_size) == (8, 8)
}

/// Whether kernels read words of 64 bits, as [`Limits::wide_words`](crate::base::limits::Limits) says.
pub(super) fn has_wide_words(adapter: &Adapter) -> bool {
    has_octets(adapter) && adapter.features().contains(Features::SHADER_INT64)
}

/// A device, its queue, and the first failure that no call returned.
#[derive(Debug)]
pub(super) struct Gpu {
    pub(super) device: Device,
    pub(super) queue: Queue,
    fault: Arc<OnceLock<Fault>>,
}

/// A failure that no call returned.
#[derive(Debug)]
enum Fault {
    /// The device is gone; what the driver said.
    Lost(String),
    /// It refused something.
    Refused(String),
}

impl Gpu {
    /// Opens the device with all limits of the adapter and the features that kernels and clocks may need.
    pub(super) fn open(adapter: &Adapter) -> Result<Self, ExecError> {
        let matrices = has_matrices(adapter);
        let mut wanted = if matrices { MATRIX_FEATURES } else { Features::SUBGROUP };
        wanted.set(Features::SHADER_INT64, has_wide_words(adapter));
        let descriptor = DeviceDescriptor {
            label: Some("graphc"),
            required_features: adapter.features() & wanted.union(clock::FEATURES_IN_PASSES),
            required_limits: adapter.limits(),
            experimental_features: if matrices { matrices_allowed() } else { ExperimentalFeatures::disabled() },
            // Buffers are made once and are large: blocks to allocate from would mostly stay empty.
            memory_hints: MemoryHints::MemoryUsage,
            trace: Trace::Off,
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| ExecError::Device { reason: error.to_string() })?;
        let fault = Arc::new(OnceLock::new());
        let uncaptured = Arc::clone(&fault);
        // The first message alone is kept: what follows is mostly its consequence.
        device.on_uncaptured_error(Arc::new(move |error: ::wgpu::Error| {
            let _ = uncaptured.set(Fault::Refused(error.to_string()));
        }));
        let lost = Arc::clone(&fault);
        device.set_device_lost_callback(move |reason, message| {
            let reason = format!("{reason:?}").to_lowercase();
            let _ = lost.set(Fault::Lost(if message.is_empty() { reason } else { format!("{reason}, {message}") }));
        });
        Ok(Self { device, queue, fault })
    }

    /// The first failure that no call returned.
    pub(super) fn healthy(&self) -> Result<(), ExecError> {
        match self.fault.get() {
            None => Ok(()),
            Some(Fault::Lost(reason)) => Err(ExecError::Lost { reason: reason.clone() }),
            Some(Fault::Refused(reason)) => Err(ExecError::Device { reason: reason.clone() }),
        }
    }

    /// Does something that may fail in wgpu's way, which is to return an invalid object and report the error elsewhere.
    pub(super) fn scoped<T>(&self, what: impl Fn() -> String, act: impl FnOnce() -> T) -> Result<T, ExecError> {
        // A stack: popped in the opposite order, and on this thread.
        let internal = self.device.push_error_scope(ErrorFilter::Internal);
        let validation = self.device.push_error_scope(ErrorFilter::Validation);
        let memory = self.device.push_error_scope(ErrorFilter::OutOfMemory);
        let made = act();
        let memory = pollster::block_on(memory.pop());
        let validation = pollster::block_on(validation.pop());
        let internal = pollster::block_on(internal.pop());
        if memory.is_some() {
            return Err(ExecError::OutOfMemory { what: what() });
        }
        if let Some(error) = validation.or(internal) {
            return Err(ExecError::Device { reason: format!("{}: {error}", what()) });
        }
        self.healthy()?;
        Ok(made)
    }

    /// Waits for a submission, or for all of them.
    pub(super) fn wait(&self, submission_index: Option<SubmissionIndex>) -> Result<(), ExecError> {
        self.healthy()?;
        let poll = PollType::Wait { submission_index, timeout: None };
        // wgpu 30 panics in `Device::poll` when the device is lost while it waits, since `PollError` has no variant for
        // that; the catch may go once it has. Nothing of ours is touched in there but the callbacks' flags.
        match std::panic::catch_unwind(AssertUnwindSafe(|| self.device.poll(poll))) {
            Ok(Ok(_)) => self.healthy(),
            Ok(Err(error)) => {
                self.healthy()?;
                Err(ExecError::Device { reason: error.to_string() })
            }
            Err(_) => {
                let _ = self.fault.set(Fault::Lost("while the host waited for it".to_owned()));
                self.healthy()
            }
        }
    }

    /// A buffer, whose contents wgpu zeroes before anything reads them.
    pub(super) fn buffer(&self, label: &str, size_bytes: u64, usage: BufferUsages) -> Result<Buffer, ExecError> {
        let descriptor = BufferDescriptor { label: Some(label), size: size_bytes, usage, mapped_at_creation: false };
        let what = || format!("buffer `{label}` of {size_bytes} bytes");
        self.scoped(what, || self.device.create_buffer(&descriptor))
    }

    pub(super) fn weight_buffers(&self, layout: &WeightLayout) -> Result<Vec<Buffer>, ExecError> {
        layout.buffers.iter().map(|buffer| self.buffer(&buffer.label, buffer.size_bytes, DEVICE)).collect()
    }

    pub(super) fn state_buffers(&self, layout: &StateLayout) -> Result<Vec<Buffer>, ExecError> {
        layout.buffers.iter().map(|buffer| self.buffer(&buffer.label, buffer.size_bytes(), DEVICE)).collect()
    }

    /// Reads a range of a buffer after everything submitted so far.
    pub(super) fn read(&self, buffer: &Buffer, offset_bytes: u64, size_bytes: u64) -> Result<Vec<u8>, ExecError> {
        if size_bytes == 0 {
            return Ok(Vec::new());
        }
        let staging = self.buffer("read back", size_bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST)?;
        let submission = self.scoped(
            || "the copy of a read-back".to_owned(),
            || {
                let mut encoder = self.device.create_command_encoder(&Default::default());
                encoder.copy_buffer_to_buffer(buffer, offset_bytes, &staging, 0, size_bytes);
                self.queue.submit([encoder.finish()])
            },
        )?;
        let mapped = Mapping::start(&staging);
        self.wait(Some(submission))?;
        let bytes = mapped.view(&staging)?.to_vec();
        staging.unmap();
        Ok(bytes)
    }
}

/// What a plan may do with a buffer of the device. Copies are always among it: which buffers a plan copies from is not
/// known when weights, state and slots are made, and costs nothing to allow.
pub(super) const DEVICE: BufferUsages =
    BufferUsages::STORAGE.union(BufferUsages::COPY_SRC).union(BufferUsages::COPY_DST);

/// A mapping that was asked for; whoever asked unmaps the buffer before its next submission.
#[derive(Debug)]
pub(super) struct Mapping {
    done: Arc<OnceLock<bool>>,
}

impl Mapping {
    /// Asks for the whole buffer: to be had once a wait for the last submission that uses it has returned.
    pub(super) fn start(buffer: &Buffer) -> Self {
        let done = Arc::new(OnceLock::new());
        let callback = Arc::clone(&done);
        buffer.map_async(MapMode::Read, .., move |result| {
            let _ = callback.set(result.is_ok());
        });
        Self { done }
    }

    /// The bytes, after that wait.
    pub(super) fn view(&self, buffer: &Buffer) -> Result<::wgpu::BufferView, ExecError> {
        if self.done.get() != Some(&true) {
            return Err(ExecError::Device { reason: "a read-back buffer could not be mapped".to_owned() });
        }
        buffer.get_mapped_range(..).map_err(|error| ExecError::Device { reason: error.to_string() })
    }
}

/// Bytes of one staging allocation.
const CHUNK_BYTES: usize = 8 << 20;

/// Staged bytes after which an upload is submitted and waited for, since wgpu keeps staging memory until then.
const STAGED_BYTES_MAX: usize = 32 << 20;

/// Writes any amount of bytes through a bounded amount of staging memory.
pub(super) struct Upload<'a> {
    gpu: &'a Gpu,
    staged_bytes: usize,
}

impl<'a> Upload<'a> {
    pub(super) const fn new(gpu: &'a Gpu) -> Self {
        Self { gpu, staged_bytes: 0 }
    }

    /// Writes bytes from an offset on, which is a multiple of four; a tail that is none is padded with zeros, which
    /// layouts leave room for. `wrote` gets the bytes of each chunk.
    pub(super) fn write(
        &mut self,
        buffer: &Buffer,
        mut offset_bytes: u64,
        bytes: &[u8],
        mut wrote: impl FnMut(u64),
    ) -> Result<(), ExecError> {
        for chunk in bytes.chunks(CHUNK_BYTES) {
            let padded: Vec<u8>;
            let whole_words = if chunk.len().is_multiple_of(4) {
                chunk
            } else {
                let padding = chunk.len().next_multiple_of(4) - chunk.len();
                padded = [chunk, &[0; 3][..padding]].concat();
                &padded
            };
            let what = || format!("{} bytes of staging memory", whole_words.len());
            self.gpu.scoped(what, || self.gpu.queue.write_buffer(buffer, offset_bytes, whole_words))?;
            offset_bytes += whole_words.len() as u64;
            self.staged_bytes += whole_words.len();
            if self.staged_bytes >= STAGED_BYTES_MAX {
                self.flush()?;
            }
            wrote(chunk.len() as u64);
        }
        Ok(())
    }

    /// Fills a buffer with `count` copies of `row`, as many at a time as fit a chunk.
    pub(super) fn fill(&mut self, buffer: &Buffer, row: &[u8], count: u64) -> Result<(), ExecError> {
        if row.is_empty() {
            return Ok(());
        }
        let rows_per_chunk = ((CHUNK_BYTES / row.len()) as u64).clamp(1, count.max(1));
        let block = row.repeat(rows_per_chunk as usize);
        let mut first = 0;
        while first < count {
            let rows = rows_per_chunk.min(count - first);
            let bytes = &block[..rows as usize * row.len()];
            self.write(buffer, first * row.len() as u64, bytes, |_| {})?;
            first += rows;
        }
        Ok(())
    }

    /// Waits for what is still on its way.
    pub(super) fn finish(mut self) -> Result<(), ExecError> {
        self.flush()
    }

    fn flush(&mut self) -> Result<(), ExecError> {
        self.staged_bytes = 0;
        let submission = self.gpu.scoped(|| "an upload".to_owned(), || self.gpu.queue.submit([]))?;
        self.gpu.wait(Some(submission))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::wgpu::{WgpuBackend, WgpuExecutor, WgpuOptions};

    fn noop() -> Gpu {
        let options = WgpuOptions { backend: WgpuBackend::Noop, track: false, validation_layers: false };
        Gpu::open(&WgpuExecutor::new(&options, None).expect("the no-op device").adapter).expect("a device")
    }

    #[test]
    fn a_lost_device_is_an_error_that_stays() {
        let gpu = noop();
        gpu.wait(None).expect("nothing to wait for");
        gpu.device.destroy();
        let buffer = gpu.buffer("late", 4, DEVICE);
        let error = gpu.wait(None).expect_err("lost").to_string();
        let expected = "the device was lost: destroyed; start again, with smaller steps if its \
                        driver stopped one that took too long, and see the system's log";
        assert_eq!(error, expected);
        assert_eq!(gpu.healthy().expect_err("still lost").to_string(), error);
        assert!(buffer.and_then(|buffer| gpu.read(&buffer, 0, 4)).is_err());
    }

    #[test]
    fn a_scoped_error_is_the_calls_and_any_other_is_kept() {
        let gpu = noop();
        let error = gpu.buffer("odd", 4, BufferUsages::MAP_READ | BufferUsages::STORAGE).expect_err("never both");
        assert!(error.to_string().contains("buffer `odd` of 4 bytes"), "{error}");
        gpu.healthy().expect("it was returned, and is over");
        let buffer = gpu.buffer("small", 4, DEVICE).expect("a buffer");
        gpu.queue.write_buffer(&buffer, 4, &[0; 4]);
        gpu.healthy().expect_err("a write past the end, outside any scope");
    }

    #[test]
    fn rows_and_chunks_fill_a_buffer() {
        let gpu = noop();
        // Three chunks of uneven rows, and a row longer than a chunk.
        for (row_bytes, count) in [(CHUNK_BYTES / 2 + 4, 3), (12, 1000), (CHUNK_BYTES + 8, 2)] {
            let row: Vec<u8> = (0..row_bytes).map(|at| (at % 251) as u8).collect();
            let buffer = gpu.buffer("rows", (row_bytes * count) as u64, DEVICE).expect("a buffer");
            let mut upload = Upload::new(&gpu);
            upload.fill(&buffer, &row, count as u64).expect("filled");
            upload.finish().expect("written");
            let read = gpu.read(&buffer, 0, (row_bytes * count) as u64).expect("read");
            assert!(read == row.repeat(count), "{count} rows of {row_bytes} bytes");
        }
    }
}
