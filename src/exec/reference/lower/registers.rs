//! Values to registers.
//!
//! Gets instructions over values, leaves out what is not needed, and gives every value a register. What holds then: two
//! values share a register only if none is needed any more when the other is written. Never moves an instruction.

use std::collections::HashMap;

use super::uniform::{Uniformity, group};
use super::{Code, Kind, Val, operand_count, result_count};
use crate::exec::reference::program::{Binary, Instr, Op, Reg, Ternary, Unary};

/// Where values are.
pub(super) struct Registers {
    /// By value.
    pub(super) of: Vec<Reg>,
    pub(super) chunks: u32,
}

const NOP: Instr = Instr { op: Op::Nop, operands: 0, count: 0 };

/// How often each value is read.
fn uses(code: &Code) -> Vec<u32> {
    let mut uses = vec![0; code.kinds.len()];
    for instr in &code.instrs {
        code.sources(instr).iter().for_each(|value| uses[value.index()] += 1);
    }
    uses
}

/// The instruction that computes each value.
fn definitions(code: &Code) -> Vec<Option<usize>> {
    let mut definitions = vec![None; code.kinds.len()];
    for (at, instr) in code.instrs.iter().enumerate() {
        code.results(instr).iter().for_each(|value| definitions[value.index()] = Some(at));
    }
    definitions
}

/// The last instruction that reads each value.
fn last_uses(code: &Code) -> Vec<usize> {
    let mut last = vec![0; code.kinds.len()];
    for (at, instr) in code.instrs.iter().enumerate() {
        code.sources(instr).iter().for_each(|value| last[value.index()] = at);
    }
    last
}

/// Beginning and end of every loop, inner ones before those around them.
fn loops(code: &Code) -> Vec<(usize, usize)> {
    let repeat = |(at, instr): (usize, &Instr)| match instr.op {
        Op::Repeat { to } => Some((to as usize, at)),
        _ => None,
    };
    code.instrs.iter().enumerate().filter_map(repeat).collect()
}

/// The instructions that write each variable.
fn writes(code: &Code) -> Vec<Vec<usize>> {
    let mut writes = vec![Vec::new(); code.kinds.len()];
    for (at, instr) in code.instrs.iter().enumerate() {
        let operands = code.operands(instr);
        match instr.op {
            Op::Move => operands[..instr.count as usize].iter().for_each(|value| writes[value.index()].push(at)),
            Op::StoreVariable { .. } => group(code, operands[1]).for_each(|scalar| writes[scalar].push(at)),
            _ => {}
        }
    }
    writes
}

/// Leaves out copies and what nothing reads.
pub(super) fn tidy(code: &mut Code) {
    read_variables_where_they_are(code);
    multiply_and_add(code);
    leave_out_unread(code);
    compact(code);
}

/// A copy of a variable that is not written before the copy's last use is the variable.
fn read_variables_where_they_are(code: &mut Code) {
    let (last, writes, loops) = (last_uses(code), writes(code), loops(code));
    let mut instead: HashMap<Val, Val> = HashMap::new();
    for at in 0..code.instrs.len() {
        let instr = code.instrs[at];
        let (Op::Unary(Unary::Same), 1) = (instr.op, instr.count) else { continue };
        let [copy, variable] = *code.operands(&instr) else { continue };
        if !matches!(code.kinds[variable.index()], Kind::Variable { .. }) {
            continue;
        }
        let end = last[copy.index()];
        let is_repeated = loops.iter().any(|(first, _)| at < *first && *first <= end);
        // A write by the very instruction that reads the copy comes after, unless it writes several.
        let is_written = writes[variable.index()]
            .iter()
            .any(|write| at < *write && (*write < end || *write == end && code.instrs[end].count > 1));
        if !is_repeated && !is_written {
            instead.insert(copy, variable);
            code.instrs[at] = NOP;
        }
    }
    for operand in &mut code.operands {
        if let Some(variable) = instead.get(operand) {
            *operand = *variable;
        }
    }
}

