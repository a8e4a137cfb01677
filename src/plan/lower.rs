//! Schedule to plan: places weights, state and values, writes the kernels' texts, infers every transition.
//!
//! Gets a model, its schedule, limits and a weight layout; returns a [`Plan`]. What holds then is what
//! [`check`](crate::plan::check) verifies, without trusting this file. Deterministic. Never asks a device anything.

mod runs;
mod session;

pub use session::{lay_out, state_rests};

use std::collections::{BTreeMap, BTreeSet};

use crate::base::arena::Arena;
use crate::base::diag::Diagnostic;
use crate::base::dtype::DType;
use crate::base::limits::Limits;
use crate::base::span::SourceMap;
use crate::kernel::compose::{Composed, Part, PortBinding, compose};
use crate::kernel::reflect::reflect;
use crate::model::{Model, Op, OpId, Origin, Value, ValueId, longest_chain};
use crate::plan::command::{
    Binding, Buffer, BufferId, BufferKind, Command, Copy, Dispatch, Kernel, KernelId, Level, LineOrigin, PlanInput,
    PlanOutput, Slice, Transition,
};
use crate::plan::memory::{Need, NeedUse, assign};
use crate::plan::usage::Usage;
use crate::plan::weights::{StateBuffer, StateLayout, StateWeight, WeightLayout, WeightPiece};
use crate::plan::{PLAN_VERSION, Plan, ValuePlace};
use crate::schedule::{Schedule, Step, accesses};

/// What offsets within a buffer are multiples of, so that the widest accessor's elements stay whole.
const ELEMENT_ALIGNMENT: u64 = 16;

/// What the offsets of bindings are multiples of, and so the sizes of records and of what lies in slots: the coarsest
/// alignment that WebGPU allows for a binding's offset.
const RECORD_ALIGNMENT: u64 = 256;

/// More pieces than a device can bind: a bound on cutting up a tensor where a binding may be tiny.
const MAX_PIECES: u64 = 256;

/// Values that some op reaches through a binding of its text's own. Such a binding begins at the value, so the value
/// has to begin where a binding may.
fn bound_alone(model: &Model) -> BTreeSet<ValueId> {
    let args = model.ops.values().flat_map(|op| op.args.iter().zip(&model.templates[op.template].ports));
    args.filter(|(_, used)| used.own.is_some()).filter_map(|(arg, _)| arg.output.or(arg.input)).collect()
}

/// Lowers a schedule to a plan that only [`check`](crate::plan::check::check) stands between and an executor.
///
/// `weights` is [`lay_out`]'s for this model, or that of another step shape of the same graph and checkpoint; `rests`
/// is where each state rests, on which all plans of a session have to agree: [`state_rests`] of one of their models.
///
/// # Errors
/// If a kernel's text does not validate with the storage formats and constants at hand.
pub fn lower(
    model: &Model,
    schedule: &Schedule,
    sources: &SourceMap,
    limits: &Limits,
    weights: &WeightLayout,
    rests: &[Usage],
) -> Result<Plan, Vec<Diagnostic>> {
    let mut lowering = Lowering::new(model, schedule, sources, limits, weights);
    lowering.persistent_buffers(rests);
    lowering.host_buffers();
    lowering.slots();
    let mut levels = Vec::new();
    for (number, steps) in schedule.levels.iter().enumerate() {
        let mut commands = Vec::new();
        for step in steps {
            match lowering.step(*step) {
                Ok(command) => commands.push(command),
                // Every layer has the same mistake; it is reported once.
                Err(diagnostic) if lowering.diagnostics.iter().any(|d| d.labels[0].0 == diagnostic.labels[0].0) => {}
                Err(diagnostic) => lowering.diagnostics.push(diagnostic),
            }
        }
        commands.iter().for_each(|command| lowering.touch(number as u32, command));
        levels.push(Level { barrier: Vec::new(), commands });
    }
    if !lowering.diagnostics.is_empty() {
        return Err(lowering.diagnostics);
    }
    Ok(lowering.finish(levels))
}

/// Bytes of a value in its slot: whole elements of the widest accessor.
fn value_bytes(value: &Value) -> u64 {
    value.dtype.storage_bytes(value.count()).next_multiple_of(ELEMENT_ALIGNMENT)
}

/// What an op's ports are bound to: for the text, for the pipeline, and for the dispatch.
type Bound = (Vec<PortBinding>, Vec<Binding>, Vec<Slice>);

