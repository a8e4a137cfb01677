// Sum over a workgroup of LANES threads by a tree in workgroup memory; every thread gets it. To be called in uniform
// control flow. Whoever imports this declares LANES, a power of two, and has workgroups of that size.
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
