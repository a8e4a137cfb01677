//! The sanitizer: looks at every access of a session, within dispatches and across them.
//!
//! Gets what the session does, in order; keeps findings, and of each plan what the commands of its last step touched.
//! What holds then: each word of a buffer is known to hold something or not, and each buffer is followed as the usage
//! state machine that the plan's transitions make of it. Never changes what is computed: a read of what no transition
//! has made visible finds the newest value, and is reported.

pub mod finding;
mod lanes;
mod order;
pub mod shadow;
mod words;

use std::sync::{Arc, Mutex, PoisonError};

use crate::exec::reference::Sanitize;
use crate::exec::reference::memory::BlockId;
use crate::exec::reference::program::Program;
use crate::exec::reference::sanitize::finding::Findings;
use crate::exec::reference::sanitize::lanes::{Lanes, Shadow, Words};
use crate::exec::reference::sanitize::order::{Touched, Track, Use, Wrong};
use crate::exec::reference::sanitize::shadow::{Footprints, Party};
use crate::plan::command::{BufferId, BufferKind, Copy, Dispatch, Slice, Transition};
use crate::plan::usage::Usage;
use crate::plan::weights::WeightLayout;
use crate::plan::{CheckedPlan, Plan};

/// A plan with what it is bound to.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) plan: Arc<CheckedPlan>,
    /// By kernel.
    pub(super) programs: Vec<Arc<Program>>,
    /// By buffer.
    pub(super) blocks: Vec<BlockId>,
}

impl Context {
    fn block(&self, buffer: BufferId) -> usize {
        self.blocks[buffer.index()].index()
    }
}

/// Whose use it is.
#[derive(Clone, Debug)]
struct Who {
    context: Arc<Context>,
    step: u64,
    party: Party,
}

/// A session's memory as far as the sanitizer knows it.
#[derive(Debug)]
pub(super) struct Sanitizer {
    options: Sanitize,
    findings: Arc<Mutex<Findings>>,
    /// By block: which words hold something.
    written: Vec<Words>,
    /// By block; nothing for weights, which nobody writes.
    tracks: Vec<Option<Track<Who>>>,
    /// The step that runs, and its plan.
    step: u64,
    context: Option<Arc<Context>>,
    /// The level of every command of it.
    levels: Vec<usize>,
    /// How many of its commands have begun.
    commands: usize,
    footprints: Footprints,
}

impl Sanitizer {
    pub(super) fn new(options: Sanitize, findings: Arc<Mutex<Findings>>) -> Self {
        Self {
            options,
            findings,
            written: Vec::new(),
            tracks: Vec::new(),
            step: 0,
            context: None,
            levels: Vec::new(),
            commands: 0,
            footprints: Footprints::default(),
        }
    }

    /// Weights, in the blocks of the layout's buffers: of them, what lies between tensors holds nothing.
    pub(super) fn weights(&mut self, layout: &WeightLayout, blocks: &[BlockId]) {
        for (buffer, block) in layout.buffers.iter().zip(blocks) {
            self.insert(*block, Words::new((buffer.size_bytes / 4) as usize, false), None);
        }
        for piece in &layout.pieces {
            let first = (piece.offset_bytes / 4) as usize;
            let count = (piece.dtype.storage_bytes(piece.count) / 4) as usize;
            self.written[blocks[piece.buffer as usize].index()].set_range(first..first + count, true);
        }
    }

    /// A block that steps use, at rest.
    pub(super) fn block(&mut self, block: BlockId, size_bytes: u64, rest: Usage, holds: bool) {
        self.insert(block, Words::new((size_bytes / 4) as usize, holds), Some(Track::new(rest)));
    }

    fn insert(&mut self, block: BlockId, words: Words, track: Option<Track<Who>>) {
        let at = block.index();
        if self.written.len() <= at {
            self.written.resize(at + 1, Words::default());
            self.tracks.resize(at + 1, None);
        }
        self.written[at] = words;
        self.tracks[at] = track;
    }

