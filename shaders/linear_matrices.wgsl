// y[p, t, o] = sum_i weight[o, i] (halves[0, t, i] + halves[1, t, i]), i of the p-th of PARTS shares of the columns
//
// halves [2, T, I] read, weight [O, I] read, y [PARTS, T, O] written; a thread per element. Bytes per token: O I of the
// weight's
// format. This is the variant that every device can run; what matters is linear_matrices_cooperative.wgsl.
override T: u32;
override I: u32;
override O: u32;
override PARTS: u32;
const I4: u32 = max(I / 4u, 1u);

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let o = id.x;
    let t = id.y;
    if o >= O {
        return;
    }
    var sum = 0.0;
    for (var i = id.z * I4 / PARTS; i < (id.z + 1u) * I4 / PARTS; i++) {
        let x = load_halves4(t * I4 + i) + load_halves4((T + t) * I4 + i);
        sum += dot(load_weight4(o * I4 + i), x);
    }
    store_y((id.z * T + t) * O + o, sum);
}
