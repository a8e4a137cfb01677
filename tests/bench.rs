//! What `graphc bench` measures, and how it prints it.
//!
//! Gets the built-in model and the built-in streaming read. No test knows how fast anything is: figures are compared
//! with each other, and with numbers that follow from the plan. Those that need a device skip without.

mod program;
mod support;

use graphc::base::limits::Limits;
use graphc::base::role::{InputRole, OutputRole};
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::exec::hal::{HalOptions, NoopExecutor};
use graphc::exec::wgpu::{WgpuBackend, WgpuExecutor, WgpuOptions};
use graphc::exec::{Executor, Inputs, Session, Weights};
use graphc::inspect::bench::results::TOLERANCE;
use graphc::inspect::bench::weight_bytes_read;
use graphc::sources;
use program::{devices, graphc, text};
use support::runner::{AnyExecutor, KINDS, Program, all_rows, compile};
use support::{TempDir, skip};

/// The model that is built in.
fn checkpoint() -> Checkpoint {
    Checkpoint::from_static("the built-in model", sources::DEMO_MODEL).expect("built in")
}

/// Token 1 of the only sequence.
fn one_token() -> Inputs {
    Inputs::new()
        .with(InputRole::TokenIds, vec![1])
        .with(InputRole::SequenceOffsets, vec![0, 1])
        .with(InputRole::StateRows, vec![0])
        .with(InputRole::OutputRows, vec![0])
}

#[test]
fn bytes_of_weights_are_all_but_the_table_that_tokens_look_up() {
    let (checkpoint, program) = (checkpoint(), Program::rwkv7());
    let limits = Limits::vulkan();
    for tokens in [1, 16] {
        let compiler = program.compiler(checkpoint.index(), &limits, &[]);
        let compiled = compiler.compile(all_rows(tokens)).unwrap_or_else(|error| panic!("{error}"));
        let bytes = |name: &str| checkpoint.bytes(name).expect("the model has it").len() as u64;
        let all: u64 = compiled.model.weights.iter().map(|weight| bytes(&weight.tensor)).sum();
        assert_eq!(weight_bytes_read(&compiled.model), all - bytes("emb.weight"));
    }
}

#[test]
fn streaming_read_reads_every_element_in_every_pass() {
    const BLOCKS: u32 = 3;
    const PASSES: u32 = 2;
    let graphs = sources::graphs(None).expect("built in");
    let (path, text) = graphs.into_iter().find(|(path, _)| path == "tools/bandwidth.ron").expect("built in");
    let program = Program::parse(&path, text, &sources::shaders(None).expect("built in"));
    let checkpoint = checkpoint();
    for kind in KINDS {
        let Some(executor) = AnyExecutor::find(kind, "llvmpipe") else { continue };
        let limits = executor.device().limits.clone();
        let rows = BLOCKS * PASSES;
        let shape = StepShape { tokens: PASSES, sequences: 1, rows, capacity: BLOCKS };
        let plan = compile(&program.compiler(checkpoint.index(), &limits, &[]), shape);
        let weights = Weights { layout: &plan.weights, checkpoint: &checkpoint };
        let mut session = executor.open(&weights, &plan.state, &mut |_, _| ()).expect("open");
        // A block of its own value each, so that a pass that reads another block is noticed.
        let row_count = plan.state.buffers[0].row_count() as usize;
        for block in 0..BLOCKS {
            let bytes = (block as f32 + 1.0).to_le_bytes().repeat(row_count);
            session.write_state(0, block.into(), &bytes).expect("written");
        }
        let id = session.prepare(plan).expect("prepared");
        let ticket = session.step(id, &Inputs::new().with(InputRole::OutputRows, (0..rows).collect()));
        let outputs = session.outputs(ticket.expect("submitted")).expect("outputs");
        let sums = outputs.role(OutputRole::Logits).expect("the sums");
        let lanes = sums.shape[1] as usize;
        for (row, sums) in (0..rows).zip(sums.to_f32().chunks_exact(lanes)) {
            let expected = (row % BLOCKS + 1) as f32 * (row_count / lanes) as f32;
            assert_eq!(sums, vec![expected; lanes], "{kind:?}, row {row}");
        }
    }
}

