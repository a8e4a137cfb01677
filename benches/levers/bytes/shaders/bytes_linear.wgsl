// y[t, o] = sum_i scales[o, i / 128] codes[o, i] x[t, i]
//
// x [T, I] read, codes [O, I / 4] words read, four signed bytes each, lowest byte first, scales [O, ceil(I / 128)]
// read, y [T, O] written; a workgroup per 4 rows of the weight and TILE tokens, threads along I, a multiple of eight.
// Words are f32 to their port, which holds their bits: nothing computes with them. x is multiplied as
// shared/bytes_eight.wgsl says. Bytes per TILE tokens: O I of codes and O I / 64 of scales of halves.
// This is the variant that every device can run; plain, not fast.
#import "shared/bytes_eight.wgsl"
override T: u32;
override I8: u32;
override O: u32;
override TILE: u32;
const LANES: u32 = 64u;
// Scales of a row, one for 128 columns.
const BLOCKS: u32 = (I8 + 15u) / 16u;
// Workgroups lie along x, and where those are too many for one direction, in several layers along z.
const LAYERS: u32 = (O + 65535u * 4u - 1u) / (65535u * 4u);
const ACROSS: u32 = ((O + 3u) / 4u + LAYERS - 1u) / LAYERS;
var<workgroup> partial: array<vec4<f32>, LANES>;

fn codes_at(i: u32) -> vec2<u32> {
    return bitcast<vec2<u32>>(load_codes2(i));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let block = group.z * ACROSS + group.x;
    let rows = min(block * 4u + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(O - 1u));
    let first = group.y * TILE;
    var sums: array<vec4<f32>, TILE>;
    for (var i = lane; i < I8; i += LANES) {
        let w0 = codes_at(rows.x * I8 + i);
        let w1 = codes_at(rows.y * I8 + i);
        let w2 = codes_at(rows.z * I8 + i);
        let w3 = codes_at(rows.w * I8 + i);
        let at = rows * BLOCKS + i / 16u;
        let s01 = vec2<f32>(load_scales(at.x), load_scales(at.y));
        let scales = vec4<f32>(s01, load_scales(at.z), load_scales(at.w));
        for (var n = 0u; n < TILE; n++) {
            let begin = (min(first + n, T - 1u) * I8 + i) * 2u;
            let x = eight_of(load_x4(begin), load_x4(begin + 1u));
            let y01 = vec2<f32>(product_of(w0, x), product_of(w1, x));
            sums[n] += vec4<f32>(y01, product_of(w2, x), product_of(w3, x)) * scales;
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
