//! Lowers a kernel's text to a [`Program`].
//!
//! Gets a kernel of a plan, returns its program. What holds then: functions are inlined, every value is a number of
//! scalar ones, control flow is a flat list of instructions, and what is the same for all lanes is computed once. What
//! the machine does not know is refused with its line, never approximated. Never runs anything.

mod expr;
mod flow;
mod math;
mod place;
mod registers;
mod types;
mod uniform;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use naga::valid::{Capabilities, FunctionInfo, ModuleInfo, ValidationFlags, Validator};
use naga::{Handle, Module, Span};

use self::expr::Node;
use super::program::{Given, Instr, Op, Program};
use super::watch::Space;
use crate::exec::ExecError;
use crate::plan::command::Kernel;

/// Instructions of a program, at most: functions are inlined, so that a short text may ask for many.
const MAX_INSTRS: usize = 1 << 18;

/// Invocations of a workgroup, and bytes of its memory, at most.
const MAX_LANES: u64 = 1024;
const MAX_WORKGROUP_BYTES: u32 = 64 << 10;

/// A scalar that some instruction computes, or that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Val(u32);

impl Val {
    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Given(Given),
    /// Written by one instruction.
    Temp,
    /// One of `size` scalars from `first` on that instructions read and write in active lanes.
    Variable {
        first: Val,
        size: u32,
    },
}

/// What cannot be run.
struct Refusal {
    /// Of the text, from 1.
    line: u32,
    /// What there is.
    reason: String,
}

type Lowered<T> = Result<T, Refusal>;

/// Instructions as they are written, over values instead of registers.
#[derive(Debug, Default)]
struct Code {
    instrs: Vec<Instr>,
    operands: Vec<Val>,
    lines: Vec<u32>,
    kinds: Vec<Kind>,
    frames: u32,
}

impl Code {
    fn value(&mut self, kind: Kind) -> Val {
        self.kinds.push(kind);
        Val(self.kinds.len() as u32 - 1)
    }

    /// The operands of an instruction.
    fn operands(&self, instr: &Instr) -> &[Val] {
        let first = instr.operands as usize;
        &self.operands[first..first + operand_count(instr)]
    }

    /// The values that an instruction computes, variables not counted.
    fn results(&self, instr: &Instr) -> &[Val] {
        &self.operands(instr)[..result_count(instr)]
    }

    /// The values and variables that an instruction reads.
    fn sources(&self, instr: &Instr) -> &[Val] {
        let written = match instr.op {
            Op::Move => instr.count as usize,
            _ => result_count(instr),
        };
        &self.operands(instr)[written..]
    }
}

fn operand_count(instr: &Instr) -> usize {
    let n = instr.count as usize;
    match instr.op {
        Op::Unary(_) | Op::Move => 2 * n,
        Op::Binary(_) => 3 * n,
        Op::Ternary(_) => 4 * n,
        Op::InsertBits => 5 * n,
        Op::DotF => 1 + 2 * n,
        Op::Index { has_base, .. } => 2 + usize::from(has_base),
        Op::ArrayLength { .. } => 1,
        Op::LoadVariable { .. } | Op::StoreVariable { .. } => n + 2,
        Op::Pick { length } => n + 1 + length as usize * n,
        Op::Load { .. } | Op::Store { .. } => n + 1,
        Op::Atomic { fun: super::program::Atomic::CompareExchange, .. } => 5,
        Op::Atomic { .. } => 3,
        Op::Subgroup { .. } => 2 * n,
        Op::Gather(super::program::Gather::First | super::program::Gather::QuadSwap(_)) => 2 * n,
        Op::Gather(_) => 2 * n + 1,
        Op::Ballot => 5,
        Op::JumpUnless { .. } | Op::If { .. } | Op::LeaveIf => 1,
        _ => 0,
    }
}

fn result_count(instr: &Instr) -> usize {
    let n = instr.count as usize;
    match instr.op {
        Op::Unary(_) | Op::Binary(_) | Op::Ternary(_) | Op::InsertBits => n,
        Op::LoadVariable { .. } | Op::Pick { .. } | Op::Load { .. } | Op::Subgroup { .. } | Op::Gather(_) => n,
        Op::DotF | Op::Index { .. } | Op::ArrayLength { .. } => 1,
        Op::Atomic { fun: super::program::Atomic::CompareExchange, .. } => 2,
        Op::Atomic { .. } => 1,
        Op::Ballot => 4,
        _ => 0,
    }
}

