//! Which values are the same for all lanes of a workgroup.
//!
//! Gets instructions over values, returns for each value whether lanes may differ, and for each instruction whether
//! some lanes may wait while others run it. What holds then: a value that is told to be the same is computed from
//! nothing but such values, and a variable told so is written by all lanes or none. Never looks at memory's contents:
//! an address that is the same for all gives all the same word, since the lanes of a workgroup load together.

use super::{Code, Kind, Val, result_count};
use crate::exec::reference::program::{Given, Instr, Op};

/// What is known of a kernel's values and instructions.
pub(super) struct Uniformity {
    /// By value: whether lanes may differ.
    pub(super) varies: Vec<bool>,
    /// By instruction: whether some lanes may wait meanwhile.
    pub(super) diverges: Vec<bool>,
    /// By value: whether it is part of a variable that is indexed when the kernel runs, so that its scalars lie side by
    /// side.
    pub(super) is_indexed: Vec<bool>,
}

enum Inside {
    Branch { varies: bool },
    Fork { frame: u32 },
}

/// Finds what varies, until nothing more is found.
pub(super) fn varying(code: &Code) -> Uniformity {
    let mut known = Uniformity {
        varies: code.kinds.iter().map(|kind| matches!(kind, Kind::Given(given) if is_of_lanes(*given))).collect(),
        diverges: vec![false; code.instrs.len()],
        is_indexed: vec![false; code.kinds.len()],
    };
    for instr in &code.instrs {
        if let Some(base) = indexed(code, instr) {
            known.is_indexed[group(code, base)].fill(true);
        }
    }
    let mut diverging = vec![false; code.frames as usize];
    while known.pass(code, &mut diverging) {}
    known
}

const fn is_of_lanes(given: Given) -> bool {
    matches!(given, Given::LocalId(_) | Given::LocalIndex | Given::SubgroupLane | Given::SubgroupId)
}

/// The variable that an instruction indexes.
fn indexed(code: &Code, instr: &Instr) -> Option<Val> {
    let operands = code.operands(instr);
    match instr.op {
        Op::LoadVariable { .. } => operands.last().copied(),
        Op::StoreVariable { .. } => Some(operands[1]),
        _ => None,
    }
}

/// All scalars of a variable.
pub(super) fn group(code: &Code, scalar: Val) -> std::ops::Range<usize> {
    match code.kinds[scalar.index()] {
        Kind::Variable { first, size } => first.index()..first.index() + size as usize,
        _ => scalar.index()..scalar.index() + 1,
    }
}

impl Uniformity {
    /// Goes through the text once; returns whether anything was found.
    fn pass(&mut self, code: &Code, diverging: &mut [bool]) -> bool {
        let mut found = false;
        let mut inside: Vec<Inside> = Vec::new();
        for (at, instr) in code.instrs.iter().enumerate() {
            let operands = code.operands(instr);
            match instr.op {
                Op::If { .. } => inside.push(Inside::Branch { varies: self.varies[operands[0].index()] }),
                Op::EndIf { .. } | Op::Merge { .. } => {
                    inside.pop();
                }
                Op::Fork { frame } => inside.push(Inside::Fork { frame }),
                Op::Leave { frame, .. } => found |= leave(&inside, frame, false, diverging),
                Op::LeaveIf => found |= leave(&inside, None, self.varies[operands[0].index()], diverging),
                _ => {}
            }
            let diverges = inside.iter().any(|inside| match inside {
                Inside::Branch { varies } => *varies,
                Inside::Fork { frame } => diverging[*frame as usize],
            });
            self.diverges[at] = diverges;
            found |= self.instruction(code, instr, diverges);
        }
        found
    }

    fn instruction(&mut self, code: &Code, instr: &Instr, diverges: bool) -> bool {
        let operands = code.operands(instr);
        let n = instr.count as usize;
        let varies = |value: Val| self.varies[value.index()];
        let mut varying: Vec<Val> = Vec::new();
        match instr.op {
            Op::Move => {
                varying.extend((0..n).filter(|at| diverges || varies(operands[n + at])).map(|at| operands[at]));
            }
            Op::StoreVariable { .. } => {
                if diverges || varies(operands[0]) || operands[2..].iter().any(|value| varies(*value)) {
                    varying.push(operands[1]);
                }
            }
            Op::Unary(_) | Op::Binary(_) | Op::Ternary(_) | Op::InsertBits => {
                let parts = operands.len() / n.max(1);
                let any = |at: &usize| (1..parts).any(|part| varies(operands[part * n + at]));
                varying.extend((0..n).filter(any).map(|at| operands[at]));
            }
            Op::Atomic { .. } | Op::Subgroup { .. } | Op::Gather(_) | Op::Ballot => {
                varying.extend(&operands[..result_count(instr)]);
            }
            _ => {
                if code.sources(instr).iter().any(|value| varies(*value)) {
                    varying.extend(&operands[..result_count(instr)]);
                }
            }
        }
        let mut found = false;
        for value in varying {
            let all =
                if self.is_indexed[value.index()] { group(code, value) } else { value.index()..value.index() + 1 };
            for at in all {
                found |= !std::mem::replace(&mut self.varies[at], true);
            }
        }
        found
    }
}

/// Marks the forks that some lanes leave and others do not.
fn leave(inside: &[Inside], frame: Option<u32>, mut parts: bool, diverging: &mut [bool]) -> bool {
    let mut found = false;
    let mut passed: Vec<u32> = Vec::new();
    for inside in inside.iter().rev() {
        match inside {
            Inside::Branch { varies } => parts |= varies,
            Inside::Fork { frame: fork } => {
                parts |= diverging[*fork as usize];
                passed.push(*fork);
                if frame.is_none_or(|frame| frame == *fork) {
                    break;
                }
            }
        }
    }
    if parts {
        for fork in passed {
            found |= !std::mem::replace(&mut diverging[fork as usize], true);
        }
    }
    found
}

/// Branches on what is the same for all become jumps.
pub(super) fn jump_where_all_agree(code: &mut Code, known: &Uniformity) {
    let mut agreed = vec![false; code.frames as usize];
    for at in 0..code.instrs.len() {
        let instr = code.instrs[at];
        let op = match instr.op {
            Op::If { frame, to } if !known.varies[code.operands(&instr)[0].index()] => {
                agreed[frame as usize] = true;
                let is_else = matches!(code.instrs[to as usize].op, Op::Else { .. });
                Op::JumpUnless { to: to + u32::from(is_else) }
            }
            Op::Else { frame, to } if agreed[frame as usize] => Op::Jump { to },
            Op::EndIf { frame } if agreed[frame as usize] => Op::Nop,
            op => op,
        };
        code.instrs[at].op = op;
    }
}
