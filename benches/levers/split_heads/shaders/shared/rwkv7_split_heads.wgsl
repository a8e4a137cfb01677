// The body of rwkv7_split_heads.wgsl and rwkv7_split_heads_first.wgsl; see there. Whoever imports this declares RV;
// value_low(i), which the value's low-rank input is in fours; value_from(c) and value(v, up, from), the value of
// channel c. quad_sum(v) is a sum over the four threads of a key channel, row_sum(v) one over those of a value row.
override B: u32;
override H: u32;
override N: u32;
override RW: u32;
override RA: u32;
override RG: u32;
override PARTS: u32;
const C: u32 = H * N;
const THREADS: u32 = N * 4u;
const ROW_THREADS: u32 = PARTS * 4u;
const SUMS: u32 = 2u;
// Where the inputs of the low-rank matrices lie in `low`, in fours.
const LOW_A: u32 = RW / 4u;
const LOW_V: u32 = LOW_A + RA / 4u;
const LOW_G: u32 = LOW_V + RV / 4u;
const FOURS: u32 = max(N / (16u * PARTS), 1u);
var<workgroup> low: array<vec4<f32>, LOW_G + RG / 4u>;
var<workgroup> head_r: array<vec4<f32>, N / 4u>;
var<workgroup> head_w: array<vec4<f32>, N / 4u>;
var<workgroup> head_k: array<vec4<f32>, N / 4u>;
var<workgroup> head_kk: array<vec4<f32>, N / 4u>;
var<workgroup> head_ka: array<vec4<f32>, N / 4u>;

fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(-x)); }

