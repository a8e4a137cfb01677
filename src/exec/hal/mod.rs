//! Executor on `wgpu-hal`: explicit transitions, nothing between the plan and the driver.
//!
//! Gets checked plans, weights, inputs; returns outputs. What holds then: every object a plan needs exists once and is
//! freed in the right order on every path; a step is one submission of commands that were recorded once, most of them
//! while a step before ran. Never validates and never decides: what hal asks of its caller is proved by `plan::check`
//! (P1 to P10), so only a [`CheckedPlan`](crate::plan::CheckedPlan) gets here, and all of the crate's GPU `unsafe`
//! lives in this module.

#![allow(unsafe_code, reason = "hal validates nothing and says so by being unsafe; every block names what it rests on")]

mod clock;
mod device;
mod encode;
mod open;
mod session;
mod upload;

use std::rc::Rc;
use std::sync::Arc;

use wgpu_types as wgt;

use crate::exec::hal::device::{Adapters, Buffer, Gpu};
use crate::exec::hal::encode::buffer_uses;
use crate::exec::hal::session::Contents;
use crate::exec::hal::upload::Upload;
use crate::exec::replay::TransitionAt;
use crate::exec::{DeviceInfo, ExecError, Executor, Progress, Weights, check_sizes, check_state, initial_row};
use crate::plan::usage::Usage;
use crate::plan::weights::{StateBuffer, StateLayout};

pub(super) use crate::exec::hal::device::are_promised;
pub use crate::exec::hal::open::Backend;
pub use crate::exec::hal::session::HalSession;

/// What wgpu asks for before it opens a device with cooperative matrices.
pub(super) const fn matrices_allowed() -> wgt::ExperimentalFeatures {
    // SAFETY: wgpu warns that experimental features may break its promise to validate. Of these one is used, by kernels
    // of checked plans, which load and store whole matrices in their bindings. In `linear_matrices` the guard of its
    // variant keeps every matrix inside (T, O and I are multiples of what a workgroup takes); naga does not check such
    // accesses, so for a text from elsewhere the device's robust buffer access alone stands behind its author's word.
    unsafe { wgt::ExperimentalFeatures::enabled() }
}

/// How sessions are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalOptions {
    /// Whether every command is checked against the tracked usages before it is recorded (`--validate`, debug builds):
    /// once for as many steps as are run by the recording.
    pub track: bool,
    /// Whether the API's own validation is switched on; its messages go to the `log` crate.
    pub validation_layers: bool,
    /// A transition to leave out of every step, to see what notices.
    pub dropped: Option<TransitionAt>,
}

impl HalOptions {
    /// What the command line starts from: tracked in debug builds, no layers, nothing left out.
    #[expect(clippy::new_without_default, reason = "a caller who takes these says so")]
    pub const fn new() -> Self {
        Self { track: cfg!(debug_assertions), validation_layers: false, dropped: None }
    }
}

/// Opens sessions on one device of one API.
pub struct HalExecutor<A: Backend> {
    gpu: Arc<Gpu<A>>,
    device: DeviceInfo,
    options: HalOptions,
}

impl<A: Backend> HalExecutor<A> {
    /// The API's devices, in the order of preference: discrete, integrated, virtual, software.
    ///
    /// # Errors
    /// If the API itself is absent.
    pub fn devices(options: &HalOptions) -> Result<Vec<DeviceInfo>, ExecError> {
        Ok(Self::adapters(options)?.found.into_iter().map(|(info, _)| info).collect())
    }

    /// Opens the preferred device, or the preferred one among those whose name contains `device_substring` (in any
    /// case).
    ///
    /// # Errors
    /// If there is no such device, or it cannot be opened.
    pub fn new(options: &HalOptions, device_substring: Option<&str>) -> Result<Self, ExecError> {
        let adapters = Self::adapters(options)?;
        let wanted = device_substring.unwrap_or_default().to_lowercase();
        let index = adapters.found.iter().position(|(info, _)| info.name.to_lowercase().contains(&wanted));
        let Some(index) = index else {
            let names: Vec<String> = adapters.found.iter().map(|(info, _)| format!("`{}`", info.name)).collect();
            let reason = if names.is_empty() {
                format!("no {} driver offers a device; {}", A::VARIANT, Self::advice())
            } else {
                format!("no {} device's name contains `{wanted}`; there are {}", A::VARIANT, names.join(", "))
            };
            return Err(ExecError::NoDevice { reason });
        };
        let (device, gpu) = Gpu::open(adapters, index)?;
        Ok(Self { gpu, device, options: *options })
    }

