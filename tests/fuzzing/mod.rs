//! Runs a reader on inputs that nobody would write, and counts what it takes.
//!
//! Gets a reader as a function and seeds, returns nothing; the test fails at the first input on which the reader
//! panics, takes too long, or allocates more than an input of its size may ask for. The input is kept in a file, also
//! where the process ends at once. What then holds: equal seeds give equal inputs. Never knows what it feeds.

pub mod alloc;
pub mod extremes;
pub mod mutate;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes that a reader may have at a time for any input, which is what unrolling as far as graphs may takes, and more
/// for each byte of it.
const PEAK_BYTES: usize = 256 << 20;
const PEAK_BYTES_PER_BYTE: usize = 512;

/// What one input may take, in a debug build on a busy machine.
const MAX_TIME: Duration = Duration::from_secs(60);

/// A number from the environment.
fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("`{name}` is `{text}`, expected a number")),
        Err(_) => default,
    }
}

/// The files of a reader's corpus, in alphabetical order.
pub fn corpus(reader: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz_corpus").join(reader);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a file")).collect()
}

/// Runs the reader on one input, within bounds.
///
/// # Panics
/// If it does not stay within them; `what` says which input it was.
pub fn within_bounds(reader: &str, what: &str, input: &[u8], run: &dyn Fn(&[u8])) {
    // Kept before it is run: nothing can be written once memory or the stack is gone.
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{reader}"));
    std::fs::write(&kept, input).expect("the input is kept");
    let began = Instant::now();
    let (result, peak_bytes) = alloc::peak(|| catch_unwind(AssertUnwindSafe(|| run(input))));
    let place = format!("{reader}, {what}; the input is in {}", kept.display());
    assert!(result.is_ok(), "a panic on {place}");
    let most = PEAK_BYTES + PEAK_BYTES_PER_BYTE * input.len();
    assert!(peak_bytes <= most, "{peak_bytes} bytes at a time, more than {most}, on {place}");
    assert!(began.elapsed() <= MAX_TIME, "{:?} on {place}", began.elapsed());
}

/// Runs the reader on its seeds as they are, then on mutations of them: for `GRAPHC_FUZZ_SECONDS` seconds, 2 unless it
/// is set, from the seed `GRAPHC_FUZZ_SEED`, 1 unless it is set.
///
/// # Panics
/// At the first input that is not read within bounds.
pub fn fuzz(reader: &str, seeds: &[Vec<u8>], run: &dyn Fn(&[u8])) {
    for (nth, input) in seeds.iter().enumerate() {
        within_bounds(reader, &format!("seed file {nth}"), input, run);
    }
    let seconds = Duration::from_secs(number("GRAPHC_FUZZ_SECONDS", 2));
    let seed = number("GRAPHC_FUZZ_SEED", 1);
    let words = mutate::words(seeds);
    let (began, mut round) = (Instant::now(), 0_u64);
    while began.elapsed() < seconds {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round);
        let input = mutate::mutated(&mut random, seeds, &words);
        within_bounds(reader, &format!("GRAPHC_FUZZ_SEED={seed}, round {round}"), &input, run);
        round += 1;
    }
    println!("{reader}: {} seeds, {round} mutations from GRAPHC_FUZZ_SEED={seed}", seeds.len());
}
