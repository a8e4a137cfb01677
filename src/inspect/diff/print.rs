//! A comparison as text: figures first, then ops, then transitions, in aligned columns.
//!
//! Gets a [`Diff`] and what the plans are called, returns lines. Ops that the same place of a graph asked for, in every
//! layer, are one line with their number. Lists are cut where nobody would read on; the JSON form has all of them.

use std::fmt::Write;

use crate::inspect::diff::{Change, ChangedOp, Diff, LoneTransition, Op};

/// Lines of a list before it is cut.
const MAX_LINES: usize = 40;

/// The comparison; `names` are those of the plans' files or graphs.
pub fn text(diff: &Diff, names: [&str; 2]) -> String {
    let mut out = String::new();
    let wide = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (letter, (name, head)) in ["A", "B"].iter().zip(names.iter().zip(&diff.plans)) {
        let shape = head.shape;
        let _ = writeln!(
            out,
            "{letter}  {name:wide$}  graph {}  T={} S={} R={} B={}",
            head.graph, shape.tokens, shape.sequences, shape.rows, shape.capacity
        );
    }
    metrics(&mut out, diff);
    if diff.is_same() {
        out.push_str("\nsame: nothing differs but names\n");
        return out;
    }
    ops(&mut out, "ops only in A", &diff.only_a);
    ops(&mut out, "ops only in B", &diff.only_b);
    changed(&mut out, &diff.changed);
    transitions(&mut out, "transitions only in A", &diff.transitions_a);
    transitions(&mut out, "transitions only in B", &diff.transitions_b);
    let lists = [
        ("slots", &diff.slots),
        ("weights", &diff.weights),
        ("state", &diff.state),
        ("host", &diff.host),
        ("limits", &diff.limits),
    ];
    for (title, list) in lists {
        // Tensors of all layers that changed alike are one line.
        let rows = groups(list, |change| (change.a.clone(), change.b.clone())).into_iter().map(|((a, b), members)| {
            let names: Vec<&str> = members.iter().map(|change| change.what.as_str()).collect();
            let or = |text: Option<String>| text.unwrap_or_else(|| "-".into());
            vec![format!("{}x", members.len()), span(&names), or(a), "->".into(), or(b)]
        });
        table(&mut out, &format!("{title}: {} differ", list.len()), rows.collect());
    }
    out
}

/// The figures with what changed; those of size that stayed are left out where both plans are of one size.
fn metrics(out: &mut String, diff: &Diff) {
    let mut rows = vec![vec![String::new(), "A".into(), "B".into(), "change".into()]];
    for metric in &diff.metrics {
        let is_size = ["tokens", "sequences", "rows", "capacity"].contains(&metric.name);
        if is_size && metric.a == metric.b {
            continue;
        }
        rows.push(vec![metric.name.into(), metric.a.to_string(), metric.b.to_string(), change(metric.a, metric.b)]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..3).map(width).collect();
    out.push('\n');
    for row in &rows {
        let (name, a, b) = (widths[0], widths[1], widths[2]);
        let line = format!("{:<name$}  {:>a$}  {:>b$}  {}", row[0], row[1], row[2], row[3]);
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// As in `+12 (+4.5%)`; nothing where nothing changed.
fn change(a: u64, b: u64) -> String {
    if a == b {
        return String::new();
    }
    let sign = if b > a { '+' } else { '-' };
    let by = a.abs_diff(b);
    match a {
        0 => format!("{sign}{by}"),
        _ => format!("{sign}{by} ({sign}{:.1}%)", by as f64 / a as f64 * 100.0),
    }
}

/// Rows below a title, in columns.
fn table(out: &mut String, title: &str, rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{title}");
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let shown = &rows[..rows.len().min(MAX_LINES)];
    let width = |column: usize| {
        let cells = shown.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in shown {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(out, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    if rows.len() > MAX_LINES {
        let _ = writeln!(out, "  … and {} more lines; `--format json` has all of them", rows.len() - MAX_LINES);
    }
}

fn workgroups(op: &Op) -> String {
    op.workgroups.map_or_else(String::new, |[x, y, z]| format!("{x} x {y} x {z}"))
}

/// The first and the last of several labels.
fn span(labels: &[&str]) -> String {
    match labels {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first, .., last] => format!("{first} … {last}"),
    }
}

/// Groups by a key, in the order of first appearance.
fn groups<T, K: PartialEq>(all: &[T], key: impl Fn(&T) -> K) -> Vec<(K, Vec<&T>)> {
    let mut found: Vec<(K, Vec<&T>)> = Vec::new();
    for one in all {
        let this = key(one);
        match found.iter_mut().find(|(other, _)| *other == this) {
            Some((_, members)) => members.push(one),
            None => found.push((this, vec![one])),
        }
    }
    found
}

fn ops(out: &mut String, title: &str, list: &[Op]) {
    let key = |op: &Op| (op.kernel.clone(), op.workgroups, op.place.clone());
    let rows = groups(list, key).into_iter().map(|((kernel, _, place), members)| {
        let labels: Vec<&str> = members.iter().map(|op| op.label.as_str()).collect();
        vec![format!("{}x", members.len()), span(&labels), kernel, workgroups(members[0]), place]
    });
    table(out, &format!("{title}: {}", list.len()), rows.collect());
}

/// Changed ops; those of one place that changed in the same respects are one line, with the values of the first.
fn changed(out: &mut String, list: &[ChangedOp]) {
    let key = |op: &ChangedOp| {
        let whats: Vec<String> = op.changes.iter().map(|change| change.what.clone()).collect();
        (op.a.place.clone(), op.b.place.clone(), whats)
    };
    let rows = groups(list, key).into_iter().map(|((place, ..), members)| {
        let labels: Vec<&str> = members.iter().map(|op| op.b.label.as_str()).collect();
        let texts = members[0].changes.iter().map(|Change { what, a, b }| match (a, b) {
            (Some(a), Some(b)) if a == b => format!("{what} `{a}`"),
            (a, b) => format!("{what} {} -> {}", a.as_deref().unwrap_or("-"), b.as_deref().unwrap_or("-")),
        });
        let texts: Vec<String> = texts.collect();
        vec![format!("{}x", members.len()), span(&labels), members[0].a.kernel.clone(), texts.join(", "), place]
    });
    table(out, &format!("ops changed: {}", list.len()), rows.collect());
}

fn transitions(out: &mut String, title: &str, list: &[LoneTransition]) {
    let rows = list.iter().map(|transition| {
        vec![
            format!("b{}", transition.level),
            transition.buffer.clone(),
            format!("{} -> {}", transition.from, transition.to),
            transition.reason.clone(),
        ]
    });
    table(out, &format!("{title}: {}", list.len()), rows.collect());
}
