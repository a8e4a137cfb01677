//! Readers of files from outside, on input that nobody would write: no panic, no endless run, no memory without bound.
//!
//! Gets the files of `tests/fuzz_corpus`, what is built in, and mutations of both. Whatever a reader accepts goes on
//! through the stages behind it; whatever it refuses is rendered. Each run is short here and as long as
//! `GRAPHC_FUZZ_SECONDS` says; every input that ever broke something is in the corpus, or among the extremes below.

mod checkpoint_files;
mod fuzzing;

use checkpoint_files as files;
use fuzzing::extremes::{self, SMALL, changed};
use fuzzing::{corpus, fuzz, within_bounds};
use graphc::base::diag::{self, Diagnostic};
use graphc::base::fmt;
use graphc::base::limits::Limits;
use graphc::base::raw::Reader;
use graphc::base::span::SourceMap;
use graphc::base::step::StepShape;
use graphc::checkpoint::write::{WriteOptions, write};
use graphc::checkpoint::{Checkpoint, names, shards};
use graphc::compile::{CompileError, Compiled, Compiler, verify_plan};
use graphc::generate::state::{StateOwner, from_bytes, to_bytes};
use graphc::kernel::KernelLib;
use graphc::kernel::tuning::Tuning;
use graphc::plan::usage::Usage;
use graphc::plan::weights::{StateBuffer, StateLayout};
use graphc::plan::{CheckedPlan, file, print};
use graphc::{base::dtype::DType, graph, kernel, model, schedule, sources};

/// Weights of the small graph: six tokens, four channels, two layers.
fn checkpoint() -> Checkpoint {
    let bytes = [0; 96];
    let view = |shape: &[usize], size: usize| {
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), &bytes[..size]).expect("sound")
    };
    let tensors = [
        ("table", view(&[6, 4], 96)),
        ("matrix", view(&[6, 4], 96)),
        ("scale.0", view(&[1, 4], 16)),
        ("scale.1", view(&[4], 16)),
    ];
    let file = safetensors::serialize(tensors, None).expect("a sound checkpoint");
    Checkpoint::from_static("small", file.leak()).expect("a sound checkpoint")
}

/// The built-in kernels and their texts.
fn kernels() -> (KernelLib, SourceMap) {
    let mut map = SourceMap::new();
    let (kernels, wrong) = kernel::load(&mut map, &sources::shaders(None).expect("built in"));
    assert!(wrong.is_empty(), "{}", diag::render(&wrong, &map));
    (kernels, map)
}

fn lossy(input: &[u8]) -> String {
    String::from_utf8_lossy(input).into_owned()
}

/// Every way in which a diagnostic leaves the library. Returns what is said.
fn say(diagnostics: &[Diagnostic], map: &SourceMap) -> String {
    let text = diag::render(diagnostics, map);
    assert_eq!(text.is_empty(), diagnostics.is_empty());
    drop(diag::to_json(diagnostics, map));
    text
}

/// Every way in which stages are printed.
fn show(compiled: &Compiled) {
    drop((model::print(&compiled.model), schedule::print(&compiled.schedule, &compiled.model)));
    show_plan(&compiled.plan);
}

fn show_plan(plan: &CheckedPlan) {
    drop((print::plan(plan), print::barriers(plan), print::memory(plan), print::summary(plan)));
}

/// A graph's text through its reader and printer, and from there through all stages.
struct Pipeline {
    kernels: KernelLib,
    map: SourceMap,
    checkpoint: Checkpoint,
}

impl Pipeline {
    fn new() -> Self {
        let (kernels, mut map) = kernels();
        for (path, text) in sources::parts(None).expect("built in") {
            map.add(path, text);
        }
        Self { kernels, map, checkpoint: checkpoint() }
    }

    /// The step's shape and the limits follow from the text's length, so that an input is all there is to keep.
    fn run(&self, text: String) -> Result<(), String> {
        let odd = |modulus: usize| text.len().is_multiple_of(modulus);
        let tokens = if odd(17) { 65535 } else { 3 };
        let sequences = if odd(13) { u32::MAX } else { 2 };
        let shape = StepShape { tokens, sequences, rows: 2, capacity: sequences };
        let limits = if odd(2) { Limits::webgpu() } else { Limits::vulkan() };
        self.compile(text, shape, &limits)
    }

