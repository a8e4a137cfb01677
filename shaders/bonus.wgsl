// y[t, h, i] = (sum_j r[t, h, j] k[t, h, j] r_k[h, j]) v[t, h, i]
//
// r_k [H, N] read, r, k, v [T, H N] read, y [T, H N] written; a workgroup per head and token.
// Bytes per token: 12 C read, 4 C written, and r_k. Source: Peng et al., "RWKV-7", 2025, eq. 20.
#import "shared/sum.wgsl"
const LANES: u32 = 64u;
override T: u32;
override H: u32;
override N: u32;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let channel = group.x * N;
    let head = group.y * H * N + channel;
    var sum = 0.0;
    for (var n = lane; n < N; n += LANES) {
        sum += load_r(head + n) * load_k(head + n) * load_r_k(channel + n);
    }
    let scale = workgroup_sum(lane, sum);
    for (var n = lane; n < N; n += LANES) {
        store_y(head + n, scale * load_v(head + n));
    }
}
