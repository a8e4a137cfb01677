// head_norm_linear_subgroups.wgsl for subgroups of fewer lanes than a head has eights, and for any such number: what is
// summed over a head goes through workgroup memory.
//
// x [3, C] read, gn_weight and gn_bias [C] read, weight [O, C] read, y [O] written; bytes, formula and dispatch as
// there.
enable subgroups;
#import "shared/head_norm_linear.wgsl"
#import "shared/totals_subgroups.wgsl"
#import "shared/head_norm.wgsl"
#import "shared/head_sums.wgsl"
#import "shared/rows_of.wgsl"

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
    head_norm_linear(group.x);
}
