// The body of mixed_linears.wgsl; see there.
override C: u32;
override O: u32;
override ROWS: u32;
override THREADS: u32;
override END0: u32;
override END1: u32;
override END2: u32;
override END3: u32;
override END4: u32;
override END5: u32;
override MU1: u32;
override MU2: u32;
override MU3: u32;
override MU4: u32;
override MU5: u32;
override MU6: u32;
override eps: f32;
const SUMS: u32 = ROWS + 2u;

// Which mixing vector a row of the weight takes.
fn mixing(row: u32) -> u32 {
    if row < END0 { return 0u; }
    if row < END1 { return MU1; }
    if row < END2 { return MU2; }
    if row < END3 { return MU3; }
    if row < END4 { return MU4; }
    if row < END5 { return MU5; }
    return MU6;
}

fn mixed_linears(group: u32) {
    let first = group * ROWS;
    norm_row();
    let mu = mixing(first) * C8;
    let last = load_places(0u) * C8;
    for (var n = 0u; n < CHUNKS; n++) {
        let at = thread + n * THREADS;
        if at < C8 {
            if group == 0u {
                store_ln4(at * 2u, x[n][0]);
                store_ln4(at * 2u + 1u, x[n][1]);
            }
            let before = mat2x4<f32>(load_last4((last + at) * 2u), load_last4((last + at) * 2u + 1u));
            let m = mat2x4<f32>(load_mu4((mu + at) * 2u), load_mu4((mu + at) * 2u + 1u));
            x[n] = mat2x4<f32>(x[n][0] + (before[0] - x[n][0]) * m[0], x[n][1] + (before[1] - x[n][1]) * m[1]);
        }
    }
    rows_of(first);
    workgroupBarrier();
    if thread < ROWS && first + thread < O {
        store_y(first + thread, take(thread + 2u));
    }
}
