// last[places[s]] = x[offsets[s + 1] - 1] for every sequence s that has tokens; other rows stay
//
// x [T, C] read, last [B, C] written, offsets [S + 1] read, places [S] read; a thread per channel and sequence.
// Bytes per sequence: 4 C read, 4 C written. Source: RWKV-LM, RWKV-v7/rwkv_v7_demo.py, `time_shift`.
override C: u32;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.x;
    let s = id.y;
    let end = load_offsets(s + 1u);
    if c >= C || end == load_offsets(s) {
        return;
    }
    store_last(load_places(s) * C + c, load_x((end - 1u) * C + c));
}
