//! Texts that end a text, found as it comes.
//!
//! Gets pieces of a text, returns what is certainly no beginning of a text to stop at. What then holds: a text to stop
//! at is found wherever pieces are cut, and nothing of it, or behind it, ever comes out; what turned out to be none
//! comes out whole. Of several, the one that is complete first is found, and of those that end together the longest.

/// Looks for texts in a stream.
#[derive(Clone, Debug)]
pub struct StopTexts<'s> {
    texts: &'s [String],
    /// What may yet be the beginning of one of them.
    held: String,
}

/// What a piece of text has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released<'s> {
    /// Text that is certain to come before any text to stop at.
    pub text: String,
    /// The text to stop at that is complete now.
    pub found: Option<&'s str>,
}

impl<'s> StopTexts<'s> {
    /// A stream that stops at these texts, none of them empty.
    ///
    /// # Panics
    /// If one is empty.
    pub fn new(texts: &'s [String]) -> Self {
        assert!(texts.iter().all(|text| !text.is_empty()), "an empty text is everywhere");
        Self { texts, held: String::new() }
    }

    /// Takes the next piece. Once a text was found, the stream is over.
    pub fn push(&mut self, piece: &str) -> Released<'s> {
        for c in piece.chars() {
            self.held.push(c);
            let complete = self.texts.iter().filter(|text| self.held.ends_with(text.as_str()));
            if let Some(found) = complete.max_by_key(|text| text.len()) {
                let mut text = std::mem::take(&mut self.held);
                text.truncate(text.len() - found.len());
                return Released { text, found: Some(found) };
            }
        }
        let begins = |at: &usize| self.texts.iter().any(|text| text.starts_with(&self.held[*at..]));
        let places = self.held.char_indices().map(|(at, _)| at);
        // Behind the longest text's length, nothing can be a beginning.
        let longest = self.texts.iter().map(String::len).max().unwrap_or(0);
        let first = places.filter(|at| self.held.len() - at < longest).find(begins);
        let held = self.held.split_off(first.unwrap_or(self.held.len()));
        Released { text: std::mem::replace(&mut self.held, held), found: None }
    }

    /// What was held back when no more comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out of pieces, and what was found.
    fn run(texts: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let mut stream = StopTexts::new(&texts);
        let mut out = String::new();
        for piece in pieces {
            let released = stream.push(piece);
            out += &released.text;
            if let Some(found) = released.found {
                return (out, Some(found.to_owned()));
            }
        }
        out += &stream.finish();
        (out, None)
    }

    #[test]
    fn stops_are_found_across_pieces_and_never_shown() {
        assert_eq!(run(&["\n\nUser:"], &["Hi.\n", "\nUs", "er", ": no"]), ("Hi.".into(), Some("\n\nUser:".into())));
        assert_eq!(run(&["\n\nUser:"], &["a\n", "\nUs", "ual\n"]), ("a\n\nUsual\n".into(), None));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]), ("a".into(), Some("aab".into())));
        assert_eq!(run(&["éa"], &["aé", "é", "ab"]), ("aé".into(), Some("éa".into())));
        assert_eq!(run(&[], &["a", "b"]), ("ab".into(), None));
    }

    #[test]
    fn the_first_to_be_complete_wins_and_then_the_longest() {
        assert_eq!(run(&["abcd", "bc"], &["abcd"]), ("a".into(), Some("bc".into())));
        assert_eq!(run(&["c", "abc"], &["xab", "c"]), ("x".into(), Some("abc".into())));
    }

    #[test]
    fn what_can_be_no_beginning_comes_out_at_once() {
        let texts = ["stop".to_owned()];
        let mut stream = StopTexts::new(&texts);
        assert_eq!(stream.push("sto").text, "");
        assert_eq!(stream.push("ry and s").text, "story and ");
        assert_eq!(stream.finish(), "s");
    }
}
