//! Steps that draw go on as the host would.
//!
//! Gets random models, and tables whose rows are logits of every awkward kind. What then holds: greedy tokens are the
//! host's, one for one, on every executor, with any number of sequences and any vocabulary; the state behind a text is
//! the same to the last bit; what may be drawn is what the host's filters leave, as often as the host's probabilities
//! say; hal and wgpu draw the same tokens; and a seed draws a text again. Never measures time.

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use graphc::base::dtype::DType;
use graphc::checkpoint::Checkpoint;
use graphc::compile::Compiler;
use graphc::exec::Executor;
use graphc::generate::batch::{Batch, Draw, DrawFeed, Feed, Next, SequenceState};
use graphc::generate::continuation::{Continuation, Continued, Rules};
use graphc::generate::queue::{self, Prompt};
use graphc::generate::sample::{Sampler, Sampling};
use graphc::generate::{GenerateError, Rows, ahead};
use graphc::sources;
use support::models::{Format, Shape, Version, write_version};
use support::runner::{AnyExecutor, AnySession, DEVICES, Kind, Program, batch, everywhere};
use support::{TempDir, open};

/// A model whose steps take no time.
const SMALL: Shape =
    Shape { layers: 2, heads: 2, head_size: 8, ffn: 24, vocab: 1000, rank_w: 4, rank_a: 3, rank_v: 2, rank_g: 5 };

fn model(version: Version, vocab: usize) -> Checkpoint {
    let dir = TempDir::new();
    let path = dir.file("model.safetensors");
    write_version(&path, version, &Shape { vocab, ..SMALL }, 11, &Format::converted(DType::F32)).expect("written");
    open(&path)
}

fn rules(sampling: Sampling) -> Rules<'static> {
    Rules { sampling, stop_tokens: Vec::new(), stop_texts: Vec::new(), vocabulary: None, top: None }
}

/// What prompts go on with, in their order.
fn go_on(batch: &mut Batch<'_, AnySession>, prompts: &[Prompt], rules: &Rules<'_>) -> Vec<Continued> {
    let mut found = BTreeMap::new();
    let mut take = |nth, continued| {
        found.insert(nth, continued);
        ControlFlow::Continue(())
    };
    queue::run(batch, prompts, rules, None, &mut take).unwrap_or_else(|error| panic!("{error}"));
    found.into_values().collect()
}

/// Prompts of lengths around the steps' sizes, more than there are rows, that end at different times.
fn prompts(vocab: u32) -> Vec<Prompt> {
    let tokens = |nth: u32, count: u32| (0..count).map(|at| (at * 37 + nth * 11) % vocab).collect();
    let lengths = [1, 9, 2, 21].into_iter().zip(0u32..);
    lengths.map(|(length, nth)| Prompt { tokens: tokens(nth, length), count: 2 + nth, seed: nth.into() }).collect()
}

fn check_greedy(program: &Program, checkpoint: &Checkpoint, vocab: u32, (device, kind): (&str, Kind)) {
    let Some(executor) = AnyExecutor::find(kind, device) else { return };
    let limits = executor.device().limits.clone();
    let plain = program.compiler(checkpoint.index(), &limits, &[]);
    let mut host = batch(&executor, plain, checkpoint, (3, &[1, 4, 16]));
    let mut steps = batch(&executor, Compiler { draws: true, ..plain }, checkpoint, (3, &[1, 4, 16]));
    assert!(!host.draws() && steps.draws());
    assert_eq!(host.state_layout(), steps.state_layout(), "what is carried is no part of a sequence's state");
    let (rules, prompts) = (rules(Sampling::GREEDY), prompts(vocab));
    let expected = go_on(&mut host, &prompts, &rules);
    assert_eq!(go_on(&mut steps, &prompts, &rules), expected, "{device} {kind:?}");
    assert!(steps.is_empty(), "all have left");
}

