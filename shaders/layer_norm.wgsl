// y[t] = (x[t] - mean) / sqrt(variance + eps) * weight + bias, mean and population variance over the C channels
//
// x [T, C] read, weight [C] read, bias [C] read, y [T, C] written; a workgroup per row.
// Bytes per token: 12 C read, 4 C written, and weight and bias. Source: Ba et al., "Layer Normalization", 2016, eq. 4.
#import "shared/sum.wgsl"
override C: u32;
override eps: f32;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.x * C;
    var sum = 0.0;
    for (var c = lane; c < C; c += LANES) {
        sum += load_x(row + c);
    }
    let mean = workgroup_sum(lane, sum) / f32(C);
    // The squares are summed around the mean, in a second pass: E[x^2] - mean^2 cancels where the mean is large.
    var squares = 0.0;
    for (var c = lane; c < C; c += LANES) {
        let d = load_x(row + c) - mean;
        squares += d * d;
    }
    let scale = 1.0 / sqrt(workgroup_sum(lane, squares) / f32(C) + eps);
    for (var c = lane; c < C; c += LANES) {
        store_y(row + c, (load_x(row + c) - mean) * scale * load_weight(c) + load_bias(c));
    }
}
