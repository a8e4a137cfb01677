//! `graphc check` beyond errors: lints, JSON, and checking again when a file changes.
//!
//! Gets graphs and kernels made for a test, returns nothing; texts are compared whole, since editors and people read
//! them. Nothing here needs a device.

mod program;
mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use program::{Ran, graphc, graphc_with, synth, text};
use support::TempDir;

/// A graph of two kernels, with a value that nothing uses.
const GRAPH: &str = r#"Graph(
    name: "tiny",
    detect: (has: ["emb.weight"]),
    dims: {"T": Tokens, "R": Rows},
    inputs: {"tokens": Input(token_ids, ["T"]), "rows": Input(output_rows, ["R"])},
    outputs: {"logits": Output(logits)},
    ops: [
        Op("pick", {"tokens": "in.tokens", "table": "w.emb.weight", "y": "x"}),
        Map("2.0 * x", {"x": "x"}, "twice"),
        Op("pick", {"tokens": "in.rows", "table": "x", "y": "logits"}),
    ],
)
"#;

const MANIFEST: &str = r#"Kernel(
    ports: {"tokens": Port(u32, ["T"]), "table": ["V", "C"], "y": ["T", "C"]},
    consts: {"C": "C"},
    dispatch: ["C", "T"],
)
"#;

const TEXT: &str = "override C: u32;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) id: vec3<u32>) {
    store_y(id.y * C + id.x, load_table(load_tokens(id.y) * C + id.x));
}
";

/// A kernel that declares the storage of its ports itself, one of them wrongly.
const OWN_MANIFEST: &str = r#"// A manifest may begin with a comment.
Kernel(
    ports: {"x": ["N"], "y": ["N"]},
    dispatch: ["N"],
)
"#;

const OWN_TEXT: &str = "@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) id: vec3<u32>) {
    y[id.x] = x[id.x];
}
";

const LINTS: &str = "warning: `x` is declared `read_write` and only read
  ┌─ shaders/own.wgsl:1:36
  │
1 │ @group(0) @binding(0) var<storage, read_write> x: array<f32>;
  │                                    ^^^^^^^^^^
  │
  = it is bound read-only; declare it `read`

warning: `twice` is never used
  ┌─ graphs/tiny.ron:9:37
  │
