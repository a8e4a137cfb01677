//! `graphc diff`: two plans compared, and a plan held against a budget.
//!
//! Gets plans of the built-in model and of graphs changed in one place each; what differs must be found, and told from
//! what is merely called something else. Nothing here needs a device.

mod program;
mod support;

use std::path::{Path, PathBuf};

use graphc::base::dtype::DType;
use graphc::base::limits::Limits;
use graphc::base::span::SourceMap;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::compile::{Compiler, Program};
use graphc::inspect::budget;
use graphc::inspect::diff::{Diff, diff};
use graphc::plan::CheckedPlan;
use graphc::{graph, kernel, sources};
use program::{graphc, text};
use support::TempDir;
use support::models::{Format, Shape, Version, write_version};

/// The random models of budgets: as deep as their figures say, and as narrow as makes no matter.
const BUDGETED: Shape =
    Shape { layers: 6, heads: 4, head_size: 32, ffn: 448, vocab: 512, rank_w: 16, rank_a: 16, rank_v: 1, rank_g: 1 };

/// The built-in model's graph.
fn built_in() -> String {
    let graphs = sources::graphs(None).expect("built in");
    graphs.into_iter().find(|(path, _)| path == "rwkv7.ron").expect("built in").1
}

/// The plan of a graph for the built-in model.
fn plan(graph: &str, tokens: u32, sequences: u32) -> CheckedPlan {
    let checkpoint = Checkpoint::from_static("the built-in model", sources::DEMO_MODEL).expect("a model");
    let mut map = SourceMap::new();
    let (kernels, diagnostics) = kernel::load(&mut map, &sources::shaders(None).expect("built in"));
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    let source = map.add("graph.ron", graph);
    let graph = graph::parse(&map, source).expect("parses");
    let compiler = Compiler {
        graph: &graph,
        kernels: &kernels,
        sources: &map,
        index: checkpoint.index(),
        limits: &Limits::vulkan(),
        keep: &[],
        batch_invariant: false,
        draws: false,
        tuning: None,
        fuse: None,
        copies: true,
    };
    let shape = StepShape { tokens, sequences, rows: sequences, capacity: sequences };
    compiler.compile(shape).unwrap_or_else(|error| panic!("{error}")).plan
}

/// The graph with every `from`, of which there is at least one, made `to`.
fn changed(graph: &str, from: &str, to: &str) -> String {
    assert!(graph.contains(from), "`{from}` stands in the graph");
    graph.replace(from, to)
}

/// The graph in which values, states, operands of maps and the loop's variable are called something else.
fn renamed(graph: &str) -> String {
    let mut found = graph.to_owned();
    for (from, to) in [("ln1", "norm_one"), ("xr", "a1"), ("xk", "zz"), ("prev", "before"), ("x_last", "end")] {
        found = changed(&found, &format!(": \"{from}\""), &format!(": \"{to}\""));
        found = found.replace(&format!("}}, \"{from}\")"), &format!("}}, \"{to}\")"));
    }
    found = changed(&found, "x + (prev - x) * mu\", {\"x\":", "now + (old - now) * m\", {\"now\":");
    found = changed(&found, "\"prev\": \"before\", \"mu\":", "\"old\": \"before\", \"m\":");
    found = changed(&found, "\"prev\": \"ffn_prev\", \"mu\":", "\"old\": \"ffn_prev\", \"m\":");
    found = changed(&found, "ForEach(\"layer\"", "ForEach(\"block\"");
    found = changed(&found, "If(\"layer ==", "If(\"block ==");
    found = changed(&found, "{layer}", "{block}");
    for state in ["att_x", "att_s", "ffn_x"] {
        found = changed(&found, &format!("state.{state}."), &format!("state.of_{state}."));
        found = changed(&found, &format!("\"{state}\":"), &format!("\"of_{state}\":"));
    }
    found
}

fn metric(diff: &Diff, name: &str) -> (u64, u64) {
    let found = diff.metrics.iter().find(|metric| metric.name == name);
    found.map(|metric| (metric.a, metric.b)).unwrap_or_else(|| panic!("no figure `{name}`"))
}

