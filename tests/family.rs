//! Every generation gives the right numbers: RWKV-4, 5.0, 5.1, 5.2 and 6, each found by its tensors.
//!
//! Gets stored reference values and, for generations and shapes that have none, the float64 forward of
//! `support::elders`. What then holds: logits, final states and every step of two blocks are met within what f32
//! arithmetic costs, however a sequence is cut and whatever runs beside it, and both executors agree to the last bit.
//! `agree` does the same for RWKV-7, on more devices. Never judges speed.

mod support;

use std::path::PathBuf;

use graphc::base::dtype::DType;
use graphc::exec::Executor;
use graphc::generate::Rows;
use graphc::generate::batch::Feed;
use graphc::tensor::Tensor;
use support::elders::Elder;
use support::models::{Format, Shape, Version, write_version};
use support::runner::{AnyExecutor, KINDS, Kind, Program, Ran, batch, decoder, run};
use support::{TempDir, assert_step, max_difference, named_cases, open, reference, skip, trace_tensors, values};

const DEVICE: &str = "llvmpipe";

/// Steps and states, relative to a tensor's largest element: the rounding of some hundred f32 additions.
const STEP_LIMIT: f64 = 1e-4;

/// A file of a reference model and what it is held to.
struct Reference {
    graph: &'static str,
    model: &'static str,
    file: &'static str,
    /// Which of the stored cases, and which of their logits.
    cases: &'static str,
    logits: &'static str,
    settings: &'static [(&'static str, f64)],
    /// What f32 arithmetic in another implementation is off by, at the longest case.
    rounding: f64,
}

const fn stored(graph: &'static str, model: &'static str, rounding: f64) -> Reference {
    let (file, cases, logits) = ("model.safetensors", "cases", "logits");
    Reference { graph, model, file, cases, logits, settings: &[], rounding }
}

const fn halves(reference: Reference) -> Reference {
    Reference { file: "model_f16.safetensors", logits: "logits_f16w", ..reference }
}

const SYNTH: [Reference; 3] =
    [stored("rwkv4", "synth-v4", 2.2e-6), stored("rwkv5.2", "synth-v5.2", 1.1e-5), stored("rwkv6", "synth-v6", 3.8e-6)];
const TRAINED: [Reference; 6] = [
    stored("rwkv4", "4v0", 2.7e-6),
    halves(stored("rwkv4", "4v0", 2.7e-6)),
    stored("rwkv5.2", "5v2", 5.7e-6),
    halves(stored("rwkv5.2", "5v2", 5.7e-6)),
    Reference { cases: "cases_gn1e-5", settings: &[("gn_eps", 1e-5)], ..stored("rwkv5.2", "5v2", 5.1e-6) },
    stored("rwkv6", "6v0", 4.5e-6),
];

/// Orders of summation differ: the numbers of the table times four, and never less than a few units of the last place.
fn limit(reference: &Reference) -> f64 {
    (4.0 * reference.rounding).max(2e-6)
}

