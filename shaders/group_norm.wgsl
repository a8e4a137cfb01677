// y[t, h] = (x[t, h] - mean) / sqrt(variance + eps) * weight[h] + bias[h], mean and population variance over head h
//
// x [T, C] read, weight [C] read, bias [C] read, y [T, C] written; a workgroup per head and token, C = heads N.
// Bytes per token: 12 C read, 4 C written, and weight and bias.
// Source: Wu and He, "Group Normalization", 2018, eq. 1 to 7.
#import "shared/sum.wgsl"
const LANES: u32 = 64u;
override T: u32;
override heads: u32;
override N: u32;
override eps: f32;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let channel = group.x * N;
    let head = group.y * heads * N + channel;
    var sum = 0.0;
    for (var n = lane; n < N; n += LANES) {
        sum += load_x(head + n);
    }
    let mean = workgroup_sum(lane, sum) / f32(N);
    var squares = 0.0;
    for (var n = lane; n < N; n += LANES) {
        let d = load_x(head + n) - mean;
        squares += d * d;
    }
    let scale = 1.0 / sqrt(workgroup_sum(lane, squares) / f32(N) + eps);
    for (var n = lane; n < N; n += LANES) {
        store_y(head + n, (load_x(head + n) - mean) * scale * load_weight(channel + n) + load_bias(channel + n));
    }
}
