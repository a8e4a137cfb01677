//! What a graph means where names and shapes could be taken in two ways.
//!
//! Gets small graphs over the built-in kernels and a checkpoint in memory, builds their models without a device. Never
//! compares what is printed: `diagnostics` does that.

use graphc::base::diag::Diagnostic;
use graphc::base::limits::Limits;
use graphc::base::span::SourceMap;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::compile::{CompileError, Compiled, Compiler};
use graphc::model::{Model, ValueId};
use graphc::{graph, kernel, sources};

const GRAPH: &str = include_str!("fuzz_corpus/graph/small.ron");

/// A kernel that reads and writes one tensor.
const BUMP: [(&str, &str); 2] = [
    ("bump.ron", r#"Kernel(ports: {"s": ["B", "C"]}, dispatch: ["B * C"])"#),
    (
        "bump.wgsl",
        "@compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) {
            store_s(id.x, load_s(id.x) + 1.0);
        }",
    ),
];

/// Weights of the small graph, and a tensor of four axes.
fn checkpoint() -> Checkpoint {
    let bytes = [0; 192];
    let view = |shape: &[usize], size: usize| {
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), &bytes[..size]).expect("sound")
    };
    let tensors = [
        ("table", view(&[6, 4], 96)),
        ("matrix", view(&[6, 4], 96)),
        ("cube", view(&[2, 2, 3, 4], 192)),
        ("scale.0", view(&[4], 16)),
        ("scale.1", view(&[4], 16)),
    ];
    let file = safetensors::serialize(tensors, None).expect("a sound checkpoint");
    Checkpoint::from_static("small", file.leak()).expect("a sound checkpoint")
}

/// Compiles the graph with some places changed, for a step in which no two sizes are equal unless it is said.
fn compile(changes: &[(&str, &str)], shape: StepShape) -> Result<Compiled, Vec<Diagnostic>> {
    let mut text = GRAPH.to_owned();
    for (from, to) in changes {
        assert_eq!(text.matches(from).count(), 1, "`{from}` stands in the graph once");
        text = text.replace(from, to);
    }
    let mut map = SourceMap::new();
    let mut shaders = sources::shaders(None).expect("built in");
    shaders.extend(BUMP.map(|(path, text)| (path.to_owned(), text.to_owned())));
    let (kernels, wrong) = kernel::load(&mut map, &shaders);
    assert!(wrong.is_empty(), "{wrong:?}");
    let source = map.add("small.ron", text);
    let graph = graph::parse(&map, source)?;
    let (limits, checkpoint) = (Limits::vulkan(), checkpoint());
    let compiler = Compiler {
        graph: &graph,
        kernels: &kernels,
        sources: &map,
        index: checkpoint.index(),
        limits: &limits,
        keep: &[],
        batch_invariant: false,
        draws: false,
        tuning: None,
        fuse: None,
        copies: true,
    };
    compiler.compile(shape).map_err(|error| match error {
        CompileError::Wrong { diagnostics, .. } => diagnostics,
        other => panic!("{other}"),
    })
}

const STEP: StepShape = StepShape { tokens: 7, sequences: 3, rows: 5, capacity: 9 };

fn messages(changes: &[(&str, &str)], shape: StepShape) -> Vec<String> {
    let wrong = compile(changes, shape).expect_err("refused");
    wrong.into_iter().map(|diagnostic| diagnostic.message).collect()
}

#[test]
fn the_first_axis_of_a_state_is_told_by_its_kind() {
    let message = ["the first axis of state `last` is not the sequences of the session"];
    let equal = StepShape { tokens: 2, sequences: 2, rows: 2, capacity: 2 };
    compile(&[], equal).expect("a dim of kind `Capacity`");
    for axis in ["T", "S", "R", "2", "B + 0", "H"] {
        let to = format!("[\"{axis}\", \"C\"], init");
        assert_eq!(messages(&[("[\"B\", \"C\"], init", &to)], equal), message, "{axis}");
    }
    // Another name for it is it; names that go round are not.
    let other = ("\"H\": Eval(\"max(C / 2, 1)\")", "\"H\": Eval(\"(I)\"), \"I\": Eval(\"B\")");
    compile(&[("[\"B\", \"C\"], init", "[\"H\", \"C\"], init"), other], STEP).expect("renamed twice");
    let round = ("\"H\": Eval(\"max(C / 2, 1)\")", "\"H\": Eval(\"I\"), \"I\": Eval(\"H\")");
    messages(&[("[\"B\", \"C\"], init", "[\"H\", \"C\"], init"), round], STEP);
}

fn value(model: &Model, path: &str) -> ValueId {
    model.values.iter().find(|(_, value)| value.path == path).unwrap_or_else(|| panic!("no `{path}`")).0
}

