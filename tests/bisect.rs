//! `graphc bisect` and `run --dump`: two configurations side by side, the first value that parts, values as files.
//!
//! Gets the program, models and kernels changed on purpose. What then holds: what is the same parts nowhere; what was
//! changed is found at exactly the op that was changed, at the token at which it first matters, with what the op reads
//! found to be the same; however many passes it takes. Dumps are the numbers of the reference. Everything but the texts
//! and the wrong flags needs a device, and skips without.

mod program;
mod support;

use std::path::{Path, PathBuf};

use graphc::base::dtype::DType;
use graphc::inspect::bisect::{
    self, InputFacts, InputFound, KindDifference, OpFacts, Parting, Report, SideFacts, Tolerance,
};
use graphc::sources;
use program::{Ran, devices, graphc, synth, text};
use serde_json::Value;
use support::golden::assert_golden;
use support::guide::{agrees, blocks, dead_links};
use support::models::{Format, Shape, write_model};
use support::{TempDir, assert_step, case_tensors, cases, open, reference, skip, trace_tensors, values};

/// Everything is compared on one device, whose arithmetic is the same for every executor.
const DEVICE: &str = "llvmpipe";

/// Whether there is no such device; then the test has said so.
fn lacks_device() -> bool {
    let found = devices("hal").is_ok_and(|names| names.iter().any(|name| name.contains(DEVICE)));
    if !found {
        skip(&format!("no `{DEVICE}` for hal"));
    }
    !found
}

/// Compares two configurations on the device.
fn bisect(a: &str, b: &str, more: &[&str]) -> Ran {
    let [a, b] = [a, b].map(|side| format!("{side},device={DEVICE}"));
    graphc(&[&["bisect", &a, &b], more].concat())
}

/// The report of two configurations, and whether something parts.
fn report(a: &str, b: &str, more: &[&str]) -> Value {
    let ran = bisect(a, b, &[more, &["--format", "json"]].concat());
    let report: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran}"));
    assert_eq!(ran.code, Some(if report["parting"].is_null() { 0 } else { 1 }), "{ran}");
    report
}

/// A folder with the kernels that are built in, one text of one file changed.
fn edited(dir: &TempDir, file: &str, from: &str, to: &str) -> PathBuf {
    let folder = dir.file("shaders");
    for (path, text) in sources::shaders(None).expect("built in") {
        let is_it = path == file;
        assert!(!is_it || text.contains(from), "`{from}` is not in {file}");
        let text = if is_it { text.replace(from, to) } else { text };
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder is made");
        std::fs::write(path, text).expect("a kernel is written");
    }
    folder
}

/// The line of the built-in graph on which a text stands first.
fn line(of: &str) -> usize {
    let graphs = sources::graphs(None).expect("built in");
    let (_, text) = graphs.iter().find(|(path, _)| path == "rwkv7.ron").expect("built in");
    text.lines().position(|line| line.contains(of)).expect("the graph has it") + 1
}

/// That the op was found, with all that it reads the same.
fn assert_culprit(report: &Value, (op, kernel): (&str, &str), file: &str, place: usize) {
    let parting = &report["parting"];
    assert_eq!(parting["op"]["label"], op, "{report:#}");
    for side in [0, 1] {
        assert_eq!(parting["op"]["kernel"][side], kernel);
        assert_eq!(parting["op"]["file"][side], file);
        let found = parting["op"]["place"][side].as_str().expect("a place");
        assert!(found.starts_with(&format!("graphs/rwkv7.ron:{place}:")), "{found}, not line {place}");
    }
    assert_eq!(parting["op"]["has_same_text"], false);
    let inputs = parting["inputs"].as_array().expect("a list");
    assert!(!inputs.is_empty());
    inputs.iter().for_each(|input| assert_eq!(input["found"], "same", "{input}"));
}

