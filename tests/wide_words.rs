//! Halves read as words of 64 bits.
//!
//! Gets random models of odd sizes, and devices that read such words: the reference executor with subgroups of eight
//! lanes, and llvmpipe. What then holds: their plans read weights so and say it, a device without such words refuses
//! them, and every number is the one that words of 32 bits give, to the last bit, fused and not, in steps of one token
//! and of several, from joined, packed and divided weights. Other weights, and what is written, are read as before.

mod support;

use graphc::base::dtype::DType;
use graphc::base::limits::Limits;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::compile::{Compiler, open_plan};
use graphc::exec::reference::{ReferenceExecutor, ReferenceOptions};
use graphc::exec::{Executor, Weights};
use graphc::plan::CheckedPlan;
use graphc::plan::file::to_text;
use support::models::Shape;
use support::random_model;
use support::runner::{AnyExecutor, Kind, Program, Ran, decoder, run};

/// What the reference executor and a device may differ by, in logits and states.
const LIMIT: f32 = 1e-4;

fn by_octets() -> AnyExecutor {
    let options = ReferenceOptions { subgroup_size: 8, ..ReferenceOptions::new() };
    AnyExecutor::Reference(ReferenceExecutor::new(&options, None).expect("there is a CPU"))
}

fn plan(compiler: &Compiler<'_>, tokens: u32) -> CheckedPlan {
    let compiled = compiler.compile(StepShape { tokens, sequences: 1, rows: 1, capacity: 1 });
    compiled.unwrap_or_else(|error| panic!("{error}")).plan
}

/// Of the kernels of a step, those that read words of 64 bits.
fn wide(compiler: &Compiler<'_>, tokens: u32) -> usize {
    plan(compiler, tokens).kernels.values().filter(|kernel| kernel.needs_wide_words).count()
}

/// Nine tokens in steps of these lengths, with words of 64 bits and without, compiled for these limits.
fn both(
    executor: &AnyExecutor,
    program: &Program,
    checkpoint: &Checkpoint,
    pieces: &[usize],
    limits: &Limits,
) -> [Ran; 2] {
    let tokens: Vec<u32> = (0..9).map(|at| at * 53 % 63).collect();
    let mut sizes: Vec<u32> = pieces.iter().map(|piece| *piece as u32).collect();
    sizes.sort_unstable();
    sizes.dedup();
    [true, false].map(|wide_words| {
        let limits = Limits { wide_words, ..limits.clone() };
        let compiler = program.compiler(checkpoint.index(), &limits, &[]);
        assert_eq!(wide(&compiler, 1) > 0, wide_words);
        run(&mut decoder(executor, compiler, checkpoint, &sizes), &tokens, pieces)
    })
}

/// Rows of one eight, of three, of five and of many.
fn cases() -> [(Shape, DType); 2] {
    [
        (Shape::of_two_layers([3, 32], 264, 65, [8, 24, 16, 40]), DType::Bf16),
        (Shape::of_two_layers([3, 64], 264, 200, [64, 8, 32, 136]), DType::F16),
    ]
}

#[test]
fn numbers_are_those_of_words_of_32_bits() {
    let mut executors = vec![("the reference".to_owned(), by_octets())];
    for kind in [Kind::Hal, Kind::Wgpu] {
        let found = AnyExecutor::find(kind, "llvmpipe").filter(|executor| executor.device().limits.wide_words);
        executors.extend(found.map(|executor| (format!("{kind:?}"), executor)));
    }
    for (shape, dtype) in cases() {
        let checkpoint = random_model(&shape, dtype);
        // The driver takes seconds to compile a step of several tokens.
        for (program, pieces) in [(Program::rwkv7().fused(), &[1][..]), (Program::rwkv7(), &[3])] {
            let mut first: Option<Ran> = None;
            for (name, executor) in &executors {
                let limits = executor.device().limits.clone();
                let [ran, narrow] = both(executor, &program, &checkpoint, pieces, &limits);
                let far = ran.distance(&narrow);
                assert!(ran.bits() == narrow.bits(), "{dtype} {pieces:?} on {name}: off by {far:.2e}");
                let far = first.get_or_insert_with(|| ran.clone()).distance(&ran);
                assert!(far < LIMIT, "{dtype} {pieces:?} on {name}: {far:.2e} from the reference");
            }
        }
    }
}

