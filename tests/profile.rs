//! `graphc bench --profile`: where the time of a step goes, as tables, JSON and a trace, and beside a plan's lines.
//!
//! Gets the built-in model on software drivers and on the CPU. No test knows how long anything takes: sums are compared
//! with their parts, bytes with what follows from the plan. Those that need a device skip without.

mod program;
mod support;

use graphc::base::limits::Limits;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::exec::hal::{HalOptions, NoopExecutor};
use graphc::exec::times::{Grain, HostWork};
use graphc::exec::{ExecError, Executor, Inputs, Session, Weights};
use graphc::generate::GenerateError;
use graphc::inspect::bench::weight_bytes_read;
use graphc::inspect::profile::{ProfileOptions, profile};
use graphc::inspect::traffic::{Traffic, traffic};
use graphc::sources;
use program::{devices, graphc, text};
use serde_json::Value;
use support::runner::{AnyExecutor, Program, all_rows, compile, everywhere};
use support::{TempDir, skip};

/// The model that is built in.
fn checkpoint() -> Checkpoint {
    Checkpoint::from_static("the built-in model", sources::DEMO_MODEL).expect("built in")
}

fn one_token() -> Inputs {
    graphc::inspect::bench::step_inputs(1, 1)
}

/// Whether llvmpipe is there for this executor; says so if not.
fn has_llvmpipe(executor: &str) -> bool {
    match devices(executor) {
        Ok(names) if names.iter().any(|name| name.contains("llvmpipe")) => return true,
        Ok(_) => skip("no llvmpipe"),
        Err(reason) => skip(&reason),
    }
    false
}

#[test]
fn every_part_of_a_step_has_its_time() {
    let (checkpoint, program) = (checkpoint(), Program::rwkv7());
    for (device, kind) in everywhere() {
        let Some(executor) = AnyExecutor::find(kind, device) else { continue };
        let limits = executor.device().limits.clone();
        let plan = compile(&program.compiler(checkpoint.index(), &limits, &[]), all_rows(1));
        let weights = Weights { layout: &plan.weights, checkpoint: &checkpoint };
        let mut session = executor.open(&weights, &plan.state, &mut |_, _| ()).expect("open");
        let expected = [2, 2 + plan.levels.len(), 2 + plan.commands().count()];
        let mut logits = Vec::new();
        for (grain, moments) in [Grain::Step, Grain::Levels, Grain::Commands].into_iter().zip(expected) {
            let id = session.prepare_profiled(plan.clone(), grain).expect("it has a clock");
            for (index, buffer) in (0..).zip(&plan.state.buffers) {
                session.write_state(index, 0, &buffer.init_row()).expect("the state is written");
            }
            let ticket = session.step(id, &one_token()).expect("submitted");
            logits.push(session.outputs(ticket).expect("outputs"));
            let log = session.take_log(id);
            assert_eq!(log.steps.len(), 1, "{device} {kind:?} {grain:?}");
            let step = &log.steps[0];
            assert_eq!(step.moments_ns.len(), moments, "{device} {kind:?} {grain:?}");
            assert!(step.moments_ns.is_sorted() && step.total_ns() > 0, "{device} {kind:?}: {step:?}");
            assert_eq!(step.parts_ns().sum::<u64>(), step.total_ns());
            assert!(log.host.iter().any(|span| span.work == HostWork::Submit), "{device} {kind:?}");
            assert_eq!(session.take_log(id).steps, [], "what was taken is gone");
        }
        assert!(logits.windows(2).all(|pair| pair[0] == pair[1]), "{device} {kind:?}: looking changes nothing");
    }
}

#[test]
fn a_device_without_a_clock_says_so() {
    let executor = NoopExecutor::new(&HalOptions { track: true, validation_layers: false, dropped: None }, None);
    let (checkpoint, program, limits) = (checkpoint(), Program::rwkv7(), Limits::vulkan());
    let compiler = program.compiler(checkpoint.index(), &limits, &[]);
    let tool = graphc::compile::Program::built_in("tools/bandwidth").expect("built in");
    let stream = tool.compiler(checkpoint.index(), &limits);
    let options = ProfileOptions { sequences: 1, tokens: 1, rounds: 1 };
    let executor = executor.expect("always there");
    let found = profile(&executor, "hal", compiler, &stream, &checkpoint, &options);
    let error = found.expect_err("the no-op device writes no timestamps");
    assert!(matches!(error, GenerateError::Exec(ExecError::NoClock { .. })), "{error}");
}

