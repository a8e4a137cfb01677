//! Where messages come from: a person at a terminal, or a pipe.
//!
//! Gets nothing, returns a message at a time. At a terminal, lines can be edited and those before recalled. A line that
//! ends with a backslash goes on in the next one. Never holds more than a message may have.

use std::io::{BufRead, IsTerminal, Read, StdinLock};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::cli::Failure;

/// More than anyone means to say at once: a bound on what is read into memory.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;

/// A source of messages.
pub(super) enum Input {
    Terminal(Box<DefaultEditor>),
    Pipe(StdinLock<'static>),
}

impl Input {
    /// The standard input. It is edited where both ends are a terminal, since what is typed is shown on the output.
    pub(super) fn open() -> Result<Self, Failure> {
        if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            let editor = DefaultEditor::new().map_err(Failure::environment)?;
            return Ok(Self::Terminal(Box::new(editor)));
        }
        Ok(Self::Pipe(std::io::stdin().lock()))
    }

    /// Whether a person is there to read what went wrong and try again.
    pub(super) const fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next message; nothing at the end.
    pub(super) fn message(&mut self) -> Result<Option<String>, Failure> {
        let mut message = String::new();
        let mut prompt = "> ";
        loop {
            let Some(line) = self.line(prompt)? else {
                // What was begun is said all the same.
                return Ok(Some(message).filter(|message| !message.is_empty()));
            };
            match line.strip_suffix('\\') {
                Some(begun) => message = message + begun + "\n",
                None => return Ok(Some(message + &line)),
            }
            prompt = ". ";
        }
    }

    fn line(&mut self, prompt: &str) -> Result<Option<String>, Failure> {
        match self {
            Self::Terminal(editor) => match editor.readline(prompt) {
                Ok(line) => {
                    let _ = editor.add_history_entry(&line);
                    Ok(Some(line))
                }
                // Ctrl-C takes back what was typed; Ctrl-D ends.
                Err(ReadlineError::Interrupted) => Ok(Some(String::new())),
                Err(ReadlineError::Eof) => Ok(None),
                Err(error) => Err(Failure::Environment(format!("cannot read from the terminal: {error}"))),
            },
            Self::Pipe(stdin) => {
                let mut bytes = Vec::new();
                let fail = |error| Failure::Environment(format!("cannot read from the standard input: {error}"));
                stdin.take(MAX_MESSAGE_BYTES + 1).read_until(b'\n', &mut bytes).map_err(fail)?;
                if bytes.len() as u64 > MAX_MESSAGE_BYTES {
                    let message = format!("a message has at most {MAX_MESSAGE_BYTES} bytes");
                    return Err(Failure::Environment(message));
                }
                if bytes.is_empty() {
                    return Ok(None);
                }
                let wrong = |error| Failure::Diagnostics(format!("error: the standard input is not UTF-8: {error}\n"));
                let line = String::from_utf8(bytes).map_err(wrong)?;
                Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
            }
        }
    }
}
