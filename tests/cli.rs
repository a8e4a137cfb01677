//! The command line as a user meets it: what it prints where, and how it ends.
//!
//! Gets the program and files made for a test. Nothing here needs a device but the tests that generate; those skip
//! without.

mod program;
mod support;

use std::path::{Path, PathBuf};

use graphc::base::dtype::DType;
use graphc::checkpoint::Checkpoint;
use graphc::sources;
use program::{Ran, devices, graphc, graphc_with, synth, text};
use support::models::{Format, Shape, write_model};
use support::{TempDir, cases, open, reference, skip, values};

/// A graph of few ops for the committed random model; tests break it in one place each.
const GRAPH: &str = r#"Graph(
    name: "tiny",
    doc: "the table and the head, and little between them",
    detect: (has: ["emb.weight", "head.weight"], lacks: []),
    dims: {
        "V": Weight("emb.weight", 0), "C": Weight("emb.weight", 1),
        "T": Tokens, "S": Sequences, "R": Rows, "B": Capacity,
    },
    state: {"kept": State(dtype: f32, shape: ["B", "C"], init: 0.0)},
    inputs: {
        "tokens": Input(token_ids, ["T"]), "rows": Input(output_rows, ["R"]),
        "offsets": Input(sequence_offsets, ["S + 1"]), "at": Input(state_rows, ["S"]),
    },
    outputs: {"logits": Output(logits)},
    ops: [
        Op("embed", {"tokens": "in.tokens", "table": "w.emb.weight", "y": "e"}),
        Op("token_shift", {"x": "e", "last": "state.kept", "offsets": "in.offsets", "places": "in.at", "y": "prev"}),
        Op("keep_last", {"x": "e", "last": "state.kept", "offsets": "in.offsets", "places": "in.at"}),
        Map("0.5 * (x + prev)", {"x": "e", "prev": "prev"}, "mixed"),
        Op("gather_rows", {"x": "mixed", "rows": "in.rows", "y": "last"}),
        Op("linear", {"x": "last", "weight": "w.head.weight", "y": "logits"}),
    ],
)
"#;

/// A change to [`GRAPH`], the message it must cause, and where.
const MISTAKES: [(&str, &str, &str, &str); 17] = [
    ("name: \"tiny\",", "name: \"tiny\"", "expected", "3:5"),
    ("doc: \"the", "dco: \"the", "unknown field `dco`", "3:5"),
    ("outputs: {", "outputs: (", "expected opening `{`", "14:13"),
    ("output_rows", "outputs_rows", "did you mean `output_rows`?", "11:58"),
    ("\"T\": Tokens,", "\"T\": Tokens, \"C\": Rows,", "duplicate dim `C`", "7:23"),
    ("\"y\": \"e\"}", "\"y\": \"e\", \"y\": \"e\"}", "duplicate port `y`", "16:81"),
    ("[\"S + 1\"]", "[\"S + \"]", "`S + ` is not an expression over dims", "12:50"),
    ("[\"S + 1\"]", "[\"S + X\"]", "unknown dim `X`", "12:46"),
    ("[\"B\", \"C\"]", "[\"B\", \"D + 1\"]", "unknown dim `D`", "9:53"),
    ("\"gather_rows\"", "\"gather_row\"", "did you mean `gather_rows`?", "20:13"),
    ("\"x\": \"mixed\"", "\"x\": \"mixt\"", "unknown value `mixt`", "20:34"),
    ("w.head.weight", "w.haed.weight", "the checkpoint has no weight `haed.weight`", "21:47"),
    ("w.head.weight", "w.blocks.0.ffn.value.weight", "shapes clash", "21:47"),
    ("\"prev\": \"prev\"", "\"prev\": \"w.blocks.0.att.w2\"", "shapes clash", "19:53"),
    ("0.5 * (x + prev)", "0.5 * (x + sqroot(prev))", "`sqroot`", "19:25"),
    ("\"tokens\": \"in.tokens\", ", "", "port `tokens` of `embed` is given nothing", "16:13"),
    ("\"y\": \"last\"}", "\"y\": \"last\", \"eps\": 1.0}", "no port or constant `eps`", "20:75"),
];

