//! Executor on the CPU: runs the kernels' WGSL itself, without a driver.
//!
//! Gets checked plans, weights and inputs; returns outputs. What holds then: a step has run when its ticket is
//! returned, and everything it computed comes from the plan's own texts; with [`Sanitize`], every access of every
//! invocation was looked at, and what is wrong is a [`Finding`]. Never decides: order, memory and transitions are the
//! plan's. Never uses `unsafe`.

mod level;
pub(crate) mod lower;
pub(crate) mod machine;
mod memory;
pub(crate) mod program;
pub mod sanitize;
mod session;
#[cfg(test)]
mod tests;
pub(crate) mod watch;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use crate::base::limits::Limits;
use crate::checkpoint::SharedBytes;
use crate::exec::reference::level::Workers;
use crate::exec::reference::memory::{BlockId, Memory};
use crate::exec::reference::sanitize::finding::Findings;
use crate::exec::reference::session::Contents;
use crate::exec::replay::TransitionAt;
use crate::exec::{DeviceInfo, ExecError, Executor, Progress, Weights, check_sizes, check_state, initial_row};
use crate::plan::weights::{StateLayout, WeightPiece};

pub use crate::exec::reference::sanitize::finding::{Check, Finding};
pub use crate::exec::reference::session::ReferenceSession;

/// How sessions are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReferenceOptions {
    /// Invocations of a subgroup: a power of two, from 4 to 128.
    pub subgroup_size: u32,
    /// Threads that run workgroups; nothing for as many as the machine runs at once.
    pub threads: Option<NonZeroUsize>,
    /// Whether every command is checked against the tracked usages before it runs (`--validate`, debug builds). A
    /// sanitizer looks closer, and is asked instead where there is one.
    pub track: bool,
    /// Whether every access is looked at, which takes one thread and several times as long.
    pub sanitize: Option<Sanitize>,
    /// A transition to leave out of every step, to see what notices.
    pub dropped: Option<TransitionAt>,
}

impl ReferenceOptions {
    /// What the command line starts from: subgroups as GPUs have them, all threads, tracked in debug builds.
    #[expect(clippy::new_without_default, reason = "a caller who takes these says so")]
    pub const fn new() -> Self {
        Self { subgroup_size: 32, threads: None, track: cfg!(debug_assertions), sanitize: None, dropped: None }
    }
}

/// What the sanitizer looks for beside what is always wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sanitize {
    /// The first NaN or infinity that is stored. Kernels may store them with good reason.
    pub not_finite: bool,
}

/// What is offered: more than GPUs do, and less than what offsets of 32 bits reach.
fn limits(subgroup_size: u32) -> Limits {
    Limits {
        max_storage_buffer_binding_bytes: (4 << 30) - 4,
        max_buffer_bytes: 8 << 30,
        max_storage_buffers_per_dispatch: 64,
        // The least that a WebGPU device may ask for.
        min_storage_buffer_offset_alignment: 32,
        max_workgroups_per_dimension: 65535,
        max_invocations_per_workgroup: 1024,
        max_workgroup_size: [1024, 1024, 64],
        max_workgroup_storage_bytes: 64 << 10,
        subgroups: true,
        min_subgroup_size: subgroup_size,
        octets: subgroup_size == 8,
        wide_words: subgroup_size == 8,
        cooperative_matrix: false,
    }
}

/// Opens sessions on the CPU.
#[derive(Clone, Debug)]
pub struct ReferenceExecutor {
    device: DeviceInfo,
    options: ReferenceOptions,
    workers: Arc<Workers>,
    findings: Arc<Mutex<Findings>>,
}

impl ReferenceExecutor {
    /// The one device that there is.
    pub fn devices(options: &ReferenceOptions) -> Vec<DeviceInfo> {
        vec![device(options)]
    }

    /// The CPU, if its name contains `device_substring` (in any case), where that is given.
    ///
    /// # Errors
    /// If it does not.
    ///
    /// # Panics
    /// If the options ask for subgroups of a size that there is not.
    pub fn new(options: &ReferenceOptions, device_substring: Option<&str>) -> Result<Self, ExecError> {
        let size = options.subgroup_size;
        assert!(size.is_power_of_two() && (4..=128).contains(&size), "subgroups of {size} invocations");
        let device = device(options);
        let wanted = device_substring.unwrap_or_default().to_lowercase();
        if !device.name.to_lowercase().contains(&wanted) {
            let reason = format!("the CPU's name does not contain `{wanted}`; it is `{}`", device.name);
            return Err(ExecError::NoDevice { reason });
        }
        let workers = Arc::new(Workers::new(if options.sanitize.is_some() { 1 } else { threads(options) }));
        Ok(Self { device, options: *options, workers, findings: Arc::default() })
    }

