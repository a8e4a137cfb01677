//! Owners of hal objects; the order in which they are destroyed lives here.
//!
//! Gets descriptions, returns owners that free what they own when dropped, on every path. What holds then: an object
//! lives as long as its owner, the device longer than every owner, and [`Timeline`] is not dropped before the GPU is
//! done with what was submitted through it. So whoever declares a `Timeline` before the things it runs on is right on
//! every path, errors half-way included. Never knows a plan.

mod timeline;

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use wgpu_hal::{self as hal, Api, Device as _, DeviceError, Instance as _, Queue as _};
use wgpu_types as wgt;

use crate::base::limits::Limits;
use crate::exec::hal::HalOptions;
use crate::exec::hal::open::Backend;
use crate::exec::{DeviceInfo, ExecError, loaded};
use crate::plan::command::Kernel;

pub(super) use crate::exec::hal::device::timeline::{Encoder, Timeline};

/// What hal says, in our words; `what` is what was being made or done.
pub(super) fn failed(what: &str, error: &DeviceError) -> ExecError {
    match error {
        DeviceError::OutOfMemory => ExecError::OutOfMemory { what: what.to_owned() },
        DeviceError::Lost => ExecError::Lost { reason: what.to_owned() },
        other => ExecError::Device { reason: format!("{what}: {other}") },
    }
}

/// The instance and the adapters it finds, in the order of preference.
pub(super) struct Adapters<A: Api> {
    /// Each with what `graphc devices` says of it, the best first.
    pub(super) found: Vec<(DeviceInfo, hal::ExposedAdapter<A>)>,
    // Declared last, so that the adapters go first.
    instance: Arc<A::Instance>,
}

impl<A: Api> Adapters<A> {
    /// Looks for adapters; finds none at all where the API itself is absent.
    pub(super) fn enumerate(options: &HalOptions) -> Result<Self, hal::InstanceError> {
        let flags = if options.validation_layers {
            wgt::InstanceFlags::VALIDATION | wgt::InstanceFlags::DEBUG
        } else {
            wgt::InstanceFlags::empty()
        };
        let description = hal::InstanceDescriptor {
            name: "graphc",
            flags,
            memory_budget_thresholds: wgt::MemoryBudgetThresholds::default(),
            backend_options: wgt::BackendOptions {
                noop: wgt::NoopBackendOptions::enabled(),
                ..wgt::BackendOptions::default()
            },
            telemetry: None,
            display: None,
        };
        // SAFETY: nothing is asked of the caller; the description lives through the call.
        let instance = Arc::new(unsafe { A::Instance::init(&description) }?);
        loaded::hold(Arc::clone(&instance));
        // SAFETY: `instance` is alive and no surface is given.
        let adapters = unsafe { instance.enumerate_adapters(None) };
        let mut found: Vec<_> = adapters.into_iter().map(|adapter| (describe(&adapter), adapter)).collect();
        found.sort_by_key(|(_, adapter)| match adapter.info.device_type {
            wgt::DeviceType::DiscreteGpu => 0,
            wgt::DeviceType::IntegratedGpu => 1,
            wgt::DeviceType::VirtualGpu => 2,
            wgt::DeviceType::Cpu => 3,
            wgt::DeviceType::Other => 4,
        });
        Ok(Self { found, instance })
    }
}

