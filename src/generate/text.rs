//! Bytes as text, as they come.
//!
//! Gets bytes, returns the text that they complete. What then holds: no character is split, since bytes that do not
//! make one yet wait for the next. Never prints, never knows what a token is.

/// Turns bytes into text as they come.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    waiting: Vec<u8>,
}

impl Utf8Stream {
    /// An empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes, returns the text that is complete now; bytes that can never be text become `U+FFFD`.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.waiting.extend_from_slice(bytes);
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.waiting) {
                Ok(complete) => {
                    text.push_str(complete);
                    self.waiting.clear();
                    return text;
                }
                Err(error) => {
                    let (good, rest) = self.waiting.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(good));
                    match error.error_len() {
                        Some(bad) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            self.waiting = rest[bad..].to_vec();
                        }
                        None => {
                            self.waiting = rest.to_vec();
                            return text;
                        }
                    }
                }
            }
        }
    }

    /// What is left at the end: a character that was never completed.
    pub fn finish(self) -> &'static str {
        if self.waiting.is_empty() { "" } else { "\u{fffd}" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_never_split() {
        let mut stream = Utf8Stream::new();
        assert_eq!(stream.push(&[b'a', 0xc3]), "a");
        assert_eq!(stream.push(&[0xa9, b'!']), "é!");
        assert_eq!(stream.push(&[0xff, b'b']), "\u{fffd}b");
        assert_eq!(stream.push(&[0xe2, 0x80]), "");
        assert_eq!(stream.finish(), "\u{fffd}");
    }
}