fn write(path: &Path, bytes: impl AsRef<[u8]>) -> PathBuf {
    std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder is made");
    std::fs::write(path, bytes).expect("a file is written");
    path.to_owned()
}

/// Runs with the committed random model.
fn with_synth(args: &[&str]) -> Ran {
    let synth = synth();
    graphc(&[args, &["--weights", text(&synth)]].concat())
}

/// Compiles [`GRAPH`] with one change.
fn compile_changed(dir: &TempDir, from: &str, to: &str) -> Ran {
    assert_eq!(GRAPH.matches(from).count(), 1, "`{from}` stands in the graph once");
    let path = write(&dir.file("bad.ron"), GRAPH.replace(from, to));
    with_synth(&["compile", text(&path)])
}

#[test]
fn wrong_flags_end_with_2_and_say_what_is_expected() {
    for (args, message) in [
        (&["run", "--temperatur", "1"][..], "a similar argument exists: '--temperature'"),
        (&["run", "--temperature", "-1"], "expected a number of 0 or more"),
        (&["run", "-n", "-1"], "invalid value '-1' for '-n <N>'"),
        (&["run", "--top-p", "2"], "expected a number from 0 to 1"),
        (&["run", "--prompt", "x", "--tokens", "1"], "cannot be used with '--tokens"),
        (&["run", "--prompt", "x", "--all-positions"], "--logits <FILE>"),
        (&["run", "--drop-transition", "3"], "expected a level and a transition, as in 3.0"),
        (&["run", "--tokens", "1,x"], "invalid value 'x' for '--tokens"),
        (&["compile", "--tokens", "0"], "0 is not in 1..=65535"),
        (&["compile", "--emit", "plans"], "a similar value exists: 'plan'"),
        (&["compile", "--target", "moon"], "expected webgpu, vulkan, device or a RON file of limits"),
        (&["compile", "rwkv8"], "no graph file and no graph named `rwkv8`; there are: "),
    ] {
        graphc(args).fails(2, &[message]);
    }
    assert!(graphc(&["--help"]).fine().out.contains("Usage: graphc <COMMAND>"));
    assert!(graphc(&["--version"]).fine().out.starts_with("graphc "));
}

#[test]
fn unusable_checkpoints_are_refused_by_name() {
    let dir = TempDir::new();
    let whole = std::fs::read(synth()).expect("committed");
    let cut = write(&dir.file("cut.safetensors"), &whole[..whole.len() / 2]);
    let stub = write(&dir.file("stub.safetensors"), &whole[..4]);
    let folder = dir.file("");
    let missing = dir.file("missing.safetensors");
    // What cannot be read is the environment's fault; what can be read and is wrong is a diagnostic.
    for (path, code, message) in [
        (&missing, 2, "No such file"),
        (&folder, 2, "is a directory"),
        (&cut, 1, "truncated"),
        (&stub, 1, "it has 4 bytes; a header alone takes at least 8"),
    ] {
        graphc(&["compile", "--weights", text(path)]).fails(code, &[text(path).trim_end_matches('/'), message]);
    }
}

#[test]
fn checkpoint_that_fits_no_graph_is_told_what_each_missed() {
    let dir = TempDir::new();
    let path = dir.file("other.safetensors");
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]).expect("a number");
    safetensors::serialize_to_file([("emb.weight", view)], None, &path).expect("a checkpoint is written");
    let names: Vec<String> = sources::graphs(None).expect("built in").into_iter().map(|(path, _)| path).collect();
    let refused = graphc(&["compile", "--weights", text(&path)]);
    let refused = refused.fails(1, &["other.safetensors: the checkpoint fits no known graph", "is missing"]);
    for name in names.iter().filter(|name| !name.contains('/')) {
        let name = name.trim_end_matches(".ron");
        assert!(refused.err.contains(&format!("\n  {name}: `")), "{name}: {refused}");
    }
}

