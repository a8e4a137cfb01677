//! The product with a weight of more rows than one direction of a dispatch has workgroups for.
//!
//! Gets a graph of nothing but that product, in each of the kernel's texts, and weights just beyond what fits. What
//! then holds: the rows are spread over two directions within the limits of every device, and each of them is right.
//! The row counts are those of large vocabularies; the rows are as short as the text allows.

mod support;

use graphc::base::limits::Limits;
use graphc::checkpoint::Checkpoint;
use graphc::exec::Executor;
use graphc::generate::Rows;
use graphc::plan::CheckedPlan;
use graphc::plan::command::Command;
use graphc::sources;
use support::runner::{AnyExecutor, KINDS, Program, all_rows, compile, decoder};

const GRAPH: &str = r#"Graph(
    name: "product",
    detect: (has: ["weight"]),
    dims: {"T": Tokens, "R": Rows, "S": Sequences},
    inputs: {
        "tokens": Input(token_ids, ["T"]), "rows": Input(output_rows, ["R"]),
        "offsets": Input(sequence_offsets, ["S + 1"]), "places": Input(state_rows, ["S"]),
    },
    outputs: {"logits": Output(logits)},
    ops: [
        Op("embed", {"tokens": "in.tokens", "table": "w.start", "y": "x"}),
        Op("gather_rows", {"x": "x", "rows": "in.rows", "y": "last"}),
        Op("linear", {"x": "last", "weight": "w.weight", "y": "logits"}),
    ],
)
"#;

/// Eight products and sums in f32 of numbers below one.
const LIMIT: f32 = 1e-6;

/// A text of the kernel, how its guard is made to hold on a software driver, and weights that need two layers.
struct Case {
    text: &'static str,
    guard: Option<(&'static str, &'static str)>,
    subgroups: bool,
    columns: usize,
    rows: usize,
    rows_per_workgroup: usize,
}

const CASES: [Case; 4] = [
    Case { text: "linear.wgsl", guard: None, subgroups: false, columns: 6, rows: 300_001, rows_per_workgroup: 4 },
    Case {
        text: "linear_by_eights.wgsl",
        guard: None,
        subgroups: false,
        columns: 8,
        rows: 300_000,
        rows_per_workgroup: 4,
    },
    Case {
        text: "linear_subgroups.wgsl",
        guard: Some(("subgroup_size >= 16 && ", "")),
        subgroups: true,
        columns: 8,
        rows: 600_000,
        rows_per_workgroup: 8,
    },
    Case {
        text: "linear_narrow_subgroups.wgsl",
        guard: Some(("subgroup_size >= 16 && ", "subgroup_size >= 1000 && ")),
        subgroups: true,
        columns: 8,
        rows: 2_097_121,
        rows_per_workgroup: 32,
    },
];

/// A number from -1 to 1 for every index.
fn number(at: usize) -> f32 {
    ((at as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0
}

fn checkpoint(case: &Case) -> Checkpoint {
    let bytes = |count| (0..count).flat_map(|at| number(at).to_le_bytes()).collect::<Vec<u8>>();
    let (start, weight) = (bytes(case.columns), bytes(case.rows * case.columns));
    let view = |rows, bytes| {
        let shape = vec![rows, case.columns];
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, bytes).expect("sound")
    };
    let file = safetensors::serialize([("start", view(1, &start)), ("weight", view(case.rows, &weight))], None);
    Checkpoint::from_static("wide", file.expect("sound").leak()).expect("sound")
}

fn program(case: &Case) -> Program {
    let mut shaders = sources::shaders(None).expect("built in");
    if let Some((from, to)) = case.guard {
        let (_, manifest) = shaders.iter_mut().find(|(path, _)| path == "linear.ron").expect("built in");
        assert_eq!(manifest.matches(from).count(), 1);
        *manifest = manifest.replace(from, to);
    }
    Program::parse("product.ron", GRAPH.to_owned(), &shaders)
}

/// The workgroups of the product, whose text is told by what only it says.
fn workgroups(plan: &CheckedPlan) -> [u32; 3] {
    let dispatch = plan.commands().find_map(|command| match command {
        Command::Dispatch(dispatch) if dispatch.label == "logits" => Some(dispatch.workgroups),
        _ => None,
    });
    dispatch.expect("the product is dispatched")
}

#[test]
fn rows_beyond_one_direction_are_spread_over_two() {
    for case in &CASES {
        let (program, checkpoint) = (program(case), checkpoint(case));
        let limits = Limits { subgroups: case.subgroups, ..Limits::vulkan() };
        let plan = compile(&program.compiler(checkpoint.index(), &limits, &[]), all_rows(1));
        let [x, y, z] = workgroups(&plan);
        assert_eq!((y, z), (1, 2), "{}", case.text);
        assert!(x <= limits.max_workgroups_per_dimension, "{}: {x}", case.text);
        let rows = (x * z) as usize * case.rows_per_workgroup;
        assert!((case.rows..case.rows + 2 * case.rows_per_workgroup).contains(&rows), "{}: {rows}", case.text);
        let expected = sources::shaders(None).expect("built in").into_iter().find(|(path, _)| path == case.text);
        let last_line =
            expected.expect("built in").1.lines().rev().find(|line| line.contains("store_y")).map(str::to_owned);
        let last_line = last_line.expect("a product is stored");
        assert!(plan.kernels.values().any(|kernel| kernel.wgsl.contains(&last_line)), "{}", case.text);
    }
}

#[test]
fn every_row_is_right_on_llvmpipe() {
    for case in &CASES {
        let (program, checkpoint) = (program(case), checkpoint(case));
        for kind in KINDS {
            let Some(executor) = AnyExecutor::find(kind, "llvmpipe") else { continue };
            let offered = executor.device().limits.clone();
            let min_subgroup_size = if case.subgroups { offered.min_subgroup_size } else { 1 };
            // Of the texts, those for subgroups of eight lanes need more rows than fit here.
            let limits = Limits { subgroups: case.subgroups, min_subgroup_size, octets: false, ..offered };
            let compiler = program.compiler(checkpoint.index(), &limits, &[]);
            assert_eq!(workgroups(&compile(&compiler, all_rows(1)))[2], 2, "{} on {kind:?}", case.text);
            let (logits, _) =
                decoder(&executor, compiler, &checkpoint, &[1]).run(&[0], Rows::Last).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(logits[0].len(), case.rows);
            for (row, found) in logits[0].iter().enumerate() {
                let sum: f64 = (0..case.columns)
                    .map(|at| f64::from(number(at)) * f64::from(number(row * case.columns + at)))
                    .sum();
                assert!((found - sum as f32).abs() <= LIMIT, "{} on {kind:?}, row {row}: {found}, {sum}", case.text);
            }
        }
    }
}
