//! Checkpoints as they are found: files of torch and of safetensors, in shards, by every family of names, with
//! adapters and trained states.
//!
//! Gets the small reference model and random ones, as every kind of file. What then holds: one model gives the same
//! bits whatever file it comes from; what torch wrote is read as torch means it; adapters and states do what their
//! formulas say; and what cannot be read, or only guessed at, is refused by name.

mod checkpoint_files;
mod support;

use std::path::{Path, PathBuf};

use checkpoint_files as files;
use checkpoint_files::{File, open, tables, tables_of};
use graphc::base::dtype::DType;
use graphc::checkpoint::{Checkpoint, Container};
use graphc::generate::batch::Feed;
use graphc::generate::{Decoder, Rows};
use support::models::{Format, Shape, write_model};
use support::runner::{AnyExecutor, AnySession, DEVICES, Kind, Program, Ran, batch, decoder, run};
use support::{TempDir, reference};

const TOKENS: [u32; 5] = [7, 0, 3, 250, 7];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoint_files").join(name)
}

fn synth() -> Checkpoint {
    support::open(&reference("synth-v7").expect("committed").join("model.safetensors"))
}

/// A random model of odd sizes, in which no two extents agree by chance.
fn odd(dtype: DType) -> Checkpoint {
    let dir = TempDir::new();
    let path = dir.file("model.safetensors");
    let (rank_w, rank_a, rank_v, rank_g) = (5, 3, 1, 7);
    let shape = Shape { layers: 2, heads: 3, head_size: 8, ffn: 40, vocab: 259, rank_w, rank_a, rank_v, rank_g };
    let format = Format { block0_v: true, ..Format::converted(dtype) };
    write_model(&path, &shape, 3, &format).expect("written");
    // The file may go once it is mapped.
    support::open(&path)
}

fn logits(executor: &AnyExecutor, program: &Program, checkpoint: &Checkpoint) -> Vec<u32> {
    let limits = graphc::exec::Executor::device(executor).limits.clone();
    let compiler = program.compiler(checkpoint.index(), &limits, &[]);
    // One size of a step: what the sizes agree on is for others to test, and each takes a driver's time.
    run(&mut decoder(executor, compiler, checkpoint, &[4]), &TOKENS, &[4]).bits()
}

/// One model as every kind of file.
fn variants(model: &[File]) -> Vec<(&'static str, Vec<u8>)> {
    let raw = files::raw(model);
    vec![
        ("safetensors, raw", files::safetensors(&raw)),
        ("safetensors, vectors of one axis", files::safetensors(&files::squeezed(model))),
        ("safetensors, flash-linear-attention", files::safetensors(&files::fla(model, false))),
        ("safetensors, flash-linear-attention, mixes in one", files::safetensors(&files::fla(model, true))),
        ("torch, raw", files::torch(&raw, false)),
        ("torch, a large archive, transposed views", files::torch(&files::views(&raw), true)),
        ("torch, as converted", files::torch(model, false)),
        ("torch, flash-linear-attention, views", files::torch(&files::views(&files::fla(model, true)), false)),
    ]
}

#[test]
fn one_model_gives_the_same_bits_from_every_kind_of_file() {
    let Some(executor) = AnyExecutor::find(Kind::Hal, DEVICES[0]) else { return };
    let program = Program::rwkv7();
    // Every kind once, and of the other element types those that differ most.
    for (model, from, take) in
        [("synth-v7, f16", synth(), 3), ("odd, f32", odd(DType::F32), 1), ("odd, bf16", odd(DType::Bf16), 3)]
    {
        let expected = logits(&executor, &program, &from);
        for (what, bytes) in variants(&files::tensors(&from)).into_iter().rev().step_by(take) {
            let found = logits(&executor, &program, &open(what, bytes));
            assert!(found == expected, "{model}: {what}");
        }
    }
}

#[test]
fn files_that_are_one_model_in_one_order_have_one_name() {
    let model = files::tensors(&odd(DType::F16));
    let name = |bytes| open("model", bytes).fingerprint();
    let expected = name(files::safetensors(&model));
    assert_eq!(name(files::torch(&files::raw(&model), false)), expected, "states and plans go along");
    assert_eq!(name(files::torch(&files::views(&files::raw(&model)), true)), expected);
}

