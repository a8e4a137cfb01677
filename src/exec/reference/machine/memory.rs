//! Instructions on memory.
//!
//! Gets addresses in bytes, which lie in their variable, loads and stores words or halves of active lanes. What holds
//! then: buffers that are written are accessed by atomic operations without order, as GPUs do, so that a kernel with a
//! race computes something but breaks nothing. Never stores for a lane that waits.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::values::{float_to_half, half_to_float};
use super::{Machine, View};
use crate::exec::reference::program::{Atomic, CHUNK, Chunk, Reg};
use crate::exec::reference::watch::{Access, Kind, Space, Watch};

/// Words to load from.
trait Words: Copy {
    fn word(self, at: usize) -> u32;
    /// Those from `at` on, if there are as many.
    fn words<const N: usize>(self, at: usize) -> Option<[u32; N]>;
}

impl Words for &[u32] {
    #[inline(always)]
    fn word(self, at: usize) -> u32 {
        self.get(at).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn words<const N: usize>(self, at: usize) -> Option<[u32; N]> {
        self.get(at..)?.first_chunk::<N>().copied()
    }
}

impl Words for &[AtomicU32] {
    #[inline(always)]
    fn word(self, at: usize) -> u32 {
        self.get(at).map_or(0, |word| word.load(Relaxed))
    }

    #[inline(always)]
    fn words<const N: usize>(self, at: usize) -> Option<[u32; N]> {
        let words = self.get(at..)?.first_chunk::<N>()?;
        Some(std::array::from_fn(|nth| words[nth].load(Relaxed)))
    }
}

/// Calls `$body` with `$words` being those of `$space`.
macro_rules! with_words {
    ($machine:expr, $space:expr, $words:ident => $body:expr) => {
        match $space {
            Space::Workgroup => {
                let $words: &[u32] = $machine.memory;
                $body
            }
            Space::Binding(binding) => match $machine.bindings.get(binding as usize) {
                Some(View::Read(words)) => {
                    let $words: &[u32] = words;
                    $body
                }
                Some(View::Write(words)) => {
                    let $words: &[AtomicU32] = words;
                    $body
                }
                None => {}
            },
        }
    };
}

impl Machine<'_> {
    #[inline(always)]
    pub(super) fn load<W: Watch>(
        &mut self,
        n: usize,
        regs: &[Reg],
        (space, offset, is_half): (Space, u32, bool),
        (site, is_atomic): (u32, bool),
        watch: &mut W,
    ) {
        if W::IS_WATCHING {
            let kind = if is_atomic { Kind::Atomic } else { Kind::Load };
            self.watch_access(n, (regs[n], &[]), (space, offset, is_half, false), (site, kind), watch);
        }
        if is_half {
            let (at, chunks) = ((n, regs, offset), (self.first, self.end));
            with_words!(self, space, words => load_halves(words, self.registers, at, chunks));
            return;
        }
        let chunks = (self.first, self.end);
        with_words!(self, space, words => {
            let mut done = 0;
            while done < n {
                let at = (&regs[done..], regs[n], offset / 4 + done as u32);
                done += match n - done {
                    1 => load_words::<_, 1>(words, self.registers, at, chunks),
                    2 | 3 => load_words::<_, 2>(words, self.registers, at, chunks),
                    _ => load_words::<_, 4>(words, self.registers, at, chunks),
                };
            }
        });
    }

    /// Tells of an access of each active lane to each component.
    #[inline(never)]
    fn watch_access<W: Watch>(
        &self,
        n: usize,
        (address, stored): (Reg, &[Reg]),
        (space, offset, is_half, is_float): (Space, u32, bool, bool),
        (site, kind): (u32, Kind),
        watch: &mut W,
    ) {
        let size_bytes = if is_half { 2 } else { 4 };
        let is_shared = kind == Kind::Load && !address.is_varying() && self.count_active() > 1;
        let mut tell = |lane: u32, address: u32| {
            for k in 0..n {
                let offset_bytes = address + offset + k as u32 * size_bytes;
                let access = Access { site, space, kind, offset_bytes, size_bytes, lane, is_shared };
                let word = stored.get(k).filter(|_| is_float).map(|stored| {
                    let chunk = lane as usize / CHUNK;
                    f32::from_bits(self.registers[stored.at(chunk)].0[lane as usize % CHUNK])
                });
                watch.access(&access, word);
            }
        };
        // A store is every lane's own, also where all go to one place.
        if kind == Kind::Load {
            self.for_active(address, tell);
        } else {
            self.for_each_active(|lane| tell(lane, self.word(address, lane)));
        }
    }