#[test]
fn bytes_of_weights_are_those_that_bench_counts() {
    let (checkpoint, program, limits) = (checkpoint(), Program::rwkv7(), Limits::vulkan());
    let compiler = program.compiler(checkpoint.index(), &limits, &[]);
    let total = |shape| {
        let compiled = compiler.compile(shape).expect("compiles");
        let traffic: Traffic = traffic(&compiled.model, &compiled.plan).into_iter().flatten().sum();
        (traffic, weight_bytes_read(&compiled.model))
    };
    let shape = |sequences, capacity| StepShape { tokens: sequences, sequences, rows: sequences, capacity };
    let (one, read) = total(shape(1, 1));
    // Every weight is read by one op but for lerps, and what lies between packed tensors counts in one of them alone.
    assert!(one.weight_bytes.abs_diff(read) < read / 100, "{} and {read}", one.weight_bytes);
    let (four, _) = total(shape(4, 4));
    assert_eq!(four.weight_bytes, one.weight_bytes);
    assert_eq!(four.state_bytes, 4 * one.state_bytes);
    let (roomy, _) = total(shape(1, 4));
    assert_eq!(roomy, one, "rows of other sequences are left alone");
}

/// The number at a path such as `levels.3.us`.
fn number(value: &Value, path: &str) -> f64 {
    let found = path.split('.').fold(value, |value, key| match key.parse::<usize>() {
        Ok(index) => &value[index],
        Err(_) => &value[key],
    });
    found.as_f64().unwrap_or_else(|| panic!("no number at `{path}`"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no list `{key}`"))
}

fn sum(values: &[Value], path: &str) -> f64 {
    values.iter().map(|value| number(value, path)).sum()
}

fn assert_near(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() <= expected.abs() * 1e-9 + 1e-6, "{what}: {found} and {expected}");
}

/// What holds of every profile.
fn check(profile: &Value) {
    let (levels, groups) = (list(profile, "levels"), list(profile, "level_groups"));
    let commands: Vec<Value> = levels.iter().flat_map(|level| list(level, "commands").to_vec()).collect();
    let kinds = list(profile, "command_groups");
    assert_near(sum(levels, "us") + number(profile, "leave_us"), number(profile, "levels_us"), "levels and step");
    assert_near(sum(groups, "us"), sum(levels, "us"), "groups and levels");
    assert_near(sum(kinds, "us"), sum(&commands, "us"), "groups and commands");
    assert!(sum(&commands, "us") <= number(profile, "commands_us") + 1e-6);
    assert_near(sum(groups, "bytes"), sum(levels, "bytes"), "bytes of groups");
    assert_near(sum(&commands, "bytes"), sum(levels, "bytes"), "bytes of commands");
    let parts = ["weight_bytes", "state_bytes", "value_bytes", "host_bytes"];
    let all: f64 = parts.iter().map(|part| number(profile, &format!("traffic.{part}"))).sum();
    assert_near(all, sum(levels, "bytes"), "bytes of the step");
    assert_eq!(sum(groups, "count") as usize, levels.len());
    assert_eq!(sum(kinds, "count") as usize, commands.len());
    let bandwidth = number(profile, "bandwidth_gb_per_s") * 1e3;
    for level in levels {
        let (us, bytes, drain) = (number(level, "us"), number(level, "bytes"), number(level, "drain_us"));
        assert_near(drain, (us - bytes / bandwidth).max(0.0), "drain");
        assert_near(number(level, "bandwidth_share") * us * bandwidth, if us > 0.0 { bytes } else { 0.0 }, "share");
    }
    assert!(groups.windows(2).all(|pair| number(&pair[0], "us") >= number(&pair[1], "us")), "longest first");
    assert!(groups.iter().any(|group| number(group, "count") > 1.0), "layers are put together");
}

/// What holds of every trace: spans of a track do not overlap, and every level is there.
fn check_trace(trace: &Value, profile: &Value) {
    let spans: Vec<&Value> = list(trace, "traceEvents").iter().filter(|event| event["ph"] == "X").collect();
    for (pid, tid) in [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2)] {
        let track: Vec<&&Value> = spans.iter().filter(|span| span["pid"] == pid && span["tid"] == tid).collect();
        assert!(!track.is_empty(), "track {pid}.{tid}");
        for pair in track.windows(2) {
            let end = number(pair[0], "ts") + number(pair[0], "dur");
            assert!(end <= number(pair[1], "ts") + 1e-3, "{} and {}", pair[0], pair[1]);
        }
    }
    let levels = spans.iter().filter(|span| span["pid"] == 1 && span["tid"] == 2).count();
    let steps = spans.iter().filter(|span| span["pid"] == 1 && span["tid"] == 1).count();
    assert_eq!(levels, steps * (list(profile, "levels").len() + 1));
    let names = list(trace, "traceEvents").iter().filter(|event| event["name"] == "process_name").count();
    assert_eq!(names, 3);
}