    /// All stages; what is wrong with the text if it does not compile.
    fn compile(&self, text: String, shape: StepShape, limits: &Limits) -> Result<(), String> {
        let mut map = self.map.clone();
        let source = map.add("fuzz.ron", text);
        if let Err(wrong) = fmt::format(&map, source) {
            drop(say(&wrong, &map));
        }
        let graph = match graph::parse(&map, source) {
            Ok(graph) => graph,
            Err(wrong) => return Err(say(&wrong, &map)),
        };
        let printed = graph::print(&graph);
        let again = map.add("printed.ron", printed);
        assert_eq!(graph::parse(&map, again).ok().as_ref(), Some(&graph), "a printed graph is the graph it was");
        let (kernels, index) = (&self.kernels, self.checkpoint.index());
        let keep = ["x".to_owned()];
        let keep = if map.source(source).text.len().is_multiple_of(3) { &keep[..] } else { &[] };
        let compiler = Compiler {
            graph: &graph,
            kernels,
            sources: &map,
            index,
            limits,
            keep,
            batch_invariant: false,
            draws: false,
            tuning: None,
            fuse: None,
            copies: true,
        };
        match compiler.compile(shape) {
            Ok(compiled) => {
                show(&compiled);
                drop(say(&compiled.lints, &map));
                Ok(())
            }
            Err(CompileError::Wrong { diagnostics, .. }) => Err(say(&diagnostics, &map)),
            // Only a plan that a stage made wrongly is refused.
            Err(error @ CompileError::Refused(_)) => panic!("{error}"),
            Err(other) => Err(other.to_string()),
        }
    }
}

#[test]
fn graphs_and_the_stages_behind_them() {
    let pipeline = Pipeline::new();
    let mut seeds = corpus("graph");
    seeds.extend(sources::graphs(None).expect("built in").into_iter().map(|(_, text)| text.into_bytes()));
    let shape = StepShape { tokens: 3, sequences: 2, rows: 2, capacity: 2 };
    pipeline.compile(SMALL.to_owned(), shape, &Limits::vulkan()).expect("the seed is a graph that compiles");
    fuzz("graph", &seeds, &|input| drop(pipeline.run(lossy(input))));
}

/// A graph that uses a kernel named `k` with ports `x`, `offsets` and `y`.
const USER: &str = r#"Graph(
    name: "user",
    detect: (has: ["table"]),
    dims: {"C": Weight("table", 1), "T": Tokens, "S": Sequences},
    inputs: {"tokens": Input(token_ids, ["T"]), "offsets": Input(sequence_offsets, ["S + 1"])},
    outputs: {"y": Output(logits)},
    ops: [
        Op("embed", {"tokens": "in.tokens", "table": "w.table", "y": "x"}),
        Op("k", {"x": "x", "offsets": "in.offsets", "y": "y", "gain": 2.0}),
    ],
)"#;

/// What separates a manifest from its text in the corpus.
const SEPARATOR: &str = "\n%%\n";

/// A manifest and its text, and a graph that uses them.
fn run_kernel(input: &[u8], others: &[(String, String)], checkpoint: &Checkpoint) -> String {
    let input = lossy(input);
    let (manifest, text) = input.split_once(SEPARATOR).unwrap_or((&input, ""));
    let mut files = others.to_vec();
    files.push(("k.ron".to_owned(), manifest.to_owned()));
    files.push(("k.wgsl".to_owned(), text.to_owned()));
    let mut map = SourceMap::new();
    let (kernels, wrong) = kernel::load(&mut map, &files);
    let said = say(&wrong, &map);
    let source = map.add("user.ron", USER);
    let graph = graph::parse(&map, source).expect("a sound graph");
    let (limits, index) = (Limits::vulkan(), checkpoint.index());
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
    match compiler.compile(StepShape { tokens: 2, sequences: 1, rows: 2, capacity: 1 }) {
        Ok(compiled) => {
            show(&compiled);
            said
        }
        Err(CompileError::Wrong { diagnostics, .. }) => said + &say(&diagnostics, &map),
        Err(error @ CompileError::Refused(_)) => panic!("{error}"),
        Err(other) => format!("{said}{other}"),
    }
}

/// All texts that kernels may import or name, and one manifest for the graph above.
fn other_kernels() -> Vec<(String, String)> {
    let shaders = sources::shaders(None).expect("built in");
    shaders.into_iter().filter(|(path, _)| path.ends_with(".wgsl") || path == "embed.ron").collect()
}

