//! The file of a vocabulary: a line `ID LITERAL LENGTH` for each token.
//!
//! Gets a text, returns its tokens, ascending by id. What then holds: every id is below the model's size and given
//! once, every token has bytes that no other has. A line that is wrong does not keep those behind it from being read,
//! up to a bound. Literals are those that Python's `repr` writes; it never takes whatever else Python would read.

use std::collections::HashMap;
use std::ops::Range;

use crate::base::diag::Diagnostic;
use crate::base::span::{SourceId, SourceMap, Span};

/// Bytes of a vocabulary at most, fifteen times those of the one built in: an automaton over them still fits anywhere.
pub const MAX_BYTES: u64 = 1 << 24;

/// Bytes that a line has less of. Tokens are a few characters long.
const MAX_LINE_BYTES: usize = 1 << 12;

/// Wrong lines after which the rest is not read: the file is then something else.
const MAX_WRONG: usize = 10;

/// The escapes of one letter.
const SHORT: [(char, u8); 6] = [('\\', b'\\'), ('\'', b'\''), ('"', b'"'), ('n', b'\n'), ('r', b'\r'), ('t', b'\t')];
const ESCAPES_OF_TEXT: &str = r#"expected one of \\ \' \" \n \r \t \xHH \uHHHH \UHHHHHHHH"#;
const ESCAPES_OF_BYTES: &str = r#"expected one of \\ \' \" \n \r \t \xHH"#;

/// A token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub id: u32,
    /// Where its bytes lie among those of all tokens.
    pub start: u32,
    pub end: u32,
}

impl Entry {
    /// The token's part of the bytes of all tokens.
    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }
}

/// What is wrong with a line: where in it, what, and what was expected there.
struct Wrong {
    range: Range<usize>,
    message: String,
    label: &'static str,
}

impl Wrong {
    fn new(range: Range<usize>, message: impl Into<String>, label: &'static str) -> Self {
        Self { range, message: message.into(), label }
    }
}

/// The tokens of a vocabulary's file, ascending by id, and the bytes of all of them. Ids are below `size`.
///
/// # Errors
/// A diagnostic for each wrong line, up to a bound; one for a text that is too long or has no line.
pub(super) fn read(
    sources: &SourceMap,
    source: SourceId,
    size: Option<u64>,
) -> Result<(Vec<Entry>, Vec<u8>), Vec<Diagnostic>> {
    let file = sources.source(source);
    let name = &file.name;
    if file.text.len() as u64 > MAX_BYTES {
        let message = format!("`{name}` has {} bytes, a vocabulary at most {MAX_BYTES}", file.text.len());
        return Err(vec![Diagnostic::placeless(message)]);
    }
    // A buffer for all: one for each token would be most of the time.
    let (mut tokens, mut bytes, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    let mut start = 0;
    for (number, whole) in (1u32..).zip(file.text.split_inclusive('\n')) {
        let text = whole.trim_end_matches(['\r', '\n']);
        let place = |range: Range<usize>| Span::new(source, start + range.start..start + range.end);
        match line(text, size, &mut bytes) {
            // Its place would show all of it.
            _ if text.len() >= MAX_LINE_BYTES => wrong.push(Diagnostic::placeless(format!(
                "`{name}`, line {number} has {} bytes, expected less than {MAX_LINE_BYTES}",
                text.len()
            ))),
            Ok(entry) => tokens.push((entry, place(0..text.len()))),
            Err(Wrong { range, message, label }) => wrong.push(Diagnostic::error(place(range), message).label(label)),
        }
        start += whole.len();
        if wrong.len() == MAX_WRONG && start < file.text.len() {
            wrong.push(Diagnostic::placeless(format!("`{name}` was not read behind line {number}")));
            break;
        }
    }
    if file.text.is_empty() {
        wrong.push(Diagnostic::placeless(format!("there is no token in `{name}`")));
    }
    // By id, then by line: so the first of two comes first.
    tokens.sort_by_key(|(entry, _)| entry.id);
    wrong.extend(twice(&tokens, &bytes).take(MAX_WRONG));
    if wrong.is_empty() { Ok((tokens.into_iter().map(|(entry, _)| entry).collect(), bytes)) } else { Err(wrong) }
}

/// What is wrong with each token whose id or bytes are those of one before it.
fn twice<'t>(tokens: &'t [(Entry, Span)], bytes: &'t [u8]) -> impl Iterator<Item = Diagnostic> + 't {
    let of_ids = tokens.windows(2).filter(|pair| pair[0].0.id == pair[1].0.id).map(|pair| {
        let twice = Diagnostic::error(pair[1].1, format!("token {} is given twice", pair[0].0.id));
        twice.also(pair[0].1, "first given here")
    });
    let mut known: HashMap<&[u8], (u32, Span)> = HashMap::with_capacity(tokens.len());
    let of_bytes = tokens.iter().filter_map(move |(entry, span)| {
        let (other, first) = *known.entry(entry.of(bytes)).or_insert((entry.id, *span));
        // Of the same id, all has been said.
        (other != entry.id).then(|| {
            let same = Diagnostic::error(*span, format!("token {} has the bytes of token {other}", entry.id));
            same.also(first, "given here")
        })
    });
    of_ids.chain(of_bytes)
}

/// The token of a line. Its bytes are added to those of all tokens.
fn line(text: &str, size: Option<u64>, bytes: &mut Vec<u8>) -> Result<Entry, Wrong> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || !text[digits..].starts_with(' ') {
        let (message, label) = ("expected a token, as in `257 '\\t\\t' 2`", "an id, a literal, its bytes");
        return Err(Wrong::new(0..text.len(), message, label));
    }
    let size = size.unwrap_or(1 << 32);
    let id = text[..digits].parse().ok().filter(|id| u64::from(*id) < size);
    let strange = || format!("token {} is not in the vocabulary of {size}", &text[..digits]);
    let id: u32 = id.ok_or_else(|| Wrong::new(0..digits, strange(), ""))?;
    let start = bytes.len();
    let end = literal(text, digits + 1, bytes)?;
    let length = text[end..].strip_prefix(' ').filter(|length| length.bytes().all(|byte| byte.is_ascii_digit()));
    let length: u64 = length.and_then(|length| length.parse().ok()).ok_or_else(|| {
        Wrong::new(end..text.len(), "expected a space and a number behind the literal", "how many bytes it has")
    })?;
    match bytes.len() - start {
        0 => Err(Wrong::new(digits + 1..end, format!("token {id} has no bytes"), "leave its line out")),
        count if count as u64 == length => Ok(Entry { id, start: start as u32, end: bytes.len() as u32 }),
        count => {
            let message = format!("token {id} has {count} bytes, its line says {length}");
            Err(Wrong::new(digits + 1..text.len(), message, ""))
        }
    }
}

