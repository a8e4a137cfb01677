//! Opens checkpoints as commands mean them: by the names that graphs know, with adapters and states added.
//!
//! Gets paths and flags, returns a mapped checkpoint. What holds then: its tensors have the names of graphs, whatever
//! kind of file they came from; adapters have an alpha that somebody said. Never reads weights.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::base::diag::Diagnostic;
use crate::base::span::SourceMap;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::names::{self, NameTable};
use crate::cli::{Failure, files, rendered};
use crate::graph::Graph;
use crate::model::weights::matches;
use crate::sources;

/// What lies beside adapters that peft saves, and more of it than there ever is.
const ADAPTER_CONFIG: &str = "adapter_config.json";
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// How a checkpoint is read, and what is added to it.
#[derive(Args, Debug, Clone)]
pub(super) struct AdaptArgs {
    /// Read the tables of tensors' names from this folder instead of those built in
    #[arg(long, value_name = "DIR")]
    pub(super) names: Option<PathBuf>,
    /// Add adapters of low rank to the weights, times alpha / rank (may be repeated) [default alpha: that of the
    /// adapter_config.json beside the file]
    #[arg(long, value_name = "FILE[:ALPHA]", value_parser = lora)]
    pub(super) lora: Vec<Lora>,
}

/// A file of adapters, and the alpha given with it.
#[derive(Debug, Clone)]
pub(super) struct Lora {
    path: PathBuf,
    alpha: Option<f32>,
}

fn lora(text: &str) -> Result<Lora, String> {
    if let Some((path, alpha)) = text.rsplit_once(':')
        && let Ok(alpha) = alpha.parse::<f32>()
    {
        return match alpha.is_finite() && !path.is_empty() {
            true => Ok(Lora { path: path.into(), alpha: Some(alpha) }),
            false => Err("expected a file, and a number behind a `:`".into()),
        };
    }
    Ok(Lora { path: text.into(), alpha: None })
}

/// The checkpoint of a file, or the one built into the program.
pub(super) fn open(path: Option<&Path>, adapt: Option<&AdaptArgs>) -> Result<Checkpoint, Failure> {
    let tables = tables(adapt.and_then(|adapt| adapt.names.as_deref()))?;
    let mut checkpoint = match path {
        Some(path) => Checkpoint::open(path),
        None => Checkpoint::from_static("the built-in model", sources::DEMO_MODEL),
    }?
    .renamed(&tables)?;
    for lora in adapt.into_iter().flat_map(|adapt| &adapt.lora) {
        let alpha = alpha(lora)?;
        checkpoint = checkpoint.with_lora(Checkpoint::open(&lora.path)?.renamed(&tables)?, &tables, alpha)?;
    }
    Ok(checkpoint)
}

/// A checkpoint with the states of another file, in which sequences begin; and what that file's tensors are called.
pub(super) fn with_initial_state(
    checkpoint: Checkpoint,
    path: &Path,
    adapt: &AdaptArgs,
) -> Result<(Checkpoint, Vec<String>), Failure> {
    let state = Checkpoint::open(path)?.renamed(&tables(adapt.names.as_deref())?)?;
    let names = state.index().names().map(str::to_owned).collect();
    Ok((checkpoint.with_initial_state(state)?, names))
}

/// Refuses what a file of states has that is no initial state of the graph.
pub(super) fn check_initial(graph: &Graph, names: &[String], path: &Path) -> Result<(), Failure> {
    let patterns: Vec<&str> =
        graph.state.iter().filter_map(|state| Some(state.init_weight.as_ref()?.pattern.text.as_str())).collect();
    let stray = names.iter().find(|name| !patterns.iter().any(|pattern| matches(pattern, name)));
    stray.map_or(Ok(()), |stray| {
        let known = match patterns.as_slice() {
            [] => "which takes none from a file".to_owned(),
            patterns => format!("expected `{}`", patterns.join("`, `")),
        };
        let (path, graph) = (path.display(), &graph.name.text);
        Err(Failure::Diagnostics(format!("error: `{path}`: `{stray}` is no state of graph `{graph}`, {known}\n")))
    })
}

fn tables(folder: Option<&Path>) -> Result<Vec<NameTable>, Failure> {
    let mut map = SourceMap::new();
    let (mut tables, mut wrong): (_, Vec<Diagnostic>) = (Vec::new(), Vec::new());
    for (path, text) in sources::names(folder)? {
        let path = folder.map_or_else(|| format!("names/{path}"), |folder| folder.join(&path).display().to_string());
        let source = map.add(path, text);
        match names::parse(&map, source) {
            Ok(table) => tables.push(table),
            Err(more) => wrong.extend(more),
        }
    }
    if wrong.is_empty() { Ok(tables) } else { Err(Failure::Diagnostics(rendered(&wrong, &map))) }
}

/// The alpha of adapters. None is guessed: another than was trained with gives a model that only seems to work.
fn alpha(lora: &Lora) -> Result<f32, Failure> {
    if let Some(alpha) = lora.alpha {
        return Ok(alpha);
    }
    let config = match lora.path.is_dir() {
        true => lora.path.join(ADAPTER_CONFIG),
        false => lora.path.with_file_name(ADAPTER_CONFIG),
    };
    let file = lora.path.display();
    if !config.is_file() {
        let advice = format!("say it as in `--lora {file}:32`");
        return Err(Failure::Environment(format!(
            "no alpha for `{file}`, and no `{ADAPTER_CONFIG}` beside it; {advice}"
        )));
    }
    let text = files::utf8(&config, files::read(&config, "a configuration", MAX_CONFIG_BYTES)?)?;
    let wrong = |reason: &str| Failure::Diagnostics(format!("error: `{}`: {reason}\n", config.display()));
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
    let is_set = |name: &str| match &json[name] {
        serde_json::Value::Bool(is_set) => *is_set,
        serde_json::Value::Object(map) => !map.is_empty(),
        _ => false,
    };
    if let Some(name) =
        ["use_rslora", "use_dora", "rank_pattern", "alpha_pattern"].into_iter().find(|name| is_set(name))
    {
        return Err(wrong(&format!("`{name}` is set: only alpha / rank, the same for all weights, can be added")));
    }
    let alpha = json["lora_alpha"].as_f64().map(|alpha| alpha as f32).filter(|alpha| alpha.is_finite());
    alpha.ok_or_else(|| wrong("it has no number `lora_alpha`"))
}