#[test]
fn a_plan_is_the_same_as_itself_and_as_one_in_which_everything_is_renamed() {
    let one = plan(&built_in(), 1, 1);
    let itself = diff(&one, &one);
    assert!(itself.is_same(), "{itself:?}");
    let other = plan(&renamed(&built_in()), 1, 1);
    let labels = |plan: &CheckedPlan| plan.commands().map(|command| command.label().to_owned()).collect::<Vec<_>>();
    let kept = labels(&one).iter().zip(&labels(&other)).filter(|(one, other)| one == other).count();
    assert!(kept * 10 < labels(&one).len(), "{kept} labels are what they were");
    let found = diff(&one, &other);
    assert!(found.is_same(), "{found:#?}");
}

#[test]
fn an_op_more_is_found_in_each_layer_and_nothing_else_is_taken_for_changed() {
    let before = built_in();
    let after =
        changed(&before, "Let(\"ffn_out\", \"ffn_value\"),", "Map(\"2.0 * v\", {\"v\": \"ffn_value\"}, \"ffn_out\"),");
    let found = diff(&plan(&before, 1, 1), &plan(&after, 1, 1));
    assert!(found.only_a.is_empty(), "{:?}", found.only_a);
    let labels: Vec<&str> = found.only_b.iter().map(|op| op.label.as_str()).collect();
    let expected: Vec<String> = (0..6).map(|layer| format!("layer{layer}.ffn_out")).collect();
    assert_eq!(labels, expected);
    assert!(found.only_b.iter().all(|op| op.place.starts_with("graph.ron:")), "{:?}", found.only_b);
    let (a, b) = metric(&found, "dispatches");
    assert_eq!(b - a, 6);
    let (a, b) = metric(&found, "levels");
    assert_eq!(b - a, 6);
    // The one reader of the new value, in each layer, takes it instead of the one before.
    assert_eq!(found.changed.len(), 6, "{:#?}", found.changed);
    for op in &found.changed {
        assert!(op.b.label.ends_with("x_out"), "{op:?}");
        assert_eq!(op.changes.len(), 1, "{op:?}");
    }
    // And the other way about.
    let back = diff(&plan(&after, 1, 1), &plan(&before, 1, 1));
    assert_eq!((back.only_a.len(), back.only_b.len()), (6, 0));
}

#[test]
fn what_changed_in_an_op_is_named() {
    let before = built_in();
    let cases = [
        // Another formula, of the same operands.
        ("\"sigmoid(a0 + up)\"", "\"sigmoid(a0 - up)\"", "text of kernel", "a"),
        // Another constant.
        ("64e-5", "32e-5", "text of kernel", "gn"),
        // Another operand.
        ("{\"r\": \"r\", \"k\": \"k\", \"v\"", "{\"r\": \"r\", \"k\": \"k_raw\", \"v\"", "`k`", "bonus"),
    ];
    let one = plan(&before, 1, 1);
    for (from, to, what, label) in cases {
        assert_eq!(before.matches(from).count(), 1, "`{from}`");
        let found = diff(&one, &plan(&before.replace(from, to), 1, 1));
        assert!(found.only_a.is_empty() && found.only_b.is_empty(), "{from}: {found:#?}");
        let moved = |what: &str| what == "level";
        let here: Vec<_> = found.changed.iter().filter(|op| op.changes.iter().any(|it| !moved(&it.what))).collect();
        assert_eq!(here.len(), 6, "{from}: {:#?}", found.changed);
        for op in here {
            assert!(op.a.label.ends_with(&format!(".{label}")), "{op:?}");
            assert!(op.changes.iter().any(|change| change.what == what), "{op:?}");
        }
        assert!(!found.is_same());
    }
}

#[test]
fn another_size_of_step_changes_sizes_and_pairs_every_op_that_both_have() {
    let found = diff(&plan(&built_in(), 1, 1), &plan(&built_in(), 32, 4));
    assert_eq!(metric(&found, "tokens"), (1, 32));
    assert_eq!(metric(&found, "sequences"), (1, 4));
    assert!(found.only_a.is_empty() && found.only_b.is_empty(), "{:?} {:?}", found.only_a, found.only_b);
    assert!(found.changed.iter().all(|op| op.a.label == op.b.label), "{:#?}", found.changed);
    assert!(found.changed.iter().any(|op| op.changes.iter().any(|change| change.what == "workgroups")));
    assert!(found.state.iter().all(|change| change.what.starts_with("`att") || change.what.starts_with("`ffn")));
    assert!(found.host.iter().any(|change| change.what == "input token_ids"), "{:?}", found.host);
}

