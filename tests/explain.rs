//! Explanations are true: their lines are the files' lines, their chains the levels, their dangers the oracle's.
//!
//! Gets plans of shipped graphs; asks about each barrier, transition and command in them, and compares what is said
//! with the shaders' and graphs' own texts, with the plan's accesses and with its levels. Also the command line of
//! `explain`. What explanations look like is kept in `tests/golden/` and compared by `golden`.

mod program;
mod support;

use std::collections::BTreeSet;

use graphc::base::limits::Limits;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::inspect::explain::{BarrierFacts, CommandFacts, Link, PortLines, Subject, TransitionFacts, When, explain};
use graphc::kernel::lines;
use graphc::plan::CheckedPlan;
use graphc::plan::reasons::{Party, Reasons};
use graphc::sources;
use program::{graphc, synth, text};
use support::TempDir;
use support::runner::{Program, compile};

/// A plan of two layers, for steps of some tokens.
fn plan(tokens: u32) -> CheckedPlan {
    let checkpoint = Checkpoint::open(&synth()).expect("committed");
    let shape = StepShape { tokens, sequences: 1, rows: 1, capacity: 1 };
    compile(&Program::rwkv7().compiler(checkpoint.index(), &Limits::vulkan(), &[]), shape)
}

fn barrier(plan: &CheckedPlan, number: usize) -> BarrierFacts {
    match explain(plan, &format!("b{number}")).expect("a barrier").subject {
        Subject::Barrier(facts) => facts,
        other => panic!("{other:?}"),
    }
}

fn transition(plan: &CheckedPlan, name: &str) -> TransitionFacts {
    match explain(plan, name).expect("a transition").subject {
        Subject::Transition(facts) => facts,
        other => panic!("{other:?}"),
    }
}

fn command(plan: &CheckedPlan, name: &str) -> CommandFacts {
    match explain(plan, name).expect("a command").subject {
        Subject::Command(facts) => facts,
        other => panic!("{other:?}"),
    }
}

/// The author's texts by the names that plans give them.
fn texts() -> Vec<(String, String)> {
    let graphs = sources::graphs(None).expect("built in").into_iter();
    let shaders = sources::shaders(None).expect("built in").into_iter();
    let shaders = shaders.map(|(path, text)| (format!("shaders/{path}"), text));
    graphs.chain(shaders).collect()
}

/// Complains about lines that are not the files' or that do not do what their binding does.
fn check_lines(port: &PortLines, texts: &[(String, String)], whose: &str) {
    let (reads, writes) =
        port.lines.iter().fold((false, false), |(reads, writes), line| (reads | line.reads, writes | line.writes));
    assert_eq!((reads, writes), (port.reads, port.writes), "{whose}: lines of `{}`", port.port);
    for line in &port.lines {
        let file = line.file.as_ref().unwrap_or_else(|| panic!("{whose}: `{}` is no author's line", line.text));
        let (_, text) = texts.iter().find(|(name, _)| name == file).unwrap_or_else(|| panic!("no file {file}"));
        let in_file = text.lines().nth(line.line as usize - 1).expect("a line of the file");
        assert!(in_file.contains(&line.text), "{file}:{} is `{in_file}`, found `{}`", line.line, line.text);
    }
}

#[test]
fn every_binding_of_every_command_has_the_lines_that_reach_it() {
    let texts = texts();
    for plan in [plan(1), plan(32)] {
        for number in 0..plan.summary().dispatches {
            let facts = command(&plan, &format!("d{number}"));
            for bound in &facts.touches {
                check_lines(&bound.port, &texts, &facts.command.label);
            }
        }
    }
}

#[test]
fn a_chain_is_as_long_as_its_level_is_late() {
    let plan = plan(1);
    for (level, commands) in plan.levels.iter().enumerate() {
        for found in &commands.commands {
            let facts = command(&plan, &format!("op {}", found.label()));
            let levels: Vec<usize> = facts.chain.iter().map(|link| link.command.level as usize).collect();
            assert_eq!(levels, (0..=level).collect::<Vec<_>>(), "`{}`", found.label());
            let unexplained = |link: &&Link| link.because.is_none();
            assert_eq!(facts.chain.iter().filter(unexplained).count(), 1, "only the first waits for nothing");
        }
    }
}

