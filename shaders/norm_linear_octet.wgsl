// norm_linear.wgsl by eight lanes that are a workgroup and a subgroup: each workgroup normalizes the row for itself and
// keeps it in registers, for the EACH rows of the weight that it takes.
//
// x [1, C] read, ln_weight and ln_bias [C] read, weight [O, C] read, y [1, O] written; bytes and formula as there.
enable subgroups;
override C: u32;
override O: u32;
override EACH: u32;
override eps: f32;
#import "shared/octet.wgsl"
#import "shared/octet_norm.wgsl"
#import "shared/octet_rows.wgsl"

fn row4(i: u32) -> vec4<f32> {
    return load_x4(i);
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let x = octet_norm(lane);
    let end = min((group.x + 1u) * EACH, O);
    for (var first = group.x * EACH; first < end; first += OCTET) {
        let y = octet_rows(lane, first, x);
        if first + lane < end {
            store_y(first + lane, y);
        }
    }
}
