//! Graphs, kernels and tables of names as named texts: those built into the program, or those of folders.
//!
//! Gets folders or nothing, returns texts in alphabetical order of their paths. Only this file and `cli` touch the
//! disk. Never parses.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

static GRAPHS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/graphs");
static NAMES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/names");
static SHADERS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/shaders");

/// The small trained model that runs when none is named.
pub static DEMO_MODEL: &[u8] = &ALIGNED_MODEL.0;

/// Where its words can be read as words.
static ALIGNED_MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("../models/model.safetensors"));

#[repr(align(64))]
struct Aligned<T: ?Sized>(T);

/// The vocabulary of RWKV World models, in the form that `generate::vocabulary` reads. Token 0, which ends a text, and
/// the ids from 65530 on are not in it.
pub static WORLD_VOCABULARY: &str = include_str!("../vocabularies/rwkv_world.txt");

/// How a conversation is written for World models, in the form that `graphc run --template` reads.
pub static CHAT_TEMPLATE: &str = include_str!("../templates/world.ron");

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

/// More than any graph, kernel or plan has: a bound on what is read into memory.
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// The text of a file.
///
/// # Errors
/// If it cannot be read, is no UTF-8, or is larger than any text of ours.
pub fn read_text(path: &Path) -> Result<String, ReadError> {
    let read = || {
        let mut text = String::new();
        let read = File::open(path)?.take(MAX_TEXT_BYTES + 1).read_to_string(&mut text)?;
        if read as u64 > MAX_TEXT_BYTES {
            let message = format!("it has more than the {MAX_TEXT_BYTES} bytes that a text may have");
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
        }
        Ok(text)
    };
    read().map_err(|source| ReadError { path: path.to_owned(), source })
}

/// The folder of parts, in a folder of graphs.
const PARTS: &str = "parts";

/// The graphs: `(path relative to the folder, text)`.
///
/// # Errors
/// If the folder or a file in it cannot be read.
pub fn graphs(folder: Option<&Path>) -> Result<Vec<(String, String)>, ReadError> {
    let mut graphs = texts(folder, &GRAPHS, &["ron"])?;
    graphs.retain(|(path, _)| path.split_once('/').is_none_or(|(first, _)| first != PARTS && first != REWRITES));
    Ok(graphs)
}

/// The folder of rewrite rules, in a folder of graphs.
pub const REWRITES: &str = "rewrites";

/// The rewrite rules of a folder of graphs: `(path relative to the folder, text)`, none if the folder has none.
///
/// # Errors
/// If the folder of rules or a file in it cannot be read.
pub fn rewrites(folder: Option<&Path>) -> Result<Vec<(String, String)>, ReadError> {
    beneath(folder, REWRITES)
}

/// What graphs of a folder include: `(path relative to the folder, text)`, none if the folder has no parts.
///
/// # Errors
/// If the folder of parts or a file in it cannot be read.
pub fn parts(folder: Option<&Path>) -> Result<Vec<(String, String)>, ReadError> {
    beneath(folder, PARTS)
}

/// The texts of a folder in a folder of graphs, none if it is not there.
fn beneath(folder: Option<&Path>, name: &str) -> Result<Vec<(String, String)>, ReadError> {
    let inside = folder.map(|folder| folder.join(name));
    let found = match (&inside, GRAPHS.get_dir(name)) {
        (Some(inside), _) if inside.is_dir() => texts(Some(inside), &GRAPHS, &["ron"])?,
        (None, Some(built_in)) => {
            let mut found = Vec::new();
            from_program(built_in, &["ron"], &mut found);
            found.sort();
            return Ok(found);
        }
        _ => Vec::new(),
    };
    Ok(found.into_iter().map(|(path, text)| (format!("{name}/{path}"), text)).collect())
}

/// What a graph file may include: paths as the graph looks for them, and texts.
///
/// # Errors
/// As [`parts`].
pub fn parts_beside(graph: &str) -> Result<Vec<(String, String)>, ReadError> {
    let beside = graph.rsplit_once('/').map_or("", |(folder, _)| folder);
    // A file at the root of the file system lies in the folder `/`.
    let folder = if graph.starts_with('/') && beside.is_empty() { "/" } else { beside };
    let folder = if folder.is_empty() { Path::new(".") } else { Path::new(folder) };
    let slash = if graph.contains('/') { "/" } else { "" };
    Ok(parts(Some(folder))?.into_iter().map(|(path, text)| (format!("{beside}{slash}{path}"), text)).collect())
}

/// The tables of tensors' names.
///
/// # Errors
/// If the folder or a file in it cannot be read.
pub fn names(folder: Option<&Path>) -> Result<Vec<(String, String)>, ReadError> {
    texts(folder, &NAMES, &["ron"])
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
            let text = read_text(&path)?;
            let relative = path.strip_prefix(root).expect("an entry lies in its folder");
            texts.push((
                relative.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/"),
                text,
            ));
        }
    }
    Ok(())
}
