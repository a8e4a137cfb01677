// linear_keep.wgsl by eight lanes that are a workgroup and a subgroup.
//
// x [1, I] read, weight [C, I] read, ln [1, C] read, last [B, C] written, offsets [2] and places [1] read, y [1, C]
// written; a workgroup per EACH rows of the weight; bytes and formula as there.
enable subgroups;
override B: u32;
override C: u32;
// Of the variants for wide subgroups.
const O: u32 = C;
#import "shared/octet.wgsl"
#import "shared/octet_product.wgsl"

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let begin = group.x * EACH;
    octet_product(lane, begin);
    // Padding belongs to no sequence and changes none.
    let is_padding = load_offsets(0u) == load_offsets(1u);
    let place = min(load_places(0u), B - 1u) * C;
    for (var b = 0u; b < EACH / OCTET; b++) {
        let o = begin + b * OCTET + lane;
        if o < C {
            store_y(o, products[b]);
            if !is_padding {
                store_last(place + o, load_ln(o));
            }
        }
    }
}
