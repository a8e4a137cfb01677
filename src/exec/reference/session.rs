//! A session: prepared plans over one set of weights and state, in plain memory.
//!
//! Gets checked plans and the inputs of steps; returns outputs. What holds then: a step has run, as a whole, when its
//! ticket is returned, and the outputs of the last steps wait to be fetched. Everything that can be refused is refused
//! when a plan is prepared. Never runs two levels at once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::base::limits::Limits;
use crate::exec::reference::ReferenceOptions;
use crate::exec::reference::level::{Ready, Workers};
use crate::exec::reference::lower::lower;
use crate::exec::reference::memory::{BlockId, Bound, Memory};
use crate::exec::reference::program::Program;
use crate::exec::reference::sanitize::finding::Findings;
use crate::exec::reference::sanitize::shadow::Footprints;
use crate::exec::reference::sanitize::{Context, Sanitizer};
use crate::exec::replay::{Edit, Recorder, Tracker, replay};
use crate::exec::slots::SlotPool;
use crate::exec::times::{Grain, HostWork, StepLog, StepTimes};
use crate::exec::{CpuCost, ExecError, Inputs, MemoryUse, Outputs, PlanId, STEPS_IN_FLIGHT, Session, Ticket, bytes_of};
use crate::plan::command::{BufferKind, Command, Copy, Dispatch, Kernel, Transition};
use crate::plan::usage::Usage;
use crate::plan::weights::{StateBuffer, StateLayout, WeightLayout};
use crate::plan::{CheckedPlan, Plan};
use crate::tensor::Tensor;

/// What lives as long as a session: weights and state.
pub(super) struct Contents {
    pub(super) memory: Memory,
    pub(super) weights: Vec<BlockId>,
    pub(super) weight_layout: WeightLayout,
    pub(super) weight_hash: String,
    pub(super) state: Vec<BlockId>,
    pub(super) state_layout: StateLayout,
}

/// What makes two kernels the same program: text, entry point, zeroing, checks.
type ProgramKey = (String, String, bool, bool);

/// Weights, state and prepared plans in the CPU's memory.
pub struct ReferenceSession {
    contents: Contents,
    slots: SlotPool<BlockId>,
    programs: HashMap<ProgramKey, Arc<Program>>,
    plans: Vec<Prepared>,
    /// Steps whose outputs were not fetched yet, oldest first.
    finished: VecDeque<(Ticket, Outputs)>,
    next_ticket: u64,
    cost: CpuCost,
    limits: Limits,
    options: ReferenceOptions,
    workers: Arc<Workers>,
    sanitizer: Option<Sanitizer>,
    /// What the moments of steps count from.
    epoch: Instant,
}

/// A plan with everything it needs.
struct Prepared {
    context: Arc<Context>,
    /// By dispatch.
    dispatches: Vec<Ready>,
    /// Changes to the next step alone.
    edits: Vec<Edit>,
    /// Of its last step, if a sanitizer looks.
    footprints: Footprints,
    /// How its steps are timed, and what is known of them, if it is profiled.
    profiled: Option<(Grain, StepLog)>,
}

impl Prepared {
    fn new(plan: Arc<CheckedPlan>, programs: Vec<Arc<Program>>, blocks: Vec<BlockId>) -> Self {
        let dispatches = plan.commands().filter_map(|command| match command {
            Command::Dispatch(dispatch) => Some(ready(&plan, dispatch, &programs, &blocks)),
            Command::Copy(_) => None,
        });
        let dispatches = dispatches.collect();
        let context = Arc::new(Context { plan, programs, blocks });
        Self { context, dispatches, edits: Vec::new(), footprints: Footprints::default(), profiled: None }
    }
}

fn ready(plan: &Plan, dispatch: &Dispatch, programs: &[Arc<Program>], blocks: &[BlockId]) -> Ready {
    let bindings = &plan.kernels[dispatch.kernel].bindings;
    let bound = dispatch.bindings.iter().zip(bindings).map(|(slice, binding)| {
        let first = (slice.offset_bytes / 4) as usize;
        let range = first..first + (slice.size_bytes / 4) as usize;
        Bound { block: blocks[slice.buffer.index()], range, writes: binding.writes }
    });
    let program = programs[dispatch.kernel.index()].clone();
    Ready { program, bound: bound.collect(), workgroups: dispatch.workgroups }
}

