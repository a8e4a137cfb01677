//! What can be said of each part of a plan without replaying it: P1, P2, P9, P10.
//!
//! Gets the plan, returns errors about single buffers, kernels, commands, layouts, inputs and outputs. Then ids are in
//! range, sizes and counts are within limits, and the layouts describe memory that can exist. Never looks at order.

use super::{At, Errors, Promise, is_allowed, lies_in, overlaps, tensor_bytes};
use crate::base::role::{DRAW_WORDS, InputRole, OutputRole};
use crate::base::step::StepShape;
use crate::plan::PLAN_VERSION;
use crate::plan::command::{
    Buffer, BufferId, BufferKind, Command, Copy, Dispatch, Kernel, KernelId, Slice, Transition,
};
use crate::plan::usage::Usage;

const PLAN: At = At::Table("plan");
const BUFFERS: At = At::Table("buffers");
const KERNELS: At = At::Table("kernels");
const WEIGHTS: At = At::Table("weights");
const STATE: At = At::Table("state");
const INPUTS: At = At::Table("inputs");
const OUTPUTS: At = At::Table("outputs");

/// Every part by itself.
pub(super) fn check(errors: &mut Errors<'_>) {
    let plan = errors.plan;
    if plan.version != PLAN_VERSION {
        errors.push(Promise::P1, PLAN, format!("expected version {PLAN_VERSION}, found {}", plan.version));
    }
    // Levels follow each other only where a chain of commands does.
    if plan.longest_chain as usize != plan.levels.len() {
        let (levels, found) = (plan.levels.len(), plan.longest_chain);
        errors.push(Promise::P1, PLAN, format!("expected a longest chain of its {levels} levels, found {found}"));
    }
    let alignment = plan.limits.min_storage_buffer_offset_alignment;
    if !alignment.is_power_of_two() {
        errors.push(Promise::P2, PLAN, format!("expected a power of two as offset alignment, found {alignment}"));
    }
    weights(errors);
    state(errors);
    for (id, buffer) in plan.buffers.iter() {
        size(errors, BUFFERS, &errors.name(id), buffer.size_bytes);
        rest(errors, id, buffer);
    }
    total(errors, BUFFERS, plan.buffers.values().map(|buffer| Some(buffer.size_bytes)));
    layouts(errors);
    for (id, kernel) in plan.kernels.iter() {
        kernel_limits(errors, id, kernel);
    }
    for (number, level) in plan.levels.iter().enumerate() {
        transitions(errors, At::Barrier(number), &level.barrier);
        for (index, command) in level.commands.iter().enumerate() {
            let at = At::Command(number, index);
            match command {
                Command::Dispatch(dispatch) => dispatch_parts(errors, at, dispatch),
                Command::Copy(copy) => copy_parts(errors, at, copy),
            }
        }
    }
    transitions(errors, At::Barrier(plan.levels.len()), &plan.leave);
    inputs(errors);
    outputs(errors);
}

/// P2: a size that a device can allocate.
fn size(errors: &mut Errors<'_>, at: At, name: &str, size_bytes: u64) {
    let most = errors.plan.limits.max_buffer_bytes;
    if size_bytes == 0 || !size_bytes.is_multiple_of(4) || size_bytes > most {
        let reason = format!("{name}: expected a positive multiple of 4 of at most {most} bytes, found {size_bytes}");
        errors.push(Promise::P2, at, reason);
    }
}

/// P2: sizes whose sum can be printed. Sizes that are nothing were reported where they arose.
fn total(errors: &mut Errors<'_>, at: At, mut sizes: impl Iterator<Item = Option<u64>>) {
    if sizes.try_fold(0_u64, |sum, size| sum.checked_add(size.unwrap_or(0))).is_none() {
        errors.push(Promise::P2, at, "expected sizes whose sum fits 64 bits, found more".to_owned());
    }
}