/// Element `i` of every tensor that the script makes.
fn halves(count: usize) -> Vec<f32> {
    (0..count).map(|at| at as f32 / 2.0 - 3.0).collect()
}

#[test]
fn what_torch_wrote_is_read_as_torch_means_it() {
    let file = support::open(&fixture("small.pth"));
    assert_eq!(file.container(), Container::Torch);
    let tensor = |name: &str| {
        let tensor = file.tensor(name).unwrap_or_else(|| panic!("no `{name}`"));
        (tensor.dtype, tensor.shape.clone(), tensor.to_f32())
    };
    assert_eq!(tensor("single"), (DType::F32, vec![2, 3], halves(6)));
    assert_eq!(tensor("half"), (DType::F16, vec![3], halves(3)));
    assert_eq!(tensor("bfloat"), (DType::Bf16, vec![2, 1, 2], halves(4)));
    assert_eq!(tensor("scalar"), (DType::F32, vec![], halves(1)));
    assert_eq!(tensor("empty"), (DType::F16, vec![0, 4], vec![]));
    assert_eq!(tensor("turned"), (DType::Bf16, vec![2, 3], vec![-3.0, -2.0, -1.0, -2.5, -1.5, -0.5]));
    assert_eq!(tensor("shared"), (DType::F32, vec![4, 3], halves(12)));
    assert_eq!(tensor("rows"), (DType::F32, vec![2, 3], halves(9)[3..].to_vec()));
    assert_eq!(tensor("column"), (DType::F32, vec![4], vec![-2.5, -1.0, 0.5, 2.0]));
    assert_eq!(tensor("parameter"), (DType::F16, vec![2], halves(2)));
    for (name, kind, bytes) in [("double", "F64", 16), ("long", "I64", 16)] {
        let info = file.index().get(name).expect("it is there");
        assert_eq!((info.dtype.clone(), info.size_bytes()), (Err(kind.to_owned()), bytes));
        assert_eq!(file.tensor(name), None, "{name}");
    }
    assert_eq!(file.index().len(), 12, "a number is no tensor");
    assert!(matches!(file.bytes("half"), Some(std::borrow::Cow::Borrowed(_))), "what lies in order stays where it is");
    let nested = support::open(&fixture("nested.pth"));
    assert_eq!(nested.index().names().collect::<Vec<_>>(), ["half"]);
}

fn error_of(bytes: Vec<u8>) -> String {
    Checkpoint::from_static("file", bytes.leak()).expect_err("refused").to_string()
}

#[test]
fn other_files_of_torch_are_refused_by_name() {
    let error = |name| Checkpoint::open(&fixture(name)).expect_err("refused").to_string();
    assert!(error("old.pth").contains("old.pth` is not a usable file of torch: it is of a torch before 1.6"));
    assert!(error("refused.pth").contains("of its pickle: it asks for `torch.Size`, which is not run"));
    let model = [File::f32("a", &[2, 3], &halves(6))];
    let whole = files::torch(&model, false);
    for at in [10, whole.len() / 2, whole.len() - 1] {
        assert!(error_of(whole[..at].to_vec()).contains("truncated?"), "{at}");
    }
    let changed = |from: &[u8], to: &[u8]| {
        let at = whole.windows(from.len()).position(|window| window == from).expect("it is there");
        error_of([&whole[..at], to, &whole[at + from.len()..]].concat())
    };
    assert!(changed(b"torch\nFloatStorage", b"torch\nFloatStoraje").contains("`torch.FloatStoraje`, which is not run"));
    assert!(changed(b"little", b"bigger").contains("its byte order is `bigger`"));
    assert!(changed(b"K\x02K\x03t", b"K\x02K\x04t").contains("is beyond 6 elements"));
    assert!(changed(b"cuda:0K\x06", b"cuda:0K\x07").contains("expected 7 elements of 4 bytes, found 24 bytes"));
    let entries = |entries: &[(&str, &[u8])]| {
        let entries: Vec<_> = entries.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        error_of(files::zip(&entries, false))
    };
    assert!(entries(&[("readme", b"")]).contains("no entry `…/data.pkl`"));
    assert!(entries(&[("a/data.pkl", b""), ("b/data.pkl", b"")]).contains("two pickles"));
    assert!(entries(&[("a/data.pkl", b""), ("a/data.pkl", b"")]).contains("two entries `a/data.pkl`"));
    assert!(entries(&[("a/data.pkl", b"\x80\x02].")]).contains("holds no dict of tensors"));
}

