//! Sequences in one batch give what they give alone, to the last bit.
//!
//! Gets reference models and random ones. What then holds: whatever shares a step with a sequence, in which row of the
//! state it lives and how it is cut into steps changes none of its bits; a copy goes on as the original does; a state
//! that is saved, written and read comes back, and one of another model does not; calls that make no sense are refused
//! by name. Never judges speed; `batch_walk` takes the long way through all of it.

mod support;

use graphc::base::dtype::DType;
use graphc::checkpoint::Checkpoint;
use graphc::exec::Executor;
use graphc::generate::batch::{Batch, Feed, SequenceId};
use graphc::generate::state::{StateOwner, from_bytes, to_bytes};
use graphc::generate::{GenerateError, Rows};
use support::models::{Format, Shape, write_model};
use support::runner::{AnyExecutor, AnySession, DEVICES, KINDS, Kind, Program, batch, decoder, run};
use support::{TempDir, case_tensors, cases, max_difference, open, reference, skip, values};

/// A model whose steps take no time: one layer, two heads of eight, sixteen tokens.
const TINY: Shape =
    Shape { layers: 1, heads: 2, head_size: 8, ffn: 24, vocab: 16, rank_w: 4, rank_a: 3, rank_v: 2, rank_g: 5 };

/// Logits of `7v0`, and of models in which every term weighs: as in `agree`.
const TRAINED_LIMIT: f64 = 1e-4;
const LIMIT: f64 = 1e-3;

/// Step sizes of the batch; that of sequences alone is another one.
const SIZES: [u32; 4] = [1, 7, 41, 128];

/// Where it is tested: hal and wgpu on one driver, and one of them on the other.
const PLACES: [(&str, Kind); 3] = [(DEVICES[0], Kind::Wgpu), (DEVICES[0], Kind::Hal), (DEVICES[1], Kind::Hal)];

/// How many tokens each sequence is fed at once, in turn: all of it, or pieces that are unlike its neighbours'.
fn piece(chunks: usize, sequence: usize, turn: usize) -> usize {
    match chunks {
        0 => usize::MAX,
        1 => [1, 5, 2, 17, 3, 40][(sequence + turn) % 6],
        _ => 1 + (sequence * 13 + turn * 5) % 64,
    }
}

type Logits = Vec<Vec<f32>>;

/// Runs all sequences side by side, each cut in its own way; returns each one's rows of logits and state.
fn side_by_side(
    batch: &mut Batch<'_, AnySession>,
    sequences: &[Vec<u32>],
    chunks: usize,
) -> Vec<(Logits, Vec<(String, Vec<f32>)>)> {
    let ids: Vec<SequenceId> = sequences.iter().map(|_| batch.join().expect("a row is free")).collect();
    let mut logits: Vec<Logits> = vec![Vec::new(); sequences.len()];
    for turn in 0.. {
        let mut fed = Vec::new();
        let mut feeds = Vec::new();
        for (at, tokens) in sequences.iter().enumerate() {
            let done = logits[at].len();
            let end = tokens.len().min(done.saturating_add(piece(chunks, at, turn)));
            if done < end {
                fed.push(at);
                feeds.push(Feed { sequence: ids[at], tokens: &tokens[done..end] });
            }
        }
        if feeds.is_empty() {
            break;
        }
        let (rows, _) = batch.run(&feeds, Rows::All).unwrap_or_else(|error| panic!("{error}"));
        fed.into_iter().zip(rows).for_each(|(at, rows)| logits[at].extend(rows));
    }
    let mut state_of = |id| {
        let state = batch.save(id).expect("the state is read");
        batch.leave(id).expect("it was there");
        state.tensors.into_iter().map(|(label, tensor)| (label, tensor.to_f32())).collect()
    };
    logits.into_iter().zip(ids).map(|(rows, id)| (rows, state_of(id))).collect()
}

fn bits<'v>(values: impl IntoIterator<Item = &'v Vec<f32>>) -> Vec<u32> {
    values.into_iter().flatten().map(|value| value.to_bits()).collect()
}

