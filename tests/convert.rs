//! `graphc convert`, and the flags that say what a checkpoint is read from.
//!
//! Gets the program and small files. What then holds: what is written is what was read, in the element type and by the
//! names that were asked for; nothing is written over unasked, and nothing half-written stays; adapters, states and
//! tables of names that are not right are refused with the file they are in.

mod checkpoint_files;
mod program;
mod support;

use std::path::Path;

use checkpoint_files as files;
use checkpoint_files::{File, tables};
use graphc::base::dtype::DType;
use graphc::checkpoint::Checkpoint;
use program::{graphc, synth, text};
use support::TempDir;

fn names(dir: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.file("")).expect("there");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("read").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn read(path: &Path) -> Vec<File> {
    files::tensors(&support::open(path))
}

/// A small file of torch, as training writes it.
fn raw(dir: &TempDir) -> Vec<File> {
    let values: Vec<f32> = (0..12).map(|at| at as f32 / 8.0).collect();
    let raw = vec![
        File::f32("blocks.0.att.time_faaaa", &[2, 2], &values[..4]),
        File::f32("blocks.0.att.time_maa_w1", &[4, 3], &values),
        File::f32("emb.weight", &[3, 4], &values),
    ];
    std::fs::write(dir.file("raw.pth"), files::torch(&raw, false)).expect("written");
    raw
}

#[test]
fn what_is_written_is_what_was_read() {
    let dir = TempDir::new();
    let raw = raw(&dir);
    let [input, out] = [dir.file("raw.pth"), dir.file("out.safetensors")];
    let called = |file: &File, name: &str| File { name: name.to_owned(), ..file.clone() };
    let converted = [
        called(&raw[0], "blocks.0.att.time_first"),
        called(&raw[1].turned(), "blocks.0.att.time_mix_w1"),
        raw[2].clone(),
    ];
    let ran = graphc(&["convert", text(&input), text(&out)]).fine();
    assert!(ran.out.is_empty() && ran.err.contains("out.safetensors`: 3 tensors, 0.0 MiB"), "{ran}");
    assert_eq!(read(&out), converted);
    let expected = support::open(&input).renamed(&tables()).expect("renamed").fingerprint();
    assert_eq!(support::open(&out).fingerprint(), expected, "states and plans go along");
    graphc(&["convert", text(&input), text(&out), "--force", "--keep-names"]).fine();
    let kept = [raw[0].clone(), raw[1].turned(), raw[2].clone()];
    assert_eq!(read(&out), kept);
    // Twelve numbers of eighths are exact in every type.
    for (flag, dtype) in [("f16", DType::F16), ("bf16", DType::Bf16), ("f32", DType::F32)] {
        graphc(&["convert", text(&input), text(&out), "--force", "--dtype", flag]).fine();
        for (found, expected) in read(&out).iter().zip(&converted) {
            assert_eq!((found.dtype, &found.name, &found.shape), (dtype, &expected.name, &expected.shape));
            assert_eq!(
                graphc::tensor::to_f32(dtype, &found.bytes),
                graphc::tensor::to_f32(DType::F32, &expected.bytes)
            );
        }
    }
    // A file may be written over itself.
    graphc(&["convert", text(&out), text(&out), "--force"]).fine();
    assert_eq!(read(&out), converted);
}

#[test]
fn shards_become_one_file() {
    let dir = TempDir::new();
    let model = read(&synth());
    let (one, two) = model.split_at(40);
    std::fs::write(dir.file("1.safetensors"), files::safetensors(one)).expect("written");
    std::fs::write(dir.file("2.safetensors"), files::safetensors(two)).expect("written");
    let entry = |file: &File, shard: &str| format!("{:?}: {shard:?}", file.name);
    let map = one.iter().map(|file| entry(file, "1.safetensors"));
    let map: Vec<String> = map.chain(two.iter().map(|file| entry(file, "2.safetensors"))).collect();
    let index = format!("{{\"weight_map\": {{{}}}}}", map.join(","));
    std::fs::write(dir.file("model.safetensors.index.json"), index).expect("written");
    let out = dir.file("out");
    graphc(&["convert", text(&dir.file("")), text(&out)]).fine();
    assert_eq!(read(&out), model);
    std::fs::remove_file(dir.file("2.safetensors")).expect("it was there");
    let index = dir.file("model.safetensors.index.json");
    let again = graphc(&["convert", text(&index), text(&out), "--force"]);
    again.fails(2, &["index.json` names: cannot read `", "2.safetensors`: No such file"]);
    assert_eq!(read(&out), model, "what was there stays");
}