#[test]
fn shards_are_one_checkpoint() {
    let model = files::tensors(&odd(DType::F16));
    let (one, two): (Vec<File>, Vec<File>) = model.iter().cloned().partition(|file| file.name.contains("att"));
    for (ending, write) in
        [("safetensors", files::safetensors as fn(&[File]) -> Vec<u8>), ("bin", |files| files::torch(files, false))]
    {
        let dir = TempDir::new();
        let [a, b] = [format!("model-1-of-2.{ending}"), format!("model-2-of-2.{ending}")];
        std::fs::write(dir.file(&a), write(&one)).expect("written");
        std::fs::write(dir.file(&b), write(&two)).expect("written");
        let map = |files: &[(&[File], &str)]| {
            let entry = |(tensors, file): &(&[File], &str)| {
                tensors.iter().map(|tensor| format!("{:?}: {file:?}", tensor.name)).collect::<Vec<_>>().join(", ")
            };
            let entries = files.iter().map(entry).collect::<Vec<_>>().join(", ");
            format!("{{\"metadata\": {{\"total_size\": 1}}, \"weight_map\": {{{entries}}}}}")
        };
        let index = dir.file(&format!("model.{ending}.index.json"));
        std::fs::write(&index, map(&[(&one, &a), (&two, &b)])).expect("written");
        for path in [&index, &dir.file("")] {
            let found = Checkpoint::open(path).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(files::tensors(&found), model, "{}", path.display());
        }
        let refused = |text: &str, expected: &str| {
            std::fs::write(&index, text).expect("written");
            let error = Checkpoint::open(&index).expect_err("refused").to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        };
        refused(&map(&[(&one, &a), (&two, &a)]), "` is in none of its files; `weight_map` says `model-1-of-2");
        refused(&map(&[(&one, &b), (&two, &a)]), "; `weight_map` says `model-");
        refused(&map(&[(&one, &a), (&two[1..], &b)]), ", of which `weight_map` does not know");
        refused(&map(&[(&one, &a), (&two, "gone.safetensors")]), "cannot read `");
        refused(&map(&[(&one, "../a"), (&two, &b)]), "expected a file beside the index");
        refused(&map(&[(&one, &a), (&one, &b)]), "twice");
        refused("{}", "missing field `weight_map`");
        refused("{\"weight_map\": {}}", "its `weight_map` is empty");
    }
}

#[test]
fn a_folder_has_one_checkpoint() {
    let dir = TempDir::new();
    let error = || Checkpoint::open(&dir.file("")).expect_err("refused").to_string();
    assert!(error().contains("a directory without a checkpoint"), "{}", error());
    std::fs::write(dir.file("a.pth"), files::torch(&[File::f32("a", &[1], &[1.0])], false)).expect("written");
    assert_eq!(Checkpoint::open(&dir.file("")).expect("one").index().len(), 1);
    std::fs::write(dir.file("b.safetensors"), "").expect("written");
    assert!(error().contains("several checkpoints, name one: `a.pth`, `b.safetensors`"), "{}", error());
}

/// Names and shapes of a file of tensors with these names and shapes, as graphs see it.
fn seen(container: Container, given: &[(&str, &[u64])]) -> Vec<(String, Vec<u64>)> {
    let tensor =
        |(name, shape): &(&str, &[u64])| File::f32(name, shape, &vec![0.0; shape.iter().product::<u64>() as usize]);
    let given: Vec<File> = given.iter().map(tensor).collect();
    let bytes = match container {
        Container::Torch => files::torch(&given, false),
        Container::Safetensors => files::safetensors(&given),
    };
    let found = open("file", bytes);
    let shape = |name: &str| found.index().get(name).expect("one of its names").shape.clone();
    found.index().names().map(|name| (name.to_owned(), shape(name))).collect()
}

