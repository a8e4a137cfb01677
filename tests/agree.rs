//! Compiled models give the right numbers on real drivers, through both executors that take one, and on the CPU.
//!
//! Gets reference values from another implementation and, for shapes that no stored model has, from the float64 forward
//! of `support::oracle`. What then holds: every stored logit, state and intermediate step is met within the limits
//! below, however a sequence is cut into steps, and the two executors on one device agree to the last bit. Never judges
//! speed.
//!
//! Devices are asked for by name, one test each; where one is missing its test says so and counts as skipped.

mod support;

use std::path::{Path, PathBuf};

use graphc::base::dtype::DType;
use graphc::base::limits::Limits;
use graphc::checkpoint::Checkpoint;
use graphc::exec::Executor;
use graphc::generate::Rows;
use graphc::plan::CheckedPlan;
use graphc::plan::command::{BufferKind, Command, Dispatch};
use graphc::sources;
use graphc::tensor::Tensor;
use support::models::{Format, Shape, write_model};
use support::oracle::{Rwkv7, State};
use support::runner::{AnyExecutor, DEVICES, KINDS, Kind, Program, Ran, all_rows, compile, decoder, everywhere, run};
use support::{
    TempDir, assert_step, case_tensors, cases, max_difference, open, reference, skip, trace_tensors, values,
};

/// Logits of `7v0`: it is so close to its initialisation that leaving out a whole term moves them by 2e-4 at the least;
/// f32 arithmetic alone moves them by 2e-7.
const TRAINED_LIMIT: f64 = 1e-4;
/// Logits of models in which every term weighs: leaving one out moves them by 0.8 at the least, f32 arithmetic by 1e-5.
/// Weights are as in the file and activations f32, so nothing else is rounded.
const LIMIT: f64 = 1e-3;
/// States and steps, relative to a tensor's largest element: the rounding of some hundred f32 additions.
const STEP_LIMIT: f64 = 1e-4;

/// Sizes of steps: one, odd ones that are no multiple of anything a kernel tiles by, and one that holds most of a case.
const SIZES: [u32; 4] = [1, 7, 41, 128];
/// Ways to feed a sequence: all at once, token by token, and cut at odd places, where most steps are padded.
const FEEDS: [&[usize]; 3] = [&[usize::MAX], &[1], &[1, 7, 16, 5, 41, 2]];

/// The CPU is slow, and kernels for a few tokens were met with the small model.
const CPU_FEEDS: &[&[usize]] = &[FEEDS[0]];

/// A file of a reference model and what it is held to.
struct Reference {
    model: &'static str,
    file: &'static str,
    /// Which of the stored logits are this file's.
    logits: &'static str,
    limit: f64,
    /// That of the logits on the CPU, where every operation rounds once: four times what numpy reaches in f32, or 2e-6.
    /// Of the random model, whose second case begins with two sums that cancel to a hundredth and a group norm that
    /// divides by next to nothing each, that is 1.7e-4 (numpy: 4.3e-5 there, 6.7e-6 in the longest case); 1e-4 is less.
    cpu_limit: f64,
    feeds: &'static [&'static [usize]],
    /// Whether the stored states are this file's: they are the f32 file's.
    has_states: bool,
}

const SYNTH: Reference = Reference {
    model: "synth-v7",
    file: "model.safetensors",
    logits: "logits",
    limit: LIMIT,
    cpu_limit: 1e-4,
    feeds: &FEEDS,
    has_states: true,
};
const TRAINED: Reference = Reference { model: "7v0", limit: TRAINED_LIMIT, cpu_limit: 2e-6, ..SYNTH };
/// The odd cuts contain single tokens too: 130 more of them would take long and find nothing else.
const TRAINED_F16: Reference = Reference {
    file: "model_f16.safetensors",
    logits: "logits_f16w",
    feeds: &[FEEDS[0], FEEDS[2]],
    has_states: false,
    ..TRAINED
};

#[test]
fn synth_v7_on_llvmpipe() {
    check_reference(&SYNTH, DEVICES[0]);
}

#[test]
fn synth_v7_on_swiftshader() {
    check_reference(&SYNTH, DEVICES[1]);
}

#[test]
fn trained_on_llvmpipe() {
    check_reference(&TRAINED, DEVICES[0]);
}

#[test]
fn trained_on_swiftshader() {
    check_reference(&TRAINED, DEVICES[1]);
}

#[test]
fn trained_f16_on_llvmpipe() {
    check_reference(&TRAINED_F16, DEVICES[0]);
}

