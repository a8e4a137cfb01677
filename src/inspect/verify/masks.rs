//! What Vulkan's synchronization validation sees of a plan, computed from the stage and access masks alone.
//!
//! Gets a plan and edits of its transitions; returns the hazards that the Khronos layer 1.3.239 reports of a step with
//! them and of the intact steps after it. What holds then: these and no others, for what `exec::hal` records: one
//! pipeline barrier a barrier call, whose execution dependency covers every buffer, with the union of the stages of all
//! its usages, and whose memory dependencies are by buffer; one command buffer a submission, each behind the one
//! before by a semaphore. ARCHITECTURE.md says what that leaves unseen. Never asks a device, and shares no code with
//! the planner, the checker or the oracle.

#[cfg(test)]
mod tests;

use crate::exec::STEPS_IN_FLIGHT;
use crate::exec::replay::{Edit, edited};
use crate::plan::Plan;
use crate::plan::command::{Command, Slice, Transition};
use crate::plan::reasons::Hazard;
use crate::plan::usage::Usage;

bitflags::bitflags! {
    /// Pipeline stages, as far as plans reach them. hal's shader stages are always named together.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Stages: u8 {
        const HOST = 1 << 0;
        const TRANSFER = 1 << 1;
        const SHADER = 1 << 2;
    }
}

/// The stages in which a usage happens.
fn stages(usage: Usage) -> Stages {
    let mut stages = Stages::empty();
    stages.set(Stages::HOST, usage.intersects(Usage::MAP_READ | Usage::MAP_WRITE));
    stages.set(Stages::TRANSFER, usage.intersects(Usage::COPY_SRC | Usage::COPY_DST));
    stages.set(Stages::SHADER, usage.intersects(Usage::STORAGE_READ | Usage::STORAGE_WRITE));
    stages
}

/// The accesses of a usage, a bit each: who may write a storage buffer may read it, too.
fn accesses(usage: Usage) -> Usage {
    if usage.contains(Usage::STORAGE_WRITE) { usage | Usage::STORAGE_READ } else { usage }
}

/// A report of the layer, of the step with the edits (0) or of one after it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// While a step is recorded, at one binding of a dispatch or one end of a copy.
    Recorded {
        /// The step.
        step: usize,
        /// The command, counted from the first of the plan.
        command: usize,
        /// The binding's number; of a copy 0 for its source and 1 for its destination.
        binding: usize,
        /// What is reported.
        hazard: Hazard,
    },
    /// When a step is submitted. The layer reports one hazard between two barriers, that of the buffer with the lowest
    /// address, so any one of these.
    Submitted {
        /// The step.
        step: usize,
        /// The commands, counted from the first of the plan, with what would be reported.
        any_of: Vec<(usize, Hazard)>,
    },
}

impl Event {
    /// As in "step 0 has a RAW hazard at `layer0.wkv`".
    pub fn text(&self, plan: &Plan) -> String {
        let label = |command: usize| plan.commands().nth(command).map_or("?", Command::label);
        match self {
            Self::Recorded { step, command, binding, hazard } => {
                format!("step {step} has a {hazard} hazard at `{}`, binding {binding}", label(*command))
            }
            Self::Submitted { step, any_of } => {
                let any: Vec<String> =
                    any_of.iter().map(|(command, hazard)| format!("{hazard} at `{}`", label(*command))).collect();
                format!("step {step} has a hazard with steps before it, {}", any.join(" or "))
            }
        }
    }
}

/// A plan in the layer's eyes.
#[derive(Clone, Debug)]
pub struct Model<'a> {
    plan: &'a Plan,
    commands: Vec<Touched>,
    /// The ranges of each buffer, by buffer: the first and one past the last in what follows.
    ranges: Vec<(usize, usize)>,
    /// Whether each range is of a buffer that each step in flight has its own of.
    is_host: Vec<bool>,
    /// What is known of every range after steps without edits.
    steady: Vec<Frames>,
}

/// What is known of a range, by frame; what is not host-visible is the same memory in every frame, the first.
type Frames = [State; STEPS_IN_FLIGHT];

/// A command of the plan.
#[derive(Clone, Debug)]
struct Touched {
    level: usize,
    is_copy: bool,
    touches: Vec<Touch>,
}

/// One access of a command to consecutive ranges.
#[derive(Clone, Copy, Debug)]
struct Touch {
    binding: usize,
    /// One usage alone: a binding that a kernel writes is a write, whether or not it reads as well.
    usage: Usage,
    first: usize,
    end: usize,
}