#[test]
fn names_of_training_become_those_of_the_usual_conversion() {
    let expected = |names: &[(&str, &[u64])]| -> Vec<(String, Vec<u64>)> {
        names.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect()
    };
    let sixth: [(&str, &[u64]); 7] = [
        ("blocks.0.att.time_decay_w1", &[8, 3]),
        ("blocks.0.att.time_faaaa", &[2, 4]),
        ("blocks.0.att.time_maa_k", &[1, 1, 8]),
        ("blocks.0.att.time_maa_w2", &[5, 2, 8]),
        ("blocks.0.att.time_state", &[2, 4, 4]),
        ("blocks.0.ffn.time_maa_r", &[1, 1, 8]),
        ("emb.weight", &[9, 8]),
    ];
    let converted = expected(&[
        ("blocks.0.att.time_decay_w1", &[3, 8]),
        ("blocks.0.att.time_first", &[2, 4]),
        ("blocks.0.att.time_mix_k", &[1, 1, 8]),
        ("blocks.0.att.time_mix_w2", &[5, 8, 2]),
        ("blocks.0.att.time_state", &[2, 4, 4]),
        ("blocks.0.ffn.time_mix_r", &[1, 1, 8]),
        ("emb.weight", &[9, 8]),
    ]);
    assert_eq!(seen(Container::Torch, &sixth), converted);
    assert_eq!(seen(Container::Safetensors, &sixth), converted, "by their names");
    // RWKV-7 has one set of names: in safetensors, it is left to the graph to find out how pairs lie.
    let seventh: [(&str, &[u64]); 2] = [("blocks.10.att.w1", &[8, 3]), ("emb.weight", &[9, 8])];
    assert_eq!(seen(Container::Safetensors, &seventh), expected(&seventh));
    assert_eq!(seen(Container::Torch, &seventh), expected(&[("blocks.10.att.w1", &[3, 8]), ("emb.weight", &[9, 8])]));
    let fourth: [(&str, &[u64]); 2] =
        [("rwkv.blocks.0.attention.time_decay", &[8]), ("rwkv.embeddings.weight", &[9, 8])];
    let renamed = expected(&[("blocks.0.att.time_decay", &[8]), ("emb.weight", &[9, 8])]);
    assert_eq!(seen(Container::Torch, &fourth), renamed);
}

#[test]
fn names_that_leave_a_doubt_are_refused() {
    let refused = |files: &[File], tables: &[(&str, &str)], expected: &str| {
        let tables: Vec<(String, String)> =
            tables.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        let file = Checkpoint::from_static("file", files::safetensors(files).leak()).expect("sound");
        let error = file.renamed(&tables_of(&tables)).expect_err("refused").to_string();
        assert_eq!(error, format!("`file`: {expected}"));
    };
    let one = "Names(name: \"one\", when: [When(has: [\"a.{}\"])], rename: {\"a.{}\": \"c.{}\", \"b.{}\": \"c.{}\"})";
    let two = "Names(name: \"two\", when: [When(has: [\"a.0\", \"b.*\"])])";
    let [a, b] = ["a.0", "b.0"].map(|name| File::f32(name, &[1], &[1.0]));
    let both = [a.clone(), b];
    let kinds = "its tensors have names of more than one kind: `one`, `two`";
    refused(&both, &[("one.ron", one), ("two.ron", two)], kinds);
    refused(&both, &[("one.ron", one)], "`a.0` and `b.0` would both be `c.0`, says `one`");
    let kept = [a.clone(), File::f32("c.0", &[1], &[1.0])];
    refused(&kept, &[("one.ron", one)], "`a.0` and `c.0` would both be `c.0`, says `one`");
    let rows = "Names(name: \"rows\", when: [When(has: [\"a.{}\"])], rename: {\"a.{}\": [\"x.{}\", \"y.{}\"]})";
    refused(std::slice::from_ref(&a), &[("rows.ron", rows)], "`a.0` has shape [1], expected 2 rows");
    let numbers = "Names(name: \"n\", when: [When(has: [\"0.*\"])], rename: {\"{}.1\": \"x.{}\", \"0.{}\": \"y.{}\"})";
    refused(&[File::f32("0.1", &[1], &[1.0])], &[("n.ron", numbers)], "`0.1` is both `{}.1` and `0.{}` of `n`");
}

