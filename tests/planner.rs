//! Planner, checker and oracle hold each other to account.
//!
//! Gets plans of the shipped graph and of random ones; asks the oracle, which shares no code with the other two,
//! whether all conflicting accesses are ordered, and whether each transition is needed for that; breaks plans at random
//! and compares what checker and oracle say. What then holds: no plan that the checker accepts has an unordered pair.
//! Never needs a device. `GRAPHC_RANDOM_GRAPHS=N` says how many graphs; `GRAPHC_RANDOM_SEED=N` runs that one alone.

mod support;

use fastrand::Rng;
use graphc::base::limits::Limits;
use graphc::base::span::SourceMap;
use graphc::base::step::StepShape;
use graphc::checkpoint::Checkpoint;
use graphc::compile::{CompileError, Compiler};
use graphc::inspect::oracle::{longest_chain, unordered, unordered_at, unordered_between};
use graphc::kernel::{self, KernelLib};
use graphc::plan::check::check;
use graphc::plan::command::{BufferId, Level, Transition};
use graphc::plan::usage::Usage;
use graphc::plan::{CheckedPlan, Plan};
use graphc::{graph, sources};
use support::graphs::{KERNELS, RandomGraph};
use support::runner::{Program, compile};

/// How many random graphs there are unless it is said.
const RANDOM_GRAPHS: u64 = 2000;

/// One token; several; several of several sequences.
const SHAPES: [StepShape; 3] = [
    StepShape { tokens: 1, sequences: 1, rows: 1, capacity: 3 },
    StepShape { tokens: 5, sequences: 1, rows: 5, capacity: 3 },
    StepShape { tokens: 7, sequences: 3, rows: 3, capacity: 3 },
];

fn plan(tokens: u32, sequences: u32) -> CheckedPlan {
    let checkpoint = Checkpoint::from_static("the built-in model", sources::DEMO_MODEL).expect("a sound checkpoint");
    let shape = StepShape { tokens, sequences, rows: sequences, capacity: 4 };
    compile(&Program::rwkv7().compiler(checkpoint.index(), &Limits::vulkan(), &[]), shape)
}

#[test]
fn slots_of_the_built_in_model_are_within_a_tenth_of_the_least() {
    for (tokens, sequences) in [(1, 1), (4, 4), (32, 1), (32, 4), (256, 1), (256, 4)] {
        let plan = plan(tokens, sequences);
        let summary = plan.summary();
        let (found, least) = (summary.slot_bytes, summary.lower_bound_bytes);
        assert!(
            least <= found && found * 10 <= least * 11,
            "T={tokens} S={sequences}: {found} bytes, at least {least}"
        );
        // What the slots have more than the bound is free at its level, and named.
        let free: u64 = plan.gaps().iter().map(|gap| gap.free_bytes).sum();
        assert_eq!(free, found - least);
    }
}

#[test]
fn the_oracle_finds_nothing_in_plans_of_the_built_in_model() {
    let plans = [plan(1, 1), plan(32, 1), plan(32, 4)];
    for plan in &plans {
        let found = unordered(plan);
        assert!(found.is_empty(), "{}", found[0].text(plan));
        assert_eq!(longest_chain(plan), plan.levels.len());
        for other in &plans {
            assert_eq!(unordered_between(plan, other), [], "{:?} then {:?}", plan.shape, other.shape);
        }
    }
}

#[test]
fn without_any_one_transition_the_oracle_finds_an_unordered_pair_at_its_buffer() {
    assert_eq!(needless(&plan(1, 1)), []);
}

/// Transitions without which the oracle finds nothing wrong, as level and index.
fn needless(plan: &Plan) -> Vec<(usize, usize)> {
    let mut broken = plan.clone();
    let mut found = Vec::new();
    for level in 0..=plan.levels.len() {
        for at in 0..barrier(&mut broken, level).len() {
            let removed = barrier(&mut broken, level).remove(at);
            if unordered_at(&broken, removed.buffer).is_empty() {
                found.push((level, at));
            }
            barrier(&mut broken, level).insert(at, removed);
        }
    }
    found
}

/// The barrier before a level, or the leaving one.
fn barrier(plan: &mut Plan, level: usize) -> &mut Vec<Transition> {
    let count = plan.levels.len();
    if level == count { &mut plan.leave } else { &mut plan.levels[level].barrier }
}

#[test]
fn planner_checker_and_oracle_agree_on_random_graphs() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seeds = match number("GRAPHC_RANDOM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("GRAPHC_RANDOM_GRAPHS").unwrap_or(RANDOM_GRAPHS),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let counts: Vec<Counts> = std::thread::scope(|scope| {
        let some = |nth: usize| seeds.clone().skip(nth).step_by(threads);
        let threads: Vec<_> = (0..threads).map(|nth| scope.spawn(move || run(some(nth)))).collect();
        threads.into_iter().map(|thread| thread.join().expect("the plans are right")).collect()
    });
    let sum = |count: fn(&Counts) -> u64| counts.iter().map(count).sum::<u64>();
    let (graphs, plans, refused) = (sum(|c| c.graphs), sum(|c| c.plans), sum(|c| c.cyclic));
    let (mutants, killed, seen) = (sum(|c| c.mutants), sum(|c| c.refused), sum(|c| c.unordered));
    println!(
        "{graphs} graphs, {plans} plans, {refused} graphs without an order; {mutants} broken plans, of which the \
         checker refused {killed} and the oracle saw {seen}"
    );
    assert!(plans >= graphs && refused * 4 < graphs, "most random graphs can be compiled");
    assert!(graphs < 100 || (seen > mutants / 4 && killed > seen), "breaking plans breaks them");
}

#[derive(Debug, Default)]
struct Counts {
    graphs: u64,
    plans: u64,
    /// Graphs that no order allows.
    cyclic: u64,
    mutants: u64,
    refused: u64,
    unordered: u64,
}

