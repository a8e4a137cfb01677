//! What a graph shares with the world outside: inputs, states and outputs.
//!
//! Gets the graph's declarations, defines the values of inputs and states and names those of outputs. What holds then:
//! each has the shape that its role promises the host. Never looks at an op.

use super::*;

impl<'a> Builder<'a> {
    /// What the graph has in this step beside what it has in every one, if it is one that draws.
    fn carry(&self) -> Option<&'a Carry> {
        self.graph.carry.as_ref().filter(|_| self.request.draws)
    }

    /// Defines the values of inputs and states. What a step that draws has beside those of others comes behind them, so
    /// that all steps of a session find the same state in the same place.
    pub(super) fn declare(&mut self) {
        if self.request.draws && self.graph.carry.is_none() {
            let message = format!("`{}` has no steps that draw tokens", self.graph.name.text);
            self.report(Diagnostic::error(self.graph.name.span, message).note("expected a field `carry`"));
        }
        let (graph, carry) = (self.graph, self.carry());
        for input in graph.inputs.iter().chain(carry.iter().flat_map(|carry| &carry.inputs)) {
            let shape: Option<Vec<u64>> = input.shape.iter().map(|expr| self.ok(self.dims.extent(expr, &[]))).collect();
            let path = format!("in.{}", input.name.text);
            let Some(shape) = shape else {
                self.names.insert(path, None);
                continue;
            };
            self.check_input(input, &shape);
            if !self.fits(&shape, &path, input.name.span) {
                self.names.insert(path, None);
                continue;
            }
            let origin = Origin::Input { input: self.model.inputs.len() as u32 };
            let value = self.model.values.push(Value { path: path.clone(), dtype: DType::U32, shape, origin });
            self.names.insert(path.clone(), Some(value));
            self.paths.insert(path, value);
            self.defined.insert(value, input.name.span);
            self.model.inputs.push(InputTensor { name: input.name.text.clone(), role: input.role, value });
        }
        for state in graph.state.iter().chain(carry.iter().flat_map(|carry| &carry.state)) {
            self.declare_state(state);
        }
    }

    /// Defines the values of a state, one or one per layer. Where something is wrong with it, its names are known all
    /// the same.
    fn declare_state(&mut self, state: &State) {
        let count = match &state.per {
            Some(per) => self.ok(self.dims.extent(per, &[])).unwrap_or(0),
            None => 1,
        };
        let left = (MAX_OPS as u64).saturating_sub(self.model.state.len() as u64);
        if count > left {
            let message = format!("state `{}` has {count} tensors, more than {left}", state.name.text);
            return self.report(Diagnostic::error(state.name.span, message));
        }
        let shape: Option<Vec<u64>> = state.shape.iter().map(|expr| self.ok(self.dims.extent(expr, &[]))).collect();
        // By the kind of the dim, not by its value: other dims may be as large, for this step.
        if shape.is_some() && !state.shape.first().is_some_and(|first| self.is_capacity(first)) {
            let message = format!("the first axis of state `{}` is not the sequences of the session", state.name.text);
            self.report(Diagnostic::error(state.name.span, message).note("expected a dim of kind `Capacity` there"));
        }
        self.check_state(state, shape.as_deref());
        let what = format!("state `{}`", state.name.text);
        let shape = shape.filter(|shape| self.fits(shape, &what, state.name.span));
        for at in 0..count {
            let suffix = if state.per.is_some() { format!(".{at}") } else { String::new() };
            let path = format!("{}{suffix}", state.name.text);
            let name = format!("state.{path}");
            let Some(shape) = &shape else {
                self.names.insert(name, None);
                continue;
            };
            let origin = Origin::State { state: self.model.state.len() as u32 };
            let value = Value { path: name.clone(), dtype: state.dtype, shape: shape.clone(), origin };
            let value = self.model.values.push(value);
            self.names.insert(name.clone(), Some(value));
            self.paths.insert(name, value);
            self.defined.insert(value, state.name.span);
            let init_weight = self.init_weight(state, at, shape);
            let tensor = StateTensor { path, dtype: state.dtype, shape: shape.clone(), init: state.init, init_weight };
            self.model.state.push(tensor);
        }
        self.check_surplus(state, count);
    }

    /// The weight that is state number `at` before the first token, if the checkpoint has it.
    fn init_weight(&mut self, state: &State, at: u64, shape: &[u64]) -> Option<StateWeight> {
        let InitWeight { pattern, transposed } = state.init_weight.as_ref()?;
        let tensor = pattern.text.replacen("{}", &at.to_string(), 1);
        let info = self.index.get(&tensor)?;
        let mut expected = shape[1..].to_vec();
        if let ([.., rows, columns], true) = (expected.as_mut_slice(), transposed) {
            std::mem::swap(rows, columns);
        }
        if info.dtype.is_err() || with_rank(&info.shape, expected.len()).as_ref() != Some(&expected) {
            let found = info.dtype.as_ref().map_or_else(Clone::clone, ToString::to_string);
            let message =
                format!("weight `{tensor}` is {found}{:?}, expected f32, f16 or bf16 {expected:?}", info.shape);
            self.report(Diagnostic::error(pattern.span, message));
            return None;
        }
        Some(StateWeight { tensor, transposed: *transposed })
    }

    /// A weight that would be the state of a layer beyond the last is of another model.
    fn check_surplus(&mut self, state: &State, count: u64) {
        let Some(InitWeight { pattern, .. }) = &state.init_weight else { return };
        let Some((before, after)) = pattern.text.split_once("{}") else { return };
        let number = |name: &str| name.strip_prefix(before)?.strip_suffix(after)?.parse::<u64>().ok();
        if let Some(name) = self.index.names().find(|name| number(name).is_some_and(|number| number >= count)) {
            let message = format!("weight `{name}` is a state of no layer: there are {count}");
            self.report(Diagnostic::error(pattern.span, message));
        }
    }

    /// Whether an axis is the session's sequences: a dim of that kind, or one that is another name for it.
    fn is_capacity(&self, axis: &Spanned) -> bool {
        let dims = &self.graph.dims;
        let named = |name: &str| dims.iter().find(|dim| dim.name.text == name).map(|dim| &dim.kind);
        let mut kind = axis.expr.as_name().and_then(named);
        // As many renamings as there are dims, lest they go round.
        for _ in dims {
            match kind {
                Some(DimKind::Eval(other)) => kind = other.expr.as_name().and_then(named),
                _ => break,
            }
        }
        matches!(kind, Some(DimKind::Capacity))
    }

    /// A state's rows are whole words, so that a host can move one by itself; and its name is its own.
    fn check_state(&mut self, state: &State, shape: Option<&[u64]>) {
        let name = &state.name;
        let row_bytes = shape.map(|shape| {
            let count = shape.iter().skip(1).fold(1u64, |count, extent| count.saturating_mul(*extent));
            count.saturating_mul(state.dtype.size_bytes())
        });
        if row_bytes.is_some_and(|bytes| bytes % 4 != 0) {
            let message = format!("a sequence's part of state `{}` is no whole number of 32-bit words", name.text);
            self.report(
                Diagnostic::error(name.span, message).note("halves are stored in pairs; use f32 or an even size"),
            );
        }
        if name.text.is_empty() || name.text.contains(['.', '{', '}', '#']) {
            let message = format!("`{}` is no name for a state: dots tell layers apart", name.text);
            self.report(Diagnostic::error(name.span, message));
        }
    }

    /// What the host fills has the shape that its role says.
    fn check_input(&mut self, input: &Input, shape: &[u64]) {
        let step = self.request.shape;
        let expected = match input.role {
            InputRole::TokenIds => u64::from(step.tokens),
            InputRole::SequenceOffsets => u64::from(step.sequences) + 1,
            InputRole::StateRows => u64::from(step.sequences),
            InputRole::OutputRows => u64::from(step.rows),
            InputRole::DrawRules => u64::from(step.sequences) * u64::from(DRAW_WORDS),
        };
        if *shape != [expected] {
            let message = format!("input `{}` has shape {shape:?}, role `{}`", input.name.text, input.role);
            self.report(
                Diagnostic::error(input.name.span, message).note(format!("expected [{expected}] in this step")),
            );
        }
    }

    pub(super) fn outputs(&mut self) {
        let outputs = self.carry().map_or(&self.graph.outputs, |carry| &carry.outputs);
        for output in outputs {
            if let Some(value) = self.resolve(&output.name) {
                if matches!(self.model.values[value].origin, Origin::Weight { .. } | Origin::Input { .. }) {
                    let message = format!("output `{}` is a weight or an input, expected a value", output.name.text);
                    self.report(Diagnostic::error(output.name.span, message));
                }
                self.check_output(output, value);
                self.used.insert(value);
                self.model.outputs.push(OutputTensor { name: output.name.text.clone(), role: output.role, value });
            }
        }
        for (at, path) in self.request.keep.iter().enumerate() {
            // What is an output already, or named twice, is there once.
            let is_output = self.model.outputs.iter().any(|output| output.name == *path);
            if is_output || self.request.keep[..at].contains(path) {
                continue;
            }
            match self.paths.get(path) {
                Some(value)
                    if matches!(self.model.values[*value].origin, Origin::Input { .. } | Origin::Weight { .. }) =>
                {
                    let message = format!("`{path}` is a weight or an input: the host has it already");
                    self.report(Diagnostic::placeless(message));
                }
                Some(value) => {
                    self.used.insert(*value);
                    let (name, value) = (path.clone(), *value);
                    self.model.outputs.push(OutputTensor { name, role: OutputRole::Kept, value });
                }
                None if self.diagnostics.is_empty() => {
                    let diagnostic = Diagnostic::placeless(format!("there is no value `{path}` to keep"))
                        .suggest(path, self.paths.keys().map(String::as_str));
                    self.report(diagnostic);
                }
                None => {}
            }
        }
    }

    /// What the host reads as logits is a row of floats for every wanted token; as tokens, it is one for each.
    fn check_output(&mut self, output: &Output, value: ValueId) {
        let (dtype, shape) = (self.model.values[value].dtype, self.model.values[value].shape.clone());
        let rows = u64::from(self.request.shape.rows);
        if output.role == OutputRole::Logits && (dtype != DType::F32 || shape.len() != 2 || shape[0] != rows) {
            let message = format!("output `{}` is {dtype}{shape:?}, which are no logits", output.name.text);
            let note = format!("expected f32[{rows}, …]: a row for every output row of the step");
            self.report(Diagnostic::error(output.name.span, message).note(note));
        }
        if output.role == OutputRole::NextToken && (dtype != DType::U32 || shape != [rows]) {
            let message = format!("output `{}` is {dtype}{shape:?}, which are no tokens", output.name.text);
            let note = format!("expected u32[{rows}]: one for every output row of the step");
            self.report(Diagnostic::error(output.name.span, message).note(note));
        }
    }
}
