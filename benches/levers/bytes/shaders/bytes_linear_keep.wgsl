// linear_keep.wgsl for a weight of signed bytes, with a scale for 128 columns of a row:
//
// y[o] = sum_i scales[o, i / 128] codes[o, i] x[i], last = ln
//
// for one token. x [1, I] read, codes [C, I / 4] words read, whose port says f32, scales [C, ceil(I / 128)] read, ln
// [1, C] read, last [B, C] written, offsets [2] and places [1] read, y [1, C] written; a workgroup per ROWS rows of the
// weight. Bytes: C I of codes and C I / 64 of scales of halves. x is multiplied as shared/bytes_eight.wgsl says.
// This is the variant that every device can run.
#import "shared/bytes_linear_keep.wgsl"
#import "shared/totals.wgsl"

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    thread = index;
    linear_keep(group.x);
}