fn check_model(model: &str, limit: f64) {
    let Some(dir) = reference(model) else {
        return skip(&format!("no reference model `{model}`; `GRAPHC_REFERENCE_DIR` names the folder it is in"));
    };
    let (program, checkpoint) = (Program::rwkv7(), open(&dir.join("model.safetensors")));
    let expected = case_tensors(&dir);
    let (cases, count) = (cases(&dir), cases(&dir).len());
    let sequences: Vec<Vec<u32>> = cases.iter().map(|case| case.tokens.clone()).collect();
    for (device, kind) in PLACES {
        let Some(executor) = AnyExecutor::find(kind, device) else { continue };
        let limits = executor.device().limits.clone();
        let compiler = program.compiler(checkpoint.index(), &limits, &[]);
        let mut alone = decoder(&executor, compiler, &checkpoint, &[128]);
        let alone: Vec<_> = sequences.iter().map(|tokens| run(&mut alone, tokens, &[usize::MAX]).bits()).collect();
        // A row more than there are sequences: the capacity is no power of two, and the first row is not the first's.
        let mut batch = batch(&executor, compiler, &checkpoint, (count as u32 + 1, &SIZES));
        batch.join().expect("a row is free");
        let mut worst = 0.0f64;
        for chunks in 0..3 {
            let found = side_by_side(&mut batch, &sequences, chunks);
            for ((case, (logits, states)), alone) in cases.iter().zip(found).zip(&alone) {
                let what = format!("{model}, {}, cut {chunks}, {kind:?} on {device}", case.id);
                let wide: Vec<f64> = logits.iter().flatten().copied().map(f64::from).collect();
                let distance = max_difference(&wide, &values(&expected, &format!("{}.logits", case.id)));
                assert!(distance <= limit, "{what}: logits are off by {distance:.2e}, more than {limit:.0e}");
                worst = worst.max(distance);
                let states = states.iter().map(|(_, values)| values);
                assert!(bits(logits.iter().chain(states)) == *alone, "{what}: its company matters");
            }
        }
        println!("{model}, {count} sequences, {kind:?} on {device}: logits within {worst:.2e}, as alone");
    }
}

#[test]
fn synth_v7_with_unequal_neighbours() {
    check_model("synth-v7", LIMIT);
}

#[test]
fn the_trained_model_with_unequal_neighbours() {
    check_model("7v0", TRAINED_LIMIT);
}

/// The tiny model, from a file that need not stay.
fn tiny(seed: u64) -> Checkpoint {
    let dir = TempDir::new();
    let path = dir.file("model.safetensors");
    write_model(&path, &TINY, seed, &Format::converted(DType::F32)).expect("written");
    open(&path)
}

