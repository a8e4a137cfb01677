// The body of embed_norm.wgsl and embed_carried_norm.wgsl; see there. Whoever imports this declares first_token().
override V: u32;
override C: u32;
override THREADS: u32;
override CHUNKS: u32;
override eps: f32;
const SUMS: u32 = 2u;
var<private> token: u32;

fn row4(i: u32) -> vec4<f32> {
    return load_table4(token * (C / 4u) + i);
}

fn embed_norm() {
    token = min(first_token(), V - 1u);
    let x = norm_row();
#unroll n in CHUNKS
    if has_eight(${n}u) {
        store_y4(eight(${n}u) * 2u, x[${n}][0]);
        store_y4(eight(${n}u) * 2u + 1u, x[${n}][1]);
    }
#end
}
