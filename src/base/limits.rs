//! What a device offers, as the planner sees it.
//!
//! Gets numbers from an adapter or a named baseline, returns them as plain data; the planner asks nothing else about a
//! device. Never queries one.

use serde::{Deserialize, Serialize};

/// Limits and features of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest storage buffer binding, in bytes.
    pub max_storage_buffer_binding_bytes: u64,
    /// Largest buffer, in bytes.
    pub max_buffer_bytes: u64,
    /// Storage buffers one dispatch may bind.
    pub max_storage_buffers_per_dispatch: u32,
    /// What binding offsets must be multiples of, in bytes.
    pub min_storage_buffer_offset_alignment: u32,
    /// Workgroups that a dispatch may have in each direction.
    pub max_workgroups_per_dimension: u32,
    /// Threads of a workgroup.
    pub max_invocations_per_workgroup: u32,
    /// Threads of a workgroup in x, y and z.
    pub max_workgroup_size: [u32; 3],
    /// Bytes of workgroup memory that a kernel may use.
    pub max_workgroup_storage_bytes: u32,
    /// Whether kernels may use subgroup operations.
    pub subgroups: bool,
    /// Lanes of the narrowest subgroup, 1 without subgroups.
    pub min_subgroup_size: u32,
    /// Whether every subgroup has eight lanes, as those of software drivers on CPUs with vectors of 256 bits have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub octets: bool,
    /// Whether kernels read halves as words of 64 bits where they read eight at a time: of devices that have such words
    /// and octets, and load one word after the other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wide_words: bool,
    /// Whether subgroups, all of which have 32 lanes then, may multiply matrices of 16 x 16 halves and add into ones of
    /// floats; halves are a type of kernels then, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cooperative_matrix: bool,
}

impl Limits {
    /// What every WebGPU implementation offers: the default limits of the specification (WebGPU, "Limits"), no
    /// subgroups.
    pub fn webgpu() -> Self {
        Self {
            max_storage_buffer_binding_bytes: 128 << 20,
            max_buffer_bytes: 256 << 20,
            max_storage_buffers_per_dispatch: 8,
            min_storage_buffer_offset_alignment: 256,
            max_workgroups_per_dimension: 65535,
            max_invocations_per_workgroup: 256,
            max_workgroup_size: [256, 256, 64],
            max_workgroup_storage_bytes: 16384,
            subgroups: false,
            min_subgroup_size: 1,
            octets: false,
            wide_words: false,
            cooperative_matrix: false,
        }
    }

    /// What desktop Vulkan drivers offer, software ones included.
    pub fn vulkan() -> Self {
        Self {
            max_buffer_bytes: 1 << 30,
            max_storage_buffers_per_dispatch: 10,
            subgroups: true,
            min_subgroup_size: 4,
            ..Self::webgpu()
        }
    }

    /// What guards know of a device, by the names that they have for it.
    pub fn fact(&self, name: &str) -> Option<i64> {
        Some(match name {
            "subgroups" => self.subgroups.into(),
            "subgroup_size" => self.min_subgroup_size.into(),
            "octets" => (self.subgroups && self.octets).into(),
            "max_invocations" => self.max_invocations_per_workgroup.into(),
            "max_storage_buffers" => self.max_storage_buffers_per_dispatch.into(),
            "workgroup_bytes" => self.max_workgroup_storage_bytes.into(),
            "cooperative_matrix" => self.cooperative_matrix.into(),
            _ => return None,
        })
    }

    /// The names of the limits in which `self` (a device) offers less than `needed`, with both numbers.
    pub fn missing_for(&self, needed: &Self) -> Vec<String> {
        let mut missing = Vec::new();
        let mut at_least = |name: &str, has: u64, wants: u64| {
            if has < wants {
                missing.push(format!("`{name}`: {wants} needed, {has} offered"));
            }
        };
        let (has, wants) = (self, needed);
        at_least(
            "max_storage_buffer_binding_bytes",
            has.max_storage_buffer_binding_bytes,
            wants.max_storage_buffer_binding_bytes,
        );
        at_least("max_buffer_bytes", has.max_buffer_bytes, wants.max_buffer_bytes);
        at_least(
            "max_storage_buffers_per_dispatch",
            has.max_storage_buffers_per_dispatch.into(),
            wants.max_storage_buffers_per_dispatch.into(),
        );
        at_least(
            "max_workgroups_per_dimension",
            has.max_workgroups_per_dimension.into(),
            wants.max_workgroups_per_dimension.into(),
        );
        at_least(
            "max_invocations_per_workgroup",
            has.max_invocations_per_workgroup.into(),
            wants.max_invocations_per_workgroup.into(),
        );
        for (axis, (has, wants)) in
            ["x", "y", "z"].iter().zip(has.max_workgroup_size.iter().zip(wants.max_workgroup_size))
        {
            at_least(&format!("max_workgroup_size.{axis}"), (*has).into(), wants.into());
        }
        at_least(
            "max_workgroup_storage_bytes",
            has.max_workgroup_storage_bytes.into(),
            wants.max_workgroup_storage_bytes.into(),
        );
        at_least("subgroups", has.subgroups.into(), wants.subgroups.into());
        at_least("min_subgroup_size", has.min_subgroup_size.into(), wants.min_subgroup_size.into());
        at_least("octets", has.octets.into(), wants.octets.into());
        at_least("wide_words", has.wide_words.into(), wants.wide_words.into());
        at_least("cooperative_matrix", has.cooperative_matrix.into(), wants.cooperative_matrix.into());
        if has.min_storage_buffer_offset_alignment > wants.min_storage_buffer_offset_alignment {
            let (wants, has) = (wants.min_storage_buffer_offset_alignment, has.min_storage_buffer_offset_alignment);
            missing.push(format!("`min_storage_buffer_offset_alignment`: at most {wants} needed, {has} offered"));
        }
        missing
    }
}
