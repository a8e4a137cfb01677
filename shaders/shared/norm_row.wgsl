// Layer norm of one row that a workgroup's threads hold in eights: thread t has eights t, t + THREADS, .... Whoever
// imports this declares C, eps, THREADS, CHUNKS, how many eights a thread has, and totals, of which the first two sums
// are used; row4(i), the row in fours; and load_ln_weight4, load_ln_bias4.
// Source: Ba et al., "Layer Normalization", 2016, eq. 4.
#import "shared/eights.wgsl"

fn sum8(v: mat2x4<f32>) -> f32 {
    let four = v[0] + v[1];
    return (four.x + four.y) + (four.z + four.w);
}

fn norm_row() -> Row {
    var x: Row;
    var sum = 0.0;
#unroll n in CHUNKS
    let at${n} = eight(${n}u) * 2u;
    x[${n}] = mat2x4<f32>(row4(at${n}), row4(at${n} + 1u));
    let w${n} = mat2x4<f32>(load_ln_weight4(at${n}), load_ln_weight4(at${n} + 1u));
    let b${n} = mat2x4<f32>(load_ln_bias4(at${n}), load_ln_bias4(at${n} + 1u));
    sum += select(0.0, sum8(x[${n}]), has_eight(${n}u));
#end
    put(0u, sum);
    workgroupBarrier();
    let mean = take(0u) / f32(C);
    // The squares are summed around the mean, in a second pass: E[x^2] - mean^2 cancels where the mean is large.
    var squares = 0.0;
#unroll n in CHUNKS
    x[${n}] = mat2x4<f32>(x[${n}][0] - mean, x[${n}][1] - mean);
    squares += select(0.0, dot(x[${n}][0], x[${n}][0]) + dot(x[${n}][1], x[${n}][1]), has_eight(${n}u));
#end
    put(1u, squares);
    workgroupBarrier();
    let scale = 1.0 / sqrt(take(1u) / f32(C) + eps);
#unroll n in CHUNKS
    x[${n}] = mat2x4<f32>(x[${n}][0] * scale * w${n}[0] + b${n}[0], x[${n}][1] * scale * w${n}[1] + b${n}[1]);
#end
    return x;
}
