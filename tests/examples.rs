//! The examples run, and do what their first lines say.
//!
//! Gets each example as a module, returns what it writes. Everything here needs a device, and skips without.

#[path = "../examples/author_op.rs"]
#[allow(dead_code, reason = "an example has a `main` of its own")]
mod author_op;
#[path = "../examples/batch_prompts.rs"]
#[allow(dead_code, reason = "an example has a `main` of its own")]
mod batch_prompts;
#[path = "../examples/fork_state.rs"]
#[allow(dead_code, reason = "an example has a `main` of its own")]
mod fork_state;
#[path = "../examples/run_tokens.rs"]
#[allow(dead_code, reason = "an example has a `main` of its own")]
mod run_tokens;

mod program;
mod support;

use std::error::Error;

use program::devices;
use support::skip;

/// What an example writes; nothing, having said so, without a device.
fn written(example: impl FnOnce(&mut Vec<u8>) -> Result<(), Box<dyn Error>>) -> Option<String> {
    if let Err(reason) = devices("wgpu") {
        skip(&reason);
        return None;
    }
    let mut out = Vec::new();
    example(&mut out).unwrap_or_else(|error| panic!("{error}"));
    Some(String::from_utf8(out).expect("text"))
}

#[test]
fn run_tokens_goes_on_from_its_prompt() {
    let Some(out) = written(|out| run_tokens::run("Once upon a", 8, out)) else { return };
    assert!(out.starts_with("Once upon a") && out.trim_end().len() == "Once upon a".len() + 8, "{out}");
}

#[test]
fn author_op_computes_its_formula() {
    let Some(out) = written(|out| author_op::run(out)) else { return };
    assert!(out.contains("1024 numbers, at most"), "four tokens of 256 channels: {out}");
}

#[test]
fn fork_state_goes_on_in_several_ways() {
    let Some(out) = written(|out| fork_state::run(14, out)) else { return };
    let endings: std::collections::BTreeSet<&str> = out.lines().collect();
    assert_eq!(endings.len(), 3, "{out}");
    assert!(endings.iter().all(|ending| ending.starts_with("The old sailor looked at the sea and")), "{out}");
}

#[test]
fn batch_prompts_gives_what_each_gives_alone() {
    let Some(out) = written(|out| batch_prompts::run(10, out)) else { return };
    let texts: Vec<&str> = out.trim_end().split("\n\n").collect();
    assert!(texts.len() >= 4 && texts[1].starts_with("My dear"), "{out}");
    assert_eq!(texts[0], texts[texts.len() - 1], "the same prompt, beside others");
    assert!(texts[0].len() > "Once upon a time".len(), "{out}");
}
