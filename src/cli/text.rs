//! Which vocabulary a model's texts are made of.
//!
//! Gets the size of a model's vocabulary, and perhaps a file, returns the tokens and their text. What is built in is
//! read at its first use and once. Never guesses: a model of another size takes text only with a file.

use std::path::Path;
use std::sync::LazyLock;

use crate::base::span::SourceMap;
use crate::cli::{Failure, files, rendered};
use crate::generate::vocabulary::{BYTE_LEVEL, MAX_BYTES, Vocabulary};
use crate::sources;

/// Size of the vocabulary of World models. Their file leaves out the ids at its ends.
const WORLD: u64 = 1 << 16;

/// The tokens of a text, for a model of a vocabulary of `size`; or why it takes none.
pub(super) fn tokenize(text: &str, given: Option<&Vocabulary>, size: Option<u64>) -> Result<Vec<u32>, String> {
    // A model of no known size cannot be run, and running says why.
    let size = size.unwrap_or(BYTE_LEVEL);
    let missing = || {
        format!(
            "the model has {size} tokens and no known tokenizer; give `--vocabulary FILE`, or `--tokens 1,2,3` instead \
             of text, or `tokens` in JSON lines"
        )
    };
    let vocabulary = given.or_else(|| built_in(size)).ok_or_else(missing)?;
    vocabulary.encode(text).map_err(|error| error.to_string())
}

/// The vocabulary that models of this size have; nothing if none is known.
pub(super) fn built_in(size: u64) -> Option<&'static Vocabulary> {
    static BYTES: Vocabulary = Vocabulary::byte_level();
    static WORLD_TOKENS: LazyLock<Vocabulary> = LazyLock::new(|| {
        let mut map = SourceMap::new();
        let source = map.add("rwkv_world.txt", sources::WORLD_VOCABULARY);
        Vocabulary::parse(&map, source, Some(WORLD)).expect("a test reads the file that is built in")
    });
    match size {
        BYTE_LEVEL => Some(&BYTES),
        WORLD => Some(&WORLD_TOKENS),
        _ => None,
    }
}

/// The vocabulary of a file, for a model of this size.
pub(super) fn from_file(path: &Path, size: Option<u64>) -> Result<Vocabulary, Failure> {
    let text = files::utf8(path, files::read(path, "a vocabulary", MAX_BYTES)?)?;
    let mut map = SourceMap::new();
    let source = map.add(path.display().to_string(), text);
    Vocabulary::parse(&map, source, size).map_err(|wrong| Failure::Diagnostics(rendered(&wrong, &map)))
}
