//! Graphs and kernels that go further than any that people write.
//!
//! Gets a small graph and a small kernel, returns each with one place of it taken to an extreme, and what has to be
//! said of it: nothing where it is right after all, or where naga chooses the words. Every one of them once broke
//! something, or would without a bound. Never runs them.

/// The graph that most extremes are made from.
pub const SMALL: &str = include_str!("../fuzz_corpus/graph/small.ron");

/// A kernel and its manifest.
const SCALED: &str = include_str!("../fuzz_corpus/kernel/scaled.kernel");

/// Its name, a part of what is said, and the text.
pub type Extreme = (&'static str, &'static str, String);

/// A text with one place changed.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "`{from}` is in the text");
    text.replacen(from, to, 1)
}

/// The small graph with one place changed.
pub fn changed(from: &str, to: &str) -> String {
    replaced(SMALL, from, to)
}

/// All of the graphs.
pub fn graphs() -> Vec<Extreme> {
    [expressions(), nesting(), sizes(), texts()].concat()
}

/// Chains, brackets and numbers in expressions over dims.
fn expressions() -> Vec<Extreme> {
    let chain = |operators: usize| {
        let dim = |n: usize| format!("\"D{n}\": Eval(\"D{}{}\"), ", n + 1, " + 1".repeat(operators));
        (0..40).map(dim).collect::<String>()
    };
    vec![
        (
            "dims in a chain of long sums",
            "depends on a chain of more than 32 dims",
            changed("dims: {", &format!("dims: {{{}", chain(999))).replace("[\"B\", \"C\"]", "[\"B\", \"D0\"]"),
        ),
        (
            "a sum of too many terms",
            "is not an expression over dims",
            changed("\"H\": Eval(\"max(C / 2, 1)\")", &format!("\"H\": Eval(\"1{}\")", "+1".repeat(100_000))),
        ),
        (
            "an expression in 100 000 brackets",
            "is not an expression over dims",
            changed("max(C / 2, 1)", &format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000))),
        ),
        (
            "100 000 times not",
            "is not an expression over dims",
            changed("max(C / 2, 1)", &format!("{}1", "!".repeat(100_000))),
        ),
        (
            "numbers beyond 63 bits",
            "has no value: the number is too large",
            changed("[\"B\", \"C\"]", "[\"B\", \"9223372036854775807 * 2\"]"),
        ),
        (
            "an escape before a mistake",
            "is not an expression over dims",
            changed("max(C / 2, 1)", "\\u{e9}\\u{e9}\\n\u{e9}\u{e9}"),
        ),
        (
            "a raw string before a mistake",
            "is not an expression over dims",
            changed("\"max(C / 2, 1)\"", "r##\"\u{e9}\u{e9}\u{e9}\"##"),
        ),
    ]
}

/// Lists, loops and comments inside each other.
fn nesting() -> Vec<Extreme> {
    let nested = |depth: usize| "ForEach(\"a\", \"1\", [".repeat(depth) + &"]), ".repeat(depth);
    vec![
        (
            "lists in lists",
            "brackets nest too deeply",
            changed("Let(\"sum\", \"x\"),", &("[".repeat(100_000) + &"]".repeat(100_000))),
        ),
        ("loops in loops", "ops nest more than 16 deep", changed("Let(\"sum\"", &(nested(18) + "Let(\"sum\""))),
        (
            "loops in 10 000 loops",
            "brackets nest too deeply",
            changed("Let(\"sum\"", &(nested(10_000) + "Let(\"sum\"")),
        ),
        (
            "comments in comments",
            "",
            changed("Let(\"sum\"", &("/*".repeat(100_000) + &"*/".repeat(100_000) + "Let(\"sum\"")),
        ),
        ("a comment without an end", "", changed("Let(\"sum\"", &("/*".repeat(100_000)))),
    ]
}

