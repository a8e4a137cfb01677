// sa[i]   = -sum_j S[i, j] kk[j]
// S[i, j] = S[i, j] w[j] + sa[i] kk[j] a[j] + v[i] k[j]
// y[i]    = sum_j S[i, j] r[j]
//
// for each head, token after token; i is a value channel, j a key channel.
//
// state [B, H, N, N] read and written, r, w, k, v, kk, a [T, H N] read, offsets [S + 1] read, places [S] read,
// y [T, H N] written; a workgroup per head and sequence, a thread per row of the state, which stays in registers for
// the
// whole step. Bytes per sequence: 8 N C for the state; per token 24 C read, 4 C written.
// Source: Peng et al., "RWKV-7", 2025, eq. 16 to 18.
override T: u32;
override B: u32;
override S: u32;
override H: u32;
override N: u32;

@compute @workgroup_size(N)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let head = group.x * N;
    let begin = load_offsets(group.y);
    let end = min(load_offsets(group.y + 1u), T);
    if begin < end {
        let base = ((min(load_places(group.y), B - 1u) * H + group.x) * N + i) * N;
        var row: array<f32, N>;
        for (var j = 0u; j < N; j++) {
            row[j] = load_state(base + j);
        }
        for (var t = begin; t < end; t++) {
            let at = t * H * N + head;
            var sa = 0.0;
            for (var j = 0u; j < N; j++) {
                sa -= row[j] * load_kk(at + j);
            }
            let v = load_v(at + i);
            var y = 0.0;
            for (var j = 0u; j < N; j++) {
                row[j] = row[j] * load_w(at + j) + sa * (load_kk(at + j) * load_a(at + j)) + v * load_k(at + j);
                y += row[j] * load_r(at + j);
            }
            store_y(at + i, y);
        }
        for (var j = 0u; j < N; j++) {
            store_state(base + j, row[j]);
        }
    }
    // Padding belongs to no sequence: the last one's workgroups give it a value, so that nothing reads what nobody
    // wrote.
    if group.y == S - 1u {
        for (var t = load_offsets(S); t < T; t++) {
            store_y(t * H * N + head + i, 0.0);
        }
    }
}
