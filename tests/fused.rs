//! What fusing leaves computes the same: every rule by itself, whole models, and maps in the ops around them.
//!
//! Gets the built-in rules and graphs, stored reference values, random models and random graphs. What then holds: each
//! rule is applied in its examples and to a graph that ships, results are within rounding of those of the graph as it
//! is written and of stored values, and a rule that is wrong or idle is found. Devices that are missing are skipped.

mod program;
mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use graphc::base::dtype::DType;
use graphc::base::limits::Limits;
use graphc::base::role::InputRole;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::compile::{Compiled, Compiler};
use graphc::exec::reference::{ReferenceExecutor, ReferenceOptions, ReferenceSession};
use graphc::exec::{DeviceInfo, ExecError, Executor, Inputs, Progress, Session, Weights};
use graphc::fuse::Rules;
use graphc::generate::Rows;
use graphc::generate::batch::{Batch, Feed};
use graphc::inspect::verify::TOLERANCE;
use graphc::inspect::verify::{Trace, rules, trace};
use graphc::plan::command::Command;
use graphc::plan::weights::StateLayout;
use graphc::sources;
use graphc::tensor::{Tensor, from_f32};
use program::{graphc_with, text};
use support::models::{Format, Layout, Shape, Version, write_version};
use support::runner::{AnyExecutor, DEVICES, KINDS, Kind, Program, Ran, all_rows, decoder, run};
use support::{TempDir, assert_step, case_tensors, cases, max_difference, open, reference, skip, values};

const NO_DEVICE: [(&str, &str); 2] = [("VK_ICD_FILENAMES", "/nonexistent"), ("VK_DRIVER_FILES", "/nonexistent")];

#[test]
fn every_rule_by_itself() {
    let ran = graphc_with(&["verify", "--rules", "--format", "json"], &NO_DEVICE).fine();
    let report: serde_json::Value = serde_json::from_str(&ran.out).expect("one JSON object");
    let found = report["rules"].as_array().expect("a list");
    assert_eq!(found.len(), sources::rewrites(None).expect("built in").len(), "{report}");
    for rule in found {
        assert!(rule["shapes"].as_u64().is_some_and(|shapes| shapes >= 3), "{rule}");
        assert!(rule["difference"].as_f64().is_some_and(|difference| difference <= f64::from(TOLERANCE)), "{rule}");
    }
}

/// Kernels that rules put in are for one token; a graph that names one itself gets it for one token, and a reason else.
#[test]
fn kernels_of_rules_say_what_they_are_not_for() {
    let graphs = sources::graphs(None).expect("built in");
    let (_, graph) = graphs.into_iter().find(|(path, _)| path == "rwkv7.ron").expect("there");
    let (norm, product) = (r#"Op("layer_norm", {"x": "x_last", "weight""#, r#"Op("linear", {"x": "ln_out", "weight""#);
    let (before, rest) = graph.split_once(norm).expect("there");
    let (_, after) = rest.split_once(product).expect("behind it");
    let named = r#"Op("norm_linear", {
            "x": "x_last", "ln_weight": "w.ln_out.weight", "ln_bias": "w.ln_out.bias", "weight""#;
    let dir = TempDir::new();
    let path = dir.file("named.ron");
    std::fs::write(&path, [before, named, after].concat()).expect("written");
    let compile = |rows: &str| graphc_with(&["compile", text(&path), "--tokens", "2", "--rows", rows], &NO_DEVICE);
    compile("1").fine();
    compile("2").fails(1, &["`norm_linear` cannot compute this: it needs `T == 1`", "named.ron", "here, `T` is 2"]);
}

/// A pattern, and the same with one operand of another sign.
const HALF_WRONG: &str = r#"Rewrite(
    shapes: {"x": ["T", "C"]},
    when: "C WHEN",
    examples: [{"C": 16}, {"C": 30}],
    pattern: [
        Op("layer_norm", {"x": "x", "weight": "w.a", "bias": "w.b", "y": "n"}),
        Map("n * c + d", {"n": "n", "c": "w.c", "d": "w.d"}, "y"),
    ],
    replacement: [
        Op("layer_norm", {"x": "x", "weight": "w.a", "bias": "w.b", "y": "n"}),
        Map("n * c SIGN d", {"n": "n", "c": "w.c", "d": "w.d"}, "y"),
    ],
)
"#;

