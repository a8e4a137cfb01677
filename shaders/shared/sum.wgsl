// Sum over a workgroup of 64 threads by a tree in workgroup memory; every thread gets it. To be called in uniform
// control flow.
const LANES: u32 = 64u;
var<workgroup> partial: array<f32, LANES>;

fn workgroup_sum(lane: u32, value: f32) -> f32 {
    // The sum before may still be being read.
    workgroupBarrier();
    partial[lane] = value;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    workgroupBarrier();
    return partial[0];
}
