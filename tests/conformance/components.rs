//! Operators, conversions and functions that work component by component.
//!
//! Gets nothing, returns tables: WGSL with the types left open, and the rule for one component in Rust. Each runs on
//! scalars and on vectors of two, three and four. Never shares code with the interpreter: functions are those of `std`
//! in 64 bits, integers are Rust's.

use super::want::Want::{self, *};
use super::want::ulp;

/// What an operand or a result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    F,
    I,
    U,
    B,
    /// A half.
    H,
}

/// One line of a table: `{F}`, `{I}`, `{U}`, `{B}` and `{H}` are the types of as many components as there are.
pub struct Case {
    pub text: &'static str,
    pub result: Of,
    pub rule: fn(u32, u32, u32) -> Want,
}

/// Cases of operands `a`, `b` and `c` of these types.
pub struct Table {
    pub name: &'static str,
    pub operands: [Of; 3],
    pub cases: Vec<Case>,
}

fn case(result: Of, text: &'static str, rule: fn(u32, u32, u32) -> Want) -> Case {
    Case { text, result, rule }
}

fn f(word: u32) -> f32 {
    f32::from_bits(word)
}

fn d(word: u32) -> f64 {
    f64::from(f(word))
}

fn truth(holds: bool) -> Want {
    Word(u32::from(holds))
}

/// A rule of one float with a tolerance.
macro_rules! near {
    ($a:ident => $value:expr, $tolerance:expr) => {
        |a, _, _| {
            let $a = d(a);
            let value: f64 = $value;
            Near(value, $tolerance(value))
        }
    };
}

/// A rule of floats in 32 bits.
macro_rules! floats {
    ($want:ident, |$a:ident, $b:ident, $c:ident| $value:expr) => {
        |a, b, c| {
            let ($a, $b, $c) = (f(a), f(b), f(c));
            let _ = ($b, $c);
            $want($value)
        }
    };
}

/// A rule of signed integers.
macro_rules! signed {
    (|$a:ident, $b:ident, $c:ident| $value:expr) => {
        |a, b, $c| {
            let ($a, $b) = (a as i32, b as i32);
            let _ = ($b, $c);
            let value: i32 = $value;
            Word(value as u32)
        }
    };
}

macro_rules! unsigned {
    (|$a:ident, $b:ident, $c:ident| $value:expr) => {
        |$a, $b, $c| {
            let _ = ($b, $c);
            Word($value)
        }
    };
}

fn least(a: f32, b: f32) -> f32 {
    if b < a || a.is_nan() { b } else { a }
}

fn greatest(a: f32, b: f32) -> f32 {
    if b > a || a.is_nan() { b } else { a }
}

fn sign(a: f32) -> f32 {
    if a > 0.0 {
        1.0
    } else if a < 0.0 {
        -1.0
    } else {
        0.0
    }
}

/// In [-pi, pi]; nothing is said of what lies outside.
fn within_a_turn(a: f64, tolerance: f64) -> f64 {
    if a.abs() <= std::f64::consts::PI { tolerance } else { f64::INFINITY }
}

fn log_tolerance(a: f64, value: f64) -> f64 {
    if (0.5..=2.0).contains(&a) { (-21_f64).exp2() } else { 3.0 * ulp(value) }
}

