//! The way of bytes into device memory, and of single rows back.
//!
//! Gets bytes and destinations; returns when they are there, or the bytes that were asked for. A few staging buffers
//! are in use, filled in turn, by all threads, while the GPU copies from the others, so a model never lies in host
//! memory a second time, and every byte of a file is read once. Never tracks usages: destinations are in `COPY_DST`
//! until [`Upload::finish`] takes them to their rest.

use std::rc::Rc;
use std::sync::Arc;

use rayon::prelude::*;
use wgpu_hal::{Api, CommandEncoder as _};
use wgpu_types as wgt;

use crate::exec::ExecError;
use crate::exec::hal::device::{Buffer, Encoder, Gpu, HostBuffer, Timeline};
use crate::exec::hal::encode::{barrier, region};
use crate::plan::usage::Usage;

/// Bytes of one staging buffer.
const CHUNK_BYTES: u64 = 16 << 20;

/// Staging buffers: one is filled, one is copied from, and one is between the two, since neither side is even.
const CHUNKS: usize = 3;

/// Bytes that a thread copies at a time: far more than it takes to tell it, and a part of a chunk for each of many.
const GRAIN_BYTES: usize = 256 << 10;

/// Copies bytes on all threads: a page of a file that nobody has read in this process takes longer to map than to copy,
/// and a single thread does not fill the bus.
fn copy(to: &mut [u8], from: &[u8]) {
    if from.len() <= GRAIN_BYTES {
        to.copy_from_slice(from);
        return;
    }
    let grains = to.par_chunks_mut(GRAIN_BYTES).zip(from.par_chunks(GRAIN_BYTES));
    grains.for_each(|(to, from)| to.copy_from_slice(from));
}

/// One copy out of a staging buffer.
struct Piece<A: Api> {
    to: Rc<Buffer<A>>,
    from_offset_bytes: u64,
    to_offset_bytes: u64,
    size_bytes: u64,
}

/// A staging buffer and the copies out of it.
struct Chunk<A: Api> {
    encoder: Encoder<A>,
    staging: HostBuffer<A>,
    pieces: Vec<Piece<A>>,
    used_bytes: u64,
    /// What to wait for before the host may write it again; zero if it was never submitted.
    value: u64,
}

/// An upload under way.
pub(super) struct Upload<A: Api> {
    // Dropped first: waits until the GPU is done with the chunks.
    timeline: Timeline<A>,
    chunks: [Chunk<A>; CHUNKS],
    current: usize,
}

impl<A: Api> Upload<A> {
    /// An upload of nothing yet; of `total_bytes` in the end, so that small ones take small staging buffers.
    pub(super) fn new(gpu: &Arc<Gpu<A>>, total_bytes: u64) -> Result<Self, ExecError> {
        let size_bytes = total_bytes.clamp(4, CHUNK_BYTES).next_multiple_of(4);
        let chunk = || -> Result<Chunk<A>, ExecError> {
            let usage = wgt::BufferUses::MAP_WRITE | wgt::BufferUses::COPY_SRC;
            let staging = HostBuffer::new(gpu, "upload", size_bytes, usage)?;
            Ok(Chunk { encoder: Encoder::new(gpu)?, staging, pieces: Vec::new(), used_bytes: 0, value: 0 })
        };
        Ok(Self { timeline: Timeline::new(gpu)?, chunks: [chunk()?, chunk()?, chunk()?], current: 0 })
    }

    /// Takes bytes on their way to `to_offset_bytes` of a buffer, which has room for them rounded up to whole words.
    /// `copied` hears of every part, with its bytes.
    pub(super) fn put(
        &mut self,
        to: &Rc<Buffer<A>>,
        to_offset_bytes: u64,
        bytes: &[u8],
        mut copied: impl FnMut(u64),
    ) -> Result<(), ExecError> {
        let (mut rest, mut to_offset_bytes) = (bytes, to_offset_bytes);
        while !rest.is_empty() {
            if self.chunks[self.current].used_bytes == self.chunks[self.current].staging.size_bytes() {
                self.submit()?;
            }
            let chunk = &mut self.chunks[self.current];
            let room_bytes = chunk.staging.size_bytes() - chunk.used_bytes;
            let (part, after) = rest.split_at(rest.len().min(room_bytes as usize));
            copy(chunk.staging.bytes_mut(chunk.used_bytes, part.len()), part);
            // Copies take whole words on every API; only the last part of a tensor of halves can end inside one.
            let padding = [0; 4];
            let odd_bytes = part.len().next_multiple_of(4) - part.len();
            chunk.staging.write(chunk.used_bytes + part.len() as u64, &padding[..odd_bytes]);
            let size_bytes = (part.len() + odd_bytes) as u64;
            chunk.push(to, to_offset_bytes, size_bytes);
            to_offset_bytes += size_bytes;
            rest = after;
            copied(part.len() as u64);
        }
        Ok(())
    }

