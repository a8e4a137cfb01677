//! Every operator, conversion and function of WGSL that kernels may use, on every executor that runs kernels.
//!
//! Gets tables of WGSL and of the specification's rules in Rust, runs them on edge cases and random operands: on the
//! reference executor, and on the software drivers through hal. What holds then: the interpreter keeps every rule, and
//! drivers keep to WGSL's accuracy but for the exceptions that stand below by their names. Never compares executors
//! with each other.

#[path = "conformance/components.rs"]
mod components;
mod kernel_runs;
#[path = "conformance/subgroups.rs"]
mod subgroups;
mod support;
#[path = "conformance/want.rs"]
mod want;
#[path = "conformance/whole.rs"]
mod whole;

use components::{Case, Of, Table};
use fastrand::Rng;
use graphc::exec::Session;
use kernel_runs::{DEVICES, HEAD, Job, device, open, reference, run};
use support::skip;
use want::Want;

/// Where a driver differs from the specification: its name, the case, and what it does.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

/// Operands of a table, and cases in one kernel: few pipelines, none of them large.
const LANES: usize = 512;
const CASES: usize = 12;

/// Words of one case: a scalar, and vectors of two, three and four.
const WORDS: usize = 1 + 2 + 3 + 4;

const FLOATS: [f32; 22] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    3.25,
    1e-40,
    -1e-40,
    f32::MIN_POSITIVE,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    2_147_483_648.0,
    -2_147_483_648.0,
    4_294_967_296.0,
    8_388_607.5,
];

const INTEGERS: [u32; 20] = [
    0,
    1,
    2,
    3,
    5,
    31,
    32,
    33,
    63,
    64,
    0x7f,
    0x80,
    0xffff,
    0x0123_4567,
    0x7fff_ffff,
    0x8000_0000,
    0x8000_0001,
    u32::MAX,
    u32::MAX - 1,
    0xaaaa_aaaa,
];

/// All pairs of edge cases, then random operands of sizes that mean something.
fn operand(random: &mut Rng, of: Of, edge: usize, is_edge: bool) -> u32 {
    let float = |random: &mut Rng| match random.u32(0..4) {
        0 => f32::from_bits(random.u32(..)),
        1 => random.f32() * 2.0 - 1.0,
        2 => random.f32() * 20.0 - 10.0,
        _ => (random.f32() * 200.0).round() / 4.0,
    };
    match of {
        Of::F if is_edge => FLOATS[edge % FLOATS.len()].to_bits(),
        Of::F => float(random).to_bits(),
        Of::H => {
            let value = if is_edge { FLOATS[edge % FLOATS.len()] } else { float(random) };
            half::f16::from_f32(value).to_f32().to_bits()
        }
        Of::B => random.u32(0..2),
        Of::I | Of::U if is_edge => INTEGERS[edge % INTEGERS.len()],
        Of::I | Of::U => random.u32(..) >> random.u32(0..32),
    }
}

/// Three words for each lane.
fn operands(table: &Table) -> Vec<[u32; 3]> {
    let mut random = Rng::with_seed(7);
    let lane = |lane: usize| {
        // All pairs of the first two, with some third.
        let edges = [lane % 22, lane / 22, lane * 7 + lane / 5];
        std::array::from_fn(|at| operand(&mut random, table.operands[at], edges[at], lane < 22 * 22))
    };
    (0..LANES).map(lane).collect()
}

/// The type of as many components.
fn ty(of: Of, count: usize) -> String {
    let scalar = match of {
        Of::F => "f32",
        Of::I => "i32",
        Of::U => "u32",
        Of::B => "bool",
        Of::H => "f16",
    };
    if count == 1 { scalar.to_owned() } else { format!("vec{count}<{scalar}>") }
}

/// A value of a word.
fn of_word(of: Of, word: &str) -> String {
    match of {
        Of::F => format!("bitcast<f32>({word})"),
        Of::I => format!("bitcast<i32>({word})"),
        Of::U => word.to_owned(),
        Of::B => format!("({word} != 0u)"),
        Of::H => format!("f16(bitcast<f32>({word}))"),
    }
}

/// The word of a value.
fn to_word(of: Of, value: &str) -> String {
    match of {
        Of::F | Of::I => format!("bitcast<u32>({value})"),
        Of::U => value.to_owned(),
        Of::B => format!("select(0u, 1u, {value})"),
        Of::H => format!("bitcast<u32>(f32({value}))"),
    }
}

