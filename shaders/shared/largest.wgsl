// Largest values over a workgroup, in the same memory as the sums of totals.wgsl and put and taken as they are. Whoever
// imports this imports that first.
fn put_largest(sum: u32, value: f32) {
    totals[sum * THREADS + thread] = value;
}

fn take_largest(sum: u32) -> f32 {
    var all = totals[sum * THREADS];
    for (var t = 1u; t < THREADS; t++) {
        all = max(all, totals[sum * THREADS + t]);
    }
    return all;
}