/// What is known of the module while it is lowered.
struct Lowering<'a> {
    module: &'a Module,
    info: &'a ModuleInfo,
    lines: Lines<'a>,
    code: Code,
    constants: HashMap<u32, Val>,
    givens: HashMap<Given, Val>,
    /// The value that a scalar variable holds at this place, where it is known.
    known: HashMap<Val, Val>,
    /// Variables that were stored to, in order.
    stored: Vec<Val>,
    /// First registers of private variables, and places of those in workgroup memory.
    globals: HashMap<Handle<naga::GlobalVariable>, Node>,
    scopes: Vec<flow::Scope>,
    subgroup_size: u32,
    workgroup_size: [u32; 3],
    workgroup_bytes: u32,
    span: Span,
    /// The line of the innermost call that stands in the author's text.
    caller: u32,
}

/// What is known of a function while one call of it is lowered.
struct Call<'a> {
    function: &'a naga::Function,
    info: &'a FunctionInfo,
    /// By expression.
    nodes: Vec<Option<Node>>,
    arguments: Vec<Node>,
    /// The first variable of each local variable.
    locals: Vec<Val>,
    /// The frame that its returns go to, if some are not at its end.
    frame: Option<u32>,
    /// Where a value is returned, if not at its end alone.
    returned: Vec<Val>,
    /// What its only return gives.
    result: Option<Vec<Val>>,
}

/// Lowers a kernel for subgroups of `subgroup_size` invocations.
///
/// # Errors
/// What of the text cannot be run, with its line.
pub(crate) fn lower(kernel: &Kernel, subgroup_size: u32) -> Result<Program, ExecError> {
    let wrong = |line: Option<u32>, reason: &str| {
        let place = line.map(|line| match kernel.origin(line) {
            Some((file, line)) => format!("{file}:{line}: "),
            None => format!("line {line} of its text: "),
        });
        let label = &kernel.label;
        let reason = format!("kernel `{label}` cannot run on the CPU: {}{reason}", place.unwrap_or_default());
        ExecError::Device { reason }
    };
    let text = &kernel.wgsl;
    let lines = Lines::new(kernel);
    let parsed = naga::front::wgsl::parse_str(text).map_err(|error| {
        let line = error.location(text).map(|location| location.line_number);
        wrong(line, error.message())
    })?;
    let mut capabilities =
        Capabilities::SHADER_FLOAT16_IN_FLOAT32 | Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP;
    capabilities.set(Capabilities::SHADER_INT64, kernel.needs_wide_words);
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&parsed);
    let info = info.map_err(|error| {
        let span = error.spans().next().map(|(span, _)| *span);
        wrong(span.map(|span| lines.of(span)), &chain(error.as_inner()))
    })?;
    let point = parsed.entry_points.iter().position(|point| point.name == kernel.entry);
    let Some(point) = point else {
        return Err(wrong(None, &format!("it has no entry point `{}`", kernel.entry)));
    };
    // Overrides with a value of their own become constants.
    let constants = naga::back::PipelineConstants::default();
    let entry = Some((naga::ShaderStage::Compute, kernel.entry.as_str()));
    let (module, info) = naga::back::pipeline_constants::process_overrides(&parsed, &info, entry, &constants)
        .map_err(|error| wrong(None, &chain(&error)))?;
    let point = module.entry_points.iter().position(|point| point.name == kernel.entry).unwrap_or(point);
    let mut lowering = Lowering::new(&module, &info, lines, subgroup_size);
    lowering.entry(point).map_err(|refusal| wrong(Some(refusal.line), &refusal.reason))?;
    Ok(lowering.finish())
}

/// An error with those behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

/// Where the lines of a kernel's text begin.
struct Lines<'a> {
    kernel: &'a Kernel,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(kernel: &'a Kernel) -> Self {
        let ends = kernel.wgsl.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { kernel, starts: std::iter::once(0).chain(ends).collect() }
    }

    /// The line (from 1) where a span begins.
    fn of(&self, span: Span) -> u32 {
        let start = span.to_range().map_or(0, |range| range.start);
        self.starts.partition_point(|line| *line <= start) as u32
    }
}

