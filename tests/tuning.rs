//! Tunings: choices reach the kernels that they are for and nothing else, and change no result.
//!
//! Gets the built-in model and kernels, and tunings written here or by `graphc tune`. No test knows which choice is
//! fast. Those that need a device skip without.

mod program;
mod support;

use graphc::base::dtype::DType;
use graphc::base::limits::Limits;
use graphc::base::role::{InputRole, OutputRole};
use graphc::base::span::SourceMap;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::compile::{CompileError, Compiler};
use graphc::exec::reference::{ReferenceExecutor, ReferenceOptions, Sanitize};
use graphc::exec::{Executor, Inputs, Session, Weights};
use graphc::inspect::tune::{TuneOptions, tune};
use graphc::kernel::tuning::Tuning;
use graphc::plan::command::Command;
use graphc::plan::{CheckedPlan, Plan};
use graphc::{base, sources};
use program::{devices, graphc_with, text};
use support::models::{Format, Shape, write_model};
use support::runner::{AnyExecutor, Kind, Program, all_rows, compile};
use support::{TempDir, open, skip};

/// A step of the small model whose sums are made another way gives logits that differ by no more.
const TOLERANCE: f32 = 1e-4;

/// The model that is built in.
fn checkpoint() -> Checkpoint {
    Checkpoint::from_static("the built-in model", sources::DEMO_MODEL).expect("built in")
}

/// A random model, wide enough for every text, whose rows and columns are not all multiples of what is offered.
const SMALL: Shape =
    Shape { layers: 2, heads: 4, head_size: 64, ffn: 1032, vocab: 259, rank_w: 32, rank_a: 32, rank_v: 16, rank_g: 64 };

fn small(dir: &TempDir) -> Checkpoint {
    let path = dir.file("small.safetensors");
    write_model(&path, &SMALL, 7, &Format::converted(DType::F16)).expect("a model is written");
    open(&path)
}

/// The tuning of a list of choices, right for the program's kernels.
fn tuning(program: &mut Program, choices: &str) -> Tuning {
    let text = format!("Tuning(device: \"card\", driver: \"1\", choices: [{choices}])");
    let source = program.sources.add("mine.ron", text);
    let tuning = Tuning::parse(&program.sources, source).unwrap_or_else(|wrong| panic!("{wrong:#?}"));
    let mistakes = tuning.mistakes(&program.kernels);
    assert!(mistakes.is_empty(), "{mistakes:#?}");
    tuning
}

/// Label, kernel's text and workgroups of every dispatch.
fn dispatches(plan: &Plan) -> Vec<(String, String, [u32; 3])> {
    let commands = plan.levels.iter().flat_map(|level| &level.commands);
    let dispatches = commands.filter_map(|command| match command {
        Command::Dispatch(dispatch) => Some(dispatch),
        Command::Copy(_) => None,
    });
    dispatches.map(|found| (found.label.clone(), plan.kernels[found.kernel].wgsl.clone(), found.workgroups)).collect()
}

#[test]
fn choice_changes_the_text_and_dispatch_of_the_uses_it_is_for() {
    let (checkpoint, limits, mut program) = (checkpoint(), Limits::vulkan(), Program::rwkv7().fused());
    let choices = "Choice(kernel: \"mixed_linears\", at: {\"O\": 1024, \"weight\": f16}, consts: {\"ROWS\": 2}),
                   Choice(kernel: \"mixed_linears\", at: {\"weight\": f32}, consts: {\"ROWS\": 8})";
    let tuning = tuning(&mut program, choices);
    let usual = program.compiler(checkpoint.index(), &limits, &[]);
    let tuned = Compiler { tuning: Some(&tuning), ..usual };
    let (before, after) = (compile(&usual, all_rows(1)), compile(&tuned, all_rows(1)));
    assert_eq!(after, compile(&tuned, all_rows(1)), "equal inputs give equal plans");
    assert_eq!((&before.weights, &before.state), (&after.weights, &after.state));
    let (before, after) = (dispatches(&before), dispatches(&after));
    assert_eq!(before.len(), after.len());
    let mut changed = 0;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.0, after.0);
        if before.2 == [256, 1, 1] && before.1.contains("const O: u32 = 1024u;") {
            assert_eq!(after.2, [512, 1, 1], "{}", after.0);
            assert!(after.1.contains("const ROWS: u32 = 2u;") && !after.1.contains("w2_0"), "{}", after.1);
            changed += 1;
        } else {
            assert_eq!(before, after);
        }
    }
    assert_eq!(changed, 6, "a product of each layer's channel mixing");
}