/// What `graphc devices` says of an adapter.
fn describe<A: Api>(adapter: &hal::ExposedAdapter<A>) -> DeviceInfo {
    let info = &adapter.info;
    let kind = match info.device_type {
        wgt::DeviceType::DiscreteGpu => "discrete",
        wgt::DeviceType::IntegratedGpu => "integrated",
        wgt::DeviceType::VirtualGpu => "virtual",
        wgt::DeviceType::Cpu => "cpu",
        wgt::DeviceType::Other => "other",
    };
    let has = &adapter.capabilities.limits;
    let subgroups = adapter.features.contains(wgt::Features::SUBGROUP);
    let octets = subgroups && (info.subgroup_min_size, info.subgroup_max_size) == (8, 8);
    DeviceInfo {
        name: info.name.clone(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        api: info.backend.to_str().to_owned(),
        kind: kind.to_owned(),
        limits: Limits {
            max_storage_buffer_binding_bytes: has.max_storage_buffer_binding_size,
            max_buffer_bytes: has.max_buffer_size,
            max_storage_buffers_per_dispatch: has.max_storage_buffers_per_shader_stage,
            // The no-op device asks for nothing at all; WGSL never reads less than a word.
            min_storage_buffer_offset_alignment: has.min_storage_buffer_offset_alignment.max(4),
            max_workgroups_per_dimension: has.max_compute_workgroups_per_dimension,
            max_invocations_per_workgroup: has.max_compute_invocations_per_workgroup,
            max_workgroup_size: [
                has.max_compute_workgroup_size_x,
                has.max_compute_workgroup_size_y,
                has.max_compute_workgroup_size_z,
            ],
            max_workgroup_storage_bytes: has.max_compute_workgroup_storage_size,
            subgroups,
            min_subgroup_size: if subgroups { info.subgroup_min_size } else { 1 },
            octets,
            wide_words: octets && adapter.features.contains(wgt::Features::SHADER_INT64),
            cooperative_matrix: has_matrices(adapter),
        },
        features: adapter
            .features
            .iter_names()
            .map(|(name, _)| name.to_owned())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
    }
}

/// What kernels with cooperative matrices need of a device.
pub(super) const MATRIX_FEATURES: wgt::Features =
    wgt::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgt::Features::SHADER_F16).union(wgt::Features::SUBGROUP);

/// Whether an adapter has all that [`Limits::cooperative_matrix`] promises.
fn has_matrices<A: Api>(adapter: &hal::ExposedAdapter<A>) -> bool {
    let info = &adapter.info;
    adapter.features.contains(MATRIX_FEATURES)
        && (info.subgroup_min_size, info.subgroup_max_size) == (32, 32)
        && adapter.capabilities.cooperative_matrix_properties.iter().any(are_promised)
}

/// Whether these are the matrices that [`Limits::cooperative_matrix`] promises.
pub(in crate::exec) fn are_promised(matrices: &wgt::CooperativeMatrixProperties) -> bool {
    use wgt::CooperativeScalarType::{F16, F32};
    let types = (matrices.ab_type, matrices.cr_type);
    (matrices.m_size, matrices.n_size, matrices.k_size) == (16, 16, 16) && types == (F16, F32)
}

/// An open device with everything that must outlive it. Every owner below holds one, so it goes last.
pub(super) struct Gpu<A: Api> {
    /// What the driver knows of pipelines made before; nothing where it keeps nothing. Destroyed by `drop`, before the
    /// device.
    cache: Option<A::PipelineCache>,
    // Dropped from first to last: the queue frees semaphores of the device, the device belongs to the instance.
    queue: A::Queue,
    device: A::Device,
    _adapter: A::Adapter,
    _instance: Arc<A::Instance>,
    /// Whether kernels may use subgroup operations.
    pub(super) subgroups: bool,
    /// Whether kernels may use cooperative matrices.
    pub(super) matrices: bool,
    /// Whether kernels may read words of 64 bits.
    pub(super) wide_words: bool,
    /// Nanoseconds of a tick of the device's clock, if it has one.
    pub(super) timestamp_period_ns: Option<f32>,
    /// Whether it can be looked at between the dispatches of a pass.
    pub(super) timestamps_in_passes: bool,
    /// Whether the driver has caches of pipelines.
    keeps_pipelines: bool,
    /// Whether a command buffer may be submitted again after it has finished.
    keeps_commands: bool,
}

