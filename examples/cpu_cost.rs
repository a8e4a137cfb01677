//! CPU time of a decode step on each executor, for the identical plan.
//!
//! `cargo run --release --example cpu_cost -- [STEPS]` prints a table for the back end that does nothing, and for the
//! first Vulkan device if there is one. The host waits for every step's logits, as decoding does; what is counted is
//! recording and submitting.

use graphc::base::limits::Limits;
use graphc::base::role::InputRole;
use graphc::base::span::SourceMap;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::compile::Compiler;
use graphc::exec::hal::{HalOptions, NoopExecutor, VulkanExecutor};
use graphc::exec::wgpu::{WgpuBackend, WgpuExecutor, WgpuOptions};
use graphc::exec::{Executor, Inputs, Session, Weights};
use graphc::plan::CheckedPlan;
use graphc::{graph, kernel, sources};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let steps: u32 = std::env::args().nth(1).map_or(Ok(200), |text| text.parse())?;
    let checkpoint = Checkpoint::from_static("the built-in model", sources::DEMO_MODEL)?;
    let plan = plan(&checkpoint)?;
    let summary = plan.summary();
    println!("{} dispatches, {} barriers, {} transitions", summary.dispatches, summary.barriers, summary.transitions);
    let hal = HalOptions { track: false, validation_layers: false, dropped: None };
    let wgpu = |backend| WgpuOptions { backend, track: false, validation_layers: false };
    println!("back end  executor  record us  submit us  together");
    measure("noop", "hal", &NoopExecutor::new(&hal, None)?, &plan, &checkpoint, steps)?;
    measure("noop", "wgpu", &WgpuExecutor::new(&wgpu(WgpuBackend::Noop), None)?, &plan, &checkpoint, steps)?;
    match VulkanExecutor::new(&hal, None) {
        Ok(executor) => {
            println!("vulkan: {}, {}", executor.device().name, executor.device().driver);
            measure("vulkan", "hal", &executor, &plan, &checkpoint, steps)?;
            let executor = WgpuExecutor::new(&wgpu(WgpuBackend::Native), None)?;
            measure("vulkan", "wgpu", &executor, &plan, &checkpoint, steps)?;
        }
        Err(error) => println!("skipped: {error}"),
    }
    Ok(())
}

fn plan(checkpoint: &Checkpoint) -> Result<CheckedPlan, Box<dyn std::error::Error>> {
    let mut map = SourceMap::new();
    let (kernels, diagnostics) = kernel::load(&mut map, &sources::shaders(None)?);
    assert!(diagnostics.is_empty(), "the built-in kernels are right");
    let (path, text) = sources::graphs(None)?.remove(0);
    let source = map.add(path, text);
    let graph = graph::parse(&map, source).expect("the built-in graphs are right");
    let limits = Limits::vulkan();
    let index = checkpoint.index();
    let compiler = Compiler {
        graph: &graph,
        kernels: &kernels,
        sources: &map,
        index,
        limits: &limits,
        keep: &[],
        batch_invariant: false,
    };
    Ok(compiler.compile(StepShape { tokens: 1, sequences: 1, rows: 1, capacity: 1 })?.plan)
}

/// Runs single-token steps and prints what one costs, the first few left out.
fn measure<E: Executor>(
    backend: &str,
    name: &str,
    executor: &E,
    plan: &CheckedPlan,
    checkpoint: &Checkpoint,
    steps: u32,
) -> Result<(), Box<dyn std::error::Error>> {
    let weights = Weights { layout: &plan.weights, checkpoint };
    let mut session = executor.open(&weights, &plan.state, &mut |_, _| {})?;
    let id = session.prepare(plan.clone())?;
    let inputs = Inputs::new()
        .with(InputRole::TokenIds, vec![32])
        .with(InputRole::SequenceOffsets, vec![0, 1])
        .with(InputRole::StateRows, vec![0])
        .with(InputRole::OutputRows, vec![0]);
    let mut before = session.cpu_cost();
    for step in 0..steps + 10 {
        if step == 10 {
            before = session.cpu_cost();
        }
        let ticket = session.step(id, &inputs)?;
        session.outputs(ticket)?;
    }
    let after = session.cpu_cost();
    let per_step = |ns: u64| ns as f64 / f64::from(steps) / 1e3;
    let (record, submit) = (per_step(after.record_ns - before.record_ns), per_step(after.submit_ns - before.submit_ns));
    println!("{backend:<9} {name:<9} {record:9.1}  {submit:9.1}  {:8.1}", record + submit);
    Ok(())
}