/// A kernel of some of a table's cases. Component `k` of a lane's vectors is the scalar of the lane `k` further on.
fn text(table: &Table, cases: &[Case]) -> String {
    let is_half = table.operands.contains(&Of::H);
    let mut text = if is_half { format!("enable f16;\n{HEAD}") } else { HEAD.to_owned() };
    for (at, case) in cases.iter().enumerate() {
        for count in 1..=4 {
            let kinds = [("{F}", Of::F), ("{I}", Of::I), ("{U}", Of::U), ("{B}", Of::B), ("{H}", Of::H)];
            let body = kinds.iter().fold(case.text.to_owned(), |text, (mark, of)| text.replace(mark, &ty(*of, count)));
            let [a, b, c] = table.operands.map(|of| ty(of, count));
            let result = ty(case.result, count);
            text += &format!("fn f{at}_{count}(a: {a}, b: {b}, c: {c}) -> {result} {{ return {body}; }}\n");
        }
    }
    text += "@compute @workgroup_size(64)\nfn main(@builtin(global_invocation_id) id: vec3<u32>) {\n";
    text += &format!("let at = id.x * {}u;\n", cases.len() * WORDS);
    for (name, nth) in ["a", "b", "c"].iter().zip(0..3) {
        for k in 0..4 {
            let word = format!("x.v[(id.x + {k}u) % {LANES}u * 3u + {nth}u]");
            text += &format!("let {name}{k} = {};\n", of_word(table.operands[nth], &word));
        }
        let parts = [format!("{name}0"), format!("{name}1"), format!("{name}2"), format!("{name}3")];
        for count in 2..=4 {
            text +=
                &format!("let {name}_{count} = {}({});\n", ty(table.operands[nth], count), parts[..count].join(", "));
        }
        text += &format!("let {name}_1 = {name}0;\n");
    }
    for (at, case) in cases.iter().enumerate() {
        let mut place = at * WORDS;
        for count in 1..=4 {
            text += &format!("let r{at}_{count} = f{at}_{count}(a_{count}, b_{count}, c_{count});\n");
            for k in 0..count {
                let part = if count == 1 { String::new() } else { format!(".{}", ["x", "y", "z", "w"][k]) };
                let word = to_word(case.result, &format!("r{at}_{count}{part}"));
                text += &format!("y.v[at + {place}u] = {word};\n");
                place += 1;
            }
        }
    }
    text + "}\n"
}

/// Who runs a kernel: nothing for the reference executor, else the driver's name.
type Driver<'a> = Option<&'a str>;

/// Whether a result is allowed; also the one for operands that are flushed to zero, of a driver.
fn is_allowed(driver: Driver<'_>, table: &Table, case: &Case, words: [u32; 3], found: u32) -> bool {
    let rule = |[a, b, c]: [u32; 3]| (case.rule)(a, b, c);
    if driver.is_none() {
        return rule(words).allows(found);
    }
    let mut flushed = words;
    for (word, of) in flushed.iter_mut().zip(table.operands) {
        let float = f32::from_bits(*word);
        if of == Of::F && !float.is_finite() {
            return true;
        }
        if of == Of::F && float.is_subnormal() {
            *word &= 0x8000_0000;
        }
    }
    rule(words).allows_driver(found) || rule(flushed).allows_driver(found)
}

