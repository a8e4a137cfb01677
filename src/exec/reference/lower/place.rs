//! Places: what pointers point to, and how it is read and written.
//!
//! Gets indices into variables and buffers, returns places, loads and stores. What holds then: an index that is only
//! known when the kernel runs is clamped to the length of what it indexes, so that no access leaves its variable.
//! Never refuses an index for its value.

use naga::TypeInner;

use super::types::{Element, Scalar, Ty};
use super::{Call, Lowered, Lowering, Val};
use crate::exec::reference::program::{Atomic, Length, Op};
use crate::exec::reference::watch::Space;

/// What a scalar takes of workgroup memory.
pub(super) const WORD_BYTES: u32 = 4;

/// What a place is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// Registers.
    Variable {
        first: Val,
        size: u32,
    },
    Memory(Space),
}

/// Part of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) root: Root,
    /// From the root's beginning: scalars of a variable, bytes of memory.
    pub(super) offset: u32,
    /// What is added to it when the kernel runs.
    pub(super) index: Option<Val>,
    pub(super) ty: Ty,
}

/// Scalars that follow each other in memory.
struct Run {
    offset: u32,
    first: usize,
    count: usize,
    scalar: Scalar,
}

fn runs(scalars: &[(u32, Scalar)]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (at, (offset, scalar)) in scalars.iter().enumerate() {
        match runs.last_mut() {
            Some(run)
                if run.offset + run.count as u32 * run.scalar.bytes() == *offset
                    && run.scalar.is_float() == scalar.is_float()
                    && run.scalar.bytes() == scalar.bytes() =>
            {
                run.count += 1;
            }
            _ => runs.push(Run { offset: *offset, first: at, count: 1, scalar: *scalar }),
        }
    }
    runs
}

/// From one element to the next, or of a member, to it. Nobody sees how workgroup memory is laid out: a word for each
/// scalar, truth values and halves too.
fn step(element: &Element, root: Root) -> u32 {
    match root {
        Root::Variable { .. } => element.scalars,
        Root::Memory(Space::Workgroup) => element.scalars * WORD_BYTES,
        Root::Memory(Space::Binding(_)) => element.bytes,
    }
}

