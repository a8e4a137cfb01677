//! A profile as a file that trace viewers open: Chrome's, and Perfetto.
//!
//! Gets a profile with the steps of its last round, returns JSON in the trace event format. What holds then: spans of
//! one track follow or contain each other, and times are microseconds. The device's clock and the host's are not the
//! same: they are joined where the first step shown begins, right behind its submission, which is the earliest it can.
//! Never shows more than a few steps.

use serde_json::{Value, json};

use crate::exec::times::{HostSpan, HostWork, StepLog, StepTimes};
use crate::inspect::profile::{Profile, Profiled};

/// Steps shown: two in flight, and what comes before and after.
const STEPS: usize = 4;

/// What viewers call a process: steps timed in one way, or the host.
const BY_LEVEL: u32 = 1;
const BY_COMMAND: u32 = 2;
const HOST: u32 = 3;

/// The trace of a profile.
pub fn trace(profiled: &Profiled) -> Value {
    let Profiled { profile, by_level, by_command } = profiled;
    let mut events = vec![
        name("process_name", BY_LEVEL, 0, "device, timed by level"),
        name("thread_name", BY_LEVEL, 1, "steps"),
        name("thread_name", BY_LEVEL, 2, "levels"),
        name("process_name", BY_COMMAND, 0, "device, timed by command (one after the other)"),
        name("thread_name", BY_COMMAND, 1, "levels"),
        name("thread_name", BY_COMMAND, 2, "commands"),
        name("process_name", HOST, 0, "host, of the steps timed by level"),
        name("thread_name", HOST, 1, "record"),
        name("thread_name", HOST, 2, "submit"),
    ];
    events.extend(levels(profile, by_level));
    events.extend(host(profile, by_level));
    events.extend(by_command.steps.last().into_iter().flat_map(|step| commands(profile, step)));
    json!({
        "displayTimeUnit": "ns",
        "otherData": {"device": profile.device, "driver": profile.driver, "graph": profile.graph},
        "traceEvents": events,
    })
}

/// What a process or a thread is called.
fn name(what: &str, pid: u32, tid: u32, name: &str) -> Value {
    json!({"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}})
}

/// A span of a track; begin and end in nanoseconds.
fn span((pid, tid): (u32, u32), name: &str, (begin_ns, end_ns): (u64, u64), args: Value) -> Value {
    let us = |ns: u64| ns as f64 / 1e3;
    json!({
        "ph": "X", "cat": "step", "name": name, "pid": pid, "tid": tid,
        "ts": us(begin_ns), "dur": us(end_ns - begin_ns), "args": args,
    })
}

/// A step's moments as spans, from a beginning.
fn parts(step: &StepTimes, zero_ns: u64) -> impl Iterator<Item = (u64, u64)> {
    step.moments_ns.windows(2).map(move |pair| (pair[0] - zero_ns, pair[1] - zero_ns))
}

fn first_moment(log: &StepLog) -> u64 {
    log.steps.first().and_then(|step| step.moments_ns.first()).copied().unwrap_or(0)
}

fn levels(profile: &Profile, log: &StepLog) -> Vec<Value> {
    let zero_ns = first_moment(log);
    let mut events = Vec::new();
    for (number, step) in log.steps.iter().take(STEPS).enumerate() {
        if let (Some((begin, _)), Some((_, end))) = (parts(step, zero_ns).next(), parts(step, zero_ns).last()) {
            events.push(span((BY_LEVEL, 1), &format!("step {number}"), (begin, end), json!({})));
        }
        for (level, part) in profile.levels.iter().zip(parts(step, zero_ns)) {
            let args = json!({
                "level": level.level, "bytes": level.roofline.bytes, "commands": level.commands.len(),
                "median_us": level.roofline.us, "bandwidth_share": level.roofline.bandwidth_share,
            });
            events.push(span((BY_LEVEL, 2), &level.pattern, part, args));
        }
        let leave = parts(step, zero_ns).last();
        events.extend(leave.map(|part| span((BY_LEVEL, 2), "leaving barrier", part, json!({}))));
    }
    events
}

/// What the host did for the steps shown, on a clock that ends the first submission where the first step begins.
fn host(profile: &Profile, log: &StepLog) -> Vec<Value> {
    let submits = || log.host.iter().filter(|span| span.work == HostWork::Submit);
    let (Some(first), Some(last)) = (submits().next(), submits().take(STEPS).last()) else { return Vec::new() };
    // An executor that never records runs a step while it submits it.
    let joined = first.began + std::time::Duration::from_nanos(if profile.record_us > 0.0 { first.ns } else { 0 });
    let us = |span: &HostSpan| match span.began.checked_duration_since(joined) {
        Some(after) => after.as_nanos() as f64 / 1e3,
        None => -(joined.duration_since(span.began).as_nanos() as f64 / 1e3),
    };
    let event = |span: &HostSpan| {
        let (name, tid) = match span.work {
            HostWork::Record => ("record", 1),
            HostWork::Submit => ("submit", 2),
        };
        json!({
            "ph": "X", "cat": "host", "name": name, "pid": HOST, "tid": tid, "ts": us(span),
            "dur": span.ns as f64 / 1e3, "args": {},
        })
    };
    log.host.iter().filter(|span| span.began <= last.began).map(event).collect()
}

/// One step, its commands one after the other.
fn commands(profile: &Profile, step: &StepTimes) -> Vec<Value> {
    let zero_ns = step.moments_ns.first().copied().unwrap_or(0);
    let mut parts = parts(step, zero_ns);
    let mut events = Vec::new();
    for level in &profile.levels {
        let mut whole: Option<(u64, u64)> = None;
        for (command, part) in level.commands.iter().zip(parts.by_ref()) {
            whole = Some((whole.map_or(part.0, |(begin, _)| begin), part.1));
            let args = json!({
                "name": command.name, "kernel": command.kernel, "bytes": command.roofline.bytes,
                "median_us": command.roofline.us, "bandwidth_share": command.roofline.bandwidth_share,
            });
            events.push(span((BY_COMMAND, 2), &command.label, part, args));
        }
        let args = json!({"level": level.level});
        events.extend(whole.map(|part| span((BY_COMMAND, 1), &level.pattern, part, args)));
    }
    events
}
