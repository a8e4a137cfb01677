//! Runs the program as its users do.
//!
//! Gets arguments and variables, returns exit code, stdout and stderr. A run without a device is told from one that
//! fails, so that a test can skip; in CI it cannot.

#![allow(dead_code, reason = "each test binary uses a different part of this module")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// What a run of the program left behind.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; nothing if a signal ended the program.
    pub code: Option<i32>,
    /// What went to stdout.
    pub out: String,
    /// What went to stderr.
    pub err: String,
}

impl Ran {
    /// The same, having ended well.
    ///
    /// # Panics
    /// If it has not.
    #[track_caller]
    pub fn fine(self) -> Self {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// The same, having failed with this code, with each of these texts on stderr and nothing on stdout.
    ///
    /// # Panics
    /// If it is not so.
    #[track_caller]
    pub fn fails(self, code: i32, texts: &[&str]) -> Self {
        assert_eq!(self.out, "", "nothing but results goes to stdout:\n{self}");
        self.fails_with_result(code, "", texts)
    }

    /// The same, having failed with this code and these texts on stderr, though with a result.
    ///
    /// # Panics
    /// If it is not so.
    #[track_caller]
    pub fn fails_with_result(self, code: i32, result: &str, texts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        for text in texts {
            assert!(self.err.contains(text), "`{text}` is not in:\n{self}");
        }
        assert!(self.out.contains(result), "{self}");
        self
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {:?}\n-- stdout --\n{}\n-- stderr --\n{}", self.code, self.out, self.err)
    }
}

/// Runs the program.
pub fn graphc(args: &[&str]) -> Ran {
    graphc_with(args, &[])
}

/// Runs the program with some variables of its environment set.
pub fn graphc_with(args: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graphc"));
    command.args(args).envs(variables.iter().copied());
    run(command)
}

/// Runs the program in a folder.
pub fn graphc_in(folder: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graphc"));
    command.args(args).current_dir(folder);
    run(command)
}

/// Runs a command.
///
/// # Panics
/// If it cannot be started, or prints what is no UTF-8.
fn run(mut command: Command) -> Ran {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // Mesa complains without one.
        command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    }
    keep_in_target(&mut command);
    let output = command.output();
    let Output { status, stdout, stderr } = output.expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
    Ran { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// Has the program keep pipelines where tests leave files, unless a test says where.
fn keep_in_target(command: &mut Command) {
    if !command.get_envs().any(|(name, _)| name == "XDG_CACHE_HOME") {
        command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    }
}

/// Runs the program with this as its standard input.
///
/// # Panics
/// If it cannot be started, or prints what is no UTF-8.
pub fn graphc_fed(args: &[&str], input: &[u8]) -> Ran {
    let mut child = start(args);
    // What ends before it has read everything is judged by how it ends.
    let _ = child.stdin.take().expect("piped").write_all(input);
    ended(child)
}

/// Starts the program, with a pipe at each end.
///
/// # Panics
/// If it cannot be started.
pub fn start(args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graphc"));
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    }
    keep_in_target(&mut command);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

/// Waits for the end of a program.
///
/// # Panics
/// If it prints what is no UTF-8.
pub fn ended(child: Child) -> Ran {
    let Output { status, stdout, stderr } = child.wait_with_output().expect("the program ends");
    let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
    Ran { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// The names of the devices that this executor can use, or nothing and why the caller has to skip.
pub fn devices(executor: &str) -> Result<Vec<String>, String> {
    let list: serde_json::Value =
        serde_json::from_str(&graphc(&["devices", "--format", "json"]).fine().out).expect("JSON");
    let usable = list
        .as_array()
        .expect("a list")
        .iter()
        .filter(|entry| entry["executors"].as_array().expect("a list").iter().any(|other| other == executor));
    let names: Vec<String> = usable.map(|entry| entry["device"]["name"].as_str().expect("a name").to_owned()).collect();
    if names.is_empty() { Err(format!("no device for {executor}")) } else { Ok(names) }
}

/// A path as an argument.
///
/// # Panics
/// If it is no UTF-8.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// The committed random model: 322 tokens, two layers.
pub fn synth() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/synth-v7/model.safetensors")
}
