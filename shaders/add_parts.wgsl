// y[s][t, o] = scale[m T + t] sum_p x[p, t, first + o], for every product s, which begins at column `first` of x and has
// mixture m
//
// x [PARTS, T, O] read, scale [Q, 1] read, y [T, O] written: the products one after the other, each [T, its columns],
// which are a multiple of four (shared/segments.wgsl). A thread per four elements.
// Bytes per token: 4 O PARTS read, 4 O written.
#import "shared/segments.wgsl"
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
    let segment = segment_of(id.x * 4u, O);
    let at = (T * segment.first + id.y * segment.rows) / 4u + id.x - segment.first / 4u;
    store_y4(at, sum * load_scale(segment.mixture * T + id.y));
}
