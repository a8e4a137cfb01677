//! Walks a checked plan and calls a [`Recorder`] for each command, so that recording branches on commands here alone.
//!
//! Gets a plan and a recorder, returns what the recorder fails with. Calls come in the plan's order: for each level its
//! barrier, if any, then its commands; the leaving barrier last. With a [`Tracker`], every command is first
//! checked against the usages that the transitions so far have left the buffers in. Never talks to a GPU itself.

use crate::exec::ExecError;
use crate::plan::Plan;
use crate::plan::command::{BufferId, Command, Copy, Dispatch, Slice, Transition};
use crate::plan::usage::Usage;

/// What an executor does for each command.
pub trait Recorder {
    /// One barrier call.
    fn barrier(&mut self, transitions: &[Transition]) -> Result<(), ExecError>;
    /// One dispatch; `index` counts the plan's dispatches from 0, for looking up what was prepared for it.
    fn dispatch(&mut self, index: usize, dispatch: &Dispatch) -> Result<(), ExecError>;
    /// One copy.
    fn copy(&mut self, copy: &Copy) -> Result<(), ExecError>;
    /// After each command: for those who note the time.
    fn command_done(&mut self) {}
    /// After the last command of each level: for those who note the time.
    fn level_done(&mut self) {}
}

/// Where a transition stands in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransitionAt {
    /// Which level's barrier; the number of levels stands for the leaving barrier.
    pub level: usize,
    /// Which of its transitions.
    pub transition: usize,
}

impl TransitionAt {
    fn find_in(self, plan: &Plan) -> Result<(), ExecError> {
        let Self { level, transition } = self;
        let barrier = match plan.levels.get(level) {
            Some(level) => level.barrier.len(),
            None if level == plan.levels.len() => plan.leave.len(),
            None => {
                let reason = format!("the plan has {} levels and a barrier after them", plan.levels.len());
                return Err(ExecError::NoTransition { level, transition, reason });
            }
        };
        if transition < barrier {
            return Ok(());
        }
        let reason = format!("the barrier before level {level} has {barrier} transitions");
        Err(ExecError::NoTransition { level, transition, reason })
    }
}

/// Changes a single transition while a plan is recorded, so that tests and `verify` can see what notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Which transition.
    pub at: TransitionAt,
    /// What is recorded instead of it; nothing leaves it out.
    pub with: Option<Transition>,
}

/// A barrier's transitions after edits.
pub fn edited(level: usize, transitions: &[Transition], edits: &[Edit]) -> Vec<Transition> {
    let edit = |(transition, planned): (usize, &Transition)| {
        let at = TransitionAt { level, transition };
        edits.iter().find(|edit| edit.at == at).map_or(Some(*planned), |edit| edit.with)
    };
    transitions.iter().enumerate().filter_map(edit).collect()
}

/// Records all commands of a plan.
///
/// # Errors
/// What the recorder fails with, [`ExecError::Usage`] for a command that `tracker` does not allow, or
/// [`ExecError::NoTransition`] if one of `edits` is about a transition that is not there.
pub fn replay(
    plan: &Plan,
    recorder: &mut impl Recorder,
    mut tracker: Option<&mut Tracker>,
    edits: &[Edit],
) -> Result<(), ExecError> {
    edits.iter().try_for_each(|edit| edit.at.find_in(plan))?;
    let mut dispatch_index = 0;
    let barrier = |level: usize, transitions: &[Transition], recorder: &mut _, tracker: &mut Option<&mut Tracker>| {
        let changed: Vec<Transition>;
        let transitions = if edits.iter().any(|edit| edit.at.level == level) {
            changed = edited(level, transitions, edits);
            changed.as_slice()
        } else {
            transitions
        };
        if transitions.is_empty() {
            return Ok(());
        }
        if let Some(tracker) = tracker {
            tracker.transition(plan, transitions)?;
        }
        Recorder::barrier(recorder, transitions)
    };
    for (number, level) in plan.levels.iter().enumerate() {
        barrier(number, &level.barrier, recorder, &mut tracker)?;
        for command in &level.commands {
            if let Some(tracker) = &mut tracker {
                tracker.command(plan, command)?;
            }
            match command {
                Command::Dispatch(dispatch) => {
                    recorder.dispatch(dispatch_index, dispatch)?;
                    dispatch_index += 1;
                }
                Command::Copy(copy) => recorder.copy(copy)?,
            }
            recorder.command_done();
        }
        recorder.level_done();
    }
    barrier(plan.levels.len(), &plan.leave, recorder, &mut tracker)?;
    match tracker {
        Some(tracker) => tracker.leave(plan),
        None => Ok(()),
    }
}