    /// Footprints of the step that ran last.
    pub(super) const fn footprints(&self) -> &Footprints {
        &self.footprints
    }

    /// A step begins: the host has written its inputs.
    pub(super) fn begin(&mut self, context: &Arc<Context>) {
        self.step += 1;
        self.commands = 0;
        let plan = &context.plan;
        let levels = plan.levels.iter().enumerate();
        self.levels = levels.flat_map(|(level, commands)| commands.commands.iter().map(move |_| level)).collect();
        self.footprints = Footprints { uses: vec![Vec::new(); plan.buffers.len()] };
        for (buffer, block) in plan.buffers.values().zip(&context.blocks) {
            if !matches!(buffer.kind, BufferKind::Weight { .. } | BufferKind::State { .. }) {
                self.written[block.index()].clear();
            }
        }
        self.context = Some(context.clone());
        for input in &plan.inputs {
            let Slice { buffer, offset_bytes, .. } = input.slice;
            let first = (offset_bytes / 4) as usize;
            let words = first..first + input.count as usize;
            self.written[context.block(buffer)].set_range(words.clone(), true);
            let writes = Touched::range(words.start, words.end);
            self.used(Party::HostBefore, buffer, Usage::MAP_WRITE, (Touched::default(), writes));
        }
    }

    fn context(&self) -> Arc<Context> {
        self.context.clone().expect("commands belong to a step that has begun")
    }

    /// A barrier.
    pub(super) fn transitions(&mut self, transitions: &[Transition]) {
        let context = self.context();
        for Transition { buffer, from, to } in transitions {
            let Some(track) = &mut self.tracks[context.block(*buffer)] else { continue };
            if let Some(wrong) = track.transition(*from, *to) {
                self.wrong(*buffer, &wrong);
            }
        }
    }

    /// Goes on to the next command: values begin with its level, and find nothing written. Returns its number.
    fn next(&mut self) -> usize {
        let (context, number) = (self.context(), self.commands);
        self.commands += 1;
        let level = self.levels[number];
        if number == 0 || self.levels[number - 1] != level {
            for value in context.plan.values.iter().filter(|value| value.first_level as usize == level) {
                let first = (value.offset_bytes / 4) as usize;
                let end = first + (value.size_bytes / 4) as usize;
                self.written[context.block(value.buffer)].set_range(first..end, false);
            }
        }
        number
    }

