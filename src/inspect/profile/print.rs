//! A profile for readers, and beside the lines of a plan's listing.
//!
//! Gets a profile, or the bytes of a plan's commands, returns text. What holds then: lines come by the time they take,
//! longest first, and shares are of the whole step. Never measures anything.

use std::fmt::Write;

use crate::inspect::profile::{Group, Profile, Roofline};
use crate::inspect::traffic::Traffic;
use crate::plan::Plan;
use crate::plan::command::Command;
use crate::plan::index::PlanIndex;
use crate::plan::print::Notes;

/// Lines of a table; what comes behind is one line.
const LINES: usize = 24;

/// The longest pattern that is printed whole.
const PATTERN: usize = 52;

/// A profile as tables.
pub fn table(profile: &Profile) -> String {
    let Profile { shape, traffic, step_us, levels_us, commands_us, .. } = profile;
    let mut out = String::new();
    let over = |us: f64| (us / step_us - 1.0) * 100.0;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let step = Roofline::new(*step_us, traffic.bytes(), profile.bandwidth_gb_per_s * 1e3);
    let rows = [
        ("graph", format!("{}  T={} S={}", profile.graph, shape.tokens, shape.sequences)),
        ("device", format!("{} ({})", profile.device, profile.driver)),
        ("executor", format!("{}, medians of {} steps", profile.executor, profile.steps)),
        ("memory", format!("{:.1} GB/s of a kernel that only reads", profile.bandwidth_gb_per_s)),
        ("step", {
            let Roofline { gb_per_s, bandwidth_share, .. } = step;
            format!("{step_us:.1} us, {gb_per_s:.1} GB/s, {bandwidth_share:.3} of the bandwidth")
        }),
        ("bytes", {
            let Traffic { weight_bytes, state_bytes, value_bytes, host_bytes } = *traffic;
            let (weights, state) = (mb(weight_bytes), mb(state_bytes));
            let (values, host) = (mb(value_bytes), mb(host_bytes));
            let all = format!("{weights:.2} MB of weights, {state:.2} of state, {values:.2} of values");
            format!("{all}, {host:.2} of inputs and outputs")
        }),
        ("levels", {
            format!("{levels_us:.1} us together, {:+.1} %: what timestamps between them cost", over(*levels_us))
        }),
        ("commands", format!("{commands_us:.1} us one after the other, {:+.1} %", over(*commands_us))),
        ("CPU", {
            let kept = if profile.record_us > 0.0 && profile.recorded_steps == 0 { " once for all" } else { "" };
            format!("{:.1} us to record{kept}, {:.1} us to submit", profile.record_us, profile.submit_us)
        }),
    ];
    for (name, value) in rows {
        let _ = writeln!(out, "{name:<10}{value}");
    }
    out += "\nlevels alike, side by side\n";
    let leave = (profile.leave_us, "leaving barrier");
    out += &groups(&profile.level_groups, profile.levels_us, Some(leave));
    out += "\ncommands alike, each alone\n";
    out += &groups(&profile.command_groups, profile.commands_us, None);
    out
}

/// Groups as lines: those that take most, and the rest together.
fn groups(groups: &[Group], whole_us: f64, last: Option<(f64, &str)>) -> String {
    let mut out = format!(
        "{:>5} {:>10} {:>11} {:>6} {:>10} {:>9} {:>9} {:>10}  {}\n",
        "count", "median us", "together us", "share", "MB", "GB/s", "roofline", "drain us", "what"
    );
    let percent = |us: f64| us / whole_us * 100.0;
    let mb = |bytes: u64| bytes as f64 / 1e6;
    for Group { pattern, count, median_us, total } in groups.iter().take(LINES) {
        let Roofline { us, bytes, gb_per_s, bandwidth_share, drain_us } = *total;
        let (share, mb, pattern) = (percent(us), mb(bytes), shortened(pattern));
        let _ = writeln!(
            out,
            "{count:>5} {median_us:>10.2} {us:>11.1} {share:>5.1}% {mb:>10.3} {gb_per_s:>9.1} {bandwidth_share:>9.3} \
             {drain_us:>10.1}  {pattern}"
        );
    }
    let rest = groups.get(LINES..).unwrap_or_default();
    let mut line = |count: u64, us: f64, what: String| {
        let _ = writeln!(out, "{count:>5} {:>10} {us:>11.1} {:>5.1}% {:>41}  {what}", "", percent(us), "");
    };
    if !rest.is_empty() {
        let (count, us) = (rest.iter().map(|group| group.count).sum(), rest.iter().map(|group| group.total.us).sum());
        line(count, us, format!("{} other groups", rest.len()));
    }
    if let Some((us, what)) = last {
        line(1, us, what.to_owned());
    }
    out
}