/// Where a value lies.
#[derive(Clone, Copy)]
struct Place {
    slice: Slice,
    /// Set for packed weights and inputs: the whole record, within which the slice lies.
    record: Option<Slice>,
}

/// A run of a value's elements.
#[derive(Clone, Copy)]
struct Run {
    place: Place,
    count: u64,
}

/// The bindings of a dispatch, by number, while they are found: each with what it reaches, and whether that is a
/// record that ports share.
struct Bindings {
    bound: BTreeMap<u32, (Binding, Slice, DType, bool)>,
    next: u32,
}

impl Bindings {
    fn add(&mut self, binding: &Binding, slice: Slice, dtype: DType) -> u32 {
        self.insert(binding, slice, dtype, false)
    }

    /// The binding of a record, which all that lie in it share.
    fn record(&mut self, binding: &Binding, record: Slice, dtype: DType) -> u32 {
        let mut known = self.bound.iter_mut();
        let known = known.find(|(_, (_, slice, other, is_record))| *is_record && *slice == record && *other == dtype);
        let Some((number, (shared, ..))) = known else { return self.insert(binding, record, dtype, true) };
        if shared.label.split(", ").all(|label| label != binding.label) {
            shared.label = format!("{}, {}", shared.label, binding.label);
        }
        *number
    }

    fn insert(&mut self, binding: &Binding, slice: Slice, dtype: DType, is_record: bool) -> u32 {
        self.bound.insert(self.next, (binding.clone(), slice, dtype, is_record));
        self.next += 1;
        self.next - 1
    }
}

