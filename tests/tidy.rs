//! The rules that a compiler does not know: who may import whom, which crate is used where, what no source may say.
//!
//! Gets the sources of this repository as text, returns every line that breaks a rule, all of them in one go. A rule is
//! a function from a file to complaints, so that the tests at the end can show each of them a file that breaks it.
//! Never parses Rust properly: comments and strings are told from code, and the rest is words.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use graphc::base::span::SourceMap;
use graphc::kernel::{self, KernelLib};
use graphc::sources;

const MAX_COLUMNS: usize = 120;
const MAX_FUNCTION_LINES: usize = 90;
const MAX_FILE_LINES: usize = 800;

/// What each module of `src/` may import, besides itself.
const IMPORTS: [(&str, &[&str]); 15] = [
    ("base", &[]),
    ("graph", &["base"]),
    ("kernel", &["base"]),
    ("tensor", &["base"]),
    ("checkpoint", &["base", "tensor"]),
    ("sources", &["base"]),
    ("model", &["base", "graph", "kernel", "checkpoint"]),
    ("fuse", &["base", "graph", "kernel", "model"]),
    ("schedule", &["base", "graph", "kernel", "checkpoint", "model"]),
    // The file `plan/lower.rs` and those below it may import `LOWER_IMPORTS` too.
    ("plan", &["base"]),
    // Of the stages, `exec` sees the plan alone.
    ("exec", &["base", "checkpoint", "tensor", "plan"]),
    ("compile", &["base", "checkpoint", "tensor", "sources", "graph", "kernel", "model", "fuse", "schedule", "plan"]),
    ("generate", &["base", "checkpoint", "tensor", "plan", "compile", "exec"]),
    // The lines of a kernel that reach a binding are for naga to find, and so for `kernel`; which op computes a value
    // from what is known to `model`.
    ("inspect", &["base", "checkpoint", "tensor", "kernel", "model", "fuse", "plan", "compile", "exec", "generate"]),
    (
        "cli",
        &[
            "base",
            "graph",
            "kernel",
            "tensor",
            "checkpoint",
            "sources",
            "model",
            "fuse",
            "schedule",
            "plan",
            "exec",
            "compile",
            "generate",
            "inspect",
        ],
    ),
];
const LOWER_IMPORTS: [&str; 3] = ["schedule", "model", "kernel"];

/// Where crates, and `unsafe`, may be used. Tests may use all of them.
const CRATES: [(&str, &[&str]); 19] = [
    ("naga", &["kernel/", "exec/hal/", "exec/reference/"]),
    ("petgraph", &["schedule/"]),
    ("wgpu", &["exec/wgpu/"]),
    ("wgpu_hal", &["exec/hal/"]),
    ("wgpu_types", &["exec/hal/"]),
    ("ash", &["exec/hal/open.rs"]),
    ("ron", &["base/raw.rs", "plan/file.rs", "cli/"]),
    ("safetensors", &["checkpoint/", "generate/state.rs", "cli/"]),
    ("memmap2", &["checkpoint/"]),
    // Where a run waits for its CPU: levels of the reference executor, pipelines, the way of weights to a device, and
    // rules before the eyes of a sanitizer.
    (
        "rayon",
        &[
            "exec/reference/level.rs",
            "exec/hal/session.rs",
            "exec/hal/upload.rs",
            "exec/transpose.rs",
            "cli/verify/rules.rs",
        ],
    ),
    ("zerocopy", &["exec/reference/memory.rs"]),
    ("clap", &["cli/"]),
    ("indicatif", &["cli/"]),
    ("codespan_reporting", &["base/diag.rs"]),
    ("aho_corasick", &["generate/vocabulary.rs"]),
    ("libm", &["generate/", "exec/reference/"]),
    ("pulp", &["exec/reference/machine/mod.rs"]),
    ("rustyline", &["cli/chat/"]),
    ("ctrlc", &["cli/chat/"]),
];