#[test]
fn executors_and_step_sizes_part_nowhere() {
    if lacks_device() {
        return;
    }
    let weights = synth();
    let args = ["--weights", text(&weights), "--tokens", "258,255,42,7,300,1,0,9", "--tolerance", "0"];
    // Bits of steps of other sizes are those of kernels that sum in one order.
    let sides = [
        ("hal", "wgpu"),
        ("hal,batch-invariant,step-tokens=1", "wgpu,batch-invariant,step-tokens=3"),
        ("hal,batch-invariant,step-tokens=16", "hal,batch-invariant"),
    ];
    for (a, b) in sides {
        let found = report(a, b, &args);
        assert!(found["parting"].is_null(), "{found:#}");
        // Every version of every value but those of weights and inputs.
        assert_eq!((&found["passes"], &found["kinds"]), (&Value::from(1), &Value::Array(Vec::new())), "{found:#}");
        assert!(found["values"].as_u64().expect("a number") > 100, "{found:#}");
    }
    let found = bisect("hal", "wgpu", &args).fine().out;
    assert!(found.contains("nothing parts: ") && found.ends_with("every bit is the same\n"), "{found}");
}

#[test]
fn a_kernel_that_was_changed_is_found_at_its_op() {
    if lacks_device() {
        return;
    }
    let (weights, dir) = (synth(), TempDir::new());
    let args = ["--weights", text(&weights), "--tokens", "258,255,42,7", "--tolerance", "0"];
    let shaders = edited(&dir, "layer_norm.ron", "\"eps\": 1e-5", "\"eps\": 1.1e-5");
    let found = report("hal", &format!("wgpu,shaders={}", text(&shaders)), &args);
    let place = line("Op(\"layer_norm\", {\"x\": \"emb\"");
    assert_culprit(&found, ("x", "layer_norm"), "shaders/layer_norm.wgsl", place);
    let parting = &found["parting"];
    assert_eq!((&parting["value"], &parting["token"], &parting["token_id"]), (&"x".into(), &0.into(), &258.into()));
    assert_eq!(parting["shape"], "f32[T, 128]");

    // With an empty state the change changes nothing: it is seen at the second token.
    let formula = "let ka${n} = kk${n} * load_a4(at + ${n}u * OCTET)";
    let shaders = edited(&dir, "wkv7_octet.wgsl", formula, &format!("{formula} * 1.01"));
    let place = line("Op(\"wkv7\", {");
    let changed = format!("shaders={}", text(&shaders));
    for (sides, value, difference) in [
        (["hal".to_owned(), format!("hal,{changed}")], "state.att_s.0#1", "0"),
        ([format!("wgpu,{changed}"), "hal".to_owned()], "state.att_s.0#1", "1e-5,1e-4"),
        // Of a longer step on one side, the state is not that of each token.
        (
            ["hal,batch-invariant".to_owned(), format!("hal,batch-invariant,step-tokens=16,{changed}")],
            "layer0.wkv",
            "1e-5,1e-4",
        ),
    ] {
        let args = [&args[..4], &["--tolerance", difference]].concat();
        let found = report(&sides[0], &sides[1], &args);
        assert_culprit(&found, ("layer0.wkv", "wkv7"), "shaders/wkv7_octet.wgsl", place);
        assert_eq!(found["parting"]["value"], value, "{found:#}");
        assert_eq!(found["parting"]["token"], 1);
        // Elements and how far they are apart agree.
        let numbers = |of: &Value| of.as_f64().expect("a number");
        let [a, b] = [0, 1].map(|side| numbers(&found["parting"]["elements"][side]));
        let apart = (a as f32 - b as f32).abs();
        assert!(apart > 0.0 && apart == numbers(&found["parting"]["difference"]) as f32, "{found:#}");
    }
    let printed =
        bisect("hal", &format!("hal,{changed}"), &args).fails_with_result(1, "parts after token 1 (id 255)", &[]);
    assert!(printed.out.contains("all within tolerance, so it is this op that parts them"), "{printed}");
}

