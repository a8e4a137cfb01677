// rows_of.wgsl for a weight of signed bytes: fetch_rows asks for ROWS rows and their scales, before the norm, so that
// they are on their way meanwhile; rows_of makes bytes of its eights of x, once for all rows, and puts row r into sum
// r + 2, for whoever wants it after a barrier. The weight has O rows; what lies beyond them is computed from the last.
#import "shared/bytes_eight.wgsl"
// Scales of a row, one for 128 columns.
const BLOCKS: u32 = (C + 127u) / 128u;
struct Coded { codes: vec2<u32>, scale: f32 }
alias Rows = array<Coded, ROWS * CHUNKS>;

fn fetch_rows(first: u32) -> Rows {
    var rows: Rows;
#unroll r in ROWS
    let row${r} = min(first + ${r}u, O - 1u);
#unroll n in CHUNKS
    rows[${r} * CHUNKS + ${n}].codes = bitcast<vec2<u32>>(load_codes2(row${r} * C8 + eight(${n}u)));
    rows[${r} * CHUNKS + ${n}].scale = load_scales(row${r} * BLOCKS + eight(${n}u) / 16u);
#end
#end
    return rows;
}

fn rows_of(rows: Rows, x: Row) {
#unroll n in CHUNKS
    let x${n} = eight_of(x[${n}][0], x[${n}][1]);
#end
    var sum: f32;
#unroll r in ROWS
    sum = 0.0;
#unroll n in CHUNKS
    let w${r}_${n} = rows[${r} * CHUNKS + ${n}];
    sum += select(0.0, product_of(w${r}_${n}.codes, x${n}) * w${r}_${n}.scale, has_eight(${n}u));
#end
    put(${r}u + 2u, sum);
#end
}