/// The pair that listings name shares bytes where any pair right before and behind the transition does.
fn check_reason(plan: &CheckedPlan, reasons: &Reasons, name: &str, shares: bool) {
    let (level, at) = name[1..].split_once('.').expect("a name");
    let (level, at): (usize, usize) = (level.parse().expect("a number"), at.parse().expect("a number"));
    let transition = plan.levels.get(level).map_or(&plan.leave, |level| &level.barrier)[at];
    let reason = reasons.of(plan, level, &transition);
    if let (Party::Command(before), Party::Command(after), true) = (reason.before, reason.after, shares) {
        assert!(before.meets(after), "{name}: {reason:?}");
    }
}

#[test]
fn every_transition_has_parties_lines_and_dangers() {
    let (plan, texts) = (plan(1), texts());
    let (mut direct, reasons) = (0, Reasons::new(&plan));
    for number in 0..=plan.levels.len() {
        let facts = barrier(&plan, number);
        let count = plan.levels.get(number).map_or(plan.leave.len(), |level| level.barrier.len());
        assert_eq!(facts.transitions.len(), count);
        for TransitionFacts { name, before, after, hazard, without, is_direct, .. } in &facts.transitions {
            assert!(!before.is_empty() && !after.is_empty(), "{name} has parties");
            let writes = [before, after].map(|touches| touches.iter().any(|touch| touch.writes));
            let expected = match writes {
                [true, false] => "RAW",
                [false, true] => "WAR",
                [true, true] => "WAW",
                [false, false] => panic!("{name} has no reason"),
            };
            assert_eq!(hazard, expected, "{name}");
            assert!(!without.is_empty(), "{name} is needed");
            // Where both sides share bytes, it is for these that the transition stands.
            assert!(!is_direct || without.iter().all(|danger| danger.hazard == expected), "{name}: {without:?}");
            direct += usize::from(*is_direct);
            check_reason(&plan, &reasons, name, *is_direct && before.iter().all(|touch| touch.when == When::Now));
            for touch in before.iter().chain(after).filter(|touch| touch.command.is_some()) {
                let is_copy = touch.command.as_ref().is_some_and(|command| command.kernel.is_none());
                touch.ports.iter().filter(|_| !is_copy).for_each(|port| check_lines(port, &texts, name));
            }
        }
    }
    let all = plan.barriers().map(<[_]>::len).sum::<usize>();
    assert!(direct * 2 > all, "{direct} of {all} are between accesses of the same bytes");
}

#[test]
fn a_transition_is_named_in_three_ways() {
    let plan = plan(1);
    let leave = plan.levels.len();
    for (names, name) in [
        (["b5.0".to_owned(), "5.0".to_owned(), " b5.0 ".to_owned()], "b5.0".to_owned()),
        (["leave.0".to_owned(), format!("b{leave}.0"), format!("{leave}.0")], format!("b{leave}.0")),
    ] {
        for other in names {
            assert_eq!(transition(&plan, &other).name, name, "{other}");
        }
    }
}

#[test]
fn nothing_forces_the_first_level() {
    let printed = graphc(&["explain", "level 0", "--weights", text(&synth())]).fine().out;
    assert!(printed.contains("level 0 is the first: copy upload inputs needs no command before it"), "{printed}");
}

#[test]
fn what_is_not_there_is_answered_by_what_is() {
    let plan = plan(1);
    let said = |what: &str| explain(&plan, what).expect_err("not there").to_string();
    let (levels, dispatches) = (plan.levels.len(), plan.summary().dispatches);
    assert_eq!(
        said("b500"),
        format!("the plan has no `b500`: barriers are b0 to b{levels}, of which b{levels} is `leave`")
    );
    let count = plan.levels[5].barrier.len();
    let expected = format!("barrier b5 has {count} transitions, b5.0 to b5.{}", count - 1);
    assert!(said("b5.99").ends_with(&expected), "{}", said("b5.99"));
    assert!(said("d9999").ends_with(&format!("dispatches are d0 to d{}", dispatches - 1)));
    assert!(said("d99999999999999999999").contains("dispatches are d0 to d"));
    assert!(said("level 900").ends_with(&format!("levels are 0 to {}", levels - 1)));
    assert!(said("level x").contains("levels are 0 to"));
    assert!(said("buf999").contains("buffers are buf0 to buf"));
    assert!(said("layer1.wvk").ends_with("did you mean `layer1.wkv`?"), "{}", said("layer1.wvk"));
    assert!(said("wkv").ends_with("did you mean `layer0.wkv`, `layer1.wkv`, `layer2.wkv`?"));
    assert!(said("op layer0.wvk").contains("`layer0.wkv`"), "{}", said("op layer0.wvk"));
    for what in ["", "b", "d", "b.", "b1.x", "1.", "#", "level", "op", "a b c", "w.", "in.", "state.att_x.0#x"] {
        assert!(said(what).starts_with("the plan has no `"), "{what}");
    }
}

