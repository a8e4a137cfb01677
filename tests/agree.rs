//! Compiled models give the right numbers on real drivers, through both executors.
//!
//! Gets reference values from another implementation and, for shapes that no stored model has, from the float64 forward
//! of `support::oracle`. What then holds: every stored logit, state and intermediate step is met within the limits below,
//! however a sequence is cut into steps, and the two executors agree to the last bit. Never judges speed.
//!
//! Devices are asked for by name, one test each; where one is missing its test says so and counts as skipped.

mod support;


use graphc::exec::Executor;
use graphc::generate::Rows;
use support::runner::{AnyExecutor, DEVICES, KINDS, Program, Ran, decoder, run};
use support::{assert_step, case_tensors, cases, max_difference, open, reference, skip, values};

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

#[test]
fn synth_v7_on_llvmpipe() {
    check_reference("synth-v7", "model.safetensors", "logits", LIMIT, DEVICES[0]);
}

#[test]
fn synth_v7_on_swiftshader() {
    check_reference("synth-v7", "model.safetensors", "logits", LIMIT, DEVICES[1]);
}

#[test]
fn trained_on_llvmpipe() {
    check_reference("7v0", "model.safetensors", "logits", TRAINED_LIMIT, DEVICES[0]);
}

#[test]
fn trained_on_swiftshader() {
    check_reference("7v0", "model.safetensors", "logits", TRAINED_LIMIT, DEVICES[1]);
}

#[test]
fn trained_f16_on_llvmpipe() {
    check_reference("7v0", "model_f16.safetensors", "logits_f16w", TRAINED_LIMIT, DEVICES[0]);
}

#[test]
fn trained_f16_on_swiftshader() {
    check_reference("7v0", "model_f16.safetensors", "logits_f16w", TRAINED_LIMIT, DEVICES[1]);
}

/// The folder of a reference model, or a word about its absence.
fn folder(model: &str) -> Option<std::path::PathBuf> {
    let dir = reference(model);
    if dir.is_none() {
        skip(&format!("no reference model `{model}`; `GRAPHC_REFERENCE_DIR` names the folder it is in"));
    }
    dir
}

/// Every case of a model, fed in every way, meets the reference in logits and states, in both executors alike.
fn check_reference(model: &str, file: &str, logits: &str, limit: f64, device: &str) {
    let Some(dir) = folder(model) else { return };
    let (program, checkpoint, expected) = (Program::rwkv7(), open(&dir.join(file)), case_tensors(&dir));
    let mut bits: Vec<Vec<Vec<u32>>> = Vec::new();
    for kind in KINDS {
        let Some(executor) = AnyExecutor::find(kind, device) else { return };
        let limits = executor.device().limits.clone();
        let compiler = program.compiler(checkpoint.index(), &limits, &[]);
        let mut decoder = decoder(&executor, compiler, &checkpoint, &SIZES);
        // The largest plan first: the others share its memory.
        decoder.prepare(*SIZES.last().expect("sizes") as usize, Rows::All).expect("prepared");
        let (mut worst, mut found) = (0.0f64, Vec::new());
        for case in cases(&dir) {
            let rows = values(&expected, &format!("{}.{logits}", case.id));
            for feed in FEEDS {
                let ran = run(&mut decoder, &case.tokens, feed);
                let what = format!("{model}/{file}, {}, fed {feed:?}, {kind:?} on {device}", case.id);
                let distance = max_difference(&widened(&ran.logits.concat()), &rows);
                assert!(distance <= limit, "{what}: logits are off by {distance:.2e}, more than {limit:.0e}");
                worst = worst.max(distance);
                // The stored states are those of the f32 file.
                if logits == "logits" {
                    check_states(&what, &ran, |layer, name| {
                        values(&expected, &format!("{}.state.{layer}.{name}", case.id))
                    });
                }
                found.push(ran.bits());
            }
        }
        println!("{model}/{file} on {device}, {kind:?}: logits within {worst:.2e}");
        bits.push(found);
    }
    assert!(bits[0] == bits[1], "{model}/{file} on {device}: the executors differ");
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
