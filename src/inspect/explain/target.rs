//! What somebody asks about, found in the plan.
//!
//! Gets the words of a command line, returns what they name, or what there is instead. What holds then: every number in
//! a [`Target`] is one of the plan's. Never guesses: a name that is merely near is suggested, not taken.

use std::fmt;

use crate::base::diag::nearest;
use crate::inspect::explain::Piece;
use crate::inspect::explain::chain::At;
use crate::inspect::explain::facts::Facts;
use crate::plan::command::{BufferId, BufferKind, Command, Slice};

/// Something that a plan has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The barrier before a level, or the leaving one.
    Barrier(usize),
    /// A transition of it.
    Transition(usize, usize),
    /// A value, by its index among the plan's.
    Value(usize),
    /// A buffer, and what was asked for in it.
    Buffer(BufferId, Option<Piece>),
    /// A command.
    Command(At),
    /// A level.
    Level(usize),
}

/// A name of nothing in the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// What was asked for.
    pub what: String,
    /// What there is.
    pub instead: String,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the plan has no `{}`: {}", self.what, self.instead)
    }
}

impl std::error::Error for Unknown {}

/// How many names a list of suggestions has.
const SUGGESTIONS: usize = 6;

pub(super) fn find(facts: &Facts<'_>, what: &str) -> Result<Target, Unknown> {
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    let unknown = |instead: String| Unknown { what: what.clone(), instead };
    let id = |prefix: &str| what.strip_prefix(prefix).and_then(number);
    if let Some((kind, name)) = what.split_once(' ') {
        match kind {
            "level" => return level(facts, number(name)).map_err(unknown),
            "op" => return command(facts, name).ok_or_else(|| unknown(suggest(name, &labels(facts)))),
            "value" => return value(facts, name).ok_or_else(|| unknown(suggest(name, &paths(facts)))),
            "buffer" => return buffer(facts, name).ok_or_else(|| unknown(suggest(name, &buffers(facts)))),
            _ => {}
        }
    }
    let dotted = what.strip_prefix('b').unwrap_or(&what).split_once('.');
    let dotted = dotted.and_then(|(level, at)| {
        let leave = facts.plan.levels.len();
        Some((if level == "leave" { leave } else { number(level)? }, number(at)?))
    });
    match (dotted, what.as_str()) {
        (Some((level, at)), _) => return transition(facts, level, at).map_err(unknown),
        (None, "leave") => return Ok(Target::Barrier(facts.plan.levels.len())),
        (None, "level") => return level(facts, None).map_err(unknown),
        _ => {}
    }
    if let Some(number) = id("buf") {
        let count = facts.plan.buffers.len();
        let there_is = || format!("buffers are buf0 to buf{}", count.saturating_sub(1));
        let found = (number < count).then(|| Target::Buffer(BufferId::new(number as u32), None));
        return found.ok_or_else(|| unknown(there_is()));
    }
    if let Some(number) = id("b") {
        return barrier(facts, number).map(Target::Barrier).map_err(unknown);
    }
    if let Some(number) = id("d") {
        let found = u32::try_from(number).ok().and_then(|number| facts.index.dispatch(number));
        let there_is = || format!("dispatches are d0 to d{}", facts.index.dispatch_count().saturating_sub(1));
        return found.map(Target::Command).ok_or_else(|| unknown(there_is()));
    }
    let found = value(facts, &what).or_else(|| buffer(facts, &what)).or_else(|| command(facts, &what));
    found.or_else(|| piece(facts, &what)).ok_or_else(|| unknown(suggest(&what, &everything(facts))))
}

/// A number as a dump prints it.
fn number(text: &str) -> Option<usize> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().unwrap_or(usize::MAX))
}

fn level(facts: &Facts<'_>, number: Option<usize>) -> Result<Target, String> {
    let count = facts.plan.levels.len();
    match number.filter(|number| *number < count) {
        Some(number) => Ok(Target::Level(number)),
        None => Err(format!("levels are 0 to {}", count.saturating_sub(1))),
    }
}

fn barrier(facts: &Facts<'_>, number: usize) -> Result<usize, String> {
    let leave = facts.plan.levels.len();
    if number <= leave { Ok(number) } else { Err(format!("barriers are b0 to b{leave}, of which b{leave} is `leave`")) }
}

fn transition(facts: &Facts<'_>, level: usize, at: usize) -> Result<Target, String> {
    let number = barrier(facts, level)?;
    match facts.transitions(number).len() {
        0 => Err(format!("no transition stands in barrier b{number}")),
        count if at < count => Ok(Target::Transition(number, at)),
        1 => Err(format!("barrier b{number} has one transition, b{number}.0")),
        count => Err(format!("barrier b{number} has {count} transitions, b{number}.0 to b{number}.{}", count - 1)),
    }
}

