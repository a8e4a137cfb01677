//! Explanations as text for people.
//!
//! Gets an [`Explanation`], returns lines of it, the answer first and what leads on from there last. What holds then:
//! everything in the text is in the data; lists that grow with the plan are cut, and say how much was cut. Never
//! decides anything, never finds anything out.

use std::fmt::Write;

use crate::inspect::explain::{
    BarrierFacts, BoundTo, BufferFacts, BufferName, CommandFacts, CommandName, Danger, Explanation, LevelFacts, Link,
    PortLines, SourceLine, Subject, Tenant, Touch, TransitionFacts, ValueFacts, When,
};

/// Columns of running text.
const COLUMNS: usize = 110;

/// How many uses are shown with their lines, before only names are given; and how many names.
const USES: usize = 3;
const NAMES: usize = 12;

/// How many lines of a kernel are shown for a binding.
const LINES: usize = 6;

/// Members of a chain that are shown at its beginning and at its end.
const CHAIN_HEAD: usize = 3;
const CHAIN_TAIL: usize = 5;

/// Values of a slot that are shown on each side of the place in question.
const NEIGHBOURS: usize = 2;

/// An explanation as text.
pub fn print(explanation: &Explanation) -> String {
    let mut out = String::new();
    match &explanation.subject {
        Subject::Barrier(facts) => barrier(&mut out, facts),
        Subject::Transition(facts) => transition(&mut out, facts),
        Subject::Value(facts) => value(&mut out, facts),
        Subject::Buffer(facts) => buffer(&mut out, facts),
        Subject::Command(facts) => command(&mut out, facts),
        Subject::Level(facts) => level(&mut out, facts),
    }
    out
}

fn barrier(out: &mut String, facts: &BarrierFacts) {
    let count = counted(facts.transitions.len(), "transition");
    let place = match facts.leaves {
        true => "at the end of the step".to_owned(),
        false => format!("before level {}", facts.name.trim_start_matches('b')),
    };
    let _ = writeln!(out, "barrier {}  {count} {place}", facts.name);
    if facts.transitions.is_empty() {
        wrapped(out, 2, "nothing has to be ordered here: no buffer that is used next was used otherwise before");
    }
    if facts.leaves {
        wrapped(out, 2, "it gives host-visible buffers back to the host, which fills and reads them between steps");
    }
    names(out, "commands behind it", &facts.commands);
    for facts in &facts.transitions {
        out.push('\n');
        transition_head(out, facts);
        sides(out, facts);
        history(out, facts);
        without(out, facts);
    }
    chain(out, &facts.chain);
}

fn transition(out: &mut String, facts: &TransitionFacts) {
    transition_head(out, facts);
    sides(out, facts);
    history(out, facts);
    without(out, facts);
    chain(out, &facts.chain);
}

fn transition_head(out: &mut String, facts: &TransitionFacts) {
    let _ = writeln!(out, "{}  {}  {} -> {}", facts.name, buffer_text(&facts.buffer), facts.from, facts.to);
    let words = match facts.hazard.as_str() {
        "RAW" => "RAW, read after write: the reads behind it must see what was written before it",
        "WAR" => "WAR, write after read: the write behind it must wait until the reads before it are done",
        "WAW" => "WAW, write after write: the write behind it must come last",
        _ => "RAR, reads of different kinds: no hazard, but the buffer has to be told what it is used for next",
    };
    wrapped(out, 2, words);
}

/// Who uses the buffer before a transition, and who behind it.
fn sides(out: &mut String, facts: &TransitionFacts) {
    let title = |touches: &[Touch]| if touches.iter().any(|touch| touch.writes) { "written" } else { "read" };
    let _ = writeln!(out, "  {} before it by", title(&facts.before));
    uses(out, 4, &facts.before);
    let _ = writeln!(out, "  {} behind it by", title(&facts.after));
    uses(out, 4, &facts.after);
    if facts.elsewhere > 0 {
        let count = counted(facts.elsewhere, "use");
        wrapped(out, 2, &format!("{count} of other bytes of {} before or behind it", facts.buffer.label));
    }
}

