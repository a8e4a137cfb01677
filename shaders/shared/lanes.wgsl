// The sum over each run of `count` lanes, a power of two that a subgroup is a multiple of; every lane gets it. To be
// called where all lanes of the subgroup are.
fn lanes_sum(value: f32, count: u32) -> f32 {
    var sum = value;
    for (var distance = 1u; distance < count; distance *= 2u) {
        sum += subgroupShuffleXor(sum, distance);
    }
    return sum;
}

// A thread's number in its workgroup, such that a subgroup's follow each other.
fn thread_of(subgroup: u32, lanes: u32, invocation: u32) -> u32 {
    return subgroup * lanes + invocation;
}
