//! What the program says, and leaves behind, where its environment fails: disks that fill up, files that are too large
//! or lie about themselves, terminals, flags that would do nothing.
//!
//! Gets the program and a system that is told to fail. What then holds: a message says what failed and why, the exit
//! code is 2, a file that was there before is as it was, and nothing half-written is found beside it.

mod program;
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use graphc::checkpoint::Checkpoint;
use program::{Ran, devices, graphc, text};
use support::{TempDir, skip};

/// Runs a line of shell with the program as `$GRAPHC`, its output as the shell leaves it.
fn shell(line: &str) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", line]).env("GRAPHC", env!("CARGO_BIN_EXE_graphc"));
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    }
    let output = command.output().expect("there is a shell");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn names(dir: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.file("")).expect("there");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("read").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// Whether this test cannot run: no device, or no such shell and system.
fn lacks_device() -> bool {
    devices("wgpu").err().inspect(|reason| skip(reason)).is_some()
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_standard_output_is_no_success() {
    let full = "cannot write to the standard output: No space left on device (os error 28)";
    shell("exec $GRAPHC compile > /dev/full").fails(2, &[full]);
    if !lacks_device() {
        shell("exec $GRAPHC run --prompt x -n 3 > /dev/full").fails(2, &[full]);
        // Whoever closes a pipe early has seen enough.
        shell("$GRAPHC run --prompt x -n 30 | head -c 1 > /dev/null; exit 0").fine();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_named_with_the_file() {
    let full = "cannot write `/dev/full`: No space left on device (os error 28)";
    graphc(&["compile", "--output", "/dev/full"]).fails(2, &[full]);
    if !lacks_device() {
        graphc(&["run", "--prompt", "x", "-n", "0", "--logits", "/dev/full"]).fails(2, &[full]);
        graphc(&["run", "--prompt", "x", "-n", "0", "--state-out", "/dev/full"]).fails(2, &[full]);
    }
}

/// A limit on the size of files is met in the middle of one, as the end of a disk is.
#[test]
#[cfg(target_os = "linux")]
fn a_file_that_cannot_be_finished_leaves_the_old_one_and_nothing_else() {
    let dir = TempDir::new();
    let limited = |args: &str| shell(&format!("trap '' XFSZ; ulimit -f 8; exec $GRAPHC {args}"));
    let target = dir.file("result");
    // Drivers keep their memory in files, too, so that no device can be had under such a limit.
    let (command, too_large) = (
        format!("compile --output {}", text(&target)),
        format!("cannot write `{}`: File too large (os error 27)", text(&target)),
    );
    limited(&command).fails(2, &[&too_large]);
    assert_eq!(names(&dir), [""; 0]);
    std::fs::write(&target, "before").expect("written");
    limited(&command).fails(2, &[&too_large]);
    assert_eq!(names(&dir), ["result"]);
    assert_eq!(std::fs::read_to_string(&target).expect("read"), "before");
    std::fs::remove_file(&target).expect("removed");
    let graph = dir.file("graph.ron");
    let long = format!("Graph(name: \"x\",{}\n)", "\n  // a comment\n\n".repeat(2000));
    std::fs::write(&graph, &long).expect("written");
    limited(&format!("fmt {}", text(&graph))).fails(2, &["cannot write `", "File too large (os error 27)"]);
    assert_eq!(names(&dir), ["graph.ron"]);
    assert_eq!(std::fs::read_to_string(&graph).expect("read"), long);
}

/// A limit on the process's memory is met by the driver, which says so as it does when a card is full.
#[test]
#[cfg(target_os = "linux")]
fn a_device_without_room_is_told_by_what_did_not_fit() {
    let dir = TempDir::new();
    let (graph, weights) = bytes_model(&dir);
    let states: String = (0..60)
        .map(|nth| format!("\"s{nth}\": State(dtype: f32, shape: [\"B\", \"25000000\"], init: 0.0), "))
        .collect();
    let text_of = std::fs::read_to_string(&graph).expect("read");
    let large =
        text_of.replace("\"S\": Sequences}", &format!("\"S\": Sequences, \"B\": Capacity}},\n    state: {{{states}}}"));
    std::fs::write(&graph, large).expect("written");
    for executor in ["hal", "wgpu"] {
        if let Err(reason) = devices(executor) {
            skip(&reason);
            continue;
        }
        let command = format!(
            "ulimit -v 2500000; exec $GRAPHC run {} --weights {} --tokens 1 -n 0 --executor {executor}",
            text(&graph),
            text(&weights)
        );
        let advice = " of 100000000 bytes; use smaller steps, fewer sequences or a device with more memory\n";
        shell(&command).fails(2, &["error: out of device memory while creating buffer `s", advice]);
    }
}

/// A file of a size that takes no room.
#[cfg(target_os = "linux")]
fn sparse(path: &Path, bytes: u64) -> PathBuf {
    std::fs::File::create(path).and_then(|file| file.set_len(bytes)).expect("a sparse file");
    path.to_owned()
}

#[test]
#[cfg(target_os = "linux")]
fn files_too_large_for_what_they_are_said_to_be_are_refused_unread() {
    let dir = TempDir::new();
    let huge = sparse(&dir.file("huge.ron"), 1 << 40);
    let more = "it has more than the 67108864 bytes that a text may have";
    graphc(&["check", text(&huge)]).fails(2, &["cannot read `", more]);
    graphc(&["compile", text(&huge)]).fails(2, &["cannot read `", more]);
    graphc(&["compile", "--target", text(&huge)]).fails(2, &["cannot read `", more]);
    graphc(&["fmt", text(&huge)]).fails(2, &["cannot read `", more]);
    let prompt = "has 1099511627776 bytes, a prompt at most 67108864";
    graphc(&["run", "--prompt-file", text(&huge)]).fails(2, &[prompt]);
    graphc(&["run", "--prompts", text(&huge)]).fails(2, &["has 1099511627776 bytes, prompts at most 67108864"]);
    let state = "has 1099511627776 bytes, a state at most 4294967296";
    graphc(&["run", "--prompt", "x", "--state-in", text(&huge)]).fails(2, &[state]);
}

#[test]
fn headers_that_lie_are_refused_for_what_they_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz_corpus/header");
    for (name, reason) in [
        ("claims_2_to_the_60", "a tensor's shape and its bytes do not agree, or its size is beyond all numbers"),
        ("product_overflows", "a tensor's shape and its bytes do not agree, or its size is beyond all numbers"),
        ("header_of_2_to_the_60", "its first 8 bytes, the header's length, are absurdly large"),
        ("header_of_2_to_the_64", "its first 8 bytes, the header's length, are absurdly large"),
        ("offsets_backwards", "the bytes of `table` do not follow on those of the tensor before it"),
        ("overlapping", "the bytes of `b` do not follow on those of the tensor before it"),
        ("deep", "its header is not the JSON of a safetensors file"),
    ] {
        let path = folder.join(format!("{name}.safetensors"));
        let ran = graphc(&["compile", "--weights", text(&path)]);
        ran.fails(1, &[&format!("error: `{}` is not a usable safetensors file: {reason}", text(&path))]);
    }
}

/// A graph of one product over a vocabulary of bytes, and its weights.
fn bytes_model(dir: &TempDir) -> (PathBuf, PathBuf) {
    let graph = dir.file("bytes.ron");
    std::fs::write(
        &graph,
        r#"Graph(
    name: "bytes",
    detect: (has: ["table"]),
    dims: {"T": Tokens, "R": Rows, "S": Sequences},
    inputs: {
        "tokens": Input(token_ids, ["T"]), "rows": Input(output_rows, ["R"]),
        "offsets": Input(sequence_offsets, ["S + 1"]), "places": Input(state_rows, ["S"]),
    },
    outputs: {"logits": Output(logits)},
    ops: [
        Op("embed", {"tokens": "in.tokens", "table": "w.table", "y": "x"}),
        Op("gather_rows", {"x": "x", "rows": "in.rows", "y": "last"}),
        Op("linear", {"x": "last", "weight": "w.table", "y": "logits"}),
    ],
)
"#,
    )
    .expect("written");
    let bytes: Vec<u8> = (0..256 * 4).flat_map(|at| (at as f32).sin().to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![256, 4], &bytes).expect("sound");
    let weights = dir.file("bytes.safetensors");
    safetensors::serialize_to_file([("table", view)], None, &weights).expect("written");
    (graph, weights)
}

#[test]
fn prompts_of_nothing_and_of_a_megabyte() {
    let dir = TempDir::new();
    let (graph, weights) = bytes_model(&dir);
    let (empty, long) = (dir.file("empty"), dir.file("long"));
    std::fs::write(&empty, "").expect("written");
    std::fs::write(&long, "0123456789abcdef".repeat(1 << 16)).expect("written");
    let run =
        |more: &[&str]| graphc(&[&["run", text(&graph), "--weights", text(&weights), "-n", "1"][..], more].concat());
    let nothing = "nothing to go on from: give a non-empty `--prompt`, `--prompt-file` or `--tokens`, or a \
                   `--start-token`";
    run(&["--prompt", ""]).fails(2, &[nothing]);
    run(&["--prompt-file", text(&empty)]).fails(2, &["is empty: there is no prompt in it"]);
    if lacks_device() {
        return;
    }
    let ran = run(&["--prompt-file", text(&long), "--step-tokens", "4096", "--stats", "--print-tokens"]).fine();
    assert!(ran.err.contains("prompt   1048576 tokens"), "{ran}");
    // The logits are those of the last byte alone, as a prompt of that byte has them.
    assert_eq!(ran.out, run(&["--prompt", "f", "--print-tokens"]).fine().out);
    let kept = dir.file("kept.safetensors");
    run(&["--prompt", "f", "--keep", "last", "--logits", text(&kept)]).fine();
    assert!(Checkpoint::open(&kept).expect("written").tensor("last").is_some());
}

#[test]
fn flags_that_would_do_nothing_are_refused_by_name() {
    let dir = TempDir::new();
    let prompts = dir.file("prompts.txt");
    std::fs::write(&prompts, "a\n").expect("written");
    graphc(&["run", "--prompt", "x", "--keep", "emb"])
        .fails(2, &["`--keep` takes `--logits FILE`, where kept values are written"]);
    graphc(&["run", "--prompts", text(&prompts), "--keep", "emb"])
        .fails(2, &["`--keep` takes `--logits FILE`, which `--prompts` does not take"]);
    let plan = dir.file("plan.ron");
    graphc(&["compile", "--output", text(&plan)]).fine();
    graphc(&["compile", text(&plan), "--emit", "memory"]).fine();
    let all = [
        "--weights",
        "w",
        "--graphs",
        "g",
        "--shaders",
        "s",
        "--keep",
        "k",
        "--batch-invariant",
        "--tokens",
        "1",
        "--sequences",
        "1",
        "--rows",
        "1",
        "--target",
        "vulkan",
        "--output",
        "o",
    ];
    let flags = "`--weights`, `--graphs`, `--shaders`, `--keep`, `--batch-invariant`, `--tokens`, `--sequences`, \
                 `--rows`, `--target`, `--output`";
    let message = format!("a plan file is printed as it is: {flags} would change nothing without a graph");
    graphc(&[&["compile", text(&plan)][..], &all].concat()).fails(2, &[&message]);
    let message = "a plan file is printed as it is: `--rows` would change nothing without a graph";
    graphc(&["compile", text(&plan), "--rows", "1"]).fails(2, &[message]);
}

/// A pseudo-terminal shows colours, whichever command compiles the graph; a pipe and `NO_COLOR` show none.
#[test]
#[cfg(target_os = "linux")]
fn mistakes_are_coloured_on_a_terminal_by_every_command() {
    if Command::new("script").arg("--version").output().is_err() {
        return skip("there is no `script` to make a terminal with");
    }
    let dir = TempDir::new();
    let (graph, weights) = bytes_model(&dir);
    let broken = std::fs::read_to_string(&graph)
        .expect("read")
        .replace("w.table\", \"y\": \"logits", "w.tabel\", \"y\": \"logits");
    std::fs::write(&graph, broken).expect("written");
    let model = format!("{} --weights {}", text(&graph), text(&weights));
    let mut commands = vec![format!("check {model}"), format!("compile {model}")];
    if !lacks_device() {
        commands.extend([format!("run {model} --tokens 1"), format!("bench {model}")]);
    }
    for command in commands {
        let terminal = |before: &str| shell(&format!("script -qec '{before} '\"$GRAPHC\"' {command}' /dev/null"));
        let (coloured, plain) = (terminal(""), terminal("NO_COLOR=1"));
        let message = "the checkpoint has no weight `tabel`";
        assert!(coloured.out.contains(message) && coloured.out.contains("\x1b["), "{command}: {coloured}");
        assert!(plain.out.contains(message) && !plain.out.contains("\x1b[3"), "{command}: {plain}");
        let piped = shell(&format!("exec $GRAPHC {command}"));
        assert!(piped.err.contains(message) && !piped.err.contains('\x1b'), "{command}: {piped}");
    }
}
