//! Files of `torch.save`: a zip archive of a pickle, which describes tensors, and of their elements.
//!
//! Gets the bytes of a file, returns each tensor's shape, element type and place in the file, where its elements stay.
//! What holds then: every element lies in the archive's entry that the pickle names, which is as long as it says.
//! Never runs anything: [`pickle`](super::pickle) reads the description as data.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::base::dtype::DType;
use crate::checkpoint::pickle::{self, Node, NodeId, Storage, Tree};
use crate::checkpoint::stored::Stored;
use crate::checkpoint::{TensorInfo, zip};

/// More description than any model has: a bound on what is kept of it.
const MAX_PICKLE_BYTES: usize = 64 << 20;

/// What the pickle of an archive is called, below its one folder.
const PICKLE: &str = "/data.pkl";

/// Where training scripts put the tensors if they save more than those.
const INNER: &str = "state_dict";

/// What files of torch before 1.6 begin with: a pickle of a number that names the format.
const OLD_MAGIC: [u8; 14] = *b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19";

/// Whether a file begins as those of `torch.save` do, of today or of long ago.
pub(super) fn is_torch(bytes: &[u8]) -> bool {
    // The first bytes of safetensors are a length, so that any may be there; what follows is `{`.
    (bytes.starts_with(&zip::LOCAL) && bytes.get(8) != Some(&b'{')) || bytes.starts_with(&OLD_MAGIC)
}

/// The tensors of a file.
pub(super) fn tensors(bytes: &[u8]) -> Result<BTreeMap<String, TensorInfo>, String> {
    if bytes.starts_with(&OLD_MAGIC) {
        return Err("it is of a torch before 1.6, which wrote no archives: load it and save it with a newer one".into());
    }
    let entries = zip::entries(bytes)?;
    let mut pickles = entries.iter().filter(|(name, _)| name.ends_with(PICKLE));
    let Some((name, range)) = pickles.next() else { return Err("its archive has no entry `…/data.pkl`".into()) };
    if let Some((other, _)) = pickles.next() {
        return Err(format!("its archive has two pickles, `{name}` and `{other}`"));
    }
    let folder = &name[..name.len() - PICKLE.len()];
    if let Some(order) = entries.get(&format!("{folder}/byteorder"))
        && bytes[order.clone()] != *b"little"
    {
        let found = String::from_utf8_lossy(&bytes[order.clone()]).into_owned();
        return Err(format!("its byte order is `{found}`, expected `little`"));
    }
    if range.len() > MAX_PICKLE_BYTES {
        return Err(format!("its pickle has {} bytes, at most {MAX_PICKLE_BYTES}", range.len()));
    }
    let tree = pickle::read(&bytes[range.clone()])?;
    let mut tensors = BTreeMap::new();
    for &(key, value) in named(&tree)? {
        let Node::Text(name) = tree.nodes[key] else { return Err("a tensor's name is no text".into()) };
        let Some(info) = tensor(&tree, name, value, |storage| {
            let entry = format!("{folder}/data/{}", storage.key);
            entries.get(&entry).cloned().ok_or_else(|| format!("its archive has no entry `{entry}`"))
        })?
        else {
            continue;
        };
        if tensors.insert(name.to_owned(), info).is_some() {
            return Err(format!("it has two tensors `{name}`"));
        }
    }
    Ok(tensors)
}

/// Names and values of what was saved: a dict, or the dict in it that training scripts write beside other things.
fn named<'t>(tree: &'t Tree<'_>) -> Result<&'t [(NodeId, NodeId)], &'static str> {
    let Node::Dict(root) = &tree.nodes[tree.root] else { return Err("it holds no dict of tensors") };
    let inner = root.iter().find(|(key, _)| tree.nodes[*key] == Node::Text(INNER)).map(|(_, value)| *value);
    Ok(match inner.map(|inner| &tree.nodes[inner]) {
        Some(Node::Dict(inner)) => inner,
        _ => root,
    })
}

/// The tensor that a value is; nothing for numbers and texts, which say how a model was trained.
fn tensor(
    tree: &Tree<'_>,
    name: &str,
    value: NodeId,
    range_of: impl Fn(&Storage<'_>) -> Result<Range<usize>, String>,
) -> Result<Option<TensorInfo>, String> {
    let view = match &tree.nodes[value] {
        Node::Tensor(view) => view,
        Node::Other | Node::Int(_) | Node::Text(_) => return Ok(None),
        _ => return Err(format!("`{name}` is neither a tensor nor a number nor a text")),
    };
    let (dtype, element_bytes) = match view.storage.kind {
        "F32" => (Ok(DType::F32), 4),
        "F16" => (Ok(DType::F16), 2),
        "BF16" => (Ok(DType::Bf16), 2),
        other => (Err(other.to_owned()), bytes_of(other)),
    };
    let range = range_of(&view.storage)?;
    if view.storage.count.checked_mul(element_bytes as u64) != Some(range.len() as u64) {
        let (count, found) = (view.storage.count, range.len());
        return Err(format!("`{name}`: expected {count} elements of {element_bytes} bytes, found {found} bytes"));
    }
    let stored = Stored::strided(&range, element_bytes, view.first, &view.shape, &view.strides);
    let stored = stored.map_err(|reason| format!("`{name}`: {reason}"))?;
    Ok(Some(TensorInfo::new(dtype, view.shape.clone(), stored)))
}

/// Bytes of an element that graphc does not read.
fn bytes_of(kind: &str) -> usize {
    match kind {
        "F64" | "I64" => 8,
        "I32" => 4,
        "I16" => 2,
        _ => 1,
    }
}