#[test]
fn nothing_is_written_over_or_half_written() {
    let dir = TempDir::new();
    raw(&dir);
    let [input, out] = [dir.file("raw.pth"), dir.file("out")];
    std::fs::write(&out, "before").expect("written");
    graphc(&["convert", text(&input), text(&out)]).fails(2, &["out` is there already; `--force` writes over it"]);
    let large = [File::f32("a", &[2], &[1.0, 70000.0])];
    std::fs::write(&input, files::torch(&large, false)).expect("written");
    let beyond = "raw.pth`: `a` has a 7e4, which is beyond f16";
    graphc(&["convert", text(&input), text(&out), "--force", "--dtype", "f16"]).fails(1, &[beyond]);
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoint_files/small.pth"), &input)
        .expect("copied");
    graphc(&["convert", text(&input), text(&out), "--force"]).fails(1, &["`double` is F64, expected f32, f16 or bf16"]);
    assert_eq!(std::fs::read(&out).expect("it is there"), b"before");
    assert_eq!(names(&dir), ["out", "raw.pth"]);
    raw(&dir);
    #[cfg(target_os = "linux")]
    graphc(&["convert", text(&input), "/dev/full"]).fails(2, &["cannot write `/dev/full`: No space left on device"]);
    graphc(&["convert", text(&input), text(&dir.file("none/out"))]).fails(2, &["cannot write `", "No such file"]);
    graphc(&["convert", text(&dir.file("none")), text(&out), "--force"]).fails(2, &["cannot read `", "none`"]);
}

#[test]
fn tensors_that_were_one_cannot_keep_their_name() {
    let dir = TempDir::new();
    let path = dir.file("fla.safetensors");
    let converted = files::tensors(&support::open(&synth()));
    std::fs::write(&path, files::safetensors(&files::fla(&converted, true))).expect("written");
    let out = dir.file("out");
    let kept = graphc(&["convert", text(&path), text(&out), "--keep-names"]);
    kept.fails(1, &["several tensors were `model.layers.0.attn.x_x` in their file"]);
    graphc(&["convert", text(&path), text(&out)]).fine();
    assert_eq!(read(&out), files::squeezed(&converted));
}

#[test]
fn adapters_are_merged_as_they_are_when_a_model_is_loaded() {
    let dir = TempDir::new();
    let numbers = |count: usize| -> Vec<f32> { (0..count).map(|at| (at % 7) as f32 / 64.0).collect() };
    let pair = [
        File::f32("blocks.0.att.key.lora_A", &[2, 128], &numbers(256)),
        File::f32("blocks.0.att.key.lora_B", &[128, 2], &numbers(256)),
    ];
    let [lora, out] = [dir.file("lora.pth"), dir.file("out")];
    std::fs::write(&lora, files::torch(&pair, false)).expect("written");
    let weights = synth();
    let convert = |more: &[&str]| graphc(&[&["convert", text(&weights), text(&out), "--force"], more].concat());
    let with = |alpha: &str| format!("{}{alpha}", text(&lora));
    let loaded = |alpha| {
        let lora = support::open(&lora).renamed(&tables()).expect("renamed");
        files::tensors(&support::open(&weights).with_lora(lora, &tables(), alpha).expect("it fits"))
    };
    convert(&["--lora", &with(":8")]).fine();
    assert_eq!(read(&out), loaded(8.0));
    assert_ne!(read(&out), read(&weights));
    convert(&["--lora", &with("")]).fails(2, &["no alpha for `", "say it as in `--lora ", "lora.pth:32`"]);
    convert(&["--lora", &with(":inf")]).fails(2, &["expected a file, and a number behind a `:`"]);
    std::fs::write(dir.file("adapter_config.json"), "{\"lora_alpha\": 4, \"r\": 2, \"use_rslora\": false}")
        .expect("written");
    convert(&["--lora", &with("")]).fine();
    assert_eq!(read(&out), loaded(4.0), "as the file beside it says");
    std::fs::write(dir.file("adapter_config.json"), "{\"lora_alpha\": 4, \"use_dora\": true}").expect("written");
    convert(&["--lora", &with("")]).fails(1, &["adapter_config.json`: `use_dora` is set"]);
    std::fs::write(dir.file("adapter_config.json"), "{\"r\": 4}").expect("written");
    convert(&["--lora", &with("")]).fails(1, &["it has no number `lora_alpha`"]);
    std::fs::write(&lora, files::torch(&pair[1..], false)).expect("written");
    let stray = "lora.pth`: `blocks.0.att.key.lora_B` is no adapter, and the model has no such tensor";
    graphc(&["compile", "--weights", text(&weights), "--lora", &with(":8")]).fails(1, &[stray]);
}