#[test]
fn a_rule_that_is_wrong_or_idle_is_found() {
    let dir = TempDir::new();
    std::fs::create_dir_all(dir.file("rewrites")).expect("a folder");
    let verify = |sign: &str, when: &str| {
        let rule = HALF_WRONG.replace("SIGN", sign).replace("WHEN", when);
        std::fs::write(dir.file("rewrites/half.ron"), rule).expect("written");
        let folder = dir.file("");
        graphc_with(&["verify", "--rules", "--graphs", text(&folder)], &NO_DEVICE)
    };
    verify("+", "> 0").fine();
    verify("-", "> 0").fails_with_result(1, "half", &["rule `half`, C=30, f16", "results differ by"]);
    verify("+", "< 20").fails_with_result(1, "half", &["C=30", "it is not applied in the sizes of its example"]);
}

fn random_model(version: Version, shape: &Shape, format: &Format) -> Checkpoint {
    let dir = TempDir::new();
    let path = dir.file("model.safetensors");
    write_version(&path, version, shape, 11, format).expect("written");
    // The file stays mapped.
    open(&path)
}

const fn shape(layers: usize, [heads, head_size]: [usize; 2], ffn: usize, ranks: [usize; 4]) -> Shape {
    let [rank_w, rank_a, rank_v, rank_g] = ranks;
    Shape { layers, heads, head_size, ffn, vocab: 1000, rank_w, rank_a, rank_v, rank_g }
}

#[test]
fn every_rule_is_applied_to_a_graph_that_ships() {
    let vulkan = Limits::vulkan();
    let mut matrices = Limits { cooperative_matrix: true, ..vulkan.clone() };
    (matrices.min_subgroup_size, matrices.max_storage_buffers_per_dispatch) = (32, 16);
    let large = Limits {
        max_invocations_per_workgroup: 1024,
        max_workgroup_size: [1024; 3],
        max_workgroup_storage_bytes: 49152,
        ..matrices.clone()
    };
    let mut applied = BTreeSet::new();
    let mut all = BTreeSet::new();
    // A hidden activation that is no multiple of eight is for a rule of its own; so are steps that draw, and many
    // tokens where there are matrices.
    let cases = [(128, 1, false), (130, 1, false), (128, 1, true), (512, 48, false), (16, 1, false)];
    for ((name, version), (ffn, tokens, draws)) in
        Version::ALL.into_iter().flat_map(|version| cases.map(|case| (version, case)))
    {
        // Matrices are of 16 rows, and of weights too large to be packed with others.
        let (heads, ranks) = if tokens == 1 { (2, [8; 4]) } else { (3, [16; 4]) };
        // One is for rows of 2048, and wide subgroups.
        let (layers, heads) = if ffn == 16 { (1, 32) } else { (2, heads) };
        let checkpoint = random_model(version, &shape(layers, [heads, 64], ffn, ranks), &Format::converted(DType::F16));
        let program = Program::built_in(name, &[]).fused();
        if draws && program.graph.carry.is_none() {
            continue;
        }
        let limits = match (tokens, ffn) {
            (1, 16) => &large,
            (1, _) => &vulkan,
            _ => &matrices,
        };
        let compiler = Compiler { draws, ..program.compiler(checkpoint.index(), limits, &[]) };
        let compiled = compiler.compile(StepShape { tokens, sequences: 1, rows: 1, capacity: 1 });
        let compiled = compiled.unwrap_or_else(|error| panic!("{name}: {error}"));
        println!("{name}: {:?}", compiled.applied);
        all.extend(compiled.applied.rules.iter().map(|(rule, _)| rule.clone()));
        applied.extend(compiled.applied.rules.into_iter().filter(|(_, count)| *count > 0).map(|(rule, _)| rule));
    }
    assert_eq!(applied, all);
    assert_eq!(all.len(), sources::rewrites(None).expect("built in").len());
}