#[test]
fn steps_are_timed_only_where_that_was_asked_for() {
    let (checkpoint, program) = (checkpoint(), Program::rwkv7());
    for kind in KINDS {
        let Some(executor) = AnyExecutor::find(kind, "llvmpipe") else { continue };
        let limits = executor.device().limits.clone();
        let plan = compile(&program.compiler(checkpoint.index(), &limits, &[]), all_rows(1));
        let weights = Weights { layout: &plan.weights, checkpoint: &checkpoint };
        let mut session = executor.open(&weights, &plan.state, &mut |_, _| ()).expect("open");
        let plain = session.prepare(plan.clone()).expect("prepared");
        let timed = session.prepare_timed(plan).expect("prepared");
        let inputs = one_token();
        // The first step's outputs are discarded; it counts all the same.
        let mut last = None;
        for plan in [plain, timed, timed, timed, plain] {
            last = Some(session.step(plan, &inputs).expect("submitted"));
        }
        session.outputs(last.expect("five steps")).expect("outputs");
        let before = session.gpu_cost();
        assert!(before.steps <= 3, "{kind:?}: plain steps are not timed: {before:?}");
        let began = std::time::Instant::now();
        let ticket = session.step(timed, &inputs).expect("submitted");
        session.outputs(ticket).expect("outputs");
        let wall_ns = began.elapsed().as_nanos() as u64;
        let after = session.gpu_cost();
        assert!((1..=4).contains(&after.steps), "{kind:?}: {after:?}");
        // Steps before may have been counted only now; the last one alone takes no longer than the host has waited.
        if after.steps == before.steps + 1 {
            let ns = after.ns - before.ns;
            assert!(ns < wall_ns && ns > wall_ns / 50, "{kind:?}: {ns} of {wall_ns} ns");
        }
    }
}

/// Runs timed steps on a back end whose clock stands still, and drops everything.
fn count_timed_steps<E: Executor>(executor: &E) -> u64 {
    let (checkpoint, program) = (checkpoint(), Program::rwkv7());
    let plan = compile(&program.compiler(checkpoint.index(), &Limits::vulkan(), &[]), all_rows(1));
    let weights = Weights { layout: &plan.weights, checkpoint: &checkpoint };
    let mut session = executor.open(&weights, &plan.state, &mut |_, _| ()).expect("open");
    let timed = session.prepare_timed(plan).expect("prepared");
    for _ in 0..3 {
        let ticket = session.step(timed, &one_token()).expect("submitted");
        session.outputs(ticket).expect("outputs");
    }
    session.gpu_cost().steps
}

#[test]
fn steps_without_timestamps_are_not_counted() {
    let hal = HalOptions { track: true, validation_layers: false, dropped: None };
    assert_eq!(count_timed_steps(&NoopExecutor::new(&hal, None).expect("always there")), 0);
    let wgpu = WgpuOptions { backend: WgpuBackend::Noop, track: true, validation_layers: false };
    assert_eq!(count_timed_steps(&WgpuExecutor::new(&wgpu, None).expect("always there")), 0);
}

#[test]
fn figures_come_as_one_json_object_and_as_a_table() {
    const SMALL: [&str; 9] = ["bench", "--prefill", "3", "--decode", "2", "--rounds", "1", "--device", "llvmpipe"];
    for executor in ["hal", "wgpu"] {
        match devices(executor) {
            Ok(names) if names.iter().any(|name| name.contains("llvmpipe")) => {}
            Ok(_) => return skip("no llvmpipe"),
            Err(reason) => return skip(&reason),
        }
        let ran = graphc(&[&SMALL[..], &["--executor", executor, "--format", "json"]].concat()).fine();
        let report: serde_json::Value = serde_json::from_str(&ran.out).expect("one JSON object");
        for field in [
            "decode_tokens_per_s",
            "decode_queued_tokens_per_s",
            "decode_carried_tokens_per_s",
            "prefill_tokens_per_s",
            "cpu_us_per_step",
        ] {
            assert!(report[field].as_f64().is_some_and(|figure| figure > 0.0), "{field}: {ran}");
        }
        for field in ["gpu_us_per_step", "bandwidth_share", "bandwidth_gb_per_s"] {
            assert!(report[field].as_f64().is_some_and(|figure| figure > 0.0), "{field}: {ran}");
        }
        for field in ["dispatches", "levels", "barriers", "weight_bytes_per_token"] {
            assert!(report[field].as_u64().is_some_and(|count| count > 0), "{field}: {ran}");
        }
        assert_eq!((&report["executor"], &report["graph"]), (&executor.into(), &"rwkv7".into()));
        assert_eq!((&report["prefill_tokens"], &report["decode_tokens"]), (&3.into(), &2.into()));
        assert!(report["device"].as_str().is_some_and(|name| name.contains("llvmpipe")), "{ran}");
        assert!(report["driver"].is_string(), "{ran}");
        let results = ["rows", "greedy_tokens_equal", "drawn_tokens", "drawn_tokens_equal"];
        assert_eq!(results.map(|field| report[field].as_u64()), [9, 9, 8, 8].map(Some), "{ran}");
        let [apart, largest] = ["fuse_off_difference", "largest_logit"].map(|field| report[field].as_f64());
        let (apart, largest) = (apart.expect("a number"), largest.expect("a number"));
        assert!(largest > 1.0 && apart > 0.0 && apart < largest * TOLERANCE / 5.0, "{ran}");
        assert_eq!((&report["are_right"], &report["reordered_difference"]), (&true.into(), &serde_json::Value::Null));
    }
    let table = graphc(&[&SMALL[..], &["--executor", "hal"]].concat()).fine().out;
    for line in ["prefill", "decode", "queued", "CPU", "GPU", "share", "results   within "] {
        assert_eq!(table.lines().filter(|other| other.starts_with(line)).count(), 1, "{line}: {table}");
    }
}