/// P1 and P2 of the weight layout.
fn weights(errors: &mut Errors<'_>) {
    let layout = &errors.plan.weights;
    for buffer in &layout.buffers {
        size(errors, WEIGHTS, &format!("`{}`", buffer.label), buffer.size_bytes);
    }
    total(errors, WEIGHTS, layout.buffers.iter().map(|buffer| Some(buffer.size_bytes)));
    let mut ranges = Vec::with_capacity(layout.pieces.len());
    for (index, piece) in layout.pieces.iter().enumerate() {
        let name = format!("piece `{}`", piece.tensor);
        let Some(buffer) = layout.buffers.get(piece.buffer as usize) else {
            let reason =
                format!("{name}: expected a buffer index below {}, found {}", layout.buffers.len(), piece.buffer);
            errors.push(Promise::P1, WEIGHTS, reason);
            continue;
        };
        let count = piece.count;
        if let Some((rows, columns)) = piece.transpose
            && !rows.checked_mul(columns).is_some_and(|matrix| matrix > 0 && count.is_multiple_of(matrix))
        {
            let reason = format!("{name}: expected {count} elements to transpose, found {rows} x {columns}");
            errors.push(Promise::P2, WEIGHTS, reason);
        }
        let offset = piece.offset_bytes;
        let end = tensor_bytes(piece.dtype, &[count]).and_then(|bytes| offset.checked_add(bytes));
        match end {
            Some(end) if count > 0 && offset.is_multiple_of(4) && end <= buffer.size_bytes => {
                ranges.push((piece.buffer as usize, offset, end, index));
            }
            _ => {
                let reason = format!(
                    "{name}: expected elements from a multiple of 4 within the {} bytes of `{}`, found {count} of {} \
                     from {offset}",
                    buffer.size_bytes, buffer.label, piece.dtype
                );
                errors.push(Promise::P2, WEIGHTS, reason);
            }
        }
    }
    for (one, other) in overlaps(ranges) {
        let (one, other) = (&layout.pieces[one], &layout.pieces[other]);
        let reason = format!(
            "expected pieces apart from each other, found `{}` and `{}` to share bytes of `{}`",
            one.tensor, other.tensor, layout.buffers[one.buffer as usize].label
        );
        errors.push(Promise::P1, WEIGHTS, reason);
    }
}

/// P1 and P2 of the state layout.
fn state(errors: &mut Errors<'_>) {
    let layout = &errors.plan.state;
    let bytes = |index: usize| {
        let buffer = &layout.buffers[index];
        tensor_bytes(buffer.dtype, &buffer.row_shape).and_then(|row| row.checked_mul(buffer.rows))
    };
    let rows = u64::from(errors.plan.shape.capacity);
    for (index, buffer) in layout.buffers.iter().enumerate() {
        if buffer.rows != rows {
            let (label, found) = (&buffer.label, buffer.rows);
            let reason = format!("`{label}`: expected {rows} rows, as many as the step's session has, found {found}");
            errors.push(Promise::P1, STATE, reason);
        }
        match bytes(index) {
            Some(bytes) => size(errors, STATE, &format!("`{}`", buffer.label), bytes),
            None => {
                let reason = format!("`{}`: expected a size that fits 64 bits, found a larger one", buffer.label);
                errors.push(Promise::P2, STATE, reason);
            }
        }
    }
    total(errors, STATE, (0..layout.buffers.len()).map(bytes));
}

