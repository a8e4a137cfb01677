//! Random graphs that are right: of any shape, with states, updates in place, branches and loops.
//!
//! Gets a seed, returns a graph's text with the kernels and the checkpoint it needs. What then holds: the same seed
//! gives the same graph, it parses, and what it computes stays finite. Now and then a graph uses an old version of a
//! tensor in a way that no order allows; compiling says so. Never looks at plans.

use fastrand::Rng;
use graphc::checkpoint::Checkpoint;

/// The kernels that random graphs use, by the names of their files.
pub const KERNELS: [(&str, &str); 14] = [
    (
        "rows.ron",
        r#"Kernel(
    ports: {"table": ["N", "C"], "rows": Port(u32, ["M"]), "y": ["M", "C"]},
    consts: {"C": "C"},
    dispatch: ["C", "M"],
)"#,
    ),
    (
        "rows.wgsl",
        "override C: u32;
@compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) {
    store_y(id.y * C + id.x, load_table(load_rows(id.y) * C + id.x));
}
",
    ),
    (
        "product.ron",
        r#"Kernel(
    ports: {"x": ["M", "I"], "weight": ["O", "I"], "y": ["M", "O"]},
    consts: {"I": "I", "O": "O"},
    dispatch: ["O", "M"],
)"#,
    ),
    (
        "product.wgsl",
        "override I: u32;
override O: u32;
@compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) {
    var sum = 0.0;
    for (var i = 0u; i < I; i++) {
        sum += load_x(id.y * I + i) * load_weight(id.x * I + i);
    }
    store_y(id.y * O + id.x, sum);
}
",
    ),
    (
        "split.ron",
        r#"Kernel(
    ports: {"x": ["M", "I"], "low": ["M", "I"], "high": ["M", "I"]},
    consts: {"COUNT": "M * I"},
    dispatch: ["COUNT"],
)"#,
    ),
    (
        "split.wgsl",
        "override COUNT: u32;
@compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) {
    let x = load_x(id.x);
    store_low(id.x, floor(x));
    store_high(id.x, x - floor(x));
}
",
    ),
    (
        "add_to.ron",
        r#"Kernel(
    ports: {"sum": ["M", "I"], "x": ["M", "I"]},
    consts: {"COUNT": "M * I"},
    dispatch: ["COUNT"],
)"#,
    ),
    (
        "add_to.wgsl",
        "override COUNT: u32;
@compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) {
    store_sum(id.x, 0.5 * load_sum(id.x) + 0.25 * load_x(id.x));
}
",
    ),
    (
        "running_sum.ron",
        r#"Kernel(
    ports: {
        "x": ["T", "C"], "sum": ["B", "C"], "offsets": Port(u32, ["S + 1"]), "places": Port(u32, ["S"]),
        "y": ["T", "C"],
    },
    consts: {"C": "C"},
    dispatch: ["C", "S"],
)"#,
    ),
    (
        "running_sum.wgsl",
        "override C: u32;
@compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) {
    let at = load_places(id.y) * C + id.x;
    var sum = load_sum(at);
    for (var t = load_offsets(id.y); t < load_offsets(id.y + 1u); t++) {
        sum = 0.5 * sum + load_x(t * C + id.x);
        store_y(t * C + id.x, sum);
    }
    store_sum(at, sum);
}
",
    ),
    (
        "peek.ron",
        r#"Kernel(
    ports: {"x": ["T", "C"], "sum": ["B", "C"], "y": ["T", "C"]},
    consts: {"C": "C"},
    dispatch: ["C", "T"],
)"#,
    ),
    (
        "peek.wgsl",
        "override C: u32;
@compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) {
    store_y(id.y * C + id.x, 0.5 * load_x(id.y * C + id.x) + 0.5 * load_sum(id.x));
}
",
    ),
    (
        "keep.ron",
        r#"Kernel(
    ports: {
        "x": ["T", "C"], "last": ["B", "C"], "offsets": Port(u32, ["S + 1"]), "places": Port(u32, ["S"]),
    },
    consts: {"C": "C"},
    dispatch: ["C", "S"],
)"#,
    ),
    (
        "keep.wgsl",
        "override C: u32;
@compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) {
    if load_offsets(id.y + 1u) > load_offsets(id.y) {
        store_last(load_places(id.y) * C + id.x, load_x((load_offsets(id.y + 1u) - 1u) * C + id.x));
    }
}
",
    ),
];

/// The ports through which kernels find their sequences.
const SEQUENCES: &str = r#""offsets": "in.offsets", "places": "in.places""#;

