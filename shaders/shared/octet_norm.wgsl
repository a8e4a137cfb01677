// Layer norm of one row by eight lanes that have it in eights: lane l has eights l, l + 8, ..., and zeros behind the
// last. Whoever imports this imports octet.wgsl, and declares C, eps; row4(i), the row in fours; and load_ln_weight4,
// load_ln_bias4.
// Source: Ba et al., "Layer Normalization", 2016, eq. 4.
const C8: u32 = max(C / 8u, 1u);
alias Row = array<mat2x4<f32>, (C8 + OCTET - 1u) / OCTET>;

// Whether this lane has an eight of this number, and which one; one that there is if not.
fn has_eight(lane: u32, n: u32) -> bool {
    return lane + n * OCTET < C8;
}

fn eight(lane: u32, n: u32) -> u32 {
    return min(lane + n * OCTET, C8 - 1u);
}

fn octet_norm(lane: u32) -> Row {
    var x: Row;
    var sum = vec4<f32>();
#unroll n in ceil_div(C, 64)
    let at${n} = eight(lane, ${n}u) * 2u;
    x[${n}] = mat2x4<f32>(row4(at${n}), row4(at${n} + 1u));
    sum += select(vec4<f32>(), x[${n}][0] + x[${n}][1], has_eight(lane, ${n}u));
#end
    let mean = octet_sum((sum.x + sum.y) + (sum.z + sum.w)) / f32(C);
    // The squares are summed around the mean, in a second pass: E[x^2] - mean^2 cancels where the mean is large.
    var squares = vec4<f32>();
#unroll n in ceil_div(C, 64)
    x[${n}] = mat2x4<f32>(x[${n}][0] - mean, x[${n}][1] - mean);
    squares += select(vec4<f32>(), x[${n}][0] * x[${n}][0] + x[${n}][1] * x[${n}][1], has_eight(lane, ${n}u));
#end
    let scale = 1.0 / sqrt(octet_sum((squares.x + squares.y) + (squares.z + squares.w)) / f32(C) + eps);
#unroll n in ceil_div(C, 64)
    let a${n} = x[${n}][0] * scale * load_ln_weight4(at${n}) + load_ln_bias4(at${n});
    let b${n} = x[${n}][1] * scale * load_ln_weight4(at${n} + 1u) + load_ln_bias4(at${n} + 1u);
    x[${n}][0] = select(vec4<f32>(), a${n}, has_eight(lane, ${n}u));
    x[${n}][1] = select(vec4<f32>(), b${n}, has_eight(lane, ${n}u));
#end
    return x;
}
