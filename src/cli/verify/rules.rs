//! `graphc verify`, rewrite rules: each by itself, on every executor that there is.
//!
//! Gets folders and devices; returns what was tried and how far results were apart. What holds then: every rule was
//! applied in every size of its examples on the executor on the CPU, unless that is said. Never reads a checkpoint.

use std::collections::BTreeSet;

use rayon::prelude::*;
use serde::Serialize;

use crate::base::dtype::DType;
use crate::cli::verify::{Devices, REFERENCE, VerifyArgs, bar, devices};
use crate::cli::{Failure, Format, ModelArgs, print_result};
use crate::compile::CompileError;
use crate::exec::Executor;
use crate::exec::reference::{Finding, ReferenceExecutor, ReferenceOptions, Sanitize};
use crate::inspect::verify::TOLERANCE;
use crate::inspect::verify::rules::{Apart, Case, Outcome, Rig};
use crate::sources;

/// More numbers of weights than the CPU, which runs kernels thread by thread, is given of any type but one.
const CPU_OFTEN: u64 = 1 << 17;

/// More numbers of weights than the CPU is given at all.
const CPU_MOST: u64 = 1 << 20;

/// What the executor on the CPU is called where it offers no subgroups.
const WITHOUT_SUBGROUPS: &str = "reference without subgroups";

/// All rules.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    rules: Vec<RuleFound>,
    /// What results may differ by, relative to the largest element of a tensor, or to 1.
    tolerance: f32,
    notes: Vec<String>,
    pub(super) failures: Vec<String>,
}

/// A rule.
#[derive(Debug, Serialize)]
pub(super) struct RuleFound {
    rule: String,
    /// In how many sizes it was applied.
    shapes: usize,
    /// In how many sizes, with weights of one type, on an executor.
    runs: usize,
    /// The largest difference, as the tolerance is meant.
    difference: f32,
    /// Where that was.
    at: String,
    executors: BTreeSet<&'static str>,
}

/// `graphc verify --rules`: the rules whose names contain `only`, and nothing else. Text is printed rule by rule, since
/// drivers compile for minutes.
pub(super) fn run(args: &VerifyArgs, only: &str) -> Result<(), Failure> {
    let mut notes = Vec::new();
    let devices = devices(args.device.as_deref(), &mut notes)?;
    let mut each = |rule: &RuleFound| match args.format {
        Format::Text => print_result(&rule_text(rule)),
        Format::Json => Ok(()),
    };
    let mut found = find(&args.model, &devices, (args.seed, only), &mut each)?;
    found.notes.splice(0..0, notes);
    print_result(&match args.format {
        Format::Text => found.notes.iter().map(|note| format!("{:<11}{note}\n", "note")).collect(),
        Format::Json => serde_json::to_string_pretty(&found).expect("a report is plain data") + "\n",
    })?;
    match found.failures.as_slice() {
        [] => Ok(()),
        failures => Err(Failure::Diagnostics(failures.iter().map(|failure| format!("error: {failure}\n")).collect())),
    }
}

/// Tries the rules of the folders that are meant whose names contain `only`, and tells of each when it was tried.
pub(super) fn find(
    model: &ModelArgs,
    devices: &Devices,
    (seed, only): (u64, &str),
    each: &mut dyn FnMut(&RuleFound) -> Result<(), Failure>,
) -> Result<Found, Failure> {
    let shaders = sources::shaders(model.shaders.as_deref())?;
    let rules = sources::rewrites(model.graphs.as_deref())?;
    let wrong = |error: CompileError| Failure::Diagnostics(format!("{error}\n"));
    let mut trials = Trials {
        rig: Rig::new(&shaders, &rules).map_err(wrong)?,
        devices,
        seed,
        findings: Vec::new(),
        omitted: 0,
        notes: BTreeSet::new(),
        failures: Vec::new(),
    };
    let rules: Vec<_> = trials.rig.rules().filter(|rule| rule.name.contains(only)).cloned().collect();
    if rules.is_empty() && !only.is_empty() {
        let known = trials.rig.rules().map(|rule| rule.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Failure::Diagnostics(format!("error: no rule has `{only}` in its name, known are {known}\n")));
    }
    let bar = bar("trying rules");
    bar.set_length(rules.len() as u64);
    let mut found = Vec::new();
    for rule in &rules {
        let cases = trials.rig.cases(rule, seed);
        if rule.examples.is_empty() {
            trials.failures.push(format!("rule `{}` has no `examples` to try it in", rule.name));
        }
        let rule = trials.rule(&rule.name, &cases);
        bar.suspend(|| each(&rule))?;
        found.push(rule);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let Trials { notes, mut failures, findings, omitted, .. } = trials;
    failures.extend(findings.iter().map(|finding| finding.to_string().trim_start_matches("error: ").to_owned()));
    failures.extend((omitted > 0).then(|| format!("{omitted} more findings of the sanitizer")));
    Ok(Found { rules: found, tolerance: TOLERANCE, notes: notes.into_iter().collect(), failures })
}

struct Trials<'a> {
    rig: Rig,
    devices: &'a Devices,
    seed: u64,
    notes: BTreeSet<String>,
    failures: Vec<String>,
    /// What the sanitizer of the executor on the CPU found, and how much more like it.
    findings: Vec<Finding>,
    omitted: u64,
}

/// A case on the CPU.
struct OnCpu {
    place: &'static str,
    outcome: Result<Outcome, String>,
    findings: Vec<Finding>,
    omitted: u64,
}

