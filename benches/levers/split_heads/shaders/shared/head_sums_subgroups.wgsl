// head_sums.wgsl by subgroups: N / 8 is a power of two, and a subgroup has as many lanes or more. Which sum it is does
// not matter here. Behind the last eight lie whole heads that nobody takes.
const HEAD8: u32 = N / 8u;

fn head_sums(sum: u32, values: Eights) -> Eights {
    var sums = values;
#unroll n in CHUNKS
#unroll s in 5
    if HEAD8 > (1u << ${s}u) {
        sums[${n}] += subgroupShuffleXor(sums[${n}], 1u << ${s}u);
    }
#end
#end
    return sums;
}
