//! What the program says about wrong input, whole.
//!
//! Gets a small model that is right, breaks it in one place at a time, and compares all that the program prints with
//! `tests/golden/diagnostics/`. Every message there has its entry in `docs/diagnostics.md`. Never needs a device.

mod program;
mod support;

use std::path::Path;
use std::process::Command;

use program::Ran;
use support::TempDir;
use support::golden::assert_golden;

const GRAPH: (&str, &str) = (
    "graphs/tiny.ron",
    r#"Graph(
    name: "tiny",
    detect: (has: ["table"], lacks: ["other"]),
    dims: {
        "V": Weight("table", 0), "C": Weight("table", 1), "T": Tokens,
        "S": Sequences, "R": Rows, "B": Capacity, "L": Count("scale.{}"),
    },
    state: {"sum": State(dtype: f32, shape: ["B", "C"], init: 0.0)},
    inputs: {
        "tokens": Input(token_ids, ["T"]), "rows": Input(output_rows, ["R"]),
        "offsets": Input(sequence_offsets, ["S + 1"]), "places": Input(state_rows, ["S"]),
    },
    outputs: {"logits": Output(logits)},
    ops: [
        Op("pick", {"table": "w.table", "rows": "in.tokens", "y": "x"}),
        Op("running_sum", {"x": "x", "sum": "state.sum", "offsets": "in.offsets", "places": "in.places", "y": "sums"}),
        ForEach("i", "L", [
            Map("sums * scale", {"sums": "sums", "scale": "w.scale.{i}"}, "sums"),
        ]),
        Op("pick", {"table": "sums", "rows": "in.rows", "y": "last"}),
        Op("product", {"x": "last", "weight": "w.table", "y": "logits", "gain": 0.5}),
    ],
)
"#,
);

const KERNELS: [(&str, &str); 8] = [
    (
        "shaders/pick.ron",
        r#"Kernel(
    ports: {"table": ["N", "C"], "rows": Port(u32, ["M"]), "y": ["M", "C"]},
    consts: {"C": "C"},
    dispatch: ["C", "M"],
)
"#,
    ),
    (
        "shaders/pick.wgsl",
        "override C: u32;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) id: vec3<u32>) {
    store_y(id.y * C + id.x, load_table(load_rows(id.y) * C + id.x));
}
",
    ),
    (
        "shaders/product.ron",
        r#"Kernel(
    ports: {"x": ["M", "I"], "weight": ["O", "I"], "y": ["M", "O"]},
    consts: {"I": "I", "O": "O", "gain": Required},
    dispatch: ["O", "M"],
)
"#,
    ),
    (
        "shaders/product.wgsl",
        "#import \"shared/dot.wgsl\"
override O: u32;
override gain: f32;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) id: vec3<u32>) {
    let sum = dot_row(id.y, id.x);
    store_y(id.y * O + id.x, gain * sum);
}
",
    ),
    (
        "shaders/running_sum.ron",
        r#"Kernel(
    ports: {
        "x": ["T", "C"], "sum": ["B", "C"],
        "offsets": Port(u32, ["S + 1"]), "places": Port(u32, ["S"]), "y": ["T", "C"],
    },
    consts: {"C": "C"},
    dispatch: ["C", "S"],
)
"#,
    ),
    (
        "shaders/running_sum.wgsl",
        "override C: u32;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) id: vec3<u32>) {
    let at = load_places(id.y) * C + id.x;
    var sum = load_sum(at);
    for (var t = load_offsets(id.y); t < load_offsets(id.y + 1u); t++) {
        sum += load_x(t * C + id.x);
        store_y(t * C + id.x, sum);
    }
    store_sum(at, sum);
}
",
    ),
    (
        "shaders/shared/dot.wgsl",
        "override I: u32;
fn dot_row(m: u32, o: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < I; i++) {
        sum += load_x(m * I + i) * load_weight(o * I + i);
    }
    return sum;
}
",
    ),
    ("shaders/shared/map.wgsl", "fn square(x: f32) -> f32 { return x * x; }\n"),
];

const LIMITS: &str = "(
    max_storage_buffer_binding_bytes: 134217728,
    max_buffer_bytes: 1073741824,
    max_storage_buffers_per_dispatch: 3,
    min_storage_buffer_offset_alignment: 256,
    max_workgroups_per_dimension: 65535,
    max_invocations_per_workgroup: 256,
    max_workgroup_size: (256, 256, 64),
    max_workgroup_storage_bytes: 16384,
    subgroups: true,
    min_subgroup_size: 4,
)
";

/// A golden file's name, the file to change, what to replace in it, and by what.
type Change = (&'static str, &'static str, &'static str, &'static str);

const TINY: &str = "graphs/tiny.ron";