impl ReferenceSession {
    pub(super) fn new(
        contents: Contents,
        limits: Limits,
        options: ReferenceOptions,
        workers: Arc<Workers>,
        findings: Arc<Mutex<Findings>>,
    ) -> Self {
        let sanitizer = options.sanitize.map(|sanitize| {
            let mut sanitizer = Sanitizer::new(sanitize, findings);
            sanitizer.weights(&contents.weight_layout, &contents.weights);
            for (buffer, block) in contents.state_layout.buffers.iter().zip(&contents.state) {
                sanitizer.block(*block, buffer.size_bytes(), buffer.rest, true);
            }
            sanitizer
        });
        Self {
            contents,
            slots: SlotPool::new(),
            programs: HashMap::new(),
            plans: Vec::new(),
            finished: VecDeque::new(),
            next_ticket: 0,
            cost: CpuCost::default(),
            limits,
            options,
            workers,
            sanitizer,
            epoch: Instant::now(),
        }
    }

    /// Changes transitions of the plan's next step, and of that step alone. What such a step computes means nothing: it
    /// is there to see what notices. That a transition does not exist is the step's error.
    ///
    /// # Panics
    /// If the session has prepared no such plan.
    pub fn edit_next(&mut self, plan: PlanId, edits: &[Edit]) {
        self.plans[plan.0].edits = edits.to_vec();
    }

    /// What each command of the plan's last step touched; nothing without a sanitizer or a step.
    ///
    /// # Panics
    /// If the session has prepared no such plan.
    pub fn footprints(&self, plan: PlanId) -> Option<&Footprints> {
        self.plans.get(plan.0).map(|prepared| &prepared.footprints).filter(|footprints| !footprints.is_empty())
    }

    /// Refuses a plan that was made for other weights, another state, or more than is offered.
    fn admit(&self, plan: &Plan) -> Result<(), ExecError> {
        let (theirs, ours) = (plan.weights.hash(), &self.contents.weight_hash);
        if theirs != *ours {
            let reason = format!("it expects weight layout `{theirs}`, the session holds `{ours}`");
            return Err(ExecError::OtherLayout { reason });
        }
        let (theirs, ours) = (&plan.state.buffers, &self.contents.state_layout.buffers);
        if !self.contents.state_layout.begins_with(&plan.state) {
            let reason = match theirs.iter().zip(ours).find(|(theirs, ours)| theirs != ours) {
                Some((theirs, ours)) => format!("it expects state {theirs:?}, the session holds {ours:?}"),
                None => format!("it expects {} state buffers, the session holds {}", theirs.len(), ours.len()),
            };
            return Err(ExecError::OtherLayout { reason });
        }
        let missing = self.limits.missing_for(&plan.limits);
        if missing.is_empty() { Ok(()) } else { Err(ExecError::TooSmall { missing }) }
    }

    fn program(&mut self, kernel: &Kernel) -> Result<Arc<Program>, ExecError> {
        let (checks, zero) = (kernel.runtime_checks, kernel.zero_workgroup_memory);
        let key = (kernel.wgsl.clone(), kernel.entry.clone(), checks, zero);
        if let Some(program) = self.programs.get(&key) {
            return Ok(program.clone());
        }
        let program = Arc::new(lower(kernel, self.options.subgroup_size)?);
        self.programs.insert(key, program.clone());
        Ok(program)
    }

