//! Kernels for subgroups of eight lanes, interpreted.
//!
//! Gets random models of odd sizes and the reference executor with subgroups of eight lanes and of 32. What then holds:
//! the first takes kernels of its own, for whole prompts and single tokens, fused and not, which compute what those of
//! the second do; the sanitizer is silent about them; a sequence's numbers do not depend on its steps where that is
//! promised; and a device without such subgroups never gets one of these kernels. Needs no device.

mod support;

use std::collections::BTreeSet;

use graphc::base::dtype::DType;
use graphc::base::limits::Limits;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::compile::Compiler;
use graphc::exec::Executor;
use graphc::exec::reference::{ReferenceExecutor, ReferenceOptions, Sanitize};
use support::models::Shape;
use support::random_model;
use support::runner::{AnyExecutor, Program, Ran, decoder, run};

/// What only these kernels declare.
const SIGN: &str = "const OCTET: u32";

/// Logits and states of sums in another order.
const LIMIT: f32 = 1e-4;

fn executor(subgroup_size: u32) -> ReferenceExecutor {
    let sanitize = Some(Sanitize { not_finite: true });
    let options = ReferenceOptions { subgroup_size, sanitize, track: false, ..ReferenceOptions::new() };
    ReferenceExecutor::new(&options, None).expect("there is a CPU")
}

/// The ops of a step, without what was put into them, whose texts are of these.
fn octet_kernels(compiler: &Compiler<'_>, tokens: u32) -> BTreeSet<String> {
    let compiled = compiler.compile(StepShape { tokens, sequences: 1, rows: 1, capacity: 1 });
    let compiled = compiled.unwrap_or_else(|error| panic!("{error}"));
    let texts = compiled.plan.kernels.values().filter(|kernel| kernel.wgsl.contains(SIGN));
    texts.map(|kernel| kernel.label.split(['+', '.']).next().unwrap_or_default().to_owned()).collect()
}

/// Runs tokens in steps of these lengths; the sanitizer has nothing to say.
fn ran(program: &Program, checkpoint: &Checkpoint, subgroup_size: u32, pieces: &[usize], invariant: bool) -> Ran {
    let executor = executor(subgroup_size);
    let limits = executor.device().limits.clone();
    let compiler = Compiler { batch_invariant: invariant, ..program.compiler(checkpoint.index(), &limits, &[]) };
    let tokens: Vec<u32> = (0..19).map(|at| at * 53 % 63).collect();
    let sizes: BTreeSet<u32> = pieces.iter().map(|piece| *piece as u32).collect();
    let sizes: Vec<u32> = sizes.into_iter().collect();
    let ran =
        run(&mut decoder(&AnyExecutor::Reference(executor.clone()), compiler, checkpoint, &sizes), &tokens, pieces);
    assert_eq!(executor.findings(), (Vec::new(), 0), "{pieces:?}");
    ran
}

#[test]
fn they_compute_what_others_do() {
    // Columns in one part and in several, the last one short; rows that sixteen workgroups do not share out evenly.
    let cases = [
        (Shape::of_two_layers([1, 32], 40, 63, [8, 8, 8, 8]), DType::F32),
        (Shape::of_two_layers([3, 32], 264, 65, [8, 24, 16, 40]), DType::Bf16),
        (Shape::of_two_layers([3, 64], 3144, 1000, [64, 8, 32, 136]), DType::F16),
    ];
    for (shape, dtype) in cases {
        let checkpoint = random_model(&shape, dtype);
        for program in [Program::rwkv7(), Program::rwkv7().fused()] {
            for pieces in [&[1][..], &[9, 7, 3]] {
                let [octets, wide] = [8, 32].map(|size| ran(&program, &checkpoint, size, pieces, false));
                let distance = octets.distance(&wide);
                println!("{dtype} {pieces:?}: {distance:.2e}");
                assert!(distance < LIMIT, "{dtype} {pieces:?}: {distance:.2e}");
            }
        }
    }
}

#[test]
fn sums_do_not_depend_on_steps_where_that_is_promised() {
    let checkpoint = random_model(&Shape::of_two_layers([2, 32], 264, 65, [8, 24, 16, 40]), DType::F16);
    let [one, some, whole] =
        [&[1][..], &[7, 3, 1], &[19]].map(|pieces| ran(&Program::rwkv7(), &checkpoint, 8, pieces, true).bits());
    assert!(one == some && some == whole);
}

#[test]
fn they_are_for_devices_with_such_subgroups_alone() {
    let checkpoint = random_model(&Shape::of_two_layers([3, 64], 264, 65, [8, 24, 16, 40]), DType::F16);
    let octets =
        Limits { min_subgroup_size: 8, octets: true, max_storage_buffers_per_dispatch: 16, ..Limits::vulkan() };
    let wide = Limits { octets: false, ..octets.clone() };
    let program = Program::rwkv7().fused();
    let of = |limits, tokens| octet_kernels(&program.compiler(checkpoint.index(), limits, &[]), tokens);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let decoding = ["linear", "linear_keep", "mixed_linears", "norm_linear", "rwkv7_heads", "rwkv7_heads_first"];
    assert_eq!(of(&octets, 1), names(&decoding));
    assert_eq!(of(&octets, 16), names(&["linear", "wkv7"]));
    assert_eq!((of(&wide, 1), of(&wide, 16)), (names(&[]), names(&[])));
    let compiler = program.compiler(checkpoint.index(), &octets, &[]);
    let plan = compiler.compile(StepShape { tokens: 1, sequences: 1, rows: 1, capacity: 1 }).expect("compiled").plan;
    assert!(wide.missing_for(&plan.limits).iter().any(|what| what.contains("`octets`")));
    assert!(octets.missing_for(&plan.limits).is_empty());
}
