//! Compiles a graph of one layer and prints its barriers. Takes no device.
//!
//! ```sh
//! cargo run --example compile_layer
//! ```
//!
//! The graph is the channel mix of block 0: y = x + Wv (max(Wk xk, 0))², where xk lies between the token's layer norm
//! and that of the token before it, which the state carries from step to step. Nothing in it says where a barrier
//! belongs.

use std::error::Error;

use graphc::base::{limits::Limits, step::StepShape};
use graphc::compile::{Compiler, Program};
use graphc::{checkpoint::Checkpoint, plan, sources};

const GRAPH: &str = r#"
Graph(
    name: "channel_mix",
    detect: (has: ["blocks.0.ffn.key.weight"]),
    dims: {"C": Weight("emb.weight", 1), "T": Tokens, "S": Sequences, "B": Capacity},
    state: {"last": State(dtype: f32, shape: ["B", "C"], init: 0.0)},
    inputs: {
        "tokens": Input(token_ids, ["T"]),
        "offsets": Input(sequence_offsets, ["S + 1"]),
        "places": Input(state_rows, ["S"]),
    },
    outputs: {},
    ops: [
        Op("embed", {"tokens": "in.tokens", "table": "w.emb.weight", "y": "x"}),
        Op("layer_norm", {"x": "x", "weight": "w.blocks.0.ln2.weight", "bias": "w.blocks.0.ln2.bias", "y": "ln"}),
        Op("token_shift", {
            "x": "ln", "last": "state.last", "offsets": "in.offsets", "places": "in.places", "y": "prev",
        }),
        Op("keep_last", {"x": "ln", "last": "state.last", "offsets": "in.offsets", "places": "in.places"}),
        Map("x + (prev - x) * mu", {"x": "ln", "prev": "prev", "mu": "w.blocks.0.ffn.x_k"}, "xk"),
        Op("linear", {"x": "xk", "weight": "w.blocks.0.ffn.key.weight", "y": "up"}),
        Map("square(max(up, 0.0))", {"up": "up"}, "key"),
        Op("linear", {"x": "key", "weight": "w.blocks.0.ffn.value.weight", "y": "value"}),
        Map("x + value", {"x": "x", "value": "value"}, "y"),
    ],
)
"#;

fn main() -> Result<(), Box<dyn Error>> {
    // Where weights lie and how large they are comes from a checkpoint's index; its bytes are not looked at.
    let checkpoint = Checkpoint::from_static("the built-in model", sources::DEMO_MODEL)?;

    // The graph of this file over the kernels that are built in. What is wrong with one is told with its line.
    let program = Program::parse("channel_mix.ron", GRAPH, &sources::shaders(None)?)?;

    // The graph has no output of its own; a kept value is one that the host reads after the step.
    let (limits, keep) = (Limits::webgpu(), ["y".to_owned()]);
    let compiler = Compiler { keep: &keep, ..program.compiler(checkpoint.index(), &limits) };
    let compiled = compiler.compile(StepShape { tokens: 4, sequences: 1, rows: 1, capacity: 1 })?;

    print!("{}", plan::print::barriers(&compiled.plan));
    Ok(())
}
