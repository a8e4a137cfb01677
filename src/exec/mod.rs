//! Executors: what replays a checked plan.
//!
//! Gets [`CheckedPlan`]s, weights and inputs; returns outputs. A session holds weights and state once and any number of
//! plans over them; everything that can be done once is done in [`Executor::open`] and [`Session::prepare`]. A step
//! writes a few small inputs and submits commands recorded beforehand: once for all steps where they can be submitted
//! again, or else for the next step while the GPU runs this one. Executors decide nothing: order, memory and
//! transitions are the plan's.

pub mod hal;
mod loaded;
pub mod reference;
pub mod replay;
mod slots;
#[cfg(test)]
mod testing;
pub mod times;
mod transpose;
pub mod wgpu;

use std::borrow::Cow;
use std::fmt;

use crate::base::limits::Limits;
use crate::base::role::{InputRole, OutputRole};
use crate::checkpoint::Checkpoint;
use crate::exec::times::{Grain, StepLog};
use crate::exec::transpose::transposed;
use crate::plan::command::{BufferKind, PlanInput};
use crate::plan::usage::Usage;
use crate::plan::weights::{StateBuffer, StateLayout, WeightLayout, WeightPiece};
use crate::plan::{CheckedPlan, Plan};
use crate::tensor::Tensor;

/// What went wrong outside the plan: the environment, or a call that does not fit the plan.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExecError {
    /// No device for this executor.
    NoDevice {
        /// What was looked for and what to install.
        reason: String,
    },
    /// The device offers less than the plan needs.
    TooSmall {
        /// Which limits, with both numbers.
        missing: Vec<String>,
    },
    /// A plan made for another weight or state layout than the session's.
    OtherLayout {
        /// What differs.
        reason: String,
    },
    /// Inputs that do not fit the plan.
    Input {
        /// Which role.
        role: InputRole,
        /// How many elements the plan wants.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// A transition was to be left out that the plan does not have.
    NoTransition {
        /// The barrier's level.
        level: usize,
        /// Which of its transitions.
        transition: usize,
        /// What there is.
        reason: String,
    },
    /// A command that the tracked usages do not allow (`--validate` and debug builds).
    Usage {
        /// Label of the op or copy, or `leave`.
        command: String,
        /// The buffer.
        buffer: String,
        /// What is wrong.
        reason: String,
    },
    /// The device ran out of memory.
    OutOfMemory {
        /// What was being created, with its bytes.
        what: String,
    },
    /// The device, or this executor on it, cannot tell when parts of a step are done.
    NoClock {
        /// What is missing.
        reason: String,
    },
    /// The device is gone: reset by its driver, unplugged, or taken away. Every later call fails likewise.
    Lost {
        /// What was being done, and what the driver said of it.
        reason: String,
    },
    /// The device refuses.
    Device {
        /// What it said.
        reason: String,
    },
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice { reason } => write!(f, "no device: {reason}"),
            Self::TooSmall { missing } => write!(f, "the device is too small for this plan: {}", missing.join("; ")),
            Self::OtherLayout { reason } => write!(f, "the plan does not belong to this session: {reason}"),
            Self::Input { role, expected, found } => {
                write!(f, "input `{role}`: the plan takes {expected} elements, {found} were given")
            }
            Self::NoTransition { level, transition, reason } => {
                write!(f, "there is no transition {level}.{transition} to leave out: {reason}")
            }
            Self::Usage { command, buffer, reason } => write!(f, "`{command}` may not use `{buffer}`: {reason}"),
            Self::OutOfMemory { what } => write!(
                f,
                "out of device memory while creating {what}; use smaller steps, fewer sequences or a device with more \
                 memory"
            ),
            Self::NoClock { reason } => write!(f, "parts of a step cannot be timed: {reason}"),
            Self::Lost { reason } => write!(
                f,
                "the device was lost: {reason}; start again, with smaller steps if its driver stopped one that took \
                 too long, and see the system's log"
            ),
            Self::Device { reason } => write!(f, "the device failed: {reason}"),
        }
    }
}

impl std::error::Error for ExecError {}

/// A device as `graphc devices` lists it and as sessions are opened on it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// Its driver, with version.
    pub driver: String,
    /// The API, as in `vulkan`.
    pub api: String,
    /// `discrete`, `integrated`, `virtual`, `cpu` or `other`.
    pub kind: String,
    /// What it offers.
    pub limits: Limits,
    /// All its features by wgpu's names, for readers; the planner sees `limits` alone.
    pub features: Vec<String>,
}