    /// A dispatch; `run` runs it before the eyes of what it is given.
    pub(super) fn dispatch(&mut self, dispatch: &Dispatch, run: impl FnOnce(&mut Lanes<'_>)) {
        let (context, number) = (self.context(), self.next());
        let kernel = &context.plan.kernels[dispatch.kernel];
        let shadow = |(slice, writes): (&Slice, bool)| {
            let block = context.block(slice.buffer);
            let (first, count) = ((slice.offset_bytes / 4) as usize, (slice.size_bytes / 4) as usize);
            Shadow::new(block, first, count, (self.tracks[block].is_some(), writes))
        };
        let writes = kernel.bindings.iter().map(|binding| binding.writes);
        let shadows = dispatch.bindings.iter().zip(writes).map(shadow).collect();
        let memory = (kernel.workgroup_bytes, kernel.zero_workgroup_memory);
        let mut lanes = Lanes::new(&mut self.written, shadows, memory, self.options.not_finite);
        run(&mut lanes);
        let (events, shadows) = lanes.finish();
        for event in &events {
            self.event(number, dispatch, event);
        }
        for ((slice, binding), shadow) in dispatch.bindings.iter().zip(&kernel.bindings).zip(&shadows) {
            if self.tracks[shadow.block].is_some() {
                self.used(Party::Command(number), slice.buffer, binding.usage(), shadow.touched());
            }
        }
    }

    /// A copy: what holds nothing at the source holds nothing at the destination.
    pub(super) fn copy(&mut self, copy: &Copy) {
        let (context, number) = (self.context(), self.next());
        let words = |slice: &Slice| {
            let first = (slice.offset_bytes / 4) as usize;
            (first, first + (slice.size_bytes / 4) as usize)
        };
        let ((from, from_end), (to, to_end)) = (words(&copy.from), words(&copy.to));
        let (source, target) = (context.block(copy.from.buffer), context.block(copy.to.buffer));
        for word in 0..from_end - from {
            let holds = self.written[source].has(from + word);
            self.written[target].set(to + word, holds);
        }
        let (reads, writes) = (Touched::range(from, from_end), Touched::range(to, to_end));
        let party = Party::Command(number);
        self.used(party, copy.from.buffer, Usage::COPY_SRC, (reads, Touched::default()));
        self.used(party, copy.to.buffer, Usage::COPY_DST, (Touched::default(), writes));
    }

    /// The step ends: the host reads its outputs, and everything is at rest.
    pub(super) fn end(&mut self) {
        let context = self.context();
        for output in &context.plan.outputs {
            let size_bytes = output.shape.iter().product::<u64>() * output.dtype.size_bytes();
            let first = (output.slice.offset_bytes / 4) as usize;
            let words = first..first + size_bytes.div_ceil(4) as usize;
            let block = context.block(output.slice.buffer);
            if let Some(word) = words.clone().find(|word| !self.written[block].has(*word)) {
                self.unwritten_output(&output.name, output.slice.buffer, word - first);
            }
            let reads = Touched::range(words.start, words.end);
            self.used(Party::HostAfter, output.slice.buffer, Usage::MAP_READ, (reads, Touched::default()));
        }
        for (buffer, planned) in context.plan.buffers.iter() {
            let Some(track) = &mut self.tracks[context.block(buffer)] else { continue };
            if let Some(wrong) = track.end(self.step, planned.rest) {
                self.wrong(buffer, &wrong);
            }
        }
    }

    /// The host has read or written a buffer between two steps, with transitions of its own, from its rest and back.
    pub(super) fn at_rest(&mut self, block: BlockId, rest: Usage, usage: Usage) {
        if let Some(track) = &mut self.tracks[block.index()] {
            let _in_order = track.transition(rest, usage);
            let _in_order = track.transition(usage, rest);
        }
    }

    /// A party of the step uses a buffer.
    fn used(&mut self, party: Party, buffer: BufferId, usage: Usage, (reads, writes): (Touched, Touched)) {
        let (context, step) = (self.context(), self.step);
        let (reads, writes) = (Arc::new(reads), Arc::new(writes));
        let footprint = Use { who: party, step: 0, usage, reads: reads.clone(), writes: writes.clone() };
        self.footprints.uses[buffer.index()].push(footprint);
        let who = Who { context: context.clone(), step, party };
        let Some(track) = &mut self.tracks[context.block(buffer)] else { return };
        let wrong = track.apply(Use { who, step, usage, reads, writes });
        wrong.iter().for_each(|wrong| self.wrong(buffer, wrong));
    }

    fn push(&self, finding: finding::Finding) {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
    }

    fn plan(&self) -> &Plan {
        &self.context.as_ref().expect("a step has begun").plan
    }

    /// Something wrong across commands.
    fn wrong(&self, buffer: BufferId, wrong: &Wrong<Who>) {
        let context = self.context();
        self.push(words::across(&context, self.step, buffer, wrong));
    }

    /// Something wrong within a dispatch.
    fn event(&self, number: usize, dispatch: &Dispatch, event: &lanes::Event) {
        self.push(words::within(&self.context(), self.levels[number], dispatch, event));
    }

    fn unwritten_output(&self, name: &str, buffer: BufferId, word: usize) {
        self.push(words::unwritten_output(self.plan(), name, buffer, word));
    }
}
