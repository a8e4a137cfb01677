// group_norm.wgsl with a lane per four channels: N is four times a power of two that subgroups are a multiple of.
//
// x [T, C] read, weight [C] read, bias [C] read, y [T, C] written. Bytes per token: 4 C read, 4 C written, and weight
// and bias.
enable subgroups;
#import "shared/lanes.wgsl"
const THREADS: u32 = 256u;
override T: u32;
override heads: u32;
override N: u32;
override eps: f32;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) lanes: u32,
    @builtin(subgroup_invocation_id) invocation: u32,
) {
    let thread = group.x * THREADS + subgroup * lanes + invocation;
    let is_in = thread < T * heads * (N / 4u);
    var x = vec4<f32>();
    if is_in {
        x = load_x4(thread);
    }
    let mean = lanes_sum((x.x + x.y) + (x.z + x.w), N / 4u) / f32(N);
    let d = x - mean;
    let scale = 1.0 / sqrt(lanes_sum(dot(d, d), N / 4u) / f32(N) + eps);
    if is_in {
        let channel = thread % (heads * (N / 4u));
        store_y4(thread, d * scale * load_weight4(channel) + load_bias4(channel));
    }
}