    fn adapters(options: &HalOptions) -> Result<Adapters<A>, ExecError> {
        Adapters::enumerate(options).map_err(|error| ExecError::NoDevice {
            reason: format!("{} cannot be used: {error}; {}", A::VARIANT, Self::advice()),
        })
    }

    /// What to do when there is no device.
    fn advice() -> &'static str {
        match A::VARIANT {
            wgt::Backend::Vulkan => {
                "install the GPU's Vulkan driver, or a software one such as `mesa-vulkan-drivers` (its name on Debian)"
            }
            _ => "another executor may find one",
        }
    }
}

/// What device buffers may be used for. Slots and inputs get all of it: plans of one session share them.
const DEVICE_USES: Usage =
    Usage::COPY_SRC.union(Usage::COPY_DST).union(Usage::STORAGE_READ).union(Usage::STORAGE_WRITE);

impl<A: Backend> Executor for HalExecutor<A> {
    type Session = HalSession<A>;

    fn device(&self) -> &DeviceInfo {
        &self.device
    }

    fn keep_pipelines(&mut self, bytes: Option<&[u8]>) {
        // Sessions hold the device, too: once one is open, its pipelines are made as they were.
        if let Some(gpu) = Arc::get_mut(&mut self.gpu) {
            gpu.keep_pipelines(bytes);
        }
    }

    fn kept_pipelines(&self) -> Option<Vec<u8>> {
        self.gpu.kept_pipelines()
    }

    fn open(
        &self,
        weights: &Weights<'_>,
        state: &StateLayout,
        progress: Progress<'_>,
    ) -> Result<HalSession<A>, ExecError> {
        weights.check()?;
        check_state(state)?;
        check_sizes(weights.layout, state, &self.device.limits)?;
        let gpu = &self.gpu;
        let create =
            |label: &str, size_bytes, usage| Buffer::new(gpu, label, size_bytes, buffer_uses(usage)).map(Rc::new);
        let weight_uses = Usage::COPY_DST.union(Usage::STORAGE_READ);
        let weight_buffers = weights.layout.buffers.iter().map(|b| create(&b.label, b.size_bytes, weight_uses));
        let weight_buffers = weight_buffers.collect::<Result<Vec<_>, _>>()?;
        let state_buffers = state.buffers.iter().map(|b| create(&b.label, b.size_bytes(), DEVICE_USES));
        let state_buffers = state_buffers.collect::<Result<Vec<_>, _>>()?;

        let total_bytes = weights.layout.pieces.iter().map(|piece| piece.dtype.size_bytes() * piece.count).sum();
        let state_bytes: u64 = state.buffers.iter().map(StateBuffer::size_bytes).sum();
        // Declared after the buffers it fills, hence dropped, with a wait, before them if anything below fails.
        let mut upload = Upload::new(gpu, total_bytes + state_bytes)?;
        let mut done_bytes = 0;
        for (piece, bytes) in weights.pieces() {
            upload.put(&weight_buffers[piece.buffer as usize], piece.offset_bytes, &bytes, |part_bytes| {
                done_bytes += part_bytes;
                progress(done_bytes, total_bytes);
            })?;
        }
        for (layout, buffer) in state.buffers.iter().zip(&state_buffers) {
            let row = initial_row(layout, weights.checkpoint)?;
            for number in 0..layout.rows {
                upload.put(buffer, number * layout.row_bytes(), &row, |_| ())?;
            }
        }
        let weight_rests = weight_buffers.iter().map(|buffer| (buffer.clone(), Usage::STORAGE_READ));
        let state_rests = state_buffers.iter().zip(&state.buffers).map(|(buffer, b)| (buffer.clone(), b.rest));
        upload.finish(&weight_rests.chain(state_rests).collect::<Vec<_>>())?;

        let contents = Contents {
            weights: weight_buffers,
            weight_hash: weights.layout.hash(),
            weight_bytes: weights.layout.size_bytes(),
            state: state_buffers,
            state_layout: state.clone(),
        };
        HalSession::new(gpu, contents, self.device.limits.clone(), self.options)
    }
}

/// The executor on Vulkan.
pub type VulkanExecutor = HalExecutor<wgpu_hal::api::Vulkan>;

impl VulkanExecutor {
    /// Version of the Khronos validation layer, as in `(1, 3, 239)`; nothing where it is not installed, or not asked
    /// for by [`HalOptions::validation_layers`].
    pub fn validation_layer(&self) -> Option<(u32, u32, u32)> {
        self.gpu.validation_layer().filter(|_| self.options.validation_layers)
    }
}

/// The executor on the back end that does nothing: what recording and submitting cost the CPU, without a device.
pub type NoopExecutor = HalExecutor<wgpu_hal::api::Noop>;
