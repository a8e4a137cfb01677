//! Every text of the product, for sizes around its tiles, against the same product in float64.
//!
//! Gets a graph of nothing but that product, the kernel's manifest with one of its variants alone, and random weights
//! in each storage format. What then holds: whatever the number of tokens, of rows and of inputs, each element is right
//! within a rounding error of its own row's size; also where a token's inputs are beyond what halves reach, or below.
//! A text that needs cooperative matrices is taken where the device has them, and the weight is what they multiply.

mod support;

use graphc::base::dtype::DType;
use graphc::base::limits::Limits;
use graphc::checkpoint::Checkpoint;
use graphc::compile::Compiler;
use graphc::exec::Executor;
use graphc::exec::reference::{ReferenceExecutor, ReferenceOptions};
use graphc::generate::Rows;
use graphc::sources;
use graphc::tensor;
use support::runner::{AnyExecutor, Kind, Program, all_rows, compile, decoder};

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
        Op("linear", {"x": "x", "weight": "w.weight", "y": "y"}),
        Op("gather_rows", {"x": "y", "rows": "in.rows", "y": "logits"}),
    ],
)
"#;

/// A product of 16 tokens and 16 rows by cooperative matrices, of halves of x alone.
const MATRICES: &str = "enable f16;
enable wgpu_cooperative_matrix;
override T: u32;
override I: u32;
override O: u32;
var<workgroup> left: array<f16, 256>;
var<workgroup> right: array<f16, 256>;
var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var sum: coop_mat16x16<f32, C>;
    for (var k = 0u; k < I; k += 16u) {
        workgroupBarrier();
        for (var n = lane; n < 256u; n += 32u) {
            left[n] = f16(load_x(min(group.y * 16u + n / 16u, T - 1u) * I + k + n % 16u));
            right[n] = f16(load_weight(min(group.x * 16u + n / 16u, O - 1u) * I + k + n % 16u));
        }
        workgroupBarrier();
        let a = coopLoadT<coop_mat16x16<f16, A>>(&left[0], 16u);
        let b = coopLoad<coop_mat16x16<f16, B>>(&right[0], 16u);
        sum = coopMultiplyAdd(a, b, sum);
    }
    coopStoreT(sum, &sums[0], 16u);
    workgroupBarrier();
    for (var n = lane; n < 256u; n += 32u) {
        if group.y * 16u + n / 16u < T && group.x * 16u + n % 16u < O {
            store_y((group.y * 16u + n / 16u) * O + group.x * 16u + n % 16u, sums[n]);
        }
    }
}
";

/// A product's size: tokens, inputs, rows of the weight.
type Size = (usize, usize, usize);

/// On and beside the edges of tiles, with inputs as few as those of low-rank adapters.
const SIZES: [Size; 9] = [
    (1, 24, 1000),
    (15, 8, 65),
    (16, 40, 63),
    (17, 192, 192),
    (63, 200, 17),
    (64, 256, 64),
    (65, 72, 1000),
    (129, 24, 129),
    (130, 264, 257),
];

/// An element may be off by this, times the sum of the magnitudes that went into it: a few roundings of f32.
const LIMIT: f64 = 4e-7;

/// Of the weight, in turn by size.
const FORMATS: [DType; 3] = [DType::F16, DType::Bf16, DType::F32];

/// Products that the reference executor is given at most, for the time that it takes.
const REFERENCE_PRODUCTS: usize = 700_000;

/// A number from -1 to 1 for every index, with 11 bits, so that every format but bf16 has it.
fn number(at: usize, salt: u32) -> f32 {
    let mixed = (at as u32 ^ salt).wrapping_mul(2_654_435_761);
    ((mixed ^ (mixed >> 15)).wrapping_mul(2_246_822_519) >> 21) as f32 / 1024.0 - 1.0
}

/// Magnitudes of tokens' inputs: what layer norms give, and what lies far off.
const MAGNITUDES: [f32; 5] = [3.0, 1.0, 3e6, 2e-7, 0.3];

/// Inputs of a token, which are not of few bits.
fn input(token: usize, at: usize, inputs: usize) -> f32 {
    number(token * inputs + at, 77) * MAGNITUDES[token % MAGNITUDES.len()] * 0.7
}