#[test]
fn tables_that_cannot_be_meant_are_refused_with_places() {
    for (text, expected) in [
        ("Names(name: \"n\", rename: {\"a.{}\": \"b\"})", "n.ron:1:36: `b` carries no number over, or one that `a.{}`"),
        ("Names(name: \"n\", rename: {\"a.{}.{}\": \"b\"})", "n.ron:1:28: `a.{}.{}` has more than one `{}`"),
        ("Names(name: \"n\", rename: {\"a\": \"b\", \"a\": \"c\"})", "n.ron:1:38: duplicate name `a`"),
        ("Names(name: \"n\", when: [When(has: [])])", "n.ron:1:25: `has` is empty"),
        ("Names(name: \"n\", when: [When(container: zip, has: [\"a\"])])", "n.ron:1:41: unknown word `zip`"),
        ("Names(name: \"n\", renames: {})", "unknown field `renames`"),
        (
            "Names(name: \"n\", adapters: [Adapter(down: \"a\", up: \"*.b\", weight: \"*.c\")])",
            "n.ron:1:44: `a` has no single `*`",
        ),
    ] {
        let mut map = graphc::base::span::SourceMap::new();
        let source = map.add("n.ron", text);
        let wrong = graphc::checkpoint::names::parse(&map, source).expect_err("refused");
        let said = graphc::base::diag::render(&wrong, &map);
        let places: Vec<String> = wrong.iter().map(|wrong| wrong.message.clone()).collect();
        let message = expected.split_once(": ").map_or(expected, |(_, message)| message);
        assert!(places.iter().any(|place| place.starts_with(message)), "{expected}: {said}");
        if let Some((place, _)) = expected.split_once(": ") {
            assert!(said.contains(place), "{place}: {said}");
        }
    }
}

/// `W + alpha / rank * up down` in f64.
fn merged(
    weight: &[f32],
    down: &[f32],
    up: &[f32],
    (rows, columns, rank): (usize, usize, usize),
    alpha: f64,
) -> Vec<f64> {
    let product = |row: usize, column: usize| -> f64 {
        (0..rank).map(|at| f64::from(up[row * rank + at]) * f64::from(down[at * columns + column])).sum()
    };
    (0..rows * columns)
        .map(|at| f64::from(weight[at]) + alpha / rank as f64 * product(at / columns, at % columns))
        .collect()
}

fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..count).map(|_| random.f32() * 2.0 - 1.0).collect()
}

#[test]
fn adapters_are_added_whatever_they_are_called_and_however_they_lie() {
    const WEIGHT: &str = "blocks.1.att.key.weight";
    let (rows, columns, rank) = (24, 24, 2);
    let (down, up) = (random(1, rank * columns), random(2, rows * rank));
    let weight = odd(DType::F32).tensor(WEIGHT).expect("it is there").to_f32();
    let expected = merged(&weight, &down, &up, (rows, columns, rank), 6.0);
    let down = File::f32("", &[rank as u64, columns as u64], &down);
    let up = File::f32("", &[rows as u64, rank as u64], &up);
    let named = |file: &File, name: &str| File { name: name.to_owned(), ..file.clone() };
    let prefix = "base_model.model.model.layers.1.attn.k_proj";
    for (what, pair) in [
        ("RWKV-PEFT", [named(&down, "blocks.1.att.key.lora_A"), named(&up, "blocks.1.att.key.lora_B")]),
        ("converted", [named(&down.turned(), "blocks.1.att.key.lora.0"), named(&up, "blocks.1.att.key.lora.1")]),
        ("peft", [named(&down, &format!("{prefix}.lora_A.weight")), named(&up, &format!("{prefix}.lora_B.weight"))]),
        (
            "peft while it trains",
            [
                named(&down, &format!("{prefix}.lora_A.default.weight")),
                named(&up.turned(), &format!("{prefix}.lora_B.default.weight")),
            ],
        ),
    ] {
        for bytes in [files::torch(&files::views(&pair), false), files::safetensors(&pair)] {
            let model = odd(DType::F32);
            let others = model.tensor("blocks.0.att.key.weight");
            let found = model.with_lora(open("lora", bytes), &tables(), 6.0).unwrap_or_else(|error| panic!("{error}"));
            let values = found.tensor(WEIGHT).expect("it is there").to_f32();
            let distance = values.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            assert!(distance < 1e-6, "{what}: {distance:e}");
            assert_eq!(found.tensor("blocks.0.att.key.weight"), others, "{what}: another weight stays");
        }
    }
}

