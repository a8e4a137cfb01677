// ROWS rows of a weight by the row x that norm_row.wgsl left in the threads; whoever wants row r takes sum r + 2 after a
// barrier. The weight has O rows; what lies beyond them is computed from the last one.
fn rows_of(first: u32) {
    for (var r = 0u; r < ROWS; r++) {
        let row = min(first + r, O - 1u) * C8;
        var sum = 0.0;
        for (var n = 0u; n < CHUNKS; n++) {
            let at = thread + n * THREADS;
            if at < C8 {
                let w = load_weight8(row + at);
                sum += dot(w[0], x[n][0]) + dot(w[1], x[n][1]);
            }
        }
        put(r + 2u, sum);
    }
}