/// Uses with their lines; of many, the first few.
fn uses(out: &mut String, indent: usize, touches: &[Touch]) {
    for touch in touches.iter().take(USES) {
        use_text(out, indent, touch);
    }
    let rest: Vec<String> = touches.iter().skip(USES).map(who).collect();
    if !rest.is_empty() {
        let more = rest.len().saturating_sub(NAMES);
        let more = if more == 0 { String::new() } else { format!(", and {more} more") };
        let shown: Vec<String> = rest.into_iter().take(NAMES).collect();
        wrapped(out, indent, &format!("also {}{more}", shown.join(", ")));
    }
}

fn use_text(out: &mut String, indent: usize, touch: &Touch) {
    let blank = " ".repeat(indent);
    let Some(command) = &touch.command else {
        let _ = writeln!(out, "{blank}{}", who(touch));
        return;
    };
    let mut line = format!("{}  level {}", who(touch), command.level);
    for part in [&command.kernel, &command.place].into_iter().flatten() {
        let _ = write!(line, "  {part}");
    }
    let _ = writeln!(out, "{blank}{line}");
    touch.ports.iter().for_each(|port| port_text(out, indent + 2, port));
}

/// `d17 layer3.wkv`, with its step if that is another.
fn who(touch: &Touch) -> String {
    let step = match touch.when {
        When::Before => " of the step before",
        When::Now => "",
        When::Next => " of the next step",
    };
    match &touch.command {
        Some(command) => format!("{}{step}", called(command)),
        None => format!("the host{}", if touch.when == When::Now { "" } else { ", between steps" }),
    }
}

fn called(command: &CommandName) -> String {
    format!("{} {}", command.name, command.label)
}

fn port_text(out: &mut String, indent: usize, port: &PortLines) {
    let blank = " ".repeat(indent);
    let verb = match (port.reads, port.writes) {
        (true, true) => "reads and writes",
        (false, true) => "writes",
        _ => "reads",
    };
    let value = port.value.as_ref().map_or_else(String::new, |value| format!("`{value}` "));
    let _ = writeln!(out, "{blank}{verb} {value}as {}", port.port);
    let place = |line: &SourceLine| match &line.file {
        Some(file) => format!("{file}:{}", line.line),
        None => format!("(written by the compiler, line {})", line.line),
    };
    // Which of the two a line does is news only where the binding does both.
    let mode = |line: &SourceLine| match (port.reads && port.writes, line.reads, line.writes) {
        (false, ..) => "",
        (true, true, true) => "reads, writes  ",
        (true, false, true) => "writes  ",
        (true, ..) => "reads  ",
    };
    let shown = port.lines.iter().take(LINES);
    let width = shown.clone().map(|line| place(line).chars().count()).max().unwrap_or(0);
    let mode_width = shown.clone().map(|line| mode(line).len()).max().unwrap_or(0);
    for line in shown {
        let _ = writeln!(out, "{blank}  {:mode_width$}{:width$}  {}", mode(line), place(line), line.text);
    }
    if port.lines.len() > LINES {
        let _ = writeln!(out, "{blank}  and {} lines more", port.lines.len() - LINES);
    }
}