fn run(seeds: impl Iterator<Item = u64>) -> Counts {
    let files: Vec<(String, String)> = KERNELS.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect();
    let mut sources = SourceMap::new();
    let (kernels, wrong) = kernel::load(&mut sources, &files);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let mut counts = Counts::default();
    for seed in seeds {
        let random = RandomGraph::new(seed);
        counts.graphs += 1;
        // The text is printed only if something is wrong with it.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            one(seed, &random, &mut sources, &kernels, &mut counts);
        }));
        if outcome.is_err() {
            panic!("random graph {seed} (GRAPHC_RANDOM_SEED={seed} runs it alone):\n{}", random.text);
        }
    }
    counts
}

/// All that is to be said of one graph.
fn one(seed: u64, random: &RandomGraph, sources: &mut SourceMap, kernels: &KernelLib, counts: &mut Counts) {
    let source = sources.add(format!("{seed}.ron"), random.text.clone());
    let graph = graph::parse(sources, source).unwrap_or_else(|wrong| panic!("{wrong:#?}"));
    let (index, limits) = (random.checkpoint.index(), Limits::webgpu());
    let compiler = Compiler {
        graph: &graph,
        kernels,
        sources,
        index,
        limits: &limits,
        keep: &random.keep,
        batch_invariant: false,
        draws: false,
        tuning: None,
        fuse: None,
        copies: true,
    };
    let mut rng = Rng::with_seed(seed);
    let mut plans = Vec::new();
    for shape in SHAPES {
        match compiler.compile(shape) {
            Ok(compiled) => plans.push(compiled.plan),
            Err(CompileError::Wrong { rendered, .. }) if rendered.contains("before and after it is overwritten") => {
                counts.cyclic += 1;
                return;
            }
            Err(error) => panic!("{error}"),
        }
    }
    for plan in &plans {
        counts.plans += 1;
        right(plan);
        assert_eq!(needless(plan), [], "{:?}: transitions that nothing needs", plan.shape);
        for other in &plans {
            assert_eq!(plan.state, other.state, "a session's plans agree on where states rest");
            assert_eq!(unordered_between(plan, other), [], "{:?} then {:?}", plan.shape, other.shape);
        }
        for _ in 0..3 {
            let mut broken = (**plan).clone();
            let change = break_at_random(&mut broken, &mut rng);
            let refused = check(broken.clone()).is_err();
            let unordered = !unordered(&broken).is_empty();
            counts.mutants += 1;
            counts.refused += u64::from(refused);
            counts.unordered += u64::from(unordered);
            assert!(refused || !unordered, "{:?}: the checker accepts what the oracle does not: {change}", plan.shape);
        }
    }
}

/// What holds of every plan.
fn right(plan: &Plan) {
    let found = unordered(plan);
    assert!(found.is_empty(), "{:?}: {}", plan.shape, found[0].text(plan));
    let summary = plan.summary();
    assert_eq!(summary.levels, summary.longest_chain, "{:?}: levels, and the chain in the graph", plan.shape);
    assert_eq!(longest_chain(plan), plan.levels.len(), "{:?}: levels, and the chain in the plan", plan.shape);
    assert!(summary.barriers <= summary.levels + 1);
    assert!(summary.lower_bound_bytes <= summary.slot_bytes);
    let free: u64 = plan.gaps().iter().map(|gap| gap.free_bytes).sum();
    assert_eq!(free, summary.slot_bytes - summary.lower_bound_bytes, "{:?}: the gap is named", plan.shape);
}

/// Changes a plan in one way that may make it wrong; returns which.
fn break_at_random(plan: &mut Plan, rng: &mut Rng) -> String {
    let usages = [Usage::STORAGE_READ, Usage::STORAGE_WRITE, Usage::COPY_SRC, Usage::COPY_DST];
    let level = rng.usize(0..plan.levels.len());
    let buffer = BufferId::new(rng.u32(0..plan.buffers.len() as u32));
    let usage = usages[rng.usize(0..4)];
    let count = plan.levels[level].barrier.len();
    match rng.usize(0..7) {
        0 if count > 0 => {
            let removed = plan.levels[level].barrier.remove(rng.usize(0..count));
            format!("without {removed:?} before level {level}")
        }
        1 if count > 0 => {
            let changed = &mut plan.levels[level].barrier[rng.usize(0..count)];
            changed.from = usage;
            format!("from changed: {changed:?} before level {level}")
        }
        2 if count > 0 => {
            let changed = &mut plan.levels[level].barrier[rng.usize(0..count)];
            changed.to = usage;
            format!("to changed: {changed:?} before level {level}")
        }
        3 if count > 0 => {
            let changed = &mut plan.levels[level].barrier[rng.usize(0..count)];
            changed.buffer = buffer;
            format!("buffer changed: {changed:?} before level {level}")
        }
        4 => {
            let added = Transition { buffer, from: plan.buffers[buffer].rest, to: usage };
            plan.levels[level].barrier.push(added);
            format!("{added:?} added before level {level}")
        }
        5 if level > 0 => {
            // A level earlier: behind one barrier fewer.
            let at = rng.usize(0..plan.levels[level].commands.len());
            let moved = plan.levels[level].commands.remove(at);
            let label = moved.label().to_owned();
            plan.levels[level - 1].commands.push(moved);
            format!("`{label}` moved from level {level} to the one before")
        }
        _ => {
            let next = (level + 1).min(plan.levels.len() - 1);
            let Level { barrier, .. } = &mut plan.levels[level];
            let barrier = std::mem::take(barrier);
            plan.levels[next].barrier.extend(barrier);
            format!("the barrier before level {level} moved to level {next}")
        }
    }
}
