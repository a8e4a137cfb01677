//! Text and tokens: the World vocabulary, vocabularies from files, and both in `graphc run`.
//!
//! Gets texts, some with tokens from the reference tokenizer, the others from a seed that is printed. What then holds:
//! the built-in vocabulary is the reference's to the last byte; texts become the reference's tokens, and come back;
//! text that streams never ends within a character; `graphc run` reads prompts and prints text by the vocabulary, and
//! stops where a text ends. The last of these need a device, and skip without.

mod program;
mod support;

use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;

use graphc::base::dtype::DType;
use graphc::base::span::SourceMap;
use graphc::generate::GenerateError;
use graphc::generate::text::Utf8Stream;
use graphc::generate::vocabulary::Vocabulary;
use graphc::sources;
use program::{devices, graphc, synth, text};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use support::models::{Format, Shape, write_model};
use support::{TempDir, skip};

/// What `tests/reference/world_tokens.py` wrote.
const REFERENCE: &str = include_str!("reference/world_tokens.jsonl");

/// One past the largest id of a World model.
const WORLD: u32 = 1 << 16;

/// A model of the World vocabulary that is otherwise next to nothing.
const TINY: Shape = Shape {
    layers: 1,
    heads: 1,
    head_size: 8,
    ffn: 8,
    vocab: WORLD as usize,
    rank_w: 2,
    rank_a: 2,
    rank_v: 2,
    rank_g: 2,
};

#[derive(Deserialize)]
struct Case {
    text: String,
    tokens: Vec<u32>,
}

fn parse(text: &str) -> Vocabulary {
    let mut map = SourceMap::new();
    let source = map.add("vocabulary", text);
    Vocabulary::parse(&map, source, Some(WORLD.into())).expect("a vocabulary")
}

fn world() -> &'static Vocabulary {
    static WORLD: LazyLock<Vocabulary> = LazyLock::new(|| parse(sources::WORLD_VOCABULARY));
    &WORLD
}

fn cases() -> Vec<Case> {
    REFERENCE.lines().skip(1).map(|line| serde_json::from_str(line).expect("a text and its tokens")).collect()
}

/// Greedy longest match, in the plainest way: the longest beginning of what is left that is a token.
struct Plain<'v> {
    tokens: HashMap<&'v [u8], u32>,
    longest: usize,
}

impl<'v> Plain<'v> {
    fn new(vocabulary: &'v Vocabulary, ids: u32) -> Self {
        let tokens: HashMap<&[u8], u32> = (0..ids).filter_map(|id| Some((vocabulary.bytes(id)?, id))).collect();
        let longest = tokens.keys().map(|bytes| bytes.len()).max().expect("there are tokens");
        Self { tokens, longest }
    }

    /// The tokens, or where none goes on.
    fn encode(&self, text: &str) -> Result<Vec<u32>, usize> {
        let (mut tokens, mut at) = (Vec::new(), 0);
        while at < text.len() {
            let ends = (at + 1..=text.len().min(at + self.longest)).rev();
            let found = ends.map(|end| &text.as_bytes()[at..end]).find(|bytes| self.tokens.contains_key(bytes));
            let bytes = found.ok_or(at)?;
            tokens.push(self.tokens[bytes]);
            at += bytes.len();
        }
        Ok(tokens)
    }
}

