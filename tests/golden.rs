//! Every stage of a small graph as text, compared with what is kept in `tests/golden/`.
//!
//! Gets a graph of one layer with three kernels of its own, so that a change to the real ones moves nothing here;
//! compares each stage's listing line by line. `GRAPHC_ACCEPT=1 cargo test --test golden` writes the files anew; the
//! difference is then reviewed like any other change. Also here: graphs printed and parsed again are the same graphs.

mod support;

use graphc::base::limits::Limits;
use graphc::base::span::SourceMap;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::compile::{Compiled, Compiler};
use graphc::graph::{self, Graph};
use graphc::inspect::explain::{explain, print as print_explanation};
use graphc::kernel::{self, KernelLib};
use graphc::plan::print;
use graphc::{model, schedule, sources};
use support::golden::{assert_golden, golden};

/// The kernels: a row picked by an index, a sum carried over tokens and steps, a product with a matrix.
const KERNELS: [(&str, &str); 6] = [
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
        "override C: u32;\n\
         @compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) {\n\
         store_y(id.y * C + id.x, load_table(load_rows(id.y) * C + id.x));\n}\n",
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
        "override C: u32;\n\
         @compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) {\n\
         let at = load_places(id.y) * C + id.x;\n\
         var sum = load_sum(at);\n\
         for (var t = load_offsets(id.y); t < load_offsets(id.y + 1u); t++) {\n\
         sum += load_x(t * C + id.x);\n\
         store_y(t * C + id.x, sum);\n}\n\
         store_sum(at, sum);\n}\n",
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
        "override I: u32;\noverride O: u32;\n\
         @compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) {\n\
         var sum = 0.0;\n\
         for (var i = 0u; i < I; i++) {\n\
         sum += load_x(id.y * I + i) * load_weight(id.x * I + i);\n}\n\
         store_y(id.y * O + id.x, sum);\n}\n",
    ),
];

/// Numbers of a checkpoint; two layers, four channels, six tokens.
fn checkpoint() -> Checkpoint {
    let view = |shape: &[usize], bytes| {
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).expect("a sound tensor")
    };
    let bytes = [0; 96];
    let tensors = [
        ("table", view(&[6, 4], &bytes)),
        ("scale.0", view(&[4], &bytes[..16])),
        ("scale.1", view(&[4], &bytes[..16])),
    ];
    let file = safetensors::serialize(tensors, None).expect("a sound checkpoint");
    Checkpoint::from_static("golden", file.leak()).expect("a sound checkpoint")
}

fn compile(shape: StepShape) -> (Compiled, Graph) {
    let mut map = SourceMap::new();
    let files: Vec<(String, String)> = KERNELS.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
    let (kernels, diagnostics): (KernelLib, _) = kernel::load(&mut map, &files);
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    let text = std::fs::read_to_string(golden("layer.ron")).expect("committed");
    let source = map.add("layer.ron", text);
    let graph = graph::parse(&map, source).expect("a sound graph");
    let (limits, checkpoint) = (Limits::webgpu(), checkpoint());
    let index = checkpoint.index();
    let compiler = Compiler {
        graph: &graph,
        kernels: &kernels,
        sources: &map,
        index,
        limits: &limits,
        keep: &[],
        batch_invariant: false,
        draws: false,
        tuning: None,
        fuse: None,
        copies: true,
    };
    let compiled = compiler.compile(shape).unwrap_or_else(|error| panic!("{error}"));
    assert!(compiled.lints.is_empty(), "{:?}", compiled.lints);
    (compiled, graph)
}

#[test]
fn stages_of_a_small_graph_print_as_kept() {
    let (compiled, graph) = compile(StepShape { tokens: 3, sequences: 2, rows: 2, capacity: 2 });
    let Compiled { model, schedule, plan, .. } = &compiled;
    for (name, found) in [
        ("graph.txt", graph::print(&graph)),
        ("model.txt", model::print(model)),
        ("schedule.txt", schedule::print(schedule, model)),
        ("plan.txt", print::plan(plan)),
        ("barriers.txt", print::barriers(plan)),
        ("memory.txt", print::memory(plan)),
        ("summary.txt", print::summary(plan)),
    ] {
        assert_golden(name, &found);
    }
}

#[test]
fn explanations_print_as_kept() {
    let (compiled, _) = compile(StepShape { tokens: 3, sequences: 2, rows: 2, capacity: 2 });
    for (name, what) in [
        ("barrier", "b5"),
        ("leave", "leave"),
        ("raw", "b2.1"),
        ("war", "b3.2"),
        ("waw", "b3.0"),
        ("value", "layer1.sums"),
        ("slot", "slot1"),
        ("state", "state.sum.0"),
        ("dispatch", "d2"),
        ("copy", "fetch logits"),
        ("level", "level 8"),
    ] {
        let found = explain(&compiled.plan, what).unwrap_or_else(|error| panic!("{error}"));
        assert_golden(&format!("explain/{name}.txt"), &print_explanation(&found));
    }
}

#[test]
fn printed_graphs_are_the_graphs_they_were() {
    let layer = std::fs::read_to_string(golden("layer.ron")).expect("committed");
    let built_in = sources::graphs(None).expect("built in").into_iter().filter(|(path, _)| !path.contains('/'));
    for (path, text) in built_in.chain([("layer.ron".to_owned(), layer)]) {
        let parse = |text: &str| {
            let mut map = SourceMap::new();
            for (path, text) in sources::parts(None).expect("built in") {
                map.add(path, text);
            }
            let source = map.add(path.as_str(), text);
            graph::parse(&map, source).unwrap_or_else(|found| panic!("{path}: {found:?}"))
        };
        let graph = parse(&text);
        let printed = graph::print(&graph);
        assert_eq!(parse(&printed), graph, "{path}");
        assert_eq!(graph::print(&parse(&printed)), printed, "{path}");
    }
}
