//! A plan as text, made to be read and to be compared with `diff`.
//!
//! Gets a plan, returns listings: all commands, the barriers with their reasons, or the memory map. The reason of a
//! transition is found by walking the plan, not stored in it. Never used as input.

use std::fmt::Write;

use crate::base::arena::Id;
use crate::plan::command::{BufferKind, Command, Slice, Transition};
use crate::plan::index::PlanIndex;
use crate::plan::reasons::{Party, Reasons, Use};
use crate::plan::{Plan, Summary};

/// One line of numbers for the head of a listing.
fn headline(plan: &Plan, summary: &Summary) -> String {
    let shape = plan.shape;
    let (unit, unit_bytes) = if summary.slot_bytes < 1 << 20 { ("KiB", 1 << 10) } else { ("MiB", 1 << 20) };
    let in_units = |bytes: u64| bytes as f64 / f64::from(unit_bytes);
    format!(
        "plan {}  T={} S={} R={} B={}  | {} dispatches  {} levels (at least {})  {} barriers  {} transitions  \
         | slots {:.2} {unit} (lower bound {:.2})",
        plan.graph,
        shape.tokens,
        shape.sequences,
        shape.rows,
        shape.capacity,
        summary.dispatches,
        summary.levels,
        summary.longest_chain,
        summary.barriers,
        summary.transitions,
        in_units(summary.slot_bytes),
        in_units(summary.lower_bound_bytes),
    )
}

/// What makes the slots larger than their lower bound: the level that makes the bound, and the values that need more
/// elsewhere. Nothing where there is no difference.
fn gaps(plan: &Plan, summary: &Summary) -> String {
    let mut out = String::new();
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
    out
}

/// What stands behind the lines of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// For each level, what stands behind its own line and behind the lines of its commands.
    pub levels: Vec<(String, Vec<String>)>,
}

impl Notes {
    fn of_level(&self, level: usize) -> &str {
        self.levels.get(level).map_or("", |(note, _)| note)
    }

    fn of_command(&self, level: usize, index: usize) -> &str {
        self.levels.get(level).and_then(|(_, notes)| notes.get(index)).map_or("", String::as_str)
    }
}

/// The whole plan. Slots of more than a tenth over their lower bound are not usual, so it says what makes them so.
pub fn plan(plan: &Plan) -> String {
    annotated(plan, &Notes::default())
}

/// The whole plan, with notes behind its lines.
pub fn annotated(plan: &Plan, notes: &Notes) -> String {
    let summary = plan.summary();
    let mut out = headline(plan, &summary) + "\n";
    if u128::from(summary.slot_bytes) * 10 > u128::from(summary.lower_bound_bytes) * 11 {
        out += &gaps(plan, &summary);
    }
    let listing = Listing::new(plan);
    for (number, level) in plan.levels.iter().enumerate() {
        listing.barrier(&mut out, number);
        let _ = writeln!(out, "level {number}{}", notes.of_level(number));
        for (index, command) in level.commands.iter().enumerate() {
            let note = notes.of_command(number, index);
            let slice = |slice| slice_text(plan, &listing.index, slice, number as u32);
            match command {
                Command::Dispatch(d) => {
                    let (name, kernel) = (listing.index.name(number, index), &plan.kernels[d.kernel]);
                    let bound = d.bindings.iter().zip(&kernel.bindings).map(|(bound, binding)| {
                        let arrow = if binding.writes { "->" } else { "=" };
                        format!("{}{arrow}{}", binding.label, slice(*bound))
                    });
                    let bound = bound.collect::<Vec<_>>().join("  ");
                    let [x, y, z] = d.workgroups;
                    let _ = writeln!(out, "  {name}  {}  {}  {bound}  {x} x {y} x {z}{note}", d.label, kernel.label);
                }
                Command::Copy(copy) => {
                    let _ = writeln!(out, "  copy  {}  {} -> {}{note}", copy.label, slice(copy.from), slice(copy.to));
                }
            }
        }
    }
    listing.barrier(&mut out, plan.levels.len());
    out
}

/// The barriers alone: a line a transition, in columns.
pub fn barriers(plan: &Plan) -> String {
    let mut out = headline(plan, &plan.summary()) + "\n";
    let listing = Listing::new(plan);
    (0..=plan.levels.len()).for_each(|number| listing.barrier(&mut out, number));
    out
}

/// Columns of a transition: its name, buffer, usages, hazard, who used the buffer before and who will.
const COLUMNS: usize = 7;

