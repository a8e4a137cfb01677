//! Expressions: each scalar of a value is computed by one instruction.
//!
//! Gets expressions of a call, returns values or places. What holds then: an expression is computed where the text
//! says, once. Never reorders loads and stores.

use naga::{BinaryOperator as B, Expression as E, Handle, Literal, TypeInner, UnaryOperator as U};

use super::place::{Place, Root};
use super::types::{Scalar, Ty, is_wide, words};
use super::{Call, Lowered, Lowering, Val};
use crate::exec::reference::program::{Binary, Op, Ternary, Unary};

/// What an expression is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// The scalars of a value.
    Value(Vec<Val>),
    Place(Place),
}

impl Lowering<'_> {
    /// The type of an expression.
    pub(super) fn type_of(&self, call: &Call<'_>, handle: Handle<naga::Expression>) -> TypeInner {
        call.info[handle].ty.inner_with(&self.module.types).clone()
    }

    /// The scalars of a value.
    pub(super) fn value(&mut self, call: &mut Call<'_>, handle: Handle<naga::Expression>) -> Lowered<Vec<Val>> {
        match self.node(call, handle)? {
            Node::Value(values) => Ok(values),
            Node::Place(_) => self.refuse("a pointer where a value was expected"),
        }
    }

    pub(super) fn place(&mut self, call: &mut Call<'_>, handle: Handle<naga::Expression>) -> Lowered<Place> {
        match self.node(call, handle)? {
            Node::Place(place) => Ok(place),
            Node::Value(_) => self.refuse("a value where a pointer was expected"),
        }
    }

    pub(super) fn node(&mut self, call: &mut Call<'_>, handle: Handle<naga::Expression>) -> Lowered<Node> {
        if let Some(node) = &call.nodes[handle.index()] {
            return Ok(node.clone());
        }
        let node = self.expression(call, handle)?;
        call.nodes[handle.index()] = Some(node.clone());
        Ok(node)
    }

    pub(super) fn unary(&mut self, op: Unary, a: &[Val]) -> Vec<Val> {
        let results = self.temps(a.len());
        self.emit(Op::Unary(op), a.len(), &[&results, a]);
        results
    }

    /// Component by component; a single scalar meets every component of the other.
    pub(super) fn binary(&mut self, op: Binary, a: &[Val], b: &[Val]) -> Vec<Val> {
        let count = a.len().max(b.len());
        let (a, b) = (widened(a, count), widened(b, count));
        let results = self.temps(count);
        self.emit(Op::Binary(op), count, &[&results, &a, &b]);
        results
    }

    pub(super) fn ternary(&mut self, op: Ternary, a: &[Val], b: &[Val], c: &[Val]) -> Vec<Val> {
        let count = a.len().max(b.len()).max(c.len());
        let (a, b, c) = (widened(a, count), widened(b, count), widened(c, count));
        let results = self.temps(count);
        self.emit(Op::Ternary(op), count, &[&results, &a, &b, &c]);
        results
    }

    /// What was computed in floats as halves.
    pub(super) fn rounded(&mut self, scalar: Scalar, values: Vec<Val>) -> Vec<Val> {
        if scalar == Scalar::F16 { self.unary(Unary::RoundHalf, &values) } else { values }
    }

    fn expression(&mut self, call: &mut Call<'_>, handle: Handle<naga::Expression>) -> Lowered<Node> {
        let function = call.function;
        Ok(match &function.expressions[handle] {
            E::FunctionArgument(number) => call.arguments[*number as usize].clone(),
            E::GlobalVariable(variable) => match self.globals.get(variable) {
                Some(node) => node.clone(),
                None => return self.refuse("a variable that the entry point does not use"),
            },
            E::LocalVariable(local) => {
                let ty = Ty::Handle(function.local_variables[*local].ty);
                let (first, size) = (call.locals[local.index()], self.scalars(ty)?);
                Node::Place(Place { root: Root::Variable { first, size }, offset: 0, index: None, ty })
            }
            E::Access { base, index } => {
                self.scalar_of(&self.type_of(call, *index))?;
                let number = self.value(call, *index)?[0];
                match self.node(call, *base)? {
                    Node::Place(place) => Node::Place(self.at(place, number)?),
                    Node::Value(values) => {
                        let length = self.parts(&self.type_of(call, *base))?;
                        Node::Value(self.pick(&values, length, number))
                    }
                }
            }
            E::AccessIndex { base, index } => match self.node(call, *base)? {
                Node::Place(place) => Node::Place(self.member(place, *index)?),
                Node::Value(values) => {
                    let range = self.part(&self.type_of(call, *base), *index)?;
                    Node::Value(values[range].to_vec())
                }
            },
            E::Compose { .. } | E::Splat { .. } | E::Swizzle { .. } | E::Load { .. } | E::ArrayLength(_) => {
                Node::Value(self.arranged(call, handle)?)
            }
            E::Literal(_) | E::Constant(_) | E::ZeroValue(_) | E::Override(_) => {
                Node::Value(self.constant_expression(&function.expressions, handle)?)
            }
            _ => Node::Value(self.computed(call, handle)?),
        })
    }

    /// What is read or put together, and not computed.
    fn arranged(&mut self, call: &mut Call<'_>, handle: Handle<naga::Expression>) -> Lowered<Vec<Val>> {
        let function = call.function;
        Ok(match &function.expressions[handle] {
            E::Load { pointer } => {
                let place = self.place(call, *pointer)?;
                self.load(place)?
            }
            E::Compose { components, .. } => {
                let mut values = Vec::new();
                for component in components {
                    values.extend(self.value(call, *component)?);
                }
                values
            }
            E::Splat { size, value } => {
                self.scalar_of(&self.type_of(call, *value))?;
                let value = self.value(call, *value)?;
                widened(&value, *size as usize)
            }
            E::Swizzle { size, vector, pattern } => {
                self.scalar_of(&self.type_of(call, *vector))?;
                let values = self.value(call, *vector)?;
                pattern[..*size as usize].iter().map(|component| values[*component as usize]).collect()
            }
            E::ArrayLength(array) => {
                let place = self.place(call, *array)?;
                self.array_length(place)?
            }
            other => return self.refuse(format!("an expression of kind {}", kind(other))),
        })
    }

    /// What is computed from values.
    fn computed(&mut self, call: &mut Call<'_>, handle: Handle<naga::Expression>) -> Lowered<Vec<Val>> {
        let function = call.function;
        Ok(match &function.expressions[handle] {
            E::Unary { op, expr } => {
                let scalar = self.scalar_of(&self.type_of(call, *expr))?;
                let values = self.value(call, *expr)?;
                let op = match (op, scalar.is_float()) {
                    (U::Negate, true) => Unary::NegF,
                    (U::Negate, false) => Unary::NegI,
                    (U::LogicalNot | U::BitwiseNot, _) => Unary::Not,
                };
                self.unary(op, &values)
            }
            E::Binary { op: B::ShiftRight, left, right } if is_of_wide(&self.type_of(call, *left)) => {
                // The upper half of each word; nothing else is computed of them.
                if !matches!(function.expressions[*right], E::Literal(Literal::U32(32))) {
                    return self.refuse("a shift of a word of 64 bits, but by 32");
                }
                let (values, zero) = (self.value(call, *left)?, self.constant(0));
                values.chunks(2).flat_map(|halves| [halves[1], zero]).collect()
            }
            E::Binary { op, left, right } => {
                let types = (self.type_of(call, *left), self.type_of(call, *right));
                let (a, b) = (self.value(call, *left)?, self.value(call, *right)?);
                self.operator(*op, &types.0, &types.1, &a, &b)?
            }
            E::Select { condition, accept, reject } => {
                self.scalar_of(&self.type_of(call, *accept))?;
                let condition = self.value(call, *condition)?;
                let (accept, reject) = (self.value(call, *accept)?, self.value(call, *reject)?);
                self.ternary(Ternary::Select, &condition, &accept, &reject)
            }
            E::Relational { fun, argument } => {
                let values = self.value(call, *argument)?;
                self.relational(*fun, &values)?
            }
            E::Math { fun, arg, arg1, arg2, arg3 } => {
                let mut arguments = Vec::new();
                for argument in [Some(*arg), *arg1, *arg2, *arg3].into_iter().flatten() {
                    let ty = self.type_of(call, argument);
                    arguments.push((ty, self.value(call, argument)?));
                }
                self.math(*fun, &arguments)?
            }
            E::As { expr, kind: naga::ScalarKind::Uint, convert: Some(4) }
                if is_of_wide(&self.type_of(call, *expr)) =>
            {
                self.value(call, *expr)?.into_iter().step_by(2).collect()
            }
            E::As { expr, kind, convert } => {
                let from = self.scalar_of(&self.type_of(call, *expr))?;
                let values = self.value(call, *expr)?;
                match convert {
                    Some(width) => {
                        let to = self.scalar(naga::Scalar { kind: *kind, width: *width })?;
                        self.converted(from, to, values)?
                    }
                    None => self.reinterpreted(from, *kind, &self.type_of(call, handle), values)?,
                }
            }
            other => return self.refuse(format!("an expression of kind {}", kind(other))),
        })
    }

    /// How many parts an index of this type's values chooses among.
    fn parts(&self, ty: &TypeInner) -> Lowered<u32> {
        Ok(match ty {
            TypeInner::Vector { size, .. } => *size as u32,
            TypeInner::Matrix { columns, .. } => *columns as u32,
            TypeInner::Array { size: naga::ArraySize::Constant(length), .. } => length.get(),
            other => return self.refuse(format!("an index into a value of type {other:?}")),
        })
    }

    /// Which scalars of a value are those of its part `number`.
    fn part(&self, ty: &TypeInner, number: u32) -> Lowered<std::ops::Range<usize>> {
        if let TypeInner::Struct { members, .. } = ty {
            let mut first = 0;
            for member in &members[..number as usize] {
                first += self.scalars(Ty::Handle(member.ty))?;
            }
            let count = self.scalars(Ty::Handle(members[number as usize].ty))?;
            return Ok(first as usize..(first + count) as usize);
        }
        let size = match ty {
            TypeInner::Vector { scalar, .. } => words(*scalar),
            TypeInner::Matrix { rows, .. } => *rows as u32,
            TypeInner::Array { base, .. } => self.scalars(Ty::Handle(*base))?,
            other => return self.refuse(format!("an index into a value of type {other:?}")),
        };
        Ok((number * size) as usize..((number + 1) * size) as usize)
    }

    /// The part of a value that an index chooses.
    fn pick(&mut self, values: &[Val], length: u32, number: Val) -> Vec<Val> {
        let results = self.temps(values.len() / length as usize);
        self.emit(Op::Pick { length }, results.len(), &[&results, &[number], values]);
        results
    }

    /// An expression outside of functions.
    pub(super) fn global_expression(&mut self, handle: Handle<naga::Expression>) -> Lowered<Vec<Val>> {
        let module = self.module;
        self.constant_expression(&module.global_expressions, handle)
    }

    fn constant_expression(
        &mut self,
        expressions: &naga::Arena<naga::Expression>,
        handle: Handle<naga::Expression>,
    ) -> Lowered<Vec<Val>> {
        Ok(match &expressions[handle] {
            E::Literal(literal) => vec![self.literal(*literal)?],
            E::Constant(constant) => {
                let init = self.module.constants[*constant].init;
                self.global_expression(init)?
            }
            E::ZeroValue(ty) => {
                let count = self.scalars(Ty::Handle(*ty))?;
                vec![self.constant(0); count as usize]
            }
            E::Compose { components, .. } => {
                let mut values = Vec::new();
                for component in components {
                    values.extend(self.constant_expression(expressions, *component)?);
                }
                values
            }
            E::Splat { size, value } => {
                let value = self.constant_expression(expressions, *value)?;
                if value.len() > 1 {
                    return self.refuse("a vector of one word of 64 bits");
                }
                widened(&value, *size as usize)
            }
            E::Override(_) => return self.refuse("an `override` without a value"),
            other => return self.refuse(format!("a constant that is not known before the kernel runs: {other:?}")),
        })
    }

    fn literal(&mut self, literal: Literal) -> Lowered<Val> {
        let word = match literal {
            Literal::F32(value) => value.to_bits(),
            Literal::F16(value) => value.to_f32().to_bits(),
            Literal::U32(value) => value,
            Literal::I32(value) => value as u32,
            Literal::Bool(value) => {
                if value {
                    u32::MAX
                } else {
                    0
                }
            }
            other => return self.refuse(format!("the constant {other:?}")),
        };
        Ok(self.constant(word))
    }

    /// An operator, also on matrices.
    fn operator(&mut self, op: B, left: &TypeInner, right: &TypeInner, a: &[Val], b: &[Val]) -> Lowered<Vec<Val>> {
        let scalar = self.scalar_of(left)?;
        if op == B::Multiply {
            match (left, right) {
                (TypeInner::Matrix { rows, .. }, TypeInner::Vector { .. }) => {
                    return Ok(self.product(scalar, a, b, *rows as usize));
                }
                (TypeInner::Vector { .. }, TypeInner::Matrix { rows, .. }) => {
                    let columns = b.chunks(*rows as usize);
                    let values: Vec<Val> = columns.map(|column| self.dot(scalar, a, column)).collect();
                    return Ok(values);
                }
                (TypeInner::Matrix { rows, .. }, TypeInner::Matrix { rows: inner, .. }) => {
                    let columns: Vec<&[Val]> = b.chunks(*inner as usize).collect();
                    let products = columns.into_iter().map(|column| self.product(scalar, a, column, *rows as usize));
                    return Ok(products.flatten().collect());
                }
                _ => {}
            }
        }
        let values = self.elementwise(op, scalar, a, b)?;
        let is_arithmetic = matches!(op, B::Add | B::Subtract | B::Multiply | B::Divide | B::Modulo);
        Ok(if is_arithmetic { self.rounded(scalar, values) } else { values })
    }

    /// A matrix, column after column, times a vector.
    fn product(&mut self, scalar: Scalar, matrix: &[Val], vector: &[Val], rows: usize) -> Vec<Val> {
        let mut sum: Option<Vec<Val>> = None;
        for (column, factor) in matrix.chunks(rows).zip(vector) {
            let term = self.binary(Binary::MulF, column, &[*factor]);
            let term = self.rounded(scalar, term);
            sum = Some(match sum {
                None => term,
                Some(sum) => {
                    let sum = self.binary(Binary::AddF, &sum, &term);
                    self.rounded(scalar, sum)
                }
            });
        }
        sum.unwrap_or_default()
    }

    /// The inner product of two vectors.
    pub(super) fn dot(&mut self, scalar: Scalar, a: &[Val], b: &[Val]) -> Val {
        if scalar == Scalar::F32 {
            let result = self.temps(1);
            self.emit(Op::DotF, a.len(), &[&result, a, b]);
            return result[0];
        }
        let (multiply, add) =
            if scalar.is_float() { (Binary::MulF, Binary::AddF) } else { (Binary::MulI, Binary::AddI) };
        let terms = self.binary(multiply, a, b);
        let terms = self.rounded(scalar, terms);
        let mut sum = terms[0];
        for term in &terms[1..] {
            let next = self.binary(add, &[sum], &[*term]);
            sum = self.rounded(scalar, next)[0];
        }
        sum
    }

    fn elementwise(&mut self, op: B, scalar: Scalar, a: &[Val], b: &[Val]) -> Lowered<Vec<Val>> {
        use Binary as O;
        let (is_float, is_signed) = (scalar.is_float(), scalar == Scalar::I32);
        let by_kind = |float, signed, unsigned| match (is_float, is_signed) {
            (true, _) => float,
            (_, true) => signed,
            _ => unsigned,
        };
        let op = match op {
            B::Add => by_kind(O::AddF, O::AddI, O::AddI),
            B::Subtract => by_kind(O::SubF, O::SubI, O::SubI),
            B::Multiply => by_kind(O::MulF, O::MulI, O::MulI),
            B::Divide => by_kind(O::DivF, O::DivI, O::DivU),
            B::Modulo => by_kind(O::RemF, O::RemI, O::RemU),
            B::Equal => by_kind(O::EqF, O::EqI, O::EqI),
            B::NotEqual => by_kind(O::NeF, O::NeI, O::NeI),
            B::Less => by_kind(O::LtF, O::LtI, O::LtU),
            B::LessEqual => by_kind(O::LeF, O::LeI, O::LeU),
            B::Greater => return Ok(self.binary(by_kind(O::LtF, O::LtI, O::LtU), b, a)),
            B::GreaterEqual => return Ok(self.binary(by_kind(O::LeF, O::LeI, O::LeU), b, a)),
            B::And | B::LogicalAnd => O::And,
            B::InclusiveOr | B::LogicalOr => O::Or,
            B::ExclusiveOr => O::Xor,
            B::ShiftLeft => O::Shl,
            B::ShiftRight => {
                if is_signed {
                    O::ShrI
                } else {
                    O::ShrU
                }
            }
        };
        Ok(self.binary(op, a, b))
    }

    /// A conversion of values.
    fn converted(&mut self, from: Scalar, to: Scalar, values: Vec<Val>) -> Lowered<Vec<Val>> {
        use Scalar as S;
        Ok(match (from, to) {
            (S::F32, S::F16) => self.unary(Unary::RoundHalf, &values),
            (S::F16 | S::F32, S::F32) | (S::F16, S::F16) => values,
            (S::I32 | S::U32, S::I32 | S::U32) | (S::Bool, S::Bool) => values,
            (S::F32 | S::F16, S::I32) => self.unary(Unary::FloatToI, &values),
            (S::F32 | S::F16, S::U32) => self.unary(Unary::FloatToU, &values),
            (S::F32 | S::F16, S::Bool) => self.unary(Unary::FloatToBool, &values),
            (S::I32, S::F32 | S::F16) => {
                let values = self.unary(Unary::IToFloat, &values);
                self.rounded(to, values)
            }
            (S::U32, S::F32 | S::F16) => {
                let values = self.unary(Unary::UToFloat, &values);
                self.rounded(to, values)
            }
            (S::I32 | S::U32, S::Bool) => self.unary(Unary::IntToBool, &values),
            (S::Bool, S::I32 | S::U32) => self.unary(Unary::BoolToInt, &values),
            (S::Bool, S::F32 | S::F16) => self.unary(Unary::BoolToFloat, &values),
        })
    }

    /// A `bitcast`.
    fn reinterpreted(
        &mut self,
        from: Scalar,
        kind: naga::ScalarKind,
        to: &TypeInner,
        values: Vec<Val>,
    ) -> Lowered<Vec<Val>> {
        if from == Scalar::F16 || self.scalar_of(to)? == Scalar::F16 {
            return self.refuse("a `bitcast` of halves; `pack2x16float` and `unpack2x16float` are known");
        }
        if kind == naga::ScalarKind::Bool || from == Scalar::Bool {
            return self.refuse("a `bitcast` of truth values");
        }
        Ok(values)
    }

    fn relational(&mut self, fun: naga::RelationalFunction, values: &[Val]) -> Lowered<Vec<Val>> {
        use naga::RelationalFunction as R;
        Ok(match fun {
            R::All | R::Any => {
                let op = if fun == R::All { Binary::And } else { Binary::Or };
                let mut all = values[0];
                for value in &values[1..] {
                    all = self.binary(op, &[all], &[*value])[0];
                }
                vec![all]
            }
            R::IsNan => self.binary(Binary::NeF, values, values),
            R::IsInf => {
                let (size, infinity) = (self.unary(Unary::AbsF, values), self.float(f32::INFINITY));
                self.binary(Binary::EqF, &size, &[infinity])
            }
        })
    }
}

/// `count` values, the only one repeated.
pub(super) fn widened(values: &[Val], count: usize) -> Vec<Val> {
    if values.len() == 1 { vec![values[0]; count] } else { values.to_vec() }
}

/// Whether a type is made of words of 64 bits.
const fn is_of_wide(ty: &TypeInner) -> bool {
    matches!(ty, TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. } if is_wide(*scalar))
}

/// The name of an expression's kind.
fn kind(expression: &naga::Expression) -> String {
    let text = format!("{expression:?}");
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}