fn folder(model: &str) -> Option<PathBuf> {
    let dir = reference(model);
    if dir.is_none() {
        skip(&format!("no reference model `{model}`; `GRAPHC_REFERENCE_DIR` names the folder it is in"));
    }
    dir
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

#[test]
fn stored_models_of_this_repository() {
    SYNTH.iter().for_each(check_reference);
}

#[test]
fn trained_models() {
    TRAINED.iter().for_each(check_reference);
}

/// All at once, cut at odd places, and token by token: the last one for sequences of this many tokens at the most.
const FEEDS: [&[usize]; 3] = [&[usize::MAX], &[1, 7, 16, 5, 41, 2], &[1]];
const ONE_BY_ONE: usize = 41;

/// Every case, fed in every way, meets the reference in logits and states on all executors, alike in those that run on
/// one device.
fn check_reference(held: &Reference) {
    let Some(dir) = folder(held.model) else { return };
    let (program, checkpoint) = (Program::built_in(held.graph, held.settings), open(&dir.join(held.file)));
    let expected = open(&dir.join(format!("{}.safetensors", held.cases)));
    let what = format!("{}/{} {}", held.model, held.file, held.cases);
    let mut bits = Vec::new();
    for kind in [Kind::Wgpu, Kind::Hal, Kind::Reference] {
        let device = if kind == Kind::Reference { "" } else { DEVICE };
        let Some(executor) = AnyExecutor::find(kind, device) else { return };
        let limits = executor.device().limits.clone();
        let mut decoder = decoder(&executor, program.compiler(checkpoint.index(), &limits, &[]), &checkpoint, &[1, 41]);
        let (mut worst, mut found) = (0.0f64, Vec::new());
        for case in named_cases(&dir, held.cases) {
            let rows = values(&expected, &format!("{}.{}", case.id, held.logits));
            let feeds = if case.tokens.len() <= ONE_BY_ONE { &FEEDS[..] } else { &FEEDS[..2] };
            let rans: Vec<Ran> = feeds.iter().map(|feed| run(&mut decoder, &case.tokens, feed)).collect();
            for (ran, feed) in rans.iter().zip(feeds) {
                let distance = max_difference(&widened(&ran.logits.concat()), &rows);
                let most = limit(held);
                worst = worst.max(distance);
                assert!(distance <= most, "{what}, {}, fed {feed:?}: off by {distance:.2e} > {most:.1e}", case.id);
                assert!(ran.bits() == rans[0].bits(), "{what}, {}: how it is cut matters", case.id);
            }
            // The stored states are those of the file as it is.
            for (label, state) in rans[0].states.iter().filter(|_| held.logits == "logits") {
                let (name, layer) = label.split_once('.').expect("a name and a layer");
                let stored = values(&expected, &format!("{}.state.{layer}.{name}", case.id));
                assert_step(&format!("{what}, {}: state {label}", case.id), &widened(state), &stored, STEP_LIMIT);
            }
            found.push(rans[0].bits());
        }
        println!("{what}, {kind:?}: logits within {worst:.2e} of {:.1e}", limit(held));
        bits.push(found);
    }
    assert!(bits[0] == bits[1], "{what}: the executors differ");
}

#[test]
fn every_step_of_two_blocks() {
    for held in SYNTH.iter().chain(&TRAINED).filter(|held| held.logits == "logits" && held.settings.is_empty()) {
        check_trace(held);
    }
}

/// The value's path in the graph; nothing for states, and for the logits, which are an output anyway.
fn path_of(step: &str) -> Option<String> {
    match step.split_once('.') {
        None => (step != "logits").then(|| step.to_owned()),
        Some(("before" | "after", _)) => None,
        Some((layer, name)) => Some(format!("layer{layer}.{name}")),
    }
}

/// Every tensor of the trace, which is that of the last token of case `c0`, is met.
fn check_trace(held: &Reference) {
    let Some(dir) = folder(held.model) else { return };
    let (program, checkpoint) = (Program::built_in(held.graph, &[]), open(&dir.join(held.file)));
    let (trace, case) = (trace_tensors(&dir), named_cases(&dir, "cases").swap_remove(0));
    let names: Vec<String> = trace.index().names().map(str::to_owned).collect();
    let keep: Vec<String> = names.iter().filter_map(|name| path_of(name)).collect();
    let (last, before) = case.tokens.split_last().expect("tokens");
    let Some(executor) = AnyExecutor::find(Kind::Hal, DEVICE) else { return };
    let limits = executor.device().limits.clone();
    let mut decoder = decoder(&executor, program.compiler(checkpoint.index(), &limits, &keep), &checkpoint, &[1]);
    let states_before = run(&mut decoder, before, &[1]).states;
    let (logits, outputs) = decoder.run(&[*last], Rows::All).unwrap_or_else(|error| panic!("{error}"));
    let states_after = decoder.session().states();
    let state = |states: &[(String, Vec<f32>)], place: &str| {
        let (layer, name) = place.split_once('.').expect("a layer and a name");
        let label = format!("{name}.{layer}");
        states.iter().find(|(other, _)| *other == label).map(|(_, values)| values.clone())
    };
    for name in &names {
        let found = match name.split_once('.') {
            Some(("before", place)) => state(&states_before, place),
            Some(("after", place)) => state(&states_after, place),
            _ if name == "logits" => Some(logits[0].clone()),
            _ => path_of(name).and_then(|path| outputs.named(&path).map(Tensor::to_f32)),
        };
        let found = found.unwrap_or_else(|| panic!("{}: `{name}` is nowhere", held.model));
        assert_step(&format!("{}: {name}", held.model), &widened(&found), &values(&trace, name), STEP_LIMIT);
    }
    // At the least both blocks' inputs, norms, mixes, projections and outputs, and their states.
    assert!(names.len() > 2 * 18 + 4 * 3, "{}: {} tensors", held.model, names.len());
}

/// The float64 forward, which what follows rests on, is that of the reference.
#[test]
fn the_forward_in_float64_meets_the_stored_values() {
    for (held, version) in SYNTH.iter().zip([Version::V4, Version::V5_2, Version::V6]) {
        let dir = folder(held.model).expect("committed");
        let elder = Elder::load(&open(&dir.join(held.file)), version, &Format::converted(DType::F16));
        let case = named_cases(&dir, "cases").swap_remove(2);
        let (mut state, expected) = (elder.new_state(), open(&dir.join("cases.safetensors")));
        let rows = elder.run(&mut state, &case.tokens).concat();
        let distance = max_difference(&rows, &values(&expected, &format!("{}.logits", case.id)));
        // The stored values are rounded to f32.
        assert!(distance < 2e-6, "{}: off by {distance:.2e}", held.model);
    }
}

/// A random model: its version, its shape and how it is stored.
struct Odd {
    name: &'static str,
    version: Version,
    shape: Shape,
    format: Format,
}

/// Shapes for which kernels take another path than for the sizes of published models, in all formats.
fn odd_shapes() -> Vec<Odd> {
    const fn shape(layers: usize, [heads, head_size]: [usize; 2], ffn: usize, vocab: usize) -> Shape {
        // The ranks of decay and shift are those that RWKV-6 has.
        Shape { layers, heads, head_size, ffn, vocab, rank_w: 24, rank_a: 8, rank_v: 1, rank_g: 1 }
    }
    let (f16, f32, bf16) = (DType::F16, DType::F32, DType::Bf16);
    let squeezed = |format| Format { squeeze: true, ..format };
    let three = shape(1, [3, 64], 448, 1003);
    let eight = shape(2, [3, 8], 40, 50);
    let wide = shape(1, [2, 128], 96, 99);
    let ten = Shape { rank_w: 7, rank_a: 3, ..shape(2, [3, 10], 50, 77) };
    let one = Shape { rank_w: 40, rank_a: 24, ..shape(1, [1, 32], 129, 61) };
    let odd = |version, shape, format| Odd { name: named(version), version, shape, format };
    let (converted, raw) = (Format::converted, Format::raw);
    vec![
        odd(Version::V4, three, converted(f16)),
        odd(Version::V4, ten, squeezed(raw(bf16))),
        odd(Version::V5_0, three, converted(f16)),
        odd(Version::V5_0, eight, squeezed(raw(f32))),
        odd(Version::V5_1, three, raw(bf16)),
        odd(Version::V5_1, ten, squeezed(converted(f16))),
        odd(Version::V5_2, eight, raw(bf16)),
        odd(Version::V5_2, wide, converted(f16)),
        odd(Version::V5_2, one, squeezed(raw(f16))),
        odd(Version::V6, three, raw(bf16)),
        odd(Version::V6, eight, converted(f16)),
        odd(Version::V6, ten, converted(f32)),
        odd(Version::V6, one, raw(f32)),
    ]
}

fn named(version: Version) -> &'static str {
    Version::ALL.into_iter().find(|(_, other)| *other == version).expect("all are there").0
}

