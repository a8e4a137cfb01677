//! Instructions on subgroups: lanes of a workgroup that follow each other.
//!
//! Gets words of lanes, gives lanes words of others. What holds then: lanes that wait take no part; sums of floats are
//! made by a tree, as GPUs do. Never looks beyond a subgroup.

use super::Machine;
use super::values::{greatest, least};
use crate::exec::reference::program::{CHUNK, Chunk, Combine, Gather, Reg, Scan};

/// Lanes of a subgroup, at most.
pub(crate) const MAX_SUBGROUP: usize = 128;

impl Machine<'_> {
    /// Lanes of the subgroups that have active ones, as ranges.
    fn subgroups(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let size = self.program.subgroup_size as usize;
        let (lanes, begin, end) = (self.lanes, self.first * CHUNK / size, (self.end * CHUNK).div_ceil(size));
        (begin..end).map(move |at| (at * size, ((at + 1) * size).min(lanes))).filter(|(first, end)| first < end)
    }

    #[inline(always)]
    fn lane_word(&self, register: Reg, lane: usize) -> u32 {
        self.registers[register.at(lane / CHUNK)].0[lane % CHUNK]
    }

    #[inline(always)]
    fn is_active(&self, lane: usize) -> bool {
        self.active[lane / CHUNK].0[lane % CHUNK] != 0
    }

    #[inline(always)]
    fn put(&mut self, register: Reg, lane: usize, word: u32) {
        self.registers[register.at(lane / CHUNK)].0[lane % CHUNK] = word;
    }

    #[inline(always)]
    pub(super) fn subgroup(&mut self, n: usize, regs: &[Reg], combine: Combine, scan: Scan) {
        match combine {
            Combine::AddF => self
                .combine(n, regs, scan, (-0.0_f32).to_bits(), |a, b| (f32::from_bits(a) + f32::from_bits(b)).to_bits()),
            _ => self.combine_others(n, regs, combine, scan),
        }
    }

    /// All but sums of floats.
    #[inline(never)]
    fn combine_others(&mut self, n: usize, regs: &[Reg], combine: Combine, scan: Scan) {
        let float = |op: fn(f32, f32) -> f32| move |a, b| op(f32::from_bits(a), f32::from_bits(b)).to_bits();
        let signed = |op: fn(i32, i32) -> i32| move |a: u32, b: u32| op(a as i32, b as i32) as u32;
        match combine {
            Combine::AddF => self.combine(n, regs, scan, 0, float(|a, b| a + b)),
            Combine::AddI => self.combine(n, regs, scan, 0, u32::wrapping_add),
            Combine::MulF => self.combine(n, regs, scan, 1.0_f32.to_bits(), float(|a, b| a * b)),
            Combine::MulI => self.combine(n, regs, scan, 1, u32::wrapping_mul),
            Combine::MinF => self.combine(n, regs, scan, f32::INFINITY.to_bits(), float(least)),
            Combine::MinI => self.combine(n, regs, scan, i32::MAX as u32, signed(i32::min)),
            Combine::MinU => self.combine(n, regs, scan, u32::MAX, u32::min),
            Combine::MaxF => self.combine(n, regs, scan, f32::NEG_INFINITY.to_bits(), float(greatest)),
            Combine::MaxI => self.combine(n, regs, scan, i32::MIN as u32, signed(i32::max)),
            Combine::MaxU => self.combine(n, regs, scan, 0, u32::max),
            Combine::And => self.combine(n, regs, scan, u32::MAX, |a, b| a & b),
            Combine::Or => self.combine(n, regs, scan, 0, |a, b| a | b),
            Combine::Xor => self.combine(n, regs, scan, 0, |a, b| a ^ b),
        }
    }

    #[inline(always)]
    fn combine(&mut self, n: usize, regs: &[Reg], scan: Scan, neutral: u32, op: impl Fn(u32, u32) -> u32) {
        for k in 0..n {
            let (to, from) = (regs[k], regs[n + k]);
            for (first, end) in self.subgroups() {
                if scan == Scan::Reduce {
                    let word = self.reduce(from, (first, end), neutral, &op);
                    if first.is_multiple_of(CHUNK) && (end - first).is_multiple_of(CHUNK) {
                        let chunks = first / CHUNK..end / CHUNK;
                        chunks.for_each(|chunk| self.registers[to.at(chunk)] = Chunk::splat(word));
                    } else {
                        (first..end).for_each(|lane| self.put(to, lane, word));
                    }
                    continue;
                }
                let mut sum = if scan == Scan::Exclusive && neutral == (-0.0_f32).to_bits() { 0 } else { neutral };
                for lane in first..end {
                    if !self.is_active(lane) {
                        continue;
                    }
                    let next = op(sum, self.lane_word(from, lane));
                    self.put(to, lane, if scan == Scan::Inclusive { next } else { sum });
                    sum = next;
                }
            }
        }
    }

    /// The active lanes of a subgroup, combined in pairs, pairs of pairs and so on.
    #[inline(always)]
    fn reduce(&self, from: Reg, (first, end): (usize, usize), neutral: u32, op: impl Fn(u32, u32) -> u32) -> u32 {
        let mut words = [neutral; MAX_SUBGROUP];
        let mut size = end - first;
        if first.is_multiple_of(CHUNK) && size.is_multiple_of(CHUNK) {
            for (at, chunk) in (first / CHUNK..end / CHUNK).enumerate() {
                let (lanes, active) = (self.registers[from.at(chunk)].0, self.active[chunk].0);
                for lane in 0..CHUNK {
                    let word = (lanes[lane] & active[lane]) | (neutral & !active[lane]);
                    words[at * CHUNK + lane] = word;
                }
            }
        } else {
            for lane in (first..end).filter(|lane| self.is_active(*lane)) {
                words[lane - first] = self.lane_word(from, lane);
            }
        }
        size = size.next_power_of_two();
        while size > CHUNK {
            size /= 2;
            let (low, high) = words.split_at_mut(size);
            for (low, high) in low.chunks_exact_mut(CHUNK).zip(high.chunks_exact(CHUNK)) {
                for lane in 0..CHUNK {
                    low[lane] = op(low[lane], high[lane]);
                }
            }
        }
        let mut last: [u32; CHUNK] = std::array::from_fn(|lane| words[lane]);
        // Beyond a smaller subgroup, all is neutral.
        for half in [8, 4, 2, 1] {
            if half < size {
                for lane in 0..half {
                    last[lane] = op(last[lane], last[lane + half]);
                }
            }
        }
        last[0]
    }

    pub(super) fn gather(&mut self, n: usize, regs: &[Reg], gather: Gather) {
        let number = regs.get(2 * n).copied();
        for k in 0..n {
            let (to, from) = (regs[k], regs[n + k]);
            for (first, end) in self.subgroups() {
                let mut words = [0_u32; MAX_SUBGROUP];
                let leader = (first..end).find(|lane| self.is_active(*lane)).unwrap_or(first) - first;
                for (lane, word) in words[..end - first].iter_mut().enumerate() {
                    let number = match (gather, number) {
                        (Gather::First | Gather::QuadSwap(_), _) | (_, None) => 0,
                        (_, Some(number)) => self.lane_word(number, first + lane) as usize,
                    };
                    let source = match gather {
                        Gather::First => leader,
                        Gather::Lane => number,
                        Gather::Down => lane.wrapping_add(number),
                        Gather::Up => lane.wrapping_sub(number),
                        Gather::Xor => lane ^ number,
                        Gather::Quad => (lane & !3) + (number & 3),
                        Gather::QuadSwap(bits) => lane ^ bits as usize,
                    };
                    if source < end - first {
                        *word = self.lane_word(from, first + source);
                    }
                }
                (first..end).for_each(|lane| self.put(to, lane, words[lane - first]));
            }
        }
    }

    pub(super) fn ballot(&mut self, regs: &[Reg]) {
        for (first, end) in self.subgroups() {
            let mut words = [0_u32; 4];
            for lane in (first..end).filter(|lane| self.is_active(*lane)) {
                if self.lane_word(regs[4], lane) != 0 {
                    words[(lane - first) / 32 % 4] |= 1 << ((lane - first) % 32);
                }
            }
            for lane in first..end {
                for (register, word) in regs[..4].iter().zip(words) {
                    self.put(*register, lane, word);
                }
            }
        }
    }
}
