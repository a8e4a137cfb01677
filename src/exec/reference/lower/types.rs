//! Types as numbers of scalars, in memory and out of it.
//!
//! Gets naga types, returns where each scalar of one lies. What holds then: scalars come in the order of the type, in
//! registers as in memory; a word of 64 bits is two scalars, its low half first. Never refuses a type for what it is
//! used for.

use naga::{Handle, ScalarKind, Type, TypeInner};

use super::{Lowered, Lowering};

/// Scalars of one value, at most.
const MAX_SCALARS: u32 = 1 << 14;

/// A type, also one that the module has no name for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ty {
    Handle(Handle<Type>),
    Scalar(naga::Scalar),
    Vector(naga::VectorSize, naga::Scalar),
}

/// What a scalar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    F32,
    F16,
    I32,
    U32,
    Bool,
}

impl Scalar {
    pub(super) const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16)
    }

    /// Bytes in memory.
    pub(super) const fn bytes(self) -> u32 {
        if matches!(self, Self::F16) { 2 } else { 4 }
    }
}

/// A part of a type, by number or name.
pub(super) struct Element {
    pub(super) ty: Ty,
    /// Bytes from one to the next; of a member, its offset.
    pub(super) bytes: u32,
    /// Scalars from one to the next; of a member, those before it.
    pub(super) scalars: u32,
    /// How many there are; nothing where what is bound tells.
    pub(super) length: Option<u32>,
}

/// Whether a number is a word of 64 bits, which is loaded and taken apart, and not computed with.
pub(super) const fn is_wide(scalar: naga::Scalar) -> bool {
    matches!(scalar.kind, ScalarKind::Uint) && scalar.width == 8
}

/// How many scalars a number is.
pub(super) const fn words(scalar: naga::Scalar) -> u32 {
    if is_wide(scalar) { 2 } else { 1 }
}

impl Lowering<'_> {
    pub(super) fn scalar(&self, scalar: naga::Scalar) -> Lowered<Scalar> {
        Ok(match (scalar.kind, scalar.width) {
            (ScalarKind::Float, 4) => Scalar::F32,
            (ScalarKind::Float, 2) => Scalar::F16,
            (ScalarKind::Sint, 4) => Scalar::I32,
            (ScalarKind::Uint, 4) => Scalar::U32,
            (ScalarKind::Bool, _) => Scalar::Bool,
            (kind, width) => return self.refuse(format!("numbers of kind {kind:?} and {width} bytes")),
        })
    }

    pub(super) fn inner(&self, ty: Ty) -> TypeInner {
        match ty {
            Ty::Handle(handle) => self.module.types[handle].inner.clone(),
            Ty::Scalar(scalar) => TypeInner::Scalar(scalar),
            Ty::Vector(size, scalar) => TypeInner::Vector { size, scalar },
        }
    }

    /// The scalar that a number, vector or matrix is made of.
    pub(super) fn scalar_of(&self, inner: &TypeInner) -> Lowered<Scalar> {
        match inner {
            TypeInner::Scalar(scalar) | TypeInner::Atomic(scalar) | TypeInner::Vector { scalar, .. } => {
                self.scalar(*scalar)
            }
            TypeInner::Matrix { scalar, .. } => self.scalar(*scalar),
            other => self.refuse(format!("a number was expected, found {other:?}")),
        }
    }

    /// How many scalars a value of the type has.
    pub(super) fn scalars(&self, ty: Ty) -> Lowered<u32> {
        let count = match self.inner(ty) {
            TypeInner::Scalar(scalar) | TypeInner::Atomic(scalar) => words(scalar),
            TypeInner::Vector { size, scalar } => size as u32 * words(scalar),
            TypeInner::Matrix { columns, rows, .. } => columns as u32 * rows as u32,
            TypeInner::Array { base, size: naga::ArraySize::Constant(length), .. } => {
                self.scalars(Ty::Handle(base))?.saturating_mul(length.get())
            }
            TypeInner::Struct { members, .. } => {
                let mut sum = 0_u32;
                for member in &members {
                    sum = sum.saturating_add(self.scalars(Ty::Handle(member.ty))?);
                }
                sum
            }
            other => return self.refuse(format!("a value of type {other:?}")),
        };
        if count > MAX_SCALARS {
            return self.refuse(format!("a value of {count} numbers, at most {MAX_SCALARS}"));
        }
        Ok(count)
    }

    /// The element of a type that an index reaches; `member` is the number where it is known.
    pub(super) fn element(&self, ty: Ty, member: Option<u32>) -> Lowered<Element> {
        Ok(match self.inner(ty) {
            TypeInner::Vector { size, scalar } => {
                let bytes = if is_wide(scalar) { 8 } else { self.scalar(scalar)?.bytes() };
                Element { ty: Ty::Scalar(scalar), bytes, scalars: words(scalar), length: Some(size as u32) }
            }
            TypeInner::Matrix { columns, rows, scalar } => {
                let bytes = self.scalar(scalar)?.bytes() * if rows as u32 == 2 { 2 } else { 4 };
                let (ty, length) = (Ty::Vector(rows, scalar), Some(columns as u32));
                Element { ty, bytes, scalars: rows as u32, length }
            }
            TypeInner::Array { base, size, stride } => {
                let length = match size {
                    naga::ArraySize::Constant(length) => Some(length.get()),
                    _ => None,
                };
                let ty = Ty::Handle(base);
                let scalars = if length.is_some() { self.scalars(ty)? } else { 0 };
                Element { ty, bytes: stride, scalars, length }
            }
            TypeInner::Struct { members, .. } => {
                let Some(found) = member.and_then(|member| members.get(member as usize)) else {
                    return self.refuse("a member of a struct by an index that is not known");
                };
                let mut scalars = 0;
                for before in &members[..member.unwrap_or(0) as usize] {
                    scalars += self.scalars(Ty::Handle(before.ty))?;
                }
                Element { ty: Ty::Handle(found.ty), bytes: found.offset, scalars, length: None }
            }
            other => return self.refuse(format!("an index into {other:?}")),
        })
    }

    /// Offset in bytes and kind of each scalar of a type in memory.
    pub(super) fn in_memory(&self, ty: Ty) -> Lowered<Vec<(u32, Scalar)>> {
        self.scalars(ty)?;
        let mut list = Vec::new();
        self.push_in_memory(ty, 0, &mut list)?;
        Ok(list)
    }

    fn push_in_memory(&self, ty: Ty, offset: u32, list: &mut Vec<(u32, Scalar)>) -> Lowered<()> {
        match self.inner(ty) {
            TypeInner::Scalar(scalar) if is_wide(scalar) => {
                list.extend([(offset, Scalar::U32), (offset + 4, Scalar::U32)]);
            }
            TypeInner::Scalar(scalar) | TypeInner::Atomic(scalar) => list.push((offset, self.scalar(scalar)?)),
            TypeInner::Struct { members, .. } => {
                for member in &members {
                    self.push_in_memory(Ty::Handle(member.ty), offset + member.offset, list)?;
                }
            }
            _ => {
                let element = self.element(ty, None)?;
                for at in 0..element.length.unwrap_or(0) {
                    self.push_in_memory(element.ty, offset + at * element.bytes, list)?;
                }
            }
        }
        Ok(())
    }
}
