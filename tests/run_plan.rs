//! `graphc run PLAN`: what was compiled is run as it is.
//!
//! Gets plan files as `compile -o` writes them. What then holds: plans give what their graph gives in steps of the same
//! sizes, to the last bit, on both executors, with state files, and side by side; every listing of a file is that of
//! the graph; and what does not fit is refused by name before a device is asked for. Running needs a device, and skips
//! without.

mod program;
mod support;

use std::path::{Path, PathBuf};

use graphc::plan::file::{PlanFile, from_text, to_text};
use program::{Ran, devices, graphc, synth, text};
use support::{TempDir, skip};

const PROMPT: &str = "In the beginning there was";

/// Whether there is no device; then the test has said so.
fn lacks_device() -> bool {
    devices("wgpu").map_err(|reason| skip(&reason)).is_err()
}

/// Compiles to a plan file.
fn compile(dir: &TempDir, name: &str, more: &[&str]) -> PathBuf {
    let path = dir.file(name);
    graphc(&[&["compile", "-o", text(&path)], more].concat()).fine();
    path
}

/// Runs without drawing by chance.
fn run(plans: &[&Path], more: &[&str]) -> Ran {
    let plans: Vec<&str> = plans.iter().map(|path| text(path)).collect();
    graphc(&[&["run"], plans.as_slice(), &["--temperature", "0", "-n", "6"], more].concat())
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("written")
}