/// A text of random words, characters, and pieces of them, of about `bytes` bytes.
fn random_text(rng: &mut fastrand::Rng, bytes: usize) -> String {
    let mut text = Vec::new();
    while text.len() < bytes {
        match rng.u32(..8) {
            0 => text.extend_from_slice(rng.char(..).encode_utf8(&mut [0; 4]).as_bytes()),
            1 => text.extend_from_slice(rng.char('\u{80}'..'\u{3000}').encode_utf8(&mut [0; 4]).as_bytes()),
            2 => text.extend(std::iter::repeat_n(rng.u8(b' '..b'~'), rng.usize(..200))),
            _ => text.extend_from_slice(world().bytes(rng.u32(..WORLD)).unwrap_or_default()),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn built_in_tokens_are_the_reference_s() {
    #[derive(Deserialize)]
    struct All {
        sha256: String,
        tokens: usize,
    }
    let all: All = serde_json::from_str(REFERENCE.lines().next().expect("a line")).expect("a hash");
    let tokens: Vec<(u32, &[u8])> = (0..=u32::from(u16::MAX)).filter_map(|id| Some((id, world().bytes(id)?))).collect();
    assert_eq!(tokens.len(), all.tokens);
    let mut hash = Sha256::new();
    for (id, bytes) in &tokens {
        hash.update(id.to_le_bytes());
        hash.update((bytes.len() as u32).to_le_bytes());
        hash.update(bytes);
    }
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, all.sha256);
    // So every text has tokens.
    assert!((0..=255).all(|byte| tokens.iter().any(|(_, bytes)| *bytes == [byte])));
    assert_eq!([0, 65530, 65535, 65536, u32::MAX].map(|id| world().bytes(id)), [None; 5]);
    assert_eq!(world().end_of_text(), Some(0));
}

#[test]
fn texts_have_the_reference_s_tokens_and_come_back() {
    let cases = cases();
    assert!(cases.len() > 20);
    for Case { text, tokens } in cases {
        assert_eq!(world().encode(&text).expect("covered"), tokens, "{text:?}");
        assert_eq!(world().decode(&tokens), text);
    }
}

#[test]
fn every_token_of_text_is_its_own() {
    for id in 0..WORLD {
        if let Some(Ok(text)) = world().bytes(id).map(std::str::from_utf8) {
            assert_eq!(world().encode(text).expect("covered"), [id], "{text:?}");
        }
    }
}

#[test]
fn long_texts_are_matched_as_plainly_and_come_back() {
    let seed = 20230424;
    println!("seed {seed}");
    let plain = Plain::new(world(), WORLD);
    let mut rng = fastrand::Rng::with_seed(seed);
    let long = random_text(&mut rng, 1 << 20);
    let short = (0..200).map(|_| random_text(&mut rng, 40));
    for text in [long, sources::WORLD_VOCABULARY.to_owned(), REFERENCE.repeat(3)].into_iter().chain(short) {
        let tokens = world().encode(&text).expect("covered");
        assert!(Ok(&tokens) == plain.encode(&text).as_ref(), "{:?}", text.chars().take(200).collect::<String>());
        assert!(world().decode(&tokens) == text, "{:?}", text.chars().take(200).collect::<String>());
    }
}

#[test]
fn any_vocabulary_is_matched_as_plainly() {
    let mut uncovered = 0;
    for seed in 0..300 {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        // Few letters, so that tokens begin and end within each other; parts of `é` are letters too.
        let letters: [&[u8]; 5] = [b"a", b"b", b"c", b"\xc3", b"\xa9"];
        let mut words: Vec<Vec<u8>> = (0..rng.usize(1..20))
            .map(|_| (0..rng.usize(1..6)).flat_map(|_| letters[rng.usize(..5)].to_vec()).collect())
            .collect();
        words.sort();
        words.dedup();
        rng.shuffle(&mut words);
        let line = |(id, word): (usize, &Vec<u8>)| {
            let literal: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            format!("{id} b'{literal}' {}\n", word.len())
        };
        let vocabulary = parse(&words.iter().enumerate().map(line).collect::<String>());
        let plain = Plain::new(&vocabulary, 20);
        for _ in 0..20 {
            let text: String = (0..rng.usize(..12)).map(|_| ['a', 'b', 'c', 'é'][rng.usize(..4)]).collect();
            let found = vocabulary.encode(&text).map_err(|error| match error {
                GenerateError::NoToken { character, at } => {
                    assert!(
                        text.char_indices()
                            .any(|(start, c)| { c == character && (start..start + c.len_utf8()).contains(&at) })
                    );
                    at
                }
                other => panic!("{other}"),
            });
            uncovered += usize::from(found.is_err());
            assert_eq!(found, plain.encode(&text), "{text:?}, {words:?}");
        }
    }
    assert!((100..5900).contains(&uncovered), "both ends are reached: {uncovered}");
}

#[test]
fn streamed_text_never_ends_within_a_character() {
    let mut split = 0;
    for Case { text, tokens } in cases() {
        let (mut stream, mut streamed) = (Utf8Stream::new(), String::new());
        for token in tokens {
            let bytes = world().bytes(token).expect("a token of the text");
            split += usize::from(std::str::from_utf8(bytes).is_err());
            let piece = stream.push(bytes);
            assert!(text[streamed.len()..].starts_with(&piece), "{piece:?} in {text:?}");
            streamed += &piece;
        }
        assert_eq!((streamed, stream.finish()), (text, ""));
    }
    assert!(split > 20, "some tokens do end within one: {split}");
}

#[test]
fn files_may_have_windows_line_ends_and_both_quotes() {
    let vocabulary =
        parse("1 'a' 1\r\n2 \"'\" 1\r\n3 '\"' 1\r\n4 b\"\\xe9'\" 2\r\n5 '\\xe9\\u00e9\\U0001f600 \\\\' 10");
    let bytes = |id| vocabulary.bytes(id).expect("a token");
    assert_eq!([bytes(1), bytes(2), bytes(3), bytes(4)], [&b"a"[..], b"'", b"\"", b"\xe9'"]);
    assert_eq!(bytes(5), "éé😀 \\".as_bytes());
}

/// Writes a model of this many tokens.
fn write(path: &Path, vocab: usize) {
    write_model(path, &Shape { vocab, ..TINY }, 7, &Format::converted(DType::F16)).expect("written");
}

/// Writes the model, with rows `a` and `b` of its output matrix exchanged: one is drawn where the other was.
fn write_world(path: &Path, a: u32, b: u32) {
    write(path, WORLD as usize);
    let mut bytes = std::fs::read(path).expect("just written");
    let start = {
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("a checkpoint");
        let rows = file.tensor("head.weight").expect("a matrix").data();
        rows.as_ptr() as usize - bytes.as_ptr() as usize
    };
    let row = TINY.width() * 2;
    for at in 0..row {
        bytes.swap(start + a as usize * row + at, start + b as usize * row + at);
    }
    std::fs::write(path, bytes).expect("written");
}

const PROMPT: &str = "Hello, 世界! 🜁";
const COUNT: &str = "6";

/// What the model says, greedily.
fn run(model: &Path, more: &[&str]) -> String {
    let args = ["run", "--weights", text(model), "--temperature", "0", "-n", COUNT];
    graphc(&[&args[..], more].concat()).fine().out
}

/// The ids that the model says on the prompt.
fn said(model: &Path, more: &[&str]) -> Vec<u32> {
    let out = run(model, &[&["--prompt", PROMPT, "--print-tokens"], more].concat());
    out.trim_end().split(',').filter(|id| !id.is_empty()).map(|id| id.parse().expect("an id")).collect()
}

fn list(tokens: &[u32]) -> String {
    tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

#[test]
fn world_models_take_text_and_give_text() {
    if let Err(reason) = devices("wgpu") {
        return skip(&reason);
    }
    let dir = TempDir::new();
    let model = dir.file("world.safetensors");
    write(&model, WORLD as usize);
    let prompt = list(&world().encode(PROMPT).expect("covered"));
    let ids = said(&model, &[]);
    assert_eq!(ids.len().to_string(), COUNT, "{ids:?}");
    assert_eq!(run(&model, &["--tokens", &prompt, "--print-tokens"]), format!("{}\n", list(&ids)));
    let expected = format!("{}\n", world().decode(&ids));
    assert_eq!(run(&model, &["--prompt", PROMPT]), expected);
    assert_eq!(run(&model, &["--tokens", &prompt]), expected);

    let lines = dir.file("prompts.jsonl");
    std::fs::write(&lines, format!("{{\"prompt\": \"{PROMPT}\"}}\n{{\"tokens\": [{prompt}], \"id\": 7}}"))
        .expect("written");
    let answer = |id| format!("{}\n", serde_json::json!({ "id": id, "text": world().decode(&ids) }));
    assert_eq!(run(&model, &["--prompts", text(&lines)]), answer(1) + &answer(7));
    let lines = dir.file("prompts.txt");
    std::fs::write(&lines, PROMPT).expect("written");
    assert_eq!(run(&model, &["--prompts", text(&lines)]), format!("==> 1: {PROMPT} <==\n{expected}"));
}

#[test]
fn text_ends_where_a_world_model_says_so() {
    if let Err(reason) = devices("wgpu") {
        return skip(&reason);
    }
    let dir = TempDir::new();
    let model = dir.file("world.safetensors");
    write(&model, WORLD as usize);
    let ids = said(&model, &[]);
    let at = (1..ids.len()).find(|at| !ids[..*at].contains(&ids[*at])).expect("a token that is new");
    // Now the end of the text comes there.
    write_world(&model, 0, ids[at]);
    assert_eq!(said(&model, &[]), ids[..at]);
    assert_eq!(run(&model, &["--prompt", PROMPT]), format!("{}\n", world().decode(&ids[..at])));
    let on = said(&model, &["--stop-token", "none"]);
    assert_eq!((on.len(), &on[..at], on[at]), (ids.len(), &ids[..at], 0));
    // It has no text.
    let text_of_on = run(&model, &["--prompt", PROMPT, "--stop-token", "none"]);
    assert_eq!(text_of_on, format!("{}\n", world().decode(&on)));
    let lines = dir.file("prompts.jsonl");
    std::fs::write(&lines, format!("{{\"prompt\": \"{PROMPT}\"}}")).expect("written");
    let answer = run(&model, &["--prompts", text(&lines), "--print-tokens"]);
    assert_eq!(answer, format!("{}\n", serde_json::json!({ "id": 1, "tokens": ids[..at] })));
}

#[test]
fn vocabularies_of_files_come_before_those_built_in() {
    if let Err(reason) = devices("wgpu") {
        return skip(&reason);
    }
    let dir = TempDir::new();
    let file = dir.file("words.txt");
    let words = ["--vocabulary", text(&file)];
    // Names of tokens, for a model of a size that says nothing of them.
    let names = (0..40).map(|id| format!("{id} '<{id:02}>' 4\n"));
    std::fs::write(&file, names.collect::<String>()).expect("written");
    let model = dir.file("model.safetensors");
    write(&model, 40);
    let ids = run(&model, &["--tokens", "5,6,7"]);
    let expected: String = ids.trim_end().split(',').map(|id| format!("<{id:0>2}>")).collect();
    assert_eq!(run(&model, &[&["--prompt", "<05><06><07>"], &words[..]].concat()), format!("{expected}\n"));
    assert_eq!(run(&model, &[&["--tokens", "5,6,7"], &words[..]].concat()), format!("{expected}\n"));
    assert_eq!(run(&model, &[&["--tokens", "5,6,7", "--print-tokens"], &words[..]].concat()), ids);

    // And for one that has: what it says is no token of these, so it has no text.
    write(&model, WORLD as usize);
    std::fs::write(&file, "0 'x' 1\n").expect("written");
    let ids = run(&model, &["--tokens", "0,0", "--print-tokens"]);
    assert_eq!(run(&model, &[&["--prompt", "xx", "--print-tokens"], &words[..]].concat()), ids);
    assert!(ids.split(',').all(|id| id.trim_end() != "0"), "{ids}");
    assert_eq!(run(&model, &[&["--prompt", "xx"], &words[..]].concat()), "\n");
}

#[test]
fn flags_about_text_that_make_no_sense_are_refused() {
    graphc(&["run", "--prompt", "x", "--stop-token", "never"]).fails(2, &["expected a token id, or `none`"]);
    graphc(&["run", "--prompt", "x", "--vocabulary", "/nowhere/v.txt"]).fails(2, &["cannot read `/nowhere/v.txt`"]);
    let model = synth();
    graphc(&["run", "--prompt", "x", "--weights", text(&model)]).fails(1, &["give `--vocabulary FILE`, or `--tokens"]);
}