#[test]
fn a_state_updated_by_another_name_is_the_same_state() {
    let read = "Let(\"sum\", \"x\"),";
    let reads = "Let(\"mine\", \"state.last.0\"),
        Op(\"bump\", {\"s\": \"mine\"}),
        Map(\"x + y\", {\"x\": \"x\", \"y\": \"state.last.0\"}, \"sum\"),
        Op(\"bump\", {\"s\": \"state.last.0\"}),";
    // The map's operands broadcast: one token, one sequence.
    let one = StepShape { tokens: 1, sequences: 1, rows: 1, capacity: 1 };
    let compiled = compile(&[(read, reads)], one).expect("compiles");
    let model = &compiled.model;
    let level = |op: &str| {
        let mut levels = compiled.plan.levels.iter();
        let found = levels.position(|level| level.commands.iter().any(|command| command.label() == op));
        found.unwrap_or_else(|| panic!("no `{op}`"))
    };
    // What is read under the state's own name is the version that was written under the other one.
    let sum = model.ops.values().find(|op| op.label == "sum").expect("an op");
    let updated = sum.args[1].input.expect("it reads");
    assert_eq!(model.values[updated].path, "mine#1");
    assert!(model.state_of(updated).is_some());
    assert_eq!(model.state_of(updated), model.state_of(value(model, "state.last.0")));
    assert!(level("mine#1") < level("sum"));
    // And the next write, under the state's own name, waits for that reader.
    let last = model.values.values().rfind(|value| value.path.starts_with("state.last.0#"));
    assert!(level("sum") < level(&last.expect("written again").path));
}

#[test]
fn loop_variables_do_not_hide_each_other() {
    let inner =
        "Map(\"x + before * scale\", {\"x\": \"x\", \"before\": \"before\", \"scale\": \"w.scale.{i}\"}, \"x\")";
    let nested = format!("ForEach(\"i\", \"1\", [{inner}])");
    let found = messages(&[(inner, &nested)], STEP);
    assert_eq!(found, ["loop variable `i` is one already in a loop around this"]);
    // Beside each other, and under another name, they may stand.
    compile(&[(inner, &nested.replacen("\"i\"", "\"j\"", 1))], STEP).expect("another name");
    let twice = "ForEach(\"i\", \"1\", []), Let(\"sum\", \"x\")";
    compile(&[("Let(\"sum\", \"x\")", twice)], STEP).expect("one after the other");
}

#[test]
fn only_vectors_matrices_and_lists_of_them_are_transposed() {
    let raw =
        ("(name: \"plain\"), (name: \"raw\", transposed: [\"matrix\"])", "(name: \"raw\", transposed: [\"cube\"])");
    let cube = ("w.matrix", "w.cube");
    let message = "weight `cube` is stored transposed in this layout and is no matrix";
    assert_eq!(messages(&[raw, cube], STEP), [message]);
    // Not used, it is not looked at.
    compile(&[raw], STEP).expect("the cube is of no use");
}

#[test]
fn inputs_and_logits_have_the_shapes_of_their_roles() {
    for (from, to, found) in [
        ("Input(token_ids, [\"T\"])", "Input(token_ids, [\"S\"])", "input `tokens` has shape [3], role `token_ids`"),
        (
            "Input(token_ids, [\"T\"])",
            "Input(token_ids, [\"T\", \"1\"])",
            "input `tokens` has shape [7, 1], role `token_ids`",
        ),
        ("[\"S + 1\"]", "[\"S\"]", "input `offsets` has shape [3], role `sequence_offsets`"),
        ("Input(state_rows, [\"S\"])", "Input(state_rows, [\"B\"])", "input `places` has shape [9], role `state_rows`"),
        (
            "Input(output_rows, [\"R\"])",
            "Input(output_rows, [\"T\"])",
            "input `rows` has shape [7], role `output_rows`",
        ),
        ("{\"x\": \"wanted\"", "{\"x\": \"sum\"", "output `logits` is f32[7, 6], which are no logits"),
    ] {
        let messages = messages(&[(from, to)], STEP);
        assert!(messages.iter().any(|message| message == found), "{messages:?}");
    }
    // As many sequences as a step can say.
    let many = StepShape { sequences: u32::MAX, capacity: u32::MAX, ..STEP };
    let found = messages(&[], many);
    assert!(found[0].starts_with("`state.last.0` takes 68719476720 bytes"), "{found:?}");
}

#[test]
fn names_of_operands_are_words_and_not_the_compilers() {
    for name in ["graphc_id", "GraphcData0", "map_result", "a b", "1st", ""] {
        let to =
            format!("Map(\"square(before) - x + {name}\", {{\"x\": \"x\", \"before\": \"before\", \"{name}\": \"x\"}}");
        let map = "Map(\"square(before) - x\", {\"x\": \"x\", \"before\": \"before\"}";
        assert_eq!(messages(&[(map, &to)], STEP), [format!("`{name}` is no name for an operand")]);
    }
}
