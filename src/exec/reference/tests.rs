//! Kernels that are run by themselves, each against what the same lines of Rust give.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::lower::lower;
use super::machine::{Scratch, View, run};
use super::watch::Unwatched;
use crate::plan::command::Kernel;

fn kernel(wgsl: &str) -> Kernel {
    Kernel {
        label: "test".into(),
        wgsl: wgsl.into(),
        entry: "main".into(),
        bindings: Vec::new(),
        workgroup_size: [1; 3],
        workgroup_bytes: 0,
        runtime_checks: true,
        zero_workgroup_memory: true,
        needs_subgroups: true,
        needs_cooperative_matrix: false,
        needs_wide_words: false,
        origins: Vec::new(),
    }
}

const HEAD: &str = "@group(0) @binding(0) var<storage, read> a: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
";

/// Runs a body on `a`; what it leaves in `y`.
fn run_on(body: &str, a: &[u32], count: usize) -> Vec<u32> {
    let program = lower(&kernel(&format!("{HEAD}{body}")), 32).unwrap_or_else(|error| panic!("{error}"));
    let y: Vec<AtomicU32> = (0..count).map(|_| AtomicU32::new(0)).collect();
    let mut scratch = Scratch::default();
    for x in 0..2 {
        run(&program, &mut scratch, &[View::Read(a), View::Write(&y)], [2, 1, 1], [x, 0, 0], &mut Unwatched);
    }
    y.iter().map(|word| word.load(Relaxed)).collect()
}

const MAIN: &str = "@compute @workgroup_size(40) fn main(@builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_index) lane: u32) { let i = id.x;";

#[test]
fn lanes_leave_loops_and_functions_one_by_one() {
    let collatz = "fn steps(n: u32) -> u32 {
        var x = n; var count = 0u;
        loop {
            if x == 1u { return count; }
            if x == 27u { break; }
            if x % 2u == 0u { x = x / 2u; count++; continue; }
            x = 3u * x + 1u;
            continuing { count += 1u; }
        }
        return 1000u + count;
    }";
    let reference = |n: u32| {
        let (mut x, mut count) = (n, 0);
        loop {
            if x == 1 {
                return count;
            }
            if x == 27 {
                return 1000 + count;
            }
            if x % 2 == 0 {
                x /= 2;
                count += 2;
                continue;
            }
            x = 3 * x + 1;
            count += 1;
        }
    };
    let a: Vec<u32> = (0..80).map(|i| i + 1).collect();
    let y = run_on(&format!("{collatz}{MAIN} y[i] = steps(a[i]) + steps(a[79u - i]); }}"), &a, 80);
    let expected: Vec<u32> = (0..80).map(|i| reference(a[i]) + reference(a[79 - i])).collect();
    assert_eq!(y, expected);
}

#[test]
fn a_switch_takes_one_case() {
    let body = format!(
        "{MAIN} var s = 7u;
        for (var k = 0u; k < 5u; k++) {{
            switch a[i] % 6u {{
                case 0u: {{ s += 1u; }}
                case 1u, 2u: {{ if k == 2u {{ continue; }} s *= 2u; if i > 20u {{ break; }} s += 3u; }}
                case 3u, default: {{ if k == 3u {{ break; }} s += 100u; }}
            }}
            s += 1000u;
        }}
        y[i] = s; }}"
    );
    let a: Vec<u32> = (0..80).map(|i| i * 7 + 3).collect();
    let expected: Vec<u32> = (0..80_u32)
        .map(|i| {
            let mut s = 7_u32;
            for k in 0..5 {
                match a[i as usize] % 6 {
                    0 => s += 1,
                    1 | 2 => {
                        if k == 2 {
                            continue;
                        }
                        s = s.wrapping_mul(2);
                        if i <= 20 {
                            s += 3;
                        }
                    }
                    _ => s += if k == 3 { 0 } else { 100 },
                }
                s = s.wrapping_add(1000);
            }
            s
        })
        .collect();
    assert_eq!(run_on(&body, &a, 80), expected);
}

#[test]
fn arrays_structs_and_pointers_are_variables() {
    let body = format!(
        "struct P {{ v: vec3<u32>, n: array<u32, 4> }}
        fn bump(p: ptr<function, P>, at: u32) {{ (*p).n[at] += 10u; (*p).v[at % 3u] = at; }}
        var<private> total: u32 = 5u;
        {MAIN}
            var p: P;
            for (var k = 0u; k < 6u; k++) {{ bump(&p, (k + a[i]) % 4u); total += p.n[k % 4u]; }}
            let v = p.v.zyx;
            y[i] = v.x + 10u * v.y + 100u * v.z + 1000u * p.n[a[i] & 3u] + 100000u * total;
        }}"
    );
    let a: Vec<u32> = (0..80).map(|i| i * 5 + 1).collect();
    let expected: Vec<u32> = a
        .iter()
        .map(|a| {
            let (mut v, mut n, mut total) = ([0; 3], [0; 4], 5);
            for k in 0..6_u32 {
                let at = ((k + a) % 4) as usize;
                n[at] += 10;
                v[at % 3] = at as u32;
                total += n[k as usize % 4];
            }
            v[2] + 10 * v[1] + 100 * v[0] + 1000 * n[*a as usize & 3] + 100_000 * total
        })
        .collect();
    assert_eq!(run_on(&body, &a, 80), expected);
}

#[test]
fn a_workgroup_sums_through_its_memory() {
    let body = "var<workgroup> part: array<u32, 40>;
        @compute @workgroup_size(40) fn main(@builtin(workgroup_id) group: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
            part[lane] = a[group.x * 40u + lane];
            for (var half = 20u; half > 0u; half /= 2u) {
                workgroupBarrier();
                if lane < half { part[lane] += part[lane + half]; }
                if half == 5u { if lane == 0u { part[0] += part[4]; } }
            }
            workgroupBarrier();
            y[group.x * 40u + lane] = workgroupUniformLoad(&part[0]) + part[39];
        }";
    let a: Vec<u32> = (0..80).map(|i| i * i).collect();
    let y = run_on(body, &a, 80);
    let tree = |from: usize| {
        let mut part = a[from..from + 40].to_vec();
        let mut half = 20;
        while half > 0 {
            for lane in 0..half {
                part[lane] += part[lane + half];
            }
            if half == 5 {
                part[0] += part[4];
            }
            half /= 2;
        }
        part[0] + part[39]
    };
    assert!(y[..40].iter().all(|word| *word == tree(0)) && y[40..].iter().all(|word| *word == tree(40)));
}

#[test]
fn an_index_beyond_the_end_reaches_the_last() {
    let y = run_on(&format!("{MAIN} if lane == 3u {{ y[a[0] + 100u] = a[1000u + i]; }} }}"), &[5, 6, 7], 80);
    assert_eq!((y[79], y.iter().sum::<u32>()), (7, 7));
}

#[test]
fn every_half_is_its_float_and_back() {
    let a: Vec<u32> = (0..=u32::from(u16::MAX)).collect();
    let body = "@compute @workgroup_size(256) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
        for (var k = 0u; k < 128u; k++) { let i = id.x * 128u + k; y[i] = bitcast<u32>(unpack2x16float(a[i]).x); } }";
    let y = run_on(body, &a, a.len());
    for (bits, word) in a.iter().zip(y) {
        let (expected, found) = (half::f16::from_bits(*bits as u16).to_f32(), f32::from_bits(word));
        assert!(expected.to_bits() == word || expected.is_nan() && found.is_nan(), "{bits:#x}: {expected} {found}");
    }
}
