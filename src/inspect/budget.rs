//! Budgets: what a plan may cost, as a file that a check in CI reads.
//!
//! Gets the text of a budget and plans, returns the limits that a plan exceeds, each with its place in the file. What
//! holds then: every step of the file that fits the plan's size was looked at, and one that limits nothing is refused,
//! as is a plan of which the file says nothing. Never says what a plan should cost: a budget may be generous.

use std::fmt;

use serde::de::{Deserialize, Deserializer};

use crate::base::diag::Diagnostic;
use crate::base::raw::{Raw, Reader};
use crate::base::role::OutputRole;
use crate::base::span::{SourceId, SourceMap, Span};
use crate::base::step::StepShape;
use crate::plan::Plan;

/// A budget file.
#[derive(Clone, Debug)]
pub struct Budget {
    /// The graph that it is for, if it names one.
    pub graph: Option<String>,
    /// What steps of one size may cost, in file order.
    pub steps: Vec<StepBudget>,
}

/// What a step may cost.
#[derive(Clone, Debug)]
pub struct StepBudget {
    /// Where the file says so.
    pub span: Span,
    /// Tokens of the step; any number if nothing.
    pub tokens: Option<u32>,
    /// Sequences of the step; any number if nothing.
    pub sequences: Option<u32>,
    /// Whether it is a step that draws the next tokens.
    pub draws: bool,
    /// The limits: what is counted, in the words of `compile --emit summary`, and how much of it there may be.
    pub limits: Vec<(&'static str, u64)>,
}

/// A limit that a plan exceeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// What is counted.
    pub name: &'static str,
    /// How much of it the plan has.
    pub found: u64,
    /// How much it may have.
    pub limit: u64,
    /// Where the file says so.
    pub span: Span,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, found, limit, .. } = self;
        write!(f, "{name} {found}, at most {limit}: {} too many", found - limit)
    }
}

/// The grammar of a file.
#[derive(serde::Deserialize)]
#[serde(rename = "Budget", deny_unknown_fields)]
struct FileSyntax<'a> {
    #[serde(default, deserialize_with = "plain")]
    graph: Option<String>,
    #[serde(borrow)]
    steps: Vec<Raw<'a>>,
}

/// The grammar of one of its steps.
#[derive(Default, serde::Deserialize)]
#[serde(rename = "Step", deny_unknown_fields, default)]
struct StepSyntax {
    #[serde(deserialize_with = "plain")]
    tokens: Option<u32>,
    #[serde(deserialize_with = "plain")]
    sequences: Option<u32>,
    draws: bool,
    #[serde(deserialize_with = "plain")]
    dispatches: Option<u64>,
    #[serde(deserialize_with = "plain")]
    copies: Option<u64>,
    #[serde(deserialize_with = "plain")]
    levels: Option<u64>,
    #[serde(deserialize_with = "plain")]
    barriers: Option<u64>,
    #[serde(deserialize_with = "plain")]
    transitions: Option<u64>,
    #[serde(deserialize_with = "plain")]
    pipelines: Option<u64>,
    #[serde(deserialize_with = "plain")]
    slots: Option<u64>,
    #[serde(deserialize_with = "plain")]
    slot_bytes: Option<u64>,
    #[serde(deserialize_with = "plain")]
    weight_bytes: Option<u64>,
    #[serde(deserialize_with = "plain")]
    state_bytes: Option<u64>,
}

/// A value that may be left out, written without `Some`.
fn plain<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Reads a budget.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(sources: &SourceMap, source: SourceId) -> Result<Budget, Vec<Diagnostic>> {
    let mut reader = Reader::new(sources, source);
    let Some(file) = reader.file::<FileSyntax<'_>>() else { return Err(reader.diagnostics) };
    let mut steps = Vec::new();
    for raw in &file.steps {
        let span = reader.span(raw);
        let Some(found) = reader.node::<StepSyntax>(raw) else { continue };
        let limits = [
            ("dispatches", found.dispatches),
            ("copies", found.copies),
            ("levels", found.levels),
            ("barriers", found.barriers),
            ("transitions", found.transitions),
            ("pipelines", found.pipelines),
            ("slots", found.slots),
            ("slot_bytes", found.slot_bytes),
            ("weight_bytes", found.weight_bytes),
            ("state_bytes", found.state_bytes),
        ];
        let limits: Vec<_> = limits.into_iter().filter_map(|(name, limit)| Some((name, limit?))).collect();
        for (name, size) in [("tokens", found.tokens), ("sequences", found.sequences)] {
            if size.is_some_and(|size| !(1..=65535).contains(&size)) {
                reader.diagnostics.push(Diagnostic::error(span, format!("`{name}` is not in 1..=65535")));
            }
        }
        if limits.is_empty() {
            let note = "expected at least one of dispatches, copies, levels, barriers, transitions, pipelines, slots, \
                        slot_bytes, weight_bytes, state_bytes";
            reader.diagnostics.push(Diagnostic::error(span, "this step limits nothing").note(note));
        }
        let StepSyntax { tokens, sequences, draws, .. } = found;
        steps.push(StepBudget { span, tokens, sequences, draws, limits });
    }
    if file.steps.is_empty() {
        let text = &sources.source(source).text;
        let whole = Span::new(source, 0..text.len());
        reader.diagnostics.push(Diagnostic::error(whole, "this budget has no steps, so everything would keep to it"));
    }
    if reader.diagnostics.is_empty() { Ok(Budget { graph: file.graph, steps }) } else { Err(reader.diagnostics) }
}

impl StepBudget {
    /// Whether it is about steps of this plan's size and kind.
    pub fn is_for(&self, plan: &Plan) -> bool {
        let StepShape { tokens, sequences, .. } = plan.shape;
        self.tokens.is_none_or(|wanted| wanted == tokens)
            && self.sequences.is_none_or(|wanted| wanted == sequences)
            && self.draws == draws(plan)
    }
}

/// Whether a plan's steps draw the next tokens.
pub fn draws(plan: &Plan) -> bool {
    plan.outputs.iter().any(|output| output.role == OutputRole::NextToken)
}

impl Budget {
    /// The limits that a plan exceeds, and how many were looked at.
    ///
    /// # Errors
    /// If the budget is for another graph, or says nothing of steps of this size and kind.
    pub fn check(&self, plan: &Plan) -> Result<(Vec<Exceeded>, usize), String> {
        if let Some(graph) = self.graph.as_ref().filter(|graph| **graph != plan.graph) {
            return Err(format!("the budget is for the graph `{graph}`, the plan is of `{}`", plan.graph));
        }
        let StepShape { tokens, sequences, .. } = plan.shape;
        let steps: Vec<&StepBudget> = self.steps.iter().filter(|step| step.is_for(plan)).collect();
        if steps.is_empty() {
            let kind = if draws(plan) { " that draws" } else { "" };
            return Err(format!("the budget says nothing of a step with T={tokens} S={sequences}{kind}"));
        }
        let summary = serde_json::to_value(plan.summary()).expect("a summary holds nothing that JSON cannot");
        let mut exceeded = Vec::new();
        let mut count = 0;
        for step in steps {
            count += step.limits.len();
            exceeded.extend(step.limits.iter().filter_map(|(name, limit)| {
                let found = summary[name].as_u64().expect("limits have names of figures");
                (found > *limit).then_some(Exceeded { name, found, limit: *limit, span: step.span })
            }));
        }
        Ok((exceeded, count))
    }
}
