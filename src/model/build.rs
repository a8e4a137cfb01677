//! Graph to [`Model`]: unrolls loops, resolves names, gives every tensor its shape.
//!
//! Gets a graph, the kernels, a checkpoint's index and a step shape; returns a model and lints, or every diagnostic
//! that can be found in one go: what a broken op would have defined counts as known, so that one mistake is reported
//! once. Never reads a weight's bytes, never orders ops.

mod outside;

use std::collections::{BTreeMap, BTreeSet};

use crate::base::arena::Arena;
use crate::base::diag::Diagnostic;
use crate::base::dtype::DType;
use crate::base::limits::Limits;
use crate::base::raw::{Name, Spanned};
use crate::base::role::{DRAW_WORDS, InputRole, OutputRole};
use crate::base::span::{SourceMap, Span};
use crate::base::step::StepShape;
use crate::checkpoint::Index;
use crate::graph::{Arg, Carry, DimKind, Graph, InitWeight, Input, Layout, Node, Output, State};
use crate::kernel::tuning::Tuning;
use crate::kernel::{Access, KernelDef, KernelLib, map, unusable_name};
use crate::model::bind::{Bound, PortShape, Taken};
use crate::model::dims::Dims;
use crate::model::layouts::choose_layout;
use crate::model::weights::{find, is_transposable, logical_shape, with_rank};
use crate::model::{
    InputTensor, Model, Op, OpArg, OpId, Origin, OutputTensor, StateTensor, StateWeight, Value, ValueId,
};

/// More ops than any model has: a bound on unrolling.
pub(super) const MAX_OPS: usize = 1 << 17;

/// More elements than any tensor has: a bound that keeps sizes in bytes far from overflowing.
const MAX_ELEMENTS: u64 = 1 << 40;

/// What a model is built for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The size of a step.
    pub shape: StepShape,
    /// What the device offers, for the guards of kernel variants.
    pub limits: &'a Limits,
    /// Paths of values to make outputs, as in `layer3.wkv`.
    pub keep: &'a [String],
    /// Whether to take only variants of kernels whose order of summation does not depend on the step's shape.
    pub batch_invariant: bool,
    /// Whether the step draws the next tokens itself, instead of giving logits.
    pub draws: bool,
    /// What to take where kernels leave something open.
    pub tuning: Option<&'a Tuning>,
    /// Whether ops may read copies of weights that lie by columns.
    pub copies: bool,
}

/// Builds the model of `graph` for the checkpoint with this index. Returns the model and lints. The checkpoint's layout
/// is the first of the graph's in which every weight has the shape that the graph states.
///
/// # Errors
/// Everything that is wrong with the graph, as it stands for this checkpoint. Nothing more where the only mistakes are
/// those that [`load`](crate::kernel::load) found in kernels.
pub fn build(
    graph: &Graph,
    lib: &KernelLib,
    sources: &SourceMap,
    index: &Index,
    request: &Request<'_>,
) -> Result<(Model, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (layout, reach) = choose_layout(graph, lib, index, (request.shape, request.draws))
        .map_err(|wrong| graph.included.placed(wrong))?;
    let dims = Dims::new(graph, index, layout, (request.shape, request.draws));
    let mut builder = Builder::new(graph, lib, sources, index, request, layout, &dims);
    builder.model.weights = reach.tensors(graph, index, layout);
    builder.declare();
    builder.nodes(&graph.ops);
    if !reach.is_complete && builder.diagnostics.is_empty() {
        builder.too_large();
    }
    builder.outputs();
    match builder.finish() {
        Ok((model, lints)) => Ok((model, graph.included.placed(lints))),
        Err(wrong) => Err(graph.included.placed(wrong)),
    }
}

/// `{variable}` replaced by its number; also the pattern with `{}` instead, and the number of the outermost variable
/// used.
pub(super) fn substitute(text: &str, variables: &[(String, u64)]) -> (String, String, Option<u64>) {
    let (mut name, mut pattern, mut index) = (text.to_owned(), text.to_owned(), None);
    for (variable, value) in variables {
        let hole = format!("{{{variable}}}");
        if name.contains(&hole) {
            name = name.replace(&hole, &value.to_string());
            match index {
                None => (pattern, index) = (pattern.replace(&hole, "{}"), Some(*value)),
                Some(_) => pattern = pattern.replace(&hole, &value.to_string()),
            }
        }
    }
    (name, pattern, index)
}

