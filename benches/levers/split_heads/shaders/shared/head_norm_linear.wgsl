// The body of head_norm_linear.wgsl; see there.
override C: u32;
override O: u32;
override N: u32;
override ROWS: u32;
override THREADS: u32;
override CHUNKS: u32;
override gn_eps: f32;
const SUMS: u32 = ROWS + 2u;

fn head_norm_linear(group: u32) {
    let rows = fetch_rows(group * ROWS);
    rows_of(rows, head_norm());
    workgroupBarrier();
    if thread < ROWS && group * ROWS + thread < O {
        store_y(group * ROWS + thread, take(thread + 2u));
    }
}
