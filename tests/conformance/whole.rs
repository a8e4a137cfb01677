//! Functions of whole vectors and matrices, packing, places, control flow.
//!
//! Gets nothing, returns bodies of WGSL functions that read words of their lane and write others, and the same in Rust.
//! A body reads `u(k)`, `i(k)` and `f(k)`, the word `k` of its lane as it is meant, and writes `w(k, word)` and
//! `wf(k, float)`. Never shares code with the interpreter.

use super::want::Want::{self, *};

/// Words that a lane reads: 16 floats in [-4, 4], 8 words of any size, 8 numbers below 8.
pub const INPUTS: usize = 32;

/// One function.
pub struct Case {
    pub name: &'static str,
    /// What stands before the function.
    pub declarations: &'static str,
    pub body: &'static str,
    /// Words that it writes.
    pub count: usize,
    pub rule: fn(&[u32; INPUTS]) -> Vec<Want>,
}

/// The kernel of a case.
pub fn text(case: &Case) -> String {
    let Case { declarations, body, count, .. } = case;
    let head = super::HEAD;
    format!(
        "{head}var<private> lane: u32;
fn u(k: u32) -> u32 {{ return x.v[lane * {INPUTS}u + k]; }}
fn i(k: u32) -> i32 {{ return bitcast<i32>(u(k)); }}
fn f(k: u32) -> f32 {{ return bitcast<f32>(u(k)); }}
fn w(k: u32, word: u32) {{ y.v[lane * {count}u + k] = word; }}
fn wf(k: u32, value: f32) {{ w(k, bitcast<u32>(value)); }}
{declarations}
@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {{
    lane = id.x;
{body}
}}
"
    )
}

fn f(x: &[u32; INPUTS], at: usize) -> f64 {
    f64::from(f32::from_bits(x[at]))
}

/// Three floats.
fn v3(x: &[u32; INPUTS], at: usize) -> [f64; 3] {
    std::array::from_fn(|k| f(x, at + k))
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Sums of a few products of numbers below 16, in any order and rounding; more where they are divided.
fn sums(values: impl IntoIterator<Item = f64>) -> Vec<Want> {
    values.into_iter().map(|value| Close(value, 1e-4)).collect()
}

fn words(values: impl IntoIterator<Item = u32>) -> Vec<Want> {
    values.into_iter().map(Word).collect()
}

fn case(
    name: &'static str,
    declarations: &'static str,
    body: &'static str,
    count: usize,
    rule: fn(&[u32; INPUTS]) -> Vec<Want>,
) -> Case {
    Case { name, declarations, body, count, rule }
}

/// All of them.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![geometry(), matrices(), determinants(), packing(), unpacking(), integers(), parts()];
    cases.extend([places(), flow(), logic(), pointers(), memory(), atomics()]);
    cases
}

fn geometry() -> Case {
    let body = "let a = vec3<f32>(f(0u), f(1u), f(2u)); let b = vec3<f32>(f(3u), f(4u), f(5u)); let n = normalize(b);
    wf(0u, dot(a, b)); let c = cross(a, b); wf(1u, c.x); wf(2u, c.y); wf(3u, c.z); wf(4u, length(a));
    wf(5u, distance(a, b)); wf(6u, n.x); wf(7u, n.y); wf(8u, n.z);
    let r = reflect(a, n); wf(9u, r.x); wf(10u, r.y); wf(11u, r.z);
    let t = refract(normalize(a), n, 0.5); wf(12u, t.x); wf(13u, t.y); wf(14u, t.z);
    let s = faceForward(a, b, vec3<f32>(1.0, 2.0, 3.0)); wf(15u, s.x); wf(16u, s.y); wf(17u, s.z);
    wf(18u, dot(a.xy, b.yz)); wf(19u, dot(vec4<f32>(a, 1.0), vec4<f32>(2.0, b)));
    wf(20u, length(f(6u))); wf(21u, distance(f(6u), f(7u)));";
    case("geometry", "", body, 22, |x| {
        let (a, b) = (v3(x, 0), v3(x, 3));
        let scaled = |v: [f64; 3], by: f64| v.map(|v| v * by);
        let length = |v: [f64; 3]| dot(&v, &v).sqrt();
        let n = scaled(b, 1.0 / length(b));
        let cross = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
        let between: [f64; 3] = std::array::from_fn(|k| a[k] - b[k]);
        let reflected: [f64; 3] = std::array::from_fn(|k| a[k] - 2.0 * dot(&n, &a) * n[k]);
        let unit = scaled(a, 1.0 / length(a));
        let along = dot(&n, &unit);
        let k = 1.0 - 0.25 * (1.0 - along * along);
        let bent = std::array::from_fn(|at| 0.5 * unit[at] - (0.5 * along + k.sqrt()) * n[at]);
        let faced = if dot(&b, &[1.0, 2.0, 3.0]) < 0.0 { a } else { scaled(a, -1.0) };
        let mut all = vec![dot(&a, &b)];
        all.extend(cross);
        all.extend([length(a), length(between)]);
        all.extend(n.into_iter().chain(reflected).chain::<[f64; 3]>(bent).chain(faced));
        all.push(a[0] * b[1] + a[1] * b[2]);
        all.push(2.0 * a[0] + a[1] * b[0] + a[2] * b[1] + b[2]);
        all.extend([f(x, 6).abs(), (f(x, 6) - f(x, 7)).abs()]);
        sums(all)
    })
}