/// A product that is only added to something, or taken from it, needs no register.
fn multiply_and_add(code: &mut Code) {
    let (uses, definitions) = (uses(code), definitions(code));
    for at in 0..code.instrs.len() {
        let instr = code.instrs[at];
        let n = instr.count as usize;
        let sides: &[usize] = match instr.op {
            Op::Binary(Binary::AddF) => &[1, 2],
            Op::Binary(Binary::SubF) => &[2],
            _ => continue,
        };
        for side in sides {
            let operands = code.operands(&instr).to_vec();
            let product = &operands[side * n..(side + 1) * n];
            let Some(from) = definitions[product[0].index()] else { continue };
            let source = code.instrs[from];
            let is_product = source.op == Op::Binary(Binary::MulF) && code.results(&source) == product;
            let is_alone = product.iter().all(|value| uses[value.index()] == 1);
            // What it multiplies is still what it was: no variable is written in between.
            let factors = code.sources(&source).to_vec();
            let reads_variables =
                factors.iter().any(|value| matches!(code.kinds[value.index()], Kind::Variable { .. }));
            let between = &code.instrs[from + 1..at];
            let is_straight = between
                .iter()
                .all(|instr| !matches!(instr.op, Op::Move | Op::StoreVariable { .. }) || !reads_variables)
                && between.iter().all(|instr| !is_control(instr.op));
            if !(is_product && is_alone && is_straight) {
                continue;
            }
            let added = operands[(3 - side) * n..(4 - side) * n].to_vec();
            let is_sum = instr.op == Op::Binary(Binary::AddF);
            let op = if is_sum { Ternary::MulAdd } else { Ternary::SubMul };
            let first = code.operands.len() as u32;
            code.operands.extend(&operands[..n]);
            code.operands.extend(factors);
            code.operands.extend(added);
            code.instrs[at] = Instr { op: Op::Ternary(op), operands: first, count: instr.count };
            code.instrs[from] = NOP;
            break;
        }
    }
}

const fn is_control(op: Op) -> bool {
    matches!(
        op,
        Op::JumpUnless { .. }
            | Op::Jump { .. }
            | Op::If { .. }
            | Op::Else { .. }
            | Op::EndIf { .. }
            | Op::SkipIfNone { .. }
            | Op::Fork { .. }
            | Op::Merge { .. }
            | Op::Continuing { .. }
            | Op::LeaveIf
            | Op::Repeat { .. }
            | Op::Leave { .. }
    )
}

/// Instructions whose results nothing reads, and writes of variables that nothing reads.
fn leave_out_unread(code: &mut Code) {
    let mut uses = uses(code);
    loop {
        let mut is_done = true;
        for at in (0..code.instrs.len()).rev() {
            let instr = code.instrs[at];
            let is_unread = match instr.op {
                Op::Move => code.operands(&instr)[..instr.count as usize]
                    .iter()
                    .all(|variable| group(code, *variable).all(|scalar| uses[scalar] == 0)),
                // The variable itself is an operand of its writes, and no use of it.
                Op::StoreVariable { .. } => false,
                Op::Atomic { .. } | Op::Nop => false,
                _ => {
                    let results = code.results(&instr);
                    !results.is_empty() && results.iter().all(|value| uses[value.index()] == 0)
                }
            };
            if is_unread {
                code.sources(&instr).iter().for_each(|value| uses[value.index()] -= 1);
                code.instrs[at] = NOP;
                is_done = false;
            }
        }
        if is_done {
            return;
        }
    }
}

/// Takes out what does nothing.
pub(super) fn compact(code: &mut Code) {
    let mut places = Vec::with_capacity(code.instrs.len() + 1);
    let mut next = 0;
    for instr in &code.instrs {
        places.push(next);
        next += u32::from(instr.op != Op::Nop);
    }
    places.push(next);
    for instr in &mut code.instrs {
        match &mut instr.op {
            Op::JumpUnless { to }
            | Op::Jump { to }
            | Op::If { to, .. }
            | Op::Else { to, .. }
            | Op::SkipIfNone { to }
            | Op::Continuing { to, .. }
            | Op::Repeat { to }
            | Op::Leave { to, .. } => *to = places[*to as usize],
            _ => {}
        }
    }
    let is_kept: Vec<bool> = code.instrs.iter().map(|instr| instr.op != Op::Nop).collect();
    let mut kept = is_kept.iter();
    code.instrs.retain(|_| *kept.next().expect("as many as instructions"));
    let mut kept = is_kept.iter();
    code.lines.retain(|_| *kept.next().expect("as many as lines"));
}

/// What is only moved into a variable is computed there, where no lane waits meanwhile.
pub(super) fn merge_moves(code: &mut Code, known: &Uniformity) {
    let (uses, definitions) = (uses(code), definitions(code));
    for at in 0..code.instrs.len() {
        let instr = code.instrs[at];
        if instr.op != Op::Move || known.diverges[at] {
            continue;
        }
        let n = instr.count as usize;
        let operands = code.operands(&instr).to_vec();
        let merged: Option<Vec<(usize, usize)>> =
            (0..n).map(|k| target(code, known, (&uses, &definitions), at, (operands[k], operands[n + k]))).collect();
        let Some(merged) = merged else { continue };
        for (k, (_, operand)) in merged.into_iter().enumerate() {
            code.operands[operand] = operands[k];
        }
        code.instrs[at] = NOP;
    }
    // Instructions keep their places: what is known of them is told by place.
}

