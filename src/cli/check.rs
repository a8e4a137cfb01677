//! `graphc check`: every diagnostic and lint of graphs and kernels.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;

use crate::base::diag::{self, Diagnostic, Severity};
use crate::base::limits::Limits;
use crate::base::span::{SourceId, SourceMap, Span};
use crate::base::step::StepShape;
use crate::checkpoint::Checkpoint;
use crate::cli::{Failure, Format, print_result, rendered, weights};
use crate::compile::{CompileError, Compiler};
use crate::fuse::{self, Action, Unknown};
use crate::graph::{self, Graph};
use crate::kernel::tuning::{self, Tuning};
use crate::kernel::{self, KernelLib};
use crate::model::{self, detect};
use crate::sources;

/// How often `--watch` looks. Looking beats being told: it needs no further crate, works on every file system, and sees
/// files that an editor replaces rather than writes. A look at the few dozen files of a model takes less than a
/// millisecond.
const LOOK_EVERY: Duration = Duration::from_millis(300);

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// Graph files, folders of graphs, or tuning files [default: the graphs built in]
    paths: Vec<PathBuf>,
    /// Read kernels from this folder instead of those built in
    #[arg(long, value_name = "DIR")]
    shaders: Option<PathBuf>,
    /// Check graphs against this checkpoint as well [default: the small model built into the program]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// How to print what is found: as text to stderr, or as a JSON array to stdout
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Check again whenever one of the files named changes, until stopped
    #[arg(long)]
    watch: bool,
}

pub(super) fn run(args: CheckArgs) -> Result<(), Failure> {
    if !args.watch {
        let errors = report(&args, &found(&args)?)?;
        return if errors > 0 { Err(Failure::Diagnostics(String::new())) } else { Ok(()) };
    }
    if args.paths.is_empty() && args.shaders.is_none() && args.weights.is_none() {
        return Err(Failure::Environment("nothing to watch: expected graphs, `--shaders` or `--weights`".into()));
    }
    loop {
        // What changes while it is being checked is checked again.
        let before = stamps(&args);
        match found(&args) {
            Ok(found) => drop(report(&args, &found)?),
            // A file may be gone for a moment, and only half written.
            Err(Failure::Diagnostics(text)) => eprint!("{text}"),
            Err(Failure::Environment(text)) => eprintln!("error: {text}"),
        }
        while stamps(&args) == before {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// The files that `--watch` looks at, with what tells whether they have changed.
fn stamps(args: &CheckArgs) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
    let mut files = Vec::new();
    let mut paths: Vec<PathBuf> = args.paths.iter().chain(&args.shaders).chain(&args.weights).cloned().collect();
    while let Some(path) = paths.pop() {
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                paths.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            }
            Ok(metadata) => files.push((path, metadata.modified().ok(), metadata.len())),
            Err(_) => {}
        }
    }
    files.sort();
    files
}

/// What a check found, and in what.
struct Found {
    sources: SourceMap,
    diagnostics: Vec<Diagnostic>,
    graphs: usize,
    kernels: usize,
}

fn found(args: &CheckArgs) -> Result<Found, Failure> {
    let checkpoint = weights::open(args.weights.as_deref(), None)?;
    let mut map = SourceMap::new();
    let (kernels, mut diagnostics) = kernel::load(&mut map, &sources::shaders(args.shaders.as_deref())?);
    let (tunings, texts) = texts(&args.paths)?.into_iter().partition::<Vec<_>, _>(|(_, text)| tuning::is_tuning(text));
    let count = texts.len();
    let mut parts = Vec::new();
    for (path, text) in all_parts(&args.paths)? {
        if map.find(&path).is_none() {
            parts.push(map.add(path, text));
        }
    }
    let files = rule_files(args, &mut map)?;
    // Rules that are built in say nothing of the kernels of a folder.
    let unknown = if args.paths.is_empty() { Unknown::LeftOut } else { Unknown::Wrong };
    let rules = fuse::parse(&map, &files, &kernels, unknown);
    let rules = rules.map_err(|mut wrong| diagnostics.append(&mut wrong)).unwrap_or_default();
    for (name, text) in tunings {
        let source = map.add(name, text);
        match Tuning::parse(&map, source) {
            Ok(tuning) => diagnostics.extend(tuning.mistakes(&kernels).into_iter().map(|(_, mistake)| mistake)),
            Err(mut found) => diagnostics.append(&mut found),
        }
    }
    let mut graphs = Vec::new();
    for (name, text) in texts {
        let source = map.add(name.as_str(), text);
        match graph::parse(&map, source) {
            Ok(graph) => {
                let (mut found, note) = against(&graph, &kernels, &map, &checkpoint, args.weights.is_some());
                diagnostics.append(&mut found);
                diagnostics.extend(note.map(|note| Diagnostic::placeless(format!("{name}: {note}"))));
                graphs.push(graph);
            }
            Err(mut found) => diagnostics.append(&mut found),
        }
    }
    // Kernels of one place and graphs of another say nothing about each other, and what is wrong may be the very op
    // that would use a kernel.
    let is_right = diagnostics.iter().all(|diagnostic| diagnostic.severity == Severity::Lint);
    if args.paths.is_empty() == args.shaders.is_none() && is_right {
        let steps = rules.iter().flat_map(|rule| &rule.replacement);
        let by_rules =
            steps.filter_map(|step| if let Action::Kernel(name) = &step.action { Some(&**name) } else { None });
        diagnostics.append(&mut model::check_unused(&graphs, &kernels, &by_rules.collect::<Vec<_>>()));
    }
    // A rule is for any of the graphs that lie around it.
    if is_right && !graphs.is_empty() && args.paths.iter().all(|path| path.is_dir()) {
        diagnostics.append(&mut fuse::idle(&rules, &graphs));
    }
    // Graphs named one by one need not use all that lies beside them.
    if is_right && args.paths.iter().all(|path| path.is_dir()) {
        let unused = parts.into_iter().filter(|part| !graphs.iter().any(|graph| graph.included.contains(*part)));
        let lint = "the part is never included by the graphs checked";
        diagnostics.extend(unused.map(|part| Diagnostic::lint(Span::new(part, 0..1), lint)));
    }
    Ok(Found { sources: map, diagnostics, graphs: count, kernels: kernels.iter().count() })
}