#[test]
fn a_graph_that_was_changed_is_found_where_it_reads_something_else() {
    if lacks_device() {
        return;
    }
    let (weights, dir) = (synth(), TempDir::new());
    let graphs = sources::graphs(None).expect("built in");
    let (_, graph) = graphs.into_iter().find(|(path, _)| path == "rwkv7.ron").expect("built in");
    let (same, other) = (
        "Let(\"ffn_out\", \"ffn_value\"),",
        "If(\"layer == 1\", [Map(\"1.5 * v\", {\"v\": \"ffn_value\"}, \"ffn_out\")], \
         [Let(\"ffn_out\", \"ffn_value\")]),",
    );
    assert!(graph.contains(same));
    std::fs::write(dir.file("other.ron"), graph.replace(same, other)).expect("a graph is written");
    let other = format!("hal,graph={}", text(&dir.file("other.ron")));
    let found = report("hal", &other, &["--weights", text(&weights), "--tokens", "9,8", "--tolerance", "0"]);
    assert_eq!(found["alone"], serde_json::json!([[], ["layer1.ffn_out"]]));
    let parting = &found["parting"];
    assert_eq!((&parting["value"], &parting["token"]), (&"layer1.x_out".into(), &0.into()), "{found:#}");
    let apart = "out is layer1.ffn_value in A, layer1.ffn_out in B";
    assert_eq!(parting["op"]["bound_apart"], serde_json::json!([apart]), "{found:#}");
}