/// P1 between the buffers and the layouts, and P8: all plans agree on where a state rests. No buffer of a layout may
/// have two names here, or its uses through one would be invisible to the other.
fn layouts(errors: &mut Errors<'_>) {
    let plan = errors.plan;
    let mut weight_owners: Vec<Option<BufferId>> = vec![None; plan.weights.buffers.len()];
    let mut state_owners: Vec<Option<BufferId>> = vec![None; plan.state.buffers.len()];
    for (id, buffer) in plan.buffers.iter() {
        let name = errors.name(id);
        let (what, index, owners, bytes) = match buffer.kind {
            BufferKind::Weight { index } => {
                let bytes = plan.weights.buffers.get(index as usize).map(|weight| weight.size_bytes);
                ("weight", index, &mut weight_owners, bytes)
            }
            BufferKind::State { index } => {
                let bytes = plan.state.buffers.get(index as usize).and_then(|state| {
                    tensor_bytes(state.dtype, &state.row_shape).and_then(|row| row.checked_mul(state.rows))
                });
                ("state", index, &mut state_owners, bytes)
            }
            BufferKind::Slot | BufferKind::Input | BufferKind::HostWrite | BufferKind::HostRead => continue,
        };
        let count = owners.len();
        let Some(owner) = owners.get_mut(index as usize) else {
            let reason = format!("{name}: expected a {what} index below {count}, found {index}");
            errors.push(Promise::P1, BUFFERS, reason);
            continue;
        };
        if let Some(owner) = owner.replace(id) {
            let owner = errors.name(owner);
            let reason = format!("expected one buffer for {what} {index}, found {owner} and {name}");
            errors.push(Promise::P1, BUFFERS, reason);
        }
        if let Some(bytes) = bytes
            && bytes != buffer.size_bytes
        {
            let found = buffer.size_bytes;
            let reason = format!("{name}: expected {bytes} bytes as in the {what} layout, found {found}");
            errors.push(Promise::P1, BUFFERS, reason);
        }
        if let BufferKind::State { index } = buffer.kind
            && let Some(state) = plan.state.buffers.get(index as usize)
            && state.rest != buffer.rest
        {
            let (expected, found) = (state.rest, buffer.rest);
            let reason = format!("{name}: expected rest {expected} as in the state layout, found {found}");
            errors.push(Promise::P8, BUFFERS, reason);
        }
    }
}

/// P3: a buffer rests in a usage that exists. P10: host-visible buffers rest with the host, and no others do.
fn rest(errors: &mut Errors<'_>, id: BufferId, buffer: &Buffer) {
    if rests_well(buffer) {
        return;
    }
    let (name, found) = (errors.name(id), buffer.rest);
    let (promise, reason) = match host_rest(buffer.kind) {
        Some(expected) => (Promise::P10, format!("{name}: expected rest {expected}, found {found}")),
        None if is_usage(found) => (Promise::P10, format!("{name}: expected no rest in a map usage, found {found}")),
        None => (Promise::P3, not_a_usage(&name, found)),
    };
    errors.push(promise, BUFFERS, reason);
}

/// Where a host-visible buffer has to rest.
fn host_rest(kind: BufferKind) -> Option<Usage> {
    match kind {
        BufferKind::HostWrite => Some(Usage::MAP_WRITE),
        BufferKind::HostRead => Some(Usage::MAP_READ),
        BufferKind::Weight { .. } | BufferKind::State { .. } | BufferKind::Slot | BufferKind::Input => None,
    }
}

/// Whether a buffer may rest where it does.
pub(super) fn rests_well(buffer: &Buffer) -> bool {
    host_rest(buffer.kind).map_or_else(|| may_be_in(buffer.kind, buffer.rest), |rest| rest == buffer.rest)
}

/// Whether a buffer of this kind may ever be in this usage: hosts map host-visible buffers alone.
pub(super) fn may_be_in(kind: BufferKind, usage: Usage) -> bool {
    is_usage(usage) && (kind.is_host_visible() || !usage.intersects(Usage::MAP_READ | Usage::MAP_WRITE))
}

/// Whether every bit has a name, too: one without would mean nothing to an executor.
fn is_usage(usage: Usage) -> bool {
    usage.is_legal() && Usage::all().contains(usage)
}

fn not_a_usage(name: &str, usage: Usage) -> String {
    format!("{name}: expected reads alone or one kind of write, found {usage} ({:#x})", usage.bits())
}

