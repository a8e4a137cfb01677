// y[t, o] = scale[t] sum_p x[p, t, o]
//
// x [PARTS, T, O] read, scale [T, 1] read, y [T, O] written; a thread per four elements, O a multiple of four.
// Bytes per token: 4 O PARTS read, 4 O written.
override PARTS: u32;
override T: u32;
override O: u32;
const O4: u32 = max(O / 4u, 1u);

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= O4 {
        return;
    }
    var sum = vec4<f32>();
    for (var p = 0u; p < PARTS; p++) {
        sum += load_x4((p * T + id.y) * O4 + id.x);
    }
    store_y4(id.y * O4 + id.x, sum * load_scale(id.y));
}
