// RWKV-7's time mixing between the first products and group norm, for one token: decay, learning rate, value and gate
// from their low-rank inputs; keys; the recurrence; and the row that the next token's shift takes. A head's value rows
// are shared out over PARTS workgroups. In terms of the kernels that it takes the place of:
//
// w = exp(-0.60653066 sigmoid(w_base + w2 tanh(w_low))), a = sigmoid(a_base + a2 a_low), g = g2 sigmoid(g_low)
// v = v + (v_first - v) sigmoid(v_base + v2 v_low), kk = l2_norm(k k_k), k = k (1 + (a - 1) k_a)
// y[0] = wkv7(r, w, k, v, kk, a), y[1] = g, y[2] = bonus(r, k, v) g, last = ln
//
// of which (group_norm(y[0]) y[1] + y[2]) is left to whoever has a head's rows together: head_norm_linear.wgsl.
//
// r, k, v [1, H N], w_low [1, RW], a_low [1, RA], v_low [1, RV], g_low [1, RG] read, up [C (RW + RA + RV + RG)] read:
// the second low-rank matrices w2, a2, v2, g2 one after the other; w_base, a_base, v_base, k_k, k_a, r_k [C] read,
// v_first [1, C] read, state [B, H, N, N] read and written, ln [1, C] read, last [B, C] written, offsets [2] and
// places [1] read, y [3, C] written; PARTS workgroups per head, each with all of its keys and N / PARTS of its value
// rows, 4 PARTS threads per row of its state. N is a multiple of 16 PARTS.
// Bytes: 8 N C for the state, C (PARTS (RW + RA) + RV + RG) of the weights' format.
// Source: Peng et al., "RWKV-7", 2025, sections 4 and 5. This is the variant that every device can run.
#import "shared/rwkv7_split_value.wgsl"
#import "shared/rwkv7_split_heads.wgsl"
#import "shared/totals.wgsl"
#import "shared/row_sum.wgsl"

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    thread = index;
    part_of_head(group.x / PARTS, group.x % PARTS);
}