#[test]
fn kernels_and_a_graph_that_uses_them() {
    let shaders = sources::shaders(None).expect("built in");
    let text_of = |name: &str| shaders.iter().find(|(path, _)| *path == format!("{name}.wgsl")).map(|(_, text)| text);
    let built_in = shaders.iter().filter_map(|(path, manifest)| {
        let text = text_of(path.strip_suffix(".ron")?)?;
        Some(format!("{manifest}{SEPARATOR}{text}").into_bytes())
    });
    let seeds: Vec<Vec<u8>> = corpus("kernel").into_iter().chain(built_in).collect();
    let (others, checkpoint) = (other_kernels(), checkpoint());
    let scaled = include_bytes!("fuzz_corpus/kernel/scaled.kernel");
    assert_eq!(run_kernel(scaled, &others, &checkpoint), "", "the seed is a kernel that compiles");
    fuzz("kernel", &seeds, &|input| drop(run_kernel(input, &others, &checkpoint)));
}

/// Everything that is asked of a checkpoint before its tensors are uploaded.
fn run_header(bytes: &[u8], pipeline: &Pipeline) {
    // A checkpoint keeps what it is made from; the few megabytes of a run may stay.
    let Ok(checkpoint) = Checkpoint::from_static("fuzz", bytes.to_vec().leak()) else { return };
    drop(checkpoint.fingerprint());
    for name in checkpoint.index().names() {
        let (info, bytes) = (checkpoint.index().get(name).expect("named"), checkpoint.bytes(name).expect("named"));
        if let Ok(dtype) = &info.dtype {
            let count = info.shape.iter().try_fold(1_u64, |count, extent| count.checked_mul(*extent));
            assert_eq!(count.and_then(|count| count.checked_mul(dtype.size_bytes())), Some(bytes.len() as u64));
        }
        drop(checkpoint.tensor(name));
    }
    let pipeline = Pipeline { kernels: pipeline.kernels.clone(), map: pipeline.map.clone(), checkpoint };
    drop(pipeline.run(SMALL.to_owned()));
}

/// The header's length set to what the header has, so that more than lengths is looked at.
fn mended(input: &[u8]) -> Vec<u8> {
    let Some(header) = input.get(8..).filter(|_| !input[0].is_multiple_of(4)) else { return input.to_vec() };
    let end = header.iter().rposition(|byte| *byte == b'}').map_or(header.len(), |at| at + 1);
    [&(end as u64).to_le_bytes(), header].concat()
}

#[test]
fn headers_of_checkpoints() {
    let pipeline = Pipeline::new();
    fuzz("header", &corpus("header"), &|input| {
        run_header(input, &pipeline);
        run_header(&mended(input), &pipeline);
    });
}

/// Reads every tensor of a checkpoint, by the names of the tables that are built in, and writes it.
fn read_all(checkpoint: Checkpoint) {
    let Ok(checkpoint) = checkpoint.renamed(&files::tables()) else { return };
    drop(checkpoint.fingerprint());
    for name in checkpoint.index().names() {
        let (info, bytes) = (checkpoint.index().get(name).expect("named"), checkpoint.bytes(name).expect("named"));
        assert_eq!(info.size_bytes(), bytes.len() as u64);
    }
    let options = WriteOptions { dtype: Some(DType::F16), stored_names: true };
    drop(write(&checkpoint, options, &mut std::io::sink()));
}

#[test]
fn files_of_torch() {
    let seeds = corpus("torch");
    let element = |name: &str| (name.to_owned(), vec![0; 24]);
    let wrapped = |pickle: &[u8]| {
        let entries = [("m/data.pkl".to_owned(), pickle.to_vec()), element("m/data/0"), element("m/data/1")];
        files::zip(&entries, pickle.len().is_multiple_of(2))
    };
    let read = |bytes: Vec<u8>| Checkpoint::from_static("fuzz", bytes.leak()).map(read_all);
    let accepted = seeds.iter().filter(|seed| read(seed.to_vec()).is_ok() || read(wrapped(seed)).is_ok()).count();
    assert_eq!(accepted, 2, "one of the seeds is a file, and one a pickle of two tensors");
    fuzz("torch", &seeds, &|input| {
        drop(read(input.to_vec()));
        drop(read(wrapped(input)));
    });
}

