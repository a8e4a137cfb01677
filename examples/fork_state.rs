//! One beginning, several endings: a sequence is read once, copied, and each copy goes on by itself.
//!
//! ```sh
//! cargo run --release --example fork_state
//! ```
//!
//! An RWKV's memory of a text is a state of fixed size, so a copy costs the same after ten words or a million. Copies
//! live side by side on one session and share its steps. Needs a device; a software driver will do.

use std::error::Error;
use std::io::Write;

use graphc::exec::Executor;
use graphc::exec::wgpu::{WgpuBackend, WgpuExecutor, WgpuOptions};
use graphc::generate::batch::{Batch, Feed, SequenceId};
use graphc::generate::continuation::{Continuation, Rules};
use graphc::generate::sample::Sampling;
use graphc::generate::vocabulary::Vocabulary;
use graphc::generate::{Rows, STEP_TOKENS};
use graphc::{checkpoint::Checkpoint, compile::Program, sources};

const BEGINNING: &str = "The old sailor looked at the sea and";

/// Sequences side by side.
const ENDINGS: u32 = 3;

fn main() -> Result<(), Box<dyn Error>> {
    run(60, &mut std::io::stdout())
}

/// Writes what each copy goes on with, for this many tokens.
pub fn run(count: u32, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let checkpoint = Checkpoint::from_static("the built-in model", sources::DEMO_MODEL)?;
    let program = Program::built_in("rwkv7")?;
    let options = WgpuOptions { backend: WgpuBackend::Native, track: false, validation_layers: false };
    let executor = WgpuExecutor::new(&options, None)?;
    let compiler = program.compiler(checkpoint.index(), &executor.device().limits);
    // A row of state for each ending. Plans are compiled as sizes of steps come up.
    let sizes = (ENDINGS, STEP_TOKENS.to_vec());
    let mut batch = Batch::open(&executor, compiler, &checkpoint, sizes, &mut |_, _| ())?;

    // The beginning is read once. Token 0 begins a text of the built-in model, the others are bytes.
    let vocabulary = Vocabulary::byte_level();
    let mut tokens = vec![0];
    tokens.extend(vocabulary.encode(BEGINNING)?);
    let first = batch.join()?;
    let (logits, _) = batch.run(&[Feed { sequence: first, tokens: &tokens }], Rows::Last)?;
    let logits = logits[0][0].clone();

    // A copy is in the same state, bit for bit; what makes endings differ is the seed of their draws.
    let mut sequences = vec![first];
    while sequences.len() < ENDINGS as usize {
        sequences.push(batch.fork(first)?);
    }
    let rules = Rules {
        sampling: Sampling { top_p: 0.9, ..Sampling::at(0.8) },
        stop_tokens: vec![0],
        stop_texts: vec![".".to_owned()],
        vocabulary: Some(&vocabulary),
        top: None,
    };
    let mut endings: Vec<(SequenceId, Continuation<'_>, Vec<f32>)> = (1..)
        .zip(&sequences)
        .map(|(seed, sequence)| (*sequence, Continuation::new(&rules, count, seed), logits.clone()))
        .collect();

    // Each step has a token of every ending that is not done.
    loop {
        let mut drawn = Vec::new();
        for (sequence, continuation, logits) in &mut endings {
            if continuation.finish().is_none() {
                let token = continuation.draw(logits)?.token;
                // One that has just ended has no further token to read.
                drawn.extend(token.filter(|_| continuation.finish().is_none()).map(|token| (*sequence, token)));
            }
        }
        if drawn.is_empty() {
            break;
        }
        let feeds: Vec<Feed<'_>> = drawn
            .iter()
            .map(|(sequence, token)| Feed { sequence: *sequence, tokens: std::slice::from_ref(token) })
            .collect();
        let (rows, _) = batch.run(&feeds, Rows::Last)?;
        for ((sequence, _), mut rows) in drawn.iter().zip(rows) {
            let ending = endings.iter_mut().find(|(other, ..)| other == sequence).ok_or("it was fed")?;
            ending.2 = rows.remove(0);
        }
    }
    for (_, continuation, _) in endings {
        writeln!(out, "{BEGINNING}{} …", continuation.into_continued().text)?;
    }
    Ok(())
}
