//! Levers that `benches/levers` keeps for measuring: they compute what they are to.
//!
//! Gets the graphs, rules and kernels of each, laid over those built in, and random models. What then holds: nothing
//! of them has a diagnostic, each rule computes what it is put for, and a step of one token has as many levels as
//! without; weights of bytes give the logits of the weights they were made from, within what bytes hold. Needs no
//! device; which lever is faster, only a GPU can tell.

#[path = "../examples/weights_as_bytes.rs"]
#[allow(dead_code, reason = "an example has a `main` of its own")]
mod weights_as_bytes;

mod program;
mod support;

use std::path::{Path, PathBuf};

use graphc::base::dtype::DType;
use program::{graphc_with, text};
use support::TempDir;
use support::models::{Format, Shape, write_model};

/// What a lever has, and a part of the names of its rules.
const LEVERS: [(&str, &str); 3] =
    [("bytes", "bytes_"), ("compaction", "sparse_channel_mix"), ("split_heads", "rwkv7_time_mix")];

const NO_DEVICE: [(&str, &str); 2] = [("VK_ICD_FILENAMES", "/nonexistent"), ("VK_DRIVER_FILES", "/nonexistent")];

/// A model whose heads split into four, of three heads and odd sizes otherwise.
const SHAPE: Shape = Shape::of_two_layers([3, 64], 264, 1000, [8, 24, 16, 40]);

/// Copies what a folder holds over what another does.
fn lay_over(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let copy = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => lay_over(&path, &copy),
            false => std::fs::copy(&path, copy).map(drop).expect("copied"),
        }
    }
}

/// Flags for the graphs and kernels of a lever.
struct Laid {
    dir: TempDir,
    flags: [String; 4],
}

impl Laid {
    fn new(lever: &str) -> Self {
        let dir = TempDir::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let [graphs, shaders] = ["graphs", "shaders"].map(|folder| {
            lay_over(&root.join(folder), &dir.file(folder));
            let own = root.join("benches/levers").join(lever).join(folder);
            if own.is_dir() {
                lay_over(&own, &dir.file(folder));
            }
            text(&dir.file(folder)).to_owned()
        });
        Self { dir, flags: ["--graphs".into(), graphs, "--shaders".into(), shaders] }
    }

    fn run(&self, args: &[&str]) -> program::Ran {
        let all: Vec<&str> = args.iter().copied().chain(self.flags.iter().map(String::as_str)).collect();
        graphc_with(&all, &NO_DEVICE)
    }

    fn model(&self) -> PathBuf {
        let path = self.dir.file("model.safetensors");
        write_model(&path, &SHAPE, 5, &Format::converted(DType::F16)).expect("written");
        path
    }
}

/// Logits of a prompt's last token, each in a step of its own, of which the sanitizer has nothing to say.
fn logits(laid: &Laid, model: &Path, more: &[&str]) -> Vec<f32> {
    let out = laid.dir.file("logits.safetensors");
    let args = ["run", "--executor", "reference", "--weights", text(model), "--step-tokens", "1", "-n", "0"];
    let prompt = ["--tokens", "5,900,0,77,77,3,512,999", "--logits", text(&out), "--trust-kernels", "--sanitize"];
    laid.run(&[&args[..], &prompt, more].concat()).fine();
    support::values(&support::open(&out), "logits")
}

/// The largest difference over the largest logit.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    a.iter().zip(b).fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

#[test]
fn all_of_them_are_known_here() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/levers");
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let mut found: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, LEVERS.map(|(lever, _)| lever));
}

#[test]
fn their_rules_compute_the_same() {
    for (lever, rules) in LEVERS {
        let laid = Laid::new(lever);
        graphc_with(&["check", &laid.flags[1], &laid.flags[2], &laid.flags[3]], &NO_DEVICE).fine();
        laid.run(&["verify", &format!("--rules={rules}")]).fine();
    }
}

#[test]
fn a_step_has_as_many_levels_as_without() {
    let plain = Laid::new("");
    let model = plain.model();
    let levels = |laid: &Laid, model: &Path| {
        let args = ["compile", "--weights", text(model), "--emit", "summary", "--format", "json"];
        let summary: serde_json::Value = serde_json::from_str(&laid.run(&args).fine().out).expect("JSON");
        (summary["dispatches"].as_u64().expect("a number"), summary["levels"].as_u64().expect("a number"))
    };
    let expected = levels(&plain, &model);
    assert_eq!(levels(&Laid::new("split_heads"), &model), expected);
    let bytes = Laid::new("bytes");
    assert_eq!(levels(&bytes, &as_bytes(&bytes, &model)), expected);
}

fn as_bytes(laid: &Laid, model: &Path) -> PathBuf {
    let path = laid.dir.file("bytes.safetensors");
    weights_as_bytes::convert(model, &path).expect("converted");
    path
}

#[test]
fn heads_that_are_split_compute_the_same() {
    let plain = Laid::new("");
    let model = plain.model();
    let expected = logits(&plain, &model, &["--fuse", "off"]);
    let laid = Laid::new("split_heads");
    let four = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/levers/split_heads/four.ron");
    for tuning in ["none", text(&four)] {
        let found = apart(&logits(&laid, &model, &["--tuning", tuning]), &expected);
        assert!(found < 1e-5, "{tuning}: {found:e} of the largest logit apart");
    }
}

/// A byte is off by half a step at most, a step being a 127th of the largest of 128 numbers.
#[test]
fn bytes_compute_nearly_the_same() {
    let (plain, bytes) = (Laid::new(""), Laid::new("bytes"));
    let model = plain.model();
    let converted = as_bytes(&bytes, &model);
    let expected = logits(&plain, &model, &[]);
    let floats = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/levers/bytes/floats.ron");
    let with_floats = ["--tuning", text(&floats)];
    let [fused, written] = [["--fuse", "on"], ["--fuse", "off"]].map(|fuse| {
        let more = [fuse, with_floats].concat();
        logits(&bytes, &converted, &more)
    });
    assert!(apart(&fused, &written) < 1e-5, "fused {:e} apart", apart(&fused, &written));
    for (what, found) in [("floats", fused), ("bytes", logits(&bytes, &converted, &[]))] {
        let found = apart(&found, &expected);
        assert!((1e-4..8e-2).contains(&found), "{what}: {found:e} of the largest logit apart");
    }
}
