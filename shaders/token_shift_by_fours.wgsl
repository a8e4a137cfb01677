// y[t] = x[t - 1], or last[places[s]] if t is the first token of sequence s, or 0 if t is padding
//
// C is a multiple of four.
// x [T, C] read, last [B, C] read, offsets [S + 1] read, places [S] read, y [T, C] written; a thread per four elements.
// Bytes per token: 4 C read, 4 C written. Source: RWKV-LM, RWKV-v7/rwkv_v7_demo.py, `time_shift`.
#import "shared/sequence.wgsl"
override C: u32;
override S: u32;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.x;
    let t = id.y;
    if c >= C / 4u {
        return;
    }
    let at = position(t, S);
    if at.is_padding {
        store_y4(t * (C / 4u) + c, vec4<f32>());
    } else if at.is_first {
        store_y4(t * (C / 4u) + c, load_last4(load_places(at.sequence) * (C / 4u) + c));
    } else {
        store_y4(t * (C / 4u) + c, load_x4((t - 1u) * (C / 4u) + c));
    }
}
