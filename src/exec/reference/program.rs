//! A kernel as the machine runs it: one flat list of instructions over registers of whole workgroups.
//!
//! Gets nothing, returns nothing: plain data that `lower` makes and `machine` runs. What holds then: jumps go to
//! instructions that exist, operands to registers that exist, and every access to memory lies in its variable once its
//! indices are clamped. Never mentions naga.
//!
//! A register holds a 32-bit word for each invocation of a workgroup, in chunks of [`CHUNK`] lanes, or a single chunk
//! of equal words where the value is the same for all of them. Floats and integers are their bits, halves the float of
//! the same value, `true` is all ones, `false` zero. Vectors, matrices, structs and arrays are registers side by side
//! in operand lists, not in memory.

use super::watch::Space;

/// Lanes of a chunk.
pub(crate) const CHUNK: usize = 16;

/// The words of [`CHUNK`] lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub(crate) struct Chunk(pub(crate) [u32; CHUNK]);

impl Chunk {
    pub(crate) const ZERO: Self = Self([0; CHUNK]);

    pub(crate) const fn splat(word: u32) -> Self {
        Self([word; CHUNK])
    }
}

/// A register: its first chunk, and whether it has one for each of the workgroup's chunks or one in all. While a kernel
/// is lowered, the number of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Reg(u32);

impl Reg {
    pub(crate) const fn new(first: u32, is_varying: bool) -> Self {
        Self(first << 1 | is_varying as u32)
    }

    /// Whether lanes may differ.
    pub(crate) const fn is_varying(self) -> bool {
        self.0 & 1 == 1
    }

    /// Where the words of a chunk of lanes are.
    #[inline(always)]
    pub(crate) const fn at(self, chunk: usize) -> usize {
        (self.0 >> 1) as usize + chunk * (self.0 & 1) as usize
    }
}

/// One word from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
    /// The word itself.
    Same,
    NegF,
    NegI,
    /// Of all bits; `!` of a truth value.
    Not,
    AbsF,
    AbsI,
    SignF,
    SignI,
    Ceil,
    Floor,
    Round,
    Trunc,
    Fract,
    Sqrt,
    InverseSqrt,
    Exp,
    Exp2,
    Log,
    Log2,
    Sin,
    Cos,
    Tan,
    Sinh,
    Cosh,
    Tanh,
    Asin,
    Acos,
    Atan,
    Asinh,
    Acosh,
    Atanh,
    /// To the nearest half, as a float.
    RoundHalf,
    /// The bits of the nearest half.
    HalfBits,
    /// The float of the half in the low 16 bits.
    HalfLow,
    /// The float of the half in the high 16 bits.
    HalfHigh,
    FrexpFract,
    FrexpExp,
    CountOneBits,
    LeadingZeros,
    TrailingZeros,
    ReverseBits,
    FirstLeadingU,
    FirstLeadingI,
    FirstTrailing,
    FloatToI,
    FloatToU,
    IToFloat,
    UToFloat,
    /// `true` to 1.
    BoolToInt,
    /// `true` to 1.0.
    BoolToFloat,
    IntToBool,
    FloatToBool,
}

/// One word from two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    AddF,
    SubF,
    MulF,
    DivF,
    RemF,
    AddI,
    SubI,
    MulI,
    DivI,
    DivU,
    RemI,
    RemU,
    EqF,
    NeF,
    LtF,
    LeF,
    EqI,
    NeI,
    LtI,
    LeI,
    LtU,
    LeU,
    And,
    Or,
    Xor,
    Shl,
    ShrI,
    ShrU,
    MinF,
    MaxF,
    MinI,
    MaxI,
    MinU,
    MaxU,
    Pow,
    Atan2,
    Ldexp,
}

/// One word from three or four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ternary {
    /// The second where the first is true, else the third.
    Select,
    /// Product of the first two, plus the third, rounded once.
    Fma,
    /// Product of the first two, rounded, plus the third, rounded.
    MulAdd,
    /// The third minus the product of the first two, each rounded.
    SubMul,
    ExtractBitsI,
    ExtractBitsU,
}