fn value(facts: &Facts<'_>, path: &str) -> Option<Target> {
    facts.plan.values.iter().position(|value| value.path == path).map(Target::Value)
}

fn buffer(facts: &Facts<'_>, label: &str) -> Option<Target> {
    let mut buffers = facts.plan.buffers.iter();
    buffers.find(|(_, buffer)| buffer.label == label).map(|(id, _)| Target::Buffer(id, None))
}

fn command(facts: &Facts<'_>, label: &str) -> Option<Target> {
    facts.plan.levels.iter().enumerate().find_map(|(level, commands)| {
        let index = commands.commands.iter().position(|command| command.label() == label)?;
        Some(Target::Command((level, index)))
    })
}

/// A weight by its tensor's name, a version of a state, an input: the buffer that holds it.
fn piece(facts: &Facts<'_>, name: &str) -> Option<Target> {
    let plan = facts.plan;
    let whole = |slice: Slice| {
        let (offset_bytes, size_bytes) = (slice.offset_bytes, slice.size_bytes);
        Target::Buffer(slice.buffer, Some(Piece { name: name.to_owned(), offset_bytes, size_bytes }))
    };
    if let Some((state, version)) = name.split_once('#')
        && number(version).is_some()
    {
        return buffer(facts, state);
    }
    if let Some(input) = name.strip_prefix("in.") {
        let host = plan.inputs.iter().find(|input_| input_.name == input)?.slice;
        // On the device it lies where the copy from the host's buffer puts it.
        let copy = plan.commands().find_map(|command| match command {
            Command::Copy(copy) if copy.from.buffer == host.buffer => Some(copy),
            _ => None,
        })?;
        let offset_bytes = host.offset_bytes.checked_sub(copy.from.offset_bytes)?.checked_add(copy.to.offset_bytes)?;
        return Some(whole(Slice { buffer: copy.to.buffer, offset_bytes, size_bytes: host.size_bytes }));
    }
    let tensor = name.strip_prefix("w.").unwrap_or(name);
    let found = plan.weights.pieces.iter().find(|piece| piece.tensor == tensor)?;
    let is_it = |kind| matches!(kind, BufferKind::Weight { index } if index == found.buffer);
    let (id, _) = plan.buffers.iter().find(|(_, buffer)| is_it(buffer.kind))?;
    let size_bytes = found.dtype.storage_bytes(found.count);
    Some(whole(Slice { buffer: id, offset_bytes: found.offset_bytes, size_bytes }))
}

fn paths(facts: &Facts<'_>) -> Vec<String> {
    facts.plan.values.iter().map(|value| value.path.clone()).collect()
}

fn labels(facts: &Facts<'_>) -> Vec<String> {
    facts.plan.commands().map(|command| command.label().to_owned()).collect()
}

fn buffers(facts: &Facts<'_>) -> Vec<String> {
    facts.plan.buffers.values().map(|buffer| buffer.label.clone()).collect()
}

fn everything(facts: &Facts<'_>) -> Vec<String> {
    let tensors = facts.plan.weights.pieces.iter().map(|piece| format!("w.{}", piece.tensor));
    let inputs = facts.plan.inputs.iter().map(|input| format!("in.{}", input.name));
    let names = paths(facts).into_iter().chain(labels(facts)).chain(buffers(facts));
    let mut names: Vec<String> = names.chain(tensors).chain(inputs).collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// What of `names` may have been meant: those of which `found` is the last part or a part, else the nearest.
fn suggest(found: &str, names: &[String]) -> String {
    let quoted = |name: &&String| format!("`{name}`");
    let ends = || names.iter().filter(|name| name.ends_with(&format!(".{found}")));
    let holds = || names.iter().filter(|name| !found.is_empty() && name.contains(found));
    let list: Vec<&String> = if ends().next().is_some() { ends().collect() } else { holds().collect() };
    if list.is_empty() {
        return match nearest(found, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "expected a barrier (b12, leave), a transition (b12.3), a dispatch (d17), a level (level 12), a \
                     buffer (slot4, buf61), or the path of a value or an op (`compile --emit plan` has them all)"
                .to_owned(),
        };
    }
    let shown: Vec<String> = list.iter().take(SUGGESTIONS).map(quoted).collect();
    let more = list.len().saturating_sub(SUGGESTIONS);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("did you mean {}{more}?", shown.join(", "))
}