    /// What the sanitizer found in all sessions so far, in the order of finding, and how much more like it was left
    /// out.
    pub fn findings(&self) -> (Vec<Finding>, u64) {
        let findings = self.findings.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (findings.list().to_vec(), findings.omitted())
    }
}

fn threads(options: &ReferenceOptions) -> usize {
    let offered = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    options.threads.unwrap_or_else(offered).get()
}

fn device(options: &ReferenceOptions) -> DeviceInfo {
    DeviceInfo {
        name: processor(),
        driver: format!("graphc {}, {} threads", env!("CARGO_PKG_VERSION"), threads(options)),
        api: "reference".to_owned(),
        kind: "cpu".to_owned(),
        limits: limits(options.subgroup_size),
        features: vec!["SUBGROUP".to_owned(), "SUBGROUP_BARRIER".to_owned()],
    }
}

/// The processor's own name, where it tells.
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::__cpuid;
        // The brand string, in three leaves of four registers of four bytes.
        const FIRST: u32 = 0x8000_0002;
        const LAST: u32 = 0x8000_0004;
        if __cpuid(0x8000_0000).eax >= LAST {
            let words = (FIRST..=LAST).map(__cpuid).flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
            let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).take_while(|byte| *byte != 0).collect();
            let name = String::from_utf8_lossy(&bytes).split_whitespace().collect::<Vec<_>>().join(" ");
            if !name.is_empty() {
                return name;
            }
        }
    }
    format!("{} CPU", std::env::consts::ARCH)
}

/// For each buffer of weights, the bytes of the only tensor in it, if it can be read where it lies.
fn shared(weights: &Weights<'_>) -> Vec<Option<SharedBytes>> {
    let Weights { layout, checkpoint } = weights;
    let mut inside: Vec<Vec<&WeightPiece>> = vec![Vec::new(); layout.buffers.len()];
    layout.pieces.iter().for_each(|piece| inside[piece.buffer as usize].push(piece));
    let shared = layout.buffers.iter().zip(inside).map(|(buffer, pieces)| match pieces.as_slice() {
        [piece] if piece.offset_bytes == 0 && piece.transpose.is_none() => {
            checkpoint.shared(&piece.tensor).filter(|bytes| bytes.as_ref().len() as u64 == buffer.size_bytes)
        }
        _ => None,
    });
    shared.collect()
}

impl Executor for ReferenceExecutor {
    type Session = ReferenceSession;

    fn device(&self) -> &DeviceInfo {
        &self.device
    }

    /// Weights that fill a buffer are read where they lie in the file; others are copied, once.
    fn open(
        &self,
        weights: &Weights<'_>,
        state: &StateLayout,
        progress: Progress<'_>,
    ) -> Result<ReferenceSession, ExecError> {
        weights.check()?;
        check_state(state)?;
        check_sizes(weights.layout, state, &self.device.limits)?;
        let mut memory = Memory::new();
        let shared = shared(weights);
        let weight_blocks = weights.layout.buffers.iter().zip(&shared).map(|(buffer, bytes)| {
            let block = bytes.clone().and_then(|bytes| memory.share(bytes));
            Ok((block.map_or_else(|| memory.add(&buffer.label, buffer.size_bytes), Ok)?, block.is_some()))
        });
        let weight_blocks = weight_blocks.collect::<Result<Vec<_>, ExecError>>()?;
        let total_bytes = weights.layout.pieces.iter().map(|piece| piece.dtype.size_bytes() * piece.count).sum();
        let mut done_bytes = 0;
        for (piece, bytes) in weights.pieces() {
            let (block, is_shared) = weight_blocks[piece.buffer as usize];
            if !is_shared {
                let to = &mut memory.bytes_mut(block)[piece.offset_bytes as usize..];
                to[..bytes.len()].copy_from_slice(&bytes);
            }
            done_bytes += bytes.len() as u64;
            progress(done_bytes, total_bytes);
        }
        let weight_blocks: Vec<BlockId> = weight_blocks.into_iter().map(|(block, _)| block).collect();
        let state_blocks = state.buffers.iter().map(|buffer| memory.add(&buffer.label, buffer.size_bytes()));
        let state_blocks = state_blocks.collect::<Result<Vec<_>, _>>()?;
        for (layout, block) in state.buffers.iter().zip(&state_blocks) {
            let row = initial_row(layout, weights.checkpoint)?;
            memory.bytes_mut(*block).chunks_exact_mut(row.len()).for_each(|to| to.copy_from_slice(&row));
        }
        let contents = Contents {
            memory,
            weights: weight_blocks,
            weight_layout: weights.layout.clone(),
            weight_hash: weights.layout.hash(),
            state: state_blocks,
            state_layout: state.clone(),
        };
        let limits = self.device.limits.clone();
        Ok(ReferenceSession::new(contents, limits, self.options, self.workers.clone(), self.findings.clone()))
    }
}
