// EACH rows of a weight from `begin` on by the row of one token: row 8b + l of them in lane l of products[b]. Each lane
// holds a part of the row in registers while the weight's rows go by, one after the other. Whoever imports this imports
// octet.wgsl, and declares load_x4, load_weight8 and O, the number of rows; what lies beyond them is left out by eights,
// and computed from the last one.
override I: u32;
override EACH: u32;
override PARTS: u32;
override PART: u32;
const I8: u32 = max(I / 8u, 1u);
// Their index says a bound once more, as in linear_octet.wgsl.
var<private> products: array<f32, EACH / OCTET>;

fn octet_product(lane: u32, begin: u32) {
    for (var part = 0u; part < PARTS; part++) {
#unroll n in PART
        let eight${n} = lane + (part * PART + ${n}u) * OCTET;
        let at${n} = min(eight${n}, I8 - 1u);
        let a${n} = select(vec4<f32>(), load_x4(at${n} * 2u), eight${n} < I8);
        let b${n} = select(vec4<f32>(), load_x4(at${n} * 2u + 1u), eight${n} < I8);
#end
        for (var b = 0u; b < EACH / OCTET && begin + b * OCTET < O; b++) {
            var y = 0.0;
            for (var r = 0u; r < OCTET; r++) {
                let row = min(begin + b * OCTET + r, O - 1u) * I8;
                var sum = vec4<f32>();
#unroll n in PART
                let w${n} = load_weight8(row + at${n});
                sum += w${n}[0] * a${n} + w${n}[1] * b${n};
#end
                y = select(y, octet_sum((sum.x + sum.y) + (sum.z + sum.w)), lane == r);
            }
            products[min(b, EACH / OCTET - 1u)] += y;
        }
    }
}
