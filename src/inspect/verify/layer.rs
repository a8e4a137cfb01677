//! Runs mutants under Vulkan's synchronization validation, and compares what it reports with what is predicted.
//!
//! Gets mutants with their predictions and a way to run a step and hear what the layer says of it; returns which
//! mutants it noticed, and every difference. What holds then: a mutant was noticed if each of its hazards was reported,
//! and nothing that was not predicted. Mutants share steps as long as the model predicts for all of them together just
//! what it predicts for each; where a step is reported differently, its mutants are run again one by one. Never decides
//! what a hazard is.

use crate::exec::replay::{Edit, edited};
use crate::exec::{ExecError, STEPS_IN_FLIGHT};
use crate::inspect::verify::masks::{Event, Model};
use crate::inspect::verify::mutate::{Mutant, barrier};
use crate::plan::Plan;
use crate::plan::command::Command;
use crate::plan::reasons::{Hazard, usages};

/// A mutant and what is predicted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The mutant.
    pub mutant: Mutant,
    /// What the layer should report, in order; nothing if it cannot see it.
    pub predicted: Vec<Event>,
}

/// Runs one step with edits, waits for it, and returns the errors that validation reported since the step before.
pub type RunStep<'a> = &'a mut dyn FnMut(&[Edit]) -> Result<Vec<String>, ExecError>;

/// What came of all mutants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// By mutant, whether the layer reported all that was predicted of it, and that is something.
    pub noticed: Vec<bool>,
    /// Mutants of which it reported something else.
    pub mismatches: Vec<Mismatch>,
    /// Steps with mutants in them.
    pub steps: u64,
}

/// A mutant of which the layer does not report what is predicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Which mutant.
    pub mutant: usize,
    /// What was predicted and not reported.
    pub missing: Vec<Event>,
    /// What was reported and not predicted.
    pub extra: Vec<Event>,
    /// Reports that say nothing of hazards, or cannot be read.
    pub other: Vec<String>,
}

