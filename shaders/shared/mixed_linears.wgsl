// The body of mixed_linears.wgsl; see there.
override C: u32;
override O: u32;
override B: u32;
override ROWS: u32;
override THREADS: u32;
override CHUNKS: u32;
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
override FROM_LAST: u32;
override eps: f32;
const SUMS: u32 = ROWS + 2u;

fn row4(i: u32) -> vec4<f32> {
    return load_x4(i);
}

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

fn mixed(x: vec4<f32>, before: vec4<f32>, m: vec4<f32>) -> vec4<f32> {
    if FROM_LAST == 1u { return before + (x - before) * m; }
    return x + (before - x) * m;
}

fn mixed_linears(group: u32) {
    let first = group * ROWS;
    let rows = fetch_rows(first);
    let mu = mixing(first) * C8;
    let last = min(load_places(0u), B - 1u) * C8;
#unroll n in CHUNKS
    let last${n} = (last + eight(${n}u)) * 2u;
    let before${n} = mat2x4<f32>(load_last4(last${n}), load_last4(last${n} + 1u));
    let mu${n} = (mu + eight(${n}u)) * 2u;
    let m${n} = mat2x4<f32>(load_mu4(mu${n}), load_mu4(mu${n} + 1u));
#end
    var x = norm_row();
#unroll n in CHUNKS
    if group == 0u && has_eight(${n}u) {
        store_ln4(eight(${n}u) * 2u, x[${n}][0]);
        store_ln4(eight(${n}u) * 2u + 1u, x[${n}][1]);
    }
    let x${n} = x[${n}];
    x[${n}] = mat2x4<f32>(mixed(x${n}[0], before${n}[0], m${n}[0]), mixed(x${n}[1], before${n}[1], m${n}[1]));
#end
    rows_of(rows, x);
    workgroupBarrier();
    if thread < ROWS && first + thread < O {
        store_y(first + thread, take(thread + 2u));
    }
}