#[test]
fn a_layer_of_rwkv7_takes_few_levels() {
    let mut matrices = Limits { cooperative_matrix: true, ..Limits::vulkan() };
    (matrices.min_subgroup_size, matrices.max_storage_buffers_per_dispatch) = (32, 16);
    let program = Program::built_in("rwkv7", &[]).fused();
    let cost = |layers, tokens, limits: &Limits| {
        let model = random_model(Version::V7, &shape(layers, [3, 64], 512, [16; 4]), &Format::converted(DType::F16));
        let compiler = program.compiler(model.index(), limits, &[]);
        let compiled = compiler.compile(StepShape { tokens, sequences: 1, rows: 1, capacity: 1 });
        let plan = compiled.unwrap_or_else(|error| panic!("{error}")).plan;
        (plan.levels.len(), plan.commands().filter(|command| matches!(command, Command::Dispatch(_))).count())
    };
    for (tokens, limits, [levels, dispatches]) in [(1, &Limits::vulkan(), [5, 5]), (64, &matrices, [13, 15])] {
        let (two, three) = (cost(2, tokens, limits), cost(3, tokens, limits));
        assert_eq!([three.0 - two.0, three.1 - two.1], [levels, dispatches], "{tokens} tokens");
    }
}

#[test]
fn small_models_are_planned_for_matrices_too() {
    let mut matrices = Limits { cooperative_matrix: true, max_workgroup_storage_bytes: 49152, ..Limits::vulkan() };
    (matrices.min_subgroup_size, matrices.max_storage_buffers_per_dispatch) = (32, 16);
    (matrices.max_invocations_per_workgroup, matrices.max_workgroup_size) = (1024, [1024; 3]);
    // Weights of up to 16384 halves are packed with others, where no text can bind them by itself.
    for (heads, ffn, has_matrices) in [(1, 96, false), (1, 288, true), (2, 96, false), (2, 160, true), (3, 96, true)] {
        let shape = Shape { vocab: 64, ..shape(2, [heads, 64], ffn, [16; 4]) };
        for (name, version) in Version::ALL {
            let checkpoint = random_model(version, &shape, &Format::converted(DType::F16));
            let program = Program::built_in(name, &[]).fused();
            let compiler = program.compiler(checkpoint.index(), &matrices, &[]);
            for tokens in [48, 64, 96, 128, 256] {
                let compiled = compiler.compile(StepShape { tokens, sequences: 1, rows: 1, capacity: 1 });
                let plan = compiled.unwrap_or_else(|error| panic!("{name}, {heads} heads, {ffn}: {error}")).plan;
                let found = plan.kernels.values().any(|kernel| kernel.needs_cooperative_matrix);
                assert_eq!(found, has_matrices, "{name}, {heads} heads, {ffn}, {tokens} tokens");
            }
        }
    }
}