#[test]
fn states_that_are_none_are_refused_with_what_there_is() {
    let dir = TempDir::new();
    let state = dir.file("state.pth");
    std::fs::write(&state, files::torch(&[File::f32("blocks.0.ln1.weight", &[1], &[1.0])], false)).expect("written");
    let stray = "state.pth`: `blocks.0.ln1.weight` is no state of graph `rwkv7`, expected `blocks.{}.att.time_state`";
    graphc(&["compile", "--state-init", text(&state)]).fails(1, &[stray]);
    std::fs::write(&state, files::torch(&[], false)).expect("written");
    graphc(&["compile", "--state-init", text(&state)]).fails(1, &["state.pth`: it holds no tensors"]);
}

#[test]
fn tables_of_names_are_data() {
    let dir = TempDir::new();
    let file = dir.file("mine.safetensors");
    std::fs::write(&file, files::safetensors(&[File::f32("my.3.table", &[1], &[1.0])])).expect("written");
    let out = dir.file("out");
    let convert = |more: &[&str]| graphc(&[&["convert", text(&file), text(&out), "--force"], more].concat());
    let tables = dir.file("tables");
    std::fs::create_dir(&tables).expect("made");
    let mine = "Names(name: \"mine\", when: [When(has: [\"my.*\"])], rename: {\"my.{}.table\": \"table.{}\"})";
    std::fs::write(tables.join("mine.ron"), mine).expect("written");
    convert(&["--names", text(&tables)]).fine();
    assert_eq!(read(&out)[0].name, "table.3");
    convert(&[]).fine();
    assert_eq!(read(&out)[0].name, "my.3.table", "the tables that are built in say nothing of it");
    std::fs::write(tables.join("other.ron"), mine.replace("mine", "other")).expect("written");
    let kinds = "mine.safetensors`: its tensors have names of more than one kind: `mine`, `other`";
    convert(&["--names", text(&tables)]).fails(1, &[kinds]);
    std::fs::write(tables.join("other.ron"), "Names(nam: \"x\")").expect("written");
    convert(&["--names", text(&tables)]).fails(1, &["unknown field `nam`", "other.ron:1:7"]);
    convert(&["--names", text(&dir.file("none"))]).fails(2, &["cannot read `", "none`"]);
}

#[test]
fn what_cannot_be_read_is_named() {
    let dir = TempDir::new();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoint_files/old.pth");
    let old = "old.pth` is not a usable file of torch: it is of a torch before 1.6";
    graphc(&["run", "--prompt", "x", "--weights", text(&fixture)]).fails(1, &[old]);
    let (empty, folder) = (dir.file("empty.pth"), dir.file(""));
    std::fs::write(&empty, "").expect("written");
    graphc(&["compile", "--weights", text(&empty)])
        .fails(1, &["empty.pth` is not a usable safetensors file: it has 0 bytes"]);
    std::fs::remove_file(&empty).expect("it was there");
    graphc(&["compile", "--weights", text(&folder)]).fails(2, &["a directory without a checkpoint"]);
    let checkpoint = Checkpoint::open(&folder);
    assert!(checkpoint.is_err());
}
