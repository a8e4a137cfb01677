// Eight rows of a weight from `first` on by a row that octet_norm.wgsl left, one a lane. Rows are read one after the
// other. The weight has O rows; what lies beyond them is computed from the last one.
fn octet_rows(lane: u32, first: u32, x: Row) -> f32 {
    var y = 0.0;
    for (var r = 0u; r < OCTET; r++) {
        let row = min(first + r, O - 1u) * C8;
        var sum = vec4<f32>();
#unroll n in ceil_div(C, 64)
        let w${n} = load_weight8(row + eight(lane, ${n}u));
        sum += w${n}[0] * x[${n}][0] + w${n}[1] * x[${n}][1];
#end
        y = select(y, octet_sum((sum.x + sum.y) + (sum.z + sum.w)), lane == r);
    }
    return y;
}
