// The largest value over a workgroup of THREADS threads by a tree in workgroup memory; every thread gets it. To be
// called in uniform control flow. Whoever imports this declares THREADS.
var<workgroup> largest: array<f32, THREADS>;

fn largest_of(thread: u32, value: f32) -> f32 {
    largest[thread] = value;
    var left = THREADS;
    while left > 1u {
        let half = (left + 1u) / 2u;
        workgroupBarrier();
        if thread + half < left {
            largest[thread] = max(largest[thread], largest[thread + half]);
        }
        left = half;
    }
    workgroupBarrier();
    return largest[0];
}