#[test]
fn a_plan_beside_another_is_the_one_that_is_made_alone() {
    let checkpoint = random_model(Version::V7, &shape(3, [2, 64], 128, [8; 4]), &Format::converted(DType::F16));
    let program = Program::built_in("rwkv7", &[]).fused();
    let limits = Limits::vulkan();
    for (draws, sequences) in [(false, 1), (true, 1), (false, 3)] {
        let compiler = Compiler { draws, ..program.compiler(checkpoint.index(), &limits, &[]) };
        let of = |tokens, sequences| StepShape { tokens, sequences, rows: sequences, capacity: 3 };
        let first = compiler.compile(of(1, 1)).unwrap_or_else(|error| panic!("{error}"));
        for shape in [of(sequences, sequences), of(16, sequences)] {
            let alone = compiler.compile(shape).unwrap_or_else(|error| panic!("{error}"));
            let beside = compiler.compile_beside(shape, &first.agreed).unwrap_or_else(|error| panic!("{error}"));
            assert!(*alone.plan == *beside.plan, "{shape:?}");
        }
        // What steps of the other kind agree on does not count where they have more states.
        let other = Compiler { draws: !draws, ..compiler };
        let alone = other.compile(of(1, 1)).unwrap_or_else(|error| panic!("{error}"));
        let beside = other.compile_beside(of(1, 1), &first.agreed).unwrap_or_else(|error| panic!("{error}"));
        assert!(*alone.plan == *beside.plan);
    }
}

/// Logits and states, as `agree` and `family` hold them without fusing.
const LIMIT: f64 = 1e-4;

/// The most tokens of a case that are run.
const MOST_TOKENS: usize = 24;

fn check_stored(graph: &str, model: &str, kind: Kind, device: &str) {
    let Some(dir) = reference(model) else {
        return skip(&format!("no reference model `{model}`; `GRAPHC_REFERENCE_DIR` names the folder it is in"));
    };
    let Some(executor) = AnyExecutor::find(kind, device) else { return };
    let (checkpoint, expected) = (open(&dir.join("model.safetensors")), case_tensors(&dir));
    let program = Program::built_in(graph, &[]).fused();
    let limits = executor.device().limits.clone();
    let mut decoder = decoder(&executor, program.compiler(checkpoint.index(), &limits, &[]), &checkpoint, &[1]);
    let mut has_states = false;
    for case in cases(&dir) {
        let tokens = &case.tokens[..case.tokens.len().min(MOST_TOKENS)];
        let ran = run(&mut decoder, tokens, &[1]);
        let logits = values(&expected, &format!("{}.logits", case.id));
        let found: Vec<f64> = ran.logits.concat().into_iter().map(f64::from).collect();
        let distance = max_difference(&found, &logits[..found.len()]);
        let what = format!("{model}, {}, {kind:?} on {device}", case.id);
        println!("{what}: logits within {distance:.1e}");
        assert!(distance <= LIMIT, "{what}: logits are off by {distance:.1e}");
        for (label, state) in ran.states.iter().filter(|_| tokens.len() == case.tokens.len()) {
            let (name, layer) = label.split_once('.').expect("a name and a layer");
            let stored = values(&expected, &format!("{}.state.{layer}.{name}", case.id));
            let state: Vec<f64> = state.iter().copied().map(f64::from).collect();
            assert_step(&format!("{what}: state {label}"), &state, &stored, 1e-4);
            has_states = true;
        }
    }
    assert!(has_states, "{model}: a case is as short as what is run of it");
}

#[test]
fn stored_models_on_devices() {
    for device in DEVICES {
        KINDS.iter().for_each(|kind| check_stored("rwkv7", "synth-v7", *kind, device));
    }
    check_stored("rwkv7", "7v0", Kind::Hal, DEVICES[0]);
    for (graph, model) in [("rwkv4", "synth-v4"), ("rwkv5.2", "synth-v5.2"), ("rwkv6", "synth-v6")] {
        check_stored(graph, model, Kind::Hal, DEVICES[0]);
    }
}

#[test]
fn stored_models_on_the_cpu() {
    for (graph, model) in [
        ("rwkv7", "synth-v7"),
        ("rwkv4", "synth-v4"),
        ("rwkv5.2", "synth-v5.2"),
        ("rwkv6", "synth-v6"),
        ("rwkv7", "7v0"),
    ] {
        check_stored(graph, model, Kind::Reference, "");
    }
}

