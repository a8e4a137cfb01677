//! Runs programs, a workgroup at a time.
//!
//! Gets a program and what its bindings are bound to, changes memory. What holds then: all lanes of a workgroup have
//! done an instruction before any does the next, so one decoded instruction serves all of them; floats are rounded
//! after every operation and functions computed without the system's library, so that results are the same bits on
//! every machine. Never leaves a binding or a variable, whatever the indices.

mod memory;
mod subgroup;
mod values;

use std::sync::atomic::AtomicU32;

use super::program::{CHUNK, Chunk, Given, Op, Program, Reg};
use super::watch::Watch;

/// What a binding is bound to: exactly the bound slice, in 32-bit words.
#[derive(Clone, Copy, Debug)]
pub(crate) enum View<'a> {
    /// Nothing writes it while the dispatch runs.
    Read(&'a [u32]),
    /// The dispatch writes it, or others of its level do.
    Write(&'a [AtomicU32]),
}

impl View<'_> {
    fn size_bytes(&self) -> u32 {
        let words = match self {
            View::Read(words) => words.len(),
            View::Write(words) => words.len(),
        };
        u32::try_from(words * 4).unwrap_or(u32::MAX)
    }
}

/// Registers and workgroup memory, reused from one workgroup to the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The program whose constants the registers hold.
    program: u64,
    registers: Vec<Chunk>,
    memory: Vec<u32>,
    masks: Vec<Chunk>,
    active: Vec<Chunk>,
}

impl Scratch {
    /// Makes it fit a program.
    fn fit(&mut self, program: &Program) {
        if self.program == program.id {
            return;
        }
        self.program = program.id;
        let lane_chunks = program.lane_chunks();
        self.registers.clear();
        self.registers.resize(program.chunks as usize, Chunk::ZERO);
        self.memory.clear();
        self.memory.resize(program.workgroup_bytes as usize / 4, 0);
        self.masks.clear();
        self.masks.resize(program.frames as usize * 2 * lane_chunks, Chunk::ZERO);
        self.active.clear();
        self.active.resize(lane_chunks, Chunk::ZERO);
        let [x, y, _] = program.workgroup_size;
        for (register, given) in &program.given {
            let word = |lane: u32| match given {
                Given::Constant(word) => *word,
                Given::LocalId(0) => lane % x,
                Given::LocalId(1) => lane / x % y,
                Given::LocalId(_) => lane / (x * y),
                Given::LocalIndex => lane,
                Given::SubgroupLane => lane % program.subgroup_size,
                Given::SubgroupId => lane / program.subgroup_size,
                Given::WorkgroupId(_) | Given::NumWorkgroups(_) => 0,
            };
            let chunks = if register.is_varying() { lane_chunks } else { 1 };
            for chunk in 0..chunks {
                let lanes: [u32; CHUNK] = std::array::from_fn(|lane| word((chunk * CHUNK + lane) as u32));
                self.registers[register.at(chunk)] = Chunk(lanes);
            }
        }
    }
}

/// Runs one workgroup of a dispatch of `workgroups` from beginning to end.
pub(crate) fn run<W: Watch>(
    program: &Program,
    scratch: &mut Scratch,
    bindings: &[View<'_>],
    workgroups: [u32; 3],
    workgroup: [u32; 3],
    watch: &mut W,
) {
    scratch.fit(program);
    scratch.memory.fill(0);
    for (register, given) in &program.given {
        let word = match given {
            Given::WorkgroupId(axis) => workgroup[usize::from(*axis)],
            Given::NumWorkgroups(axis) => workgroups[usize::from(*axis)],
            _ => continue,
        };
        scratch.registers[register.at(0)] = Chunk::splat(word);
    }
    let mut machine = Machine {
        program,
        registers: &mut scratch.registers,
        memory: &mut scratch.memory,
        masks: &mut scratch.masks,
        active: &mut scratch.active,
        bindings,
        lanes: program.lanes(),
        lane_chunks: program.lane_chunks(),
        first: 0,
        end: 0,
    };
    machine.activate_all();
    if W::IS_WATCHING {
        watch.workgroup(workgroup);
        machine.execute(watch);
    } else {
        pulp::Arch::new().dispatch(Vectorised { machine, watch });
    }
}

/// The same instructions, compiled for the widest vectors that this CPU has.
struct Vectorised<'m, 'w, W> {
    machine: Machine<'m>,
    watch: &'w mut W,
}

impl<W: Watch> pulp::WithSimd for Vectorised<'_, '_, W> {
    type Output = ();

    // Whatever is not inlined from here on is compiled for the oldest CPU.
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) {
        self.machine.execute(self.watch);
    }
}

