//! Which graph a checkpoint is for, and what is said if it is none's or several'.
//!
//! Gets small random checkpoints of every version, in the names and shapes of raw checkpoints and of the usual
//! conversion, and files that lack something. What then holds: each is found to be its own version and no other, and
//! what does not fit is told for every graph. Runs nothing on a device.

mod program;
mod support;

use graphc::base::dtype::DType;
use graphc::base::limits::Limits;
use graphc::base::span::SourceMap;
use graphc::base::step::StepShape;
use graphc::checkpoint::{Checkpoint, Index};
use graphc::compile;
use graphc::graph::{self, Graph};
use graphc::model::detect::{DetectError, detect};
use graphc::sources;
use program::{Ran, graphc, text};
use safetensors::tensor::{Dtype, TensorView};
use support::models::{Format, Shape, Version, write_version};
use support::{TempDir, open};

const SHAPE: Shape =
    Shape { layers: 2, heads: 2, head_size: 8, ffn: 24, vocab: 16, rank_w: 4, rank_a: 3, rank_v: 2, rank_g: 5 };

fn graphs() -> Vec<Graph> {
    let mut map = SourceMap::new();
    for (path, text) in sources::parts(None).expect("built in") {
        map.add(path, text);
    }
    let texts = sources::graphs(None).expect("built in").into_iter().filter(|(path, _)| !sources::is_tool(path));
    let texts: Vec<_> = texts.map(|(path, text)| map.add(path, text)).collect();
    texts.into_iter().map(|source| graph::parse(&map, source).expect("a sound graph")).collect()
}

fn found(graphs: &[Graph], index: &Index) -> Result<String, DetectError> {
    detect(graphs, index).map(|at| graphs[at].name.text.clone())
}

/// A run that ended well and printed these texts.
fn fine(ran: Ran, texts: &[&str]) -> Ran {
    let ran = ran.fine();
    texts.iter().for_each(|text| assert!(ran.out.contains(text), "no `{text}` in {ran}"));
    ran
}

fn formats() -> [Format; 4] {
    let (converted, raw) = (Format::converted(DType::F16), Format::raw(DType::Bf16));
    [converted, raw, Format { squeeze: true, ..converted }, Format { squeeze: true, ..raw }]
}

#[test]
fn every_version_is_found_and_compiles_however_it_is_stored() {
    let (graphs, dir) = (graphs(), TempDir::new());
    // A single head, whose axis of 1 must not be taken for another version's; and a single channel a head.
    let shapes = [SHAPE, Shape { heads: 1, ..SHAPE }, Shape { heads: 5, head_size: 3, ..SHAPE }];
    for (name, version) in Version::ALL {
        let program = compile::Program::built_in(name).unwrap_or_else(|error| panic!("{error}"));
        let all = formats();
        let others = shapes[1..].iter().flat_map(|shape| all[1..3].iter().map(move |format| (shape, *format)));
        for (shape, format) in all.map(|format| (&shapes[0], format)).into_iter().chain(others) {
            let path = dir.file("model.safetensors");
            write_version(&path, version, shape, 1, &format).expect("written");
            let checkpoint = open(&path);
            assert_eq!(found(&graphs, checkpoint.index()).as_deref(), Ok(name), "{shape:?} {format:?}");
            // RWKV-7's recurrence binds more than WebGPU promises.
            let limits = if version == Version::V7 { Limits::vulkan() } else { Limits::webgpu() };
            let compiler = program.compiler(checkpoint.index(), &limits);
            let step = StepShape { tokens: 5, sequences: 2, rows: 2, capacity: 2 };
            let compiled = compiler.compile(step).unwrap_or_else(|error| panic!("{name} {format:?}: {error}"));
            assert!(compiled.lints.is_empty(), "{name}: {:?}", compiled.lints);
        }
    }
}

/// A tensor by its name and shape.
type Named = (&'static str, &'static [usize]);

/// A checkpoint of these tensors, all zero.
fn made(tensors: &[Named]) -> Checkpoint {
    let zeros = vec![0; 1 << 16];
    let view = |shape: &[usize]| {
        let count: usize = shape.iter().product();
        TensorView::new(Dtype::F32, shape.to_vec(), &zeros[..4 * count]).expect("a tensor")
    };
    let views = tensors.iter().map(|(name, shape)| (*name, view(shape)));
    let file = safetensors::serialize(views, None).expect("a checkpoint");
    Checkpoint::from_static("made", file.leak()).expect("a checkpoint")
}

