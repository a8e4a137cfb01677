// y[p, t, o] = sum_i weight[o, i] (halves[2 m, t, i] + halves[2 m + 1, t, i]), i of the p-th of PARTS shares of the
// columns, m the mixture of the weight that row o is of
//
// halves [P, T, I] read, pairs of halves in the tiles that split_halves.wgsl writes, a pair for each mixture; weight
// [O, I] read, several weights of the same width if END0 < O (shared/segments.wgsl); y [PARTS, T, O] written; a thread
// per element. Bytes: O I of the weight's format, 2 P T I read, 4 PARTS T O written.
// This is the variant that every device can run; what matters is linear_matrices_cooperative.wgsl.
#import "shared/halves.wgsl"
#import "shared/segments.wgsl"
override T: u32;
override I: u32;
override O: u32;
override PARTS: u32;
const I4: u32 = max(I / 4u, 1u);

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let o = id.x;
    let t = id.y;
    if o >= O {
        return;
    }
    let tiles = segment_of(o, O).mixture * (T * I4 * 2u);
    var sum = 0.0;
    for (var i = id.z * I4 / PARTS; i < (id.z + 1u) * I4 / PARTS; i++) {
        let at = tiles + halves_at(t, i, I);
        sum += dot(load_weight4(o * I4 + i), load_halves4(at) + load_halves4(at + 64u));
    }
    store_y((id.z * T + t) * O + o, sum);
}