#[test]
fn models_of_every_version_fused_and_unfused() {
    let executor = AnyExecutor::find(Kind::Reference, "").expect("the CPU is always there");
    let limits = executor.device().limits.clone();
    let tokens: Vec<u32> = (0..10).map(|at| (at * at * 37 + 5) % 1000).collect();
    let formats = [Format::converted(DType::F16), Format::raw(DType::Bf16)];
    for ((name, version), format) in
        Version::ALL.into_iter().flat_map(|version| formats.map(|format| (version, format)))
    {
        let checkpoint = random_model(version, &shape(3, [3, 32], 136, [8, 8, 16, 24]), &format);
        let programs = [Program::built_in(name, &[]), Program::built_in(name, &[]).fused()];
        let [one, other] = programs.each_ref().map(|program| {
            let compiler = program.compiler(checkpoint.index(), &limits, &[]);
            run(&mut decoder(&executor, compiler, &checkpoint, &[1, 4]), &tokens, &[1, 1, 1, 4])
        });
        let distance = one.distance(&other);
        println!("{name}, {}: {distance:.1e} apart", format.dtype);
        assert!(distance <= TOLERANCE, "{name}, {}: {distance:.1e} apart", format.dtype);
    }
}

#[test]
fn odd_models_fused_and_unfused() {
    let executor = AnyExecutor::find(Kind::Reference, "").expect("the CPU is always there");
    let limits = executor.device().limits.clone();
    let squeezed = |format| Format { squeeze: true, ..format };
    let (converted, raw) = (Format::converted, Format::raw);
    let odd = [
        (shape(2, [1, 16], 56, [8, 8, 8, 8]), converted(DType::F32)),
        (shape(2, [3, 16], 72, [8, 24, 40, 8]), raw(DType::Bf16)),
        (shape(3, [3, 32], 130, [24, 40, 8, 24]), squeezed(converted(DType::F16))),
        (shape(2, [1, 64], 256, [40, 8, 24, 40]), squeezed(raw(DType::F16))),
        (shape(2, [3, 64], 96, [24, 24, 24, 24]), converted(DType::Bf16)),
        (shape(2, [2, 10], 40, [7, 8, 8, 8]), raw(DType::F32)),
    ];
    let tokens: Vec<u32> = (0..12).map(|at| (at * at * 37 + 5) % 1000).collect();
    for (shape, format) in odd {
        let checkpoint = random_model(Version::V7, &shape, &format);
        let what = format!("{shape:?}, {:?}, {}", format.dtype, format.layout == Layout::Raw);
        let program = Program::built_in("rwkv7", &[]);
        let fused = Program::built_in("rwkv7", &[]).fused();
        // Token by token, and after a step of several.
        let rans: Vec<Ran> = [&program, &fused]
            .into_iter()
            .map(|program| {
                let compiler = program.compiler(checkpoint.index(), &limits, &[]);
                run(&mut decoder(&executor, compiler, &checkpoint, &[1, 4]), &tokens, &[1, 1, 1, 4])
            })
            .collect();
        let distance = rans[0].distance(&rans[1]);
        println!("{what}: {distance:.1e} apart");
        assert!(distance <= TOLERANCE, "{what}: {distance:.1e} apart");
    }
}

/// The built-in rules, of which the one for sparse products is applied on every device and in every size, to steps of
/// `steps` tokens.
fn sparse_everywhere(steps: &str) -> Vec<(String, String)> {
    let mut rules = sources::rewrites(None).expect("built in");
    let (_, sparse) = rules.iter_mut().find(|(path, _)| path.ends_with("sparse_channel_mix.ron")).expect("the rule");
    for (from, to) in [
        ("T == 1 && S == 1", steps),
        (" && subgroup_size >= 32", ""),
        ("pays: \"C >= 2048 && max_invocations >= 1024 && workgroup_bytes >= 32768\",", ""),
    ] {
        assert!(sparse.contains(from), "{from}");
        *sparse = sparse.replace(from, to);
    }
    rules
}