const TABLE: Named = ("emb.weight", &[16, 32]);
const MIX: Named = ("blocks.0.att.time_mix_k", &[1, 1, 32]);
const LN_X: Named = ("blocks.0.att.ln_x.weight", &[32]);
const GATE: Named = ("blocks.0.att.gate.weight", &[32, 32]);

const fn decay(shape: &'static [usize]) -> Named {
    ("blocks.0.att.time_decay", shape)
}

const fn first(shape: &'static [usize]) -> Named {
    ("blocks.0.att.time_first", shape)
}

const fn faaaa(shape: &'static [usize]) -> Named {
    ("blocks.0.att.time_faaaa", shape)
}

#[test]
fn shapes_tell_what_names_do_not() {
    let graphs = graphs();
    let cases: [(&[Named], &str); 8] = [
        (&[TABLE, MIX, decay(&[32]), first(&[32])], "rwkv4"),
        (&[TABLE, MIX, LN_X, decay(&[4]), first(&[4])], "rwkv5.0"),
        (&[TABLE, MIX, LN_X, decay(&[4, 1]), first(&[4, 1])], "rwkv5.0"),
        (&[TABLE, MIX, LN_X, GATE, decay(&[4]), first(&[4])], "rwkv5.1"),
        (&[TABLE, MIX, LN_X, GATE, decay(&[4, 1, 1]), faaaa(&[4])], "rwkv5.1"),
        (&[TABLE, MIX, LN_X, GATE, decay(&[4, 8]), faaaa(&[4, 8])], "rwkv5.2"),
        (&[TABLE, MIX, LN_X, GATE, decay(&[1, 32]), first(&[1, 32])], "rwkv5.2"),
        (&[TABLE, MIX, LN_X, GATE, decay(&[4, 8, 1]), first(&[4, 8])], "rwkv5.2"),
    ];
    for (tensors, name) in cases {
        assert_eq!(found(&graphs, made(tensors).index()).as_deref(), Ok(name), "{tensors:?}");
    }
    // Numbers a head without a group norm are those of no version, least of all of RWKV-4's.
    let strange = made(&[TABLE, MIX, decay(&[4]), first(&[4])]);
    let error = found(&graphs, strange.index()).expect_err("no version").to_string();
    assert!(error.contains("rwkv4: `decays == C` does not hold: `C` is 32, `decays` is 4"), "{error}");
    assert!(error.contains("rwkv5.0: `blocks.0.att.ln_x.weight` is missing"), "{error}");
}

#[test]
fn what_fits_two_graphs_is_refused() {
    let mut graphs = graphs();
    let again = graphs.iter().find(|graph| graph.name.text == "rwkv4").expect("built in").clone();
    graphs.push(again);
    let file = made(&[TABLE, MIX, ("blocks.0.att.time_decay", &[32]), ("blocks.0.att.time_first", &[32])]);
    let error = found(&graphs, file.index()).expect_err("two graphs").to_string();
    assert!(error.contains("fits several graphs, name one of them: rwkv4, rwkv4"), "{error}");
}

#[test]
fn settings_are_given_by_name_and_reach_the_plan() {
    let dir = TempDir::new();
    let path = dir.file("model.safetensors");
    write_version(&path, Version::V5_2, &SHAPE, 1, &Format::raw(DType::F32)).expect("written");
    let compile = |set: &[&str]| {
        let sets = set.iter().flat_map(|set| ["--set", set]);
        let flags = ["compile", "--weights", text(&path), "--emit", "kernels"].into_iter().chain(sets);
        graphc(&flags.collect::<Vec<_>>())
    };
    let plain = fine(compile(&[]), &[]);
    let other = fine(compile(&["gn_eps=1e-5", "ln_eps=2e-5"]), &[]);
    assert!(plain.out.contains("const eps: f32 = 0.00064") && !other.out.contains("0.00064"), "{plain}");
    assert!(other.out.contains("const eps: f32 = 2e-5"), "{other}");
    compile(&["gn_ebs=1"]).fails(2, &["`rwkv5.2` has no setting `gn_ebs`, did you mean `gn_eps`?", "`ln_eps` = 1e-5"]);
    compile(&["gn_eps=inf"]).fails(2, &["setting `gn_eps` is inf, expected a finite f32"]);
    compile(&["gn_eps=x"]).fails(2, &["expected a number behind `gn_eps=`, found `x`"]);
    compile(&["gn_eps"]).fails(2, &["expected NAME=VALUE"]);
}

