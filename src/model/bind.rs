//! Matches what an op is given with its kernel's ports.
//!
//! Gets the shapes at the ports and the op's own constants, returns the kernel's dims, every constant as WGSL, the
//! variant to take and the dispatch size. Never looks at the graph around the op.

use std::collections::BTreeMap;

use crate::base::diag::Diagnostic;
use crate::base::expr::EvalError;
use crate::base::raw::Spanned;
use crate::base::span::Span;
use crate::kernel::{ConstValue, KernelDef, Variant};
use crate::model::Request;
use crate::model::weights::with_rank;

/// The shape of a tensor at a port.
#[derive(Clone, Debug)]
pub struct PortShape<'a> {
    /// The tensor's shape.
    pub shape: &'a [u64],
    /// Whether it is a weight, whose axes of 1 say nothing.
    pub is_weight: bool,
    /// Its name, for messages.
    pub name: &'a str,
    /// Its place in the graph.
    pub span: Span,
}

/// A kernel's dims and constants for one op.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    names: BTreeMap<String, i64>,
    numbers: BTreeMap<String, f64>,
}

impl Bound {
    /// Unifies the shapes with the ports' expressions. `shapes` are by port; those of ports that define a value are
    /// absent.
    ///
    /// # Errors
    /// Shapes that clash, dims that stay unknown, constants that are missing or inexact.
    pub fn new(
        kernel: &KernelDef,
        shapes: &[Option<PortShape<'_>>],
        given: &BTreeMap<String, f64>,
        op: Span,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut bound = Self::default();
        let mut diagnostics = Vec::new();
        for (name, number) in given {
            bound.set_number(name, *number);
        }
        let mut origin: BTreeMap<String, (Span, String)> = BTreeMap::new();
        let mut later = Vec::new();
        for (port, tensor) in kernel.ports.iter().zip(shapes) {
            let Some(tensor) = tensor else { continue };
            let rank = port.shape.len();
            let shape = match tensor.is_weight {
                true => with_rank(tensor.shape, rank),
                false => (tensor.shape.len() == rank).then(|| tensor.shape.to_vec()),
            };
            let Some(shape) = shape else {
                diagnostics.push(clash(tensor, port.name.span, &port.shape, None));
                continue;
            };
            for (expr, extent) in port.shape.iter().zip(shape) {
                match expr.expr.as_name() {
                    Some(name) if !bound.names.contains_key(name) => {
                        bound.names.insert(name.to_owned(), extent as i64);
                        origin.insert(name.to_owned(), (tensor.span, tensor.name.to_owned()));
                    }
                    _ => later.push((tensor, port, expr, extent)),
                }
            }
        }
        for (tensor, port, expr, extent) in later {
            match bound.eval(expr) {
                Ok(expected) if expected == extent as i64 => {}
                Ok(expected) => {
                    let other = expr.expr.names().first().and_then(|name| origin.get(*name));
                    let why = other.map(|(span, name)| (*span, format!("`{}` is {expected} by `{name}`", expr.expr)));
                    diagnostics.push(clash(tensor, port.name.span, &port.shape, why));
                }
                Err(error) => {
                    let message = format!("port `{}`: `{}` has no value: {error}", port.name.text, expr.expr);
                    diagnostics.push(Diagnostic::error(tensor.span, message).also(expr.span, "expected here"));
                }
            }
        }
        bound.constants(kernel, op, &mut diagnostics);
        if diagnostics.is_empty() { Ok(bound) } else { Err(diagnostics) }
    }

    fn constants(&mut self, kernel: &KernelDef, op: Span, diagnostics: &mut Vec<Diagnostic>) {
        for constant in &kernel.consts {
            let name = &constant.name.text;
            if self.numbers.contains_key(name) {
                continue;
            }
            match &constant.value {
                ConstValue::Number(number) => self.set_number(name, *number),
                ConstValue::Required => diagnostics.push(
                    Diagnostic::error(op, format!("`{}` needs the constant `{name}`", kernel.name))
                        .also(constant.name.span, "required here"),
                ),
                ConstValue::Eval(spanned) => match self.eval(spanned) {
                    Ok(value) => self.set_number(name, value as f64),
                    Err(error) => diagnostics.push(
                        Diagnostic::error(op, format!("constant `{name}` of `{}` has no value: {error}", kernel.name))
                            .also(spanned.span, "computed here"),
                    ),
                },
            }
        }
    }

    fn set_number(&mut self, name: &str, number: f64) {
        self.numbers.insert(name.to_owned(), number);
        if number.fract() == 0.0 && number.abs() < 9e15 {
            self.names.insert(name.to_owned(), number as i64);
        }
    }

    fn eval(&self, spanned: &Spanned) -> Result<i64, EvalError> {
        spanned.expr.eval(&|name| self.names.get(name).copied())
    }

    /// The shape of a port that defines a value.
    ///
    /// # Errors
    /// If an extent has no value or is not positive.
    pub fn shape(&self, exprs: &[Spanned], op: Span) -> Result<Vec<u64>, Diagnostic> {
        exprs.iter().map(|expr| self.positive(expr, op)).collect()
    }

    fn positive(&self, expr: &Spanned, op: Span) -> Result<u64, Diagnostic> {
        let fail =
            |why: String| Diagnostic::error(op, format!("`{}` {why}", expr.expr)).also(expr.span, "computed here");
        match self.eval(expr) {
            Ok(value) => u64::try_from(value)
                .ok()
                .filter(|v| *v > 0)
                .ok_or_else(|| fail(format!("is {value}, expected a positive number"))),
            Err(error) => Err(fail(format!("has no value: {error}"))),
        }
    }

    /// The first variant that the request admits and whose guard holds, by index.
    ///
    /// # Errors
    /// If a guard has no value.
    pub fn variant<'k>(
        &self,
        kernel: &'k KernelDef,
        request: &Request<'_>,
        op: Span,
    ) -> Result<(usize, &'k Variant), Diagnostic> {
        for (at, variant) in kernel.variants.iter().enumerate() {
            let Some(when) = &variant.when else { return Ok((at, variant)) };
            if request.batch_invariant && !variant.batch_invariant {
                continue;
            }
            let limits = request.limits;
            let holds = when.expr.eval(&|name| limits.fact(name).or_else(|| self.names.get(name).copied()));
            match holds {
                Ok(0) => {}
                Ok(_) => return Ok((at, variant)),
                Err(error) => {
                    let message = format!("a guard of `{}` has no value: {error}", kernel.name);
                    return Err(Diagnostic::error(op, message).also(when.span, "the guard"));
                }
            }
        }
        unreachable!("a kernel's last variant has no guard")
    }

