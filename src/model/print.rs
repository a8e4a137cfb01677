//! [`Model`] as text.
//!
//! Gets a model, returns one op a line with the shapes of what it defines. Never used as input.

use std::fmt::Write;

use crate::model::{Model, Origin};

/// The model as a listing.
pub fn print(model: &Model) -> String {
    let mut out = String::new();
    let shape = model.shape;
    let _ = writeln!(
        out,
        "model {}  T={} S={} R={} B={}  weights: {}",
        model.graph, shape.tokens, shape.sequences, shape.rows, shape.capacity, model.layout
    );
    let dims: Vec<String> = model.dims.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let _ = writeln!(out, "dims {}", dims.join(" "));
    for input in &model.inputs {
        let value = &model.values[input.value];
        let _ = writeln!(out, "input {} {}  u32{:?}  role {}", input.value, value.path, value.shape, input.role);
    }
    for state in &model.state {
        let _ = write!(out, "state {}  {}{:?}  init ", state.path, state.dtype, state.shape);
        let _ = match &state.init_weight {
            None => writeln!(out, "{}", state.init),
            Some(weight) => writeln!(out, "w.{}{}", weight.tensor, if weight.transposed { " transposed" } else { "" }),
        };
    }
    let weights = model.values.iter().filter(|(_, value)| matches!(value.origin, Origin::Weight { .. }));
    for (id, value) in weights {
        let swapped = match value.origin {
            Origin::Weight { transpose: Some(_), .. } => "  transposed",
            _ => "",
        };
        let _ = writeln!(out, "weight {id} {}  {}{:?}{swapped}", value.path, value.dtype, value.shape);
    }
    for (id, value) in model.values.iter() {
        if let Origin::Transposed { of } = value.origin {
            let _ = writeln!(out, "weight {id} {}  {}{:?} = {of} by columns", value.path, value.dtype, value.shape);
        }
    }
    for (id, op) in model.ops.iter() {
        let args: Vec<String> = op
            .args
            .iter()
            .filter_map(|arg| arg.input.map(|input| format!("{}={input} {}", arg.port, model.values[input].path)))
            .collect();
        let defined: Vec<String> = op
            .args
            .iter()
            .filter_map(|arg| arg.output)
            .map(|output| {
                let value = &model.values[output];
                format!("{output} {} {}{:?}", value.path, value.dtype, value.shape)
            })
            .collect();
        let [x, y, z] = op.workgroups;
        let _ = writeln!(out, "{id}  {} = {}({})  {x} x {y} x {z}", defined.join(", "), op.kernel, args.join(", "));
    }
    for output in &model.outputs {
        let _ = writeln!(out, "output {} = {}  role {}", output.name, output.value, output.role);
    }
    out
}