impl<A: Backend> Gpu<A> {
    /// Opens the adapter at `index` of those found.
    pub(super) fn open(adapters: Adapters<A>, index: usize) -> Result<(DeviceInfo, Arc<Self>), ExecError> {
        let Adapters { mut found, instance } = adapters;
        let (info, adapter) = found.swap_remove(index);
        // Nothing but what kernels, clocks and the cache ask for: every feature more is one more way for a driver to
        // differ.
        let Limits { subgroups, cooperative_matrix: matrices, wide_words, .. } = info.limits;
        let mut kernels = if matrices { MATRIX_FEATURES } else { wgt::Features::SUBGROUP };
        kernels.set(wgt::Features::SHADER_INT64, wide_words);
        let clocks = wgt::Features::TIMESTAMP_QUERY | wgt::Features::TIMESTAMP_QUERY_INSIDE_PASSES;
        let features = adapter.features & (kernels | clocks | wgt::Features::PIPELINE_CACHE);
        // Everything is created once, so allocation speed matters less than the unused ends of large blocks.
        let hints = wgt::MemoryHints::MemoryUsage;
        // SAFETY: features and limits are the adapter's own.
        let opened = unsafe { A::open(&adapter.adapter, features, &adapter.capabilities.limits, &hints) };
        let (opened, keeps_commands) = opened.map_err(|error| failed("opening the device", &error))?;
        let hal::OpenDevice { device, queue } = opened;
        let timestamp_period_ns = features.contains(wgt::Features::TIMESTAMP_QUERY).then(|| {
            // SAFETY: nothing is asked of the caller.
            unsafe { queue.get_timestamp_period() }
        });
        let timestamps_in_passes = features.contains(clocks);
        let (_adapter, _instance) = (adapter.adapter, instance);
        let gpu = Self {
            cache: None,
            queue,
            device,
            _adapter,
            _instance,
            subgroups,
            matrices,
            wide_words,
            timestamp_period_ns,
            timestamps_in_passes,
            keeps_pipelines: features.contains(wgt::Features::PIPELINE_CACHE),
            keeps_commands,
        };
        Ok((info, Arc::new(gpu)))
    }
}

impl<A: Api> Gpu<A> {
    /// Gives pipelines that are made from now on a cache, which begins with what
    /// [`kept_pipelines`](Self::kept_pipelines) gave on such a device, by such a driver; does nothing where there is no
    /// such thing, or one already. A cache only saves time, so that none is no failure.
    pub(super) fn keep_pipelines(&mut self, bytes: Option<&[u8]>) {
        if !self.keeps_pipelines || self.cache.is_some() {
            return;
        }
        let make = |data| {
            let description = hal::PipelineCacheDescriptor { label: Some("graphc"), data };
            // SAFETY: the bytes came out of a cache of this device's kind and driver, unchanged, or are none: whoever
            // reads them from outside compares a digest, and the driver compares its own name of itself.
            unsafe { self.device.create_pipeline_cache(&description) }.ok()
        };
        self.cache = bytes.and_then(|bytes| make(Some(bytes))).or_else(|| make(None));
    }

    /// What the cache holds by now, if there is one.
    pub(super) fn kept_pipelines(&self) -> Option<Vec<u8>> {
        let cache = self.cache.as_ref()?;
        // SAFETY: this device created it and has not destroyed it.
        unsafe { self.device.pipeline_cache_get_data(cache) }
    }
}

impl<A: Api> Drop for Gpu<A> {
    fn drop(&mut self) {
        if let Some(cache) = self.cache.take() {
            // SAFETY: this device created it; whoever makes pipelines holds this value, so none is being made.
            unsafe { self.device.destroy_pipeline_cache(cache) };
        }
    }
}

impl Gpu<hal::api::Vulkan> {
    /// Version of the Khronos validation layer that the loader finds, as in `(1, 3, 239)`.
    pub(super) fn validation_layer(&self) -> Option<(u32, u32, u32)> {
        let entry = self._instance.shared_instance().entry();
        // SAFETY: nothing is asked of the caller but a loaded library, which the entry holds.
        let layers = unsafe { entry.enumerate_instance_layer_properties() }.ok()?;
        let found = layers.iter().find(|layer| layer.layer_name_as_c_str() == Ok(c"VK_LAYER_KHRONOS_validation"))?;
        let version = found.spec_version;
        Some((version >> 22 & 0x7f, version >> 12 & 0x3ff, version & 0xfff))
    }
}