/// What is wrong with the results of a table, a line for each case.
fn check_table<S: Session>(session: &mut S, driver: Driver<'_>, table: &Table, checked: &mut usize) -> Vec<String> {
    let operands = operands(table);
    let mut wrong = Vec::new();
    for cases in table.cases.chunks(CASES) {
        let width = cases.len() * WORDS;
        let job = Job {
            text: text(table, cases),
            words: operands.concat(),
            count: LANES * width,
            workgroup_size: 64,
            workgroups: LANES as u32 / 64,
            needs_subgroups: false,
        };
        let found = run(session, &job).unwrap_or_else(|error| panic!("{}: {error}\n{}", table.name, job.text));
        for (at, case) in cases.iter().enumerate() {
            let mut complaints = Vec::new();
            for lane in 0..LANES {
                let places = (1..=4).flat_map(|count| (0..count).map(move |k| (count, k)));
                for (place, (count, k)) in places.enumerate() {
                    let words = operands[(lane + k) % LANES];
                    let found = found[lane * width + at * WORDS + place];
                    *checked += 1;
                    if !is_allowed(driver, table, case, words, found) {
                        let (float, want) = (f32::from_bits(found), (case.rule)(words[0], words[1], words[2]));
                        complaints
                            .push(format!("{count}.{k} of {words:x?}: {found:#x} ({float:e}), expected {want:x?}"));
                    }
                }
            }
            let name = driver.unwrap_or_default();
            let excepted = EXCEPTIONS.iter().find(|(other, text, _)| *other == name && *text == case.text);
            match (complaints.first(), excepted) {
                (Some(first), None) => {
                    wrong.push(format!(
                        "{}: `{}`: {} results, such as {first}",
                        table.name,
                        case.text,
                        complaints.len()
                    ));
                }
                (None, Some((_, text, reason))) => {
                    wrong.push(format!(
                        "{}: `{text}` keeps to the rule now, is the exception gone? {reason}",
                        table.name
                    ));
                }
                _ => {}
            }
        }
    }
    wrong
}

/// All cases by themselves, and those that are whole functions.
fn check_all<S: Session>(session: &mut S, driver: Driver<'_>) {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for table in components::tables() {
        // Devices are opened without halves.
        if driver.is_none() || !table.operands.contains(&Of::H) {
            wrong.extend(check_table(session, driver, &table, &mut checked));
        }
    }
    for case in whole::cases() {
        wrong.extend(check_whole(session, driver, &case, &mut checked));
    }
    println!("{}: {checked} results", driver.unwrap_or("the reference executor"));
    assert!(wrong.is_empty(), "{}:\n{}", driver.unwrap_or("the reference executor"), wrong.join("\n"));
}

/// What a lane of a whole function reads.
fn lane_words(random: &mut Rng) -> [u32; whole::INPUTS] {
    std::array::from_fn(|at| match at {
        0..=15 => (random.f32() * 8.0 - 4.0).to_bits(),
        16..=23 => random.u32(..) >> random.u32(0..24),
        _ => random.u32(0..8),
    })
}

fn check_whole<S: Session>(
    session: &mut S,
    driver: Driver<'_>,
    case: &whole::Case,
    checked: &mut usize,
) -> Vec<String> {
    let lanes = 128;
    let mut random = Rng::with_seed(11);
    let inputs: Vec<[u32; whole::INPUTS]> = (0..lanes).map(|_| lane_words(&mut random)).collect();
    let job = Job {
        text: whole::text(case),
        words: inputs.concat(),
        count: lanes * case.count,
        workgroup_size: 32,
        workgroups: lanes as u32 / 32,
        needs_subgroups: false,
    };
    let found = run(session, &job).unwrap_or_else(|error| panic!("{}: {error}\n{}", case.name, job.text));
    let mut complaints = Vec::new();
    for (lane, input) in inputs.iter().enumerate() {
        let wants: Vec<Want> = (case.rule)(input);
        assert_eq!(wants.len(), case.count, "{}", case.name);
        for (at, want) in wants.iter().enumerate() {
            let found = found[lane * case.count + at];
            *checked += 1;
            if !(if driver.is_none() { want.allows(found) } else { want.allows_driver(found) }) {
                let float = f32::from_bits(found);
                complaints.push(format!("lane {lane}, word {at}: {found:#x} ({float:e}), expected {want:x?}"));
            }
        }
    }
    let first = complaints.first().map(|first| format!("{}: {} results, such as {first}", case.name, complaints.len()));
    first.into_iter().collect()
}

#[test]
fn the_reference_executor_keeps_every_rule() {
    check_all(&mut reference(32), None);
}

#[test]
fn drivers_keep_to_the_accuracy_of_the_specification() {
    for name in DEVICES {
        match device(name) {
            Ok(executor) => check_all(&mut open(&executor), Some(name)),
            Err(reason) => skip(&format!("{name}: {reason}")),
        }
    }
}

#[test]
fn subgroups_of_several_sizes_are_combined_as_told() {
    for size in [4, 8, 32] {
        subgroups::check(&mut reference(size), Some(size));
    }
}

#[test]
fn subgroups_of_drivers_are_combined_as_told() {
    for name in DEVICES {
        match device(name) {
            Ok(executor) => subgroups::check(&mut open(&executor), None),
            Err(reason) => skip(&format!("{name}: {reason}")),
        }
    }
}
