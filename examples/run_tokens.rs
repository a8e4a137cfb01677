//! Runs tokens of the built-in model on the wgpu executor: a prompt in one step, then one step a token.
//!
//! ```sh
//! cargo run --release --example run_tokens -- "Once upon a time"
//! ```
//!
//! Needs a device of Vulkan, Metal or DX12; a software driver will do. The built-in model's tokens are bytes; token 0
//! begins a text and ends it. `graphc::generate::Decoder` does the same for prompts of any length, in steps of a few
//! sizes.

use std::error::Error;
use std::io::Write;

use graphc::base::role::{InputRole, OutputRole};
use graphc::base::step::StepShape;
use graphc::exec::wgpu::{WgpuBackend, WgpuExecutor, WgpuOptions};
use graphc::exec::{Executor, Inputs, PlanId, Session, Weights};
use graphc::generate::sample::argmax;
use graphc::{checkpoint::Checkpoint, compile::Program, sources};

fn main() -> Result<(), Box<dyn Error>> {
    let prompt = std::env::args().nth(1).unwrap_or_else(|| "Once upon a time".to_owned());
    run(&prompt, 80, &mut std::io::stdout())
}

/// Writes the prompt and what the model goes on with, for this many tokens.
pub fn run(prompt: &str, count: usize, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let mut tokens = vec![0];
    tokens.extend(prompt.bytes().map(u32::from));

    // What is compiled: a checkpoint, kernels, a graph.
    let checkpoint = Checkpoint::from_static("the built-in model", sources::DEMO_MODEL)?;
    let program = Program::built_in("rwkv7")?;

    // What it is compiled for: the device's limits and two sizes of a step. A plan is compiled once and replayed.
    let options = WgpuOptions { backend: WgpuBackend::Native, track: false, validation_layers: false };
    let executor = WgpuExecutor::new(&options, None)?;
    let compiler = program.compiler(checkpoint.index(), &executor.device().limits);
    let shape = |tokens| StepShape { tokens, sequences: 1, rows: 1, capacity: 1 };
    let prefill = compiler.compile(shape(tokens.len() as u32))?.plan;
    let decode = compiler.compile(shape(1))?.plan;

    // A session holds the weights and the state. Both plans expect them at the same places.
    let weights = Weights { layout: &decode.weights, checkpoint: &checkpoint };
    let mut session = executor.open(&weights, &decode.state, &mut |_, _| ())?;
    // Both share the memory of the larger one.
    let prefill = session.prepare(prefill)?;
    let decode = session.prepare(decode)?;

    let mut token = step(&mut session, prefill, &tokens)?;
    write!(out, "{prompt}")?;
    for _ in 0..count {
        if token == 0 {
            break;
        }
        out.write_all(&[token as u8])?;
        out.flush()?;
        token = step(&mut session, decode, &[token])?;
    }
    writeln!(out)?;
    Ok(())
}

/// Runs one step of one sequence; returns the likeliest next token.
fn step(session: &mut impl Session, plan: PlanId, tokens: &[u32]) -> Result<u32, Box<dyn Error>> {
    let count = tokens.len() as u32;
    let inputs = Inputs::new()
        .with(InputRole::TokenIds, tokens.to_vec())
        // Sequence 0 owns tokens 0 to `count`, and row 0 of the state.
        .with(InputRole::SequenceOffsets, vec![0, count])
        .with(InputRole::StateRows, vec![0])
        // Logits are wanted of the last token alone.
        .with(InputRole::OutputRows, vec![count - 1]);
    let ticket = session.step(plan, &inputs)?;
    let outputs = session.outputs(ticket)?;
    let logits = outputs.role(OutputRole::Logits).ok_or("the graph has no logits")?;
    Ok(argmax(&logits.to_f32()))
}
