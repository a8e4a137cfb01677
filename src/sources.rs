//! Graphs and kernels as named texts: those built into the program, or those of folders.
//!
//! Gets folders or nothing, returns texts in alphabetical order of their paths. Only this file and `cli` touch the
//! disk. Never parses.

use std::fmt;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

static GRAPHS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/graphs");
static SHADERS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/shaders");

/// The small trained model that runs when none is named.
pub static DEMO_MODEL: &[u8] = include_bytes!("../models/model.safetensors");

/// The vocabulary of RWKV World models, in the form that `generate::vocabulary` reads. Token 0, which ends a text, and
/// the ids from 65530 on are not in it.
pub static WORLD_VOCABULARY: &str = include_str!("../vocabularies/rwkv_world.txt");

/// A file that cannot be read.
#[derive(Debug)]
pub struct ReadError {
    /// The file or folder.
    pub path: PathBuf,
    /// Why.
    pub source: std::io::Error,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read `{}`: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The graphs: `(path relative to the folder, text)`.
///
/// # Errors
/// If the folder or a file in it cannot be read.
pub fn graphs(folder: Option<&Path>) -> Result<Vec<(String, String)>, ReadError> {
    texts(folder, &GRAPHS, &["ron"])
}

/// Whether a graph of [`graphs`], by its path, lies in a subfolder: then it is no model of a checkpoint, and is run
/// only when it is named.
pub fn is_tool(path: &str) -> bool {
    path.contains('/')
}

/// The kernels: manifests and WGSL files.
///
/// # Errors
/// If the folder or a file in it cannot be read.
pub fn shaders(folder: Option<&Path>) -> Result<Vec<(String, String)>, ReadError> {
    texts(folder, &SHADERS, &["ron", "wgsl"])
}

fn texts(folder: Option<&Path>, built_in: &Dir<'_>, endings: &[&str]) -> Result<Vec<(String, String)>, ReadError> {
    let mut texts = Vec::new();
    match folder {
        Some(folder) => from_disk(folder, folder, endings, &mut texts)?,
        None => from_program(built_in, endings, &mut texts),
    }
    texts.sort();
    Ok(texts)
}

fn is_wanted(path: &Path, endings: &[&str]) -> bool {
    path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| endings.contains(&ending))
}

fn from_program(dir: &Dir<'_>, endings: &[&str], texts: &mut Vec<(String, String)>) {
    for file in dir.files().filter(|file| is_wanted(file.path(), endings)) {
        let text = file.contents_utf8().expect("files built into the program are UTF-8");
        texts.push((file.path().display().to_string(), text.to_owned()));
    }
    dir.dirs().for_each(|dir| from_program(dir, endings, texts));
}

fn from_disk(root: &Path, folder: &Path, endings: &[&str], texts: &mut Vec<(String, String)>) -> Result<(), ReadError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| ReadError { path, source }
    };
    for entry in std::fs::read_dir(folder).map_err(fail(folder))? {
        let path = entry.map_err(fail(folder))?.path();
        if path.is_dir() {
            from_disk(root, &path, endings, texts)?;
        } else if is_wanted(&path, endings) {
            let text = std::fs::read_to_string(&path).map_err(fail(&path))?;
            let relative = path.strip_prefix(root).expect("an entry lies in its folder");
            texts.push((
                relative.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/"),
                text,
            ));
        }
    }
    Ok(())
}
