//! `run --dump`: values of the graph while a prompt is read, as safetensors.
//!
//! Gets what is to be dumped and the steps of a prompt, writes each value with the tokens as its first axis, or one
//! token's part of it. What holds then: every file is written once, when the prompt has been read. Never changes what
//! is computed, and holds what it writes in memory.

use std::path::{Path, PathBuf};

use crate::cli::{Failure, files};
use crate::compile::{CompileError, Compiler};
use crate::exec::{Outputs, Session};
use crate::generate::batch::{Batch, Feed, SequenceId};
use crate::generate::{GenerateError, Rows};
use crate::inspect::values::{Along, Values, row};
use crate::tensor::Tensor;

/// What one flag asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dump {
    value: String,
    /// All tokens if none is named.
    token: Option<usize>,
    file: PathBuf,
}

/// The value of `--dump`.
pub(super) fn parse(text: &str) -> Result<Dump, String> {
    let wrong = || "expected a value, perhaps a token, and a file, as in layer0.wkv@5=FILE".to_owned();
    let (what, file) = text.split_once('=').filter(|(_, file)| !file.is_empty()).ok_or_else(wrong)?;
    let (value, token) = match what.split_once('@') {
        Some((value, token)) => (value, Some(token.parse().map_err(|_| wrong())?)),
        None => (what, None),
    };
    if value.is_empty() {
        return Err(wrong());
    }
    Ok(Dump { value: value.to_owned(), token, file: PathBuf::from(file) })
}

impl Dump {
    /// The name of its tensor.
    fn name(&self) -> String {
        self.token.map_or_else(|| self.value.clone(), |token| format!("{}@{token}", self.value))
    }
}

/// The paths to keep, those of dumps included.
pub(super) fn kept(keep: &[String], dumps: &[Dump]) -> Vec<String> {
    keep.iter().cloned().chain(dumps.iter().map(|dump| dump.value.clone())).collect()
}

/// Refuses tokens that a prompt of this many does not have.
pub(super) fn check(dumps: &[Dump], prompt_tokens: usize) -> Result<(), Failure> {
    let stray = dumps.iter().find(|dump| dump.token.is_some_and(|token| token >= prompt_tokens));
    let Some(dump) = stray else { return Ok(()) };
    let message = format!("`--dump {}`: the prompt has {prompt_tokens} tokens, counted from 0", dump.name());
    Err(Failure::Diagnostics(format!("error: {message}\n")))
}

/// Dumps, and where the tokens are in their values.
pub(super) struct Watch<'a> {
    dumps: &'a [Dump],
    along: Vec<Along>,
}

impl<'a> Watch<'a> {
    /// `tokens` are those of the largest step.
    pub(super) fn new(dumps: &'a [Dump], compiler: &Compiler<'_>, tokens: u32) -> Result<Self, CompileError> {
        if dumps.is_empty() {
            return Ok(Self::nothing());
        }
        let names = kept(&[], dumps);
        Ok(Self { dumps, along: Values::along(compiler, tokens, &names)? })
    }

    /// Dumps nothing.
    pub(super) const fn nothing() -> Self {
        Self { dumps: &[], along: Vec::new() }
    }

    /// The rows that steps are run with: values of rows have one for every token only if logits have.
    pub(super) fn rows(&self, rows: Rows) -> Rows {
        if self.dumps.is_empty() { rows } else { Rows::All }
    }