/// What an atomic instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Atomic {
    Add,
    Subtract,
    And,
    Or,
    Xor,
    MinI,
    MinU,
    MaxI,
    MaxU,
    Exchange,
    /// Results: the old word, and whether it was exchanged.
    CompareExchange,
}

/// How the lanes of a subgroup are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Combine {
    AddF,
    AddI,
    MulF,
    MulI,
    MinF,
    MinI,
    MinU,
    MaxF,
    MaxI,
    MaxU,
    And,
    Or,
    Xor,
}

/// What a lane of a subgroup gets of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    /// All active lanes combined.
    Reduce,
    /// The active lanes up to this one.
    Inclusive,
    /// The active lanes below this one; the neutral word for the first.
    Exclusive,
}

/// From which lane of its subgroup a lane takes a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gather {
    First,
    /// The lane of this number.
    Lane,
    /// This number further up.
    Down,
    /// This number further down.
    Up,
    Xor,
    /// The lane of this number in its group of four.
    Quad,
    /// Its own place in its group of four, with these bits flipped.
    QuadSwap(u32),
}

/// How long an array is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Fixed(u32),
    /// As many elements of `stride` bytes as follow `offset` in what is bound.
    Bound {
        binding: u32,
        offset: u32,
        stride: u32,
    },
}

/// What an instruction does. Its operands follow each other in [`Program::operands`] from [`Instr::operands`] on, in
/// the order given here, `n` being [`Instr::count`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Op {
    /// `n` results, `n` words.
    Unary(Unary),
    /// `n` results, `n` and `n` words.
    Binary(Binary),
    /// `n` results, `n`, `n` and `n` words.
    Ternary(Ternary),
    /// `n` results, `n` words, `n` words to insert, `n` offsets, `n` counts.
    InsertBits,
    /// One result, `n` and `n` words: products of floats added up from the first on.
    DotF,
    /// `n` variables, `n` words: in active lanes.
    Move,
    /// One result, an index, and a base if `has_base`: base + min(index, length - 1) * stride.
    Index {
        length: Length,
        stride: u32,
        space: Option<Space>,
        has_base: bool,
    },
    /// One result: an array's length.
    ArrayLength {
        length: Length,
    },
    /// `n` results, a place counted in registers, the first register of a variable of `size` registers: those from
    /// place plus `offset` on.
    LoadVariable {
        offset: u32,
        size: u32,
    },
    /// A place counted in registers, the first register of a variable, `n` words: in active lanes.
    StoreVariable {
        offset: u32,
        size: u32,
    },
    /// `n` results, an index, `length` times `n` words: those of the index, which is below `length` or clamped.
    Pick {
        length: u32,
    },
    /// `n` results, an address: the words (or halves) from address plus `offset` on.
    Load {
        space: Space,
        offset: u32,
        is_half: bool,
        is_atomic: bool,
    },
    /// An address, `n` words: in active lanes. `is_float` is for whoever watches.
    Store {
        space: Space,
        offset: u32,
        is_half: bool,
        is_atomic: bool,
        is_float: bool,
    },
    /// One or two results, an address, a word, and another to compare with.
    Atomic {
        fun: Atomic,
        space: Space,
        offset: u32,
    },
    /// `n` results, `n` words.
    Subgroup {
        combine: Combine,
        scan: Scan,
    },
    /// `n` results, `n` words, and a lane number unless `First` or `QuadSwap`.
    Gather(Gather),
    /// Four results, a truth value.
    Ballot,
    /// Orders accesses of the workgroup to these spaces.
    Barrier {
        storage: bool,
        workgroup: bool,
    },

    /// Goes on at `to` unless the truth value, which is the same for all, is true.
    JumpUnless {
        to: u32,
    },
    Jump {
        to: u32,
    },
    /// Only lanes where the truth value is true stay active; the others wait in `frame`. Goes to `to` if none stays.
    If {
        frame: u32,
        to: u32,
    },
    /// Those that waited are active, the others wait. Goes to `to` if none waited.
    Else {
        frame: u32,
        to: u32,
    },
    /// Those that waited are active too.
    EndIf {
        frame: u32,
    },
    /// Goes to `to` if no lane is active.
    SkipIfNone {
        to: u32,
    },
    /// Remembers the active lanes. Lanes may leave until the `Merge` of this frame.
    Fork {
        frame: u32,
    },
    /// Those of the fork are active again, but for those that have left through `continued` or `returned`.
    Merge {
        frame: u32,
        continued: Option<u32>,
        returned: Option<u32>,
    },
    /// Lanes that have continued are active again. Goes to `to` if there is none.
    Continuing {
        frame: u32,
        to: u32,
    },
    /// Lanes where the truth value is true leave.
    LeaveIf,
    /// Goes to `to`, an instruction before, if any lane is active.
    Repeat {
        to: u32,
    },
    /// All active lanes leave, and are counted in the second half of `frame` if given. Goes to `to`.
    Leave {
        frame: Option<u32>,
        to: u32,
    },
    /// Nothing.
    Nop,
}

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Instr {
    pub(crate) op: Op,
    /// Index of its first operand.
    pub(crate) operands: u32,
    /// How many components it works on.
    pub(crate) count: u32,
}