const CARRY_OF_TOKENS: &str = "Output(logits)},
    carry: Carry(
        inputs: {\"tokens\": Input(draw_rules, [\"7 * S\"])}, outputs: {\"logits\": Output(next_token)},
    ),";

/// Mistakes in a graph, for `graphc check`.
const IN_GRAPHS: [Change; 44] = [
    ("ron_syntax", TINY, "name: \"tiny\",", "name: \"tiny\""),
    ("ron_unclosed_string", TINY, "w.table\", \"y\": \"logits\"", "w.table, \"y\": \"logits\""),
    ("unknown_field", TINY, "outputs: {", "output: {"),
    ("missing_field", TINY, "    outputs: {\"logits\": Output(logits)},\n", ""),
    ("duplicate_field", TINY, "name: \"tiny\",", "name: \"tiny\", name: \"tiny\","),
    ("duplicate_key", TINY, "\"T\": Tokens,", "\"T\": Tokens, \"V\": Rows,"),
    ("unknown_word", TINY, "\"T\": Tokens,", "\"T\": Token,"),
    ("unknown_role", TINY, "Input(output_rows", "Input(output_row"),
    ("role_twice", TINY, "Input(output_rows", "Input(token_ids"),
    ("role_kept", TINY, "Output(logits)", "Output(kept)"),
    ("drawn_without_drawing", TINY, "Output(logits)", "Output(next_token)"),
    ("carried_twice", TINY, "Output(logits)},", CARRY_OF_TOKENS),
    ("not_an_expression", TINY, "[\"S + 1\"]", "[\"S + \"]"),
    ("unknown_function", TINY, "[\"S + 1\"]", "[\"max2(S, 1)\"]"),
    ("state_not_finite", TINY, "init: 0.0", "init: NaN"),
    ("argument_not_finite", TINY, "\"gain\": 0.5", "\"gain\": -1e999"),
    ("count_without_hole", TINY, "scale.{}", "scale"),
    ("unknown_op", TINY, "Op(\"product\"", "Op(\"produkt\""),
    ("unknown_port", TINY, "\"weight\": \"w.table\"", "\"wieght\": \"w.table\""),
    ("number_for_a_tensor", TINY, "\"weight\": \"w.table\"", "\"weight\": 1.0"),
    ("missing_constant", TINY, ", \"gain\": 0.5", ""),
    ("unknown_dim", TINY, "[\"B\", \"C\"]", "[\"B\", \"D\"]"),
    ("dim_cycle", TINY, "\"C\": Weight(\"table\", 1)", "\"C\": Eval(\"W + 1\"), \"W\": Eval(\"C - 1\")"),
    ("inexact_division", TINY, "[\"B\", \"C\"]", "[\"B\", \"C / 3\"]"),
    ("no_extent", TINY, "[\"B\", \"C\"]", "[\"B\", \"C - 4\"]"),
    ("missing_axis", TINY, "Weight(\"table\", 1)", "Weight(\"table\", 2)"),
    ("state_without_capacity", TINY, "[\"B\", \"C\"]", "[\"C\", \"C\"]"),
    ("misspelt_value", TINY, "{\"x\": \"last\"", "{\"x\": \"lats\""),
    ("use_before_definition", TINY, "{\"table\": \"w.table\"", "{\"table\": \"sums\""),
    ("no_loop_variable", TINY, "w.scale.{i}", "w.scale.{j}"),
    ("value_never_used", TINY, "ForEach(", "Map(\"2.0 * x\", {\"x\": \"x\"}, \"twice\"),\n        ForEach("),
    ("shape_clash", TINY, "\"weight\": \"w.table\"", "\"weight\": \"w.wide\""),
    ("rank_clash", TINY, "{\"x\": \"last\"", "{\"x\": \"in.rows\""),
    ("broadcast_clash", TINY, "w.scale.{i}", "w.long"),
    ("unused_operand", TINY, "\"sums * scale\"", "\"2.0 * sums\""),
    ("map_error", TINY, "\"sums * scale\"", "\"sums * sqroot(scale)\""),
    ("missing_weight", TINY, "w.scale.{i}", "w.scales.{i}"),
    ("unsupported_dtype", TINY, "w.scale.{i}", "w.ids"),
    ("wrong_dtype", TINY, "\"rows\": \"in.rows\"", "\"rows\": \"w.scale.0\""),
    (
        "shadowed_variable",
        TINY,
        "Map(\"sums * scale\", {\"sums\": \"sums\", \"scale\": \"w.scale.{i}\"}, \"sums\"),",
        "ForEach(\"i\", \"2\", [Map(\"1.0 * sums\", {\"sums\": \"sums\"}, \"sums\")]),",
    ),
    ("state_by_another_dim", TINY, "[\"B\", \"C\"]", "[\"S\", \"C\"]"),
    ("input_against_its_role", TINY, "Input(output_rows, [\"R\"])", "Input(output_rows, [\"R + 1\"])"),
    (
        "operand_of_the_compiler",
        TINY,
        "{\"sums\": \"sums\", \"scale\"",
        "{\"sums\": \"sums\", \"graphc_id\": \"sums\", \"scale\"",
    ),
    ("written_weight", TINY, "\"sum\": \"state.sum\"", "\"sum\": \"w.rows\""),
];

/// Mistakes in kernels, for `graphc check`.
const IN_KERNELS: [Change; 23] = [
    ("missing_text", "shaders/lonely.ron", "", "Kernel(ports: {\"x\": [\"N\"]}, dispatch: [\"N\"])\n"),
    ("missing_import", "shaders/product.wgsl", "shared/dot.wgsl", "shared/dots.wgsl"),
    ("import_cycle", "shaders/shared/dot.wgsl", "override I", "#import \"shared/dot.wgsl\"\noverride I"),
    ("wgsl_syntax", "shaders/shared/dot.wgsl", "var sum = 0.0;", "var sum = 0.0"),
    ("wgsl_unknown_name", "shaders/pick.wgsl", "load_rows(", "lode_rows("),
    ("wgsl_types", "shaders/product.wgsl", "gain * sum", "O * sum"),
    ("wgsl_behind_an_import", "shaders/product.wgsl", "let sum = dot_row", "let sum = dot_rows"),
    ("no_entry_point", "shaders/pick.wgsl", "@compute @workgroup_size(1)\n", ""),
    ("unused_port", "shaders/pick.ron", "\"rows\"", "\"extra\": [\"N\"], \"rows\""),
    (
        "binding_without_port",
        "shaders/pick.wgsl",
        "override C: u32;",
        "override C: u32;\n@group(0) @binding(0) var<storage> z: array<f32>;",
    ),
    ("override_without_value", "shaders/pick.ron", "\"C\": \"C\"", "\"D\": \"C\""),
    ("constant_without_override", "shaders/pick.ron", "\"C\": \"C\"", "\"C\": \"C\", \"eps\": 1e-5"),
    ("unknown_dim_of_a_kernel", "shaders/pick.ron", "[\"C\", \"M\"],\n)", "[\"C\", \"K\"],\n)"),
    (
        "unmet_need",
        "shaders/product.ron",
        "consts: {",
        "needs: [\"I > 0\", \"O <= I || subgroup_size < 1\"],\n    consts: {",
    ),
    ("unknown_dim_of_a_need", "shaders/pick.ron", "\n    consts", "\n    needs: [\"K == 1\"],\n    consts"),
    ("dispatch_of_four", "shaders/pick.ron", "[\"C\", \"M\"],\n)", "[\"C\", \"M\", \"1\", \"1\"],\n)"),
    ("port_with_a_digit", "shaders/pick.ron", "\"table\"", "\"table2\""),
    ("port_of_the_compiler", "shaders/pick.ron", "\"table\"", "\"graphc_table\""),
    (
        "binding_far_away",
        "shaders/pick.wgsl",
        "override C: u32;",
        "override C: u32;\n@group(0) @binding(1002) var<storage> z: array<f32>;",
    ),
    ("half_stored_singly", "shaders/pick.ron", "\"y\": [\"M\", \"C\"]", "\"y\": Port(f16, [\"M\", \"C\"])"),
    (
        "kernel_writes_nothing",
        "shaders/pick.wgsl",
        "store_y(id.y * C + id.x, load_table(load_rows(id.y) * C + id.x));",
        "if load_y(id.x) + load_table(load_rows(id.x)) > f32(C) { return; }",
    ),
    (
        "declared_read_write",
        "shaders/pick.wgsl",
        "override C: u32;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) id: vec3<u32>) {
    store_y(id.y * C + id.x, load_table(load_rows(id.y) * C + id.x));",
        "override C: u32;
@group(0) @binding(0) var<storage, read_write> table: array<f32>;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) id: vec3<u32>) {
    store_y(id.y * C + id.x, table[load_rows(id.y) * C + id.x]);",
    ),
    (
        "unused_kernel",
        "shaders/other.ron",
        "",
        "Kernel(
    ports: {\"table\": [\"N\", \"C\"], \"y\": [\"N\", \"C\"]},
    dispatch: [\"C\"],
    variants: [Variant(when: \"N > 0\", source: \"copy.wgsl\", dispatch: [\"C\"])],
)
",
    ),
];

/// A rule for the graph.
const RULE: (&str, &str) = (
    "graphs/rewrites/sum_scaled.ron",
    r#"Rewrite(
    doc: "a running sum and its scale, the other way round",
    shapes: {"x": ["T", "C"], "w.scale": ["C"]},
    when: "C % 2 == 0",
    examples: [{"C": 4}],
    pattern: [
        Op("running_sum", {
            "x": "x", "sum": "state.sum", "offsets": "in.offsets", "places": "in.places", "y": "sums",
        }),
        Map("sums * scale", {"sums": "sums", "scale": "w.scale"}, "scaled"),
    ],
    replacement: [
        Op("running_sum", {
            "x": "x", "sum": "state.sum", "offsets": "in.offsets", "places": "in.places", "y": "own",
        }),
        Map("scale * sums", {"scale": "w.scale", "sums": "own"}, "scaled"),
    ],
)
"#,
);

/// Mistakes in a rule, for `graphc check`: a golden file's name, what to replace, and by what.
const IN_RULES: [(&str, &str, &str); 22] = [
    ("rule_ron_syntax", "when: \"C % 2 == 0\",", "when: \"C % 2 == 0\""),
    ("rule_unknown_field", "examples:", "example:"),
    ("rule_field_missing", RULE.1, "Rewrite(pattern: [])\n"),
    ("rule_without_ops", RULE.1, "Rewrite(pattern: [], replacement: [])\n"),
    ("rule_unknown_op", "    pattern: [\n        Op(\"running_sum\"", "    pattern: [\n        Op(\"runing_sum\""),
    (
        "rule_unknown_kernel",
        "Map(\"scale * sums\", {\"scale\": \"w.scale\", \"sums\": \"own\"}, \"scaled\")",
        "Op(\"scaled_sum\", {\"x\": \"own\", \"y\": \"scaled\"})",
    ),
    ("rule_unknown_port", "\"places\": \"in.places\", \"y\": \"sums\"", "\"place\": \"in.places\", \"y\": \"sums\""),
    ("rule_port_missing", "\"places\": \"in.places\", \"y\": \"own\"", "\"y\": \"own\""),
    ("rule_number_for_a_tensor", "\"places\": \"in.places\", \"y\": \"own\"", "\"places\": 0, \"y\": \"own\""),
    ("rule_unknown_constant", "\"y\": \"own\"", "\"y\": \"own\", \"C\": 4, \"D\": Eval(\"C\")"),
    (
        "rule_value_not_bound",
        "{\"scale\": \"w.scale\", \"sums\": \"own\"}",
        "{\"scale\": \"w.scales\", \"sums\": \"own\"}",
    ),
    ("rule_value_left_out", "\"sums\": \"own\"}", "\"sums\": \"sums\"}"),
    (
        "rule_update_lost",
        r#"Op("running_sum", {
            "x": "x", "sum": "state.sum", "offsets": "in.offsets", "places": "in.places", "y": "own",
        }),"#,
        "Map(\"2.0 * x\", {\"x\": \"x\"}, \"own\"),",
    ),
    ("rule_gives_nothing", "\"own\"}, \"scaled\")", "\"own\"}, \"scald\")"),
    ("rule_shape_of_nothing", "\"w.scale\": [\"C\"]}", "\"w.scales\": [\"C\"]}"),
    ("rule_guard_of_unknown_names", "C % 2 == 0", "D % 2 == 0 && cooperative_matrices"),
    ("rule_guard_no_expression", "C % 2 == 0", "C % 2 =="),
    (
        "rule_joins_in_its_pattern",
        "\"scale\": \"w.scale\"}, \"scaled\"),\n    ],\n    replacement",
        r#""scale": "w.scale"}, "scaled"),
        Op("product", {"x": "scaled", "weight": Join(["w.a", "w.b"]), "y": "y", "gain": Any("gain")}),
    ],
    replacement"#,
    ),
    (
        "rule_transposes_in_its_pattern",
        "\"scale\": \"w.scale\"}, \"scaled\"),\n    ],\n    replacement",
        r#""scale": "w.scale"}, "scaled"),
        Op("product", {"x": "scaled", "weight": Transposed("w.a"), "y": "y", "gain": Any("gain")}),
    ],
    replacement"#,
    ),
    (
        "rule_transposes_a_value",
        "\"own\"}, \"scaled\")",
        r#""own"}, "scaled"),
        Op("product", {"x": "scaled", "weight": Transposed("own"), "y": "y", "gain": 1})"#,
    ),
    (
        "rule_number_from_nowhere",
        "\"own\"}, \"scaled\")",
        r#""own"}, "scaled"),
        Op("product", {"x": "scaled", "weight": "w.scale", "y": "y", "gain": Any("gain")})"#,
    ),
    ("rule_never_applied", "Map(\"sums * scale\"", "Map(\"sums + scale\""),
];