    /// Reads a prompt, and writes what is to be dumped of it. Returns the rows of logits wanted, and the outputs of the
    /// last step.
    pub(super) fn run<S: Session>(
        &self,
        batch: &mut Batch<'_, S>,
        sequence: SequenceId,
        prompt: &[u32],
        rows: Rows,
    ) -> Result<(Vec<Vec<f32>>, Outputs), Failure> {
        if self.dumps.is_empty() {
            let (mut logits, outputs) = batch.run(&[Feed { sequence, tokens: prompt }], rows)?;
            return Ok((logits.remove(0), outputs));
        }
        let step = *batch.options().step_tokens.last().expect("there is a size") as usize;
        let mut parts: Vec<Parts> = self.dumps.iter().map(|_| Parts::default()).collect();
        let (mut logits, mut last) = (Vec::new(), None);
        for (nth, tokens) in prompt.chunks(step).enumerate() {
            let begin = nth * step;
            let (mut found, outputs) = batch.run(&[Feed { sequence, tokens }], Rows::All)?;
            for ((dump, along), parts) in self.dumps.iter().zip(&self.along).zip(&mut parts) {
                let tensor = outputs.named(&dump.value).expect("what is kept is an output");
                let end = begin + tokens.len();
                (begin..end).for_each(|token| parts.take(dump, *along, tensor, (token, (begin, end))));
            }
            logits.append(&mut found[0]);
            last = Some(outputs);
        }
        if rows == Rows::Last {
            logits.drain(..logits.len().saturating_sub(1));
        }
        self.write(parts)?;
        let outputs = last.ok_or_else(|| GenerateError::Sequence("there is nothing to run".into()))?;
        Ok((logits, outputs))
    }

    /// Writes every file, with all that goes into it.
    fn write(&self, parts: Vec<Parts>) -> Result<(), Failure> {
        let mut left: Vec<(&Dump, Parts)> = self.dumps.iter().zip(parts).collect();
        while let Some(path) = left.first().map(|(dump, _)| dump.file.clone()) {
            let (here, elsewhere): (Vec<_>, Vec<_>) = left.into_iter().partition(|(dump, _)| dump.file == path);
            let mut tensors: Vec<(String, Tensor)> = Vec::new();
            for (dump, parts) in here {
                let name = dump.name();
                if tensors.iter().all(|(other, _)| *other != name) {
                    tensors.push((name, parts.tensor(dump.token.is_some())));
                }
            }
            files::write_tensors(Path::new(&path), &tensors)?;
            left = elsewhere;
        }
        Ok(())
    }
}

/// The parts of a value that were taken so far, one after the other.
#[derive(Default)]
struct Parts {
    count: u64,
    /// Shape and type of each.
    like: Option<Tensor>,
    bytes: Vec<u8>,
}

impl Parts {
    fn take(&mut self, dump: &Dump, along: Along, tensor: &Tensor, (token, step): (usize, (usize, usize))) {
        // A value of the step as a whole is named by any token of it.
        let is_named = match (dump.token, along) {
            (None, _) => true,
            (Some(named), Along::Step) => token + 1 == step.1 && (step.0..step.1).contains(&named),
            (Some(named), _) => named == token,
        };
        if let Some(part) = along.part(token, step).filter(|_| is_named) {
            self.count += 1;
            self.bytes.extend_from_slice(&row(tensor, part));
            let (dtype, shape) = (tensor.dtype, along.row_shape(&tensor.shape));
            self.like.get_or_insert(Tensor { dtype, shape, bytes: Vec::new() });
        }
    }

    /// The one part, or all of them along a first axis.
    fn tensor(self, is_one: bool) -> Tensor {
        let mut tensor = self.like.expect("every token is run");
        if !is_one {
            tensor.shape.insert(0, self.count);
        }
        tensor.bytes = self.bytes;
        tensor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_a_value_perhaps_a_token_and_a_file() {
        let dump = |value: &str, token, file: &str| Dump { value: value.into(), token, file: file.into() };
        assert_eq!(parse("layer0.wkv=a.st"), Ok(dump("layer0.wkv", None, "a.st")));
        assert_eq!(parse("state.s.3#1@12=x=y"), Ok(dump("state.s.3#1", Some(12), "x=y")));
        for wrong in ["", "a", "a=", "=b", "@3=b", "a@=b", "a@b=c", "a@-1=c"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
