//! A plan as one HTML file that draws it: levels, commands, transitions, slots.
//!
//! Gets a plan, returns a page that needs nothing else: the style, the script and the plan's data lie in it, and its
//! content policy forbids it to load anything. What holds then: equal plans give equal pages; every text of the plan
//! stands in the data once, and none of it can end the element that holds it. Never draws: `html/view.js` does, from
//! the numbers given here.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::plan::command::{BufferId, BufferKind, Command, Slice, Transition};
use crate::plan::reasons::{Party, Reasons, Use};
use crate::plan::{Plan, ValuePlace};

const PAGE: &str = include_str!("html/page.html");
const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/view.js");

/// The page.
pub fn html(plan: &Plan) -> String {
    let shape = plan.shape;
    let title = format!("{} T={} S={}", plan.graph, shape.tokens, shape.sequences);
    // Any `<` might open an element or a comment; in JSON it can be written so that it does not.
    let data = data(plan).to_string().replace('<', "\\u003c");
    let mut out = String::with_capacity(data.len() + PAGE.len() + STYLE.len() + SCRIPT.len());
    // The page is cut at its marks, never searched again: data may look like a mark.
    let mut rest = PAGE;
    for (mark, text) in
        [("@TITLE@", escaped(&title).as_str()), ("@STYLE@", STYLE), ("@DATA@", data.as_str()), ("@SCRIPT@", SCRIPT)]
    {
        let (before, after) = rest.split_once(mark).expect("the page has each mark, in this order");
        out.push_str(before);
        out.push_str(text);
        rest = after;
    }
    out.push_str(rest);
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Texts by number, each once.
#[derive(Default)]
struct Texts {
    list: Vec<String>,
    numbers: HashMap<String, usize>,
}

impl Texts {
    fn number(&mut self, text: impl ToString) -> usize {
        let text = text.to_string();
        if let Some(number) = self.numbers.get(&text) {
            return *number;
        }
        self.list.push(text.clone());
        self.numbers.insert(text, self.list.len() - 1);
        self.list.len() - 1
    }
}

/// The plan as the script reads it: lists of numbers, and the texts that they number.
fn data(plan: &Plan) -> Value {
    let mut texts = Texts::default();
    let mut buffers = Vec::new();
    for buffer in plan.buffers.values() {
        let (label, kind, rest) =
            (texts.number(&buffer.label), texts.number(kind(buffer.kind)), texts.number(buffer.rest));
        buffers.push(json!([label, kind, buffer.size_bytes, rest]));
    }
    let mut kernels = Vec::new();
    for kernel in plan.kernels.values() {
        let ports: Vec<usize> = kernel.bindings.iter().map(|binding| texts.number(&binding.label)).collect();
        kernels.push(json!([texts.number(&kernel.label), kernel.workgroup_size, ports]));
    }
    let mut values = Vec::new();
    for value in &plan.values {
        let of = texts.number(format!("{} {:?}", value.dtype, value.shape));
        let (path, buffer) = (texts.number(&value.path), value.buffer.index());
        let lives = [value.first_level, value.last_level];
        values.push(json!([path, of, buffer, value.offset_bytes, value.size_bytes, lives]));
    }
    let commands = commands(plan, &mut texts);
    let transitions = transitions(plan, &mut texts);
    let shape = plan.shape;
    json!({
        "graph": texts.number(&plan.graph),
        "shape": [shape.tokens, shape.sequences, shape.rows, shape.capacity],
        "summary": figures(plan),
        "levels": plan.levels.len(),
        "buffers": buffers,
        "kernels": kernels,
        "values": values,
        "commands": commands,
        "transitions": transitions,
        "texts": texts.list,
    })
}

fn figures(plan: &Plan) -> Value {
    let summary = plan.summary();
    json!([
        ["dispatches", summary.dispatches],
        ["levels", summary.levels],
        ["barriers", summary.barriers],
        ["transitions", summary.transitions],
        ["pipelines", summary.pipelines],
        ["slots", summary.slots],
        ["bytes in slots", summary.slot_bytes],
        ["bytes of weights", summary.weight_bytes],
    ])
}

fn commands(plan: &Plan, texts: &mut Texts) -> Vec<Value> {
    let mut places: HashMap<BufferId, Vec<(usize, &ValuePlace)>> = HashMap::new();
    for (nth, value) in plan.values.iter().enumerate() {
        places.entry(value.buffer).or_default().push((nth, value));
    }
    let mut commands = Vec::new();
    for (level, number) in plan.levels.iter().zip(0_u32..) {
        // The value that lies in a slice at this level, or -1.
        let value = |slice: &Slice| {
            let lives = |value: &ValuePlace| {
                let bytes = value.offset_bytes..value.offset_bytes.saturating_add(value.size_bytes);
                bytes.contains(&slice.offset_bytes) && (value.first_level..=value.last_level).contains(&number)
            };
            let found = places.get(&slice.buffer).into_iter().flatten().find(|(_, value)| lives(value));
            found.map_or(-1, |(nth, _)| *nth as i64)
        };
        let port = |slice: &Slice, mode: u32| {
            json!([slice.buffer.index(), slice.offset_bytes, slice.size_bytes, mode, value(slice)])
        };
        for command in &level.commands {
            let label = texts.number(command.label());
            commands.push(match command {
                Command::Dispatch(dispatch) => {
                    let bindings = &plan.kernels[dispatch.kernel].bindings;
                    let ports: Vec<Value> = dispatch
                        .bindings
                        .iter()
                        .zip(bindings)
                        .map(|(slice, binding)| port(slice, u32::from(binding.reads) + 2 * u32::from(binding.writes)))
                        .collect();
                    let place = texts.number(&dispatch.place);
                    json!([number, label, dispatch.kernel.index(), place, dispatch.workgroups, ports])
                }
                Command::Copy(copy) => json!([number, label, -1, -1, [], [port(&copy.from, 1), port(&copy.to, 2)]]),
            });
        }
    }
    commands
}

fn transitions(plan: &Plan, texts: &mut Texts) -> Vec<Value> {
    let reasons = Reasons::new(plan);
    let mut firsts = vec![0];
    for level in &plan.levels {
        firsts.push(firsts[firsts.len() - 1] + level.commands.len());
    }
    // Who it is, and which command.
    let party = |party: Party| {
        let command = |found: Use| (firsts[found.level] + found.index) as i64;
        match party {
            Party::Command(found) => (0, command(found)),
            Party::StepBefore(found) => (1, command(found)),
            Party::Host => (2, -1),
            Party::Elsewhere => (3, -1),
        }
    };
    let mut list = Vec::new();
    let mut add = |level: usize, transition: &Transition| {
        let reason = reasons.of(plan, level, transition);
        let (from, to) = (texts.number(transition.from), texts.number(transition.to));
        let (before, after) = (party(reason.before), party(reason.after));
        let verbs = u32::from(reason.before_writes) + 2 * u32::from(reason.after_writes);
        let hazard = texts.number(reason.hazard);
        list.push(json!([
            level,
            transition.buffer.index(),
            from,
            to,
            hazard,
            before.0,
            before.1,
            after.0,
            after.1,
            verbs
        ]));
    };
    for (number, level) in plan.levels.iter().enumerate() {
        level.barrier.iter().for_each(|transition| add(number, transition));
    }
    plan.leave.iter().for_each(|transition| add(plan.levels.len(), transition));
    list
}

fn kind(kind: BufferKind) -> &'static str {
    match kind {
        BufferKind::Weight { .. } => "weights",
        BufferKind::State { .. } => "state",
        BufferKind::Slot => "slot",
        BufferKind::Input => "input",
        BufferKind::HostWrite => "host writes",
        BufferKind::HostRead => "host reads",
    }
}
