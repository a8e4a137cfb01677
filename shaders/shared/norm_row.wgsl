// Layer norm of one row that a workgroup's threads hold in eights: thread t has eights t, t + THREADS, .... Whoever
// imports this declares C, eps, THREADS and totals, of which the first two sums are used, and load_x4, load_ln_weight4,
// load_ln_bias4.
// Source: Ba et al., "Layer Normalization", 2016, eq. 4.
const C8: u32 = max(C / 8u, 1u);
const CHUNKS: u32 = (C8 + THREADS - 1u) / THREADS;
var<private> x: array<mat2x4<f32>, CHUNKS>;

fn sum8(v: mat2x4<f32>) -> f32 {
    let four = v[0] + v[1];
    return (four.x + four.y) + (four.z + four.w);
}

fn norm_row() {
    var sum = 0.0;
    for (var n = 0u; n < CHUNKS; n++) {
        let at = thread + n * THREADS;
        if at < C8 {
            x[n] = mat2x4<f32>(load_x4(at * 2u), load_x4(at * 2u + 1u));
            sum += sum8(x[n]);
        }
    }
    put(0u, sum);
    workgroupBarrier();
    let mean = take(0u) / f32(C);
    // The squares are summed around the mean, in a second pass: E[x^2] - mean^2 cancels where the mean is large.
    var squares = 0.0;
    for (var n = 0u; n < CHUNKS; n++) {
        if thread + n * THREADS < C8 {
            let d0 = x[n][0] - mean;
            let d1 = x[n][1] - mean;
            x[n] = mat2x4<f32>(d0, d1);
            squares += dot(d0, d0) + dot(d1, d1);
        }
    }
    put(1u, squares);
    workgroupBarrier();
    let scale = 1.0 / sqrt(take(1u) / f32(C) + eps);
    for (var n = 0u; n < CHUNKS; n++) {
        let at = thread + n * THREADS;
        if at < C8 {
            let w = mat2x4<f32>(load_ln_weight4(at * 2u), load_ln_weight4(at * 2u + 1u));
            let b = mat2x4<f32>(load_ln_bias4(at * 2u), load_ln_bias4(at * 2u + 1u));
            x[n] = mat2x4<f32>(x[n][0] * scale * w[0] + b[0], x[n][1] * scale * w[1] + b[1]);
        }
    }
}