#[test]
fn fused_sides_are_compared_where_fusing_leaves_values_and_a_wrong_rule_is_found() {
    if lacks_device() {
        return;
    }
    let (weights, dir) = (synth(), TempDir::new());
    let args = ["--weights", text(&weights), "--tokens", "9,8,7", "--tolerance", "1e-4,1e-3"];
    let values = |report: &Value| report["values"].as_u64().expect("a number");
    let all = report("hal,fuse=off", "hal", &args);
    let left = report("hal,fuse=on", "hal,fuse=off", &args);
    assert!(all["parting"].is_null() && left["parting"].is_null(), "{left:#}");
    assert!(0 < values(&left) && values(&left) < values(&all) / 2, "{} of {}", values(&left), values(&all));
    // Sums of fused kernels go another way.
    let kinds = left["kinds"].as_array().expect("a list");
    assert!(kinds.iter().any(|kind| kind["difference"].as_f64() > Some(0.0)), "{left:#}");
    for (path, text) in [sources::graphs(None), sources::parts(None)].map(|texts| texts.expect("built in")).concat() {
        let path = dir.file(&path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder is made");
        std::fs::write(path, text).expect("a graph is written");
    }
    std::fs::create_dir_all(dir.file("rewrites")).expect("a folder is made");
    let rule = "Rewrite(\n    pattern: [Map(\"square(max(up, 0.0))\", {\"up\": \"up\"}, \"key\")],\n    \
                replacement: [Map(\"square(max(up, 0.25))\", {\"up\": \"up\"}, \"key\")],\n)\n";
    std::fs::write(dir.file("rewrites/relu.ron"), rule).expect("a rule is written");
    let wrong = format!("hal,fuse=on,graphs={}", text(&dir.file("")));
    let found = report(&wrong, "hal,fuse=off", &args);
    let parting = &found["parting"];
    assert_eq!((&parting["value"], &parting["token"]), (&"layer0.ffn_key".into(), &0.into()), "{found:#}");
}

#[test]
fn storage_formats_part_with_their_weights_and_are_within_a_tolerance() {
    if lacks_device() {
        return;
    }
    let dir = TempDir::new();
    let shape =
        Shape { layers: 2, heads: 2, head_size: 32, ffn: 96, vocab: 50, rank_w: 8, rank_a: 8, rank_v: 8, rank_g: 8 };
    let [wide, half] = [("f32", DType::F32), ("f16", DType::F16)].map(|(name, dtype)| {
        write_model(&dir.file(name), &shape, 3, &Format::converted(dtype)).expect("a model is written");
        dir.file(name)
    });
    let half = format!("hal,weights={}", text(&half));
    let args = |tolerance| ["--weights", text(&wide), "--tokens", "1,2,3,4,5", "--tolerance", tolerance];
    let found = report("hal", &half, &args("0"));
    let parting = &found["parting"];
    assert_eq!((&parting["value"], &parting["token"]), (&"emb".into(), &0.into()), "{found:#}");
    let inputs = parting["inputs"].as_array().expect("a list");
    let table = inputs.iter().find(|input| input["value"] == "w.emb.weight").expect("the table is read");
    assert_eq!(table["found"]["apart"]["is_within"], false);
    let found = report("hal", &half, &args("1e-2,2e-2"));
    assert!(found["parting"].is_null(), "{found:#}");
    let kinds = found["kinds"].as_array().expect("a list");
    assert!(kinds.iter().any(|kind| kind["kind"] == "layer*.wkv" && kind["difference"].as_f64() > Some(0.0)));
}

#[test]
fn several_passes_find_what_one_finds() {
    if lacks_device() {
        return;
    }
    let dir = TempDir::new();
    let shaders = edited(&dir, "group_norm.wgsl", "load_bias(channel", "1.5 * load_bias(channel");
    let changed = format!("hal,step-tokens=16,shaders={}", text(&shaders));
    for (b, tolerance) in [("hal,step-tokens=16", "0"), (changed.as_str(), "1e-2,5e-2")] {
        let args = ["--prompt", "Alice was beginning to get very tired", "--tolerance", tolerance];
        let with = |memory| report("hal,step-tokens=16", b, &[&args[..], &["--memory", memory]].concat());
        let (mut one, mut many) = (with("512"), with("4"));
        assert_eq!(one["passes"], 1);
        assert!(many["passes"].as_u64() > Some(1), "{many:#}");
        let kinds = |report: &mut Value| report["kinds"].take();
        one["passes"].take();
        many["passes"].take();
        assert_eq!(kinds(&mut one), kinds(&mut many));
        assert_eq!(one, many);
    }
}

#[test]
fn plans_are_compared_by_what_they_give() {
    if lacks_device() {
        return;
    }
    let (weights, dir) = (synth(), TempDir::new());
    let (one, four) = (dir.file("one.plan"), dir.file("four.plan"));
    let weights = ["--weights", text(&weights)];
    let keep = ["--fuse", "off", "--batch-invariant", "--keep", "layer1.wkv", "--keep", "state.att_s.1#1"];
    graphc(&[&["compile", "-o", text(&one)][..], &weights, &keep].concat()).fine();
    graphc(&[&["compile", "--tokens", "4", "-o", text(&four)][..], &weights, &keep].concat()).fine();
    let args = [&weights[..], &["--tokens", "258,255,42,7,300,1", "--tolerance", "0"]].concat();
    let plan = |path: &Path| format!("wgpu,plan={}", text(path));
    // Plans are for any device of Vulkan, so the graph is compiled for one, too.
    let graph = "hal,batch-invariant,target=vulkan".to_owned();
    for (a, b) in [(graph.clone(), plan(&one)), (plan(&four), graph), (plan(&one), plan(&four))] {
        let found = report(&a, &b, &args);
        assert!(found["parting"].is_null(), "{found:#}");
        // Logits, two kept values, and the states of three layers.
        assert_eq!((&found["values"], &found["unlike"]), (&12.into(), &Value::Array(Vec::new())), "{found:#}");
    }
    let shaders = edited(&dir, "layer_norm.ron", "\"eps\": 1e-5", "\"eps\": 1.1e-5");
    let other = format!("hal,shaders={}", text(&shaders));
    let found = bisect(&plan(&four), &other, &args).fails_with_result(1, " parts a", &[]);
    assert!(found.out.contains("of a plan, what it gives can be seen"), "{found}");
    assert!(found.out.contains("not all compared, so the op may be right"), "{found}");
}

#[test]
fn dumps_are_the_reference() {
    let Some(dir) = reference("synth-v7") else { return skip("no reference model `synth-v7`") };
    if lacks_device() {
        return;
    }
    let (case, trace) = (&cases(&dir)[0], trace_tensors(&dir));
    let last = case.tokens.len() - 1;
    let files = TempDir::new();
    let (one, all, logits) = (files.file("one"), files.file("all"), files.file("logits"));
    // Steps of the last token, and the states before and after it, by their names in the graph.
    let path = |name: &str| {
        let parts: Vec<&str> = name.split('.').collect();
        match parts.as_slice() {
            ["before", layer, state] => format!("state.{state}.{layer}"),
            ["after", layer, state] => format!("state.{state}.{layer}#1"),
            [layer, value] => format!("layer{layer}.{value}"),
            _ => name.to_owned(),
        }
    };
    let names: Vec<&str> = trace.index().names().collect();
    assert!(names.len() > 60);
    let flags: Vec<String> = names.iter().map(|name| format!("--dump={}@{last}={}", path(name), text(&one))).collect();
    let tokens: Vec<String> = case.tokens.iter().map(u32::to_string).collect();
    let (weights, tokens) = (synth(), tokens.join(","));
    let args = ["run", "--weights", text(&weights), "--tokens", &tokens, "-n", "0", "--executor", "wgpu"];
    let more = [format!("--dump=logits={}", text(&all)), format!("--dump=state.att_s.0#1={}", text(&all))];
    let more: Vec<&str> = flags.iter().chain(&more).map(String::as_str).collect();
    let output = ["--step-tokens", "1", "--logits", text(&logits), "--all-positions", "--device", DEVICE];
    graphc(&[&args[..], &output, &more].concat()).fine();
    let found = open(&one);
    for name in names {
        let dumped: Vec<f64> = values(&found, &format!("{}@{last}", path(name))).into_iter().map(f64::from).collect();
        assert_step(name, &dumped, &values(&trace, name), 1e-4);
    }
    let (all, logits) = (open(&all), open(&logits));
    assert_eq!(logits.index().names().collect::<Vec<_>>(), ["logits"], "what is kept for a dump goes there alone");
    assert_eq!(all.tensor("logits"), logits.tensor("logits"));
    let expected = values(&case_tensors(&dir), &format!("{}.logits", case.id));
    let dumped: Vec<f64> = values(&all, "logits").into_iter().map(f64::from).collect();
    assert_step("logits", &dumped, &expected, 1e-4);
    let states = all.tensor("state.att_s.0#1").expect("it was dumped");
    assert_eq!(states.shape, [case.tokens.len() as u64, 1, 2, 64, 64]);
}

#[test]
fn a_step_of_many_tokens_dumps_what_steps_of_one_do() {
    if lacks_device() {
        return;
    }
    let files = TempDir::new();
    let dumped = |step: &str| {
        let file = files.file(step);
        let (all, one) = (format!("layer2.wkv={}", text(&file)), format!("ln_out@3={}", text(&file)));
        let args = [
            "run",
            "--batch-invariant",
            "--prompt",
            "Alice",
            "-n",
            "0",
            "--executor",
            "hal",
            "--device",
            DEVICE,
            "--step-tokens",
            step,
        ];
        graphc(&[&args[..], &["--dump", &all, "--dump", &one]].concat()).fine();
        let found = open(&file);
        (found.tensor("layer2.wkv").expect("dumped"), found.tensor("ln_out@3").expect("dumped"))
    };
    let (one, four) = (dumped("1"), dumped("4"));
    assert_eq!((one.0.shape.as_slice(), one.1.shape.as_slice()), (&[6, 256][..], &[256][..]));
    assert!(one == four, "every bit");
}

#[test]
fn what_cannot_be_dumped_is_refused() {
    let dir = TempDir::new();
    let file = dir.file("x");
    let run = |value: &str| {
        let dump = format!("{value}={}", text(&file));
        graphc(&["run", "--prompt", "ab", "-n", "0", "--dump", &dump])
    };
    run("emb@3").fails(1, &["`--dump emb@3`: the prompt has 3 tokens, counted from 0"]);
    run("emb@x").fails(2, &["expected a value, perhaps a token, and a file, as in layer0.wkv@5=FILE"]);
    graphc(&["run", "--prompt", "ab", "--dump", "emb"]).fails(2, &["expected a value, perhaps a token, and a file"]);
    let prompts = ["run", "--prompts", "none", "--dump", "emb=x"];
    graphc(&prompts).fails(2, &["cannot be used with"]);
    let plan = dir.file("plan");
    graphc(&["compile", "-o", text(&plan)]).fine();
    graphc(&["run", text(&plan), "--prompt", "ab", "--dump", "emb=x"]).fails(2, &["`--dump` is for graphs"]);
    if !lacks_device() {
        run("layer0.wvk").fails(1, &["there is no value `layer0.wvk` to keep", "did you mean `layer0.wkv`?"]);
    }
}

#[test]
fn wrong_configurations_are_refused() {
    let dir = TempDir::new();
    let plan = dir.file("none.plan");
    let with_plan = format!("hal,plan={}", text(&plan));
    for (args, message) in [
        (&["hal"][..], "<B>"),
        (&["hal", "hall"], "expected an executor (auto, hal, wgpu"),
        (&["hal", "hall"], "did you mean `hal`?"),
        (&["hal", "hal,step-token=3"], "did you mean `step-tokens`?"),
        (&["hal", "hal,step-tokens=0"], "`step-tokens=0`: expected 1 to 4096"),
        (&["hal,device=", "hal"], "`device=` has no value"),
        (&["hal,fuse=yes", "hal"], "`fuse=yes`: expected on, no-copies or off"),
        (&["hal", "plan=a,fuse=on"], "`fuse` is for graphs, which are compiled; `a` is run as it is"),
        (&["hal,wgpu", "hal"], "`executor` is said twice"),
        (&["hal", "plan=a,target=webgpu"], "`target` is for graphs, which are compiled; `a` is run as it is"),
        (&["hal", "wgpu"], "nothing to run: give a non-empty `--prompt`, `--prompt-file` or `--tokens`"),
        (&["hal", "wgpu", "--prompt", ""], "nothing to run"),
        (&["hal", "wgpu", "--tokens", "1", "--prompt", "x"], "cannot be used with"),
        (&["hal", "wgpu", "--tokens", "1", "--tolerance", "-1"], "expected one or two numbers of 0 or more"),
        (&["hal", "wgpu", "--tokens", "1", "--tolerance", "1,2,3"], "expected one or two numbers of 0 or more"),
        (&["hal", "wgpu", "--tokens", "1", "--keep", "x"], "here every value is kept"),
        (&["hal", "wgpu", "rwkv99", "--tokens", "1"], "no graph file and no graph named `rwkv99`"),
        (&["hal,weights=none.safetensors", "hal", "--tokens", "1"], "cannot read `none.safetensors`"),
        (&[&with_plan, "hal", "--tokens", "1"], "cannot read `"),
    ] {
        let ran = graphc(&[&["bisect"], args].concat());
        ran.fails(2, &[message]);
    }
    std::fs::write(&plan, "no plan").expect("written");
    graphc(&["bisect", &with_plan, "hal", "--tokens", "1"])
        .fails(2, &["expected a plan file, as `compile -o` writes it"]);
    if !lacks_device() {
        bisect("hal", "wgpu", &["--tokens", "999"]).fails(1, &["token 999 (number 0, from 0)", "side A, `hal,"]);
        let other = format!("wgpu,weights={}", text(&synth()));
        bisect("hal", &other, &["--tokens", "1"]).fails(1, &["the two have no value in common: A has 271, B "]);
    }
}

#[test]
fn the_guide_shows_what_its_commands_print() {
    const GUIDE: &str = include_str!("../docs/comparing.md");
    assert_eq!(dead_links(GUIDE), Vec::<String>::new());
    if lacks_device() {
        return;
    }
    let dir = TempDir::new();
    let mut last: Option<Ran> = None;
    let mut commands = 0;
    for block in blocks(GUIDE) {
        match block.info.split_once(' ') {
            Some(("diff", file)) => {
                let of = |sign: char| block.text.lines().find_map(|line| line.strip_prefix(sign)).expect("a line");
                let name = Path::new(file).file_name().expect("a file").to_str().expect("UTF-8");
                let folder = edited(&dir, name, of('-'), of('+'));
                let mine = dir.file("mine");
                std::fs::rename(folder, &mine).expect("a folder is renamed");
            }
            None if block.info == "sh" => {
                let line = block.text.trim();
                let words: Vec<&str> = line.strip_prefix("graphc ").expect("a command").split(' ').collect();
                last = Some(program::graphc_in(&dir.file(""), &words));
                commands += 1;
            }
            None if block.info == "text" => {
                let ran = last.take().expect("a command before its output");
                assert_eq!(ran.code, Some(i32::from(block.text.contains(" parts a"))), "{ran}");
                assert!(agrees(&ran.out, block.text), "expected\n{}\nfound\n{ran}", block.text);
            }
            _ => panic!("what is a block of `{}`?", block.info),
        }
    }
    assert_eq!(commands, 3);
    let dumped = last.expect("the last command").fine();
    assert_eq!(dumped.out, "");
    let values = open(&dir.file("values.safetensors"));
    let shapes = ["layer0.wkv", "state.att_s.0#1@1"].map(|name| values.tensor(name).expect("dumped").shape);
    assert_eq!(shapes, [vec![5, 256], vec![1, 4, 64, 64]]);
}

fn parting() -> Parting {
    let found = |difference, is_within| InputFound::Apart { difference, scale: 3.5, is_within };
    let input = |port: &str, value: &str, found| InputFacts { port: port.into(), value: value.into(), found };
    Parting {
        value: "layer3.wkv".into(),
        token: 5,
        token_id: 71,
        is_after_step: false,
        steps: [(5, 6), (0, 16)],
        op: Some(OpFacts {
            label: "layer3.wkv".into(),
            kernel: ["wkv7".into(), "wkv7".into()],
            file: [Some("shaders/wkv7.wgsl".into()), Some("shaders/wkv7_by_fours.wgsl".into())],
            place: ["graphs/rwkv7.ron:118:17".into(), "graphs/rwkv7.ron:118:17".into()],
            has_same_text: Some(false),
            bound_apart: Vec::new(),
        }),
        shape: "f32[T, 64]".into(),
        at: vec![5, 17],
        elements: [0.25, f64::NAN],
        difference: f64::INFINITY,
        allowed: 0.00125,
        scale: 12.5,
        inputs: vec![input("r", "layer3.r", InputFound::Same), input("state", "state.att_s.3", found(1.25e-7, true))],
    }
}

fn whole_report(parting: Option<Parting>) -> Report {
    let kind = |kind: &str, value: &str, difference| KindDifference {
        kind: kind.into(),
        value: value.into(),
        token: 4,
        difference,
        scale: 1234.5,
    };
    let side = |device: &str, step_tokens| SideFacts { device: device.into(), step_tokens, is_plan: false };
    Report {
        graph: "rwkv7".into(),
        tokens: 20,
        tolerance: Tolerance { absolute: 1e-5, relative: 1e-4 },
        sides: [side("one device", 1), side("another", 16)],
        values: 271,
        passes: 2,
        parting,
        kinds: vec![kind("layer*.ln1", "layer0.ln1", 0.25), kind("layer*.wkv", "layer3.wkv", f64::INFINITY)],
        kind_count: 50,
        alone: [Vec::new(), vec!["layer1.ffn_out".into()]],
        unlike: vec!["layer0.w_low: [1, 8] in A, [1, 16] in B".into()],
    }
}

#[test]
fn a_report_reads_as_it_did() {
    let names = ["hal", "wgpu,step-tokens=16"];
    let mut texts = vec![bisect::text(&whole_report(Some(parting())), names)];
    let mut with_weights = parting();
    with_weights.inputs[1].found = InputFound::Apart { difference: 0.5, scale: 2.0, is_within: false };
    with_weights.is_after_step = true;
    with_weights.difference = 0.0;
    with_weights.elements = [0.0, -0.0];
    let op = with_weights.op.as_mut().expect("an op");
    op.has_same_text = Some(true);
    op.bound_apart = vec!["r is layer3.r in A, layer3.q in B".into()];
    texts.push(bisect::text(&whole_report(Some(with_weights)), names));
    let mut plans = whole_report(Some(Parting { op: None, inputs: Vec::new(), ..parting() }));
    plans.sides.iter_mut().for_each(|side| side.is_plan = true);
    texts.push(bisect::text(&plans, names));
    texts.push(bisect::text(&whole_report(None), names));
    let same = Report { kinds: Vec::new(), passes: 1, ..whole_report(None) };
    texts.push(bisect::text(&same, names));
    assert_golden("bisect.txt", &texts.join("\n----\n\n"));
    // JSON has no infinities; they are words there.
    let json = serde_json::to_value(whole_report(Some(parting()))).expect("JSON");
    assert_eq!(json["parting"]["difference"], "inf");
    assert_eq!(json["parting"]["elements"], serde_json::json!([0.25, "NaN"]));
}
