// wkv7.wgsl with key channels taken four at a time; N is a multiple of four.
//
// state [B, H, N, N] read and written, r, w, k, v, kk, a [T, H N] read, offsets [S + 1] read, places [S] read,
// y [T, H N] written; bytes, formula and dispatch as there.
override T: u32;
override B: u32;
override S: u32;
override H: u32;
override N: u32;
const N4: u32 = N / 4u;

@compute @workgroup_size(N)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let head = group.x * N;
    let begin = load_offsets(group.y);
    let end = min(load_offsets(group.y + 1u), T);
    if begin < end {
        let base = ((min(load_places(group.y), B - 1u) * H + group.x) * N + i) * N4;
        var row: array<vec4<f32>, N4>;
        for (var j = 0u; j < N4; j++) {
            row[j] = load_state4(base + j);
        }
        for (var t = begin; t < end; t++) {
            let at = t * H * N + head;
            let at4 = at / 4u;
            // Four partial sums, one per column of the vectors: a shorter chain, and a smaller rounding error.
            var sa4 = vec4<f32>();
            for (var j = 0u; j < N4; j++) {
                sa4 -= row[j] * load_kk4(at4 + j);
            }
            let sa = (sa4.x + sa4.y) + (sa4.z + sa4.w);
            let v = load_v(at + i);
            var y4 = vec4<f32>();
            for (var j = 0u; j < N4; j++) {
                row[j] = row[j] * load_w4(at4 + j) + sa * (load_kk4(at4 + j) * load_a4(at4 + j)) + v * load_k4(at4 + j);
                y4 += row[j] * load_r4(at4 + j);
            }
            store_y(at + i, (y4.x + y4.y) + (y4.z + y4.w));
        }
        for (var j = 0u; j < N4; j++) {
            store_state4(base + j, row[j]);
        }
    }
    if group.y == S - 1u {
        for (var t = load_offsets(S); t < T; t++) {
            store_y(t * H * N + head + i, 0.0);
        }
    }
}
