//! A new op, from its formula to numbers from a device: no Rust is about it but what runs it.
//!
//! ```sh
//! cargo run --example author_op
//! ```
//!
//! The op is the root mean square norm, y = x / sqrt(mean(x²) + eps) * weight over each row (Zhang and Sennrich 2019).
//! It is a manifest and a WGSL text; here they are strings, in a project two files of `shaders/`. Nothing says what the
//! kernel reads or writes, or where a barrier belongs: that is found in the text. Needs a device; a software driver
//! will do.

use std::error::Error;
use std::io::Write;

use graphc::base::role::InputRole;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::compile::{Compiler, Program};
use graphc::exec::wgpu::{WgpuBackend, WgpuExecutor, WgpuOptions};
use graphc::exec::{Executor, Inputs, Session, Weights};
use graphc::{plan, sources};

const MANIFEST: &str = r#"
Kernel(
    doc: "y = x / sqrt(mean of squares + eps) * weight, over each row",
    ports: {"x": ["T", "C"], "weight": ["C"], "y": ["T", "C"]},
    consts: {"C": "C", "eps": 1e-5},
    dispatch: ["T"],
)
"#;

const TEXT: &str = r#"
// y[t, c] = x[t, c] / sqrt(sum of x[t]² / C + eps) * weight[c]; a workgroup per row
#import "shared/sum.wgsl"
const LANES: u32 = 64u;
override C: u32;
override eps: f32;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.x * C;
    var squares = 0.0;
    for (var c = lane; c < C; c += LANES) {
        squares += load_x(row + c) * load_x(row + c);
    }
    let scale = 1.0 / sqrt(workgroup_sum(lane, squares) / f32(C) + eps);
    for (var c = lane; c < C; c += LANES) {
        store_y(row + c, load_x(row + c) * scale * load_weight(c));
    }
}
"#;

const GRAPH: &str = r#"
Graph(
    name: "norm",
    detect: (has: ["emb.weight"]),
    dims: {"C": Weight("emb.weight", 1), "T": Tokens},
    inputs: {"tokens": Input(token_ids, ["T"])},
    outputs: {},
    ops: [
        Op("embed", {"tokens": "in.tokens", "table": "w.emb.weight", "y": "x"}),
        Op("rms_norm", {"x": "x", "weight": "w.ln_out.weight", "y": "y", "eps": 1e-6}),
    ],
)
"#;

/// Sums of some hundred squares in two orders, in f32.
const TOLERANCE: f32 = 1e-4;

fn main() -> Result<(), Box<dyn Error>> {
    run(&mut std::io::stdout())
}

/// Compiles the op, runs it, and compares it with its formula.
pub fn run(out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let mut shaders = sources::shaders(None)?;
    shaders.push(("rms_norm.ron".to_owned(), MANIFEST.to_owned()));
    shaders.push(("rms_norm.wgsl".to_owned(), TEXT.to_owned()));

    // Mistakes in any of the three texts would come back as diagnostics with their lines.
    let program = Program::parse("norm.ron", GRAPH, &shaders)?;
    let checkpoint = Checkpoint::from_static("the built-in model", sources::DEMO_MODEL)?;
    let options = WgpuOptions { backend: WgpuBackend::Native, track: true, validation_layers: false };
    let executor = WgpuExecutor::new(&options, None)?;

    // The graph has no output of its own; kept values are read after the step.
    let keep = ["x".to_owned(), "y".to_owned()];
    let compiler = Compiler { keep: &keep, ..program.compiler(checkpoint.index(), &executor.device().limits) };
    let tokens = b"norm".map(u32::from);
    let shape = StepShape { tokens: tokens.len() as u32, sequences: 1, rows: 1, capacity: 1 };
    let compiled = compiler.compile(shape)?.plan;
    write!(out, "{}", plan::print::barriers(&compiled))?;

    let weights = Weights { layout: &compiled.weights, checkpoint: &checkpoint };
    let mut session = executor.open(&weights, &compiled.state, &mut |_, _| ())?;
    let plan = session.prepare(compiled)?;
    let ticket = session.step(plan, &Inputs::new().with(InputRole::TokenIds, tokens.to_vec()))?;
    let outputs = session.outputs(ticket)?;
    let kept = |name| outputs.named(name).map(|tensor| tensor.to_f32()).ok_or("a kept value is an output");
    let (x, y) = (kept("x")?, kept("y")?);

    let weight = checkpoint.tensor("ln_out.weight").ok_or("the model has it")?.to_f32();
    let expected: Vec<f32> = x.chunks_exact(weight.len()).flat_map(|row| formula(row, &weight)).collect();
    let worst = y.iter().zip(&expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max);
    writeln!(out, "{} numbers, at most {worst:.1e} from the formula", y.len())?;
    if worst > TOLERANCE || y.is_empty() { Err("the kernel does not compute its formula".into()) } else { Ok(()) }
}

/// The formula at the top.
fn formula(x: &[f32], weight: &[f32]) -> Vec<f32> {
    let squares: f32 = x.iter().map(|x| x * x).sum();
    let scale = 1.0 / (squares / x.len() as f32 + 1e-6).sqrt();
    x.iter().zip(weight).map(|(x, weight)| x * scale * weight).collect()
}
