//! Checkpoints in several files, told apart by an index beside them.
//!
//! Gets the JSON of an index, or the checkpoints that it names; returns which file has which tensor, and one checkpoint
//! of all. What holds then: every tensor is in the file that the index names and in no other, and no file has one that
//! the index does not know. Never looks outside the index's own folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::checkpoint::{Checkpoint, CheckpointError};

/// More of an index than any model has, in bytes; and more files.
const MAX_INDEX_BYTES: u64 = 64 << 20;
const MAX_SHARDS: usize = 4096;

#[derive(serde::Deserialize)]
struct File {
    weight_map: WeightMap,
}

/// Which file has which tensor, a name that is given twice included.
struct WeightMap(Vec<(String, String)>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = WeightMap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file's name for every tensor")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(WeightMap(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Which file has which tensor, from an index's text.
///
/// # Errors
/// If it is no index, names a tensor twice, or a file that does not lie beside it.
pub fn weight_map(text: &str) -> Result<BTreeMap<String, String>, String> {
    let file: File = serde_json::from_str(text)
        .map_err(|error| format!("it is no index, which has a `weight_map` of tensors' names to files: {error}"))?;
    let mut map = BTreeMap::new();
    for (tensor, shard) in file.weight_map.0 {
        let mut parts = Path::new(&shard).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(format!("`{tensor}` is in `{shard}`, expected a file beside the index"));
        }
        if map.insert(tensor.clone(), shard).is_some() {
            return Err(format!("`weight_map` names `{tensor}` twice"));
        }
    }
    match map.values().collect::<BTreeSet<_>>().len() {
        0 => Err("its `weight_map` is empty".into()),
        count if count > MAX_SHARDS => Err(format!("its `weight_map` names {count} files, at most {MAX_SHARDS}")),
        _ => Ok(map),
    }
}

/// The checkpoint of an index and all files that it names.
pub(super) fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let file_error = |source| CheckpointError::File { path: path.to_owned(), source };
    let wrong = |reason| CheckpointError::Contents { name: path.display().to_string(), reason };
    let bytes = std::fs::metadata(path).map_err(file_error)?.len();
    if bytes > MAX_INDEX_BYTES {
        return Err(wrong(format!("it has {bytes} bytes, an index of shards at most {MAX_INDEX_BYTES}")));
    }
    let map = weight_map(&std::fs::read_to_string(path).map_err(file_error)?).map_err(wrong)?;
    let mut shards = Vec::new();
    for name in map.values().collect::<BTreeSet<_>>() {
        let shard = Checkpoint::open_file(&path.with_file_name(name));
        let named = |source| CheckpointError::Shard { index: path.to_owned(), source: Box::new(source) };
        shards.push((name.clone(), shard.map_err(named)?));
    }
    check(&map, &shards).map_err(wrong)?;
    let mut whole = Checkpoint { name: path.display().to_string(), ..shards.swap_remove(0).1 };
    for (_, shard) in shards {
        whole.absorb(shard);
    }
    Ok(whole)
}

/// Whether the files hold what the index says, and nothing else.
fn check(map: &BTreeMap<String, String>, shards: &[(String, Checkpoint)]) -> Result<(), String> {
    for (tensor, expected) in map {
        let has = |(_, shard): &&(String, Checkpoint)| shard.index().get(tensor).is_some();
        match shards.iter().filter(has).map(|(name, _)| name).collect::<Vec<_>>().as_slice() {
            [found] if *found == expected => {}
            [] => return Err(format!("`{tensor}` is in none of its files; `weight_map` says `{expected}`")),
            [found] => return Err(format!("`{tensor}` is in `{found}`; `weight_map` says `{expected}`")),
            [one, other, ..] => return Err(format!("`{tensor}` is in both `{one}` and `{other}`")),
        }
    }
    for (name, shard) in shards {
        if let Some(tensor) = shard.index().names().find(|tensor| !map.contains_key(*tensor)) {
            return Err(format!("`{name}` has `{tensor}`, of which `weight_map` does not know"));
        }
    }
    match shards.iter().find(|(_, shard)| shard.container() != shards[0].1.container()) {
        Some((name, _)) => Err(format!("`{name}` is of another kind than `{}`", shards[0].0)),
        None => Ok(()),
    }
}
