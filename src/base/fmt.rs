//! The canonical layout of RON files.
//!
//! Gets a source, returns its text laid out anew: four spaces an indent, one space after `:` and `,`, a trailing comma
//! wherever a line ends in an entry. What was on one line stays there if it fits [`MAX_COLUMNS`]; entries that the
//! author put on a line together stay together. Comments, strings and single blank lines are kept. What holds then: the
//! text has the same tokens, and laid out again it is the same text. Never understands what it lays out.

use crate::base::diag::Diagnostic;
use crate::base::raw::Reader;
use crate::base::span::{SourceId, SourceMap};

/// Columns that a line may have, if there is a place to break it.
pub const MAX_COLUMNS: usize = 120;

const INDENT: usize = 4;

/// Lays out a file.
///
/// # Errors
/// What keeps the file from being RON.
pub fn format(sources: &SourceMap, source: SourceId) -> Result<String, Vec<Diagnostic>> {
    let mut reader = Reader::new(sources, source);
    if reader.file::<serde::de::IgnoredAny>().is_none() {
        return Err(reader.diagnostics);
    }
    let text = sources.source(source).text.replace("\r\n", "\n");
    let tokens = tokens(&text);
    let mut parser = Parser { tokens: &tokens, at: 0 };
    let file = parser.group("", "");
    let mut printer = Printer { out: String::new() };
    printer.lines(&file, 0);
    let formatted = format!("{}\n", printer.out.trim());
    assert_same_tokens(&tokens, &self::tokens(&formatted));
    Ok(formatted)
}

/// Where the value of a RON file stands, without what is around it.
pub(crate) fn extent(text: &str) -> std::ops::Range<usize> {
    let tokens = tokens(text);
    let mut code = tokens.iter().filter(|token| token.kind != Kind::Comment);
    let offset = |token: &Token<'_>| token.text.as_ptr() as usize - text.as_ptr() as usize;
    let start = code.next().map_or(0, offset);
    start..code.next_back().map_or(text.len(), |token| offset(token) + token.text.len())
}

/// Laying out moves white space, trailing commas and comments inside an entry, and nothing else.
fn assert_same_tokens(before: &[Token<'_>], after: &[Token<'_>]) {
    let code = |tokens: &[Token<'_>]| {
        let kept: Vec<String> =
            tokens.iter().filter(|token| token.kind != Kind::Comment).map(|token| token.text.to_owned()).collect();
        let closes = |at: usize| kept.get(at + 1).is_none_or(|next| [")", "]", "}"].contains(&next.as_str()));
        let kept = kept.iter().enumerate().filter(|(at, text)| *text != "," || !closes(*at));
        kept.map(|(_, text)| text.clone()).collect::<Vec<String>>()
    };
    let comments = |tokens: &[Token<'_>]| {
        let comments = tokens.iter().filter(|token| token.kind == Kind::Comment);
        let mut comments: Vec<String> = comments.map(|token| token.text.trim_end().to_owned()).collect();
        comments.sort();
        comments
    };
    assert_eq!(code(before), code(after), "laying out a file keeps its tokens");
    assert_eq!(comments(before), comments(after), "laying out a file keeps its comments");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A string, a number, a word.
    Word,
    Open,
    Close,
    Comma,
    Colon,
    Comment,
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    /// Ends of lines before it.
    newlines: usize,
}

impl Token<'_> {
    /// Whether nothing may follow it on its line.
    fn ends_line(&self) -> bool {
        self.text.starts_with("//") || self.text.contains('\n') && self.kind == Kind::Comment
    }
}

/// The tokens of a text that is known to be RON.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut rest, mut newlines) = (text, 0);
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() || first == '\u{feff}' {
            newlines += usize::from(first == '\n');
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (kind, len) = match first {
            '(' | '[' | '{' => (Kind::Open, 1),
            ')' | ']' | '}' => (Kind::Close, 1),
            ',' => (Kind::Comma, 1),
            ':' => (Kind::Colon, 1),
            _ if rest.starts_with("//") => (Kind::Comment, rest.find('\n').unwrap_or(rest.len())),
            _ if rest.starts_with("/*") => (Kind::Comment, block_comment(rest)),
            _ => (Kind::Word, word(rest)),
        };
        tokens.push(Token { kind, text: rest[..len].trim_end(), newlines });
        (rest, newlines) = (&rest[len..], 0);
    }
    tokens
}