impl Lowering<'_> {
    /// Where the scalars of a type lie.
    fn runs(&self, space: Space, ty: Ty) -> Lowered<Vec<Run>> {
        let mut scalars = self.in_memory(ty)?;
        if space == Space::Workgroup {
            for (at, (offset, scalar)) in (0..).zip(&mut scalars) {
                *offset = at * WORD_BYTES;
                // A half is kept as the float that registers hold.
                *scalar = if *scalar == Scalar::F16 { Scalar::F32 } else { *scalar };
            }
        }
        Ok(runs(&scalars))
    }

    /// The element of a place at a number that is known.
    pub(super) fn member(&mut self, place: Place, number: u32) -> Lowered<Place> {
        let element = self.element(place.ty, Some(number))?;
        let is_struct = matches!(self.inner(place.ty), TypeInner::Struct { .. });
        if !is_struct && element.length.is_none_or(|length| number >= length) {
            let index = self.constant(number);
            return self.at(place, index);
        }
        let step = step(&element, place.root);
        let offset = place.offset + if is_struct { step } else { number * step };
        Ok(Place { offset, ty: element.ty, ..place })
    }

    /// The element of a place at a number that the kernel computes.
    pub(super) fn at(&mut self, place: Place, number: Val) -> Lowered<Place> {
        let element = self.element(place.ty, None)?;
        let stride = step(&element, place.root);
        let space = match place.root {
            Root::Variable { .. } => None,
            Root::Memory(space) => Some(space),
        };
        let length = match (element.length, space) {
            (Some(length), _) => Length::Fixed(length),
            (None, Some(Space::Binding(binding))) => Length::Bound { binding, offset: place.offset, stride },
            (None, _) => return self.refuse("an array without a length that is not in a buffer"),
        };
        let result = self.temps(1);
        let base: Vec<Val> = place.index.into_iter().collect();
        let op = Op::Index { length, stride, space, has_base: !base.is_empty() };
        self.emit(op, 1, &[&result, &[number], &base]);
        Ok(Place { index: Some(result[0]), ty: element.ty, ..place })
    }

    pub(super) fn load(&mut self, place: Place) -> Lowered<Vec<Val>> {
        match place.root {
            Root::Variable { first, size } => {
                let count = self.scalars(place.ty)? as usize;
                Ok(match place.index {
                    None => (0..count as u32).map(|at| self.load_variable(Val(first.0 + place.offset + at))).collect(),
                    Some(index) => {
                        let results = self.temps(count);
                        let op = Op::LoadVariable { offset: place.offset, size };
                        self.emit(op, count, &[&results, &[index], &[first]]);
                        results
                    }
                })
            }
            Root::Memory(space) => {
                let is_atomic = matches!(self.inner(place.ty), TypeInner::Atomic(_));
                let address = place.index.unwrap_or_else(|| self.constant(0));
                let mut values = Vec::new();
                for Run { offset, count, scalar, .. } in self.runs(space, place.ty)? {
                    let results = self.temps(count);
                    let (offset, is_half) = (place.offset + offset, scalar == Scalar::F16);
                    self.emit(Op::Load { space, offset, is_half, is_atomic }, count, &[&results, &[address]]);
                    values.extend(results);
                }
                Ok(values)
            }
        }
    }

    /// The value that a scalar variable holds now.
    fn load_variable(&mut self, variable: Val) -> Val {
        if let Some(known) = self.known.get(&variable) {
            return *known;
        }
        let result = self.unary(crate::exec::reference::program::Unary::Same, &[variable]);
        self.known.insert(variable, result[0]);
        result[0]
    }

    pub(super) fn store(&mut self, place: Place, values: &[Val]) -> Lowered<()> {
        match place.root {
            Root::Variable { first, size } => match place.index {
                None => self.store_variable(first, place.offset, values),
                Some(index) => {
                    let op = Op::StoreVariable { offset: place.offset, size };
                    self.emit(op, values.len(), &[&[index], &[first], values]);
                    for at in 0..size {
                        self.known.remove(&Val(first.0 + at));
                        self.stored.push(Val(first.0 + at));
                    }
                }
            },
            Root::Memory(space) => {
                let is_atomic = matches!(self.inner(place.ty), TypeInner::Atomic(_));
                let address = place.index.unwrap_or_else(|| self.constant(0));
                for Run { offset, first, count, scalar } in self.runs(space, place.ty)? {
                    let (offset, is_half) = (place.offset + offset, scalar == Scalar::F16);
                    let op = Op::Store { space, offset, is_half, is_atomic, is_float: scalar.is_float() };
                    self.emit(op, count, &[&[address], &values[first..first + count]]);
                }
            }
        }
        Ok(())
    }

    /// Writes scalars of a variable from number `offset` on.
    pub(super) fn store_variable(&mut self, first: Val, offset: u32, values: &[Val]) {
        let variables: Vec<Val> = (0..values.len() as u32).map(|at| Val(first.0 + offset + at)).collect();
        if values.is_empty() {
            return;
        }
        self.emit(Op::Move, values.len(), &[&variables, values]);
        for (variable, value) in variables.iter().zip(values) {
            self.known.insert(*variable, *value);
            self.stored.push(*variable);
        }
    }

    /// How many elements the array at a place has.
    pub(super) fn array_length(&mut self, place: Place) -> Lowered<Vec<Val>> {
        let element = self.element(place.ty, None)?;
        let length = match (element.length, place.root) {
            (Some(length), _) => return Ok(vec![self.constant(length)]),
            (None, Root::Memory(Space::Binding(binding))) => {
                Length::Bound { binding, offset: place.offset, stride: element.bytes }
            }
            _ => return self.refuse("the length of an array that has none"),
        };
        let result = self.temps(1);
        self.emit(Op::ArrayLength { length }, 1, &[&result]);
        Ok(result)
    }

    /// An atomic operation; returns the old value, and whether it was exchanged where that was asked.
    pub(super) fn atomic(
        &mut self,
        call: &mut Call<'_>,
        place: Place,
        fun: naga::AtomicFunction,
        value: naga::Handle<naga::Expression>,
    ) -> Lowered<Vec<Val>> {
        use naga::AtomicFunction as A;
        let scalar = self.scalar_of(&self.inner(place.ty))?;
        let Root::Memory(space) = place.root else { return self.refuse("an atomic outside of memory") };
        let is_signed = match scalar {
            Scalar::I32 => true,
            Scalar::U32 => false,
            _ => return self.refuse("an atomic that is not an integer"),
        };
        let fun_and_compare = match fun {
            A::Add => (Atomic::Add, None),
            A::Subtract => (Atomic::Subtract, None),
            A::And => (Atomic::And, None),
            A::ExclusiveOr => (Atomic::Xor, None),
            A::InclusiveOr => (Atomic::Or, None),
            A::Min => (if is_signed { Atomic::MinI } else { Atomic::MinU }, None),
            A::Max => (if is_signed { Atomic::MaxI } else { Atomic::MaxU }, None),
            A::Exchange { compare: None } => (Atomic::Exchange, None),
            A::Exchange { compare: Some(compare) } => (Atomic::CompareExchange, Some(compare)),
        };
        let value = self.value(call, value)?;
        let compare = match fun_and_compare.1 {
            Some(compare) => self.value(call, compare)?,
            None => Vec::new(),
        };
        let address = place.index.unwrap_or_else(|| self.constant(0));
        let results = self.temps(1 + compare.len());
        let op = Op::Atomic { fun: fun_and_compare.0, space, offset: place.offset };
        self.emit(op, 1, &[&results, &[address], &value, &compare]);
        Ok(results)
    }
}
