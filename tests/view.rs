//! The plan as RON, as DOT and as a page: what `graphc compile --format` writes for other programs.
//!
//! Gets the built-in model's plan, whole and with hostile names in it. Graphviz and Chromium are asked where they are
//! installed; where not, those tests say so and count as skipped.

mod program;
mod support;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use graphc::inspect::{dot, view};
use graphc::plan::Plan;
use graphc::plan::file::from_text;
use program::{graphc, text};
use support::{TempDir, skip};

/// What no label may do, however it is printed.
const HOSTILE: &str =
    "</script><script>document.title=1</script><!-- \"quoted\" & 'single' \\ \u{2028} {{@DATA@}} @SCRIPT@";

/// The built-in model's plan, as its file has it.
fn plan() -> Plan {
    from_text(&graphc(&["compile", "--fuse", "off", "--format", "ron"]).fine().out).expect("a plan file").plan
}

/// The same with labels that try to be more than labels.
fn hostile() -> Plan {
    let mut plan = plan();
    plan.graph = HOSTILE.into();
    plan.values[0].path = HOSTILE.into();
    for level in plan.levels.iter_mut() {
        for command in level.commands.iter_mut() {
            if let graphc::plan::command::Command::Dispatch(dispatch) = command {
                dispatch.label.push_str(HOSTILE);
                dispatch.place.push_str(HOSTILE);
            }
        }
    }
    plan
}

/// The text between two marks.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let rest = text.split_once(from).unwrap_or_else(|| panic!("`{from}` is missing")).1;
    rest.split_once(to).unwrap_or_else(|| panic!("`{to}` is missing")).0
}

/// The plan's data in a page.
fn data(page: &str) -> serde_json::Value {
    let json = between(page, "<script type=\"application/json\" id=\"data\">", "</script>");
    serde_json::from_str(json).expect("JSON")
}

#[test]
fn each_form_is_printed_where_there_is_one_and_refused_by_name_where_not() {
    let dir = TempDir::new();
    let file = dir.file("a.plan");
    let ron = graphc(&["compile", "-o", text(&file), "--emit", "plan", "--format", "ron"]).fine().out;
    assert_eq!(ron, std::fs::read_to_string(&file).expect("written"), "ron is what a plan file holds");
    assert_eq!(graphc(&["compile", text(&file), "--format", "ron"]).fine().out, ron, "and stays so");
    let graph = graphc(&["compile", "--emit", "graph", "--format", "ron"]).fine().out;
    assert_eq!(graph, graphc(&["compile", "--emit", "graph"]).fine().out);
    assert!(graphc(&["compile", text(&file), "--format", "dot"]).fine().out.starts_with("digraph "));
    let page = graphc(&["compile", text(&file), "--format", "html"]).fine().out;
    assert_eq!(page, graphc(&["compile", "--format", "html", "--emit", "plan"]).fine().out, "equal plans, equal pages");
    for (emit, format, message) in [
        ("model", "html", "`--emit model` has no form `html`: expected text or json, or one of `--emit plan`"),
        ("summary", "dot", "`--emit summary` has no form `dot`"),
        (
            "memory",
            "ron",
            "`--emit memory` has no form `ron`: expected text or json, or one of `--emit graph and plan`",
        ),
        ("graph", "dot", "`--emit graph` has no form `dot`"),
    ] {
        graphc(&["compile", "--emit", emit, "--format", format]).fails(2, &[message]);
    }
    graphc(&["compile", "--format", "svg"]).fails(2, &["possible values: text, ron, json, dot, html"]);
}

#[test]
fn the_page_loads_nothing_and_is_well_formed() {
    for plan in [plan(), hostile()] {
        let page = view::html(&plan);
        assert_eq!(page, view::html(&plan.clone()), "equal plans, equal pages");
        // Data is text; everything else is ours, and names no other place.
        let json = between(&page, "id=\"data\">", "</script>");
        let ours = page.replacen(json, "", 1);
        for loads in ["http:", "https:", "//cdn", "@import", "url(", " src=", "<link", "fetch(", "XMLHttp", "import("] {
            assert!(!ours.contains(loads), "`{loads}` in the page");
        }
        assert!(ours.contains("default-src 'none'"), "the page forbids itself to load");
        assert_balanced(&ours);
        assert_eq!(page.matches("<script").count(), 2, "the data and the script");
        assert_eq!(page.matches("</script").count(), 2);
        assert!(!json.contains('<'), "nothing in the data can open or close an element");
        assert!(!between(&ours, "<title>", "</title>").contains('<'));
    }
}