/// An owner of one hal object that the device creates and destroys.
macro_rules! owner {
    ($(#[$doc:meta])* $name:ident, $destroy:ident) => {
        $(#[$doc])*
        pub(super) struct $name<A: Api> {
            // `None` only while being dropped.
            raw: Option<A::$name>,
            gpu: Arc<Gpu<A>>,
        }

        impl<A: Api> $name<A> {
            /// The hal object.
            pub(super) fn raw(&self) -> &A::$name {
                self.raw.as_ref().expect("an owner holds its object until it is dropped")
            }
        }

        impl<A: Api> Drop for $name<A> {
            fn drop(&mut self) {
                if let Some(raw) = self.raw.take() {
                    // SAFETY: this device created it, nobody else owns it, and the `Timeline` it was used on has been
                    // waited for: a session and an upload declare theirs first.
                    unsafe { self.gpu.device.$destroy(raw) };
                }
            }
        }
    };
}

owner!(
    /// A buffer of device memory.
    Buffer,
    destroy_buffer
);
owner!(
    /// The types of a bind group's bindings.
    BindGroupLayout,
    destroy_bind_group_layout
);
owner!(
    /// The bind group layouts of a pipeline: one.
    PipelineLayout,
    destroy_pipeline_layout
);
owner!(
    /// A compiled kernel.
    ComputePipeline,
    destroy_compute_pipeline
);
owner!(
    /// A kernel on its way to a pipeline.
    ShaderModule,
    destroy_shader_module
);
owner!(
    /// Counts finished submissions.
    Fence,
    destroy_fence
);
owner!(
    /// Places for the device to note the time in.
    QuerySet,
    destroy_query_set
);

impl<A: Api> QuerySet<A> {
    /// As many timestamps, all to be reset before they are written.
    pub(super) fn timestamps(gpu: &Arc<Gpu<A>>, count: u32) -> Result<Self, ExecError> {
        debug_assert!(gpu.timestamp_period_ns.is_some(), "the device was opened with timestamps");
        let description = wgt::QuerySetDescriptor { label: Some("timestamps"), ty: wgt::QueryType::Timestamp, count };
        // SAFETY: the device has the feature, and the count is not zero; Vulkan knows no limit to it.
        let raw = unsafe { gpu.device.create_query_set(&description) }
            .map_err(|error| failed("a set of timestamps", &error))?;
        Ok(Self { raw: Some(raw), gpu: gpu.clone() })
    }
}

impl<A: Api> Buffer<A> {
    /// A buffer with unspecified contents.
    pub(super) fn new(
        gpu: &Arc<Gpu<A>>,
        label: &str,
        size_bytes: u64,
        usage: wgt::BufferUses,
    ) -> Result<Self, ExecError> {
        // An empty layout entry still gets an object: hal has no empty buffers.
        let description = hal::BufferDescriptor {
            label: Some(label),
            size: size_bytes.max(4),
            usage,
            memory_flags: hal::MemoryFlags::empty(),
        };
        // SAFETY: the size is not zero; P2 and `Limits::missing_for` keep it within the device's limit.
        let raw = unsafe { gpu.device.create_buffer(&description) }
            .map_err(|error| failed(&format!("buffer `{label}` of {size_bytes} bytes"), &error))?;
        Ok(Self { raw: Some(raw), gpu: gpu.clone() })
    }
}

/// A buffer that the host reads or writes while the GPU does not (P10); mapped as long as it lives.
pub(super) struct HostBuffer<A: Api> {
    buffer: Buffer<A>,
    pointer: NonNull<u8>,
    is_coherent: bool,
    size_bytes: u64,
}

impl<A: Api> HostBuffer<A> {
    /// A mapped buffer; `usage` holds `MAP_READ` or `MAP_WRITE`.
    pub(super) fn new(
        gpu: &Arc<Gpu<A>>,
        label: &str,
        size_bytes: u64,
        usage: wgt::BufferUses,
    ) -> Result<Self, ExecError> {
        assert!(usage.intersects(wgt::BufferUses::MAP_READ | wgt::BufferUses::MAP_WRITE), "a host buffer is mapped");
        let size_bytes = size_bytes.max(4);
        let buffer = Buffer::new(gpu, label, size_bytes, usage)?;
        // SAFETY: created just now with a map usage, not mapped yet, and the range is all of it. `drop` unmaps it.
        let mapping = unsafe { gpu.device.map_buffer(buffer.raw(), 0..size_bytes) }
            .map_err(|error| failed(&format!("mapping buffer `{label}`"), &error))?;
        Ok(Self { buffer, pointer: mapping.ptr, is_coherent: mapping.is_coherent, size_bytes })
    }

    /// The hal object.
    pub(super) fn raw(&self) -> &A::Buffer {
        self.buffer.raw()
    }

    /// How many bytes are mapped.
    pub(super) const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The mapped address of `len` bytes from `offset_bytes` on.
    fn at(&self, offset_bytes: u64, len: usize) -> NonNull<u8> {
        let end = offset_bytes.checked_add(len as u64).expect("a slice of a plan does not overflow (P2)");
        assert!(end <= self.size_bytes, "a slice lies in its buffer (P2)");
        // SAFETY: asserted to stay inside the mapping.
        unsafe { self.pointer.add(offset_bytes as usize) }
    }

    /// Bytes to be written, from an offset on, and only written: reading them may be slow. The GPU sees them after
    /// [`flush`](Self::flush) and a later submission. The caller has waited for the last step that used the buffer.
    pub(super) fn bytes_mut(&mut self, offset_bytes: u64, len: usize) -> &mut [u8] {
        let to = self.at(offset_bytes, len);
        // SAFETY: `at` checked the range; mapped memory is initialised as far as Rust can tell, being foreign; this
        // value is borrowed as long as the slice lives, and P10 keeps the GPU away.
        unsafe { std::slice::from_raw_parts_mut(to.as_ptr(), len) }
    }

    /// Writes bytes; the GPU sees them after [`flush`](Self::flush) and a later submission. The caller has waited for
    /// the last step that used the buffer.
    pub(super) fn write(&mut self, offset_bytes: u64, bytes: &[u8]) {
        let to = self.at(offset_bytes, bytes.len());
        // SAFETY: `at` checked the range, `bytes` is no part of a mapping, and P10 keeps the GPU away.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }

    /// Reads bytes that the GPU wrote, after [`invalidate`](Self::invalidate). The caller has waited for the step that
    /// wrote them.
    pub(super) fn read(&self, offset_bytes: u64, len: usize) -> Vec<u8> {
        let from = self.at(offset_bytes, len);
        // SAFETY: `at` checked the range; mapped memory is initialised as far as Rust can tell, being foreign; P10
        // keeps the GPU away while the slice lives, which is until the end of this statement.
        unsafe { std::slice::from_raw_parts(from.as_ptr(), len) }.to_vec()
    }

    /// Makes what was written visible to later submissions.
    pub(super) fn flush(&self) {
        if !self.is_coherent {
            // All of it: hal rounds ranges to the device's atom size without looking at where their ends fall.
            let ranges = std::iter::once(0..self.size_bytes);
            // SAFETY: it is mapped and the range is all of it.
            unsafe { self.buffer.gpu.device.flush_mapped_ranges(self.buffer.raw(), ranges) };
        }
    }

    /// Makes what finished submissions wrote visible to the host.
    pub(super) fn invalidate(&self) {
        if !self.is_coherent {
            let ranges = std::iter::once(0..self.size_bytes);
            // SAFETY: it is mapped and the range is all of it.
            unsafe { self.buffer.gpu.device.invalidate_mapped_ranges(self.buffer.raw(), ranges) };
        }
    }
}

impl<A: Api> Drop for HostBuffer<A> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` and not unmapped since; the pointer dies with this value.
        unsafe { self.buffer.gpu.device.unmap_buffer(self.buffer.raw()) };
    }
}

/// A kernel ready to be bound and dispatched.
pub(super) struct Pipeline<A: Api> {
    // Dropped from first to last: each was made from those after it.
    pub(super) pipeline: ComputePipeline<A>,
    pub(super) layout: PipelineLayout<A>,
    group_layout: BindGroupLayout<A>,
}

impl<A: Api> Pipeline<A> {
    /// Compiles a kernel.
    pub(super) fn new(gpu: &Arc<Gpu<A>>, kernel: &Kernel) -> Result<Self, ExecError> {
        let group_layout = group_layout(gpu, kernel)?;
        let layout = pipeline_layout(gpu, kernel, &group_layout)?;
        let module = shader_module(gpu, kernel)?;
        let constants = naga::back::PipelineConstants::default();
        let description = hal::ComputePipelineDescriptor {
            label: Some(&kernel.label),
            layout: layout.raw(),
            stage: hal::ProgrammableStage {
                module: module.raw(),
                entry_point: &kernel.entry,
                constants: &constants,
                zero_initialize_workgroup_memory: kernel.zero_workgroup_memory,
            },
            cache: gpu.cache.as_ref(),
        };
        // SAFETY: cache, module and layout are this device's; P1 matched the kernel's bindings with the text's. Other
        // threads may be doing the same: hal's devices are shared freely, and drivers lock a cache themselves.
        let raw = unsafe { gpu.device.create_compute_pipeline(&description) }.map_err(|error| match error {
            hal::PipelineError::Device(error) => failed(&format!("pipeline `{}`", kernel.label), &error),
            other => ExecError::Device { reason: format!("pipeline `{}`: {other}", kernel.label) },
        })?;
        Ok(Self { pipeline: ComputePipeline { raw: Some(raw), gpu: gpu.clone() }, layout, group_layout })
    }
}

fn group_layout<A: Api>(gpu: &Arc<Gpu<A>>, kernel: &Kernel) -> Result<BindGroupLayout<A>, ExecError> {
    let entries: Vec<wgt::BindGroupLayoutEntry> = (0..)
        .zip(&kernel.bindings)
        .map(|(number, binding)| wgt::BindGroupLayoutEntry {
            binding: number,
            visibility: wgt::ShaderStages::COMPUTE,
            ty: wgt::BindingType::Buffer {
                ty: wgt::BufferBindingType::Storage { read_only: !binding.writes },
                has_dynamic_offset: false,
                min_binding_size: NonZeroU64::new(binding.min_bytes),
            },
            count: None,
        })
        .collect();
    let description = hal::BindGroupLayoutDescriptor {
        label: Some(&kernel.label),
        flags: hal::BindGroupLayoutFlags::empty(),
        entries: &entries,
    };
    // SAFETY: the entries are in the order of their numbers.
    let raw = unsafe { gpu.device.create_bind_group_layout(&description) }
        .map_err(|error| failed(&format!("bind group layout of `{}`", kernel.label), &error))?;
    Ok(BindGroupLayout { raw: Some(raw), gpu: gpu.clone() })
}

fn pipeline_layout<A: Api>(
    gpu: &Arc<Gpu<A>>,
    kernel: &Kernel,
    group_layout: &BindGroupLayout<A>,
) -> Result<PipelineLayout<A>, ExecError> {
    let description = hal::PipelineLayoutDescriptor {
        label: Some(kernel.label.as_str()),
        flags: hal::PipelineLayoutFlags::empty(),
        bind_group_layouts: &[Some(group_layout.raw())],
        immediate_size: 0,
    };
    // SAFETY: the group layout is this device's and outlives the pipeline layout in `Pipeline`.
    let raw = unsafe { gpu.device.create_pipeline_layout(&description) }
        .map_err(|error| failed(&format!("pipeline layout of `{}`", kernel.label), &error))?;
    Ok(PipelineLayout { raw: Some(raw), gpu: gpu.clone() })
}

/// An unused override, appended to every kernel. hal's Vulkan back end (30.0.1) translates a module without overrides
/// before it knows the entry point, and then heeds neither `force_loop_bounding` nor
/// `zero_initialize_workgroup_memory`; this may go when it does.
const DEFERRED: &str = "\noverride graphc_translate_late: u32 = 0u;\n";

/// A kernel's text as hal wants it, or what is wrong with it.
fn parse(
    wgsl: &str,
    subgroups: bool,
    matrices: bool,
    wide_words: bool,
) -> Result<(naga::Module, naga::valid::ModuleInfo), String> {
    let source = format!("{wgsl}{DEFERRED}");
    let module = naga::front::wgsl::parse_str(&source).map_err(|error| error.emit_to_string(&source))?;
    // Halves are unpacked into 32-bit floats, which every Vulkan device can do.
    let mut capabilities = naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(naga::valid::Capabilities::SUBGROUP, subgroups);
    let with_halves = naga::valid::Capabilities::COOPERATIVE_MATRIX | naga::valid::Capabilities::SHADER_FLOAT16;
    capabilities.set(with_halves, matrices);
    capabilities.set(naga::valid::Capabilities::SHADER_INT64, wide_words);
    let info = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|error| error.emit_to_string(&source))?;
    Ok((module, info))
}

fn shader_module<A: Api>(gpu: &Arc<Gpu<A>>, kernel: &Kernel) -> Result<ShaderModule<A>, ExecError> {
    let wrong =
        |text: String| ExecError::Device { reason: format!("kernel `{}` does not compile: {text}", kernel.label) };
    let (module, info) = parse(&kernel.wgsl, gpu.subgroups, gpu.matrices, gpu.wide_words).map_err(wrong)?;
    let runtime_checks =
        if kernel.runtime_checks { wgt::ShaderRuntimeChecks::checked() } else { wgt::ShaderRuntimeChecks::unchecked() };
    let description = hal::ShaderModuleDescriptor { label: Some(&kernel.label), runtime_checks };
    let shader = hal::NagaShader { module: std::borrow::Cow::Owned(module), info, debug_source: None };
    // SAFETY: naga validated the module just now, for this device's features. Unchecked kernels are those that the plan
    // says index in bounds; a kernel from elsewhere is planned with its checks on.
    let raw =
        unsafe { gpu.device.create_shader_module(&description, hal::ShaderInput::Naga(shader)) }.map_err(|error| {
            match error {
                hal::ShaderError::Device(error) => failed(&format!("kernel `{}`", kernel.label), &error),
                hal::ShaderError::Compilation(text) => wrong(text),
            }
        })?;
    Ok(ShaderModule { raw: Some(raw), gpu: gpu.clone() })
}

/// What one dispatch binds, with the pipeline it binds it for. Keeps both the layout and the buffers alive.
pub(super) struct BindGroup<A: Api> {
    raw: Option<A::BindGroup>,
    gpu: Arc<Gpu<A>>,
    pub(super) pipeline: Rc<Pipeline<A>>,
    _buffers: Vec<Rc<Buffer<A>>>,
}

/// A buffer, the first byte bound, the number of bytes bound.
pub(super) type Bound<A> = (Rc<Buffer<A>>, u64, u64);

impl<A: Api> BindGroup<A> {
    /// Binds ranges of buffers, in the order of the kernel's bindings.
    pub(super) fn new(pipeline: &Rc<Pipeline<A>>, label: &str, bound: Vec<Bound<A>>) -> Result<Self, ExecError> {
        let gpu = &pipeline.group_layout.gpu;
        let buffers: Vec<_> = bound
            .iter()
            .map(|(buffer, offset, size)| {
                hal::BufferBinding::new_unchecked(buffer.raw(), *offset, NonZeroU64::new(*size))
            })
            .collect();
        let entries: Vec<_> = (0..bound.len() as u32)
            .map(|number| hal::BindGroupEntry { binding: number, resource_index: number, count: 1 })
            .collect();
        let description = hal::BindGroupDescriptor {
            label: Some(label),
            layout: pipeline.group_layout.raw(),
            buffers: &buffers,
            samplers: &[],
            textures: &[],
            entries: &entries,
            acceleration_structures: &[],
            external_textures: &[],
        };
        // SAFETY: as many bindings as the layout has (P1), every range in its buffer and aligned (P2); the owner keeps
        // the buffers and the layout alive.
        let raw = unsafe { gpu.device.create_bind_group(&description) }
            .map_err(|error| failed(&format!("bind group of `{label}`"), &error))?;
        let buffers = bound.into_iter().map(|(buffer, _, _)| buffer).collect();
        Ok(Self { raw: Some(raw), gpu: gpu.clone(), pipeline: pipeline.clone(), _buffers: buffers })
    }

    /// The hal object.
    pub(super) fn raw(&self) -> &A::BindGroup {
        self.raw.as_ref().expect("an owner holds its object until it is dropped")
    }
}

impl<A: Api> Drop for BindGroup<A> {
    fn drop(&mut self) {
        if let Some(raw) = self.raw.take() {
            // SAFETY: this device created it; its `Timeline` has been waited for; its layout is still alive.
            unsafe { self.gpu.device.destroy_bind_group(raw) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_translated_late() {
        let (module, _) = parse("@compute @workgroup_size(1) fn main() {}", false, false, false).expect("it parses");
        assert_eq!(module.overrides.len(), 1, "hal looks at this number");
    }

    /// What the drivers can say, whatever was being done.
    #[test]
    fn failures_say_what_was_being_done_and_what_to_do() {
        let said = |error| failed("buffer `slot0` of 64 bytes", &error).to_string();
        assert_eq!(
            said(DeviceError::OutOfMemory),
            "out of device memory while creating buffer `slot0` of 64 bytes; use smaller steps, fewer sequences or a \
             device with more memory"
        );
        assert_eq!(
            said(DeviceError::Lost),
            "the device was lost: buffer `slot0` of 64 bytes; start again, with smaller steps if its driver stopped \
             one that took too long, and see the system's log"
        );
        assert!(said(DeviceError::Unexpected).starts_with("the device failed: buffer `slot0` of 64 bytes: "));
    }

    #[test]
    fn subgroups_need_a_device_that_has_them() {
        let wgsl = "@compute @workgroup_size(32) fn main() { let sum = subgroupAdd(1.0); }";
        parse(wgsl, true, false, false).expect("the device has them");
        parse(wgsl, false, false, false).expect_err("the device has none");
    }
}
