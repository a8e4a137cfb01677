//! `graphc run` with more than one prompt, or more than one run: prompts side by side, states in files.
//!
//! Gets the program and the models that come with it. What then holds: many prompts give what each gives alone; a
//! prompt cut in two by a state file goes on as if it had not been; what does not fit is refused by name. Everything
//! but the refusals needs a device, and skips without.

mod program;
mod support;

use graphc::sources;
use program::{Ran, devices, graphc, synth, text};
use support::{TempDir, skip};

/// Unequal prompts, one longer than the smallest steps, and more of them than run side by side.
const PROMPTS: [&str; 5] = ["In the beginning", "T", "Once upon a time there was a king who had", "\"Why, ", "And"];

/// Whether there is no device; then the test has said so.
fn lacks_device() -> bool {
    devices("wgpu").map_err(|reason| skip(&reason)).is_err()
}

/// Runs, and generates nine tokens unless told otherwise.
fn run(more: &[&str]) -> Ran {
    let count: &[&str] = if more.contains(&"-n") { &[] } else { &["-n", "9"] };
    graphc(&[&["run"], count, more].concat())
}

fn with_synth(more: &[&str]) -> Ran {
    run(&[&["--weights", text(&synth())], more].concat())
}

#[test]
fn prompts_side_by_side_give_what_each_gives_alone() {
    if lacks_device() {
        return;
    }
    let dir = TempDir::new();
    let file = dir.file("prompts.txt");
    std::fs::write(&file, format!("\n{}\n", PROMPTS.join("\n"))).expect("written");
    for (sampling, sequences) in [(["--temperature", "0"], "3"), (["--seed", "5"], "8")] {
        let args = ["--prompts", text(&file), "--sequences", sequences];
        let expected: Vec<String> = (0..PROMPTS.len())
            .map(|at| {
                let alone = run(&[&["--prompt", PROMPTS[at]][..], &sampling].concat()).fine().out;
                format!("==> {}: {} <==\n{alone}", at + 2, PROMPTS[at])
            })
            .collect();
        assert_eq!(run(&[&args[..], &sampling].concat()).fine().out, expected.join("\n"), "{sampling:?}");
    }
}

#[test]
fn json_lines_say_what_each_prompt_wants() {
    if lacks_device() {
        return;
    }
    let dir = TempDir::new();
    let file = dir.file("prompts.jsonl");
    let lines = [
        r#"{"tokens": [5, 6, 7], "n": 4, "seed": 3}"#,
        r#"{"tokens": [9], "id": "b", "n": 0}"#,
        r#"{"tokens": [8, 8]}"#,
    ];
    std::fs::write(&file, lines.join("\n")).expect("written");
    let alone = |tokens: &str, n: &str, seed: &str| {
        with_synth(&["--tokens", tokens, "-n", n, "--seed", seed]).fine().out.trim_end().to_owned()
    };
    let expected = format!(
        "{{\"id\":1,\"tokens\":[{}]}}\n{{\"id\":\"b\",\"tokens\":[]}}\n{{\"id\":3,\"tokens\":[{}]}}\n",
        alone("5,6,7", "4", "3"),
        alone("8,8", "9", "1"),
    );
    for executor in ["hal", "wgpu"] {
        assert_eq!(with_synth(&["--prompts", text(&file), "--executor", executor]).fine().out, expected, "{executor}");
    }
}

#[test]
fn files_of_prompts_that_cannot_be_run_are_refused() {
    let dir = TempDir::new();
    let file = dir.file("prompts");
    let refused = |contents: &str, more: &[&str], code, texts: &[&str]| {
        std::fs::write(&file, contents).expect("written");
        run(&[&["--prompts", text(&file)], more].concat()).fails(code, texts);
    };
    refused("", &[], 2, &["prompts` is empty"]);
    refused(" \n", &[], 2, &["prompts` is blank"]);
    refused(
        "{\"n\": 1}\n{\"tokens\": [256]}",
        &[],
        1,
        &["prompts:1:1", "expected either", "prompts:2:1", "token 256 (number 0, from 0)"],
    );
    let model = synth();
    refused(
        "words",
        &["--weights", text(&model)],
        1,
        &["prompts:1:1", "the model has 322 tokens and no known tokenizer"],
    );
    refused("words", &["--prompt", "more words"], 2, &["cannot be used with"]);
    run(&["--prompt", "x", "--sequences", "2"]).fails(2, &["cannot be used with"]);
    run(&["--prompts", text(&dir.file("none"))]).fails(2, &["none`", "No such file"]);
}

