// linear.wgsl by cooperative matrices, for 64 tokens and 64 rows of an f16 weight at a time; I is a multiple of eight.
//
// x [T, I] read, weight [O, I] read, y [T, O] written; formula as there. A workgroup of two subgroups per tile of y.
// Bytes: O I of the weight's format per 64 tokens, 4 T I per 64 rows of the weight, 4 T O written.
const SUBGROUPS_T: u32 = 2u;
const SUBGROUPS_O: u32 = 1u;
#import "shared/matrix_tiles.wgsl"

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    tile_of_y(group.y, group.x, thread, subgroup, lane);
}
