//! Guides whose every step is run: the blocks of a page, and whether its commands print what it shows.
//!
//! Gets the text of a page in `docs/`, returns its blocks of code in the order in which a reader meets them, and the
//! links that lead nowhere. Never runs anything: each guide's test knows what its commands need.

use std::path::Path;

/// A block of code: what stands behind its fence, and its lines.
#[derive(Debug)]
pub struct Block<'a> {
    /// As in `sh`, `text` or `ron FILE`.
    pub info: &'a str,
    /// The lines between the fences.
    pub text: &'a str,
}

/// The blocks of a page.
///
/// # Panics
/// If a fence is not closed.
pub fn blocks(guide: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut rest = guide;
    while let Some((_, begun)) = rest.split_once("\n```") {
        let (info, body) = begun.split_once('\n').expect("a fence ends its line");
        let (text, after) = body.split_once("```\n").expect("every fence is closed");
        blocks.push(Block { info, text });
        rest = after;
    }
    blocks
}

/// Whether a text has the pieces of another in their order, `…` standing for anything between them.
pub fn agrees(printed: &str, expected: &str) -> bool {
    let mut rest = printed;
    expected.split('…').all(|piece| match rest.split_once(piece) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

/// Links of a page in `docs/` for which there is no file or no heading.
pub fn dead_links(guide: &str) -> Vec<String> {
    let headings = |text: &str| -> Vec<String> {
        let titles = text.lines().filter_map(|line| line.strip_prefix('#'));
        let anchor = |title: &str| {
            let kept = title.trim_start_matches('#').trim().to_lowercase();
            let kept: String = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect();
            kept.replace(' ', "-")
        };
        titles.map(anchor).collect()
    };
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let targets = guide.match_indices("](").map(|(at, _)| guide[at + 2..].split(')').next().expect("a link is closed"));
    let is_dead = |target: &&str| {
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let text = match file {
            "" => Some(guide.to_owned()),
            file => std::fs::read_to_string(docs.join(file)).ok(),
        };
        text.is_none_or(|text| !anchor.is_empty() && !headings(&text).contains(&anchor.to_owned()))
    };
    targets.filter(is_dead).map(str::to_owned).collect()
}