fn operators() -> Vec<Case> {
    use Of::{B, F};
    vec![
        case(F, "a + b", floats!(Rounded, |a, b, c| a + b)),
        case(F, "a - b", floats!(Rounded, |a, b, c| a - b)),
        case(F, "a * b", floats!(Rounded, |a, b, c| a * b)),
        case(F, "a / b", |a, b, _| {
            let value = f(a) / f(b);
            let is_told = (f32::MIN_POSITIVE..=f(0x7e80_0000)).contains(&f(b).abs());
            if is_told { Kept(value, 2.5 * ulp(f64::from(value))) } else { Open(value) }
        }),
        // The quotient may be rounded across a whole number, which is one divisor more or less.
        case(F, "a % b", |a, b, _| {
            let value = f(a) % f(b);
            let is_told = f(b).abs() >= f32::MIN_POSITIVE && (d(a) / d(b)).abs() < 1e5;
            if is_told { Kept(value, d(b).abs() + 4.0 * ulp(d(a))) } else { Open(value) }
        }),
        case(F, "-a", floats!(Exact, |a, b, c| -a)),
        case(B, "a == b", |a, b, _| truth(f(a) == f(b))),
        case(B, "a != b", |a, b, _| truth(f(a) != f(b))),
        case(B, "a < b", |a, b, _| truth(f(a) < f(b))),
        case(B, "a <= b", |a, b, _| truth(f(a) <= f(b))),
        case(B, "a > b", |a, b, _| truth(f(a) > f(b))),
        case(B, "a >= b", |a, b, _| truth(f(a) >= f(b))),
        case(F, "select(a, b, c > {F}())", floats!(Exact, |a, b, c| if c > 0.0 { b } else { a })),
        case(Of::I, "{I}(a)", |a, _, _| Word((d(a).clamp(-2_147_483_648.0, 2_147_483_520.0)) as i32 as u32)),
        case(Of::U, "{U}(a)", |a, _, _| Word((d(a).clamp(0.0, 4_294_967_040.0)) as u32)),
        case(B, "{B}(a)", |a, _, _| truth(f(a) != 0.0)),
        case(Of::U, "bitcast<{U}>(a)", |a, _, _| Word(a)),
    ]
}

fn by_comparison() -> Vec<Case> {
    use Of::F;
    vec![
        case(F, "abs(a)", floats!(Exact, |a, b, c| a.abs())),
        case(F, "sign(a)", floats!(Exact, |a, b, c| sign(a))),
        case(F, "ceil(a)", floats!(Exact, |a, b, c| a.ceil())),
        case(F, "floor(a)", floats!(Exact, |a, b, c| a.floor())),
        case(F, "round(a)", floats!(Exact, |a, b, c| a.round_ties_even())),
        case(F, "trunc(a)", floats!(Exact, |a, b, c| a.trunc())),
        case(F, "fract(a)", floats!(Rounded, |a, b, c| a - a.floor())),
        case(F, "min(a, b)", floats!(Exact, |a, b, c| least(a, b))),
        case(F, "max(a, b)", floats!(Exact, |a, b, c| greatest(a, b))),
        case(F, "clamp(a, b, c)", |a, b, c| {
            let value = least(greatest(f(a), f(b)), f(c));
            if f(b) <= f(c) { Exact(value) } else { Open(value) }
        }),
        case(F, "saturate(a)", floats!(Exact, |a, b, c| least(greatest(a, 0.0), 1.0))),
        case(F, "step(a, b)", floats!(Exact, |a, b, c| if a <= b { 1.0 } else { 0.0 })),
        case(F, "quantizeToF16(a)", |a, _, _| {
            let value = half::f16::from_f32(f(a)).to_f32();
            if f(a).abs() > 65504.0 { Open(value) } else { Kept(value, d(a).abs() / 1024.0 + 6.2e-5) }
        }),
    ]
}

