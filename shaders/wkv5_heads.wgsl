// wkv5.wgsl with w[i] = exp(-exp(time_decay[h])) and u[i] = time_first[h], or its exponential, for all channels i of
// head
// h
//
// state [B, H, N, N] read and written, time_decay, time_first [H] read, r, k, v [T, H N] read, offsets [S + 1] read,
// places [S] read, y [T, H N] written; bytes and dispatch as there, but for the weights, of which a workgroup reads one
// each. Source: RWKV-LM, RWKV-v5/src/model.py, `RWKV_TimeMix_RWKV5`.
#import "shared/wkv5.wgsl"
override exp_first: u32;
var<workgroup> head_decay: f32;
var<workgroup> head_first: f32;

fn prepare(h: u32, j: u32) {
    if j == 0u {
        let stored = load_time_first(h);
        head_decay = exp(-exp(load_time_decay(h)));
        head_first = select(stored, exp(stored), exp_first != 0u);
    }
    workgroupBarrier();
}
fn decay(t: u32, c: u32, i: u32) -> f32 { return head_decay; }
fn first(c: u32, i: u32) -> f32 { return head_first; }
