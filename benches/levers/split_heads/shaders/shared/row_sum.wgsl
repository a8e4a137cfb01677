// Sums over four threads that follow each other, and over the ROW_THREADS of a row, through the memory of a workgroup
// of THREADS threads.
#import "shared/quad_sum.wgsl"

fn row_sum(value: f32) -> f32 {
    workgroupBarrier();
    quads[thread] = value;
    workgroupBarrier();
    let first = thread / ROW_THREADS * ROW_THREADS;
    var sum = 0.0;
    for (var t = 0u; t < ROW_THREADS; t++) {
        sum += quads[first + t];
    }
    return sum;
}