/// Adds the bytes of the literal that begins at `start`; returns where it ends.
fn literal(text: &str, start: usize, bytes: &mut Vec<u8>) -> Result<usize, Wrong> {
    let is_bytes = text[start..].starts_with('b');
    let open = start + usize::from(is_bytes);
    let quote = text.as_bytes().get(open).copied().filter(|byte| b"'\"".contains(byte));
    let quote = quote.ok_or_else(|| {
        Wrong::new(start..text.len(), "expected a literal behind the id", "as `'…'`, `\"…\"`, `b'…'` or `b\"…\"`")
    })?;
    let mut at = open + 1;
    while let Some(byte) = text.as_bytes().get(at).copied() {
        if byte == quote {
            return Ok(at + 1);
        }
        if byte == b'\\' {
            at = escape(text, at, is_bytes, bytes)?;
        } else if is_bytes && !byte.is_ascii() {
            let c = text[at..].chars().next().unwrap_or_default();
            return Err(Wrong::new(at..at + c.len_utf8(), format!("`{c}` is no byte"), "expected ASCII or an escape"));
        } else {
            bytes.push(byte);
            at += 1;
        }
    }
    Err(Wrong::new(start..text.len(), "the literal is never closed", ""))
}

/// Adds what the escape at `at` stands for to `bytes`; returns where it ends.
fn escape(text: &str, at: usize, is_bytes: bool, bytes: &mut Vec<u8>) -> Result<usize, Wrong> {
    let letter = text[at + 1..].chars().next();
    let digits = match letter {
        Some('x') => 2,
        Some('u') if !is_bytes => 4,
        Some('U') if !is_bytes => 8,
        Some(short) if let Some((_, byte)) = SHORT.iter().find(|(letter, _)| *letter == short) => {
            bytes.push(*byte);
            return Ok(at + 2);
        }
        _ => 0,
    };
    let end = at + 2 + digits;
    let hex = text.get(at + 2..end).filter(|hex| digits > 0 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let hex = hex.ok_or_else(|| {
        let range = at..at + 1 + letter.map_or(0, char::len_utf8);
        let expected = if is_bytes { ESCAPES_OF_BYTES } else { ESCAPES_OF_TEXT };
        Wrong::new(range.clone(), format!("`{}` begins no escape", &text[range]), expected)
    })?;
    let value = u32::from_str_radix(hex, 16).expect("at most eight hexadecimal digits");
    if is_bytes {
        bytes.push(value as u8);
        return Ok(end);
    }
    let none = || Wrong::new(at..end, format!("`{}` is no character", &text[at..end]), "");
    bytes.extend_from_slice(char::from_u32(value).ok_or_else(none)?.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(end)
}