/// What a register holds before the first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Given {
    Constant(u32),
    WorkgroupId(u8),
    NumWorkgroups(u8),
    LocalId(u8),
    LocalIndex,
    SubgroupLane,
    SubgroupId,
}

/// A kernel's instructions and all that it takes to run them.
#[derive(Debug)]
pub(crate) struct Program {
    /// No other program of this process has it.
    pub(crate) id: u64,
    pub(crate) instrs: Vec<Instr>,
    pub(crate) operands: Vec<Reg>,
    /// Line (from 1) of the text, by instruction.
    pub(crate) lines: Vec<u32>,
    /// Registers with contents of their own; no instruction writes them.
    pub(crate) given: Vec<(Reg, Given)>,
    pub(crate) workgroup_size: [u32; 3],
    pub(crate) subgroup_size: u32,
    pub(crate) workgroup_bytes: u32,
    /// Chunks of all registers.
    pub(crate) chunks: u32,
    /// Frames of lanes that wait, two masks each.
    pub(crate) frames: u32,
    /// About how much one workgroup executes, in words of registers: for deciding whether threads are worth it.
    pub(crate) cost: u64,
}

impl Program {
    /// The line (from 1) of the kernel's text that an instruction comes from.
    pub(crate) fn line(&self, site: u32) -> u32 {
        self.lines[site as usize]
    }

    /// Invocations of a workgroup.
    pub(crate) fn lanes(&self) -> usize {
        self.workgroup_size.iter().product::<u32>() as usize
    }

    /// Chunks that the lanes of a workgroup take.
    pub(crate) fn lane_chunks(&self) -> usize {
        self.lanes().div_ceil(CHUNK)
    }

    /// What a workgroup executes. Loops count as a few rounds, since nobody knows.
    pub(crate) fn estimate(instrs: &[Instr], lane_chunks: usize) -> u64 {
        let mut inside = vec![0_i64; instrs.len() + 1];
        for (at, instr) in instrs.iter().enumerate() {
            if let Op::Repeat { to } = instr.op {
                inside[to as usize] += 1;
                inside[at] -= 1;
            }
        }
        let (mut depth, mut cost) = (0, 0);
        for (instr, begins) in instrs.iter().zip(&inside) {
            depth += begins;
            cost += u64::from(instr.count.max(1)) << (3 * depth.clamp(0, 4));
        }
        cost * (lane_chunks * CHUNK) as u64
    }
}
