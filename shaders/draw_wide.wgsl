// draw.wgsl for workgroups of 256 threads, where there are many logits: y[r] = next[places[r]] = a token drawn by
// logits[r]; best, rules and offsets as there.
const LANES: u32 = 256u;
#import "shared/draw.wgsl"
