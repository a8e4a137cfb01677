//! Plans as files: they come back as they were, and what was tampered with is refused by the promise it breaks.

mod support;

use graphc::base::limits::Limits;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::compile::{Compiler, Program, guarded, open_plan};
use graphc::plan::file::{from_text, to_text};
use graphc::plan::{CheckedPlan, print};
use graphc::sources;

/// The built-in model's plan for one token, and its weights' fingerprint.
fn plan() -> (CheckedPlan, String) {
    let checkpoint = Checkpoint::from_static("the built-in model", sources::DEMO_MODEL).expect("a model");
    let (program, limits) = (Program::built_in("rwkv7").expect("it is"), Limits::vulkan());
    let compiler = Compiler { fuse: None, ..program.compiler(checkpoint.index(), &limits) };
    let shape = StepShape { tokens: 1, sequences: 1, rows: 1, capacity: 1 };
    // With all checks, as any plan of a file has them.
    let plan = compiler.compile(shape).expect("compiles").plan;
    (guarded(&plan).expect("as sound as before"), checkpoint.fingerprint())
}

/// What is said about the plan's text with one piece of it replaced.
fn refusal(text: &str, fingerprint: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "`{from}` is in the file");
    open_plan(&text.replacen(from, to, 1), fingerprint).expect_err("refused").to_string()
}

#[test]
fn a_plan_comes_back_as_it_was() {
    let (plan, fingerprint) = plan();
    let text = to_text(&plan, &fingerprint);
    assert_eq!(open_plan(&text, &fingerprint).expect("verified"), plan);
    let again = from_text(&text).expect("parses");
    assert_eq!(to_text(&again.plan, &again.model), text, "text to value to text");
    for listing in [print::plan, print::barriers, print::memory, print::summary] {
        assert_eq!(listing(&again.plan), listing(&plan));
    }
}

#[test]
fn only_graphs_that_are_there_are_built_in() {
    let error = Program::built_in("rwkv99").expect_err("no such graph").to_string();
    assert_eq!(error, "error: no graph `rwkv99` is built in");
    let error = Program::parse("g.ron", "Graph(", &[]).expect_err("half a graph").to_string();
    assert!(error.contains("g.ron:1:6"), "{error}");
}

#[test]
fn other_versions_models_and_files_are_refused() {
    let (plan, fingerprint) = plan();
    let text = to_text(&plan, &fingerprint);
    let version = refusal(&text, &fingerprint, "version: 4,", "version: 7,");
    assert_eq!(version, "it is no plan of this program: it has plan version 7, this program reads version 4");
    let model = open_plan(&text, "0123456789abcdef").expect_err("another model").to_string();
    assert_eq!(model, format!("it was made for the weights {fingerprint}, these are 0123456789abcdef"));
    let cut = open_plan(&text[..text.len() / 2], &fingerprint).expect_err("half a file").to_string();
    assert!(cut.starts_with("it is no plan of this program: "), "{cut}");
    let field = refusal(&text, &fingerprint, "made_by:", "made_of:");
    assert!(field.contains("made_of"), "{field}");
}

#[test]
fn a_changed_byte_that_matters_breaks_a_promise_by_name() {
    let (plan, fingerprint) = plan();
    let text = to_text(&plan, &fingerprint);
    let changed = |from: &str, to: &str| refusal(&text, &fingerprint, from, to);
    // The first transition of the plan takes the inputs from the host.
    assert!(changed(r#"from: "MAP_WRITE""#, r#"from: "COPY_SRC""#).contains("P4 at level 0"));
    assert!(changed(r#"rest: "MAP_WRITE""#, r#"rest: "COPY_SRC""#).contains("P10"));
    assert!(changed("workgroups: (4, 1, 1)", "workgroups: (0, 1, 1)").contains("P9 at level 1, `emb`"));
    assert!(
        changed("@workgroup_size(64)", "@workgroup_size(32)")
            .contains("P1 at kernel `embed.f16`: the plan says workgroup")
    );
    let access = changed("var<storage, read_write> graphc_data2", "var<storage, read> graphc_data2");
    assert!(access.contains("kernel `embed.f16`"), "{access}");
    // What a kernel needs of a device is what its text says, not what the plan does.
    let subgroups = changed("needs_subgroups: true", "needs_subgroups: false");
    assert!(subgroups.ends_with("the plan says subgroups false, the text has true"), "{subgroups}");
    let subgroups = changed("needs_subgroups: false", "needs_subgroups: true");
    assert!(subgroups.ends_with("the plan says subgroups true, the text has false"), "{subgroups}");
    assert!(changed("reads: true", "reads: false").contains("P1 at kernel `embed.f16`: the plan says bindings"));
}

#[test]
fn what_no_check_can_know_is_refused_by_the_digest() {
    let (plan, fingerprint) = plan();
    let text = to_text(&plan, &fingerprint);
    let file = from_text(&text).expect("parses");
    let changes = [
        // Half of an op's rows are never computed.
        ("workgroups: (4, 1, 1)", "workgroups: (3, 1, 1)"),
        // Another formula.
        ("map_result4(graphc_index, vec4<f32>(", "map_result4(graphc_index, -vec4<f32>("),
        ("max_workgroups_per_dimension: ", "max_workgroups_per_dimension: 1"),
        (r#"label: "layer0.ln1""#, r#"label: "layer0.ln2""#),
    ];
    for (from, to) in changes {
        let expected = "it was changed after it was made: it promises contents of digest ";
        let refusal = refusal(&text, &fingerprint, from, to);
        assert!(refusal.starts_with(&format!("{expected}{}, found ", file.digest)), "{from}: {refusal}");
    }
    // Other weights of the same layout.
    let other = text.replacen(&fingerprint, "0123456789abcdef", 1);
    let error = open_plan(&other, "0123456789abcdef").expect_err("made for others").to_string();
    assert!(error.starts_with("it was changed after it was made"), "{error}");
    // What is no data may change.
    let spaced = text.replacen("(\n", "( // so that it can be read\n\n", 1);
    assert_eq!(open_plan(&spaced, &fingerprint).expect("the same plan"), plan);
}

#[test]
fn no_file_switches_off_the_guards_of_a_kernel() {
    let (plan, fingerprint) = plan();
    let text = to_text(&plan, &fingerprint);
    for guard in ["runtime_checks", "zero_workgroup_memory"] {
        let refusal = refusal(&text, &fingerprint, &format!("{guard}: true"), &format!("{guard}: false"));
        assert!(refusal.starts_with("it was changed after it was made"), "{refusal}");
    }
}
