// bonus.wgsl with a lane per four channels: N is four times a power of two that subgroups are a multiple of.
//
// r_k [H, N] read, r, k, v [T, H N] read, y [T, H N] written. Bytes per token: 12 C read, 4 C written, and r_k.
enable subgroups;
#import "shared/lanes.wgsl"
const THREADS: u32 = 256u;
override T: u32;
override H: u32;
override N: u32;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) lanes: u32,
    @builtin(subgroup_invocation_id) invocation: u32,
) {
    let thread = group.x * THREADS + subgroup * lanes + invocation;
    let is_in = thread < T * H * (N / 4u);
    var part = 0.0;
    if is_in {
        part = dot(load_r4(thread) * load_k4(thread), load_r_k4(thread % (H * (N / 4u))));
    }
    let scale = lanes_sum(part, N / 4u);
    if is_in {
        store_y4(thread, scale * load_v4(thread));
    }
}
