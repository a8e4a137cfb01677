//! Dispatches of a level, run to their end.
//!
//! Gets dispatches of which none depends on another, and memory; returns when all their workgroups have run. What holds
//! then: a buffer was either only read or written through atomic words while they ran, and threads were woken only
//! where there is work for them. Never decides what a level is.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use crate::exec::reference::machine::{self, Scratch, View};
use crate::exec::reference::memory::{BlockId, Bound, Memory};
use crate::exec::reference::program::Program;
use crate::exec::reference::watch::{Unwatched, Watch};

/// A dispatch with all that it takes to run it.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    pub(super) program: Arc<Program>,
    pub(super) bound: Vec<Bound>,
    pub(super) workgroups: [u32; 3],
}

impl Ready {
    fn count(&self) -> u64 {
        self.workgroups.iter().map(|count| u64::from(*count)).product()
    }

    /// The workgroup of this number, x first.
    fn workgroup(&self, number: u64) -> [u32; 3] {
        let [x, y, _] = self.workgroups.map(u64::from);
        [(number % x) as u32, (number / x % y) as u32, (number / x / y) as u32]
    }

    fn views<'a>(&self, memory: &'a Memory, shared: &[(BlockId, &'a [AtomicU32])]) -> Vec<View<'a>> {
        self.bound.iter().map(|bound| bound.view(memory, shared)).collect()
    }
}

/// [`Program::cost`] of a level's workgroups that is not worth a second thread: waking one takes as long.
const MIN_PARALLEL_COST: u64 = 20_000;

/// Tasks for each thread of a level: the slowest one keeps the others waiting for no longer than its share.
const TASKS_PER_THREAD: u64 = 4;

/// Workgroups of one dispatch, one after the other.
struct Task {
    nth: usize,
    numbers: Range<u64>,
}

/// Threads, and registers for each of them.
#[derive(Debug)]
pub(super) struct Workers {
    /// Nothing where there is but one, or where no thread can be started.
    pool: Option<rayon::ThreadPool>,
    /// By program, so that constants are set once.
    scratches: Vec<Mutex<HashMap<u64, Scratch>>>,
}

impl Workers {
    pub(super) fn new(threads: usize) -> Self {
        let name = |nth| format!("workgroups {nth}");
        let build = || rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build();
        let pool = if threads > 1 { build().ok() } else { None };
        let count = pool.as_ref().map_or(1, rayon::ThreadPool::current_num_threads);
        Self { pool, scratches: (0..count).map(|_| Mutex::default()).collect() }
    }

    /// Runs all workgroups of all dispatches of a level.
    pub(super) fn run(&self, memory: &mut Memory, level: &[&Ready]) {
        let written = level.iter().flat_map(|ready| &ready.bound).filter(|bound| bound.writes);
        let mut lent = memory.lend(written.map(|bound| bound.block).collect());
        let shared = lent.shared();
        let views: Vec<Vec<View<'_>>> = level.iter().map(|ready| ready.views(memory, &shared)).collect();
        let run = |thread: usize, Task { nth, numbers }: Task| {
            let mut scratches = self.scratches[thread].lock().unwrap_or_else(PoisonError::into_inner);
            let ready = level[nth];
            let scratch = scratches.entry(ready.program.id).or_default();
            for number in numbers {
                let workgroup = ready.workgroup(number);
                let (program, workgroups) = (&ready.program, ready.workgroups);
                machine::run(program, scratch, &views[nth], workgroups, workgroup, &mut Unwatched);
            }
        };
        let cost: u64 = level.iter().map(|ready| ready.program.cost.saturating_mul(ready.count())).sum();
        match &self.pool {
            Some(pool) if cost >= MIN_PARALLEL_COST => {
                let least = (cost / (self.scratches.len() as u64 * TASKS_PER_THREAD)).max(MIN_PARALLEL_COST / 2);
                let tasks = tasks(level, least);
                pool.install(|| {
                    // One by one: the tasks are as large as they should be.
                    tasks.into_par_iter().with_max_len(1).for_each(|task| {
                        run(rayon::current_thread_index().unwrap_or(0), task);
                    });
                });
            }
            _ => (0..level.len()).for_each(|nth| run(0, Task { nth, numbers: 0..level[nth].count() })),
        }
        drop(views);
        memory.put_back(lent);
    }

    /// Runs one dispatch, a workgroup after the other, before the eyes of `watch`.
    pub(super) fn run_watched(&self, memory: &mut Memory, ready: &Ready, watch: &mut impl Watch) {
        let written = ready.bound.iter().filter(|bound| bound.writes);
        let mut lent = memory.lend(written.map(|bound| bound.block).collect());
        let shared = lent.shared();
        let views = ready.views(memory, &shared);
        let mut scratches = self.scratches[0].lock().unwrap_or_else(PoisonError::into_inner);
        let scratch = scratches.entry(ready.program.id).or_default();
        for number in 0..ready.count() {
            let workgroup = ready.workgroup(number);
            machine::run(&ready.program, scratch, &views, ready.workgroups, workgroup, watch);
        }
        drop(views);
        memory.put_back(lent);
    }
}

/// Workgroups in tasks that cost about this much.
fn tasks(level: &[&Ready], cost: u64) -> Vec<Task> {
    let mut tasks = Vec::new();
    for (nth, ready) in level.iter().enumerate() {
        let (count, at_once) = (ready.count(), (cost / ready.program.cost.max(1)).max(1));
        let mut from = 0;
        while from < count {
            let to = count.min(from + at_once);
            tasks.push(Task { nth, numbers: from..to });
            from = to;
        }
    }
    tasks
}
