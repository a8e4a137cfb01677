//! From what is wrong to what is said of it.
//!
//! Gets mistakes with ids and sites, returns findings with the names that authors know: kernels and their lines, ops
//! and their places in the graph, values and elements. Never decides what is wrong.

use crate::exec::reference::sanitize::finding::{Check, Finding, Place};
use crate::exec::reference::sanitize::lanes::{Event, Mistake};
use crate::exec::reference::sanitize::order::{NO_SITE, Wrong};
use crate::exec::reference::sanitize::shadow::Party;
use crate::exec::reference::sanitize::{Context, Who};
use crate::exec::reference::watch::Space;
use crate::plan::Plan;
use crate::plan::command::{BufferId, BufferKind, Command, Dispatch, KernelId};
use crate::plan::reasons::Hazard;

/// Something wrong within a dispatch of this level.
pub(super) fn within(context: &Context, level: usize, dispatch: &Dispatch, event: &Event) -> Finding {
    let plan = &context.plan;
    let Event { mistake, site, workgroup: [x, y, z], lane } = event;
    let element = |space: Space, word: usize| match space {
        Space::Workgroup => format!("word {word} of workgroup memory"),
        Space::Binding(binding) => {
            let slice = &dispatch.bindings[binding as usize];
            element(plan, level, slice.buffer, (slice.offset_bytes / 4) as usize + word)
        }
    };
    let what = |space: Option<Space>| match space {
        None => "an array of the invocation's own".to_owned(),
        Some(Space::Workgroup) => "an array in workgroup memory".to_owned(),
        Some(Space::Binding(binding)) => {
            format!("`{}`", plan.kernels[dispatch.kernel].bindings[binding as usize].label)
        }
    };
    let op = &dispatch.label;
    let (check, message, did, space) = match *mistake {
        Mistake::OutOfBounds { space, index, length } => {
            let message = format!("`{op}`: index {index} is out of bounds: {} has {length} elements", what(space));
            (Check::OutOfBounds, message, "indexes here", space)
        }
        Mistake::Unwritten { space, word } => {
            let message = format!("`{op}` reads what nothing wrote: {}", element(space, word));
            (Check::Unwritten, message, "reads here", Some(space))
        }
        Mistake::Race { space, word, writes, .. } => {
            let message = format!("`{op}`: two invocations race at {}", element(space, word));
            (Check::Race, message, if writes { "writes here" } else { "reads here" }, Some(space))
        }
        Mistake::Barrier { arrived, lanes } => {
            let message = format!("`{op}`: {arrived} of {lanes} invocations reach a barrier, the others never do");
            (Check::Barrier, message, "stops here", None)
        }
        Mistake::NotFinite { space, word, value } => {
            let message = format!("`{op}` stores {value}: {}", element(space, word));
            (Check::NotFinite, message, "stores here", Some(space))
        }
    };
    let who = match lane {
        Some(lane) => format!("invocation {lane} of workgroup ({x}, {y}, {z}) {did}"),
        None => format!("workgroup ({x}, {y}, {z}) {did}"),
    };
    let mut places = vec![place(context, dispatch, *site, who)];
    let mut notes = Vec::new();
    if let Mistake::Race { other, .. } = mistake {
        let label = "another invocation touches it here, and nothing orders the two".to_owned();
        places.push(place(context, dispatch, *other, label));
        notes.push(
            "a barrier of the right kind orders invocations of a workgroup, and nothing orders workgroups".into(),
        );
    }
    notes.push(asked_for(plan, dispatch));
    Finding { check, message, places, buffer: buffer_label(plan, dispatch, space), notes }
}

fn buffer_label(plan: &Plan, dispatch: &Dispatch, space: Option<Space>) -> String {
    match space {
        Some(Space::Binding(binding)) => plan.buffers[dispatch.bindings[binding as usize].buffer].label.clone(),
        Some(Space::Workgroup) => "workgroup memory".to_owned(),
        None => String::new(),
    }
}

/// As in "kernel `linear.f16` for `layer0.att.r` at rwkv7.ron:31:9".
fn asked_for(plan: &Plan, dispatch: &Dispatch) -> String {
    format!("kernel `{}` for `{}` at {}", plan.kernels[dispatch.kernel].label, dispatch.label, dispatch.place)
}

/// The place of a dispatch's instruction.
fn place(context: &Context, dispatch: &Dispatch, site: u32, label: String) -> Place {
    let (file, line, text) = if site == NO_SITE { Default::default() } else { line(context, dispatch.kernel, site) };
    let kernel = Some(context.plan.kernels[dispatch.kernel].label.clone());
    Place { file, line, text, label, command: dispatch.label.clone(), kernel, graph: dispatch.place.clone() }
}

/// The line of an instruction: its author's file and number there, and the text.
fn line(context: &Context, kernel: KernelId, site: u32) -> (String, u32, String) {
    let number = context.programs[kernel.index()].line(site);
    let kernel = &context.plan.kernels[kernel];
    let text = kernel.wgsl.lines().nth(number.saturating_sub(1) as usize).unwrap_or("").to_owned();
    match kernel.origin(number) {
        Some((file, line)) => (file.to_owned(), line, text),
        None => (format!("{} (as composed)", kernel.label), number, text),
    }
}