/// Mistakes in a rule that show where it is applied, for `graphc compile` of a step of two tokens.
const IN_APPLIED_RULES: [(&str, &str, &str); 4] = [
    (
        "rule_shape_clash",
        "Map(\"scale * sums\", {\"scale\": \"w.scale\", \"sums\": \"own\"}",
        "Map(\"2.0 * scale\", {\"scale\": \"w.scale\"}",
    ),
    (
        "rule_operands_clash",
        "Map(\"scale * sums\", {\"scale\": \"w.scale\", \"sums\": \"own\"}",
        "Map(\"scale * sums + state\", {\"scale\": \"w.scale\", \"sums\": \"own\", \"state\": \"in.offsets\"}",
    ),
    (
        "rule_kernel_clash",
        "Map(\"scale * sums\", {\"scale\": \"w.scale\", \"sums\": \"own\"}, \"scaled\")",
        "Op(\"product\", {\"x\": \"own\", \"weight\": \"w.scale\", \"y\": \"scaled\", \"gain\": 1})",
    ),
    ("rule_guard_without_value", "C % 2 == 0", "C / (T - 2) > 1"),
];

/// A kernel that leaves something open, in place of the one of [`KERNELS`], and a faster text that takes few lanes.
const TUNABLE_PICK: [(&str, &str); 3] = [
    (
        "shaders/pick.ron",
        r#"Kernel(
    ports: {"table": ["N", "C"], "rows": Port(u32, ["M"]), "y": ["M", "C"]},
    consts: {"C": "C", "LANES": "1", "STEPS": "C / LANES"},
    dispatch: ["STEPS", "M"],
    variants: [Variant(when: "LANES < 4", source: "pick_few.wgsl", dispatch: ["STEPS", "M"])],
    tune: Tune(
        by: ["M", "C", "table"],
        consts: {"LANES": [1, 2, 3, 4]},
        variants: ["pick_few.wgsl", "pick.wgsl"],
        when: ["LANES != 2 || M > 100"],
    ),
)
"#,
    ),
    ("shaders/pick.wgsl", PICK_BY_LANES),
    ("shaders/pick_few.wgsl", PICK_BY_LANES),
];