fn by_formula() -> Vec<Case> {
    use Of::F;
    vec![
        case(F, "mix(a, b, c)", |a, b, c| {
            let size = d(a).abs() * (1.0 + d(c).abs()) + (d(b) * d(c)).abs();
            let value = f(a) * (1.0 - f(c)) + f(b) * f(c);
            if size < 1e38 { Kept(value, size * 1e-6) } else { Open(value) }
        }),
        case(F, "smoothstep(a, b, c)", |a, b, c| {
            let (low, high, x) = (f(a), f(b), f(c));
            let t = least(greatest((x - low) / (high - low), 0.0), 1.0);
            let value = t * t * (3.0 - 2.0 * t);
            let size = low.abs().max(high.abs()).max(x.abs());
            if low < high && high - low > 0.01 * size { Kept(value, 1e-4) } else { Open(value) }
        }),
        case(F, "fma(a, b, c)", |a, b, c| {
            let size = (d(a) * d(b)).abs() + d(c).abs();
            let value = f(a).mul_add(f(b), f(c));
            if size < 1e38 { Kept(value, size * 3e-7) } else { Open(value) }
        }),
        case(F, "sqrt(a)", |a, _, _| {
            let value = f(a).sqrt();
            if f(a) >= f32::MIN_POSITIVE { Kept(value, 4.5 * ulp(f64::from(value))) } else { Open(value) }
        }),
        case(F, "inverseSqrt(a)", |a, _, _| {
            let value = 1.0 / d(a).sqrt();
            Near(value, if f(a) >= f32::MIN_POSITIVE { 2.0 * ulp(value) } else { f64::INFINITY })
        }),
        case(F, "radians(a)", near!(a => a.to_radians(), |value| 2.5 * ulp(value))),
        case(F, "degrees(a)", near!(a => a.to_degrees(), |value| 2.5 * ulp(value))),
        case(F, "exp(a)", near!(a => a.exp(), |value| (3.0 + 2.0 * a.abs()) * ulp(value))),
        case(F, "exp2(a)", near!(a => a.exp2(), |value| (3.0 + 2.0 * a.abs()) * ulp(value))),
        case(F, "log(a)", near!(a => a.ln(), |value| log_tolerance(a, value))),
        case(F, "log2(a)", near!(a => a.log2(), |value| log_tolerance(a, value))),
        case(F, "pow(a, b)", |a, b, _| {
            let (value, log) = (d(a).powf(d(b)), d(a).log2());
            let exponent = d(b) * log;
            let error = (d(b) * log_tolerance(d(a), log)).abs() + ulp(exponent) + (3.0 + 2.0 * exponent.abs()) * 1.2e-7;
            // NaN, where nothing is said, is no finite tolerance either.
            Near(value, if f(a) > 0.0 { 1.5 * value * error } else { f64::INFINITY })
        }),
    ]
}

fn by_angle() -> Vec<Case> {
    use Of::F;
    vec![
        case(F, "sin(a)", near!(a => a.sin(), |_| within_a_turn(a, (-11_f64).exp2()))),
        case(F, "cos(a)", near!(a => a.cos(), |_| within_a_turn(a, (-11_f64).exp2()))),
        case(
            F,
            "tan(a)",
            near!(a => a.tan(), |value: f64| {
                let cos = a.cos().abs();
                if cos < 0.01 { f64::INFINITY } else { within_a_turn(a, 2e-3 * (1.0 + value.abs()) / cos) }
            }),
        ),
        case(F, "asin(a)", near!(a => a.asin(), |value| 6.77e-5_f64.max(4096.0 * ulp(value)))),
        case(F, "acos(a)", near!(a => a.acos(), |value| 6.77e-5_f64.max(4096.0 * ulp(value)))),
        case(F, "atan(a)", near!(a => a.atan(), |value| 4096.0 * ulp(value))),
        case(F, "atan2(a, b)", |a, b, _| {
            let is_told = [a, b].iter().all(|x| f(*x).is_normal()) && (1e-30..1e30).contains(&f(b).abs());
            let value = d(a).atan2(d(b));
            Near(value, if is_told { 4096.0 * ulp(value) } else { f64::INFINITY })
        }),
        case(F, "sinh(a)", near!(a => a.sinh(), |_| (4.0 + 2.0 * a.abs()) * ulp(a.abs().exp()))),
        case(F, "cosh(a)", near!(a => a.cosh(), |_| (4.0 + 2.0 * a.abs()) * ulp(a.abs().exp()))),
        case(F, "tanh(a)", near!(a => a.tanh(), |_| if a.abs() < 40.0 { 1e-5 } else { f64::INFINITY })),
        case(
            F,
            "asinh(a)",
            near!(a => a.asinh(), |value| {
                let root = a.hypot(1.0);
                let error = 4.0 * ulp(a.abs() + root) / (a + root).abs();
                if a.abs() < 1e3 { error + 1e-6 + 3.0 * ulp(value) } else { f64::INFINITY }
            }),
        ),
        case(
            F,
            "acosh(a)",
            near!(a => a.acosh(), |value| {
                let root = (a * a - 1.0).sqrt();
                let error = (2.0 * ulp(a * a) / (root + 1e-4) + 4.0 * ulp(2.0 * a)) / (a + root);
                if (1.0..1e18).contains(&a) { error + 1e-6 + 3.0 * ulp(value) } else { f64::INFINITY }
            }),
        ),
        case(
            F,
            "atanh(a)",
            near!(a => a.atanh(), |_| if a.abs() < 0.999 { 2e-6 / (1.0 - a.abs()) } else { f64::INFINITY }),
        ),
    ]
}

