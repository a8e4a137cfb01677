// linear.wgsl for narrow subgroups, as software drivers have them: one subgroup per 4 rows of the weight; I is a
// multiple
// of eight. A workgroup takes 32 rows.
//
// x [T, I] read, weight [O, I] read, y [T, O] written; bytes and formula as there.
enable subgroups;
override T: u32;
override I: u32;
override O: u32;
override TILE: u32;
const I8: u32 = I / 8u;
const ROWS: u32 = 32u;
// Workgroups lie along x, and where those are too many for one direction, in several layers along z.
const LAYERS: u32 = (O + 65535u * ROWS - 1u) / (65535u * ROWS);
const ACROSS: u32 = ((O + ROWS - 1u) / ROWS + LAYERS - 1u) / LAYERS;

fn product(w: mat2x4<f32>, x0: vec4<f32>, x1: vec4<f32>) -> f32 {
    return dot(w[0], x0) + dot(w[1], x1);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let block = group.z * ACROSS + group.x;
    let first = group.y * TILE;
    for (var r = subgroup * 4u; r < ROWS; r += subgroups * 4u) {
        let os = block * ROWS + r + vec4<u32>(0u, 1u, 2u, 3u);
        let rows = min(os, vec4<u32>(O - 1u)) * I8;
        var sums: array<vec4<f32>, TILE>;
        for (var i = lane; i < I8; i += lanes) {
            let w0 = load_weight8(rows.x + i);
            let w1 = load_weight8(rows.y + i);
            let w2 = load_weight8(rows.z + i);
            let w3 = load_weight8(rows.w + i);
            for (var n = 0u; n < TILE; n++) {
                let at = (min(first + n, T - 1u) * I8 + i) * 2u;
                let x0 = load_x4(at);
                let x1 = load_x4(at + 1u);
                let y01 = vec2<f32>(product(w0, x0, x1), product(w1, x0, x1));
                sums[n] += vec4<f32>(y01, product(w2, x0, x1), product(w3, x0, x1));
            }
        }
        for (var n = 0u; n < TILE; n++) {
            let sum = subgroupAdd(sums[n]);
            if lane == 0u && first + n < T {
                for (var m = 0u; m < 4u; m++) {
                    if os[m] < O {
                        store_y((first + n) * O + os[m], sum[m]);
                    }
                }
            }
        }
    }
}