/// Parts of tensor names that are words of our own as well.
const PLAIN_WORDS: [&str; 7] = ["bias", "head", "key", "output", "value", "w", "weight"];

/// Unfinished marks, and words of the place where somebody happened to work. Cut in two, lest this file break the rule.
const NEVER: [&str; 8] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("/wo", "rk/"),
    concat!("/fa", "rm/"),
    concat!("/tmp/", "studio"),
];

/// A file of this repository.
struct File {
    /// Path from the root of the repository, with `/`.
    path: String,
    text: String,
    scan: Scan,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), scan: Scan::new(text) }
    }

    /// Path below `src/`, if it is there.
    fn in_src(&self) -> Option<&str> {
        self.path.strip_prefix("src/")
    }

    /// Whether all of it is tests.
    fn is_tests(&self) -> bool {
        self.in_src().is_none_or(|path| path.ends_with("/tests.rs"))
    }

    fn complain(&self, offset: usize, what: impl std::fmt::Display) -> String {
        let line = self.text[..offset].matches('\n').count() + 1;
        format!("{}:{line}: {what}", self.path)
    }
}

/// A text with code told from comments and strings.
struct Scan {
    /// The text with comments and the contents of strings blanked, byte for byte.
    code: String,
    /// The contents of string literals, as written, and where they begin.
    strings: Vec<(usize, String)>,
    /// Byte ranges of items under `#[cfg(test)]`.
    tests: Vec<Range<usize>>,
}

impl Scan {
    fn new(text: &str) -> Self {
        let mut code = String::with_capacity(text.len());
        let mut strings = Vec::new();
        while code.len() < text.len() {
            let rest = &text[code.len()..];
            let (skipped, quote) = token(rest, code.chars().next_back());
            if let Some(contents) = quote {
                strings.push((code.len() + contents.start, rest[contents].to_owned()));
            }
            match skipped {
                0 => code.push(rest.chars().next().expect("the loop ends with the text")),
                _ => code.extend(rest[..skipped].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' })),
            }
        }
        let tests = tests(&code);
        Self { code, strings, tests }
    }

    fn is_test(&self, offset: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&offset))
    }

    /// Offsets at which `word` stands alone in the code.
    fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        self.code.match_indices(word).map(|(at, _)| at).filter(move |at| {
            !self.code[..*at].ends_with(is_part) && !self.code[at + word.len()..].starts_with(is_part)
        })
    }
}

/// Bytes of the comment, string or character at the beginning of `rest`, else 0; and where a string's contents lie.
fn token(rest: &str, before: Option<char>) -> (usize, Option<Range<usize>>) {
    let ends = |end: &str, from: usize| rest[from..].find(end).map_or(rest.len(), |at| from + at);
    if rest.starts_with("//") {
        return (ends("\n", 0), None);
    }
    if rest.starts_with("/*") {
        return ((ends("*/", 2) + 2).min(rest.len()), None);
    }
    if let Some(string) = rest.strip_prefix('"') {
        let mut escaped = false;
        let end = string.find(|c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = end.map_or(rest.len(), |at| at + 1);
        return ((end + 1).min(rest.len()), Some(1..end));
    }
    if rest.starts_with('r') && !before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
        if rest[1 + hashes..].starts_with('"') {
            let end = ends(&format!("\"{}", "#".repeat(hashes)), 2 + hashes);
            return ((end + 1 + hashes).min(rest.len()), Some(2 + hashes..end));
        }
    }
    if let Some(character) = rest.strip_prefix('\'') {
        // A lifetime has no quote after its first letter.
        let mut characters = character.char_indices().skip(if character.starts_with('\\') { 2 } else { 1 });
        let close = if character.starts_with("\\u") || character.starts_with("\\x") {
            character.find('\'')
        } else {
            characters.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at)
        };
        return (close.map_or(0, |at| at + 2), None);
    }
    (0, None)
}

