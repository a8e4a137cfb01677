// The body of layer_norm.wgsl for workgroups of any size; see there.
#import "shared/sum.wgsl"
override C: u32;
override eps: f32;

@compute @workgroup_size(LANES)
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
