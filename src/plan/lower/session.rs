//! What all plans of a session agree on: where the weights lie, and in which usage each state rests.
//!
//! Gets a model, returns its weight layout; gets its schedule too, returns a rest for each state. What holds then: the
//! layout is the same for steps of every size; the rests cost a step of this size nothing. Never lowers a step.

use std::collections::{BTreeMap, BTreeSet};

use super::{ELEMENT_ALIGNMENT, LevelUse, RECORD_ALIGNMENT, own_rest, phases};
use crate::model::{Model, WeightTensor};
use crate::plan::usage::Usage;
use crate::plan::weights::{WeightBuffer, WeightLayout, WeightPiece};
use crate::schedule::{Schedule, Step, accesses};

/// Tensors of at most this many bytes are packed, a record per layer.
const PACKED_BYTES: u64 = 32 << 10;

/// Lays out the weights that steps of any size use: small ones packed, a record per layer; large ones in a buffer each.
/// Weights that are read as one (`joins`) lie side by side where they can, those that are read by columns
/// (`transposed`) lie so as well. Equal for all step shapes of a graph and checkpoint that have the same of both.
pub fn lay_out(model: &Model, joins: &[Vec<String>], transposed: &[String]) -> WeightLayout {
    let groups = groups(model, joins);
    let mut weights: Vec<&WeightTensor> = model.weights.iter().collect();
    // Those of a group follow each other where the group's first one would stand.
    let mut firsts: BTreeMap<&str, (&WeightTensor, usize)> = BTreeMap::new();
    for group in &groups {
        let first = group.iter().min_by_key(|weight| (&weight.pattern, weight.index)).expect("groups have members");
        firsts.extend(group.iter().enumerate().map(|(at, weight)| (weight.tensor.as_str(), (*first, at))));
    }
    let key = |weight: &&'_ WeightTensor| {
        let (first, at) = firsts.get(weight.tensor.as_str()).map_or((*weight, 0), |(first, at)| (*first, *at));
        (first.pattern.clone(), first.index, at)
    };
    weights.sort_by_cached_key(key);
    let bytes = |weight: &WeightTensor| weight.dtype.storage_bytes(weight.count).next_multiple_of(ELEMENT_ALIGNMENT);
    let alignment = |weight: &WeightTensor| if weight.bound_alone { RECORD_ALIGNMENT } else { ELEMENT_ALIGNMENT };
    let large = large(&groups, &bytes);
    let is_packed = |weight: &WeightTensor| bytes(weight) <= PACKED_BYTES && !large.contains_key(&weight.tensor);
    let mut layout = WeightLayout::default();
    for indexed in [false, true] {
        // Where each pattern lies in a record: room for the largest of all layers.
        let mut sizes: Vec<(&str, u64, u64)> = Vec::new();
        for weight in weights.iter().filter(|weight| is_packed(weight) && weight.index.is_some() == indexed) {
            match sizes.iter_mut().find(|(pattern, ..)| *pattern == weight.pattern) {
                Some((_, size, aligned)) => {
                    (*size, *aligned) = (bytes(weight).max(*size), alignment(weight).max(*aligned));
                }
                None => sizes.push((&weight.pattern, bytes(weight), alignment(weight))),
            }
        }
        let mut offsets: BTreeMap<&str, u64> = BTreeMap::new();
        let mut record_bytes = 0;
        for (pattern, size, alignment) in sizes {
            let offset_bytes = u64::next_multiple_of(record_bytes, alignment);
            offsets.insert(pattern, offset_bytes);
            record_bytes = offset_bytes + size;
        }
        record_bytes = record_bytes.next_multiple_of(RECORD_ALIGNMENT);
        if offsets.is_empty() {
            continue;
        }
        let buffer = layout.buffers.len() as u32;
        let mut records = 0;
        for weight in weights.iter().filter(|weight| is_packed(weight) && weight.index.is_some() == indexed) {
            let record = weight.index.unwrap_or(0);
            records = records.max(record + 1);
            layout.pieces.push(WeightPiece {
                tensor: weight.tensor.clone(),
                buffer,
                offset_bytes: record * record_bytes + offsets[weight.pattern.as_str()],
                dtype: weight.dtype,
                count: weight.count,
                transpose: weight.transpose,
            });
        }
        layout.buffers.push(WeightBuffer {
            label: if indexed { "weights.layers".into() } else { "weights.small".into() },
            size_bytes: records * record_bytes,
            record_bytes: Some(record_bytes),
        });
    }
    let mut group_buffers: BTreeMap<usize, u32> = BTreeMap::new();
    for weight in weights.iter().filter(|weight| !is_packed(weight)) {
        let group = large.get(&weight.tensor).copied();
        let known = group.and_then(|group| group_buffers.get(&group).copied());
        let buffer = known.unwrap_or_else(|| {
            let label = format!("w.{}", weight.tensor);
            layout.buffers.push(WeightBuffer { label, size_bytes: 0, record_bytes: None });
            layout.buffers.len() as u32 - 1
        });
        group_buffers.extend(group.map(|group| (group, buffer)));
        let size_bytes = &mut layout.buffers[buffer as usize].size_bytes;
        layout.pieces.push(WeightPiece {
            tensor: weight.tensor.clone(),
            buffer,
            offset_bytes: *size_bytes,
            dtype: weight.dtype,
            count: weight.count,
            transpose: weight.transpose,
        });
        *size_bytes += bytes(weight);
    }
    by_columns(model, transposed, &mut layout);
    layout
}

