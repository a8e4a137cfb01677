//! One model in every kind of file: safetensors and torch, by every family of names, either way round.
//!
//! Gets tensors, returns bytes of files. What then holds: the tensors are the same numbers, whatever they are called
//! and however they lie. Torch files are written here as torch writes them, byte for byte as far as readers look; those
//! that torch itself wrote lie beside this file, with the script that made them.

#![allow(dead_code, reason = "each test binary uses a different part of the support modules")]

use graphc::base::dtype::DType;
use graphc::checkpoint::Checkpoint;
use graphc::checkpoint::names::{self, NameTable};
use graphc::sources;
use safetensors::tensor::{Dtype, TensorView};

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its elements.
    pub bytes: Vec<u8>,
    /// Whether torch has it as a transposed view of what lies in the file.
    pub is_view: bool,
}

impl File {
    /// A tensor of f32.
    pub fn f32(name: &str, shape: &[u64], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name: name.to_owned(), dtype: DType::F32, shape: shape.to_vec(), bytes, is_view: false }
    }

    /// The same with the last two axes exchanged.
    pub fn turned(&self) -> Self {
        let [.., rows, columns] = self.shape[..] else { panic!("`{}` has fewer than two axes", self.name) };
        let size = self.dtype.size_bytes() as usize;
        let (rows, columns) = (rows as usize, columns as usize);
        let matrices = self.bytes.chunks_exact(rows * columns * size);
        let turned = matrices.flat_map(|matrix| {
            (0..columns).flat_map(move |column| {
                (0..rows).flat_map(move |row| matrix[(row * columns + column) * size..][..size].iter().copied())
            })
        });
        let mut shape = self.shape.clone();
        let last = shape.len() - 1;
        shape.swap(last - 1, last);
        Self { shape, bytes: turned.collect(), ..self.clone() }
    }
}

/// All tensors of a checkpoint.
pub fn tensors(checkpoint: &Checkpoint) -> Vec<File> {
    let names = checkpoint.index().names();
    let file = |name: &str| {
        let tensor = checkpoint.tensor(name).expect("of a type that is read");
        let (dtype, shape, bytes) = (tensor.dtype, tensor.shape, tensor.bytes);
        File { name: name.to_owned(), dtype, shape, bytes, is_view: false }
    };
    names.map(file).collect()
}

/// As bytes of safetensors.
pub fn safetensors(files: &[File]) -> Vec<u8> {
    let view = |file: &File| {
        let dtype = match file.dtype {
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::Bf16 => Dtype::BF16,
            DType::U32 => Dtype::U32,
        };
        let shape = file.shape.iter().map(|extent| *extent as usize).collect();
        (file.name.clone(), TensorView::new(dtype, shape, file.bytes.clone().leak()).expect("it fills its shape"))
    };
    safetensors::serialize(files.iter().map(view), None).expect("a file")
}

