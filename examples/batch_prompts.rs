//! Many prompts on one session: as one is done, the next takes its place.
//!
//! ```sh
//! cargo run --release --example batch_prompts
//! ```
//!
//! What a prompt goes on with depends on nothing but itself and its seed, whatever runs beside it; so the last one here
//! says what the first one says. `graphc run --prompts` does this with a file. Needs a device; a software driver will
//! do.

use std::error::Error;
use std::io::Write;
use std::ops::ControlFlow;

use graphc::exec::Executor;
use graphc::exec::wgpu::{WgpuBackend, WgpuExecutor, WgpuOptions};
use graphc::generate::batch::Batch;
use graphc::generate::continuation::Rules;
use graphc::generate::queue::{self, Prompt};
use graphc::generate::sample::Sampling;
use graphc::generate::vocabulary::Vocabulary;
use graphc::{checkpoint::Checkpoint, compile::Program, sources};

const PROMPTS: [&str; 4] =
    ["Once upon a time", "My dear", "It is a truth universally acknowledged, that", "Once upon a time"];

/// Prompts that run side by side.
const SIDE_BY_SIDE: u32 = 2;

fn main() -> Result<(), Box<dyn Error>> {
    run(60, &mut std::io::stdout())
}

/// Writes what each prompt goes on with, for this many tokens.
pub fn run(count: u32, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let checkpoint = Checkpoint::from_static("the built-in model", sources::DEMO_MODEL)?;
    let program = Program::built_in("rwkv7")?;
    let options = WgpuOptions { backend: WgpuBackend::Native, track: false, validation_layers: false };
    let executor = WgpuExecutor::new(&options, None)?;
    let compiler = program.compiler(checkpoint.index(), &executor.device().limits);
    // Steps of these sizes: a token of each sequence that decodes, and prompts in pieces.
    let sizes = (SIDE_BY_SIDE, vec![1, SIDE_BY_SIDE, 16, 128]);
    let mut batch = Batch::open(&executor, compiler, &checkpoint, sizes, &mut |_, _| ())?;

    let vocabulary = Vocabulary::byte_level();
    let prompt = |text: &str| {
        let tokens = vocabulary.encode(text)?;
        // Token 0 begins a text of the built-in model.
        Ok(Prompt { tokens: [vec![0], tokens].concat(), count, seed: 1 })
    };
    let prompts: Vec<Prompt> = PROMPTS.iter().map(|text| prompt(text)).collect::<Result<_, Box<dyn Error>>>()?;
    let rules = Rules {
        // What was said before becomes less likely, for as long as it is remembered.
        sampling: Sampling { top_p: 0.8, presence: 0.2, frequency: 0.2, decay: 0.99, ..Sampling::PLAIN },
        stop_tokens: vec![0],
        stop_texts: Vec::new(),
        vocabulary: Some(&vocabulary),
        top: None,
    };
    let mut texts = vec![String::new(); prompts.len()];
    queue::run(&mut batch, &prompts, &rules, None, &mut |nth, continued| {
        texts[nth] = continued.text;
        ControlFlow::Continue(())
    })?;
    for (prompt, text) in PROMPTS.iter().zip(texts) {
        writeln!(out, "{prompt}{text}\n")?;
    }
    Ok(())
}