/// Copies of weights by columns, in a buffer each.
fn by_columns(model: &Model, transposed: &[String], layout: &mut WeightLayout) {
    for weight in model.weights.iter().filter(|weight| transposed.contains(&weight.tensor)) {
        let size_bytes = weight.dtype.storage_bytes(weight.count).next_multiple_of(ELEMENT_ALIGNMENT);
        layout.pieces.push(WeightPiece {
            tensor: weight.tensor.clone(),
            buffer: layout.buffers.len() as u32,
            offset_bytes: 0,
            dtype: weight.dtype,
            count: weight.count,
            transpose: if weight.transpose.is_none() { weight.matrix } else { None },
        });
        let label = format!("w.{} by columns", weight.tensor);
        layout.buffers.push(WeightBuffer { label, size_bytes, record_bytes: None });
    }
}

/// Joins of weights that can lie side by side: elements in eights, so that no accessor reaches across two of them, and
/// none that a text binds by itself. A weight is in one group.
fn groups<'m>(model: &'m Model, joins: &[Vec<String>]) -> Vec<Vec<&'m WeightTensor>> {
    let by_name: BTreeMap<&str, &WeightTensor> =
        model.weights.iter().map(|weight| (weight.tensor.as_str(), weight)).collect();
    let mut grouped: BTreeSet<&str> = BTreeSet::new();
    let mut groups = Vec::new();
    for join in joins {
        let Some(group) = join.iter().map(|name| by_name.get(name.as_str()).copied()).collect::<Option<Vec<_>>>()
        else {
            continue;
        };
        let fits = |weight: &&WeightTensor| weight.count.is_multiple_of(8) && !weight.bound_alone;
        if group.iter().all(fits) && !group.iter().any(|weight| grouped.contains(weight.tensor.as_str())) {
            grouped.extend(group.iter().map(|weight| weight.tensor.as_str()));
            groups.push(group);
        }
    }
    groups
}

/// The number of each group that takes a buffer of its own, since one of its members would, by its members' names.
fn large(groups: &[Vec<&WeightTensor>], bytes: &dyn Fn(&WeightTensor) -> u64) -> BTreeMap<String, usize> {
    let is_large = |group: &[&WeightTensor]| group.iter().any(|weight| bytes(weight) > PACKED_BYTES);
    let large = groups.iter().enumerate().filter(|(_, group)| is_large(group));
    large.flat_map(|(number, group)| group.iter().map(move |weight| (weight.tensor.clone(), number))).collect()
}

/// The usage in which each state of a model rests so that leaving a step costs nothing.
pub fn state_rests(model: &Model, schedule: &Schedule) -> Vec<Usage> {
    let mut uses: Vec<Vec<LevelUse>> = vec![Vec::new(); model.state.len()];
    for (level, steps) in (0u32..).zip(&schedule.levels) {
        for step in steps {
            let (reads, writes) = accesses(model, *step);
            let read = if matches!(step, Step::Fetch { .. }) { Usage::COPY_SRC } else { Usage::STORAGE_READ };
            let reads = reads.into_iter().map(|value| (value, read));
            for (value, usage) in reads.chain(writes.into_iter().map(|value| (value, Usage::STORAGE_WRITE))) {
                let Some(state) = model.state_of(value) else { continue };
                let uses = &mut uses[state as usize];
                // A write of all of it: what apart from each other may be written is no matter of a state.
                let written = if usage.writes() { vec![(0, 1)] } else { Vec::new() };
                match uses.last_mut().filter(|last| last.level == level) {
                    // An update reads and writes through one binding, which counts as writing.
                    Some(last) if usage.writes() => (last.usage, last.written) = (usage, written),
                    Some(last) if !last.usage.writes() => last.usage |= usage,
                    Some(_) => {}
                    None => uses.push(LevelUse { level, usage, written }),
                }
            }
        }
    }
    uses.iter().map(|uses| own_rest(&phases(uses))).collect()
}
