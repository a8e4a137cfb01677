// totals.wgsl by subgroups, which are taken to be full: `thread` counts them one after the other, whatever order the
// device puts threads into them. Subgroups have four lanes or more.
var<workgroup> totals: array<f32, SUMS * (THREADS + 3u) / 4u>;
var<private> thread: u32;
var<private> subgroup: u32;
var<private> subgroups: u32;
var<private> lane: u32;

fn put(sum: u32, value: f32) {
    let all = subgroupAdd(value);
    if lane == 0u {
        totals[sum * ((THREADS + 3u) / 4u) + subgroup] = all;
    }
}

fn take(sum: u32) -> f32 {
    var all = 0.0;
    for (var s = 0u; s < subgroups; s++) {
        all += totals[sum * ((THREADS + 3u) / 4u) + s];
    }
    return all;
}