/// P2 of a kernel.
fn kernel_limits(errors: &mut Errors<'_>, id: KernelId, kernel: &Kernel) {
    let limits = &errors.plan.limits;
    let name = format!("`{id} {}`", kernel.label);
    let mut refuse = |reason: String| errors.push(Promise::P2, KERNELS, format!("{name}: {reason}"));
    let most = limits.max_storage_buffers_per_dispatch;
    if kernel.bindings.len() as u64 > u64::from(most) {
        refuse(format!("expected at most {most} bindings, found {}", kernel.bindings.len()));
    }
    let [x, y, z] = kernel.workgroup_size;
    let [most_x, most_y, most_z] = limits.max_workgroup_size;
    let within = |size: u32, most: u32| (1..=most).contains(&size);
    if !(within(x, most_x) && within(y, most_y) && within(z, most_z)) {
        refuse(format!(
            "expected a workgroup size from 1 x 1 x 1 to {most_x} x {most_y} x {most_z}, found {x} x {y} x {z}"
        ));
    }
    let (invocations, most) = (u128::from(x) * u128::from(y) * u128::from(z), limits.max_invocations_per_workgroup);
    if invocations > u128::from(most) {
        refuse(format!("expected at most {most} invocations per workgroup, found {invocations}"));
    }
    let most = limits.max_workgroup_storage_bytes;
    if kernel.workgroup_bytes > most {
        refuse(format!("expected at most {most} bytes of workgroup memory, found {}", kernel.workgroup_bytes));
    }
    if kernel.needs_subgroups && !limits.subgroups {
        refuse("expected no subgroup operations, found that it needs them".to_owned());
    }
    if kernel.needs_cooperative_matrix && !limits.cooperative_matrix {
        refuse("expected no cooperative matrices, found that it needs them".to_owned());
    }
    if kernel.needs_wide_words && !limits.wide_words {
        refuse("expected no words of 64 bits, found that it needs them".to_owned());
    }
}

/// P1, P3 and P10 of transitions: what the replay cannot follow, and what only hosts do.
fn transitions(errors: &mut Errors<'_>, at: At, barrier: &[Transition]) {
    for transition in barrier {
        let Some(buffer) = buffer(errors, at, "transition", transition.buffer) else {
            continue;
        };
        let (name, to) = (errors.name(transition.buffer), transition.to);
        if !is_usage(to) {
            errors.push(Promise::P3, at, not_a_usage(&name, to));
        } else if !may_be_in(buffer.kind, to) {
            let reason = format!("{name}: expected no transition to a map usage, found one to {to}");
            errors.push(Promise::P10, at, reason);
        }
    }
}

/// P1: the buffer, or an error.
fn buffer<'a>(errors: &mut Errors<'a>, at: At, what: &str, id: BufferId) -> Option<&'a Buffer> {
    let (plan, count) = (errors.plan, errors.plan.buffers.len());
    let found = plan.buffers.get(id);
    if found.is_none() {
        errors.push(Promise::P1, at, format!("{what}: expected a buffer below buf{count}, found {id}"));
    }
    found
}

/// P1 and P2: the buffer in which a slice lies, or an error.
fn slice_buffer<'a>(errors: &mut Errors<'a>, at: At, what: &str, slice: Slice) -> Option<&'a Buffer> {
    let buffer = buffer(errors, at, what, slice.buffer)?;
    if lies_in(slice, buffer) {
        return Some(buffer);
    }
    let (name, bytes) = (errors.name(slice.buffer), buffer.size_bytes);
    let reason = format!(
        "{what}: expected at least 1 byte within the {bytes} of {name}, found {} from {}",
        slice.size_bytes, slice.offset_bytes
    );
    errors.push(Promise::P2, at, reason);
    None
}

