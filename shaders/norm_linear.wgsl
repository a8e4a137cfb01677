// y[o] = sum_c weight[o, c] layer_norm(x)[c]
//
// for one token. x [1, C] read, ln_weight and ln_bias [C] read, weight [O, C] read, y [1, O] written; a workgroup per
// ROWS rows, each of which computes the norm again, since that is cheaper than waiting for another dispatch.
// Bytes: O C of the weight's format; 4 C read of x by every workgroup. This is the variant that every device can run.
#import "shared/norm_linear.wgsl"
#import "shared/totals.wgsl"
#import "shared/norm_row.wgsl"
#import "shared/rows_of.wgsl"

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    thread = index;
    norm_linear(group.x);
}
