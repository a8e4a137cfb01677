// norm_linear.wgsl for a weight of signed bytes, with a scale for 128 columns of a row:
//
// y[o] = sum_c scales[o, c / 128] codes[o, c] layer_norm(x)[c]
//
// for one token. x [1, C] read, ln_weight and ln_bias [C] read, codes [O, C / 4] words read, whose port says f32,
// scales [O, ceil(C / 128)] read, y [1, O] written; a workgroup per ROWS rows, each of which computes the norm again.
// Bytes: O C of codes and O C / 64 of scales of halves; 4 C read of x by every workgroup. The norm is multiplied as
// shared/bytes_eight.wgsl says. This is the variant that every device can run.
#import "shared/norm_linear.wgsl"
#import "shared/totals.wgsl"
#import "shared/norm_row.wgsl"
#import "shared/bytes_rows_of.wgsl"

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    thread = index;
    norm_linear(group.x);
}
