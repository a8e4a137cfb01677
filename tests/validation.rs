//! A whole model under Vulkan's synchronization validation: silent as planned, and not silent with one transition
//! missing.
//!
//! Gets the built-in model, run by the program with hal on llvmpipe: three steps of prompt and ten of decoding, hazards
//! between submissions included. Without the second half the first would prove nothing: a layer that is not there is
//! silent too. The tracker, which names what a missing transition breaks, needs no driver.

mod program;
mod support;

use std::path::Path;

use graphc::base::limits::Limits;
use graphc::base::role::InputRole;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::compile::Program;
use graphc::exec::hal::{HalOptions, NoopExecutor};
use graphc::exec::replay::TransitionAt;
use graphc::exec::{ExecError, Executor, Inputs, Session, Weights};
use graphc::plan::command::Command;
use graphc::plan::usage::Usage;
use graphc::plan::{CheckedPlan, Plan};
use graphc::sources;
use program::{Ran, graphc_with};
use support::skip;

/// Mesa's driver, by itself: `--target device` then means the device that the program runs on.
const DRIVER: &str = "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json";
const LAYER: &str = "/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json";

/// Three steps of 16 tokens, the last one padded.
const PROMPT: &str = "There was once a king who had three sons";

fn run(more: &[&str]) -> Ran {
    let mut args = vec!["run", "--executor", "hal", "--device", "llvmpipe", "--validate", "--prompt", PROMPT];
    args.extend(["--step-tokens", "16", "-n", "11", "--temperature", "0"]);
    args.extend(more);
    program(&args)
}

fn program(args: &[&str]) -> Ran {
    let across_submissions = "VALIDATION_CHECK_ENABLE_SYNCHRONIZATION_VALIDATION_QUEUE_SUBMIT";
    graphc_with(args, &[("VK_ICD_FILENAMES", DRIVER), ("VK_LAYER_ENABLES", across_submissions)])
}

#[test]
fn built_in_model_is_free_of_hazards_and_without_a_transition_it_is_not() {
    if let Some(missing) = [DRIVER, LAYER].into_iter().find(|path| !Path::new(path).exists()) {
        return skip(&format!("there is no `{missing}`"));
    }
    let silent = run(&[]).fine();
    assert!(!silent.err.contains("validation"), "{silent}");
    let json = program(&["compile", "--target", "device", "--emit", "plan", "--format", "json"]).fine().out;
    let plan: Plan = serde_json::from_str(&json).expect("a plan");
    let between_dispatches = raw(&plan, Usage::STORAGE_READ);
    let before_a_copy = raw(&plan, Usage::COPY_SRC);
    for (dropped, _) in [between_dispatches, before_a_copy] {
        let spoken = run(&["--drop-transition", &format!("{}.{}", dropped.level, dropped.transition)]);
        assert_eq!(spoken.code, Some(1), "{spoken}");
        assert!(spoken.err.contains("validation: ") && spoken.err.contains("SYNC-HAZARD"), "{spoken}");
    }
}

#[test]
fn tracker_names_op_and_buffer_of_a_missing_transition() {
    let plan = plan();
    let (dropped, reader) = raw(&plan, Usage::STORAGE_READ);
    let options = |dropped| HalOptions { track: true, validation_layers: false, dropped };
    step(&plan, &options(None)).expect("nothing is missing");
    let label = &plan.buffers[plan.levels[dropped.level].barrier[dropped.transition].buffer].label;
    match step(&plan, &options(Some(dropped))) {
        Err(ExecError::Usage { command, buffer, reason }) => {
            assert!(command == reader && buffer.ends_with(label), "{command}, {buffer}: {reason}");
            assert!(reason.contains("a transition is missing"), "{reason}");
        }
        other => panic!("{dropped:?} is not noticed: {other:?}"),
    }
}

/// A transition of a slot from a write to this read, in the middle of the plan or after it, and the first command that
/// needs it.
fn raw(plan: &Plan, read: Usage) -> (TransitionAt, String) {
    for (level, commands) in plan.levels.iter().enumerate().skip(plan.levels.len() / 2) {
        for (transition, moved) in commands.barrier.iter().enumerate() {
            let reader = commands.commands.iter().find(|command| match command {
                Command::Dispatch(dispatch) => dispatch.bindings.iter().any(|slice| slice.buffer == moved.buffer),
                Command::Copy(copy) => copy.from.buffer == moved.buffer,
            });
            if let (Usage::STORAGE_WRITE, true, Some(reader)) = (moved.from, moved.to.contains(read), reader) {
                return (TransitionAt { level, transition }, reader.label().to_owned());
            }
        }
    }
    panic!("the plan has a write that is read as {read}")
}

/// The plan of a decoding step of the built-in model, for a baseline.
fn plan() -> CheckedPlan {
    let (program, limits, checkpoint) = (Program::built_in("rwkv7").expect("built in"), Limits::vulkan(), checkpoint());
    let compiler = program.compiler(checkpoint.index(), &limits);
    compiler.compile(StepShape { tokens: 1, sequences: 1, rows: 1, capacity: 1 }).expect("a sound graph").plan
}

fn checkpoint() -> Checkpoint {
    Checkpoint::from_static("the built-in model", sources::DEMO_MODEL).expect("a sound checkpoint")
}

/// Records a step on the device that does nothing.
fn step(plan: &CheckedPlan, options: &HalOptions) -> Result<(), ExecError> {
    let checkpoint = checkpoint();
    let weights = Weights { layout: &plan.weights, checkpoint: &checkpoint };
    let mut session = NoopExecutor::new(options, None)?.open(&weights, &plan.state, &mut |_, _| ())?;
    let id = session.prepare(plan.clone())?;
    let inputs = Inputs::new()
        .with(InputRole::TokenIds, vec![1])
        .with(InputRole::SequenceOffsets, vec![0, 1])
        .with(InputRole::StateRows, vec![0])
        .with(InputRole::OutputRows, vec![0]);
    let ticket = session.step(id, &inputs)?;
    session.outputs(ticket).map(drop)
}
