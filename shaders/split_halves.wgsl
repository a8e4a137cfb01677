// scale[t]  = the power of two by which the largest |x[t]| lies between 2^13 and 2^14
// halves[0, t] = x[t] / scale[t] cut to half precision, halves[1, t] = what that leaves, in half precision
//
// so that x = (halves[0, t] + halves[1, t]) scale[t] to some 21 bits, and neither overflows.
// x [T, I] read, halves [2, T, I] written, scale [T, 1] written; a workgroup per token, I a multiple of four.
// Bytes per token: 4 I read twice, 4 I written.
const LANES: u32 = 256u;
override T: u32;
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
    // Exponents as floats have them: those of zeros and of the smallest numbers take the least that has an inverse.
    let exponent = max(bitcast<u32>(largest[0]) >> 23u, 14u);
    let factor = bitcast<f32>((267u - exponent) << 23u);
    for (var i = lane; i < I4; i += LANES) {
        let x = load_x4(row + i) * factor;
        // By its bits: drivers take what is packed and unpacked for unchanged.
        let high = bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) & vec4(0xffffe000u));
        store_halves4(row + i, high);
        store_halves4(T * I4 + row + i, x - high);
    }
    if lane == 0u {
        store_scale(group.x, bitcast<f32>((exponent - 13u) << 23u));
    }
}
