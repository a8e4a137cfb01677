// linear.wgsl for one token, by eight lanes that are a workgroup and a subgroup; I is a multiple of eight.
//
// x [1, I] read, weight [O, I] read, y [1, O] written; a workgroup per EACH rows of the weight; bytes and formula as
// there.
enable subgroups;
override O: u32;
// Workgroups lie along x, and where those are too many for one direction, in several layers along z.
const LAYERS: u32 = (O + 65535u * EACH - 1u) / (65535u * EACH);
const ACROSS: u32 = ((O + EACH - 1u) / EACH + LAYERS - 1u) / LAYERS;
#import "shared/octet.wgsl"
#import "shared/octet_product.wgsl"

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let begin = (group.z * ACROSS + group.x) * EACH;
    octet_product(lane, begin);
    for (var b = 0u; b < EACH / OCTET; b++) {
        let o = begin + b * OCTET + lane;
        if o < O {
            store_y(o, products[b]);
        }
    }
}
