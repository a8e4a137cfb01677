//! `graphc fmt`: graphs and manifests in their canonical layout.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::base::fmt;
use crate::base::span::SourceMap;
use crate::cli::{Failure, print_result, rendered};
use crate::sources;

/// Folders that are formatted if none is named, where they exist.
const DEFAULT_FOLDERS: [&str; 2] = ["graphs", "shaders"];

#[derive(Args, Debug)]
pub(super) struct FmtArgs {
    /// RON files, or folders of them [default: graphs and shaders in the current folder]
    paths: Vec<PathBuf>,
    /// Change nothing; name the files that would change, and end with 1 if there are any
    #[arg(long)]
    check: bool,
}

pub(super) fn run(args: FmtArgs) -> Result<(), Failure> {
    let files = files(args.paths)?;
    let mut map = SourceMap::new();
    let mut diagnostics = Vec::new();
    let mut changed = Vec::new();
    for path in &files {
        let text = sources::read_text(path)?;
        let source = map.add(path.display().to_string(), text);
        match fmt::format(&map, source) {
            Ok(formatted) if formatted == map.source(source).text => {}
            Ok(formatted) => {
                if !args.check {
                    replace(path, &formatted)?;
                }
                changed.push(path);
            }
            Err(mut found) => diagnostics.append(&mut found),
        }
    }
    let verb = if args.check { "would change" } else { "changed" };
    let listed: String = changed.iter().map(|path| format!("{verb} {}\n", path.display())).collect();
    print_result(&format!("{listed}{} files, {} {verb}\n", files.len(), changed.len()))?;
    if diagnostics.is_empty() && (changed.is_empty() || !args.check) {
        return Ok(());
    }
    Err(Failure::Diagnostics(rendered(&diagnostics, &map)))
}

/// The files that are meant, each once, in alphabetical order within a folder.
fn files(mut paths: Vec<PathBuf>) -> Result<Vec<PathBuf>, Failure> {
    if paths.is_empty() {
        paths.extend(DEFAULT_FOLDERS.map(PathBuf::from).into_iter().filter(|folder| folder.is_dir()));
    }
    if paths.is_empty() {
        let expected = "expected files or folders: there is no folder `graphs` or `shaders` here";
        return Err(Failure::Environment(expected.into()));
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        let found = match path.is_dir() {
            true => {
                let (graphs, parts) = (sources::graphs(Some(&path))?, sources::parts(Some(&path))?);
                let rules = sources::rewrites(Some(&path))?;
                graphs.into_iter().chain(parts).chain(rules).map(|(file, _)| path.join(file)).collect()
            }
            false => vec![path],
        };
        files.extend(found.into_iter().filter(|file| !files.contains(file)).collect::<Vec<_>>());
    }
    Ok(files)
}

/// Puts a text in a file's place. A program that is ended half-way leaves the old text or the new one, never a part.
fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let write = || {
        // What a link points at is replaced, not the link.
        let path = path.canonicalize()?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let permissions = std::fs::metadata(&path)?.permissions();
        let written = std::fs::write(&temporary, text)
            .and_then(|()| std::fs::set_permissions(&temporary, permissions))
            .and_then(|()| std::fs::rename(&temporary, &path));
        written.inspect_err(|_| {
            // The failure that matters is the first one.
            let _ = std::fs::remove_file(&temporary);
        })
    };
    write().map_err(|error| Failure::Environment(format!("cannot write `{}`: {error}", path.display())))
}