/// The longest label of a buffer, and of a command, that is printed whole in a column.
const BUFFER_LABEL: usize = 24;
const COMMAND_LABEL: usize = 28;

/// The transitions of a plan as rows of one table.
struct Listing {
    index: PlanIndex,
    /// The rows of each barrier, that of the leaving one last.
    barriers: Vec<Vec<[String; COLUMNS]>>,
    widths: [usize; COLUMNS],
}

impl Listing {
    fn new(plan: &Plan) -> Self {
        let (index, reasons) = (PlanIndex::new(plan), Reasons::new(plan));
        let all = plan.levels.iter().map(|level| &level.barrier).chain([&plan.leave]);
        let row = |number: usize, at: usize, transition: &Transition| {
            let reason = reasons.of(plan, number, transition);
            let (past, verb) = (
                if reason.before_writes { "wrote" } else { "read" },
                if reason.after_writes { "writes" } else { "reads" },
            );
            [
                format!("b{number}.{at}"),
                shortened(&plan.buffers[transition.buffer].label, BUFFER_LABEL),
                transition.from.to_string(),
                format!("-> {}", transition.to),
                reason.hazard.to_string(),
                format!("{} {past},", party(plan, &index, reason.before)),
                format!("then {} {verb}", party(plan, &index, reason.after)),
            ]
        };
        let barriers: Vec<Vec<_>> = all
            .enumerate()
            .map(|(number, barrier)| barrier.iter().enumerate().map(|(at, found)| row(number, at, found)).collect())
            .collect();
        let width = |column: usize| {
            let rows = barriers.iter().flatten();
            rows.map(|row: &[String; COLUMNS]| row[column].chars().count()).max().unwrap_or(0)
        };
        let widths = std::array::from_fn(width);
        Self { index, barriers, widths }
    }

    fn barrier(&self, out: &mut String, number: usize) {
        let Some(rows) = self.barriers.get(number).filter(|rows| !rows.is_empty()) else { return };
        let leaves = if number + 1 == self.barriers.len() { " (leave)" } else { "" };
        let plural = if rows.len() == 1 { "" } else { "s" };
        let _ = writeln!(out, "barrier b{number}{leaves}  {} transition{plural}", rows.len());
        for row in rows {
            let padded = row.iter().zip(self.widths).map(|(text, width)| format!("{text:width$}"));
            // Usages are one thing: one blank between them, two between columns.
            let line = padded.collect::<Vec<_>>().join("  ").replacen("  -> ", " -> ", 1);
            let _ = writeln!(out, "  {}", line.trim_end());
        }
    }
}

/// Who uses a buffer, short enough for a column.
fn party(plan: &Plan, index: &PlanIndex, party: Party) -> String {
    let command = |found: Use| {
        format!("{} {}", index.name(found.level, found.index), shortened(found.label(plan), COMMAND_LABEL))
    };
    match party {
        Party::Command(found) => command(found),
        Party::StepBefore(found) => format!("{} (step before)", command(found)),
        Party::Host => "the host".to_owned(),
        Party::Elsewhere => "the step before".to_owned(),
    }
}

/// A label of at most so many characters: what is too long loses its middle, since beginnings tell layers apart and
/// ends tell values apart.
fn shortened(label: &str, most: usize) -> String {
    let count = label.chars().count();
    if count <= most {
        return label.to_owned();
    }
    let head = (most - 1) / 2;
    let tail = most - 1 - head;
    label.chars().take(head).chain(['…']).chain(label.chars().skip(count - tail)).collect()
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
    out += &gaps(plan, &summary);
    let index = PlanIndex::new(plan);
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
        for value in index.values(id).iter().map(|at| &plan.values[*at]) {
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

/// A slice by the name of what lies in it, its offset where it does not begin its buffer.
fn slice_text(plan: &Plan, index: &PlanIndex, slice: Slice, level: u32) -> String {
    let buffer = &plan.buffers[slice.buffer];
    let value = index.value_at(plan, slice, level);
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
    for (name, value) in summary.figures() {
        let _ = writeln!(out, "{name:<18} {value}");
    }
    let _ = writeln!(out, "{:<18} {}", "weight_layout", summary.weight_layout);
    out
}

/// A kernel's complete text by its index in the plan, for those who want to see what the compiler wrote.
pub fn kernel(plan: &Plan, index: u32) -> Option<&str> {
    plan.kernels.get(Id::new(index)).map(|kernel| kernel.wgsl.as_str())
}
