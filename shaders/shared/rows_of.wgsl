// ROWS rows of a weight by a row that norm_row.wgsl left: fetch_rows asks for them, before the norm, so that they are
// on
// their way meanwhile; rows_of puts row r into sum r + 2, for whoever wants it after a barrier. The weight has O rows;
// what lies beyond them is computed from the last one.
alias Rows = array<mat2x4<f32>, ROWS * CHUNKS>;

fn fetch_rows(first: u32) -> Rows {
    var rows: Rows;
#unroll r in ROWS
    let row${r} = min(first + ${r}u, O - 1u) * C8;
#unroll n in CHUNKS
    rows[${r} * CHUNKS + ${n}] = load_weight8(row${r} + eight(${n}u));
#end
#end
    return rows;
}

fn rows_of(rows: Rows, x: Row) {
    var sum: f32;
#unroll r in ROWS
    sum = 0.0;
#unroll n in CHUNKS
    let w${r}_${n} = rows[${r} * CHUNKS + ${n}];
    sum += select(0.0, dot(w${r}_${n}[0], x[${n}][0]) + dot(w${r}_${n}[1], x[${n}][1]), has_eight(${n}u));
#end
    put(${r}u + 2u, sum);
#end
}