/// Loops, shapes and states that multiply.
fn sizes() -> Vec<Extreme> {
    let state = |name: &str, shape: &str| format!("\"{name}\": State(dtype: f32, shape: [\"B\", {shape}], init: 0.0)");
    let wide = |at: usize| {
        let axes: Vec<&str> = (0..4).map(|axis| if axis == at { "\"1048576\"" } else { "\"1\"" }).collect();
        state(["p", "q", "r", "s"][at], &axes.join(", "))
    };
    let four = "Map(\"p + q + r + s\", {\"p\": \"state.p\", \"q\": \"state.q\", \"r\": \"state.r\", \"s\": \
                \"state.s\"}, \"x\"),\n        Let(\"sum\"";
    let keep = "Op(\"keep_last\", {\"x\": \"x\", \"last\": \"state.last.0\", \"offsets\": \"in.offsets\", \"places\": \
                \"in.places\"}),";
    let looped = ["k", "l", "m"].map(|variable| format!("ForEach(\"{variable}\", \"100\", ["));
    let states: String =
        (0..200).map(|n| state(&format!("s{n}"), "\"C\"").replace("f32, ", "f32, per: \"9999\", ") + ", ").collect();
    vec![
        (
            "a loop of 2^40 rounds",
            "would run 1099511627776 times, more than 131072",
            changed("\"L\", [", "\"1099511627776\", ["),
        ),
        (
            "a state written 5000 times",
            "",
            changed("ForEach(\"i\"", &format!("ForEach(\"k\", \"5000\", [{keep}]), ForEach(\"i\"")),
        ),
        (
            "loops of 100 x 100 x 100 rounds",
            "the graph unrolls to more than 131072 ops and rounds of loops",
            changed("ForEach(\"i\"", &format!("{}{keep}{}ForEach(\"i\"", looped.concat(), "]), ".repeat(3))),
        ),
        (
            "2000 layouts of which none fits",
            "a graph has at most 16 layouts, found 2001",
            changed("layouts: [", &format!("layouts: [{}", "(name: \"again\"), ".repeat(1999))),
        ),
        (
            "a map of 2^80 elements",
            "expected 1 to 1099511627776 elements",
            changed("state: {", &format!("state: {{{}, {}, {}, {}, ", wide(0), wide(1), wide(2), wide(3)))
                .replace("Let(\"sum\"", four),
        ),
        (
            "a map of 2^33 elements",
            "`m` would have 8589934592 elements, a map at most 4294967295",
            changed("state: {", &format!("state: {{{}, ", state("huge", "\"8589934592 / B\"")))
                .replace("Let(\"sum\"", "Map(\"2.0 * y\", {\"y\": \"state.huge\"}, \"m\"), Let(\"sum\""),
        ),
        (
            "a state of 2^63 elements",
            "expected 1 to 1099511627776 elements",
            changed("[\"B\", \"C\"]", "[\"B\", \"4611686018427387904\"]"),
        ),
        (
            "two million tensors of states",
            "has 9999 tensors, more than",
            changed("state: {", &format!("state: {{{states}")),
        ),
    ]
}

/// Names, keys, maps and mistakes by the thousand.
fn texts() -> Vec<Extreme> {
    let long = "x".repeat(100_000);
    let on_one_line = |count: usize| "Map(\"y\", {\"y\": \"nothing\"}, \"z\"), ".repeat(count);
    vec![
        (
            "a name of 100 000 letters, misspelt",
            "unknown value `xxx",
            changed("\"sum\", \"rows\"", &format!("\"{long}y\", \"rows\""))
                .replace("Let(\"sum\"", &format!("Let(\"{long}\"")),
        ),
        (
            "3000 mistakes on one line",
            "unknown value `nothing`",
            changed("Let(\"sum\"", &(on_one_line(3000) + "Let(\"sum\"")),
        ),
        (
            "20 000 keys of a map, all different",
            "",
            changed(
                "dims: {",
                &format!("dims: {{{}", (0..20_000).map(|n| format!("\"d{n}\": Rows, ")).collect::<String>()),
            ),
        ),
        (
            "letters of several bytes in a map",
            "",
            changed("square(before) - x", "\\n\u{e9} \u{2603} \\\" before - x\u{e9}"),
        ),
        (
            "a map of 3000 sums",
            "more than 512 operators in one expression",
            changed("square(before) - x", &format!("before - x{}", " + x".repeat(3000))),
        ),
        (
            "a map in 3000 brackets",
            "brackets nest more than 64 deep",
            changed("square(before) - x", &format!("{}before - x{}", "(".repeat(3000), ")".repeat(3000))),
        ),
        ("a map that ends early", "", changed("square(before) - x", "before - x); } fn other() { (")),
        (
            "an operand of the compiler's",
            "`graphc_index` is no name for an operand",
            changed(
                "{\"x\": \"x\", \"before\": \"before\"}",
                "{\"x\": \"x\", \"before\": \"before\", \"graphc_index\": \"x\"}",
            ),
        ),
    ]
}