#[test]
fn indices_of_shards() {
    let seeds = corpus("index");
    assert_eq!(seeds.iter().filter(|seed| shards::weight_map(&lossy(seed)).is_ok()).count(), 1);
    fuzz("index", &seeds, &|input| drop(shards::weight_map(&lossy(input))));
}

#[test]
fn tables_of_names() {
    let built_in = sources::names(None).expect("built in").into_iter().map(|(_, text)| text.into_bytes());
    let seeds: Vec<Vec<u8>> = corpus("names").into_iter().chain(built_in).collect();
    let file = |name: &str| files::File::f32(name, &[6, 4], &[0.0; 24]);
    let named = [file("scale.0"), file("0.1.2.3"), file("model.layers.0.attn.x_x"), file("model.embeddings.weight")];
    let bytes: &'static [u8] = files::safetensors(&named).leak();
    fuzz("names", &seeds, &|input| {
        let mut map = SourceMap::new();
        let source = map.add("names.ron", lossy(input));
        match names::parse(&map, source) {
            Ok(table) => drop(Checkpoint::from_static("fuzz", bytes).expect("sound").renamed(&[table])),
            Err(wrong) => drop(say(&wrong, &map)),
        }
    });
}

#[test]
fn files_of_adapters() {
    let text = "Names(name: \"a\", adapters: [Adapter(down: \"*.down\", up: \"*.up\", weight: \"*\")])";
    let tables = files::tables_of(&[("a.ron".to_owned(), text.to_owned())]);
    let read = |bytes: Vec<u8>, alpha: f32| {
        let lora = Checkpoint::from_static("fuzz", bytes.leak()).ok()?;
        let merged = checkpoint().with_lora(lora, &tables, alpha).ok()?;
        drop(merged.fingerprint());
        assert!(merged.index().names().all(|name| merged.bytes(name).is_some()));
        merged.tensor("matrix").filter(|matrix| matrix.to_f32() != [0.0; 24])
    };
    let seeds = corpus("lora");
    assert_eq!(seeds.iter().filter(|seed| read(seed.to_vec(), 1.0).is_some()).count(), 1, "one seed changes a weight");
    fuzz("lora", &seeds, &|input| {
        drop(read(input.to_vec(), input.len() as f32));
        drop(read(mended(input), f32::MIN_POSITIVE));
    });
}

#[test]
fn state_files() {
    let buffer = |label: &str, dtype| StateBuffer {
        label: label.into(),
        dtype,
        rows: 2,
        row_shape: vec![2],
        init_bits: 0,
        init_weight: None,
        rest: Usage::STORAGE_READ,
    };
    let buffers = vec![buffer("x.0", DType::F32), buffer("x.1", DType::F32), buffer("once", DType::F16)];
    let (layout, owner) = (StateLayout { buffers }, StateOwner { graph: "g".into(), fingerprint: "f".into() });
    let seeds = corpus("state");
    let accepted = seeds.iter().filter(|seed| from_bytes(seed, &layout, &owner).is_ok()).count();
    assert_eq!(accepted, 1, "one of the seeds is a state");
    let read = |input: &[u8]| {
        if let Ok(state) = from_bytes(input, &layout, &owner) {
            let again = to_bytes(&state, &layout, &owner).expect("it is of this layout");
            assert_eq!(from_bytes(&again, &layout, &owner), Ok(state));
        }
    };
    fuzz("state", &seeds, &|input| {
        read(input);
        read(&mended(input));
    });
}

#[test]
fn plan_files() {
    let Pipeline { kernels, mut map, checkpoint } = Pipeline::new();
    let source = map.add("small.ron", SMALL);
    let graph = graph::parse(&map, source).expect("a sound graph");
    let (limits, index) = (Limits::vulkan(), checkpoint.index());
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
    let plan = compiler.compile(StepShape { tokens: 2, sequences: 1, rows: 1, capacity: 1 }).expect("compiles").plan;
    let text = file::to_text(&plan, "model");
    let mut seeds = corpus("plan");
    // Sizes and offsets as large as they can be written, one at a time and all together.
    let field = |name: &str| text.match_indices(name).map(|(at, _)| at + name.len()).collect::<Vec<_>>();
    for name in ["offset_bytes: ", "size_bytes: ", "count: ", "record_bytes: Some(", "rows: ", "workgroup_bytes: "] {
        for at in field(name).into_iter().step_by(5) {
            let digits = text[at..].bytes().take_while(u8::is_ascii_digit).count();
            for number in [u64::MAX, u64::MAX - 3, 0] {
                seeds.push([&text[..at], &number.to_string(), &text[at + digits..]].concat().into_bytes());
            }
        }
    }
    seeds.push(text.into_bytes());
    fuzz("plan", &seeds, &|input| {
        if let Ok(file) = file::from_text(&lossy(input)) {
            match verify_plan(file.plan) {
                Ok(plan) => show_plan(&plan),
                Err(error) => drop(error.to_string()),
            }
        }
    });
}