/// The usage of every buffer while a plan is recorded: the same state machine that the plan was checked with, run again
/// on the very calls that are made.
#[derive(Clone, Debug)]
pub struct Tracker {
    /// Current usage, and the bytes written in it since the last transition, as first byte and one past the last.
    states: Vec<(Usage, Vec<(u64, u64)>)>,
}

impl Tracker {
    /// Every buffer at rest.
    pub fn new(plan: &Plan) -> Self {
        // What earlier steps wrote is not known here: anything, if the buffer rests in a write.
        let written = |rest: Usage| if rest.writes() { vec![(0, u64::MAX)] } else { Vec::new() };
        Self { states: plan.buffers.values().map(|buffer| (buffer.rest, written(buffer.rest))).collect() }
    }

    fn error(plan: &Plan, command: &str, buffer: BufferId, reason: String) -> ExecError {
        let label = plan.buffers.get(buffer).map_or("?", |buffer| buffer.label.as_str());
        ExecError::Usage { command: command.to_owned(), buffer: format!("{buffer} {label}"), reason }
    }

    fn transition(&mut self, plan: &Plan, transitions: &[Transition]) -> Result<(), ExecError> {
        for transition in transitions {
            let state = &mut self.states[transition.buffer.index()];
            if state.0 != transition.from {
                let reason = format!("a transition from {} finds it in {}", transition.from, state.0);
                return Err(Self::error(plan, "barrier", transition.buffer, reason));
            }
            *state = (transition.to, Vec::new());
        }
        Ok(())
    }

    fn command(&mut self, plan: &Plan, command: &Command) -> Result<(), ExecError> {
        let mut uses: Vec<(Slice, Usage)> = Vec::new();
        match command {
            Command::Dispatch(dispatch) => {
                let bindings = &plan.kernels[dispatch.kernel].bindings;
                uses.extend(dispatch.bindings.iter().zip(bindings).map(|(slice, binding)| (*slice, binding.usage())));
            }
            Command::Copy(copy) => uses.extend([(copy.from, Usage::COPY_SRC), (copy.to, Usage::COPY_DST)]),
        }
        for (Slice { buffer, offset_bytes, size_bytes }, usage) in uses {
            let (state, written) = &mut self.states[buffer.index()];
            if !state.contains(usage) {
                let reason =
                    format!("it is in {state} and the command needs {usage}; a transition is missing or wrong");
                return Err(Self::error(plan, command.label(), buffer, reason));
            }
            let end = offset_bytes + size_bytes;
            if written.iter().any(|(from, to)| offset_bytes < *to && *from < end) {
                let reason = format!("it was written in {state} before, and no transition stands between");
                return Err(Self::error(plan, command.label(), buffer, reason));
            }
            if usage.writes() {
                written.push((offset_bytes, end));
            }
        }
        Ok(())
    }

    fn leave(&self, plan: &Plan) -> Result<(), ExecError> {
        for (buffer, (state, _)) in plan.buffers.ids().zip(&self.states) {
            let rest = plan.buffers[buffer].rest;
            if *state != rest {
                let reason = format!("it leaves the step in {state} and must be in {rest}");
                return Err(Self::error(plan, "leave", buffer, reason));
            }
        }
        Ok(())
    }
}
