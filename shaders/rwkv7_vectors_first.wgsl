// rwkv7_vectors.wgsl for the first layer, which has no low-rank pair for the value and takes it as it is.
//
// k [T, H N], w_low [T, RW], a_low [T, RA], g_low [T, RG] read, up [C (RW + RA + RG)] read: the second low-rank matrices
// w2, a2, g2 one after the other; w_base, a_base, k_k, k_a [C] read, y [5 T C] written: w, kk, a, k, g one after the
// other; bytes, formula and dispatch as there.
#import "shared/rwkv7_many_value_first.wgsl"
#import "shared/rwkv7_vectors.wgsl"

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    rwkv7_vectors(group.x, group.y * BLOCK, thread);
}
