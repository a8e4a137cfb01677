// y[t, n] = table[tokens[t] mod K, n]
//
// tokens [T] read, table [K, N] read, y [T, N] written; a thread per element, a row of workgroups per token.
// Bytes per token: N of the table's format, 4 N written.
override K: u32;
override N: u32;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let n = id.x;
    let t = id.y;
    if n >= N {
        return;
    }
    store_y(t * N + n, load_table(load_tokens(t) % K * N + n));
}