/// A graph and what it runs on.
#[derive(Debug)]
pub struct RandomGraph {
    /// The graph.
    pub text: String,
    /// Weights of the shapes that it names, small random numbers.
    pub checkpoint: Checkpoint,
    /// Values to be kept.
    pub keep: Vec<String>,
}

/// The width of a value: of the two that a graph has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    C,
    D,
}

struct Writer<'r> {
    rng: &'r mut Rng,
    /// Names with their widths, for what may be used.
    values: Vec<(String, Width)>,
    next: usize,
    indent: usize,
    text: String,
}

impl RandomGraph {
    /// The graph of a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (vocabulary, c, d, layers) = (rng.usize(3..40), rng.usize(1..40), rng.usize(1..40), rng.usize(1..4));
        let checkpoint = checkpoint(&mut rng, vocabulary, c, d, layers);
        let mut writer =
            Writer { rng: &mut rng, values: vec![("x".into(), Width::C)], next: 0, indent: 2, text: String::new() };
        let before = writer.rng.usize(0..6);
        writer.ops(before, "0", false);
        writer.line(r#"ForEach("layer", "L", ["#);
        writer.indent += 1;
        let inside = writer.rng.usize(1..14);
        writer.ops(inside, "{layer}", true);
        writer.indent -= 1;
        writer.line("]),");
        let after = writer.rng.usize(0..6);
        // Loops need not run for what follows to be defined.
        writer.ops(after, "0", false);
        let last = writer.any(Width::C);
        let outside: Vec<String> = writer
            .values
            .iter()
            .skip(1)
            .map(|(name, _)| name.clone())
            .filter(|name| !name.contains("in_loop"))
            .collect();
        let keep = outside.into_iter().filter(|_| writer.rng.usize(0..4) == 0).take(2).collect();
        let text = format!(
            r#"Graph(
    name: "random",
    detect: (has: ["table"]),
    dims: {{
        "V": Weight("table", 0), "C": Weight("table", 1), "D": Weight("down.0", 0), "L": Count("down.{{}}"),
        "T": Tokens, "S": Sequences, "R": Rows, "B": Capacity,
    }},
    state: {{
        "sum": State(dtype: f32, per: "L", shape: ["B", "C"], init: 0.5),
        "last": State(dtype: f32, per: "L", shape: ["B", "C"], init: 0.0),
    }},
    inputs: {{
        "tokens": Input(token_ids, ["T"]), "offsets": Input(sequence_offsets, ["S + 1"]),
        "places": Input(state_rows, ["S"]), "rows": Input(output_rows, ["R"]),
    }},
    outputs: {{"logits": Output(logits)}},
    ops: [
        Op("rows", {{"table": "w.table", "rows": "in.tokens", "y": "x"}}),
{}        Op("rows", {{"table": "{last}", "rows": "in.rows", "y": "final"}}),
        Op("product", {{"x": "final", "weight": "w.table", "y": "logits"}}),
    ],
)
"#,
            writer.text
        );
        Self { text, checkpoint, keep }
    }
}