fn matrices() -> Case {
    let body = "let m = mat2x3<f32>(f(0u), f(1u), f(2u), f(3u), f(4u), f(5u));
    let o = mat3x2<f32>(f(6u), f(7u), f(8u), f(9u), f(10u), f(11u));
    let v = m * vec2<f32>(f(12u), f(13u)); wf(0u, v.x); wf(1u, v.y); wf(2u, v.z);
    let r = vec3<f32>(f(12u), f(13u), f(14u)) * m; wf(3u, r.x); wf(4u, r.y);
    let p = m * o; for (var c = 0u; c < 3u; c++) { for (var l = 0u; l < 3u; l++) { wf(5u + c * 3u + l, p[c][l]); } }
    let t = transpose(m) + o * 2.0 - 0.5 * o; let c = u(24u) % 3u; let l = u(25u) % 2u; wf(14u, t[c][l]);
    wf(15u, m[u(26u) % 2u].y); var k = m; k[u(26u) % 2u][u(27u) % 3u] = 9.0; k[1].x += 1.0;
    for (var e = 0u; e < 6u; e++) { wf(16u + e, k[e / 3u][e % 3u]); }";
    case("matrices", "", body, 22, |x| {
        let m = |c: usize, l: usize| f(x, c * 3 + l);
        let o = |c: usize, l: usize| f(x, 6 + c * 2 + l);
        let mut all: Vec<f64> = (0..3).map(|l| m(0, l) * f(x, 12) + m(1, l) * f(x, 13)).collect();
        all.extend((0..2).map(|c| dot(&v3(x, 12), &v3(x, c * 3))));
        all.extend((0..9).map(|at| m(0, at % 3) * o(at / 3, 0) + m(1, at % 3) * o(at / 3, 1)));
        let (c, l) = (x[24] as usize % 3, x[25] as usize % 2);
        all.push(m(l, c) + 1.5 * o(c, l));
        all.push(m(x[26] as usize % 2, 1));
        let mut k: Vec<f64> = (0..6).map(|at| f(x, at)).collect();
        k[x[26] as usize % 2 * 3 + x[27] as usize % 3] = 9.0;
        k[3] += 1.0;
        all.extend(k);
        sums(all)
    })
}

fn determinants() -> Case {
    let body = "wf(0u, determinant(mat2x2<f32>(f(0u), f(1u), f(2u), f(3u))));
    wf(1u, determinant(mat3x3<f32>(f(0u), f(1u), f(2u), f(3u), f(4u), f(5u), f(6u), f(7u), f(8u))));
    wf(2u, determinant(mat4x4<f32>(f(0u), f(1u), f(2u), f(3u), f(4u), f(5u), f(6u), f(7u), f(8u), f(9u), f(10u), f(11u),
        f(12u), f(13u), f(14u), f(15u))));";
    case("determinants", "", body, 3, |x| {
        fn of(m: &[f64], n: usize) -> f64 {
            // By elimination, unlike the interpreter.
            let (mut m, mut product) = (m.to_vec(), 1.0);
            for at in 0..n {
                let largest =
                    (at..n).max_by(|a, b| m[a * n + at].abs().total_cmp(&m[b * n + at].abs())).expect("a row");
                if largest != at {
                    (0..n).for_each(|k| m.swap(at * n + k, largest * n + k));
                    product = -product;
                }
                product *= m[at * n + at];
                for row in at + 1..n {
                    let factor = m[row * n + at] / m[at * n + at];
                    (0..n).for_each(|k| m[row * n + k] -= factor * m[at * n + k]);
                }
            }
            product
        }
        let all: Vec<f64> = (0..16).map(|at| f(x, at)).collect();
        [2, 3, 4].iter().map(|n| Close(of(&all[..n * n], *n), 2e-3)).collect()
    })
}