    /// The pool with room for a plan, and the block of each of the plan's buffers.
    fn place(&mut self, plan: &Plan) -> Result<(SlotPool<BlockId>, Vec<BlockId>), ExecError> {
        let Contents { memory, weights, state, .. } = &mut self.contents;
        let slots = self.slots.grown_for(plan, |label, size_bytes| memory.add(label, size_bytes))?;
        let drawn = slots.draw(plan);
        let mut blocks = Vec::with_capacity(plan.buffers.len());
        for (id, buffer) in plan.buffers.iter() {
            blocks.push(match buffer.kind {
                BufferKind::Weight { index } => weights[index as usize],
                BufferKind::State { index } => state[index as usize],
                BufferKind::Slot => drawn[&id],
                // A step is over before the next one begins, so that one of each is enough.
                BufferKind::Input | BufferKind::HostWrite | BufferKind::HostRead => {
                    memory.add(&buffer.label, buffer.size_bytes)?
                }
            });
        }
        Ok((slots, blocks))
    }

    /// Tells the sanitizer of the blocks that were added from `first` on, and frees what no plan is bound to any more.
    fn settle(&mut self, plan: &Plan, blocks: &[BlockId], first: usize) {
        if let Some(sanitizer) = &mut self.sanitizer {
            for (buffer, block) in plan.buffers.values().zip(blocks).filter(|(_, block)| block.index() >= first) {
                // A slot's block may be larger than this plan's slot.
                let size_bytes = self.contents.memory.bytes(*block).len() as u64;
                sanitizer.block(*block, size_bytes, buffer.rest, false);
            }
        }
        let Self { contents: Contents { memory, weights, state, .. }, plans, .. } = self;
        memory.keep(|block| {
            let is_bound = plans.iter().any(|prepared| prepared.context.blocks.contains(&block));
            is_bound || weights.contains(&block) || state.contains(&block)
        });
    }

    /// Where a row of the state lies, in bytes.
    fn row(&self, buffer: u32, row: u64) -> Result<(BlockId, std::ops::Range<usize>, &StateBuffer), ExecError> {
        let layout = self.contents.state_layout.buffers.get(buffer as usize).filter(|layout| row < layout.rows);
        let Some(layout) = layout else {
            let reason = format!("the session has no row {row} in state {buffer}");
            return Err(ExecError::OtherLayout { reason });
        };
        let first = (row * layout.row_bytes()) as usize;
        Ok((self.contents.state[buffer as usize], first..first + layout.row_bytes() as usize, layout))
    }

    /// The host reads or writes a buffer of the state between steps.
    fn touch_state(&mut self, buffer: u32, usage: Usage) {
        if let Some(sanitizer) = &mut self.sanitizer {
            let index = buffer as usize;
            sanitizer.at_rest(self.contents.state[index], self.contents.state_layout.buffers[index].rest, usage);
        }
    }

    /// What the host reads of a step that has run.
    fn fetch(&self, context: &Context) -> Outputs {
        let tensors = context.plan.outputs.iter().map(|output| {
            let size_bytes = output.shape.iter().product::<u64>() * output.dtype.size_bytes();
            let first = output.slice.offset_bytes as usize;
            let block = context.blocks[output.slice.buffer.index()];
            let bytes = self.contents.memory.bytes(block)[first..first + size_bytes as usize].to_vec();
            (output.name.clone(), output.role, Tensor { dtype: output.dtype, shape: output.shape.clone(), bytes })
        });
        Outputs { tensors: tensors.collect() }
    }
}

impl Session for ReferenceSession {
    fn prepare(&mut self, plan: CheckedPlan) -> Result<PlanId, ExecError> {
        self.admit(&plan)?;
        let programs = plan.kernels.values().map(|kernel| self.program(kernel)).collect::<Result<Vec<_>, _>>()?;
        let first = self.contents.memory.len();
        let (slots, blocks) = self.place(&plan).inspect_err(|_| self.contents.memory.truncate(first))?;
        for prepared in &mut self.plans {
            let Context { plan, programs, blocks } = &*prepared.context;
            if !slots.rebinds(&self.slots, plan) {
                continue;
            }
            let mut blocks = blocks.clone();
            for (id, block) in slots.draw(plan) {
                blocks[id.index()] = block;
            }
            let profiled = prepared.profiled.take();
            *prepared = Prepared { profiled, ..Prepared::new(plan.clone(), programs.clone(), blocks) };
        }
        self.slots = slots;
        let plan = Arc::new(plan);
        self.plans.push(Prepared::new(plan.clone(), programs, blocks.clone()));
        self.settle(&plan, &blocks, first);
        Ok(PlanId(self.plans.len() - 1))
    }