#[test]
fn plans_give_what_their_graph_gives_to_the_last_bit() {
    if lacks_device() {
        return;
    }
    let dir = TempDir::new();
    // Of the larger steps one has a row of logits, one has all; the prompt takes two of them, the second one padded.
    let decode = compile(&dir, "decode.plan", &[]);
    let prefill = compile(&dir, "prefill.plan", &["--tokens", "16"]);
    let all = compile(&dir, "all.plan", &["--tokens", "16", "--rows", "16"]);
    let (logits, state) = (dir.file("logits"), dir.file("state"));
    let files = ["--prompt", PROMPT, "--logits", text(&logits), "--state-out", text(&state)];
    let cases = [
        ("hal", [&decode, &prefill], vec![]),
        ("wgpu", [&prefill, &decode], vec![]),
        ("hal", [&all, &decode], vec!["--all-positions"]),
    ];
    for (executor, plans, rows) in cases {
        let more = |extra: &[&'static str]| [&files, &["--executor", executor][..], extra].concat();
        let expected = run(&[], &more(&[&["--step-tokens", "16"][..], &rows].concat())).fine().out;
        let (expected_logits, expected_state) = (read(&logits), read(&state));
        let found = run(&plans.map(PathBuf::as_path), &more(&rows)).fine().out;
        assert_eq!(found, expected, "{executor} {rows:?}");
        assert!(read(&logits) == expected_logits, "{executor} {rows:?}: logits");
        assert!(read(&state) == expected_state, "{executor} {rows:?}: state");
    }
    // A plan alone takes steps of its own size only.
    let expected = run(&[], &["--prompt", PROMPT]).fine().out;
    assert_eq!(run(&[&prefill], &["--prompt", PROMPT]).fine().out, expected);
    // A state goes on whichever way it was made.
    let on = ["--prompt", " And", "--state-in", text(&state)];
    assert_eq!(run(&[&decode, &prefill], &on).fine().out, run(&[], &on).fine().out);
}

#[test]
fn plans_run_prompts_side_by_side() {
    if lacks_device() {
        return;
    }
    let dir = TempDir::new();
    let prompts = dir.file("prompts");
    std::fs::write(&prompts, "In the beginning\nT\nOnce upon a time there was a king\nAnd\n").expect("written");
    let few = compile(&dir, "few.plan", &["--tokens", "3", "--sequences", "3"]);
    // One that has fewer sequences in a step than the session holds.
    let long = compile(&dir, "long.plan", &["--tokens", "16", "--sequences", "2", "--capacity", "3"]);
    let args = ["--prompts", text(&prompts)];
    let expected = run(&[], &args).fine().out;
    for plans in [[&few, &long], [&long, &long]] {
        assert_eq!(run(&plans.map(PathBuf::as_path), &args).fine().out, expected);
    }
    let stats = run(&[&few, &long], &[&args[..], &["--sequences", "2", "--stats"]].concat()).fine();
    assert_eq!(stats.out, expected);
    assert!(stats.err.contains("memory   weights "), "{stats}");
    run(&[&few], &[&args[..], &["--sequences", "4"]].concat())
        .fails(2, &["`--sequences 4`: `", "few.plan` holds 3 at once; for more, compile a plan with `--capacity 4`"]);
}

#[test]
fn kept_values_of_a_plan_are_written() {
    if lacks_device() {
        return;
    }
    let dir = TempDir::new();
    let plan = compile(&dir, "a.plan", &["--keep", "layer0.ln1"]);
    let (found, expected) = (dir.file("found"), dir.file("expected"));
    let args = ["--tokens", "5,6", "--executor", "wgpu"];
    run(&[&plan], &[&args[..], &["--logits", text(&found)]].concat()).fine();
    let of_graph = ["--logits", text(&expected), "--keep", "layer0.ln1", "--step-tokens", "1"];
    run(&[], &[&args[..], &of_graph].concat()).fine();
    assert!(read(&found) == read(&expected));
}

#[test]
fn listings_of_a_file_are_those_of_the_graph() {
    let dir = TempDir::new();
    let shape = ["--tokens", "5", "--sequences", "2", "--rows", "3"];
    let plan = compile(&dir, "a.plan", &shape);
    for emit in ["plan", "barriers", "memory", "summary", "kernels"] {
        for format in ["text", "json"] {
            let how = ["--emit", emit, "--format", format];
            let found = graphc(&[&["compile", text(&plan)], &how[..]].concat()).fine().out;
            let expected = graphc(&[&["compile"], &shape[..], &how].concat()).fine().out;
            assert!(found == expected && !found.is_empty(), "{emit} as {format}");
        }
    }
}

#[test]
fn plans_that_do_not_fit_are_refused() {
    let dir = TempDir::new();
    let plan = compile(&dir, "a.plan", &[]);
    let tokens = ["--tokens", "1"];
    // Other weights.
    run(&[&plan], &[&tokens[..], &["--weights", text(&synth())]].concat())
        .fails(1, &["a.plan`: it was made for the weights ", ", these are "]);
    // No plan, and no graph beside others.
    let graph = dir.file("graph.ron");
    std::fs::write(&graph, "Graph(").expect("written");
    run(&[&plan, &graph], &tokens)
        .fails(1, &["graph.ron`: expected a plan file, whose first line is `// graphc plan`"]);
    run(&[&graph, &plan], &tokens).fails(2, &["a.plan`: a graph is run alone; several files are plans of one model"]);
    run(&[&plan, &dir.file("none.plan")], &tokens).fails(2, &["none.plan`", "No such file"]);
    // Sessions of another size.
    let two = compile(&dir, "two.plan", &["--sequences", "2", "--tokens", "2"]);
    run(&[&plan, &two], &tokens)
        .fails(1, &["two.plan`: expected a session of 1 sequences, as in the first plan, found one of 2"]);
    // No room for the rows that are wanted.
    let narrow = compile(&dir, "narrow.plan", &["--tokens", "4", "--sequences", "4", "--rows", "2"]);
    let message = "a step gives a row of logits for every sequence: expected a plan of 4 rows, found 2 in `";
    run(&[&narrow], &tokens).fails(2, &[message, "narrow.plan`; compile one with `--rows 4`"]);
    let prefill = compile(&dir, "prefill.plan", &["--tokens", "16"]);
    let all = ["--logits", text(&dir.file("logits")), "--all-positions"].map(str::to_owned);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let message =
        "`--all-positions` wants a row of logits for every token of a step: expected a plan of 16 rows, found 1";
    run(&[&prefill], &[&tokens[..], &all].concat()).fails(2, &[message, "compile one with `--rows 16`"]);
}

#[test]
fn flags_that_need_a_graph_are_refused_by_name() {
    let dir = TempDir::new();
    let plan = compile(&dir, "a.plan", &[]);
    for flag in [
        &["--graphs", "graphs"][..],
        &["--shaders", "shaders"],
        &["--keep", "layer0.ln1", "--logits", "logits"],
        &["--batch-invariant"],
        &["--step-tokens", "4"],
    ] {
        let message =
            format!("`{}` is for graphs, which are compiled when they are run; a plan runs as it is: `", flag[0]);
        run(&[&plan], &[&["--tokens", "1"][..], flag].concat()).fails(2, &[&message]);
    }
}

/// Graphs of one name over the built-in model's table, alike but for what stands in for the braces.
fn small(dir: &TempDir, name: &str, weight: &str, output: &str, state: &str) -> PathBuf {
    let graph = format!(
        r#"Graph(
    name: "small",
    detect: (has: ["emb.weight"]),
    dims: {{"C": Weight("emb.weight", 1), "T": Tokens, "S": Sequences, "R": Rows, "B": Capacity}},
    state: {{{state}}},
    inputs: {{"tokens": Input(token_ids, ["T"]), "rows": Input(output_rows, ["R"])}},
    outputs: {{{output}}},
    ops: [
        Op("embed", {{"tokens": "in.tokens", "table": "w.emb.weight", "y": "x"}}),
        Op("gather_rows", {{"x": "x", "rows": "in.rows", "y": "picked"}}),
        Map("picked * scale", {{"picked": "picked", "scale": "w.{weight}"}}, "scaled"),
        Op("linear", {{"x": "scaled", "weight": "w.head.weight", "y": "logits"}}),
    ],
)"#
    );
    let file = dir.file(&format!("{name}.ron"));
    std::fs::write(&file, graph).expect("written");
    let keep: &[&str] = if output.is_empty() { &["--keep", "logits"] } else { &[] };
    compile(dir, &format!("{name}.plan"), &[&[text(&file)][..], keep].concat())
}

