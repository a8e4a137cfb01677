// y[r, c] = x[rows[r], c]
//
// x [T, C] read, rows [R] read, y [R, C] written; a thread per element. Bytes per row: 4 C read, 4 C written.
override T: u32;
override C: u32;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.x;
    let r = id.y;
    if c >= C {
        return;
    }
    let row = min(load_rows(r), T - 1u);
    store_y(r * C + c, load_x(row * C + c));
}