fn packing() -> Case {
    let body = "let v = vec4<f32>(f(0u), f(1u), f(2u), f(3u)) * 0.5;
    w(0u, pack4x8snorm(v)); w(1u, pack4x8unorm(v)); w(2u, pack2x16snorm(v.xy)); w(3u, pack2x16unorm(v.zw));
    w(4u, pack2x16float(v.xz)); let n = vec4<i32>(i(16u), i(17u), i(24u) - 4, i(25u) * 50 - 200);
    w(5u, pack4xI8(n)); w(6u, pack4xI8Clamp(n)); let p = vec4<u32>(u(16u), u(17u), u(24u), u(25u) * 50u);
    w(7u, pack4xU8(p)); w(8u, pack4xU8Clamp(p));";
    case("packing", "", body, 9, |x| {
        let v: [f32; 4] = std::array::from_fn(|k| f32::from_bits(x[k]) * 0.5);
        let to = |v: f32, low: f32, scale: f32| (0.5 + scale * v.clamp(low, 1.0)).floor() as i32 as u32;
        let join = |bits: u32, parts: &[u32]| {
            let mask = u32::MAX >> (32 - bits);
            parts.iter().enumerate().fold(0, |word, (at, part)| word | (part & mask) << (at as u32 * bits))
        };
        let half = |v: f32| u32::from(half::f16::from_f32(v).to_bits());
        let n = [x[16] as i32, x[17] as i32, x[24] as i32 - 4, x[25] as i32 * 50 - 200];
        let p = [x[16], x[17], x[24], x[25] * 50];
        words([
            join(8, &v.map(|v| to(v, -1.0, 127.0))),
            join(8, &v.map(|v| to(v, 0.0, 255.0))),
            join(16, &[to(v[0], -1.0, 32767.0), to(v[1], -1.0, 32767.0)]),
            join(16, &[to(v[2], 0.0, 65535.0), to(v[3], 0.0, 65535.0)]),
            join(16, &[half(v[0]), half(v[2])]),
            join(8, &n.map(|n| n as u32)),
            join(8, &n.map(|n| n.clamp(-128, 127) as u32)),
            join(8, &p),
            join(8, &p.map(|p| p.min(255))),
        ])
    })
}

fn unpacking() -> Case {
    let body = "let s = unpack4x8snorm(u(16u)); let t = unpack4x8unorm(u(16u)); let a = unpack2x16snorm(u(17u));
    let b = unpack2x16unorm(u(17u)); let h = unpack2x16float(u(18u) & 0xbbffbbffu);
    for (var k = 0u; k < 4u; k++) { wf(k, s[k]); wf(4u + k, t[k]); }
    for (var k = 0u; k < 2u; k++) { wf(8u + k, a[k]); wf(10u + k, b[k]); wf(12u + k, h[k]); }
    let n = unpack4xI8(u(16u)); let p = unpack4xU8(u(16u));
    for (var k = 0u; k < 4u; k++) { w(14u + k, bitcast<u32>(n[k])); w(18u + k, p[k]); }";
    case("unpacking", "", body, 22, |x| {
        let byte = |at: usize| (x[16] >> (8 * at)) as u8;
        let short = |at: usize| (x[17] >> (16 * at)) as u16;
        let near = |value: f64| Near(value, 3.0 * super::want::ulp(value));
        let mut all: Vec<Want> = (0..4).map(|k| near((f64::from(byte(k) as i8) / 127.0).max(-1.0))).collect();
        all.extend((0..4).map(|k| near(f64::from(byte(k)) / 255.0)));
        all.extend((0..2).map(|k| near((f64::from(short(k) as i16) / 32767.0).max(-1.0))));
        all.extend((0..2).map(|k| near(f64::from(short(k)) / 65535.0)));
        all.extend((0..2).map(|k| {
            let value =
                half::f16::from_bits((x[18] & 0xbbff_bbff) as u16 * (1 - k) + ((x[18] & 0xbbff_bbff) >> 16) as u16 * k);
            // A half below the least normal one may be flushed.
            Kept(value.to_f32(), if value.is_normal() { 0.0 } else { 6.2e-5 })
        }));
        all.extend((0..4).map(|k| Word(i32::from(byte(k) as i8) as u32)));
        all.extend((0..4).map(|k| Word(u32::from(byte(k)))));
        all
    })
}