    fn for_each_active(&self, mut each: impl FnMut(u32)) {
        for chunk in self.first..self.end {
            for lane in 0..CHUNK {
                if self.active[chunk].0[lane] != 0 {
                    each((chunk * CHUNK + lane) as u32);
                }
            }
        }
    }

    /// A lane's word of a register.
    #[inline(always)]
    fn word(&self, register: Reg, lane: u32) -> u32 {
        let lane = lane as usize;
        self.registers[register.at(lane / CHUNK)].0[lane % CHUNK]
    }

    #[inline(always)]
    pub(super) fn store<W: Watch>(
        &mut self,
        n: usize,
        regs: &[Reg],
        (space, offset, is_half): (Space, u32, bool),
        (site, is_atomic, is_float): (u32, bool, bool),
        watch: &mut W,
    ) {
        let (address, values) = (regs[0], &regs[1..=n]);
        if W::IS_WATCHING {
            let kind = if is_atomic { Kind::Atomic } else { Kind::Store };
            self.watch_access(n, (address, values), (space, offset, is_half, is_float), (site, kind), watch);
        }
        let bytes = if is_half { 2 } else { 4 };
        for (k, value) in values.iter().enumerate() {
            let offset = offset as usize + k * bytes;
            for chunk in self.first..self.end {
                let (addresses, words) = (self.registers[address.at(chunk)].0, self.registers[value.at(chunk)].0);
                let active = self.active[chunk].0;
                match space {
                    Space::Workgroup => {
                        for lane in (0..CHUNK).filter(|lane| active[*lane] != 0) {
                            let at = addresses[lane] as usize + offset;
                            if let Some(word) = self.memory.get_mut(at / 4) {
                                *word = if is_half { with_half(*word, at, words[lane]) } else { words[lane] };
                            }
                        }
                    }
                    Space::Binding(binding) => {
                        let Some(View::Write(memory)) = self.bindings.get(binding as usize) else { return };
                        for lane in (0..CHUNK).filter(|lane| active[*lane] != 0) {
                            let at = addresses[lane] as usize + offset;
                            let Some(word) = memory.get(at / 4) else { continue };
                            if is_half {
                                let put = |old| Some(with_half(old, at, words[lane]));
                                let _ = word.fetch_update(Relaxed, Relaxed, put);
                            } else {
                                word.store(words[lane], Relaxed);
                            }
                        }
                    }
                }
            }
        }
    }

    pub(super) fn atomic<W: Watch>(
        &mut self,
        regs: &[Reg],
        fun: Atomic,
        (space, offset): (Space, u32),
        site: u32,
        watch: &mut W,
    ) {
        let results = if fun == Atomic::CompareExchange { 2 } else { 1 };
        let (address, value) = (regs[results], regs[results + 1]);
        if W::IS_WATCHING {
            self.watch_access(1, (address, &[]), (space, offset, false, false), (site, Kind::Atomic), watch);
        }
        for lane in (self.first * CHUNK..self.end * CHUNK).map(|lane| lane as u32) {
            let (chunk, within) = (lane as usize / CHUNK, lane as usize % CHUNK);
            if self.active[chunk].0[within] == 0 {
                continue;
            }
            let at = (self.word(address, lane) as usize + offset as usize) / 4;
            let word = self.word(value, lane);
            let compare = if results == 2 { self.word(regs[4], lane) } else { 0 };
            let old = match space {
                Space::Workgroup => self.memory.get_mut(at).map(|memory| {
                    let old = *memory;
                    *memory = combined(fun, old, word, compare);
                    old
                }),
                Space::Binding(binding) => match self.bindings.get(binding as usize) {
                    Some(View::Write(memory)) => memory.get(at).and_then(|memory| {
                        let put = |old| Some(combined(fun, old, word, compare));
                        memory.fetch_update(Relaxed, Relaxed, put).ok()
                    }),
                    Some(View::Read(memory)) => memory.get(at).copied(),
                    None => None,
                },
            };
            let old = old.unwrap_or(0);
            self.registers[regs[0].at(chunk)].0[within] = old;
            if results == 2 {
                self.registers[regs[1].at(chunk)].0[within] = if old == compare { u32::MAX } else { 0 };
            }
        }
    }
}

