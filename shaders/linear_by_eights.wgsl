// linear.wgsl with inputs taken eight at a time; I is a multiple of eight.
//
// x [T, I] read, weight [O, I] read, y [T, O] written; bytes and formula as there.
override T: u32;
override I: u32;
override O: u32;
override TILE: u32;
const LANES: u32 = 64u;
// Workgroups lie along x, and where those are too many for one direction, in several layers along z.
const LAYERS: u32 = (O + 65535u * 4u - 1u) / (65535u * 4u);
const ACROSS: u32 = ((O + 3u) / 4u + LAYERS - 1u) / LAYERS;
const I8: u32 = I / 8u;
var<workgroup> partial: array<vec4<f32>, LANES>;

fn product(w: mat2x4<f32>, x0: vec4<f32>, x1: vec4<f32>) -> f32 {
    return dot(w[0], x0) + dot(w[1], x1);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let block = group.z * ACROSS + group.x;
    let rows = min(block * 4u + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(O - 1u)) * I8;
    let first = group.y * TILE;
    var sums: array<vec4<f32>, TILE>;
    for (var i = lane; i < I8; i += LANES) {
        let w0 = load_weight8(rows.x + i);
        let w1 = load_weight8(rows.y + i);
        let w2 = load_weight8(rows.z + i);
        let w3 = load_weight8(rows.w + i);
        for (var n = 0u; n < TILE; n++) {
            let at = (min(first + n, T - 1u) * I8 + i) * 2u;
            let x0 = load_x4(at);
            let x1 = load_x4(at + 1u);
            sums[n] += vec4<f32>(product(w0, x0, x1), product(w1, x0, x1), product(w2, x0, x1), product(w3, x0, x1));
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