/// Something wrong across commands.
pub(super) fn across(context: &Context, step: u64, buffer: BufferId, wrong: &Wrong<Who>) -> Finding {
    let plan = &context.plan;
    let label = plan.buffers[buffer].label.clone();
    let name = format!("`{buffer} {label}`");
    match wrong {
        Wrong::Unordered { hazard, word, before, after } => {
            let level = match after.0.party {
                Party::Command(number) => level_of(plan, number),
                Party::HostBefore | Party::HostAfter => plan.levels.len(),
            };
            let (first, then) = match hazard {
                Hazard::ReadAfterWrite => ("wrote", "reads"),
                Hazard::WriteAfterRead => ("read", "writes"),
                Hazard::WriteAfterWrite => ("wrote", "writes"),
                Hazard::ReadAfterRead => ("read", "reads"),
            };
            let element = element(plan, level, buffer, *word as usize);
            let (before_name, after_name) = (party(&before.0, step), party(&after.0, step));
            let message = format!(
                "{after_name} {then} what {before_name} {first}, and no transition orders them ({hazard}): {element}"
            );
            let places = vec![
                use_place(&after.0, after.1, format!("{after_name} {then} it here")),
                use_place(&before.0, before.1, format!("{before_name} {first} it here")),
            ];
            let notes = vec![format!("{name} takes a transition between the two, out of the usage of the first")];
            Finding { check: Check::Unordered, message, places, buffer: label, notes }
        }
        Wrong::Usage { state, needed, who } => {
            let by = party(who, step);
            let message = format!("{by} needs {name} in {needed}, and it is in {state}");
            let places = vec![use_place(who, NO_SITE, format!("{by} at {}", graph_place(who)))];
            Finding { check: Check::Usage, message, places, buffer: label, notes: Vec::new() }
        }
        Wrong::From { state, from } => {
            let message = format!("a transition takes {name} out of {from}, and it is in {state}");
            let notes = vec!["it orders nothing: what it was to follow was done in another usage".to_owned()];
            Finding { check: Check::Usage, message, places: Vec::new(), buffer: label, notes }
        }
        Wrong::Rest { state, rest } => {
            let message = format!("the step leaves {name} in {state}, and the next one expects it in {rest}");
            Finding { check: Check::Usage, message, places: Vec::new(), buffer: label, notes: Vec::new() }
        }
    }
}

/// An output of which a word was not written.
pub(super) fn unwritten_output(plan: &Plan, output: &str, buffer: BufferId, word: usize) -> Finding {
    let message = format!("the host reads what nothing wrote: word {word} of output `{output}`");
    let label = plan.buffers[buffer].label.clone();
    Finding { check: Check::Unwritten, message, places: Vec::new(), buffer: label, notes: Vec::new() }
}

fn level_of(plan: &Plan, number: usize) -> usize {
    let mut behind = 0;
    let ends = plan.levels.iter().map(|level| {
        behind += level.commands.len();
        behind
    });
    ends.take_while(|end| *end <= number).count()
}

fn command(who: &Who) -> Option<&Command> {
    match who.party {
        Party::Command(number) => who.context.plan.commands().nth(number),
        Party::HostBefore | Party::HostAfter => None,
    }
}

/// As in "`layer0.wkv` of the step before".
fn party(who: &Who, step: u64) -> String {
    let of = if who.step == step { "" } else { " of the step before" };
    match command(who) {
        Some(command) => format!("`{}`{of}", command.label()),
        None => format!("the host{of}"),
    }
}

fn graph_place(who: &Who) -> String {
    match command(who) {
        Some(Command::Dispatch(dispatch)) => dispatch.place.clone(),
        Some(Command::Copy(_)) => "a copy".to_owned(),
        None => "the ends of the step".to_owned(),
    }
}

fn use_place(who: &Who, site: u32, label: String) -> Place {
    match command(who) {
        Some(Command::Dispatch(dispatch)) => place(&who.context, dispatch, site, label),
        other => Place {
            file: String::new(),
            line: 0,
            text: String::new(),
            label,
            command: other.map_or("the host", Command::label).to_owned(),
            kernel: None,
            graph: String::new(),
        },
    }
}

/// What lies at a word of a buffer: an element of the value that lives there, as in "element 3 of `layer0.xr` in `buf4
/// slot1`".
fn element(plan: &Plan, level: usize, buffer: BufferId, word: usize) -> String {
    let bytes = word as u64 * 4;
    let planned = &plan.buffers[buffer];
    let name = format!("`{buffer} {}`", planned.label);
    let here = |value: &&crate::plan::ValuePlace| {
        value.buffer == buffer
            && (value.first_level as usize..=value.last_level as usize).contains(&level)
            && (value.offset_bytes..value.offset_bytes + value.size_bytes).contains(&bytes)
    };
    if let Some(value) = plan.values.iter().find(here) {
        let element = (bytes - value.offset_bytes) / value.dtype.size_bytes();
        let count: u64 = value.shape.iter().product();
        return match element < count {
            true => format!("element {element} of `{}` in {name}", value.path),
            false => format!("what lies {} elements behind `{}` in {name}", element - count + 1, value.path),
        };
    }
    match planned.kind {
        BufferKind::State { index } => {
            let layout = &plan.state.buffers[index as usize];
            let (row, within) = (bytes / layout.row_bytes(), bytes % layout.row_bytes());
            format!("element {} of row {row} of `{}`", within / layout.dtype.size_bytes(), layout.label)
        }
        BufferKind::Weight { index } => {
            let piece = plan.weights.pieces.iter().find(|piece| {
                let end = piece.offset_bytes + piece.dtype.storage_bytes(piece.count);
                piece.buffer == index && (piece.offset_bytes..end).contains(&bytes)
            });
            match piece {
                Some(piece) => {
                    let element = (bytes - piece.offset_bytes) / piece.dtype.size_bytes();
                    format!("element {element} of weight `{}` in {name}", piece.tensor)
                }
                None => format!("word {word} of {name}, which is no tensor's"),
            }
        }
        _ => format!("word {word} of {name}"),
    }
}