impl<'a> Model<'a> {
    /// Cuts the plan's buffers into ranges that are used as a whole, and replays it until every frame has had its turn.
    pub fn new(plan: &'a Plan) -> Self {
        let mut cuts: Vec<Vec<u64>> = vec![Vec::new(); plan.buffers.len()];
        let mut is_written = vec![false; plan.buffers.len()];
        for (slice, usage) in plan.commands().flat_map(|command| slices(plan, command)) {
            cuts[slice.buffer.index()].extend([slice.offset_bytes, slice.offset_bytes + slice.size_bytes]);
            is_written[slice.buffer.index()] |= usage.writes();
        }
        let (mut ranges, mut is_host) = (Vec::new(), Vec::new());
        for (id, cuts) in plan.buffers.ids().zip(&mut cuts) {
            cuts.sort_unstable();
            cuts.dedup();
            // What nothing writes has no hazards, and no part in others'.
            let count = if is_written[id.index()] { cuts.len().saturating_sub(1) } else { 0 };
            let first = is_host.len();
            is_host.resize(first + count, plan.buffers[id].kind.is_host_visible());
            ranges.push((first, first + count));
        }
        let touch = |(binding, (slice, usage)): (usize, (Slice, Usage))| {
            let (first, end) = ranges[slice.buffer.index()];
            let cuts = &cuts[slice.buffer.index()];
            let at = |offset| (first + cuts.partition_point(|cut| *cut < offset)).min(end);
            Touch { binding, usage, first: at(slice.offset_bytes), end: at(slice.offset_bytes + slice.size_bytes) }
        };
        let mut commands = Vec::new();
        for (level, command) in
            plan.levels.iter().enumerate().flat_map(|(l, level)| level.commands.iter().map(move |c| (l, c)))
        {
            let touches = slices(plan, command).into_iter().enumerate().map(touch).collect();
            commands.push(Touched { level, is_copy: matches!(command, Command::Copy(_)), touches });
        }
        let steady = vec![Frames::default(); is_host.len()];
        let mut model = Self { plan, commands, ranges, is_host, steady };
        let mut states = model.steady.clone();
        for step in 0..2 * STEPS_IN_FLIGHT {
            model.step(&mut states, &[], step, &mut Vec::new());
        }
        model.steady = states;
        model
    }

    /// What is predicted of a step with edits and the intact ones after it, as many as may be in flight: host-visible
    /// buffers are used again only then. In order.
    pub fn predict(&self, edits: &[Edit]) -> Vec<Event> {
        let mut states = self.steady.clone();
        let mut events = Vec::new();
        for step in 0..=STEPS_IN_FLIGHT {
            self.step(&mut states, if step == 0 { edits } else { &[] }, step, &mut events);
        }
        events.sort();
        events
    }

    /// One step: recorded against itself alone, and submitted against what was submitted before.
    fn step(&self, states: &mut [Frames], edits: &[Edit], step: usize, events: &mut Vec<Event>) {
        let frame = |range: usize| if self.is_host[range] { step % STEPS_IN_FLIGHT } else { 0 };
        states.iter_mut().flatten().for_each(State::wait);
        let mut walk = Walk {
            ranges: states.iter().enumerate().map(|(at, states)| Range::new(states[frame(at)])).collect(),
            any_of: Vec::new(),
            step,
            events,
        };
        let mut commands = self.commands.iter().enumerate().peekable();
        for level in 0..=self.plan.levels.len() {
            let planned = self.plan.levels.get(level).map_or(&self.plan.leave, |level| &level.barrier);
            let changed: Vec<Transition>;
            let transitions = match edits.iter().any(|edit| edit.at.level == level) {
                true => {
                    changed = edited(level, planned, edits);
                    &changed
                }
                false => planned,
            };
            if !transitions.is_empty() {
                walk.barrier(transitions, &self.ranges);
            }
            while let Some((number, command)) = commands.next_if(|(_, command)| command.level == level) {
                walk.command(number, command);
            }
        }
        walk.close();
        for (at, range) in walk.ranges.into_iter().enumerate() {
            states[at][frame(at)] = range.submitted.followed_by(range.recorded);
        }
    }
}

/// A walk through one step.
struct Walk<'e> {
    ranges: Vec<Range>,
    /// What was found since the last barrier, against what was submitted before.
    any_of: Vec<(usize, Hazard)>,
    step: usize,
    events: &'e mut Vec<Event>,
}