/// A workgroup in the middle of a program.
struct Machine<'a> {
    program: &'a Program,
    registers: &'a mut [Chunk],
    memory: &'a mut [u32],
    /// Lanes that wait: two masks for each frame.
    masks: &'a mut [Chunk],
    /// All ones for lanes that are active.
    active: &'a mut [Chunk],
    bindings: &'a [View<'a>],
    lanes: usize,
    lane_chunks: usize,
    /// The first chunk with an active lane, and one past the last; equal if none is active.
    first: usize,
    end: usize,
}

impl Machine<'_> {
    fn activate_all(&mut self) {
        for chunk in 0..self.lane_chunks {
            let lanes = std::array::from_fn(|lane| if chunk * CHUNK + lane < self.lanes { u32::MAX } else { 0 });
            self.active[chunk] = Chunk(lanes);
        }
        (self.first, self.end) = (0, self.lane_chunks);
    }

    #[inline(always)]
    fn execute<W: Watch>(&mut self, watch: &mut W) {
        let program = self.program;
        let (instrs, operands) = (program.instrs.as_slice(), program.operands.as_slice());
        let mut at = 0;
        while let Some(instr) = instrs.get(at) {
            let n = instr.count as usize;
            let regs = &operands[instr.operands as usize..];
            let site = at as u32;
            at += 1;
            match instr.op {
                Op::Unary(op) => self.unary(op, n, regs),
                Op::Binary(op) => self.binary(op, n, regs),
                Op::Ternary(op) => self.ternary(op, n, regs),
                Op::InsertBits => self.insert_bits(n, regs),
                Op::DotF => self.dot(n, regs),
                Op::Move => self.assign(n, regs),
                Op::Index { length, stride, space, has_base } => {
                    let length = self.length(length);
                    self.index(regs, (length, stride, has_base), (site, space), watch);
                }
                Op::ArrayLength { length } => {
                    let length = self.length(length);
                    self.registers[regs[0].at(0)] = Chunk::splat(length);
                }
                Op::LoadVariable { offset, size } => self.load_variable(n, regs, offset, size),
                Op::StoreVariable { offset, size } => self.store_variable(n, regs, offset, size),
                Op::Pick { length } => self.pick(n, regs, length, site, watch),
                Op::Load { space, offset, is_half, is_atomic } => {
                    self.load(n, regs, (space, offset, is_half), (site, is_atomic), watch);
                }
                Op::Store { space, offset, is_half, is_atomic, is_float } => {
                    self.store(n, regs, (space, offset, is_half), (site, is_atomic, is_float), watch);
                }
                Op::Atomic { fun, space, offset } => self.atomic(regs, fun, (space, offset), site, watch),
                Op::Subgroup { combine, scan } => self.subgroup(n, regs, combine, scan),
                Op::Gather(gather) => self.gather(n, regs, gather),
                Op::Ballot => self.ballot(regs),
                Op::Barrier { storage, workgroup } => {
                    if W::IS_WATCHING {
                        watch.barrier(site, storage, workgroup, self.count_active(), self.lanes as u32);
                    }
                }
                _ => at = self.control(instr.op, regs, at),
            }
        }
    }

    /// What changes which lanes are active, or where the program goes on; returns where that is.
    #[inline(always)]
    fn control(&mut self, op: Op, regs: &[Reg], mut at: usize) -> usize {
        match op {
            Op::JumpUnless { to } => at = if self.registers[regs[0].at(0)].0[0] == 0 { to as usize } else { at },
            Op::Jump { to } => at = to as usize,
            Op::If { frame, to } => at = if !self.split(frame, regs[0]) { to as usize } else { at },
            Op::Else { frame, to } => at = if !self.swap(frame) { to as usize } else { at },
            Op::EndIf { frame } => self.join(self.mask(frame, 0)),
            Op::SkipIfNone { to } => at = if self.first == self.end { to as usize } else { at },
            Op::Fork { frame } => self.fork(frame),
            Op::Merge { frame, continued, returned } => self.merge(frame, continued, returned),
            Op::Continuing { frame, to } => {
                let left = self.mask(frame, 1);
                self.join(left);
                self.masks[left..left + self.lane_chunks].fill(Chunk::ZERO);
                if self.first == self.end {
                    at = to as usize;
                }
            }
            Op::LeaveIf => self.leave_if(regs[0]),
            Op::Repeat { to } => at = if self.first != self.end { to as usize } else { at },
            Op::Leave { frame, to } => {
                if let Some(frame) = frame {
                    let left = self.mask(frame, 1);
                    for chunk in self.first..self.end {
                        or(&mut self.masks[left + chunk], self.active[chunk]);
                    }
                }
                self.active[self.first..self.end].fill(Chunk::ZERO);
                self.end = self.first;
                at = to as usize;
            }
            _ => {}
        }
        at
    }

    /// Where a frame's mask begins.
    #[inline(always)]
    fn mask(&self, frame: u32, half: usize) -> usize {
        (frame as usize * 2 + half) * self.lane_chunks
    }

    /// Finds the chunks with active lanes.
    #[inline(always)]
    fn find_active(&mut self) {
        let mut first = self.lane_chunks;
        let mut end = 0;
        for chunk in 0..self.lane_chunks {
            if self.active[chunk].0.iter().fold(0, |all, lane| all | lane) != 0 {
                first = first.min(chunk);
                end = chunk + 1;
            }
        }
        (self.first, self.end) = if end == 0 { (0, 0) } else { (first, end) };
    }

    /// Lanes of a mask become active too.
    #[inline(always)]
    fn join(&mut self, mask: usize) {
        for chunk in 0..self.lane_chunks {
            or(&mut self.active[chunk], self.masks[mask + chunk]);
        }
        self.find_active();
    }

    /// Lanes where the condition does not hold wait; whether any lane stays.
    #[inline(always)]
    fn split(&mut self, frame: u32, condition: Reg) -> bool {
        let mask = self.mask(frame, 0);
        for chunk in 0..self.lane_chunks {
            let (active, holds) = (self.active[chunk].0, self.registers[condition.at(chunk)].0);
            self.masks[mask + chunk] = Chunk(std::array::from_fn(|lane| active[lane] & !holds[lane]));
            self.active[chunk] = Chunk(std::array::from_fn(|lane| active[lane] & holds[lane]));
        }
        self.find_active();
        self.first != self.end
    }

    /// Those that waited are active and the others wait; whether any waited.
    #[inline(always)]
    fn swap(&mut self, frame: u32) -> bool {
        let mask = self.mask(frame, 0);
        for chunk in 0..self.lane_chunks {
            std::mem::swap(&mut self.active[chunk], &mut self.masks[mask + chunk]);
        }
        self.find_active();
        self.first != self.end
    }

    #[inline(always)]
    fn fork(&mut self, frame: u32) {
        let (whole, left) = (self.mask(frame, 0), self.mask(frame, 1));
        for chunk in 0..self.lane_chunks {
            self.masks[whole + chunk] = self.active[chunk];
            self.masks[left + chunk] = Chunk::ZERO;
        }
    }

    #[inline(always)]
    fn merge(&mut self, frame: u32, continued: Option<u32>, returned: Option<u32>) {
        let whole = self.mask(frame, 0);
        self.active.copy_from_slice(&self.masks[whole..whole + self.lane_chunks]);
        for gone in [continued, returned].into_iter().flatten() {
            let gone = self.mask(gone, 1);
            for chunk in 0..self.lane_chunks {
                let (active, gone) = (self.active[chunk].0, self.masks[gone + chunk].0);
                self.active[chunk] = Chunk(std::array::from_fn(|lane| active[lane] & !gone[lane]));
            }
        }
        self.find_active();
    }

    #[inline(always)]
    fn leave_if(&mut self, condition: Reg) {
        for chunk in 0..self.lane_chunks {
            let (active, holds) = (self.active[chunk].0, self.registers[condition.at(chunk)].0);
            self.active[chunk] = Chunk(std::array::from_fn(|lane| active[lane] & !holds[lane]));
        }
        self.find_active();
    }

    fn count_active(&self) -> u32 {
        self.active.iter().flat_map(|chunk| chunk.0).filter(|lane| *lane != 0).count() as u32
    }

    /// The first lane that is active.
    fn first_active(&self) -> u32 {
        let lanes = self.active.iter().flat_map(|chunk| chunk.0);
        lanes.enumerate().find(|(_, lane)| *lane != 0).map_or(0, |(at, _)| at as u32)
    }

    /// The chunks that an instruction computes of a register.
    #[inline(always)]
    fn chunks(&self, register: Reg) -> std::ops::Range<usize> {
        if register.is_varying() { self.first..self.end } else { 0..1 }
    }
}

#[inline(always)]
fn or(to: &mut Chunk, from: Chunk) {
    *to = Chunk(std::array::from_fn(|lane| to.0[lane] | from.0[lane]));
}
