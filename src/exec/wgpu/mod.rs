//! The safe executor, on wgpu: Vulkan, Metal, DX12, and the web's API where the crate is built for it.
//!
//! Gets checked plans, weights and inputs; returns outputs. What holds then: wgpu validates every call and tracks the
//! usage of every buffer itself, so that the plan's transitions are not used and its order and slots alone keep
//! barriers few; a failure of the device is an [`ExecError`], never a panic. Never uses `unsafe`: so kernels whose
//! plan asks for no run-time checks are compiled with them nevertheless, since wgpu's way to leave them out is an
//! unsafe call. That costs time and changes no result of a kernel that stays within its bindings.
//!
//! Nothing here starts threads. Opening and waiting block through `pollster` and `Device::poll`, which a browser's main
//! thread may not do: there the crate builds, and a caller needs a worker.

mod clock;
mod gpu;
mod prepare;
mod session;

use ::wgpu::{Adapter, AdapterInfo, Backends, DeviceType, Features, InstanceDescriptor, InstanceFlags};

use crate::base::limits::Limits;
use crate::exec::wgpu::gpu::{Gpu, Upload};
use crate::exec::{DeviceInfo, ExecError, Executor, Progress, Weights, check_sizes, check_state, initial_row};
use crate::plan::weights::StateLayout;

pub use crate::exec::wgpu::session::WgpuSession;

/// Which devices are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WgpuBackend {
    /// Those of the platform: Vulkan, Metal or DX12, in a browser its own API.
    Native,
    /// One that executes copies and nothing else: CPU cost and object lifetimes, without a GPU.
    Noop,
}

/// How devices are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WgpuOptions {
    /// Which devices are looked at.
    pub backend: WgpuBackend,
    /// Whether every recording is checked against tracked usages, as `--validate` asks for.
    pub track: bool,
    /// Whether the API's own validation layers are loaded, where they are installed.
    pub validation_layers: bool,
}

/// Opens sessions on one device of wgpu.
#[derive(Clone, Debug)]
pub struct WgpuExecutor {
    adapter: Adapter,
    info: DeviceInfo,
    track: bool,
}

impl WgpuExecutor {
    /// Every device that wgpu finds, in its order.
    pub fn devices(options: &WgpuOptions) -> Vec<DeviceInfo> {
        adapters(options).iter().map(device_info).collect()
    }

    /// Chooses the best device: discrete before integrated, virtual and CPU; among those whose name contains `device`,
    /// whatever its case, if that is given.
    ///
    /// # Errors
    /// If there is no such device.
    pub fn new(options: &WgpuOptions, device: Option<&str>) -> Result<Self, ExecError> {
        let adapters = adapters(options);
        let wanted = device.unwrap_or_default().to_lowercase();
        let chosen = adapters
            .iter()
            .filter(|adapter| adapter.get_info().name.to_lowercase().contains(&wanted))
            .min_by_key(|adapter| rank(adapter.get_info().device_type));
        match chosen {
            Some(adapter) => Ok(Self { adapter: adapter.clone(), info: device_info(adapter), track: options.track }),
            None => Err(no_device(device, &adapters)),
        }
    }
}

impl Executor for WgpuExecutor {
    type Session = WgpuSession;

    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    /// Every session has a device object of its own, so that one session's failure is not another's.
    fn open(
        &self,
        weights: &Weights<'_>,
        state: &StateLayout,
        progress: Progress<'_>,
    ) -> Result<WgpuSession, ExecError> {
        weights.check()?;
        check_state(state)?;
        check_sizes(weights.layout, state, &self.info.limits)?;
        let gpu = Gpu::open(&self.adapter)?;
        let weight_buffers = gpu.weight_buffers(weights.layout)?;
        let state_buffers = gpu.state_buffers(state)?;
        let mut upload = Upload::new(&gpu);
        let total: u64 = weights.layout.pieces.iter().map(|piece| piece.count * piece.dtype.size_bytes()).sum();
        let mut done = 0;
        for (piece, bytes) in weights.pieces() {
            upload.write(&weight_buffers[piece.buffer as usize], piece.offset_bytes, &bytes, |written| {
                done += written;
                progress(done, total);
            })?;
        }
        for (layout, buffer) in state.buffers.iter().zip(&state_buffers) {
            upload.fill(buffer, &initial_row(layout, weights.checkpoint)?, layout.rows)?;
        }
        upload.finish()?;
        let limits = self.info.limits.clone();
        Ok(WgpuSession::new(
            gpu,
            limits,
            weights.layout.hash(),
            weight_buffers,
            state.clone(),
            state_buffers,
            self.track,
        ))
    }
}

