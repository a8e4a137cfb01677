// sums[p B + b, l] = sum over r of x[b, 4 (r LANES + l) .. + 4], for every pass p
//
// x [B, N] read, sums [passes B, LANES] written; a workgroup per block of N elements and pass, all loads of a workgroup
// side by side. N is a multiple of 4 LANES. Passes come one after the other, so that a block has left the caches when
// it
// is read again, if all of x is larger than they are.
// Bytes per pass: 4 B N read, 4 B LANES written. Source: none; a streaming read, to measure the device by.
override B: u32;
override N: u32;
override LANES: u32;
override READS: u32;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = group.x * (N / 4u) + lane;
    var sum = vec4<f32>();
    for (var r = 0u; r < READS; r++) {
        sum += load_x4(first + r * LANES);
    }
    store_sums((group.y * B + group.x) * LANES + lane, sum.x + sum.y + sum.z + sum.w);
}