impl Trials<'_> {
    fn rule(&mut self, rule: &str, cases: &[Case]) -> RuleFound {
        let (at, executors) = ("nowhere".to_owned(), BTreeSet::new());
        let mut found = RuleFound { rule: rule.to_owned(), shapes: 0, runs: 0, difference: 0.0, at, executors };
        let mut shapes = BTreeSet::new();
        // Looking at every access takes one thread a case, and most of the time.
        let (rig, seed) = (&self.rig, self.seed);
        let on_cpu: Vec<_> = cases.par_iter().map(|case| on_cpu(rig, case, seed)).collect();
        for (case, on_cpu) in cases.iter().zip(on_cpu) {
            let before = found.runs;
            let is_smallest = case.dims == cases[0].dims;
            if let Err(reason) = on_cpu.and_then(|on_cpu| self.case(case, is_smallest, on_cpu, &mut found)) {
                self.failures.push(format!("{case}: {reason}"));
            }
            if found.runs > before {
                shapes.insert(&case.dims);
            }
        }
        found.shapes = shapes.len();
        found
    }

    /// A case on every executor; on devices, those of the first size, and the examples with weights of one type.
    fn case(
        &mut self,
        case: &Case,
        is_smallest: bool,
        on_cpu: Vec<OnCpu>,
        found: &mut RuleFound,
    ) -> Result<(), String> {
        let is_half = case.dtype == DType::F16;
        if on_cpu.is_empty() && is_half {
            self.notes.insert(format!("{case}: too large for the executor on the CPU"));
        }
        for one in &on_cpu {
            self.findings.extend_from_slice(&one.findings);
            self.omitted += one.omitted;
        }
        on_cpu.into_iter().try_for_each(|OnCpu { place, outcome, .. }| self.tell(case, place, outcome, found))?;
        // Drivers compile for long, and what differs between element types is in the loads, which one size shows.
        let is_first = is_half && is_smallest;
        let Devices { hal, wgpu } = self.devices;
        if let Some(executor) = hal.as_ref().filter(|_| case.is_example && (is_half || is_smallest)) {
            self.on(case, ("hal", executor), found)?;
        }
        if let Some(executor) = wgpu.as_ref().filter(|_| is_first) {
            self.on(case, ("wgpu", executor), found)?;
        }
        Ok(())
    }

    fn on<E: Executor>(
        &mut self,
        case: &Case,
        (place, executor): (&'static str, &E),
        found: &mut RuleFound,
    ) -> Result<(), String> {
        let outcome = self.rig.run(case, (executor, &executor.device().limits), self.seed);
        self.tell(case, place, outcome, found)
    }

    /// Notes what came of a case somewhere; an error is what is wrong with it.
    fn tell(
        &mut self,
        case: &Case,
        place: &'static str,
        outcome: Result<Outcome, String>,
        found: &mut RuleFound,
    ) -> Result<(), String> {
        match outcome.map_err(|reason| format!("{place}: {reason}"))? {
            Outcome::Inapplicable if !case.is_example => Ok(()),
            // What it asks of a device is for its guard to say; the CPU has all of it.
            Outcome::Inapplicable if place != REFERENCE => {
                self.notes.insert(format!("rule `{}` is not applied on {place}", case.rule));
                Ok(())
            }
            Outcome::Inapplicable => Err("it is not applied in the sizes of its example".to_owned()),
            Outcome::Apart(Apart { difference, at }) => {
                found.runs += 1;
                found.executors.insert(place);
                if difference > found.difference {
                    (found.difference, found.at) = (difference, format!("{case}, {place}: {at}"));
                }
                let is_near = difference <= TOLERANCE;
                let far = || format!("{place}: results differ by {difference:.1e}, more than {TOLERANCE:.0e}, at {at}");
                if is_near { Ok(()) } else { Err(far()) }
            }
        }
    }
}

/// A case on the CPU, with subgroups and without, each before the eyes of a sanitizer; nothing if it is too large.
fn on_cpu(rig: &Rig, case: &Case, seed: u64) -> Result<Vec<OnCpu>, String> {
    let cost = rig.cost(case)?;
    let is_half = case.dtype == DType::F16;
    let places: &[&str] = match is_half {
        true if cost <= CPU_MOST => &[REFERENCE, WITHOUT_SUBGROUPS],
        false if cost <= CPU_OFTEN => &[REFERENCE],
        _ => &[],
    };
    let run = |place: &&'static str| {
        let options = ReferenceOptions { sanitize: Some(Sanitize { not_finite: true }), ..ReferenceOptions::new() };
        let executor = ReferenceExecutor::new(&options, None).map_err(|error| error.to_string())?;
        let mut limits = executor.device().limits.clone();
        if *place == WITHOUT_SUBGROUPS {
            (limits.subgroups, limits.min_subgroup_size) = (false, 1);
        }
        let outcome = rig.run(case, (&executor, &limits), seed);
        let (findings, omitted) = executor.findings();
        Ok(OnCpu { place, outcome, findings, omitted })
    };
    places.par_iter().map(run).collect()
}

/// The rules for readers, a line each.
pub(super) fn text(found: &Found) -> String {
    found.rules.iter().map(rule_text).collect()
}

fn rule_text(found: &RuleFound) -> String {
    let RuleFound { rule, shapes, runs, difference, executors, .. } = found;
    let executors = executors.iter().copied().collect::<Vec<_>>().join(", ");
    format!("{:<11}{rule}: {shapes} sizes, {runs} runs on {executors}, at most {difference:.1e} apart\n", "rule")
}
