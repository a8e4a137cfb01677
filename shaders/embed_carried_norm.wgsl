// y = layer_norm(table[token]): token is tokens[0], or next[places[0]] where that is CARRIED
//
// for one token. tokens [1], next [B] and places [1] read, table [V, C] read, ln_weight and ln_bias [C] read, y [1, C]
// written; one workgroup.
// Bytes: C of the table's format, 4 C written, weight and bias. This is the variant that every device can run.
#import "shared/carried_token.wgsl"
#import "shared/embed_norm.wgsl"
#import "shared/totals.wgsl"
#import "shared/norm_row.wgsl"

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) index: u32) {
    thread = index;
    embed_norm();
}