#[test]
fn trained_f16_on_swiftshader() {
    check_reference(&TRAINED_F16, DEVICES[1]);
}

#[test]
fn synth_v7_on_the_cpu() {
    check_reference_on(&SYNTH, Kind::Reference, "the CPU");
}

#[test]
fn trained_on_the_cpu() {
    check_reference_on(&Reference { feeds: CPU_FEEDS, ..TRAINED }, Kind::Reference, "the CPU");
}

#[test]
fn trained_f16_on_the_cpu() {
    check_reference_on(&Reference { feeds: CPU_FEEDS, ..TRAINED_F16 }, Kind::Reference, "the CPU");
}

/// The folder of a reference model, or a word about its absence.
fn folder(model: &str) -> Option<PathBuf> {
    let dir = reference(model);
    if dir.is_none() {
        skip(&format!("no reference model `{model}`; `GRAPHC_REFERENCE_DIR` names the folder it is in"));
    }
    dir
}

/// Every case of a model, fed in every way, meets the reference in logits and states, in both executors alike.
fn check_reference(held: &Reference, device: &str) {
    let [Some(one), Some(other)] = KINDS.map(|kind| check_reference_on(held, kind, device)) else { return };
    assert!(one == other, "{}/{} on {device}: the executors differ", held.model, held.file);
}

/// Every case on one executor; returns the bits of each.
fn check_reference_on(held: &Reference, kind: Kind, device: &str) -> Option<Vec<Vec<u32>>> {
    let &Reference { model, file, logits, feeds, has_states, .. } = held;
    let limit = if kind == Kind::Reference { held.cpu_limit } else { held.limit };
    let dir = folder(model)?;
    let (program, checkpoint, expected) = (Program::rwkv7(), open(&dir.join(file)), case_tensors(&dir));
    let executor = AnyExecutor::find(kind, device)?;
    let limits = executor.device().limits.clone();
    let compiler = program.compiler(checkpoint.index(), &limits, &[]);
    let mut decoder = decoder(&executor, compiler, &checkpoint, &SIZES);
    // The largest plan first: the others share its memory.
    decoder.prepare(*SIZES.last().expect("sizes") as usize, Rows::All).expect("prepared");
    let (mut worst, mut found) = (0.0f64, Vec::new());
    for case in cases(&dir) {
        let rows = values(&expected, &format!("{}.{logits}", case.id));
        for feed in feeds {
            let ran = run(&mut decoder, &case.tokens, feed);
            let what = format!("{model}/{file}, {}, fed {feed:?}, {kind:?} on {device}", case.id);
            let distance = max_difference(&widened(&ran.logits.concat()), &rows);
            assert!(distance <= limit, "{what}: logits are off by {distance:.2e}, more than {limit:.1e}");
            worst = worst.max(distance);
            if has_states {
                check_states(&what, &ran, |layer, name| {
                    values(&expected, &format!("{}.state.{layer}.{name}", case.id))
                });
            }
            found.push(ran.bits());
        }
        // A step's size, and what pads it, changes neither the order of a sum nor anything else of a token.
        let [first, others @ ..] = &found[found.len() - feeds.len()..] else { unreachable!("there are feeds") };
        let same = others.iter().all(|other| other == first);
        assert!(same, "{model}/{file}, {}, {kind:?} on {device}: how it is cut matters", case.id);
    }
    println!("{model}/{file} on {device}, {kind:?}: logits within {worst:.2e}");
    Some(found)
}