/// A checkpoint and where its tensors go.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// Where every tensor goes.
    pub layout: &'a WeightLayout,
    /// Where it comes from; it holds every tensor of the layout, in the layout's element type and count.
    pub checkpoint: &'a Checkpoint,
}

impl<'a> Weights<'a> {
    /// Whether every piece is in the checkpoint as the layout says, and lies in its buffer, apart from others. Layouts
    /// are plain data that anybody can write; executors rest on this before they copy a byte.
    ///
    /// # Errors
    /// The first piece of which it does not hold, with its tensor's name.
    pub fn check(&self) -> Result<(), ExecError> {
        self.layout.pieces.iter().try_for_each(|piece| {
            self.check_piece(piece).map_err(|reason| {
                let reason = format!("weight `{}`: {reason}", piece.tensor);
                ExecError::OtherLayout { reason }
            })
        })?;
        self.check_overlaps()
    }

    /// Whether no piece lies in another's bytes, which the later one would overwrite.
    fn check_overlaps(&self) -> Result<(), ExecError> {
        let mut pieces: Vec<&WeightPiece> = self.layout.pieces.iter().collect();
        pieces.sort_by_key(|piece| (piece.buffer, piece.offset_bytes));
        let end = |piece: &WeightPiece| piece.offset_bytes + piece.dtype.storage_bytes(piece.count);
        let pairs = || pieces.iter().zip(pieces.iter().skip(1));
        let found = pairs().find(|(one, next)| one.buffer == next.buffer && end(one) > next.offset_bytes);
        found.map_or(Ok(()), |(one, next)| {
            let (end, start) = (end(one), next.offset_bytes);
            let reason = format!(
                "weight `{}`: expected it to begin behind `{}`, which ends at {end}, found it at {start}",
                next.tensor, one.tensor
            );
            Err(ExecError::OtherLayout { reason })
        })
    }

    fn check_piece(&self, piece: &WeightPiece) -> Result<(), String> {
        let (WeightPiece { dtype, count, offset_bytes, .. }, name) = (piece, self.checkpoint.name());
        let found = self.checkpoint.index().get(&piece.tensor);
        let Some(info) = found else { return Err(format!("`{name}` has no such tensor")) };
        if info.dtype.as_ref() != Ok(dtype) {
            return Err(format!("expected {dtype}, `{name}` has {:?}", info.dtype));
        }
        let size_bytes = info.size_bytes();
        if count.checked_mul(dtype.size_bytes()) != Some(size_bytes) {
            return Err(format!("expected {count} elements, `{name}` has {size_bytes} bytes"));
        }
        if let Some((rows, columns)) = piece.transpose
            && !rows.checked_mul(columns).is_some_and(|matrix| matrix > 0 && count.is_multiple_of(matrix))
        {
            return Err(format!("expected {count} elements to transpose, found {rows} x {columns}"));
        }
        let Some(buffer) = self.layout.buffers.get(piece.buffer as usize) else {
            return Err(format!("expected a buffer below {}, found {}", self.layout.buffers.len(), piece.buffer));
        };
        // Uploads are padded to whole words.
        let end = size_bytes.checked_next_multiple_of(4).and_then(|size_bytes| offset_bytes.checked_add(size_bytes));
        if !offset_bytes.is_multiple_of(4) || end.is_none_or(|end| end > buffer.size_bytes) {
            let room = buffer.size_bytes;
            return Err(format!(
                "expected {size_bytes} bytes from a multiple of 4 within {room}, found them from {offset_bytes}"
            ));
        }
        Ok(())
    }

    /// Every piece with its bytes, in the layout's order: borrowed from the checkpoint, but for the few that are
    /// transposed or do not lie there as they are used.
    pub fn pieces(&self) -> impl Iterator<Item = (&'a WeightPiece, Cow<'a, [u8]>)> {
        let checkpoint = self.checkpoint;
        self.layout.pieces.iter().map(move |piece| {
            let bytes = checkpoint.bytes(&piece.tensor).expect("the layout was made from this checkpoint's index");
            match piece.transpose {
                None => (piece, bytes),
                Some((rows, columns)) => {
                    (piece, Cow::Owned(transposed(&bytes, rows, columns, piece.dtype.size_bytes())))
                }
            }
        })
    }
}

