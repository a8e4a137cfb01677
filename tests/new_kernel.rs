//! A new op is two files, and a graph that uses it is a third: no Rust.
//!
//! Gets the program, copies of its graphs and shaders, and a kernel that no graph has: it sums over rows, has two
//! outputs and updates a state. The graph is changed to use it, to have that state, and to compute one map differently;
//! what the program then keeps is compared with the same formulas computed here.

mod program;
mod support;

use std::path::Path;

use graphc::base::dtype::DType;
use graphc::checkpoint::Checkpoint;
use graphc::sources;
use program::{devices, graphc, synth, text};
use support::{TempDir, open, skip, values};

const MANIFEST: &str = r#"Kernel(
    doc: "the mean of every row, the row without it, and the sum of all means of a sequence so far",
    ports: {
        "x": ["T", "C"], "total": ["B", "1"], "offsets": Port(u32, ["S + 1"]), "places": Port(u32, ["S"]),
        "mean": ["T", "1"], "centred": ["T", "C"],
    },
    consts: {"T": "T", "S": "S", "C": "C"},
    dispatch: ["S"],
)
"#;

const TEXT: &str = r#"// mean[t] = sum of x[t, c] / C, centred[t, c] = x[t, c] - mean[t]
// total[places[s]] += mean[t] for each token t of sequence s
// offsets [S + 1] and places [S] read; a workgroup per sequence
#import "shared/sum.wgsl"
const LANES: u32 = 64u;
override T: u32;
override S: u32;
override C: u32;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let begin = load_offsets(group.x);
    let end = load_offsets(group.x + 1u);
    let place = load_places(group.x);
    var total = load_total(place);
    for (var t = 0u; t < T; t++) {
        var sum = 0.0;
        for (var c = lane; c < C; c += LANES) {
            sum += load_x(t * C + c);
        }
        let mean = workgroup_sum(lane, sum) / f32(C);
        let is_own = begin <= t && t < end;
        let is_padding = t >= load_offsets(S) && group.x == S - 1u;
        if is_own {
            total += mean;
        }
        if is_own || is_padding {
            if lane == 0u {
                store_mean(t, select(0.0, mean, is_own));
            }
            for (var c = lane; c < C; c += LANES) {
                store_centred(t * C + c, select(0.0, load_x(t * C + c) - mean, is_own));
            }
        }
    }
    if lane == 0u {
        store_total(place, total);
    }
}
"#;

/// What is changed in the graph: each text stands in it once.
const CHANGES: [(&str, &str); 3] = [
    (
        r#""ffn_x": State("#,
        r#""seen": State(dtype: f32, per: "L", shape: ["B", "1"], init: 0.5),
        "ffn_x": State("#,
    ),
    (r#"Map("square(max(up, 0.0))""#, r#"Map("square(max(up, 0.0)) + 0.25 * tanh_safe(up)""#),
    (
        r#"Let("ffn_out", "ffn_value"),"#,
        r#"Op("row_mean", {
                "x": "ffn_value", "total": "state.seen.{layer}", "offsets": "in.offsets", "places": "in.places",
                "mean": "ffn_mean", "centred": "ffn_centred",
            }),
            Map("v + m * centred", {"v": "ffn_value", "m": "ffn_mean", "centred": "ffn_centred"}, "ffn_out"),"#,
    ),
];

const STATE: &str = "state.seen.1#1";
const KEPT: [&str; 7] = [
    "layer1.ffn_up",
    "layer1.ffn_key",
    "layer1.ffn_value",
    "layer1.ffn_mean",
    "layer1.ffn_centred",
    "layer1.ffn_out",
    STATE,
];

/// Sums of 128 and 512 elements in two orders, in f32; and a driver's `tanh`.
const TOLERANCE: f32 = 1e-5;

/// Tokens of a step; eight tokens are a step and three of the next one, with two of padding.
const STEP: usize = 5;

