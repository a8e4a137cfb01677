//! A plan as text, made to be read and to be compared with `diff`.
//!
//! Gets a plan, returns listings: all commands, the barriers with their reasons, or the memory map. The reason of a
//! transition is found by walking the plan, not stored in it. Never used as input.

use std::fmt::Write;

use crate::base::arena::Id;
use crate::plan::command::{BufferKind, Command, Slice, Transition};
use crate::plan::reasons::Reasons;
use crate::plan::{Plan, Summary, ValuePlace};

/// One line of numbers for the head of a listing.
fn headline(plan: &Plan, summary: &Summary) -> String {
    let shape = plan.shape;
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!(
        "plan {}  T={} S={} R={} B={}  | {} dispatches  {} levels  {} barriers  {} transitions  | slots {:.2} MiB \
         (lower bound {:.2})",
        plan.graph,
        shape.tokens,
        shape.sequences,
        shape.rows,
        shape.capacity,
        summary.dispatches,
        summary.levels,
        summary.barriers,
        summary.transitions,
        mebibytes(summary.slot_bytes),
        mebibytes(summary.lower_bound_bytes),
    )
}

/// The whole plan.
pub fn plan(plan: &Plan) -> String {
    let mut out = headline(plan, &plan.summary()) + "\n";
    let reasons = Reasons::new(plan);
    let mut dispatch = 0;
    for (number, level) in plan.levels.iter().enumerate() {
        barrier(&mut out, plan, &reasons, number, &level.barrier);
        let _ = writeln!(out, "level {number}");
        for command in &level.commands {
            match command {
                Command::Dispatch(d) => {
                    let kernel = &plan.kernels[d.kernel];
                    let bound: Vec<String> = d
                        .bindings
                        .iter()
                        .zip(&kernel.bindings)
                        .map(|(slice, binding)| {
                            let arrow = if binding.writes { "->" } else { "=" };
                            format!("{}{arrow}{}", binding.label, slice_text(plan, *slice, number as u32))
                        })
                        .collect();
                    let [x, y, z] = d.workgroups;
                    let _ = writeln!(
                        out,
                        "  d{dispatch}  {}  {}  {}  {x} x {y} x {z}",
                        d.label,
                        kernel.label,
                        bound.join("  ")
                    );
                    dispatch += 1;
                }
                Command::Copy(copy) => {
                    let (from, to) =
                        (slice_text(plan, copy.from, number as u32), slice_text(plan, copy.to, number as u32));
                    let _ = writeln!(out, "  copy  {}  {from} -> {to}", copy.label);
                }
            }
        }
    }
    barrier(&mut out, plan, &reasons, plan.levels.len(), &plan.leave);
    out
}

/// The barriers alone.
pub fn barriers(plan: &Plan) -> String {
    let mut out = headline(plan, &plan.summary()) + "\n";
    let reasons = Reasons::new(plan);
    for (number, level) in plan.levels.iter().enumerate() {
        barrier(&mut out, plan, &reasons, number, &level.barrier);
    }
    barrier(&mut out, plan, &reasons, plan.levels.len(), &plan.leave);
    out
}