/// Compares the states after the last token with those that `expected` has for a layer and a name.
fn check_states(what: &str, ran: &Ran, expected: impl Fn(&str, &str) -> Vec<f32>) {
    for (label, found) in &ran.states {
        let (name, layer) = label.split_once('.').expect("a state's label is its name and layer");
        assert_step(&format!("{what}: state {label}"), &widened(found), &expected(layer, name), STEP_LIMIT);
    }
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

#[test]
fn every_step_of_synth_v7() {
    let dir = folder("synth-v7").expect("committed");
    everywhere().for_each(|(device, kind)| check_trace(&dir, kind, device));
}

#[test]
fn every_step_of_the_trained_model() {
    let Some(dir) = folder("7v0") else { return };
    everywhere().for_each(|(device, kind)| check_trace(&dir, kind, device));
}

/// The step's path in the graph; nothing for the states, which are no steps, and the logits, which are an output
/// anyway.
fn path_of(step: &str) -> Option<String> {
    match step.split_once('.') {
        None if step == "logits" => None,
        None => Some(step.to_owned()),
        Some(("before" | "after", _)) => None,
        Some((layer, name)) => Some(format!("layer{layer}.{name}")),
    }
}

/// Steps of block 0 and of block 1, which has `v_mix` besides; three states of each, before and after; `emb` and
/// `logits`.
const TRACE_TENSORS: usize = 30 + 31 + 2 * 3 * 2 + 2;

/// Every tensor of the trace, which is that of the last token of case `c0`, is met.
fn check_trace(dir: &Path, kind: Kind, device: &str) {
    let (program, checkpoint) = (Program::rwkv7(), open(&dir.join("model.safetensors")));
    let (trace, case) = (trace_tensors(dir), cases(dir).swap_remove(0));
    let names: Vec<String> = trace.index().names().map(str::to_owned).collect();
    let keep: Vec<String> = names.iter().filter_map(|name| path_of(name)).collect();
    let (last, before) = case.tokens.split_last().expect("tokens");
    let Some(executor) = AnyExecutor::find(kind, device) else { return };
    let limits = executor.device().limits.clone();
    let mut decoder = decoder(&executor, program.compiler(checkpoint.index(), &limits, &keep), &checkpoint, &[1]);
    let states_before = run(&mut decoder, before, &[1]).states;
    let (logits, outputs) = decoder.run(&[*last], Rows::All).unwrap_or_else(|error| panic!("{error}"));
    let states_after = decoder.session().states();
    let found = |name: &str| -> Vec<f32> {
        let state = |states: &[(String, Vec<f32>)], place: &str| {
            let (layer, name) = place.split_once('.').expect("a layer and a name");
            let label = format!("{name}.{layer}");
            states.iter().find(|(other, _)| *other == label).map(|(_, values)| values.clone())
        };
        let found = match name.split_once('.') {
            Some(("before", place)) => state(&states_before, place),
            Some(("after", place)) => state(&states_after, place),
            _ if name == "logits" => Some(logits[0].clone()),
            _ => path_of(name).and_then(|path| outputs.named(&path).map(Tensor::to_f32)),
        };
        found.unwrap_or_else(|| panic!("`{name}` is nowhere"))
    };
    for name in &names {
        let what = format!("{}: {name}, {kind:?} on {device}", dir.display());
        assert_step(&what, &widened(&found(name)), &values(&trace, name), STEP_LIMIT);
    }
    assert_eq!(names.len(), TRACE_TENSORS, "every tensor of the trace is compared");
}

/// Software drivers have subgroups; the kernels for devices without any are met only if the limits deny them.
#[test]
fn without_subgroups() {
    let dir = folder("synth-v7").expect("committed");
    let (program, checkpoint) = (Program::rwkv7(), open(&dir.join("model.safetensors")));
    let (case, expected) = (cases(&dir).swap_remove(2), values(&case_tensors(&dir), "c2.logits"));
    assert_eq!(case.id, "c2");
    for (device, kind) in everywhere() {
        let Some(executor) = AnyExecutor::find(kind, device) else { continue };
        let limits = Limits { subgroups: false, min_subgroup_size: 1, ..executor.device().limits.clone() };
        let compiler = program.compiler(checkpoint.index(), &limits, &[]);
        assert!(compile(&compiler, all_rows(7)).kernels.values().all(|kernel| !kernel.needs_subgroups));
        let ran = run(&mut decoder(&executor, compiler, &checkpoint, &[1, 7, 41]), &case.tokens, FEEDS[2]);
        let distance = max_difference(&widened(&ran.logits.concat()), &expected);
        println!("without subgroups, {kind:?} on {device}: logits within {distance:.2e}");
        assert!(distance <= LIMIT, "{kind:?} on {device}: logits are off by {distance:.2e}");
    }
}

#[test]
fn padding_changes_nothing() {
    let checkpoint = open(&folder("synth-v7").expect("committed").join("model.safetensors"));
    let program = Program::rwkv7();
    let tokens = [5, 300, 0, 17, 5, 321, 9];
    for (device, kind) in everywhere() {
        let Some(executor) = AnyExecutor::find(kind, device) else { continue };
        let limits = executor.device().limits.clone();
        let compiler = program.compiler(checkpoint.index(), &limits, &[]);
        // Seven tokens exactly, and padded by one, nine and 121 more; one row of logits, as when a prompt is read.
        let [exact, padded @ ..] = [7, 8, 16, 128].map(|size| {
            let mut decoder = decoder(&executor, compiler, &checkpoint, &[size]);
            let (logits, _) = decoder.run(&tokens, Rows::Last).unwrap_or_else(|error| panic!("{error}"));
            Ran { logits, states: decoder.session().states() }
        });
        for other in padded {
            let distance = other.distance(&exact);
            assert!(other.bits() == exact.bits(), "{kind:?} on {device}: padding moves a number by {distance:.2e}");
        }
    }
}

/// What a model is called and how it is made.
struct Odd {
    name: &'static str,
    shape: Shape,
    format: Format,
}

/// Shapes for which kernels take another path than for the sizes of published models.
fn odd_models() -> Vec<Odd> {
    const fn shape(
        layers: usize,
        [heads, head_size]: [usize; 2],
        ffn: usize,
        vocab: usize,
        ranks: [usize; 4],
    ) -> Shape {
        let [rank_w, rank_a, rank_v, rank_g] = ranks;
        Shape { layers, heads, head_size, ffn, vocab, rank_w, rank_a, rank_v, rank_g }
    }
    let converted = Format::converted;
    let odd = |name, shape, format| Odd { name, shape, format };
    let by_eights = shape(2, [3, 64], 768, 1000, [8, 24, 40, 16]);
    // One more and one less than a workgroup of 64 channels, nothing a multiple of four.
    let more = shape(2, [1, 65], 129, 67, [1, 7, 10, 33]);
    let less = shape(2, [1, 63], 127, 61, [10, 1, 7, 31]);
    vec![
        odd("three heads, f16", by_eights, converted(DType::F16)),
        odd("three heads, f32, raw", by_eights, Format::raw(DType::F32)),
        odd("three heads, bf16, raw", by_eights, Format { squeeze: true, ..Format::raw(DType::Bf16) }),
        odd("heads of 32, one layer", shape(1, [2, 32], 96, 99, [8, 12, 4, 20]), converted(DType::F32)),
        odd("heads of 16, bf16", shape(2, [5, 16], 200, 99, [8, 12, 4, 20]), converted(DType::Bf16)),
        odd("heads of 8", shape(2, [3, 8], 40, 50, [3, 4, 5, 6]), converted(DType::F16)),
        odd("a head of 8", shape(2, [1, 8], 8, 9, [1, 2, 3, 4]), converted(DType::F32)),
        odd("heads of 10", shape(2, [3, 10], 50, 77, [1, 7, 10, 3]), converted(DType::F16)),
        odd("a head of 65, f32", more, converted(DType::F32)),
        odd("a head of 65, f16", more, converted(DType::F16)),
        odd("a head of 63, bf16, raw", less, Format::raw(DType::Bf16)),
        // Rows long enough for the wide layer norm, and no multiple of its 256 threads.
        odd("nine heads", shape(1, [9, 64], 96, 33, [8, 8, 8, 8]), converted(DType::F16)),
        odd("a head of 63, one layer, f16", Shape { layers: 1, ..less }, converted(DType::F16)),
    ]
}

#[test]
fn odd_models_on_llvmpipe() {
    odd_models().iter().for_each(|odd| check_odd(odd, &KINDS, DEVICES[0]));
}

#[test]
fn odd_models_on_swiftshader() {
    odd_models().iter().for_each(|odd| check_odd(odd, &KINDS, DEVICES[1]));
}

#[test]
fn odd_models_on_the_cpu() {
    odd_models().iter().for_each(|odd| check_odd(odd, &[Kind::Reference], "the CPU"));
}

/// A random model meets the float64 forward in all logits and states, in these executors alike.
fn check_odd(odd: &Odd, kinds: &[Kind], device: &str) {
    let dir = TempDir::new();
    let path = dir.file("model.safetensors");
    write_model(&path, &odd.shape, 5, &odd.format).expect("written");
    let checkpoint = open(&path);
    let oracle = Rwkv7::load(&checkpoint, odd.format.layout);
    let tokens: Vec<u32> = (0..40).map(|at| (at * at * 7 + at + 3) % odd.shape.vocab as u32).collect();
    let mut state = oracle.new_state();
    let expected: Vec<f32> = oracle.run(&mut state, &tokens).concat().iter().map(|logit| *logit as f32).collect();
    let program = Program::rwkv7();
    let mut bits = Vec::new();
    for kind in kinds {
        let Some(executor) = AnyExecutor::find(*kind, device) else { return };
        let limits = executor.device().limits.clone();
        let compiler = program.compiler(checkpoint.index(), &limits, &[]);
        // Whole steps, padded ones and single tokens: 16, 1, 16 of which 3 count, 1, and again.
        let ran = run(&mut decoder(&executor, compiler, &checkpoint, &[1, 16]), &tokens, &[17, 3, 1]);
        let what = format!("{}, {kind:?} on {device}", odd.name);
        let distance = max_difference(&widened(&ran.logits.concat()), &expected);
        println!("{what}: logits within {distance:.2e}");
        assert!(distance <= LIMIT, "{what}: logits are off by {distance:.2e}, more than {LIMIT:.0e}");
        check_states(&what, &ran, |layer, name| state_of(&state, layer, name));
        bits.push(ran.bits());
    }
    assert!(bits.iter().all(|other| *other == bits[0]), "{} on {device}: the executors differ", odd.name);
}

/// A part of the oracle's state.
fn state_of(state: &State, layer: &str, name: &str) -> Vec<f32> {
    let parts = state.layers[layer.parse::<usize>().expect("a layer's number")].parts();
    let (_, values) = parts.iter().find(|(other, _)| *other == name).expect("a state of that name");
    values.iter().map(|value| *value as f32).collect()
}

#[test]
fn compiling_again_gives_the_same_bytes() {
    let checkpoint = open(&folder("synth-v7").expect("committed").join("model.safetensors"));
    let limits = Limits::vulkan();
    let bytes = |plan: &CheckedPlan| serde_json::to_vec(&**plan).expect("plans are data");
    let programs = [Program::rwkv7(), Program::rwkv7()];
    for tokens in [1, 16, 128] {
        let plans = programs.each_ref().map(|program| {
            let compiler = program.compiler(checkpoint.index(), &limits, &[]);
            [(); 2].map(|()| bytes(&compile(&compiler, all_rows(tokens))))
        });
        let [first, others @ ..] = plans.as_flattened() else { unreachable!("four plans") };
        assert!(others.iter().all(|other| other == first), "{tokens} tokens");
    }
}

/// Larger than what is packed of a layer and than any activation of seven tokens, and a third to a sixth of the
/// embedding, the head and the channel mix's matrices: with two more bindings a dispatch, no device has too few.
const SMALL_BINDING_BYTES: u64 = 128 << 10;

#[test]
fn a_matrix_bound_in_parts_gives_the_same_bits() {
    const fn shape(wide: usize) -> Shape {
        let (ffn, vocab) = (wide, wide);
        Shape { layers: 2, heads: 2, head_size: 32, ffn, vocab, rank_w: 8, rank_a: 8, rank_v: 8, rank_g: 8 }
    }
    // Parts end within rows of the second matrix of the channel mix; its rows of 3001 are read element by element.
    for (wide, dtype) in [(3000, DType::F32), (3001, DType::F16)] {
        let dir = TempDir::new();
        let path = dir.file("model.safetensors");
        write_model(&path, &shape(wide), 5, &Format::converted(dtype)).expect("written");
        let checkpoint = open(&path);
        for (device, kind) in everywhere() {
            let Some(executor) = AnyExecutor::find(kind, device) else { continue };
            check_parts(&executor, &checkpoint, &format!("{dtype}, {kind:?} on {device}"));
        }
    }
}

fn check_parts(executor: &AnyExecutor, checkpoint: &Checkpoint, what: &str) {
    let program = Program::rwkv7();
    let tokens: Vec<u32> = (0..15).map(|at| at * 211 % 3000).collect();
    let offered = executor.device().limits.clone();
    let small = Limits { max_storage_buffer_binding_bytes: SMALL_BINDING_BYTES, ..offered.clone() };
    let [whole, parts] = [(&offered, 0), (&small, 1)].map(|(limits, least)| {
        let compiler = program.compiler(checkpoint.index(), limits, &[]);
        let plan = compile(&compiler, all_rows(7));
        let split = bound_in_parts(&plan);
        // The embedding, the head, and two matrices in each of two layers.
        assert_eq!(split.len(), 6 * least, "{what}: {split:?}");
        run(&mut decoder(executor, compiler, checkpoint, &[1, 7]), &tokens, &[8, 7])
    });
    assert!(whole.bits() == parts.bits(), "{what}: off by {:.2e}", whole.distance(&parts));
}

/// Labels of the dispatches that bind a large matrix more than once.
fn bound_in_parts(plan: &CheckedPlan) -> Vec<&str> {
    let is_split = |dispatch: &Dispatch| {
        let large =
            dispatch.bindings.iter().map(|slice| slice.buffer).filter(|buffer| match plan.buffers[*buffer].kind {
                BufferKind::Weight { index } => plan.weights.buffers[index as usize].record_bytes.is_none(),
                _ => false,
            });
        let mut seen = Vec::new();
        large.into_iter().any(|buffer| {
            seen.contains(&buffer) || {
                seen.push(buffer);
                false
            }
        })
    };
    let dispatches = plan.commands().filter_map(|command| match command {
        Command::Dispatch(dispatch) => Some(dispatch),
        Command::Copy(_) => None,
    });
    dispatches.filter(|dispatch| is_split(dispatch)).map(|dispatch| dispatch.label.as_str()).collect()
}

/// Stores values of two bytes and reads them again: embedding rows, narrowed, widened.
const HALVES_GRAPH: &str = r#"
Graph(
    name: "halves",
    detect: (has: ["emb.weight"]),
    dims: {"V": Weight("emb.weight", 0), "C": Weight("emb.weight", 1), "T": Tokens},
    inputs: {"tokens": Input(token_ids, ["T"])},
    outputs: {"logits": Output(logits)},
    ops: [
        Op("embed", {"tokens": "in.tokens", "table": "w.emb.weight", "y": "emb"}),
        Op("narrow", {"x": "emb", "y": "narrow"}),
        Op("widen", {"x": "narrow", "y": "logits"}),
    ],
)
"#;
const HALVES_WGSL: &str = "
override N: u32;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < N {
        store_y2(id.x, load_x2(id.x));
    }
}
";

