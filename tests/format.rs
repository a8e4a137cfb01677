//! `graphc fmt`: what it does to a file, and that it does no more.
//!
//! Gets the graphs and manifests of this repository and small files, formats them by the library or by the program.
//! Every formatted text must read as the same graph and stay as it is when formatted again. Never needs a device.

mod program;
mod support;

use std::path::Path;

use graphc::base::fmt::{MAX_COLUMNS, format};
use graphc::base::span::SourceMap;
use graphc::graph::{self, Graph};
use graphc::sources;
use program::{Ran, graphc, text};
use support::TempDir;

/// A text and what becomes of it.
const CASES: [(&str, &str); 14] = [
    ("(a:1,b : [ 2,3 , ])", "(a: 1, b: [2, 3])\n"),
    ("Graph (\n  name:\"x\" , doc:\"y\"\n)", "Graph(\n    name: \"x\", doc: \"y\",\n)\n"),
    ("[\n\n\n\"a\",\n\n\n\"b\"\n\n]", "[\n    \"a\",\n\n    \"b\",\n]\n"),
    ("// Before.\n\n[1, // one\n2 // two\n, 3]", "// Before.\n\n[\n    1, // one\n    // two\n    2, 3,\n]\n"),
    ("[ /* none */ ]", "[\n    /* none */\n]\n"),
    ("[/* one */ 1, 2 /* two */]", "[\n    /* one */ 1, 2,\n    /* two */\n]\n"),
    (
        "[\n1, /* a */ // b\n2,\n// the end\n]\n// after",
        "[\n    1, /* a */ // b\n    2,\n    // the end\n]\n// after\n",
    ),
    ("{ \"k\" : // why\n 1 }", "{\n    // why\n    \"k\": 1,\n}\n"),
    ("Op(\"x\",{\n\"a\":\"b\"})", "Op(\"x\", {\n    \"a\": \"b\",\n})\n"),
    ("If(\"c\",[\nA],[\nB,])", "If(\"c\", [\n    A,\n], [\n    B,\n])\n"),
    ("(\r\n  a: 1,\r\n)\r\n", "(\n    a: 1,\n)\n"),
    (
        "[r#\"a \" , [\"#, '\\'', \"\\\" // no comment\", b\"x\", -1.5e-3]",
        "[r#\"a \" , [\"#, '\\'', \"\\\" // no comment\", b\"x\", -1.5e-3]\n",
    ),
    ("#![enable(implicit_some)]\n( a : Some ( 1 ) )", "#![enable(implicit_some)]\n(a: Some(1))\n"),
    ("/* a /* nested */ one */ ()", "/* a /* nested */ one */ ()\n"),
];

fn formatted(text: &str) -> String {
    let mut map = SourceMap::new();
    let source = map.add("case.ron", text);
    format(&map, source).unwrap_or_else(|found| panic!("{found:?} in:\n{text}"))
}

fn parsed(text: &str) -> Graph {
    let mut map = SourceMap::new();
    for (path, text) in sources::parts(None).expect("built in") {
        map.add(path, text);
    }
    let source = map.add("case.ron", text);
    graph::parse(&map, source).unwrap_or_else(|found| panic!("{found:?} in:\n{text}"))
}

/// The graphs, their parts and the manifests of this repository.
fn committed() -> Vec<(String, String)> {
    let (graphs, parts) = (sources::graphs(None).expect("built in"), sources::parts(None).expect("built in"));
    let rules = sources::rewrites(None).expect("built in");
    let graphs = graphs.into_iter().chain(parts).chain(rules).map(|(path, text)| (format!("graphs/{path}"), text));
    let shaders = sources::shaders(None).expect("built in").into_iter().filter(|(path, _)| path.ends_with(".ron"));
    graphs.chain(shaders.map(|(path, text)| (format!("shaders/{path}"), text))).collect()
}

#[test]
fn small_files_are_laid_out_as_expected() {
    for (text, expected) in CASES {
        assert_eq!(formatted(text), expected, "{text}");
        assert_eq!(formatted(expected), expected, "formatted twice: {text}");
    }
}

