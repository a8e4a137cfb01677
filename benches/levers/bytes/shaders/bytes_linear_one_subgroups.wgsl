// bytes_linear_one.wgsl with sums by subgroups.
//
// x [1, I] read, codes [O, I / 4] read, scales [O, ceil(I / 128)] read, y [1, O] written; bytes, formula and dispatch
// as there.
enable subgroups;
#import "shared/bytes_linear_one.wgsl"
#import "shared/totals_subgroups.wgsl"

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
    linear_one(group);
}
