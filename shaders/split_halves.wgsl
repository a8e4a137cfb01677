// scale[t]  = the power of two by which the largest |x[t]| lies between 2^13 and 2^14
// halves[0, t] = x[t] / scale[t] cut to half precision, halves[1, t] = what that leaves, in half precision
//
// so that x = (halves[0, t] + halves[1, t]) scale[t] to some 21 bits, and neither overflows. Both lie in tiles, as
// shared/halves.wgsl says.
// x [T, I] read, halves [2, T, I] written, scale [T, 1] written; a workgroup per token, T and I multiples of 16.
// Bytes per token: 4 I read twice, 4 I written.
#import "shared/halves.wgsl"
const LANES: u32 = 256u;
override I: u32;
const I4: u32 = max(I / 4u, 1u);
var<workgroup> largest: array<f32, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.x * I4;
    var most = 0.0;
    for (var i = lane; i < I4; i += LANES) {
        let a = abs(load_x4(row + i));
        most = max(most, max(max(a.x, a.y), max(a.z, a.w)));
    }
    largest[lane] = most;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            largest[lane] = max(largest[lane], largest[lane + half]);
        }
    }
    workgroupBarrier();
    let factors = to_halves(largest[0]);
    for (var i = lane; i < I4; i += LANES) {
        let x = load_x4(row + i) * factors.x;
        let first = first_half(x);
        let at = halves_at(group.x, i, I);
        store_halves4(at, first);
        store_halves4(at + 64u, x - first);
    }
    if lane == 0u {
        store_scale(group.x, factors.y);
    }
}