fn checkpoint((tokens, inputs, rows): Size, dtype: DType) -> Checkpoint {
    let start: Vec<f32> = (0..tokens * inputs).map(|at| input(at / inputs, at % inputs, inputs)).collect();
    let weight: Vec<f32> = (0..rows * inputs).map(|at| number(at, 5)).collect();
    let stored = match dtype {
        DType::F16 => safetensors::Dtype::F16,
        DType::Bf16 => safetensors::Dtype::BF16,
        _ => safetensors::Dtype::F32,
    };
    let (start, weight) = (tensor::from_f32(DType::F32, &start), tensor::from_f32(dtype, &weight));
    let view =
        |rows, dtype, bytes| safetensors::tensor::TensorView::new(dtype, vec![rows, inputs], bytes).expect("sound");
    let tensors = [("start", view(tokens, safetensors::Dtype::F32, &start)), ("weight", view(rows, stored, &weight))];
    let file = safetensors::serialize(tensors, None).expect("sound");
    Checkpoint::from_static("product", file.leak()).expect("sound")
}

/// What a text may be given, apart from what only speed asks for.
struct Text {
    source: String,
    /// Its part of the manifest, with a guard that always holds.
    variant: String,
    by_eights: bool,
    by_subgroups: bool,
    by_octets: bool,
    of_one_token: bool,
}

/// The texts of the manifest, in its order; the last has no guard.
fn texts(manifest: &str) -> Vec<Text> {
    let mut texts = Vec::new();
    for part in manifest.split("Variant(").skip(1) {
        let guard = part.split("when: \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a guard");
        let source = part.split("source: \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a source");
        let end = part.find("\n        )").expect("one variant a few lines");
        texts.push(Text {
            source: source.to_owned(),
            variant: format!("Variant({}\n        ),", part[..end].replace(guard, "T > 0")),
            by_eights: guard.contains("I % 8 == 0"),
            by_subgroups: guard.contains("&& subgroups"),
            by_octets: guard.contains("&& octets"),
            of_one_token: guard.contains("T == 1"),
        });
    }
    let variant = String::new();
    let source = "linear.wgsl".to_owned();
    texts.push(Text { source, variant, by_eights: false, by_subgroups: false, by_octets: false, of_one_token: false });
    texts
}

/// The program in which the product has this text alone.
fn program(shaders: &[(String, String)], text: &Text) -> Program {
    let mut shaders = shaders.to_vec();
    let (_, manifest) = shaders.iter_mut().find(|(path, _)| path == "linear.ron").expect("built in");
    let before = manifest.split("\n    variants: [").next().expect("the manifest");
    // What the manifest leaves open names texts that are left out here.
    let (head, open) = before.split_once("    tune: Tune(").expect("something is left open");
    let before = format!("{head}{}\n", open.split_once("\n    ),\n").expect("its end").1);
    *manifest = format!("{before}    variants: [{}],\n)\n", text.variant);
    Program::parse("product.ron", GRAPH.to_owned(), &shaders)
}

fn check(executor: &AnyExecutor, program: &Program, size: Size, dtype: DType, what: &str) {
    let (tokens, inputs, rows) = size;
    let checkpoint = checkpoint(size, dtype);
    let limits = executor.device().limits.clone();
    let compiler = program.compiler(checkpoint.index(), &limits, &[]);
    // Every id is one of the vocabulary, which is the rows of the weight.
    let ids: Vec<u32> = (0..tokens).map(|at| (at % rows) as u32).collect();
    let (logits, _) = decoder(executor, compiler, &checkpoint, &[tokens as u32])
        .run(&ids, Rows::All)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let weight: Vec<f32> = (0..rows * inputs).map(|at| number(at, 5)).collect();
    let weight = tensor::to_f32(dtype, &tensor::from_f32(dtype, &weight));
    for (token, found) in ids.iter().map(|id| *id as usize).zip(&logits) {
        assert_eq!(found.len(), rows);
        for (row, found) in found.iter().enumerate() {
            let products =
                (0..inputs).map(|at| f64::from(input(token, at, inputs)) * f64::from(weight[row * inputs + at]));
            let (sum, size) = products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + product.abs()));
            let off = (f64::from(*found) - sum).abs();
            assert!(off <= LIMIT * size, "{what}, {dtype}, {size:?}, token {token}, row {row}: {found}, {sum}");
        }
    }
}

