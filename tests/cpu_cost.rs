//! What a decode step costs the CPU: the explicit executor has to be cheaper than the safe one, or there is no point in
//! it.
//!
//! Gets the built-in model's plan, the same for both; compares recording and submitting on the back end that does
//! nothing and on a software driver. The cheapest of many rounds counts, so that whatever else the machine does cannot
//! decide. Never compares with a fixed time.

mod support;

use graphc::base::limits::Limits;
use graphc::checkpoint::Checkpoint;
use graphc::exec::hal::{HalOptions, NoopExecutor, VulkanExecutor};
use graphc::exec::wgpu::{WgpuBackend, WgpuExecutor, WgpuOptions};
use graphc::exec::{ExecError, Executor};
use graphc::inspect::bench::{CpuStep, cheapest_step};
use graphc::plan::CheckedPlan;
use graphc::sources;
use support::runner::{Program, all_rows, compile};
use support::skip;

const ROUNDS: u32 = 12;
const STEPS: u32 = 4;

/// Nothing is checked while recording: a check per command would cost both executors the same.
const HAL: HalOptions = HalOptions { track: false, validation_layers: false, dropped: None };

const fn wgpu(backend: WgpuBackend) -> WgpuOptions {
    WgpuOptions { backend, track: false, validation_layers: false }
}

fn model() -> (Checkpoint, CheckedPlan) {
    let checkpoint = Checkpoint::from_static("the built-in model", sources::DEMO_MODEL).expect("built in");
    let plan = compile(&Program::rwkv7().compiler(checkpoint.index(), &Limits::vulkan(), &[]), all_rows(1));
    (checkpoint, plan)
}

fn cost<E: Executor>(executor: &E) -> CpuStep {
    let (checkpoint, plan) = model();
    cheapest_step(executor, &plan, &checkpoint, ROUNDS, STEPS).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn assert_cheaper(hal: CpuStep, wgpu: CpuStep) {
    assert!(hal.us() > 0.0, "time has passed: {hal:?}");
    assert!(hal.us() < wgpu.us(), "hal takes {hal:.1?}, wgpu {wgpu:.1?}");
}

#[test]
fn hal_costs_less_than_wgpu_without_a_device() {
    let hal = cost(&NoopExecutor::new(&HAL, None).expect("always there"));
    let wgpu = cost(&WgpuExecutor::new(&wgpu(WgpuBackend::Noop), None).expect("always there"));
    assert_cheaper(hal, wgpu);
}

#[test]
fn hal_costs_less_than_wgpu_on_llvmpipe() {
    let device = Some("llvmpipe");
    let hal = VulkanExecutor::new(&HAL, device);
    let wgpu = WgpuExecutor::new(&wgpu(WgpuBackend::Native), device);
    match (hal, wgpu) {
        (Ok(hal), Ok(wgpu)) => assert_cheaper(cost(&hal), cost(&wgpu)),
        (Err(ExecError::NoDevice { reason }), _) | (_, Err(ExecError::NoDevice { reason })) => skip(&reason),
        (Err(error), _) | (_, Err(error)) => panic!("{error}"),
    }
}
