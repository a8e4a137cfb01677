//! Statements and control flow.
//!
//! Gets blocks of a function, writes instructions with jumps. What holds then: lanes that leave a loop, a switch or a
//! function wait in a frame until the others come to its end, so that the lanes of a workgroup go through the text
//! together, in its order. Never jumps backwards but from a loop's end to its beginning.

use std::collections::HashMap;

use naga::{Block, Statement as S};

use super::expr::Node;
use super::types::{Scalar, Ty};
use super::{Call, Kind, Lowered, Lowering, MAX_INSTRS, Val};
use crate::exec::reference::program::{Binary, Combine, Gather, Op, Scan};

/// Calls and blocks inside each other, at most.
const MAX_SCOPES: usize = 256;

/// What lanes can be in the middle of.
pub(super) struct Scope {
    kind: ScopeKind,
    /// Instructions that go to this scope's next place where lanes may be active again.
    waiting: Vec<usize>,
    /// Whether lanes may have left for further out.
    is_left: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScopeKind {
    Branch,
    Loop { frame: u32 },
    Switch { frame: u32 },
    Call { frame: u32 },
}

impl<'a> Lowering<'a> {
    fn frame(&mut self) -> u32 {
        self.code.frames += 1;
        self.code.frames - 1
    }

    fn open(&mut self, kind: ScopeKind) -> Lowered<()> {
        if self.scopes.len() >= MAX_SCOPES {
            return self.refuse(format!("more than {MAX_SCOPES} calls and blocks inside each other"));
        }
        self.scopes.push(Scope { kind, waiting: Vec::new(), is_left: false });
        Ok(())
    }

    /// The next instruction is where lanes of the innermost scope meet again.
    fn meet(&mut self) {
        let here = self.code.instrs.len() as u32;
        let waiting = self.scopes.last_mut().map(|scope| std::mem::take(&mut scope.waiting)).unwrap_or_default();
        waiting.into_iter().for_each(|at| self.go_to(at, here));
    }

    fn go_to(&mut self, at: usize, here: u32) {
        match &mut self.code.instrs[at].op {
            Op::JumpUnless { to }
            | Op::Jump { to }
            | Op::If { to, .. }
            | Op::Else { to, .. }
            | Op::SkipIfNone { to }
            | Op::Continuing { to, .. }
            | Op::Repeat { to }
            | Op::Leave { to, .. } => *to = here,
            other => unreachable!("{other:?} goes nowhere"),
        }
    }