/// Where everything lies.
pub fn memory(plan: &Plan) -> String {
    let summary = plan.summary();
    let mut out = headline(plan, &summary) + "\n";
    let _ = writeln!(
        out,
        "weights {} bytes in {} buffers (layout {})\nstate {} bytes in {} buffers\nslots {} bytes in {} buffers, \
         lower bound {}",
        summary.weight_bytes,
        plan.weights.buffers.len(),
        summary.weight_layout,
        summary.state_bytes,
        plan.state.buffers.len(),
        summary.slot_bytes,
        summary.slots,
        summary.lower_bound_bytes
    );
    let gaps = plan.gaps();
    if let Some(gap) = gaps.first() {
        let over = (summary.slot_bytes as f64 / summary.lower_bound_bytes as f64 - 1.0) * 100.0;
        let _ = writeln!(out, "the bound is what lives at level {}; the slots have {over:.1} % more:", gap.level);
    }
    for gap in &gaps {
        let (label, (first, last)) = (&plan.buffers[gap.buffer].label, gap.levels);
        let _ = writeln!(
            out,
            "  {label}: {} bytes are free there, and are there for `{}` in levels {first}..={last}",
            gap.free_bytes, gap.value
        );
    }
    for (id, buffer) in plan.buffers.iter() {
        let kind = match buffer.kind {
            BufferKind::Weight { .. } => "weight",
            BufferKind::State { .. } => "state",
            BufferKind::Slot => "slot",
            BufferKind::Input => "input",
            BufferKind::HostWrite => "host-write",
            BufferKind::HostRead => "host-read",
        };
        let _ = writeln!(out, "{id} {}  {kind}  {} bytes  rests in {}", buffer.label, buffer.size_bytes, buffer.rest);
        for value in plan.values.iter().filter(|value| value.buffer == id) {
            let (first, last) = (value.first_level, value.last_level);
            let (from, bytes) = (value.offset_bytes, value.size_bytes);
            let _ = writeln!(
                out,
                "  levels {first}..={last}  {}  {}{:?}  {bytes} bytes from {from}",
                value.path, value.dtype, value.shape
            );
        }
    }
    out
}

fn barrier(out: &mut String, plan: &Plan, reasons: &Reasons, number: usize, transitions: &[Transition]) {
    if transitions.is_empty() {
        return;
    }
    let name = if number == plan.levels.len() { "barrier leave".to_owned() } else { format!("barrier b{number}") };
    let plural = if transitions.len() == 1 { "" } else { "s" };
    let _ = writeln!(out, "{name}  {} transition{plural}", transitions.len());
    for transition in transitions {
        let label = &plan.buffers[transition.buffer].label;
        let reason = reasons.of(plan, number, transition).text(plan);
        let _ = writeln!(out, "  {label}  {} -> {}  {reason}", transition.from, transition.to);
    }
}

/// A slice by the name of what lies in it, its offset where it does not begin its buffer.
fn slice_text(plan: &Plan, slice: Slice, level: u32) -> String {
    let buffer = &plan.buffers[slice.buffer];
    let holds = |value: &&ValuePlace| {
        let bytes = value.offset_bytes..value.offset_bytes + value.size_bytes;
        value.buffer == slice.buffer
            && bytes.contains(&slice.offset_bytes)
            && (value.first_level..=value.last_level).contains(&level)
    };
    let value = plan.values.iter().find(holds);
    let offset = if slice.offset_bytes == 0 { String::new() } else { format!("+{}", slice.offset_bytes) };
    match value {
        Some(value) => format!("{} {}{offset}", value.path, buffer.label),
        None => format!("{}{offset}", buffer.label),
    }
}

/// What a plan costs, one fact a line.
pub fn summary(plan: &Plan) -> String {
    let summary = plan.summary();
    let shape = summary.shape;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "graph {}  T={} S={} R={} B={}",
        summary.graph, shape.tokens, shape.sequences, shape.rows, shape.capacity
    );
    let facts = [
        ("dispatches", summary.dispatches),
        ("copies", summary.copies),
        ("levels", summary.levels),
        ("longest_chain", summary.longest_chain),
        ("barriers", summary.barriers),
        ("transitions", summary.transitions),
        ("pipelines", summary.pipelines),
        ("slots", summary.slots),
        ("slot_bytes", summary.slot_bytes),
        ("lower_bound_bytes", summary.lower_bound_bytes),
        ("weight_bytes", summary.weight_bytes),
        ("state_bytes", summary.state_bytes),
    ];
    for (name, value) in facts {
        let _ = writeln!(out, "{name:<18} {value}");
    }
    let _ = writeln!(out, "{:<18} {}", "weight_layout", summary.weight_layout);
    out
}

/// A kernel's complete text by its index in the plan, for those who want to see what the compiler wrote.
pub fn kernel(plan: &Plan, index: u32) -> Option<&str> {
    plan.kernels.get(Id::new(index)).map(|kernel| kernel.wgsl.as_str())
}