struct Lowering<'a> {
    model: &'a Model,
    schedule: &'a Schedule,
    sources: &'a SourceMap,
    limits: &'a Limits,
    weights: &'a WeightLayout,
    buffers: Arena<Buffer>,
    places: Vec<Option<Place>>,
    kernels: Arena<Kernel>,
    kernel_by_text: BTreeMap<String, KernelId>,
    /// For each buffer, what uses it, level by level.
    accesses: Vec<Vec<LevelUse>>,
    state: StateLayout,
    inputs: Vec<PlanInput>,
    outputs: Vec<PlanOutput>,
    values: Vec<ValuePlace>,
    upload: Option<Copy>,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Lowering<'a> {
    fn new(
        model: &'a Model,
        schedule: &'a Schedule,
        sources: &'a SourceMap,
        limits: &'a Limits,
        weights: &'a WeightLayout,
    ) -> Self {
        Self {
            model,
            schedule,
            sources,
            limits,
            weights,
            buffers: Arena::new(),
            places: vec![None; model.values.len()],
            kernels: Arena::new(),
            kernel_by_text: BTreeMap::new(),
            accesses: Vec::new(),
            state: StateLayout::default(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            values: Vec::new(),
            upload: None,
            diagnostics: Vec::new(),
        }
    }

    fn buffer(&mut self, label: String, kind: BufferKind, size_bytes: u64) -> BufferId {
        self.accesses.push(Vec::new());
        // The rest usage follows from the accesses, in `finish`.
        self.buffers.push(Buffer { label, kind, size_bytes, rest: Usage::STORAGE_READ })
    }

    /// Buffers of weights and state, and the places of all values in them.
    fn persistent_buffers(&mut self, rests: &[Usage]) {
        let weight_buffers: Vec<BufferId> = (0u32..)
            .zip(&self.weights.buffers)
            .map(|(index, weight)| (weight.label.clone(), BufferKind::Weight { index }, weight.size_bytes))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|(label, kind, size)| self.buffer(label, kind, size))
            .collect();
        // Of a tensor and its copy by columns, one is as it is stored and one is not.
        let pieces: BTreeMap<(&str, bool), &WeightPiece> = self
            .weights
            .pieces
            .iter()
            .map(|piece| ((piece.tensor.as_str(), piece.transpose.is_some()), piece))
            .collect();
        assert_eq!(rests.len(), self.model.state.len(), "a rest for each state");
        for ((index, state), rest) in (0u32..).zip(&self.model.state).zip(rests) {
            let row_shape = state.shape[1..].to_vec();
            let (label, rows) = (state.path.clone(), state.shape[0]);
            let init_bits = state.init.to_bits();
            let rest = *rest;
            let init_weight = state.init_weight.clone().map(|weight| {
                let crate::model::StateWeight { tensor, transposed } = weight;
                StateWeight { tensor, transposed }
            });
            let layout = StateBuffer { label, dtype: state.dtype, rows, row_shape, init_bits, init_weight, rest };
            let size_bytes = layout.size_bytes();
            self.state.buffers.push(layout);
            self.buffer(format!("state.{}", state.path), BufferKind::State { index }, size_bytes);
        }
        let first_state = weight_buffers.len() as u32;
        for (id, value) in self.model.values.iter() {
            if let Some(named) = self.piece_of(id) {
                let piece = pieces[&named];
                let buffer = weight_buffers[piece.buffer as usize];
                let size_bytes = value.dtype.storage_bytes(value.count()).next_multiple_of(ELEMENT_ALIGNMENT);
                let slice = Slice { buffer, offset_bytes: piece.offset_bytes, size_bytes };
                let record = self.weights.buffers[piece.buffer as usize].record_bytes.map(|record_bytes| Slice {
                    buffer,
                    offset_bytes: piece.offset_bytes / record_bytes * record_bytes,
                    size_bytes: record_bytes,
                });
                self.places[id.index()] = Some(Place { slice, record });
            } else if let Some(state) = self.model.state_of(id) {
                let buffer = BufferId::new(first_state + state);
                let size_bytes = self.buffers[buffer].size_bytes;
                self.places[id.index()] =
                    Some(Place { slice: Slice { buffer, offset_bytes: 0, size_bytes }, record: None });
            }
        }
    }

    /// The tensor that a weight is, and whether other than it is stored.
    fn piece_of(&self, value: ValueId) -> Option<(&'a str, bool)> {
        match &self.model.values[value].origin {
            Origin::Weight { tensor, transpose, .. } => Some((tensor, transpose.is_some())),
            Origin::Transposed { of } => self.piece_of(*of).map(|(tensor, is_transposed)| (tensor, !is_transposed)),
            _ => None,
        }
    }

    /// Staging and device side of the inputs, and a read-back buffer for each output.
    fn host_buffers(&mut self) {
        let alone = bound_alone(self.model);
        let bytes = |value: ValueId| (self.model.values[value].count() * 4).next_multiple_of(ELEMENT_ALIGNMENT);
        let inputs = || self.model.inputs.iter().map(|input| input.value);
        let mut offsets: BTreeMap<ValueId, u64> = BTreeMap::new();
        let mut offset = 0;
        for value in inputs().filter(|value| !alone.contains(value)) {
            offsets.insert(value, offset);
            offset += bytes(value);
        }
        let record_bytes = offset;
        for value in inputs().filter(|value| alone.contains(value)) {
            offset = u64::next_multiple_of(offset, RECORD_ALIGNMENT);
            offsets.insert(value, offset);
            offset += bytes(value);
        }
        if offset > 0 {
            let host = self.buffer("inputs.host".into(), BufferKind::HostWrite, offset);
            let device = self.buffer("inputs".into(), BufferKind::Input, offset);
            let all = |buffer| Slice { buffer, offset_bytes: 0, size_bytes: offset };
            self.upload = Some(Copy { label: "upload inputs".into(), from: all(host), to: all(device) });
            for input in &self.model.inputs {
                let offset_bytes = offsets[&input.value];
                let count = self.model.values[input.value].count();
                let size_bytes = count * 4;
                let slice = Slice { buffer: host, offset_bytes, size_bytes };
                self.inputs.push(PlanInput { name: input.name.clone(), role: input.role, count, slice });
                let size_bytes = size_bytes.next_multiple_of(ELEMENT_ALIGNMENT);
                let slice = Slice { buffer: device, offset_bytes, size_bytes };
                // Inputs are one record, so that a kernel with several of them takes one binding; but for those that
                // some text binds by itself.
                let record = Slice { buffer: device, offset_bytes: 0, size_bytes: record_bytes };
                let record = (!alone.contains(&input.value)).then_some(record);
                self.places[input.value.index()] = Some(Place { slice, record });
            }
        }
        for output in &self.model.outputs {
            let value = &self.model.values[output.value];
            let size_bytes = value.dtype.storage_bytes(value.count());
            let buffer = self.buffer(format!("{}.host", output.name), BufferKind::HostRead, size_bytes);
            self.outputs.push(PlanOutput {
                name: output.name.clone(),
                role: output.role,
                dtype: value.dtype,
                shape: value.shape.clone(),
                slice: Slice { buffer, offset_bytes: 0, size_bytes },
            });
        }
    }

    /// Slots for all values that live in a step only. A value and its updates in place are one need.
    fn slots(&mut self) {
        let needs = self.needs();
        let most_bytes = self.limits.max_buffer_bytes;
        let (spots, sizes) = assign(&needs.iter().map(|(_, need)| need.clone()).collect::<Vec<_>>(), most_bytes);
        let slots: Vec<BufferId> = (0..)
            .zip(sizes)
            .map(|(nth, size): (u32, u64)| self.buffer(format!("slot{nth}"), BufferKind::Slot, size))
            .collect();
        for ((id, need), spot) in needs.iter().zip(spots) {
            let value = &self.model.values[*id];
            let (buffer, offset_bytes) = (slots[spot.slot], spot.offset_bytes);
            let slice = Slice { buffer, offset_bytes, size_bytes: value_bytes(value) };
            self.places[id.index()] = Some(Place { slice, record: None });
            self.values.push(ValuePlace {
                path: value.path.clone(),
                dtype: value.dtype,
                shape: value.shape.clone(),
                buffer,
                offset_bytes,
                size_bytes: slice.size_bytes,
                first_level: need.first(),
                last_level: need.last(),
            });
        }
        for (id, value) in self.model.values.iter() {
            if let Origin::View { of, first } = value.origin {
                // The whole is a record, so that a kernel that reads several runs of it takes one binding.
                self.places[id.index()] = self.places[of.index()].map(|place| {
                    let offset_bytes = place.slice.offset_bytes + value.dtype.storage_bytes(first);
                    let slice = Slice { offset_bytes, size_bytes: value_bytes(value), ..place.slice };
                    Place { slice, record: Some(place.slice) }
                });
            } else if self.places[id.index()].is_none() {
                self.places[id.index()] = self.places[self.root(id).index()];
            }
        }
    }

    /// The version that a value is an update of, and that of which, back to the first.
    fn root(&self, mut value: ValueId) -> ValueId {
        while let Origin::Op { updates: Some(previous), .. } = self.model.values[value].origin {
            value = previous;
        }
        value
    }

    /// What has to have a slot: every first version that an op defines and something uses.
    fn needs(&self) -> Vec<(ValueId, Need)> {
        let mut uses: Vec<Vec<NeedUse>> = vec![Vec::new(); self.model.values.len()];
        let mut number = 0;
        for (level, steps) in (0u32..).zip(&self.schedule.levels) {
            for step in steps {
                let (reads, writes) = accesses(self.model, *step);
                // An update both reads and writes: that counts as writing, and is noted last.
                let all = reads.into_iter().map(|value| (value, None));
                for (value, writer) in all.chain(writes.into_iter().map(|value| (value, Some(number)))) {
                    let uses = &mut uses[self.root(value).index()];
                    match uses.last_mut() {
                        Some(last) if last.level == level => last.writer = last.writer.or(writer),
                        _ => uses.push(NeedUse { level, writer }),
                    }
                }
                number += 1;
            }
        }
        let mut needs = Vec::new();
        for (id, value) in self.model.values.iter() {
            let is_first = matches!(value.origin, Origin::Op { updates: None, .. });
            let uses = std::mem::take(&mut uses[id.index()]);
            if is_first && !uses.is_empty() && self.places[id.index()].is_none() {
                // A value may begin anywhere in its slot, so it takes what keeps the next one where a binding may
                // begin.
                let size_bytes = value_bytes(value).next_multiple_of(RECORD_ALIGNMENT);
                needs.push((id, Need { size_bytes, uses }));
            }
        }
        needs
    }

    fn step(&mut self, step: Step) -> Result<Command, Diagnostic> {
        Ok(match step {
            Step::Upload => Command::Copy(self.upload.clone().expect("a model with inputs has an upload")),
            Step::Op(op) => Command::Dispatch(self.dispatch(op)?),
            Step::Fetch { index } => {
                let output = &self.model.outputs[index as usize];
                let to = self.outputs[index as usize].slice;
                let place = self.places[output.value.index()].expect("outputs have places");
                let from = Slice { size_bytes: to.size_bytes, ..place.slice };
                Command::Copy(Copy { label: format!("fetch {}", output.name), from, to })
            }
        })
    }

    fn dispatch(&mut self, id: OpId) -> Result<Dispatch, Diagnostic> {
        let op = &self.model.ops[id];
        let (ports, bindings, slices) = self.bind(op)?;
        let template = &self.model.templates[op.template];
        let composed = compose(template, &ports, &op.consts, self.limits.wide_words);
        let text = composed.text();
        let kernel = match self.kernel_by_text.get(&text) {
            Some(kernel) => *kernel,
            None => {
                let kernel = self.kernel(op, &composed, bindings)?;
                let kernel = self.kernels.push(kernel);
                self.kernel_by_text.insert(text, kernel);
                kernel
            }
        };
        let place = self.sources.place(op.span);
        Ok(Dispatch { label: op.label.clone(), kernel, bindings: slices, workgroups: op.workgroups, place })
    }

    /// What every port of an op is bound to.
    ///
    /// A tensor that is read may be larger than a binding: it is bound in parts. One that is written may not, since no
    /// buffer is bound twice where one of the bindings writes (P5).
    fn bind(&self, op: &Op) -> Result<Bound, Diagnostic> {
        let template = &self.model.templates[op.template];
        let own_count = template.ports.iter().filter(|used| used.own.is_some()).count() as u32;
        let mut bindings = Bindings { bound: BTreeMap::new(), next: own_count };
        let mut ports = Vec::new();
        for (arg, used) in op.args.iter().zip(&template.ports) {
            let value = arg.output.or(arg.input).expect("a port is bound to a value");
            let dtype = self.model.values[value].dtype;
            let writes = used.own.map_or(arg.access.writes, |own| own.declared_write);
            let label = arg.port.clone();
            let binding = Binding { label, writes, reads: arg.access.reads, min_bytes: 0 };
            let mut parts = Vec::new();
            if let Some(own) = used.own {
                let run = self.one_run(op, arg, value)?;
                bindings.bound.insert(own.number, (binding, run.place.slice, dtype, false));
                parts.push(Part { binding: own.number, first: 0, count: self.model.values[value].count() });
            } else {
                for run in self.runs(value) {
                    parts.extend(self.bind_run(op, (value, run), &binding, &mut bindings)?);
                }
            }
            ports.push(PortBinding { port: arg.port.clone(), dtype, writes, parts });
        }
        let (bindings, slices) = bindings.bound.into_values().map(|(binding, slice, ..)| (binding, slice)).unzip();
        Ok((ports, bindings, slices))
    }

    /// Binds a run of a value's elements, and says through which bindings they are reached.
    fn bind_run(
        &self,
        op: &Op,
        (value, Run { place, count }): (ValueId, Run),
        binding: &Binding,
        bindings: &mut Bindings,
    ) -> Result<Vec<Part>, Diagnostic> {
        let (path, dtype) = (&self.model.values[value].path, self.model.values[value].dtype);
        let (slice, most) = (place.slice, self.limits.max_storage_buffer_binding_bytes);
        if let Some(record) = place.record {
            let first = (slice.offset_bytes - record.offset_bytes) / dtype.size_bytes();
            return Ok(vec![Part { binding: bindings.record(binding, record, dtype), first, count }]);
        }
        if binding.writes && slice.size_bytes > most {
            let message =
                format!("`{path}` takes {} bytes, a binding that is written at most {most}", slice.size_bytes);
            let note = "`max_storage_buffer_binding_bytes` is the limit; a step of fewer tokens or rows needs less";
            return Err(Diagnostic::error(op.span, message).note(note));
        }
        // A weight may begin where no binding may: the binding begins before it.
        let before = slice.offset_bytes % RECORD_ALIGNMENT;
        let from = Slice { offset_bytes: slice.offset_bytes - before, size_bytes: slice.size_bytes + before, ..slice };
        let pieces = self.split(from).ok_or_else(|| {
            let bytes = slice.size_bytes;
            Diagnostic::error(
                op.span,
                format!("`{path}` takes {bytes} bytes, {MAX_PIECES} bindings at most {most} each"),
            )
        })?;
        let mut first = before / dtype.size_bytes();
        let mut left = count;
        let mut parts = Vec::new();
        for piece in pieces {
            let number = bindings.add(binding, piece, dtype);
            let there = (piece.size_bytes / dtype.size_bytes() - first).min(left);
            parts.push(Part { binding: number, first, count: there });
            (first, left) = (0, left - there);
        }
        Ok(parts)
    }

    /// A tensor in pieces no larger than a binding may be; nothing where they would be too many.
    fn split(&self, slice: Slice) -> Option<Vec<Slice>> {
        let limit = self.limits.max_storage_buffer_binding_bytes;
        let most = (limit / RECORD_ALIGNMENT * RECORD_ALIGNMENT).max(RECORD_ALIGNMENT);
        let count = slice.size_bytes.div_ceil(most);
        let piece = |done: u64| {
            let size_bytes = (slice.size_bytes - done).min(most);
            Slice { offset_bytes: slice.offset_bytes + done, size_bytes, ..slice }
        };
        (count <= MAX_PIECES).then(|| (0..count).map(|nth| piece(nth * most)).collect())
    }

    fn kernel(&self, op: &Op, composed: &Composed, mut bindings: Vec<Binding>) -> Result<Kernel, Diagnostic> {
        let reflection = reflect(composed, op.span)?;
        for (found, expected) in reflection.bindings.iter().zip(&bindings) {
            assert_eq!(found.access.writes, expected.writes, "{}: `{}`", op.label, expected.label);
        }
        for found in &reflection.bindings {
            if let Some(binding) = bindings.get_mut(found.number as usize) {
                binding.min_bytes = found.min_bytes;
            }
        }
        let mut formats: Vec<DType> = op
            .args
            .iter()
            .filter_map(|arg| arg.input)
            .filter(|value| self.model.is_weight(*value))
            .map(|value| self.model.values[value].dtype)
            .filter(|dtype| *dtype != DType::F32)
            .collect();
        formats.sort_unstable();
        formats.dedup();
        let label = formats.iter().fold(op.kernel.clone(), |label, dtype| format!("{label}.{dtype}"));
        Ok(Kernel {
            label,
            wgsl: composed.text(),
            entry: reflection.entry,
            bindings,
            workgroup_size: reflection.workgroup_size,
            workgroup_bytes: reflection.workgroup_bytes,
            runtime_checks: !self.model.templates[op.template].unchecked,
            zero_workgroup_memory: !self.model.templates[op.template].unchecked,
            needs_subgroups: reflection.needs_subgroups,
            needs_cooperative_matrix: reflection.needs_cooperative_matrix,
            needs_wide_words: reflection.needs_wide_words,
            origins: self.origins(composed),
        })
    }

    /// Where the lines of a text come from, as runs.
    fn origins(&self, composed: &Composed) -> Vec<LineOrigin> {
        let mut origins: Vec<LineOrigin> = Vec::new();
        for (line, text) in (1u32..).zip(&composed.lines) {
            let (file, file_line) = match text.origin {
                Some(origin) => (self.sources.source(origin.source).name.as_str(), origin.number),
                None => ("", 0),
            };
            let continues = origins.last().is_some_and(|run| {
                run.file == file && (file.is_empty() || run.file_line + (line - run.line) == file_line)
            });
            if !continues {
                origins.push(LineOrigin { line, file: file.to_owned(), file_line });
            }
        }
        origins
    }

    /// Notes which buffers a command uses in this level.
    fn touch(&mut self, level: u32, command: &Command) {
        let mut note = |slice: Slice, usage: Usage| {
            let accesses = &mut self.accesses[slice.buffer.index()];
            let range = (slice.offset_bytes, slice.offset_bytes + slice.size_bytes);
            let written = if usage.writes() { vec![range] } else { Vec::new() };
            match accesses.last_mut() {
                Some(last) if last.level == level => {
                    last.usage |= usage;
                    last.written.extend(written);
                }
                _ => accesses.push(LevelUse { level, usage, written }),
            }
        };
        match command {
            Command::Dispatch(dispatch) => {
                for (slice, binding) in dispatch.bindings.iter().zip(&self.kernels[dispatch.kernel].bindings) {
                    note(*slice, binding.usage());
                }
            }
            Command::Copy(copy) => {
                note(copy.from, Usage::COPY_SRC);
                note(copy.to, Usage::COPY_DST);
            }
        }
    }

    /// Infers rest usages and transitions.
    fn finish(mut self, mut levels: Vec<Level>) -> Plan {
        let mut leave = Vec::new();
        for buffer in self.buffers.ids() {
            let fixed = match self.buffers[buffer].kind {
                BufferKind::HostWrite => Some(Usage::MAP_WRITE),
                BufferKind::HostRead => Some(Usage::MAP_READ),
                // All plans of a session have to agree on it, whatever each does last.
                BufferKind::State { index } => Some(self.state.buffers[index as usize].rest),
                _ => None,
            };
            let phases = phases(&self.accesses[buffer.index()]);
            let (rest, transitions) = transitions(&phases, fixed);
            self.buffers[buffer].rest = rest;
            for (level, from, to) in transitions {
                match level {
                    Some(level) => levels[level as usize].barrier.push(Transition { buffer, from, to }),
                    None => leave.push(Transition { buffer, from, to }),
                }
            }
        }
        let limits = self.limits.clone();
        let mut plan = Plan {
            version: PLAN_VERSION,
            graph: self.model.graph.clone(),
            shape: self.model.shape,
            dims: self.model.dims.clone(),
            limits: Limits::webgpu(),
            weights: self.weights.clone(),
            state: self.state,
            buffers: self.buffers,
            kernels: self.kernels,
            levels,
            leave,
            inputs: self.inputs,
            outputs: self.outputs,
            values: self.values,
            longest_chain: longest_chain(self.model),
        };
        plan.limits = needs(&plan, &limits);
        plan
    }
}

