// y[t, o] = sum_i weight[o, i] x[t, i]
//
// x [T, I] read, weight [O, I] read, y [T, O] written; a workgroup per 4 rows of the weight and TILE tokens, threads
// along I, which may be any number.
// Bytes per TILE tokens: O I of the weight's format. This is the variant that every device can run.
override T: u32;
override I: u32;
override O: u32;
override TILE: u32;
const LANES: u32 = 64u;
// Workgroups lie along x, and where those are too many for one direction, in several layers along z.
const LAYERS: u32 = (O + 65535u * 4u - 1u) / (65535u * 4u);
const ACROSS: u32 = ((O + 3u) / 4u + LAYERS - 1u) / LAYERS;
var<workgroup> partial: array<vec4<f32>, LANES>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let block = group.z * ACROSS + group.x;
    let rows = min(block * 4u + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(O - 1u)) * I;
    let first = group.y * TILE;
    var sums: array<vec4<f32>, TILE>;
    for (var i = lane; i < I; i += LANES) {
        let w01 = vec2<f32>(load_weight(rows.x + i), load_weight(rows.y + i));
        let w = vec4<f32>(w01, load_weight(rows.z + i), load_weight(rows.w + i));
        for (var n = 0u; n < TILE; n++) {
            sums[n] += w * load_x(min(first + n, T - 1u) * I + i);
        }
    }
    for (var n = 0u; n < TILE; n++) {
        workgroupBarrier();
        partial[lane] = sums[n];
        for (var half = LANES / 2u; half > 0u; half /= 2u) {
            workgroupBarrier();
            if lane < half {
                partial[lane] += partial[lane + half];
            }
        }
        workgroupBarrier();
        let o = block * 4u + lane;
        if lane < 4u && o < O && first + n < T {
            store_y((first + n) * O + o, partial[0][lane]);
        }
    }
}