    /// By the host's clock: it does the device's work.
    fn prepare_profiled(&mut self, plan: CheckedPlan, grain: Grain) -> Result<PlanId, ExecError> {
        let id = self.prepare(plan)?;
        self.plans[id.0].profiled = Some((grain, StepLog::default()));
        Ok(id)
    }

    fn take_log(&mut self, plan: PlanId) -> StepLog {
        self.plans[plan.0].profiled.as_mut().map(|(_, log)| std::mem::take(log)).unwrap_or_default()
    }

    /// Runs the step from beginning to end.
    fn step(&mut self, plan: PlanId, inputs: &Inputs) -> Result<Ticket, ExecError> {
        let context = self.plans[plan.0].context.clone();
        for input in &context.plan.inputs {
            inputs.get(input)?;
        }
        let start = Instant::now();
        for input in &context.plan.inputs {
            let bytes: &[u8] = bytemuck::cast_slice(inputs.get(input)?);
            let block = context.blocks[input.slice.buffer.index()];
            let first = input.slice.offset_bytes as usize;
            self.contents.memory.bytes_mut(block)[first..first + bytes.len()].copy_from_slice(bytes);
        }
        let mut edits = std::mem::take(&mut self.plans[plan.0].edits);
        edits.extend(self.options.dropped.map(|at| Edit { at, with: None }));
        let is_tracked = self.options.track && self.sanitizer.is_none();
        let mut tracker = is_tracked.then(|| Tracker::new(&context.plan));
        if let Some(sanitizer) = &mut self.sanitizer {
            sanitizer.begin(&context);
        }
        let mut running = Running {
            memory: &mut self.contents.memory,
            workers: &self.workers,
            sanitizer: self.sanitizer.as_mut(),
            prepared: &self.plans[plan.0],
            queue: Vec::new(),
            epoch: self.epoch,
            moments: Vec::new(),
        };
        running.note(None);
        replay(&context.plan, &mut running, tracker.as_mut(), &edits)?;
        running.note(None);
        let moments_ns = running.moments;
        if let Some(sanitizer) = &mut self.sanitizer {
            sanitizer.end();
            self.plans[plan.0].footprints = sanitizer.footprints().clone();
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        while self.finished.len() >= STEPS_IN_FLIGHT {
            self.finished.pop_front();
        }
        let outputs = self.fetch(&context);
        self.finished.push_back((ticket, outputs));
        self.cost.steps += 1;
        self.cost.submit_ns += start.elapsed().as_nanos() as u64;
        if let Some((_, log)) = &mut self.plans[plan.0].profiled {
            log.steps.push(StepTimes { moments_ns });
            log.note(HostWork::Submit, start);
        }
        Ok(ticket)
    }

    fn outputs(&mut self, ticket: Ticket) -> Result<Outputs, ExecError> {
        let at = self.finished.iter().position(|(finished, _)| *finished == ticket);
        let found = at.and_then(|at| self.finished.remove(at)).map(|(_, outputs)| outputs);
        found.ok_or_else(|| {
            let reason = format!("step {} has no outputs: they were fetched or discarded before", ticket.0);
            ExecError::Device { reason }
        })
    }

    fn read_state(&mut self, buffer: u32, row: u64) -> Result<Tensor, ExecError> {
        let (block, range, layout) = self.row(buffer, row)?;
        let bytes = self.contents.memory.bytes(block)[range].to_vec();
        let tensor = Tensor { dtype: layout.dtype, shape: layout.row_shape.clone(), bytes };
        self.touch_state(buffer, Usage::COPY_SRC);
        Ok(tensor)
    }

    fn write_state(&mut self, buffer: u32, row: u64, row_bytes: &[u8]) -> Result<(), ExecError> {
        let (block, range, _) = self.row(buffer, row)?;
        if row_bytes.len() != range.len() {
            let reason = format!("a row of state {buffer} has {} bytes, {} were given", range.len(), row_bytes.len());
            return Err(ExecError::OtherLayout { reason });
        }
        self.contents.memory.bytes_mut(block)[range].copy_from_slice(row_bytes);
        self.touch_state(buffer, Usage::COPY_DST);
        Ok(())
    }

    fn memory(&self) -> MemoryUse {
        let plans = || self.plans.iter().map(|prepared| &**prepared.context.plan);
        let host = |plan: &Plan| bytes_of(plan, BufferKind::HostWrite) + bytes_of(plan, BufferKind::HostRead);
        MemoryUse {
            weight_bytes: self.contents.weight_layout.size_bytes(),
            state_bytes: self.contents.state_layout.buffers.iter().map(StateBuffer::size_bytes).sum(),
            slot_bytes: self.slots.size_bytes(),
            input_bytes: plans().map(|plan| bytes_of(plan, BufferKind::Input)).sum(),
            host_bytes: plans().map(host).sum(),
        }
    }

    /// All that a step takes is CPU time, and is counted as submitting it.
    fn cpu_cost(&self) -> CpuCost {
        self.cost
    }
}

/// A step that runs.
struct Running<'a> {
    memory: &'a mut Memory,
    workers: &'a Workers,
    sanitizer: Option<&'a mut Sanitizer>,
    prepared: &'a Prepared,
    /// Dispatches of the level that have not run yet, by number.
    queue: Vec<usize>,
    epoch: Instant,
    /// Nanoseconds since then, of a step that is timed.
    moments: Vec<u64>,
}

