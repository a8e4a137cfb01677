//! Steps of every size share one session, whatever the graph asks about the size.
//!
//! Gets a graph that uses other weights and touches its state in another order when a step has one token. What then
//! holds: all plans expect the same weights and the same state, and steps of both kinds on one session compute what the
//! formula says, on both executors. Numbers are small integers, so that results are exact. And plans of all sizes take
//! no more memory for values than the largest.

mod support;

use graphc::base::limits::Limits;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::exec::hal::{HalOptions, NoopExecutor};
use graphc::exec::{Executor, Session, Weights};
use graphc::generate::Rows;
use graphc::plan::usage::Usage;
use graphc::sources;
use safetensors::tensor::{Dtype, TensorView};
use support::runner::{AnyExecutor, DEVICES, KINDS, Program, compile, decoder};

/// A step of one token reads its state and then writes it; a longer one reads it once more, and multiplies by a matrix
/// that is too large to be packed. `never` is read by some steps and written by none.
const GRAPH: &str = r#"
Graph(
    name: "branches",
    detect: (has: ["table"]),
    dims: {
        "V": Weight("table", 0), "C": Weight("table", 1), "T": Tokens, "S": Sequences, "R": Rows, "B": Capacity,
        "LONG": Eval("T > 1"),
    },
    state: {
        "last": State(dtype: f32, shape: ["B", "C"], init: 0.0),
        "never": State(dtype: f32, shape: ["B", "C"], init: 1.0),
    },
    inputs: {
        "tokens": Input(token_ids, ["T"]),
        "offsets": Input(sequence_offsets, ["S + 1"]),
        "places": Input(state_rows, ["S"]),
        "rows": Input(output_rows, ["R"]),
    },
    outputs: {"logits": Output(logits)},
    ops: [
        Op("embed", {"tokens": "in.tokens", "table": "w.table", "y": "x"}),
        Let("carried", "state.last"),
        Op("token_shift", {"x": "x", "last": "carried", "offsets": "in.offsets", "places": "in.places", "y": "prev"}),
        Op("keep_last", {"x": "x", "last": "state.last", "offsets": "in.offsets", "places": "in.places"}),
        If("LONG", [
            Op("token_shift", {
                "x": "x", "last": "state.last", "offsets": "in.offsets", "places": "in.places", "y": "wrapped",
            }),
            Op("token_shift", {
                "x": "x", "last": "state.never", "offsets": "in.offsets", "places": "in.places", "y": "fixed",
            }),
            ForEach("i", "L", [
                Map("(x + prev - wrapped + fixed) * two", {
                    "x": "x", "prev": "prev", "wrapped": "wrapped", "fixed": "fixed", "two": "w.two.{i}",
                }, "mixed"),
            ]),
            Op("linear", {"x": "mixed", "weight": "w.matrix", "y": "y"}),
        ], [
            Map("(x + prev) * one", {"x": "x", "prev": "prev", "one": "w.one"}, "y"),
        ]),
        Op("gather_rows", {"x": "y", "rows": "in.rows", "y": "picked"}),
        Op("linear", {"x": "picked", "weight": "w.head", "y": "logits"}),
    ],
)
"#;

/// Tokens, and channels: a matrix of so many rows and columns is more than is packed.
const V: usize = 16;
const C: usize = 96;

fn program() -> Program {
    let graph = GRAPH.replace("\"LONG\":", "\"L\": Count(\"two.{}\"), \"LONG\":");
    Program::parse("branches.ron", graph, &sources::shaders(None).expect("built in"))
}

/// Element `at` of a tensor, from -2 to 2.
fn element(salt: usize, at: usize) -> f32 {
    ((at * 7 + at / 5 + salt * 3) % 5) as f32 - 2.0
}

fn tensor(salt: usize, count: usize) -> Vec<f32> {
    (0..count).map(|at| element(salt, at)).collect()
}

const TENSORS: [(&str, usize, &[usize]); 5] =
    [("table", 1, &[V, C]), ("one", 2, &[C]), ("two.0", 3, &[C]), ("matrix", 4, &[C, C]), ("head", 5, &[V, C])];

fn checkpoint() -> Checkpoint {
    let bytes: Vec<Vec<u8>> = TENSORS
        .iter()
        .map(|(_, salt, shape)| tensor(*salt, shape.iter().product()).into_iter().flat_map(f32::to_le_bytes).collect())
        .collect();
    let view = |shape: &[usize], bytes| TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("it fits its shape");
    let views = TENSORS.iter().zip(&bytes).map(|((name, _, shape), bytes)| (*name, view(shape, bytes)));
    let file = safetensors::serialize(views, None).expect("a checkpoint");
    Checkpoint::from_static("by hand", file.leak()).expect("a checkpoint")
}

/// `matrix x` for a matrix of `C` columns.
fn product(salt: usize, rows: usize, x: &[f32]) -> Vec<f32> {
    (0..rows).map(|row| (0..C).map(|column| element(salt, row * C + column) * x[column]).sum()).collect()
}