#[test]
fn plans_of_other_sessions_are_refused() {
    let dir = TempDir::new();
    let (logits, norm) = (r#""logits": Output(logits)"#, "blocks.0.ln1.weight");
    let first = small(&dir, "first", norm, logits, "");
    let refused = |other: &Path, texts: &[&str]| {
        run(&[&first, other], &["--tokens", "1"]).fails(1, texts);
    };
    refused(&small(&dir, "mute", norm, "", ""), &["mute.plan`: the graph has no output of role `logits`"]);
    refused(
        &small(&dir, "weights", "blocks.0.ln2.weight", logits, ""),
        &["weights.plan`: expected weight layout `", "`, as in the first plan, found `"],
    );
    let state = r#""spare": State(dtype: f32, shape: ["B", "C"], init: 0.0)"#;
    refused(
        &small(&dir, "state", norm, logits, state),
        &["state.plan`: expected 0 state buffers, as in the first plan, found 1"],
    );
    let demo = compile(&dir, "demo.plan", &[]);
    refused(&demo, &["demo.plan`: expected a plan of graph `small`, as the first, found one of `rwkv7`"]);
}

#[test]
fn a_changed_file_is_refused_by_the_promise_it_breaks() {
    let dir = TempDir::new();
    let path = compile(&dir, "a.plan", &["--fuse", "off"]);
    let plan = String::from_utf8(read(&path)).expect("text");
    // The first of `from` after `anchor`.
    let refused_after = |anchor: &str, from: &str, to: &str, message: &str| {
        let (before, after) = plan.split_once(anchor).expect("the file has it");
        assert!(after.contains(from), "`{from}` is in the file");
        let changed = [before, anchor, &after.replacen(from, to, 1)].concat();
        std::fs::write(&path, changed).expect("written");
        run(&[&path], &["--tokens", "1"]).fails(1, &["a.plan`: ", message]);
    };
    let refused = |from: &str, to: &str, message: &str| refused_after("(", from, to, message);
    let version = graphc::plan::PLAN_VERSION;
    let message = format!("it has plan version 77, this program reads version {version}");
    refused(&format!("version: {version},"), "version: 77,", &message);
    refused("@workgroup_size(64)", "@workgroup_size(32)", "P1 at kernel `embed.f16`: the plan says workgroup size");
    refused(r#"from: "MAP_WRITE""#, r#"from: "COPY_SRC""#, "P4 at level 0: ");
    refused("tokens: 1,", "tokens: 2,", "P1 at inputs: input `tokens`: expected 2 elements");
    refused("max_storage_buffers_per_dispatch: 9", "max_storage_buffers_per_dispatch: 8", "P2 at kernels: ");
    refused("size_bytes: 2048", "size_bytes: 2044", "P1 at buffers: `buf0 weights.small`: expected 2044 bytes");
    refused_after("Dispatch(", "offset_bytes: 0", "offset_bytes: 2", "P2 at level 1, `emb`: ");
    refused_after("Dispatch(", "workgroups: (4, 1, 1)", "workgroups: (0, 1, 1)", "P9 at level 1, `emb`: ");
    refused_after("Dispatch(", "workgroups: (4, 1, 1)", "workgroups: (2, 1, 1)", "it was changed after it was made: ");
    // Whoever reads it says so as well, and which file it is.
    let text = path.display().to_string();
    graphc(&["compile", &text]).fails(1, &["a.plan`: it was changed after it was made: "]);
    graphc(&["explain", &text, "b1"]).fails(1, &["a.plan`: it was changed after it was made: "]);
    graphc(&["diff", &text, &text]).fails(1, &["a.plan`: it was changed after it was made: "]);
    refused("runtime_checks: true", "runtime_checks: false", "it was changed after it was made: ");
}

#[test]
fn a_device_that_is_too_small_is_told_which_limit_it_lacks() {
    if lacks_device() {
        return;
    }
    let dir = TempDir::new();
    let path = compile(&dir, "a.plan", &[]);
    let PlanFile { mut plan, model, .. } = from_text(&String::from_utf8(read(&path)).expect("text")).expect("a plan");
    plan.limits.max_invocations_per_workgroup = 123_456_789;
    std::fs::write(&path, to_text(&plan, &model)).expect("written");
    for executor in ["hal", "wgpu"] {
        run(&[&path], &["--tokens", "1", "--executor", executor]).fails(
            2,
            &["the device is too small for this plan: `max_invocations_per_workgroup`: 123456789 needed, ", " offered"],
        );
    }
}
