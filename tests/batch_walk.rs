//! A long random walk of sequences that join, leave, fork, are saved, loaded, reset and fed.
//!
//! Gets a random tiny model. What then holds: every row of logits that any sequence was given is, bit for bit, what its
//! tokens give when they are run alone in one go; plans stay few and memory stays flat. A binary of its own, since it
//! weighs the process. Never depends on time: the seed is printed, and `GRAPHC_WALK_SEED` sets it.

mod support;

use std::collections::HashMap;

use graphc::base::dtype::DType;
use graphc::exec::Executor;
use graphc::generate::batch::{Batch, Feed, SequenceId, SequenceState};
use graphc::generate::{Decoder, Rows};
use support::models::{Format, Shape, write_model};
use support::runner::{AnyExecutor, AnySession, DEVICES, Kind, Program, batch, decoder};
use support::{TempDir, open};

const TINY: Shape =
    Shape { layers: 1, heads: 2, head_size: 8, ffn: 24, vocab: 16, rank_w: 4, rank_a: 3, rank_v: 2, rank_g: 5 };
const ROWS: u32 = 8;
/// Sizes of the batch's steps, and that of a sequence alone, which is also how long one may grow.
const SIZES: [u32; 3] = [1, 6, 20];
const LONGEST: usize = 64;
/// What the process may grow by in the second half of a walk; one step's buffers kept by mistake in each operation
/// would be a hundred times as much.
const GROWTH_BYTES: u64 = 6 << 20;

/// What is known of a sequence or of a saved state: the tokens read, and the logits given after some of them.
#[derive(Clone, Default)]
struct History {
    tokens: Vec<u32>,
    /// How many tokens had been read, and the bits of the row then given.
    rows: Vec<(usize, Vec<u32>)>,
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|value| value.to_bits()).collect()
}

struct Walk<'a> {
    batch: Batch<'a, AnySession>,
    alone: Decoder<'a, AnySession>,
    random: fastrand::Rng,
    live: Vec<(SequenceId, History)>,
    saved: Vec<(SequenceState, History)>,
    done: HashMap<&'static str, u32>,
    rows_checked: usize,
}

impl Walk<'_> {
    /// Runs a history alone, in one step, and compares every row it was given.
    fn check(&mut self, history: &mut History) {
        if history.tokens.is_empty() || history.rows.is_empty() {
            return;
        }
        self.alone.session().reset();
        let (expected, _) = self.alone.run(&history.tokens, Rows::All).unwrap_or_else(|error| panic!("{error}"));
        for (count, found) in history.rows.drain(..) {
            assert_eq!(found, bits(&expected[count - 1]), "after token {count} of {:?}", history.tokens);
            self.rows_checked += 1;
        }
    }

    fn some(&mut self) -> Option<usize> {
        (!self.live.is_empty()).then(|| self.random.usize(..self.live.len()))
    }

    fn leave(&mut self, at: usize) {
        let (id, mut history) = self.live.swap_remove(at);
        self.check(&mut history);
        self.batch.leave(id).expect("it was there");
        assert!(self.batch.save(id).is_err(), "it has left");
    }

    fn join(&mut self) {
        match self.batch.join() {
            Ok(id) => self.live.push((id, History::default())),
            Err(error) => {
                assert_eq!(
                    (error.to_string(), self.live.len()),
                    (format!("all {ROWS} sequences of the session are taken"), 8)
                );
            }
        }
    }

    fn fork(&mut self, at: usize) {
        // What the original was given is compared once, with the original.
        let history = History { tokens: self.live[at].1.tokens.clone(), rows: Vec::new() };
        match self.batch.fork(self.live[at].0) {
            Ok(id) => self.live.push((id, history)),
            Err(_) => assert_eq!(self.live.len(), ROWS as usize),
        }
    }

    fn save(&mut self, at: usize) {
        let state = self.batch.save(self.live[at].0).expect("read");
        let history = History { tokens: self.live[at].1.tokens.clone(), rows: Vec::new() };
        match self.saved.len() {
            4 => self.saved[self.random.usize(..4)] = (state, history),
            _ => self.saved.push((state, history)),
        }
    }

    fn load(&mut self, at: usize) {
        if self.saved.is_empty() {
            return;
        }
        let mut before = std::mem::take(&mut self.live[at].1);
        self.check(&mut before);
        let (state, history) = &self.saved[self.random.usize(..self.saved.len())];
        self.batch.load(self.live[at].0, state).expect("written");
        self.live[at].1 = history.clone();
    }

    fn reset(&mut self, at: usize) {
        let mut before = std::mem::take(&mut self.live[at].1);
        self.check(&mut before);
        self.batch.reset(self.live[at].0).expect("written");
    }

    /// Feeds some of the sequences, in any order, with one token mostly, or a few, or more than a step holds.
    fn step(&mut self) {
        self.random.shuffle(&mut self.live);
        let count = self.random.usize(..=self.live.len());
        let mut fed: Vec<Vec<u32>> = Vec::new();
        for at in 0..count {
            let most = [1, 1, 1, 1, 3, 9, 30][self.random.usize(..7)];
            let tokens = (0..self.random.usize(1..=most)).map(|_| self.random.u32(..16)).collect::<Vec<u32>>();
            if self.live[at].1.tokens.len() + tokens.len() > LONGEST {
                self.reset(at);
            }
            fed.push(tokens);
        }
        if fed.is_empty() {
            return;
        }
        let feeds: Vec<Feed<'_>> =
            self.live.iter().zip(&fed).map(|((id, _), tokens)| Feed { sequence: *id, tokens }).collect();
        let rows = if self.random.u32(..4) == 0 { Rows::All } else { Rows::Last };
        let (logits, _) = self.batch.run(&feeds, rows).unwrap_or_else(|error| panic!("{error}"));
        for (((_, history), tokens), rows_found) in self.live.iter_mut().zip(&fed).zip(logits) {
            history.tokens.extend_from_slice(tokens);
            assert_eq!(rows_found.len(), if rows == Rows::All { tokens.len() } else { 1 });
            let first = history.tokens.len() + 1 - rows_found.len();
            history.rows.extend(rows_found.iter().enumerate().map(|(nth, row)| (first + nth, bits(row))));
        }
    }

    fn operation(&mut self) {
        let name = ["join", "join", "leave", "fork", "save", "load", "reset"]
            .get(self.random.usize(..20))
            .copied()
            .unwrap_or("step");
        match (name, self.some()) {
            ("join", _) | (_, None) => self.join(),
            ("leave", Some(at)) => self.leave(at),
            ("fork", Some(at)) => self.fork(at),
            ("save", Some(at)) => self.save(at),
            ("load", Some(at)) => self.load(at),
            ("reset", Some(at)) => self.reset(at),
            _ => self.step(),
        }
        *self.done.entry(name).or_default() += 1;
        assert_eq!(self.batch.len(), self.live.len());
    }
}

