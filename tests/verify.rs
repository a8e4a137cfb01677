//! `graphc verify`: nothing survives, and the validation layer reports what it should.
//!
//! Gets the built-in model and a plan written by hand. What then holds: the figures of the report agree with each
//! other, and the report can be bad: a needless transition survives, a layer that is silent or says too much is
//! noticed, a broken plan is refused. What needs llvmpipe and the layer skips without.

mod hal_plan;
mod program;
mod support;

use std::path::Path;

use graphc::exec::replay::TransitionAt;
use graphc::inspect::verify::layer::{self, Findings};
use graphc::inspect::verify::masks::{Event, Model};
use graphc::inspect::verify::mutate::{Kind, sorts, transitions};
use graphc::inspect::verify::{TOLERANCE, Trial, sightings, try_mutants};
use graphc::plan::Plan;
use graphc::plan::command::{Level, Transition};
use graphc::plan::file;
use graphc::plan::reasons::Hazard;
use graphc::plan::usage::Usage;
use program::{graphc, graphc_with};
use support::{TempDir, skip};

/// No driver at all.
const NO_DEVICE: [(&str, &str); 2] = [("VK_ICD_FILENAMES", "/nonexistent"), ("VK_DRIVER_FILES", "/nonexistent")];

/// Mesa's driver, by itself.
const DRIVER: &str = "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json";
const LAYER: &str = "/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json";

fn report(args: &[&str], variables: &[(&str, &str)]) -> serde_json::Value {
    let args = [&["verify", "--format", "json"], args].concat();
    serde_json::from_str(&graphc_with(&args, variables).fine().out).expect("one JSON object")
}

fn count(report: &serde_json::Value, field: &str) -> u64 {
    report[field].as_u64().unwrap_or_else(|| panic!("`{field}` is a number: {report}"))
}

/// What must hold of every report of the built-in model.
fn is_sound(report: &serde_json::Value) {
    let mutants = count(report, "mutants");
    assert!(mutants > 4 * count(report, "sampled"), "{report}");
    // Those that validation cannot see among them: `visible_to_validation` is less.
    for field in ["killed_by_checker", "confirmed_by_oracle", "killed_by_reference"] {
        assert_eq!(count(report, field), mutants, "{field}: {report}");
    }
    assert!(count(report, "visible_to_validation") < mutants, "{report}");
    assert_eq!((count(report, "survivors"), count(report, "unordered")), (0, 0), "{report}");
    assert_eq!(count(report, "findings"), 0, "{report}");
    assert_eq!(count(report, "covered"), count(report, "transitions"), "{report}");
    assert_eq!(count(report, "levels"), count(report, "longest_chain"), "{report}");
    assert_eq!(report["failures"], serde_json::json!([]));
}

/// What must hold of what is said of fusion, if anything is fused: what results differ by, and where, on the CPU.
fn is_within(fused: &serde_json::Value, rules: &serde_json::Value) {
    let difference = |found: &serde_json::Value| found["difference"].as_f64().expect("a number");
    assert_eq!(fused["executor"], "reference", "{fused}");
    assert!(0.0 < difference(fused) && difference(fused) <= f64::from(TOLERANCE), "{fused}");
    assert!(count(fused, "steps") > 0 && fused["at"].as_str().is_some_and(|at| at.contains("element")), "{fused}");
    assert_eq!(rules["tolerance"].as_f64().map(|tolerance| tolerance as f32), Some(TOLERANCE), "{rules}");
    assert_eq!(rules["failures"], serde_json::json!([]));
    let mut names = Vec::new();
    for rule in rules["rules"].as_array().expect("a list") {
        assert!(count(rule, "shapes") >= 3 && count(rule, "runs") >= count(rule, "shapes"), "{rule}");
        assert!(difference(rule) <= f64::from(TOLERANCE), "{rule}");
        assert_eq!(rule["at"] == "nowhere", difference(rule) == 0.0, "{rule}");
        assert!(rule["executors"].as_array().expect("a list").contains(&"reference".into()), "{rule}");
        names.push(rule["rule"].as_str().expect("a name").to_owned());
    }
    names.sort();
    let files = graphc::sources::rewrites(None).expect("built in");
    let files = files.iter().filter_map(|(path, _)| path.strip_prefix("rewrites/")?.strip_suffix(".ron"));
    assert_eq!(names, files.collect::<Vec<_>>());
}

#[test]
fn nothing_survives_without_a_device() {
    let report = report(&[], &NO_DEVICE);
    is_sound(&report);
    is_within(&report["fused"], &report["rules"]);
    for field in ["hazards", "killed_by_validation", "validation_layer"] {
        assert!(report[field].is_null(), "{field}: {report}");
    }
    assert!(!report["notes"].as_array().expect("a list").is_empty(), "{report}");
}

