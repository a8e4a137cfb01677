// bytes_mixed_linears.wgsl with sums by subgroups.
//
// x [1, C] read, ln_weight and ln_bias [C] read, last [B, C] read, places [1] read, mu [M, C] read, codes [O, C / 4]
// read, scales [O, ceil(C / 128)] read, y [O] written, ln [1, C] written; bytes, formula and dispatch as there.
enable subgroups;
#import "shared/mixed_linears.wgsl"
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
    mixed_linears(group.x);
}