const PICK_BY_LANES: &str = "override C: u32;
override LANES: u32;
@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    store_y(id.y * C + id.x, load_table(load_rows(id.y) * C + id.x));
}
";

/// Mistakes in what a manifest leaves open.
const IN_TUNES: [Change; 5] = [
    ("tune_required", "shaders/pick.ron", "\"LANES\": \"1\"", "\"LANES\": Required"),
    ("tune_unknown_names", "shaders/pick.ron", "by: [\"M\", \"C\", \"table\"]", "by: [\"M\", \"D\", \"tabel\"]"),
    (
        "tune_wrong_constants",
        "shaders/pick.ron",
        "consts: {\"LANES\": [1, 2, 3, 4]}",
        "consts: {\"LANSE\": [1], \"C\": [], \"STEPS\": [1.5]}, batch_invariant: [\"LANES\"]",
    ),
    (
        "tune_unknown_texts",
        "shaders/pick.ron",
        "variants: [\"pick_few.wgsl\", \"pick.wgsl\"],\n        when: [\"LANES",
        "variants: [\"pick_fwe.wgsl\"],\n        when: [\"LAENS",
    ),
    (
        "tune_nothing",
        "shaders/pick.ron",
        "consts: {\"LANES\": [1, 2, 3, 4]},\n        variants: [\"pick_few.wgsl\", \"pick.wgsl\"],",
        "",
    ),
];

