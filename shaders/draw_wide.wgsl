// draw.wgsl for workgroups of 256 threads: where there are many logits; see there.
const LANES: u32 = 256u;
#import "shared/draw.wgsl"
