// y[t, h] = x[t, h] / max(|x[t, h]|, eps), the Euclidean norm over head h
//
// x [T, C] read, y [T, C] written; a workgroup per head and token, C = heads N.
// Bytes per token: 8 C read, 4 C written. Source: RWKV-LM, RWKV-v7/rwkv_v7_demo.py, `F.normalize` of kk.
#import "shared/sum.wgsl"
const LANES: u32 = 64u;
override T: u32;
override heads: u32;
override N: u32;
override eps: f32;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = (group.y * heads + group.x) * N;
    var squares = 0.0;
    for (var n = lane; n < N; n += LANES) {
        let x = load_x(head + n);
        squares += x * x;
    }
    let norm = max(sqrt(workgroup_sum(lane, squares)), eps);
    for (var n = lane; n < N; n += LANES) {
        store_y(head + n, load_x(head + n) / norm);
    }
}