#[test]
fn prompts_that_cannot_be_run_are_refused() {
    let dir = TempDir::new();
    with_synth(&["run", "--prompt", "hello"]).fails(1, &["322 tokens and no known tokenizer", "--tokens 1,2,3"]);
    with_synth(&["run", "--prompt", ""]).fails(1, &["no known tokenizer"]);
    with_synth(&["run"]).fails(2, &["nothing to go on from"]);
    let empty = write(&dir.file("empty.txt"), "");
    graphc(&["run", "--prompt-file", text(&empty)]).fails(2, &["empty.txt` is empty"]);
    let bytes = write(&dir.file("bytes.txt"), [0xff, 0xfe]);
    graphc(&["run", "--prompt-file", text(&bytes)]).fails(1, &["bytes.txt` is not UTF-8"]);
    graphc(&["run", "--prompt-file", text(&dir.file("none.txt"))]).fails(2, &["none.txt`", "No such file"]);
}

#[test]
fn mistakes_in_a_graph_are_shown_at_their_place() {
    let dir = TempDir::new();
    for (from, to, message, place) in MISTAKES {
        let refused = compile_changed(&dir, from, to);
        let place = format!("{}:{place}\n", text(&dir.file("bad.ron")));
        let refused = refused.fails(1, &[message, &place]);
        assert_eq!(refused.err.matches("error: ").count(), 1, "one mistake is reported once: {refused}");
    }
    let sound = write(&dir.file("sound.ron"), GRAPH);
    with_synth(&["compile", text(&sound)]).fine();
}

#[test]
fn diagnostics_are_rendered_as_expected() {
    let dir = TempDir::new();
    let path = dir.file("bad.ron");
    let rendered = |from, to| compile_changed(&dir, from, to).err.replace(text(&path), "bad.ron");
    let unknown_op = r#"error: unknown op `gather_row`
   ┌─ bad.ron:20:13
   │
20 │         Op("gather_row", {"x": "mixed", "rows": "in.rows", "y": "last"}),
   │             ^^^^^^^^^^
   │
   = did you mean `gather_rows`?

"#;
    assert_eq!(rendered("\"gather_rows\"", "\"gather_row\""), unknown_op);
    let expression = r#"error: no definition in scope for identifier: `sqroot`
   ┌─ bad.ron:19:25
   │
19 │         Map("0.5 * (x + sqroot(prev))", {"x": "e", "prev": "prev"}, "mixed"),
   │                         ^^^^^^ unknown identifier

"#;
    assert_eq!(rendered("0.5 * (x + prev)", "0.5 * (x + sqroot(prev))"), expression);
    let duplicate = r#"error: duplicate dim `C`
  ┌─ bad.ron:7:23
  │
6 │         "V": Weight("emb.weight", 0), "C": Weight("emb.weight", 1),
  │                                        - first given here
7 │         "T": Tokens, "C": Rows, "S": Sequences, "R": Rows, "B": Capacity,
  │                       ^

"#;
    assert_eq!(rendered("\"T\": Tokens,", "\"T\": Tokens, \"C\": Rows,"), duplicate);
}

#[test]
fn all_mistakes_of_a_graph_come_out_together() {
    let dir = TempDir::new();
    let broken = GRAPH.replace("\"gather_rows\"", "\"gather_row\"").replace("w.head.weight", "w.haed.weight");
    let path = write(&dir.file("bad.ron"), broken);
    with_synth(&["compile", text(&path)]).fails(1, &["bad.ron:20:13", "bad.ron:21:47"]);
    graphc(&["check", text(&path)]).fails_with_result(1, "1 graphs", &["bad.ron:20:13"]);
}

