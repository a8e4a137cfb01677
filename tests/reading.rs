//! The guide to plans, done step by step.
//!
//! Gets `docs/reading-a-plan.md`: a block of code with a file's name is written, a `diff` with a file's name is
//! applied, a block of `sh` is run, and a block of `text` must be what the command before it printed, all in the order
//! in which a reader meets them. Runs skip without a device, and those that want validation layers without the layers.

mod program;
mod support;

use std::path::Path;
use std::process::Command;

use graphc::base::fmt;
use graphc::base::span::SourceMap;
use program::{Ran, devices};
use support::guide::{agrees, blocks, dead_links};
use support::{TempDir, skip};

const GUIDE: &str = include_str!("../docs/reading-a-plan.md");

const LAYER: &str = "/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json";

/// Runs a line of the guide in the guide's folder.
fn run(dir: &TempDir, line: &str) -> Ran {
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("graphc"), "commands of the guide are graphc's: {line}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_graphc"));
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // Mesa complains without one.
        command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    }
    let output = command.args(words).current_dir(dir.file("")).output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Why a line of the guide cannot be run here, if it cannot.
fn missing(line: &str) -> Option<String> {
    let executor = if line.contains("--executor hal") { "hal" } else { "wgpu" };
    if !line.starts_with("graphc run") {
        return None;
    }
    let layer = line.contains("--drop-transition") && !Path::new(LAYER).exists();
    devices(executor).err().or(layer.then(|| format!("there is no `{LAYER}`")))
}

/// A text with the lines of a `diff` that begin with `-` replaced by those that begin with `+`.
fn patched(text: &str, diff: &str) -> String {
    let side = |not: char| -> String {
        let lines = diff.lines().filter(|line| !line.starts_with(not));
        lines.map(|line| format!("{}\n", line.get(1..).unwrap_or(""))).collect()
    };
    let (old, new) = (side('+'), side('-'));
    assert_eq!(text.matches(&old).count(), 1, "the file has these lines once:\n{old}");
    text.replace(&old, &new)
}

#[test]
fn the_guide_shows_what_its_commands_print() {
    let dir = TempDir::new();
    let mut last: Option<Ran> = None;
    let mut skipped = false;
    for block in blocks(GUIDE) {
        match block.info.split_once(' ') {
            Some(("diff", file)) => {
                let text = std::fs::read_to_string(dir.file(file)).expect("a file of the guide");
                std::fs::write(dir.file(file), patched(&text, block.text)).expect("written");
            }
            Some((_, file)) => std::fs::write(dir.file(file), block.text).expect("written"),
            None if block.info == "sh" => {
                let line = block.text.trim();
                let reason = missing(line);
                skipped = reason.is_some();
                match reason {
                    Some(reason) => skip(&reason),
                    None => last = Some(run(&dir, line)),
                }
            }
            None if block.info == "text" => {
                if std::mem::take(&mut skipped) {
                    continue;
                }
                let ran = last.take().expect("a command before its output");
                let expected = if block.text.contains("error:") { 1 } else { 0 };
                assert_eq!(ran.code, Some(expected), "{ran}");
                let printed = format!("{}{}", ran.out, ran.err);
                assert!(agrees(&printed, block.text), "expected\n{}\nfound\n{printed}", block.text);
            }
            None => panic!("what is a block of `{}`?", block.info),
        }
    }
}

#[test]
fn snippets_of_the_guide_are_formatted() {
    for block in blocks(GUIDE).iter().filter(|block| block.info.starts_with("ron")) {
        let mut map = SourceMap::new();
        let source = map.add(block.info, block.text);
        assert_eq!(fmt::format(&map, source).expect("RON"), block.text, "{}", block.info);
    }
}

#[test]
fn links_of_the_guide_lead_somewhere() {
    assert_eq!(dead_links(GUIDE), Vec::<String>::new());
}