/// What a step gives for these tokens, and the state after it: the formula, on the host.
fn expected(tokens: &[u32], last: &mut Vec<f32>) -> Vec<Vec<f32>> {
    let x: Vec<Vec<f32>> =
        tokens.iter().map(|token| (0..C).map(|c| element(1, *token as usize * C + c)).collect()).collect();
    let before = std::mem::replace(last, x.last().expect("a token").clone());
    let one_earlier = |first: &[f32], at: usize| if at == 0 { first.to_vec() } else { x[at - 1].clone() };
    let rows = (0..tokens.len()).map(|at| {
        let prev = one_earlier(&before, at);
        let y: Vec<f32> = if tokens.len() == 1 {
            (0..C).map(|c| (x[at][c] + prev[c]) * element(2, c)).collect()
        } else {
            let (wrapped, fixed) = (one_earlier(last, at), one_earlier(&[1.0; C], at));
            let mixed: Vec<f32> =
                (0..C).map(|c| (x[at][c] + prev[c] - wrapped[c] + fixed[c]) * element(3, c)).collect();
            product(4, C, &mixed)
        };
        product(5, V, &y)
    });
    rows.collect()
}

#[test]
fn steps_of_both_kinds_run_on_one_session() {
    let (program, checkpoint) = (program(), checkpoint());
    for kind in KINDS {
        let Some(executor) = AnyExecutor::find(kind, DEVICES[0]) else { continue };
        let limits = executor.device().limits.clone();
        let compiler = program.compiler(checkpoint.index(), &limits, &[]);
        let mut decoder = decoder(&executor, compiler, &checkpoint, &[1, 4]);
        let mut last = vec![0.0; C];
        for (nth, tokens) in
            [&[3][..], &[1, 4, 1, 5], &[9], &[2], &[6, 5, 3, 5], &[8, 9, 7, 9], &[3]].iter().enumerate()
        {
            let (found, _) = decoder.run(tokens, Rows::All).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(found, expected(tokens, &mut last), "{kind:?}, step {nth}");
            let states = decoder.session().states();
            assert_eq!(states[0], ("last".to_owned(), last.clone()), "{kind:?}, after step {nth}");
        }
    }
}

#[test]
fn every_size_of_a_step_expects_the_same_session() {
    let (program, checkpoint) = (program(), checkpoint());
    let limits = Limits::vulkan();
    let shape = |tokens| StepShape { tokens, sequences: 1, rows: 1, capacity: 1 };
    let plan = |tokens, keep: &[String]| compile(&program.compiler(checkpoint.index(), &limits, keep), shape(tokens));
    let kept = |keep: Option<&str>| keep.map(str::to_owned).into_iter().collect::<Vec<_>>();
    // A value that steps of one token lack may be kept of others.
    for (tokens, keep, of_one) in [
        (2, None, None),
        (4, None, None),
        (16, Some("i0.mixed"), None),
        (4, Some("state.last#1"), Some("state.last#1")),
        (4, Some("state.never"), Some("state.never")),
    ] {
        let (first, other) = (plan(1, &kept(of_one)), plan(tokens, &kept(keep)));
        assert_eq!((&other.weights, &other.state), (&first.weights, &first.state), "{tokens} tokens, keep {keep:?}");
    }
    let first = plan(1, &[]);
    let rests: Vec<Usage> = first.state.buffers.iter().map(|buffer| buffer.rest).collect();
    assert_eq!(
        rests,
        [Usage::STORAGE_WRITE, Usage::STORAGE_READ],
        "written last by a step of one token, and not touched by it"
    );
    let tensors: Vec<&str> = first.weights.pieces.iter().map(|piece| piece.tensor.as_str()).collect();
    assert_eq!(tensors, ["head", "one", "table", "two.0", "matrix"], "those of both branches");
}

#[test]
fn sizes_of_a_step_share_the_memory_of_the_largest_in_any_order() {
    let checkpoint = Checkpoint::from_static("the built-in model", sources::DEMO_MODEL).expect("a model");
    let (program, limits) = (graphc::compile::Program::built_in("rwkv7").expect("it is"), Limits::vulkan());
    let compiler = program.compiler(checkpoint.index(), &limits);
    let plans = [1, 16, 128].map(|tokens| compile(&compiler, StepShape { tokens, sequences: 1, rows: 1, capacity: 1 }));
    let largest = plans[2].summary().slot_bytes;
    let executor = NoopExecutor::new(&HalOptions::new(), None).expect("the no-op device is always there");
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let weights = Weights { layout: &plans[0].weights, checkpoint: &checkpoint };
        let mut session = executor.open(&weights, &plans[0].state, &mut |_, _| ()).expect("open");
        for nth in order {
            session.prepare(plans[nth].clone()).expect("prepared");
        }
        assert_eq!(session.memory().slot_bytes, largest, "{order:?}");
    }
}
