//! What people expect of a program that writes: texts that stop where they should, answers for programs, conversations,
//! and how well a text is foretold.
//!
//! Gets the program, its built-in model and random ones. What then holds: a text to stop at is never printed, in no way
//! of running; JSON says what the text does, and the model's own probabilities; a conversation is, token for token,
//! what its transcript is as a prompt; the built-in model foretells a text as well as a float64 forward of it does.
//! Wrong values are refused with kept texts. Everything but the refusals needs a device, and skips without.

mod program;
mod support;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command};

use graphc::sources;
use program::{Ran, devices, ended, graphc, graphc_fed, start, synth, text};
use serde_json::Value;
use support::golden::assert_golden;
use support::{TempDir, open, skip, values};

/// Whether there is no device; then the test has said so.
fn lacks_device() -> bool {
    devices("wgpu").map_err(|reason| skip(&reason)).is_err()
}

/// The likeliest tokens, whatever has been said to be less likely again; and never the end.
const GREEDY: [&str; 8] =
    ["--temperature", "0", "--frequency-penalty", "3", "--penalty-decay", "0.7", "--logit-bias", "0=-inf"];

/// A kernel that remembers all of a text, the more the nearer.
const FADING: [(&str, &str); 2] = [
    (
        "fading_sum.ron",
        r#"Kernel(
    ports: {
        "x": ["T", "C"], "sum": ["B", "C"], "offsets": Port(u32, ["S + 1"]), "places": Port(u32, ["S"]),
        "y": ["T", "C"],
    },
    consts: {"C": "C"},
    dispatch: ["ceil_div(C, 64)", "S"],
)
"#,
    ),
    (
        "fading_sum.wgsl",
        "// y[t] = sum[places[s]] = 0.9 sum[places[s]] + x[t] for each token t, from offsets[s], of sequence s
override C: u32;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= C {
        return;
    }
    let place = load_places(id.y) * C + id.x;
    var sum = load_sum(place);
    for (var t = load_offsets(id.y); t < load_offsets(id.y + 1u); t++) {
        sum = 0.9 * sum + load_x(t * C + id.x);
        store_y(t * C + id.x, sum);
    }
    store_sum(place, sum);
}
",
    ),
];

/// A graph over the built-in model's table and head that is ready in no time, and in which every token counts.
const GRAPH: &str = r#"Graph(
    name: "fading",
    detect: (has: ["emb.weight", "head.weight"]),
    dims: {
        "V": Weight("emb.weight", 0), "C": Weight("emb.weight", 1),
        "T": Tokens, "S": Sequences, "R": Rows, "B": Capacity,
    },
    state: {"sum": State(dtype: f32, shape: ["B", "C"], init: 0.0)},
    inputs: {
        "tokens": Input(token_ids, ["T"]), "rows": Input(output_rows, ["R"]),
        "offsets": Input(sequence_offsets, ["S + 1"]), "places": Input(state_rows, ["S"]),
    },
    outputs: {"logits": Output(logits)},
    ops: [
        Op("embed", {"tokens": "in.tokens", "table": "w.emb.weight", "y": "e"}),
        Op("fading_sum", {"x": "e", "sum": "state.sum", "offsets": "in.offsets", "places": "in.places", "y": "all"}),
        Op("gather_rows", {"x": "all", "rows": "in.rows", "y": "last"}),
        Op("linear", {"x": "last", "weight": "w.head.weight", "y": "logits"}),
    ],
)
"#;

/// A folder with that graph and the kernels that it takes.
struct Small(TempDir);

impl Small {
    fn new() -> Self {
        let dir = TempDir::new();
        std::fs::write(dir.file("fading.ron"), GRAPH).expect("written");
        let taken =
            |path: &str| ["embed", "gather_rows", "linear", "shared/"].iter().any(|name| path.starts_with(name));
        let shaders = sources::shaders(None).expect("built in").into_iter().filter(|(path, _)| taken(path));
        let ours = FADING.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        for (path, text) in shaders.chain(ours) {
            let path = dir.file("shaders").join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        Self(dir)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.file(name)
    }

    /// Flags that take the graph; any token but the end may come.
    fn args<'a>(&self, command: &[&'a str], more: &[&'a str]) -> Vec<String> {
        let graph = [text(&self.file("fading.ron")).to_owned(), "--shaders".into(), text(&self.file("shaders")).into()];
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        [words(command), graph.to_vec(), words(more)].concat()
    }

