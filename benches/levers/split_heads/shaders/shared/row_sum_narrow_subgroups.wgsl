// row_sum.wgsl by subgroups of fewer lanes than ROW_THREADS, four or more: sums over four threads by them, and over the
// PARTS of those that a row has through workgroup memory.
#import "shared/quad_sum_subgroups.wgsl"
var<workgroup> quads: array<f32, THREADS / 4u>;

fn row_sum(value: f32) -> f32 {
    let quad = quad_sum(value);
    workgroupBarrier();
    if thread % 4u == 0u {
        quads[thread / 4u] = quad;
    }
    workgroupBarrier();
    let first = thread / ROW_THREADS * PARTS;
    var sum = 0.0;
    for (var part = 0u; part < PARTS; part++) {
        sum += quads[first + part];
    }
    return sum;
}
