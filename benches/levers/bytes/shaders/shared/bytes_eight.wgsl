// Products of eight columns of a row of a weight, signed bytes in two words, lowest byte first, and eight of x.
//
// PACKED 1: x becomes bytes as well, the largest of the eight 127 or -127, so that four products are one operation;
// 0: bytes become floats and x stays as it is. Either way the row's scale is still to come.
override PACKED: u32;

// Eight columns of x: as they are, and as bytes with their scale. Which of the two is used PACKED says.
struct Eight { low: vec4<f32>, high: vec4<f32>, codes: vec2<u32>, scale: f32 }

fn eight_of(low: vec4<f32>, high: vec4<f32>) -> Eight {
    if PACKED == 0u { return Eight(low, high, vec2<u32>(), 1.0); }
    let four = max(abs(low), abs(high));
    let largest = max(max(four.x, four.y), max(four.z, four.w));
    // Zeros have no inverse, nor have the smallest numbers, which are as good as zeros.
    let inverse = select(0.0, 127.0 / largest, largest > 1e-30);
    let a = pack4xI8(vec4<i32>(round(low * inverse)));
    let b = pack4xI8(vec4<i32>(round(high * inverse)));
    return Eight(low, high, vec2<u32>(a, b), largest * (1.0 / 127.0));
}

fn product_of(w: vec2<u32>, x: Eight) -> f32 {
    if PACKED == 0u {
        return dot(vec4<f32>(unpack4xI8(w.x)), x.low) + dot(vec4<f32>(unpack4xI8(w.y)), x.high);
    }
    // At most 8 * 127 * 128: exact as a float.
    return f32(dot4I8Packed(w.x, x.codes.x) + dot4I8Packed(w.y, x.codes.y)) * x.scale;
}
