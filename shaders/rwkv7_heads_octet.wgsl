// rwkv7_heads.wgsl by eight lanes that are a workgroup and a subgroup; N is a multiple of 32.
//
// r, k, v [1, H N], w_low [1, RW], a_low [1, RA], v_low [1, RV], g_low [1, RG] read, up [C (RW + RA + RV + RG)] read:
// the
// second low-rank matrices w2, a2, v2, g2 one after the other; w_base, a_base, v_base, k_k, k_a, r_k, gn_weight,
// gn_bias [C] read,
// v_first [1, C] read, state [B, H, N, N] read and written, ln [1, C] read, last [B, C] written, offsets [2] and
// places [1] read, y [1, C] written; bytes, formula and dispatch as there.
enable subgroups;
#import "shared/octet.wgsl"
#import "shared/octet_value.wgsl"
#import "shared/octet_heads.wgsl"

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    head(lane, group.x);
}