fn part_of_head(h: u32, part: u32) {
    // Every part has all keys of the head, quarter q of key i a thread; of its values, it has its own rows alone.
    let i = thread / 4u;
    let q = thread % 4u;
    let c = h * N + i;
    let value_row = part * (N / PARTS) + thread / ROW_THREADS;
    let p = thread % ROW_THREADS;
    let value_c = h * N + value_row;
    let place = min(load_places(0u), B - 1u);
    let is_padding = load_offsets(0u) == load_offsets(1u);
    let base = ((place * H + h) * N + value_row) * (N / 4u) + p;
    var row: array<vec4<f32>, FOURS>;
#unroll j in max(floor_div(N, 16 * PARTS), 1)
    row[${j}] = load_state4(base + ROW_THREADS * ${j}u);
#end
    // Shares of rows of the second low-rank matrices, and whatever else comes from memory, are asked for first.
#unroll n in ceil_div(floor_div(RW, 8), 4)
    let up_RW${n} = load_up8(c * (RW / 8u) + min(${n}u * 4u + q, RW / 8u - 1u));
#end
#unroll n in ceil_div(floor_div(RA, 8), 4)
    let up_RA${n} = load_up8(C * RW / 8u + c * (RA / 8u) + min(${n}u * 4u + q, RA / 8u - 1u));
#end
#unroll n in ceil_div(floor_div(RV, 8), 4 * PARTS)
    let at_RV${n} = min(${n}u * ROW_THREADS + p, RV / 8u - 1u);
    let up_RV${n} = load_up8(C * (RW + RA) / 8u + value_c * (RV / 8u) + at_RV${n});
#end
#unroll n in ceil_div(floor_div(RG, 8), 4 * PARTS)
    let at_RG${n} = min(${n}u * ROW_THREADS + p, RG / 8u - 1u);
    let up_RG${n} = load_up8(C * (RW + RA + RV) / 8u + value_c * (RG / 8u) + at_RG${n});
#end
    let r = load_r(c);
    let k_raw = load_k(c);
    let w_base = load_w_base(c);
    let a_base = load_a_base(c);
    let k_k = load_k_k(c);
    let k_a = load_k_a(c);
    let r_k = load_r_k(c);
    let v_raw = load_v(value_c);
    let from_memory = value_from(value_c);
    let ln = load_ln(value_c);

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
    var w_part = 0.0;
#unroll n in ceil_div(floor_div(RW, 8), 4)
    if ${n}u * 4u + q < RW / 8u {
        let at = 2u * (${n}u * 4u + q);
        w_part += dot(up_RW${n}[0], low[at]) + dot(up_RW${n}[1], low[at + 1u]);
    }
#end
    var a_part = 0.0;
#unroll n in ceil_div(floor_div(RA, 8), 4)
    if ${n}u * 4u + q < RA / 8u {
        let at = LOW_A + 2u * (${n}u * 4u + q);
        a_part += dot(up_RA${n}[0], low[at]) + dot(up_RA${n}[1], low[at + 1u]);
    }
#end
    var v_part = 0.0;
#unroll n in ceil_div(floor_div(RV, 8), 4 * PARTS)
    if ${n}u * ROW_THREADS + p < RV / 8u {
        let at = LOW_V + 2u * (${n}u * ROW_THREADS + p);
        v_part += dot(up_RV${n}[0], low[at]) + dot(up_RV${n}[1], low[at + 1u]);
    }
#end
    var g_part = 0.0;
#unroll n in ceil_div(floor_div(RG, 8), 4 * PARTS)
    if ${n}u * ROW_THREADS + p < RG / 8u {
        let at = LOW_G + 2u * (${n}u * ROW_THREADS + p);
        g_part += dot(up_RG${n}[0], low[at]) + dot(up_RG${n}[1], low[at + 1u]);
    }
#end
    let w_up = quad_sum(w_part);
    let a_up = quad_sum(a_part);
    let v_up = row_sum(v_part);
    let g = row_sum(g_part);

    let w = exp(-0.60653066 * sigmoid(w_base + w_up));
    let a = sigmoid(a_base + a_up);
    let v = value(v_raw, v_up, from_memory);
    let kk_raw = k_raw * k_k;
    let k = k_raw * (1.0 + (a - 1.0) * k_a);
    if q == 0u {
        head_r[i / 4u][i % 4u] = r;
        head_w[i / 4u][i % 4u] = w;
        head_k[i / 4u][i % 4u] = k;
        head_kk[i / 4u][i % 4u] = kk_raw;
        head_ka[i / 4u][i % 4u] = a;
    }
    // Each key counts four times, and a quarter each time.
    put(0u, 0.25 * kk_raw * kk_raw);
    put(1u, 0.25 * r * k * r_k);
    workgroupBarrier();
    let scale = 1.0 / max(sqrt(take(0u)), 1e-12);
    let bonus = take(1u) * v;

    var sa4 = vec4<f32>();
#unroll j in max(floor_div(N, 16 * PARTS), 1)
    sa4 -= row[${j}] * (head_kk[ROW_THREADS * ${j}u + p] * scale);
#end
    let sa = row_sum((sa4.x + sa4.y) + (sa4.z + sa4.w));
    var y4 = vec4<f32>();
#unroll j in max(floor_div(N, 16 * PARTS), 1)
    let at${j} = ROW_THREADS * ${j}u + p;
    row[${j}] = row[${j}] * head_w[at${j}] + sa * (head_kk[at${j}] * scale * head_ka[at${j}]) + v * head_k[at${j}];
    y4 += row[${j}] * head_r[at${j}];
#end
    let y = row_sum((y4.x + y4.y) + (y4.z + y4.w));
    // Padding belongs to no sequence and changes none.
    if !is_padding {
#unroll j in max(floor_div(N, 16 * PARTS), 1)
        store_state4(base + ROW_THREADS * ${j}u, row[${j}]);
#end
        if p == 0u {
            store_last(place * C + value_c, ln);
        }
    }
    // Three of a row's threads write one number each.
    if p < 3u {
        store_y(p * C + value_c, select(select(bonus * g, g, p == 1u), y, p == 0u));
    }
}
