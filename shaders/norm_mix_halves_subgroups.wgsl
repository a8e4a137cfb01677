// norm_mix_halves.wgsl with sums by subgroups.
//
// x [T, C] read, ln_weight and ln_bias [C] read, last [B, C] read, offsets [S + 1] and places [S] read, mu [M, C] read,
// halves [2 M, T, C] written, scale [M T, 1] written, ln [T, C] written; bytes, formula and dispatch as there.
enable subgroups;
#import "shared/norm_mix_halves.wgsl"
#import "shared/sequence.wgsl"
#import "shared/totals_subgroups.wgsl"
#import "shared/largest_subgroups.wgsl"
#import "shared/halves.wgsl"

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
    norm_mix_halves(group.x);
}