/// Steps of one token read a weight by columns, those of several by rows, in one session.
#[test]
fn weights_by_columns_compute_the_same() {
    let tokens: Vec<u32> = (0..12).map(|at| (at * at * 37 + 5) % 1000).collect();
    let formats = [Format::converted(DType::F16), Format::raw(DType::Bf16), Format::converted(DType::F32)];
    for (kind, device) in [(Kind::Reference, ""), (Kind::Hal, DEVICES[0]), (Kind::Hal, DEVICES[1])] {
        let Some(executor) = AnyExecutor::find(kind, device) else { continue };
        let limits = executor.device().limits.clone();
        for ((name, version), format) in
            Version::ALL.into_iter().zip(formats.iter().cycle()).filter(|_| kind == Kind::Reference).chain(
                formats.iter().map(|format| (("rwkv7", Version::V7), format)).filter(|_| kind != Kind::Reference),
            )
        {
            let checkpoint = random_model(version, &shape(2, [3, 16], 136, [8, 24, 40, 8]), format);
            let program = Program::built_in(name, &[]);
            let sparse = Program::built_in(name, &[]).fused_by(&sparse_everywhere("T == 1 && S == 1"));
            let one_token = sparse.compiler(checkpoint.index(), &limits, &[]).compile(all_rows(1));
            let compiled = one_token.unwrap_or_else(|error| panic!("{error}"));
            let times =
                compiled.applied.rules.iter().find(|(rule, _)| rule == "sparse_channel_mix").expect("the rule").1;
            assert_eq!(times, 2, "{name}");
            let copies = compiled.plan.weights.buffers.iter().filter(|buffer| buffer.label.ends_with(" by columns"));
            assert_eq!(copies.count(), 2, "{name}");
            let rans = [&program, &sparse].map(|program| {
                let compiler = program.compiler(checkpoint.index(), &limits, &[]);
                run(&mut decoder(&executor, compiler, &checkpoint, &[1, 4]), &tokens, &[1, 1, 1, 4])
            });
            let distance = rans[0].distance(&rans[1]);
            println!("{name}, {}, {kind:?} on {device}: {distance:.1e} apart", format.dtype);
            assert!(distance <= TOLERANCE, "{name}, {}: {distance:.1e} apart", format.dtype);
        }
    }
}

/// Plans of a session agree on what lies by columns, and steps of one token say what.
#[test]
fn weights_lie_by_columns_as_steps_of_one_token_read_them() {
    let checkpoint = random_model(Version::V7, &shape(2, [2, 64], 128, [8; 4]), &Format::converted(DType::F16));
    let rules = sparse_everywhere("T == 1 && S == 1 && R == 2");
    let program = Program::built_in("rwkv7", &[]).fused_by(&rules);
    let limits = Limits::vulkan();
    let compiler = program.compiler(checkpoint.index(), &limits, &[]);
    compiler.compile(all_rows(1)).unwrap_or_else(|error| panic!("{error}"));
    let error = compiler.compile(StepShape { rows: 2, ..all_rows(1) }).expect_err("no copy is there").to_string();
    let said =
        "`sparse_linear_keep+map` reads weight `blocks.0.ffn.value.weight` by columns in a step of 1 tokens and 2 rows";
    assert!(error.contains(said), "{error}");
}

/// The CPU, with little memory.
struct Small {
    executor: ReferenceExecutor,
    weight_bytes: u64,
}

impl Executor for Small {
    type Session = ReferenceSession;

    fn device(&self) -> &DeviceInfo {
        self.executor.device()
    }

    fn keep_pipelines(&mut self, _: Option<&[u8]>) {}

    fn kept_pipelines(&self) -> Option<Vec<u8>> {
        None
    }