    /// Goes to where lanes of the innermost scope meet again, if there is one.
    fn wait(&mut self, at: usize) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.waiting.push(at);
        }
    }

    /// Closes the innermost scope; where lanes may have left it for further out, what follows is skipped if all have.
    fn close(&mut self) {
        let Some(scope) = self.scopes.pop() else { return };
        debug_assert!(scope.waiting.is_empty(), "all that wait have met");
        if scope.is_left && !self.scopes.is_empty() {
            let at = self.emit(Op::SkipIfNone { to: 0 }, 0, &[]);
            self.wait(at);
        }
    }

    /// Lanes leave from here to the scope that `target` finds; returns whether there is one.
    fn leave(&mut self, frame: Option<u32>, target: impl Fn(ScopeKind) -> bool) -> bool {
        let Some(outer) = self.scopes.iter().rposition(|scope| target(scope.kind)) else { return false };
        let inner = self.scopes.len() - outer - 1;
        self.scopes.iter_mut().rev().take(inner).for_each(|scope| scope.is_left = true);
        let at = self.emit(Op::Leave { frame, to: 0 }, 0, &[]);
        self.wait(at);
        true
    }

    /// Forgets what variables hold that were stored to since there were `stored` stores, and goes back to what was
    /// known then.
    fn forget_since(&mut self, stored: usize, known: HashMap<Val, Val>) {
        self.known = known;
        for variable in &self.stored[stored..] {
            self.known.remove(variable);
        }
    }

    /// A call of a function: its body, in place.
    pub(super) fn call(
        &mut self,
        function: &'a naga::Function,
        info: &'a naga::valid::FunctionInfo,
        arguments: Vec<Node>,
    ) -> Lowered<Vec<Val>> {
        let nodes = vec![None; function.expressions.len()];
        let mut call = Call {
            function,
            info,
            nodes,
            arguments,
            locals: Vec::new(),
            frame: None,
            returned: Vec::new(),
            result: None,
        };
        for (handle, local) in function.local_variables.iter() {
            let span = function.local_variables.get_span(handle);
            if span.is_defined() {
                self.span = span;
            }
            let size = self.scalars(Ty::Handle(local.ty))?;
            let first = self.variable(size);
            call.locals.push(first);
        }
        let (all, early) = returns(&function.body, true);
        if all > 1
            && let Some(result) = &function.result
        {
            let size = self.scalars(Ty::Handle(result.ty))?;
            let first = self.variable(size);
            call.returned = (0..size).map(|at| Val(first.0 + at)).collect();
        }
        let (stored, known) = (self.stored.len(), self.known.clone());
        if early > 0 {
            let frame = self.frame();
            call.frame = Some(frame);
            self.emit(Op::Fork { frame }, 0, &[]);
            self.open(ScopeKind::Call { frame })?;
        }
        for (handle, local) in function.local_variables.iter() {
            let first = call.locals[handle.index()];
            let init = match local.init {
                Some(init) => self.value(&mut call, init)?,
                None => vec![self.constant(0); self.scalars(Ty::Handle(local.ty))? as usize],
            };
            self.store_variable(first, 0, &init);
        }
        self.block(&mut call, &function.body, true)?;
        if let Some(frame) = call.frame {
            self.meet();
            self.emit(Op::Merge { frame, continued: None, returned: None }, 0, &[]);
            self.forget_since(stored, known);
            self.close();
        }
        Ok(match call.result {
            Some(result) => result,
            None => call.returned.iter().map(|variable| self.read(*variable)).collect(),
        })
    }

    fn read(&mut self, variable: Val) -> Val {
        self.unary(crate::exec::reference::program::Unary::Same, &[variable])[0]
    }

    /// The statements of a block; those of a function's last one may return without leaving anybody behind.
    fn block(&mut self, call: &mut Call<'a>, block: &'a Block, is_last: bool) -> Lowered<()> {
        let count = block.len();
        for (at, (statement, span)) in block.span_iter().enumerate() {
            if self.code.instrs.len() > MAX_INSTRS {
                return self.refuse(format!("more than {MAX_INSTRS} instructions once functions are in place"));
            }
            if span.is_defined() {
                self.span = *span;
            }
            self.statement(call, statement, is_last && at + 1 == count)?;
        }
        Ok(())
    }

    fn statement(&mut self, call: &mut Call<'a>, statement: &'a S, is_last: bool) -> Lowered<()> {
        match statement {
            S::Emit(range) => {
                for handle in range.clone() {
                    let span = call.function.expressions.get_span(handle);
                    if span.is_defined() {
                        self.span = span;
                    }
                    self.node(call, handle)?;
                }
            }
            S::Block(block) => self.block(call, block, is_last)?,
            S::If { condition, accept, reject } => {
                let condition = self.value(call, *condition)?[0];
                self.branch(
                    condition,
                    |this, taken| this.block(call, if taken { accept } else { reject }, is_last),
                    !reject.is_empty(),
                )?;
            }
            S::Switch { selector, cases } => self.switch(call, *selector, cases)?,
            S::Loop { body, continuing, break_if } => self.repeat(call, body, continuing, *break_if)?,
            S::Break => {
                self.leave(None, |kind| matches!(kind, ScopeKind::Loop { .. } | ScopeKind::Switch { .. }));
            }
            S::Continue => {
                let frame = self.scopes.iter().rev().find_map(|scope| match scope.kind {
                    ScopeKind::Loop { frame } => Some(frame),
                    _ => None,
                });
                self.leave(frame, |kind| matches!(kind, ScopeKind::Loop { .. }));
            }
            S::Return { value } => self.return_from(call, *value, is_last)?,
            S::ControlBarrier(barrier) => {
                self.barrier(*barrier);
            }
            S::MemoryBarrier(_) => return self.refuse("a memory barrier without a control barrier"),
            S::Store { pointer, value } => {
                let place = self.place(call, *pointer)?;
                let values = self.value(call, *value)?;
                self.store(place, &values)?;
            }
            S::Atomic { pointer, fun, value, result } => {
                let place = self.place(call, *pointer)?;
                let results = self.atomic(call, place, *fun, *value)?;
                if let Some(result) = result {
                    call.nodes[result.index()] = Some(Node::Value(results));
                }
            }
            S::WorkGroupUniformLoad { pointer, result } => {
                let place = self.place(call, *pointer)?;
                self.barrier(naga::Barrier::WORK_GROUP);
                let values = self.load(place)?;
                self.barrier(naga::Barrier::WORK_GROUP);
                call.nodes[result.index()] = Some(Node::Value(values));
            }
            S::Call { function, arguments, result } => {
                let mut nodes = Vec::new();
                for argument in arguments {
                    nodes.push(self.node(call, *argument)?);
                }
                let (module, info, span, caller) = (self.module, self.info, self.span, self.caller);
                self.caller = self.line();
                let values = self.call(&module.functions[*function], &info[*function], nodes)?;
                (self.span, self.caller) = (span, caller);
                if let Some(result) = result {
                    call.nodes[result.index()] = Some(Node::Value(values));
                }
            }
            S::SubgroupBallot { .. } | S::SubgroupGather { .. } | S::SubgroupCollectiveOperation { .. } => {
                self.subgroup(call, statement)?;
            }
            other => {
                let name = format!("{other:?}");
                let name = name.split([' ', '(']).next().unwrap_or_default();
                return self.refuse(format!("a statement of kind {name}"));
            }
        }
        Ok(())
    }

    fn barrier(&mut self, barrier: naga::Barrier) {
        let storage = barrier.contains(naga::Barrier::STORAGE);
        let workgroup = barrier.contains(naga::Barrier::WORK_GROUP);
        if storage || workgroup {
            self.emit(Op::Barrier { storage, workgroup }, 0, &[]);
        }
    }

    /// Lanes where the condition holds do one thing, then the others the other.
    fn branch(
        &mut self,
        condition: Val,
        mut body: impl FnMut(&mut Self, bool) -> Lowered<()>,
        has_else: bool,
    ) -> Lowered<()> {
        let frame = self.frame();
        let (stored, known) = (self.stored.len(), self.known.clone());
        let at = self.emit(Op::If { frame, to: 0 }, 0, &[&[condition]]);
        self.open(ScopeKind::Branch)?;
        self.wait(at);
        body(self, true)?;
        if has_else {
            self.meet();
            let at = self.emit(Op::Else { frame, to: 0 }, 0, &[]);
            self.wait(at);
            self.known.clone_from(&known);
            body(self, false)?;
        }
        self.meet();
        self.emit(Op::EndIf { frame }, 0, &[]);
        self.forget_since(stored, known);
        self.close();
        Ok(())
    }

    fn repeat(
        &mut self,
        call: &mut Call<'a>,
        body: &'a Block,
        continuing: &'a Block,
        break_if: Option<naga::Handle<naga::Expression>>,
    ) -> Lowered<()> {
        let frame = self.frame();
        self.emit(Op::Fork { frame }, 0, &[]);
        let first = self.code.instrs.len() as u32;
        self.open(ScopeKind::Loop { frame })?;
        self.known.clear();
        self.block(call, body, false)?;
        self.known.clear();
        self.meet();
        let at = self.emit(Op::Continuing { frame, to: 0 }, 0, &[]);
        self.wait(at);
        self.block(call, continuing, false)?;
        if let Some(condition) = break_if {
            let condition = self.value(call, condition)?[0];
            self.emit(Op::LeaveIf, 0, &[&[condition]]);
        }
        self.emit(Op::Repeat { to: first }, 0, &[]);
        self.meet();
        self.emit(Op::Merge { frame, continued: None, returned: call.frame }, 0, &[]);
        self.known.clear();
        self.close();
        Ok(())
    }

    fn switch(
        &mut self,
        call: &mut Call<'a>,
        selector: naga::Handle<naga::Expression>,
        cases: &'a [naga::SwitchCase],
    ) -> Lowered<()> {
        let selector = self.value(call, selector)?[0];
        let continued = self.scopes.iter().rev().find_map(|scope| match scope.kind {
            ScopeKind::Loop { frame } => Some(Some(frame)),
            ScopeKind::Call { .. } => Some(None),
            _ => None,
        });
        // Which lanes take which body: labels of empty bodies fall through to the next.
        let mut bodies: Vec<(Option<Val>, &'a Block)> = Vec::new();
        let (mut here, mut any): (Option<Val>, Option<Val>) = (None, None);
        let mut is_default = false;
        for case in cases {
            let label = match case.value {
                naga::SwitchValue::I32(value) => Some(value as u32),
                naga::SwitchValue::U32(value) => Some(value),
                naga::SwitchValue::Default => None,
            };
            match label {
                None => is_default = true,
                Some(label) => {
                    let label = self.constant(label);
                    let is_it = self.binary(Binary::EqI, &[selector], &[label]);
                    here = Some(self.either(here, is_it[0]));
                    any = Some(self.either(any, is_it[0]));
                }
            }
            if case.fall_through {
                if !case.body.is_empty() {
                    return self.refuse("a case that falls through with a body of its own");
                }
                continue;
            }
            bodies.push((if is_default { None } else { here }, &case.body));
            (here, is_default) = (None, false);
        }
        // Labels that share a body with `default` count as `default`'s: they meet no other.
        let frame = self.frame();
        let mut others: Option<Val> = None;
        for (condition, _) in &bodies {
            if let Some(condition) = condition {
                others = Some(self.either(others, *condition));
            }
        }
        self.emit(Op::Fork { frame }, 0, &[]);
        self.open(ScopeKind::Switch { frame })?;
        let (stored, known) = (self.stored.len(), self.known.clone());
        for (condition, body) in bodies {
            let condition = match (condition, others) {
                (Some(condition), _) => condition,
                (None, Some(others)) => self.unary(crate::exec::reference::program::Unary::Not, &[others])[0],
                (None, None) => self.constant(u32::MAX),
            };
            // Whoever breaks out of a body before waits in the fork's frame, and is in none of those after.
            self.branch(condition, |this, _| this.block(call, body, false), false)?;
        }
        self.meet();
        self.emit(Op::Merge { frame, continued: continued.flatten(), returned: call.frame }, 0, &[]);
        self.forget_since(stored, known);
        self.close();
        Ok(())
    }

    fn either(&mut self, one: Option<Val>, other: Val) -> Val {
        match one {
            None => other,
            Some(one) => self.binary(Binary::Or, &[one], &[other])[0],
        }
    }

    fn return_from(
        &mut self,
        call: &mut Call<'a>,
        value: Option<naga::Handle<naga::Expression>>,
        is_last: bool,
    ) -> Lowered<()> {
        if let Some(value) = value {
            let values = self.value(call, value)?;
            match call.returned.first() {
                Some(first) => {
                    debug_assert!(matches!(self.code.kinds[first.index()], Kind::Variable { .. }));
                    self.store_variable(*first, 0, &values);
                }
                None => call.result = Some(values),
            }
        }
        if !is_last {
            let frame = call.frame;
            self.leave(frame, |kind| matches!(kind, ScopeKind::Call { frame: of } if Some(of) == frame));
        }
        Ok(())
    }

    fn subgroup(&mut self, call: &mut Call<'a>, statement: &S) -> Lowered<()> {
        use naga::{GatherMode as G, SubgroupOperation as O};
        let (result, values) = match statement {
            S::SubgroupBallot { result, predicate } => {
                let predicate = match predicate {
                    Some(predicate) => self.value(call, *predicate)?,
                    None => vec![self.constant(u32::MAX)],
                };
                let results = self.temps(4);
                self.emit(Op::Ballot, 1, &[&results, &predicate]);
                (*result, results)
            }
            S::SubgroupGather { mode, argument, result } => {
                let values = self.value(call, *argument)?;
                let (gather, lane) = match mode {
                    G::BroadcastFirst => (Gather::First, None),
                    G::Broadcast(lane) | G::Shuffle(lane) => (Gather::Lane, Some(*lane)),
                    G::ShuffleDown(by) => (Gather::Down, Some(*by)),
                    G::ShuffleUp(by) => (Gather::Up, Some(*by)),
                    G::ShuffleXor(by) => (Gather::Xor, Some(*by)),
                    G::QuadBroadcast(lane) => (Gather::Quad, Some(*lane)),
                    G::QuadSwap(naga::Direction::X) => (Gather::QuadSwap(1), None),
                    G::QuadSwap(naga::Direction::Y) => (Gather::QuadSwap(2), None),
                    G::QuadSwap(naga::Direction::Diagonal) => (Gather::QuadSwap(3), None),
                };
                let lane = match lane {
                    Some(lane) => self.value(call, lane)?,
                    None => Vec::new(),
                };
                let results = self.temps(values.len());
                self.emit(Op::Gather(gather), values.len(), &[&results, &values, &lane]);
                (*result, results)
            }
            S::SubgroupCollectiveOperation { op, collective_op, argument, result } => {
                let scalar = self.scalar_of(&self.type_of(call, *argument))?;
                let values = self.value(call, *argument)?;
                let pick = |float, signed, unsigned| match scalar {
                    Scalar::F32 | Scalar::F16 => float,
                    Scalar::I32 => signed,
                    Scalar::U32 | Scalar::Bool => unsigned,
                };
                let combine = match op {
                    O::All | O::And => Combine::And,
                    O::Any | O::Or => Combine::Or,
                    O::Xor => Combine::Xor,
                    O::Add => pick(Combine::AddF, Combine::AddI, Combine::AddI),
                    O::Mul => pick(Combine::MulF, Combine::MulI, Combine::MulI),
                    O::Min => pick(Combine::MinF, Combine::MinI, Combine::MinU),
                    O::Max => pick(Combine::MaxF, Combine::MaxI, Combine::MaxU),
                };
                let scan = match collective_op {
                    naga::CollectiveOperation::Reduce => Scan::Reduce,
                    naga::CollectiveOperation::InclusiveScan => Scan::Inclusive,
                    naga::CollectiveOperation::ExclusiveScan => Scan::Exclusive,
                };
                let results = self.temps(values.len());
                self.emit(Op::Subgroup { combine, scan }, values.len(), &[&results, &values]);
                (*result, self.rounded(scalar, results))
            }
            _ => return Ok(()),
        };
        call.nodes[result.index()] = Some(Node::Value(values));
        Ok(())
    }
}

/// How many returns a block has, and how many of them leave somebody behind.
fn returns(block: &Block, is_last: bool) -> (usize, usize) {
    let count = block.len();
    let (mut all, mut early) = (0, 0);
    let mut add = |found: (usize, usize)| {
        all += found.0;
        early += found.1;
    };
    for (at, statement) in block.iter().enumerate() {
        let is_last = is_last && at + 1 == count;
        match statement {
            S::Return { .. } => add((1, usize::from(!is_last))),
            S::Block(block) => add(returns(block, is_last)),
            S::If { accept, reject, .. } => {
                add(returns(accept, is_last));
                add(returns(reject, is_last));
            }
            S::Loop { body, continuing, .. } => {
                add(returns(body, false));
                add(returns(continuing, false));
            }
            S::Switch { cases, .. } => cases.iter().for_each(|case| add(returns(&case.body, false))),
            _ => {}
        }
    }
    (all, early)
}