/// A row of a state before the first token.
pub(crate) fn initial_row(buffer: &StateBuffer, checkpoint: &Checkpoint) -> Result<Vec<u8>, ExecError> {
    let Some(weight) = &buffer.init_weight else { return Ok(buffer.init_row()) };
    let found = checkpoint.tensor(&weight.tensor).filter(|tensor| tensor.count() as u64 == buffer.row_count());
    let Some(tensor) = found else {
        let (label, name, count) = (&buffer.label, checkpoint.name(), buffer.row_count());
        let reason = format!("state `{label}`: `{name}` has no tensor `{}` of {count} numbers", weight.tensor);
        return Err(ExecError::OtherLayout { reason });
    };
    let values = crate::tensor::from_f32(buffer.dtype, &tensor.to_f32());
    let mut row = match (weight.transposed, buffer.row_shape.as_slice()) {
        (true, [.., rows, columns]) => {
            let element_bytes = buffer.dtype.size_bytes();
            let matrices = values.chunks_exact((rows * columns * element_bytes) as usize);
            matrices.flat_map(|matrix| transposed(matrix, *columns, *rows, element_bytes)).collect()
        }
        _ => values,
    };
    row.resize(buffer.row_bytes() as usize, 0);
    Ok(row)
}

/// Whether every state buffer can exist, and rests in a usage that commands of a device may leave it in.
pub(crate) fn check_state(layout: &StateLayout) -> Result<(), ExecError> {
    let in_steps = Usage::COPY_SRC.union(Usage::COPY_DST).union(Usage::STORAGE_READ).union(Usage::STORAGE_WRITE);
    let wrong = |buffer: &StateBuffer| {
        let mut axes = buffer.row_shape.iter().chain([&buffer.rows]);
        // With room for rounding every row up to whole words.
        let room = axes.try_fold(8_u64, |product, axis| product.checked_mul(*axis));
        if room.is_none_or(|room| room == 0) {
            return Some(format!(
                "expected rows of a size that exists, found {} of {:?}",
                buffer.rows, buffer.row_shape
            ));
        }
        let rest = buffer.rest;
        let rests_well = rest.is_legal() && in_steps.contains(rest);
        (!rests_well).then(|| format!("expected a rest in a usage of steps, found {rest} ({:#x})", rest.bits()))
    };
    let found = layout.buffers.iter().find_map(|buffer| Some((buffer, wrong(buffer)?)));
    found.map_or(Ok(()), |(buffer, reason)| {
        Err(ExecError::OtherLayout { reason: format!("state `{}`: {reason}", buffer.label) })
    })
}

/// Whether a device has buffers as large as the layouts ask for.
pub(crate) fn check_sizes(weights: &WeightLayout, state: &StateLayout, limits: &Limits) -> Result<(), ExecError> {
    let sizes = weights.buffers.iter().map(|buffer| (&buffer.label, buffer.size_bytes));
    let sizes = sizes.chain(state.buffers.iter().map(|buffer| (&buffer.label, buffer.size_bytes())));
    let offered = limits.max_buffer_bytes;
    let missing: Vec<String> = sizes
        .filter(|(_, size_bytes)| *size_bytes > offered)
        .map(|(label, size)| format!("`max_buffer_bytes`: {size} needed for `{label}`, {offered} offered"))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(ExecError::TooSmall { missing }) }
}

/// Called while weights are uploaded, with the bytes of weights done and the bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Opens sessions on one device.
pub trait Executor {
    /// What it opens.
    type Session: Session;

    /// The device it would use.
    fn device(&self) -> &DeviceInfo;

    /// Has the driver remember the pipelines of sessions that are opened from now on, to begin with those that
    /// `bytes` hold: what [`kept_pipelines`](Self::kept_pipelines) gave for this device, its driver and this version of
    /// the program, unchanged, which the caller has made sure of. Does nothing where there is no such thing.
    fn keep_pipelines(&mut self, bytes: Option<&[u8]>) {
        let _ = bytes;
    }

    /// The pipelines remembered by now, for a later run of the program; nothing if none are.
    fn kept_pipelines(&self) -> Option<Vec<u8>> {
        None
    }

