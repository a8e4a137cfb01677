//! What repeats in a plan, put together.
//!
//! Gets the levels of a profile, returns groups of levels, and of commands, that differ in the number of their layer
//! alone. What holds then: each is in one group, and groups come by the time they take together. Never knows what a
//! layer is: a number at the end of any part of a path but the last counts as one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::inspect::profile::{CommandTime, LevelTime, Roofline, median};

/// Levels, or commands, that are alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// What they have in common: paths without the numbers of layers, with the kernel if it is commands.
    pub pattern: String,
    /// How many there are.
    pub count: u64,
    /// The median of their times, in microseconds.
    pub median_us: f64,
    /// Time and bytes of all of them together.
    #[serde(flatten)]
    pub total: Roofline,
}

/// A path without the numbers of its layers, as in `layer*.wkv`.
fn without_layers(path: &str) -> String {
    let Some((scopes, last)) = path.rsplit_once('.') else { return path.to_owned() };
    let scope = |scope: &str| {
        let name = scope.trim_end_matches(|c: char| c.is_ascii_digit());
        if name.len() < scope.len() { format!("{name}*") } else { scope.to_owned() }
    };
    let scopes: Vec<String> = scopes.split('.').map(scope).collect();
    // What an op without values of its own is called: the state it updates, and the update's number.
    let last = last.split_once('#').map_or(last, |(state, _)| state);
    let last = if last.bytes().all(|byte| byte.is_ascii_digit()) { "*" } else { last };
    format!("{}.{last}", scopes.join("."))
}

/// What a level's commands are, each once.
pub(super) fn pattern(commands: &[CommandTime]) -> String {
    let mut paths: Vec<String> = Vec::with_capacity(commands.len());
    for path in commands.iter().map(|command| without_layers(&command.label)) {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths.join(" ")
}

/// The groups of some things with a pattern, a time and bytes.
fn of<'a>(things: impl Iterator<Item = (String, &'a Roofline)>, bytes_per_us: f64) -> Vec<Group> {
    let mut found: BTreeMap<String, Vec<&Roofline>> = BTreeMap::new();
    things.for_each(|(pattern, roofline)| found.entry(pattern).or_default().push(roofline));
    let group = |(pattern, alike): (String, Vec<&Roofline>)| {
        let (us, bytes) = (alike.iter().map(|one| one.us).sum(), alike.iter().map(|one| one.bytes).sum());
        // Of each its own: where one beats the bandwidth, out of a cache, it makes up for no other.
        let drain_us = alike.iter().map(|one| one.drain_us).sum();
        Group {
            pattern,
            count: alike.len() as u64,
            median_us: median(alike.iter().map(|one| one.us)),
            total: Roofline { drain_us, ..Roofline::new(us, bytes, bytes_per_us) },
        }
    };
    let mut groups: Vec<Group> = found.into_iter().map(group).collect();
    groups.sort_by(|a, b| b.total.us.total_cmp(&a.total.us));
    groups
}

pub(super) fn of_levels(levels: &[LevelTime], bytes_per_us: f64) -> Vec<Group> {
    of(levels.iter().map(|level| (level.pattern.clone(), &level.roofline)), bytes_per_us)
}

pub(super) fn of_commands(levels: &[LevelTime], bytes_per_us: f64) -> Vec<Group> {
    let pattern = |command: &CommandTime| {
        let path = without_layers(&command.label);
        command.kernel.as_ref().map_or_else(|| format!("copy {path}"), |kernel| format!("{kernel} {path}"))
    };
    let commands = levels.iter().flat_map(|level| &level.commands);
    of(commands.map(|command| (pattern(command), &command.roofline)), bytes_per_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_the_numbers_of_layers_alone() {
        for (path, expected) in [
            ("layer3.wkv", "layer*.wkv"),
            ("layer12.ln1", "layer*.ln1"),
            ("x", "x"),
            ("state.att_x.0#1", "state.att_x.*"),
            ("upload inputs", "upload inputs"),
        ] {
            assert_eq!(without_layers(path), expected);
        }
    }
}
