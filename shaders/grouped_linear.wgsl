// y[t, g, o] = sum_i weight[g, o, i] x[t, g, i]
//
// weight [G, O, I] read, x [T, G I] read, y [T, G, O] written; a thread per element of y, which suits rows as short as
// those of low-rank adapters. Bytes per token: 4 G I read, 4 G O written, and weight.
// Source: RWKV-LM, RWKV-v6/rwkv_v6_demo.py, `torch.bmm` of `time_maa_w2`.
override G: u32;
override O: u32;
override I: u32;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let o = id.x;
    if o >= O {
        return;
    }
    let row = (id.y * O + o) * I;
    let x = (id.z * G + id.y) * I;
    var sum = 0.0;
    for (var i = 0u; i < I; i++) {
        sum += load_weight(row + i) * load_x(x + i);
    }
    store_y((id.z * G + id.y) * O + o, sum);
}