#[test]
fn adapters_round_once_and_add_up() {
    let pair = |seed| {
        let pair = [
            File::f32("blocks.0.ffn.key.lora_A", &[3, 24], &random(seed, 72)),
            File::f32("blocks.0.ffn.key.lora_B", &[40, 3], &random(seed + 1, 120)),
        ];
        open("lora", files::torch(&pair, false))
    };
    let name = "blocks.0.ffn.key.weight";
    let once = odd(DType::Bf16).with_lora(pair(1), &tables(), 3.0).expect("it fits");
    let twice = odd(DType::Bf16).with_lora(pair(1), &tables(), 3.0).expect("it fits");
    let twice = twice.with_lora(pair(1), &tables(), -3.0).expect("it fits");
    assert_eq!(once.tensor(name).expect("there").dtype, DType::Bf16);
    assert_ne!(once.tensor(name), odd(DType::Bf16).tensor(name));
    assert_eq!(
        twice.tensor(name),
        odd(DType::Bf16).tensor(name),
        "what is added and taken away is not rounded between"
    );
    assert_ne!(once.fingerprint(), twice.fingerprint());
    assert_ne!(once.fingerprint(), odd(DType::Bf16).fingerprint(), "states of another model are not this one's");
}

#[test]
fn what_is_trained_along_takes_the_place_of_the_models_own() {
    let norm = File::f32("blocks.0.ln1.weight", &[24], &random(5, 24));
    let (low, raw) = (random(6, 5 * 24), File::f32("blocks.0.att.w1", &[24, 5], &[0.0; 120]));
    let raw = File { bytes: File::f32("", &[5, 24], &low).turned().bytes, ..raw };
    let found = odd(DType::F32)
        .with_lora(open("lora", files::torch(&[norm, raw], false)), &tables(), 1.0)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found.tensor("blocks.0.ln1.weight").expect("there").to_f32(), random(5, 24));
    assert_eq!(found.tensor("blocks.0.att.w1").expect("there").to_f32(), low, "turned like the model's own");
}

#[test]
fn adapters_that_do_not_fit_are_refused_by_name() {
    let pair = |down: &[u64], up: &[u64]| {
        let tensor = |name, shape: &[u64]| File::f32(name, shape, &vec![1.0; shape.iter().product::<u64>() as usize]);
        vec![tensor("blocks.0.ffn.key.lora_A", down), tensor("blocks.0.ffn.key.lora_B", up)]
    };
    let called = |name: &str, mut files: Vec<File>| {
        files[0].name = format!("{name}.lora_A");
        files[1].name = format!("{name}.lora_B");
        files
    };
    let refused = |files: &[File], expected: &str| {
        let lora = open("lora", files::torch(files, false));
        let error = odd(DType::F32).with_lora(lora, &tables(), 1.0).expect_err("refused").to_string();
        assert!(error.starts_with("`lora`: ") && error.contains(expected), "{expected}: {error}");
    };
    refused(&[], "it holds no tensors");
    refused(&pair(&[2, 23], &[40, 2]), "shapes [2, 23] and [40, 2] make no [40, 24]");
    refused(&pair(&[2, 24], &[40, 3]), "shapes [2, 24] and [40, 3] make no [40, 24]");
    refused(&pair(&[2, 24], &[80]), "`blocks.0.ffn.key.lora_B` is f32[80], expected a matrix");
    refused(&pair(&[2, 24], &[40, 2])[..1], "it has `blocks.0.ffn.key.lora_A`, but not `blocks.0.ffn.key.lora_B`");
    refused(&pair(&[2, 24], &[40, 2])[1..], "`blocks.0.ffn.key.lora_B` is no adapter, and the model has no such");
    let elsewhere = called("blocks.9.ffn.key", pair(&[2, 24], &[40, 2]));
    refused(&elsewhere, "`blocks.9.ffn.key.lora_A` adapts `blocks.9.ffn.key.weight`, which the model does not have");
    let square = called("blocks.0.att.key", pair(&[24, 24], &[24, 24]));
    refused(&square, "do not say which way round they lie");
    let norm = [File::f32("blocks.0.ln1.weight", &[25], &[1.0; 25])];
    refused(&norm, "`blocks.0.ln1.weight` has shape [25], expected [24] as in the model");
}

