//! Runs programs, a workgroup at a time.
use std::sync::atomic::AtomicU32;

use super::program::Program;
use super::watch::Watch;

/// What a binding is bound to: exactly the bound slice, in 32-bit words.
#[derive(Clone, Copy, Debug)]
pub(crate) enum View<'a> {
    /// Nothing writes it while the dispatch runs.
    Read(&'a [u32]),
    /// The dispatch writes it, or others of its level do.
    Write(&'a [AtomicU32]),
}

/// Registers and workgroup memory, reused from one workgroup to the next.
#[derive(Default)]
pub(crate) struct Scratch {}

/// Runs one workgroup of a dispatch of `workgroups` from beginning to end.
pub(crate) fn run<W: Watch>(
    program: &Program,
    scratch: &mut Scratch,
    bindings: &[View<'_>],
    workgroups: [u32; 3],
    workgroup: [u32; 3],
    watch: &mut W,
) {
    let _ = (program, scratch, bindings, workgroups, workgroup, watch);
}
