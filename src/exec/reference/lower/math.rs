//! Built-in functions.
//!
//! Gets a function and its arguments, returns the scalars of its result. What holds then: functions are made of
//! instructions as the WGSL specification defines them (sections "Numeric Built-in Functions" to "Data Unpacking
//! Built-in Functions"). Never knows a function for scalars of a kind that WGSL does not.

use naga::{MathFunction as M, TypeInner};

use super::types::Scalar;
use super::{Lowered, Lowering, Val};
use crate::exec::reference::program::{Binary, Op, Ternary, Unary};

type Argument = (TypeInner, Vec<Val>);

impl Lowering<'_> {
    pub(super) fn math(&mut self, fun: M, arguments: &[Argument]) -> Lowered<Vec<Val>> {
        let scalar = self.scalar_of(&arguments[0].0)?;
        let values: Vec<&[Val]> = arguments.iter().map(|(_, values)| values.as_slice()).collect();
        if let Some(found) = self.packed(fun, values[0]) {
            return Ok(found);
        }
        if let Some(found) = self.integer(fun, scalar, &values) {
            return Ok(found);
        }
        if !scalar.is_float() {
            return self.refuse(format!("the function {fun:?} of {scalar:?}"));
        }
        if let Some(found) = self.float_by_scalar(fun, &values) {
            return Ok(self.rounded(scalar, found));
        }
        if let Some(found) = self.in_two_parts(fun, scalar, values[0]) {
            return Ok(found);
        }
        if let Some(found) = self.geometry(fun, scalar, &values) {
            return Ok(self.rounded(scalar, found));
        }
        let TypeInner::Matrix { columns, rows, .. } = arguments[0].0 else {
            return self.refuse(format!("the function {fun:?}"));
        };
        let (columns, rows) = (columns as usize, rows as usize);
        match fun {
            M::Transpose => {
                let at = (0..rows).flat_map(|row| (0..columns).map(move |column| column * rows + row));
                Ok(at.map(|at| values[0][at]).collect())
            }
            M::Determinant => {
                let found = self.determinant(values[0], rows);
                Ok(self.rounded(scalar, vec![found]))
            }
            _ => self.refuse(format!("the function {fun:?}")),
        }
    }

    /// Functions that integers have too, or alone.
    fn integer(&mut self, fun: M, scalar: Scalar, values: &[&[Val]]) -> Option<Vec<Val>> {
        if scalar.is_float() {
            return None;
        }
        let is_signed = scalar == Scalar::I32;
        let by_sign = |signed, unsigned| if is_signed { signed } else { unsigned };
        let (min, max) = (by_sign(Binary::MinI, Binary::MinU), by_sign(Binary::MaxI, Binary::MaxU));
        Some(match fun {
            M::Abs if is_signed => self.unary(Unary::AbsI, values[0]),
            M::Abs => values[0].to_vec(),
            M::Sign if is_signed => self.unary(Unary::SignI, values[0]),
            M::Min => self.binary(min, values[0], values[1]),
            M::Max => self.binary(max, values[0], values[1]),
            M::Clamp => {
                let low = self.binary(max, values[0], values[1]);
                self.binary(min, &low, values[2])
            }
            M::Dot => vec![self.dot(scalar, values[0], values[1])],
            M::Dot4I8Packed | M::Dot4U8Packed => vec![self.dot_of_bytes(fun, values[0][0], values[1][0])],
            M::CountTrailingZeros => self.unary(Unary::TrailingZeros, values[0]),
            M::CountLeadingZeros => self.unary(Unary::LeadingZeros, values[0]),
            M::CountOneBits => self.unary(Unary::CountOneBits, values[0]),
            M::ReverseBits => self.unary(Unary::ReverseBits, values[0]),
            M::FirstTrailingBit => self.unary(Unary::FirstTrailing, values[0]),
            M::FirstLeadingBit if is_signed => self.unary(Unary::FirstLeadingI, values[0]),
            M::FirstLeadingBit => self.unary(Unary::FirstLeadingU, values[0]),
            M::ExtractBits => {
                let op = by_ternary(is_signed);
                self.ternary(op, values[0], values[1], values[2])
            }
            M::InsertBits => {
                let count = values[0].len();
                let (offset, bits) = (super::expr::widened(values[2], count), super::expr::widened(values[3], count));
                let results = self.temps(count);
                self.emit(Op::InsertBits, count, &[&results, values[0], values[1], &offset, &bits]);
                results
            }
            _ => return None,
        })
    }

    /// The sum of the products of four bytes each.
    fn dot_of_bytes(&mut self, fun: M, a: Val, b: Val) -> Val {
        let is_signed = fun == M::Dot4I8Packed;
        let (a, b) = (self.bytes(a, is_signed), self.bytes(b, is_signed));
        self.dot(if is_signed { Scalar::I32 } else { Scalar::U32 }, &a, &b)
    }

    /// The four bytes of a word.
    fn bytes(&mut self, word: Val, is_signed: bool) -> Vec<Val> {
        self.fields(word, 8, is_signed)
    }

    /// The fields of `bits` bits of a word, the lowest first.
    fn fields(&mut self, word: Val, bits: u32, is_signed: bool) -> Vec<Val> {
        let width = self.constant(bits);
        let fields = (0..32 / bits).map(|at| {
            let offset = self.constant(at * bits);
            self.ternary(by_ternary(is_signed), &[word], &[offset], &[width])[0]
        });
        fields.collect()
    }

    /// Words made of fields of `bits` bits, the lowest first.
    fn joined(&mut self, fields: &[Val], bits: u32) -> Vec<Val> {
        let mask = self.constant(u32::MAX >> (32 - bits));
        let fields = self.binary(Binary::And, fields, &[mask]);
        let mut word = fields[0];
        for (at, field) in (1..).zip(&fields[1..]) {
            let shift = self.constant(at * bits);
            let shifted = self.binary(Binary::Shl, &[*field], &[shift]);
            word = self.binary(Binary::Or, &[word], &shifted)[0];
        }
        vec![word]
    }

    /// Packing and unpacking.
    fn packed(&mut self, fun: M, values: &[Val]) -> Option<Vec<Val>> {
        let word = values[0];
        Some(match fun {
            M::Unpack2x16float => {
                let low = self.unary(Unary::HalfLow, &[word]);
                [low, self.unary(Unary::HalfHigh, &[word])].concat()
            }
            M::Pack2x16float => {
                let halves = self.unary(Unary::HalfBits, values);
                self.joined(&halves, 16)
            }
            M::Pack4xI8 | M::Pack4xU8 => self.joined(values, 8),
            M::Pack4xI8Clamp => {
                let (low, high) = (self.constant(-128_i32 as u32), self.constant(127));
                let values = self.binary(Binary::MaxI, values, &[low]);
                let values = self.binary(Binary::MinI, &values, &[high]);
                self.joined(&values, 8)
            }
            M::Pack4xU8Clamp => {
                let high = self.constant(255);
                let values = self.binary(Binary::MinU, values, &[high]);
                self.joined(&values, 8)
            }
            M::Unpack4xI8 => self.bytes(word, true),
            M::Unpack4xU8 => self.bytes(word, false),
            M::Pack4x8snorm => self.normalised(values, 8, true),
            M::Pack4x8unorm => self.normalised(values, 8, false),
            M::Pack2x16snorm => self.normalised(values, 16, true),
            M::Pack2x16unorm => self.normalised(values, 16, false),
            M::Unpack4x8snorm => self.denormalised(word, 8, true),
            M::Unpack4x8unorm => self.denormalised(word, 8, false),
            M::Unpack2x16snorm => self.denormalised(word, 16, true),
            M::Unpack2x16unorm => self.denormalised(word, 16, false),
            _ => return None,
        })
    }

    /// floor(0.5 + scale * clamp(v, low, 1)), packed.
    fn normalised(&mut self, values: &[Val], bits: u32, is_signed: bool) -> Vec<Val> {
        let (low, one) = (self.float(if is_signed { -1.0 } else { 0.0 }), self.float(1.0));
        let (scale, half) = (self.float(scale_of(bits, is_signed)), self.float(0.5));
        let values = self.binary(Binary::MaxF, values, &[low]);
        let values = self.binary(Binary::MinF, &values, &[one]);
        let values = self.binary(Binary::MulF, &values, &[scale]);
        let values = self.binary(Binary::AddF, &values, &[half]);
        let values = self.unary(Unary::Floor, &values);
        let values = self.unary(Unary::FloatToI, &values);
        self.joined(&values, bits)
    }

    /// max(v / scale, -1), unpacked.
    fn denormalised(&mut self, word: Val, bits: u32, is_signed: bool) -> Vec<Val> {
        let fields = self.fields(word, bits, is_signed);
        let (scale, low) = (self.float(scale_of(bits, is_signed)), self.float(-1.0));
        let values = self.unary(if is_signed { Unary::IToFloat } else { Unary::UToFloat }, &fields);
        let values = self.binary(Binary::DivF, &values, &[scale]);
        self.binary(Binary::MaxF, &values, &[low])
    }

    /// Functions of floats, component by component.
    fn float_by_scalar(&mut self, fun: M, values: &[&[Val]]) -> Option<Vec<Val>> {
        let unary = match fun {
            M::Abs => Unary::AbsF,
            M::Cos => Unary::Cos,
            M::Cosh => Unary::Cosh,
            M::Sin => Unary::Sin,
            M::Sinh => Unary::Sinh,
            M::Tan => Unary::Tan,
            M::Tanh => Unary::Tanh,
            M::Acos => Unary::Acos,
            M::Asin => Unary::Asin,
            M::Atan => Unary::Atan,
            M::Asinh => Unary::Asinh,
            M::Acosh => Unary::Acosh,
            M::Atanh => Unary::Atanh,
            M::Ceil => Unary::Ceil,
            M::Floor => Unary::Floor,
            M::Round => Unary::Round,
            M::Fract => Unary::Fract,
            M::Trunc => Unary::Trunc,
            M::Exp => Unary::Exp,
            M::Exp2 => Unary::Exp2,
            M::Log => Unary::Log,
            M::Log2 => Unary::Log2,
            M::Sign => Unary::SignF,
            M::Sqrt => Unary::Sqrt,
            M::InverseSqrt => Unary::InverseSqrt,
            M::QuantizeToF16 => Unary::RoundHalf,
            _ => return self.float_by_scalars(fun, values),
        };
        Some(self.unary(unary, values[0]))
    }

    fn float_by_scalars(&mut self, fun: M, values: &[&[Val]]) -> Option<Vec<Val>> {
        let (zero, one) = (self.float(0.0), self.float(1.0));
        Some(match fun {
            M::Min => self.binary(Binary::MinF, values[0], values[1]),
            M::Max => self.binary(Binary::MaxF, values[0], values[1]),
            M::Pow => self.binary(Binary::Pow, values[0], values[1]),
            M::Atan2 => self.binary(Binary::Atan2, values[0], values[1]),
            M::Ldexp => self.binary(Binary::Ldexp, values[0], values[1]),
            M::Fma => self.ternary(Ternary::Fma, values[0], values[1], values[2]),
            M::Clamp => self.clamped(values[0], values[1], values[2]),
            M::Saturate => self.clamped(values[0], &[zero], &[one]),
            M::Radians => {
                let factor = self.float(std::f32::consts::PI / 180.0);
                self.binary(Binary::MulF, values[0], &[factor])
            }
            M::Degrees => {
                let factor = self.float(180.0 / std::f32::consts::PI);
                self.binary(Binary::MulF, values[0], &[factor])
            }
            M::Mix => {
                let rest = self.binary(Binary::SubF, &[one], values[2]);
                let first = self.binary(Binary::MulF, values[0], &rest);
                let second = self.binary(Binary::MulF, values[1], values[2]);
                self.binary(Binary::AddF, &first, &second)
            }
            M::Step => {
                let is_past = self.binary(Binary::LeF, values[0], values[1]);
                self.ternary(Ternary::Select, &is_past, &[one], &[zero])
            }
            M::SmoothStep => {
                let way = self.binary(Binary::SubF, values[2], values[0]);
                let whole = self.binary(Binary::SubF, values[1], values[0]);
                let t = self.binary(Binary::DivF, &way, &whole);
                let t = self.clamped(&t, &[zero], &[one]);
                let (two, three) = (self.float(2.0), self.float(3.0));
                let twice = self.binary(Binary::MulF, &t, &[two]);
                let factor = self.binary(Binary::SubF, &[three], &twice);
                let square = self.binary(Binary::MulF, &t, &t);
                self.binary(Binary::MulF, &square, &factor)
            }
            _ => return None,
        })
    }

    fn clamped(&mut self, values: &[Val], low: &[Val], high: &[Val]) -> Vec<Val> {
        let values = self.binary(Binary::MaxF, values, low);
        self.binary(Binary::MinF, &values, high)
    }

    /// Functions that give a struct of two.
    fn in_two_parts(&mut self, fun: M, scalar: Scalar, values: &[Val]) -> Option<Vec<Val>> {
        match fun {
            M::Modf => {
                let whole = self.unary(Unary::Trunc, values);
                let fract = self.binary(Binary::SubF, values, &whole);
                Some([self.rounded(scalar, fract), whole].concat())
            }
            M::Frexp => {
                let fract = self.unary(Unary::FrexpFract, values);
                Some([fract, self.unary(Unary::FrexpExp, values)].concat())
            }
            _ => None,
        }
    }

    fn length(&mut self, scalar: Scalar, values: &[Val]) -> Val {
        if let [one] = values {
            return self.unary(Unary::AbsF, &[*one])[0];
        }
        let square = self.dot(scalar, values, values);
        self.unary(Unary::Sqrt, &[square])[0]
    }

    fn geometry(&mut self, fun: M, scalar: Scalar, values: &[&[Val]]) -> Option<Vec<Val>> {
        Some(match fun {
            M::Dot => vec![self.dot(scalar, values[0], values[1])],
            M::Cross => {
                let (a, b) = (values[0], values[1]);
                let turned = |v: &[Val], by: usize| [v[by % 3], v[(by + 1) % 3], v[(by + 2) % 3]];
                let first = self.binary(Binary::MulF, &turned(a, 1), &turned(b, 2));
                let second = self.binary(Binary::MulF, &turned(a, 2), &turned(b, 1));
                self.binary(Binary::SubF, &first, &second)
            }
            M::Distance => {
                let between = self.binary(Binary::SubF, values[0], values[1]);
                vec![self.length(scalar, &between)]
            }
            M::Length => vec![self.length(scalar, values[0])],
            M::Normalize => {
                let length = self.length(scalar, values[0]);
                self.binary(Binary::DivF, values[0], &[length])
            }
            M::FaceForward => {
                let (zero, away) = (self.float(0.0), self.unary(Unary::NegF, values[0]));
                let dot = self.dot(scalar, values[1], values[2]);
                let is_facing = self.binary(Binary::LtF, &[dot], &[zero]);
                self.ternary(Ternary::Select, &is_facing, values[0], &away)
            }
            M::Reflect => {
                let (two, dot) = (self.float(2.0), self.dot(scalar, values[1], values[0]));
                let twice = self.binary(Binary::MulF, &[two], &[dot]);
                let back = self.binary(Binary::MulF, &twice, values[1]);
                self.binary(Binary::SubF, values[0], &back)
            }
            M::Refract => self.refracted(scalar, values),
            _ => return None,
        })
    }

    /// k = 1 - eta^2 (1 - (n.i)^2); eta i - (eta n.i + sqrt(k)) n, or 0 where k < 0.
    fn refracted(&mut self, scalar: Scalar, values: &[&[Val]]) -> Vec<Val> {
        let (zero, one) = (self.float(0.0), self.float(1.0));
        let eta = values[2];
        let dot = [self.dot(scalar, values[1], values[0])];
        let square = self.binary(Binary::MulF, &dot, &dot);
        let rest = self.binary(Binary::SubF, &[one], &square);
        let eta_square = self.binary(Binary::MulF, eta, eta);
        let product = self.binary(Binary::MulF, &eta_square, &rest);
        let k = self.binary(Binary::SubF, &[one], &product);
        let root = self.unary(Unary::Sqrt, &k);
        let along = self.binary(Binary::MulF, eta, &dot);
        let along = self.binary(Binary::AddF, &along, &root);
        let along = self.binary(Binary::MulF, &along, values[1]);
        let straight = self.binary(Binary::MulF, eta, values[0]);
        let bent = self.binary(Binary::SubF, &straight, &along);
        let is_reflected = self.binary(Binary::LtF, &k, &[zero]);
        self.ternary(Ternary::Select, &is_reflected, &[zero], &bent)
    }

    /// By the first row; `matrix` is column after column.
    fn determinant(&mut self, matrix: &[Val], size: usize) -> Val {
        if size == 1 {
            return matrix[0];
        }
        let mut sum: Option<Val> = None;
        for column in 0..size {
            let others = (0..size).filter(|other| *other != column);
            let minor: Vec<Val> =
                others.flat_map(|other| matrix[other * size + 1..(other + 1) * size].to_vec()).collect();
            let minor = self.determinant(&minor, size - 1);
            let term = self.binary(Binary::MulF, &[matrix[column * size]], &[minor])[0];
            sum = Some(match sum {
                None => term,
                Some(sum) => {
                    let op = if column % 2 == 1 { Binary::SubF } else { Binary::AddF };
                    self.binary(op, &[sum], &[term])[0]
                }
            });
        }
        sum.unwrap_or(matrix[0])
    }
}

const fn by_ternary(is_signed: bool) -> Ternary {
    if is_signed { Ternary::ExtractBitsI } else { Ternary::ExtractBitsU }
}

fn scale_of(bits: u32, is_signed: bool) -> f32 {
    ((1_u32 << (bits - u32::from(is_signed))) - 1) as f32
}