/// A state of the odd model, [head, value, key] as training has it, for both layers.
fn trained_states() -> Vec<File> {
    let state = |layer: u64| File::f32(&format!("blocks.{layer}.att.time_state"), &[3, 8, 8], &random(layer + 9, 192));
    vec![state(0), state(1)]
}

/// Logits and states after some tokens from the beginning.
fn from_the_start(decoder: &mut Decoder<'_, AnySession>) -> Ran {
    let begin = decoder.session().states();
    let (logits, _) = decoder.run(&TOKENS, Rows::All).unwrap_or_else(|error| panic!("{error}"));
    Ran { logits, states: begin }
}

#[test]
fn trained_states_are_where_sequences_begin() {
    let Some(executor) = AnyExecutor::find(Kind::Hal, DEVICES[0]) else { return };
    let (program, limits) = (Program::rwkv7(), graphc::exec::Executor::device(&executor).limits.clone());
    let states = trained_states();
    let model = files::tensors(&odd(DType::F32));
    let beside = |bytes| odd(DType::F32).with_initial_state(open("state", bytes)).expect("a state");
    let turned: Vec<File> = states.iter().map(File::turned).collect();
    let cases = [
        ("beside, torch", beside(files::torch(&states, false))),
        ("beside, safetensors, as converted", beside(files::safetensors(&turned))),
        ("within, torch", open("model", files::torch(&[files::raw(&model), states.clone()].concat(), false))),
        ("within, safetensors", open("model", files::safetensors(&[model, turned].concat()))),
    ];
    let mut first: Option<Ran> = None;
    for (what, checkpoint) in &cases {
        let compiler = program.compiler(checkpoint.index(), &limits, &[]);
        let mut one = decoder(&executor, compiler, checkpoint, &[8]);
        let ran = from_the_start(&mut one);
        for (label, values) in &ran.states {
            // RWKV-7 keeps [head, value, key], which is how training has it.
            let expected = match label.as_str() {
                "att_s.0" => random(9, 192),
                "att_s.1" => random(10, 192),
                _ => vec![0.0; values.len()],
            };
            assert_eq!(*values, expected, "{what}: {label}");
        }
        assert!(first.get_or_insert_with(|| ran.clone()).bits() == ran.bits(), "{what}");
    }
    let plain = odd(DType::F32);
    let compiler = program.compiler(plain.index(), &limits, &[]);
    let without = from_the_start(&mut decoder(&executor, compiler, &plain, &[8]));
    let first = first.expect("there are cases");
    assert!(first.distance(&without) > 0.01, "they matter");
    // Sequences of a batch begin so too: the first, those that follow on others, and those that are reset.
    let compiler = program.compiler(cases[0].1.index(), &limits, &[]);
    let mut batch = batch(&executor, compiler, &cases[0].1, (2, &[8]));
    for round in 0..3 {
        let sequence = batch.join().expect("there is room");
        if round == 1 {
            batch.run(&[Feed { sequence, tokens: &[3, 2] }], Rows::All).expect("it runs");
            batch.reset(sequence).expect("it is there");
        }
        let (logits, _) = batch.run(&[Feed { sequence, tokens: &TOKENS }], Rows::All).expect("it runs");
        assert_eq!(logits[0], first.logits, "round {round}");
        batch.leave(sequence).expect("it is there");
    }
}

#[test]
fn states_of_other_models_are_refused() {
    let (program, limits) = (Program::rwkv7(), graphc::base::limits::Limits::vulkan());
    let refused = |states: &[File], expected: &str| {
        let model = odd(DType::F32).with_initial_state(open("state", files::torch(states, false))).expect("states");
        let error = program.compiler(model.index(), &limits, &[]).compile(support::runner::all_rows(1));
        let error = error.expect_err("refused").to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    };
    let state = |layer: u64, shape: &[u64]| {
        let count = shape.iter().product::<u64>() as usize;
        vec![File::f32(&format!("blocks.{layer}.att.time_state"), shape, &vec![1.0; count])]
    };
    refused(
        &state(0, &[3, 8, 9]),
        "weight `blocks.0.att.time_state` is f32[3, 9, 8], expected f32, f16 or bf16 [3, 8, 8]",
    );
    refused(&state(2, &[3, 8, 8]), "weight `blocks.2.att.time_state` is a state of no layer: there are 2");
}
