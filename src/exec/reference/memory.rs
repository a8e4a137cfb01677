//! The words of a session's buffers.
//!
//! Gets sizes, returns blocks of zeros; lends words to be read, or a whole block to be written. What holds then: a
//! block lent out is put back before anybody looks, and words that are shared are never written. Never knows what a
//! word means.

use std::ops::Range;
use std::sync::atomic::AtomicU32;

use zerocopy::{FromBytes, IntoBytes};

use crate::checkpoint::SharedBytes;
use crate::exec::ExecError;
use crate::exec::reference::machine::View;

/// Index of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct BlockId(usize);

impl BlockId {
    pub(super) const fn index(self) -> usize {
        self.0
    }
}

/// Blocks of 32-bit words.
#[derive(Debug)]
pub(super) struct Memory {
    blocks: Vec<Block>,
}

#[derive(Debug)]
enum Block {
    Own(Vec<u32>),
    /// Words of a checkpoint, where they lie.
    Shared(SharedBytes),
}

impl Block {
    fn words(&self) -> &[u32] {
        match self {
            Self::Own(words) => words,
            Self::Shared(bytes) => bytemuck::cast_slice(bytes.as_ref()),
        }
    }

    fn own(&mut self) -> &mut Vec<u32> {
        match self {
            Self::Own(words) => words,
            Self::Shared(_) => unreachable!("no plan writes weights (P3)"),
        }
    }
}

impl Memory {
    pub(super) const fn new() -> Self {
        Self { blocks: Vec::new() }
    }

    /// How many blocks there are, given up ones included.
    pub(super) const fn len(&self) -> usize {
        self.blocks.len()
    }

    /// A new block of zeros.
    pub(super) fn add(&mut self, label: &str, size_bytes: u64) -> Result<BlockId, ExecError> {
        let out_of_memory = || ExecError::OutOfMemory { what: format!("`{label}` of {size_bytes} bytes") };
        let count = usize::try_from(size_bytes.div_ceil(4)).map_err(|_| out_of_memory())?;
        let mut words = Vec::new();
        words.try_reserve_exact(count).map_err(|_| out_of_memory())?;
        words.resize(count, 0);
        self.blocks.push(Block::Own(words));
        Ok(BlockId(self.blocks.len() - 1))
    }

    /// A block of words that are read where they lie; nothing if they do not lie as words do.
    pub(super) fn share(&mut self, bytes: SharedBytes) -> Option<BlockId> {
        bytemuck::try_cast_slice::<u8, u32>(bytes.as_ref()).ok()?;
        self.blocks.push(Block::Shared(bytes));
        Some(BlockId(self.blocks.len() - 1))
    }

    /// Takes back the blocks that were added last, down to a number of them.
    pub(super) fn truncate(&mut self, len: usize) {
        self.blocks.truncate(len);
    }

    /// Frees all blocks but these; ids stay what they are.
    pub(super) fn keep(&mut self, kept: impl Fn(BlockId) -> bool) {
        for (index, block) in self.blocks.iter_mut().enumerate() {
            if !kept(BlockId(index)) {
                *block = Block::Own(Vec::new());
            }
        }
    }

    pub(super) fn bytes(&self, block: BlockId) -> &[u8] {
        self.blocks[block.0].words().as_bytes()
    }

    pub(super) fn bytes_mut(&mut self, block: BlockId) -> &mut [u8] {
        self.blocks[block.0].own().as_mut_bytes()
    }

    /// Copies words of one block to another, or to others of the same.
    pub(super) fn copy(&mut self, from: (BlockId, Range<usize>), to: (BlockId, usize)) {
        let ((source, range), (target, at)) = (from, to);
        if source == target {
            return self.blocks[source.0].own().copy_within(range, at);
        }
        let mut words = std::mem::take(self.blocks[target.0].own());
        words[at..at + range.len()].copy_from_slice(&self.blocks[source.0].words()[range]);
        *self.blocks[target.0].own() = words;
    }

    /// Lends blocks that dispatches write; the others can be read meanwhile.
    pub(super) fn lend(&mut self, mut written: Vec<BlockId>) -> Lent {
        written.sort_unstable();
        written.dedup();
        let take = |block: BlockId| (block, std::mem::take(self.blocks[block.0].own()));
        Lent { blocks: written.into_iter().map(take).collect() }
    }

    /// Takes them back.
    pub(super) fn put_back(&mut self, lent: Lent) {
        for (block, words) in lent.blocks {
            *self.blocks[block.0].own() = words;
        }
    }
}

/// Blocks that are written, out of a memory.
pub(super) struct Lent {
    /// By block.
    blocks: Vec<(BlockId, Vec<u32>)>,
}

impl Lent {
    /// The same words, to be written by several threads at once; by block.
    pub(super) fn shared(&mut self) -> Vec<(BlockId, &[AtomicU32])> {
        let mut shared = Vec::with_capacity(self.blocks.len());
        for (block, words) in &mut self.blocks {
            // An atomic word has a word's size and alignment, so that the conversion cannot fail.
            let atomics = <[AtomicU32]>::mut_from_bytes(words.as_mut_bytes()).expect("atomic words are words");
            shared.push((*block, &*atomics));
        }
        shared
    }
}

/// What a dispatch binds.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) block: BlockId,
    /// In words.
    pub(super) range: Range<usize>,
    pub(super) writes: bool,
}

impl Bound {
    /// As the machine takes it.
    pub(super) fn view<'a>(&self, memory: &'a Memory, shared: &[(BlockId, &'a [AtomicU32])]) -> View<'a> {
        match shared.binary_search_by_key(&self.block, |(block, _)| *block) {
            Ok(at) => View::Write(&shared[at].1[self.range.clone()]),
            Err(_) => View::Read(&memory.blocks[self.block.0].words()[self.range.clone()]),
        }
    }
}
