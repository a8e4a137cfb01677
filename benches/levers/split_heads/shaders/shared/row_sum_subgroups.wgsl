// row_sum.wgsl by subgroups, which have ROW_THREADS lanes or more: 4, 8 or 16.
#import "shared/quad_sum_subgroups.wgsl"

fn row_sum(value: f32) -> f32 {
    var sum = quad_sum(value);
    if ROW_THREADS >= 8u {
        sum += subgroupShuffleXor(sum, 4u);
    }
    if ROW_THREADS >= 16u {
        sum += subgroupShuffleXor(sum, 8u);
    }
    return sum;
}
