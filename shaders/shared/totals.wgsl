// Sums over a workgroup of THREADS threads, several at a time: every thread puts a value into each sum; after a
// barrier,
// whoever wants a sum takes it. Whoever imports this declares THREADS and SUMS, the number of sums between two uses of
// one, and sets `thread` before anything else.
var<workgroup> totals: array<f32, SUMS * THREADS>;
var<private> thread: u32;

fn put(sum: u32, value: f32) {
    totals[sum * THREADS + thread] = value;
}

fn take(sum: u32) -> f32 {
    var all = 0.0;
    for (var t = 0u; t < THREADS; t++) {
        all += totals[sum * THREADS + t];
    }
    return all;
}
