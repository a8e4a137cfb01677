//! Operations of subgroups, of all lanes and of some.
//!
//! Gets a session and the size of its subgroups, where that is known; compares what every lane gets with the same done
//! over slices here. What holds then: lanes of a subgroup follow each other, and lanes that wait take no part. Never
//! asks for the word of a lane that is not there or waits, of which nothing is said.

use graphc::exec::Session;

use super::kernel_runs::{HEAD, Job, run};

const LANES: usize = 64;
const GROUPS: usize = 2;

/// What every lane writes: of all lanes, then of those whose word is no multiple of three.
const BODY: &str = "
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32) {
    let a = x.v[id.x]; let at = id.x * 40u; let f = f32(a % 64u); let s = bitcast<i32>(a);
    y.v[at] = size; y.v[at + 1u] = lane;
    y.v[at + 2u] = subgroupAdd(a); y.v[at + 3u] = subgroupMul(a); y.v[at + 4u] = subgroupMin(a);
    y.v[at + 5u] = subgroupMax(a); y.v[at + 6u] = subgroupAnd(a); y.v[at + 7u] = subgroupOr(a);
    y.v[at + 8u] = subgroupXor(a); y.v[at + 9u] = bitcast<u32>(subgroupMin(s));
    y.v[at + 10u] = bitcast<u32>(subgroupMax(s));
    y.v[at + 11u] = u32(subgroupAdd(f)); y.v[at + 12u] = u32(subgroupMax(f)); y.v[at + 13u] = u32(subgroupMin(f));
    y.v[at + 14u] = subgroupInclusiveAdd(a); y.v[at + 15u] = subgroupExclusiveAdd(a);
    y.v[at + 16u] = subgroupInclusiveMul(a); y.v[at + 17u] = subgroupExclusiveMul(a);
    y.v[at + 18u] = u32(subgroupExclusiveAdd(f));
    y.v[at + 19u] = select(0u, 1u, subgroupAll(a > 5u)); y.v[at + 20u] = select(0u, 1u, subgroupAny(a == 5u));
    let b = subgroupBallot(a % 2u == 1u); y.v[at + 21u] = b.x; y.v[at + 22u] = b.y | b.z | b.w;
    y.v[at + 23u] = subgroupBroadcastFirst(a); y.v[at + 24u] = subgroupBroadcast(a, 2u);
    y.v[at + 25u] = subgroupShuffle(a, (lane * 3u + 1u) % size); y.v[at + 26u] = subgroupShuffleXor(a, 3u);
    let d = subgroupShuffleDown(a, 1u); y.v[at + 27u] = select(0u, d, lane + 1u < size);
    let p = subgroupShuffleUp(a, 2u); y.v[at + 28u] = select(0u, p, lane >= 2u);
    y.v[at + 29u] = quadBroadcast(a, 3u); y.v[at + 30u] = quadSwapX(a); y.v[at + 31u] = quadSwapY(a);
    y.v[at + 32u] = quadSwapDiagonal(a); let v = subgroupAdd(vec2<u32>(a, 1u)); y.v[at + 33u] = v.x + v.y;
    if a % 3u != 0u {
        y.v[at + 34u] = subgroupAdd(a); y.v[at + 35u] = subgroupInclusiveAdd(a);
        y.v[at + 36u] = subgroupBroadcastFirst(a);
        y.v[at + 37u] = subgroupBallot(true).x; y.v[at + 38u] = select(0u, 1u, subgroupAll(a % 3u == 1u));
        y.v[at + 39u] = subgroupExclusiveAdd(1u);
    }
}";
const WORDS: usize = 40;

/// What a lane gets of its subgroup's words.
fn expected(words: &[u32], lane: usize) -> Vec<u32> {
    let size = words.len();
    let sum = |words: &[u32]| words.iter().fold(0_u32, |sum, word| sum.wrapping_add(*word));
    let product = |words: &[u32]| words.iter().fold(1_u32, |product, word| product.wrapping_mul(*word));
    let fold = |op: fn(u32, u32) -> u32| words.iter().copied().reduce(op).expect("lanes");
    let signed = || words.iter().map(|word| *word as i32);
    let small: Vec<u32> = words.iter().map(|word| word % 64).collect();
    let ballot = |holds: &dyn Fn(u32) -> bool| {
        words.iter().enumerate().fold(0_u32, |mask, (at, word)| mask | u32::from(holds(*word)) << at)
    };
    let quad = lane & !3;
    let mut all = vec![size as u32, lane as u32, sum(words), product(words)];
    all.extend([fold(u32::min), fold(u32::max), fold(|a, b| a & b), fold(|a, b| a | b), fold(|a, b| a ^ b)]);
    all.extend([signed().min().expect("lanes") as u32, signed().max().expect("lanes") as u32, sum(&small)]);
    all.extend([*small.iter().max().expect("lanes"), *small.iter().min().expect("lanes")]);
    all.extend([sum(&words[..=lane]), sum(&words[..lane]), product(&words[..=lane]), product(&words[..lane])]);
    all.push(sum(&small[..lane]));
    all.extend([u32::from(words.iter().all(|word| *word > 5)), u32::from(words.contains(&5))]);
    all.extend([ballot(&|word| word % 2 == 1), 0, words[0], words[2]]);
    all.extend([words[(lane * 3 + 1) % size], words[lane ^ 3]]);
    all.push(words.get(lane + 1).copied().unwrap_or(0));
    all.push(lane.checked_sub(2).map_or(0, |from| words[from]));
    all.extend([words[quad + 3], words[lane ^ 1], words[lane ^ 2], words[lane ^ 3]]);
    all.push(sum(words).wrapping_add(size as u32));
    if words[lane].is_multiple_of(3) {
        all.extend([0; 6]);
        return all;
    }
    let active = |words: &[u32]| words.iter().copied().filter(|word| word % 3 != 0).collect::<Vec<u32>>();
    let before = active(&words[..lane]);
    all.extend([sum(&active(words)), sum(&active(&words[..=lane])), active(words)[0]]);
    all.push(ballot(&|word| word % 3 != 0));
    all.extend([u32::from(active(words).iter().all(|word| word % 3 == 1)), before.len() as u32]);
    all
}

/// Runs the kernel and compares all lanes.
pub fn check<S: Session>(session: &mut S, size: Option<u32>) {
    let mut random = fastrand::Rng::with_seed(5);
    let words: Vec<u32> = (0..LANES * GROUPS).map(|_| random.u32(..) >> random.u32(0..32)).collect();
    let job = Job {
        text: format!("{HEAD}{BODY}"),
        words: words.clone(),
        count: words.len() * WORDS,
        workgroup_size: LANES as u32,
        workgroups: GROUPS as u32,
        needs_subgroups: true,
    };
    let found = run(session, &job).unwrap_or_else(|error| panic!("{error}"));
    assert!(size.is_none_or(|size| size == found[0]), "subgroups of {}, expected {size:?}", found[0]);
    let size = found[0] as usize;
    for (at, found) in found.chunks_exact(WORDS).enumerate() {
        let first = at / size * size;
        let expected = expected(&words[first..first + size], at - first);
        assert_eq!(found, expected, "lane {at} of subgroups of {size}, words {:?}", &words[first..first + size]);
    }
}