/// Ranges of items under `#[cfg(test)]`, in code without strings.
fn tests(code: &str) -> Vec<Range<usize>> {
    let items = code.match_indices("#[cfg(test)]").map(|(start, _)| {
        let body = code[start..].find(['{', ';']).map_or(code.len(), |at| start + at);
        start..block_end(code, body)
    });
    items.collect()
}

/// One past the `}` that closes the `{` at `open`.
fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0;
    let close = code[open..].find(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0
    });
    close.map_or(code.len(), |at| open + at + 1)
}

/// Modules that the code imports by `crate::`, with places.
fn imports(scan: &Scan) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let word = |text: &str| text.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or("").to_owned();
    for at in scan.words("crate") {
        let Some(path) = scan.code[at..].strip_prefix("crate::") else { continue };
        let Some(group) = path.strip_prefix('{') else {
            found.push((at, word(path)));
            continue;
        };
        let end = block_end(path, 0) - 1;
        let mut depth = 0;
        for part in group[..end.saturating_sub(1)].split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0 && c == ','
        }) {
            found.push((at, word(part.trim())));
        }
    }
    found.retain(|(_, module)| !module.is_empty());
    found
}

fn check_imports(file: &File) -> Vec<String> {
    let Some(path) = file.in_src().filter(|path| !["lib.rs", "main.rs"].contains(path)) else { return Vec::new() };
    let module = path.split(['/', '.']).next().expect("a split has a first part");
    let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
        return vec![file.complain(0, format!("module `{module}` is new: say here whom it may import"))];
    };
    let lowers = path == "plan/lower.rs" || path.starts_with("plan/lower/");
    let is_allowed = |to: &str| to == module || allowed.contains(&to) || lowers && LOWER_IMPORTS.contains(&to);
    let imported = imports(&file.scan).into_iter().filter(|(_, to)| !is_allowed(to));
    let upwards = file.scan.code.match_indices("super::super").map(|(at, _)| (at, "super::super".to_owned()));
    imported.chain(upwards).map(|(at, to)| file.complain(at, format!("`{path}` may not import `{to}`"))).collect()
}

fn check_crates(file: &File) -> Vec<String> {
    let Some(path) = file.in_src().filter(|_| !file.is_tests()) else { return Vec::new() };
    let mut found = Vec::new();
    for (name, allowed) in CRATES.iter().filter(|(_, allowed)| !allowed.iter().any(|place| path.starts_with(place))) {
        for at in file.scan.words(name) {
            let (before, after) = (&file.scan.code[..at], &file.scan.code[at + name.len()..]);
            let is_path = after.starts_with("::") && !before.ends_with("::") || before.ends_with("use ");
            if is_path && !file.scan.is_test(at) {
                found.push(file.complain(at, format!("`{name}` is used only in {}", allowed.join(", "))));
            }
        }
    }
    let maps = if path == "checkpoint/mod.rs" { 1 } else { 0 };
    let allowed = if path.starts_with("exec/hal/") { usize::MAX } else { maps };
    let unsafes = file.scan.words("unsafe").skip(allowed);
    found.extend(unsafes.map(|at| file.complain(at, "`unsafe` is only in exec/hal, and in the checkpoint's map")));
    found
}

/// What the graphs and shaders name, which no source may: kernels, and tensors with the parts of their names.
fn data_names(graphs: &[(String, String)], shaders: &[(String, String)]) -> BTreeSet<String> {
    let kernels = shaders.iter().filter(|(path, _)| !path.contains('/'));
    let mut names: BTreeSet<String> =
        kernels.filter_map(|(path, _)| Some(path.split_once('.')?.0.to_owned())).collect();
    for (_, text) in graphs {
        for (_, string) in Scan::new(text).strings {
            let name = string.strip_prefix("w.").unwrap_or(&string);
            let is_tensor = name.contains('.') && name.chars().all(|c| c.is_alphanumeric() || "._{}".contains(c));
            if is_tensor && !["in.", "state."].iter().any(|prefix| name.starts_with(prefix)) {
                let parts = name.split('.').filter(|part| part.starts_with(|c: char| c.is_alphabetic()));
                names.extend(parts.map(str::to_owned));
                names.insert(name.to_owned());
            }
        }
    }
    names.retain(|name| !PLAIN_WORDS.contains(&name.as_str()));
    names
}

