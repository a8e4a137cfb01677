// rwkv7_split_heads.wgsl for the first layer, whose value is mixed with none.
//
// r, k, v [1, H N], w_low [1, RW], a_low [1, RA], g_low [1, RG] read, up [C (RW + RA + RG)] read: the
// second low-rank matrices w2, a2, g2 one after the other; w_base, a_base, k_k, k_a, r_k [C] read,
// state [B, H, N, N] read and written, ln [1, C] read, last [B, C] written, offsets [2] and
// places [1] read, y [3, C] written; bytes, formula and dispatch as there.
#import "shared/rwkv7_split_value_first.wgsl"
#import "shared/rwkv7_split_heads.wgsl"
#import "shared/totals.wgsl"
#import "shared/row_sum.wgsl"

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    thread = index;
    part_of_head(group.x / PARTS, group.x % PARTS);
}
