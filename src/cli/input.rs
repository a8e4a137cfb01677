//! Reads what a command works on: graph, kernels, checkpoint.
//!
//! Gets flags, returns parsed graph, kernels and mapped checkpoint. Diagnostics of all files come out together.

use std::path::Path;

use crate::base::diag::Severity;
use crate::base::span::SourceMap;
use crate::checkpoint::Checkpoint;
use crate::cli::{Failure, Fuse, ModelArgs, rendered, weights};
use crate::compile;
use crate::fuse::{self, Rules, Unknown};
use crate::graph::{self, Graph};
use crate::kernel::{self, KernelLib};
use crate::model::detect;
use crate::sources;

/// What a model is made of.
pub(super) struct Input {
    pub sources: SourceMap,
    pub graph: Graph,
    pub kernels: KernelLib,
    /// The rewrite rules; nothing where `--fuse off` asks for the graph as it is written.
    pub rules: Option<Rules>,
    pub checkpoint: Checkpoint,
    /// Whether the checkpoint is the one built into the program.
    pub is_demo: bool,
}

pub(super) fn read(args: &ModelArgs) -> Result<Input, Failure> {
    let (checkpoint, initial) = with_states(args)?;
    let is_demo = args.weights.is_none();
    let mut map = SourceMap::new();
    let shaders = sources::shaders(args.shaders.as_deref())?;
    let (mut kernels, mut diagnostics) = kernel::load(&mut map, &shaders);
    if !args.trust_kernels {
        compile::distrust_foreign(&mut kernels, &shaders);
    }
    let chosen = args.graph.as_deref().filter(|graph| Path::new(graph).is_file());
    let texts = match chosen {
        Some(path) => {
            let text = sources::read_text(Path::new(path))?;
            if text.starts_with(crate::plan::file::HEADER) {
                return Err(Failure::Environment(format!(
                    "`{path}` is a plan, expected a graph; `run` runs plans, `compile` prints them"
                )));
            }
            vec![(path.to_owned(), text)]
        }
        None => sources::graphs(args.graphs.as_deref())?
            .into_iter()
            .map(|(path, text)| (format!("graphs/{path}"), text))
            .collect(),
    };
    let (mut graphs, mut tools) = (Vec::new(), Vec::new());
    for (path, text) in parts(args, chosen)? {
        map.add(path, text);
    }
    for (path, text) in texts {
        let is_tool = chosen.is_none() && sources::is_tool(path.strip_prefix("graphs/").unwrap_or(&path));
        let source = map.add(path, text);
        match graph::parse(&map, source) {
            Ok(graph) if is_tool => tools.push(graph),
            Ok(graph) => graphs.push(graph),
            Err(found) => diagnostics.extend(found),
        }
    }
    let rules = match args.fuse {
        Fuse::On | Fuse::NoCopies => {
            let files = fuse::add(&mut map, &sources::rewrites(args.graphs.as_deref())?);
            // Rules that are built in say nothing of the kernels of a folder.
            let unknown = if args.graphs.is_some() { Unknown::Wrong } else { Unknown::LeftOut };
            fuse::parse(&map, &files, &kernels, unknown).map_err(|wrong| diagnostics.extend(wrong)).ok()
        }
        Fuse::Off => None,
    };
    if diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return Err(Failure::Diagnostics(rendered(&diagnostics, &map)));
    }
    let graph = choose(args, chosen.is_some(), graphs, tools, &checkpoint)?;
    let graph =
        graph::with_settings(&graph, &args.set).map_err(|error| Failure::Environment(format!("`--set`: {error}")))?;
    if let Some(path) = &args.state_init {
        weights::check_initial(&graph, &initial, path)?;
    }
    Ok(Input { sources: map, graph, kernels, rules, checkpoint, is_demo })
}

/// The parts that graphs include: from the folder of a graph file that was named, else of the other graphs.
fn parts(args: &ModelArgs, chosen: Option<&str>) -> Result<Vec<(String, String)>, Failure> {
    let Some(path) = chosen else {
        let parts = sources::parts(args.graphs.as_deref())?;
        return Ok(parts.into_iter().map(|(path, text)| (format!("graphs/{path}"), text)).collect());
    };
    Ok(sources::parts_beside(path)?)
}

/// The checkpoint, and whether it is the one built into the program.
pub(super) fn checkpoint(args: &ModelArgs) -> Result<(Checkpoint, bool), Failure> {
    Ok((with_states(args)?.0, args.weights.is_none()))
}

/// The checkpoint, and the names of what `--state-init` added to it.
fn with_states(args: &ModelArgs) -> Result<(Checkpoint, Vec<String>), Failure> {
    let checkpoint = weights::open(args.weights.as_deref(), Some(&args.adapt))?;
    match &args.state_init {
        Some(path) => weights::with_initial_state(checkpoint, path, &args.adapt),
        None => Ok((checkpoint, Vec::new())),
    }
}

/// Picks a graph by its name, if one is given, else by the checkpoint; `tools` are for no checkpoint and have to be
/// named.
fn choose(
    args: &ModelArgs,
    is_file: bool,
    mut graphs: Vec<Graph>,
    tools: Vec<Graph>,
    checkpoint: &Checkpoint,
) -> Result<Graph, Failure> {
    if is_file && graphs.len() == 1 {
        return Ok(graphs.remove(0));
    }
    if let Some(wanted) = &args.graph {
        graphs.extend(tools);
        let at = graphs.iter().position(|graph| graph.name.text == *wanted);
        let known = graphs.iter().map(|graph| graph.name.text.as_str()).collect::<Vec<_>>().join(", ");
        let missing =
            || Failure::Environment(format!("no graph file and no graph named `{wanted}`; there are: {known}"));
        return at.map(|at| graphs.swap_remove(at)).ok_or_else(missing);
    }
    match detect::detect(&graphs, checkpoint.index()) {
        Ok(at) => Ok(graphs.swap_remove(at)),
        Err(error) => Err(Failure::Diagnostics(format!("error: {}: {error}\n", checkpoint.name()))),
    }
}