/// Arithmetic in f32, as in the models above.
const ODD_LIMIT: f64 = 4.4e-5;

#[test]
fn odd_models() {
    for odd in odd_shapes() {
        check_odd(&odd);
    }
}

/// A random model meets the float64 forward in logits and states, alone and beside others, in both executors alike.
fn check_odd(odd: &Odd) {
    let dir = TempDir::new();
    let path = dir.file("model.safetensors");
    write_version(&path, odd.version, &odd.shape, 5, &odd.format).expect("written");
    let checkpoint = open(&path);
    let elder = Elder::load(&checkpoint, odd.version, &odd.format);
    let tokens = |seed: u32, count: u32| -> Vec<u32> {
        (0..count).map(|at| (at * at * 7 + at * seed + seed) % odd.shape.vocab as u32).collect()
    };
    let sequences = [tokens(3, 40), tokens(5, 9), tokens(2, 1), tokens(7, 23)];
    let program = Program::built_in(odd.name, &[]);
    let what = format!("{} of {} heads of {}, {:?}", odd.name, odd.shape.heads, odd.shape.head_size, odd.format);
    let mut bits = Vec::new();
    for kind in KINDS {
        let Some(executor) = AnyExecutor::find(kind, DEVICE) else { return };
        let limits = executor.device().limits.clone();
        let compiler = program.compiler(checkpoint.index(), &limits, &[]);
        // Whole steps, padded ones and single tokens.
        let ran = run(&mut decoder(&executor, compiler, &checkpoint, &[1, 16]), &sequences[0], &[17, 3, 1]);
        let mut state = elder.new_state();
        let expected: Vec<f32> = elder.run(&mut state, &sequences[0]).concat().iter().map(|x| *x as f32).collect();
        let distance = max_difference(&widened(&ran.logits.concat()), &expected);
        println!("{what}, {kind:?}: logits within {distance:.2e}");
        assert!(distance <= ODD_LIMIT, "{what}, {kind:?}: logits are off by {distance:.2e}");
        for (label, found) in &ran.states {
            let (name, layer) = label.split_once('.').expect("a name and a layer");
            let expected: Vec<f32> =
                state[layer.parse::<usize>().expect("a number")][name].iter().map(|x| *x as f32).collect();
            assert_step(&format!("{what}: state {label}"), &widened(found), &expected, STEP_LIMIT);
        }
        bits.push(ran.bits());
        if kind == Kind::Hal {
            let mut batch = batch(&executor, compiler, &checkpoint, (4, &[1, 16]));
            let ids = sequences.each_ref().map(|_| batch.join().expect("a row is free"));
            let feeds: Vec<Feed<'_>> =
                ids.into_iter().zip(&sequences).map(|(sequence, tokens)| Feed { sequence, tokens }).collect();
            let (rows, _) = batch.run(&feeds, Rows::All).unwrap_or_else(|error| panic!("{error}"));
            let beside: Vec<u32> = rows[0].iter().flatten().map(|logit| logit.to_bits()).collect();
            assert!(ran.bits().starts_with(&beside), "{what}: what runs beside it matters");
        }
    }
    assert!(bits[0] == bits[1], "{what}: the executors differ");
}