    /// Workgroups in x, y, z.
    ///
    /// # Errors
    /// If a size has no value, is not positive or exceeds 32 bits.
    pub fn workgroups(&self, variant: &Variant, op: Span) -> Result<[u32; 3], Diagnostic> {
        let mut workgroups = [1; 3];
        for (size, expr) in workgroups.iter_mut().zip(&variant.dispatch) {
            let value = self.positive(expr, op)?;
            *size = u32::try_from(value).map_err(|_| {
                Diagnostic::error(op, format!("a dispatch of {value} workgroups")).also(expr.span, "here")
            })?;
        }
        Ok(workgroups)
    }

    /// Every override of the variant's text with its value as WGSL.
    ///
    /// # Errors
    /// If an integer constant is not an integer.
    pub fn wgsl_consts(&self, variant: &Variant, op: Span) -> Result<Vec<(String, String)>, Diagnostic> {
        let mut consts = Vec::new();
        for constant in &variant.template.overrides {
            let value = match self.numbers.get(&constant.name).copied() {
                Some(number) => wgsl_number(number, &constant.ty),
                None => constant.default.clone(),
            };
            let Some(value) = value else {
                let number = self.numbers.get(&constant.name).copied().unwrap_or_default();
                let message =
                    format!("constant `{}` is {number}, expected a value of type {}", constant.name, constant.ty);
                return Err(Diagnostic::error(op, message));
            };
            consts.push((constant.name.clone(), value));
        }
        Ok(consts)
    }
}

fn wgsl_number(number: f64, ty: &str) -> Option<String> {
    let whole = number.fract() == 0.0;
    match ty {
        "u32" if whole && (0.0..=f64::from(u32::MAX)).contains(&number) => Some(format!("{}u", number as u32)),
        "i32" if whole && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number) => {
            Some(format!("{}i", number as i32))
        }
        "f32" if (number as f32).is_finite() => Some(format!("{:?}f", number as f32)),
        "bool" if number == 0.0 || number == 1.0 => Some((number == 1.0).to_string()),
        _ => None,
    }
}

/// Two shapes that do not agree, with both sides shown.
fn clash(tensor: &PortShape<'_>, port: Span, expected: &[Spanned], why: Option<(Span, String)>) -> Diagnostic {
    let wanted = expected.iter().map(|expr| expr.expr.text()).collect::<Vec<_>>().join(", ");
    let message = format!("shapes clash: `{}` is {:?}, the port expects [{wanted}]", tensor.name, tensor.shape);
    let diagnostic = Diagnostic::error(tensor.span, message).also(port, "the port");
    match why {
        Some((span, text)) => diagnostic.also(span, text),
        None => diagnostic,
    }
}