fn check_names(file: &File, names: &BTreeSet<String>) -> Vec<String> {
    if file.is_tests() {
        return Vec::new();
    }
    let is_name = |text: &str| {
        let parts = || text.split('.');
        names.contains(text) || text.contains("blocks.") || parts().count() > 1 && parts().any(|p| names.contains(p))
    };
    let found = file.scan.strings.iter().filter(|(at, text)| !file.scan.is_test(*at) && is_name(text));
    found
        .map(|(at, text)| file.complain(*at, format!("`{text}` is a name of graphs or kernels, which are data")))
        .collect()
}

fn check_text(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    if !file.text.starts_with("//!") {
        found.push(file.complain(0, "a module begins with `//!`: what it gets, returns, keeps and never does"));
    }
    let mut offset = 0;
    for line in file.text.split('\n') {
        if line.chars().count() > MAX_COLUMNS {
            found.push(file.complain(offset, format!("more than {MAX_COLUMNS} columns")));
        }
        let never = NEVER.iter().filter(|word| line.contains(*word));
        found.extend(never.map(|word| file.complain(offset, format!("`{word}` has no place in a source"))));
        offset += line.len() + 1;
    }
    let lines = file.text.lines().count();
    // Test cases are read one at a time.
    if lines > MAX_FILE_LINES && !file.is_tests() {
        found.push(file.complain(0, format!("{lines} lines, at most {MAX_FILE_LINES}")));
    }
    found
}

fn check_functions(file: &File) -> Vec<String> {
    let code = &file.scan.code;
    let long = file.scan.words("fn").filter_map(|at| {
        let body = at + code[at..].find(['{', ';'])?;
        let lines = code[at..block_end(code, body)].lines().count();
        (lines > MAX_FUNCTION_LINES).then(|| file.complain(at, format!("a function of {lines} lines")))
    });
    long.collect()
}

/// Every text of a kernel opens with a comment that names its ports; every manifest and every text has its counterpart.
fn check_shaders(files: &[(String, String)], kernels: &KernelLib) -> Vec<String> {
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for kernel in kernels.iter() {
        for variant in &kernel.variants {
            let path = &variant.template.file;
            used.insert(path.as_str());
            let text = files.iter().find(|(other, _)| other == path).map_or("", |(_, text)| text);
            let head: Vec<&str> = text.lines().take_while(|line| line.starts_with("//")).collect();
            let head = head.join("\n");
            let words: BTreeSet<&str> = head.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
            for port in kernel.ports.iter().filter(|port| !words.contains(port.name.text.as_str())) {
                found.push(format!("shaders/{path}:1: the opening comment does not name port `{}`", port.name.text));
            }
        }
    }
    let of_kernels = files.iter().map(|(path, _)| path.as_str()).filter(|path| !path.contains('/'));
    for path in of_kernels {
        let is_paired = match path.strip_suffix(".ron") {
            Some(name) => files.iter().any(|(other, _)| *other == format!("{name}.wgsl")),
            None => used.contains(path),
        };
        if !is_paired {
            found.push(format!("shaders/{path}:1: has no counterpart: a kernel is a manifest and a text"));
        }
    }
    found
}

