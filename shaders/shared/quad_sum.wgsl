// The sum over four threads that follow each other, through the memory of a workgroup of THREADS threads.
var<workgroup> quads: array<f32, THREADS>;

fn quad_sum(value: f32) -> f32 {
    workgroupBarrier();
    quads[thread] = value;
    workgroupBarrier();
    let first = thread / 4u * 4u;
    return (quads[first] + quads[first + 1u]) + (quads[first + 2u] + quads[first + 3u]);
}
