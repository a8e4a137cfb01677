// linear.wgsl for one token: a workgroup per ONE_ROWS rows of the weight, whose threads share them out by columns in
// eights and ask for all that they need of them before anything else; I is a multiple of eight.
//
// x [1, I] read, weight [O, I] read, y [1, O] written; bytes and formula as there.
enable subgroups;
override I: u32;
override O: u32;
override ONE_ROWS: u32;
override ONE_CHUNKS: u32;
override ONE_THREADS: u32;
const THREADS: u32 = ONE_THREADS;
const SUMS: u32 = ONE_ROWS;
const I8: u32 = max(I / 8u, 1u);
// Workgroups lie along x, and where those are too many for one direction, in several layers along z.
const LAYERS: u32 = (O + 65535u * ONE_ROWS - 1u) / (65535u * ONE_ROWS);
const ACROSS: u32 = ((O + ONE_ROWS - 1u) / ONE_ROWS + LAYERS - 1u) / LAYERS;
#import "shared/totals_subgroups.wgsl"

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) index: u32,
    @builtin(num_subgroups) count: u32,
    @builtin(subgroup_invocation_id) number: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    subgroup = index;
    subgroups = count;
    lane = number;
    thread = index * lanes + number;
    let first = (group.z * ACROSS + group.x) * ONE_ROWS;
#unroll n in ONE_CHUNKS
    let at${n} = min(thread + ${n}u * THREADS, I8 - 1u);
#unroll r in ONE_ROWS
    let w${n}_${r} = load_weight8(min(first + ${r}u, O - 1u) * I8 + at${n});
#end
    let x${n}_0 = load_x4(at${n} * 2u);
    let x${n}_1 = load_x4(at${n} * 2u + 1u);
#end
#unroll r in ONE_ROWS
    var sum${r} = 0.0;
#unroll n in ONE_CHUNKS
    sum${r} += select(0.0, dot(w${n}_${r}[0], x${n}_0) + dot(w${n}_${r}[1], x${n}_1), thread + ${n}u * THREADS < I8);
#end
    put(${r}u, sum${r});
#end
    workgroupBarrier();
    if thread < ONE_ROWS && first + thread < O {
        store_y(first + thread, take(thread));
    }
}