impl Walk<'_> {
    fn barrier(&mut self, transitions: &[Transition], ranges: &[(usize, usize)]) {
        self.close();
        let (mut before, mut after) = (Stages::empty(), Stages::empty());
        for transition in transitions {
            before |= stages(transition.from);
            after |= stages(transition.to);
        }
        let mut memory: Vec<(usize, Usage, Usage)> = Vec::with_capacity(transitions.len());
        for Transition { buffer, from, to } in transitions {
            memory.push((buffer.index(), accesses(*from), accesses(*to)));
        }
        for (buffer, (first, end)) in ranges.iter().enumerate() {
            let own = memory.iter().filter(|(of, _, _)| *of == buffer).map(|(_, from, to)| (*from, *to));
            for range in &mut self.ranges[*first..*end] {
                range.recorded.barrier(before, after, own.clone());
                range.submitted.barrier(before, after, own.clone());
            }
        }
    }

    /// All accesses of a command are looked at before the first is noted down.
    fn command(&mut self, number: usize, command: &Touched) {
        for touch in &command.touches {
            let ranges = &self.ranges[touch.first..touch.end];
            let found =
                ranges.iter().find_map(|range| Some((range.recorded.hazard(touch.usage)?, range.recorded.write)));
            // Two dispatches that write one buffer may well write different elements, so the layer says nothing.
            let found = found.filter(|(hazard, write)| {
                command.is_copy || *hazard != Hazard::WriteAfterWrite || *write != Some(touch.usage)
            });
            if let Some((hazard, _)) = found {
                let (step, binding) = (self.step, touch.binding);
                self.events.push(Event::Recorded { step, command: number, binding, hazard });
                // Nor on a copy's destination, after it complained of its source.
                if command.is_copy {
                    break;
                }
            }
        }
        for touch in &command.touches {
            for range in &mut self.ranges[touch.first..touch.end] {
                self.any_of.extend(range.access(touch.usage).map(|hazard| (number, hazard)));
            }
        }
    }

    /// The end of an interval without barriers.
    fn close(&mut self) {
        let mut any_of = std::mem::take(&mut self.any_of);
        if !any_of.is_empty() {
            any_of.sort_unstable();
            any_of.dedup();
            self.events.push(Event::Submitted { step: self.step, any_of });
        }
    }
}

/// A range of a buffer during a step.
#[derive(Clone, Copy, Debug)]
struct Range {
    /// By what the step itself does.
    recorded: State,
    /// By what was submitted before, and the barriers of this step.
    submitted: State,
    /// The stages that have read it first.
    first_reads: Stages,
    /// The step has written it: what comes after has nothing to do with what was submitted before.
    is_written: bool,
}

impl Range {
    fn new(submitted: State) -> Self {
        Self { recorded: State::default(), submitted, first_reads: Stages::empty(), is_written: false }
    }

    /// Notes an access; returns the hazard with what was submitted before. That is asked of the first write, and of the
    /// first read in each stage before it that no barrier of this step has ordered behind another read.
    fn access(&mut self, usage: Usage) -> Option<Hazard> {
        let stage = stages(usage);
        let mut hazard = None;
        if usage.writes() {
            if !std::mem::replace(&mut self.is_written, true) {
                hazard = self.submitted.hazard_of_first_write(usage, self.first_reads);
            }
        } else if !self.is_written && !self.first_reads.intersects(stage) {
            self.first_reads |= stage;
            if !self.recorded.read_chain.intersects(stage) {
                hazard = self.submitted.hazard(usage);
            }
        }
        self.recorded.access(usage);
        hazard
    }
}

/// What the layer keeps of a range: its last write and the reads since then, with how far barriers have carried each.
#[derive(Clone, Copy, Debug)]
struct State {
    write: Option<Usage>,
    /// The accesses that the write was made visible to.
    visible_to: Usage,
    /// The stages that barriers after the write have led to: a barrier from one of them goes on from there.
    write_chain: Stages,
    /// The last read in each stage that commands read in: shaders, transfers.
    reads: [Option<Read>; 2],
    /// All stages that barriers after reads have led to.
    read_chain: Stages,
}

/// The last read in a stage.
#[derive(Clone, Copy, Debug)]
struct Read {
    /// The stages that barriers after it have led to.
    chain: Stages,
    /// The stages of reads that happened after it by such a barrier.
    followers: Stages,
}

const READ_STAGES: [Stages; 2] = [Stages::SHADER, Stages::TRANSFER];

impl Default for State {
    fn default() -> Self {
        let (visible_to, write_chain, read_chain) = (Usage::empty(), Stages::empty(), Stages::empty());
        Self { write: None, visible_to, write_chain, reads: [None; 2], read_chain }
    }
}

impl State {
    /// Reads since the last write, with their stages.
    fn reads(&self) -> impl Iterator<Item = (Stages, Read)> {
        READ_STAGES.into_iter().zip(self.reads).filter_map(|(stage, read)| Some((stage, read?)))
    }