fn integers() -> Case {
    let body = "w(0u, bitcast<u32>(dot4I8Packed(u(16u), u(17u)))); w(1u, dot4U8Packed(u(16u), u(17u)));
    let o = u(24u) * 6u; let c = u(25u) * 5u;
    w(2u, extractBits(u(16u), o, c)); w(3u, bitcast<u32>(extractBits(i(17u), o, c)));
    w(4u, insertBits(u(16u), u(17u), o, c));
    w(5u, bitcast<u32>(dot(vec3<i32>(i(16u), i(17u), i(18u)), vec3<i32>(i(19u), i(20u), i(21u)))));
    w(6u, dot(vec2<u32>(u(16u), u(17u)), vec2<u32>(u(18u), u(19u))));
    w(7u, extractBits(u(16u), 40u, 3u)); w(8u, extractBits(u(16u), 0u, 40u));";
    case("integers", "", body, 9, |x| {
        let bytes = |at: usize| x[at].to_le_bytes();
        let signed: i32 = bytes(16).iter().zip(bytes(17)).map(|(a, b)| i32::from(*a as i8) * i32::from(b as i8)).sum();
        let unsigned: u32 = bytes(16).iter().zip(bytes(17)).map(|(a, b)| u32::from(*a) * u32::from(b)).sum();
        let (o, c) = ((x[24] * 6).min(32), (x[25] * 5).min(32 - (x[24] * 6).min(32)));
        // By 64 bits, where no shift is too far.
        let mask = ((1_u64 << c) - 1) as u32;
        let field = |word: u32| (u64::from(word) >> o) as u32 & mask;
        let sign = if c > 0 && field(x[17]) >> (c - 1) & 1 == 1 { !mask } else { 0 };
        let inserted = x[16] & !((u64::from(mask) << o) as u32) | (u64::from(x[17] & mask) << o) as u32;
        let products = (16..19).map(|at| x[at].wrapping_mul(x[at + 3]));
        words([
            signed as u32,
            unsigned,
            field(x[16]),
            field(x[17]) | sign,
            inserted,
            products.fold(0, u32::wrapping_add),
            x[16].wrapping_mul(x[18]).wrapping_add(x[17].wrapping_mul(x[19])),
            0,
            x[16],
        ])
    })
}

fn parts() -> Case {
    let body = "let m = modf(f(0u)); wf(0u, m.fract); wf(1u, m.whole); let e = frexp(f(1u)); wf(2u, e.fract);
    w(3u, bitcast<u32>(e.exp)); let v = modf(vec2<f32>(f(2u), f(3u))); wf(4u, v.fract.y); wf(5u, v.whole.x);
    let g = frexp(vec2<f32>(f(2u), f(3u))); wf(6u, g.fract.y); w(7u, bitcast<u32>(g.exp.x));";
    case("two results", "", body, 8, |x| {
        let f = |at: usize| f32::from_bits(x[at]);
        let exponent = |value: f32| (value.to_bits() >> 23 & 0xff) as i32 - 126;
        let fract = |value: f32| (f64::from(value) / f64::from(exponent(value)).exp2()) as f32;
        vec![
            Exact(f(0) - f(0).trunc()),
            Exact(f(0).trunc()),
            Exact(fract(f(1))),
            Word(exponent(f(1)) as u32),
            Exact(f(3) - f(3).trunc()),
            Exact(f(2).trunc()),
            Exact(fract(f(3))),
            Word(exponent(f(2)) as u32),
        ]
    })
}