impl Running<'_> {
    /// Runs what waits and notes the time, if the step is timed as finely; nothing stands for its first and last
    /// moment.
    fn note(&mut self, grain: Option<Grain>) {
        let timed = self.prepared.profiled.as_ref().map(|(timed, _)| *timed);
        if grain.is_none() || grain == timed {
            self.run_queue();
        }
        if timed.is_some() && (grain.is_none() || grain == timed) {
            self.moments.push(self.epoch.elapsed().as_nanos() as u64);
        }
    }

    /// Runs what waits, side by side.
    fn run_queue(&mut self) {
        if !self.queue.is_empty() {
            let level: Vec<&Ready> = self.queue.iter().map(|index| &self.prepared.dispatches[*index]).collect();
            self.workers.run(self.memory, &level);
            self.queue.clear();
        }
    }
}

impl Recorder for Running<'_> {
    fn barrier(&mut self, transitions: &[Transition]) -> Result<(), ExecError> {
        self.run_queue();
        if let Some(sanitizer) = &mut self.sanitizer {
            sanitizer.transitions(transitions);
        }
        Ok(())
    }

    fn dispatch(&mut self, index: usize, dispatch: &Dispatch) -> Result<(), ExecError> {
        let Some(sanitizer) = &mut self.sanitizer else {
            self.queue.push(index);
            return Ok(());
        };
        let (memory, ready) = (&mut *self.memory, &self.prepared.dispatches[index]);
        sanitizer.dispatch(dispatch, |lanes| self.workers.run_watched(memory, ready, lanes));
        Ok(())
    }

    fn copy(&mut self, copy: &Copy) -> Result<(), ExecError> {
        self.run_queue();
        let block = |buffer: crate::plan::command::BufferId| self.prepared.context.blocks[buffer.index()];
        let first = (copy.from.offset_bytes / 4) as usize;
        let from = first..first + (copy.from.size_bytes / 4) as usize;
        self.memory.copy((block(copy.from.buffer), from), (block(copy.to.buffer), (copy.to.offset_bytes / 4) as usize));
        if let Some(sanitizer) = &mut self.sanitizer {
            sanitizer.copy(copy);
        }
        Ok(())
    }

    fn command_done(&mut self) {
        self.note(Some(Grain::Commands));
    }

    fn level_done(&mut self) {
        self.note(Some(Grain::Levels));
    }
}
