// The body of norm_linear.wgsl; see there.
override C: u32;
override O: u32;
override ROWS: u32;
override THREADS: u32;
override CHUNKS: u32;
override eps: f32;
const SUMS: u32 = ROWS + 2u;

fn row4(i: u32) -> vec4<f32> {
    return load_x4(i);
}

fn norm_linear(group: u32) {
    let rows = fetch_rows(group * ROWS);
    rows_of(rows, norm_row());
    workgroupBarrier();
    if thread < ROWS && group * ROWS + thread < O {
        store_y(group * ROWS + thread, take(thread + 2u));
    }
}