    /// Creates the buffers of weights and state, uploads the weights, sets the state to its initial values.
    ///
    /// # Errors
    /// When a layout does not fit the checkpoint or itself, or the device is out of memory or lost.
    fn open(
        &self,
        weights: &Weights<'_>,
        state: &StateLayout,
        progress: Progress<'_>,
    ) -> Result<Self::Session, ExecError>;
}

/// Index of a prepared plan in the session that prepared it; another session's means nothing, or panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanId(pub usize);

/// A submitted step whose outputs can be fetched once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// How many steps may be in flight: each has its own host-visible buffers (P10).
pub const STEPS_IN_FLIGHT: usize = 2;

/// What the host gives a step: the elements of each role, whose meaning and shape [`InputRole`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    roles: Vec<(InputRole, Vec<u32>)>,
}

impl Inputs {
    /// No inputs.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with the elements of `role`.
    pub fn with(mut self, role: InputRole, elements: Vec<u32>) -> Self {
        self.roles.retain(|(other, _)| *other != role);
        self.roles.push((role, elements));
        self
    }

    /// The elements for a plan's input.
    ///
    /// # Errors
    /// If there are none for its role, or not as many as the plan wants.
    pub fn get(&self, input: &PlanInput) -> Result<&[u32], ExecError> {
        let elements = self.roles.iter().find(|(role, _)| *role == input.role).map_or(&[][..], |(_, e)| e.as_slice());
        if elements.len() as u64 == input.count {
            Ok(elements)
        } else {
            Err(ExecError::Input { role: input.role, expected: input.count, found: elements.len() as u64 })
        }
    }
}

/// What a step gives the host, in the order of the plan's outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// Name, role and value of each output.
    pub tensors: Vec<(String, OutputRole, Tensor)>,
}

impl Outputs {
    /// The output of this role, the first where several share it.
    pub fn role(&self, role: OutputRole) -> Option<&Tensor> {
        self.tensors.iter().find(|(_, other, _)| *other == role).map(|(_, _, tensor)| tensor)
    }

    /// The output of this name.
    pub fn named(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|(other, _, _)| other == name).map(|(_, _, tensor)| tensor)
    }
}

/// Weights, state and prepared plans on one device.
///
/// Steps run in the order of their submission. The outputs of the last [`STEPS_IN_FLIGHT`] steps are kept until they
/// are fetched; submitting another step may discard those of older ones.
pub trait Session {
    /// Creates everything a plan needs, once: pipelines, bind groups, buffers of its own. Slots are shared by all
    /// plans: where this one needs larger ones, those prepared before are bound to them too, and the smaller are freed.
    ///
    /// # Errors
    /// If the plan was made for another layout or a larger device, or the device fails. Then the session is as it was:
    /// larger slots take the place of smaller ones only when all is made.
    fn prepare(&mut self, plan: CheckedPlan) -> Result<PlanId, ExecError>;

    /// Like [`prepare`](Self::prepare), and steps of the plan are timed by the GPU's own clock: see
    /// [`gpu_cost`](Self::gpu_cost). Timing costs a step a few microseconds. Where the device has no clock, it is
    /// `prepare`.
    ///
    /// # Errors
    /// As `prepare`.
    fn prepare_timed(&mut self, plan: CheckedPlan) -> Result<PlanId, ExecError> {
        self.prepare(plan)
    }

    /// Like [`prepare`](Self::prepare), and the parts of its steps are timed: see [`take_log`](Self::take_log).
    ///
    /// # Errors
    /// As `prepare`, and [`ExecError::NoClock`] where parts of steps cannot be timed.
    fn prepare_profiled(&mut self, plan: CheckedPlan, grain: Grain) -> Result<PlanId, ExecError> {
        let _ = (plan, grain);
        Err(ExecError::NoClock { reason: "the executor has no clock".to_owned() })
    }

    /// What is known of the steps of a plan since this was asked last; nothing of one that is not profiled. Grows with
    /// every step until it is taken.
    ///
    /// # Panics
    /// If the session has prepared no such plan.
    fn take_log(&mut self, plan: PlanId) -> StepLog {
        let _ = plan;
        StepLog::default()
    }

    /// Writes the inputs and submits the step, without waiting for it; then records the next one, unless its commands
    /// are recorded.
    ///
    /// # Errors
    /// If the inputs do not fit (then nothing was submitted), a command is not allowed (when validating), or
    /// the device fails.
    ///
    /// # Panics
    /// If the session has prepared no such plan.
    fn step(&mut self, plan: PlanId, inputs: &Inputs) -> Result<Ticket, ExecError>;

