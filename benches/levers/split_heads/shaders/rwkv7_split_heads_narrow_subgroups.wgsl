// rwkv7_split_heads_subgroups.wgsl for subgroups of fewer lanes: a row's sums go through workgroup memory.
//
// r, k, v [1, H N], w_low [1, RW], a_low [1, RA], v_low [1, RV], g_low [1, RG] read, up [C (RW + RA + RV + RG)] read:
// the second low-rank matrices w2, a2, v2, g2 one after the other; w_base, a_base, v_base, k_k, k_a, r_k [C] read,
// v_first [1, C] read, state [B, H, N, N] read and written, ln [1, C] read, last [B, C] written, offsets [2] and
// places [1] read, y [3, C] written; bytes, formula and dispatch as there.
enable subgroups;
#import "shared/rwkv7_split_value.wgsl"
#import "shared/rwkv7_split_heads.wgsl"
#import "shared/totals_subgroups.wgsl"
#import "shared/row_sum_narrow_subgroups.wgsl"

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) index: u32,
    @builtin(num_subgroups) count: u32,
    @builtin(subgroup_invocation_id) number: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    subgroup = index;
    subgroups = count;
    lane = number;
    thread = index * lanes + number;
    part_of_head(group.x / PARTS, group.x % PARTS);
}
