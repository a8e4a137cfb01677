// best[r, p] = the token with the largest of logits[r, 1024 p ..], the lowest of equals; NONE if none can be drawn
//
// logits [R, V] read, best [R, P] written; a workgroup per 1024 logits, so that the whole device reads a row.
// Bytes per row: 4 V read, 4 P written.
const LANES: u32 = 64u;
const CHUNK: u32 = 1024u;
#import "shared/drawable.wgsl"
override V: u32;
override P: u32;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * V;
    var found = Candidate(0u, NONE);
    for (var at = 0u; at < CHUNK; at += LANES) {
        let token = group.x * CHUNK + at + lane;
        if token < V {
            found = better(found, candidate(load_logits(row + token), token));
        }
    }
    found = workgroup_best(lane, found);
    if lane == 0u {
        store_best(group.y * P + group.x, found.token);
    }
}