9 │         Map(\"2.0 * x\", {\"x\": \"x\"}, \"twice\"),
  │                                     ^^^^^

warning: kernel `own` is never used by the graphs checked
  ┌─ shaders/own.ron:2:1
  │
2 │ Kernel(
  │ ^

";

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder is made");
    std::fs::write(path, text).expect("a file is written");
}

fn folder() -> TempDir {
    let dir = TempDir::new();
    for (path, text) in [
        ("graphs/tiny.ron", GRAPH),
        ("shaders/pick.ron", MANIFEST),
        ("shaders/pick.wgsl", TEXT),
        ("shaders/own.ron", OWN_MANIFEST),
        ("shaders/own.wgsl", OWN_TEXT),
        // Maps begin with what is in this file.
        ("shaders/shared/map.wgsl", "fn twice(x: f32) -> f32 { return 2.0 * x; }\n"),
    ] {
        write(&dir.file(path), text);
    }
    dir
}

fn check(dir: &TempDir, more: &[&str]) -> Ran {
    let (graphs, shaders, synth) = (dir.file("graphs"), dir.file("shaders"), synth());
    let args = ["check", text(&graphs), "--shaders", text(&shaders), "--weights", text(&synth)];
    let mut ran = graphc(&[&args[..], more].concat());
    let root = format!("{}/", text(&dir.file("")).trim_end_matches('/'));
    (ran.out, ran.err) = (ran.out.replace(&root, ""), ran.err.replace(&root, ""));
    ran
}

#[test]
fn lints_are_shown_with_their_places_and_are_no_failure() {
    let dir = folder();
    let ran = check(&dir, &[]).fine();
    assert_eq!(ran.err, LINTS);
    assert_eq!(ran.out, "1 graphs, 2 kernels: 0 errors, 3 lints\n");
}

#[test]
fn unused_kernels_are_not_counted_where_graphs_and_kernels_are_of_different_places() {
    let dir = folder();
    let graphs = graphc(&["check", text(&dir.file("graphs"))]);
    assert!(!graphs.err.contains("never used by"), "{graphs}");
    let shaders = graphc(&["check", "--shaders", text(&dir.file("shaders"))]);
    assert!(!shaders.err.contains("never used by"), "{shaders}");
    let built_in = graphc(&["check"]).fine();
    assert_eq!(built_in.err, "", "every kernel that ships is used by a graph that ships");
    // A graph that cannot be read may use any of them.
    write(&dir.file("graphs/broken.ron"), "Graph(");
    let broken = check(&dir, &[]).fails_with_result(1, "2 graphs", &["broken.ron:1:6"]);
    assert!(!broken.err.contains("never used by"), "{broken}");
}

#[test]
fn json_says_what_the_text_says() {
    let dir = folder();
    let ran = check(&dir, &["--format", "json"]).fine();
    assert_eq!(ran.err, "");
    let json: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    let expected = serde_json::json!({
        "severity": "lint",
        "message": "`x` is declared `read_write` and only read",
        "labels": [{
            "file": "shaders/own.wgsl", "line": 1, "column": 36, "end_line": 1, "end_column": 46, "text": "",
        }],
        "notes": ["it is bound read-only; declare it `read`"],
    });
    assert_eq!(json[0], expected);
    assert_eq!(json.as_array().map(Vec::len), Some(3));

    write(
        &dir.file("graphs/tiny.ron"),
        &GRAPH.replace("Op(\"pick\", {\"tokens\": \"in.rows\"", "Op(\"pik\", {\"tokens\": \"in.rows\""),
    );
    let ran = check(&dir, &["--format", "json"]).fails_with_result(1, "unknown op `pik`", &[]);
    let json: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    let error = &json.as_array().expect("a list").iter().find(|entry| entry["severity"] == "error");
    let error = error.expect("an error");
    assert_eq!(error["labels"][0]["line"], 10);
    assert_eq!(error["notes"][0], "did you mean `pick`?");

    let fine = graphc(&["check", "--format", "json"]).fine();
    assert_eq!(fine.out, "[]\n");
}

#[test]
fn pipes_get_no_colour() {
    let dir = folder();
    for variables in [&[][..], &[("NO_COLOR", "1")], &[("CLICOLOR_FORCE", "1")]] {
        let ran =
            graphc_with(&["check", text(&dir.file("graphs")), "--shaders", text(&dir.file("shaders"))], variables);
        assert!(ran.err.contains("never used by") && !ran.err.contains('\x1b'), "{ran}");
    }
}

/// A program that checks until it is dropped.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn new(dir: &TempDir, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_graphc"));
        command.args(["check", "--watch", text(&dir.file("graphs")), "--shaders", text(&dir.file("shaders"))]);
        command.args(["--weights", text(&synth())]).args(more).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let out = child.stdout.take().expect("a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    #[track_caller]
    fn next(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(60)).expect("a line within a minute")
    }

    /// Whether nothing is printed for a while.
    fn is_quiet(&self) -> bool {
        self.lines.recv_timeout(Duration::from_millis(900)).is_err()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn watching_checks_again_when_a_file_changes() {
    let dir = folder();
    let watch = Watch::new(&dir, &[]);
    assert_eq!(watch.next(), "1 graphs, 2 kernels: 0 errors, 3 lints");
    assert!(watch.is_quiet(), "nothing has changed");
    write(&dir.file("graphs/tiny.ron"), &GRAPH.replace("in.rows", "in.row"));
    assert_eq!(watch.next(), "1 graphs, 2 kernels: 1 errors, 1 lints");
    // As editors save: a new file in the place of the old one.
    write(&dir.file("new"), GRAPH);
    std::fs::rename(dir.file("new"), dir.file("graphs/tiny.ron")).expect("renamed");
    assert_eq!(watch.next(), "1 graphs, 2 kernels: 0 errors, 3 lints");
    write(&dir.file("shaders/own.wgsl"), &OWN_TEXT.replacen("read_write", "read", 1));
    assert_eq!(watch.next(), "1 graphs, 2 kernels: 0 errors, 2 lints");
    std::fs::remove_file(dir.file("shaders/own.ron")).expect("removed");
    assert_eq!(watch.next(), "1 graphs, 1 kernels: 0 errors, 1 lints");
}

#[test]
fn watching_in_json_prints_a_line_for_each_check() {
    let dir = folder();
    let watch = Watch::new(&dir, &["--format", "json"]);
    let count = |line: &str| serde_json::from_str::<Vec<serde_json::Value>>(line).expect("a list on a line").len();
    assert_eq!(count(&watch.next()), 3);
    write(&dir.file("graphs/tiny.ron"), "Graph(");
    assert_eq!(count(&watch.next()), 2);
    graphc(&["check", "--watch"]).fails(2, &["nothing to watch"]);
}