/// Tunings with mistakes, for `graphc check`.
const IN_TUNINGS: [(&str, &str); 2] = [
    (
        "tuning_grammar",
        r#"Tuning(
    device: "card",
    driver: "1.0",
    choices: [
        Choice(kernel: "pick", at: {"M": 1}),
        Choice(kernel: "pick", at: {"M": half}, consts: {"LANES": 1.5}),
        Choice(kernel: "pick", at: {"M": 2, "M": 3}, const: {"LANES": 1}),
    ],
)
"#,
    ),
    (
        "tuning_mistakes",
        r#"Tuning(
    device: "card",
    driver: "1.0",
    choices: [
        Choice(kernel: "pikc", at: {}, consts: {"LANES": 1}),
        Choice(kernel: "product", at: {}, consts: {"LANES": 1}),
        Choice(kernel: "pick", at: {"M": f16, "table": 4, "N": 6}, consts: {"LANES": 1}),
        Choice(kernel: "pick", at: {"M": 7}, consts: {"LANES": 5, "LANE": 1}),
        Choice(kernel: "pick", at: {"M": 8}, variant: "pick_fwe.wgsl"),
        Choice(kernel: "pick", at: {"M": 8}, consts: {"LANES": 4}),
    ],
)
"#,
    ),
];

/// Choices that kernels' guards refuse, for `graphc compile`.
const REFUSED_CHOICES: [(&str, &str); 3] = [
    ("choice_against_what_must_hold", "consts: {\"LANES\": 2}"),
    ("choice_against_the_usual_text", "consts: {\"LANES\": 4}"),
    ("choice_against_its_own_text", "consts: {\"LANES\": 4}, variant: \"pick_few.wgsl\""),
];

/// Mistakes in a vocabulary, for `graphc run` of a model that has 6 tokens.
const IN_VOCABULARIES: [(&str, &str); 16] = [
    ("vocabulary_without_id", "1 'a' 1\n\n'b' 1\n3\n"),
    ("vocabulary_id_too_large", "5 'a' 1\n6 'b' 1\n99999999999 'c' 1\n"),
    ("vocabulary_without_literal", "1 a 1\n2  'b' 1\n3 r'c' 1\n"),
    ("vocabulary_unclosed_literal", "1 'a 1\n2 \"b' 1\n3 '\\' 1\n"),
    ("vocabulary_unknown_escape", "1 'a\\q' 2\n2 b'\\u00e9' 1\n3 '\\é' 2\n4 '\\"),
    ("vocabulary_escape_cut_short", "1 '\\x4' 1\n2 '\\u00e' 2\n3 b'\\xé9' 1\n4 '\\U0000004"),
    ("vocabulary_no_character", "1 '\\ud800' 3\n2 'a\\U00110000' 2\n"),
    ("vocabulary_no_byte", "1 b'aé' 3\n"),
    ("vocabulary_without_length", "1 'a'\n2 'b'1\n3 'c' one\n4 'd' 1 # d\n5 'e' 99999999999999999999\n"),
    ("vocabulary_wrong_length", "1 'é' 1\n2 b'\\xc3' 4\n"),
    ("vocabulary_empty_token", "0 '' 0\n"),
    ("vocabulary_id_twice", "1 'a' 1\n2 'b' 1\n1 'c' 1\n"),
    ("vocabulary_bytes_twice", "1 'é' 2\n2 'b' 1\n3 b'\\xc3\\xa9' 2\n"),
    ("vocabulary_empty", ""),
    ("vocabulary_is_something_else", GRAPH.1),
    ("vocabulary_lacks_text", "1 'a' 1\n2 'ab' 2\n3 b'\\xc3' 1\n"),
];

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder is made");
    std::fs::write(path, text).expect("a file is written");
}