#[test]
fn tuning_files() {
    let (kernels, map) = kernels();
    let seeds = corpus("tuning");
    let read = |text: String| -> Result<(), String> {
        let mut map = map.clone();
        let source = map.add("tuning.ron", text);
        let tuning = Tuning::parse(&map, source).map_err(|wrong| say(&wrong, &map))?;
        let mistakes: Vec<Diagnostic> = tuning.mistakes(&kernels).into_iter().map(|(_, mistake)| mistake).collect();
        drop(say(&mistakes, &map));
        let printed = tuning.print();
        let source = map.add("printed.ron", printed.as_str());
        let again = Tuning::parse(&map, source).unwrap_or_else(|wrong| panic!("{printed}\n{}", say(&wrong, &map)));
        assert_eq!(again.print(), printed);
        Ok(())
    };
    assert_eq!(seeds.iter().filter(|seed| read(lossy(seed)).is_ok()).count(), 1);
    fuzz("tuning", &seeds, &|input| drop(read(lossy(input))));
    let many = "Choice(kernel: \"linear\", at: {\"T\": 1, \"I\": 2}, consts: {\"TILE\": 1}),\n".repeat(10_000);
    let many = format!("Tuning(device: \"\", driver: \"\", choices: [\n{many}])");
    within_bounds("tuning", "ten thousand choices for one use", many.as_bytes(), &|input| drop(read(lossy(input))));
}

#[test]
fn limits_files() {
    let pipeline = Pipeline::new();
    fuzz("limits", &corpus("limits"), &|input| {
        let mut map = SourceMap::new();
        let source = map.add("limits.ron", lossy(input));
        let mut reader = Reader::new(&map, source);
        match reader.file::<Limits>() {
            Some(limits) => {
                let shape = StepShape { tokens: 300, sequences: 2, rows: 2, capacity: 2 };
                drop(pipeline.compile(SMALL.to_owned(), shape, &limits));
            }
            None => drop(say(&reader.diagnostics, &map)),
        }
    });
}

#[test]
fn extreme_graphs_are_refused_or_compiled_within_bounds() {
    let pipeline = Pipeline::new();
    for (what, expected, text) in extremes::graphs() {
        within_bounds("extreme-graph", what, text.as_bytes(), &|input| {
            let said = pipeline.run(lossy(input)).err().unwrap_or_default();
            assert!(said.contains(expected), "{what}: {}", said.chars().take(2000).collect::<String>());
        });
    }
}

#[test]
fn tiny_bindings_cut_nothing_into_a_million_pieces() {
    let pipeline = Pipeline::new();
    let huge = "state: {\"huge\": State(dtype: f32, shape: [\"B\", \"1073741824\"], init: 0.0), ";
    let text = changed("state: {", huge)
        .replace("Let(\"sum\"", "Map(\"2.0 * y\", {\"y\": \"state.huge\"}, \"m\"), Let(\"sum\"");
    within_bounds("tiny-bindings", "a state of 4 GiB", text.as_bytes(), &|input| {
        let shape = StepShape { tokens: 2, sequences: 1, rows: 1, capacity: 1 };
        let limits = Limits { max_storage_buffer_binding_bytes: 1, ..Limits::vulkan() };
        let said = pipeline.compile(lossy(input), shape, &limits).expect_err("refused");
        assert!(said.contains("256 bindings at most 1 each"), "{said}");
    });
}

#[test]
fn extreme_kernels_are_refused_or_compiled_within_bounds() {
    let (others, checkpoint) = (other_kernels(), checkpoint());
    for (what, expected, text) in extremes::kernels() {
        within_bounds("extreme-kernel", what, text.as_bytes(), &|input| {
            let said = run_kernel(input, &others, &checkpoint);
            assert!(said.contains(expected), "{what}: {}", said.chars().take(2000).collect::<String>());
        });
    }
}
