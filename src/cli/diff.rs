//! `graphc diff`: two plans, or one plan and a budget.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::base::diag::Diagnostic;
use crate::base::span::SourceMap;
use crate::base::step::StepShape;
use crate::cli::compile::{PlanArgs, compile, flags_for_graphs, target, verified};
use crate::cli::input::{self, Input};
use crate::cli::{Failure, Format, ModelArgs, files, plans, print_result, rendered};
use crate::inspect::budget::{self, Budget};
use crate::inspect::diff::{self, print};
use crate::plan::CheckedPlan;

/// A budget larger than this is none.
const MAX_BUDGET_BYTES: u64 = 1 << 20;

#[derive(Args, Debug)]
#[command(mut_arg("graph", |arg| arg.index(1).value_name("A").help(
    "A plan file, or a graph to compile: a file, or the name of one that is built in [default: found by the \
     checkpoint's tensor names]"
)))]
pub(super) struct DiffArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// What to compare it with, likewise
    #[arg(index = 2, value_name = "B", conflicts_with = "budget")]
    other: Option<String>,
    /// Say which limits of this file A exceeds, instead of comparing it with another; a graph is compiled for each step
    /// that the file names, unless `--tokens`, `--sequences` or `--draws` say for which
    #[arg(long, value_name = "FILE")]
    budget: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(args: DiffArgs) -> Result<(), Failure> {
    match (&args.budget, &args.other) {
        (Some(path), _) => keep_to(&args, path),
        (None, Some(other)) => compare(&args, other),
        (None, None) => {
            Err(Failure::Environment("nothing to compare with: expected a second plan or `--budget FILE`".into()))
        }
    }
}

/// A plan, or what one can be compiled from.
enum Side {
    Plan(Box<CheckedPlan>),
    Graph(Box<Input>),
}

impl DiffArgs {
    fn side(&self, graph: Option<&str>) -> Result<Side, Failure> {
        if let Some(file) = graph.map(plans::read_file).transpose()?.flatten() {
            return Ok(Side::Plan(Box::new(verified(graph.unwrap_or_default(), file)?)));
        }
        let model = ModelArgs { graph: graph.map(str::to_owned), ..self.model.clone() };
        Ok(Side::Graph(Box::new(input::read(&model)?)))
    }

    /// Compiles a graph for the step that the flags ask for, or for `tokens` and `sequences` where they do not say.
    fn compile(&self, input: &mut Input, (tokens, sequences, draws): Step) -> Result<CheckedPlan, Failure> {
        let plan = PlanArgs {
            tokens: self.plan.tokens.or(tokens),
            sequences: self.plan.sequences.or(sequences),
            draws: self.plan.draws || draws,
            ..self.plan.clone()
        };
        let target = target(plan.target.as_deref())?;
        Ok(compile(input, &self.model, &plan, &target)?.plan)
    }

    /// That no flag is given that only the compiling of a graph looks at.
    fn are_plans_alone(&self) -> Result<(), Failure> {
        let idle = flags_for_graphs(&self.model, &self.plan).join(", ");
        match idle.is_empty() {
            true => Ok(()),
            false => Err(Failure::Environment(format!(
                "plan files are taken as they are: {idle} would change nothing without a graph"
            ))),
        }
    }
}

/// Tokens and sequences of a step, where something says so, and whether it draws.
type Step = (Option<u32>, Option<u32>, bool);

fn compare(args: &DiffArgs, other: &str) -> Result<(), Failure> {
    let sides = [args.side(args.model.graph.as_deref())?, args.side(Some(other))?];
    if sides.iter().all(|side| matches!(side, Side::Plan(_))) {
        args.are_plans_alone()?;
    }
    let [a, b] = sides.map(|side| match side {
        Side::Plan(plan) => Ok(*plan),
        Side::Graph(mut input) => args.compile(&mut input, (None, None, false)),
    });
    let (a, b) = (a?, b?);
    let found = diff::diff(&a, &b);
    let names = [args.model.graph.as_deref().unwrap_or(&a.graph), other];
    print_result(&match args.format {
        Format::Text => print::text(&found, names),
        Format::Json => {
            let mut json = serde_json::to_value(&found).expect("a comparison holds nothing that JSON cannot");
            json["same"] = found.is_same().into();
            format!("{json:#}\n")
        }
    })?;
    if found.is_same() { Ok(()) } else { Err(Failure::Diagnostics(String::new())) }
}

