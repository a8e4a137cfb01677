// delta_linears.wgsl with sums by subgroups.
//
// x [1, C] read, last [B, C] read, places [1] read, delta [1, G, C] read, mu [G C] read, weight [O, C] read, y [O]
// written; bytes, formula and dispatch as there.
enable subgroups;
#import "shared/delta_linears.wgsl"
#import "shared/totals_subgroups.wgsl"
#import "shared/eights.wgsl"
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
    delta_linears(group.x);
}
