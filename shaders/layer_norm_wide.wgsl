// layer_norm.wgsl for long rows: with 64 threads, one row's workgroup takes longer than the matrices around it.
//
// x [T, C] read, weight [C] read, bias [C] read, y [T, C] written; bytes and formula as there.
const LANES: u32 = 256u;
#import "shared/layer_norm.wgsl"
