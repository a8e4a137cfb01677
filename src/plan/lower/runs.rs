//! Where the elements of what an op is bound to lie.
//!
//! Gets a value, returns the runs of bytes that its elements are in: one, or several of a join whose parts do not lie
//! side by side. Never binds them.

use super::{Lowering, Run};
use crate::base::diag::Diagnostic;
use crate::model::{Op, OpArg, Origin, ValueId};

impl Lowering<'_> {
    /// Where the elements of a value lie: in one run, or several of a join whose parts do not lie side by side.
    pub(super) fn runs(&self, value: ValueId) -> Vec<Run> {
        let run = |value: ValueId| {
            let place = self.places[value.index()].expect("every bound value has a place");
            Run { place, count: self.model.values[value].count() }
        };
        let Origin::Join { parts } = &self.model.values[value].origin else { return vec![run(value)] };
        let mut runs: Vec<Run> = Vec::new();
        for next in parts.iter().map(|part| run(*part)) {
            let follows = runs.last_mut().filter(|last| {
                let (slice, end) = (next.place.slice, last.place.slice.offset_bytes + last.place.slice.size_bytes);
                last.place.record == next.place.record
                    && last.place.slice.buffer == slice.buffer
                    && end == slice.offset_bytes
            });
            match follows {
                Some(last) => {
                    last.place.slice.size_bytes += next.place.slice.size_bytes;
                    last.count += next.count;
                }
                None => runs.push(next),
            }
        }
        runs
    }

    /// The run of a port whose storage the text declares itself, which takes it in one piece.
    pub(super) fn one_run(&self, op: &Op, arg: &OpArg, value: ValueId) -> Result<Run, Diagnostic> {
        let mut runs = self.runs(value);
        match (runs.pop(), runs.is_empty()) {
            (Some(run), true) => Ok(run),
            _ => {
                let message = format!("the parts of `{}` do not lie side by side", self.model.values[value].path);
                let note = format!("the text of `{}` declares the storage of `{}` itself", op.kernel, arg.port);
                Err(Diagnostic::error(op.span, message).note(note))
            }
        }
    }
}