/// What an atomic operation leaves in memory.
fn combined(fun: Atomic, old: u32, word: u32, compare: u32) -> u32 {
    match fun {
        Atomic::Add => old.wrapping_add(word),
        Atomic::Subtract => old.wrapping_sub(word),
        Atomic::And => old & word,
        Atomic::Or => old | word,
        Atomic::Xor => old ^ word,
        Atomic::MinI => (old as i32).min(word as i32) as u32,
        Atomic::MinU => old.min(word),
        Atomic::MaxI => (old as i32).max(word as i32) as u32,
        Atomic::MaxU => old.max(word),
        Atomic::Exchange => word,
        Atomic::CompareExchange => {
            if old == compare {
                word
            } else {
                old
            }
        }
    }
}

/// A word with the half at byte `at` replaced.
fn with_half(old: u32, at: usize, float: u32) -> u32 {
    let shift = (at & 2) * 8;
    (old & !(0xffff << shift)) | float_to_half(float) << shift
}

/// Loads the `N` words at address plus `offset` words into the first `N` registers; returns `N`.
#[inline(always)]
fn load_words<S: Words, const N: usize>(
    memory: S,
    registers: &mut [Chunk],
    (to, address, offset): (&[Reg], Reg, u32),
    (first, end): (usize, usize),
) -> usize {
    let offset = offset as usize;
    if !address.is_varying() {
        let at = registers[address.at(0)].0[0] as usize / 4 + offset;
        for (k, to) in to[..N].iter().enumerate() {
            let word = Chunk::splat(memory.word(at + k));
            let chunks = if to.is_varying() { first..end } else { 0..1 };
            chunks.for_each(|chunk| registers[to.at(chunk)] = word);
        }
        return N;
    }
    for chunk in first..end {
        let addresses = registers[address.at(chunk)].0;
        let stride = addresses[1].wrapping_sub(addresses[0]);
        let mut out = [[0_u32; CHUNK]; N];
        let is_dense = stride as usize == N * 4 && is_even(&addresses, stride);
        if N == 1
            && is_dense
            && let Some(words) = memory.words::<CHUNK>(addresses[0] as usize / 4 + offset)
        {
            out[0] = words;
        } else if N == 4
            && is_dense
            && let Some(words) = memory.words::<64>(addresses[0] as usize / 4 + offset)
        {
            for lane in 0..CHUNK {
                for k in 0..N {
                    out[k][lane] = words[lane * N + k];
                }
            }
        } else {
            for lane in 0..CHUNK {
                if let Some(words) = memory.words::<N>(addresses[lane] as usize / 4 + offset) {
                    for k in 0..N {
                        out[k][lane] = words[k];
                    }
                }
            }
        }
        for (k, to) in to[..N].iter().enumerate() {
            registers[to.at(chunk)] = Chunk(out[k]);
        }
    }
    N
}

/// Whether addresses are one stride apart.
#[inline(always)]
fn is_even(addresses: &[u32; CHUNK], stride: u32) -> bool {
    let mut differs = 0;
    for lane in 0..CHUNK {
        differs |= addresses[lane] ^ addresses[0].wrapping_add(stride.wrapping_mul(lane as u32));
    }
    differs == 0
}

/// Loads halves as floats.
fn load_halves<S: Words>(
    memory: S,
    registers: &mut [Chunk],
    (n, regs, offset): (usize, &[Reg], u32),
    (first, end): (usize, usize),
) {
    let address = regs[n];
    for (k, to) in regs[..n].iter().enumerate() {
        let chunks = if to.is_varying() { first..end } else { 0..1 };
        for chunk in chunks {
            let addresses = registers[address.at(chunk)].0;
            let lanes = addresses.map(|address| {
                let at = address as usize + offset as usize + k * 2;
                half_to_float(memory.word(at / 4) >> ((at & 2) * 8))
            });
            registers[to.at(chunk)] = Chunk(lanes);
        }
    }
}
