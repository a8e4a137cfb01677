// wkv7.wgsl with four lanes per row of the state; N is a multiple of 32, and subgroups have at least four lanes.
//
// state [B, H, N, N] read and written, r, w, k, v, kk, a [T, H N] read, offsets [S + 1] read, places [S] read,
// y [T, H N] written; bytes and formula as there. A workgroup per 32 rows of a head's state and sequence. What all rows
// need of some tokens is brought to workgroup memory once.
enable subgroups;
override T: u32;
override S: u32;
override H: u32;
override N: u32;
const ROWS: u32 = 32u;
const N4: u32 = N / 4u;
const PARTS: u32 = max(N / ROWS, 1u);
// Vectors of a row that a lane has: those whose index is the lane's number modulo 4.
const OWN: u32 = max(N / 16u, 1u);
// Tokens that are brought at a time.
const BLOCK: u32 = 8u;

var<workgroup> all_r: array<vec4<f32>, BLOCK * N4>;
var<workgroup> all_w: array<vec4<f32>, BLOCK * N4>;
var<workgroup> all_k: array<vec4<f32>, BLOCK * N4>;
var<workgroup> all_kk: array<vec4<f32>, BLOCK * N4>;
var<workgroup> all_kka: array<vec4<f32>, BLOCK * N4>;
var<workgroup> all_v: array<f32, BLOCK * ROWS>;

// The sum over the four lanes of a row.
fn row_sum(part: vec4<f32>) -> f32 {
    let own = (part.x + part.y) + (part.z + part.w);
    let two = own + quadSwapX(own);
    return two + quadSwapY(two);
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) lanes: u32,
    @builtin(subgroup_invocation_id) invocation: u32,
) {
    let thread = subgroup * lanes + invocation;
    let lane = thread % 4u;
    let i = group.x % PARTS * ROWS + thread / 4u;
    let head = group.x / PARTS;
    let first = load_offsets(group.y);
    let end = load_offsets(group.y + 1u);
    if first < end {
        let base = ((load_places(group.y) * H + head) * N + i) * N4 + lane;
        var row: array<vec4<f32>, OWN>;
        for (var j = 0u; j < OWN; j++) {
            row[j] = load_state4(base + j * 4u);
        }
        for (var begin = first; begin < end; begin += BLOCK) {
            let count = min(end - begin, BLOCK);
            workgroupBarrier();
            for (var n = thread; n < count * N4; n += 128u) {
                let at = ((begin + n / N4) * H + head) * N4 + n % N4;
                let kk = load_kk4(at);
                all_r[n] = load_r4(at);
                all_w[n] = load_w4(at);
                all_k[n] = load_k4(at);
                all_kk[n] = kk;
                all_kka[n] = kk * load_a4(at);
            }
            for (var n = thread; n < count * ROWS; n += 128u) {
                all_v[n] = load_v(((begin + n / ROWS) * H + head) * N + group.x % PARTS * ROWS + n % ROWS);
            }
            workgroupBarrier();
            for (var t = 0u; t < count; t++) {
                let at = t * N4 + lane;
                var part = vec4<f32>();
                for (var j = 0u; j < OWN; j++) {
                    part -= row[j] * all_kk[at + j * 4u];
                }
                let sa = row_sum(part);
                let v = all_v[t * ROWS + thread / 4u];
                part = vec4<f32>();
                for (var j = 0u; j < OWN; j++) {
                    let here = at + j * 4u;
                    row[j] = row[j] * all_w[here] + sa * all_kka[here] + v * all_k[here];
                    part += row[j] * all_r[here];
                }
                let y = row_sum(part);
                if lane == 0u {
                    store_y(((begin + t) * H + head) * N + i, y);
                }
            }
        }
        for (var j = 0u; j < OWN; j++) {
            store_state4(base + j * 4u, row[j]);
        }
    }
    if group.y == S - 1u && lane == 0u {
        for (var t = load_offsets(S); t < T; t++) {
            store_y((t * H + head) * N + i, 0.0);
        }
    }
}
