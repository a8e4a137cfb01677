// A row of C elements that a workgroup's threads hold in eights: thread t has eights t, t + THREADS, .... Whoever
// imports this declares C, THREADS, CHUNKS, how many eights a thread has, and sets `thread` before anything else.
const C8: u32 = max(C / 8u, 1u);
alias Row = array<mat2x4<f32>, CHUNKS>;

// Whether this thread has an eight of this number, and which one; one that there is if not.
fn has_eight(n: u32) -> bool {
    return thread + n * THREADS < C8;
}

fn eight(n: u32) -> u32 {
    return min(thread + n * THREADS, C8 - 1u);
}