#[test]
fn a_transition_slot_or_byte_more_is_a_difference() {
    let one = plan(&built_in(), 1, 1);
    let whole: graphc::plan::Plan = (*one).clone();
    let mut less = whole.clone();
    let gone = less.levels[5].barrier.pop().expect("a barrier");
    let found = diff(&whole, &less);
    assert!(!found.is_same());
    assert_eq!((found.transitions_a.len(), found.transitions_b.len()), (1, 0), "{found:#?}");
    assert_eq!(found.transitions_a[0].buffer, whole.buffers[gone.buffer].label);
    assert!(found.only_a.is_empty() && found.changed.is_empty(), "{found:#?}");

    let mut larger = whole.clone();
    let slot = larger.values[0].buffer;
    larger.buffers[slot].size_bytes += 4;
    let found = diff(&whole, &larger);
    assert_eq!(metric(&found, "slot_bytes").1, metric(&found, "slot_bytes").0 + 4);
    assert!(!found.slots.is_empty() && found.changed.is_empty(), "{found:#?}");

    let mut needy = whole.clone();
    needy.limits.subgroups = !needy.limits.subgroups;
    let found = diff(&whole, &needy);
    assert_eq!(found.limits.len(), 1, "{found:#?}");

    let mut swapped = whole.clone();
    swapped.levels[5].commands.swap(0, 1);
    let found = diff(&whole, &swapped);
    assert!(found.only_a.is_empty() && found.changed.is_empty(), "order inside a level: {found:#?}");
}

#[test]
fn the_program_says_what_differs_and_ends_with_1() {
    let dir = TempDir::new();
    let write = |name: &str, bytes: &str| -> PathBuf {
        std::fs::write(dir.file(name), bytes).expect("a file is written");
        dir.file(name)
    };
    let (a, b) = (dir.file("a.plan"), dir.file("b.plan"));
    let mut_graph = changed(
        &built_in(),
        "Let(\"ffn_out\", \"ffn_value\"),",
        "Map(\"2.0 * v\", {\"v\": \"ffn_value\"}, \"ffn_out\"),",
    );
    let graph = write("more.ron", &mut_graph);
    graphc(&["compile", "--fuse", "off", "-o", text(&a)]).fine();
    graphc(&["compile", "--fuse", "off", text(&graph), "-o", text(&b)]).fine();
    let same = graphc(&["diff", text(&a), text(&a)]).fine();
    assert!(same.out.ends_with("same: nothing differs but names\n"), "{same}");
    graphc(&["diff", text(&a), "rwkv7", "--fuse", "off"]).fine();
    let other = graphc(&["diff", text(&a), text(&b)]);
    let line = "  6x  layer0.ffn_out … layer5.ffn_out  map  ";
    let other = other.fails_with_result(1, line, &[]);
    for expected in ["dispatches ", "+6 (+2.3%)", "ops only in B: 6", "ops changed: 6", "transitions only in A"] {
        assert!(other.out.contains(expected), "`{expected}` in {other}");
    }
    let json = ["diff", text(&a), text(&graph), "--fuse", "off", "--format", "json"];
    let json = graphc(&json).fails_with_result(1, "\"only_b\"", &[]);
    let json: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(json["same"], false);
    assert_eq!(json["only_b"].as_array().expect("a list").len(), 6);
    for (args, message) in [
        (&["diff", text(&a)][..], "nothing to compare with: expected a second plan or `--budget FILE`"),
        (&["diff", text(&a), text(&b), "--tokens", "4"], "plan files are taken as they are: `--tokens` would"),
        (&["diff", text(&a), "rwkv8"], "no graph file and no graph named `rwkv8`"),
        (&["diff", text(&a), text(&b), "--budget", "x.ron"], "cannot be used with"),
        (&["diff", text(&a), "--budget", "none.ron"], "cannot read `none.ron`"),
    ] {
        graphc(args).fails(2, &[message]);
    }
}