/// The Rust files below some folders.
fn rust_files(folders: &[&str]) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders: Vec<_> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("a folder is read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let relative = path.strip_prefix(root).expect("a file lies below the root").display().to_string();
                let text = std::fs::read_to_string(&path).expect("a source is UTF-8");
                files.push(File::new(&relative.replace('\\', "/"), &text));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// Fails with all complaints of one rule.
fn assert_none(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<String> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn modules_import_only_what_lies_below_them() {
    assert_none(rust_files(&["src"]).iter().flat_map(check_imports));
}

#[test]
fn crates_and_unsafe_are_used_in_their_places() {
    assert_none(rust_files(&["src"]).iter().flat_map(check_crates));
}

#[test]
fn sources_name_no_kernel_and_no_tensor() {
    let (graphs, parts) = (sources::graphs(None).expect("built in"), sources::parts(None).expect("built in"));
    let graphs: Vec<_> = graphs.into_iter().chain(parts).collect();
    let names = data_names(&graphs, &sources::shaders(None).expect("built in"));
    assert!(names.contains("receptance") && names.contains("token_shift"), "{names:?}");
    assert_none(rust_files(&["src"]).iter().flat_map(|file| check_names(file, &names)));
}

#[test]
fn texts_are_tidy() {
    assert_none(rust_files(&["src", "tests", "examples"]).iter().flat_map(check_text));
}

#[test]
fn functions_are_short() {
    assert_none(rust_files(&["src", "tests", "examples"]).iter().flat_map(check_functions));
}

#[test]
fn kernels_say_what_their_ports_are() {
    let files = sources::shaders(None).expect("built in");
    let (kernels, diagnostics) = kernel::load(&mut SourceMap::new(), &files);
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    assert_none(check_shaders(&files, &kernels));
}

/// The rules themselves: each is shown what breaks it, and something near that does not.
mod rules {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File::new(path, text)
    }

    #[test]
    fn comments_strings_and_characters_are_no_code() {
        let scan = Scan::new("a /* b */ 'c' \"d\\\"e\" r#\"f\"g\"# '\\'' 'h \"i\" // j\nk");
        let words: Vec<&str> = scan.code.split_whitespace().collect();
        assert_eq!(words, ["a", "'h", "k"]);
        let strings: Vec<&str> = scan.strings.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(strings, ["d\\\"e", "f\"g", "i"]);
    }

    #[test]
    fn import_against_the_direction_is_found() {
        for (path, text) in [
            ("src/base/a.rs", "use crate::graph::Graph;"),
            ("src/exec/replay.rs", "fn f() { crate::model::build(); }"),
            ("src/plan/print.rs", "use crate::{plan::Plan, schedule::{self, Step}};"),
            ("src/generate/mod.rs", "use crate::{base, cli};"),
            ("src/exec/hal/a.rs", "use super::super::super::cli;"),
            ("src/newcomer.rs", "//! New."),
        ] {
            assert_eq!(check_imports(&file(path, text)).len(), 1, "{path}: {text}");
        }
        for (path, text) in [
            ("src/plan/lower.rs", "use crate::schedule::Schedule;\nuse crate::{model, kernel::{self, compose}};"),
            ("src/base/a.rs", "// use crate::graph::Graph;\n/// [`Plan`](crate::plan::Plan)\nuse crate::base::b;"),
            ("src/main.rs", "fn main() { graphc::cli::main() }"),
        ] {
            assert_none(check_imports(&file(path, text)));
        }
    }

    #[test]
    fn crate_out_of_its_place_is_found() {
        for (path, text) in [
            ("src/plan/mod.rs", "use naga::Module;"),
            ("src/exec/mod.rs", "fn f(x: wgpu::Device) {}"),
            ("src/exec/wgpu/mod.rs", "use wgpu_hal as hal;"),
            ("src/graph/parse.rs", "let x = ron::from_str(text);"),
            ("src/tensor.rs", "fn f() { unsafe { g() } }"),
            ("src/checkpoint/mod.rs", "fn f() { unsafe { g() }; unsafe { h() } }"),
        ] {
            assert_eq!(check_crates(&file(path, text)).len(), 1, "{path}: {text}");
        }
        for (path, text) in [
            ("src/cli/run.rs", "use crate::exec::wgpu::WgpuExecutor;"),
            ("src/exec/mod.rs", "pub mod wgpu; // wgpu::Device\nconst S: &str = \"wgpu::Device\";"),
            ("src/exec/hal/device.rs", "use naga::Module; fn f() { unsafe { g() } }"),
            ("src/plan/mod.rs", "#[cfg(test)]\nmod tests { use naga::Module; }"),
        ] {
            assert_none(check_crates(&file(path, text)));
        }
    }

    #[test]
    fn name_of_data_is_found() {
        let graphs =
            [("g.ron".into(), "Op(\"mix\", {\"x\": \"w.blocks.{i}.att.gate.weight\", \"y\": \"in.y\"})".into())];
        let shaders = [("mix.ron".into(), String::new()), ("shared/sum.wgsl".into(), String::new())];
        let names = data_names(&graphs, &shaders);
        let expected = ["att", "blocks", "blocks.{i}.att.gate.weight", "gate", "mix"];
        assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), expected);
        for text in ["\"mix\"", "\"gate\"", "\"blocks.{layer}\"", "\"model.att.x\"", "r\"att\""] {
            assert_eq!(check_names(&file("src/a.rs", text), &names).len(), 1, "{text}");
        }
        for text in
            ["mix", "\"a mix of\"", "\"weight\"", "/// `mix`", "#[cfg(test)]\nmod tests { const A: &str = \"mix\"; }"]
        {
            assert_none(check_names(&file("src/a.rs", text), &names));
        }
    }

    #[test]
    fn untidy_text_is_found() {
        let texts = ["fn f() {}".to_owned(), format!("//! {}", "x".repeat(MAX_COLUMNS)), format!("//! {}", NEVER[0])];
        for text in texts.into_iter().chain([format!("//! {}", "a\n".repeat(MAX_FILE_LINES + 1))]) {
            assert_eq!(check_text(&file("src/a.rs", &text)).len(), 1, "{text}");
        }
        assert_none(check_text(&file("src/a.rs", "//! A.\n")));
    }

    #[test]
    fn long_function_is_found() {
        let body = |lines| format!("fn short() {{}}\nfn f() {{\n{}}}\nfn g() {{}}\n", "    x(\"{\");\n".repeat(lines));
        assert_eq!(check_functions(&file("src/a.rs", &body(MAX_FUNCTION_LINES))).len(), 1);
        assert_none(check_functions(&file("src/a.rs", &body(MAX_FUNCTION_LINES - 2))));
    }

    #[test]
    fn kernel_without_its_comment_is_found() {
        let manifest = "Kernel(ports: {\"x\": [\"T\"], \"y\": [\"T\"]}, dispatch: [\"T\"])";
        let text = "@compute @workgroup_size(1)\n\
                    fn main(@builtin(workgroup_id) id: vec3<u32>) { store_y(id.x, load_x(id.x)); }\n";
        let complaints = |head: &str, more: &[(&str, &str)]| {
            let mut files =
                vec![("a.ron".to_owned(), manifest.to_owned()), ("a.wgsl".to_owned(), format!("{head}{text}"))];
            files.extend(more.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())));
            let (kernels, _) = kernel::load(&mut SourceMap::new(), &files);
            check_shaders(&files, &kernels).len()
        };
        assert_eq!(complaints("", &[]), 2, "no comment names neither port");
        assert_eq!(complaints("// y = 2\n", &[]), 1, "`x` is not named");
        assert_eq!(complaints("// y = x\n", &[]), 0);
        assert_eq!(complaints("// y = x\n", &[("b.wgsl", text)]), 1, "a text of no kernel");
        assert_eq!(complaints("// y = x\n", &[("b.ron", manifest)]), 1, "a manifest without its text");
        assert_eq!(complaints("// y = x\n", &[("shared/b.wgsl", text)]), 0);
    }
}