#[test]
fn mistake_in_a_kernel_is_shown_in_its_own_file() {
    let dir = TempDir::new();
    for (name, contents) in sources::shaders(None).expect("built in") {
        write(&dir.file("shaders").join(name), contents);
    }
    let path = dir.file("shaders/token_shift.wgsl");
    let sound = std::fs::read_to_string(&path).expect("just written");
    // Behind an import, so that the line in the file is not the line in what is compiled.
    let broken = sound.replace("let t = id.y;", "let t = id.w;");
    assert_ne!(broken, sound);
    write(&path, &broken);
    let line = broken.lines().position(|line| line.contains("id.w")).expect("there") + 1;
    let place = format!("shaders/token_shift.wgsl:{line}:");
    with_synth(&["compile", "--shaders", text(&dir.file("shaders"))]).fails(1, &[&place, "let t = id.w;"]);
    write(&path, sound);
    with_synth(&["compile", "--shaders", text(&dir.file("shaders"))]).fine();
}

#[test]
fn every_stage_prints_as_text_and_as_json_and_always_the_same() {
    for stage in ["graph", "model", "schedule", "plan", "barriers", "memory", "summary", "kernels"] {
        let emitted = with_synth(&["compile", "--emit", stage]).fine();
        assert!(emitted.out.lines().count() > 5 && emitted.err.is_empty(), "{stage}: {emitted}");
        assert!(!emitted.out.contains('\x1b'), "{stage}: colours in a pipe");
        let json = with_synth(&["compile", "--emit", stage, "--format", "json"]).fine().out;
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{stage}: {error}"));
        assert!(parsed.is_object() || parsed.is_array(), "{stage}");
        assert_eq!(with_synth(&["compile", "--emit", stage]).out, emitted.out, "{stage}");
        assert_eq!(with_synth(&["compile", "--emit", stage, "--format", "json"]).out, json, "{stage}");
    }
}

#[test]
fn summary_counts_what_a_step_costs() {
    let json = with_synth(&["compile", "--format", "json", "--tokens", "16"]).fine().out;
    let summary: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let number = |name: &str| summary[name].as_u64().unwrap_or_else(|| panic!("no `{name}` in {json}"));
    assert!(number("dispatches") > number("levels"), "levels hold several dispatches: {json}");
    assert!(number("transitions") > number("barriers"), "barriers hold several transitions: {json}");
    assert!(number("barriers") <= number("levels") + 1 && number("levels") == number("longest_chain"), "{json}");
    assert!(number("slot_bytes") >= number("lower_bound_bytes") && number("lower_bound_bytes") > 0, "{json}");
}

/// Logits of every token are the largest value by far, and nothing that lives at other levels can fill their slot.
#[test]
fn plan_with_slots_far_over_their_bound_names_the_level_and_the_values() {
    let dir = TempDir::new();
    let weights = dir.file("m.safetensors");
    let (layers, heads, head_size, ffn, vocab) = (2, 2, 8, 64, 300);
    let (rank_w, rank_a, rank_v, rank_g) = (8, 24, 40, 8);
    let shape = Shape { layers, heads, head_size, ffn, vocab, rank_w, rank_a, rank_v, rank_g };
    write_model(&weights, &shape, 1, &Format::converted(DType::F32)).expect("written");
    let every_row = ["compile", "--weights", text(&weights), "--tokens", "32", "--rows", "32"];
    let emitted = |stage: &str| graphc(&[&every_row[..], &["--emit", stage]].concat()).fine().out;
    let parsed = |stage: &str| -> serde_json::Value {
        let ran = graphc(&[&every_row[..], &["--format", "json", "--emit", stage]].concat()).fine();
        serde_json::from_str(&ran.out).expect("JSON")
    };
    let summary = parsed("summary");
    let number = |name: &str| summary[name].as_u64().expect("a number");
    let (bytes, bound) = (number("slot_bytes"), number("lower_bound_bytes"));
    assert!(bytes * 10 > bound * 11, "{bytes} bytes, at least {bound}");
    for stage in ["plan", "memory"] {
        let gaps = parsed(stage)["gaps"].as_array().expect("gaps").clone();
        let free: u64 = gaps.iter().map(|gap| gap["free_bytes"].as_u64().expect("bytes")).sum();
        assert_eq!(free, bytes - bound, "{stage}: all of the difference is accounted for");
        let text = emitted(stage);
        assert!(text.contains(&format!("the bound is what lives at level {};", gaps[0]["level"])), "{stage}: {text}");
        for gap in gaps {
            let value = gap["value"].as_str().expect("a value");
            assert!(text.contains(&format!("are there for `{value}` in levels")), "{stage} names `{value}`: {text}");
        }
    }
    let usual = with_synth(&["compile", "--tokens", "32", "--emit", "plan"]).fine().out;
    assert!(!usual.contains("the bound is what lives"), "{usual}");
}