    fn open(
        &self,
        weights: &Weights<'_>,
        state: &StateLayout,
        progress: Progress<'_>,
    ) -> Result<ReferenceSession, ExecError> {
        if weights.layout.size_bytes() > self.weight_bytes {
            return Err(ExecError::OutOfMemory { what: "weights".to_owned() });
        }
        self.executor.open(weights, state, progress)
    }
}

/// Where there is no memory for copies of weights, steps do without, and compute the same.
#[test]
fn copies_are_left_out_where_memory_is_short() {
    let checkpoint = random_model(Version::V7, &shape(2, [2, 64], 128, [8; 4]), &Format::converted(DType::F16));
    let program = Program::built_in("rwkv7", &[]).fused_by(&sparse_everywhere("T == 1 && S == 1"));
    let executor = ReferenceExecutor::new(&ReferenceOptions::new(), None).expect("the CPU is always there");
    let limits = executor.device().limits.clone();
    let compiler = Compiler { batch_invariant: false, ..program.compiler(checkpoint.index(), &limits, &[]) };
    let with = compiler.compile(all_rows(1)).unwrap_or_else(|error| panic!("{error}"));
    let without = Compiler { copies: false, ..compiler }.compile(all_rows(1)).unwrap_or_else(|error| panic!("{error}"));
    let [most, least] = [&with, &without].map(|compiled| compiled.plan.weights.size_bytes());
    assert_eq!(most, least + 2 * 128 * 128 * 2, "a copy of a matrix of halves in each of two layers");
    let mut small = Small { executor, weight_bytes: most };
    let mut logits = Vec::new();
    for (weight_bytes, lacks_copies) in [(most, false), (most - 1, true), (least, true)] {
        small.weight_bytes = weight_bytes;
        let mut batch = Batch::open(&small, compiler, &checkpoint, (1, vec![1, 4]), &mut |_, _| ())
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(batch.lacks_copies(), lacks_copies);
        let sequence = batch.join().expect("there is room");
        let feed = Feed { sequence, tokens: &[5, 6, 7] };
        let (rows, _) = batch.run(&[feed], Rows::All).unwrap_or_else(|error| panic!("{error}"));
        logits.push(rows.concat().concat());
    }
    let distance = logits[0].iter().zip(&logits[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(distance <= 1e-4, "{distance:.1e} apart");
    assert_eq!(logits[1], logits[2]);
    small.weight_bytes = least - 1;
    let opened = Batch::open(&small, compiler, &checkpoint, (1, vec![1]), &mut |_, _| ());
    let error = opened.err().expect("no memory at all");
    assert!(error.to_string().contains("out of device memory"), "{error}");
}

/// Sizes of the random graphs: what maps broadcast to.
const WIDTH: u64 = 24;

/// A graph's text, the names and shapes of its weights, and the values to keep.
type RandomGraph = (String, Vec<(String, Vec<u64>)>, Vec<String>);

/// A random graph of products, norms and maps; its weights; and values to keep.
fn random_graph(random: &mut fastrand::Rng) -> RandomGraph {
    let mut weights = vec![("table".to_owned(), vec![9, WIDTH])];
    let mut ops = "Op(\"embed\", {\"tokens\": \"in.tokens\", \"table\": \"w.table\", \"y\": \"v0\"}),\n".to_owned();
    let mut values = vec!["v0".to_owned()];
    for at in 1..12 {
        let y = format!("v{at}");
        // Mostly what came last, so that chains arise.
        let back = if random.bool() { 1 } else { random.usize(1..=values.len().min(4)) };
        let x = values[values.len() - back].clone();
        let mut weight = |shape: Vec<u64>| {
            weights.push((format!("p{}", weights.len()), shape));
            format!("w.p{}", weights.len() - 1)
        };
        match random.u32(0..8) {
            0 => {
                let w = weight(vec![WIDTH, WIDTH]);
                let _ = writeln!(ops, "Op(\"linear\", {{\"x\": \"{x}\", \"weight\": \"{w}\", \"y\": \"{y}\"}}),");
            }
            1 => {
                let (w, b) = (weight(vec![WIDTH]), weight(vec![1, 1, WIDTH]));
                let _ = writeln!(
                    ops,
                    "Op(\"layer_norm\", {{\"x\": \"{x}\", \"weight\": \"{w}\", \"bias\": \"{b}\", \"y\": \"{y}\"}}),"
                );
            }
            _ => {
                let other = match random.u32(0..5) {
                    0 => weight(vec![WIDTH]),
                    1 => weight(vec![1, 1, WIDTH]),
                    2 => weight(vec![1]),
                    3 => weight(vec![1, WIDTH]),
                    _ => values[random.usize(..values.len())].clone(),
                };
                let expr = ["a * 0.5 + b", "sigmoid(a) * b", "max(a, 0.0) - b * a", "b - a"][random.usize(..4)];
                let _ = writeln!(ops, "Map(\"{expr}\", {{\"a\": \"{x}\", \"b\": \"{other}\"}}, \"{y}\"),");
            }
        }
        values.push(y);
    }
    let keep = vec!["v11".to_owned(), values[random.usize(..values.len())].clone()];
    let text = format!(
        "Graph(name: \"random\", detect: (has: [], lacks: []), dims: {{\"T\": Tokens}}, \
         inputs: {{\"tokens\": Input(token_ids, [\"T\"])}}, outputs: {{}}, ops: [\n{ops}])"
    );
    (text, weights, keep)
}

fn traced(executor: &AnyExecutor, checkpoint: &Checkpoint, compiled: &Compiled) -> Trace {
    let plan = &compiled.plan;
    let weights = Weights { layout: &plan.weights, checkpoint };
    let mut session = executor.open(&weights, &plan.state, &mut |_, _| ()).expect("opened");
    let id = session.prepare(plan.clone()).expect("prepared");
    let tokens = (0..plan.shape.tokens).map(|at| (at * 5 + 2) % 9).collect();
    let steps = [(0, Inputs::new().with(InputRole::TokenIds, tokens))];
    trace(&mut session, &[id], &steps, &plan.state).expect("it runs")
}

#[test]
fn maps_in_loads_and_stores_compute_the_same() {
    let executor = AnyExecutor::find(Kind::Reference, "").expect("the CPU is always there");
    let limits = executor.device().limits.clone();
    let mut program = graphc::compile::Program::built_in("rwkv7").expect("built in");
    let mut merged = 0;
    for seed in 0..24 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (text, weights, keep) = random_graph(&mut random);
        program.read_graph(&format!("random{seed}.ron"), &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let dtype = [DType::F32, DType::F16, DType::Bf16][seed as usize % 3];
        let tensors: Vec<(String, Tensor)> = weights
            .into_iter()
            .map(|(name, shape)| {
                let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.f32() - 0.5).collect();
                (name, Tensor { dtype, shape, bytes: from_f32(dtype, &values) })
            })
            .collect();
        let checkpoint = Checkpoint::from_tensors("random", &tensors);
        for tokens in [1, 5] {
            let shape = StepShape { tokens, sequences: 1, rows: 1, capacity: 1 };
            let none = Rules::default();
            let [one, other] = [None, Some(&none)].map(|fuse| {
                let mut compiler = program.compiler(checkpoint.index(), &limits);
                (compiler.keep, compiler.fuse) = (&keep, fuse);
                compiler.compile(shape).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"))
            });
            merged += other.applied.maps;
            let [one, other] = [one, other].map(|compiled| traced(&executor, &checkpoint, &compiled));
            let apart = rules::apart(&one, &other);
            assert!(apart.difference <= TOLERANCE, "seed {seed}, {tokens} tokens: {apart:?}\n{text}");
        }
    }
    assert!(merged > 100, "{merged} maps were merged");
}