/// What a plan costs beside a budget.
struct Verdict {
    plan: String,
    shape: StepShape,
    draws: bool,
    exceeded: Vec<budget::Exceeded>,
    limits: usize,
}

fn keep_to(args: &DiffArgs, path: &Path) -> Result<(), Failure> {
    let text = files::utf8(path, files::read(path, "a budget", MAX_BUDGET_BYTES)?)?;
    let mut map = SourceMap::new();
    let source = map.add(path.display().to_string(), text);
    let budget = budget::parse(&map, source).map_err(|found| Failure::Diagnostics(rendered(&found, &map)))?;
    let mut verdicts: Vec<Verdict> = Vec::new();
    for plan in compiled(args, &budget)? {
        let wrong = |reason| Failure::Diagnostics(rendered(&[Diagnostic::placeless(reason)], &map));
        let (exceeded, limits) = budget.check(&plan).map_err(wrong)?;
        let draws = budget::draws(&plan);
        verdicts.push(Verdict { plan: plan.graph.clone(), shape: plan.shape, draws, exceeded, limits });
    }
    print_result(&match args.format {
        Format::Text => verdicts.iter().map(|verdict| verdict.text(&map)).collect(),
        Format::Json => {
            let list: Vec<_> = verdicts.iter().map(|verdict| verdict.json(&map)).collect();
            format!("{:#}\n", serde_json::Value::from(list))
        }
    })?;
    let is_kept = verdicts.iter().all(|verdict| verdict.exceeded.is_empty());
    if is_kept { Ok(()) } else { Err(Failure::Diagnostics(String::new())) }
}

/// The plan, or the plans of each step that a budget names.
fn compiled(args: &DiffArgs, budget: &Budget) -> Result<Vec<CheckedPlan>, Failure> {
    let mut input = match args.side(args.model.graph.as_deref())? {
        Side::Plan(plan) => {
            args.are_plans_alone()?;
            return Ok(vec![*plan]);
        }
        Side::Graph(input) => input,
    };
    let mut steps: Vec<Step> = Vec::new();
    if args.plan.tokens.is_some() || args.plan.sequences.is_some() || args.plan.draws {
        steps.push((None, None, false));
    } else {
        for step in budget.steps.iter().map(|step| (step.tokens, step.sequences, step.draws)) {
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
    }
    steps.into_iter().map(|step| args.compile(&mut input, step)).collect()
}

impl Verdict {
    fn text(&self, map: &SourceMap) -> String {
        let StepShape { tokens, sequences, .. } = self.shape;
        let kind = if self.draws { " drawing" } else { "" };
        let name = format!("{} T={tokens} S={sequences}{kind}", self.plan);
        if self.exceeded.is_empty() {
            let plural = if self.limits == 1 { "" } else { "s" };
            return format!("{name}: keeps to {} limit{plural}\n", self.limits);
        }
        let lines =
            self.exceeded.iter().map(|exceeded| format!("{name}: {exceeded}  ({})\n", map.place(exceeded.span)));
        lines.collect()
    }

    fn json(&self, map: &SourceMap) -> serde_json::Value {
        let exceeded = self.exceeded.iter().map(|exceeded| {
            let budget::Exceeded { name, found, limit, .. } = exceeded;
            serde_json::json!({ "name": name, "found": found, "limit": limit, "place": map.place(exceeded.span) })
        });
        let exceeded: Vec<_> = exceeded.collect();
        serde_json::json!({
            "graph": self.plan, "shape": self.shape, "draws": self.draws, "limits": self.limits, "exceeded": exceeded,
        })
    }
}
