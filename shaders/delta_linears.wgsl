// y[o] = sum_c weight[o, c] (x[c] + (last[c] - x[c]) (mu[g, c] + delta[g, c])), g the mixture of the segment that row o
// is in
//
// for one token: several token shifts whose weights depend on the token, and their products with one weight whose rows
// lie one after the other. x [1, C] read, last [B, C] read, places [1] read, delta [1, G, C] read, mu [G C] read,
// weight [O, C] read, y [O] written; a workgroup per ROWS rows. Segment s ends before row ENDs and takes mixture
// GROUPs; a workgroup's rows are of one segment.
// Bytes: O C of the weight's format; 16 C read by every workgroup. Source: Peng et al., "Eagle and Finch", 2024,
// section 4.
// This is the variant that every device can run.
#import "shared/delta_linears.wgsl"
#import "shared/totals.wgsl"
#import "shared/eights.wgsl"
#import "shared/rows_of.wgsl"

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    thread = index;
    delta_linears(group.x);
}