/// Runs every mutant, in as few steps as the model allows, or one by one. `progress` is called with the mutants done.
///
/// # Errors
/// If a step fails.
pub fn run(
    plan: &Plan,
    model: &Model<'_>,
    sightings: &[Sighting],
    one_by_one: bool,
    run_step: RunStep<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Findings, ExecError> {
    let mut findings = Findings { noticed: vec![false; sightings.len()], ..Findings::default() };
    let mut done = 0;
    for group in groups(model, sightings, one_by_one) {
        done += group.len() as u64;
        let heard = hear(plan, sightings, &group, run_step)?;
        findings.steps += 1;
        if heard.differs(sightings, &group).is_none() {
            group.iter().for_each(|at| findings.noticed[*at] = !sightings[*at].predicted.is_empty());
        } else {
            for at in &group {
                let alone = [*at];
                let heard = hear(plan, sightings, &alone, run_step)?;
                findings.steps += 1;
                match heard.differs(sightings, &alone) {
                    None => findings.noticed[*at] = !sightings[*at].predicted.is_empty(),
                    Some((missing, extra)) => {
                        findings.mismatches.push(Mismatch { mutant: *at, missing, extra, other: heard.other });
                    }
                }
            }
        }
        progress(done);
    }
    Ok(findings)
}

fn edits(sightings: &[Sighting], group: &[usize]) -> Vec<Edit> {
    group.iter().map(|at| sightings[*at].mutant.edit).collect()
}

/// What is predicted of each of a group, together and in order.
fn union(sightings: &[Sighting], group: &[usize]) -> Vec<Event> {
    let mut all: Vec<Event> = group.iter().flat_map(|at| sightings[*at].predicted.iter().cloned()).collect();
    all.sort();
    all
}

/// Mutants that can share a step, since they do not change what is seen of each other.
fn groups(model: &Model<'_>, sightings: &[Sighting], one_by_one: bool) -> Vec<Vec<usize>> {
    // The nth mutant of each transition: two edits of one transition exclude each other.
    let mut open: Vec<Vec<usize>> = Vec::new();
    let mut nth = 0;
    for (at, sighting) in sightings.iter().enumerate() {
        let is_next = at > 0 && sightings[at - 1].mutant.edit.at == sighting.mutant.edit.at;
        nth = if is_next { nth + 1 } else { 0 };
        if nth == open.len() {
            open.push(Vec::new());
        }
        open[nth].push(at);
    }
    let mut closed = Vec::new();
    while let Some(group) = open.pop() {
        let fits =
            group.len() == 1 || !one_by_one && model.predict(&edits(sightings, &group)) == union(sightings, &group);
        if fits {
            closed.push(group);
        } else {
            // Every other one: neighbours, who share a barrier, are those that hide each other.
            let (one, other): (Vec<_>, Vec<_>) = group.into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
            open.extend([one, other].map(|half| half.into_iter().map(|(_, at)| at).collect()));
        }
    }
    closed
}

/// What the layer said of a step with mutants and the intact ones after it.
#[derive(Debug, Default)]
struct Heard {
    events: Vec<Event>,
    other: Vec<String>,
}

fn hear(plan: &Plan, sightings: &[Sighting], group: &[usize], run_step: RunStep<'_>) -> Result<Heard, ExecError> {
    let mut heard = Heard::default();
    for step in 0..=STEPS_IN_FLIGHT {
        let edits = if step == 0 { edits(sightings, group) } else { Vec::new() };
        let reports = run_step(&edits)?;
        if reports.is_empty() {
            continue;
        }
        let numbers = numbers(plan, &edits);
        for report in reports {
            match read(plan, &numbers, step, &report) {
                Some(event) => heard.events.push(event),
                None => heard.other.push(report),
            }
        }
    }
    heard.events.sort();
    Ok(heard)
}

impl Heard {
    /// What is missing of the predictions and what was not predicted; nothing if all is as it should be.
    fn differs(&self, sightings: &[Sighting], group: &[usize]) -> Option<(Vec<Event>, Vec<Event>)> {
        let mut missing = union(sightings, group);
        let mut extra = Vec::new();
        for event in &self.events {
            match missing.iter().position(|predicted| is_of(event, predicted)) {
                Some(at) => drop(missing.remove(at)),
                None => extra.push(event.clone()),
            }
        }
        let is_fine = missing.is_empty() && extra.is_empty() && self.other.is_empty();
        (!is_fine).then_some((missing, extra))
    }
}

/// Whether a report is the one that was predicted.
fn is_of(report: &Event, predicted: &Event) -> bool {
    match (report, predicted) {
        (Event::Submitted { step, any_of: one }, Event::Submitted { step: in_step, any_of }) => {
            step == in_step && one.iter().all(|found| any_of.contains(found))
        }
        _ => report == predicted,
    }
}

/// For each call that the layer counts, from its number 1 on, the command it is; nothing for barriers.
fn numbers(plan: &Plan, edits: &[Edit]) -> Vec<Option<usize>> {
    let mut numbers = Vec::new();
    let mut command = 0;
    for level in 0..=plan.levels.len() {
        if !edited(level, barrier(plan, level), edits).is_empty() {
            numbers.push(None);
        }
        for _ in plan.levels.get(level).map_or(&[][..], |level| &level.commands) {
            numbers.push(Some(command));
            command += 1;
        }
    }
    numbers
}

/// The text between two others.
fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    let start = text.find(before)? + before.len();
    let rest = &text[start..];
    Some(&rest[..rest.find(after)?])
}

/// A report of the layer as an event; nothing if it is about something else.
fn read(plan: &Plan, numbers: &[Option<usize>], step: usize, report: &str) -> Option<Event> {
    let hazard = match between(report, "Hazard ", " for ")? {
        "READ_AFTER_WRITE" => Hazard::ReadAfterWrite,
        "WRITE_AFTER_READ" => Hazard::WriteAfterRead,
        "WRITE_AFTER_WRITE" => Hazard::WriteAfterWrite,
        _ => return None,
    };
    let numbered = |text: &str| {
        let number: usize = between(text, "seq_no: ", ",")?.parse().ok()?;
        *numbers.get(number.checked_sub(1)?)?
    };
    if let Some(recorded) = report.split_once("Recorded access info (") {
        return Some(Event::Submitted { step, any_of: vec![(numbered(recorded.1)?, hazard)] });
    }
    if report.contains("vkCmdDispatch: ") {
        let label = between(report, "VkDescriptorSet ", ", type:").and_then(|set| between(set, "[", "]"))?;
        let command = plan.commands().position(|command| command.label() == label)?;
        let binding = between(report, "binding #", " ")?.parse().ok()?;
        return Some(Event::Recorded { step, command, binding, hazard });
    }
    // Nothing tells copies apart, but what they copy: the first one after the earlier access that has to do with it.
    let binding = usize::from(report.contains("for dstBuffer"));
    let earlier = numbered(report)?;
    let touched = usages(plan, plan.commands().nth(earlier)?);
    let command = plan.commands().enumerate().skip(earlier + 1).position(|(_, command)| match command {
        Command::Copy(copy) => {
            let end = if binding == 0 { copy.from } else { copy.to };
            touched.iter().any(|(buffer, _)| *buffer == end.buffer)
        }
        Command::Dispatch(_) => false,
    })?;
    Some(Event::Recorded { step, command: earlier + 1 + command, binding, hazard })
}