fn places() -> Case {
    let declarations = "struct Inner { p: vec3<u32>, q: array<u32, 3> }
struct Outer { a: u32, n: array<Inner, 2>, m: vec2<u32> }
var<private> kept: array<Outer, 2>;
const TABLE = array<u32, 5>(2u, 3u, 5u, 7u, 11u);";
    let body = "var o: Outer; let a = u(24u) % 2u; let b = u(25u) % 3u; let c = u(26u) % 2u;
    o.n[a].p[b] = u(16u); o.n[1u - a].q[b] = u(17u); o.m[c] += 5u; o.n[a].q = array<u32, 3>(1u, 2u, u(18u)); o.a = 7u;
    kept[c] = o; kept[c].a++; kept[1u - c].n[0].q[b] = 3u; let k = kept[a];
    w(0u, o.n[a].p[b]); w(1u, o.n[0].p.x + o.n[0].p.y + o.n[0].p.z); w(2u, o.n[1u - a].q[b]); w(3u, o.n[a].q[b]);
    w(4u, o.m.x); w(5u, k.a); w(6u, k.n[0].q[b]); w(7u, TABLE[u(27u) % 5u]); let v = vec4<u32>(u(16u), u(17u), 3u, 4u);
    let s = v.wzyx.xz; w(8u, s.x); w(9u, s.y); w(10u, v[u(24u) % 4u]); var t = v; t[u(25u) % 4u] = 99u;
    w(11u, t.x + t.y + t.z + t.w); t.y = t.x; t = t.yxwz; w(12u, t.y); w(13u, t.z);
    let copy = o.n; o.n[0].q[0] = 77u; w(14u, copy[0].q[0]);";
    case("places", declarations, body, 15, |x| {
        let (a, b, c) = (x[24] as usize % 2, x[25] as usize % 3, x[26] as usize % 2);
        let (mut p, mut q, mut m) = ([[0; 3]; 2], [[0; 3]; 2], [0; 2]);
        p[a][b] = x[16];
        q[1 - a][b] = x[17];
        m[c] += 5;
        q[a] = [1, 2, x[18]];
        let mut kept = [(0, [[0; 3]; 2]); 2];
        kept[c] = (8, q);
        kept[1 - c].1[0][b] = 3;
        let v = [x[16], x[17], 3, 4];
        let mut t = v;
        t[x[25] as usize % 4] = 99;
        let sum = t.iter().fold(0_u32, |sum, t| sum.wrapping_add(*t));
        t[1] = t[0];
        let t = [t[1], t[0], t[3], t[2]];
        let table = [2, 3, 5, 7, 11];
        let row = p[0].iter().fold(0_u32, |sum, p| sum.wrapping_add(*p));
        words([
            p[a][b],
            row,
            q[1 - a][b],
            q[a][b],
            m[0],
            kept[a].0,
            kept[a].1[0][b],
            table[x[27] as usize % 5],
            4,
            x[17],
            v[x[24] as usize % 4],
            sum,
            t[1],
            t[2],
            q[0][0],
        ])
    })
}

fn flow() -> Case {
    let declarations = "fn early(n: u32) -> u32 {
    for (var k = 0u; ; k++) { switch (n + k) % 5u { case 3u: { return k; } case 1u: { continue; } default: {} }
        if k > 6u { break; } }
    return 100u;
}
fn nested(n: u32, m: u32) -> u32 {
    var s = 0u; var a = 0u;
    loop { if a >= n { break; } var b = 0u;
        while b < m { b++; if b == a { continue; } if b > a + 3u { break; } s += early(a + b) + 1u; }
        if s > 300u { return s * 2u; }
        continuing { a++; s += 1u; break if a == 6u; } }
    return s;
}";
    let body = "w(0u, early(u(24u))); w(1u, nested(u(25u), u(26u)));
    var r = 0u; switch i(27u) - 3 { case -3, -2: { r = 1u; } case 0: { r = 2u; if u(24u) > 3u { break; } r = 3u; }
        default: { r = 4u; } } w(2u, r);
    if u(24u) > 2u { if u(25u) > 4u { r += 10u; } else if u(26u) == 0u { r += 20u; } else { r += 30u; } } w(3u, r);
    { let r = 5u; w(4u, r + u(24u)); }";
    case("control flow", declarations, body, 5, |x| {
        fn early(n: u32) -> u32 {
            let mut k = 0;
            loop {
                match (n + k) % 5 {
                    3 => return k,
                    1 => {}
                    _ if k > 6 => return 100,
                    _ => {}
                }
                k += 1;
            }
        }
        fn nested(n: u32, m: u32) -> u32 {
            let (mut s, mut a) = (0, 0);
            while a < n {
                for b in 1..=m {
                    if b == a {
                        continue;
                    }
                    if b > a + 3 {
                        break;
                    }
                    s += early(a + b) + 1;
                }
                if s > 300 {
                    return s * 2;
                }
                a += 1;
                s += 1;
                if a == 6 {
                    break;
                }
            }
            s
        }
        let r = match x[27] as i32 - 3 {
            -3 | -2 => 1,
            0 => {
                if x[24] > 3 {
                    2
                } else {
                    3
                }
            }
            _ => 4,
        };
        let more = match (x[24] > 2, x[25] > 4, x[26] == 0) {
            (false, _, _) => 0,
            (_, true, _) => 10,
            (_, _, true) => 20,
            _ => 30,
        };
        words([early(x[24]), nested(x[25], x[26]), r, r + more, 5 + x[24]])
    })
}

