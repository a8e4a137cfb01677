// What RWKV-7's recurrence and gate take of many tokens, from the first products. In terms of the kernels that it takes
// the place of:
//
// w = exp(-0.60653066 sigmoid(w_base + w2 tanh(w_low))), kk = l2_norm(k k_k), a = sigmoid(a_base + a2 a_low)
// k = k (1 + (a - 1) k_a), g = g2 sigmoid(g_low), v = v + (v_first - v) sigmoid(v_base + v2 v_low)
//
// k, v [T, H N], w_low [T, RW], a_low [T, RA], v_low [T, RV], g_low [T, RG] read, up [C (RW + RA + RV + RG)] read: the
// second low-rank matrices w2, a2, v2, g2 one after the other; w_base, a_base, v_base, k_k, k_a [C] read, v_first [T, C]
// read, y [6 T C] written: w, kk, a, k, g, v one after the other. A workgroup per head and 16 TOKENS tokens; N is a multiple of eight,
// ranks are of 4 FOURS, which is four or eight.
// Bytes: C (RW + RA + RV + RG) of the weights' format per 16 TOKENS tokens; per token 12 C read, 24 C written.
// Source: Peng et al., "RWKV-7", 2025, sections 4 and 5.
#import "shared/rwkv7_many_value.wgsl"
#import "shared/rwkv7_vectors.wgsl"

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    rwkv7_vectors(group.x, group.y * BLOCK, thread);
}
