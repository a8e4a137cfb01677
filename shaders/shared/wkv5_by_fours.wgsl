// wkv5.wgsl of this folder with key channels taken four at a time: decay4(t, c, i) and first4(c, i) are for
// channels 4i to 4i + 3 of the head, which are 4c to 4c + 3 of all. N is a multiple of four.
override T: u32;
override S: u32;
override H: u32;
override N: u32;
const N4: u32 = N / 4u;

@compute @workgroup_size(N)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) j: u32) {
    let head = group.x * N;
    prepare(group.x, j);
    let head4 = group.x * N4;
    let begin = load_offsets(group.y);
    let end = load_offsets(group.y + 1u);
    if begin < end {
        let base = (load_places(group.y) * H + group.x) * N * N + j;
        var column: array<vec4<f32>, N4>;
        for (var i = 0u; i < N4; i++) {
            let at = base + 4u * i * N;
            column[i] = vec4(load_state(at), load_state(at + N), load_state(at + 2u * N), load_state(at + 3u * N));
        }
        for (var t = begin; t < end; t++) {
            let at = t * H * N + head;
            let at4 = at / 4u;
            let v = load_v(at + j);
            var y = 0.0;
            for (var i = 0u; i < N4; i++) {
                let kv = load_k4(at4 + i) * v;
                y += dot(load_r4(at4 + i), column[i] + first4(head4 + i, i) * kv);
                column[i] = column[i] * decay4(t, head4 + i, i) + kv;
            }
            store_y(at + j, y);
        }
        for (var i = 0u; i < N4; i++) {
            let at = base + 4u * i * N;
            store_state(at, column[i].x);
            store_state(at + N, column[i].y);
            store_state(at + 2u * N, column[i].z);
            store_state(at + 3u * N, column[i].w);
        }
    }
    if group.y == S - 1u {
        for (var t = load_offsets(S); t < T; t++) {
            store_y(t * H * N + head + j, 0.0);
        }
    }
}