fn of_signed() -> Vec<Case> {
    use Of::{B, I, U};
    vec![
        case(I, "a + b", signed!(|a, b, c| a.wrapping_add(b))),
        case(I, "a - b", signed!(|a, b, c| a.wrapping_sub(b))),
        case(I, "a * b", signed!(|a, b, c| a.wrapping_mul(b))),
        case(I, "a / b", signed!(|a, b, c| if b == 0 { a } else { a.wrapping_div(b) })),
        case(I, "a % b", signed!(|a, b, c| if b == 0 { 0 } else { a.wrapping_rem(b) })),
        case(I, "-a", signed!(|a, b, c| a.wrapping_neg())),
        case(I, "~a", signed!(|a, b, c| !a)),
        case(I, "a & b", signed!(|a, b, c| a & b)),
        case(I, "a | b", signed!(|a, b, c| a | b)),
        case(I, "a ^ b", signed!(|a, b, c| a ^ b)),
        case(I, "a << c", signed!(|a, b, c| a.wrapping_shl(c))),
        case(I, "a >> c", signed!(|a, b, c| a.wrapping_shr(c))),
        case(B, "a == b", |a, b, _| truth(a == b)),
        case(B, "a != b", |a, b, _| truth(a != b)),
        case(B, "a < b", |a, b, _| truth((a as i32) < b as i32)),
        case(B, "a <= b", |a, b, _| truth(a as i32 <= b as i32)),
        case(B, "a > b", |a, b, _| truth(a as i32 > b as i32)),
        case(B, "a >= b", |a, b, _| truth(a as i32 >= b as i32)),
        case(I, "abs(a)", signed!(|a, b, c| a.wrapping_abs())),
        case(I, "sign(a)", signed!(|a, b, c| a.signum())),
        case(I, "min(a, b)", signed!(|a, b, c| a.min(b))),
        case(I, "max(a, b)", signed!(|a, b, c| a.max(b))),
        case(I, "clamp(a, {I}(-5), b)", |a, b, _| {
            let value = (a as i32).max(-5).min(b as i32) as u32;
            if (b as i32) < -5 { OpenWord(value) } else { Word(value) }
        }),
        case(I, "select(a, b, c > {U}(7u))", |a, b, c| Word(if c > 7 { b } else { a })),
        case(I, "countOneBits(a)", |a, _, _| Word(a.count_ones())),
        case(I, "countLeadingZeros(a)", |a, _, _| Word(a.leading_zeros())),
        case(I, "countTrailingZeros(a)", |a, _, _| Word(a.trailing_zeros())),
        case(I, "firstTrailingBit(a)", |a, _, _| Word(if a == 0 { u32::MAX } else { a.trailing_zeros() })),
        case(I, "firstLeadingBit(a)", |a, _, _| {
            let differs = if (a as i32) < 0 { !a } else { a };
            Word(differs.checked_ilog2().unwrap_or(u32::MAX))
        }),
        case(I, "reverseBits(a)", |a, _, _| Word(a.reverse_bits())),
        case(I, "extractBits(a, 5u, 7u)", signed!(|a, b, c| a << 20 >> 25)),
        case(I, "insertBits(a, b, 3u, 11u)", |a, b, _| Word(a & !0x3ff8 | b << 3 & 0x3ff8)),
        case(Of::F, "{F}(a)", |a, _, _| Rounded(a as i32 as f32)),
        case(U, "{U}(a)", |a, _, _| Word(a)),
        case(B, "{B}(a)", |a, _, _| truth(a != 0)),
        case(U, "bitcast<{U}>(a)", |a, _, _| Word(a)),
    ]
}