/// What a device must offer to run a plan: what the plan uses, and of `made_for` only what kernels may have been chosen
/// by.
fn needs(plan: &Plan, made_for: &Limits) -> Limits {
    let slices = plan.commands().flat_map(|command| match command {
        Command::Dispatch(dispatch) => dispatch.bindings.as_slice(),
        Command::Copy(_) => &[],
    });
    let dispatches = || {
        plan.commands().filter_map(|command| match command {
            Command::Dispatch(dispatch) => Some(dispatch),
            Command::Copy(_) => None,
        })
    };
    let kernels = || plan.kernels.values();
    let largest = |axis: usize| kernels().map(|kernel| kernel.workgroup_size[axis]).max().unwrap_or(1);
    let subgroups = kernels().any(|kernel| kernel.needs_subgroups);
    Limits {
        max_storage_buffer_binding_bytes: slices.map(|slice| slice.size_bytes).max().unwrap_or(0),
        max_buffer_bytes: plan.buffers.values().map(|buffer| buffer.size_bytes).max().unwrap_or(0),
        max_storage_buffers_per_dispatch: dispatches().map(|d| d.bindings.len() as u32).max().unwrap_or(0),
        min_storage_buffer_offset_alignment: RECORD_ALIGNMENT as u32,
        max_workgroups_per_dimension: dispatches().flat_map(|d| d.workgroups).max().unwrap_or(1),
        max_invocations_per_workgroup: kernels()
            .map(|kernel| kernel.workgroup_size.iter().fold(1u32, |all, size| all.saturating_mul(*size)))
            .max()
            .unwrap_or(1),
        max_workgroup_size: [largest(0), largest(1), largest(2)],
        max_workgroup_storage_bytes: kernels().map(|kernel| kernel.workgroup_bytes).max().unwrap_or(0),
        subgroups,
        min_subgroup_size: if subgroups { made_for.min_subgroup_size } else { 1 },
        octets: subgroups && made_for.octets,
        wide_words: kernels().any(|kernel| kernel.needs_wide_words),
        cooperative_matrix: kernels().any(|kernel| kernel.needs_cooperative_matrix),
    }
}

