//! A bisection as text for people.
//!
//! Gets a [`Report`] and what the sides are called, returns lines: what was run, the parting with its op and inputs,
//! the largest differences. What holds then: everything in the text is in the data; long lists are cut, and say so.
//! Never finds anything out.

use std::fmt::Write;

use crate::inspect::bisect::report::{InputFacts, InputFound, KindDifference, OpFacts, Parting, Report};

/// Rows of the table of differences, and paths named where sides differ in what they have.
const MOST_KINDS: usize = 24;
const MOST_PATHS: usize = 6;

/// The report for readers, with a name for each side.
pub fn text(report: &Report, names: [&str; 2]) -> String {
    let mut out = String::new();
    head(&mut out, report, names);
    match &report.parting {
        Some(parting) => tell(&mut out, parting),
        None => {
            let (values, tokens) = (count(report.values, "value"), count(report.tokens, "token"));
            let _ = writeln!(out, "\nnothing parts: {values} at {tokens}");
        }
    }
    kinds(&mut out, report);
    out
}

fn head(out: &mut String, report: &Report, names: [&str; 2]) {
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<11}{value}");
    };
    row("graph", &report.graph);
    for (side, (facts, name)) in ["A", "B"].into_iter().zip(report.sides.iter().zip(names)) {
        let steps = match facts.step_tokens {
            1 => "steps of 1 token".to_owned(),
            tokens => format!("steps of {tokens} tokens"),
        };
        row(side, &format!("{name}  on {}, {steps}", facts.device));
    }
    row("tokens", &report.tokens.to_string());
    row("values", &format!("{}, in {}", report.values, count(report.passes, "pass")));
    row("tolerance", &report.tolerance.to_string());
    if report.sides.iter().any(|side| side.is_plan) {
        row("note", "of a plan, what it gives can be seen: outputs, kept values and states after a step");
    }
    for (side, paths) in report.alone.iter().enumerate() {
        // Nobody expects a plan to give as much as a graph.
        if !paths.is_empty() && !report.sides[1 - side].is_plan {
            row("note", &format!("in {} alone: {}", ["A", "B"][side], listed(paths)));
        }
    }
    if !report.unlike.is_empty() {
        row("note", &format!("of other shapes: {}", listed(&report.unlike)));
    }
}

fn listed(paths: &[String]) -> String {
    let shown = paths[..paths.len().min(MOST_PATHS)].join(", ");
    match paths.len().saturating_sub(MOST_PATHS) {
        0 => shown,
        more => format!("{shown}, and {more} more"),
    }
}

fn tell(out: &mut String, parting: &Parting) {
    let Parting { value, token, token_id, .. } = parting;
    let when = if parting.is_after_step { "after" } else { "at" };
    let _ = writeln!(out, "\n{value} parts {when} token {token} (id {token_id})");
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(out, "  {name:<11}{value}");
    };
    if let Some(op) = &parting.op {
        row("op", &format!("{}  {}  {}", op.label, both(&op.kernel), both(&op.place)));
        if let Some(text) = kernel_text(op) {
            row("text", &text);
        }
        op.bound_apart.iter().for_each(|port| row("reads", port));
    }
    let [a, b] = parting.elements;
    let at: Vec<String> = parting.at.iter().map(usize::to_string).collect();
    let apart = match parting.difference {
        0.0 => "other bits of one number".to_owned(),
        difference => format!("{} apart", short(difference)),
    };
    row("element", &format!("[{}] of {}: {} in A, {} in B", at.join(", "), parting.shape, plain(a), plain(b)));
    let allowed = if parting.allowed == 0.0 { "none".to_owned() } else { short(parting.allowed) };
    row("difference", &format!("{apart}, {allowed} allowed, in a row up to {}", short(parting.scale)));
    if parting.steps[0] != parting.steps[1] {
        let [(begin_a, end_a), (begin_b, end_b)] = parting.steps;
        let (last_a, last_b) = (end_a - 1, end_b - 1);
        row("steps", &format!("of tokens {begin_a} to {last_a} in A, {begin_b} to {last_b} in B"));
    }
    let is_told = parting.op.is_some() && !parting.inputs.is_empty();
    if is_told {
        let mut found = parting.inputs.iter().map(|input| &input.found);
        let verdict = match found.clone().all(InputFound::is_within) {
            true => "all within tolerance, so it is this op that parts them",
            false if found.any(|found| matches!(found, InputFound::NotCompared)) => {
                "not all compared, so the op may be right"
            }
            false => "not all within tolerance, so the op may be right",
        };
        row("inputs", verdict);
        let width = |of: &dyn Fn(&InputFacts) -> usize| parting.inputs.iter().map(of).max().unwrap_or(0);
        let (ports, values) = (width(&|input| input.port.len()), width(&|input| input.value.len()));
        for InputFacts { port, value, found } in &parting.inputs {
            let _ = writeln!(out, "    {port:<ports$}  {value:<values$}  {}", found_text(found));
        }
    }
}