/// Every element that is opened is closed, in order.
fn assert_balanced(page: &str) {
    const EMPTY: [&str; 3] = ["meta", "input", "br"];
    let mut open: Vec<String> = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once('<') {
        let (tag, beyond) = after.split_once('>').expect("a tag ends");
        rest = beyond;
        let name: String = tag.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
        if tag.starts_with('!') || EMPTY.contains(&name.as_str()) {
            continue;
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closed in order");
            continue;
        }
        if name == "script" || name == "style" {
            // Not markup inside.
            rest = rest.split_once(&format!("</{name}>")).expect("closed").1;
            continue;
        }
        open.push(name);
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

#[test]
fn the_page_holds_every_label_once_and_all_of_the_plan() {
    for plan in [plan(), hostile()] {
        let data = data(&view::html(&plan));
        let list = |name: &str| data[name].as_array().unwrap_or_else(|| panic!("`{name}` is a list")).clone();
        let texts: Vec<String> = list("texts").iter().map(|text| text.as_str().expect("a text").to_owned()).collect();
        let distinct: HashSet<&String> = texts.iter().collect();
        assert_eq!(distinct.len(), texts.len(), "each text once");
        let text = |number: &serde_json::Value| texts[number.as_u64().expect("a number") as usize].as_str();
        let commands = list("commands");
        let labels: Vec<&str> = commands.iter().map(|command| text(&command[1])).collect();
        assert_eq!(labels, plan.commands().map(|command| command.label()).collect::<Vec<_>>());
        assert_eq!(list("values").len(), plan.values.len());
        assert_eq!(list("buffers").len(), plan.buffers.len());
        let count: usize = plan.barriers().map(<[_]>::len).sum();
        assert_eq!(list("transitions").len(), count);
        assert_eq!(data["levels"], plan.levels.len());
    }
}

#[test]
fn dot_has_a_box_for_each_command_and_an_edge_for_each_transition() {
    let plan = plan();
    let text = dot::plan(&plan);
    assert_eq!(text.matches("subgraph cluster_").count(), plan.levels.len() + 1, "levels, and the legend");
    assert_eq!(text.matches(" [label=\"").count(), plan.commands().count());
    let count: usize = plan.barriers().map(<[_]>::len).sum();
    assert_eq!(text.matches("[color=\"").count(), count);
    assert_eq!(text, dot::plan(&plan));
}

/// Runs a program that ends by itself, for at most a minute; nothing if it is not installed.
fn run(program: &str, args: &[&str]) -> Option<Output> {
    let mut child = match Command::new(program)
        .args(args)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
    {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("`{program}` does not start: {error}"),
    };
    let (mut out, mut err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let read = |from: &mut dyn std::io::Read| {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe is read");
        bytes
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        let (stdout, stderr) = (scope.spawn(|| read(&mut out)), scope.spawn(|| read(&mut err)));
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child is waited for") {
                break status;
            }
            if began.elapsed() > Duration::from_secs(60) {
                child.kill().expect("a child is stopped");
                child.wait().expect("a child is waited for");
                panic!("`{program}` did not end");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let text = "a reader does not fail";
        Some(Output { status, stdout: stdout.join().expect(text), stderr: stderr.join().expect(text) })
    })
}

#[test]
fn graphviz_draws_it_whatever_the_labels_are() {
    let dir = TempDir::new();
    for (nth, mut plan) in [plan(), hostile()].into_iter().enumerate() {
        // A few levels are enough to be parsed; laying out all of them takes seconds.
        plan.levels.truncate(8);
        plan.values.retain(|value| value.last_level < 8);
        plan.leave.clear();
        let count = plan.commands().count();
        let path = dir.file(&format!("{nth}.dot"));
        std::fs::write(&path, dot::plan(&plan)).expect("a file is written");
        let Some(drawn) = run("dot", &["-Tsvg", text(&path)]) else { return skip("Graphviz is not installed") };
        let err = String::from_utf8_lossy(&drawn.stderr);
        assert!(drawn.status.success() && err.is_empty(), "{err}");
        let svg = String::from_utf8(drawn.stdout).expect("UTF-8");
        // Commands, what ran in the step before, the host at either end, and the legend.
        let before = dot::plan(&plan).matches(" [shape=plaintext, fontcolor").count();
        assert!(before > 0);
        assert_eq!(svg.matches("class=\"node\"").count(), count + before + 3);
        assert!(!svg.contains("<script"), "a label stays a label");
    }
}

#[test]
fn graphviz_draws_hundreds_of_levels_within_a_minute() {
    let mut plan = plan();
    // Again and again the levels of the plan, without what the host does at either end.
    let layers = plan.levels[2..plan.levels.len() - 1].to_vec();
    while plan.levels.len() < 300 {
        let end = plan.levels.len() - 1;
        plan.levels.splice(end..end, layers.iter().cloned());
    }
    let dir = TempDir::new();
    let path = dir.file("deep.dot");
    std::fs::write(&path, dot::plan(&plan)).expect("a file is written");
    let Some(drawn) = run("dot", &["-Tsvg", text(&path)]) else { return skip("Graphviz is not installed") };
    let err = String::from_utf8_lossy(&drawn.stderr);
    assert!(drawn.status.success() && err.is_empty(), "{err}");
    let svg = String::from_utf8(drawn.stdout).expect("UTF-8");
    for number in 0..plan.levels.len() {
        assert!(svg.contains(&format!(">level {number}</text>")), "level {number} has its heading");
    }
}

/// The page as Chromium has it after its script has run, and what went to its console; nothing if there is none.
fn browse(page: &Path, hash: &str, profile: &Path) -> Option<(String, Vec<String>)> {
    let url = format!("file://{}{hash}", text(page));
    let profile = format!("--user-data-dir={}", text(profile));
    let args = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=2000",
        "--enable-logging=stderr",
        "--window-size=1400,900",
        &profile,
        "--dump-dom",
        &url,
    ];
    let output = run("chromium", &args)?;
    let dom = String::from_utf8(output.stdout).expect("UTF-8");
    let console = String::from_utf8_lossy(&output.stderr);
    Some((dom, console.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect()))
}

#[test]
fn the_page_works_in_a_browser_and_its_console_stays_empty() {
    let dir = TempDir::new();
    let write = |name: &str, plan: &Plan| -> PathBuf {
        std::fs::write(dir.file(name), view::html(plan)).expect("a file is written");
        dir.file(name)
    };
    let (plain, hostile) = (write("a.html", &plan()), write("b.html", &hostile()));
    let profile = dir.file("profile");
    let Some((dom, console)) = browse(&plain, "#search=ffn_up&light", &profile) else {
        return skip("Chromium is not installed");
    };
    assert!(console.is_empty(), "{console:?}");
    assert!(dom.contains("data-errors=\"0\""), "the script ran");
    assert_eq!(between(&dom, "<output id=\"found\" for=\"search\">", "<"), "1 of 6", "an op in each layer");
    let detail = between(&dom, "<aside", "</aside>");
    for expected in
        ["<h2>layer0.ffn_up</h2>", "graphs/rwkv7.ron:", "badge RAW", " wrote it, ", "storage-write → storage-read"]
    {
        assert!(detail.contains(expected), "`{expected}` in {detail}");
    }

    let (dom, console) = browse(&plain, "#hover=layer3.wkv&dark", &profile).expect("Chromium");
    assert!(console.is_empty(), "{console:?}");
    assert!(between(&dom, "<html", ">").contains("class=\"dark\""));
    let tip = between(&dom, "<div id=\"tip\"", "<div id=\"keys\"");
    for expected in ["<h2>layer3.wkv</h2>", "badge WAW", "of the step before wrote it", "reads r"] {
        assert!(tip.contains(expected), "`{expected}` in {tip}");
    }

    let (dom, console) = browse(&plain, "#level=40&search=", &profile).expect("Chromium");
    assert!(console.is_empty(), "{console:?}");
    assert!(between(&dom, "<aside", "</aside>").contains("<h2>level 40</h2>"));

    let (dom, console) = browse(&hostile, "#search=document", &profile).expect("Chromium");
    assert!(console.is_empty(), "{console:?}");
    assert!(dom.contains("data-errors=\"0\""));
    assert_eq!(dom.matches("<script").count(), 2, "no label became an element");
    assert!(between(&dom, "<aside", "</aside>").contains("&lt;/script&gt;"), "and is shown as it is");
}
