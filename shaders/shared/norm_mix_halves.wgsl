// The body of norm_mix_halves.wgsl; see there. Layer norm as in norm_row.wgsl, of two rows at once.
// Source: Ba et al., "Layer Normalization", 2016, eq. 4.
override T: u32;
override S: u32;
override C: u32;
override M: u32;
override THREADS: u32;
override CHUNKS: u32;
override eps: f32;
// Eights, so that a thread writes its own in one piece.
@group(0) @binding(0) var<storage, read_write> halves: array<vec4<u32>>;
const SUMS: u32 = M + 4u;
const C8: u32 = max(C / 8u, 1u);
alias Row = array<mat2x4<f32>, CHUNKS>;

fn sum8(v: mat2x4<f32>) -> f32 {
    let four = v[0] + v[1];
    return (four.x + four.y) + (four.z + four.w);
}

fn dot8(v: mat2x4<f32>) -> f32 {
    return dot(v[0], v[0]) + dot(v[1], v[1]);
}

// Whether this thread has an eight of this number, and which one; one that there is if not.
fn has_eight(n: u32) -> bool {
    return thread + n * THREADS < C8;
}

fn eight(n: u32) -> u32 {
    return min(thread + n * THREADS, C8 - 1u);
}

fn magnitude(v: mat2x4<f32>) -> f32 {
    let four = max(abs(v[0]), abs(v[1]));
    return max(max(four.x, four.y), max(four.z, four.w));
}

fn norm_mix_halves(t: u32) {
    let at = position(t, S);
    // At a sequence's first token, the row before is the one that the state has, and its norm goes unused.
    let other = select(t - 1u, t, at.is_first || at.is_padding);
    var x: Row;
    var before: Row;
    var sum = 0.0;
    var other_sum = 0.0;
#unroll n in CHUNKS
    let at${n} = eight(${n}u) * 2u;
    x[${n}] = mat2x4<f32>(load_x4(t * C8 * 2u + at${n}), load_x4(t * C8 * 2u + at${n} + 1u));
    before[${n}] = mat2x4<f32>(load_x4(other * C8 * 2u + at${n}), load_x4(other * C8 * 2u + at${n} + 1u));
    let w${n} = mat2x4<f32>(load_ln_weight4(at${n}), load_ln_weight4(at${n} + 1u));
    let b${n} = mat2x4<f32>(load_ln_bias4(at${n}), load_ln_bias4(at${n} + 1u));
    sum += select(0.0, sum8(x[${n}]), has_eight(${n}u));
    other_sum += select(0.0, sum8(before[${n}]), has_eight(${n}u));
#end
    put(0u, sum);
    put(1u, other_sum);
    workgroupBarrier();
    let mean = take(0u) / f32(C);
    let other_mean = take(1u) / f32(C);
    // The squares are summed around the mean, in a second pass: E[x^2] - mean^2 cancels where the mean is large.
    var squares = 0.0;
    var other_squares = 0.0;
#unroll n in CHUNKS
    x[${n}] = mat2x4<f32>(x[${n}][0] - mean, x[${n}][1] - mean);
    before[${n}] = mat2x4<f32>(before[${n}][0] - other_mean, before[${n}][1] - other_mean);
    squares += select(0.0, dot8(x[${n}]), has_eight(${n}u));
    other_squares += select(0.0, dot8(before[${n}]), has_eight(${n}u));
#end
    put(2u, squares);
    put(3u, other_squares);
    workgroupBarrier();
    let scale = 1.0 / sqrt(take(2u) / f32(C) + eps);
    let other_scale = 1.0 / sqrt(take(3u) / f32(C) + eps);
#unroll n in CHUNKS
    x[${n}] = mat2x4<f32>(x[${n}][0] * scale * w${n}[0] + b${n}[0], x[${n}][1] * scale * w${n}[1] + b${n}[1]);
    before[${n}] = mat2x4<f32>(
        before[${n}][0] * other_scale * w${n}[0] + b${n}[0],
        before[${n}][1] * other_scale * w${n}[1] + b${n}[1],
    );
#end
    if at.is_first {
        let last = load_places(at.sequence) * C8;
#unroll n in CHUNKS
        let last${n} = (last + eight(${n}u)) * 2u;
        before[${n}] = mat2x4<f32>(load_last4(last${n}), load_last4(last${n} + 1u));
#end
    }
    if at.is_padding {
#unroll n in CHUNKS
        before[${n}] = mat2x4<f32>();
#end
    }
#unroll n in CHUNKS
    if has_eight(${n}u) {
        store_ln4((t * C8 + eight(${n}u)) * 2u, x[${n}][0]);
        store_ln4((t * C8 + eight(${n}u)) * 2u + 1u, x[${n}][1]);
    }
    let difference${n} = before[${n}] - x[${n}];
#end
#unroll m in M
    var most${m} = 0.0;
#unroll n in CHUNKS
    let mu${m}_${n} = (${m}u * C8 + eight(${n}u)) * 2u;
    let mixed${m}_${n} = mat2x4<f32>(
        x[${n}][0] + difference${n}[0] * load_mu4(mu${m}_${n}),
        x[${n}][1] + difference${n}[1] * load_mu4(mu${m}_${n} + 1u),
    );
    // An eight that is not this thread's own is one of the same row, so it may take part.
    most${m} = max(most${m}, magnitude(mixed${m}_${n}));
#end
    put_largest(${m}u + 4u, most${m});
#end
    workgroupBarrier();
#unroll m in M
    let factors${m} = to_halves(take_largest(${m}u + 4u));
#unroll n in CHUNKS
    if has_eight(${n}u) {
        let at${m}_${n} = (${m}u * (T * C8) * 4u + halves_at(t, eight(${n}u) * 2u, C)) / 2u;
        let scaled${m}_${n} = mixed${m}_${n} * factors${m}.x;
        let a${m}_${n} = first_half(scaled${m}_${n}[0]);
        let b${m}_${n} = first_half(scaled${m}_${n}[1]);
        halves[at${m}_${n}] = eight_halves(a${m}_${n}, b${m}_${n});
        halves[at${m}_${n} + 32u] = eight_halves(scaled${m}_${n}[0] - a${m}_${n}, scaled${m}_${n}[1] - b${m}_${n});
    }
#end
    if thread == 0u {
        store_scale(${m}u * T + t, factors${m}.y);
    }
#end
}
