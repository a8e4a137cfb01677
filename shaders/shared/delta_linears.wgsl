// The body of delta_linears.wgsl; see there.
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
override GROUP0: u32;
override GROUP1: u32;
override GROUP2: u32;
override GROUP3: u32;
override GROUP4: u32;
const SUMS: u32 = ROWS + 2u;

// Which mixture a row of the weight takes.
fn mixture(row: u32) -> u32 {
    if row < END0 { return GROUP0; }
    if row < END1 { return GROUP1; }
    if row < END2 { return GROUP2; }
    if row < END3 { return GROUP3; }
    return GROUP4;
}

fn delta_linears(group: u32) {
    let first = group * ROWS;
    let rows = fetch_rows(first);
    let mixed = mixture(first) * C8;
    let last = min(load_places(0u), B - 1u) * C8;
    var x: Row;
#unroll n in CHUNKS
    let at${n} = eight(${n}u) * 2u;
    let x${n} = mat2x4<f32>(load_x4(at${n}), load_x4(at${n} + 1u));
    let last${n} = last * 2u + at${n};
    let towards${n} = mat2x4<f32>(load_last4(last${n}), load_last4(last${n} + 1u)) - x${n};
    let mixed${n} = mixed * 2u + at${n};
    let m${n}_0 = load_mu4(mixed${n}) + load_delta4(mixed${n});
    let m${n}_1 = load_mu4(mixed${n} + 1u) + load_delta4(mixed${n} + 1u);
    x[${n}] = mat2x4<f32>(x${n}[0] + towards${n}[0] * m${n}_0, x${n}[1] + towards${n}[1] * m${n}_1);
#end
    rows_of(rows, x);
    workgroupBarrier();
    if thread < ROWS && first + thread < O {
        store_y(first + thread, take(thread + 2u));
    }
}
