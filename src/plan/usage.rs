//! Usages of a buffer and their rules.
//!
//! Gets sets of usages, returns whether they combine and whether a transition must stand between two of them. The bits
//! mean what `wgpu-hal`'s `BufferUses` of the same names mean; only `exec::hal` converts. Never knows a GPU type.

use std::fmt;

use serde::{Deserialize, Serialize};

bitflags::bitflags! {
    /// What a buffer is used for at one moment: any number of reads, or one kind of write alone.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(transparent)]
    pub struct Usage: u16 {
        /// Read by the host through a mapping.
        const MAP_READ = 1 << 0;
        /// Written by the host through a mapping.
        const MAP_WRITE = 1 << 1;
        /// Source of a copy.
        const COPY_SRC = 1 << 2;
        /// Destination of a copy.
        const COPY_DST = 1 << 3;
        /// Bound to a dispatch that only reads it.
        const STORAGE_READ = 1 << 4;
        /// Bound to a dispatch that writes it, whether or not it also reads it.
        const STORAGE_WRITE = 1 << 5;
    }
}

impl Usage {
    /// All usages that only read.
    pub const READS: Self = Self::MAP_READ.union(Self::COPY_SRC).union(Self::STORAGE_READ);
    /// All usages that write; each excludes every other usage.
    pub const WRITES: Self = Self::MAP_WRITE.union(Self::COPY_DST).union(Self::STORAGE_WRITE);

    /// Whether this usage writes.
    pub const fn writes(self) -> bool {
        self.intersects(Self::WRITES)
    }

    /// Whether a buffer may be in this usage: reads alone, or exactly one kind of write.
    pub const fn is_legal(self) -> bool {
        !self.is_empty() && Self::all().contains(self) && (!self.writes() || self.bits().is_power_of_two())
    }

    /// Whether a transition must stand between a use in `self` and a later use in `next`: whenever one of them writes,
    /// even if they are equal, and before a read that the state does not contain yet.
    pub const fn needs_transition(self, next: Self) -> bool {
        self.writes() || next.writes() || !self.contains(next)
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (name, _) in self.iter_names() {
            if !first {
                f.write_str("+")?;
            }
            first = false;
            f.write_str(match name {
                "MAP_READ" => "map-read",
                "MAP_WRITE" => "map-write",
                "COPY_SRC" => "copy-src",
                "COPY_DST" => "copy-dst",
                "STORAGE_READ" => "storage-read",
                _ => "storage-write",
            })?;
        }
        if first { f.write_str("none") } else { Ok(()) }
    }
}
