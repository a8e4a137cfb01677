//! The guide for authors, done step by step.
//!
//! Gets `docs/authoring.md`: a block of code with a file's name is written, a block of `sh` is run, and a block of
//! `text` must be what the command before it printed, all in the order in which a reader meets them. The logits of the
//! guide's model are compared with the formulas at its top, computed in float64. Runs skip without a device.

mod program;
mod support;

use std::path::Path;
use std::process::Command;

use graphc::base::fmt;
use graphc::base::span::SourceMap;
use graphc::sources;
use program::{Ran, devices};
use support::guide::{agrees, blocks, dead_links};
use support::{TempDir, argmax, open, skip, values};

const GUIDE: &str = include_str!("../docs/authoring.md");

/// Kernels that the guide tells its reader to copy.
const COPIED: [&str; 11] = [
    "embed.",
    "gather_rows.",
    "layer_norm",
    "linear.",
    "linear_by",
    "linear_narrow",
    "linear_octet",
    "linear_one",
    "linear_subgroups",
    "linear_tiles",
    "shared/",
];

const VOCABULARY: usize = 19;
const CHANNELS: usize = 12;
const LAYERS: usize = 2;
const PROMPT: [usize; 5] = [3, 1, 4, 1, 5];
/// Products of twelve numbers below one, twice a layer, in f32.
const TOLERANCE: f64 = 2e-5;

/// The weights of the guide's model, by name.
struct Weights(Vec<(String, Vec<usize>, Vec<f32>)>);

impl Weights {
    fn random() -> Self {
        let mut random = fastrand::Rng::with_seed(11);
        let mut weights = Self(Vec::new());
        let (v, c) = (VOCABULARY, CHANNELS);
        let mut add = |name: String, shape: &[usize], middle: f32| {
            let numbers = (0..shape.iter().product()).map(|_| middle + random.f32() - 0.5).collect();
            weights.0.push((name, shape.to_vec(), numbers));
        };
        add("emb.weight".into(), &[v, c], 0.0);
        for layer in 0..LAYERS {
            add(format!("blocks.{layer}.norm.weight"), &[c], 1.0);
            add(format!("blocks.{layer}.norm.bias"), &[c], 0.0);
            for matrix in ["forget", "value", "output"] {
                add(format!("blocks.{layer}.{matrix}.weight"), &[c, c], 0.0);
            }
        }
        add("norm_out.weight".into(), &[c], 1.0);
        add("norm_out.bias".into(), &[c], 0.0);
        add("head.weight".into(), &[v, c], 0.0);
        weights
    }

    fn write(&self, path: &Path) {
        let bytes: Vec<Vec<u8>> = self
            .0
            .iter()
            .map(|(.., numbers)| numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
            .collect();
        let tensors = self.0.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
            let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
            (name.as_str(), view.expect("a sound tensor"))
        });
        safetensors::serialize_to_file(tensors, None, path).expect("a checkpoint is written");
    }

    fn get(&self, name: &str) -> Vec<f64> {
        let (.., numbers) = self.0.iter().find(|(other, ..)| other == name).expect("a weight");
        numbers.iter().map(|number| f64::from(*number)).collect()
    }

    fn product(&self, name: &str, x: &[f64]) -> Vec<f64> {
        self.get(name).chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (variance + 1e-5).sqrt();
        let (weight, bias) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        x.iter().zip(weight).zip(bias).map(|((x, w), b)| (x - mean) * scale * w + b).collect()
    }
}

/// The formulas at the guide's top, a token at a time.
struct Toy<'a> {
    weights: &'a Weights,
    memory: Vec<Vec<f64>>,
}

impl<'a> Toy<'a> {
    fn new(weights: &'a Weights) -> Self {
        Self { weights, memory: vec![vec![0.0; CHANNELS]; LAYERS] }
    }

    /// Logits after a token.
    fn step(&mut self, token: usize) -> Vec<f64> {
        let mut x = self.weights.get("emb.weight")[token * CHANNELS..][..CHANNELS].to_vec();
        for (layer, memory) in self.memory.iter_mut().enumerate() {
            let name = |part: &str| format!("blocks.{layer}.{part}");
            let h = self.weights.norm(&name("norm"), &x);
            let forget = self.weights.product(&name("forget.weight"), &h);
            let value = self.weights.product(&name("value.weight"), &h);
            for (s, (f, v)) in memory.iter_mut().zip(forget.iter().zip(value)) {
                let f = 1.0 / (1.0 + (-f).exp());
                *s = f * *s + (1.0 - f) * v;
            }
            let out = self.weights.product(&name("output.weight"), memory);
            x.iter_mut().zip(out).for_each(|(x, out)| *x += out);
        }
        self.weights.product("head.weight", &self.weights.norm("norm_out", &x))
    }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder is made");
    std::fs::write(path, text).expect("a file is written");
}

