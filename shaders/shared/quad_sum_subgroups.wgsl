// quad_sum.wgsl by subgroups, which have four lanes or more.
fn quad_sum(value: f32) -> f32 {
    let two = value + subgroupShuffleXor(value, 1u);
    return two + subgroupShuffleXor(two, 2u);
}