/// P10, and P7 for weights: whether a command may do this with such a buffer.
fn allowed(errors: &mut Errors<'_>, at: At, what: &str, id: BufferId, buffer: &Buffer, usage: Usage) {
    if is_allowed(buffer.kind, usage) {
        return;
    }
    let name = errors.name(id);
    let (promise, expected) = match buffer.kind {
        BufferKind::HostWrite => (Promise::P10, "a host-written buffer as copy-src alone"),
        BufferKind::HostRead => (Promise::P10, "a host-read buffer as copy-dst alone"),
        BufferKind::Weight { .. } | BufferKind::State { .. } | BufferKind::Slot | BufferKind::Input => {
            (Promise::P7, "weights to be read alone")
        }
    };
    errors.push(promise, at, format!("{what}: expected {expected}, found {name} as {usage}"));
}

/// P1, P2, P9, P10 of a dispatch.
fn dispatch_parts(errors: &mut Errors<'_>, at: At, dispatch: &Dispatch) {
    let plan = errors.plan;
    let most = plan.limits.max_workgroups_per_dimension;
    let [x, y, z] = dispatch.workgroups;
    if !dispatch.workgroups.iter().all(|count| (1..=most).contains(count)) {
        let reason = format!("expected 1 to {most} workgroups in each direction, found {x} x {y} x {z}");
        errors.push(Promise::P9, at, reason);
    }
    let Some(kernel) = plan.kernels.get(dispatch.kernel) else {
        let reason = format!("expected a kernel below k{}, found {}", plan.kernels.len(), dispatch.kernel);
        return errors.push(Promise::P1, at, reason);
    };
    let (expected, found) = (kernel.bindings.len(), dispatch.bindings.len());
    if expected != found {
        let reason =
            format!("expected {expected} bindings as in `{} {}`, found {found}", dispatch.kernel, kernel.label);
        return errors.push(Promise::P1, at, reason);
    }
    // Offsets of 4 at least: shaders read whole words.
    let alignment = u64::from(plan.limits.min_storage_buffer_offset_alignment.max(4));
    let most = plan.limits.max_storage_buffer_binding_bytes;
    for (number, (slice, binding)) in dispatch.bindings.iter().zip(&kernel.bindings).enumerate() {
        let what = format!("binding {number}");
        let Some(buffer) = slice_buffer(errors, at, &what, *slice) else {
            continue;
        };
        allowed(errors, at, &what, slice.buffer, buffer, binding.usage());
        if !slice.offset_bytes.is_multiple_of(alignment) {
            let reason = format!("{what}: expected an offset that {alignment} divides, found {}", slice.offset_bytes);
            errors.push(Promise::P2, at, reason);
        }
        if !slice.size_bytes.is_multiple_of(4) || slice.size_bytes > most {
            let reason =
                format!("{what}: expected a multiple of 4 of at most {most} bytes, found {}", slice.size_bytes);
            errors.push(Promise::P2, at, reason);
        }
        if slice.size_bytes < binding.min_bytes {
            let (least, found) = (binding.min_bytes, slice.size_bytes);
            let reason = format!("{what}: expected at least the {least} bytes of its type, found {found}");
            errors.push(Promise::P2, at, reason);
        }
    }
}

/// P1, P2, P10 of a copy.
fn copy_parts(errors: &mut Errors<'_>, at: At, copy: &Copy) {
    for (what, slice, usage) in [("source", copy.from, Usage::COPY_SRC), ("destination", copy.to, Usage::COPY_DST)] {
        let Some(buffer) = slice_buffer(errors, at, what, slice) else {
            continue;
        };
        allowed(errors, at, what, slice.buffer, buffer, usage);
        words(errors, at, what, slice);
    }
    let (from, to) = (copy.from.size_bytes, copy.to.size_bytes);
    if from != to {
        let reason = format!("expected as many bytes in the destination as in the source, {from}, found {to}");
        errors.push(Promise::P2, at, reason);
    }
    if copy.from.buffer == copy.to.buffer {
        let name = errors.name(copy.from.buffer);
        errors.push(Promise::P2, at, format!("expected two buffers, found a copy from {name} to itself"));
    }
}