#[test]
fn names_of_weights_inputs_and_states_lead_to_their_buffers() {
    let plan = plan(1);
    let buffer = |what: &str| match explain(&plan, what).expect("there").subject {
        Subject::Buffer(facts) => facts,
        other => panic!("{other:?}"),
    };
    let label = plan.state.buffers[0].label.clone();
    assert_eq!(buffer(&format!("state.{label}")).buffer.kind, "state");
    for piece in &plan.weights.pieces {
        let found = buffer(&format!("buffer {}", plan.weights.buffers[piece.buffer as usize].label));
        assert_eq!((found.buffer.kind, found.transitions.len()), ("weight", 0));
        assert!(!found.uses.is_empty(), "`{}` is read by somebody", piece.tensor);
    }
    let packed = plan.weights.pieces.iter().find(|piece| piece.offset_bytes > 0).expect("a packed weight");
    let found = buffer(&format!("w.{}", packed.tensor)).piece.expect("a piece");
    assert_eq!(found.offset_bytes, packed.offset_bytes);
    let input = plan.inputs.last().expect("an input");
    let found = buffer(&format!("in.{}", input.name));
    assert_eq!((found.buffer.kind, found.piece.expect("a piece").size_bytes), ("input", input.count * 4));
}

#[test]
fn the_text_of_every_shipped_kernel_has_a_line_for_each_access() {
    for plan in [plan(1), plan(32)] {
        for kernel in plan.kernels.values() {
            let found = lines::accesses(&kernel.wgsl, &|line| kernel.origin(line).is_some()).expect("valid");
            let does = |access: &lines::LineAccess| {
                [(access.reads, 'r'), (access.writes, 'w')].into_iter().filter(|(does, _)| *does).map(|(_, what)| what)
            };
            let found: BTreeSet<(u32, char)> =
                found.iter().flat_map(|access| does(access).map(|what| (access.binding, what))).collect();
            let expected: BTreeSet<(u32, char)> = (0..)
                .zip(&kernel.bindings)
                .flat_map(|(number, binding)| {
                    let modes = [(binding.reads, 'r'), (binding.writes, 'w')];
                    modes.into_iter().filter(|(does, _)| *does).map(move |(_, what)| (number, what))
                })
                .collect();
            assert_eq!(found, expected, "{}", kernel.label);
        }
    }
}

#[test]
fn a_plan_file_is_explained_as_its_graph_is() {
    let dir = TempDir::new();
    let file = dir.file("plan");
    let (file, weights) = (text(&file), synth());
    let weights = text(&weights);
    graphc(&["compile", "--weights", weights, "-o", file]).fine();
    for what in ["b5", "b5.1", "leave", "level 5", "d3", "slot1", "layer0.gate", "fetch logits"] {
        let alone = graphc(&["explain", file, what]).fine().out;
        assert_eq!(graphc(&["explain", "--weights", weights, what]).fine().out, alone, "{what}");
        assert_eq!(graphc(&["explain", "rwkv7", "--weights", weights, what]).fine().out, alone, "{what}");
        assert!(!alone.is_empty());
    }
    // Two words need no quotes.
    let quoted = graphc(&["explain", file, "level 5"]).fine().out;
    assert_eq!(graphc(&["explain", file, "level", "5"]).fine().out, quoted);
    let json = graphc(&["explain", file, "b1.0", "--format", "json"]).fine().out;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["subject"]["transition"]["name"], "b1.0");
    assert_eq!(json["subject"]["transition"]["hazard"], "RAW");
}

#[test]
fn wrong_questions_and_wrong_plans_are_refused() {
    let dir = TempDir::new();
    let file = dir.file("plan");
    graphc(&["compile", "--fuse", "off", "-o", text(&file)]).fine();
    let file = text(&file);
    graphc(&["explain", file, "b999"]).fails(2, &["the plan has no `b999`: barriers are b0 to b127"]);
    graphc(&["explain", file]).fails(2, &["expected what to explain of `"]);
    graphc(&["explain"]).fails(2, &["expected what to explain"]);
    graphc(&["explain", file, "b1", "b2"]).fails(2, &["one thing to explain, found also `b1`"]);
    graphc(&["explain", file, "b1", "--keep", "layer0.wkv"]).fails(2, &["`--keep` would change nothing"]);
    let broken = std::fs::read_to_string(file).expect("just written").replacen("MAP_WRITE", "COPY_SRC", 1);
    std::fs::write(file, broken).expect("written");
    graphc(&["explain", file, "b1"]).fails(1, &["`: its plan was refused", "P10"]);
}
