//! `graphc run --chat`: a conversation, a message at a time.
//!
//! Gets messages and commands, prints answers. What then holds: the sequence reads exactly what the template makes of
//! the conversation, whatever ended an answer. After an answer, the state before it is taken up again, and the answer
//! is read as text with the next message, in steps of many tokens; so the last answer can be drawn anew, and a text to
//! stop at that came in the middle of a token is not remembered. Never changes what was said before.

mod input;
mod interrupt;
mod template;

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::chat::input::Input;
use crate::cli::chat::interrupt::Answering;
use crate::cli::chat::template::Template;
use crate::cli::{Failure, answer, cannot_print, files};
use crate::exec::Session;
use crate::generate::batch::{Batch, Feed, SequenceId, SequenceState};
use crate::generate::continuation::{Continuation, Continued, Finish, Rules};
use crate::generate::state::{self, StateOwner};
use crate::generate::vocabulary::Vocabulary;
use crate::generate::{GenerateError, Rows};

/// More state than a sequence of any model has.
pub(super) const MAX_STATE_BYTES: u64 = 4 << 30;

const HELP: &str = "\
/retry      draw the last answer anew
/reset      begin again
/save FILE  write the conversation so far, as a state file
/load FILE  go on from a state file of this model
/quit       end, as Ctrl-D does
A line that ends with \\ goes on in the next; one that begins with // is a message that begins with /.
Ctrl-C stops an answer.
";

/// What else may be given to go on from.
const GIVEN: [&str; 4] = ["prompt", "prompt_file", "tokens", "prompts"];

#[derive(Args, Debug)]
#[command(next_help_heading = "Conversations")]
pub(super) struct ChatArgs {
    /// Converse: each line of the standard input is a message, and the answer is printed. /help lists commands
    #[arg(long, group = "given", conflicts_with_all = ["logits", "all_positions", "print_tokens"])]
    pub chat: bool,
    /// What the model is told before the first message
    #[arg(long, value_name = "TEXT", requires = "chat", conflicts_with_all = GIVEN)]
    system: Option<String>,
    /// How a conversation is written, a RON file [default: that of World models, User: … Assistant: …]
    #[arg(long, value_name = "FILE", requires = "chat", conflicts_with_all = GIVEN)]
    template: Option<PathBuf>,
}

/// How a conversation is led.
pub(super) struct Manner {
    template: Template,
    system: Option<String>,
}

impl Manner {
    pub(super) fn read(args: &ChatArgs) -> Result<Self, Failure> {
        Ok(Self { template: Template::read(args.template.as_deref())?, system: args.system.clone() })
    }

    /// The texts at which an answer is done.
    pub(super) fn stops(&self) -> &[String] {
        &self.template.stop
    }
}

/// All that a conversation takes beside a session.
pub(super) struct Setting<'s> {
    pub manner: &'s Manner,
    pub rules: &'s Rules<'s>,
    pub vocabulary: &'s Vocabulary,
    /// Tokens of an answer at most.
    pub count: u32,
    pub seed: u64,
    /// The token that is fed first.
    pub start: Option<u32>,
    /// The state to begin in.
    pub begin: Option<&'s SequenceState>,
    pub owner: StateOwner,
    /// Whether answers are JSON lines.
    pub json: bool,
    /// Where the state goes at the end.
    pub state_out: Option<&'s Path>,
}

/// What a conversation cost: tokens read and generated, and the time of each.
#[derive(Clone, Copy, Default)]
pub(super) struct Cost {
    pub read: (usize, Duration),
    pub generated: (usize, Duration),
}

/// Where an answer begins.
struct Turn {
    state: SequenceState,
    logits: Vec<f32>,
    /// How many tokens were read for it.
    tokens: usize,
}

