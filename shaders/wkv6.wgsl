// y[j]    = sum_i r[i] (S[i, j] + u[i] k[i] v[j])              with u = time_first
// S[i, j] = S[i, j] w[t, i] + k[i] v[j]
//
// for each head, token t after token; i is a key channel, j a value channel.
//
// state [B, H, N, N] read and written, time_first [H, N] read, r, w, k, v [T, H N] read, offsets [S + 1] read, places
// [S] read,
// y [T, H N] written; a workgroup per head and sequence, a thread per column of the state, which stays in registers for
// the whole step. Bytes per sequence: 8 N C for the state; per token 16 C read, 4 C written, and
// time_first. Source: Peng et al., "Eagle and Finch", 2024, section 4.
#import "shared/wkv5.wgsl"

fn prepare(h: u32, j: u32) {}
fn decay(t: u32, c: u32, i: u32) -> f32 { return load_w(t * H * N + c); }
fn first(c: u32, i: u32) -> f32 { return load_time_first(c); }