#[test]
fn figures_of_plans_that_compute_something_else_are_printed_and_fail() {
    match devices("hal") {
        Ok(names) if names.iter().any(|name| name.contains("llvmpipe")) => {}
        Ok(_) => return skip("no llvmpipe"),
        Err(reason) => return skip(&reason),
    }
    let dir = TempDir::new();
    let built_in = [sources::graphs(None), sources::parts(None)].map(|texts| texts.expect("built in")).concat();
    for (path, text) in built_in {
        let path = dir.file(&path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("written");
    }
    std::fs::create_dir_all(dir.file("rewrites")).expect("a folder");
    let folder = dir.file("");
    let rule = |replacement: &str| {
        let rule = format!(
            "Rewrite(pattern: [Map(\"square(max(up, 0.0))\", {{\"up\": \"up\"}}, \"key\")], \
             replacement: [Map(\"{replacement}\", {{\"up\": \"up\"}}, \"key\")])"
        );
        std::fs::write(dir.file("rewrites/relu.ron"), rule).expect("written");
    };
    let run_some = |sequences: &str, more: &[&str]| {
        let small = ["bench", "--prefill", "3", "--decode", "1", "--rounds", "1", "--device", "llvmpipe"];
        let folder = ["--executor", "hal", "--sequences", sequences, "--graphs", text(&folder)];
        graphc(&[&small[..], &folder, more].concat())
    };
    let run = |more: &[&str]| run_some("3", more);
    let wrong = "the plans measured compute something else than those of `--fuse off`";
    rule("square(max(up, 0.5))");
    // There, one token is summed in another order where several need not be.
    let ran = run_some("1", &[]).fails_with_result(1, "results   WRONG: up to ", &[wrong]);
    assert!(ran.out.contains("; --fuse off summed in another order is up to "), "{ran}");
    let ran = run_some("1", &["--format", "json"]).fails_with_result(1, "\"are_right\": false", &[wrong]);
    let report: serde_json::Value = serde_json::from_str(&ran.out).expect("one JSON object");
    let [apart, rounding] =
        ["fuse_off_difference", "reordered_difference"].map(|field| report[field].as_f64().expect("a number"));
    assert!(rounding > 0.0 && rounding < apart / 100.0, "{ran}");
    rule("square(up - up) / square(up - up)");
    let ran = run(&["--format", "json"]).fails_with_result(1, "\"fuse_off_difference\": null", &[wrong]);
    let report: serde_json::Value = serde_json::from_str(&ran.out).expect("one JSON object");
    assert_eq!((&report["rows"], &report["are_right"]), (&25.into(), &false.into()), "{ran}");
    let unfused = run(&["--fuse", "off"]).fine();
    assert!(unfused.out.contains("results   not compared: nothing is fused\n"), "{unfused}");
    let json = run(&["--fuse", "off", "--format", "json"]).fine().out;
    assert!(!json.contains("fuse_off_difference"), "{json}");
}

#[test]
fn what_a_benchmark_or_a_text_compiles_is_kept_where_it_is_asked_for() {
    match devices("hal") {
        Ok(names) if names.iter().any(|name| name.contains("llvmpipe")) => {}
        Ok(_) => return skip("no llvmpipe"),
        Err(reason) => return skip(&reason),
    }
    let dir = TempDir::new();
    std::fs::write(dir.file("a.txt"), "To be").expect("written");
    let (letters, kept) = (dir.file("a.txt"), dir.file("kept"));
    let on = ["--executor", "hal", "--device", "llvmpipe", "--pipeline-cache"];
    let bench = ["bench", "--prefill", "1", "--decode", "1", "--rounds", "1"];
    for command in [&bench[..], &["perplexity", text(&letters)]] {
        graphc(&[command, &on, &[text(&kept)]].concat()).fine();
        let files = std::fs::read_dir(&kept).expect("a folder").count();
        assert_eq!(files, 1, "{command:?}");
        std::fs::remove_dir_all(&kept).expect("removed");
        graphc(&[command, &on, &["none"]].concat()).fine();
        assert!(!kept.exists(), "{command:?}");
    }
}

#[test]
fn tools_are_run_when_named_and_never_detected() {
    let emitted = graphc(&["compile", "bandwidth", "--tokens", "2"]).fine().out;
    assert!(emitted.contains("bandwidth"), "{emitted}");
    let detected = graphc(&["compile"]).fine().out;
    assert!(detected.contains("rwkv7") && !detected.contains("bandwidth"), "{detected}");
}