#[test]
fn greedy_tokens_are_the_hosts() {
    let (program, checkpoint) = (Program::built_in("rwkv7", &[]), model(Version::V7, 1000));
    everywhere().for_each(|place| check_greedy(&program, &checkpoint, 1000, place));
    // The others differ in the parts that they are made of.
    let (program, checkpoint) = (Program::built_in("rwkv4", &[]), model(Version::V4, 1000));
    check_greedy(&program, &checkpoint, 1000, (DEVICES[0], Kind::Hal));
}

#[test]
fn greedy_tokens_of_a_large_vocabulary_are_the_hosts() {
    let (program, checkpoint) = (Program::built_in("rwkv7", &[]), model(Version::V7, 65536));
    check_greedy(&program, &checkpoint, 65536, (DEVICES[0], Kind::Hal));
}

/// A text of one sequence, by steps that draw or by the host, and the state behind all of it.
fn text(
    batch: &mut Batch<'_, AnySession>,
    rules: &Rules<'_>,
    (count, breaks_at): (u32, usize),
) -> (Continued, SequenceState) {
    let sequence = batch.join().expect("room");
    let (mut rows, _) = batch.run(&[Feed { sequence, tokens: &[5, 6, 7, 8, 9] }], Rows::Last).expect("read");
    let mut continuation = Continuation::new(rules, count, 1);
    let mut taken = 0;
    if batch.draws() {
        let first = continuation.draw(&rows[0][0]).expect("numbers");
        let take = &mut |_| {
            taken += 1;
            Ok::<_, GenerateError>(if taken == breaks_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        ahead::go_on(batch, sequence, &mut continuation, first, true, take).unwrap_or_else(|error| panic!("{error}"));
    } else {
        while continuation.finish().is_none() && taken < breaks_at {
            taken += 1;
            if let Some(token) = continuation.draw(&rows[0][0]).expect("numbers").token {
                rows = batch.run(&[Feed { sequence, tokens: &[token] }], Rows::Last).expect("read").0;
            }
        }
    }
    let state = batch.save(sequence).expect("the state is read");
    batch.leave(sequence).expect("there");
    (continuation.into_continued(), state)
}

#[test]
fn the_state_behind_a_text_is_the_hosts() {
    let (program, checkpoint) = (Program::built_in("rwkv7", &[]), model(Version::V7, 1000));
    for (device, kind) in everywhere().filter(|(device, _)| *device != DEVICES[1]) {
        let Some(executor) = AnyExecutor::find(kind, device) else { continue };
        let limits = executor.device().limits.clone();
        let plain = program.compiler(checkpoint.index(), &limits, &[]);
        let mut host = batch(&executor, plain, &checkpoint, (1, &[1, 4, 16]));
        let mut steps = batch(&executor, Compiler { draws: true, ..plain }, &checkpoint, (1, &[1, 4, 16]));
        let greedy = rules(Sampling::GREEDY);
        let (whole, _) = text(&mut host, &greedy, (9, usize::MAX));
        // A token that comes up, and was not drawn before.
        let fresh = |at: &usize| !whole.tokens[..*at].contains(&whole.tokens[*at]);
        let late = (0..9).rev().find(fresh).expect("the first one is");
        let stopping = Rules { stop_tokens: vec![whole.tokens[late]], ..greedy.clone() };
        for (what, rules, ends) in [
            ("the count", &greedy, (9, usize::MAX)),
            ("one token", &greedy, (1, usize::MAX)),
            ("a stop token", &stopping, (9, usize::MAX)),
            ("whoever reads it", &greedy, (9, 4)),
        ] {
            let (expected, found) = (text(&mut host, rules, ends), text(&mut steps, rules, ends));
            assert_eq!(found.0, expected.0, "{what} ends it: {device} {kind:?}");
            assert!(found.1 == expected.1, "the state after {what} ended it: {device} {kind:?}");
        }
    }
}

/// Logits by the token read: a row of the table for each.
const LOOK_UP: &str = r#"Graph(
    name: "look_up",
    detect: (has: ["table"]),
    dims: {
        "K": Weight("table", 0), "V": Weight("table", 1),
        "T": Tokens, "S": Sequences, "R": Rows, "B": Capacity, "draws": Draws,
    },
    inputs: {
        "tokens": Input(token_ids, ["T"]), "offsets": Input(sequence_offsets, ["S + 1"]),
        "places": Input(state_rows, ["S"]), "rows": Input(output_rows, ["R"]),
    },
    outputs: {"logits": Output(logits)},
    carry: Carry(
        state: {"next": State(dtype: u32, shape: ["B"], init: 0.0)},
        inputs: {"draw_rules": Input(draw_rules, ["7 * S"])},
        outputs: {"next_token": Output(next_token)},
    ),
    ops: [
        If("draws", [
            Op("embed_carried", {
                "tokens": "in.tokens", "next": "state.next", "offsets": "in.offsets", "places": "in.places",
                "table": "w.table", "y": "x",
            }),
        ], [
            Op("embed", {"tokens": "in.tokens", "table": "w.table", "y": "x"}),
        ]),
        Op("gather_rows", {"x": "x", "rows": "in.rows", "y": "logits"}),
        If("draws", [
            Op("best_tokens", {"logits": "logits", "best": "best"}),
            Op("draw", {
                "logits": "logits", "best": "best", "rules": "in.draw_rules",
                "offsets": "in.offsets", "places": "in.places", "next": "state.next", "y": "next_token",
            }),
        ], []),
    ],
)
"#;

/// A checkpoint of these rows.
fn table(rows: &[Vec<f32>]) -> Checkpoint {
    let dir = TempDir::new();
    let bytes: Vec<u8> = rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    let (count, width, end) = (rows.len(), rows[0].len(), bytes.len());
    let header = format!(r#"{{"table":{{"dtype":"F32","shape":[{count},{width}],"data_offsets":[0,{end}]}}}}"#);
    let header = format!("{header:width$}", width = header.len().next_multiple_of(8));
    let path = dir.file("table.safetensors");
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes].concat();
    std::fs::write(&path, file).expect("written");
    open(&path)
}

/// What is drawn from each row of a table, with the draws' numbers from `number` on; nothing where there is nothing to
/// draw.
fn draws(
    batch: &mut Batch<'_, AnySession>,
    rows: &[u32],
    sampling: &Sampling,
    number: u32,
) -> Result<Vec<u32>, GenerateError> {
    let sequences: Vec<_> = rows.iter().map(|_| batch.join().expect("room")).collect();
    let feed = |(at, sequence)| {
        let draw = Draw::new(sampling, 77, number + at as u32).expect("no penalties");
        DrawFeed { sequence, next: Next::Tokens(&rows[at..=at]), draw }
    };
    let feeds: Vec<_> = sequences.iter().copied().enumerate().map(feed).collect();
    let flight = batch.submit_drawing(&feeds).unwrap_or_else(|error| panic!("{error}"));
    let drawn = batch.drawn(flight);
    sequences.into_iter().for_each(|sequence| batch.leave(sequence).expect("there"));
    drawn
}

/// A batch of many sequences that read a table, for these executors on the first device.
fn with_table(rows: &[Vec<f32>], only: &[Kind], mut test: impl FnMut(&str, Kind, &mut Batch<'_, AnySession>)) {
    let shaders = sources::shaders(None).expect("built in");
    let (program, checkpoint) = (Program::parse("look_up.ron", LOOK_UP.to_owned(), &shaders), table(rows));
    for (device, kind) in everywhere().filter(|(device, kind)| only.contains(kind) && *device != DEVICES[1]) {
        let Some(executor) = AnyExecutor::find(kind, device) else { continue };
        let limits = executor.device().limits.clone();
        let compiler = Compiler { draws: true, ..program.compiler(checkpoint.index(), &limits, &[]) };
        test(device, kind, &mut batch(&executor, compiler, &checkpoint, (64, &[1, 64])));
    }
}

const ALL: [Kind; 3] = [Kind::Wgpu, Kind::Hal, Kind::Reference];
const INF: f32 = f32::INFINITY;

/// Rows with equals, zeros of both signs, infinities and what is no number, wherever chunks and workgroups meet.
fn awkward(width: usize) -> Vec<Vec<f32>> {
    let mut random = fastrand::Rng::with_seed(width as u64);
    let mut plain = || -> Vec<f32> { (0..width).map(|_| random.f32() * 20.0 - 10.0).collect() };
    let places = [0, 1, 63, 64, 255, 256, 1023, 1024, width / 2, width - 2, width - 1];
    let places = places.into_iter().filter(|place| *place < width);
    let mut rows = Vec::new();
    for (nth, place) in places.enumerate() {
        let mut row = plain();
        row[place] = 30.0;
        row[(place + nth * 97) % width] = 30.0;
        rows.push(row);
    }
    let of = |row: Vec<f32>, change: &dyn Fn(usize, f32) -> f32| -> Vec<f32> {
        row.into_iter().enumerate().map(|(at, value)| change(at, value)).collect()
    };
    rows.push(of(plain(), &|at, value| if at % 3 == 1 { value } else { f32::NAN }));
    rows.push(of(plain(), &|at, value| if at % 5 == 2 { INF } else { value }));
    rows.push(of(plain(), &|at, value| if at + 1 == width { value } else { -INF }));
    rows.push(of(plain(), &|_, value| -value.abs() - 100.0));
    rows.push(of(plain(), &|at, _| if at % 2 == 0 { -0.0 } else { 0.0 }));
    rows.push(vec![1.5; width]);
    rows
}

#[test]
fn the_best_of_awkward_rows_is_the_hosts() {
    for (width, kinds) in [(13, &ALL[..]), (1000, &ALL), (1027, &ALL), (65536, &ALL[..2])] {
        let rows = awkward(width);
        let pick = |row: &Vec<f32>| Sampler::new(Sampling::GREEDY, 0).pick(row).expect("some");
        let expected: Vec<u32> = rows.iter().map(pick).collect();
        with_table(&rows, kinds, |device, kind, batch| {
            let ids: Vec<u32> = (0..rows.len() as u32).collect();
            let found = draws(batch, &ids, &Sampling::GREEDY, 0).expect("some");
            assert_eq!(found, expected, "{width} {device} {kind:?}");
        });
    }
}

#[test]
fn nothing_to_draw_is_an_error() {
    with_table(&[vec![f32::NAN; 9], vec![-INF; 9], vec![0.0; 9]], &ALL, |device, kind, batch| {
        for sampling in [Sampling::GREEDY, Sampling::PLAIN, Sampling { top_k: 3, top_p: 0.5, ..Sampling::PLAIN }] {
            for row in [0, 1] {
                let error = draws(batch, &[row], &sampling, 0).expect_err("nothing to draw");
                assert!(matches!(error, GenerateError::NothingDrawn), "{device} {kind:?} {error}");
            }
            draws(batch, &[2], &sampling, 0).expect("something");
        }
    });
}

/// Every kind of filter, and some together.
fn samplings() -> Vec<Sampling> {
    let with = |change: &dyn Fn(&mut Sampling)| {
        let mut sampling = Sampling::PLAIN;
        change(&mut sampling);
        sampling
    };
    vec![
        Sampling::PLAIN,
        with(&|s| s.temperature = 0.5),
        with(&|s| s.temperature = f32::MIN_POSITIVE),
        with(&|s| s.top_k = 1),
        with(&|s| s.top_k = 5),
        with(&|s| s.top_k = 1_000_000),
        with(&|s| s.top_p = 0.0),
        with(&|s| s.top_p = 0.7),
        with(&|s| (s.top_p, s.temperature) = (0.9, 1.7)),
        with(&|s| s.min_p = 0.11),
        with(&|s| s.min_p = 1.0),
        with(&|s| (s.top_k, s.top_p, s.min_p, s.temperature) = (12, 0.93, 0.021, 0.8)),
    ]
}

/// Whether the host would keep the same tokens if its limits were a little different.
fn is_clear(sampling: &Sampling, row: &[f32]) -> bool {
    let kept = |scale: f32| {
        let moved = Sampling { top_p: sampling.top_p * scale, min_p: sampling.min_p * scale, ..sampling.clone() };
        let moved = Sampling { top_p: moved.top_p.min(1.0), min_p: moved.min_p.min(1.0), ..moved };
        let candidates = Sampler::new(moved, 0).candidates(row).expect("some");
        candidates.into_iter().map(|(token, _)| token).collect::<Vec<_>>()
    };
    sampling.min_p == 1.0 || kept(0.9999) == kept(1.0001)
}

/// Rows over which a chi-square test makes sense: each token that may be drawn has some probability.
fn spread(width: usize) -> Vec<Vec<f32>> {
    let peaks = |at: usize| match at % (width / 8) {
        3 => (at * 13 % 8) as f32 * 0.4,
        _ => -40.0 + (at % 7) as f32,
    };
    let equals = |at: usize| match at % (width / 16) {
        1 => 1.0,
        5 => (at * 5 % 3) as f32 * 0.5,
        _ => -60.0,
    };
    vec![(0..width).map(peaks).collect(), (0..width).map(equals).collect()]
}

/// How far counts are from what probabilities expect, in standard deviations of the chi-square distribution. Those that
/// are expected less than five times are taken together.
fn distance(counts: &BTreeMap<u32, u32>, candidates: &[(u32, f64)]) -> f64 {
    let total: u32 = counts.values().sum();
    let (mut chi, mut cells, mut rest) = (0.0, 0, (0.0, 0.0));
    for (token, probability) in candidates {
        let expected = probability * f64::from(total);
        let found = f64::from(counts.get(token).copied().unwrap_or(0));
        if expected < 5.0 {
            rest = (rest.0 + expected, rest.1 + found);
        } else {
            (chi, cells) = (chi + (found - expected).powi(2) / expected, cells + 1);
        }
    }
    if rest.0 >= 5.0 {
        (chi, cells) = (chi + (rest.1 - rest.0).powi(2) / rest.0, cells + 1);
    }
    let free = f64::from((cells - 1).max(1));
    (chi - free) / (2.0 * free).sqrt()
}

/// Draws as often as it takes to tell; compares with what the host may draw, and returns the tokens.
fn check_distribution(batch: &mut Batch<'_, AnySession>, rows: &[Vec<f32>], steps: u32, what: &str) -> Vec<u32> {
    let mut all = Vec::new();
    for (nth, row) in (0u32..).zip(rows) {
        for sampling in samplings() {
            let candidates = Sampler::new(sampling.clone(), 0).candidates(row).expect("some");
            let mut counts = BTreeMap::new();
            for step in 0..steps {
                let drawn = draws(batch, &[nth; 64], &sampling, step * 64).expect("some");
                drawn.iter().for_each(|token| *counts.entry(*token).or_insert(0) += 1);
                all.extend(drawn);
            }
            if !is_clear(&sampling, row) {
                continue;
            }
            let may = |token: &u32| candidates.iter().any(|(other, chance)| other == token && *chance > 0.0);
            assert!(counts.keys().all(may), "{what} {sampling:?}: {counts:?} of {candidates:?}");
            let distance = distance(&counts, &candidates);
            assert!(distance < 5.0, "{what} {sampling:?}: {distance} {counts:?} of {candidates:?}");
        }
    }
    all
}

#[test]
fn draws_are_distributed_as_the_hosts() {
    for (width, steps) in [(64, 8), (1100, 6)] {
        let rows = spread(width);
        let mut by_device: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        with_table(&rows, &ALL[..2], |device, kind, batch| {
            let found = check_distribution(batch, &rows, steps, &format!("{width} {device} {kind:?}"));
            let first = by_device.entry(device.to_owned()).or_insert_with(|| found.clone());
            assert!(*first == found, "hal and wgpu draw alike: {width} {device}");
            let again = draws(batch, &[0; 64], &samplings()[0], 0).expect("some");
            assert_eq!(again, found[..64], "a seed draws again what it drew");
        });
    }
}

#[test]
fn the_reference_executor_draws_likewise() {
    let rows = spread(64);
    with_table(&rows, &ALL[2..], |device, kind, batch| {
        check_distribution(batch, &rows, 6, &format!("{device} {kind:?}"));
    });
}

/// With filters, of awkward rows: everything that is drawn is something that the host may draw.
#[test]
fn what_is_drawn_of_awkward_rows_the_host_may_draw() {
    for width in [13, 1027] {
        let rows = awkward(width);
        let ids: Vec<u32> = (0..rows.len() as u32).collect();
        with_table(&rows, &ALL[..2], |device, kind, batch| {
            for (nth, sampling) in (0u32..).zip(samplings()) {
                let drawn = draws(batch, &ids, &sampling, nth * 64).expect("some");
                for (row, token) in rows.iter().zip(&drawn) {
                    let candidates = Sampler::new(sampling.clone(), 0).candidates(row).expect("some");
                    let may = candidates.iter().any(|(other, _)| other == token) || !is_clear(&sampling, row);
                    assert!(may, "{width} {device} {kind:?} {sampling:?}: {token} of {candidates:?}");
                }
            }
        });
    }
}

#[test]
fn steps_cannot_draw_with_penalties_and_the_like() {
    let plain = Sampling { top_k: 4, top_p: 0.5, min_p: 0.1, ..Sampling::PLAIN };
    assert!(Draw::new(&plain, 1, 2).is_some());
    for sampling in [
        Sampling { typical: 0.9, ..plain.clone() },
        Sampling { presence: 0.1, ..plain.clone() },
        Sampling { frequency: 0.1, ..plain.clone() },
        Sampling { bias: vec![(1, 1.0)], ..plain.clone() },
    ] {
        assert!(Draw::new(&sampling, 1, 2).is_none(), "{sampling:?}");
        let rules = rules(sampling);
        assert!(Continuation::new(&rules, 3, 1).draw_ahead(0).is_none());
    }
    let scored = Rules { top: Some(1), ..rules(plain) };
    assert!(Continuation::new(&scored, 3, 1).draw_ahead(0).is_none(), "likelihoods take logits");
}

/// A sampled text, by the queue: a sequence's text does not depend on its company.
#[test]
fn a_sampled_text_depends_on_its_seed_alone() {
    let (program, checkpoint) = (Program::built_in("rwkv7", &[]), model(Version::V7, 1000));
    let Some(executor) = AnyExecutor::find(Kind::Hal, DEVICES[0]) else { return };
    let limits = executor.device().limits.clone();
    let compiler = Compiler { draws: true, ..program.compiler(checkpoint.index(), &limits, &[]) };
    let rules = rules(Sampling { top_p: 0.9, ..Sampling::at(0.8) });
    let prompts = prompts(1000);
    let together = go_on(&mut batch(&executor, compiler, &checkpoint, (3, &[1, 4, 16])), &prompts, &rules);
    let mut alone = batch(&executor, compiler, &checkpoint, (1, &[1, 4, 16]));
    for (prompt, expected) in prompts.iter().zip(&together) {
        assert_eq!(go_on(&mut alone, std::slice::from_ref(prompt), &rules), std::slice::from_ref(expected));
    }
    let seeded = |seed| Prompt { seed, count: 8, ..prompts[0].clone() };
    assert_ne!(go_on(&mut alone, &[seeded(1)], &rules), go_on(&mut alone, &[seeded(2)], &rules), "another seed");
}
