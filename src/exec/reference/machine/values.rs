//! Instructions on registers alone.
//!
//! Gets an instruction and its registers, writes its results in the chunks that have active lanes. What holds then:
//! other chunks keep their words, and so do lanes of a variable that wait. Never touches memory.

use super::{Machine, View};
use crate::exec::reference::program::{Binary, CHUNK, Chunk, Length, Reg, Ternary, Unary};
use crate::exec::reference::watch::{Space, Watch};

type Lanes = [u32; CHUNK];

#[inline(always)]
fn f(word: u32) -> f32 {
    f32::from_bits(word)
}

#[inline(always)]
fn truth(holds: bool) -> u32 {
    if holds { u32::MAX } else { 0 }
}

impl Machine<'_> {
    #[inline(always)]
    fn map1(&mut self, n: usize, regs: &[Reg], op: impl Fn(u32) -> u32) {
        for k in 0..n {
            let (to, a) = (regs[k], regs[n + k]);
            for chunk in self.chunks(to) {
                let a = self.registers[a.at(chunk)].0;
                let mut lanes: Lanes = [0; CHUNK];
                for lane in 0..CHUNK {
                    lanes[lane] = op(a[lane]);
                }
                self.registers[to.at(chunk)] = Chunk(lanes);
            }
        }
    }

    /// As `map1` for what is costly: once where it is the same for all.
    #[inline(always)]
    fn map1_slow(&mut self, n: usize, regs: &[Reg], op: impl Fn(u32) -> u32) {
        if regs[..n].iter().any(|to| to.is_varying()) {
            self.map1(n, regs, op);
        } else {
            for k in 0..n {
                let word = op(self.registers[regs[n + k].at(0)].0[0]);
                self.registers[regs[k].at(0)] = Chunk::splat(word);
            }
        }
    }

    #[inline(always)]
    fn map2(&mut self, n: usize, regs: &[Reg], op: impl Fn(u32, u32) -> u32) {
        for k in 0..n {
            let (to, a, b) = (regs[k], regs[n + k], regs[2 * n + k]);
            for chunk in self.chunks(to) {
                let (a, b) = (self.registers[a.at(chunk)].0, self.registers[b.at(chunk)].0);
                let mut lanes: Lanes = [0; CHUNK];
                for lane in 0..CHUNK {
                    lanes[lane] = op(a[lane], b[lane]);
                }
                self.registers[to.at(chunk)] = Chunk(lanes);
            }
        }
    }

    #[inline(always)]
    fn map3(&mut self, n: usize, regs: &[Reg], op: impl Fn(u32, u32, u32) -> u32) {
        for k in 0..n {
            let (to, a, b, c) = (regs[k], regs[n + k], regs[2 * n + k], regs[3 * n + k]);
            for chunk in self.chunks(to) {
                let (a, b) = (self.registers[a.at(chunk)].0, self.registers[b.at(chunk)].0);
                let c = self.registers[c.at(chunk)].0;
                let mut lanes: Lanes = [0; CHUNK];
                for lane in 0..CHUNK {
                    lanes[lane] = op(a[lane], b[lane], c[lane]);
                }
                self.registers[to.at(chunk)] = Chunk(lanes);
            }
        }
    }

    /// Floats from floats.
    #[inline(always)]
    fn floats1(&mut self, n: usize, regs: &[Reg], op: impl Fn(f32) -> f32) {
        self.map1(n, regs, |a| op(f(a)).to_bits());
    }

    #[inline(always)]
    fn slow1(&mut self, n: usize, regs: &[Reg], op: impl Fn(f32) -> f32) {
        self.map1_slow(n, regs, |a| op(f(a)).to_bits());
    }

    #[inline(always)]
    fn floats2(&mut self, n: usize, regs: &[Reg], op: impl Fn(f32, f32) -> f32) {
        self.map2(n, regs, |a, b| op(f(a), f(b)).to_bits());
    }

    #[inline(always)]
    pub(super) fn unary(&mut self, op: Unary, n: usize, regs: &[Reg]) {
        use Unary as U;
        match op {
            U::Same => self.map1(n, regs, |a| a),
            U::NegF => self.map1(n, regs, |a| a ^ 0x8000_0000),
            U::NegI => self.map1(n, regs, u32::wrapping_neg),
            U::Not => self.map1(n, regs, |a| !a),
            U::AbsF => self.map1(n, regs, |a| a & 0x7fff_ffff),
            U::AbsI => self.map1(n, regs, |a| (a as i32).wrapping_abs() as u32),
            U::SignF => self.floats1(n, regs, |a| {
                if a > 0.0 {
                    1.0
                } else if a < 0.0 {
                    -1.0
                } else {
                    0.0
                }
            }),
            U::SignI => self.map1(n, regs, |a| (a as i32).signum() as u32),
            U::Ceil => self.floats1(n, regs, f32::ceil),
            U::Floor => self.floats1(n, regs, f32::floor),
            U::Round => self.floats1(n, regs, f32::round_ties_even),
            U::Trunc => self.floats1(n, regs, f32::trunc),
            U::Fract => self.floats1(n, regs, |a| a - a.floor()),
            U::Sqrt => self.floats1(n, regs, f32::sqrt),
            U::InverseSqrt => self.floats1(n, regs, |a| 1.0 / a.sqrt()),
            U::RoundHalf => self.map1(n, regs, |a| half_to_float(float_to_half(a))),
            U::HalfBits => self.map1(n, regs, float_to_half),
            U::HalfLow => self.map1(n, regs, half_to_float),
            U::HalfHigh => self.map1(n, regs, |a| half_to_float(a >> 16)),
            U::FrexpFract => self.slow1(n, regs, |a| libm::frexpf(a).0),
            U::FrexpExp => self.map1_slow(n, regs, |a| libm::frexpf(f(a)).1 as u32),
            U::CountOneBits => self.map1(n, regs, u32::count_ones),
            U::LeadingZeros => self.map1(n, regs, u32::leading_zeros),
            U::TrailingZeros => self.map1(n, regs, u32::trailing_zeros),
            U::ReverseBits => self.map1(n, regs, u32::reverse_bits),
            U::FirstLeadingU => self.map1(n, regs, first_leading),
            U::FirstLeadingI => self.map1(n, regs, |a| first_leading(a ^ ((a as i32) >> 31) as u32)),
            U::FirstTrailing => self.map1(n, regs, |a| if a == 0 { u32::MAX } else { a.trailing_zeros() }),
            // The largest integer that a float converts to is the largest that is a float: WGSL has it so.
            U::FloatToI => self.map1(n, regs, |a| {
                let a = f(a);
                (if a > 2_147_483_520.0 { 2_147_483_520.0 } else { a }) as i32 as u32
            }),
            U::FloatToU => self.map1(n, regs, |a| {
                let a = f(a);
                (if a > 4_294_967_040.0 { 4_294_967_040.0 } else { a }) as u32
            }),
            U::IToFloat => self.map1(n, regs, |a| (a as i32 as f32).to_bits()),
            U::UToFloat => self.map1(n, regs, |a| (a as f32).to_bits()),
            U::BoolToInt => self.map1(n, regs, |a| a & 1),
            U::BoolToFloat => self.map1(n, regs, |a| a & 1.0_f32.to_bits()),
            U::IntToBool => self.map1(n, regs, |a| truth(a != 0)),
            U::FloatToBool => self.map1(n, regs, |a| truth(f(a) != 0.0)),
            _ => self.function(op, n, regs),
        }
    }

    /// Functions that no machine computes in one instruction.
    #[inline(always)]
    fn function(&mut self, op: Unary, n: usize, regs: &[Reg]) {
        use Unary as U;
        match op {
            U::Exp => self.slow1(n, regs, libm::expf),
            U::Exp2 => self.slow1(n, regs, libm::exp2f),
            U::Log => self.slow1(n, regs, libm::logf),
            U::Log2 => self.slow1(n, regs, libm::log2f),
            U::Sin => self.slow1(n, regs, libm::sinf),
            U::Cos => self.slow1(n, regs, libm::cosf),
            U::Tan => self.slow1(n, regs, libm::tanf),
            U::Sinh => self.slow1(n, regs, libm::sinhf),
            U::Cosh => self.slow1(n, regs, libm::coshf),
            U::Tanh => self.slow1(n, regs, libm::tanhf),
            U::Asin => self.slow1(n, regs, libm::asinf),
            U::Acos => self.slow1(n, regs, libm::acosf),
            U::Atan => self.slow1(n, regs, libm::atanf),
            U::Asinh => self.slow1(n, regs, libm::asinhf),
            U::Acosh => self.slow1(n, regs, libm::acoshf),
            U::Atanh => self.slow1(n, regs, libm::atanhf),
            other => unreachable!("{other:?} is one instruction"),
        }
    }

    #[inline(always)]
    pub(super) fn binary(&mut self, op: Binary, n: usize, regs: &[Reg]) {
        use Binary as B;
        match op {
            B::AddF => self.floats2(n, regs, |a, b| a + b),
            B::SubF => self.floats2(n, regs, |a, b| a - b),
            B::MulF => self.floats2(n, regs, |a, b| a * b),
            B::DivF => self.floats2(n, regs, |a, b| a / b),
            B::RemF => self.floats2(n, regs, |a, b| a % b),
            B::AddI => self.map2(n, regs, u32::wrapping_add),
            B::SubI => self.map2(n, regs, u32::wrapping_sub),
            B::MulI => self.map2(n, regs, u32::wrapping_mul),
            B::DivI => self.map2(n, regs, |a, b| {
                let (a, b) = (a as i32, b as i32);
                (if b == 0 { a } else { a.wrapping_div(b) }) as u32
            }),
            B::DivU => self.map2(n, regs, |a, b| a.checked_div(b).unwrap_or(a)),
            B::RemI => self.map2(n, regs, |a, b| {
                let (a, b) = (a as i32, b as i32);
                (if b == 0 { 0 } else { a.wrapping_rem(b) }) as u32
            }),
            B::RemU => self.map2(n, regs, |a, b| a.checked_rem(b).unwrap_or(0)),
            B::EqF => self.map2(n, regs, |a, b| truth(f(a) == f(b))),
            B::NeF => self.map2(n, regs, |a, b| truth(f(a) != f(b))),
            B::LtF => self.map2(n, regs, |a, b| truth(f(a) < f(b))),
            B::LeF => self.map2(n, regs, |a, b| truth(f(a) <= f(b))),
            B::EqI => self.map2(n, regs, |a, b| truth(a == b)),
            B::NeI => self.map2(n, regs, |a, b| truth(a != b)),
            B::LtI => self.map2(n, regs, |a, b| truth((a as i32) < b as i32)),
            B::LeI => self.map2(n, regs, |a, b| truth(a as i32 <= b as i32)),
            B::LtU => self.map2(n, regs, |a, b| truth(a < b)),
            B::LeU => self.map2(n, regs, |a, b| truth(a <= b)),
            B::And => self.map2(n, regs, |a, b| a & b),
            B::Or => self.map2(n, regs, |a, b| a | b),
            B::Xor => self.map2(n, regs, |a, b| a ^ b),
            // By the lowest five bits, as WGSL has it.
            B::Shl => self.map2(n, regs, |a, b| a << (b & 31)),
            B::ShrI => self.map2(n, regs, |a, b| ((a as i32) >> (b & 31)) as u32),
            B::ShrU => self.map2(n, regs, |a, b| a >> (b & 31)),
            B::MinF => self.floats2(n, regs, least),
            B::MaxF => self.floats2(n, regs, greatest),
            B::MinI => self.map2(n, regs, |a, b| (a as i32).min(b as i32) as u32),
            B::MaxI => self.map2(n, regs, |a, b| (a as i32).max(b as i32) as u32),
            B::MinU => self.map2(n, regs, u32::min),
            B::MaxU => self.map2(n, regs, u32::max),
            B::Pow => self.floats2(n, regs, libm::powf),
            B::Atan2 => self.floats2(n, regs, libm::atan2f),
            B::Ldexp => self.map2(n, regs, |a, b| libm::ldexpf(f(a), b as i32).to_bits()),
        }
    }

    #[inline(always)]
    pub(super) fn ternary(&mut self, op: Ternary, n: usize, regs: &[Reg]) {
        use Ternary as T;
        match op {
            T::Select => self.map3(n, regs, |a, b, c| (a & b) | (!a & c)),
            T::Fma => self.map3(n, regs, |a, b, c| f(a).mul_add(f(b), f(c)).to_bits()),
            T::MulAdd => self.map3(n, regs, |a, b, c| (f(a) * f(b) + f(c)).to_bits()),
            T::SubMul => self.map3(n, regs, |a, b, c| (f(c) - f(a) * f(b)).to_bits()),
            T::ExtractBitsI => self.map3(n, regs, |a, offset, count| {
                let (offset, count) = field(offset, count);
                if count == 0 { 0 } else { (((a << (32 - offset - count)) as i32) >> (32 - count)) as u32 }
            }),
            T::ExtractBitsU => self.map3(n, regs, |a, offset, count| {
                let (offset, count) = field(offset, count);
                if count == 0 { 0 } else { (a << (32 - offset - count)) >> (32 - count) }
            }),
        }
    }

    #[inline(always)]
    pub(super) fn insert_bits(&mut self, n: usize, regs: &[Reg]) {
        for k in 0..n {
            for chunk in self.chunks(regs[k]) {
                let part = |part: usize| self.registers[regs[part * n + k].at(chunk)].0;
                let (word, new, offset, count) = (part(1), part(2), part(3), part(4));
                let lanes = std::array::from_fn(|lane| {
                    let (offset, count) = field(offset[lane], count[lane]);
                    if count == 0 {
                        return word[lane];
                    }
                    let mask = (u32::MAX >> (32 - count)) << offset;
                    (word[lane] & !mask) | ((new[lane] << offset) & mask)
                });
                self.registers[regs[k].at(chunk)] = Chunk(lanes);
            }
        }
    }

    #[inline(always)]
    pub(super) fn dot(&mut self, n: usize, regs: &[Reg]) {
        let to = regs[0];
        for chunk in self.chunks(to) {
            let mut sums = [0.0_f32; CHUNK];
            for k in 0..n {
                let a = self.registers[regs[1 + k].at(chunk)].0;
                let b = self.registers[regs[1 + n + k].at(chunk)].0;
                for lane in 0..CHUNK {
                    let product = f(a[lane]) * f(b[lane]);
                    sums[lane] = if k == 0 { product } else { sums[lane] + product };
                }
            }
            self.registers[to.at(chunk)] = Chunk(sums.map(f32::to_bits));
        }
    }

    /// Into variables, in active lanes.
    #[inline(always)]
    pub(super) fn assign(&mut self, n: usize, regs: &[Reg]) {
        for k in 0..n {
            self.assign_one(regs[k], 0, regs[n + k]);
        }
    }

    /// Into the register `offset` chunks behind another.
    #[inline(always)]
    fn assign_one(&mut self, to: Reg, offset: usize, from: Reg) {
        if !to.is_varying() {
            self.registers[to.at(0) + offset] = self.registers[from.at(0)];
            return;
        }
        for chunk in self.first..self.end {
            let (new, active) = (self.registers[from.at(chunk)].0, self.active[chunk].0);
            let old = &mut self.registers[to.at(chunk) + offset].0;
            for lane in 0..CHUNK {
                old[lane] = (new[lane] & active[lane]) | (old[lane] & !active[lane]);
            }
        }
    }

    pub(super) fn length(&self, length: Length) -> u32 {
        match length {
            Length::Fixed(length) => length,
            Length::Bound { binding, offset, stride } => {
                let bytes = self.bindings.get(binding as usize).map_or(0, View::size_bytes);
                (bytes.saturating_sub(offset) / stride.max(1)).max(1)
            }
        }
    }

    #[inline(always)]
    pub(super) fn index<W: Watch>(
        &mut self,
        regs: &[Reg],
        (length, stride, has_base): (u32, u32, bool),
        (site, space): (u32, Option<Space>),
        watch: &mut W,
    ) {
        let (to, number) = (regs[0], regs[1]);
        if W::IS_WATCHING {
            self.watch_index(number, length, (site, space), watch);
        }
        let last = length - 1;
        for chunk in self.chunks(to) {
            let number = self.registers[number.at(chunk)].0;
            let base = if has_base { self.registers[regs[2].at(chunk)].0 } else { [0; CHUNK] };
            let mut lanes: Lanes = [0; CHUNK];
            for lane in 0..CHUNK {
                lanes[lane] = base[lane].wrapping_add(number[lane].min(last).wrapping_mul(stride));
            }
            self.registers[to.at(chunk)] = Chunk(lanes);
        }
    }

    #[inline(never)]
    fn watch_index<W: Watch>(&self, number: Reg, length: u32, (site, space): (u32, Option<Space>), watch: &mut W) {
        self.for_active(number, |lane, word| {
            if word >= length {
                watch.out_of_bounds(site, space, lane, word, length);
            }
        });
    }

    /// Calls with each active lane and its word; with the first of them where the word is the same for all.
    pub(super) fn for_active(&self, register: Reg, mut each: impl FnMut(u32, u32)) {
        if !register.is_varying() {
            if self.first != self.end {
                each(self.first_active(), self.registers[register.at(0)].0[0]);
            }
            return;
        }
        for chunk in self.first..self.end {
            for lane in 0..CHUNK {
                if self.active[chunk].0[lane] != 0 {
                    each((chunk * CHUNK + lane) as u32, self.registers[register.at(chunk)].0[lane]);
                }
            }
        }
    }

    /// Chunks from one scalar of an indexed variable to the next.
    #[inline(always)]
    fn step(&self, variable: Reg) -> usize {
        if variable.is_varying() { self.lane_chunks } else { 1 }
    }

    #[inline(always)]
    pub(super) fn load_variable(&mut self, n: usize, regs: &[Reg], offset: u32, size: u32) {
        let (place, variable) = (regs[n], regs[n + 1]);
        let step = self.step(variable);
        let last = size as usize - 1;
        for (k, to) in regs[..n].iter().copied().enumerate() {
            let scalar = |place: u32| (place as usize + offset as usize + k).min(last) * step;
            if !place.is_varying() {
                let from = scalar(self.registers[place.at(0)].0[0]);
                for chunk in self.chunks(to) {
                    self.registers[to.at(chunk)] = self.registers[variable.at(chunk) + from];
                }
                continue;
            }
            for chunk in self.chunks(to) {
                let places = self.registers[place.at(chunk)].0;
                let mut lanes: Lanes = [0; CHUNK];
                for lane in 0..CHUNK {
                    lanes[lane] = self.registers[variable.at(chunk) + scalar(places[lane])].0[lane];
                }
                self.registers[to.at(chunk)] = Chunk(lanes);
            }
        }
    }

    #[inline(always)]
    pub(super) fn store_variable(&mut self, n: usize, regs: &[Reg], offset: u32, size: u32) {
        let (place, variable) = (regs[0], regs[1]);
        let step = self.step(variable);
        let last = size as usize - 1;
        for k in 0..n {
            let from = regs[2 + k];
            let scalar = |place: u32| (place as usize + offset as usize + k).min(last) * step;
            if !place.is_varying() {
                let to = scalar(self.registers[place.at(0)].0[0]);
                self.assign_one(variable, to, from);
                continue;
            }
            for chunk in self.first..self.end {
                let (places, words) = (self.registers[place.at(chunk)].0, self.registers[from.at(chunk)].0);
                for lane in 0..CHUNK {
                    if self.active[chunk].0[lane] != 0 {
                        self.registers[variable.at(chunk) + scalar(places[lane])].0[lane] = words[lane];
                    }
                }
            }
        }
    }

    #[inline(always)]
    pub(super) fn pick<W: Watch>(&mut self, n: usize, regs: &[Reg], length: u32, site: u32, watch: &mut W) {
        let number = regs[n];
        let last = length as usize - 1;
        if W::IS_WATCHING {
            self.watch_index(number, length, (site, None), watch);
        }
        for k in 0..n {
            let to = regs[k];
            let from = |number: u32| regs[n + 1 + (number as usize).min(last) * n + k];
            for chunk in self.chunks(to) {
                let numbers = self.registers[number.at(chunk)].0;
                let lanes = if number.is_varying() {
                    std::array::from_fn(|lane| self.registers[from(numbers[lane]).at(chunk)].0[lane])
                } else {
                    self.registers[from(numbers[0]).at(chunk)].0
                };
                self.registers[to.at(chunk)] = Chunk(lanes);
            }
        }
    }
}