/// Where the value that a move writes to a variable is computed: the instruction, and the place of its operand.
fn target(
    code: &Code,
    known: &Uniformity,
    (uses, definitions): (&[u32], &[Option<usize>]),
    at: usize,
    (variable, value): (Val, Val),
) -> Option<(usize, usize)> {
    let from = definitions[value.index()]?;
    if uses[value.index()] != 1 || code.kinds[value.index()] != Kind::Temp || known.diverges[from] {
        return None;
    }
    let source = code.instrs[from];
    if !matches!(source.op, Op::Unary(_) | Op::Binary(_) | Op::Ternary(_) | Op::DotF | Op::Load { .. }) {
        return None;
    }
    // An indexed variable has other registers than its scalars one by one.
    if known.varies[value.index()] != known.varies[variable.index()] {
        return None;
    }
    for instr in &code.instrs[from + 1..at] {
        let is_touched = code.operands(instr).iter().any(|other| group(code, *other).contains(&variable.index()));
        if is_control(instr.op) || is_touched {
            return None;
        }
    }
    let results = result_count(&source);
    let k = code.results(&source).iter().position(|result| *result == value)?;
    // Other components are computed one after the other, and must not read this one's new value.
    let is_read = |(place, operand): (usize, &Val)| *operand == variable && place % results != k;
    if results > 1 && code.sources(&source).iter().enumerate().any(is_read) {
        return None;
    }
    // Nor may two moves of this instruction name the same one.
    Some((from, source.operands as usize + k))
}

/// From where to where a register is needed.
struct Interval {
    first: usize,
    last: usize,
    values: std::ops::Range<usize>,
}

/// A register for every value.
pub(super) fn assign(code: &Code, known: &Uniformity, lane_chunks: u32) -> Registers {
    let mut of = vec![Reg::new(0, false); code.kinds.len()];
    let size = |value: usize| if known.varies[value] { lane_chunks } else { 1 };
    let mut chunks = 0;
    for (value, kind) in code.kinds.iter().enumerate() {
        if matches!(kind, Kind::Given(_)) {
            of[value] = Reg::new(chunks, known.varies[value]);
            chunks += size(value);
        }
    }
    let mut free = Free { holes: Vec::new(), end: chunks };
    let mut live: Vec<(usize, u32, u32)> = Vec::new();
    for Interval { first, last, values } in intervals(code, known) {
        live.retain(|(end, start, size)| {
            let is_live = *end >= first;
            if !is_live {
                free.give_back(*start, *size);
            }
            is_live
        });
        let total: u32 = values.clone().map(size).sum();
        let start = free.take(total);
        let mut next = start;
        for value in values {
            of[value] = Reg::new(next, known.varies[value]);
            next += size(value);
        }
        live.push((last, start, total));
    }
    Registers { of, chunks: free.end }
}

/// In the order of their beginnings.
fn intervals(code: &Code, known: &Uniformity) -> Vec<Interval> {
    let mut spans: Vec<Option<(usize, usize)>> = vec![None; code.kinds.len()];
    for (at, instr) in code.instrs.iter().enumerate() {
        let first = instr.operands as usize;
        for value in &code.operands[first..first + operand_count(instr)] {
            let value = if known.is_indexed[value.index()] { group(code, *value).start } else { value.index() };
            spans[value] = Some(spans[value].map_or((at, at), |(first, _)| (first, at)));
        }
    }
    let loops = loops(code);
    let mut intervals = Vec::new();
    for (value, span) in spans.iter().enumerate() {
        let Some((mut first, mut last)) = *span else { continue };
        if matches!(code.kinds[value], Kind::Given(_)) {
            continue;
        }
        // What is written outside of a loop and read in it is needed until the loop is left, and the other way round.
        for (begin, end) in &loops {
            if first < *begin && *begin <= last {
                last = last.max(*end);
            }
            if (*begin..=*end).contains(&first) && last > *end {
                first = *begin;
            }
        }
        let values = if known.is_indexed[value] { group(code, Val(value as u32)) } else { value..value + 1 };
        intervals.push(Interval { first, last, values });
    }
    intervals.sort_by_key(|interval| interval.first);
    intervals
}

/// Registers that nobody needs.
struct Free {
    /// Start and size, by start.
    holes: Vec<(u32, u32)>,
    end: u32,
}

impl Free {
    fn take(&mut self, size: u32) -> u32 {
        if let Some(at) = self.holes.iter().position(|(_, hole)| *hole >= size) {
            let (start, hole) = self.holes[at];
            if hole == size {
                self.holes.remove(at);
            } else {
                self.holes[at] = (start + size, hole - size);
            }
            return start;
        }
        self.end += size;
        self.end - size
    }

    fn give_back(&mut self, start: u32, size: u32) {
        let at = self.holes.partition_point(|(other, _)| *other < start);
        self.holes.insert(at, (start, size));
        if at + 1 < self.holes.len() && start + size == self.holes[at + 1].0 {
            self.holes[at].1 += self.holes.remove(at + 1).1;
        }
        if at > 0 && self.holes[at - 1].0 + self.holes[at - 1].1 == self.holes[at].0 {
            self.holes[at - 1].1 += self.holes.remove(at).1;
        }
    }
}