/// A folder with a model that is right.
fn folder() -> TempDir {
    let dir = TempDir::new();
    for (path, text) in KERNELS.iter().chain([&GRAPH]) {
        write(&dir.file(path), text);
    }
    let view = |dtype, shape: &[usize], bytes| {
        safetensors::tensor::TensorView::new(dtype, shape.to_vec(), bytes).expect("a sound tensor")
    };
    let bytes = [0; 144];
    use safetensors::Dtype::{F32, I64};
    let tensors = [
        ("table", view(F32, &[6, 4], &bytes[..96])),
        ("wide", view(F32, &[6, 6], &bytes)),
        ("rows", view(F32, &[1, 4], &bytes[..16])),
        ("long", view(F32, &[5], &bytes[..20])),
        ("scale.0", view(F32, &[4], &bytes[..16])),
        ("scale.1", view(F32, &[4], &bytes[..16])),
        ("ids", view(I64, &[4], &bytes[..32])),
    ];
    safetensors::serialize_to_file(tensors, None, &dir.file("model.safetensors")).expect("a checkpoint is written");
    write(&dir.file("small.ron"), LIMITS);
    dir
}

fn change(dir: &TempDir, file: &str, from: &str, to: &str) {
    let path = dir.file(file);
    if from.is_empty() {
        return write(&path, to);
    }
    let text = std::fs::read_to_string(&path).expect("a file of the model");
    assert_eq!(text.matches(from).count(), 1, "`{from}` stands in {file} once");
    write(&path, &text.replace(from, to));
}