/// Prints what was found; returns how many errors there are.
fn report(args: &CheckArgs, found: &Found) -> Result<usize, Failure> {
    let Found { sources, diagnostics, graphs, kernels } = found;
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    match args.format {
        Format::Text => {
            let lints = diagnostics.len() - errors;
            eprint!("{}", rendered(diagnostics, sources));
            print_result(&format!("{graphs} graphs, {kernels} kernels: {errors} errors, {lints} lints\n"))?;
        }
        Format::Json => {
            let json = diag::to_json(diagnostics, sources);
            // One line a check, so that a reader knows where each ends.
            print_result(&if args.watch { format!("{json}\n") } else { format!("{json:#}\n") })?;
        }
    }
    Ok(errors)
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
        let names = model::check_names(graph, kernels);
        // A checkpoint that the user named is expected to fit.
        let note = named.then(|| format!("{} is not this graph's: {}", checkpoint.name(), misfits.join("; ")));
        return (names, note);
    }
    let limits = Limits::vulkan();
    let index = checkpoint.index();
    let sources = map;
    let (limits, keep, batch_invariant) = (&limits, &[], false);
    let plain = Compiler {
        graph,
        kernels,
        sources,
        index,
        limits,
        keep,
        batch_invariant,
        draws: false,
        tuning: None,
        fuse: None,
        copies: true,
    };
    // One token and several take different kernel variants; and there may be steps that draw.
    let mut lints = Vec::new();
    for (tokens, draws) in [(1, true), (1, false), (16, false)] {
        if draws && graph.carry.is_none() {
            continue;
        }
        match (Compiler { draws, ..plain }).compile(StepShape { tokens, sequences: 1, rows: 1, capacity: 1 }) {
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
    for path in paths.iter().filter(|path| !is_of_rules(path)) {
        if path.is_dir() {
            let inside = sources::graphs(Some(path))?;
            texts.extend(inside.into_iter().map(|(file, text)| (join(path, &file), text)));
        } else {
            texts.push((path.display().to_string(), sources::read_text(path)?));
        }
    }
    Ok(texts)
}

/// What the graphs of [`texts`] may include.
fn all_parts(paths: &[PathBuf]) -> Result<Vec<(String, String)>, Failure> {
    if paths.is_empty() {
        let built_in = sources::parts(None)?;
        return Ok(built_in.into_iter().map(|(path, text)| (format!("graphs/{path}"), text)).collect());
    }
    let mut parts = Vec::new();
    for path in paths {
        if path.is_dir() {
            parts.extend(sources::parts(Some(path))?.into_iter().map(|(file, text)| (join(path, &file), text)));
        } else {
            parts.extend(sources::parts_beside(&path.display().to_string())?);
        }
    }
    Ok(parts)
}

/// Whether a file is a rule, or a folder one of rules.
fn is_of_rules(path: &Path) -> bool {
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    folder.and_then(Path::file_name).is_some_and(|name| name == sources::REWRITES)
}

/// The rules: names and texts.
fn rule_files(args: &CheckArgs, map: &mut SourceMap) -> Result<Vec<(String, SourceId)>, Failure> {
    if args.paths.is_empty() {
        return Ok(fuse::add(map, &sources::rewrites(None)?));
    }
    let mut texts = Vec::new();
    for path in &args.paths {
        match (is_of_rules(path), path.is_dir()) {
            (true, true) => {
                texts.extend(sources::graphs(Some(path))?.into_iter().map(|(file, text)| (join(path, &file), text)));
            }
            (true, false) => texts.push((path.display().to_string(), sources::read_text(path)?)),
            (false, true) => {
                texts.extend(sources::rewrites(Some(path))?.into_iter().map(|(file, text)| (join(path, &file), text)));
            }
            (false, false) => {}
        }
    }
    let name = |path: &str| Path::new(path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(texts.into_iter().map(|(path, text)| (name(&path), map.add(path, text))).collect())
}

fn join(folder: &Path, file: &str) -> String {
    folder.join(file).display().to_string()
}
