// ln   = layer_norm(x)
// y[o] = sum_c weight[o, c] (ln[c] + (last[c] - ln[c]) mu[m, c]), m the mixing vector of the segment that row o is in
//
// for one token: layer norm, token shift, and several products with one weight whose rows lie one after the other, all
// in one dispatch. x [1, C] read, ln_weight and ln_bias [C] read, last [B, C] read, places [1] read, mu [M, C] read,
// weight [O, C] read, y [O] written, ln [1, C] written by the first workgroup; a workgroup per ROWS rows, each of which
// computes the norm again, since that is cheaper than waiting for another dispatch. Segment s ends before row ENDs and
// takes mixing vector MUs; a workgroup's rows are of one segment. FROM_LAST exchanges ln and last in the mixture.
// Bytes: O C of the weight's format; 4 C read of x and of last by every workgroup.
// This is the variant that every device can run.
#import "shared/mixed_linears.wgsl"
#import "shared/totals.wgsl"
#import "shared/norm_row.wgsl"
#import "shared/rows_of.wgsl"

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    thread = index;
    mixed_linears(group.x);
}
