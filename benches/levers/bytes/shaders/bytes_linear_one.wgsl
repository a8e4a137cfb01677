// bytes_linear.wgsl for one token: a workgroup per ROWS rows of the weight, whose threads share them out by columns in
// eights and ask for all that they need of them before anything else.
//
// x [1, I] read, codes [O, I / 4] read, scales [O, ceil(I / 128)] read, y [1, O] written; bytes and formula as there.
#import "shared/bytes_linear_one.wgsl"
#import "shared/totals.wgsl"

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    thread = index;
    linear_one(group);
}
