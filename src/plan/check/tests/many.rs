//! Many changes of one plan at once: every transition, every further one, and numbers at random; and a large plan.
//!
//! Gets the plan that [`super::good`] makes, changed; what then holds is that the checker refuses what it must and
//! panics at nothing.

use super::*;

/// All barriers of a plan, the leaving one last.
fn barriers(plan: &mut Plan) -> Vec<&mut Vec<Transition>> {
    plan.levels.iter_mut().map(|level| &mut level.barrier).chain([&mut plan.leave]).collect()
}

/// Every usage that a buffer may be in.
fn legal() -> Vec<Usage> {
    let legal: Vec<Usage> = (0..1 << 6).map(Usage::from_bits_retain).filter(|usage| usage.is_legal()).collect();
    assert_eq!(legal.len(), 10);
    legal
}

#[test]
fn every_transition_is_needed_and_right() {
    for plan in [good(), side_by_side()] {
        let places: Vec<(usize, usize)> = barriers(&mut plan.clone())
            .iter()
            .enumerate()
            .flat_map(|(at, barrier)| (0..barrier.len()).map(move |index| (at, index)))
            .collect();
        for (at, index) in places {
            one_transition_is_needed_and_right(&plan, at, index);
        }
    }
}

fn one_transition_is_needed_and_right(plan: &Plan, at: usize, index: usize) {
    let refuse = |change: &dyn Fn(&mut Vec<Transition>)| {
        let mut changed = plan.clone();
        change(barriers(&mut changed)[at]);
        assert_ne!(changed, *plan, "barrier {at}, transition {index}: the change changes nothing");
        let found = barriers(&mut changed)[at].get(index).copied();
        assert!(check(changed).is_err(), "barrier {at}, transition {index} is accepted as {found:?}");
    };
    let original = barriers(&mut plan.clone())[at][index];
    refuse(&|barrier| {
        barrier.remove(index);
    });
    refuse(&|barrier| barrier.push(original));
    for usage in legal() {
        if usage != original.from {
            refuse(&|barrier| barrier[index].from = usage);
        }
        if usage != original.to {
            refuse(&|barrier| barrier[index].to = usage);
        }
    }
    for buffer in plan.buffers.ids().filter(|buffer| *buffer != original.buffer) {
        refuse(&|barrier| barrier[index].buffer = buffer);
    }
}

#[test]
fn no_further_transition_is_accepted() {
    let legal = legal();
    for plan in [good(), side_by_side()] {
        for at in 0..barriers(&mut plan.clone()).len() {
            for buffer in plan.buffers.ids() {
                for (&from, &to) in legal.iter().flat_map(|from| legal.iter().map(move |to| (from, to))) {
                    let mut plan = plan.clone();
                    barriers(&mut plan)[at].push(transition(buffer, from, to));
                    assert!(check(plan).is_err(), "barrier {at}: {buffer} from {from} to {to} is accepted");
                }
            }
        }
    }
}

/// Changes one leaf or one array of a serialized plan, chosen at random.
fn mutate(value: &mut serde_json::Value, random: &mut fastrand::Rng) {
    use serde_json::Value;
    const NUMBERS: [u64; 12] = [0, 1, 2, 3, 4, 63, 256, 65536, u32::MAX as u64, 1 << 32, 1 << 63, u64::MAX];
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let field = random.usize(..fields.len());
            mutate(fields.values_mut().nth(field).expect("the index is in range"), random);
        }
        Value::Array(items) if !items.is_empty() => {
            let (at, to) = (random.usize(..items.len()), random.usize(..items.len()));
            match random.u8(..10) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                2 => items.swap(at, to),
                _ => mutate(&mut items[at], random),
            }
        }
        Value::Number(_) => *value = NUMBERS[random.usize(..NUMBERS.len())].into(),
        Value::Bool(flag) => *flag = !*flag,
        Value::String(text) => {
            let usages = ["STORAGE_READ", "STORAGE_WRITE", "COPY_SRC | STORAGE_READ", "MAP_READ", "0x40", "0xffff", ""];
            *text = usages[random.usize(..usages.len())].to_owned();
        }
        _ => {}
    }
}

#[test]
fn no_number_makes_it_panic() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let plans = [good(), side_by_side()].map(|plan| serde_json::to_value(plan).expect("plans serialize"));
    let (mut read, mut refused) = (0, 0);
    for nth in 0..20_000 {
        let mut mutant = plans[nth % 2].clone();
        for _ in 0..random.u8(1..6) {
            mutate(&mut mutant, &mut random);
        }
        // Numbers too large for their field are the reader's errors, not ours.
        let Ok(mutant) = serde_json::from_value::<Plan>(mutant) else {
            continue;
        };
        read += 1;
        match check(mutant) {
            // A checked plan can be summed up without overflow.
            Ok(checked) => drop((checked.summary(), checked.gaps())),
            Err(errors) => {
                refused += 1;
                assert!(errors.iter().all(|error| !error.to_string().contains('\n')), "errors are single lines");
            }
        }
    }
    assert!(read > 1000 && refused > 1000, "too few mutants can be read: {read}, refused: {refused}");
}

#[test]
fn large_plans_take_no_time_to_speak_of() {
    let mut plan = good();
    plan.levels.truncate(2);
    plan.outputs.clear();
    plan.values.truncate(1);
    plan.buffers[H].rest = SW;
    plan.leave = vec![transition(UPLOAD, CS, MW)];
    plan.levels[1].barrier[1].from = SW;
    for number in 2..20_000 {
        let commands = plan.levels[1].commands.clone();
        plan.levels.push(Level { barrier: vec![transition(H, SW, SW)], commands });
        plan.values.push(value("v", H, number, number));
    }
    plan.values[0].last_level = 1;
    plan.longest_chain = 20_000;
    assert_eq!(report(plan), "");
}
