// y[t, c] = table[token, c]: token is tokens[t], or next[places[s]] where t, of sequence s, is CARRIED
//
// tokens [T] read, next [B] read, offsets [S + 1] read, places [S] read, table [V, C] read, y [T, C] written; a thread
// per element, a row of workgroups per token. Bytes per token: C of the table's format, 4 C written.
#import "shared/sequence.wgsl"
override V: u32;
override C: u32;
override S: u32;

// base::role::CARRIED: no vocabulary has it.
const CARRIED: u32 = 0xffffffffu;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.x;
    let t = id.y;
    if c >= C {
        return;
    }
    var token = load_tokens(t);
    if token == CARRIED {
        token = load_next(load_places(position(t, S).sequence));
    }
    token = min(token, V - 1u);
    store_y(t * C + c, load_table(token * C + c));
}