/// P2: copies and hosts move whole words.
fn words(errors: &mut Errors<'_>, at: At, what: &str, slice: Slice) {
    if !slice.offset_bytes.is_multiple_of(4) || !slice.size_bytes.is_multiple_of(4) {
        let (size, offset) = (slice.size_bytes, slice.offset_bytes);
        let reason = format!("{what}: expected offset and size in multiples of 4, found {size} bytes from {offset}");
        errors.push(Promise::P2, at, reason);
    }
}

/// P1, P2, P6 of what the host writes.
fn inputs(errors: &mut Errors<'_>) {
    let plan = errors.plan;
    let StepShape { tokens, sequences, rows, .. } = plan.shape;
    for input in &plan.inputs {
        let expected = match input.role {
            InputRole::TokenIds => u64::from(tokens),
            InputRole::SequenceOffsets => u64::from(sequences) + 1,
            InputRole::StateRows => u64::from(sequences),
            InputRole::OutputRows => u64::from(rows),
            InputRole::DrawRules => u64::from(sequences) * u64::from(DRAW_WORDS),
        };
        if input.count != expected {
            let (name, role, found) = (&input.name, input.role, input.count);
            let reason =
                format!("input `{name}`: expected {expected} elements, its role being `{role}`, found {found}");
            errors.push(Promise::P1, INPUTS, reason);
        }
    }
    let ends = plan.inputs.iter().map(|input| {
        let what = format!("input `{}`", input.name);
        (what, input.slice, input.count.checked_mul(4))
    });
    ends_on_the_host(errors, INPUTS, BufferKind::HostWrite, ends.collect());
}

/// P1, P2, P6 of what the host reads.
fn outputs(errors: &mut Errors<'_>) {
    let plan = errors.plan;
    let rows = u64::from(plan.shape.rows);
    let by_row = |role| matches!(role, OutputRole::Logits | OutputRole::NextToken);
    for output in plan.outputs.iter().filter(|output| by_row(output.role)) {
        if output.shape.first() != Some(&rows) {
            let (name, found) = (&output.name, &output.shape);
            let reason = format!("output `{name}`: expected {rows} rows, as the step has, found {found:?}");
            errors.push(Promise::P1, OUTPUTS, reason);
        }
    }
    let ends = plan.outputs.iter().map(|output| {
        let what = format!("output `{}`", output.name);
        (what, output.slice, tensor_bytes(output.dtype, &output.shape))
    });
    ends_on_the_host(errors, OUTPUTS, BufferKind::HostRead, ends.collect());
}

/// The host's end of each input or output: its name, where it lies and how many bytes it should have.
fn ends_on_the_host(errors: &mut Errors<'_>, at: At, kind: BufferKind, ends: Vec<(String, Slice, Option<u64>)>) {
    let mut ranges = Vec::with_capacity(ends.len());
    for (index, (what, slice, expected)) in ends.iter().enumerate() {
        let Some(buffer) = slice_buffer(errors, at, what, *slice) else {
            continue;
        };
        if buffer.kind != kind {
            let name = errors.name(slice.buffer);
            let reason = format!("{what}: expected a {kind:?} buffer, found {name}, which is {:?}", buffer.kind);
            errors.push(Promise::P2, at, reason);
        }
        words(errors, at, what, *slice);
        if *expected != Some(slice.size_bytes) {
            let found = slice.size_bytes;
            let reason = match expected {
                Some(expected) => format!("{what}: expected {expected} bytes, found {found}"),
                None => format!("{what}: expected a size that fits 64 bits, found a larger one in {found} bytes"),
            };
            errors.push(Promise::P2, at, reason);
        }
        let end = slice.offset_bytes.saturating_add(slice.size_bytes);
        ranges.push((slice.buffer.index(), slice.offset_bytes, end, index));
    }
    for (one, other) in overlaps(ranges) {
        let name = errors.name(ends[one].1.buffer);
        let reason =
            format!("expected bytes of their own, found {} and {} to share some of {name}", ends[one].0, ends[other].0);
        errors.push(Promise::P6, at, reason);
    }
}
