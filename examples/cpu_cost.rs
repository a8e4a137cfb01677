//! CPU time of a decode step on each executor, for the identical plan.
//!
//! `cargo run --release --example cpu_cost -- [STEPS]` prints a table for the back end that does nothing, and for the
//! first Vulkan device if there is one, of rounds of that many steps the cheapest. The host waits for every step's
//! logits, as decoding does; what is counted is recording and submitting.

use graphc::base::limits::Limits;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::compile::Program;
use graphc::exec::Executor;
use graphc::exec::hal::{HalOptions, NoopExecutor, VulkanExecutor};
use graphc::exec::wgpu::{WgpuBackend, WgpuExecutor, WgpuOptions};
use graphc::inspect::bench::cheapest_step;
use graphc::plan::CheckedPlan;
use graphc::sources;

const ROUNDS: u32 = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let steps: u32 = std::env::args().nth(1).map_or(Ok(100), |text| text.parse())?;
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
    let (program, limits) = (Program::built_in("rwkv7")?, Limits::vulkan());
    let compiler = program.compiler(checkpoint.index(), &limits);
    Ok(compiler.compile(StepShape { tokens: 1, sequences: 1, rows: 1, capacity: 1 })?.plan)
}

/// Prints what a step of one token costs, in the cheapest of a few rounds.
fn measure<E: Executor>(
    backend: &str,
    name: &str,
    executor: &E,
    plan: &CheckedPlan,
    checkpoint: &Checkpoint,
    steps: u32,
) -> Result<(), Box<dyn std::error::Error>> {
    let cost = cheapest_step(executor, plan, checkpoint, ROUNDS, steps)?;
    println!("{backend:<9} {name:<9} {:9.1}  {:9.1}  {:8.1}", cost.record_us, cost.submit_us, cost.us());
    Ok(())
}
