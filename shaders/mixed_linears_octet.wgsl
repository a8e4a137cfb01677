// mixed_linears.wgsl by eight lanes that are a workgroup and a subgroup: each workgroup normalizes the row for itself,
// mixes it anew where the mixing vector changes and keeps it in registers, for the EACH rows of the weight that it
// takes.
//
// x [1, C] read, ln_weight and ln_bias [C] read, last [B, C] read, places [1] read, mu [M, C] read, weight [O, C] read,
// y [O] written, ln [1, C] written; bytes and formula as there. Mixing vectors change at multiples of eight rows.
enable subgroups;
override C: u32;
override O: u32;
override B: u32;
override EACH: u32;
override eps: f32;
override END0: u32;
override END1: u32;
override END2: u32;
override END3: u32;
override END4: u32;
override END5: u32;
override MU1: u32;
override MU2: u32;
override MU3: u32;
override MU4: u32;
override MU5: u32;
override MU6: u32;
override FROM_LAST: u32;
#import "shared/octet.wgsl"
#import "shared/octet_norm.wgsl"
#import "shared/octet_rows.wgsl"

fn row4(i: u32) -> vec4<f32> {
    return load_x4(i);
}

// Which mixing vector a row of the weight takes.
fn mixing(row: u32) -> u32 {
    if row < END0 { return 0u; }
    if row < END1 { return MU1; }
    if row < END2 { return MU2; }
    if row < END3 { return MU3; }
    if row < END4 { return MU4; }
    if row < END5 { return MU5; }
    return MU6;
}

fn mixture(x: vec4<f32>, before: vec4<f32>, m: vec4<f32>) -> vec4<f32> {
    if FROM_LAST == 1u { return before + (x - before) * m; }
    return x + (before - x) * m;
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let x = octet_norm(lane);
    let last = min(load_places(0u), B - 1u) * C8;
    var mixed: Row;
#unroll n in ceil_div(C, 64)
    if group.x == 0u && has_eight(lane, ${n}u) {
        store_ln4(eight(lane, ${n}u) * 2u, x[${n}][0]);
        store_ln4(eight(lane, ${n}u) * 2u + 1u, x[${n}][1]);
    }
    let last${n} = (last + eight(lane, ${n}u)) * 2u;
    let before${n} = mat2x4<f32>(load_last4(last${n}), load_last4(last${n} + 1u));
#end
    let end = min((group.x + 1u) * EACH, O);
    var mu = 0xffffffffu;
    for (var first = group.x * EACH; first < end; first += OCTET) {
        let wanted = mixing(first);
        if wanted != mu {
            mu = wanted;
#unroll n in ceil_div(C, 64)
            let m${n} = (mu * C8 + eight(lane, ${n}u)) * 2u;
            let a${n} = mixture(x[${n}][0], before${n}[0], load_mu4(m${n}));
            let b${n} = mixture(x[${n}][1], before${n}[1], load_mu4(m${n} + 1u));
            mixed[${n}][0] = select(vec4<f32>(), a${n}, has_eight(lane, ${n}u));
            mixed[${n}][1] = select(vec4<f32>(), b${n}, has_eight(lane, ${n}u));
#end
        }
        let y = octet_rows(lane, first, mixed);
        if first + lane < end {
            store_y(first + lane, y);
        }
    }
}