#[test]
fn values_of_two_bytes() {
    // Six columns: pairs, and no fours. Ties, values between, a large and a tiny one, both signs.
    let row = [1.0 + 1.0 / 4096.0, -2.9, 1.0 + 3.0 / 2048.0, 6.1e-5, 60_000.0, -0.007_812_5 * 1.003_906_2];
    let table: Vec<f32> = (0..5).flat_map(|token| row.map(|value| value * (1.0 - token as f32 / 7.0))).collect();
    let dir = TempDir::new();
    let bytes: Vec<u8> = table.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![5, 6], &bytes).expect("a table");
    safetensors::serialize_to_file([("emb.weight", view)], None, &dir.file("model.safetensors")).expect("written");
    let checkpoint = open(&dir.file("model.safetensors"));
    for dtype in [DType::F16, DType::Bf16] {
        let program = halves(dtype);
        let round = |value: &f32| match dtype {
            DType::F16 => half::f16::from_f32(*value).to_f32(),
            _ => half::bf16::from_f32(*value).to_f32(),
        };
        let tokens = [4, 0, 3, 1, 2];
        let expected: Vec<f32> = tokens.iter().flat_map(|token| &table[token * 6..token * 6 + 6]).map(round).collect();
        for (device, kind) in everywhere() {
            let Some(executor) = AnyExecutor::find(kind, device) else { continue };
            let limits = executor.device().limits.clone();
            let compiler = program.compiler(checkpoint.index(), &limits, &[]);
            let ran = run(&mut decoder(&executor, compiler, &checkpoint, &[1, 3]), &tokens.map(|t| t as u32), &[3, 1]);
            assert_eq!(ran.logits.concat(), expected, "{dtype}, {kind:?} on {device}");
        }
    }
}

/// The graph of [`HALVES_GRAPH`] with its two kernels, from files, as an author has them.
fn halves(dtype: DType) -> Program {
    let dir = TempDir::new();
    let manifest = |x: &str, y: &str| {
        format!(
            r#"Kernel(doc: "y = x", ports: {{"x": {x}, "y": {y}}}, consts: {{"N": "T * C / 2"}},
                dispatch: ["ceil_div(N, 64)"])"#
        )
    };
    let (full, two_bytes) = (r#"["T", "C"]"#, format!(r#"Port({dtype}, ["T", "C"])"#));
    for (name, ron) in [("narrow", manifest(full, &two_bytes)), ("widen", manifest(&two_bytes, full))] {
        std::fs::write(dir.file(&format!("{name}.ron")), ron).expect("written");
        std::fs::write(dir.file(&format!("{name}.wgsl")), HALVES_WGSL).expect("written");
    }
    let mut shaders = sources::shaders(Some(&dir.file(""))).expect("read");
    shaders
        .extend(sources::shaders(None).expect("built in").into_iter().filter(|(path, _)| path.starts_with("embed.")));
    Program::parse("halves.ron", HALVES_GRAPH.to_owned(), &shaders)
}