/// What is the same on both sides once, what is not twice.
fn both(texts: &[String; 2]) -> String {
    match texts {
        [a, b] if a == b => a.clone(),
        [a, b] => format!("{a} in A, {b} in B"),
    }
}

fn kernel_text(op: &OpFacts) -> Option<String> {
    let same = match op.has_same_text? {
        true => "the same on both sides",
        false => "not the same on both sides, or with other constants or formats",
    };
    Some(match &op.file {
        [Some(a), Some(b)] => format!("{}, {same}", both(&[a.clone(), b.clone()])),
        _ => same.to_owned(),
    })
}

fn found_text(found: &InputFound) -> String {
    match found {
        InputFound::Same => "the same bits".to_owned(),
        InputFound::Apart { difference, scale, is_within } => {
            let verdict = if *is_within { "" } else { ", beyond tolerance" };
            format!("{} apart, in a row up to {}{verdict}", short(*difference), short(*scale))
        }
        InputFound::NotCompared => "not compared, since it is not on both sides in one shape".to_owned(),
    }
}

fn kinds(out: &mut String, report: &Report) {
    let up_to = if report.parting.is_some() { " up to there" } else { "" };
    if report.kinds.is_empty() {
        let _ = writeln!(out, "\nevery bit{up_to} is the same");
        return;
    }
    // The largest of many, in the order of the graph.
    let mut shown: Vec<&KindDifference> = report.kinds.iter().collect();
    shown.sort_by(|a, b| b.difference.total_cmp(&a.difference));
    let least = shown.get(MOST_KINDS.min(shown.len()) - 1).map_or(0.0, |kind| kind.difference);
    let shown: Vec<&KindDifference> =
        report.kinds.iter().filter(|kind| kind.difference >= least).take(MOST_KINDS).collect();
    let _ = writeln!(out, "\nlargest differences{up_to}");
    let width = |of: &dyn Fn(&KindDifference) -> usize| shown.iter().map(|kind| of(kind)).max().unwrap_or(0);
    let (kinds, values) = (width(&|kind| kind.kind.len()), width(&|kind| kind.value.len()));
    for KindDifference { kind, value, token, difference, scale } in &shown {
        let _ = writeln!(
            out,
            "  {kind:<kinds$}  {:>9}  in a row up to {:<9}  {value:<values$}  token {token}",
            short(*difference),
            short(*scale)
        );
    }
    let cut = report.kinds.len() - shown.len();
    if cut > 0 {
        let _ = writeln!(out, "  and {} with smaller ones", count(cut, "kind"));
    }
    let same = report.kind_count - report.kinds.len();
    let _ = writeln!(
        out,
        "  {} of values {} the same bit for bit",
        count(same, "kind"),
        if same == 1 { "is" } else { "are" }
    );
}

/// A number in four digits.
fn short(number: f64) -> String {
    match number.abs() {
        size if size == 0.0 || !size.is_finite() => number.to_string(),
        size if (1e-3..1e5).contains(&size) => {
            let digits = (3 - size.log10().floor() as i32).max(0) as usize;
            format!("{number:.digits$}")
        }
        _ => format!("{number:.3e}"),
    }
}

/// A number as f32 writes it, which is what it is on both sides.
fn plain(number: f64) -> String {
    let narrow = number as f32;
    if f64::from(narrow) == number || number.is_nan() { format!("{narrow:?}") } else { number.to_string() }
}

fn count(number: usize, what: &str) -> String {
    let plural = match (number, what) {
        (1, _) => "",
        (_, "pass") => "es",
        _ => "s",
    };
    format!("{number} {what}{plural}")
}