impl Writer<'_> {
    fn line(&mut self, text: &str) {
        self.text += &"    ".repeat(self.indent);
        self.text += text;
        self.text.push('\n');
    }

    /// A value of this width, often a recent one.
    fn any(&mut self, width: Width) -> String {
        let of: Vec<&String> = self.values.iter().filter(|(_, other)| *other == width).map(|(name, _)| name).collect();
        let recent = of.len().saturating_sub(3);
        let from = if self.rng.bool() { recent } else { 0 };
        of[self.rng.usize(from..of.len())].clone()
    }

    fn width(&mut self) -> Width {
        let has_d = self.values.iter().any(|(_, width)| *width == Width::D);
        if has_d && self.rng.bool() { Width::D } else { Width::C }
    }

    /// A new name, or one that is defined again.
    fn name(&mut self, width: Width, in_loop: bool) -> String {
        let again: Vec<String> = self
            .values
            .iter()
            .filter(|(name, other)| *other == width && name.contains("in_loop") == in_loop)
            .map(|(name, _)| name.clone())
            .collect();
        if !again.is_empty() && self.rng.usize(0..5) == 0 {
            return again[self.rng.usize(0..again.len())].clone();
        }
        self.next += 1;
        format!("v{}{}", self.next, if in_loop { "_in_loop" } else { "" })
    }

    fn ops(&mut self, count: usize, layer: &str, in_loop: bool) {
        let outside = self.values.clone();
        for _ in 0..count {
            self.op(layer, in_loop);
        }
        if in_loop {
            // A loop's names stay, so values of its last round may be used; but only if they were.
            let kept = self.rng.usize(0..3);
            let mut all = self.values.split_off(outside.len());
            self.rng.shuffle(&mut all);
            self.values.extend(all.into_iter().take(kept));
        }
    }

    fn op(&mut self, layer: &str, in_loop: bool) {
        match self.rng.usize(0..10) {
            0..3 => self.map(in_loop),
            3 => {
                let (from, to, weight) =
                    if self.width() == Width::C { (Width::C, Width::D, "down") } else { (Width::D, Width::C, "up") };
                let (x, y) = (self.any(from), self.name(to, in_loop));
                self.line(&format!(r#"Op("product", {{"x": "{x}", "weight": "w.{weight}.{layer}", "y": "{y}"}}),"#));
                self.define(y, to);
            }
            4 => {
                let width = self.width();
                let (x, low) = (self.any(width), self.name(width, in_loop));
                let high = format!("{low}_high");
                self.line(&format!(r#"Op("split", {{"x": "{x}", "low": "{low}", "high": "{high}"}}),"#));
                self.define(low, width);
                if self.rng.bool() {
                    self.define(high, width);
                }
            }
            5 => {
                let width = self.width();
                let (sum, x) = (self.any(width), self.any(width));
                if sum != x {
                    self.line(&format!(r#"Op("add_to", {{"sum": "{sum}", "x": "{x}"}}),"#));
                }
            }
            6 => {
                let (x, y) = (self.any(Width::C), self.name(Width::C, in_loop));
                self.line(&format!(
                    r#"Op("running_sum", {{"x": "{x}", "sum": "state.sum.{layer}", "y": "{y}", {SEQUENCES}}}),"#
                ));
                self.define(y, Width::C);
            }
            7 => {
                let (x, y) = (self.any(Width::C), self.name(Width::C, in_loop));
                let state = if self.rng.bool() { "sum" } else { "last" };
                self.line(&format!(r#"Op("peek", {{"x": "{x}", "sum": "state.{state}.{layer}", "y": "{y}"}}),"#));
                self.define(y, Width::C);
            }
            8 => {
                let x = self.any(Width::C);
                self.line(&format!(r#"Op("keep", {{"x": "{x}", "last": "state.last.{layer}", {SEQUENCES}}}),"#));
            }
            _ => {
                let (width, conditions) = (self.width(), ["T > 1", "S > 1", "C > D"]);
                let (x, y, other) = (self.any(width), self.name(width, in_loop), self.any(width));
                let condition = conditions[self.rng.usize(0..3)];
                let then = format!(r#"Map("-0.5 * x", {{"x": "{x}"}}, "{y}")"#);
                let otherwise = format!(r#"Let("old", "{other}"), Map("0.5 * x + 0.1", {{"x": "old"}}, "{y}")"#);
                self.line(&format!(r#"If("{condition}", [{then}], [{otherwise}]),"#));
                self.define(y, width);
            }
        }
    }

    fn map(&mut self, in_loop: bool) {
        let width = self.width();
        let count = self.rng.usize(1..4);
        let operands: Vec<String> = (0..count).map(|_| self.any(width)).collect();
        let sum: Vec<String> = (0..count).map(|nth| format!("0.3 * a{nth}")).collect();
        let map: Vec<String> =
            operands.iter().enumerate().map(|(nth, name)| format!(r#""a{nth}": "{name}""#)).collect();
        let y = self.name(width, in_loop);
        self.line(&format!(r#"Map("{}", {{{}}}, "{y}"),"#, sum.join(" + "), map.join(", ")));
        self.define(y, width);
    }

    fn define(&mut self, name: String, width: Width) {
        if !self.values.iter().any(|(other, _)| *other == name) {
            self.values.push((name, width));
        }
    }
}

fn checkpoint(rng: &mut Rng, vocabulary: usize, c: usize, d: usize, layers: usize) -> Checkpoint {
    let mut tensors = vec![("table".to_owned(), vec![vocabulary, c])];
    for layer in 0..layers {
        tensors.push((format!("down.{layer}"), vec![d, c]));
        tensors.push((format!("up.{layer}"), vec![c, d]));
    }
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, shape)| {
            let count: usize = shape.iter().product();
            (0..count).flat_map(|_| ((rng.f32() - 0.5) * 0.5).to_le_bytes()).collect()
        })
        .collect();
    let views = tensors.into_iter().zip(&bytes).map(|((name, shape), bytes)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, bytes).expect("a sound tensor");
        (name, view)
    });
    let file = safetensors::serialize(views, None).expect("a sound checkpoint");
    // The test ends with the process.
    Checkpoint::from_static("random", file.leak()).expect("a sound checkpoint")
}