/// What makes two maps the same kernel: the expression's place and the operands' shapes.
type MapKey = (Span, Vec<Vec<u64>>);

struct Builder<'a> {
    graph: &'a Graph,
    lib: &'a KernelLib,
    sources: &'a SourceMap,
    index: &'a Index,
    request: &'a Request<'a>,
    layout: &'a Layout,
    dims: &'a Dims<'a>,
    model: Model,
    /// Current value of each name; nothing for names that a broken op would have defined.
    names: BTreeMap<String, Option<ValueId>>,
    /// Values by path, further names included.
    paths: BTreeMap<String, ValueId>,
    /// The last number behind each path that is there more than once.
    versions: BTreeMap<String, u32>,
    /// Where each value was defined, for lints.
    defined: BTreeMap<ValueId, Span>,
    used: BTreeSet<ValueId>,
    weights: BTreeMap<String, Option<ValueId>>,
    /// Kernels of maps, which repeat in every layer.
    maps: BTreeMap<MapKey, map::MapKernel>,
    variables: Vec<(String, u64)>,
    prefix: String,
    /// Whether an op names a kernel whose own mistakes were reported when it was loaded.
    is_incomplete: bool,
    /// Nodes and rounds of loops so far: a bound on unrolling.
    visited: usize,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Builder<'a> {
    fn new(
        graph: &'a Graph,
        lib: &'a KernelLib,
        sources: &'a SourceMap,
        index: &'a Index,
        request: &'a Request<'a>,
        layout: &'a Layout,
        dims: &'a Dims<'a>,
    ) -> Self {
        let model = Model {
            graph: graph.name.text.clone(),
            layout: layout.name.clone(),
            shape: request.shape,
            dims: Vec::new(),
            weights: Vec::new(),
            joins: Vec::new(),
            transposed: Vec::new(),
            values: Arena::new(),
            ops: Arena::new(),
            state: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            templates: Arena::new(),
        };
        Self {
            graph,
            lib,
            sources,
            index,
            request,
            layout,
            dims,
            model,
            names: BTreeMap::new(),
            paths: BTreeMap::new(),
            versions: BTreeMap::new(),
            defined: BTreeMap::new(),
            used: BTreeSet::new(),
            weights: BTreeMap::new(),
            maps: BTreeMap::new(),
            variables: Vec::new(),
            prefix: String::new(),
            is_incomplete: false,
            visited: 0,
            diagnostics: Vec::new(),
        }
    }

    /// Records a diagnostic, unless a layer before this one has recorded the same.
    fn report(&mut self, diagnostic: Diagnostic) {
        let same = |other: &Diagnostic| {
            other.labels.first().map(|label| label.0) == diagnostic.labels.first().map(|label| label.0)
                && (!self.variables.is_empty() || other.message == diagnostic.message)
        };
        if diagnostic.labels.is_empty() || !self.diagnostics.iter().any(same) {
            self.diagnostics.push(diagnostic);
        }
    }

    fn ok<T>(&mut self, result: Result<T, Diagnostic>) -> Option<T> {
        result.map_err(|diagnostic| self.report(diagnostic)).ok()
    }

    fn nodes(&mut self, nodes: &'a [Node]) {
        for node in nodes {
            self.visited += 1;
            if self.visited > MAX_OPS {
                return self.too_large();
            }
            match node {
                Node::Op { kernel, args } => self.op(kernel, args),
                Node::Map { expr, args, out } => self.map(expr, args, out),
                Node::Let { name, value } => {
                    let resolved = self.resolve(value);
                    if let Some(resolved) = resolved {
                        self.used.insert(resolved);
                        let path = self.path(&name.text);
                        self.paths.insert(path, resolved);
                    }
                    if self.definable(name) {
                        self.names.insert(name.text.clone(), resolved);
                    }
                }
                Node::ForEach { variable, count, body } => self.for_each(variable, count, body),
                Node::If { condition, then, otherwise } => {
                    let variables = self.variables.clone();
                    match self.ok(self.dims.eval(condition, &variables)) {
                        Some(value) => self.nodes(if value != 0 { then } else { otherwise }),
                        // Both sides define the same names, most likely.
                        None => self.poison(then),
                    }
                }
            }
        }
    }

    fn too_large(&mut self) {
        let message = format!("the graph unrolls to more than {MAX_OPS} ops and rounds of loops");
        self.report(Diagnostic::error(self.graph.name.span, message));
    }

    fn for_each(&mut self, variable: &Name, count: &Spanned, body: &'a [Node]) {
        let variables = self.variables.clone();
        let Some(count) = self.ok(self.dims.extent(count, &variables)) else {
            return self.poison(body);
        };
        let outer = self.prefix.clone();
        if self.variables.iter().any(|(name, _)| *name == variable.text) {
            let message = format!("loop variable `{}` is one already in a loop around this", variable.text);
            self.report(Diagnostic::error(variable.span, message));
            return self.poison(body);
        }
        if count > MAX_OPS as u64 {
            let message =
                format!("`{variable}` would run {count} times, more than {MAX_OPS}", variable = variable.text);
            self.report(Diagnostic::error(variable.span, message));
            return self.poison(body);
        }
        for at in 0..count {
            self.visited += 1;
            if self.visited > MAX_OPS {
                break;
            }
            self.variables.push((variable.text.clone(), at));
            self.prefix = format!("{outer}{}{at}.", variable.text);
            self.nodes(body);
            self.variables.pop();
        }
        self.prefix = outer;
    }

    /// Marks what nodes would have defined as known, so that their absence is not reported again.
    fn poison(&mut self, nodes: &[Node]) {
        for node in nodes {
            match node {
                Node::Op { args, .. } => {
                    for (_, arg) in args {
                        if let Arg::Tensor(name) = arg {
                            self.names.entry(name.text.clone()).or_insert(None);
                        }
                    }
                }
                Node::Map { out: name, .. } | Node::Let { name, .. } => {
                    self.names.entry(name.text.clone()).or_insert(None);
                }
                Node::ForEach { body, .. } => self.poison(body),
                Node::If { then, otherwise, .. } => {
                    self.poison(then);
                    self.poison(otherwise);
                }
            }
        }
    }

    /// Whether a tensor has elements, and not more than any device could hold.
    fn fits(&mut self, shape: &[u64], what: &str, span: Span) -> bool {
        let count = shape.iter().try_fold(1u64, |count, extent| count.checked_mul(*extent));
        if count.is_some_and(|count| (1..=MAX_ELEMENTS).contains(&count)) {
            return true;
        }
        let message = format!("{what} has shape {shape:?}, expected 1 to {MAX_ELEMENTS} elements");
        self.report(Diagnostic::error(span, message));
        false
    }

    /// The path of a new value of this name.
    fn path(&mut self, name: &str) -> String {
        let path = format!("{}{name}", self.prefix);
        if self.paths.contains_key(&path) { self.numbered(&path) } else { path }
    }

    /// The path of a further value of this path: the first free number behind it.
    fn numbered(&mut self, path: &str) -> String {
        let mut k = self.versions.get(path).copied().unwrap_or(0) + 1;
        while self.paths.contains_key(&format!("{path}#{k}")) {
            k += 1;
        }
        self.versions.insert(path.to_owned(), k);
        format!("{path}#{k}")
    }

    fn definable(&mut self, name: &Name) -> bool {
        let reserved = ["w.", "in.", "state."].into_iter().find(|prefix| name.text.starts_with(prefix));
        if let Some(prefix) = reserved {
            let message = format!("`{}` cannot be defined: names in `{prefix}` come from outside the graph", name.text);
            self.report(Diagnostic::error(name.span, message));
        }
        if name.text.is_empty() || name.text.contains(['{', '}', '#']) {
            let message = format!("`{}` is no name for a value", name.text);
            self.report(Diagnostic::error(name.span, message));
            return false;
        }
        reserved.is_none()
    }

    fn define(&mut self, name: &Name, dtype: DType, shape: Vec<u64>, op: OpId) -> Option<ValueId> {
        if !self.definable(name) || !self.fits(&shape, &format!("`{}`", name.text), name.span) {
            return None;
        }
        let path = self.path(&name.text);
        let origin = Origin::Op { op, updates: None };
        let value = self.model.values.push(Value { path: path.clone(), dtype, shape, origin });
        self.paths.insert(path, value);
        self.names.insert(name.text.clone(), Some(value));
        self.defined.insert(value, name.span);
        Some(value)
    }

    /// The value that a name means here, or nothing, with a diagnostic unless there was one before.
    fn resolve(&mut self, name: &Name) -> Option<ValueId> {
        let (full, pattern, index) = substitute(&name.text, &self.variables);
        if full.contains('{') {
            let message = format!("`{}` has a `{{…}}` that is no loop variable here", name.text);
            let variables: Vec<String> = self.variables.iter().map(|(name, _)| format!("`{{{name}}}`")).collect();
            let note = format!(
                "loop variables here: {}",
                if variables.is_empty() { "none".into() } else { variables.join(", ") }
            );
            self.report(Diagnostic::error(name.span, message).note(note));
            return None;
        }
        if let Some(weight) = full.strip_prefix("w.") {
            return self.weight(weight, pattern.strip_prefix("w.").unwrap_or(&pattern), index, name.span);
        }
        match self.names.get(&full) {
            Some(value) => *value,
            None => {
                let message = format!("unknown value `{full}`");
                let diagnostic = Diagnostic::error(name.span, message).label("nothing of this name is defined before");
                let diagnostic = diagnostic.suggest(&full, self.names.keys().map(String::as_str));
                self.report(diagnostic);
                None
            }
        }
    }

    fn weight(&mut self, name: &str, pattern: &str, index: Option<u64>, span: Span) -> Option<ValueId> {
        if let Some(known) = self.weights.get(name) {
            return *known;
        }
        let found = logical_shape(self.graph, self.index, self.layout, name);
        let stored = find(self.graph, self.index, name);
        let value = match (found, stored.as_ref().map(|(_, info)| &info.dtype)) {
            (Some((shape, _)), Some(Ok(_))) if !self.fits(&shape, &format!("weight `{name}`"), span) => None,
            (Some(_), Some(Ok(_))) if !is_transposable(self.graph, self.index, self.layout, name) => {
                let message = format!("weight `{name}` is stored transposed in this layout and is no matrix");
                self.report(Diagnostic::error(span, message));
                None
            }
            (Some((shape, transpose)), Some(Ok(dtype))) => {
                let tensor = stored.map_or_else(|| name.to_owned(), |(stored, _)| stored.into_owned());
                let pattern = pattern.to_owned();
                let origin = Origin::Weight { tensor, pattern, index, transpose };
                Some(self.model.values.push(Value { path: format!("w.{name}"), dtype: *dtype, shape, origin }))
            }
            (_, Some(Err(dtype))) => {
                let message = format!("weight `{name}` is stored as {dtype}, expected f32, f16 or bf16");
                self.report(Diagnostic::error(span, message));
                None
            }
            _ => {
                let message = format!("the checkpoint has no weight `{name}`");
                let diagnostic = Diagnostic::error(span, message).suggest(name, self.index.names());
                self.report(diagnostic);
                None
            }
        };
        self.weights.insert(name.to_owned(), value);
        value
    }

    fn op(&mut self, kernel_name: &Name, args: &'a [(Name, Arg)]) {
        if self.lib.is_broken(&kernel_name.text) {
            self.is_incomplete = true;
            return self.poison_args(args);
        }
        let Some(kernel) = self.lib.get(&kernel_name.text) else {
            let known = self.lib.iter().map(|kernel| kernel.name.as_str());
            let message = format!("unknown op `{}`", kernel_name.text);
            self.report(Diagnostic::error(kernel_name.span, message).suggest(&kernel_name.text, known));
            return self.poison_args(args);
        };
        let before = self.diagnostics.len();
        let ports = self.ports(kernel, kernel_name, args);
        let consts = self.consts(kernel, args);
        let inputs: Vec<Option<(ValueId, &Name)>> = kernel
            .ports
            .iter()
            .zip(&ports)
            .enumerate()
            .map(|(at, (_, name))| {
                let name = (*name)?;
                let takes = kernel.access(at).reads || name.text.starts_with("state.");
                takes.then(|| self.resolve(name).map(|value| (value, name))).flatten()
            })
            .collect();
        let unresolved = kernel.ports.iter().enumerate().any(|(at, _)| {
            let takes = |name: &Name| kernel.access(at).reads || name.text.starts_with("state.");
            ports[at].is_none_or(|name| takes(name) && inputs[at].is_none())
        });
        if unresolved || self.diagnostics.len() > before {
            return self.poison_args(args);
        }
        if self.bound_op(kernel, kernel_name.span, &ports, &inputs, &consts).is_none() {
            self.poison_args(args);
        }
    }

    /// Marks every name that an op would have defined.
    fn poison_args(&mut self, args: &[(Name, Arg)]) {
        for (_, arg) in args {
            if let Arg::Tensor(name) = arg {
                let (full, ..) = substitute(&name.text, &self.variables);
                if !full.starts_with("w.") {
                    self.names.entry(full).or_insert(None);
                }
            }
        }
    }

    /// The tensor name at each port, and diagnostics for ports that are unknown, missing or given a number.
    fn ports(&mut self, kernel: &KernelDef, op: &Name, args: &'a [(Name, Arg)]) -> Vec<Option<&'a Name>> {
        let port_names = || kernel.ports.iter().map(|port| port.name.text.as_str());
        for (name, arg) in args {
            let is_port = port_names().any(|port| port == name.text);
            let is_const = kernel.consts.iter().any(|constant| constant.name.text == name.text);
            if !is_port && !is_const {
                let known = port_names().chain(kernel.consts.iter().map(|constant| constant.name.text.as_str()));
                let message = format!("`{}` has no port or constant `{}`", kernel.name, name.text);
                let listed = known.clone().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                self.report(
                    Diagnostic::error(name.span, message).suggest(&name.text, known).note(format!("it has {listed}")),
                );
            } else if is_port != matches!(arg, Arg::Tensor(_)) {
                let (expected, found) = if is_port { ("a tensor's name", "a number") } else { ("a number", "a name") };
                let message = format!("`{}` of `{}` takes {expected}, found {found}", name.text, kernel.name);
                self.report(Diagnostic::error(arg.span(), message));
            }
        }
        let mut ports = Vec::new();
        for port in &kernel.ports {
            let given = args.iter().find(|(name, _)| *name == port.name).and_then(|(_, arg)| match arg {
                Arg::Tensor(name) => Some(name),
                _ => None,
            });
            if given.is_none() && !args.iter().any(|(name, _)| *name == port.name) {
                let message = format!("port `{}` of `{}` is given nothing", port.name.text, kernel.name);
                self.report(Diagnostic::error(op.span, message).also(port.name.span, "the port"));
            }
            ports.push(given);
        }
        ports
    }

    fn consts(&mut self, kernel: &KernelDef, args: &[(Name, Arg)]) -> BTreeMap<String, f64> {
        let mut consts = BTreeMap::new();
        let variables = self.variables.clone();
        for (name, arg) in args {
            if !kernel.consts.iter().any(|constant| constant.name == *name) {
                continue;
            }
            let number = match arg {
                Arg::Number(number, _) => Some(*number),
                Arg::Eval(spanned) => self.ok(self.dims.eval(spanned, &variables)).map(|value| value as f64),
                Arg::Setting(name) => {
                    self.graph.settings.iter().find(|setting| setting.name == *name).map(|setting| setting.value)
                }
                Arg::Tensor(_) => None,
            };
            if let Some(number) = number {
                consts.insert(name.text.clone(), number);
            }
        }
        consts
    }

    fn bound_op(
        &mut self,
        kernel: &KernelDef,
        span: Span,
        ports: &[Option<&Name>],
        inputs: &[Option<(ValueId, &Name)>],
        given: &BTreeMap<String, f64>,
    ) -> Option<()> {
        let shapes: Vec<Option<PortShape<'_>>> = inputs
            .iter()
            .map(|input| {
                let (value, name) = (*input)?;
                let value = &self.model.values[value];
                let is_weight = matches!(value.origin, Origin::Weight { .. });
                let (dtype, span) = (value.dtype, name.span);
                Some(PortShape { shape: &value.shape, dtype, is_weight, name: &value.path, span })
            })
            .collect();
        let bound = match Bound::new(kernel, &shapes, given, span) {
            Ok(bound) => bound,
            Err(diagnostics) => {
                diagnostics.into_iter().for_each(|diagnostic| self.report(diagnostic));
                return None;
            }
        };
        let dtypes_agree = self.check_dtypes(kernel, inputs);
        let exclusive = self.check_exclusive(kernel, inputs);
        let Taken { bound, variant, tunable } = self.ok(bound.take(kernel, given, self.request, span))?;
        let workgroups = self.ok(bound.workgroups(variant, span))?;
        let consts = self.ok(bound.wgsl_consts(variant, span))?;
        if !dtypes_agree || !exclusive {
            return None;
        }
        let op = OpId::new(self.model.ops.len() as u32);
        let mut op_args = Vec::new();
        for (at, port) in kernel.ports.iter().enumerate() {
            let access = kernel.access(at);
            let name = ports[at]?;
            let input = inputs[at].map(|(value, _)| value);
            let output = match (access.writes, input) {
                (false, _) => None,
                (true, Some(previous)) => Some(self.update(name, previous, op)?),
                (true, None) => {
                    let shape = self.ok(bound.shape(&port.shape, span))?;
                    Some(self.define(name, port.dtype.unwrap_or(DType::F32), shape, op)?)
                }
            };
            if let Some(input) = input {
                self.used.insert(input);
            }
            op_args.push(OpArg { port: port.name.text.clone(), access, input, output });
        }
        let template = self.template(&variant.template);
        // Named by a value that it computes; by a state only if it does nothing else.
        let outputs = || op_args.iter().filter_map(|arg| arg.output);
        let labelled = outputs().find(|value| self.model.state_of(*value).is_none()).or_else(|| outputs().next())?;
        let label = self.model.values[labelled].path.clone();
        let kernel = kernel.name.clone();
        let given = given.clone();
        self.model.ops.push(Op { label, kernel, template, args: op_args, consts, given, workgroups, tunable, span });
        Some(())
    }

    fn template(&mut self, template: &crate::kernel::Template) -> crate::base::arena::Id<crate::kernel::Template> {
        // Templates of kernels repeat in every layer, those of maps mostly so; a plan's kernels are told apart by text
        // anyway.
        let known = self.model.templates.iter().find(|(_, other)| other.file == template.file && *other == template);
        match known.map(|(id, _)| id) {
            Some(id) => id,
            None => self.model.templates.push(template.clone()),
        }
    }

    /// The next version of a tensor that an op writes in place.
    fn update(&mut self, name: &Name, previous: ValueId, op: OpId) -> Option<ValueId> {
        let old = &self.model.values[previous];
        if matches!(old.origin, Origin::Weight { .. } | Origin::Input { .. }) {
            let message = format!("`{}` cannot be written: weights and inputs never change", old.path);
            self.report(Diagnostic::error(name.span, message));
            return None;
        }
        let (full, ..) = substitute(&name.text, &self.variables);
        let (dtype, shape) = (old.dtype, old.shape.clone());
        let path = match self.model.state_of(previous).is_some() {
            true => self.numbered(&full),
            false => self.path(&full),
        };
        let origin = Origin::Op { op, updates: Some(previous) };
        let value = self.model.values.push(Value { path: path.clone(), dtype, shape, origin });
        self.paths.insert(path, value);
        if let Some(state) = self.model.state_of(previous) {
            // A state's own name is its latest version, by whatever name it was updated.
            let state = format!("state.{}", self.model.state[state as usize].path);
            self.names.insert(state, Some(value));
        }
        self.names.insert(full, Some(value));
        self.defined.insert(value, name.span);
        Some(value)
    }

    fn check_dtypes(&mut self, kernel: &KernelDef, inputs: &[Option<(ValueId, &Name)>]) -> bool {
        let before = self.diagnostics.len();
        for (at, (port, input)) in kernel.ports.iter().zip(inputs).enumerate() {
            let Some((value, name)) = input else { continue };
            let found = self.model.values[*value].dtype;
            let own = kernel.variants.iter().any(|variant| variant.template.ports[at].own.is_some());
            let (fits, expected) = match port.dtype {
                Some(dtype) => (found == dtype, dtype.to_string()),
                None if own => (found == DType::F32, "f32, since the kernel declares its storage itself".into()),
                None => (found != DType::U32, "f32, f16 or bf16".into()),
            };
            let halves = matches!(found, DType::F16 | DType::Bf16);
            let singly = kernel.variants.iter().any(|variant| variant.template.ports[at].stores.contains(&1));
            if halves && singly {
                let (path, port) = (&self.model.values[*value].path, &port.name);
                let message =
                    format!("`{path}` is {found}, stored in pairs, and port `{}` is written singly", port.text);
                self.report(Diagnostic::error(name.span, message).also(port.span, "the port"));
            } else if !fits {
                let path = &self.model.values[*value].path;
                let message = format!("`{path}` is {found}, port `{}` expects {expected}", port.name.text);
                self.report(Diagnostic::error(name.span, message).also(port.name.span, "the port"));
            }
        }
        self.diagnostics.len() == before
    }

    /// A tensor that one port writes may not be at another port of the same op.
    fn check_exclusive(&mut self, kernel: &KernelDef, inputs: &[Option<(ValueId, &Name)>]) -> bool {
        for (at, input) in inputs.iter().enumerate() {
            let Some((value, name)) = input else { continue };
            let twice = inputs.iter().enumerate().find(|(other, input)| {
                *other != at && input.is_some_and(|(other, _)| other == *value) && kernel.access(at).writes
            });
            if let Some((other, _)) = twice {
                let (one, two) = (&kernel.ports[at].name.text, &kernel.ports[other].name.text);
                let message = format!("`{}` is written through port `{one}` and bound to port `{two}` too", name.text);
                self.report(
                    Diagnostic::error(name.span, message).note("a kernel reaches what it writes through one port"),
                );
                return false;
            }
        }
        true
    }

    fn map(&mut self, expr: &Name, args: &[(Name, Name)], out: &Name) {
        let operands: Vec<Option<ValueId>> = args.iter().map(|(_, name)| self.resolve(name)).collect();
        if self.bound_map(expr, args, &operands, out).is_none() {
            self.names.entry(out.text.clone()).or_insert(None);
        }
    }

    /// Whether an expression can use a value under this name.
    fn check_operand(&mut self, expr: &Name, name: &Name, arg: &Name, value: ValueId) -> Option<()> {
        let mut words = expr.text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let diagnostic = if let Some(reason) = unusable_name(&name.text) {
            Diagnostic::error(name.span, format!("`{}` is no name for an operand", name.text)).note(reason)
        } else if self.model.values[value].dtype == DType::U32 {
            Diagnostic::error(arg.span, format!("operand `{}` is u32, maps compute in f32", name.text))
        } else if !words.any(|word| word == name.text) {
            Diagnostic::error(name.span, format!("operand `{}` is not in the expression", name.text))
                .also(expr.span, "the expression")
        } else {
            return Some(());
        };
        self.report(diagnostic);
        None
    }

    fn bound_map(
        &mut self,
        expr: &Name,
        args: &[(Name, Name)],
        operands: &[Option<ValueId>],
        out: &Name,
    ) -> Option<()> {
        let operands: Vec<ValueId> = operands.iter().copied().collect::<Option<_>>()?;
        let shapes: Vec<Vec<u64>> = operands
            .iter()
            .map(|value| {
                let value = &self.model.values[*value];
                let leading = value.shape.iter().take_while(|extent| **extent == 1).count();
                // A checkpoint's axes of 1 say nothing: they must not make a vector look like a matrix.
                match value.origin {
                    Origin::Weight { .. } => value.shape[leading.min(value.shape.len().saturating_sub(1))..].to_vec(),
                    _ => value.shape.clone(),
                }
            })
            .collect();
        for ((name, arg), value) in args.iter().zip(&operands) {
            self.check_operand(expr, name, arg, *value)?;
        }
        let borrowed: Vec<&[u64]> = shapes.iter().map(Vec::as_slice).collect();
        let shape = match map::broadcast(&borrowed) {
            Ok(shape) => shape,
            Err((a, b)) => {
                let (one, other) = (&args[a].1, &args[b].1);
                let message =
                    format!("shapes clash: `{}` is {:?}, `{}` is {:?}", one.text, shapes[a], other.text, shapes[b]);
                self.report(Diagnostic::error(other.span, message).also(one.span, "does not broadcast with this"));
                return None;
            }
        };
        if !self.fits(&shape, &format!("`{}`", out.text), out.span) {
            return None;
        }
        // Each has a thread, which knows itself by 32 bits.
        let count: u64 = shape.iter().product();
        if count > u64::from(u32::MAX) {
            let message = format!("`{}` would have {count} elements, a map at most {}", out.text, u32::MAX);
            self.report(Diagnostic::error(out.span, message));
            return None;
        }
        let named: Vec<(&str, &[u64])> = args.iter().map(|(name, _)| name.text.as_str()).zip(borrowed).collect();
        let source = self.sources.source(expr.span.source);
        let key = (expr.span, shapes.clone());
        let kernel = match self.maps.get(&key) {
            Some(kernel) => kernel.clone(),
            None => {
                let kernel = self.ok(map::build(self.lib, expr, source, &named, &shape))?;
                self.maps.insert(key, kernel.clone());
                kernel
            }
        };
        let op = OpId::new(self.model.ops.len() as u32);
        let mut op_args: Vec<OpArg> = args
            .iter()
            .zip(&operands)
            .map(|((name, _), value)| OpArg {
                port: name.text.clone(),
                access: Access { reads: true, writes: false },
                input: Some(*value),
                output: None,
            })
            .collect();
        self.used.extend(&operands);
        let value = self.define(out, DType::F32, shape, op)?;
        let access = Access { reads: false, writes: true };
        op_args.push(OpArg { port: map::RESULT.into(), access, input: None, output: Some(value) });
        let label = self.model.values[value].path.clone();
        let template = self.template(&kernel.template);
        let workgroups = kernel.workgroups.map(|size| size as u32);
        self.model.ops.push(Op {
            label,
            kernel: "map".into(),
            template,
            args: op_args,
            consts: Vec::new(),
            given: BTreeMap::new(),
            workgroups,
            tunable: None,
            span: expr.span,
        });
        Some(())
    }

    fn finish(mut self) -> Result<(Model, Vec<Diagnostic>), Vec<Diagnostic>> {
        if self.model.ops.is_empty() && self.diagnostics.is_empty() && !self.is_incomplete {
            self.diagnostics.push(Diagnostic::error(self.graph.name.span, "the graph computes nothing"));
        }
        if !self.diagnostics.is_empty() || self.is_incomplete {
            return Err(self.diagnostics);
        }
        self.model.dims = self.dims.all();
        let mut lints: Vec<Diagnostic> = Vec::new();
        for (value, span) in &self.defined {
            let value_of = &self.model.values[*value];
            // The last version of a state is read by the next step.
            let carried = self.model.state_of(*value).is_some() && value_of.path.contains('#');
            let unread_further = matches!(&value_of.origin, Origin::Op { op, .. }
                if self.model.ops[*op].args.iter().filter(|arg| arg.output.is_some()).count() > 1);
            if !self.used.contains(value) && !carried && !unread_further && lints.iter().all(|l| l.labels[0].0 != *span)
            {
                lints.push(Diagnostic::lint(*span, format!("`{}` is never used", value_of.path)));
            }
        }
        Ok((self.model, lints))
    }
}