/// As bytes of torch; `wide` as archives beyond 4 GiB are.
pub fn torch(files: &[File], wide: bool) -> Vec<u8> {
    let mut entries =
        vec![("model/data.pkl".to_owned(), pickle(files)), ("model/byteorder".into(), b"little".to_vec())];
    for (nth, file) in files.iter().enumerate() {
        let stored = if file.is_view { file.turned().bytes } else { file.bytes.clone() };
        entries.push((format!("model/data/{nth}"), stored));
    }
    entries.push(("model/version".into(), b"3\n".to_vec()));
    zip(&entries, wide)
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn int(out: &mut Vec<u8>, number: u64) {
    match number {
        0..=0xff => out.extend([b'K', number as u8]),
        0x100..=0xffff => out.extend([b'M', number as u8, (number >> 8) as u8]),
        _ => {
            out.push(b'J');
            out.extend_from_slice(&i32::try_from(number).expect("small").to_le_bytes());
        }
    }
}

fn tuple(out: &mut Vec<u8>, numbers: &[u64]) {
    out.push(b'(');
    numbers.iter().for_each(|number| int(out, *number));
    out.push(b't');
}

/// A dict of tensors, as torch pickles it.
fn pickle(files: &[File]) -> Vec<u8> {
    let mut out = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(".to_vec();
    for (nth, file) in files.iter().enumerate() {
        let count: u64 = file.shape.iter().product();
        text(&mut out, &file.name);
        out.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend_from_slice(match file.dtype {
            DType::F32 => b"ctorch\nFloatStorage\n",
            DType::F16 => b"ctorch\nHalfStorage\n",
            DType::Bf16 => b"ctorch\nBFloat16Storage\n",
            DType::U32 => panic!("torch has no such type"),
        });
        text(&mut out, &nth.to_string());
        text(&mut out, "cuda:0");
        int(&mut out, count);
        out.extend_from_slice(b"tQK\x00");
        let mut strides: Vec<u64> = vec![1; file.shape.len()];
        let mut stored = file.shape.clone();
        let last = stored.len().saturating_sub(1);
        if file.is_view {
            stored.swap(last - 1, last);
        }
        for axis in (1..stored.len()).rev() {
            strides[axis - 1] = strides[axis] * stored[axis];
        }
        if file.is_view {
            strides.swap(last - 1, last);
        }
        tuple(&mut out, &file.shape);
        tuple(&mut out, &strides);
        out.extend_from_slice(b"\x89h\x00)RtR");
    }
    // What `state_dict` notes of versions.
    out.extend_from_slice(b"u}");
    text(&mut out, "_metadata");
    out.extend_from_slice(b"h\x00)Rsb.");
    out
}

/// An archive of entries that are stored as they are, each at a multiple of 64 bytes.
pub fn zip(entries: &[(String, Vec<u8>)], wide: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    let numbers = |out: &mut Vec<u8>, numbers: &[(usize, u64)]| {
        numbers.iter().for_each(|(count, number)| out.extend_from_slice(&number.to_le_bytes()[..*count]));
    };
    for (name, bytes) in entries {
        let (at, len, name_len) = (out.len() as u64, bytes.len() as u64, name.len() as u64);
        let short = if wide { u64::from(u32::MAX) } else { len };
        let padding = (64 - (out.len() + 30 + name.len() + 4) % 64) % 64;
        out.extend_from_slice(b"PK\x03\x04");
        numbers(&mut out, &[(2, 0), (2, 0), (2, 0), (4, 0)]);
        numbers(&mut out, &[(4, 0), (4, short), (4, short), (2, name_len), (2, padding as u64 + 4)]);
        out.extend_from_slice(name.as_bytes());
        numbers(&mut out, &[(2, 0x4246), (2, padding as u64)]);
        out.resize(out.len() + padding, b'Z');
        out.extend_from_slice(bytes);
        directory.extend_from_slice(b"PK\x01\x02");
        let extra = if wide { 28 } else { 0 };
        let place = if wide { u64::from(u32::MAX) } else { at };
        numbers(&mut directory, &[(4, 0), (2, 0), (2, 0), (4, 0), (4, 0), (4, short), (4, short)]);
        numbers(&mut directory, &[(2, name_len), (2, extra), (2, 0), (2, 0), (2, 0), (4, 0), (4, place)]);
        directory.extend_from_slice(name.as_bytes());
        if wide {
            numbers(&mut directory, &[(2, 1), (2, 24), (8, len), (8, len), (8, at)]);
        }
    }
    let (count, at, size) = (entries.len() as u64, out.len() as u64, directory.len() as u64);
    out.extend_from_slice(&directory);
    let end = out.len() as u64;
    if wide {
        out.extend_from_slice(b"PK\x06\x06");
        numbers(&mut out, &[(8, 44), (2, 0), (2, 0), (4, 0), (4, 0), (8, count), (8, count), (8, size), (8, at)]);
        out.extend_from_slice(b"PK\x06\x07");
        numbers(&mut out, &[(4, 0), (8, end), (4, 1)]);
    }
    let (count, at) = if wide { (0xffff, u64::from(u32::MAX)) } else { (count, at) };
    out.extend_from_slice(b"PK\x05\x06");
    numbers(&mut out, &[(2, 0), (2, 0), (2, count), (2, count), (4, size), (4, at), (2, 0)]);
    out
}

/// Whether a tensor is one of those that the usual conversion turns.
fn is_low_rank(name: &str) -> bool {
    let last = name.rsplit('.').next().expect("a last part").as_bytes();
    name.contains(".att.") && last.len() == 2 && b"wavg".contains(&last[0]) && b"12".contains(&last[1])
}

/// As training writes them: low-rank pairs the other way round.
pub fn raw(files: &[File]) -> Vec<File> {
    files.iter().map(|file| if is_low_rank(&file.name) { file.turned() } else { file.clone() }).collect()
}

/// The same tensors as transposed views, where they have two axes.
pub fn views(files: &[File]) -> Vec<File> {
    files.iter().map(|file| File { is_view: file.shape.len() == 2, ..file.clone() }).collect()
}

/// With vectors of one axis, as newer programs write them.
pub fn squeezed(files: &[File]) -> Vec<File> {
    let squeeze = |file: &File| match file.shape[..] {
        [1, 1, width] => File { shape: vec![width], ..file.clone() },
        _ => file.clone(),
    };
    files.iter().map(squeeze).collect()
}

/// As flash-linear-attention names them; with `fused`, its first version's one tensor of mixing vectors.
pub fn fla(files: &[File], fused: bool) -> Vec<File> {
    let rename = |name: &str| {
        let parts: Vec<&str> = name.split('.').collect();
        match parts.as_slice() {
            ["emb", end] => format!("model.embeddings.{end}"),
            ["head", end] => format!("lm_head.{end}"),
            ["ln_out", end] => format!("model.norm.{end}"),
            ["blocks", layer, rest @ ..] => {
                let rest = match rest {
                    ["ln0", end] => format!("pre_norm.{end}"),
                    ["ln1", end] => format!("attn_norm.{end}"),
                    ["ln2", end] => format!("ffn_norm.{end}"),
                    ["ffn", rest @ ..] => format!("ffn.{}", rest.join(".")),
                    ["att", "ln_x", end] => format!("attn.g_norm.{end}"),
                    ["att", "receptance", end] => format!("attn.r_proj.{end}"),
                    ["att", "key", end] => format!("attn.k_proj.{end}"),
                    ["att", "value", end] => format!("attn.v_proj.{end}"),
                    ["att", "output", end] => format!("attn.o_proj.{end}"),
                    ["att", pair] if pair.len() == 2 => {
                        let end = ["2.bias", "0.weight", "2.weight"][usize::from(pair.as_bytes()[1] - b'0')];
                        format!("attn.{}_lora.lora.{end}", &pair[..1])
                    }
                    ["att", vector] => format!("attn.{vector}"),
                    other => panic!("{other:?}"),
                };
                format!("model.layers.{layer}.{rest}")
            }
            other => panic!("{other:?}"),
        }
    };
    let mut renamed: Vec<File> =
        squeezed(files).into_iter().map(|file| File { name: rename(&file.name), ..file }).collect();
    if fused {
        let layers = renamed.iter().filter(|file| file.name.ends_with(".attn.x_r")).count();
        for layer in 0..layers {
            let named = |mix: char| format!("model.layers.{layer}.attn.x_{mix}");
            let mixes: Vec<File> = "rwkvag"
                .chars()
                .map(|mix| renamed.remove(renamed.iter().position(|file| file.name == named(mix)).expect("a vector")))
                .collect();
            let bytes = mixes.iter().flat_map(|mix| mix.bytes.clone()).collect();
            let shape = vec![6, mixes[0].shape[0]];
            renamed.push(File { name: named('x'), shape, bytes, ..mixes[0].clone() });
        }
    }
    renamed
}

/// The tables that are built in.
pub fn tables() -> Vec<NameTable> {
    tables_of(&sources::names(None).expect("built in"))
}

/// The tables of texts.
pub fn tables_of(texts: &[(String, String)]) -> Vec<NameTable> {
    let mut map = graphc::base::span::SourceMap::new();
    let mut parse = |(path, text): &(String, String)| {
        let source = map.add(path.clone(), text.clone());
        names::parse(&map, source).unwrap_or_else(|wrong| panic!("{}", graphc::base::diag::render(&wrong, &map)))
    };
    texts.iter().map(&mut parse).collect()
}

/// A checkpoint of these bytes, by the names that graphs know.
pub fn open(name: &str, bytes: Vec<u8>) -> Checkpoint {
    let checkpoint = Checkpoint::from_static(name, bytes.leak()).unwrap_or_else(|error| panic!("{error}"));
    checkpoint.renamed(&tables()).unwrap_or_else(|error| panic!("{error}"))
}
