// y = x columns, last = ln
//
// for one token whose x has zeros, as a squared relu leaves them: rows of the weight that would be times zero are not
// read. What they hold is taken to be finite.
// x [1, I] read, columns [I, C] read, ln [1, C] read, last [B, C] written, offsets [2] and places [1] read, y [1, C]
// written; a workgroup per 32 columns. Bytes: C of the weight's format for each x that is not zero.
// This is the variant that every device can run.
override B: u32;
override C: u32;
override I: u32;
override STEPS: u32;
override ROWS: u32;
override LANES: u32;
override THREADS: u32;
const C8: u32 = C / 8u;
const ACROSS: u32 = 4u;
const SIZE: u32 = 256u;
var<workgroup> sums: array<mat2x4<f32>, SIZE>;

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let at = min(group.x * ACROSS + thread % ACROSS, max(C8, 1u) - 1u);
    var sum = mat2x4<f32>();
    for (var i = thread / ACROSS; i < I; i += SIZE / ACROSS) {
        let x = load_x(i);
        if x != 0.0 {
            sum += x * load_columns8(i * C8 + at);
        }
    }
    sums[thread] = sum;
    for (var half = SIZE / 2u; half >= ACROSS; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            sums[thread] += sums[thread + half];
        }
    }
    workgroupBarrier();
    let o = group.x * ACROSS * 8u + thread;
    if thread < ACROSS * 8u && o < C {
        store_y(o, sums[thread / 8u][thread / 4u % 2u][thread % 4u]);
        // Padding belongs to no sequence and changes none.
        if load_offsets(0u) != load_offsets(1u) {
            store_last(min(load_places(0u), B - 1u) * C + o, load_ln(o));
        }
    }
}