fn logic() -> Case {
    let declarations = "var<private> calls: u32;
fn count(holds: bool) -> bool { calls++; return holds; }";
    let body = "let a = u(24u) > 3u; let b = u(25u) > 3u; var r = 0u;
    if count(a) && count(b) { r += 1u; } if count(a) || count(b) { r += 2u; } w(0u, r); w(1u, calls);
    let v = vec3<u32>(u(24u), u(25u), u(26u)) > vec3<u32>(3u); w(2u, select(0u, 1u, all(v)));
    w(3u, select(0u, 1u, any(v)));
    let s = select(vec3<u32>(1u, 2u, 3u), vec3<u32>(4u, 5u, 6u), v); w(4u, s.x * 100u + s.y * 10u + s.z);
    w(5u, select(7u, 8u, !a != b)); w(6u, select(0u, 1u, all(a)) + select(0u, 2u, any(b)));";
    case("logic", declarations, body, 7, |x| {
        let (a, b) = (x[24] > 3, x[25] > 3);
        let v = [x[24] > 3, x[25] > 3, x[26] > 3];
        let r = u32::from(a && b) + 2 * u32::from(a || b);
        let calls = 2 + u32::from(a) + u32::from(!a);
        let s: [u32; 3] = std::array::from_fn(|k| k as u32 + if v[k] { 4 } else { 1 });
        let all = v.iter().all(|v| *v);
        let any = v.iter().any(|v| *v);
        let last = u32::from(a) + 2 * u32::from(b);
        words([r, calls, all.into(), any.into(), s[0] * 100 + s[1] * 10 + s[2], if a == b { 8 } else { 7 }, last])
    })
}

fn pointers() -> Case {
    let declarations = "struct Pair { a: u32, b: vec2<u32> }
var<private> total: u32 = 5u;
fn add(to: ptr<function, u32>, n: u32) -> u32 { let old = *to; *to += n; return old; }
fn turn(p: ptr<function, Pair>) { let b = &(*p).b; *b = (*b).yx; (*p).a = (*b).x; }
fn all_of(to: ptr<private, u32>) { *to *= 2u; }";
    let body = "var n = u(24u); let before = add(&n, u(25u)); let p = &n; *p += 1u; w(0u, before); w(1u, n);
    var pair = Pair(1u, vec2<u32>(u(24u), u(25u))); turn(&pair); w(2u, pair.a); w(3u, pair.b.y);
    for (var k = 0u; k < u(26u); k++) { all_of(&total); } w(4u, total);
    var list: array<u32, 4>; for (var k = 0u; k < 4u; k++) { let e = &list[(k + n) % 4u]; *e = k + 1u; }
    w(5u, list[u(27u) % 4u]);";
    case("pointers", declarations, body, 6, |x| {
        let n = x[24] + x[25] + 1;
        let mut list = [0; 4];
        (0..4).for_each(|k| list[(k + n) as usize % 4] = k + 1);
        words([x[24], n, x[25], x[24], 5 << x[26], list[x[27] as usize % 4]])
    })
}

