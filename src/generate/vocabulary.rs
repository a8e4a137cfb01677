//! Which text a token stands for.
//!
//! Gets a text, returns its tokens: the longest token that begins the text, then the longest that begins the rest, as
//! the models were trained; gets a token, returns its bytes, which may end in the middle of a character. Byte-level
//! models and those with a list of tokens are asked in the same way. Never leaves out text that no token covers: that
//! is an error.

mod file;

use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, Anchored, Input, MatchKind, StartKind};

use crate::base::diag::Diagnostic;
use crate::base::span::{SourceId, SourceMap};
use crate::generate::GenerateError;
use crate::generate::text::Utf8Stream;
use crate::generate::vocabulary::file::Entry;

pub use file::MAX_BYTES;

/// Size of a byte-level vocabulary.
pub const BYTE_LEVEL: u64 = 256;

/// The token that ends a text where a list of tokens leaves it out.
const END_OF_TEXT: u32 = 0;

/// Every byte at its own place: the tokens of byte-level models.
static BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut at = 0;
    while at < 256 {
        bytes[at] = at as u8;
        at += 1;
    }
    bytes
};

/// Tokens and the bytes they stand for.
#[derive(Debug)]
pub struct Vocabulary {
    tokens: Tokens,
}

#[derive(Debug)]
enum Tokens {
    /// A token is a byte.
    Bytes,
    Listed(Listed),
}

/// Tokens of a file. No two have the same id or the same bytes, and none is without bytes.
#[derive(Debug)]
struct Listed {
    /// Ascending by id.
    entries: Vec<Entry>,
    /// The bytes of all tokens.
    bytes: Vec<u8>,
    /// Made when the first text is taken apart, since it takes longer than all the rest; its patterns are the entries.
    matcher: OnceLock<AhoCorasick>,
}

impl Vocabulary {
    /// That of byte-level models: 256 tokens, each a byte.
    pub const fn byte_level() -> Self {
        Self { tokens: Tokens::Bytes }
    }

    /// The vocabulary of a file: a line `ID LITERAL LENGTH` for each token, as in `257 '\t\t' 2`. `LITERAL` is text
    /// (`'…'`, `"…"`) or bytes (`b'…'`, `b"…"`) as Python's `repr` writes them, `LENGTH` the number of bytes. Ids are
    /// below `size`, where it is known.
    ///
    /// # Errors
    /// A diagnostic for each line that is wrong, up to a bound; one for a text of more than [`MAX_BYTES`].
    pub fn parse(sources: &SourceMap, source: SourceId, size: Option<u64>) -> Result<Self, Vec<Diagnostic>> {
        let (entries, bytes) = file::read(sources, source, size)?;
        Ok(Self { tokens: Tokens::Listed(Listed { entries, bytes, matcher: OnceLock::new() }) })
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// If at some place of the text no token goes on.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        match &self.tokens {
            Tokens::Bytes => Ok(text.bytes().map(u32::from).collect()),
            Tokens::Listed(listed) => listed.encode(text),
        }
    }

    /// What a token stands for, at least one byte; nothing if it stands for none, as the end of a text, or is not of
    /// this vocabulary.
    pub fn bytes(&self, token: u32) -> Option<&[u8]> {
        match &self.tokens {
            Tokens::Bytes => {
                let at = usize::try_from(token).ok()?;
                BYTES.get(at..=at)
            }
            Tokens::Listed(listed) => {
                let at = listed.entries.binary_search_by_key(&token, |entry| entry.id).ok()?;
                Some(listed.entries[at].of(&listed.bytes))
            }
        }
    }

    /// The text of tokens. Those without bytes add nothing to it; bytes that are no UTF-8 become `U+FFFD`.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut stream = Utf8Stream::new();
        let mut text = String::new();
        tokens.iter().filter_map(|token| self.bytes(*token)).for_each(|bytes| text += &stream.push(bytes));
        text + stream.finish()
    }

    /// The token that ends a text: 0 where a list of tokens begins behind it, none otherwise.
    pub fn end_of_text(&self) -> Option<u32> {
        self.bytes(END_OF_TEXT).is_none().then_some(END_OF_TEXT)
    }
}

