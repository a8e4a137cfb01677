//! What an interpreter tells of every access to memory.
//!
//! Gets calls from the machine while it runs a workgroup, in the order in which things happen; returns nothing. What
//! holds then: with [`Unwatched`], nothing is called and nothing is spent. Never changes what a kernel computes.

/// Whose memory an access goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Space {
    /// The slice bound to binding `n` of the kernel; offsets count from the beginning of the slice.
    Binding(u32),
    /// The workgroup's memory; offsets count from the beginning of its first variable.
    Workgroup,
}

/// How memory is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Load,
    Store,
    Atomic,
}

/// One access of one invocation, in bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// Which instruction of the program; [`Program::line`](super::program::Program::line) tells the line of text. In a
    /// function that the compiler wrote (`Kernel::origin` knows no place), it is the line of the call, which an author
    /// can do something about.
    pub(crate) site: u32,
    pub(crate) space: Space,
    pub(crate) kind: Kind,
    /// Of the first byte.
    pub(crate) offset_bytes: u32,
    /// Four, or two for a half.
    pub(crate) size_bytes: u32,
    /// The invocation's index in its workgroup (`local_invocation_index`).
    pub(crate) lane: u32,
    /// Whether other invocations load the same place with this one, at once: they are told of together, by the first.
    pub(crate) is_shared: bool,
}

/// Told of everything that a workgroup does to memory. Workgroups are told of one after the other.
pub(crate) trait Watch {
    /// Whether anything is told at all.
    const IS_WATCHING: bool;

    /// A workgroup begins; its memory is that of none before it.
    fn workgroup(&mut self, workgroup: [u32; 3]);

    /// An access. For a store of a float, `float` is what is stored.
    fn access(&mut self, access: &Access, float: Option<f32>);

    /// An index that is not below the length of what it indexes; what is accessed then is the last element. `space` is
    /// nothing for an index into a variable of the invocation itself.
    fn out_of_bounds(&mut self, site: u32, space: Option<Space>, lane: u32, index: u32, length: u32);

    /// A barrier which `arrived` of the workgroup's `lanes` invocations reach together, the others never: it orders
    /// accesses to storage buffers, to workgroup memory, or both.
    fn barrier(&mut self, site: u32, storage: bool, workgroup: bool, arrived: u32, lanes: u32);
}

/// Nobody looks.
pub(crate) struct Unwatched;

impl Watch for Unwatched {
    const IS_WATCHING: bool = false;
    fn workgroup(&mut self, _: [u32; 3]) {}
    fn access(&mut self, _: &Access, _: Option<f32>) {}
    fn out_of_bounds(&mut self, _: u32, _: Option<Space>, _: u32, _: u32, _: u32) {}
    fn barrier(&mut self, _: u32, _: bool, _: bool, _: u32, _: u32) {}
}