    /// Submits the current chunk and waits until the host may write the next.
    fn submit(&mut self) -> Result<(), ExecError> {
        self.chunks[self.current].record()?;
        let value = self.timeline.submit(&mut self.chunks[self.current].encoder)?;
        self.chunks[self.current].value = value;
        self.current = (self.current + 1) % CHUNKS;
        let next = &mut self.chunks[self.current];
        self.timeline.wait(next.value)?;
        next.used_bytes = 0;
        next.pieces.clear();
        Ok(())
    }

    /// Submits what is left, takes every destination from `COPY_DST` to its rest usage, and waits.
    pub(super) fn finish(mut self, rests: &[(Rc<Buffer<A>>, Usage)]) -> Result<(), ExecError> {
        self.submit()?;
        self.chunks[self.current].encoder.record("rest", |encoder| {
            let barriers = rests.iter().map(|(buffer, rest)| barrier(buffer.raw(), Usage::COPY_DST, *rest));
            // SAFETY: the encoder is recording; every destination is in `COPY_DST`, written or not.
            unsafe { encoder.transition_buffers(barriers) };
            Ok(())
        })?;
        self.timeline.submit(&mut self.chunks[self.current].encoder)?;
        self.timeline.wait_idle()
    }
}

impl<A: Api> Chunk<A> {
    /// Notes a copy of the next bytes, as part of the one before where both ends meet.
    fn push(&mut self, to: &Rc<Buffer<A>>, to_offset_bytes: u64, size_bytes: u64) {
        let from_offset_bytes = self.used_bytes;
        self.used_bytes += size_bytes;
        match self.pieces.last_mut() {
            Some(last) if Rc::ptr_eq(&last.to, to) && last.to_offset_bytes + last.size_bytes == to_offset_bytes => {
                last.size_bytes += size_bytes;
            }
            _ => self.pieces.push(Piece { to: to.clone(), from_offset_bytes, to_offset_bytes, size_bytes }),
        }
    }

    fn record(&mut self) -> Result<(), ExecError> {
        self.staging.flush();
        let (staging, pieces) = (&self.staging, &self.pieces);
        self.encoder.record("upload", |encoder| {
            let staged = std::iter::once(barrier(staging.raw(), Usage::MAP_WRITE, Usage::COPY_SRC));
            // SAFETY: the encoder is recording; the host has written the staging buffer and leaves it alone until its
            // value.
            unsafe { encoder.transition_buffers(staged) };
            for piece in pieces {
                let regions = std::iter::once(region(piece.from_offset_bytes, piece.to_offset_bytes, piece.size_bytes));
                // SAFETY: the source range was written by `put`; pieces lie in their buffers (`Weights::check`), apart,
                // so that nothing need stand between two of them.
                unsafe { encoder.copy_buffer_to_buffer(staging.raw(), piece.to.raw(), regions) };
            }
            let staged = std::iter::once(barrier(staging.raw(), Usage::COPY_SRC, Usage::MAP_WRITE));
            // SAFETY: the encoder is recording; the staging buffer is in `COPY_SRC` since above.
            unsafe { encoder.transition_buffers(staged) };
            Ok(())
        })
    }
}

/// A range of a buffer at rest, to be read or written while no step runs.
pub(super) struct Resting<'a, A: Api> {
    /// The buffer.
    pub(super) buffer: &'a Buffer<A>,
    /// The usage it is in, before and after.
    pub(super) rest: Usage,
    /// First byte.
    pub(super) offset_bytes: u64,
}

/// Reads bytes of a buffer at rest.
pub(super) fn read_back<A: Api>(
    gpu: &Arc<Gpu<A>>,
    timeline: &mut Timeline<A>,
    range: &Resting<'_, A>,
    size_bytes: u64,
) -> Result<Vec<u8>, ExecError> {
    let staging = HostBuffer::new(gpu, "read back", size_bytes, wgt::BufferUses::MAP_READ | wgt::BufferUses::COPY_DST)?;
    let mut encoder = Encoder::new(gpu)?;
    encoder.record("read back", |encoder| {
        let enter = [
            barrier(range.buffer.raw(), range.rest, Usage::COPY_SRC),
            barrier(staging.raw(), Usage::MAP_READ, Usage::COPY_DST),
        ];
        // SAFETY: the encoder is recording; the caller says in which usage the buffer rests (P8).
        unsafe { encoder.transition_buffers(enter.into_iter()) };
        let regions = std::iter::once(region(range.offset_bytes, 0, size_bytes));
        // SAFETY: the caller keeps to the buffer's bytes; both are in the usages of a copy.
        unsafe { encoder.copy_buffer_to_buffer(range.buffer.raw(), staging.raw(), regions) };
        let leave = [
            barrier(range.buffer.raw(), Usage::COPY_SRC, range.rest),
            barrier(staging.raw(), Usage::COPY_DST, Usage::MAP_READ),
        ];
        // SAFETY: the encoder is recording; both are in the usages that the first call left them in.
        unsafe { encoder.transition_buffers(leave.into_iter()) };
        Ok(())
    })?;
    let value = timeline.submit(&mut encoder)?;
    timeline.wait(value)?;
    staging.invalidate();
    Ok(staging.read(0, size_bytes as usize))
}

