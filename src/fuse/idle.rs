//! Rules that nothing can be for.
//!
//! Gets rules and the graphs that there are, returns a lint for each rule whose pattern has an op that stands in none
//! of
//! them. What holds then: a rule that is named is never applied, whatever the checkpoint; one that is not may be idle
//! all the same, since ops that are there need not stand together. Never builds a model.

use std::collections::BTreeSet;

use crate::base::diag::Diagnostic;
use crate::base::span::Span;
use crate::fuse::rule::{Action, Rule, Rules, canonical};
use crate::graph::{Graph, Node};

/// A lint for each rule of which no graph has all ops, those counted that other rules put in.
pub fn idle(rules: &Rules, graphs: &[Graph]) -> Vec<Diagnostic> {
    let graphs: Vec<BTreeSet<Action>> = graphs
        .iter()
        .map(|graph| {
            let mut found = BTreeSet::new();
            actions(&graph.ops, &mut found);
            found
        })
        .collect();
    let missing = |rule: &&Rule| {
        let others = rules.iter().filter(|other| other.name != rule.name).flat_map(|other| &other.replacement);
        let put_in: BTreeSet<&Action> = others.map(|step| &step.action).collect();
        let has_all = |graph: &BTreeSet<Action>| {
            rule.pattern.iter().all(|step| graph.contains(&step.action) || put_in.contains(&step.action))
        };
        !graphs.iter().any(has_all)
    };
    let lint = |rule: &Rule| {
        let span = Span { end: rule.span.start + 1, ..rule.span };
        Diagnostic::lint(span, format!("rule `{}` is never applied to the graphs checked", rule.name))
            .note("none of them has all ops of its pattern")
    };
    rules.iter().filter(missing).map(lint).collect()
}

/// What a list of ops does, in any branch.
fn actions(list: &[Node], found: &mut BTreeSet<Action>) {
    for node in list {
        match node {
            Node::Op { kernel, .. } => drop(found.insert(Action::Kernel(kernel.text.clone()))),
            Node::Map { expr, args, .. } => {
                let operands: Vec<&str> = args.iter().map(|(name, _)| name.text.as_str()).collect();
                found.insert(Action::Map(canonical(&expr.text, &operands).0));
            }
            Node::ForEach { body, .. } => actions(body, found),
            Node::If { then, otherwise, .. } => {
                actions(then, found);
                actions(otherwise, found);
            }
            Node::Let { .. } => {}
        }
    }
}
