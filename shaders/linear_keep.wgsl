// y = weight x, last = ln
//
// for one token: a product, and beside it the row that the next token's shift takes, which takes no dispatch of its own
// then.
// x [1, I] read, weight [C, I] read, ln [1, C] read, last [B, C] written, offsets [2] and places [1] read, y [1, C]
// written; a workgroup per ROWS rows of the weight. Bytes: C I of the weight's format.
// This is the variant that every device can run.
#import "shared/linear_keep.wgsl"
#import "shared/totals.wgsl"

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    thread = index;
    linear_keep(group.x);
}