#[test]
fn what_says_most_of_a_use_counts() {
    let (checkpoint, limits, mut program) = (checkpoint(), Limits::vulkan(), Program::rwkv7().fused());
    let both = "Choice(kernel: \"mixed_linears\", at: {}, consts: {\"ROWS\": 1}),
                Choice(kernel: \"mixed_linears\", at: {\"O\": 1024}, consts: {\"ROWS\": 2}),
                Choice(kernel: \"mixed_linears\", at: {\"C\": 256}, consts: {\"ROWS\": 8})";
    let tuning = tuning(&mut program, both);
    let compiler = Compiler { tuning: Some(&tuning), ..program.compiler(checkpoint.index(), &limits, &[]) };
    let model = compiler.compile(all_rows(1)).unwrap_or_else(|error| panic!("{error}")).model;
    let rows = |op: &graphc::model::Op| {
        let tunable = op.tunable.as_ref().filter(|tunable| tunable.kernel == "mixed_linears")?;
        let (_, rows) = tunable.consts.iter().find(|(name, _)| name == "ROWS")?;
        Some((tunable.at[1].1.to_string(), *rows))
    };
    let found: std::collections::BTreeSet<_> = model.ops.values().filter_map(rows).collect();
    let found: Vec<(&str, i64)> = found.iter().map(|(outputs, rows)| (outputs.as_str(), *rows)).collect();
    assert_eq!(found, [("1024", 2), ("896", 8), ("928", 8)]);
}

/// All values that manifests offer, each in a tuning with those of other kernels: constants by their place among those
/// of their kernel, and by the value's place; then texts.
fn offers(program: &mut Program) -> Vec<Tuning> {
    let mut found = Vec::new();
    let tunes = |program: &Program| -> Vec<(String, graphc::kernel::tune::Tune)> {
        let kernels = program.kernels.iter();
        kernels.filter_map(|kernel| Some((kernel.name.clone(), kernel.tune.clone()?))).collect()
    };
    let tunes = tunes(program);
    assert!(tunes.len() >= 4, "the shipped kernels leave something open");
    let mut add = |choices: Vec<String>| {
        if !choices.is_empty() {
            let mut tuning = tuning(program, &choices.join(","));
            // What a device or a use cannot take is passed over.
            tuning.choices.iter_mut().for_each(|choice| choice.is_strict = false);
            found.push(tuning);
        }
    };
    for place in 0..8 {
        for value in 0..8 {
            let choice = |(kernel, tune): &(String, graphc::kernel::tune::Tune)| {
                let (name, values) = tune.consts.get(place)?;
                let (name, value) = (&name.text, values.get(value)?);
                Some(format!("Choice(kernel: {kernel:?}, at: {{}}, consts: {{{name:?}: {value}}})"))
            };
            add(tunes.iter().filter_map(choice).collect());
        }
        let choice = |(kernel, tune): &(String, graphc::kernel::tune::Tune)| {
            Some(format!("Choice(kernel: {kernel:?}, at: {{}}, variant: {:?})", tune.variants.get(place)?.text))
        };
        add(tunes.iter().filter_map(choice).collect());
    }
    found
}

/// Logits of the last of two steps that begin in the initial state.
fn logits<S: Session>(session: &mut S, plan: CheckedPlan) -> Vec<f32> {
    let (tokens, state) = (plan.shape.tokens, plan.state.clone());
    for (index, buffer) in (0..).zip(&state.buffers) {
        session.write_state(index, 0, &buffer.init_row()).expect("written");
    }
    let id = session.prepare(plan).expect("prepared");
    let mut logits = Vec::new();
    for first in [10, 100] {
        let inputs = Inputs::new()
            .with(InputRole::TokenIds, (first..first + tokens).collect())
            .with(InputRole::SequenceOffsets, vec![0, tokens])
            .with(InputRole::StateRows, vec![0])
            .with(InputRole::OutputRows, (0..tokens).collect());
        let ticket = session.step(id, &inputs).expect("submitted");
        let outputs = session.outputs(ticket).expect("outputs");
        logits = outputs.role(OutputRole::Logits).expect("logits").to_f32();
    }
    logits
}

/// Runs every offer in steps of these sizes, and compares with the manifests' own.
fn compare(executor: &AnyExecutor, program: &mut Program, sizes: &[u32]) -> usize {
    let dir = TempDir::new();
    let (checkpoint, limits) = (small(&dir), executor.device().limits.clone());
    let offers = offers(program);
    // As written or fused, but never by batch-invariant variants alone.
    let usual = Compiler { batch_invariant: false, ..program.compiler(checkpoint.index(), &limits, &[]) };
    let mut compared = 0;
    for tokens in sizes {
        let plan = compile(&usual, all_rows(*tokens));
        let weights = Weights { layout: &plan.weights, checkpoint: &checkpoint };
        let mut session = executor.open(&weights, &plan.state, &mut |_, _| ()).expect("open");
        let expected = logits(&mut session, plan.clone());
        let (least, most) = expected.iter().fold((f32::MAX, f32::MIN), |(a, b), logit| (a.min(*logit), b.max(*logit)));
        assert!(most - least > 1e3 * TOLERANCE, "logits from {least} to {most} would hide a mistake");
        for tuning in &offers {
            let tuned = compile(&Compiler { tuning: Some(tuning), ..usual }, all_rows(*tokens));
            assert_eq!((&tuned.weights, &tuned.state), (&plan.weights, &plan.state), "{}", tuning.print());
            if tuned == plan {
                continue;
            }
            let found = logits(&mut session, tuned);
            let far = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far <= TOLERANCE, "{} tokens, {far} on {}: {}", tokens, executor.device().name, tuning.print());
            compared += 1;
        }
    }
    compared
}

#[test]
fn whatever_is_chosen_computes_the_same() {
    // The interpreter looks at every index as well, which kernels without checks vouch for.
    let options = ReferenceOptions { sanitize: Some(Sanitize { not_finite: true }), ..ReferenceOptions::new() };
    let looks = ReferenceExecutor::new(&options, None).expect("it needs no device");
    let executors = [AnyExecutor::find(Kind::Hal, "llvmpipe"), Some(AnyExecutor::Reference(looks))];
    for executor in executors.into_iter().flatten() {
        let device = executor.device().name.clone();
        // Texts for narrow subgroups leave little open.
        let is_wide = executor.device().limits.min_subgroup_size >= 16;
        let least = if is_wide { 8 } else { 1 };
        let fused = compare(&executor, &mut Program::rwkv7().fused(), &[1]);
        assert!(fused >= least, "{device}: {fused} plans differ from the usual one");
        let plain = compare(&executor, &mut Program::rwkv7(), &[1, 5]);
        assert!(plain >= least, "{device}: {plain} plans differ from the usual one");
        if let AnyExecutor::Reference(executor) = &executor {
            let (findings, omitted) = executor.findings();
            assert!(findings.is_empty() && omitted == 0, "{}", findings[0]);
        }
    }
}

#[test]
fn batch_invariant_steps_take_no_choice_that_changes_a_sum() {
    let (checkpoint, limits, mut program) = (checkpoint(), Limits::vulkan(), Program::rwkv7());
    let choices = "Choice(kernel: \"linear\", at: {\"T\": 16}, consts: {\"ONE_ROWS\": 4, \"TILE\": 2},
                          variant: \"linear_narrow_subgroups.wgsl\"),
                   Choice(kernel: \"linear\", at: {\"T\": 1}, variant: \"linear_subgroups.wgsl\")";
    let all = tuning(&mut program, choices);
    let tile = tuning(&mut program, "Choice(kernel: \"linear\", at: {\"T\": 16}, consts: {\"TILE\": 2})");
    // Subgroups so wide that the usual text is another one than what is chosen.
    let limits = Limits { min_subgroup_size: 32, ..limits };
    let usual = Compiler { batch_invariant: true, ..program.compiler(checkpoint.index(), &limits, &[]) };
    for tokens in [1, 16] {
        let with = |tuning| compile(&Compiler { tuning, ..usual }, all_rows(tokens));
        assert_eq!(with(Some(&all)), with(Some(&tile)), "{tokens} tokens");
        assert_eq!(with(Some(&tile)) == with(None), tokens == 1, "tiles leave sums as they are");
    }
    let usual = Compiler { batch_invariant: false, ..usual };
    let with = |tuning| compile(&Compiler { tuning, ..usual }, all_rows(16));
    assert_ne!(with(Some(&all)), with(Some(&tile)), "elsewhere all of it counts");
}

#[test]
fn plans_of_one_session_agree_whatever_their_tunings() {
    let (checkpoint, limits, mut program) = (checkpoint(), Limits::vulkan(), Program::rwkv7().fused());
    let offers = offers(&mut program);
    let usual = program.compiler(checkpoint.index(), &limits, &[]);
    let expected = compile(&usual, all_rows(16));
    for tuning in &offers {
        for tokens in [1, 16, 64] {
            let plan = compile(&Compiler { tuning: Some(tuning), ..usual }, all_rows(tokens));
            assert_eq!((&plan.weights, &plan.state), (&expected.weights, &expected.state), "{tokens}");
        }
    }
}

#[test]
fn printed_and_parsed_a_tuning_is_the_same_and_laid_out() {
    let mut program = Program::rwkv7();
    let choices = "Choice(kernel: \"norm_linear\", at: {\"O\": 8, \"C\": 16}, consts: {\"ROWS\": 2, \"CHUNKS\": 1}),
                   Choice(kernel: \"linear\", at: {\"T\": 16, \"weight\": bf16}, variant: \"linear_tiles.wgsl\"),
                   Choice(kernel: \"linear\", at: {\"T\": 5, \"I\": 1}, consts: {\"TILE\": 4})";
    let tuning = Tuning { device: "a \"card\"\u{7}".into(), ..tuning(&mut program, choices) };
    let printed = tuning.print();
    let expected = r#"Tuning(
    device: "a \"card\"\u{7}",
    driver: "1",
    choices: [
        Choice(kernel: "linear", at: {"T": 5, "I": 1}, consts: {"TILE": 4}),
        Choice(kernel: "linear", at: {"T": 16, "weight": bf16}, variant: "linear_tiles.wgsl"),
        Choice(kernel: "norm_linear", at: {"O": 8, "C": 16}, consts: {"ROWS": 2, "CHUNKS": 1}),
    ],
)
"#;
    assert_eq!(printed, expected);
    let mut map = SourceMap::new();
    let source = map.add("printed", printed.as_str());
    assert_eq!(base::fmt::format(&map, source).expect("RON"), printed);
    assert_eq!(Tuning::parse(&map, source).expect("a tuning").print(), printed);
}

#[test]
fn device_without_subgroups_and_halves_has_plans_fused_and_not() {
    let checkpoint = checkpoint();
    // The recurrence binds nine buffers.
    let limits = Limits { max_storage_buffers_per_dispatch: 10, ..Limits::webgpu() };
    for program in [Program::rwkv7(), Program::rwkv7().fused()] {
        for (draws, tokens) in [(false, 1), (true, 1), (false, 16), (false, 512)] {
            let compiler =
                Compiler { batch_invariant: false, draws, ..program.compiler(checkpoint.index(), &limits, &[]) };
            let plan = compile(&compiler, StepShape { tokens, sequences: 1, rows: 1, capacity: 1 });
            for kernel in plan.kernels.values() {
                let text = &kernel.wgsl;
                let asks = ["enable ", "requires ", "subgroup", "immediate", "push_constant"];
                let found = asks.into_iter().find(|word| text.lines().any(|line| code(line).contains(word)));
                assert_eq!(found, None, "`{}` at {tokens} tokens:\n{text}", kernel.label);
            }
        }
    }
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or("")
}

#[test]
fn tuner_tries_what_is_offered_and_takes_what_is_there_for_other_uses() {
    let Some(executor) = AnyExecutor::find(Kind::Reference, "the CPU") else { return };
    let dir = TempDir::new();
    let (checkpoint, limits) = (small(&dir), executor.device().limits.clone());
    let mut program = Program::rwkv7().fused();
    let choices = "Choice(kernel: \"mixed_linears\", at: {\"C\": 9, \"O\": 9, \"weight\": f16}, consts: {\"ROWS\": 1}),
                   Choice(kernel: \"linear_keep\", at: {\"C\": 256, \"I\": 1032, \"weight\": f16},
                          consts: {\"ROWS\": 8})";
    let before = tuning(&mut program, choices);
    let compiler = Compiler { tuning: Some(&before), ..program.compiler(checkpoint.index(), &limits, &[]) };
    let options = TuneOptions { tokens: vec![1], sequences: 1, rounds: 1 };
    let mut told = 0;
    let tuned = tune(&executor, compiler, &checkpoint, &options, &mut |_| told += 1);
    let tuned = tuned.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(told, tuned.trials.len());
    // The first of each, whatever was kept before.
    for change in ["ROWS 1 -> 2", "CHUNKS 1 -> 2", "ROWS 4 -> 1"] {
        assert!(tuned.trials.iter().any(|trial| trial.change == change), "{change}: {:#?}", tuned.trials);
    }
    assert!(tuned.trials.iter().all(|trial| !trial.kept || trial.ratio < 1.0), "{:#?}", tuned.trials);
    let (step, kept) = (&tuned.steps[0], tuned.trials.iter().any(|trial| trial.kept));
    assert!(step.kept == (step.ratio < 1.0 - step.noise.max(0.002)) || !kept, "{step:?}");
    // One use is of another model and stays; the other was measured from the manifest's own value on.
    let is_other = |choice: &&graphc::kernel::tuning::Choice| choice.at[0].1.to_string() == "9";
    assert_eq!(tuned.tuning.choices.iter().filter(is_other).count(), 1);
    assert_eq!(tuned.tuning.device, executor.device().name);
    let mistakes = tuned.tuning.mistakes(&program.kernels);
    assert!(mistakes.is_empty(), "{mistakes:#?}");
    if !step.kept {
        assert_eq!(tuned.tuning.choices.len(), 1, "nothing is kept that does not help the whole step");
    }
}

#[test]
fn choice_for_a_use_is_refused_by_its_place() {
    let (checkpoint, limits, mut program) = (checkpoint(), Limits::webgpu(), Program::rwkv7().fused());
    let choice = "Choice(kernel: \"mixed_linears\", at: {\"O\": 1024}, consts: {\"ROWS\": 16, \"CHUNKS\": 4})";
    let tuning = tuning(&mut program, choice);
    let compiler = Compiler { tuning: Some(&tuning), ..program.compiler(checkpoint.index(), &limits, &[]) };
    let Err(CompileError::Wrong { rendered, .. }) = compiler.compile(all_rows(1)) else { panic!("it is refused") };
    assert!(rendered.contains("`mixed_linears` cannot take this: `ROWS * CHUNKS <= 16` does not hold"), "{rendered}");
    assert!(rendered.contains("mine.ron:1:"), "{rendered}");
}

/// The only tuning file in a cache folder.
fn kept(dir: &TempDir) -> std::path::PathBuf {
    let files =
        std::fs::read_dir(dir.file("graphc")).expect("the cache folder").map(|entry| entry.expect("read").path());
    let mut files: Vec<_> = files.filter(|path| text(path).ends_with(".tuning.ron")).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

#[test]
fn what_tune_keeps_counts_from_then_on() {
    let dir = TempDir::new();
    let cache = dir.file("");
    let variables = [("XDG_CACHE_HOME", text(&cache))];
    let run = |args: &[&str]| graphc_with(args, &variables);
    let on = ["--executor", "hal", "--device", "llvmpipe"];
    match devices("hal") {
        Ok(names) if names.iter().any(|name| name.contains("llvmpipe")) => {}
        Ok(names) => return skip(&format!("no llvmpipe among {names:?}")),
        Err(reason) => return skip(&reason),
    }
    small(&dir);
    let model = dir.file("small.safetensors");
    let on = [&["--weights", text(&model)], &on[..]].concat();
    let tuned = run(&[&["tune", "--rounds", "1"], &on[..]].concat()).fine();
    assert!(tuned.out.contains("linear_one_octet.wgsl -> linear_narrow_subgroups.wgsl"), "{tuned}");
    let file = kept(&dir);
    assert!(tuned.out.contains(text(&file)), "{tuned}");
    run(&["fmt", "--check", text(&file)]).fine();
    run(&["check", text(&file)]).fine();

    let head = std::fs::read_to_string(&file).expect("written");
    let (head, _) = head.split_once("    choices:").expect("it has choices");
    let choice = "Choice(kernel: \"mixed_linears\", at: {\"C\": 256}, consts: {\"ROWS\": 8})";
    std::fs::write(&file, format!("{head}choices: [{choice}])\n")).expect("written");
    let prompt = ["--tokens", "1,2", "-n", "4", "--print-tokens", "--temperature", "0", "--stats"];
    let run_model = |flags: &[&str]| run(&[&["run"], &on[..], &prompt[..], flags].concat());
    let with = run_model(&[]).fine();
    assert!(with.err.contains(&format!("tuning   {} (1 choices)", text(&file))), "{with}");
    let without = run_model(&["--tuning", "none"]).fine();
    assert!(without.err.contains("tuning   none") && without.out == with.out, "{without}");
    let short = ["--prefill", "4", "--decode", "2", "--rounds", "1", "--format", "json"];
    let bench = run(&[&["bench"], &on[..], &short[..]].concat()).fine();
    let report: serde_json::Value = serde_json::from_str(&bench.out).expect("JSON");
    assert_eq!(report["tuning"], text(&file), "{bench}");

    // Kernels change: what no longer fits costs speed alone where nobody named the file.
    let stale = "Choice(kernel: \"gone\", at: {}, consts: {\"ROWS\": 8}),
                 Choice(kernel: \"norm_linear\", at: {}, consts: {\"ROWS\": 7})";
    std::fs::write(&file, format!("{head}choices: [{stale}, {choice}])\n")).expect("written");
    let with = run_model(&[]).fine();
    let note = format!("note: 2 of 3 choices of `{}` do not fit these kernels and are left out", text(&file));
    assert!(with.err.contains(&note) && with.err.contains("(1 choices)"), "{with}");
    run_model(&["--tuning", text(&file)])
        .fails(1, &["there is no kernel `gone`", "`ROWS` is 7, expected one of 1, 2, 3, 4, 5, 6, 8, 16"]);
    std::fs::write(&file, "Tuning(").expect("written");
    let with = run_model(&[]).fine();
    assert!(with.err.contains("is no tuning and is not used") && with.err.contains("tuning   none"), "{with}");
    std::fs::write(&file, "Tuning(device: \"another\", driver: \"1\", choices: [])").expect("written");
    let with = run_model(&[]).fine();
    assert!(with.err.contains("is of another device or driver and is not used"), "{with}");
}

#[test]
fn compile_takes_a_tuning_that_is_named_and_none_by_itself() {
    let dir = TempDir::new();
    let (file, plan) = (dir.file("mine.ron"), dir.file("tuned.plan"));
    let choice = "Choice(kernel: \"mixed_linears\", at: {\"O\": 1024}, consts: {\"ROWS\": 2})";
    std::fs::write(&file, format!("Tuning(device: \"card\", driver: \"1\", choices: [{choice}])\n")).expect("written");
    let run = |args: &[&str]| graphc_with(args, &[]);
    let emit = ["--emit", "kernels"];
    let usual = run(&[&["compile"], &emit[..]].concat()).fine().out;
    assert_eq!(run(&[&["compile", "--tuning", "none"], &emit[..]].concat()).fine().out, usual);
    let named = ["compile", "--tuning", text(&file)];
    let tuned = run(&[&named[..], &emit[..]].concat()).fine().out;
    assert!(tuned != usual && tuned.contains("const ROWS: u32 = 2u;"));
    run(&[&named[..], &["-o", text(&plan)]].concat()).fine();
    run(&["run", text(&plan), "--tuning", text(&file), "--tokens", "1"])
        .fails(2, &["`--tuning` is for graphs, which are compiled when they are run"]);
    run(&["compile", text(&plan), "--tuning", text(&file)]).fails(2, &["`--tuning` would change nothing"]);
    let missing = dir.file("missing.ron");
    run(&["compile", "--tuning", text(&missing)]).fails(2, &["cannot read", "missing.ron"]);
}
