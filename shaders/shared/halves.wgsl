// Floats as sums of two halves, in tiles: of 16 tokens and 16 channels, the first halves, then the second ones, each
// token's in a run. So a cooperative matrix finds its 256 elements in one piece.

// The power of two by which numbers up to `largest` lie below 2^14, so that neither half overflows: its inverse, and
// itself. Exponents as floats have them: those of zeros and of the smallest numbers take the least that has an inverse.
fn to_halves(largest: f32) -> vec2<f32> {
    let exponent = max(bitcast<u32>(largest) >> 23u, 14u);
    return vec2(bitcast<f32>((267u - exponent) << 23u), bitcast<f32>((exponent - 13u) << 23u));
}

// The first half: by its bits, since drivers take what is packed and unpacked for unchanged.
fn first_half(x: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(x) & vec4(0xffffe000u));
}

// Where the first halves of four channels lie, in fours: those that are four times `four` and after of token `t`, of
// `width` channels in all. The second halves lie 64 fours further on.
fn halves_at(t: u32, four: u32, width: u32) -> u32 {
    return ((t / 16u * (width / 16u) + four / 4u) * 32u + t % 16u) * 4u + four % 4u;
}

// Eight halves that follow each other, as they lie in memory.
fn eight_halves(low: vec4<f32>, high: vec4<f32>) -> vec4<u32> {
    return vec4(pack2x16float(low.xy), pack2x16float(low.zw), pack2x16float(high.xy), pack2x16float(high.zw));
}