/// What a level does with a buffer.
#[derive(Clone, Debug)]
struct LevelUse {
    level: u32,
    usage: Usage,
    /// The bytes that are written, as first byte and one past the last.
    written: Vec<(u64, u64)>,
}

/// Uses of a buffer as phases with the level of the first use: consecutive reads together, and consecutive writes in
/// one usage as long as they share no bytes.
fn phases(accesses: &[LevelUse]) -> Vec<(u32, Usage)> {
    let mut phases: Vec<(u32, Usage)> = Vec::new();
    let mut written: Vec<(u64, u64)> = Vec::new();
    for LevelUse { level, usage, written: here } in accesses {
        let meets = |range: &(u64, u64)| written.iter().any(|other| range.0 < other.1 && other.0 < range.1);
        match phases.last_mut() {
            Some((_, last)) if !last.writes() && !usage.writes() => *last |= *usage,
            Some((_, last)) if last == usage && !here.iter().any(meets) => written.extend(here),
            _ => {
                phases.push((*level, *usage));
                written.clone_from(here);
            }
        }
    }
    phases
}

/// The rest that suits a buffer with these phases: leaving in the usage of the last one costs nothing. Reads at the end
/// of a step and at the beginning of the next are one phase, since nothing is written between them.
fn own_rest(phases: &[(u32, Usage)]) -> Usage {
    match (phases.first(), phases.last()) {
        (Some((_, first)), Some((_, last))) if !first.writes() && !last.writes() => *first | *last,
        (_, Some((_, last))) => *last,
        (_, None) => Usage::STORAGE_READ,
    }
}