#[test]
fn new_kernel_and_changed_map_take_two_files_and_no_rust() {
    let dir = TempDir::new();
    write_files(&dir);
    let (graphs, shaders) = (dir.file("graphs"), dir.file("shaders"));
    let synth = synth();
    let checked = graphc(&["check", text(&graphs), "--shaders", text(&shaders), "--weights", text(&synth)]).fine();
    // The copy leaves out the graphs that are tools, so their kernel is one that no graph uses: a lint.
    assert!(checked.out.contains(" 0 errors, "), "{checked}");
    for executor in ["hal", "wgpu"] {
        if let Err(reason) = devices(executor) {
            skip(&reason);
            continue;
        }
        let first = run(&dir, executor, STEP);
        check_step(&first, STEP);
        assert_close("the first total", &[total(&first)], &[0.5 + sum(&values(&first, "layer1.ffn_mean")[..STEP])]);
        let second = run(&dir, executor, 8);
        check_step(&second, 8 - STEP);
        let means = values(&second, "layer1.ffn_mean");
        assert_close("the total after two steps", &[total(&second)], &[total(&first) + sum(&means[..3])]);
        assert_eq!(means[3..], [0.0; 2], "padding changes nothing");
    }
}

fn write_files(dir: &TempDir) {
    let write = |path: &Path, text: &str| {
        std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder is made");
        std::fs::write(path, text).expect("a file is written");
    };
    let mut graph =
        sources::graphs(None).expect("built in").into_iter().find(|(path, _)| path == "rwkv7.ron").expect("there").1;
    for (from, to) in CHANGES {
        assert_eq!(graph.matches(from).count(), 1, "`{from}`");
        graph = graph.replace(from, to);
    }
    write(&dir.file("graphs/changed.ron"), &graph);
    for (path, text) in sources::shaders(None).expect("built in") {
        write(&dir.file("shaders").join(path), &text);
    }
    write(&dir.file("shaders/row_mean.ron"), MANIFEST);
    write(&dir.file("shaders/row_mean.wgsl"), TEXT);
}

/// Runs a prompt; returns what was kept of its last step.
fn run(dir: &TempDir, executor: &str, token_count: usize) -> Checkpoint {
    let out = dir.file(&format!("{executor}-{token_count}.safetensors"));
    let tokens: Vec<String> = (0..token_count).map(|at| (7 + 31 * at).to_string()).collect();
    let (tokens, step) = (tokens.join(","), STEP.to_string());
    let (graphs, shaders, synth) = (dir.file("graphs"), dir.file("shaders"), synth());
    let mut args = vec!["run", "--graphs", text(&graphs), "--shaders", text(&shaders), "--weights", text(&synth)];
    args.extend([
        "--executor",
        executor,
        "--tokens",
        &tokens,
        "--step-tokens",
        &step,
        "-n",
        "0",
        "--logits",
        text(&out),
    ]);
    args.extend(KEPT.iter().flat_map(|value| ["--keep", value]));
    graphc(&args).fine();
    open(&out)
}

/// Recomputes the new ops of `rows` tokens from what went into them.
fn check_step(kept: &Checkpoint, rows: usize) {
    let rows_of = |name: &str, width: usize| {
        let mut values = values(kept, name);
        assert_eq!(values.len(), STEP * width, "`{name}`");
        values.truncate(rows * width);
        values
    };
    let key: Vec<f32> = rows_of("layer1.ffn_up", 512).iter().map(|up| up.max(0.0).powi(2) + 0.25 * up.tanh()).collect();
    assert_close("ffn_key", &rows_of("layer1.ffn_key", 512), &key);
    let value = rows_of("layer1.ffn_value", 128);
    let mean: Vec<f32> = value.chunks_exact(128).map(|row| sum(row) / 128.0).collect();
    assert_close("ffn_mean", &rows_of("layer1.ffn_mean", 1), &mean);
    let centred: Vec<f32> = value.iter().enumerate().map(|(at, value)| value - mean[at / 128]).collect();
    assert_close("ffn_centred", &rows_of("layer1.ffn_centred", 128), &centred);
    let out: Vec<f32> = value.iter().enumerate().map(|(at, value)| value + mean[at / 128] * centred[at]).collect();
    assert_close("ffn_out", &rows_of("layer1.ffn_out", 128), &out);
    assert!(mean.iter().any(|mean| mean.abs() > 100.0 * TOLERANCE), "means that are not zero anyway: {mean:?}");
}

fn total(kept: &Checkpoint) -> f32 {
    let tensor = kept.tensor(STATE).expect("kept");
    assert_eq!((tensor.dtype, &tensor.shape[..]), (DType::F32, &[1, 1][..]));
    tensor.to_f32()[0]
}

fn sum(values: &[f32]) -> f32 {
    values.iter().map(|value| f64::from(*value)).sum::<f64>() as f32
}

fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        let limit = TOLERANCE * expected.abs().max(1.0);
        assert!((found - expected).abs() <= limit, "{what}: {found}, expected {expected}");
    }
}