impl Listed {
    fn encode(&self, text: &str) -> Result<Vec<u32>, GenerateError> {
        let matcher = self.matcher.get_or_init(|| self.matcher());
        let mut tokens = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let Some(found) = matcher.find(Input::new(text).range(at..).anchored(Anchored::Yes)) else {
                return Err(GenerateError::NoToken { character: character_at(text, at), at });
            };
            tokens.push(self.entries[found.pattern().as_usize()].id);
            at = found.end();
        }
        Ok(tokens)
    }

    /// Measured with 65529 tokens: the contiguous kind takes 2 MiB and 70 ms to make, the one that is made first on the
    /// way to it 25 MiB, a DFA 118 MiB and 290 ms, and neither is faster at a text.
    fn matcher(&self) -> AhoCorasick {
        let mut builder = AhoCorasickBuilder::new();
        builder.kind(Some(AhoCorasickKind::ContiguousNFA)).dense_depth(1);
        // Tokens follow on each other without gaps, so each match is anchored and nothing can be skipped.
        builder.match_kind(MatchKind::LeftmostLongest).start_kind(StartKind::Anchored).prefilter(false);
        let patterns = self.entries.iter().map(|entry| entry.of(&self.bytes));
        builder.build(patterns).expect("a file of at most `MAX_BYTES` has far fewer states than there are numbers for")
    }
}

/// The character that has its first, or a later, byte at this place.
fn character_at(text: &str, at: usize) -> char {
    let start = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[start..].chars().next().unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vocabulary {
        let mut sources = SourceMap::new();
        let source = sources.add("v.txt", text);
        Vocabulary::parse(&sources, source, None).expect("a vocabulary")
    }

    #[test]
    fn a_token_is_a_byte() {
        let bytes = Vocabulary::byte_level();
        assert_eq!(bytes.encode("aé").expect("bytes"), [97, 0xc3, 0xa9]);
        assert_eq!([bytes.bytes(0), bytes.bytes(255), bytes.bytes(256)], [Some(&[0][..]), Some(&[255]), None]);
        assert_eq!(bytes.decode(&[97, 0xc3, 0xa9, 0xc3]), "aé\u{fffd}");
        assert_eq!(bytes.end_of_text(), None);
    }

    #[test]
    fn the_longest_token_is_taken_first() {
        let words = parse("7 'a' 1\n3 'ab' 2\n9 'abcd' 4\n4 b'\\xc3' 1\n5 b'\\xa9c' 2\n");
        assert_eq!(words.encode("abaabcdéc").expect("covered"), [3, 7, 9, 4, 5]);
        assert_eq!(words.bytes(5), Some(&[0xa9, b'c'][..]));
        assert_eq!([words.bytes(0), words.bytes(6), words.bytes(10)], [None; 3]);
        assert_eq!(words.decode(&[9, 0, 4, 10, 5, 4]), "abcdéc\u{fffd}", "tokens without bytes add nothing");
        assert_eq!(words.end_of_text(), Some(0));
        assert_eq!(parse("0 'a' 1\n").end_of_text(), None, "0 is a token like any other");
    }

    #[test]
    fn text_without_a_token_is_named() {
        let words = parse("1 'a' 1\n2 'ab' 2\n3 'bc' 2\n4 b'\\xc3' 1\n");
        let refusal = |text| words.encode(text).expect_err("not covered").to_string();
        // Greedy, as the models were trained, though `a` and `bc` would cover it.
        assert_eq!(refusal("abc"), "the vocabulary has no token for `c` (byte 2 of the text, from 0)");
        assert_eq!(refusal("aé"), "the vocabulary has no token for `é` (byte 2 of the text, from 0)");
        assert_eq!(refusal("\n"), "the vocabulary has no token for `\\n` (byte 0 of the text, from 0)");
    }
}