    /// Waits for the step and returns its outputs.
    ///
    /// # Errors
    /// If the device fails, or the outputs were fetched or discarded before.
    fn outputs(&mut self, ticket: Ticket) -> Result<Outputs, ExecError>;

    /// Waits for all steps and returns one row of a state buffer: a tensor of its `row_shape`. `buffer` is an index
    /// into [`StateLayout::buffers`], `row` is below the buffer's `rows`.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// Perhaps, if there is no such row; an executor may return an error instead.
    fn read_state(&mut self, buffer: u32, row: u64) -> Result<Tensor, ExecError>;

    /// Writes one row of a state buffer, after all steps submitted so far and before all later ones. `row_bytes` are
    /// the [`row_bytes`](crate::plan::weights::StateBuffer::row_bytes) of one row, little-endian.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// Perhaps, if there is no such row or the bytes are not one; an executor may return an error instead.
    fn write_state(&mut self, buffer: u32, row: u64, row_bytes: &[u8]) -> Result<(), ExecError>;

    /// What the session holds.
    fn memory(&self) -> MemoryUse;

    /// What all steps so far have cost the CPU; waiting is not counted.
    fn cpu_cost(&self) -> CpuCost;

    /// What steps of timed plans have cost the GPU, as far as they were waited for; no steps where the device has no
    /// clock.
    fn gpu_cost(&self) -> GpuCost {
        GpuCost::default()
    }
}

/// A session of any kind, for those who take whichever executor was chosen.
impl Session for Box<dyn Session> {
    fn prepare(&mut self, plan: CheckedPlan) -> Result<PlanId, ExecError> {
        (**self).prepare(plan)
    }

    fn prepare_timed(&mut self, plan: CheckedPlan) -> Result<PlanId, ExecError> {
        (**self).prepare_timed(plan)
    }

    fn prepare_profiled(&mut self, plan: CheckedPlan, grain: Grain) -> Result<PlanId, ExecError> {
        (**self).prepare_profiled(plan, grain)
    }

    fn take_log(&mut self, plan: PlanId) -> StepLog {
        (**self).take_log(plan)
    }

    fn step(&mut self, plan: PlanId, inputs: &Inputs) -> Result<Ticket, ExecError> {
        (**self).step(plan, inputs)
    }

    fn outputs(&mut self, ticket: Ticket) -> Result<Outputs, ExecError> {
        (**self).outputs(ticket)
    }

    fn read_state(&mut self, buffer: u32, row: u64) -> Result<Tensor, ExecError> {
        (**self).read_state(buffer, row)
    }

    fn write_state(&mut self, buffer: u32, row: u64, row_bytes: &[u8]) -> Result<(), ExecError> {
        (**self).write_state(buffer, row, row_bytes)
    }

    fn memory(&self) -> MemoryUse {
        (**self).memory()
    }

    fn cpu_cost(&self) -> CpuCost {
        (**self).cpu_cost()
    }

    fn gpu_cost(&self) -> GpuCost {
        (**self).gpu_cost()
    }
}

/// Bytes of the buffers that a session holds, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// The weights.
    pub weight_bytes: u64,
    /// The state of all sequences.
    pub state_bytes: u64,
    /// The slots, which all plans share.
    pub slot_bytes: u64,
    /// The device's side of the inputs of all plans.
    pub input_bytes: u64,
    /// What the host writes and reads, of all plans and of every step in flight.
    pub host_bytes: u64,
}

/// Bytes of a plan's buffers of this kind.
pub(crate) fn bytes_of(plan: &Plan, kind: BufferKind) -> u64 {
    plan.buffers.values().filter(|buffer| buffer.kind == kind).map(|buffer| buffer.size_bytes).sum()
}

/// GPU time spent on steps of timed plans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuCost {
    /// Steps timed.
    pub steps: u64,
    /// Nanoseconds from the first command of a step to the end of its last, summed over steps.
    pub ns: u64,
}

/// CPU time spent on steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuCost {
    /// Steps submitted.
    pub steps: u64,
    /// Times that a step's commands were recorded: fewer than steps where commands are submitted again.
    pub recordings: u64,
    /// Nanoseconds spent recording commands.
    pub record_ns: u64,
    /// Nanoseconds spent writing inputs and submitting.
    pub submit_ns: u64,
}
