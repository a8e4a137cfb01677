//! The float64 forward that other tests compare with is itself right, and the random models are fit for testing.
//!
//! Gets stored reference values, which come from another implementation, and random models. The stored values are
//! `f32`: a logit of 10 is rounded by up to 5e-7, a state by 6e-8 of its size, so the limits below leave little but
//! that rounding.

mod support;

use std::path::{Path, PathBuf};

use graphc::base::dtype::DType;
use support::models::{Format, Layout, Shape, write_model};
use support::oracle::Rwkv7;
use support::{
    TempDir, argmax, assert_step, case_tensors, cases, max_difference, open, reference, skip, trace_tensors, values,
};

const LOGIT_LIMIT: f64 = 2e-6;
const STEP_LIMIT: f64 = 1e-5;

/// Three heads, ranks that are no multiple of 32 and a vocabulary that is none of 64.
const ODD: Shape =
    Shape { layers: 3, heads: 3, head_size: 64, ffn: 768, vocab: 1000, rank_w: 8, rank_a: 24, rank_v: 40, rank_g: 16 };

const SMALL: Shape =
    Shape { layers: 2, heads: 2, head_size: 32, ffn: 256, vocab: 99, rank_w: 8, rank_a: 12, rank_v: 4, rank_g: 20 };

#[test]
fn synth_v7_is_reproduced() {
    let dir = reference("synth-v7").expect("committed");
    assert!(dir.starts_with(env!("CARGO_MANIFEST_DIR")), "{}", dir.display());
    check_cases(&dir, "model.safetensors", "logits");
    check_greedy(&dir);
    check_trace(&dir);
}

#[test]
fn trained_model_is_reproduced() {
    let Some(dir) = trained() else { return };
    check_cases(&dir, "model.safetensors", "logits");
    check_greedy(&dir);
    check_trace(&dir);
}

#[test]
fn trained_model_rounded_to_f16_is_reproduced() {
    let Some(dir) = trained() else { return };
    check_cases(&dir, "model_f16.safetensors", "logits_f16w");
}

#[test]
fn published_logits_are_reproduced() {
    let Some(dir) = trained() else { return };
    let bytes = std::fs::read(dir.join("rwkvcpp-expected-logits.f32")).expect("part of the reference");
    let published: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    let found = logits(&dir.join("model.safetensors"), Layout::Converted, &cases(&dir)[0].tokens);
    let difference = max_difference(found.last().expect("a token"), &published);
    assert!(difference <= LOGIT_LIMIT, "off by {difference:.2e}");
}

#[test]
fn layout_of_the_file_does_not_matter() {
    let dir = TempDir::new();
    let tokens = tokens(20, ODD.vocab);
    let converted = Format::converted(DType::F16);
    let formats = [
        ("converted", converted),
        ("squeezed", Format { squeeze: true, ..converted }),
        ("raw", Format::raw(DType::F16)),
        ("raw, squeezed, no v in block 0", Format { squeeze: true, block0_v: false, ..Format::raw(DType::F16) }),
    ];
    let mut first = None;
    for (name, format) in formats {
        let path = dir.file(name);
        write_model(&path, &ODD, 7, &format).expect("written");
        let found = logits(&path, format.layout, &tokens);
        assert!(*first.get_or_insert_with(|| found.clone()) == found, "{name}");
    }
}

#[test]
#[should_panic(expected = "as Converted")]
fn wrong_layout_is_refused() {
    let dir = TempDir::new();
    let path = dir.file("raw");
    write_model(&path, &SMALL, 7, &Format::raw(DType::F32)).expect("written");
    Rwkv7::load(&open(&path), Layout::Converted);
}

#[test]
fn element_type_only_rounds() {
    let dir = TempDir::new();
    let tokens = tokens(20, SMALL.vocab);
    let run = |dtype| {
        let path = dir.file(&format!("{dtype}"));
        let size_bytes = write_model(&path, &SMALL, 3, &Format::converted(dtype)).expect("written");
        assert_eq!(size_bytes, std::fs::metadata(&path).expect("there").len());
        logits(&path, Layout::Converted, &tokens).concat()
    };
    let exact: Vec<f32> = run(DType::F32).into_iter().map(|logit| logit as f32).collect();
    // Halves keep 11 bits and the upper half of an f32 keeps 8: some 1e-3 and 1e-2 of logits of up to 10.
    for (dtype, least, most) in [(DType::F16, 1e-5, 3e-2), (DType::Bf16, 1e-3, 3e-1)] {
        let difference = max_difference(&run(dtype), &exact);
        assert!((least..most).contains(&difference), "{dtype}: {difference:.2e}");
    }
}