#[test]
fn a_prompt_cut_by_a_state_file_goes_on_as_one() {
    if lacks_device() {
        return;
    }
    let dir = TempDir::new();
    let [first, second, all] = ["first", "second", "all"].map(|name| dir.file(name));
    let greedy = ["--temperature", "0"];
    let whole = run(&[&["--prompt", "In the beginning", "--state-out", text(&all)][..], &greedy].concat()).fine().out;
    run(&["--prompt", "In the", "-n", "0", "--state-out", text(&first)]).fine();
    let state = ["--state-in", text(&first), "--state-out", text(&second)];
    let cut = run(&[&["--prompt", " beginning"][..], &state, &greedy].concat()).fine().out;
    assert_eq!(cut, whole);
    let read = |path| std::fs::read(path).expect("written");
    assert!(read(&second) == read(&all), "and both read all that they said");
    assert_ne!(read(&first), read(&second));
    // What was said is part of the state: going on from it is going on from the whole text.
    let said = format!("In the beginning{} And", whole.trim_end_matches('\n'));
    let expected = run(&[&["--prompt", &said][..], &greedy].concat()).fine().out;
    assert_eq!(run(&[&["--prompt", " And", "--state-in", text(&all)][..], &greedy].concat()).fine().out, expected);
    // A state that many prompts begin in.
    let file = dir.file("prompts");
    std::fs::write(&file, " beginning\n end").expect("written");
    let shared = run(&[&["--prompts", text(&file), "--state-in", text(&first)][..], &greedy].concat()).fine().out;
    assert!(shared.starts_with(&format!("==> 1:  beginning <==\n{whole}\n==> 2:  end <==\n")), "{shared}");
    assert_eq!(std::fs::read_dir(dir.file("")).expect("there").count(), 4, "nothing half-written");
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let dir = TempDir::new();
    run(&["--prompt", "x", "--state-in", text(&dir.file("none"))]).fails(2, &["none`", "No such file"]);
    if lacks_device() {
        return;
    }
    let file = dir.file("state");
    run(&["--prompt", "x", "-n", "0", "--state-out", text(&file)]).fine();
    let refused = with_synth(&["--tokens", "1", "--state-in", text(&file)]);
    refused.fails(1, &["state` is no state of this model: its model is `", "`, expected `"]);
    let whole = std::fs::read(&file).expect("written");
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("written");
    let cut = format!("bytes than the file's {}: truncated, or something was appended", whole.len() / 2);
    run(&["--prompt", "x", "--state-in", text(&file)]).fails(1, &["is no state of this model: it is no usable", &cut]);
    std::fs::write(&file, "no state").expect("written");
    run(&["--prompt", "x", "--state-in", text(&file)])
        .fails(1, &["it is no usable safetensors file: its first 8 bytes, the header"]);
    let out = run(&["--prompt", "x", "-n", "0", "--state-out", text(&dir.file("none/state"))]);
    out.fails(2, &["cannot write `", "No such file"]);
}

#[test]
fn batch_invariant_passes_marked_variants_over() {
    let dir = TempDir::new();
    for (path, text) in sources::shaders(None).expect("built in") {
        let path = dir.file("shaders").join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    let read = |name: &str| std::fs::read_to_string(dir.file(name)).expect("just written");
    let manifest = read("shaders/embed.ron");
    let changed = |mark: &str| {
        let variant =
            format!(r#"variants: [Variant(when: "T > 1", source: "embed_doubled.wgsl", dispatch: DISPATCH{mark})],"#);
        let dispatch = manifest.split_once("dispatch: ").expect("a dispatch").1;
        let dispatch = &dispatch[..=dispatch.find(']').expect("a list")];
        let end = manifest.rfind(')').expect("a manifest");
        let changed = format!("{}    {}\n)\n", &manifest[..end], variant.replace("DISPATCH", dispatch));
        std::fs::write(dir.file("shaders/embed.ron"), changed).expect("written");
    };
    let doubled = read("shaders/embed.wgsl").replace("load_table", "2.0 * load_table");
    assert!(doubled.contains("2.0 * load_table"));
    std::fs::write(dir.file("shaders/embed_doubled.wgsl"), doubled).expect("written");
    let (shaders, model) = (dir.file("shaders"), synth());
    let kernels = |more: &[&str]| {
        let args =
            ["compile", "--tokens", "2", "--emit", "kernels", "--weights", text(&model), "--shaders", text(&shaders)];
        graphc(&[&args[..], more].concat()).fine().out
    };
    for (mark, with, without) in
        [(", batch_invariant: false", false, true), (", batch_invariant: true", true, true), ("", true, true)]
    {
        changed(mark);
        assert_eq!(kernels(&["--batch-invariant"]).contains("2.0 * load_table"), with, "`{mark}`");
        assert_eq!(kernels(&[]).contains("2.0 * load_table"), without, "`{mark}`");
    }
    if lacks_device() {
        return;
    }
    // What is kept has a row for each token of the last step.
    changed(", batch_invariant: false");
    let kept = |more: &[&str]| {
        let out = dir.file("out");
        let args = ["--tokens", "5,6", "-n", "0", "--keep", "emb", "--logits", text(&out), "--shaders", text(&shaders)];
        with_synth(&[&args[..], more].concat()).fine();
        support::values(&support::open(&out), "emb")
    };
    let (marked, plain) = (kept(&[]), kept(&["--batch-invariant"]));
    assert_eq!(marked, plain.iter().map(|value| 2.0 * value).collect::<Vec<f32>>());
    // The second token, which is the second row of one step or the only row of another.
    let by_one = kept(&["--batch-invariant", "--step-tokens", "1"]);
    assert_eq!(plain[by_one.len()..2 * by_one.len()], by_one);
}

#[test]
fn a_transition_that_is_not_there_cannot_be_left_out() {
    run(&["--prompt", "x", "--drop-transition", "1.0"]).fails(2, &["`--drop-transition` takes `--executor hal`"]);
    if let Err(reason) = devices("hal") {
        return skip(&reason);
    }
    for (place, texts) in [
        ("1.999", ["there is no transition 1.999 to leave out", "the barrier before level 1 has "]),
        ("9999.0", ["there is no transition 9999.0 to leave out", "levels and a barrier after them"]),
    ] {
        run(&["--prompt", "x", "--executor", "hal", "--drop-transition", place]).fails(2, &texts);
    }
}