fn of_unsigned() -> Vec<Case> {
    use Of::{B, I, U};
    vec![
        case(U, "a + b", unsigned!(|a, b, c| a.wrapping_add(b))),
        case(U, "a - b", unsigned!(|a, b, c| a.wrapping_sub(b))),
        case(U, "a * b", unsigned!(|a, b, c| a.wrapping_mul(b))),
        case(U, "a / b", unsigned!(|a, b, c| a.checked_div(b).unwrap_or(a))),
        case(U, "a % b", unsigned!(|a, b, c| a.checked_rem(b).unwrap_or(0))),
        case(U, "~a", unsigned!(|a, b, c| !a)),
        case(U, "a & b", unsigned!(|a, b, c| a & b)),
        case(U, "a | b", unsigned!(|a, b, c| a | b)),
        case(U, "a ^ b", unsigned!(|a, b, c| a ^ b)),
        case(U, "a << c", unsigned!(|a, b, c| a.wrapping_shl(c))),
        case(U, "a >> c", unsigned!(|a, b, c| a.wrapping_shr(c))),
        case(B, "a == b", |a, b, _| truth(a == b)),
        case(B, "a != b", |a, b, _| truth(a != b)),
        case(B, "a < b", |a, b, _| truth(a < b)),
        case(B, "a <= b", |a, b, _| truth(a <= b)),
        case(B, "a > b", |a, b, _| truth(a > b)),
        case(B, "a >= b", |a, b, _| truth(a >= b)),
        case(U, "abs(a)", unsigned!(|a, b, c| a)),
        case(U, "min(a, b)", unsigned!(|a, b, c| a.min(b))),
        case(U, "max(a, b)", unsigned!(|a, b, c| a.max(b))),
        case(U, "clamp(a, {U}(5u), max(b, {U}(5u)))", unsigned!(|a, b, c| a.max(5).min(b.max(5)))),
        case(U, "select(a, b, c > {U}(7u))", unsigned!(|a, b, c| if c > 7 { b } else { a })),
        case(U, "countOneBits(a)", unsigned!(|a, b, c| a.count_ones())),
        case(U, "countLeadingZeros(a)", unsigned!(|a, b, c| a.leading_zeros())),
        case(U, "countTrailingZeros(a)", unsigned!(|a, b, c| a.trailing_zeros())),
        case(U, "firstTrailingBit(a)", unsigned!(|a, b, c| if a == 0 { u32::MAX } else { a.trailing_zeros() })),
        case(U, "firstLeadingBit(a)", unsigned!(|a, b, c| a.checked_ilog2().unwrap_or(u32::MAX))),
        case(U, "reverseBits(a)", unsigned!(|a, b, c| a.reverse_bits())),
        case(U, "extractBits(a, 5u, 7u)", unsigned!(|a, b, c| a >> 5 & 0x7f)),
        case(U, "insertBits(a, b, 3u, 11u)", unsigned!(|a, b, c| a & !0x3ff8 | b << 3 & 0x3ff8)),
        case(Of::F, "{F}(a)", |a, _, _| Rounded(a as f32)),
        case(I, "{I}(a)", |a, _, _| Word(a)),
        case(B, "{B}(a)", |a, _, _| truth(a != 0)),
        case(U, "bitcast<{U}>(bitcast<{I}>(a))", |a, _, _| Word(a)),
    ]
}

fn of_truth() -> Vec<Case> {
    use Of::{B, F, I, U};
    vec![
        case(B, "!a", |a, _, _| truth(a == 0)),
        case(B, "a & b", |a, b, _| truth(a & b == 1)),
        case(B, "a | b", |a, b, _| truth(a | b == 1)),
        case(B, "a == b", |a, b, _| truth(a == b)),
        case(B, "a != b", |a, b, _| truth(a != b)),
        case(B, "select(a, b, c)", |a, b, c| Word(if c == 1 { b } else { a })),
        case(F, "{F}(a)", |a, _, _| Exact(a as f32)),
        case(I, "{I}(a)", |a, _, _| Word(a)),
        case(U, "{U}(a)", |a, _, _| Word(a)),
        case(F, "select({F}(2.5), {F}(b), a)", |a, b, _| Exact(if a == 1 { b as f32 } else { 2.5 })),
    ]
}

