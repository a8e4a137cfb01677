//! Matches what an op is given with its kernel's ports.
//!
//! Gets the shapes at the ports, the op's own constants and what a tuning chooses, returns the kernel's dims, every
//! constant as WGSL, the variant to take and the dispatch size. Never looks at the graph around the op.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::diag::Diagnostic;
use crate::base::dtype::DType;
use crate::base::expr::EvalError;
use crate::base::limits::Limits;
use crate::base::raw::Spanned;
use crate::base::span::Span;
use crate::kernel::tune::Tune;
use crate::kernel::tuning::{Choice, Fact};
use crate::kernel::{ConstValue, KernelDef, Variant, format_fact};
use crate::model::weights::with_rank;
use crate::model::{Request, Tunable};

/// The shape of a tensor at a port.
#[derive(Clone, Debug)]
pub struct PortShape<'a> {
    /// The tensor's shape.
    pub shape: &'a [u64],
    /// How its elements are stored.
    pub dtype: DType,
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
    /// How what is at each port is stored; ports that define a value are absent.
    formats: BTreeMap<String, DType>,
    /// The dims alone, and what the op gives.
    dims: BTreeMap<String, i64>,
}

/// What is taken of a kernel for one op.
#[derive(Clone, Debug)]
pub struct Taken<'k> {
    /// Its dims and constants.
    pub bound: Bound,
    /// Its text.
    pub variant: &'k Variant,
    /// What else might be taken, if anything might.
    pub tunable: Option<Tunable>,
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
            bound.formats.insert(port.name.text.clone(), tensor.dtype);
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
        bound.dims.clone_from(&bound.names);
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

    /// The constants and the variant to take: those of the request's tuning where it chooses any, else the manifest's
    /// own constants and the first variant whose guard holds. `given` is what the op gives itself, which stays.
    ///
    /// # Errors
    /// If the kernel needs what does not hold, a guard has no value, or one refuses what a strict tuning chooses.
    pub fn take<'k>(
        self,
        kernel: &'k KernelDef,
        given: &BTreeMap<String, f64>,
        request: &Request<'_>,
        op: Span,
    ) -> Result<Taken<'k>, Diagnostic> {
        let variant = self.variant(kernel, request, op)?;
        let Some(tune) = &kernel.tune else {
            self.check_needs(kernel, request, op)?;
            return Ok(Taken { bound: self, variant, tunable: None });
        };
        let fact = |name: &str| match self.formats.get(name) {
            Some(dtype) => Some(Fact::Format(*dtype)),
            None => self.dims.get(name).copied().map(Fact::Size),
        };
        let by = tune.by.iter().filter_map(|name| Some((name.text.clone(), fact(&name.text)?))).collect();
        let choice = request.tuning.and_then(|tuning| tuning.choice(&kernel.name, &fact));
        let chosen = choice.map(|choice| {
            let chosen = self.chosen(kernel, (tune, choice, variant), given, request, op);
            (choice.is_strict, chosen)
        });
        let (bound, variant) = match chosen {
            Some((_, Ok(chosen))) => chosen,
            Some((true, Err(refused))) => return Err(refused),
            Some((false, Err(_))) | None => (self, variant),
        };
        bound.check_needs(kernel, request, op)?;
        let open = tune.consts.iter().filter(|(name, _)| !given.contains_key(&name.text));
        let consts = open.filter_map(|(name, _)| Some((name.text.clone(), *bound.names.get(&name.text)?))).collect();
        let tunable =
            Some(Tunable { kernel: kernel.name.clone(), at: by, consts, variant: variant.template.file.clone() });
        Ok(Taken { bound, variant, tunable })
    }

    /// The same with what a tuning chooses in place of what the manifest does.
    fn chosen<'k>(
        &self,
        kernel: &'k KernelDef,
        (tune, choice, usual): (&Tune, &Choice, &'k Variant),
        given: &BTreeMap<String, f64>,
        request: &Request<'_>,
        op: Span,
    ) -> Result<(Self, &'k Variant), Diagnostic> {
        // A choice may be for one size of steps alone, and where steps of other sizes sum in another order.
        let admitted = |name: &str| !request.batch_invariant || tune.is_batch_invariant(name);
        let consts: Vec<_> = choice.consts.iter().filter(|(name, _)| admitted(&name.text)).collect();
        let named = choice.variant.as_ref().filter(|_| !request.batch_invariant);
        if consts.is_empty() && named.is_none() {
            return Ok((self.clone(), usual));
        }
        let mut bound = Self { names: self.dims.clone(), numbers: BTreeMap::new(), ..self.clone() };
        consts.iter().for_each(|(name, value)| bound.set_number(&name.text, *value as f64));
        given.iter().for_each(|(name, number)| bound.set_number(name, *number));
        let mut diagnostics = Vec::new();
        bound.constants(kernel, op, &mut diagnostics);
        if !diagnostics.is_empty() {
            return Err(diagnostics.swap_remove(0).also(choice.span, "chosen here"));
        }
        let refused = |message: String| Diagnostic::error(choice.span, message).also(op, "for this op");
        for when in &tune.when {
            if bound.holds(when, kernel, request, op)? != 0 {
                continue;
            }
            let message = format!("`{}` cannot take this: `{}` does not hold", kernel.name, when.expr);
            return Err(refused(message).also(when.span, "what must hold"));
        }
        let variant = match named {
            None => bound.variant(kernel, request, op)?,
            Some(name) => {
                let of_file = kernel.variants.iter().find(|variant| variant.template.file == name.text);
                of_file.ok_or_else(|| refused(format!("`{}` is no text of `{}`", name.text, kernel.name)))?
            }
        };
        let (file, found) = (&usual.template.file, &variant.template.file);
        match &variant.when {
            Some(when) if named.is_some() && bound.holds(when, kernel, request, op)? == 0 => {
                let message = format!("`{found}` cannot be taken: `{}` does not hold", when.expr);
                Err(refused(message).also(when.span, "its guard"))
            }
            _ if named.is_none() && file != found => {
                let message = format!("with this, `{found}` would be taken in place of `{file}`, whose guard fails");
                let guard = usual.when.as_ref();
                let refused = refused(message);
                Err(guard.map_or(refused.clone(), |when| refused.also(when.span, "its guard")))
            }
            _ => Ok((bound, variant)),
        }
    }

    /// The first variant that the request admits and whose guard holds.
    fn variant<'k>(&self, kernel: &'k KernelDef, request: &Request<'_>, op: Span) -> Result<&'k Variant, Diagnostic> {
        for variant in &kernel.variants {
            let Some(when) = &variant.when else { return Ok(variant) };
            if request.batch_invariant && !variant.batch_invariant {
                continue;
            }
            if self.holds(when, kernel, request, op)? != 0 {
                return Ok(variant);
            }
        }
        unreachable!("a kernel's last variant has no guard")
    }

    /// That the kernel is for these dims and this device.
    fn check_needs(&self, kernel: &KernelDef, request: &Request<'_>, op: Span) -> Result<(), Diagnostic> {
        for need in &kernel.needs {
            if self.holds(need, kernel, request, op)? == 0 {
                return Err(self.unmet(need, kernel, request, op));
            }
        }
        Ok(())
    }

    fn unmet(&self, need: &Spanned, kernel: &KernelDef, request: &Request<'_>, op: Span) -> Diagnostic {
        let message = format!("`{}` cannot compute this: it needs `{}`", kernel.name, need.expr);
        let found = |name: &&str| Some(format!("`{name}` is {}", self.fact(name, request.limits)?));
        let names: BTreeSet<&str> = need.expr.names().into_iter().collect();
        let values: Vec<String> = names.iter().filter_map(found).collect();
        let diagnostic = Diagnostic::error(op, message).also(need.span, "needed here");
        if values.is_empty() { diagnostic } else { diagnostic.note(format!("here, {}", values.join(", "))) }
    }

    /// The value of a guard.
    fn holds(&self, when: &Spanned, kernel: &KernelDef, request: &Request<'_>, op: Span) -> Result<i64, Diagnostic> {
        when.expr.eval(&|name| self.fact(name, request.limits)).map_err(|error| {
            let message = format!("a condition of `{}` has no value: {error}", kernel.name);
            Diagnostic::error(op, message).also(when.span, "the condition")
        })
    }

    /// The value of a name of a guard.
    fn fact(&self, name: &str, limits: &Limits) -> Option<i64> {
        limits.fact(name).or_else(|| self.names.get(name).copied()).or_else(|| {
            let (port, dtype) = format_fact(name)?;
            Some((self.formats.get(port).copied().unwrap_or(DType::F32) == dtype).into())
        })
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
