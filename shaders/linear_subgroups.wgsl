// linear.wgsl for wide subgroups: one subgroup per row of the weight, so that no barrier stands in the kernel; I is a
// multiple of eight. A workgroup takes 8 rows, whatever the width of its subgroups.
//
// x [T, I] read, weight [O, I] read, y [T, O] written; bytes and formula as there.
enable subgroups;
override T: u32;
override I: u32;
override O: u32;
override TILE: u32;
const I8: u32 = I / 8u;
const ROWS: u32 = 8u;
// Workgroups lie along x, and where those are too many for one direction, in several layers along z.
const LAYERS: u32 = (O + 65535u * ROWS - 1u) / (65535u * ROWS);
const ACROSS: u32 = ((O + ROWS - 1u) / ROWS + LAYERS - 1u) / LAYERS;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let block = group.z * ACROSS + group.x;
    let first = group.y * TILE;
    for (var r = subgroup; r < ROWS; r += subgroups) {
        let o = block * ROWS + r;
        let row = min(o, O - 1u) * I8;
        var sums: array<f32, TILE>;
        for (var i = lane; i < I8; i += lanes) {
            let w = load_weight8(row + i);
            for (var n = 0u; n < TILE; n++) {
                let at = (min(first + n, T - 1u) * I8 + i) * 2u;
                sums[n] += dot(w[0], load_x4(at)) + dot(w[1], load_x4(at + 1u));
            }
        }
        for (var n = 0u; n < TILE; n++) {
            let sum = subgroupAdd(sums[n]);
            if lane == 0u && o < O && first + n < T {
                store_y((first + n) * O + o, sum);
            }
        }
    }
}