/// Rest usage and transitions of a buffer with these phases: before each phase, and `None` for the leaving barrier.
/// The rest is the phases' own, unless another one is fixed, to which the buffer is then taken back.
fn transitions(phases: &[(u32, Usage)], fixed: Option<Usage>) -> (Usage, Vec<(Option<u32>, Usage, Usage)>) {
    let rest = fixed.unwrap_or_else(|| own_rest(phases));
    let mut all = Vec::new();
    let mut state = rest;
    for (nth, (level, usage)) in phases.iter().enumerate() {
        // The last phase goes to the rest at once where it can.
        let is_last = nth + 1 == phases.len();
        let usage = if is_last && rest.contains(*usage) { rest } else { *usage };
        if state.needs_transition(usage) {
            all.push((Some(*level), state, usage));
            state = usage;
        }
    }
    if state != rest {
        all.push((None, state, rest));
    }
    (rest, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Usage = Usage::STORAGE_READ;
    const WRITE: Usage = Usage::STORAGE_WRITE;
    const COPY: Usage = Usage::COPY_SRC;

    /// Uses of a buffer of 64 bytes, all of which are written where any are.
    fn whole(uses: &[(u32, Usage)]) -> Vec<(u32, Usage)> {
        let written = |usage: Usage| if usage.writes() { vec![(0, 64)] } else { Vec::new() };
        let uses =
            uses.iter().map(|(level, usage)| LevelUse { level: *level, usage: *usage, written: written(*usage) });
        phases(&uses.collect::<Vec<_>>())
    }

    #[test]
    fn writes_apart_from_each_other_are_one_phase() {
        let write = |level, start, end| LevelUse { level, usage: WRITE, written: vec![(start, end)] };
        assert_eq!(phases(&[write(0, 0, 32), write(1, 32, 64)]), [(0, WRITE)]);
        assert_eq!(phases(&[write(0, 0, 32), write(1, 32, 64), write(2, 60, 64)]), [(0, WRITE), (2, WRITE)]);
    }

    #[test]
    fn a_buffer_that_is_only_read_needs_no_transition() {
        assert_eq!(transitions(&whole(&[(1, READ), (5, READ)]), None), (READ, vec![]));
    }

    #[test]
    fn a_write_after_itself_needs_one_even_in_the_same_usage() {
        assert_eq!(transitions(&whole(&[(3, WRITE)]), None), (WRITE, vec![(Some(3), WRITE, WRITE)]));
    }

    #[test]
    fn reads_after_a_write_share_one_transition_to_their_union() {
        let expected = vec![(Some(0), READ | COPY, WRITE), (Some(1), WRITE, READ | COPY)];
        assert_eq!(transitions(&whole(&[(0, WRITE), (1, READ), (2, COPY)]), None), (READ | COPY, expected));
    }

    #[test]
    fn reads_around_the_end_of_a_step_are_one_phase() {
        // Read, written, copied; the next step's read follows the copy without a write between.
        let expected = vec![(Some(1), READ | COPY, WRITE), (Some(2), WRITE, READ | COPY)];
        assert_eq!(transitions(&whole(&[(0, READ), (1, WRITE), (2, COPY)]), None), (READ | COPY, expected));
    }

    #[test]
    fn a_state_returns_to_its_rest_from_whatever_came_last() {
        let fixed = |uses: &[(u32, Usage)], rest| transitions(&whole(uses), Some(rest)).1;
        assert_eq!(fixed(&[(1, READ), (2, WRITE)], WRITE), [(Some(1), WRITE, READ), (Some(2), READ, WRITE)]);
        let expected = [(Some(1), WRITE, WRITE), (Some(2), WRITE, READ | COPY), (None, READ | COPY, WRITE)];
        assert_eq!(fixed(&[(1, WRITE), (2, READ), (3, COPY)], WRITE), expected);
        assert_eq!(fixed(&[(1, READ)], WRITE), [(Some(1), WRITE, READ), (None, READ, WRITE)]);
        assert_eq!(fixed(&[(1, READ)], READ), []);
        assert_eq!(fixed(&[(1, READ), (2, COPY)], READ), [(Some(1), READ, READ | COPY), (None, READ | COPY, READ)]);
        assert_eq!(fixed(&[], WRITE), []);
        let expected = [(Some(1), READ | COPY, WRITE), (Some(2), WRITE, READ | COPY)];
        assert_eq!(fixed(&[(1, WRITE), (2, READ)], READ | COPY), expected, "it goes to a wider rest at once");
    }

    #[test]
    fn host_buffers_return_to_the_host() {
        let expected = vec![(Some(0), Usage::MAP_WRITE, COPY), (None, COPY, Usage::MAP_WRITE)];
        assert_eq!(transitions(&whole(&[(0, COPY)]), Some(Usage::MAP_WRITE)), (Usage::MAP_WRITE, expected));
    }
}