#[test]
fn every_text_is_right_at_every_size() {
    let shaders = sources::shaders(None).expect("built in");
    let (_, manifest) = shaders.iter().find(|(path, _)| path == "linear.ron").expect("built in");
    let texts = texts(manifest);
    assert!(texts.len() > 4, "the manifest was read");
    let mut executors: Vec<(String, AnyExecutor)> = Vec::new();
    for (kind, device) in [(Kind::Hal, "llvmpipe"), (Kind::Wgpu, "SwiftShader")] {
        let Some(executor) = AnyExecutor::find(kind, device) else { continue };
        executors.push((format!("{kind:?} on {device}"), executor));
    }
    executors.extend(AnyExecutor::find(Kind::Reference, "").map(|executor| ("the reference".to_owned(), executor)));
    let octets = ReferenceOptions { subgroup_size: 8, ..ReferenceOptions::new() };
    let octets = ReferenceExecutor::new(&octets, None).expect("there is a CPU");
    executors.push(("the reference by eight lanes".to_owned(), AnyExecutor::Reference(octets)));
    for text in &texts {
        let program = program(&shaders, text);
        let mut ran = 0;
        for (name, executor) in &executors {
            let limits = &executor.device().limits;
            if (text.by_subgroups && !limits.subgroups) || (text.by_octets && !limits.octets) {
                continue;
            }
            for (nth, size) in SIZES.into_iter().enumerate() {
                // What takes the inputs one by one also takes any number of them.
                let size = if text.by_eights { size } else { (size.0, size.1 - 1, size.2) };
                let size = if text.of_one_token { (1, size.1, size.2) } else { size };
                if matches!(executor, AnyExecutor::Reference(_)) && size.0 * size.1 * size.2 > REFERENCE_PRODUCTS {
                    continue;
                }
                check(executor, &program, size, FORMATS[nth % FORMATS.len()], &format!("{} {name}", text.source));
            }
            ran += 1;
        }
        assert!(ran > 0, "{} runs on no device", text.source);
    }
}

#[test]
fn matrices_are_taken_for_halves_where_the_device_has_them() {
    let mut shaders = sources::shaders(None).expect("built in");
    let (_, manifest) = shaders.iter_mut().find(|(path, _)| path == "linear.ron").expect("built in");
    *manifest = manifest.replace(
        "\n    variants: [",
        "\n    variants: [Variant(when: \"T >= 48 && cooperative_matrix && weight_is_f16\", source: \"matrices.wgsl\", \
         dispatch: [\"ceil_div(O, 16)\", \"ceil_div(T, 16)\"], batch_invariant: false),",
    );
    shaders.push(("matrices.wgsl".to_owned(), MATRICES.to_owned()));
    let program = Program::parse("product.ron", GRAPH.to_owned(), &shaders);
    let plain = Limits { min_subgroup_size: 32, ..Limits::vulkan() };
    let offered = Limits { cooperative_matrix: true, ..plain.clone() };
    let takes = |tokens, dtype, limits, batch_invariant| {
        let checkpoint = checkpoint((tokens, 64, 64), dtype);
        let compiler = Compiler { batch_invariant, ..program.compiler(checkpoint.index(), limits, &[]) };
        let plan = compile(&compiler, all_rows(tokens as u32));
        let takes = plan.kernels.values().any(|kernel| kernel.needs_cooperative_matrix);
        let needs_more = plain.missing_for(&plan.limits).iter().any(|what| what.contains("cooperative_matrix"));
        assert_eq!(needs_more, takes, "the plan says what it needs");
        takes
    };
    assert!(takes(64, DType::F16, &offered, false));
    assert!(!takes(64, DType::F16, &plain, false));
    assert!(!takes(64, DType::Bf16, &offered, false));
    assert!(!takes(64, DType::F32, &offered, false));
    assert!(!takes(64, DType::F16, &offered, true));
    assert!(!takes(1, DType::F16, &offered, false));
}
