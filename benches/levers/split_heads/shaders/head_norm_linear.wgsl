// norm[c] = (x[0, c] - mean) / sqrt(variance + gn_eps) gn_weight[c] + gn_bias[c]
// y[o]    = sum_c weight[o, c] (norm[c] x[1, c] + x[2, c])
//
// for one token, mean and variance being those of the N channels of c's head in x[0]: what rwkv7_split_heads.wgsl
// leaves, normalised by heads, gated, with the bonus, which is gated already, added; and a product of that. x [3, C]
// read, gn_weight and gn_bias [C] read, weight [O, C] read, y [O] written; a workgroup per ROWS rows, each of which
// computes the norm again, since that is cheaper than waiting for another dispatch. C is a multiple of N, N of eight.
// Bytes: O C of the weight's format; 12 C read of x by every workgroup. This is the variant that every device can run.
#import "shared/head_norm_linear.wgsl"
#import "shared/totals.wgsl"
#import "shared/head_norm.wgsl"
#import "shared/head_sums.wgsl"
#import "shared/rows_of.wgsl"

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    thread = index;
    head_norm_linear(group.x);
}
