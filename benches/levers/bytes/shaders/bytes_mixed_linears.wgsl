// mixed_linears.wgsl for a weight of signed bytes, with a scale for 128 columns of a row:
//
// ln   = layer_norm(x)
// y[o] = sum_c scales[o, c / 128] codes[o, c] (ln[c] + (last[c] - ln[c]) mu[m, c]), m as there
//
// x [1, C] read, ln_weight and ln_bias [C] read, last [B, C] read, places [1] read, mu [M, C] read, codes [O, C / 4]
// words read, whose port says f32, scales [O, ceil(C / 128)] read, y [O] written, ln [1, C] written by the first
// workgroup; a workgroup per ROWS rows. Bytes: O C of codes and O C / 64 of scales of halves; 4 C read of x and of last
// by every workgroup. The mixture is multiplied as shared/bytes_eight.wgsl says.
// This is the variant that every device can run.
#import "shared/mixed_linears.wgsl"
#import "shared/totals.wgsl"
#import "shared/norm_row.wgsl"
#import "shared/bytes_rows_of.wgsl"

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    thread = index;
    mixed_linears(group.x);
}