/// Writes bytes, whole words, of a buffer at rest.
pub(super) fn write<A: Api>(
    gpu: &Arc<Gpu<A>>,
    timeline: &mut Timeline<A>,
    range: &Resting<'_, A>,
    bytes: &[u8],
) -> Result<(), ExecError> {
    let usage = wgt::BufferUses::MAP_WRITE | wgt::BufferUses::COPY_SRC;
    let mut staging = HostBuffer::new(gpu, "write", bytes.len() as u64, usage)?;
    staging.write(0, bytes);
    staging.flush();
    let mut encoder = Encoder::new(gpu)?;
    encoder.record("write", |encoder| {
        let enter = [
            barrier(staging.raw(), Usage::MAP_WRITE, Usage::COPY_SRC),
            barrier(range.buffer.raw(), range.rest, Usage::COPY_DST),
        ];
        // SAFETY: the encoder is recording; the caller says in which usage the buffer rests (P8).
        unsafe { encoder.transition_buffers(enter.into_iter()) };
        let regions = std::iter::once(region(0, range.offset_bytes, bytes.len() as u64));
        // SAFETY: the caller keeps to the buffer's bytes; both are in the usages of a copy.
        unsafe { encoder.copy_buffer_to_buffer(staging.raw(), range.buffer.raw(), regions) };
        let leave = std::iter::once(barrier(range.buffer.raw(), Usage::COPY_DST, range.rest));
        // SAFETY: the encoder is recording; the buffer is in `COPY_DST` since the first call.
        unsafe { encoder.transition_buffers(leave) };
        Ok(())
    })?;
    let value = timeline.submit(&mut encoder)?;
    timeline.wait(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::hal::DEVICE_USES;
    use crate::exec::hal::HalOptions;
    use crate::exec::hal::device::Adapters;
    use crate::exec::hal::encode::buffer_uses;

    fn noop() -> Arc<Gpu<wgpu_hal::api::Noop>> {
        let adapters = Adapters::enumerate(&HalOptions::new()).expect("the no-op API");
        Gpu::open(adapters, 0).expect("the no-op device").1
    }

    /// Every chunk several times over, pieces that end inside a word, in a chunk and exactly at its end.
    #[test]
    fn every_byte_arrives_through_a_few_small_buffers() {
        let gpu = noop();
        let chunk = CHUNK_BYTES as usize;
        let sizes = [3, chunk - 4, 2 * chunk, GRAIN_BYTES, GRAIN_BYTES + 2, 2 * chunk + 6, 1];
        let bytes: Vec<u8> = (0..2 * chunk + 6).map(|at| (at % 251) as u8).collect();
        let total: usize = sizes.iter().map(|size| size.next_multiple_of(4)).sum();
        let buffer = Buffer::new(&gpu, "all", total as u64, buffer_uses(DEVICE_USES)).map(Rc::new).expect("a buffer");
        let mut upload = Upload::new(&gpu, total as u64).expect("an upload");
        let (mut offset, mut heard) = (0, 0);
        for size in sizes {
            upload.put(&buffer, offset as u64, &bytes[..size], |part| heard += part).expect("on its way");
            offset += size.next_multiple_of(4);
        }
        upload.finish(&[(buffer.clone(), Usage::STORAGE_READ)]).expect("there");
        assert_eq!(heard, sizes.iter().sum::<usize>() as u64);
        let mut timeline = Timeline::new(&gpu).expect("a timeline");
        let range = Resting { buffer: &buffer, rest: Usage::STORAGE_READ, offset_bytes: 0 };
        let found = read_back(&gpu, &mut timeline, &range, total as u64).expect("read");
        let mut offset = 0;
        for size in sizes {
            assert!(found[offset..offset + size] == bytes[..size], "{size} bytes at {offset}");
            offset += size.next_multiple_of(4);
        }
    }

    /// What is on its way when something else fails is waited for before anything is freed.
    #[test]
    fn an_upload_may_be_dropped_at_any_time() {
        let gpu = noop();
        let buffer = Buffer::new(&gpu, "some", 4 * CHUNK_BYTES, buffer_uses(DEVICE_USES)).map(Rc::new);
        let buffer = buffer.expect("a buffer");
        let mut upload = Upload::new(&gpu, 4 * CHUNK_BYTES).expect("an upload");
        upload.put(&buffer, 0, &vec![1; 3 * CHUNK_BYTES as usize + 8], |_| ()).expect("on its way");
        drop((buffer, gpu));
        drop(upload);
    }
}
