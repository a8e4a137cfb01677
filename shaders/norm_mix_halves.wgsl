// ln        = layer_norm(x)
// mixed[m]  = ln + (before - ln) mu[m], before being ln of the token before, or last[places[s]] at the first token of
//             sequence s, or 0 of padding
// scale[m, t], halves[2 m, t], halves[2 m + 1, t] = what split_halves.wgsl makes of mixed[m, t], in its tiles
//
// x [T, C] read, ln_weight and ln_bias [C] read, last [B, C] read, offsets [S + 1] and places [S] read, mu [M, C] read,
// halves [2 M, T, C] written, scale [M T, 1] written, ln [T, C] written; T and C multiples of 16. A workgroup per token
// computes the norm of two rows, since that is cheaper than waiting for another dispatch.
// Bytes per token: 8 C read, 4 M C + 4 C written.
// This is the variant that every device can run.
#import "shared/norm_mix_halves.wgsl"
#import "shared/sequence.wgsl"
#import "shared/totals.wgsl"
#import "shared/largest.wgsl"
#import "shared/halves.wgsl"

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    thread = index;
    norm_mix_halves(group.x);
}