/// Who lives in a slot around a transition; around the ends of the step, who does so in its neighbours.
fn history(out: &mut String, facts: &TransitionFacts) {
    let Some(number) = facts.name.strip_prefix('b').and_then(|name| name.split('.').next()?.parse::<u32>().ok()) else {
        return;
    };
    if facts.tenants.is_empty() {
        return;
    }
    let all = counted(facts.tenant_count, "value");
    let these = match facts.tenants.len() {
        here if here == facts.tenant_count => String::new(),
        here => format!(", these bytes of it by {here}"),
    };
    let _ = writeln!(out, "  {} is shared by {all}{these}; around this place", facts.buffer.label);
    let behind = facts.tenants.partition_point(|tenant| tenant.first_level < number);
    let (before, after) = facts.tenants.split_at(behind);
    let last = |tenants: &[Tenant], count: usize| tenants[tenants.len().saturating_sub(count)..].to_vec();
    let mut around: Vec<(&str, Tenant)> = Vec::new();
    let missing = NEIGHBOURS.saturating_sub(before.len());
    around.extend(last(after, missing).into_iter().map(|tenant| ("of the step before", tenant)));
    around.extend(last(before, NEIGHBOURS).into_iter().map(|tenant| ("", tenant)));
    around.extend(after.iter().take(NEIGHBOURS).map(|tenant| ("", tenant.clone())));
    let missing = NEIGHBOURS.saturating_sub(after.len());
    around.extend(before.iter().take(missing).map(|tenant| ("of the next step", tenant.clone())));
    tenants(out, &around);
    let is_inside = |tenant: &Tenant| tenant.first_level < number && number <= tenant.last_level;
    if facts.is_direct && !facts.tenants.iter().any(is_inside) {
        wrapped(
            out,
            2,
            "the slot changes hands here: the last uses of one value are kept apart from the first of the next",
        );
    }
}