/// The repository's own budgets, with the graph that each is for.
fn budgets() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("budgets");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("budgets") {
        let path = entry.expect("a folder is read").path();
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        found.push((name, std::fs::read_to_string(&path).expect("a budget is read")));
    }
    found.sort();
    found
}

/// The checkpoint that a graph's budget is about: the built-in model, or a random one of the graph's version.
fn of(graph: &str) -> Checkpoint {
    let (_, version) = Version::ALL.into_iter().find(|(name, _)| *name == graph).expect("a version's graph");
    if version == Version::V7 {
        return Checkpoint::from_static("the built-in model", sources::DEMO_MODEL).expect("a model");
    }
    let dir = TempDir::new();
    let path = dir.file("model.safetensors");
    write_version(&path, version, &BUDGETED, 1, &Format::converted(DType::F16)).expect("written");
    let bytes = std::fs::read(&path).expect("written");
    Checkpoint::from_static("random", bytes.leak()).expect("a model")
}

fn parse(name: &str, text: &str) -> budget::Budget {
    let mut map = SourceMap::new();
    let source = map.add(name, text);
    budget::parse(&map, source).unwrap_or_else(|wrong| panic!("{}", graphc::base::diag::render(&wrong, &map)))
}

#[test]
fn built_in_graphs_keep_to_their_budgets_and_none_is_so_wide_that_it_says_nothing() {
    let budgets = budgets();
    assert!(!budgets.is_empty());
    let mut over = Vec::new();
    for (name, text) in budgets {
        let budget = parse(&name, &text);
        let graph = name.strip_suffix(".ron").expect("a budget is named as its graph");
        let (program, checkpoint) = (Program::built_in(graph).expect("a budget is named as its graph"), of(graph));
        assert!(budget.steps.iter().any(|step| step.draws == program.graph.carry.is_some()), "{name}: kinds of steps");
        for step in &budget.steps {
            let (tokens, sequences) = (step.tokens.expect("of one size"), step.sequences.expect("of one size"));
            let shape = StepShape { tokens, sequences, rows: sequences, capacity: sequences };
            let limits = Limits::vulkan();
            let compiler = Compiler { draws: step.draws, ..program.compiler(checkpoint.index(), &limits) };
            let compiled = compiler.compile(shape);
            let plan = compiled.unwrap_or_else(|error| panic!("{name}: {error}")).plan;
            let (exceeded, _) = budget.check(&plan).expect("the budget is for this plan");
            let texts: Vec<String> = exceeded.iter().map(ToString::to_string).collect();
            let kind = if step.draws { " drawing" } else { "" };
            over.extend(texts.iter().map(|text| format!("{name} T={tokens} S={sequences}{kind}: {text}")));
            // One tighter than what the plan has is exceeded, whichever limit it is.
            let summary = serde_json::to_value(plan.summary()).expect("JSON");
            for (nth, (limit, _)) in step.limits.iter().enumerate() {
                let found = summary[limit].as_u64().expect("a figure");
                let mut tight = step.clone();
                tight.limits = vec![(limit, found - 1)];
                let tight = budget::Budget { graph: budget.graph.clone(), steps: vec![tight] };
                let (exceeded, count) = tight.check(&plan).expect("the budget is for this plan");
                assert_eq!((exceeded.len(), count), (1, 1), "{nth} {limit}");
                assert_eq!((exceeded[0].found, exceeded[0].limit), (found, found - 1));
            }
        }
    }
    assert!(over.is_empty(), "{}", over.join("\n"));
}

