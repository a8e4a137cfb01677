// up    = before[t] sum_p x[p, t]
// halves, scale = what split_halves.wgsl makes of max(up, 0)^2, in its tiles
//
// x [PARTS, T, I] read, before [T, 1] read, halves [2, T, I] written, scale [T, 1] written; T and I multiples of 16. A
// workgroup per token, whose threads hold all of its numbers.
// Bytes per token: 4 PARTS I read, 4 I written. Source: So et al., "Primer", 2021, section 4 (squared ReLU).
#import "shared/halves.wgsl"
#import "shared/largest_of.wgsl"
override PARTS: u32;
override T: u32;
override I: u32;
override THREADS: u32;
override CHUNKS: u32;
const I4: u32 = max(I / 4u, 1u);

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let t = group.x;
    let factor = load_before(t);
    var most = 0.0;
#unroll n in CHUNKS
    let at${n} = min(thread + ${n}u * THREADS, I4 - 1u);
    var x${n} = vec4<f32>();
#end
    for (var p = 0u; p < PARTS; p++) {
#unroll n in CHUNKS
        x${n} += load_x4((p * T + t) * I4 + at${n});
#end
    }
#unroll n in CHUNKS
    x${n} = max(x${n} * factor, vec4<f32>());
    x${n} = x${n} * x${n};
    most = max(most, max(max(x${n}.x, x${n}.y), max(x${n}.z, x${n}.w)));
#end
    let factors = to_halves(largest_of(thread, most));
#unroll n in CHUNKS
    if thread + ${n}u * THREADS < I4 {
        let to${n} = halves_at(t, at${n}, I);
        let first${n} = first_half(x${n} * factors.x);
        store_halves4(to${n}, first${n});
        store_halves4(to${n} + 64u, x${n} * factors.x - first${n});
    }
#end
    if thread == 0u {
        store_scale(t, factors.y);
    }
}