/// Bytes of the block comment at the beginning of a text. They nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    loop {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            [] => return at,
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
}

/// Bytes of the string, number or word at the beginning of a text.
fn word(text: &str) -> usize {
    let quoted = |from: usize, quote: char| {
        let mut escaped = false;
        let end = text[from..].find(|c: char| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        end.map_or(text.len(), |at| from + at + 1)
    };
    let prefix = text.find(|c: char| c != 'b' && c != 'r').unwrap_or(0).min(2);
    let hashes = text[prefix..].bytes().take_while(|byte| *byte == b'#').count();
    let open = prefix + hashes;
    if text[..prefix].contains('r') && text[open..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        return text[open + 1..].find(&end).map_or(text.len(), |at| open + 1 + at + end.len());
    }
    match text[prefix..].chars().next() {
        Some('"') => quoted(prefix + 1, '"'),
        Some('\'') => quoted(prefix + 1, '\''),
        _ => {
            let ends = |c: char| c.is_whitespace() || "()[]{},:\"".contains(c);
            let end = text.find(ends).unwrap_or(text.len());
            let comment = ["//", "/*"].into_iter().filter_map(|comment| text[..end].find(comment)).min();
            comment.unwrap_or(end).max(1)
        }
    }
}

/// A part of an entry.
#[derive(Debug)]
enum Item<'a> {
    Token(&'a str, Kind),
    Group(Group<'a>),
}

/// What stands between two commas.
#[derive(Debug, Default)]
struct Entry<'a> {
    /// Comments on lines of their own before it; whether a blank line stands before each.
    leading: Vec<(&'a str, bool)>,
    has_blank_before: bool,
    /// Whether the author began a line with it.
    starts_line: bool,
    items: Vec<Item<'a>>,
    /// The comments behind it, on its line.
    trailing: Vec<&'a str>,
    /// On one line, if it can be.
    flat: Option<String>,
}

impl Entry<'_> {
    fn has_group(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Group(_)))
    }

    /// Whether it is a field, `name: value`.
    fn is_field(&self) -> bool {
        matches!(self.items.as_slice(), [Item::Token(name, Kind::Word), Item::Token(_, Kind::Colon), ..]
            if !name.starts_with('"'))
    }

    fn must_break(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Group(group) if group.must_break()))
    }
}

/// Entries between brackets, or a whole file.
#[derive(Debug)]
struct Group<'a> {
    open: &'a str,
    close: &'a str,
    entries: Vec<Entry<'a>>,
    /// Comments behind the last entry, on lines of their own.
    dangling: Vec<(&'a str, bool)>,
    /// Whether the author broke a line between its entries, or a comment does.
    is_broken: bool,
    flat: Option<String>,
}

impl Group<'_> {
    fn must_break(&self) -> bool {
        self.is_broken || self.entries.iter().any(Entry::must_break)
    }

    fn flatten(&mut self) {
        let flat: Option<Vec<&str>> = self.entries.iter().map(|entry| entry.flat.as_deref()).collect();
        let flat = flat.filter(|_| !self.is_broken);
        self.flat = flat.map(|entries| format!("{}{}{}", self.open, entries.join(", "), self.close));
    }
}

