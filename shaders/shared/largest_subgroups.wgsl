// largest.wgsl by subgroups; goes with totals_subgroups.wgsl.
fn put_largest(sum: u32, value: f32) {
    let all = subgroupMax(value);
    if lane == 0u {
        totals[sum * ((THREADS + 3u) / 4u) + subgroup] = all;
    }
}

fn take_largest(sum: u32) -> f32 {
    let first = sum * ((THREADS + 3u) / 4u);
    var all = totals[first];
    for (var s = 1u; s < subgroups; s++) {
        all = max(all, totals[first + s]);
    }
    return all;
}
