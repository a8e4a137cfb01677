// y[t, c] = x[t, c] + (prev[t, c] - x[t, c]) (mu[c] + delta[t, group, c])
//
// x, prev [T, C] read, mu [C] read, delta [T, G, C] read, y [T, C] written; a thread per element.
// Bytes per token: 12 C read, 4 C written, and mu. Source: Peng et al., "Eagle and Finch", 2024, section 4.
override C: u32;
override G: u32;
override group: u32;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.x;
    if c >= C {
        return;
    }
    let at = id.y * C + c;
    let x = load_x(at);
    store_y(at, x + (load_prev(at) - x) * (load_mu(c) + load_delta((id.y * G + group) * C + c)));
}