impl<'a> Lowering<'a> {
    fn new(module: &'a Module, info: &'a ModuleInfo, lines: Lines<'a>, subgroup_size: u32) -> Self {
        Self {
            module,
            info,
            lines,
            code: Code::default(),
            constants: HashMap::new(),
            givens: HashMap::new(),
            known: HashMap::new(),
            stored: Vec::new(),
            globals: HashMap::new(),
            scopes: Vec::new(),
            subgroup_size,
            workgroup_size: [1; 3],
            workgroup_bytes: 0,
            span: Span::UNDEFINED,
            caller: 1,
        }
    }

    fn refuse<T>(&self, reason: impl Into<String>) -> Lowered<T> {
        Err(Refusal { line: self.line(), reason: reason.into() })
    }

    /// The line of what is being lowered; in a function that the compiler wrote, of its call.
    fn line(&self) -> u32 {
        let line = self.lines.of(self.span);
        if self.lines.kernel.origin(line).is_some() { line } else { self.caller }
    }

    /// A word that is the same for all.
    fn constant(&mut self, word: u32) -> Val {
        let code = &mut self.code;
        *self.constants.entry(word).or_insert_with(|| code.value(Kind::Given(Given::Constant(word))))
    }

    fn float(&mut self, value: f32) -> Val {
        self.constant(value.to_bits())
    }

    fn given(&mut self, given: Given) -> Val {
        let code = &mut self.code;
        *self.givens.entry(given).or_insert_with(|| code.value(Kind::Given(given)))
    }

    fn temps(&mut self, count: usize) -> Vec<Val> {
        (0..count).map(|_| self.code.value(Kind::Temp)).collect()
    }

    /// Scalars side by side that can be written again and again.
    fn variable(&mut self, size: u32) -> Val {
        let first = Val(self.code.kinds.len() as u32);
        self.code.kinds.extend((0..size).map(|_| Kind::Variable { first, size }));
        first
    }

    /// Writes an instruction; returns its index.
    fn emit(&mut self, op: Op, count: usize, operands: &[&[Val]]) -> usize {
        let first = self.code.operands.len() as u32;
        operands.iter().for_each(|list| self.code.operands.extend_from_slice(list));
        let instr = Instr { op, operands: first, count: count as u32 };
        debug_assert_eq!(self.code.operands.len() - first as usize, operand_count(&instr), "{instr:?}");
        self.code.instrs.push(instr);
        self.code.lines.push(self.line());
        self.code.instrs.len() - 1
    }

    /// The entry point `point`, with what its arguments are.
    fn entry(&mut self, point: usize) -> Lowered<()> {
        let point_info = self.info.get_entry_point(point);
        let point = &self.module.entry_points[point];
        self.workgroup_size = point.workgroup_size;
        let lanes: u64 = point.workgroup_size.iter().fold(1, |lanes, count| lanes.saturating_mul(u64::from(*count)));
        if lanes > MAX_LANES {
            return self.refuse(format!("a workgroup of {lanes} invocations, at most {MAX_LANES}"));
        }
        for (handle, variable) in self.module.global_variables.iter() {
            if point_info[handle].is_empty() {
                continue;
            }
            self.span = self.module.global_variables.get_span(handle);
            let node = self.global(variable)?;
            self.globals.insert(handle, node);
        }
        let mut arguments = Vec::new();
        for argument in &point.function.arguments {
            arguments.push(Node::Value(self.argument(argument.ty, argument.binding.as_ref())?));
        }
        self.call(&point.function, point_info, arguments)?;
        Ok(())
    }

    /// What a global variable is a place of.
    fn global(&mut self, variable: &naga::GlobalVariable) -> Lowered<Node> {
        use naga::AddressSpace as A;
        let root = match variable.space {
            A::Storage { .. } | A::Uniform => {
                let Some(binding) = &variable.binding else { return self.refuse("a buffer without a binding") };
                if binding.group != 0 {
                    return self.refuse("a binding of another group than 0");
                }
                place::Root::Memory(Space::Binding(binding.binding))
            }
            A::WorkGroup => {
                let offset = self.workgroup_bytes;
                self.workgroup_bytes += self.scalars(types::Ty::Handle(variable.ty))? * place::WORD_BYTES;
                if self.workgroup_bytes > MAX_WORKGROUP_BYTES {
                    return self.refuse(format!("more than {MAX_WORKGROUP_BYTES} bytes of workgroup memory"));
                }
                let place = place::Place {
                    root: place::Root::Memory(Space::Workgroup),
                    offset,
                    index: None,
                    ty: types::Ty::Handle(variable.ty),
                };
                return Ok(Node::Place(place));
            }
            A::Private => {
                let size = self.scalars(types::Ty::Handle(variable.ty))?;
                let first = self.variable(size);
                let init = match variable.init {
                    Some(init) => self.global_expression(init)?,
                    None => vec![self.constant(0); size as usize],
                };
                self.store_variable(first, 0, &init);
                place::Root::Variable { first, size }
            }
            other => return self.refuse(format!("a variable in the address space {other:?}")),
        };
        Ok(Node::Place(place::Place { root, offset: 0, index: None, ty: types::Ty::Handle(variable.ty) }))
    }