#[test]
fn odd_random_model_stays_sane() {
    let dir = TempDir::new();
    let path = dir.file("odd.safetensors");
    write_model(&path, &ODD, 1, &Format::converted(DType::F16)).expect("written");
    let model = Rwkv7::load(&open(&path), Layout::Converted);
    assert_eq!((model.width(), model.vocab), (192, 1000));
    let mut state = model.new_state();
    let all = model.run(&mut state, &tokens(150, ODD.vocab));
    for (at, logits) in all.iter().enumerate() {
        assert!(logits.iter().all(|logit| logit.is_finite()), "token {at}");
        let (low, high) = logits.iter().fold((0.0f64, 0.0f64), |(low, high), x| (low.min(*x), high.max(*x)));
        assert!((5.0..30.0).contains(&(high - low)), "token {at}: {low}..{high}");
    }
    let mut best: Vec<u32> = all.iter().map(|logits| argmax(logits)).collect();
    best.sort_unstable();
    best.dedup();
    assert!(best.len() > 50, "only {} different predictions", best.len());
    for (layer, state) in state.layers.iter().enumerate() {
        for (name, part) in state.parts() {
            let largest = part.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
            assert!((0.5..50.0).contains(&largest), "{layer}.{name}: {largest}");
        }
    }
}

/// A test on a random model is blind to a term that does not move its logits: without any one tensor they must change.
#[test]
fn every_tensor_of_a_random_model_matters() {
    let dir = TempDir::new();
    let path = dir.file("whole.safetensors");
    write_model(&path, &SMALL, 5, &Format::converted(DType::F32)).expect("written");
    let tokens = tokens(12, SMALL.vocab);
    let whole: Vec<f32> =
        logits(&path, Layout::Converted, &tokens).concat().into_iter().map(|logit| logit as f32).collect();
    let bytes = std::fs::read(&path).expect("just written");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a sound file");
    for (name, view) in file.iter() {
        let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        let mut without = bytes.clone();
        without[start..start + view.data().len()].fill(0);
        let path = dir.file("without.safetensors");
        std::fs::write(&path, without).expect("written");
        let difference = max_difference(&logits(&path, Layout::Converted, &tokens).concat(), &whole);
        assert!(difference > 0.1, "`{name}` moves the logits by {difference:.2e} only");
    }
}

/// The folder of the trained model, which is not part of this repository.
fn trained() -> Option<PathBuf> {
    let dir = reference("7v0");
    if dir.is_none() {
        skip("no `7v0` in the reference folder (GRAPHC_REFERENCE_DIR)");
    }
    dir
}

fn logits(path: &Path, layout: Layout, tokens: &[u32]) -> Vec<Vec<f64>> {
    let model = Rwkv7::load(&open(path), layout);
    model.run(&mut model.new_state(), tokens)
}

fn tokens(count: usize, vocab: usize) -> Vec<u32> {
    let mut rng = fastrand::Rng::with_seed(count as u64);
    (0..count).map(|_| rng.u32(..vocab as u32)).collect()
}

/// Logits after every token of every case; the states too, which are stored for `model.safetensors` only.
fn check_cases(dir: &Path, model: &str, kind: &str) {
    let model = Rwkv7::load(&open(&dir.join(model)), Layout::Converted);
    let stored = case_tensors(dir);
    for case in cases(dir) {
        let mut state = model.new_state();
        let found = model.run(&mut state, &case.tokens).concat();
        let difference = max_difference(&found, &values(&stored, &format!("{}.{kind}", case.id)));
        assert!(difference <= LOGIT_LIMIT, "case {}: logits off by {difference:.2e}", case.id);
        println!("case {}, {} tokens: {difference:.1e}", case.id, case.tokens.len());
        if kind != "logits" {
            continue;
        }
        for (layer, state) in state.layers.iter().enumerate() {
            for (name, part) in state.parts() {
                let name = format!("{}.state.{layer}.{name}", case.id);
                assert_step(&name, part, &values(&stored, &name), STEP_LIMIT);
            }
        }
    }
}

fn check_greedy(dir: &Path) {
    let model = Rwkv7::load(&open(&dir.join("model.safetensors")), Layout::Converted);
    for case in cases(dir) {
        let mut state = model.new_state();
        let mut logits = model.run(&mut state, &case.tokens).pop().expect("a token");
        for (at, (expected, margin)) in case.greedy.iter().zip(&case.margins).enumerate() {
            if f64::from(*margin) < 2.0 * LOGIT_LIMIT {
                break;
            }
            assert_eq!(argmax(&logits), *expected, "case {}, step {at}", case.id);
            logits = model.run(&mut state, &[*expected]).remove(0);
        }
    }
}

/// Every stored step of the last token of the first case, and no step without a stored one in the blocks that are
/// stored.
fn check_trace(dir: &Path) {
    let model = Rwkv7::load(&open(&dir.join("model.safetensors")), Layout::Converted);
    let case = cases(dir).remove(0);
    let (last, before) = case.tokens.split_last().expect("a token");
    let mut state = model.new_state();
    model.run(&mut state, before);
    let found = model.trace(&mut state, *last);
    let stored = trace_tensors(dir);
    for name in stored.index().names() {
        let step = found.get(name).unwrap_or_else(|| panic!("no step `{name}`"));
        assert_step(name, step, &values(&stored, name), STEP_LIMIT);
    }
    let stored_block =
        |name: &str| name.split('.').find_map(|part| part.parse().ok()).is_none_or(|layer: u32| layer < 2);
    let mut missing = found.keys().filter(|name| stored_block(name) && stored.index().get(name).is_none());
    assert_eq!(missing.next(), None, "a step that is not stored");
}
