//! What the integration tests share.
//!
//! Gets the name of a reference model, returns its folder, its cases and their stored values; and helpers to skip a
//! test, to compare, and to keep files for as long as a test runs. Never computes a layer: `oracle` does that, and
//! `models` writes random checkpoints.

#![allow(dead_code, reason = "each test binary uses a different part of the support modules")]

pub mod elders;
pub mod golden;
pub mod graphs;
pub mod guide;
pub mod models;
pub mod oracle;
pub mod runner;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use graphc::base::dtype::DType;
use graphc::checkpoint::Checkpoint;
use serde::Deserialize;

/// Where reference models lie that are not part of this repository: `GRAPHC_REFERENCE_DIR`, else a folder beside it.
pub fn reference_dir() -> PathBuf {
    match std::env::var_os("GRAPHC_REFERENCE_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/reference"),
    }
}

/// The folder of a reference model: the committed copy if there is one, else below [`reference_dir`]; nothing if
/// absent.
pub fn reference(model: &str) -> Option<PathBuf> {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(model);
    [committed, reference_dir().join(model)].into_iter().find(|dir| dir.join("cases.json").is_file())
}

/// One sequence of tokens whose results are stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Prefix of its tensors, such as `c0`.
    pub id: String,
    /// The tokens.
    pub tokens: Vec<u32>,
    /// What always taking the best token appends.
    pub greedy: Vec<u32>,
    /// For each of `greedy`, how far the best logit was above the second: a continuation is to be compared only up to
    /// the first margin below the tolerance.
    pub margins: Vec<f32>,
}

#[derive(Deserialize)]
struct CasesFile {
    cases: Vec<CaseEntry>,
}

#[derive(Deserialize)]
struct CaseEntry {
    id: String,
    tokens: Vec<u32>,
    greedy: GreedyEntry,
}

#[derive(Deserialize)]
struct GreedyEntry {
    tokens: Vec<u32>,
    margins: Vec<f32>,
}

/// The cases of a reference folder.
///
/// # Panics
/// If `cases.json` is missing or not as expected.
pub fn cases(dir: &Path) -> Vec<Case> {
    named_cases(dir, "cases")
}

/// The cases of a file of a reference folder, by its name without the ending.
///
/// # Panics
/// If the file is missing or not as expected.
pub fn named_cases(dir: &Path, name: &str) -> Vec<Case> {
    let path = dir.join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()));
    let file: CasesFile = serde_json::from_str(&text).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()));
    let case = |CaseEntry { id, tokens, greedy }| {
        assert_eq!(greedy.tokens.len(), greedy.margins.len(), "a margin for each token");
        Case { id, tokens, greedy: greedy.tokens, margins: greedy.margins }
    };
    file.cases.into_iter().map(case).collect()
}

/// The stored tensors of all cases: `c0.logits` and so on.
pub fn case_tensors(dir: &Path) -> Checkpoint {
    open(&dir.join("cases.safetensors"))
}

/// The stored steps of the last token of case `c0`.
pub fn trace_tensors(dir: &Path) -> Checkpoint {
    open(&dir.join("trace.safetensors"))
}

/// A safetensors file that has to be there.
pub fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|error| panic!("{error}"))
}

/// A random model of RWKV-7, as the usual conversion writes it.
pub fn random_model(shape: &models::Shape, dtype: DType) -> Checkpoint {
    let dir = TempDir::new();
    let path = dir.file("model.safetensors");
    models::write_model(&path, shape, 5, &models::Format::converted(dtype)).expect("written");
    // The file stays mapped.
    open(&path)
}

/// The values of a tensor that has to be there.
pub fn values(file: &Checkpoint, name: &str) -> Vec<f32> {
    file.tensor(name).unwrap_or_else(|| panic!("`{}` has no `{name}`", file.name())).to_f32()
}

/// Index of the largest element.
///
/// # Panics
/// If there is none.
pub fn argmax(logits: &[f64]) -> u32 {
    logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).expect("a vocabulary").0 as u32
}

/// Largest absolute difference; infinite if either side is not a number.
pub fn max_difference(found: &[f64], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len(), "tensors of one shape");
    let distance = |(a, b): (&f64, &f32)| (a - f64::from(*b)).abs();
    let finite = |distance: f64| if distance.is_nan() { f64::INFINITY } else { distance };
    found.iter().zip(expected).map(distance).map(finite).fold(0.0, f64::max)
}

/// Asserts that every element is within `relative * max |expected| + 1e-6`, as suits steps and states of very different
/// size.
///
/// # Panics
/// If one is not; `what` says of which tensor.
pub fn assert_step(what: &str, found: &[f64], expected: &[f32], relative: f64) {
    let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let (difference, limit) = (max_difference(found, expected), relative * f64::from(largest) + 1e-6);
    assert!(difference <= limit, "`{what}` is off by {difference:.2e}, more than {limit:.2e}");
}

/// Says that the test cannot run here; the caller then returns.
///
/// # Panics
/// If `CI` is `true`, where a skipped test would go unnoticed for ever.
pub fn skip(reason: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "cannot be skipped in CI: {reason}");
    println!("skipped: {reason}");
}

/// A folder for the files of one test, removed when the value goes.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
}

impl TempDir {
    /// A new, empty folder.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // The name alone is unique among the running processes; what a killed one of the same id left is not ours to
        // use.
        let path = std::env::temp_dir().join(format!("graphc-test-{}-{number}", std::process::id()));
        if path.exists() {
            std::fs::remove_dir_all(&path).expect("an abandoned folder is removed");
        }
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self { path }
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A folder that stays behind is no reason to fail a test, least of all one that is panicking already.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
