// sparse_linear_keep.wgsl with a list of the rows that are not times zero, made by each workgroup before it reads any
// of them, so that threads share those rows evenly; sums by subgroups of 32 lanes or more, which are taken to be full.
//
// x [1, I] read, columns [I, C] read, ln [1, C] read, last [B, C] written, offsets [2] and places [1] read, y [1, C]
// written; a workgroup per 8 LANES columns; bytes and formula as there.
enable subgroups;
override B: u32;
override C: u32;
override I: u32;
override LANES: u32;
override THREADS: u32;
override ROWS: u32;
override STEPS: u32;
override EACH: u32;
const C8: u32 = C / 8u;
const COLUMNS: u32 = 8u * LANES;
const SUBGROUPS: u32 = (THREADS + 31u) / 32u;
// Rows that are not times zero, in order, and how many of each subgroup's are.
var<workgroup> list: array<u32, I>;
var<workgroup> counts: array<u32, SUBGROUPS>;
// A column of each subgroup's sums, and one so that they lie in banks of their own.
var<workgroup> sums: array<f32, SUBGROUPS * (COLUMNS + 1u)>;

// Halves of two sums over lanes that differ in one bit of their number: a's where it is 0, b's where it is 1.
fn halves(lane: u32, bit: u32, a: f32, b: f32) -> f32 {
    let is_b = (lane & bit) != 0u;
    return select(a, b, is_b) + subgroupShuffleXor(select(b, a, is_b), bit);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let thread = subgroup * lanes + lane;
    let at = min(group.x * LANES + thread % LANES, max(C8, 1u) - 1u);
    // A subgroup lists EACH rows a lane, neighbours in neighbouring lanes.
    let own_first = subgroup * lanes * EACH + lane;
#unroll n in EACH
    let i${n} = own_first + ${n}u * lanes;
    let is${n} = u32(load_x(min(i${n}, I - 1u)) != 0.0 && i${n} < I);
#end
    var own = 0u;
#unroll n in EACH
    let rank${n} = own + subgroupExclusiveAdd(is${n});
    own += subgroupAdd(is${n});
#end
    if lane == 0u {
        counts[subgroup] = own;
    }
    workgroupBarrier();
    var before = 0u;
    var count = 0u;
    for (var s = 0u; s < subgroups; s++) {
        before = select(before, count, s == subgroup);
        count += counts[s];
    }
#unroll n in EACH
    if is${n} == 1u {
        list[before + rank${n}] = i${n};
    }
#end
    workgroupBarrier();

    var low = vec4<f32>();
    var high = vec4<f32>();
    for (var first = thread / LANES; first < count; first += STEPS * ROWS) {
#unroll n in STEPS
        let row${n} = list[min(first + ${n}u * ROWS, count - 1u)];
        let w${n} = load_columns8(row${n} * C8 + at);
        let x${n} = select(0.0, load_x(row${n}), first + ${n}u * ROWS < count);
#end
#unroll n in STEPS
        low += x${n} * w${n}[0];
        high += x${n} * w${n}[1];
#end
    }
    // Lanes of the same columns have eight sums each; of these, each is left with one.
    let low01 = halves(lane, LANES, low.x, low.y);
    let low23 = halves(lane, LANES, low.z, low.w);
    let high01 = halves(lane, LANES, high.x, high.y);
    let high23 = halves(lane, LANES, high.z, high.w);
    let low_sums = halves(lane, 2u * LANES, low01, low23);
    let high_sums = halves(lane, 2u * LANES, high01, high23);
    var sum = halves(lane, 4u * LANES, low_sums, high_sums);
    for (var bit = COLUMNS; bit < lanes; bit *= 2u) {
        sum += subgroupShuffleXor(sum, bit);
    }
    if lane < COLUMNS {
        sums[subgroup * (COLUMNS + 1u) + lane % LANES * 8u + lane / LANES] = sum;
    }
    workgroupBarrier();
    let is_padding = load_offsets(0u) == load_offsets(1u);
    for (var column = subgroup; column < COLUMNS; column += subgroups) {
        var part = 0.0;
        for (var s = lane; s < subgroups; s += lanes) {
            part += sums[s * (COLUMNS + 1u) + column];
        }
        let all = subgroupAdd(part);
        let o = group.x * COLUMNS + column;
        if lane == 0u && o < C {
            store_y(o, all);
            // Padding belongs to no sequence and changes none.
            if !is_padding {
                store_last(min(load_places(0u), B - 1u) * C + o, load_ln(o));
            }
        }
    }
}