/// All of the kernels.
pub fn kernels() -> Vec<Extreme> {
    [chains(), declarations()].concat()
}

/// Expressions, branches and statements.
fn chains() -> Vec<Extreme> {
    let seed = SCALED;
    let body = |text: &str| replaced(seed, "gain * half", text);
    vec![
        (
            "a sum of 100 000 terms",
            "more than 512 operators in one expression",
            body(&format!("half{}", " + half".repeat(30_000))),
        ),
        (
            "100 000 times minus",
            "more than 512 operators in one expression",
            body(&format!("{}half", "- ".repeat(60_000))),
        ),
        (
            "brackets",
            "brackets nest more than 64 deep",
            body(&format!("{}half{}", "(".repeat(50_000), ")".repeat(50_000))),
        ),
        (
            "swizzles",
            "more than 512 operators in one expression",
            body(&format!("vec4<f32>(half){}.x", ".xyzw".repeat(20_000))),
        ),
        (
            "branches",
            "more than 128 branches behind an `else`",
            seed.replacen("else if", &format!("{}else if", "else if lane > 2u { } ".repeat(5000)), 1),
        ),
        (
            "constants that need each other",
            "more than 1000 declarations",
            format!(
                "{seed}{}const c0 = 1;",
                (1..5000).rev().map(|n| format!("const c{n} = c{};\n", n - 1)).collect::<String>()
            ),
        ),
        (
            "a megabyte of statements",
            "bytes with all that it imports, at most 262144",
            body(&format!("half; {} var z = half", "parts[0] = half; ".repeat(50_000))),
        ),
        ("an array of 2^32 elements", "", body("array<f32, 4294967295>()[3] * half")),
    ]
}

/// Bindings, types and manifests.
fn declarations() -> Vec<Extreme> {
    let seed = SCALED;
    let manifest = |from: &str, to: &str| replaced(seed, from, to);
    vec![
        (
            "arrays of arrays",
            "",
            seed.replacen("struct Pair", "const Z = array<array<array<f32, 65535>, 65535>, 65535>();\nstruct Pair", 1),
        ),
        (
            "a workgroup of 2^96 threads",
            "",
            seed.replacen("@workgroup_size(4)", "@workgroup_size(4294967295, 4294967295, 4294967295)", 1),
        ),
        (
            "a binding far away",
            "binds `far`, which is no port",
            seed.replacen(
                "struct Pair",
                "@group(0) @binding(5000) var<storage, read_write> far: array<f32>;\nstruct Pair",
                1,
            )
            .replacen("parts[lane] =", "far[0] = 1.0; parts[lane] =", 1),
        ),
        (
            "a binding where ports are put",
            "conflict with other resource",
            seed.replacen(
                "struct Pair",
                "@group(0) @binding(1001) var<storage, read_write> far: array<f32>;\nstruct Pair",
                1,
            )
            .replacen("parts[lane] =", "far[0] = 1.0; parts[lane] =", 1),
        ),
        (
            "a dispatch beyond all numbers",
            "the number is too large",
            manifest("[\"C\", \"ceil_div(T, 1)\"]", "[\"C * 4611686018427387904\", \"9223372036854775807 * T\"]"),
        ),
        (
            "a dispatch of 2^33",
            "a dispatch of 8589934592 workgroups",
            manifest("[\"C\", \"ceil_div(T, 1)\"]", "[\"8589934592\"]"),
        ),
        (
            "a shape that overflows",
            "expected 1 to 1099511627776 elements",
            manifest("\"y\": [\"T\", \"C\"]", "\"y\": [\"9223372036854775807\", \"C\", \"9223372036854775807\"]"),
        ),
        ("a constant that is no number", "", manifest("\"half\": 0.5", "\"half\": NaN")),
        (
            "manifests in lists",
            "brackets nest too deeply",
            manifest("[\"T\", \"C\"]", &("[".repeat(100_000) + &"]".repeat(100_000))),
        ),
        (
            "a port of the compiler's",
            "`graphc_data0` is no name for a port",
            manifest("\"offsets\"", "\"graphc_data0\""),
        ),
        ("an import of itself", "", format!("{seed}\n#import \"k.wgsl\"\n#import \"k.wgsl\"\n")),
    ]
}
