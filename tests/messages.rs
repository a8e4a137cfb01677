//! The exact text of every message about what no author's file shows: devices, sessions, plan files, states, tokens.
//!
//! Gets each error as data, with what it would hold; compares the text that a user reads with the kept one, a line each
//! (`GRAPHC_ACCEPT=1` accepts). That these errors arise where they should is tested where that is: `failures`, `run`,
//! `run_plan`, `plan_file`.

mod support;

use graphc::base::dtype::DType;
use graphc::base::limits::Limits;
use graphc::base::role::InputRole;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::compile::{PlanFileError, Program};
use graphc::exec::ExecError;
use graphc::generate::batch::SequenceState;
use graphc::generate::state::{StateOwner, from_bytes, to_bytes};
use graphc::generate::{GenerateError, Rows};
use graphc::plan::Plan;
use graphc::plan::check::{Promise, check};
use graphc::plan::usage::Usage;
use graphc::plan::weights::{StateBuffer, StateLayout};
use graphc::sources;
use graphc::tensor::Tensor;
use support::golden::assert_golden;

#[test]
fn devices_and_sessions_fail_with_the_kept_texts() {
    let reason = || "why".to_owned();
    let errors = [
        ExecError::NoDevice { reason: reason() },
        ExecError::TooSmall { missing: vec!["max_buffer_bytes: 2 are needed, 1 is there".into(), "subgroups".into()] },
        ExecError::OtherLayout { reason: reason() },
        ExecError::Input { role: InputRole::TokenIds, expected: 4, found: 3 },
        ExecError::NoTransition { level: 3, transition: 7, reason: reason() },
        ExecError::Usage { command: "layer0.wkv".into(), buffer: "buf7 slot1".into(), reason: reason() },
        ExecError::OutOfMemory { what: "buffer `slot1` of 4096 bytes".into() },
        ExecError::Lost { reason: reason() },
        ExecError::Device { reason: reason() },
    ];
    let texts: Vec<String> = errors.iter().map(|error| format!("{error}\n")).collect();
    assert_golden("messages/devices.txt", &texts.concat());
}

#[test]
fn tokens_are_refused_with_the_kept_texts() {
    let errors = [
        GenerateError::Token { token: 300, at: 2, vocabulary: 256 },
        GenerateError::NoToken { character: 'é', at: 5 },
        GenerateError::NothingToDraw { logits: 256, not_numbers: 3 },
        GenerateError::NotANumber { at: 17 },
        GenerateError::NoLogits,
        GenerateError::NoRows(Rows::All),
        GenerateError::NoRows(Rows::Last),
        GenerateError::Sequence("a feed has no tokens".into()),
    ];
    let texts: Vec<String> = errors.iter().map(|error| format!("{error}\n")).collect();
    assert_golden("messages/tokens.txt", &texts.concat());
}

#[test]
fn plan_files_are_refused_with_the_kept_texts() {
    let checkpoint = Checkpoint::from_static("the built-in model", sources::DEMO_MODEL).expect("a sound checkpoint");
    let (program, limits) = (Program::built_in("rwkv7").expect("built in"), Limits::vulkan());
    let compiler = program.compiler(checkpoint.index(), &limits);
    let shape = StepShape { tokens: 1, sequences: 1, rows: 1, capacity: 1 };
    let mut plan: Plan = (*compiler.compile(shape).expect("a sound graph").plan).clone();
    plan.levels[3].barrier.remove(0);
    plan.version = 0;
    let broken = check(plan).expect_err("broken twice");
    let errors = [
        PlanFileError::Format("3:7: Expected identifier".into()),
        PlanFileError::OtherModel { expected: "0123".into(), found: "4567".into() },
        PlanFileError::Changed { expected: "89ab".into(), found: "cdef".into() },
        PlanFileError::Refused(broken),
        PlanFileError::Kernel { promise: Promise::P1, kernel: "linear.f16".into(), reason: "the text has more".into() },
    ];
    let texts: Vec<String> = errors.iter().map(|error| format!("{error}\n")).collect();
    assert_golden("messages/plan_files.txt", &texts.concat());
}

#[test]
fn states_are_refused_with_the_kept_texts() {
    let buffer = |label: &str, count: u64| StateBuffer {
        label: label.into(),
        dtype: DType::F32,
        rows: 1,
        row_shape: vec![count],
        init_bits: 0,
        init_weight: None,
        rest: Usage::STORAGE_READ,
    };
    let layout = |label: &str, count| StateLayout { buffers: vec![buffer(label, count)] };
    let owner = |graph: &str, fingerprint: &str| StateOwner { graph: graph.into(), fingerprint: fingerprint.into() };
    let tensor = Tensor { dtype: DType::F32, shape: vec![2], bytes: vec![0; 8] };
    let state = SequenceState { tensors: vec![("wkv.0".into(), tensor)] };
    let (ours, mine) = (layout("wkv.0", 2), owner("rwkv7", "0123"));
    let bytes = to_bytes(&state, &ours, &mine).expect("a state");
    assert_eq!(from_bytes(&bytes, &ours, &mine), Ok(state));
    let refused = [
        from_bytes(&bytes, &ours, &owner("rwkv6", "0123")),
        from_bytes(&bytes, &ours, &owner("rwkv7", "4567")),
        from_bytes(&bytes, &layout("wkv.0", 3), &mine),
        from_bytes(&bytes, &layout("att.0", 2), &mine),
        from_bytes(&bytes[..bytes.len() - 1], &ours, &mine),
        from_bytes(b"what is this", &ours, &mine),
    ];
    let texts: Vec<String> = refused.into_iter().map(|found| found.expect_err("refused") + "\n").collect();
    assert_golden("messages/states.txt", &texts.concat());
}
