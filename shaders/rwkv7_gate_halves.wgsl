// gate = (group_norm(x) weight + bias + (sum over the head of r k r_k) v) g
// halves, scale = what split_halves.wgsl makes of gate, in its tiles
//
// x, r, k, v, g [T, C] read, weight, bias, r_k [C] read, halves [2, T, C] written, scale [T, 1] written; T and C
// multiples of 16, heads of N channels, a multiple of eight. A workgroup per token; a thread has eights of channels.
// Bytes per token: 20 C read, 4 C written.
// Sources: Wu and He, "Group Normalization", 2018, eq. 1 to 7; Peng et al., "RWKV-7", 2025, eq. 20.
#import "shared/halves.wgsl"
#import "shared/largest_of.wgsl"
override C: u32;
override N: u32;
override CHUNKS: u32;
override THREADS: u32;
override eps: f32;
// Eights, so that a thread writes its own in one piece.
@group(0) @binding(0) var<storage, read_write> halves: array<vec4<u32>>;
const C8: u32 = max(C / 8u, 1u);
// Eights of a head.
const N8: u32 = max(N / 8u, 1u);
// By eight: sums of x, of r k r_k, and of squares.
var<workgroup> parts: array<vec2<f32>, CHUNKS * THREADS>;
var<workgroup> squares: array<f32, CHUNKS * THREADS>;

fn sum8(v: mat2x4<f32>) -> f32 {
    let four = v[0] + v[1];
    return (four.x + four.y) + (four.z + four.w);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let t = group.x;
#unroll n in CHUNKS
    let own${n} = thread + ${n}u * THREADS;
    let is_in${n} = own${n} < C8;
    let c${n} = min(own${n}, C8 - 1u) * 2u;
    let at${n} = t * C8 * 2u + c${n};
    var x${n} = mat2x4<f32>(load_x4(at${n}), load_x4(at${n} + 1u));
    let b${n} = load_r4(at${n}) * load_k4(at${n}) * load_r_k4(c${n});
    let d${n} = load_r4(at${n} + 1u) * load_k4(at${n} + 1u) * load_r_k4(c${n} + 1u);
    parts[own${n}] = vec2(sum8(x${n}), sum8(mat2x4<f32>(b${n}, d${n})));
#end
    workgroupBarrier();
#unroll n in CHUNKS
    // The head's first eight; of a thread that has none, another one's.
    let head${n} = c${n} / 2u / N8 * N8;
    var all${n} = vec2<f32>();
    for (var i = 0u; i < N8; i++) {
        all${n} += parts[head${n} + i];
    }
    let mean${n} = all${n}.x / f32(N);
    x${n} = mat2x4<f32>(x${n}[0] - mean${n}, x${n}[1] - mean${n});
    squares[own${n}] = dot(x${n}[0], x${n}[0]) + dot(x${n}[1], x${n}[1]);
#end
    workgroupBarrier();
    var most = 0.0;
#unroll n in CHUNKS
    var variance${n} = 0.0;
    for (var i = 0u; i < N8; i++) {
        variance${n} += squares[head${n} + i];
    }
    let scale${n} = 1.0 / sqrt(variance${n} / f32(N) + eps);
    let low${n} = x${n}[0] * scale${n} * load_weight4(c${n}) + load_bias4(c${n}) + all${n}.y * load_v4(at${n});
    let high${n} = x${n}[1] * scale${n} * load_weight4(c${n} + 1u) + load_bias4(c${n} + 1u)
        + all${n}.y * load_v4(at${n} + 1u);
    let a${n} = low${n} * load_g4(at${n});
    let e${n} = high${n} * load_g4(at${n} + 1u);
    let m${n} = max(abs(a${n}), abs(e${n}));
    most = max(most, max(max(m${n}.x, m${n}.y), max(m${n}.z, m${n}.w)));
#end
    let factors = to_halves(largest_of(thread, most));
#unroll n in CHUNKS
    if is_in${n} {
        let to${n} = halves_at(t, c${n}, C) / 2u;
        let low_half${n} = first_half(a${n} * factors.x);
        let high_half${n} = first_half(e${n} * factors.x);
        halves[to${n}] = eight_halves(low_half${n}, high_half${n});
        halves[to${n} + 32u] = eight_halves(a${n} * factors.x - low_half${n}, e${n} * factors.x - high_half${n});
    }
#end
    if thread == 0u {
        store_scale(t, factors.y);
    }
}
