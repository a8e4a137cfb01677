//! `graphc devices`: what is there, and which executors can use it.

use std::fmt::Write;

use clap::Args;

use crate::cli::{Failure, Format, print_result};
use crate::exec::DeviceInfo;
use crate::exec::hal::{HalOptions, VulkanExecutor};
use crate::exec::reference::{ReferenceExecutor, ReferenceOptions};
use crate::exec::wgpu::{WgpuBackend, WgpuExecutor, WgpuOptions};

/// Features that a kernel or an executor may ask about; `--format json` lists all.
const RELEVANT: [&str; 6] =
    ["SHADER_F16", "SUBGROUP", "SUBGROUP_BARRIER", "IMMEDIATES", "TIMESTAMP_QUERY", "EXPERIMENTAL_COOPERATIVE_MATRIX"];

#[derive(Args, Debug)]
pub(super) struct DevicesArgs {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(args: DevicesArgs) -> Result<(), Failure> {
    let options = WgpuOptions { backend: WgpuBackend::Native, track: false, validation_layers: false };
    let wgpu = WgpuExecutor::devices(&options);
    // No Vulkan loader is no error here: there is just nothing that `hal` could use.
    let hal = VulkanExecutor::devices(&HalOptions::new()).unwrap_or_default();
    let mut devices: Vec<(DeviceInfo, Vec<&str>)> = hal.into_iter().map(|device| (device, vec!["hal"])).collect();
    for device in wgpu {
        let same = |other: &&mut (DeviceInfo, Vec<&str>)| other.0.name == device.name && other.0.api == device.api;
        match devices.iter_mut().find(same) {
            Some((_, executors)) => executors.push("wgpu"),
            None => devices.push((device, vec!["wgpu"])),
        }
    }
    let is_alone = devices.is_empty();
    devices
        .extend(ReferenceExecutor::devices(&ReferenceOptions::new()).into_iter().map(|cpu| (cpu, vec!["reference"])));
    let mut out = String::new();
    match args.format {
        Format::Json => {
            let list: Vec<serde_json::Value> = devices
                .iter()
                .map(|(device, executors)| serde_json::json!({ "device": device, "executors": executors }))
                .collect();
            let _ = writeln!(out, "{}", serde_json::to_string_pretty(&list).expect("devices are plain data"));
        }
        Format::Text => {
            devices.iter().for_each(|(device, executors)| print_device(&mut out, device, executors));
            if is_alone {
                let _ = writeln!(
                    out,
                    "no other devices: for a GPU, install its Vulkan driver; Debian's `mesa-vulkan-drivers` has one \
                     that needs no GPU"
                );
            }
        }
    }
    print_result(&out)
}

fn print_device(out: &mut String, device: &DeviceInfo, executors: &[&str]) {
    let limits = &device.limits;
    let _ = writeln!(out, "{}", device.name);
    let _ = writeln!(out, "  kind        {} ({})", device.kind, device.api);
    let _ = writeln!(out, "  driver      {}", device.driver);
    let _ = writeln!(out, "  executors   {}", executors.join(", "));
    let _ = writeln!(
        out,
        "  bindings    {} storage buffers of {} MiB, offsets by {} bytes",
        limits.max_storage_buffers_per_dispatch,
        limits.max_storage_buffer_binding_bytes >> 20,
        limits.min_storage_buffer_offset_alignment
    );
    let _ = writeln!(
        out,
        "  workgroups  {} threads, {} KiB, subgroups of {}",
        limits.max_invocations_per_workgroup,
        limits.max_workgroup_storage_bytes >> 10,
        if limits.subgroups { limits.min_subgroup_size.to_string() } else { "none".into() }
    );
    let relevant = device.features.iter().filter(|feature| RELEVANT.contains(&feature.as_str()));
    let _ = writeln!(out, "  features    {}", relevant.cloned().collect::<Vec<_>>().join(", "));
}