const GRAPH: &str = r#"Graph(
    name: "parted",
    detect: (has: ["emb.weight"]),
    settings: {"gain": 2.0},
    dims: {"T": Tokens, "R": Rows},
    inputs: {"tokens": Input(token_ids, ["T"]), "rows": Input(output_rows, ["R"])},
    outputs: {"logits": Output(logits)},
    ops: [
        Op("embed", {"tokens": "in.tokens", "table": "w.emb.weight", "y": "x"}),
        INCLUDE,
        Op("gather_rows", {"x": "x", "rows": "in.rows", "y": "last"}),
        Op("linear", {"x": "last", "weight": "w.head.weight", "y": "logits"}),
    ],
)
"#;
const PART: &str = r#"Part(
    takes: ["norm"],
    ops: [
        Op("layer_norm", {"x": "x", "weight": "w.{norm}.weight", "bias": "w.{norm}.bias", "y": "x"}),
    ],
)
"#;

#[test]
fn parts_are_found_beside_their_graph_and_mistakes_in_them_have_places() {
    let dir = TempDir::new();
    let model = dir.file("model.safetensors");
    write_version(&model, Version::V4, &SHAPE, 1, &Format::converted(DType::F32)).expect("written");
    std::fs::create_dir_all(dir.file("graphs/parts")).expect("a folder");
    let with = |include: &str, part: &str| {
        std::fs::write(dir.file("graphs/parted.ron"), GRAPH.replace("INCLUDE", include)).expect("written");
        std::fs::write(dir.file("graphs/parts/norm.ron"), part).expect("written");
    };
    let (folder, file) = (dir.file("graphs"), dir.file("graphs/parted.ron"));
    let check = || graphc(&["check", text(&folder), "--weights", text(&model)]);
    let right = r#"Include("norm", {"norm": "ln_out"})"#;
    with(right, PART);
    fine(check(), &["1 graphs", "0 errors, 0 lints"]);
    let emitted = graphc(&["compile", text(&file), "--weights", text(&model), "--emit", "graph"]);
    fine(emitted, &[r#""weight": "w.ln_out.weight""#]);
    fine(graphc(&["compile", "--graphs", text(&folder), "--weights", text(&model)]), &[]);
    fine(graphc(&["fmt", "--check", text(&folder)]), &["2 files, 0 would change"]);
    let wrong = |part: &str, messages: &[&str]| {
        with(right, part);
        check().fails_with_result(1, "1 graphs", messages);
    };
    wrong(
        &PART.replace("\"bias\"", "\"bia\""),
        &["no port or constant `bia`", "norm.ron:4:", "parted.ron:10:", "included here"],
    );
    wrong(
        &PART.replace(".bias", ".bis"),
        &["the checkpoint has no weight `ln_out.bis`", "norm.ron:4:", "included here"],
    );
    wrong(
        &PART.replace("\"y\": \"x\"", "\"y\": \"x\", \"eps\": Setting(\"gian\")"),
        &["the graph has no setting `gian`"],
    );
    wrong(&PART.replace("takes:", "take:"), &["unknown field `take`", "norm.ron:2:"]);
    wrong(&PART.replace("Op(\"layer_norm\"", "Include(\"norm\""), &["a part includes no other part"]);
    wrong(&PART.replace("{norm}.bias", "{nrm}.bias"), &["`w.{nrm}.bias` has a `{…}` that is no loop variable here"]);
    for (include, messages) in [
        (r#"Include("norn", {"norm": "ln_out"})"#, ["there is no part `norn`", "did you mean `norm`?"]),
        (r#"Include("norm", {})"#, ["`norm` of part `norm` is given nothing", "taken here"]),
        (r#"Include("norm", {"norm": "ln_out", "more": "x"})"#, ["part `norm` takes no `more`", "parted.ron:10:"]),
    ] {
        with(include, PART);
        check().fails_with_result(1, "1 graphs", &messages);
    }
    with(r#"Let("unused", "x")"#, PART);
    fine(check(), &["1 lints"]);
}
