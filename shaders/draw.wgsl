// y[r] = next[places[r]] = a token drawn by logits[r], for every sequence r that has tokens
//
// logits [R, V] read, best [R, P] read (what best_tokens finds), rules [7 R] read (base::role::InputRole::DrawRules),
// offsets [R + 1] read, places [R] read, next [B] written, y [R] written; a workgroup per row, which is a sequence.
// Bytes per row: 4 P read at a temperature of 0, else about 20 times 4 V, from a cache.
const LANES: u32 = 64u;
#import "shared/draw.wgsl"