/// Truth values are nowhere but in variables of the kernel: also in memory of the workgroup.
fn memory() -> Case {
    let declarations = "struct Mixed { holds: bool, n: u32, v: vec3<f32>, more: array<bool, 3> }
var<workgroup> flags: array<bool, 32>; var<workgroup> mixed: array<Mixed, 32>; var<workgroup> one: u32;
var<workgroup> square: mat2x2<f32>; var<workgroup> zero: array<vec3<u32>, 5>;";
    let body = "flags[local] = u(24u) > 3u; mixed[local].holds = u(25u) > 3u; mixed[local].n = u(16u);
    mixed[local].v = vec3<f32>(f(0u), f(1u), f(2u)); mixed[local].more[u(26u) % 3u] = true;
    if local == 0u { one = arrayLength(&x.v); square = mat2x2<f32>(1.0, 2.0, 3.0, 4.0); }
    workgroupBarrier(); let length = workgroupUniformLoad(&one);
    w(0u, select(0u, 1u, flags[local])); w(1u, select(0u, 1u, mixed[local].holds)); w(2u, mixed[local].n);
    wf(3u, mixed[local].v.z); let m = mixed[local]; w(4u, select(0u, 1u, m.more[0]) + select(0u, 2u, m.more[1]));
    w(5u, length); wf(6u, square[u(24u) % 2u][u(25u) % 2u]); w(7u, zero[u(24u) % 5u].y);";
    case("workgroup memory", declarations, body, 8, |x| {
        let more = x[26] % 3;
        let square = [1.0, 2.0, 3.0, 4.0][(x[24] % 2 * 2 + x[25] % 2) as usize];
        vec![
            Word((x[24] > 3).into()),
            Word((x[25] > 3).into()),
            Word(x[16]),
            Exact(f32::from_bits(x[2])),
            Word(u32::from(more == 0) + 2 * u32::from(more == 1)),
            Word((INPUTS * 128) as u32),
            Exact(square),
            Word(0),
        ]
    })
}

/// By every lane of a workgroup on words of its own, so that the order of lanes is nothing.
fn atomics() -> Case {
    let declarations = "struct Cells { n: array<atomic<u32>, 32>, s: array<atomic<i32>, 32> }
var<workgroup> cells: Cells; var<workgroup> sum: atomic<u32>; var<workgroup> most: atomic<i32>;";
    let body = "let a = u(16u); let b = u(17u); let p = &cells.n[local]; atomicStore(p, a); w(0u, atomicAdd(p, b));
    w(1u, atomicSub(p, 3u)); w(2u, atomicAnd(p, b)); w(3u, atomicOr(p, 5u)); w(4u, atomicXor(p, b));
    w(5u, atomicMin(p, a));
    w(6u, atomicMax(p, b)); w(7u, atomicExchange(p, 9u)); w(8u, atomicLoad(p));
    let s = &cells.s[local]; atomicStore(s, i(18u)); w(9u, bitcast<u32>(atomicMin(s, -4)));
    w(10u, bitcast<u32>(atomicMax(s, -2)));
    let e = atomicCompareExchangeWeak(p, u(24u) + 6u, 1u); w(11u, e.old_value); w(12u, select(0u, 1u, e.exchanged));
    w(13u, atomicLoad(p)); atomicAdd(&sum, 2u); atomicMax(&most, i32(local)); workgroupBarrier();
    w(14u, atomicLoad(&sum)); w(15u, bitcast<u32>(atomicLoad(&most)));";
    case("atomics", declarations, body, 16, |x| {
        let (a, b) = (x[16], x[17]);
        let mut n = a;
        let mut all = Vec::new();
        let mut next = |new: u32, n: &mut u32| all.push(Word(std::mem::replace(n, new)));
        next(a.wrapping_add(b), &mut n);
        next(n.wrapping_sub(3), &mut n);
        next(n & b, &mut n);
        next(n | 5, &mut n);
        next(n ^ b, &mut n);
        next(n.min(a), &mut n);
        next(n.max(b), &mut n);
        next(9, &mut n);
        all.push(Word(9));
        let s = x[18] as i32;
        all.extend(words([s as u32, s.min(-4) as u32]));
        let is_it = x[24] + 6 == 9;
        // A weak exchange may fail for no reason; these drivers and the interpreter never do.
        all.extend(words([9, is_it.into(), if is_it { 1 } else { 9 }, 64, 31]));
        all
    })
}
