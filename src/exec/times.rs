//! When the parts of a step were done.
//!
//! Gets nothing, returns nothing: plain data that sessions fill in for plans prepared with
//! [`Session::prepare_profiled`](crate::exec::Session::prepare_profiled). What holds then: moments of one step never go
//! backwards, and there are as many as its [`Grain`] says. Never compares the device's clock with the host's.

use std::time::Instant;

use crate::plan::Plan;

/// How finely the steps of a plan are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// The whole step: before its first command, after its last.
    Step,
    /// After each level, too. Commands of a level run side by side as they always do.
    Levels,
    /// After each command instead. Where the executor places barriers itself, one stands between any two commands, so
    /// that each runs alone; else two of a level may overlap, and the time of both ends with the later one.
    Commands,
}

impl Grain {
    /// Moments that are noted of a step: before the first command, after each part, and at the end, behind the leaving
    /// barrier.
    pub fn moments(self, plan: &Plan) -> usize {
        2 + match self {
            Self::Step => 0,
            Self::Levels => plan.levels.len(),
            Self::Commands => plan.commands().count(),
        }
    }
}

/// The moments of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepTimes {
    /// Nanoseconds by the device's clock, from a beginning of its own; as many as [`Grain::moments`].
    pub moments_ns: Vec<u64>,
}

impl StepTimes {
    /// The moments of these ticks, or nothing if the device wrote none or began to count anew in between.
    pub(crate) fn of_ticks(ticks: &[u64], period_ns: f64) -> Option<Self> {
        let is_whole = ticks.first() < ticks.last() && ticks.is_sorted();
        // Whole nanoseconds of long-running clocks need more bits than a double has: count from the first tick.
        let first = *ticks.first()?;
        let first_ns = (first as f64 * period_ns) as u64;
        let moment = |tick: &u64| first_ns + ((tick - first) as f64 * period_ns) as u64;
        is_whole.then(|| Self { moments_ns: ticks.iter().map(moment).collect() })
    }

    /// Nanoseconds from the first moment to the last.
    pub fn total_ns(&self) -> u64 {
        match (self.moments_ns.first(), self.moments_ns.last()) {
            (Some(first), Some(last)) => last - first,
            _ => 0,
        }
    }

    /// Nanoseconds of each part: the last is the leaving barrier's.
    pub fn parts_ns(&self) -> impl Iterator<Item = u64> {
        self.moments_ns.windows(2).map(|pair| pair[1] - pair[0])
    }
}

/// What the host did for a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostWork {
    /// Recorded its commands.
    Record,
    /// Wrote its inputs and submitted it.
    Submit,
}

/// When the host did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostSpan {
    /// What.
    pub work: HostWork,
    /// From when.
    pub began: Instant,
    /// How long, in nanoseconds.
    pub ns: u64,
}

/// What is known of the steps of a profiled plan since it was asked for last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepLog {
    /// Of the steps that were waited for, in the order of waiting; none where the device wrote no timestamps.
    pub steps: Vec<StepTimes>,
    /// What the host did, in order.
    pub host: Vec<HostSpan>,
}

impl StepLog {
    /// Notes what the host has just done.
    pub(crate) fn note(&mut self, work: HostWork, began: Instant) {
        self.host.push(HostSpan { work, began, ns: began.elapsed().as_nanos() as u64 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_nanoseconds_unless_they_are_none() {
        let times = StepTimes::of_ticks(&[1 << 60, (1 << 60) + 3, (1 << 60) + 10], 2.0).expect("whole");
        assert_eq!(times.parts_ns().collect::<Vec<_>>(), [6, 14]);
        assert_eq!(times.total_ns(), 20);
        assert_eq!(StepTimes::of_ticks(&[], 1.0), None);
        assert_eq!(StepTimes::of_ticks(&[0, 0], 1.0), None, "the device wrote none");
        assert_eq!(StepTimes::of_ticks(&[5, 9, 7], 1.0), None, "it began to count anew");
    }
}
