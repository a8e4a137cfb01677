// embed_norm.wgsl with sums by subgroups.
//
// tokens [1] read, table [V, C] read, ln_weight and ln_bias [C] read, y [1, C] written; bytes, formula and dispatch as
// there.
enable subgroups;
#import "shared/given_token.wgsl"
#import "shared/embed_norm.wgsl"
#import "shared/totals_subgroups.wgsl"
#import "shared/norm_row.wgsl"

@compute @workgroup_size(THREADS)
fn main(
    @builtin(subgroup_id) index: u32,
    @builtin(num_subgroups) count: u32,
    @builtin(subgroup_invocation_id) number: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    subgroup = index;
    subgroups = count;
    lane = number;
    thread = index * lanes + number;
    embed_norm();
}
