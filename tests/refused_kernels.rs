//! What the reference executor does not run is refused when a plan is prepared, with its line; nothing makes it panic.
//!
//! Gets texts with one thing that is not known, and mutations of the shipped kernels as plans have them; prepares each.
//! What then holds: a refusal names the author's file and line. Never runs them: a mutated loop may have no end.

#[allow(dead_code, reason = "the extremes are of other readers")]
mod fuzzing;
mod kernel_runs;
mod support;

use std::cell::Cell;

use fuzzing::fuzz;
use graphc::base::limits::Limits;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::exec::Session;
use graphc::kernel::reflect::reflect_text;
use graphc::sources;
use kernel_runs::{FILE, HEAD, Job, plan, reference};
use support::runner::{Program, compile};

fn job(text: String) -> Job {
    Job { text, words: vec![0; 4], count: 4, workgroup_size: 1, workgroups: 1, needs_subgroups: false }
}

/// What stands before `main`, its body, the line (from 1, behind three of the bindings), and a part of the refusal.
type Refused = (&'static str, &'static str, u32, &'static str);

const REFUSED: [Refused; 11] = [
    ("@group(0) @binding(2) var t: texture_2d<f32>;", "y.v[0] = textureDimensions(t).x;", 4, "address space"),
    ("@group(0) @binding(2) var s: sampler;", "_ = s;", 4, "address space"),
    ("@group(1) @binding(0) var<storage, read> z: Words;", "y.v[0] = z.v[0];", 4, "another group"),
    ("", "y.v[0] = u32(1.5lf * f64(x.v[0]));", 6, ""),
    ("", "y.v[0] = u32(i64(x.v[0]) * 3li);", 6, ""),
    ("var<immediate> p: u32;", "y.v[0] = p;", 4, ""),
    ("", "let h = bitcast<vec2<f16>>(x.v[0]); y.v[0] = u32(h.x);", 6, ""),
    ("var<private> big: array<u32, 100000>;", "y.v[0] = big[x.v[0]];", 4, "at most 16384"),
    (
        "var<workgroup> big: array<u32, 16384>; var<workgroup> more: u32;",
        "big[0] = 1u; more = big[x.v[0]]; y.v[0] = more;",
        4,
        "65536 bytes of workgroup memory",
    ),
    (
        "alias T = array<array<u32, 200>, 200>;",
        "var a: T; a[x.v[0]][0] = 1u; y.v[0] = a[x.v[1]][x.v[2]];",
        6,
        "at most 16384",
    ),
    ("const N = 1 +;", "y.v[0] = N;", 4, ""),
];

#[test]
fn what_is_not_known_is_refused_with_file_and_line() {
    let mut session = reference(32);
    let mut wrong = Vec::new();
    for (before, body, line, part) in REFUSED {
        let enable = if body.contains("f16") { "enable f16; " } else { "" };
        let text = format!("{enable}{HEAD}{before}\n@compute @workgroup_size(1) fn main() {{\n{body}\n}}\n");
        let said = match session.prepare(plan(&job(text.clone()))) {
            Ok(_) => format!("nothing of {text}"),
            Err(error) => error.to_string(),
        };
        println!("{said}");
        let place = format!("kernel `conformance` cannot run on the CPU: {FILE}:{line}: ");
        if !said.contains(&place) || !said.contains(part) {
            wrong.push(format!("expected `{place}` and `{part}`, found `{said}`"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Kernels as three plans of the built-in model have them.
fn kernels() -> Vec<Vec<u8>> {
    let checkpoint = Checkpoint::from_static("the built-in model", sources::DEMO_MODEL).expect("a sound checkpoint");
    let program = Program::rwkv7();
    let mut texts: Vec<Vec<u8>> = Vec::new();
    for (tokens, sequences) in [(1, 1), (5, 1), (32, 4)] {
        let shape = StepShape { tokens, sequences, rows: sequences, capacity: 4 };
        let plan = compile(&program.compiler(checkpoint.index(), &Limits::vulkan(), &[]), shape);
        texts.extend(plan.kernels.values().map(|kernel| kernel.wgsl.clone().into_bytes()));
    }
    texts.sort();
    texts.dedup();
    texts
}

#[test]
fn no_valid_text_makes_lowering_panic() {
    let (valid, prepared) = (Cell::new(0), Cell::new(0));
    let seeds = kernels();
    fuzz("reference", &seeds, &|input| {
        let text = String::from_utf8_lossy(input).into_owned();
        // As of a plan file: what naga refuses is never prepared.
        let Ok(found) = reflect_text(&text) else { return };
        valid.set(valid.get() + 1);
        let job = Job { needs_subgroups: found.needs_subgroups, ..job(text) };
        if found.entry == "main" && reference(32).prepare(plan(&job)).is_ok() {
            prepared.set(prepared.get() + 1);
        }
    });
    println!("{} texts were valid, {} of them were prepared", valid.get(), prepared.get());
    assert!(prepared.get() >= seeds.len(), "the shipped kernels are prepared");
}