/// Runs a line of the guide in the guide's folder.
fn run(dir: &TempDir, line: &str) -> Ran {
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("graphc"), "commands of the guide are graphc's: {line}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_graphc"));
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // Mesa complains without one.
        command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    }
    let output = command.args(words).current_dir(dir.file("")).output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn check_generated(printed: &str, weights: &Weights) {
    let found: Vec<usize> = printed.trim().split(',').map(|id| id.parse().expect("an id")).collect();
    assert_eq!(found.len(), 5, "{printed}");
    let mut toy = Toy::new(weights);
    let mut logits = PROMPT.iter().fold(Vec::new(), |_, token| toy.step(*token));
    for token in found {
        let best = argmax(&logits) as usize;
        let second = (0..VOCABULARY).filter(|at| *at != best).map(|at| logits[at]).fold(f64::MIN, f64::max);
        assert!(logits[best] - second > 10.0 * TOLERANCE, "the seed leaves no doubt which token is the likeliest");
        assert_eq!(token, best);
        logits = toy.step(token);
    }
}

fn check_logits(path: &Path, weights: &Weights) {
    let file = open(path);
    let found = values(&file, "logits");
    let mut toy = Toy::new(weights);
    let expected: Vec<f64> = PROMPT.iter().flat_map(|token| toy.step(*token)).collect();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < TOLERANCE, "{found}, expected {expected}");
    }
    let memory = values(&file, "layer1.s");
    // Rows behind the prompt's are padding of the step.
    let last = &memory[(PROMPT.len() - 1) * CHANNELS..PROMPT.len() * CHANNELS];
    for (found, expected) in last.iter().zip(&toy.memory[1]) {
        assert!((f64::from(*found) - expected).abs() < TOLERANCE, "{found}, expected {expected}");
    }
}

#[test]
fn guide_leads_from_an_empty_folder_to_the_right_logits() {
    let dir = TempDir::new();
    let weights = Weights::random();
    weights.write(&dir.file("toy.safetensors"));
    for (path, text) in sources::shaders(None).expect("built in") {
        if COPIED.iter().any(|name| path.starts_with(name)) {
            write(&dir.file("shaders").join(path), &text);
        }
    }
    let usable = devices("wgpu");
    let mut last: Option<Ran> = None;
    for block in blocks(GUIDE) {
        match block.info.split_once(' ') {
            Some((_, file)) => write(&dir.file(file), block.text),
            None if block.info == "sh" => {
                let is_run = block.text.starts_with("graphc run");
                if let (true, Err(reason)) = (is_run, &usable) {
                    skip(reason);
                    continue;
                }
                let ran = run(&dir, block.text.trim());
                if is_run {
                    check_run(&dir, &ran.fine(), block.text, &weights);
                } else {
                    last = Some(ran);
                }
            }
            None if block.info == "text" => {
                let ran = last.take().expect("a command before its output");
                let printed = format!("{}{}", ran.out, ran.err);
                assert!(agrees(&printed, block.text), "expected\n{}\nfound\n{printed}", block.text);
            }
            None => panic!("what is a block of `{}`?", block.info),
        }
    }
    if let Some(ran) = last {
        ran.fine();
    }
}

fn check_run(dir: &TempDir, ran: &Ran, line: &str, weights: &Weights) {
    match line.contains("--logits") {
        true => check_logits(&dir.file("logits.safetensors"), weights),
        false => check_generated(&ran.out, weights),
    }
}

#[test]
fn snippets_of_the_guide_are_formatted() {
    for block in blocks(GUIDE).iter().filter(|block| block.info.starts_with("ron")) {
        let mut map = SourceMap::new();
        let source = map.add(block.info, block.text);
        assert_eq!(fmt::format(&map, source).expect("RON"), block.text, "{}", block.info);
    }
}

#[test]
fn links_of_the_guide_lead_somewhere() {
    assert_eq!(dead_links(GUIDE), Vec::<String>::new());
}