/// Values with their levels, in columns, each with what is to be said of it behind them.
fn tenants(out: &mut String, tenants: &[(&str, Tenant)]) {
    let levels = |tenant: &Tenant| format!("levels {}..={}", tenant.first_level, tenant.last_level);
    let width = tenants.iter().map(|(_, tenant)| levels(tenant).len()).max().unwrap_or(0);
    let name = tenants.iter().map(|(_, tenant)| tenant.path.chars().count()).max().unwrap_or(0);
    for (note, tenant) in tenants {
        let (levels, Tenant { path, shape, offset_bytes, size_bytes, .. }) = (levels(tenant), tenant);
        let line =
            format!("    {levels:width$}  {path:name$}  {shape}  {size_bytes} bytes from {offset_bytes}  {note}");
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

fn plain(tenants: &[Tenant]) -> Vec<(&'static str, Tenant)> {
    tenants.iter().map(|tenant| ("", tenant.clone())).collect()
}

fn without(out: &mut String, facts: &TransitionFacts) {
    if !facts.is_direct {
        let words = "what is used before it shares no byte with what is used behind it; but usage is tracked per whole \
                     buffer, and this change of usage is a link between others that do share bytes";
        wrapped(out, 2, words);
    }
    let number = facts.name.trim_start_matches('b');
    let _ = writeln!(out, "  without it (run --executor hal --drop-transition {number})");
    for Danger { hazard, words, .. } in facts.without.iter().take(NAMES) {
        wrapped(out, 4, &format!("{hazard}: {words}"));
    }
    let more = facts.without.len().saturating_sub(NAMES) + facts.further;
    if more > 0 {
        let pairs = counted(more, "further pair");
        wrapped(
            out,
            4,
            &format!("and {pairs} of accesses that only this transition connects, one before it and one behind it"),
        );
    }
}

/// A chain of commands, the middle of a long one left out.
fn chain(out: &mut String, chain: &[Link]) {
    let Some(last) = chain.last() else { return };
    let count = counted(chain.len(), "command");
    let level = last.command.level;
    let called = called(&last.command);
    out.push('\n');
    if level == 0 {
        return wrapped(out, 0, &format!("level 0 is the first: {called} needs no command before it"));
    }
    if chain.len() as u32 == level + 1 {
        let words = format!("level {level} cannot come earlier: {count} in a row lead to {called}, each needs the one");
        wrapped(out, 0, &(words + " before"));
    } else {
        wrapped(out, 0, &format!("{called} stands in level {level}; {count} in a row lead to it"));
    }
    let cut = chain.len() > CHAIN_HEAD + CHAIN_TAIL + 1;
    for (nth, link) in chain.iter().enumerate() {
        if cut && nth == CHAIN_HEAD {
            let _ = writeln!(out, "  … {} more", chain.len() - CHAIN_HEAD - CHAIN_TAIL);
        }
        if cut && (CHAIN_HEAD..chain.len() - CHAIN_TAIL).contains(&nth) {
            continue;
        }
        link_text(out, link);
    }
}

fn link_text(out: &mut String, link: &Link) {
    let name = format!("{} {}", link.command.name, link.command.label);
    let because = link.because.as_deref().unwrap_or("");
    let line = format!("  level {:<4} {name:<32}  {because}", link.command.level);
    let _ = writeln!(out, "{}", line.trim_end());
}

fn value(out: &mut String, facts: &ValueFacts) {
    let Tenant { path, shape, offset_bytes, size_bytes, first_level, last_level } = &facts.value;
    let _ = writeln!(out, "value {path}  {shape}  {size_bytes} bytes");
    let end = offset_bytes.saturating_add(*size_bytes);
    let slot = format!("{} of {} bytes", buffer_text(&facts.buffer), facts.slot_bytes);
    let _ = writeln!(out, "  lives in bytes {offset_bytes}..{end} of {slot}, from level {first_level} to {last_level}");
    let _ = writeln!(out, "  written by");
    uses(out, 4, &facts.writers);
    let _ = writeln!(out, "  read by");
    uses(out, 4, &facts.readers);
    let others = facts.tenant_count - 1;
    let _ = writeln!(out, "  it shares the slot with {}", counted(others, "other value"));
    if facts.before.is_some() || facts.after.is_some() {
        let _ = writeln!(out, "  its bytes are those, before and after it, of");
        tenants(out, &facts.before.iter().chain(&facts.after).map(|tenant| ("", tenant.clone())).collect::<Vec<_>>());
    }
    if !facts.beside.is_empty() {
        let _ = writeln!(out, "  beside it at the same time");
        tenants(out, &plain(&facts.beside));
    }
    transition_names(out, "transitions of the slot, from its first level to its successor's", &facts.transitions);
}

fn buffer(out: &mut String, facts: &BufferFacts) {
    let name = buffer_text(&facts.buffer);
    let _ = writeln!(out, "buffer {name}  {} bytes  rests in {}", facts.size_bytes, facts.rest);
    if let Some(piece) = &facts.piece {
        let end = piece.offset_bytes.saturating_add(piece.size_bytes);
        let words =
            format!("`{}` is bytes {}..{end} of it; below is who uses any of it", piece.name, piece.offset_bytes);
        wrapped(out, 2, &words);
    }
    let words = match facts.buffer.kind {
        "weight" => "a weight buffer: filled once, never written by a step, so it takes no transitions",
        "state" => "a state: carried from step to step, the same memory in all plans of a session",
        "slot" => "a slot: memory of one step, shared by values that never have a byte in common at the same time",
        "input" => "the inputs on the device: each step copies them from the host's buffer first",
        "host-write" => "host-visible: the host writes it before each step",
        _ => "host-visible: the host reads it after each step",
    };
    wrapped(out, 2, words);
    if facts.buffer.kind == "state" {
        state_text(out, &facts.uses);
    }
    if !facts.tenants.is_empty() {
        let _ = writeln!(out, "  {} live in it", counted(facts.tenants.len(), "value"));
        tenants(out, &plain(&facts.tenants));
    }
    let commands = counted(facts.uses.len(), "command");
    let _ = writeln!(out, "  used by {commands} of a step");
    uses(out, 4, &facts.uses);
    transition_names(out, "transitions", &facts.transitions);
}

/// Whether a step sees what the one before it left in a state: if not, the state carries nothing.
fn state_text(out: &mut String, uses: &[Touch]) {
    let reader = uses.iter().position(|touch| touch.reads);
    let writer = uses.iter().position(|touch| touch.writes);
    let name = |at: usize| uses[at].command.as_ref().map_or_else(|| "the host".to_owned(), called);
    let words = match (reader, writer) {
        (Some(reader), Some(writer)) if writer < reader => format!(
            "{} writes it before anything reads it: what the step before left there is lost, and {} sees what its own \
             step wrote",
            name(writer),
            name(reader)
        ),
        (Some(reader), _) => format!("{} reads what the step before left there", name(reader)),
        (None, _) => "no command reads it".to_owned(),
    };
    wrapped(out, 2, &words);
}

fn command(out: &mut String, facts: &CommandFacts) {
    let CommandName { level, kernel, place, .. } = &facts.command;
    let mut head = format!("{}  level {level}", called(&facts.command));
    for part in [kernel, place].into_iter().flatten() {
        let _ = write!(head, "  {part}");
    }
    if let Some([x, y, z]) = facts.workgroups {
        let _ = write!(head, "  {x} x {y} x {z} workgroups");
    }
    let _ = writeln!(out, "{head}");
    for BoundTo { buffer, offset_bytes, size_bytes, port } in &facts.touches {
        let end = offset_bytes.saturating_add(*size_bytes);
        let _ = writeln!(out, "  {}  bytes {offset_bytes}..{end}", buffer_text(buffer));
        port_text(out, 4, port);
    }
    if facts.needs.is_empty() {
        let _ = writeln!(out, "  it waits for no command of its step");
    } else {
        let _ = writeln!(out, "  it waits for");
        for link in facts.needs.iter().take(NAMES) {
            let because = link.because.as_deref().unwrap_or("");
            let _ = writeln!(out, "    {}  level {}: it {because}", called(&link.command), link.command.level);
        }
        if facts.needs.len() > NAMES {
            let _ = writeln!(out, "    and {} more", facts.needs.len() - NAMES);
        }
    }
    transition_names(out, "transitions right before it, of its buffers", &facts.transitions);
    chain(out, &facts.chain);
}

fn level(out: &mut String, facts: &LevelFacts) {
    let count = counted(facts.commands.len(), "command");
    let _ = writeln!(out, "level {}  {count}, of which none depends on another", facts.level);
    for command in &facts.commands {
        let mut line = called(command);
        for part in [&command.kernel, &command.place].into_iter().flatten() {
            let _ = write!(line, "  {part}");
        }
        let _ = writeln!(out, "  {line}");
    }
    transition_names(out, "transitions before it", &facts.transitions);
    let _ = writeln!(out, "  {} alive, {} bytes", counted(facts.alive.len(), "value"), facts.alive_bytes);
    tenants(out, &plain(&facts.alive[..facts.alive.len().min(NAMES)]));
    if facts.alive.len() > NAMES {
        let _ = writeln!(out, "    and {} more", facts.alive.len() - NAMES);
    }
    chain(out, &facts.chain);
}

fn names(out: &mut String, title: &str, commands: &[CommandName]) {
    if commands.is_empty() {
        return;
    }
    let shown: Vec<String> = commands.iter().take(NAMES).map(called).collect();
    let more = commands.len().saturating_sub(NAMES);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    wrapped(out, 2, &format!("{title}: {}{more}", shown.join(", ")));
}

fn transition_names(out: &mut String, title: &str, transitions: &[String]) {
    let list = if transitions.is_empty() { "none".to_owned() } else { transitions.join(" ") };
    wrapped(out, 2, &format!("{title}: {list}"));
}

/// `slot2 (buf57, slot)`.
fn buffer_text(buffer: &BufferName) -> String {
    format!("{} ({}, {})", buffer.label, buffer.id, buffer.kind)
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// A sentence on lines of at most [`COLUMNS`], those after the first two further in.
fn wrapped(out: &mut String, indent: usize, text: &str) {
    let mut line = " ".repeat(indent);
    let mut is_empty = true;
    for word in text.split(' ') {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            let _ = writeln!(out, "{line}");
            line = " ".repeat(indent + 2);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    let _ = writeln!(out, "{line}");
}
