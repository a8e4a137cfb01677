// wkv6.wgsl with key channels taken four at a time; N is a multiple of four.
//
// state [B, H, N, N] read and written, time_first [H, N] read, r, w, k, v [T, H N] read, offsets [S + 1] read, places
// [S] read,
// y [T, H N] written; bytes, formula and dispatch as there.
#import "shared/wkv5_by_fours.wgsl"

fn prepare(h: u32, j: u32) {}
fn decay4(t: u32, c: u32, i: u32) -> vec4<f32> { return load_w4(t * H * N4 + c); }
fn first4(c: u32, i: u32) -> vec4<f32> { return load_time_first4(c); }