struct Parser<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    /// What follows an opening bracket, up to the one that closes it; the whole file for none.
    fn group(&mut self, open: &'a str, close: &'a str) -> Group<'a> {
        let mut group = Group { open, close, entries: Vec::new(), dangling: Vec::new(), is_broken: false, flat: None };
        let mut leading = Vec::new();
        while let Some(token) = self.peek() {
            let stands_alone = token.newlines > 0 || self.at == 0 || token.ends_line();
            match token.kind {
                Kind::Close => {
                    self.at += 1;
                    group.is_broken |= token.newlines > 0 && !group.entries.is_empty();
                    break;
                }
                Kind::Comment if stands_alone && self.ends_line() || self.next_code() == Kind::Close => {
                    self.at += 1;
                    leading.push((token.text, token.newlines > 1));
                    group.is_broken = true;
                }
                _ => {
                    let entry = self.entry(std::mem::take(&mut leading), open.is_empty());
                    group.is_broken |= entry.starts_line || !entry.leading.is_empty() || !entry.trailing.is_empty();
                    group.entries.push(entry);
                }
            }
        }
        group.dangling = leading;
        group.flatten();
        group
    }

    /// Whether the token at hand is the last of its line.
    fn ends_line(&self) -> bool {
        self.tokens[self.at].ends_line() || self.tokens.get(self.at + 1).is_none_or(|next| next.newlines > 0)
    }

    /// An entry with its comma and the comments behind it.
    fn entry(&mut self, leading: Vec<(&'a str, bool)>, is_file: bool) -> Entry<'a> {
        let first = self.tokens[self.at];
        let mut entry = Entry { leading, starts_line: first.newlines > 0, ..Entry::default() };
        entry.has_blank_before = first.newlines > 1;
        while let Some(token) = self.peek().filter(|token| ![Kind::Comma, Kind::Close].contains(&token.kind)) {
            match token.kind {
                Kind::Comment if [Kind::Comma, Kind::Close].contains(&self.next_code()) => break,
                Kind::Comment if token.ends_line() => entry.leading.push((token.text, false)),
                Kind::Open => {
                    self.at += 1;
                    let close = match token.text {
                        "(" => ")",
                        "[" => "]",
                        _ => "}",
                    };
                    entry.items.push(Item::Group(self.group(token.text, close)));
                    // `#![enable(…)]` stands before the value of a file, with no comma between them.
                    let is_attribute =
                        matches!(entry.items.first(), Some(Item::Token(text, _)) if text.starts_with('#'));
                    if is_file && is_attribute {
                        break;
                    }
                    continue;
                }
                _ => entry.items.push(Item::Token(token.text, token.kind)),
            }
            self.at += 1;
        }
        self.behind(&mut entry);
        entry.flat = flat(&entry);
        entry
    }

    /// The comments on the line on which an entry ends, and its comma.
    fn behind(&mut self, entry: &mut Entry<'a>) {
        let mut has_comma = false;
        while let Some(token) = self.peek() {
            match token.kind {
                Kind::Comma if !has_comma => has_comma = true,
                // Comments between an entry and its comma belong to it. Several could not all stay on its line.
                Kind::Comment if !has_comma && self.next_code() == Kind::Comma => {
                    entry.leading.push((token.text, false))
                }
                Kind::Comment if token.newlines == 0 && self.comments_end_line() => entry.trailing.push(token.text),
                _ => return,
            }
            self.at += 1;
        }
    }

    /// What the first token from here on is that is no comment; at the end of the file a bracket seems to close.
    fn next_code(&self) -> Kind {
        let next = self.tokens[self.at..].iter().find(|token| token.kind != Kind::Comment);
        next.map_or(Kind::Close, |token| token.kind)
    }

    /// Whether nothing but comments stands between the token at hand and the end of its line.
    fn comments_end_line(&self) -> bool {
        let mut rest = self.tokens[self.at..].iter();
        let first = rest.next().is_some_and(|token| token.ends_line());
        first || rest.find(|token| token.kind != Kind::Comment || token.newlines > 0).is_none_or(|t| t.newlines > 0)
    }
}

/// An entry on one line, if it can be.
fn flat(entry: &Entry<'_>) -> Option<String> {
    if entry.must_break() || entry.items.iter().any(|item| matches!(item, Item::Token(text, _) if text.contains('\n')))
    {
        return None;
    }
    let mut out = String::new();
    let mut before = None;
    for item in &entry.items {
        out.push_str(space(before, item));
        match item {
            Item::Token(text, _) => out.push_str(text),
            Item::Group(group) => out.push_str(group.flat.as_deref()?),
        }
        before = Some(item);
    }
    Some(out)
}

/// The space between two items of an entry.
fn space(before: Option<&Item<'_>>, next: &Item<'_>) -> &'static str {
    match (before, next) {
        (None, _) | (_, Item::Token(_, Kind::Colon)) => "",
        // `Name(…)`, and `#![…]`.
        (Some(Item::Token(_, Kind::Word)), Item::Group(_)) => "",
        _ => " ",
    }
}

struct Printer {
    out: String,
}