/// The first of two equal ones, so that it is known which zero is the least; the other where one is no number.
#[inline(always)]
pub(super) fn least(a: f32, b: f32) -> f32 {
    if b < a || a.is_nan() { b } else { a }
}

#[inline(always)]
pub(super) fn greatest(a: f32, b: f32) -> f32 {
    if b > a || a.is_nan() { b } else { a }
}

/// Offset and count of a field, within a word.
#[inline(always)]
fn field(offset: u32, count: u32) -> (u32, u32) {
    let offset = offset.min(32);
    (offset, count.min(32 - offset))
}

#[inline(always)]
fn first_leading(word: u32) -> u32 {
    if word == 0 { u32::MAX } else { 31 - word.leading_zeros() }
}

/// The bits of the float that a half is, without a branch.
#[inline(always)]
pub(super) fn half_to_float(half: u32) -> u32 {
    // The half's exponent and fraction at the float's place are the number times 2^-112, subnormal halves included.
    let scaled = f(half << 13 & 0x0fff_e000) * f(0x7780_0000);
    // Infinities and NaNs have become 65536 and more.
    let is_finite = truth(scaled < 65536.0);
    let bits = scaled.to_bits() | (!is_finite & 0x7f80_0000);
    bits | (half & 0x8000) << 16
}

/// The bits of the half nearest to a float, ties to even.
#[inline(always)]
pub(super) fn float_to_half(float: u32) -> u32 {
    u32::from(half::f16::from_f32_const(f(float)).to_bits())
}
