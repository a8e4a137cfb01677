//! A kernel, lowered for the machine.
use crate::exec::ExecError;
use crate::plan::command::Kernel;

/// A kernel's instructions.
#[derive(Debug)]
pub(crate) struct Program {}

impl Program {
    /// The line (from 1) of the kernel's text that an instruction comes from.
    pub(crate) fn line(&self, site: u32) -> u32 {
        site
    }

    /// About how many instructions one workgroup executes, for deciding whether threads are worth it.
    pub(crate) fn cost(&self) -> u64 {
        0
    }
}

/// Lowers a kernel for subgroups of `subgroup_size` invocations.
///
/// # Errors
/// What of the text cannot be run, with its line.
pub(crate) fn lower(kernel: &Kernel, subgroup_size: u32) -> Result<Program, ExecError> {
    let _ = (kernel, subgroup_size);
    Ok(Program {})
}