#[test]
fn a_budget_exceeded_is_a_line_for_each_limit_and_ends_with_1() {
    let dir = TempDir::new();
    let write = |text: &str| -> PathBuf {
        std::fs::write(dir.file("budget.ron"), text).expect("a file is written");
        dir.file("budget.ron")
    };
    let plan = dir.file("a.plan");
    graphc(&["compile", "--fuse", "off", "-o", text(&plan)]).fine();
    let wide = write("Budget(\n    steps: [Step(levels: 1000, dispatches: 1000)],\n)\n");
    let kept = graphc(&["diff", text(&plan), "--budget", text(&wide)]).fine();
    assert_eq!(kept.out, "rwkv7 T=1 S=1: keeps to 2 limits\n");
    let narrow = write(
        "Budget(\n    steps: [\n        Step(levels: 100, dispatches: 260, weight_bytes: 1000000000),\n    ],\n)\n",
    );
    let over = graphc(&["diff", text(&plan), "--budget", text(&narrow)]).fails_with_result(1, "", &[]);
    let lines: Vec<&str> = over.out.lines().collect();
    assert_eq!(lines.len(), 2, "{over}");
    assert!(lines[0].starts_with("rwkv7 T=1 S=1: dispatches 265, at most 260: 5 too many  ("), "{over}");
    assert!(lines[0].ends_with("budget.ron:3:9)"), "{over}");
    assert!(lines[1].starts_with("rwkv7 T=1 S=1: levels 127, at most 100: 27 too many"), "{over}");
    // A graph is compiled for every step of the file.
    let sizes = write("Budget(steps: [Step(tokens: 1, levels: 500), Step(tokens: 4, sequences: 2, levels: 5)])\n");
    let over = graphc(&["diff", "rwkv7", "--budget", text(&sizes)]).fails_with_result(1, "T=4 S=2: levels ", &[]);
    assert!(over.out.contains("rwkv7 T=1 S=1: keeps to 1 limit\n"), "{over}");
    let json =
        graphc(&["diff", "--budget", text(&sizes), "--format", "json"]).fails_with_result(1, "\"limit\": 5", &[]);
    let json: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(json[1]["exceeded"][0]["name"], "levels");
    // Steps that draw are another kind, each held against its own.
    let kinds = write("Budget(steps: [Step(tokens: 1, levels: 500), Step(tokens: 1, draws: true, levels: 5)])\n");
    let over = graphc(&["diff", "rwkv7", "--budget", text(&kinds)]).fails_with_result(1, "", &[]);
    assert!(over.out.contains("rwkv7 T=1 S=1: keeps to 1 limit\n"), "{over}");
    assert!(over.out.contains("rwkv7 T=1 S=1 drawing: levels "), "{over}");
    let over = graphc(&["diff", "--budget", text(&kinds), "--draws"]).fails_with_result(1, " drawing: levels ", &[]);
    assert!(!over.out.contains("keeps to"), "{over}");
    let drawing = dir.file("drawing.plan");
    graphc(&["compile", "--draws", "-o", text(&drawing)]).fine();
    graphc(&["diff", text(&drawing), "--budget", text(&kinds)]).fails_with_result(1, " drawing: levels ", &[]);
    let wide = write("Budget(steps: [Step(levels: 1000)])\n");
    let unsaid = "the budget says nothing of a step with T=1 S=1 that draws";
    graphc(&["diff", text(&drawing), "--budget", text(&wide)]).fails(1, &[unsaid]);
}

#[test]
fn wrong_budgets_are_diagnostics_with_places() {
    let dir = TempDir::new();
    for (budget, messages) in [
        (
            "Budget(steps: [Step(level: 3)])",
            &["unknown field `level`", "did you mean `levels`?", "budget.ron:1:21"][..],
        ),
        ("Budget(step: [])", &["unknown field `step`", "did you mean `steps`?"]),
        ("Budget(steps: [Step(tokens: 3)])", &["this step limits nothing", "expected at least one of dispatches"]),
        ("Budget(steps: [])", &["this budget has no steps"]),
        ("Budget(steps: [Step(levels: -1)])", &["budget.ron:1:"]),
        ("Budget(steps: [Step(tokens: 0, levels: 1)])", &["`tokens` is not in 1..=65535"]),
        ("Budget(graph: \"other\", steps: [Step(levels: 1)])", &["the budget is for the graph `other`"]),
        ("Budget(steps: [Step(tokens: 7, levels: 1)])", &["the budget says nothing of a step with T=1 S=1"]),
    ] {
        std::fs::write(dir.file("budget.ron"), budget).expect("a file is written");
        let path = dir.file("budget.ron");
        graphc(&["diff", "--tokens", "1", "--budget", text(&path)]).fails(1, messages);
    }
}