#[test]
fn a_matrix_bound_in_parts_gives_the_same_bits() {
    let checkpoint = random_model(&Shape::of_two_layers([2, 32], 3000, 3000, [8, 8, 8, 8]), DType::F16);
    let executor = by_octets();
    let limits = Limits { max_storage_buffer_binding_bytes: 128 << 10, ..executor.device().limits.clone() };
    let of_one = program_plan(&limits, &checkpoint);
    let is_divided =
        |text: &str| text.matches("return graphc_split(graphc_data").count() > 1 && text.contains("if i < ");
    assert!(of_one.kernels.values().any(|kernel| is_divided(&kernel.wgsl)));
    let [wide, narrow] = both(&executor, &Program::rwkv7(), &checkpoint, &[1, 7], &limits);
    assert!(wide.bits() == narrow.bits(), "off by {:.2e}", wide.distance(&narrow));
}

fn program_plan(limits: &Limits, checkpoint: &Checkpoint) -> CheckedPlan {
    plan(&Program::rwkv7().compiler(checkpoint.index(), limits, &[]), 1)
}

#[test]
fn plans_say_so_and_are_refused_without() {
    let [_, (shape, dtype)] = cases();
    let checkpoint = random_model(&shape, dtype);
    let executor = by_octets();
    let offered = executor.device().limits.clone();
    let plain = Limits { wide_words: false, ..offered.clone() };
    let [plan, narrow] = [&offered, &plain].map(|limits| program_plan(limits, &checkpoint));
    assert!(plan.limits.wide_words && !narrow.limits.wide_words);
    assert_eq!(plain.missing_for(&plan.limits), ["`wide_words`: 1 needed, 0 offered"]);
    assert!(offered.missing_for(&plan.limits).is_empty() && plain.missing_for(&narrow.limits).is_empty());

    // Commands, memory and states are the same.
    assert_eq!((&plan.levels, &plan.buffers, &plan.state), (&narrow.levels, &narrow.buffers, &narrow.state));
    assert!(narrow.kernels.values().all(|kernel| !kernel.wgsl.contains("u64")));

    // The plan cannot be silent about them.
    let fingerprint = checkpoint.fingerprint();
    let text = to_text(&plan, &fingerprint);
    assert!(open_plan(&text, &fingerprint).is_ok());
    let silent = text.replacen("needs_wide_words: true", "needs_wide_words: false", 1);
    let error = open_plan(&silent, &fingerprint).expect_err("refused").to_string();
    assert!(error.ends_with("the plan says words of 64 bits false, the text has true"), "{error}");

    // An executor that reads none.
    let other = ReferenceExecutor::new(&ReferenceOptions::new(), None).expect("there is a CPU");
    let weights = Weights { layout: &plan.weights, checkpoint: &checkpoint };
    let mut session = other.open(&weights, &plan.state, &mut |_, _| ()).expect("opened");
    let error = graphc::exec::Session::prepare(&mut session, plan).expect_err("refused").to_string();
    assert!(error.contains("`wide_words`: 1 needed, 0 offered"), "{error}");
}

#[test]
fn floats_and_devices_without_such_subgroups_have_none() {
    let [_, (shape, _)] = cases();
    let floats = random_model(&shape, DType::F32);
    let offered = by_octets().device().limits.clone();
    assert!(!program_plan(&offered, &floats).limits.wide_words);
    let wide_lanes = ReferenceExecutor::new(&ReferenceOptions::new(), None).expect("there is a CPU");
    assert!(!wide_lanes.device().limits.wide_words && !Limits::vulkan().wide_words && !Limits::webgpu().wide_words);
}