/// Resident memory of this process, where that can be told.
fn resident_bytes() -> Option<u64> {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

fn walk(kind: Kind, operations: u32) {
    let Some(executor) = AnyExecutor::find(kind, DEVICES[0]) else { return };
    let seed = std::env::var("GRAPHC_WALK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20);
    println!("{kind:?}: seed {seed}");
    let dir = TempDir::new();
    write_model(&dir.file("m.safetensors"), &TINY, 3, &Format::converted(DType::F32)).expect("written");
    let (program, checkpoint) = (Program::rwkv7(), open(&dir.file("m.safetensors")));
    let limits = executor.device().limits.clone();
    let compiler = program.compiler(checkpoint.index(), &limits, &[]);
    let mut walk = Walk {
        batch: batch(&executor, compiler, &checkpoint, (ROWS, &SIZES)),
        alone: decoder(&executor, compiler, &checkpoint, &[LONGEST as u32]),
        random: fastrand::Rng::with_seed(seed),
        live: Vec::new(),
        saved: Vec::new(),
        done: HashMap::new(),
        rows_checked: 0,
    };
    let mut before = None;
    for nth in 0..operations {
        if nth == operations / 2 {
            before = resident_bytes();
        }
        walk.operation();
    }
    if let Some((before, after)) = before.zip(resident_bytes()) {
        let grown = after.saturating_sub(before);
        println!("{kind:?}: {} MiB, grown by {} KiB in the second half", after >> 20, grown >> 10);
        assert!(grown < GROWTH_BYTES, "memory grows: {grown} bytes in {} operations", operations / 2);
    }
    while !walk.live.is_empty() {
        walk.leave(0);
    }
    // Three sizes of a step; 1, 2, 4 or 8 sequences; last rows or all; a step of one token has one sequence.
    let plans = walk.batch.plan_count();
    println!("{kind:?}: {:?}, {} rows compared, {plans} plans", walk.done, walk.rows_checked);
    assert!(plans <= 2 * (1 + 2 * 4), "{plans} plans");
    assert!(walk.rows_checked > operations as usize, "{} rows", walk.rows_checked);
}

#[test]
fn every_sequence_of_a_long_walk_gives_what_it_gives_alone() {
    walk(Kind::Hal, 10_000);
    walk(Kind::Wgpu, 1_500);
}
