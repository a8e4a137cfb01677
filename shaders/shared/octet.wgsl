// What eight lanes do together that are a whole workgroup and a whole subgroup: sums without barriers and workgroup
// memory. Software drivers run such a workgroup from its begin to its end, without interruption.
const OCTET: u32 = 8u;

// The sum over all lanes, in every lane.
fn octet_sum(value: f32) -> f32 {
    let two = value + subgroupShuffleXor(value, 1u);
    let four = two + subgroupShuffleXor(two, 2u);
    return four + subgroupShuffleXor(four, 4u);
}

// Halves of two sums over lanes that differ in one bit of their number: a's where it is 0, b's where it is 1.
fn octet_pair(lane: u32, bit: u32, a: f32, b: f32) -> f32 {
    let is_b = (lane & bit) != 0u;
    return select(a, b, is_b) + subgroupShuffleXor(select(b, a, is_b), bit);
}

// Eight sums over all lanes, one a lane.
fn octet_sums(lane: u32, v: mat2x4<f32>) -> f32 {
    let v01 = octet_pair(lane, 1u, v[0].x, v[0].y);
    let v23 = octet_pair(lane, 1u, v[0].z, v[0].w);
    let v45 = octet_pair(lane, 1u, v[1].x, v[1].y);
    let v67 = octet_pair(lane, 1u, v[1].z, v[1].w);
    return octet_pair(lane, 4u, octet_pair(lane, 2u, v01, v23), octet_pair(lane, 2u, v45, v67));
}
