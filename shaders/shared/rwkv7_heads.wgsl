// The body of rwkv7_heads.wgsl and rwkv7_heads_first.wgsl; see there. Whoever imports this declares RV; value_low(i),
// which the value's low-rank input is in fours; and value(v, up, c), the value of channel c. quad_sum(v) is a sum over
// the four threads of a row.
override B: u32;
override H: u32;
override N: u32;
override RW: u32;
override RA: u32;
override RG: u32;
override gn_eps: f32;
const C: u32 = H * N;
const THREADS: u32 = N * 4u;
const SUMS: u32 = 4u;
// Where the inputs of the low-rank matrices lie in `low`, in fours.
const LOW_A: u32 = RW / 4u;
const LOW_V: u32 = LOW_A + RA / 4u;
const LOW_G: u32 = LOW_V + RV / 4u;
const FOURS: u32 = max(N / 16u, 1u);
var<workgroup> low: array<vec4<f32>, LOW_G + RG / 4u>;
var<workgroup> head_r: array<vec4<f32>, N / 4u>;
var<workgroup> head_w: array<vec4<f32>, N / 4u>;
var<workgroup> head_k: array<vec4<f32>, N / 4u>;
var<workgroup> head_kk: array<vec4<f32>, N / 4u>;
var<workgroup> head_ka: array<vec4<f32>, N / 4u>;

fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(-x)); }

// A quarter of a row of a second low-rank matrix, which begins at eight `matrix` of `up`, by its input in `low`.
fn quarter(matrix: u32, rank: u32, row: u32, q: u32, input: u32) -> f32 {
    var sum = 0.0;
    for (var n = q; n < rank / 8u; n += 4u) {
        let w = load_up8(matrix + row * (rank / 8u) + n);
        sum += dot(w[0], low[input + 2u * n]) + dot(w[1], low[input + 2u * n + 1u]);
    }
    return sum;
}

fn head(h: u32) {
    let i = thread / 4u;
    let q = thread % 4u;
    let c = h * N + i;
    let place = min(load_places(0u), B - 1u);
    let is_padding = load_offsets(0u) == load_offsets(1u);
    let base = ((place * H + h) * N + i) * (N / 4u) + q;
    var row: array<vec4<f32>, FOURS>;
    for (var j = 0u; j < FOURS; j++) {
        row[j] = load_state4(base + 4u * j);
    }
    let r = load_r(c);
    let k_raw = load_k(c);

    for (var t = thread; t < RW / 4u; t += THREADS) {
        low[t] = tanh(clamp(load_w_low4(t), vec4(-20.0), vec4(20.0)));
    }
    for (var t = thread; t < RA / 4u; t += THREADS) {
        low[LOW_A + t] = load_a_low4(t);
    }
    for (var t = thread; t < RV / 4u; t += THREADS) {
        low[LOW_V + t] = value_low(t);
    }
    for (var t = thread; t < RG / 4u; t += THREADS) {
        low[LOW_G + t] = 1.0 / (1.0 + exp(-load_g_low4(t)));
    }
    workgroupBarrier();
    let w_up = quad_sum(quarter(0u, RW, c, q, 0u));
    let a_up = quad_sum(quarter(C * RW / 8u, RA, c, q, LOW_A));
    let v_up = quad_sum(quarter(C * (RW + RA) / 8u, RV, c, q, LOW_V));
    let g = quad_sum(quarter(C * (RW + RA + RV) / 8u, RG, c, q, LOW_G));

    let w = exp(-0.60653066 * sigmoid(load_w_base(c) + w_up));
    let a = sigmoid(load_a_base(c) + a_up);
    let v = value(load_v(c), v_up, c);
    let kk_raw = k_raw * load_k_k(c);
    let k = k_raw * (1.0 + (a - 1.0) * load_k_a(c));
    if q == 0u {
        head_r[i / 4u][i % 4u] = r;
        head_w[i / 4u][i % 4u] = w;
        head_k[i / 4u][i % 4u] = k;
        head_kk[i / 4u][i % 4u] = kk_raw;
        head_ka[i / 4u][i % 4u] = a;
    }
    // Each row counts four times, and a quarter each time.
    put(0u, 0.25 * kk_raw * kk_raw);
    put(1u, 0.25 * r * k * load_r_k(c));
    workgroupBarrier();
    let scale = 1.0 / max(sqrt(take(0u)), 1e-12);
    let bonus = take(1u) * v;

    var sa4 = vec4<f32>();
    for (var j = 0u; j < FOURS; j++) {
        sa4 -= row[j] * (head_kk[4u * j + q] * scale);
    }
    let sa = quad_sum((sa4.x + sa4.y) + (sa4.z + sa4.w));
    var y4 = vec4<f32>();
    for (var j = 0u; j < FOURS; j++) {
        let at = 4u * j + q;
        row[j] = row[j] * head_w[at] + sa * (head_kk[at] * scale * head_ka[at]) + v * head_k[at];
        y4 += row[j] * head_r[at];
    }
    let y = quad_sum((y4.x + y4.y) + (y4.z + y4.w));
    // Padding belongs to no sequence and changes none.
    if !is_padding {
        for (var j = 0u; j < FOURS; j++) {
            store_state4(base + 4u * j, row[j]);
        }
        if q == 0u {
            store_last(place * C + c, load_ln(c));
        }
    }

    put(2u, 0.25 * y);
    workgroupBarrier();
    let mean = take(2u) / f32(N);
    put(3u, 0.25 * (y - mean) * (y - mean));
    workgroupBarrier();
    let gn = (y - mean) / sqrt(take(3u) / f32(N) + gn_eps) * load_gn_weight(c) + load_gn_bias(c);
    if q == 0u {
        store_y(c, (gn + bonus) * g);
    }
}