/// Runs the program in a folder, so that places are relative to it.
fn run(dir: &TempDir, args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_graphc")).args(args).current_dir(dir.file("")).output();
    let output = output.expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

const CHECK: &str = "check graphs --shaders shaders --weights model.safetensors";
const COMPILE: &str = "compile --graphs graphs --shaders shaders --weights model.safetensors";

/// Runs a command, keeps what it printed.
fn keep(name: &str, dir: &TempDir, command: &str) {
    let ran = run(dir, &command.split(' ').collect::<Vec<_>>());
    let code = ran.code.expect("an exit code");
    assert_golden(
        &format!("diagnostics/{name}.txt"),
        &format!("$ graphc {command}\n{}{}exit {code}\n", ran.err, ran.out),
    );
}

#[test]
fn model_is_right_before_it_is_broken() {
    let dir = folder();
    let ran = run(&dir, &CHECK.split(' ').collect::<Vec<_>>()).fine();
    assert_eq!((ran.err.as_str(), ran.out.as_str()), ("", "1 graphs, 3 kernels: 0 errors, 0 lints\n"));
    run(&dir, &COMPILE.split(' ').collect::<Vec<_>>()).fine();
}

#[test]
fn mistakes_in_graphs_read_as_kept() {
    for (name, file, from, to) in IN_GRAPHS {
        let dir = folder();
        change(&dir, file, from, to);
        keep(name, &dir, CHECK);
    }
}

#[test]
fn mistakes_in_kernels_read_as_kept() {
    for (name, file, from, to) in IN_KERNELS {
        let dir = folder();
        write(
            &dir.file("shaders/copy.wgsl"),
            "@compute @workgroup_size(1) fn main() { store_y(0u, load_table(0u)); }\n",
        );
        write(
            &dir.file("shaders/other.wgsl"),
            "@compute @workgroup_size(1) fn main() { store_y(0u, load_table(0u)); }\n",
        );
        change(&dir, file, from, to);
        keep(name, &dir, CHECK);
    }
}

/// A folder whose kernel `pick` leaves something open.
fn tunable() -> TempDir {
    let dir = folder();
    TUNABLE_PICK.iter().for_each(|(path, text)| write(&dir.file(path), text));
    dir
}

#[test]
fn mistakes_in_tunings_read_as_kept() {
    for (name, file, from, to) in IN_TUNES {
        let dir = tunable();
        change(&dir, file, from, to);
        keep(name, &dir, CHECK);
    }
    let dir = tunable();
    for (name, text) in IN_TUNINGS {
        write(&dir.file("mine.ron"), text);
        keep(name, &dir, "check mine.ron --shaders shaders");
    }
    for (name, choice) in REFUSED_CHOICES {
        let choice = format!("Choice(kernel: \"pick\", at: {{\"table\": f32}}, {choice})");
        write(&dir.file("mine.ron"), &format!("Tuning(device: \"card\", driver: \"1.0\", choices: [{choice}])\n"));
        keep(name, &dir, &format!("{COMPILE} --tuning mine.ron"));
    }
    write(&dir.file("mine.ron"), IN_TUNINGS[1].1);
    keep("tuning_that_does_not_fit", &dir, &format!("{COMPILE} --tuning mine.ron"));
}

#[test]
fn mistakes_in_rules_read_as_kept() {
    let dir = folder();
    write(&dir.file(RULE.0), RULE.1);
    let ran = run(&dir, &CHECK.split(' ').collect::<Vec<_>>()).fine();
    assert_eq!((ran.err.as_str(), ran.out.as_str()), ("", "1 graphs, 3 kernels: 0 errors, 0 lints\n"));
    let compile = format!("{COMPILE} --tokens 2");
    run(&dir, &compile.split(' ').collect::<Vec<_>>()).fine();
    let changed = |name: &str, from: &str, to: &str, command: &str| {
        assert_eq!(RULE.1.matches(from).count(), 1, "`{from}` stands in the rule once");
        write(&dir.file(RULE.0), &RULE.1.replace(from, to));
        keep(name, &dir, command);
    };
    IN_RULES.iter().for_each(|(name, from, to)| changed(name, from, to, CHECK));
    IN_APPLIED_RULES.iter().for_each(|(name, from, to)| changed(name, from, to, &compile));
}

#[test]
fn checkpoints_that_do_not_fit_read_as_kept() {
    let dir = folder();
    let other = GRAPH.1.replace("name: \"tiny\"", "name: \"twin\"");
    write(&dir.file("graphs/twin.ron"), &other);
    keep("ambiguous_checkpoint", &dir, COMPILE);
    write(&dir.file("graphs/twin.ron"), &other.replace("has: [\"table\"], lacks: [\"other\"]", "has: [\"tabel\"]"));
    change(&dir, TINY, "lacks: [\"other\"]", "lacks: [\"wide\"]");
    keep("unknown_checkpoint", &dir, COMPILE);
    keep("not_this_graph", &dir, CHECK);
    let dir = folder();
    change(&dir, TINY, "dims: {\n", "weights: {\"scale.{}\": [\"V\"]},\n    dims: {\n");
    keep("misshapen_weight", &dir, CHECK);
    std::fs::write(dir.file("model.safetensors"), [200, 0, 0, 0, 0, 0, 0, 0, b'{']).expect("written");
    keep("truncated_checkpoint", &dir, CHECK);
    let header = br#"{"table":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4]}}"#;
    let lying = [&(header.len() as u64).to_le_bytes(), &header[..], &[0; 4]].concat();
    std::fs::write(dir.file("model.safetensors"), lying).expect("written");
    keep("lying_checkpoint", &dir, CHECK);
    std::fs::write(dir.file("model.safetensors"), (1u64 << 60).to_le_bytes()).expect("written");
    keep("header_beyond_all_sizes", &dir, CHECK);
}

#[test]
fn texts_beyond_all_bounds_read_as_kept() {
    let dir = folder();
    let long = format!("gain * (sum{})", "\n        + sum".repeat(600));
    change(&dir, "shaders/product.wgsl", "gain * sum", &long);
    keep("endless_sum", &dir, CHECK);
    let dir = folder();
    change(&dir, "shaders/pick.wgsl", "id.x));", &format!("id.x){}){};", "\n + (1u".repeat(70), ")".repeat(70)));
    keep("nested_brackets", &dir, CHECK);
    let dir = folder();
    change(&dir, TINY, "detect: (has: [\"table\"]", &format!("detect: (has: {}{}", "[\n".repeat(200), "]".repeat(200)));
    keep("ron_nested_too_deeply", &dir, CHECK);
    let dir = folder();
    change(&dir, TINY, "name: \"tiny\",", &format!("name: \"tiny\", doc: \"{}\", nmae: 1,", "long ".repeat(500)));
    keep("line_too_long_to_show", &dir, CHECK);
}

#[test]
fn refusals_of_the_command_line_read_as_kept() {
    let dir = folder();
    keep("device_too_small", &dir, &format!("{COMPILE} --target small.ron"));
    keep("unknown_kept_value", &dir, &format!("{COMPILE} --keep i1.sum"));
    keep("kept_input", &dir, &format!("{COMPILE} --keep in.rows"));
    keep("drawing_without_carry", &dir, &format!("{COMPILE} --draws"));
    keep("unknown_graph", &dir, &COMPILE.replace("compile", "compile tinny"));
    write(&dir.file("bad.ron"), "(max_buffer_bytes: 1");
    keep("bad_limits", &dir, &format!("{COMPILE} --target bad.ron"));
    change(&dir, TINY, "ForEach(", "Let(\"old\", \"state.sum\"),\n        ForEach(");
    keep("lint_of_compile", &dir, COMPILE);
}

const RUN_MODEL: &str = "run --graphs graphs --shaders shaders --weights model.safetensors";

/// Prompts with a mistake each, but for the first.
const WRONG_PROMPTS: &str = r#"{"tokens": [1, 5]}
{"tokens": [1], "promt": "é"}
{"tokens": [1], "prompt": "x"}
 {"n": 3}
{"tokens": [6, 1, 7]}
{"tokens": []}

{"tokens": [1], "n": -1}
{"tokens": [1], "n": 1, "n": 2}
{"tokens": "1"}
{"tokens": [1]
[1, 2]
"#;

#[test]
fn prompts_that_cannot_be_run_read_as_kept() {
    let dir = folder();
    keep("tokens_out_of_range", &dir, &format!("{RUN_MODEL} --tokens 1,6,5,4000000000 --stop-token 6"));
    write(&dir.file("prompts.jsonl"), WRONG_PROMPTS);
    keep("wrong_prompts", &dir, &format!("{RUN_MODEL} --prompts prompts.jsonl"));
    write(&dir.file("nothing.txt"), "");
    keep("empty_prompt", &dir, &format!("{RUN_MODEL} --prompt-file nothing.txt"));
}

#[test]
fn plans_that_cannot_be_run_read_as_kept() {
    let dir = folder();
    let ran = run(&dir, &format!("{COMPILE} -o a.plan").split(' ').collect::<Vec<_>>());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let plan = std::fs::read_to_string(dir.file("a.plan")).expect("a plan");
    let command = "run a.plan --weights model.safetensors --tokens 1";
    let changed = |name: &str, from: &str, to: &str| {
        assert!(plan.contains(from), "`{from}` is in the file");
        write(&dir.file("a.plan"), &plan.replacen(from, to, 1));
        keep(name, &dir, command);
    };
    changed("plan_of_another_version", &format!("version: {},", graphc::plan::PLAN_VERSION), "version: 77,");
    changed("plan_with_a_misspelt_field", "tokens: 1,", "tokns: 1,");
    changed("plan_with_a_wrong_transition", "from: \"MAP_WRITE\"", "from: \"COPY_SRC\"");
    write(&dir.file("a.plan"), &plan[..100]);
    keep("plan_cut_short", &dir, command);
    write(&dir.file("a.plan"), &plan);
    keep("plan_of_other_weights", &dir, "run a.plan --tokens 1");
}

const RUN: &str =
    "run --graphs graphs --shaders shaders --weights model.safetensors --vocabulary words.txt --prompt abé";

#[test]
fn mistakes_in_vocabularies_read_as_kept() {
    let dir = folder();
    for (name, text) in IN_VOCABULARIES {
        write(&dir.file("words.txt"), text);
        keep(name, &dir, RUN);
    }
    write(&dir.file("words.txt"), &format!("1 'a' 1\n2 '{}' 4096\n", "b".repeat(4096)));
    keep("vocabulary_long_line", &dir, RUN);
    write(&dir.file("words.txt"), &" ".repeat((1 << 24) + 1));
    keep("vocabulary_too_large", &dir, RUN);
    std::fs::write(dir.file("words.txt"), b"1 '\xe9' 1\n").expect("written");
    keep("vocabulary_no_utf8", &dir, RUN);
    keep("no_vocabulary", &dir, &RUN.replace("--vocabulary words.txt ", ""));
}

#[test]
fn bindings_of_a_text_s_own_reach_inputs_and_small_weights() {
    let dir = folder();
    let pick = "shaders/pick.wgsl";
    change(&dir, pick, "load_rows(id.y)", "rows[id.y]");
    change(&dir, pick, "override", "@group(0) @binding(0) var<storage> rows: array<u32>;\noverride");
    let dot = "shaders/shared/dot.wgsl";
    change(&dir, dot, "load_weight(o * I + i)", "weight[o * I + i]");
    change(&dir, dot, "override", "@group(0) @binding(0) var<storage> weight: array<f32>;\noverride");
    // Neither stands first among the tensors that it is packed with.
    change(&dir, TINY, "\"weight\": \"w.table\"", "\"weight\": \"w.rows\"");
    let ran = run(&dir, &CHECK.split(' ').collect::<Vec<_>>()).fine();
    assert_eq!((ran.err.as_str(), ran.out.as_str()), ("", "1 graphs, 3 kernels: 0 errors, 0 lints\n"));
}

/// Whether a text has the pieces of a pattern in their order, from its beginning to its end; `…` is anything.
fn matches(text: &str, pattern: &str) -> bool {
    let mut pieces = pattern.split('…');
    let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut ends = pattern.split('…').count() == 1 && rest.is_empty();
    for piece in pieces {
        let Some((_, after)) = rest.split_once(piece) else { return false };
        (rest, ends) = (after, piece.is_empty() || after.is_empty());
    }
    ends
}

#[test]
fn every_message_has_its_entry() {
    let index = include_str!("../docs/diagnostics.md");
    let entries: Vec<&str> = index.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let folder = support::golden::golden("diagnostics");
    let mut missing = Vec::new();
    for file in std::fs::read_dir(&folder).expect("kept").map(|entry| entry.expect("read").path()) {
        let text = std::fs::read_to_string(&file).expect("UTF-8");
        let messages = text.lines().filter_map(|line| line.strip_prefix("error: ").or(line.strip_prefix("warning: ")));
        let unlisted = messages.filter(|message| !entries.iter().any(|entry| matches(message, entry)));
        missing.extend(unlisted.map(|message| format!("{}: {message}", file.display())));
    }
    assert!(missing.is_empty(), "no entry in docs/diagnostics.md for\n{}", missing.join("\n"));
}
