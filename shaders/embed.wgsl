// y[t, c] = table[tokens[t], c]
//
// tokens [T] read, table [V, C] read, y [T, C] written; a thread per element, a row of workgroups per token.
// Bytes per token: C of the table's format, 4 C written. Source: RWKV-LM, RWKV-v7/rwkv_v7_demo.py, `emb`.
override V: u32;
override C: u32;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.x;
    let t = id.y;
    if c >= C {
        return;
    }
    let token = min(load_tokens(t), V - 1u);
    store_y(t * C + c, load_table(token * C + c));
}