    /// The scalars of an argument of the entry point.
    fn argument(&mut self, ty: Handle<naga::Type>, binding: Option<&naga::Binding>) -> Lowered<Vec<Val>> {
        use naga::BuiltIn as B;
        let Some(binding) = binding else {
            let naga::TypeInner::Struct { members, .. } = &self.module.types[ty].inner else {
                return self.refuse("an argument of the entry point that is not built in");
            };
            let mut values = Vec::new();
            for member in members {
                values.extend(self.argument(member.ty, member.binding.as_ref())?);
            }
            return Ok(values);
        };
        let naga::Binding::BuiltIn(built_in) = binding else {
            return self.refuse("an argument of the entry point that is not built in");
        };
        let axes = [0_u8, 1, 2];
        let lanes: u32 = self.workgroup_size.iter().product();
        Ok(match built_in {
            B::WorkGroupId => axes.map(|axis| self.given(Given::WorkgroupId(axis))).to_vec(),
            B::NumWorkGroups => axes.map(|axis| self.given(Given::NumWorkgroups(axis))).to_vec(),
            B::LocalInvocationId => axes.map(|axis| self.given(Given::LocalId(axis))).to_vec(),
            B::LocalInvocationIndex => vec![self.given(Given::LocalIndex)],
            B::GlobalInvocationId => axes.map(|axis| self.global_id(axis)).to_vec(),
            B::SubgroupInvocationId => vec![self.given(Given::SubgroupLane)],
            B::SubgroupId => vec![self.given(Given::SubgroupId)],
            B::SubgroupSize => vec![self.constant(self.subgroup_size)],
            B::NumSubgroups => vec![self.constant(lanes.div_ceil(self.subgroup_size))],
            other => return self.refuse(format!("the built-in {other:?}")),
        })
    }

    fn global_id(&mut self, axis: u8) -> Val {
        use super::program::Binary;
        let size = self.constant(self.workgroup_size[usize::from(axis)]);
        let (group, local) = (self.given(Given::WorkgroupId(axis)), self.given(Given::LocalId(axis)));
        let first = self.binary(Binary::MulI, &[group], &[size]);
        self.binary(Binary::AddI, &first, &[local])[0]
    }

    /// Values to registers, and what there is too much left out.
    fn finish(self) -> Program {
        let Self { mut code, subgroup_size, workgroup_size, workgroup_bytes, .. } = self;
        registers::tidy(&mut code);
        let varying = uniform::varying(&code);
        uniform::jump_where_all_agree(&mut code, &varying);
        registers::merge_moves(&mut code, &varying);
        let lane_chunks = workgroup_size.iter().product::<u32>().div_ceil(super::program::CHUNK as u32);
        let registers = registers::assign(&code, &varying, lane_chunks);
        registers::compact(&mut code);
        let Code { instrs, operands, lines, kinds, frames } = code;
        let cost = Program::estimate(&instrs, lane_chunks as usize);
        let given = kinds.iter().enumerate().filter_map(|(at, kind)| match kind {
            Kind::Given(given) => Some((registers.of[at], *given)),
            _ => None,
        });
        // Nothing but a name: the machine keeps the constants of the program that it ran last.
        static PROGRAMS: AtomicU64 = AtomicU64::new(1);
        Program {
            id: PROGRAMS.fetch_add(1, Relaxed),
            given: given.collect(),
            instrs,
            operands: operands.iter().map(|value| registers.of[value.index()]).collect(),
            lines,
            workgroup_size,
            subgroup_size,
            workgroup_bytes: workgroup_bytes.next_multiple_of(4),
            chunks: registers.chunks,
            frames,
            cost,
        }
    }
}