/// Runs a test with the tiny model on whatever there is.
fn with_tiny(test: impl Fn(&mut dyn FnMut(u32) -> Batch<'static, AnySession>)) {
    // Batches borrow what they compile from; a test's lifetime is the program's.
    let program: &'static Program = Box::leak(Box::new(Program::rwkv7()));
    let checkpoint: &'static Checkpoint = Box::leak(Box::new(tiny(3)));
    for kind in KINDS {
        let Some(executor) = AnyExecutor::find(kind, DEVICES[0]) else { continue };
        let limits = Box::leak(Box::new(executor.device().limits.clone()));
        let compiler = program.compiler(checkpoint.index(), limits, &[]);
        test(&mut |capacity| batch(&executor, compiler, checkpoint, (capacity, &[1, 4, 16])));
    }
}

fn feed(batch: &mut Batch<'_, AnySession>, sequence: SequenceId, tokens: &[u32]) -> Vec<u32> {
    let (logits, _) = batch.run(&[Feed { sequence, tokens }], Rows::Last).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((logits.len(), logits[0].len()), (1, 1), "a row for a feed, however many steps it takes");
    bits(&logits[0])
}

#[test]
fn a_fork_goes_on_as_the_original() {
    with_tiny(|open| {
        let mut batch = open(3);
        let original = batch.join().expect("room");
        feed(&mut batch, original, &[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8]);
        let fork = batch.fork(original).expect("room");
        let third = batch.join().expect("room");
        feed(&mut batch, third, &[7, 7]);
        // Together, then apart, each in its own way; the original is not moved by what the fork reads.
        let feeds = [original, third, fork].map(|sequence| Feed { sequence, tokens: &[2, 6, 4] });
        let (rows, _) = batch.run(&feeds, Rows::Last).expect("runs");
        assert_eq!(bits(&rows[0]), bits(&rows[2]));
        assert_ne!(bits(&rows[0]), bits(&rows[1]));
        feed(&mut batch, fork, &[1; 5]);
        let second = batch.fork(original).expect_err("no room");
        assert_eq!(second.to_string(), "all 3 sequences of the session are taken");
        batch.leave(third).expect("there");
        let second = batch.fork(original).expect("room again");
        assert_eq!(feed(&mut batch, original, &[8, 8]), feed(&mut batch, second, &[8, 8]));
    });
}

#[test]
fn a_reset_sequence_begins_anew() {
    with_tiny(|open| {
        let mut batch = open(2);
        let [first, second] = [(); 2].map(|()| batch.join().expect("room"));
        let begun = feed(&mut batch, first, &[1, 2, 3]);
        feed(&mut batch, second, &[9]);
        batch.reset(second).expect("there");
        assert_eq!(feed(&mut batch, second, &[1, 2, 3]), begun);
        // Who joins finds nothing of who had the row before.
        batch.leave(first).expect("there");
        let third = batch.join().expect("room");
        assert_eq!(feed(&mut batch, third, &[1, 2, 3]), begun);
        assert_eq!(batch.len(), 2);
    });
}

#[test]
fn a_state_goes_through_bytes_into_another_session() {
    let owner = StateOwner { graph: "rwkv7".into(), fingerprint: tiny(3).fingerprint() };
    assert_ne!(owner.fingerprint, tiny(4).fingerprint(), "another seed is another model");
    with_tiny(|open| {
        let mut batch = open(2);
        batch.join().expect("room");
        let sequence = batch.join().expect("room");
        feed(&mut batch, sequence, &[3, 1, 4, 1, 5]);
        let bytes = to_bytes(&batch.save(sequence).expect("read"), batch.state_layout(), &owner).expect("fits");
        let goes_on = feed(&mut batch, sequence, &[9, 2, 6]);
        let mut fresh = open(1);
        let layout = fresh.state_layout().clone();
        let state = from_bytes(&bytes, &layout, &owner).expect("its own");
        let sequence = fresh.join().expect("room");
        feed(&mut fresh, sequence, &[7]);
        fresh.load(sequence, &state).expect("of this model");
        assert_eq!(feed(&mut fresh, sequence, &[9, 2, 6]), goes_on);

        let refused = |owner: &StateOwner| from_bytes(&bytes, &layout, owner).expect_err("another's");
        let other = StateOwner { fingerprint: "f00d".into(), ..owner.clone() };
        assert_eq!(refused(&other), format!("its model is `{}`, expected `f00d`", owner.fingerprint));
        let other = StateOwner { graph: "rwkv6".into(), ..owner.clone() };
        assert_eq!(refused(&other), "its graph is `rwkv7`, expected `rwkv6`");
        let later = String::from_utf8_lossy(&bytes[8..]).find("\"version\":\"1\"").expect("a version") + 8 + 11;
        let mut changed = bytes.clone();
        changed[later] = b'2';
        let refused = from_bytes(&changed, &layout, &owner).expect_err("another version");
        assert_eq!(refused, "its version is `2`, expected `1`");
        let mut short = state.clone();
        short.tensors.pop();
        let refused = fresh.load(sequence, &short).expect_err("another layout");
        assert_eq!(refused.to_string(), "the state is not one of this model");
    });
}

#[test]
fn misuse_is_refused_by_name_and_runs_nothing() {
    with_tiny(|open| {
        let mut batch = open(2);
        let [here, gone] = [(); 2].map(|()| batch.join().expect("room"));
        assert_eq!(batch.join().expect_err("full").to_string(), "all 2 sequences of the session are taken");
        batch.leave(gone).expect("there");
        let started = feed(&mut batch, here, &[1]);
        let left = "the sequence has left";
        let refusals: [Result<(), GenerateError>; 5] = [
            batch.leave(gone),
            batch.reset(gone),
            batch.fork(gone).map(drop),
            batch.save(gone).map(drop),
            batch.save(here).and_then(|state| batch.load(gone, &state)),
        ];
        for refused in refusals {
            assert_eq!(refused.expect_err("it has left").to_string(), left);
        }
        let to = |sequence, tokens| Feed { sequence, tokens };
        for (feeds, message) in [
            (vec![], "there is nothing to run"),
            (vec![to(here, &[2]), to(gone, &[2])], left),
            (vec![to(here, &[2]), to(here, &[2])], "a sequence is fed twice at once"),
            (vec![to(here, &[])], "a feed has no tokens"),
            (vec![to(here, &[2, 16])], "token 16 (number 1, from 0) is not in the vocabulary of 16"),
        ] {
            assert_eq!(batch.run(&feeds, Rows::Last).expect_err(message).to_string(), message);
        }
        // Nothing of that was read.
        let again = batch.join().expect("room");
        assert_eq!(feed(&mut batch, again, &[1]), started);
        assert_eq!(feed(&mut batch, again, &[5]), feed(&mut batch, here, &[5]));
    });
}

#[test]
fn few_plans_serve_every_mix() {
    with_tiny(|open| {
        let mut batch = open(5);
        let ids: Vec<SequenceId> = (0..5).map(|_| batch.join().expect("room")).collect();
        batch.prepare(&[1; 5], Rows::Last).expect("prepared");
        assert_eq!(batch.plan_count(), 1);
        for turn in 0..60 {
            let tokens = vec![1; 40];
            let count = |at: usize| [0, 1, 2, 17, 3][(at * 3 + turn) % 5] * usize::from(at <= turn % 7);
            let feeds = (0..5).filter(|at| count(*at) > 0);
            let feeds: Vec<_> = feeds.map(|at| Feed { sequence: ids[at], tokens: &tokens[..count(at)] }).collect();
            if !feeds.is_empty() {
                batch.run(&feeds, [Rows::Last, Rows::All][turn % 2]).unwrap_or_else(|error| panic!("{error}"));
            }
        }
        // Three sizes of a step; 1, 2, 4 or all 5 sequences; last rows or all of them; a step of 1 has one sequence.
        assert!(batch.plan_count() <= 2 * (1 + 2 * 4), "{}", batch.plan_count());
    });
}
