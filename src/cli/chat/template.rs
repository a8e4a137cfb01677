//! How a conversation is written down for a model.
//!
//! Gets a RON file, returns the texts around messages; gets messages, returns what the model reads. What then holds:
//! text of a message is never mistaken for the template's, as far as that is told by empty lines. Never tokenizes.

use std::path::Path;

use serde::Deserialize;

use crate::base::diag::Diagnostic;
use crate::base::raw::Reader;
use crate::base::span::SourceMap;
use crate::cli::{Failure, rendered};
use crate::sources;

/// Where a message stands.
const HOLE: &str = "{text}";

/// The texts around messages.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename = "Chat", deny_unknown_fields)]
pub(super) struct Template {
    /// What comes first, if there is something to say first.
    system: String,
    /// A message, up to where the model goes on.
    user: String,
    /// What stands behind an answer.
    pub end: String,
    /// What a model goes on with when its answer is done.
    pub stop: Vec<String>,
}

impl Template {
    /// That of a file, or the built-in one.
    pub(super) fn read(path: Option<&Path>) -> Result<Self, Failure> {
        let (name, text) = match path {
            Some(path) => (path.display().to_string(), sources::read_text(path)?),
            None => ("templates/world.ron".to_owned(), sources::CHAT_TEMPLATE.to_owned()),
        };
        Self::parse(&name, text).map_err(Failure::Diagnostics)
    }

    fn parse(name: &str, text: String) -> Result<Self, String> {
        let mut map = SourceMap::new();
        let source = map.add(name, text);
        let mut reader = Reader::new(&map, source);
        let Some(template) = reader.file::<Self>() else { return Err(rendered(&reader.diagnostics, &map)) };
        let mut wrong = Vec::new();
        for (field, text) in [("system", &template.system), ("user", &template.user)] {
            let count = text.matches(HOLE).count();
            if count != 1 {
                let message = format!("`{name}`: expected `{HOLE}` once in `{field}`, found it {count} times");
                wrong.push(Diagnostic::placeless(message));
            }
        }
        if template.stop.iter().any(String::is_empty) {
            wrong.push(Diagnostic::placeless(format!("`{name}`: a text in `stop` is empty")));
        }
        if wrong.is_empty() { Ok(template) } else { Err(rendered(&wrong, &map)) }
    }

    /// What is said first.
    pub(super) fn system(&self, text: &str) -> String {
        self.system.replace(HOLE, &clean(text))
    }

    /// A message.
    pub(super) fn user(&self, text: &str) -> String {
        self.user.replace(HOLE, &clean(text))
    }
}

/// A message as models were taught to read it: no blanks around it, no line without text in it.
fn clean(text: &str) -> String {
    let mut clean = String::new();
    for line in text.trim().replace("\r\n", "\n").split('\n').filter(|line| !line.is_empty()) {
        if !clean.is_empty() {
            clean.push('\n');
        }
        clean.push_str(line);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_written_as_the_models_were_taught() {
        let template = Template::read(None).unwrap_or_else(|failure| panic!("{failure:?}"));
        assert_eq!(template.user(" Hi\r\n\r\n\nyou \n"), "User: Hi\nyou\n\nAssistant:");
        assert_eq!(template.system("Be brief."), "System: Be brief.\n\n");
        assert_eq!((template.end.as_str(), template.stop.len()), ("\n\n", 3));
        assert_eq!(template.user("{text}"), "User: {text}\n\nAssistant:", "a message is no template");
    }

    #[test]
    fn templates_that_cannot_be_used_are_refused() {
        let refused = |text: &str| Template::parse("t.ron", text.to_owned()).expect_err("refused");
        let template =
            |user: &str, stop: &str| format!("Chat(system: \"{{text}}\", user: \"{user}\", end: \"\", stop: [{stop}])");
        assert!(Template::parse("t.ron", template("{text}", "\"x\"")).is_ok());
        assert!(refused(&template("hi", "")).contains("expected `{text}` once in `user`, found it 0 times"));
        assert!(refused(&template("{text}{text}", "")).contains("found it 2 times"));
        assert!(refused(&template("{text}", "\"\"")).contains("a text in `stop` is empty"));
        assert!(refused("Chat(system: \"{text}\", usr: \"\")").contains("t.ron:1:"), "with its place");
    }
}