struct Chat<'c, 'b, S> {
    batch: &'c mut Batch<'b, S>,
    setting: &'c Setting<'c>,
    sequence: SequenceId,
    /// Before the first message.
    start: (SequenceState, Vec<u32>),
    /// What was read, and what is to be read behind it.
    now: (SequenceState, Vec<u32>),
    /// The last message's.
    turn: Option<Turn>,
    answers: u64,
    /// Whether nobody reads what is printed.
    is_closed: bool,
    cost: Cost,
}

/// What a line of input asks for.
#[derive(Debug, PartialEq, Eq)]
enum Command<'l> {
    Nothing,
    Say(&'l str),
    Retry,
    Reset,
    Save(&'l str),
    Load(&'l str),
    Help,
    Quit,
}

/// What a line asks for, or why it cannot be told.
fn command(line: &str) -> Result<Command<'_>, String> {
    let line = line.trim();
    let Some(rest) = line.strip_prefix('/') else {
        return Ok(if line.is_empty() { Command::Nothing } else { Command::Say(line) });
    };
    // Two of them are a message that begins with one.
    if rest.starts_with('/') {
        return Ok(Command::Say(rest));
    }
    let (name, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let argument = argument.trim();
    let alone = |command| match argument {
        "" => Ok(command),
        more => Err(format!("`/{name}` stands alone, found `{more}` behind it")),
    };
    match (name, argument) {
        ("retry", _) => alone(Command::Retry),
        ("reset", _) => alone(Command::Reset),
        ("help", _) => alone(Command::Help),
        ("quit", _) => alone(Command::Quit),
        ("save" | "load", "") => Err(format!("`/{name}` takes the name of a file")),
        ("save", path) => Ok(Command::Save(path)),
        ("load", path) => Ok(Command::Load(path)),
        _ => Err(format!("unknown command `/{name}`; `/help` lists them")),
    }
}

/// Converses until the input ends.
pub(super) fn run<S: Session>(batch: &mut Batch<'_, S>, setting: &Setting<'_>) -> Result<Cost, Failure> {
    let mut input = Input::open()?;
    let mut chat = Chat::new(batch, setting)?;
    interrupt::install()?;
    if input.is_terminal() {
        eprintln!("/help lists commands; Ctrl-D ends");
    }
    while !chat.is_closed
        && let Some(message) = input.message()?
    {
        match chat.take(&message) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => break,
            // What was said before still holds.
            Err(Failure::Diagnostics(text)) if input.is_terminal() => eprint!("{text}"),
            Err(Failure::Environment(text)) if input.is_terminal() => eprintln!("error: {text}"),
            Err(failure) => return Err(failure),
        }
    }
    if let Some(path) = setting.state_out {
        chat.save(path)?;
    }
    Ok(chat.cost)
}

impl<'c, 'b, S: Session> Chat<'c, 'b, S> {
    fn new(batch: &'c mut Batch<'b, S>, setting: &'c Setting<'c>) -> Result<Self, Failure> {
        let sequence = batch.join()?;
        setting.begin.map_or(Ok(()), |state| batch.load(sequence, state))?;
        let mut tokens = Vec::from_iter(setting.start);
        if let Some(system) = &setting.manner.system {
            tokens.extend(setting.vocabulary.encode(&setting.manner.template.system(system))?);
        }
        let start = (batch.save(sequence)?, tokens);
        let (now, cost) = (start.clone(), Cost::default());
        Ok(Self { batch, setting, sequence, start, now, turn: None, answers: 0, is_closed: false, cost })
    }

    /// Takes a line of input. Breaks at the end.
    fn take(&mut self, line: &str) -> Result<ControlFlow<()>, Failure> {
        match command(line).map_err(Failure::Environment)? {
            Command::Nothing => {}
            Command::Say(message) => self.say(message)?,
            Command::Retry => self.retry()?,
            Command::Reset => (self.now, self.turn) = (self.start.clone(), None),
            Command::Save(path) => self.save(Path::new(path))?,
            Command::Load(path) => self.load(Path::new(path))?,
            Command::Help => eprint!("{HELP}"),
            Command::Quit => return Ok(ControlFlow::Break(())),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn say(&mut self, message: &str) -> Result<(), Failure> {
        let message = self.setting.manner.template.user(message);
        let message = self.setting.vocabulary.encode(&message)?;
        let tokens = [self.now.1.as_slice(), &message].concat();
        let answering = Answering::begin();
        let began = Instant::now();
        let logits = self.read(&tokens)?;
        self.cost.read.0 += tokens.len();
        self.cost.read.1 += began.elapsed();
        if answering.is_to_stop() {
            // Before there is an answer, so there is no message either.
            eprintln!("(stopped)");
            return Ok(());
        }
        self.turn = Some(Turn { state: self.batch.save(self.sequence)?, logits, tokens: tokens.len() });
        self.answer(&answering)
    }

    fn retry(&mut self) -> Result<(), Failure> {
        let Some(turn) = &self.turn else {
            return Err(Failure::Environment("there is no answer to draw anew".into()));
        };
        self.batch.load(self.sequence, &turn.state)?;
        self.answer(&Answering::begin())
    }

    /// Runs tokens behind what was read.
    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, GenerateError> {
        self.batch.load(self.sequence, &self.now.0)?;
        let (mut rows, _) = self.batch.run(&[Feed { sequence: self.sequence, tokens }], Rows::Last)?;
        Ok(rows.remove(0).remove(0))
    }

    /// Draws and prints an answer. The sequence has read all before it.
    fn answer(&mut self, answering: &Answering) -> Result<(), Failure> {
        let Self { batch, setting, sequence, turn, .. } = self;
        let turn = turn.as_ref().expect("a message comes before its answer");
        let mut continuation = Continuation::new(setting.rules, setting.count, setting.seed.wrapping_add(self.answers));
        let mut printer = Printer { is_silent: setting.json, has_begun: false, is_closed: false };
        let began = Instant::now();
        let steps = answer::generate(batch, *sequence, &mut continuation, turn.logits.clone(), false, &mut |drawn| {
            printer.print(&drawn.text)?;
            let is_over = printer.is_closed || answering.is_to_stop();
            Ok(if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        self.cost.generated.0 += steps;
        self.cost.generated.1 += began.elapsed();
        printer.print(&continuation.interrupt())?;
        self.answers += 1;
        let continued = continuation.into_continued();
        if setting.json {
            let id = self.answers.into();
            printer.is_silent = false;
            printer.write(&answer::json(Some(&id), turn.tokens, &continued, Some(setting.vocabulary)))?;
        } else {
            printer.write("\n")?;
        }
        if continued.finish == Finish::Interrupted && !printer.is_closed {
            eprintln!("(stopped)");
        }
        self.is_closed = printer.is_closed;
        self.now = (turn.state.clone(), closed(&continued, &setting.manner.template.end, setting.vocabulary)?);
        Ok(())
    }

    /// Writes what was said so far as a state.
    fn save(&mut self, path: &Path) -> Result<(), Failure> {
        let pending = std::mem::take(&mut self.now.1);
        if !pending.is_empty() {
            if let Err(error) = self.read(&pending) {
                self.now.1 = pending;
                return Err(error.into());
            }
            self.now.0 = self.batch.save(self.sequence)?;
        }
        let fail = |error| Failure::Environment(format!("cannot write `{}`: {error}", path.display()));
        let bytes = state::to_bytes(&self.now.0, self.batch.state_layout(), &self.setting.owner).map_err(fail)?;
        files::write(path, &bytes)
    }

    fn load(&mut self, path: &Path) -> Result<(), Failure> {
        let bytes = files::read(path, "a state", MAX_STATE_BYTES)?;
        let refuse =
            |reason| Failure::Diagnostics(format!("error: `{}` is no state of this model: {reason}\n", path.display()));
        let state = state::from_bytes(&bytes, self.batch.state_layout(), &self.setting.owner).map_err(refuse)?;
        (self.now, self.turn) = ((state, Vec::new()), None);
        Ok(())
    }
}

/// An answer as the model is to remember it: its tokens as far as its text goes, and what stands behind answers.
fn closed(continued: &Continued, end: &str, vocabulary: &Vocabulary) -> Result<Vec<u32>, GenerateError> {
    let answer = continued.text.trim_end();
    let bytes = |token: &u32| vocabulary.bytes(*token).unwrap_or_default();
    let mut length = 0;
    let mut tokens: Vec<u32> = Vec::new();
    for token in &continued.tokens {
        if answer.as_bytes().get(length..length + bytes(token).len()) != Some(bytes(token)) {
            break;
        }
        length += bytes(token).len();
        tokens.push(*token);
    }
    while !answer.is_char_boundary(length) {
        length -= tokens.pop().map_or(length, |token| bytes(&token).len());
    }
    tokens.extend(vocabulary.encode(&format!("{}{end}", &answer[length..]))?);
    Ok(tokens)
}

/// Prints an answer as it comes, without the blanks that it begins with.
struct Printer {
    is_silent: bool,
    has_begun: bool,
    is_closed: bool,
}

impl Printer {
    fn print(&mut self, text: &str) -> Result<(), Failure> {
        let text = if self.has_begun { text } else { text.trim_start() };
        self.has_begun |= !text.is_empty();
        if self.is_silent || text.is_empty() { Ok(()) } else { self.write(text) }
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => self.is_closed = true,
            Err(error) => return Err(cannot_print(&error)),
            Ok(()) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::span::SourceMap;

    #[test]
    fn lines_are_messages_or_commands() {
        for (line, expected) in [
            ("  ", Command::Nothing),
            (" hi /retry ", Command::Say("hi /retry")),
            ("//etc is a folder", Command::Say("/etc is a folder")),
            ("/retry", Command::Retry),
            (" /reset ", Command::Reset),
            ("/save  a file ", Command::Save("a file")),
            ("/load\tb", Command::Load("b")),
            ("/help", Command::Help),
            ("/quit", Command::Quit),
        ] {
            assert_eq!(command(line), Ok(expected), "{line}");
        }
        for (line, message) in [
            ("/dance", "unknown command `/dance`; `/help` lists them"),
            ("/", "unknown command `/`; `/help` lists them"),
            ("/save ", "`/save` takes the name of a file"),
            ("/quit now", "`/quit` stands alone, found `now` behind it"),
        ] {
            assert_eq!(command(line), Err(message.to_owned()), "{line}");
        }
    }

    #[test]
    fn answers_are_remembered_as_their_text() {
        let mut map = SourceMap::new();
        let bytes = "5 b'\\xc3' 1\n6 b'\\xa9' 1\n7 b'\\xa9\\n' 2\n8 'é' 2\n";
        let source = map.add("v", format!("1 'a' 1\n2 'b' 1\n3 '\\n' 1\n4 '\\n\\n' 2\n{bytes}"));
        let vocabulary = Vocabulary::parse(&map, source, None).expect("a vocabulary");
        let closed = |tokens: &[u32], text: &str| {
            let (tokens, text) = (tokens.to_vec(), text.to_owned());
            let continued = Continued { tokens, text, finish: Finish::Count, likelihoods: Vec::new() };
            closed(&continued, "\n\n", &vocabulary).expect("covered")
        };
        assert_eq!(closed(&[1, 2], "ab"), [1, 2, 4]);
        assert_eq!(closed(&[1, 3, 3], "a\n\n"), [1, 4], "an end that it has of itself is not doubled");
        assert_eq!(closed(&[1, 4, 2], "a"), [1, 4], "up to a text to stop at");
        assert_eq!(closed(&[1, 5, 6], "aé"), [1, 5, 6, 4], "tokens stay, though others have the same bytes");
        assert_eq!(closed(&[1, 5, 7], "aé"), [1, 8, 4], "but for one that goes on behind the answer");
        assert_eq!(closed(&[], ""), [4]);
    }
}
