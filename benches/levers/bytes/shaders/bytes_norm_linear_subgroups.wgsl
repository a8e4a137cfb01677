// bytes_norm_linear.wgsl with sums by subgroups.
//
// x [1, C] read, ln_weight and ln_bias [C] read, codes [O, C / 4] read, scales [O, ceil(C / 128)] read, y [1, O]
// written; bytes, formula and dispatch as there.
enable subgroups;
#import "shared/norm_linear.wgsl"
#import "shared/totals_subgroups.wgsl"
#import "shared/norm_row.wgsl"
#import "shared/bytes_rows_of.wgsl"

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
    norm_linear(group.x);
}