/// A pattern of a few paths and how many more there are.
fn shortened(pattern: &str) -> String {
    if pattern.chars().count() <= PATTERN {
        return pattern.to_owned();
    }
    let (mut out, mut left) = (String::new(), pattern.split(' ').count());
    for path in pattern.split(' ') {
        if !out.is_empty() && out.chars().count() + path.chars().count() > PATTERN {
            break;
        }
        let _ = write!(out, "{path} ");
        left -= 1;
    }
    let _ = write!(out, "+{left}");
    out.trim_end_matches(" +0").to_owned()
}

/// What stands beside the lines of a plan's listing: bytes and their share of all, and what was measured, if it was.
///
/// # Errors
/// If the profile is of another plan: the first command of which they differ.
pub fn annotations(plan: &Plan, traffic: &[Vec<Traffic>], profile: Option<&Profile>) -> Result<Notes, String> {
    if let Some(profile) = profile {
        check_same(plan, profile)?;
    }
    let all: u64 = traffic.iter().flatten().map(|traffic| traffic.bytes()).sum();
    let note = |bytes: u64, measured: Option<&Roofline>| {
        let share = bytes as f64 / all.max(1) as f64 * 100.0;
        let mut note = format!("  | {bytes} bytes, {share:.2} %");
        if let Some(Roofline { us, bandwidth_share, .. }) = measured {
            let _ = write!(note, ", {us:.2} us, {bandwidth_share:.3} of the roofline");
        }
        note
    };
    let levels = traffic.iter().enumerate().map(|(level, commands)| {
        let measured = profile.map(|profile| &profile.levels[level]);
        let of_command = |(at, traffic): (usize, &Traffic)| {
            note(traffic.bytes(), measured.map(|level| &level.commands[at].roofline))
        };
        let bytes = commands.iter().map(|traffic| traffic.bytes()).sum();
        let of_level = note(bytes, measured.map(|level| &level.roofline));
        (of_level, commands.iter().enumerate().map(of_command).collect())
    });
    Ok(Notes { levels: levels.collect() })
}

/// Whether a profile is of this plan, by the size of its step and its commands, level by level.
fn check_same(plan: &Plan, profile: &Profile) -> Result<(), String> {
    if profile.shape != plan.shape {
        return Err(format!("it is of a step {:?}, the plan is for {:?}", profile.shape, plan.shape));
    }
    let index = PlanIndex::new(plan);
    let kernel = |command: &Command| match command {
        Command::Dispatch(dispatch) => Some(plan.kernels[dispatch.kernel].label.clone()),
        Command::Copy(_) => None,
    };
    let ours = plan.levels.iter().enumerate().flat_map(|(number, level)| {
        let commands = level.commands.iter().enumerate();
        let index = &index;
        commands.map(move |(at, command)| {
            (number as u64, index.name(number, at), command.label().to_owned(), kernel(command))
        })
    });
    let mut theirs = profile.levels.iter().flat_map(|level| {
        let commands = level.commands.iter();
        commands.map(|command| (level.level, command.name.clone(), command.label.clone(), command.kernel.clone()))
    });
    for ours in ours {
        let found = theirs.next();
        if found.as_ref() != Some(&ours) {
            let (level, name, label, _) = &ours;
            let found = found
                .map_or_else(|| "nothing".to_owned(), |(level, _, label, _)| format!("`{label}` in level {level}"));
            return Err(format!("it has {found} where the plan has {name} `{label}` in level {level}"));
        }
    }
    match theirs.next() {
        None => Ok(()),
        Some((level, _, label, _)) => Err(format!("it has `{label}` in level {level}, which the plan has not")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_patterns_say_how_many_paths_they_leave_out() {
        assert_eq!(shortened("layer*.r layer*.k"), "layer*.r layer*.k");
        let long = ["layer*.something"; 6].join(" ");
        assert_eq!(shortened(&long), "layer*.something layer*.something layer*.something +3");
        assert_eq!(shortened(&"x".repeat(60)), "x".repeat(60));
    }
}
