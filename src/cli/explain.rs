//! `graphc explain`: why one thing of a plan is as it is.

use std::path::Path;

use clap::Args;

use crate::cli::compile::{self, PlanArgs};
use crate::cli::{Failure, Format, ModelArgs, print_result};
use crate::inspect::explain::{explain, print};

#[derive(Args, Debug)]
#[command(
    override_usage = "graphc explain [OPTIONS] [PLAN|GRAPH] WHAT",
    after_help = "WHAT is a barrier (b12, leave), a transition (b12.3), a dispatch (d17), a level (level 12), a buffer \
                  (slot4, buf61), or a name as `compile --emit plan` prints it: the path of a value (layer3.wkv), an \
                  op, a state, a weight. Where a value and an op have one name, the value is meant; `op NAME` is the \
                  op."
)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// What to explain
    #[arg(value_name = "WHAT")]
    what: Vec<String>,
    #[command(flatten)]
    plan: PlanArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Kinds of things that are told with two words, as in `level 12`.
const TWO_WORDS: [&str; 6] = ["level", "op", "value", "buffer", "upload", "fetch"];

pub(super) fn run(mut args: ExplainArgs) -> Result<(), Failure> {
    let what = split(&mut args.model, args.what)?;
    let plan = compile::plan(&args.model, &args.plan)?;
    let found = explain(&plan, &what).map_err(Failure::environment)?;
    print_result(&match args.format {
        Format::Text => print(&found),
        Format::Json => compile::json(&found),
    })
}

/// Tells the graph, which may be left out, from what is asked about, which may be two words.
fn split(model: &mut ModelArgs, what: Vec<String>) -> Result<String, Failure> {
    let mut words: Vec<String> = model.graph.take().into_iter().chain(what).collect();
    let is_pair = words.len() >= 2 && TWO_WORDS.contains(&words[words.len() - 2].as_str());
    let count = if is_pair { 2 } else { 1 };
    let what = words.split_off(words.len().saturating_sub(count));
    match words.len() {
        0 if Path::new(&what.join(" ")).is_file() => {
            Err(Failure::Environment(format!("expected what to explain of `{}`, as in `b12` or `layer3.x`", what[0])))
        }
        _ if what.is_empty() => Err(Failure::Environment("expected what to explain, as in `b12` or `layer3.x`".into())),
        0 | 1 => {
            model.graph = words.pop();
            Ok(what.join(" "))
        }
        _ => Err(Failure::Environment(format!(
            "expected a plan or graph and one thing to explain, found also `{}`",
            words[1..].join(" ")
        ))),
    }
}
