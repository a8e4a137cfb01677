//! A plan as a graph for Graphviz.
//!
//! Gets a plan, returns text in the DOT language: a cluster or column a level, a box a command, and an edge for each
//! transition from who used its buffer before to who uses it next, coloured by the hazard between them. What holds
//! then: equal plans give equal texts, and whatever stands in a label stays inside its quotes. Never lays anything out.

use std::fmt::Write;

use crate::plan::Plan;
use crate::plan::command::{BufferKind, Command, Copy, Transition};
use crate::plan::reasons::{Hazard, Party, Reason, Reasons};

/// The most levels that are drawn as boxes around their commands. Of more, Graphviz lays out such boxes for minutes,
/// but columns with a heading in seconds.
const MOST_BOXES: usize = 200;

/// The plan in the DOT language.
pub fn plan(plan: &Plan) -> String {
    let mut out = String::new();
    let summary = plan.summary();
    let shape = plan.shape;
    let title = format!(
        "{}  T={} S={} R={} B={}\n{} dispatches, {} levels, {} barriers, {} transitions",
        plan.graph,
        shape.tokens,
        shape.sequences,
        shape.rows,
        shape.capacity,
        summary.dispatches,
        summary.levels,
        summary.barriers,
        summary.transitions
    );
    let _ = writeln!(out, "digraph {} {{", quoted(&plan.graph));
    let is_deep = plan.levels.len() > MOST_BOXES;
    let effort = if is_deep { "nslimit=1, nslimit1=1, " } else { "" };
    let title = quoted(&title);
    let _ = writeln!(out, "  graph [rankdir=LR, newrank=true, {effort}labelloc=t, label={title}, fontname=\"sans\"];");
    out.push_str("  node [shape=box, style=filled, fillcolor=white, fontname=\"sans\", fontsize=10];\n");
    out.push_str("  edge [fontname=\"sans\", fontsize=8];\n");
    // Twice, so that no edge has to lead back across the whole plan.
    for name in ["host_before", "host_after"] {
        let _ = writeln!(out, "  {name} [shape=cylinder, fillcolor=\"#e8f0e8\", label=host];");
    }
    legend(&mut out);
    for (number, level) in plan.levels.iter().enumerate() {
        if is_deep {
            let _ = writeln!(out, "  subgraph level_{number} {{\n    rank=same;");
            let _ = writeln!(out, "    l{number} [shape=plaintext, style=\"\", label=\"level {number}\"];");
        } else {
            let _ = writeln!(out, "  subgraph cluster_{number} {{");
            let _ = writeln!(out, "    label=\"level {number}\"; style=filled; color=\"#f2f2f2\"; fontsize=10;");
        }
        for (index, command) in level.commands.iter().enumerate() {
            box_of(&mut out, plan, (number, index), command);
        }
        out.push_str("  }\n");
        // Levels stand in their order, also where no transition leads from one to the next.
        let next = number + 1;
        if next < plan.levels.len() && is_deep {
            let _ = writeln!(out, "  l{number} -> l{next} [style=invis, weight=10];");
        } else if next < plan.levels.len() && !level.commands.is_empty() {
            let _ = writeln!(out, "  c{number}_0 -> c{next}_0 [style=invis, weight=10];");
        }
    }
    let reasons = Reasons::new(plan);
    for (number, level) in plan.levels.iter().enumerate() {
        level.barrier.iter().for_each(|transition| edge(&mut out, plan, &reasons, number, transition));
    }
    plan.leave.iter().for_each(|transition| edge(&mut out, plan, &reasons, plan.levels.len(), transition));
    out.push_str("}\n");
    out
}

/// The colour of a hazard's edges.
const fn colour(hazard: Hazard) -> &'static str {
    match hazard {
        Hazard::ReadAfterWrite => "#2563c9",
        Hazard::WriteAfterRead => "#c2701c",
        Hazard::WriteAfterWrite => "#b3263f",
        Hazard::ReadAfterRead => "#808080",
    }
}

fn legend(out: &mut String) {
    out.push_str("  subgraph cluster_legend {\n    label=\"transitions\"; fontsize=10;\n");
    let hazards = [Hazard::ReadAfterWrite, Hazard::WriteAfterRead, Hazard::WriteAfterWrite, Hazard::ReadAfterRead];
    let rows: String = hazards
        .iter()
        .map(|hazard| format!("<tr><td><font color=\"{}\"><b>{hazard}</b></font></td></tr>", colour(*hazard)))
        .collect();
    let _ = writeln!(out, "    legend [shape=plaintext, label=<<table border=\"0\">{rows}</table>>];\n  }}");
}

fn box_of(out: &mut String, plan: &Plan, (level, index): (usize, usize), command: &Command) {
    let (text, tip, look) = match command {
        Command::Dispatch(dispatch) => {
            let [x, y, z] = dispatch.workgroups;
            let kernel = &plan.kernels[dispatch.kernel].label;
            (format!("{}\n{kernel}  {x} x {y} x {z}", dispatch.label), dispatch.place.clone(), "")
        }
        Command::Copy(copy) => {
            let is_host = touches_host(plan, copy);
            let look = if is_host { ", shape=cds, fillcolor=\"#e8f0e8\"" } else { ", shape=cds" };
            (copy.label.clone(), format!("{} bytes", copy.from.size_bytes), look)
        }
    };
    let _ = writeln!(out, "    c{level}_{index} [label={}, tooltip={}{look}];", quoted(&text), quoted(&tip));
}

fn touches_host(plan: &Plan, copy: &Copy) -> bool {
    let is_host = |kind: BufferKind| kind.is_host_visible();
    is_host(plan.buffers[copy.from.buffer].kind) || is_host(plan.buffers[copy.to.buffer].kind)
}

fn edge(out: &mut String, plan: &Plan, reasons: &Reasons, level: usize, transition: &Transition) {
    let reason = reasons.of(plan, level, transition);
    let Reason { before, after, hazard, .. } = reason;
    let label = &plan.buffers[transition.buffer].label;
    let tip = quoted(&format!("{label}  {} -> {}  {}", transition.from, transition.to, reason.text(plan)));
    let (from, look) = match before {
        Party::Command(found) => (format!("c{}_{}", found.level, found.index), ""),
        Party::Host => ("host_before".to_owned(), ""),
        Party::StepBefore(_) | Party::Elsewhere => {
            // A text beside the reader: an edge from the command itself would lead back across the plan.
            let name = format!("before{}_{}", level, transition.buffer.index());
            let text = quoted(&before.text(plan).replace('`', ""));
            let _ = writeln!(
                out,
                "  {name} [shape=plaintext, fontcolor=\"#808080\", fillcolor=transparent, label={text}];"
            );
            (name, ", style=dashed")
        }
    };
    let to = match after {
        Party::Command(found) => format!("c{}_{}", found.level, found.index),
        Party::StepBefore(_) | Party::Host | Party::Elsewhere => "host_after".to_owned(),
    };
    let _ = writeln!(out, "  {from} -> {to} [color=\"{}\", tooltip={tip}{look}];", colour(hazard));
}

/// A text in quotes, line ends as DOT writes them.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            // Control characters have no look of their own, and Graphviz refuses NUL.
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
