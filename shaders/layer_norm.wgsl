// y[t] = (x[t] - mean) / sqrt(variance + eps) * weight + bias, mean and population variance over the C channels
//
// x [T, C] read, weight [C] read, bias [C] read, y [T, C] written; a workgroup per row.
// Bytes per token: 12 C read, 4 C written, and weight and bias. Source: Ba et al., "Layer Normalization", 2016, eq. 4.
const LANES: u32 = 64u;
#import "shared/layer_norm.wgsl"
