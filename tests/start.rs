//! How `graphc run` starts: pipelines kept by one run for the next, and what `--stats` says of the time it takes.
//!
//! Gets the program and the built-in model. What then holds: a cache changes no token, whatever state its file is in; a
//! file that is no use is replaced by one that is. What needs a Vulkan device skips without.

mod program;
mod support;

use std::path::{Path, PathBuf};

use program::{Ran, devices, graphc, graphc_with, text};
use support::{TempDir, skip};

const HAL: [&str; 9] =
    ["run", "--executor", "hal", "--prompt", "In the beginning", "-n", "5", "--print-tokens", "--stats"];

/// Whether there is no device; then the test has said so.
fn lacks_device() -> bool {
    devices("hal").map_err(|reason| skip(&reason)).is_err()
}

fn keeping(folder: &Path) -> Ran {
    graphc(&[&HAL[..], &["--pipeline-cache", text(folder)]].concat()).fine()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn kept_pipelines_change_no_token_and_a_useless_file_is_replaced() {
    if lacks_device() {
        return;
    }
    let dir = TempDir::new();
    let folder = dir.file("deep/in/it");
    let expected = graphc(&[&HAL[..], &["--pipeline-cache", "none"]].concat()).fine().out;
    assert_eq!(keeping(&folder).out, expected);
    let [path] = files(&folder).try_into().expect("one file for one device");
    let whole = std::fs::read(&path).expect("the file");
    assert!(whole.starts_with(b"graphc pipelines 1\n"), "{path:?}");
    assert_eq!(keeping(&folder).out, expected, "with what was kept");

    let mut damaged = whole.clone();
    *damaged.last_mut().expect("it is not empty") ^= 0xff;
    for useless in [&damaged[..], &whole[..whole.len() / 2], b"", b"something else"] {
        std::fs::write(&path, useless).expect("written");
        let ran = keeping(&folder);
        assert_eq!(ran.out, expected);
        assert!(!ran.err.contains("warning"), "{ran}");
        let replaced = std::fs::read(&path).expect("the file");
        assert!(replaced.starts_with(b"graphc pipelines 1\n") && replaced.len() > useless.len().min(64), "{path:?}");
        assert_ne!(replaced, useless);
    }
    assert_eq!(files(&folder), [path], "nothing half-written is left");
}

#[test]
fn the_cache_is_in_the_users_folder_unless_it_is_said() {
    if lacks_device() {
        return;
    }
    let dir = TempDir::new();
    let (cache, home) = (dir.file("cache"), dir.file("home"));
    graphc_with(&HAL, &[("XDG_CACHE_HOME", text(&cache)), ("HOME", text(&home))]).fine();
    assert_eq!((files(&cache.join("graphc")).len(), files(&home).len()), (1, 0));
    // A path that is not absolute is as good as none.
    graphc_with(&HAL, &[("XDG_CACHE_HOME", "cache"), ("HOME", text(&home))]).fine();
    assert_eq!(files(&home.join(".cache/graphc")).len(), 1);
}

#[test]
fn a_folder_that_cannot_be_written_fails_no_run() {
    if lacks_device() {
        return;
    }
    let dir = TempDir::new();
    let file = dir.file("a file");
    std::fs::write(&file, "").expect("written");
    let ran = keeping(&file.join("below"));
    assert!(ran.err.contains("warning: pipelines are not kept: cannot write"), "{ran}");
}

#[test]
fn stats_say_what_a_start_went_to() {
    let ran = graphc(&["run", "--executor", "reference", "--prompt", "In", "-n", "1", "--stats"]).fine();
    let line = ran.err.lines().find(|line| line.starts_with("start ")).unwrap_or_else(|| panic!("{ran}"));
    let numbers: Vec<f64> =
        line.split([' ', ',']).filter(|word| word.contains('.')).map(|word| word.parse().expect(word)).collect();
    let [ready, parts @ ..] = numbers.as_slice() else { panic!("{line}") };
    let sum: f64 = parts.iter().sum();
    assert_eq!(parts.len(), 5, "{line}");
    // Each is rounded to a thousandth; between two of them little happens.
    assert!(*ready > 0.0 && sum <= ready + 0.003, "{line}");
    for name in ["files", "device", "compiling", "uploading", "pipelines"] {
        assert!(line.contains(name), "{line}");
    }
}