    /// What an access in `usage` would be now.
    fn hazard(&self, usage: Usage) -> Option<Hazard> {
        let stage = stages(usage);
        let is_visible = self.visible_to.contains(usage);
        if !usage.writes() {
            let is_raw = self.write.is_some() && !self.read_chain.intersects(stage) && !is_visible;
            return is_raw.then_some(Hazard::ReadAfterWrite);
        }
        // Where something has read since the last write, that write is nobody's concern any more.
        let mut reads = self.reads().peekable();
        if reads.peek().is_some() {
            return reads.any(|(_, read)| !read.chain.contains(stage)).then_some(Hazard::WriteAfterRead);
        }
        (self.write.is_some() && !is_visible).then_some(Hazard::WriteAfterWrite)
    }

    /// What the first write of a step would be, if stages `before` have read in the same step.
    fn hazard_of_first_write(&self, usage: Usage, before: Stages) -> Option<Hazard> {
        if before.is_empty() {
            return self.hazard(usage);
        }
        let mut reads = self.reads().peekable();
        if reads.peek().is_some() {
            let late = |(stage, read): (Stages, Read)| !before.contains(stage) && !read.chain.contains(stages(usage));
            return reads.any(late).then_some(Hazard::WriteAfterRead);
        }
        let is_waw = self.write.is_some_and(|write| write != usage) && !self.visible_to.contains(usage);
        is_waw.then_some(Hazard::WriteAfterWrite)
    }

    /// Notes an access. A write ends what was known.
    fn access(&mut self, usage: Usage) {
        if usage.writes() {
            *self = Self { write: Some(usage), ..Self::default() };
            return;
        }
        let stage = stages(usage);
        for (at, of) in READ_STAGES.into_iter().enumerate() {
            match &mut self.reads[at] {
                found if of == stage => *found = Some(Read { chain: Stages::empty(), followers: Stages::empty() }),
                Some(read) if read.chain.intersects(stage) => read.followers |= stage,
                _ => {}
            }
        }
    }

    /// A barrier call from stages to stages, with the accesses of the transitions that are of this buffer.
    fn barrier(&mut self, before: Stages, after: Stages, own: impl Iterator<Item = (Usage, Usage)>) {
        let is_chained = self.write_chain.intersects(before);
        let mut is_in_scope = is_chained;
        for (from, to) in own {
            if is_chained || self.write.is_some_and(|write| from.contains(write)) {
                self.visible_to |= to;
                is_in_scope = true;
            }
        }
        if is_in_scope {
            self.write_chain |= after;
        }
        self.order(before, after);
    }

    /// The execution dependency of a barrier, for reads.
    fn order(&mut self, before: Stages, after: Stages) {
        let is_in_scope = |(stage, read): &(Stages, Read)| before.intersects(*stage | read.chain);
        let in_scope = self.reads().filter(is_in_scope).fold(Stages::empty(), |all, (stage, _)| all | stage);
        for (stage, read) in READ_STAGES.into_iter().zip(&mut self.reads) {
            if let Some(read) = read.as_mut().filter(|read| in_scope.intersects(stage | read.followers)) {
                read.chain |= after;
                self.read_chain |= read.chain;
            }
        }
    }

    /// The semaphore between two submissions: everything before it is ordered before everything after it, and nothing
    /// is made visible.
    fn wait(&mut self) {
        if self.write.is_some() {
            self.write_chain = Stages::all();
        }
        self.order(Stages::all(), Stages::all());
    }

    /// What is known when a step has been submitted that leaves `recorded`.
    fn followed_by(self, recorded: Self) -> Self {
        if recorded.write.is_some() {
            return recorded;
        }
        // The layer forgets the reads of a step that writes nothing behind a write of a step before.
        if self.write.is_some() {
            return self;
        }
        let [shader, transfer] = [0, 1].map(|at| recorded.reads[at].or(self.reads[at]));
        Self { reads: [shader, transfer], read_chain: self.read_chain | recorded.read_chain, ..self }
    }
}

/// What a command touches, as the layer sees it, in the order of bindings, or source before destination.
fn slices(plan: &Plan, command: &Command) -> Vec<(Slice, Usage)> {
    match command {
        Command::Dispatch(dispatch) => {
            let bindings = &plan.kernels[dispatch.kernel].bindings;
            dispatch.bindings.iter().zip(bindings).map(|(slice, binding)| (*slice, binding.usage())).collect()
        }
        Command::Copy(copy) => vec![(copy.from, Usage::COPY_SRC), (copy.to, Usage::COPY_DST)],
    }
}
