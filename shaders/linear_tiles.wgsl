// linear.wgsl for many tokens: 64 of them and 64 rows of the weight at a time, 16 inputs after 16 through workgroup
// memory, each thread with 4 tokens and 8 rows; I is a multiple of eight.
//
// x [T, I] read, weight [O, I] read, y [T, O] written; formula as there. Bytes: O I of the weight's format per 64
// tokens,
// 4 T I per 64 rows of the weight. Every sum goes from the first input to the last, wherever its tile lies.
override T: u32;
override I: u32;
override O: u32;
const TILE: u32 = 64u;
const DEPTH: u32 = 16u;
// Vectors from one input's values to the next one's; the room between keeps writes of different inputs in different
// banks.
const PITCH: u32 = TILE / 4u + 1u;

var<workgroup> inputs: array<vec4<f32>, DEPTH * PITCH>;
var<workgroup> rows: array<vec4<f32>, DEPTH * PITCH>;

fn put_inputs(at: u32, token: u32, x: vec4<f32>) {
    let to = at * PITCH + token / 4u;
    inputs[to][token % 4u] = x.x;
    inputs[to + PITCH][token % 4u] = x.y;
    inputs[to + 2u * PITCH][token % 4u] = x.z;
    inputs[to + 3u * PITCH][token % 4u] = x.w;
}

fn put_weights(at: u32, row: u32, w: vec4<f32>) {
    let to = at * PITCH + row / 4u;
    rows[to][row % 4u] = w.x;
    rows[to + PITCH][row % 4u] = w.y;
    rows[to + 2u * PITCH][row % 4u] = w.z;
    rows[to + 3u * PITCH][row % 4u] = w.w;
}

fn store(t: u32, o: u32, sums: vec4<f32>) {
    for (var n = 0u; n < 4u; n++) {
        if t < T && o + n < O {
            store_y(t * O + o + n, sums[n]);
        }
    }
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let first_t = group.y * TILE;
    let first_o = group.x * TILE;
    // What the thread brings: eight inputs of a token, eight of a row of the weight.
    let brought = thread / 2u;
    let part = thread % 2u;
    let last = max(I / 8u, 1u) - 1u;
    let x_row = min(first_t + brought, T - 1u) * (I / 4u);
    let w_row = min(first_o + brought, O - 1u) * (I / 8u);
    // What it computes: tokens 4t to 4t + 3, rows 4o to 4o + 3 and 32 further.
    let t = thread / 8u;
    let o = thread % 8u;
    var low0 = vec4<f32>();
    var low1 = vec4<f32>();
    var low2 = vec4<f32>();
    var low3 = vec4<f32>();
    var high0 = vec4<f32>();
    var high1 = vec4<f32>();
    var high2 = vec4<f32>();
    var high3 = vec4<f32>();
    for (var i = 0u; i < I / 8u; i += DEPTH / 8u) {
        let at = min(i + part, last);
        // Beyond the last input, zeros: I may end within the step.
        let is_input = select(0.0, 1.0, i + part <= last);
        let x0 = load_x4(x_row + at * 2u);
        let x1 = load_x4(x_row + at * 2u + 1u);
        let w = load_weight8(w_row + at);
        workgroupBarrier();
        put_inputs(part * 8u, brought, x0 * is_input);
        put_inputs(part * 8u + 4u, brought, x1 * is_input);
        put_weights(part * 8u, brought, w[0] * is_input);
        put_weights(part * 8u + 4u, brought, w[1] * is_input);
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let x = inputs[k * PITCH + t];
            let low = rows[k * PITCH + o];
            let high = rows[k * PITCH + o + 8u];
            low0 += x.x * low;
            low1 += x.y * low;
            low2 += x.z * low;
            low3 += x.w * low;
            high0 += x.x * high;
            high1 += x.y * high;
            high2 += x.z * high;
            high3 += x.w * high;
        }
    }
    let to_t = first_t + t * 4u;
    let to_o = first_o + o * 4u;
    store(to_t, to_o, low0);
    store(to_t + 1u, to_o, low1);
    store(to_t + 2u, to_o, low2);
    store(to_t + 3u, to_o, low3);
    store(to_t, to_o + 32u, high0);
    store(to_t + 1u, to_o + 32u, high1);
    store(to_t + 2u, to_o + 32u, high2);
    store(to_t + 3u, to_o + 32u, high3);
}