impl Printer {
    fn column(&self) -> usize {
        self.out.rsplit('\n').next().unwrap_or("").chars().count()
    }

    fn newline(&mut self, indent: usize, has_blank_before: bool) {
        self.out.push_str(if has_blank_before { "\n\n" } else { "\n" });
        self.out.push_str(&" ".repeat(indent));
    }

    /// A group; `tail` columns have to follow it on the line on which it ends.
    fn group(&mut self, group: &Group<'_>, indent: usize, tail: usize) {
        if let Some(flat) = &group.flat
            && self.column() + flat.chars().count() + tail <= MAX_COLUMNS
        {
            return self.out.push_str(flat);
        }
        if group.is_broken || !self.hugs(group) {
            self.out.push_str(group.open);
            self.lines(group, indent + INDENT);
            self.newline(indent, false);
            return self.out.push_str(group.close);
        }
        self.out.push_str(group.open);
        for (at, entry) in group.entries.iter().enumerate() {
            let is_last = at + 1 == group.entries.len();
            self.items(entry, indent, if is_last { tail + 1 } else { 1 });
            if !is_last {
                self.out.push_str(", ");
            }
        }
        self.out.push_str(group.close);
    }

    /// Whether a group that does not fit on a line keeps its entries on the line on which it begins, and an inner group
    /// is broken instead: `Op("name", {`.
    fn hugs(&self, group: &Group<'_>) -> bool {
        let Some((last, before)) = group.entries.split_last() else { return true };
        if group.must_break() {
            return group.open == "(" || group.entries.len() == 1;
        }
        let width: usize =
            before.iter().filter_map(|entry| entry.flat.as_ref()).map(|flat| flat.chars().count() + 2).sum();
        let is_call = group.open == "(" && group.entries.iter().all(|entry| !entry.is_field());
        let ends_in_group = matches!(last.items.last(), Some(Item::Group(group)) if !group.entries.is_empty());
        is_call && ends_in_group && self.column() + width + 2 <= MAX_COLUMNS
    }

    fn items(&mut self, entry: &Entry<'_>, indent: usize, tail: usize) {
        let mut before = None;
        for item in &entry.items {
            self.out.push_str(space(before, item));
            match item {
                Item::Token(text, _) => self.out.push_str(text),
                Item::Group(group) => self.group(group, indent, tail),
            }
            before = Some(item);
        }
    }

    /// Entries on lines of their own, each with a comma, several to a line where the author has them so.
    fn lines(&mut self, group: &Group<'_>, indent: usize) {
        let is_file = group.open.is_empty();
        let is_record = group.entries.iter().any(Entry::is_field);
        let begin = self.out.len();
        let mut is_line_full = true;
        for entry in &group.entries {
            self.comments(&entry.leading, indent, begin);
            let is_first = begin == self.out.len();
            // Where the compiler breaks a group, it fills lines with what is simple.
            let wants_line = entry.starts_line || !group.is_broken && (is_record || entry.has_group());
            let joined = entry.flat.as_ref().filter(|flat| self.column() + flat.chars().count() + 2 <= MAX_COLUMNS);
            let ends_alone = is_line_full || is_file || wants_line || !entry.leading.is_empty();
            if ends_alone || joined.is_none() {
                self.newline(indent, entry.has_blank_before && !is_first);
            } else {
                self.out.push(' ');
            }
            self.items(entry, indent, 1);
            if !is_file {
                self.out.push(',');
            }
            is_line_full = !entry.trailing.is_empty() || !self.is_one_line(entry);
            for comment in &entry.trailing {
                self.out.push(' ');
                self.out.push_str(comment);
            }
        }
        self.comments(&group.dangling, indent, begin);
    }

    /// Comments on lines of their own. No blank line stands at the beginning of a group.
    fn comments(&mut self, comments: &[(&str, bool)], indent: usize, begin: usize) {
        for (comment, has_blank_before) in comments {
            self.newline(indent, *has_blank_before && begin != self.out.len());
            self.out.push_str(comment);
        }
    }

    /// Whether an entry that was just written takes one line.
    fn is_one_line(&self, entry: &Entry<'_>) -> bool {
        entry.flat.as_ref().is_some_and(|flat| self.out.ends_with(&format!("{flat},")))
    }
}