fn adapters(options: &WgpuOptions) -> Vec<Adapter> {
    let backends = match options.backend {
        WgpuBackend::Native => Backends::VULKAN | Backends::METAL | Backends::DX12 | Backends::BROWSER_WEBGPU,
        WgpuBackend::Noop => Backends::NOOP,
    };
    let mut descriptor = InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    descriptor.flags = match options.validation_layers {
        true => InstanceFlags::VALIDATION | InstanceFlags::DEBUG,
        false => InstanceFlags::empty(),
    };
    descriptor.backend_options.noop.enable = options.backend == WgpuBackend::Noop;
    let instance = ::wgpu::Instance::new(descriptor);
    // A browser unloads nothing, and its instances stay in their thread.
    #[cfg(not(target_arch = "wasm32"))]
    if options.backend == WgpuBackend::Native {
        crate::exec::loaded::hold(instance.clone());
    }
    pollster::block_on(instance.enumerate_adapters(backends))
}

/// The smaller, the better.
const fn rank(kind: DeviceType) -> u32 {
    match kind {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Cpu => 3,
        DeviceType::Other => 4,
    }
}

fn no_device(wanted: Option<&str>, found: &[Adapter]) -> ExecError {
    let install = "install the driver of your GPU, or a software one: on Debian and Ubuntu, `mesa-vulkan-drivers` has \
                   one for Vulkan";
    let names: Vec<String> = found.iter().map(|adapter| format!("`{}`", adapter.get_info().name)).collect();
    let reason = match (wanted, names.is_empty()) {
        (Some(wanted), false) => format!("no name contains `{wanted}`; found: {}", names.join(", ")),
        (_, false) => format!("none of these can be used: {}", names.join(", ")),
        (Some(wanted), true) => {
            format!("looked for `{wanted}` and found no Vulkan, Metal or DX12 device at all; {install}")
        }
        (None, true) => format!("found no Vulkan, Metal or DX12 device; {install}"),
    };
    ExecError::NoDevice { reason }
}

fn device_info(adapter: &Adapter) -> DeviceInfo {
    let info = adapter.get_info();
    let kind = match info.device_type {
        DeviceType::DiscreteGpu => "discrete",
        DeviceType::IntegratedGpu => "integrated",
        DeviceType::VirtualGpu => "virtual",
        DeviceType::Cpu => "cpu",
        DeviceType::Other => "other",
    };
    DeviceInfo {
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        api: info.backend.to_str().to_owned(),
        kind: kind.to_owned(),
        limits: limits(adapter, &info),
        features: adapter.features().iter_names().map(|(name, _)| name.to_owned()).collect(),
        name: info.name,
    }
}

fn limits(adapter: &Adapter, info: &AdapterInfo) -> Limits {
    let (limits, subgroups) = (adapter.limits(), adapter.features().contains(Features::SUBGROUP));
    Limits {
        max_storage_buffer_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        // Plans bind storage buffers alone and all of them in group 0, so that each of these three limits their number.
        max_storage_buffers_per_dispatch: limits
            .max_storage_buffers_per_shader_stage
            .min(limits.max_buffers_and_acceleration_structures_per_shader_stage)
            .min(limits.max_bindings_per_bind_group),
        min_storage_buffer_offset_alignment: limits.min_storage_buffer_offset_alignment,
        max_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
        max_invocations_per_workgroup: limits.max_compute_invocations_per_workgroup,
        max_workgroup_size: [
            limits.max_compute_workgroup_size_x,
            limits.max_compute_workgroup_size_y,
            limits.max_compute_workgroup_size_z,
        ],
        max_workgroup_storage_bytes: limits.max_compute_workgroup_storage_size,
        subgroups,
        min_subgroup_size: if subgroups { info.subgroup_min_size.max(1) } else { 1 },
        octets: gpu::has_octets(adapter),
        wide_words: gpu::has_wide_words(adapter),
        cooperative_matrix: gpu::has_matrices(adapter),
    }
}
