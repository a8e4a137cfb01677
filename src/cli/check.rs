//! `graphc check`: every diagnostic and lint of graphs and kernels.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::base::diag::{self, Diagnostic, Severity};
use crate::base::limits::Limits;
use crate::base::span::SourceMap;
use crate::base::step::StepShape;
use crate::checkpoint::Checkpoint;
use crate::cli::{Failure, print_result};
use crate::compile::{CompileError, Compiler};
use crate::graph::{self, Graph};
use crate::kernel::{self, KernelLib};
use crate::model::detect;
use crate::sources;

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// Graph files, or folders of graphs [default: those built in]
    paths: Vec<PathBuf>,
    /// Read kernels from this folder instead of those built in
    #[arg(long, value_name = "DIR")]
    shaders: Option<PathBuf>,
    /// Check graphs against this checkpoint as well [default: the small model built into the program]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
}

pub(super) fn run(args: CheckArgs) -> Result<(), Failure> {
    let checkpoint = match &args.weights {
        Some(path) => Checkpoint::open(path),
        None => Checkpoint::from_static("the built-in model", sources::DEMO_MODEL),
    }?;
    let mut map = SourceMap::new();
    let (kernels, mut diagnostics) = kernel::load(&mut map, &sources::shaders(args.shaders.as_deref())?);
    let mut graphs = 0;
    let mut refused = Vec::new();
    for (name, text) in texts(&args.paths)? {
        graphs += 1;
        let source = map.add(name.as_str(), text);
        match graph::parse(&map, source) {
            Ok(graph) => {
                let (mut found, note) = against(&graph, &kernels, &map, &checkpoint, args.weights.is_some());
                diagnostics.append(&mut found);
                refused.extend(note.map(|note| format!("{name}: {note}")));
            }
            Err(mut found) => diagnostics.append(&mut found),
        }
    }
    eprint!("{}", diag::render(&diagnostics, &map));
    let errors = diagnostics.iter().filter(|d| d.severity == Severity::Error).count() + refused.len();
    let lints = diagnostics.len() + refused.len() - errors;
    for refusal in &refused {
        eprintln!("error: {refusal}");
    }
    let kernels = kernels.iter().count();
    print_result(&format!("{graphs} graphs, {kernels} kernels: {errors} errors, {lints} lints\n"))?;
    if errors > 0 { Err(Failure::Diagnostics(String::new())) } else { Ok(()) }
}

/// What is wrong with a graph by itself, and for the checkpoint if it is one of this graph's.
fn against(
    graph: &Graph,
    kernels: &KernelLib,
    map: &SourceMap,
    checkpoint: &Checkpoint,
    named: bool,
) -> (Vec<Diagnostic>, Option<String>) {
    let misfits = detect::misfits(graph, checkpoint.index());
    if !misfits.is_empty() {
        let names = crate::model::check_names(graph, kernels);
        // A checkpoint that the user named is expected to fit.
        let note = named.then(|| format!("{} is not this graph's: {}", checkpoint.name(), misfits.join("; ")));
        return (names, note);
    }
    let limits = Limits::vulkan();
    let index = checkpoint.index();
    let compiler = Compiler { graph, kernels, sources: map, index, limits: &limits, keep: &[], batch_invariant: false };
    // One token and several take different kernel variants.
    let mut lints = Vec::new();
    for tokens in [1, 16] {
        match compiler.compile(StepShape { tokens, sequences: 1, rows: 1, capacity: 1 }) {
            Ok(compiled) => lints = compiled.lints,
            Err(CompileError::Wrong { diagnostics, .. }) => return (diagnostics, None),
            Err(error) => return (Vec::new(), Some(error.to_string())),
        }
    }
    (lints, None)
}

fn texts(paths: &[PathBuf]) -> Result<Vec<(String, String)>, Failure> {
    if paths.is_empty() {
        let built_in = sources::graphs(None)?;
        return Ok(built_in.into_iter().map(|(path, text)| (format!("graphs/{path}"), text)).collect());
    }
    let mut texts = Vec::new();
    for path in paths {
        if path.is_dir() {
            let inside = sources::graphs(Some(path))?;
            texts.extend(inside.into_iter().map(|(file, text)| (join(path, &file), text)));
        } else {
            let fail = |source| sources::ReadError { path: path.clone(), source };
            texts.push((path.display().to_string(), std::fs::read_to_string(path).map_err(fail)?));
        }
    }
    Ok(texts)
}

fn join(folder: &Path, file: &str) -> String {
    folder.join(file).display().to_string()
}
