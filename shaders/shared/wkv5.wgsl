// The body of wkv5.wgsl, wkv5_heads.wgsl and wkv6.wgsl; see there. Whoever imports this declares prepare(h, j),
// which every thread j of head h calls once; decay(t, c, i), what stays of the head's key channel i, which is c of all,
// at
// token t; and first(c, i), the weight of a token's own key and value there.
override T: u32;
override S: u32;
override H: u32;
override N: u32;

@compute @workgroup_size(N)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) j: u32) {
    let head = group.x * N;
    prepare(group.x, j);
    let begin = load_offsets(group.y);
    let end = load_offsets(group.y + 1u);
    if begin < end {
        // Neighbouring threads have neighbouring value channels, so rows of the state are read and written side by
        // side.
        let base = (load_places(group.y) * H + group.x) * N * N + j;
        var column: array<f32, N>;
        for (var i = 0u; i < N; i++) {
            column[i] = load_state(base + i * N);
        }
        for (var t = begin; t < end; t++) {
            let at = t * H * N + head;
            let v = load_v(at + j);
            var y = 0.0;
            for (var i = 0u; i < N; i++) {
                let kv = load_k(at + i) * v;
                y += load_r(at + i) * (column[i] + first(head + i, i) * kv);
                column[i] = column[i] * decay(t, head + i, i) + kv;
            }
            store_y(at + j, y);
        }
        for (var i = 0u; i < N; i++) {
            store_state(base + i * N, column[i]);
        }
    }
    // Padding belongs to no sequence: the last one's workgroups give it a value, so that nothing reads what nobody
    // wrote.
    if group.y == S - 1u {
        for (var t = load_offsets(S); t < T; t++) {
            store_y(t * H * N + head + j, 0.0);
        }
    }
}