#[test]
fn fusion_is_a_line_and_each_rule_is_one_and_both_are_left_out_where_nothing_is_fused() {
    let dir = TempDir::new();
    let built_in = [graphc::sources::graphs(None), graphc::sources::parts(None)].map(|texts| texts.expect("built in"));
    for (path, text) in built_in.concat() {
        let path = dir.file(&path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder is made");
        std::fs::write(path, text).expect("a graph is written");
    }
    std::fs::create_dir_all(dir.file("rewrites")).expect("a folder is made");
    let folder = dir.file("");
    let verify = |offset: &str, more: &[&str]| {
        let rule = format!(
            "Rewrite(shapes: {{\"up\": [\"T\", \"C\"]}}, examples: [{{\"C\": 4}}, {{\"C\": 9}}], \
             pattern: [Map(\"square(max(up, 0.0))\", {{\"up\": \"up\"}}, \"key\")], \
             replacement: [Map(\"square(max(up, {offset}))\", {{\"up\": \"up\"}}, \"key\")])"
        );
        std::fs::write(dir.file("rewrites/relu.ron"), rule).expect("a rule is written");
        graphc_with(&[&["verify", "--graphs", program::text(&folder)], more].concat(), &NO_DEVICE)
    };
    let line = |text: &str, begin: &str| text.lines().filter(|line| line.starts_with(begin)).count();
    let fine = verify("0.0", &[]).fine().out;
    assert_eq!((line(&fine, "fused      within "), line(&fine, "rule       relu: ")), (1, 1), "{fine}");
    assert!(fine.contains("runs on reference, reference without subgroups, at most 0.0e0 apart\n"), "{fine}");
    let failures = ["fused and unfused plans differ on reference by", "rule `relu`, C=4, f16", "results differ by"];
    verify("0.5", &[]).fails_with_result(1, "fused      within ", &failures);
    let off = verify("0.5", &["--fuse", "off", "--format", "json"]).fine().out;
    let off: serde_json::Value = serde_json::from_str(&off).expect("one JSON object");
    assert!(off["fused"].is_null() && off["rules"].is_null(), "{off}");
}

#[test]
fn the_layer_reports_what_it_can_see_and_no_more() {
    if let Some(missing) = [DRIVER, LAYER].into_iter().find(|path| !Path::new(path).exists()) {
        return skip(&format!("there is no `{missing}`"));
    }
    let report = report(&["--device", "llvmpipe"], &[("VK_ICD_FILENAMES", DRIVER)]);
    is_sound(&report);
    if report["killed_by_validation"].is_null() {
        return skip(&format!("mutants did not run: {}", report["notes"]));
    }
    let visible = count(&report, "visible_to_validation");
    assert!(0 < visible && visible < count(&report, "mutants"), "{report}");
    assert_eq!(count(&report, "killed_by_validation"), visible, "{report}");
    assert_eq!(count(&report, "hazards"), 0, "{report}");
    assert_eq!(report["agree"], true, "{report}");
}

#[test]
fn a_plan_file_is_verified_and_a_broken_one_is_refused() {
    let dir = TempDir::new();
    let (sound, broken) = (dir.file("sound.plan"), dir.file("broken.plan"));
    graphc(&["compile", "-o", program::text(&sound)]).fine();
    let text = std::fs::read_to_string(&sound).expect("written");
    let none = NO_DEVICE;
    is_sound(&report(&[program::text(&sound)], &none));
    // The first transition of the plan takes the inputs from the host.
    std::fs::write(&broken, text.replacen(r#"from: "MAP_WRITE""#, r#"from: "COPY_SRC""#, 1)).expect("written");
    graphc_with(&["verify", program::text(&broken)], &none).fails(1, &["broken.plan", "P4 at level 0"]);
    graphc_with(&["verify", program::text(&sound), "--tokens", "2"], &none).fails(2, &["`--tokens`", "need a graph"]);
}

/// The checker takes the plan's word for its longest chain.
#[test]
fn a_level_that_nothing_needs_is_found() {
    let dir = TempDir::new();
    let path = dir.file("longer.ron");
    graphc(&["compile", "-o", program::text(&path)]).fine();
    let mut longer = file::from_text(&std::fs::read_to_string(&path).expect("written")).expect("a plan");
    longer.plan.levels.push(Level { barrier: Vec::new(), commands: Vec::new() });
    longer.plan.longest_chain += 1;
    std::fs::write(&path, file::to_text(&longer.plan, &longer.model)).expect("written");
    let ran = graphc_with(&["verify", program::text(&path)], &[("VK_ICD_FILENAMES", "/nonexistent")]);
    let failure = "T=1 plan: expected the 34 levels of its longest chain of commands, found 35";
    ran.fails_with_result(1, "35 levels, the longest chain has 34", &[failure]);
}

fn tried(plan: &Plan) -> Trial {
    try_mutants(plan, &Model::new(plan), true, &mut |_, _| ())
}

#[test]
fn a_needless_transition_survives() {
    let sound = hal_plan::plan(4);
    assert!(tried(&sound).mutants.iter().all(|tried| !tried.survives()));
    // One more from a read to the same read, behind the transition that leads there.
    let mut plan = sound;
    let (at, led) = transitions(&plan)
        .find(|(at, led)| led.to == Usage::STORAGE_READ && at.level + 1 < plan.levels.len())
        .expect("something is written and read");
    let reads = Usage::STORAGE_READ;
    plan.levels[at.level + 1].barrier.insert(0, Transition { buffer: led.buffer, from: reads, to: reads });
    let trial = tried(&plan);
    let survivors: Vec<_> = trial.mutants.iter().filter(|tried| tried.survives()).collect();
    let needless = TransitionAt { level: at.level + 1, transition: 0 };
    let removed = survivors.iter().find(|tried| tried.sighting.mutant.kind == Kind::Removed).expect("it survives");
    assert_eq!(removed.sighting.mutant.edit.at, needless);
    assert_eq!((&removed.verdict.refusal, &removed.verdict.pair), (&None, &None));
}

/// Runs all mutants of a plan, one by one, under a layer that says this.
fn findings(plan: &Plan, trial: &Trial, says: &mut dyn FnMut(bool) -> Vec<String>) -> Findings {
    let run_step: layer::RunStep<'_> = &mut |edits| Ok(says(!edits.is_empty()));
    layer::run(plan, &Model::new(plan), &sightings(trial), true, run_step, &mut |_| ()).expect("steps do not fail")
}

#[test]
fn a_layer_that_is_silent_or_says_too_much_is_noticed() {
    let plan = hal_plan::plan(4);
    let trial = tried(&plan);
    let visible = trial.mutants.iter().filter(|tried| !tried.sighting.predicted.is_empty()).count();
    assert!(0 < visible && visible < trial.mutants.len(), "{visible}");
    let silent = findings(&plan, &trial, &mut |_| Vec::new());
    assert_eq!(silent.noticed.iter().filter(|noticed| **noticed).count(), 0);
    assert_eq!(silent.mismatches.len(), visible);
    assert!(silent.mismatches.iter().all(|mismatch| !mismatch.missing.is_empty() && mismatch.extra.is_empty()));
    let chatty = findings(&plan, &trial, &mut |has_mutants| match has_mutants {
        true => vec!["something else".to_owned()],
        false => Vec::new(),
    });
    assert_eq!(chatty.mismatches.len(), trial.mutants.len());
    assert!(chatty.mismatches.iter().all(|mismatch| mismatch.other == ["something else"]));
}

#[test]
fn a_report_is_read_as_the_hazard_it_is() {
    let plan = hal_plan::plan(4);
    let trial = tried(&plan);
    // A removed transition from one dispatch to the next, which the layer reports while the step is recorded.
    let (at, predicted) = trial
        .mutants
        .iter()
        .enumerate()
        .find_map(|(at, tried)| match tried.sighting.predicted.as_slice() {
            [event @ Event::Recorded { step: 0, command, hazard: Hazard::ReadAfterWrite, .. }]
                if plan.commands().nth(*command).is_some_and(|command| command.label() == LAST_DISPATCH) =>
            {
                Some((at, event.clone()))
            }
            _ => None,
        })
        .expect("a dispatch reads what another wrote");
    let Event::Recorded { binding, .. } = predicted else { unreachable!("found as one") };
    let report = format!(
        "VALIDATION [SYNC-HAZARD-READ-AFTER-WRITE (0xe4d96472)]\n\tValidation Error: [ ... ] | vkCmdDispatch: Hazard \
         READ_AFTER_WRITE for VkBuffer 0x21[a] in VkCommandBuffer 0x55[g], VkPipeline 0x60[k], and VkDescriptorSet \
         0x2a4[{LAST_DISPATCH}], type: VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, binding #{binding} index 0. Access info \
         (usage: SYNC_COMPUTE_SHADER_SHADER_STORAGE_READ, prior_usage: SYNC_COMPUTE_SHADER_SHADER_STORAGE_WRITE, \
         write_barriers: 0, command: vkCmdDispatch, seq_no: 4, reset_no: 3)."
    );
    let said = findings(&plan, &trial, &mut |has_mutants| if has_mutants { vec![report.clone()] } else { Vec::new() });
    assert!(said.noticed[at], "{predicted:?}");
    assert!(said.mismatches.iter().all(|mismatch| mismatch.mutant != at));
    // Of the others it is a report too many, but for those that break the same.
    let same = trial.mutants.iter().filter(|tried| tried.sighting.predicted == [predicted.clone()]).count();
    assert_eq!(said.noticed.iter().filter(|noticed| **noticed).count(), same);
    assert_eq!(said.mismatches.len(), trial.mutants.len() - same);
}

/// The last dispatch of the plan written by hand.
const LAST_DISPATCH: &str = "add";

#[test]
fn sorts_stand_for_every_transition_once() {
    let plan = hal_plan::plan(4);
    let sorts = sorts(&plan);
    assert_eq!(sorts.iter().map(|(_, count)| count).sum::<usize>(), transitions(&plan).count());
}