#[test]
fn profiles_add_up_in_every_form() {
    let folder = TempDir::new();
    let (json, trace) = (folder.file("profile.json"), folder.file("trace.json"));
    for (executor, flags) in [("hal", vec!["--sequences", "2"]), ("wgpu", vec![]), ("reference", vec![])] {
        let device = if executor == "reference" { "" } else { "llvmpipe" };
        if executor != "reference" && !has_llvmpipe(executor) {
            continue;
        }
        let mut args = vec!["bench", "--profile", "--rounds", "1", "--executor", executor, "--device", device];
        args.extend(["--profile-json", text(&json), "--trace", text(&trace)]);
        args.extend(flags);
        let ran = graphc(&args).fine();
        for line in ["step", "bytes", "levels", "commands", "CPU", "levels alike", "commands alike"] {
            assert!(ran.out.lines().any(|other| other.starts_with(line)), "{line}: {ran}");
        }
        let read = |path| serde_json::from_slice::<Value>(&std::fs::read(path).expect("written")).expect("JSON");
        let profile = read(&json);
        check(&profile);
        check_trace(&read(&trace), &profile);
        assert_eq!(profile["executor"], executor);
    }
}

#[test]
fn a_profile_stands_beside_the_lines_of_its_plan_alone() {
    let folder = TempDir::new();
    let json = folder.file("profile.json");
    let args = ["bench", "--profile", "--rounds", "1", "--executor", "reference", "--profile-tokens", "2"];
    let printed = graphc(&[&args[..], &["--profile-json", text(&json), "--format", "json"]].concat()).fine().out;
    let profile: Value = serde_json::from_str(&printed).expect("JSON");
    check(&profile);
    let limits = folder.file("limits.ron");
    std::fs::write(&limits, device_limits()).expect("written");
    let compile = |tokens: &str, roofline: &str| {
        graphc(&["compile", "--tokens", tokens, "--target", text(&limits), "--emit", "plan", roofline])
    };
    let plain = graphc(&["compile", "--tokens", "2", "--target", text(&limits), "--emit", "plan"]).fine().out;
    let bytes = compile("2", "--roofline").fine().out;
    let measured = compile("2", &format!("--roofline={}", text(&json))).fine().out;
    let cut = |text: &str| {
        text.lines().map(|line| line.split("  | ").next().unwrap_or_default().to_owned() + "\n").collect::<String>()
    };
    assert_eq!(cut(&bytes), cut(&plain));
    assert_eq!(cut(&measured), cut(&plain));
    let count = list(&profile, "levels").len() + sum(list(&profile, "command_groups"), "count") as usize;
    let ending = |text: &str, ending: &str| text.lines().filter(|line| line.ends_with(ending)).count();
    assert_eq!(ending(&bytes, " %"), count);
    assert_eq!(ending(&measured, " of the roofline"), count);
    let other = compile("1", &format!("--roofline={}", text(&json)));
    other.fails(1, &["is the profile of another plan", "StepShape"]);
    std::fs::write(&json, "{}").expect("written");
    compile("2", &format!("--roofline={}", text(&json))).fails(1, &["is no profile"]);
}

/// The limits of the reference executor's device, as a file for `--target`.
fn device_limits() -> String {
    let executor = AnyExecutor::find(support::runner::Kind::Reference, "the CPU").expect("always there");
    ron::ser::to_string(&executor.device().limits).expect("limits are plain data")
}

#[test]
fn flags_that_mean_nothing_are_refused() {
    for flag in ["--profile-json=x", "--trace=x", "--profile-tokens=2"] {
        graphc(&["bench", flag]).fails(2, &["--profile"]);
    }
    let many = ["bench", "--profile", "--sequences", "4096", "--profile-tokens", "17"];
    graphc(&many).fails(2, &["`--profile-tokens 17`", "at most 65535 tokens"]);
    graphc(&["compile", "--emit", "memory", "--roofline"]).fails(2, &["`--roofline`", "`--emit plan`"]);
    graphc(&["compile", "--format", "json", "--roofline"]).fails(2, &["`--roofline`", "as text"]);
    let folder = TempDir::new();
    let plan = folder.file("plan.ron");
    graphc(&["compile", "--output", text(&plan)]).fine();
    graphc(&["compile", text(&plan), "--roofline"]).fails(2, &["`--roofline`", "plan file"]);
}

#[test]
fn many_sequences_are_decoded_at_once() {
    let args = ["bench", "--executor", "reference", "--prefill", "2", "--decode", "2", "--rounds", "1"];
    let ran = graphc(&[&args[..], &["--sequences", "3", "--format", "json"]].concat()).fine();
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(report["sequences"], 3);
    for field in ["decode_tokens_per_s", "decode_queued_tokens_per_s", "prefill_tokens_per_s"] {
        assert!(number(&report, field) > 0.0, "{ran}");
    }
    graphc(&["bench", "--sequences", "0"]).fails(2, &["--sequences"]);
}
