//! Devices of each API, opened so that a step's commands can be submitted again.
//!
//! Gets an adapter and what is asked of its device; returns the device, open, and whether its command buffers may be
//! submitted again after they have finished. What holds then: on a device that says so, no command buffer is begun for
//! a single submission. Never looks into a command buffer, and never changes a device that hal opens itself: `wgpu`'s
//! are as they were.

use std::ffi::c_char;
use std::sync::OnceLock;

use ash::vk;
use wgpu_hal::api::{Noop, Vulkan};
use wgpu_hal::vulkan::InstanceShared;
use wgpu_hal::{self as hal, Adapter as _, Api, DeviceError};
use wgpu_types as wgt;

/// The APIs that [`HalExecutor`](crate::exec::hal::HalExecutor) runs on.
pub trait Backend: Api {
    /// Opens a device; says, too, whether its command buffers may be submitted again once they have finished.
    ///
    /// # Errors
    /// If the driver does not open it.
    ///
    /// # Safety
    /// As for [`wgpu_hal::Adapter::open`]: features and limits are among the adapter's own.
    unsafe fn open(
        adapter: &Self::Adapter,
        features: wgt::Features,
        limits: &wgt::Limits,
        hints: &wgt::MemoryHints,
    ) -> Result<(hal::OpenDevice<Self>, bool), DeviceError>;
}

impl Backend for Noop {
    unsafe fn open(
        adapter: &Self::Adapter,
        features: wgt::Features,
        limits: &wgt::Limits,
        hints: &wgt::MemoryHints,
    ) -> Result<(hal::OpenDevice<Self>, bool), DeviceError> {
        // SAFETY: the caller's promise.
        let opened = unsafe { adapter.open(features, limits, hints) }?;
        // Its queue runs what a command buffer lists, each time, and takes nothing out of it.
        Ok((opened, true))
    }
}

/// The queue that hal uses, and its family.
const QUEUE: (u32, u32) = (0, 0);

impl Backend for Vulkan {
    /// hal (30.0.1) begins each command buffer with `ONE_TIME_SUBMIT`, after which a second submission is against
    /// Vulkan's rules. So the device is made here, as hal makes it, and hal gets it with a function in its table that
    /// leaves the flag out. This may go when hal asks whoever records.
    unsafe fn open(
        adapter: &Self::Adapter,
        features: wgt::Features,
        limits: &wgt::Limits,
        hints: &wgt::MemoryHints,
    ) -> Result<(hal::OpenDevice<Self>, bool), DeviceError> {
        let (family, index) = QUEUE;
        let extensions = adapter.required_device_extensions(features);
        let mut device_features = adapter.physical_device_features(&extensions, features);
        let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&[1.0])];
        let names: Vec<*const c_char> = extensions.iter().map(|name| name.as_ptr()).collect();
        let description = vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(&names);
        let description = device_features.add_to_device_create(description);
        let instance = adapter.shared_instance();
        // SAFETY: the adapter is of this instance; the extensions and features are those that hal takes for features of
        // the adapter's own, which the caller promises; every device has a queue of family 0.
        let device =
            unsafe { instance.raw_instance().create_device(adapter.raw_physical_device(), &description, None) };
        let device = device.map_err(refused)?;
        let keeps_commands = is_dispatching(instance);
        let device = if keeps_commands { beginning_for_good(&device) } else { device };
        // SAFETY: the device was made from this adapter, with these extensions, this family and the features that the
        // adapter gave for them; hal owns it from here on. The functions of its table are the device's, and one that
        // does the same as the device's but for the flag.
        let opened =
            unsafe { adapter.device_from_raw(device, None, &extensions, features, limits, hints, family, index) }?;
        Ok((opened, keeps_commands))
    }
}

/// Why there is no device, in hal's words.
fn refused(error: vk::Result) -> DeviceError {
    match error {
        vk::Result::ERROR_OUT_OF_HOST_MEMORY
        | vk::Result::ERROR_OUT_OF_DEVICE_MEMORY
        | vk::Result::ERROR_TOO_MANY_OBJECTS => DeviceError::OutOfMemory,
        vk::Result::ERROR_DEVICE_LOST | vk::Result::ERROR_INITIALIZATION_FAILED => DeviceError::Lost,
        _ => DeviceError::Unexpected,
    }
}

/// How a Vulkan library begins a command buffer of any device.
struct Loader {
    begin: vk::PFN_vkBeginCommandBuffer,
    /// Keeps the library, and so the function, where they are.
    _library: ash::Entry,
}

/// The one that devices of this process are given [`begin_for_good`] for; the first that was asked.
static LOADER: OnceLock<Loader> = OnceLock::new();

/// Whether the way of [`LOADER`] to begin a command buffer is this instance's too.
///
/// What `vkGetInstanceProcAddr` gives for a function of devices may be called with whatever descends from the instance,
/// so that it has to find the device's own function by its first argument. With the usual loader that is one exported
/// function for all instances, drivers and layers. Nothing says that it must be: where another instance has another
/// one, its devices are left as they are.
fn is_dispatching(instance: &InstanceShared) -> bool {
    let (entry, handle) = (instance.entry(), instance.raw_instance().handle());
    // SAFETY: the instance is alive and made by this entry; the name ends in a zero.
    let found = unsafe { entry.get_instance_proc_addr(handle, c"vkBeginCommandBuffer".as_ptr()) };
    let Some(found) = found else { return false };
    // SAFETY: a function has the type that belongs to the name it was asked for by.
    let begin = unsafe { std::mem::transmute::<unsafe extern "system" fn(), vk::PFN_vkBeginCommandBuffer>(found) };
    let loader = LOADER.get_or_init(|| Loader { begin, _library: entry.clone() });
    std::ptr::fn_addr_eq(loader.begin, begin)
}

/// The same device with [`begin_for_good`] in its table. It descends from an instance that [`is_dispatching`] is true
/// of.
fn beginning_for_good(device: &ash::Device) -> ash::Device {
    let mut functions = device.fp_v1_0().clone();
    functions.begin_command_buffer = begin_for_good;
    let later = (device.fp_v1_1().clone(), device.fp_v1_2().clone(), device.fp_v1_3().clone());
    ash::Device::from_parts_1_3(device.handle(), functions, later.0, later.1, later.2)
}

/// `vkBeginCommandBuffer` for a command buffer that may be submitted again, whatever `info` says about that.
///
/// # Safety
/// As for `vkBeginCommandBuffer`, and the command buffer is of a device that [`beginning_for_good`] returned.
unsafe extern "system" fn begin_for_good(
    commands: vk::CommandBuffer,
    info: *const vk::CommandBufferBeginInfo<'_>,
) -> vk::Result {
    let loader = LOADER.get().expect("it was found before a device got this function");
    // SAFETY: the caller's pointer is valid, as Vulkan asks of it.
    let mut info = unsafe { *info };
    info.flags &= !vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT;
    // SAFETY: the command buffer descends from an instance that gives this very function, which `_library` keeps in its
    // place; the arguments are the caller's, but for a flag without which more is allowed and nothing else asked.
    unsafe { (loader.begin)(commands, &info) }
}