#[test]
fn long_lines_are_broken_where_they_read_well() {
    let name = "w.blocks.{layer}.a_rather_long_name.weight";
    let op = format!("Op(\"norm\", {{\"x\": \"x\", \"weight\": \"{name}\", \"bias\": \"{name}\", \"y\": \"y\"}})");
    let broken = format!(
        "Op(\"norm\", {{\n    \"x\": \"x\", \"weight\": \"{name}\",\n    \"bias\": \"{name}\", \"y\": \"y\",\n}})\n"
    );
    assert_eq!(formatted(&op), broken);
    let record = format!("Variant(when: \"{name}\", source: \"{name}\", dispatch: [\"ceil_div(O, 4)\", \"T\"])");
    let broken = format!(
        "Variant(\n    when: \"{name}\",\n    source: \"{name}\",\n    dispatch: [\"ceil_div(O, 4)\", \"T\"],\n)\n"
    );
    assert_eq!(formatted(&record), broken);
    assert_eq!(formatted(&formatted(&op)), formatted(&op));
}

#[test]
fn committed_files_are_formatted() {
    for (path, text) in committed() {
        assert!(formatted(&text) == text, "{path} is not formatted; `cargo run -- fmt` formats it");
        let long = text.lines().position(|line| line.chars().count() > MAX_COLUMNS && !line.trim().starts_with("doc:"));
        assert_eq!(long.map(|at| at + 1), None, "{path}: a line of more than {MAX_COLUMNS} columns");
    }
}

/// White space and comments put between the tokens of a text, with a seed. Strings are left alone.
fn scattered(text: &str, random: &mut fastrand::Rng) -> String {
    let mut out = String::new();
    let mut is_string = false;
    let mut is_comment = false;
    for character in text.chars() {
        out.push(character);
        is_comment = (is_comment || !is_string && out.ends_with("//")) && character != '\n';
        is_string ^= character == '"' && !is_comment;
        if !is_string && !is_comment && ",([{:}])\n".contains(character) {
            out.push_str(match random.u32(0..40) {
                0 => "\n",
                1 => "\n\n\n",
                2 => "  ",
                3 => " /* note */ ",
                4 => " // note\n",
                5 => "\n// note\n",
                6 => "\n/* note\n   of two lines */",
                _ => "",
            });
        }
    }
    out
}

#[test]
fn formatted_text_is_the_same_graph_however_it_was_written() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        for (path, text) in committed() {
            let text = scattered(&text, &mut random);
            let once = formatted(&text);
            assert_eq!(formatted(&once), once, "{path}, seed {seed}: formatted twice");
            assert_eq!(once.matches("note").count(), text.matches("note").count(), "{path}, seed {seed}");
            if path.starts_with("graphs/") && !path.contains("rewrites") && !path.starts_with("graphs/parts/") {
                assert_eq!(parsed(&once), parsed(&text), "{path}, seed {seed}");
            }
        }
    }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder is made");
    std::fs::write(path, text).expect("a file is written");
}

/// Runs the program in a folder.
fn in_folder(dir: &TempDir, args: &[&str]) -> Ran {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_graphc")).args(args).current_dir(dir.file("")).output();
    let output = output.expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn program_formats_the_folders_at_hand_and_leaves_what_it_cannot_read() {
    let dir = TempDir::new();
    in_folder(&dir, &["fmt"]).fails(2, &["there is no folder `graphs` or `shaders` here"]);
    let (loose, neat, broken) = (dir.file("graphs/loose.ron"), dir.file("shaders/neat.ron"), dir.file("graphs/x.ron"));
    write(&loose, "[1,2]");
    write(&neat, "[1, 2]\n");
    write(&dir.file("shaders/text.wgsl"), "fn  f ( ) { }");
    let checked = in_folder(&dir, &["fmt", "--check"]).fails_with_result(1, "", &[]);
    assert_eq!(checked.out, "would change graphs/loose.ron\n2 files, 1 would change\n");
    assert_eq!(std::fs::read_to_string(&loose).expect("there"), "[1,2]", "`--check` writes nothing");

    write(&broken, "[1,\n 2");
    let ran = in_folder(&dir, &["fmt"]).fails_with_result(1, "", &["error: ", "graphs/x.ron:2:"]);
    assert_eq!(ran.out, "changed graphs/loose.ron\n3 files, 1 changed\n");
    assert_eq!(std::fs::read_to_string(&broken).expect("there"), "[1,\n 2", "left alone");
    assert_eq!(std::fs::read_to_string(&loose).expect("there"), "[1, 2]\n");
    let names = std::fs::read_dir(dir.file("graphs")).expect("there").count();
    assert_eq!(names, 2, "nothing temporary stays behind");

    let ran = graphc(&["fmt", "--check", text(&loose), text(&neat)]).fine();
    assert_eq!(ran.out, "2 files, 0 would change\n");
    graphc(&["fmt", text(&dir.file("none.ron"))]).fails(2, &["none.ron`", "No such file"]);
}