#[test]
fn value_that_cannot_be_kept_is_answered_with_a_near_one() {
    with_synth(&["compile", "--keep", "layer0.wkb"]).fails(1, &["no value `layer0.wkb`", "did you mean `layer0.wkv`?"]);
    with_synth(&["compile", "--keep", "in.tokens"]).fails(1, &["`in.tokens` is a weight or an input"]);
}

#[test]
fn no_driver_is_answered_with_what_to_install() {
    let nothing = [("VK_ICD_FILENAMES", "/nonexistent")];
    for executor in ["hal", "wgpu"] {
        let ran = graphc_with(&["run", "--prompt", "x", "-n", "1", "--executor", executor], &nothing);
        ran.fails(2, &["no device", "mesa-vulkan-drivers"]);
    }
}

#[test]
fn without_a_driver_the_cpu_runs_it() {
    let nothing = [("VK_ICD_FILENAMES", "/nonexistent"), ("VK_DRIVER_FILES", "/nonexistent")];
    let args = ["run", "--prompt", "The ", "-n", "4", "--temperature", "0"];
    let left_to_it = graphc_with(&args, &nothing).fine();
    assert!(left_to_it.err.starts_with("executor: reference on "), "{left_to_it}");
    assert!(left_to_it.err.contains("(no device for hal or wgpu)"), "{left_to_it}");
    let named = graphc_with(&[&args[..], &["--executor", "reference", "--sanitize"]].concat(), &nothing).fine();
    assert_eq!((named.out, named.err.as_str()), (left_to_it.out, ""), "a sanitizer changes nothing");
    let listed = graphc_with(&["devices"], &nothing).fine().out;
    assert!(listed.contains("executors   reference") && listed.contains("no other devices: "), "{listed}");
    let wrong = [&args[..], &["--executor", "reference", "--device", "no such CPU"]].concat();
    graphc_with(&wrong, &nothing).fails(2, &["the CPU's name does not contain `no such cpu`"]);
}

#[test]
fn a_sanitizer_is_the_reference_executors() {
    let run = |more: &[&str]| graphc(&[&["run", "--prompt", "x", "-n", "1"], more].concat());
    run(&["--sanitize"]).fails(2, &["`--sanitize` takes `--executor reference`"]);
    run(&["--executor", "reference", "--drop-transition", "1.0"]).fails(2, &["`--executor reference --sanitize`"]);
    let found = run(&["--executor", "reference", "--sanitize", "--drop-transition", "5.2"]);
    found.fails_with_result(1, "", &["and no transition orders them (RAW)", "the sanitizer found"]);
}

