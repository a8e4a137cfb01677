// Group norm, gate and bonus of one row that a workgroup's threads hold in eights: thread t has eights t, t + THREADS,
// .... Whoever imports this declares C, N, gn_eps, THREADS, CHUNKS, how many eights a thread has; head_sums(sum,
// values), the sum over a head's eights for each of a thread's, sums 0 and 1; and load_x4, of three rows,
// load_gn_weight4, load_gn_bias4.
// Source: Wu and He, "Group Normalization", 2018, eq. 1 to 3.
#import "shared/eights.wgsl"
alias Eights = array<f32, CHUNKS>;

fn head_norm() -> Row {
    var x: Row;
    var parts: Eights;
#unroll n in CHUNKS
    let at${n} = eight(${n}u) * 2u;
    let gate${n} = C / 4u + at${n};
    let extra${n} = C / 2u + at${n};
    x[${n}] = mat2x4<f32>(load_x4(at${n}), load_x4(at${n} + 1u));
    let g${n} = mat2x4<f32>(load_x4(gate${n}), load_x4(gate${n} + 1u));
    let e${n} = mat2x4<f32>(load_x4(extra${n}), load_x4(extra${n} + 1u));
    let w${n} = mat2x4<f32>(load_gn_weight4(at${n}), load_gn_weight4(at${n} + 1u));
    let b${n} = mat2x4<f32>(load_gn_bias4(at${n}), load_gn_bias4(at${n} + 1u));
    let four${n} = x[${n}][0] + x[${n}][1];
    parts[${n}] = (four${n}.x + four${n}.y) + (four${n}.z + four${n}.w);
#end
    let sums = head_sums(0u, parts);
    // The squares are summed around the mean, in a second pass: E[x^2] - mean^2 cancels where the mean is large.
#unroll n in CHUNKS
    let mean${n} = sums[${n}] / f32(N);
    x[${n}] = mat2x4<f32>(x[${n}][0] - mean${n}, x[${n}][1] - mean${n});
    parts[${n}] = dot(x[${n}][0], x[${n}][0]) + dot(x[${n}][1], x[${n}][1]);
#end
    let squares = head_sums(1u, parts);
#unroll n in CHUNKS
    let scale${n} = 1.0 / sqrt(squares[${n}] / f32(N) + gn_eps);
    x[${n}] = mat2x4<f32>(
        (x[${n}][0] * scale${n} * w${n}[0] + b${n}[0]) * g${n}[0] + e${n}[0],
        (x[${n}][1] * scale${n} * w${n}[1] + b${n}[1]) * g${n}[1] + e${n}[1],
    );
#end
    return x;
}