/// The exponent is an integer.
fn of_two_kinds() -> Vec<Case> {
    vec![case(Of::F, "ldexp(a, clamp(b, {I}(-160), {I}(127)))", |a, b, _| {
        let exponent = (b as i32).clamp(-160, 127);
        Rounded((d(a) * f64::from(exponent).exp2()) as f32)
    })]
}

fn half(value: f32) -> Want {
    Exact(half::f16::from_f32(value).to_f32())
}

/// Halves: the interpreter alone has them.
fn of_halves() -> Vec<Case> {
    use Of::{B, F, H, I, U};
    vec![
        case(H, "a + b", |a, b, _| half(f(a) + f(b))),
        case(H, "a - b", |a, b, _| half(f(a) - f(b))),
        case(H, "a * b", |a, b, _| half(f(a) * f(b))),
        case(H, "a / b", |a, b, _| half(f(a) / f(b))),
        case(H, "a % b", |a, b, _| half(f(a) % f(b))),
        case(H, "-a", |a, _, _| half(-f(a))),
        case(H, "abs(a)", |a, _, _| half(f(a).abs())),
        case(H, "sqrt(a)", |a, _, _| half(f(a).sqrt())),
        case(H, "floor(a)", |a, _, _| half(f(a).floor())),
        case(H, "round(a)", |a, _, _| half(f(a).round_ties_even())),
        case(H, "fract(a)", |a, _, _| half(f(a) - f(a).floor())),
        case(H, "sign(a)", |a, _, _| half(sign(f(a)))),
        case(H, "min(a, b)", |a, b, _| half(least(f(a), f(b)))),
        case(H, "max(a, b)", |a, b, _| half(greatest(f(a), f(b)))),
        case(H, "saturate(a)", |a, _, _| half(least(greatest(f(a), 0.0), 1.0))),
        case(H, "step(a, b)", |a, b, _| half(if f(a) <= f(b) { 1.0 } else { 0.0 })),
        case(H, "exp2(a)", |a, _, _| half(d(a).exp2() as f32)),
        case(H, "select(a, b, c > {H}())", |a, b, c| half(if f(c) > 0.0 { f(b) } else { f(a) })),
        case(B, "a < b", |a, b, _| truth(f(a) < f(b))),
        case(B, "a >= b", |a, b, _| truth(f(a) >= f(b))),
        case(B, "a == b", |a, b, _| truth(f(a) == f(b))),
        case(B, "{B}(a)", |a, _, _| truth(f(a) != 0.0)),
        case(F, "{F}(a)", |a, _, _| Exact(f(a))),
        case(I, "{I}(a)", |a, _, _| Word(d(a).clamp(-2_147_483_648.0, 2_147_483_520.0) as i32 as u32)),
        case(U, "{U}(a)", |a, _, _| Word(d(a).clamp(0.0, 4_294_967_040.0) as u32)),
        case(H, "{H}({I}(b))", |_, b, _| half(d(b).clamp(-2_147_483_648.0, 2_147_483_520.0) as i32 as f32)),
        case(H, "{H}(a < b)", |a, b, _| half(if f(a) < f(b) { 1.0 } else { 0.0 })),
    ]
}

/// All tables.
pub fn tables() -> Vec<Table> {
    use Of::{B, F, H, I, U};
    let table = |name, operands, cases| Table { name, operands, cases };
    vec![
        table("operators of floats", [F; 3], operators()),
        table("functions by comparison", [F; 3], by_comparison()),
        table("functions by formula", [F; 3], by_formula()),
        table("functions of angles", [F; 3], by_angle()),
        table("signed integers", [I, I, U], of_signed()),
        table("unsigned integers", [U; 3], of_unsigned()),
        table("truth values", [B; 3], of_truth()),
        table("a float and an integer", [F, I, U], of_two_kinds()),
        table("halves", [H; 3], of_halves()),
    ]
}