#[test]
fn logits_are_written_whole_or_not_at_all() {
    if let Err(reason) = devices("wgpu") {
        return skip(&reason);
    }
    let dir = TempDir::new();
    let (last, all) = (dir.file("last.safetensors"), dir.file("all.safetensors"));
    let run = |more: &[&str]| with_synth(&[&["run", "--tokens", "5,6,7", "-n", "0"], more].concat());
    assert_eq!(run(&["--logits", text(&last)]).fine().out, "", "nothing was to be generated");
    run(&["--logits", text(&all), "--all-positions", "--keep", "layer0.wkv"]).fine();
    let shape = |file: &Checkpoint| file.tensor("logits").expect("written").shape;
    let (last, all) = (open(&last), open(&all));
    assert_eq!((shape(&last), shape(&all)), (vec![1, 322], vec![3, 322]));
    let (last, all_rows) = (values(&last, "logits"), values(&all, "logits"));
    let difference = last.iter().zip(&all_rows[2 * 322..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < 1e-4, "the last row is the last position's: {difference}");
    assert!(all.tensor("layer0.wkv").is_some());

    let folder = write(&dir.file("taken/inside"), "").parent().expect("just made").to_owned();
    run(&["--logits", text(&folder)]).fails(2, &["cannot write `", "taken`"]);
    run(&["--logits", text(&dir.file("none/l.safetensors"))]).fails(2, &["cannot write `", "No such file"]);
    let left: Vec<_> =
        std::fs::read_dir(dir.file("")).expect("there").map(|entry| entry.expect("read").file_name()).collect();
    assert_eq!(left.len(), 3, "two results and a folder, nothing half-written: {left:?}");
}

#[test]
fn token_out_of_range_and_unknown_device_are_named() {
    for executor in ["hal", "wgpu"] {
        match devices(executor) {
            Err(reason) => skip(&reason),
            Ok(names) => {
                let ran = with_synth(&["run", "--tokens", "1,322", "--executor", executor]);
                ran.fails(1, &["token 322 (number 1, from 0) is not in the vocabulary of 322"]);
                let ran = with_synth(&["run", "--tokens", "1", "--executor", executor, "--device", "no such thing"]);
                ran.fails(2, &["no such thing", &names[0]]);
            }
        }
    }
}

#[test]
fn same_seed_says_the_same_and_a_pipe_gets_nothing_but_text() {
    if let Err(reason) = devices("wgpu") {
        return skip(&reason);
    }
    let run = |seed| graphc(&["run", "--prompt", "In the beginning", "-n", "12", "--seed", seed]).fine();
    let (first, second, third) = (run("7"), run("7"), run("8"));
    assert_eq!(first.out, second.out);
    assert_ne!(first.out, third.out, "another seed");
    assert!(first.out.ends_with('\n') && first.out.trim().len() > 3, "{first}");
    for ran in [&first, &third] {
        assert!(!ran.out.contains(['\x1b', '\r']) && !ran.err.contains(['\x1b', '\r']), "{ran}");
        assert_eq!(ran.err.lines().count(), 1, "only which executor was chosen: {ran}");
    }
}

#[test]
fn likeliest_tokens_are_the_published_ones() {
    // The difference that may swap two tokens: twice what logits in f32 may be off.
    const MARGIN: f32 = 1e-3;
    let Some(dir) = reference("7v0") else {
        return skip("no `7v0` in the reference folder (GRAPHC_REFERENCE_DIR)");
    };
    let weights = dir.join("model.safetensors");
    for executor in ["hal", "wgpu"] {
        if let Err(reason) = devices(executor) {
            skip(&reason);
            continue;
        }
        for case in cases(&dir) {
            let sure = case.margins.iter().take_while(|margin| **margin > MARGIN).count();
            let list = |tokens: &[u32]| tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            let (tokens, n) = (list(&case.tokens), sure.to_string());
            let args = ["run", "--weights", text(&weights), "--tokens", &tokens, "-n", &n, "--executor", executor];
            let ran = graphc(&[&args[..], &["--temperature", "0", "--print-tokens"]].concat()).fine();
            assert_eq!(ran.out.trim_end(), list(&case.greedy[..sure]), "{executor}, case {}", case.id);
        }
    }
}