    fn run(&self, more: &[&str]) -> Ran {
        let args = self.args(&["run"], more);
        graphc(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What it says greedily.
    fn said(&self, prompt: &str, more: &[&str]) -> String {
        self.run(&[&["--prompt", prompt][..], &GREEDY, more].concat()).fine().out
    }

    /// Its part of a conversation.
    fn chat(&self, input: &str, more: &[&str]) -> Ran {
        let args = self.args(&["run", "--chat", "-n", "10"], &[&GREEDY, more].concat());
        graphc_fed(&args.iter().map(String::as_str).collect::<Vec<_>>(), input.as_bytes())
    }

    fn start(&self, more: &[&str]) -> Child {
        let args = self.args(&["run"], more);
        start(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn wrong_values_are_refused_with_the_kept_texts() {
    let dir = TempDir::new();
    let template = dir.file("t.ron");
    std::fs::write(&template, "Chat(system: \"{text}\", user: \"hi\", end: \"\", stop: [\"\"])").expect("written");
    let cases: &[&[&str]] = &[
        &["--temperature", "-1"],
        &["--temperature", "inf"],
        &["--top-p", "2"],
        &["--top-k", "-1"],
        &["--min-p", "nan"],
        &["--typical", "-0.1"],
        &["--presence-penalty", "x"],
        &["--frequency-penalty", "inf"],
        &["--penalty-decay", "1.5"],
        &["--logit-bias", "x"],
        &["--logit-bias", "3=inf"],
        &["--logit-bias", "3=1,4"],
        &["--logit-bias", "256=1,257=-inf", "--stop-token", "300"],
        &["--stop", ""],
        &["--stop", "a\\q"],
        &["--stop-token", "never"],
        &["--stop-token", "none", "--stop-token", "3"],
        &["--stop", "a", "--print-tokens"],
        &["--json", "--print-tokens"],
        &["--logprobs", "3"],
        &["--json", "--logprobs", "1001"],
        &["--chat"],
        &["--system", "Be brief."],
    ];
    let run = |args: &[&str]| {
        let ran = graphc(args);
        assert_eq!(ran.out, "", "{ran}");
        // The usage behind it is clap's.
        let message = ran.err.split("\n\n").next().unwrap_or_default().trim_end().replace(text(&template), "t.ron");
        format!("{}\n{} {message}\n\n", args.join(" ").replace(text(&template), "t.ron"), ran.code.expect("it ends"))
    };
    let mut texts: String = cases.iter().map(|case| run(&[&["run", "--prompt", "x"], *case].concat())).collect();
    texts += &run(&["run", "--chat", "--template", text(&template)]);
    texts += &run(&["perplexity"]);
    texts += &run(&["perplexity", "Cargo.toml", "--keep", "x"]);
    texts += &run(&["perplexity", "Cargo.toml", "--start-token", "256"]);
    let model = synth();
    let root = format!("{}/", env!("CARGO_MANIFEST_DIR"));
    for args in [
        &["run", "--tokens", "1", "--stop", "x", "--weights", text(&model)][..],
        &["run", "--chat", "--weights", text(&model)],
        &["perplexity", "Cargo.toml", "--weights", text(&model)],
    ] {
        texts += &run(args).replace(&root, "");
    }
    assert_golden("messages/flags.txt", &texts);
}

#[test]
fn texts_stop_before_what_they_are_to_stop_at() {
    if lacks_device() {
        return;
    }
    let small = Small::new();
    let whole = small.said("In the beginning", &["-n", "24"]);
    let whole = whole.strip_suffix('\n').expect("a line");
    // Across tokens, which are bytes; where it comes first, which may be earlier than where it was taken from.
    let stop = &whole[9..14];
    let expected = &whole[..whole.find(stop).expect("in it")];
    let more = ["-n", "24", "--stop", "\\n\\nnever", "--stop", stop];
    assert_eq!(small.said("In the beginning", &more), format!("{expected}\n"));
    let line = json(&small.said("In the beginning", &[&more[..], &["--json"]].concat()));
    assert_eq!((&line["text"], &line["finish"], &line["stop"]), (&expected.into(), &"stop_text".into(), &stop.into()));
    let bytes: Vec<Value> = format!("{expected}{stop}").bytes().map(Value::from).collect();
    assert_eq!(line["tokens"].as_array().expect("a list"), &bytes, "tokens are all that were drawn");

    let file = small.file("prompts");
    std::fs::write(&file, "In the beginning\nT").expect("written");
    let many = small.run(&[&["--prompts", text(&file)][..], &GREEDY, &more].concat()).fine().out;
    assert!(many.starts_with(&format!("==> 1: In the beginning <==\n{expected}\n\n==> 2: T <==\n")), "{many}");

    // Several tokens to stop at: the first that comes.
    let at = |nth: usize| whole.as_bytes()[nth].to_string();
    let (first, second) = (at(5), at(9));
    let end = whole.bytes().position(|byte| [first.as_str(), &second].contains(&byte.to_string().as_str()));
    let line = small.said("In the beginning", &["-n", "24", "--stop-token", &second, "--stop-token", &first, "--json"]);
    let line = json(&line);
    assert_eq!(line["text"], whole[..end.expect("it comes")], "{line}");
    assert_eq!(line["finish"], "stop_token");
}

#[test]
fn json_tells_what_the_text_does_and_the_model_s_probabilities() {
    if lacks_device() {
        return;
    }
    let small = Small::new();
    let logits = small.file("logits");
    let sampling = ["--seed", "3", "--logit-bias", "32=-inf,0=-inf", "-n", "8"];
    let text_of = |more: &[&str]| small.run(&[&["--prompt", "Once"][..], &sampling, more].concat()).fine();
    let plain = text_of(&[]).out;
    assert!(!plain.contains(' '), "ruled out: {plain}");
    let ran = text_of(&["--json", "--logprobs", "2", "--logits", text(&logits)]);
    assert_eq!(ran.out.lines().count(), 1, "{ran}");
    let line = json(&ran.out);
    assert_eq!(format!("{}\n", line["text"].as_str().expect("text")), plain);
    assert_eq!((&line["finish"], &line["prompt_tokens"]), (&"count".into(), &5.into()), "with the token before it");
    assert_eq!((&line["generated_tokens"], line["logprobs"].as_array().map(Vec::len)), (&8.into(), Some(8)));
    // The first one's, by the definition.
    let row = values(&open(&logits), "logits");
    let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
    let expected = |token: &Value| f64::from(row[token.as_u64().expect("a token") as usize]) - sum.ln();
    let first = &line["logprobs"][0];
    let top = first["top"].as_array().expect("a list");
    assert_eq!((top.len(), &first["token"]), (2, &line["tokens"][0]));
    for entry in std::iter::once(first).chain(top) {
        let found = entry["logprob"].as_f64().expect("a number");
        assert!((found - expected(&entry["token"])).abs() < 1e-6, "{entry}");
    }
    assert!(top[0]["logprob"].as_f64() >= top[1]["logprob"].as_f64());
    assert_eq!(first["text"].as_str().map(str::len), Some(1));

    let file = small.file("prompts");
    std::fs::write(&file, "{\"prompt\": \"Once\", \"id\": \"x\"}\n{\"tokens\": [65], \"n\": 0}").expect("written");
    let many = small.run(&[&["--prompts", text(&file), "--json"][..], &sampling].concat()).fine().out;
    let lines: Vec<Value> = many.lines().map(json).collect();
    assert_eq!((&lines[0]["id"], &lines[0]["tokens"], lines.len()), (&"x".into(), &line["tokens"], 2));
    assert_eq!((&lines[1]["finish"], &lines[1]["prompt_tokens"]), (&"count".into(), &1.into()));
}

#[test]
fn a_conversation_is_what_its_transcript_is_as_a_prompt() {
    if lacks_device() {
        return;
    }
    let small = Small::new();
    let reply = |transcript: &str| {
        let stops = ["--stop", "\\n\\nUser:", "--stop", "\\n\\nAssistant:", "--stop", "\\n\\nSystem:"];
        small.said(transcript, &[&["-n", "10"], &stops[..]].concat()).trim().to_owned()
    };
    let opening = "System: Be kind.\n\nUser: hi\n\nAssistant:";
    let first = reply(opening);
    // A line's end at the end is no more needed than in a file; blanks around a message are not part of it.
    let system = ["--system", " Be kind.\r\n"];
    let alone = small.chat("  hi ", &system).fine();
    assert_eq!(alone.out, format!("{first}\n"));
    let raw = json(&small.chat("hi", &[&system[..], &["--json"]].concat()).fine().out);
    let raw = raw["text"].as_str().expect("text");
    let second = reply(&format!("{opening}{}\n\nUser: and\nyou?\n\nAssistant:", raw.trim_end()));
    let state = small.file("state");
    // Empty lines say nothing; a line that ends with a backslash goes on; what was drawn best comes again.
    let lines = format!("hi\n\n/retry\nand\\\n\\\nyou?\n/save {}\n/reset\nhi\n/quit\nnot read\n", text(&state));
    let whole = small.chat(&lines, &system).fine();
    assert_eq!(whole.out, format!("{first}\n{first}\n{second}\n{first}\n"), "{whole}");

    // The state that was saved goes on as the conversation would have.
    let third = |input: &str, more: &[&str]| small.chat(input, more).fine().out.lines().last().map(str::to_owned);
    let expected = third("hi\nand\\\nyou?\nwell", &system);
    assert_eq!(third(&format!("/load {}\nwell", text(&state)), &[]), expected);
    assert_eq!(third("well", &["--state-in", text(&state)]), expected);
    assert!(expected.is_some_and(|answer| !answer.is_empty()));
}

#[test]
fn conversations_have_templates_and_json_lines() {
    if lacks_device() {
        return;
    }
    let small = Small::new();
    let (template, state) = (small.file("t.ron"), small.file("state"));
    let texts = r#"Chat(system: "{text}|", user: "Q {text} A", end: "E", stop: ["<b>", "e"])"#;
    std::fs::write(&template, texts).expect("written");
    let args = ["--template", text(&template), "--json", "--state-out", text(&state)];
    let ran = small.chat("one\ntwo\n", &args).fine();
    let lines: Vec<Value> = ran.out.lines().map(json).collect();
    assert_eq!(lines.len(), 2, "{ran}");
    let alone = json(&small.said("Q one A", &["-n", "10", "--stop", "<b>", "--stop", "e", "--json"]));
    assert_eq!((&lines[0]["text"], &lines[0]["id"]), (&alone["text"], &1.into()));
    assert_eq!((&lines[0]["prompt_tokens"], &lines[1]["id"]), (&alone["prompt_tokens"], &2.into()));
    assert!(!ran.out.contains("two"));
    assert!(state.is_file(), "and its state is left behind");
}

#[test]
fn what_cannot_be_done_ends_a_conversation_without_a_reader() {
    if lacks_device() {
        return;
    }
    let small = Small::new();
    small.chat("/retry\nhi", &[]).fails(2, &["there is no answer to draw anew"]);
    small.chat("/load Cargo.toml", &[]).fails(1, &["`Cargo.toml` is no state of this model: "]);
    let args = small.args(&["run", "--chat"], &[]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    graphc_fed(&args, b"\xff\n").fails(1, &["the standard input is not UTF-8"]);
    let help = small.chat("/help\n", &[]).fine();
    assert!(help.out.is_empty() && help.err.contains("/retry"), "{help}");
}

/// Two slashes are a message that begins with one; the answer goes on until it is stopped, and the program with it.
#[test]
#[cfg(unix)]
fn an_interrupt_stops_an_answer_and_not_the_program() {
    if lacks_device() {
        return;
    }
    let small = Small::new();
    let mut child = small.start(&["--chat", "-n", "1000000", "--temperature", "0", "--logit-bias", "97=1e9"]);
    let mut input = child.stdin.take().expect("piped");
    writeln!(input, "//hi").expect("read");
    let mut first = [0; 3];
    child.stdout.as_mut().expect("piped").read_exact(&mut first).expect("an answer begins");
    assert_eq!(&first, b"aaa");
    let signalled = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("there is a `kill`");
    assert!(signalled.success());
    // Heard once the answer has ended; then there is time for another one.
    writeln!(input, "/help\n/quit").expect("read");
    drop(input);
    let ran = ended(child).fine();
    assert!(ran.err.contains("(stopped)") && ran.err.contains("/retry"), "{ran}");
    // What was read above may have been all of the answer: one that is stopped at once ends with its third token.
    let rest = ran.out.strip_suffix('\n').expect("an answer ends its line");
    assert!(rest.len() < 900_000 && rest.bytes().all(|byte| byte == b'a'), "{ran}");
}

#[test]
fn whoever_closes_the_pipe_has_seen_enough() {
    if lacks_device() {
        return;
    }
    let small = Small::new();
    for args in [&["--prompt", "x", "-n", "40"][..], &["--chat", "-n", "40"]] {
        let mut child = small.start(args);
        drop(child.stdout.take());
        let _ = child.stdin.take().expect("piped").write_all(b"x\ny\n");
        let ran = ended(child).fine();
        assert!(!ran.err.contains("error"), "{ran}");
    }
}

/// The beginning of chapter XII of "Alice's Adventures in Wonderland", which the built-in model was not trained on.
const HELD_OUT: &str = "'Here!' cried Alice, quite forgetting in the flurry of the moment how large she had grown in \
the last few minutes, and she jumped up in such a hurry t";

/// Of these 150 bytes, by a float64 forward of the model in NumPy (`models/README.md` names it), behind a 0.
const HELD_OUT_BITS: f64 = 1.870477;

#[test]
fn a_text_is_foretold_as_by_the_float64_forward() {
    if lacks_device() {
        return;
    }
    assert_eq!(HELD_OUT.len(), 150);
    let dir = TempDir::new();
    let file = dir.file("text");
    std::fs::write(&file, HELD_OUT).expect("written");
    let measured = |more: &[&str]| {
        let ran = graphc(&[&["perplexity", text(&file), "--json"], more].concat()).fine();
        let line = json(&ran.out);
        let number = |name: &str| line[name].as_f64().unwrap_or_else(|| panic!("{name}: {ran}"));
        assert_eq!((number("tokens"), number("bytes")), (150.0, 150.0));
        assert!((number("perplexity").log2() - number("bits_per_byte")).abs() < 1e-9, "a token is a byte: {ran}");
        assert!((number("nats") / 150.0 / 2f64.ln() - number("bits_per_byte")).abs() < 1e-9, "{ran}");
        number("bits_per_byte")
    };
    // In steps of an odd size, the last with a rest; and in the usual ones.
    let found = measured(&["--step-tokens", "47"]);
    assert!((found - HELD_OUT_BITS).abs() < 5e-4, "{found}");
    let printed = graphc(&["perplexity", text(&file)]).fine().out;
    assert!(printed.starts_with("1.870") && printed.contains(" bits per byte, 150 bytes\n"), "{printed}");

    // Without a token before it, the first is foretold by nothing, and so are its bytes.
    let (small, model) = (Small::new(), dir.file("model.safetensors"));
    std::fs::write(&model, sources::DEMO_MODEL).expect("written");
    let with_file = |more: &[&str]| {
        let args = small.args(&["perplexity", text(&file)], &[&["--weights", text(&model)], more].concat());
        graphc(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let line = json(&with_file(&["--json"]).fine().out);
    assert_eq!((&line["tokens"], &line["bytes"], &line["start_token"]), (&149.into(), &149.into(), &Value::Null));
    std::fs::write(&file, "a").expect("written");
    with_file(&[]).fails(1, &["text`: a single token, and nothing before it that could foretell it"]);
    std::fs::write(&file, "").expect("written");
    with_file(&[]).fails(2, &["text` is empty: there is no text in it"]);
}
