// The body of rwkv7_heads_octet.wgsl and rwkv7_heads_first_octet.wgsl; see there. Whoever imports this declares RV;
// value_low(i), which the value's low-rank input is in fours; and value4(v, up, c), the values of channels 4c to 4c + 3.
//
// Eight lanes have the head's channels in fours: lane l has fours l, l + 8, ... of every vector, and of every row of the
// state. What is computed channel after channel, for which all lanes add up, goes to the lane that has the channel.
override B: u32;
override H: u32;
override N: u32;
override RW: u32;
override RA: u32;
override RG: u32;
override gn_eps: f32;
const C: u32 = H * N;
const FOURS: u32 = max(N / 32u, 1u);
alias Channels = array<vec4<f32>, FOURS>;

fn sigmoid4(x: vec4<f32>) -> vec4<f32> { return 1.0 / (1.0 + exp(-x)); }

// Which of a lane's channels, of those in four n, is channel i.
fn is_channel(lane: u32, n: u32, i: u32) -> vec4<bool> {
    return vec4<u32>(4u * (lane + n * OCTET)) + vec4<u32>(0u, 1u, 2u, 3u) == vec4<u32>(i);
}

fn sum4(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

fn head(lane: u32, h: u32) {
#unroll n in ceil_div(floor_div(RW, 8), 8)
    let at_RW${n} = min(lane + ${n}u * OCTET, RW / 8u - 1u);
    var w_low${n} = mat2x4<f32>(tanh(clamp(load_w_low4(at_RW${n} * 2u), vec4(-20.0), vec4(20.0))), tanh(clamp(load_w_low4(at_RW${n} * 2u + 1u), vec4(-20.0), vec4(20.0))));
    if lane + ${n}u * OCTET >= RW / 8u {
        w_low${n} = mat2x4<f32>();
    }
#end
#unroll n in ceil_div(floor_div(RA, 8), 8)
    let at_RA${n} = min(lane + ${n}u * OCTET, RA / 8u - 1u);
    var a_low${n} = mat2x4<f32>(load_a_low4(at_RA${n} * 2u), load_a_low4(at_RA${n} * 2u + 1u));
    if lane + ${n}u * OCTET >= RA / 8u {
        a_low${n} = mat2x4<f32>();
    }
#end
#unroll n in ceil_div(floor_div(RV, 8), 8)
    let at_RV${n} = min(lane + ${n}u * OCTET, RV / 8u - 1u);
    var v_low${n} = mat2x4<f32>(value_low(at_RV${n} * 2u), value_low(at_RV${n} * 2u + 1u));
    if lane + ${n}u * OCTET >= RV / 8u {
        v_low${n} = mat2x4<f32>();
    }
#end
#unroll n in ceil_div(floor_div(RG, 8), 8)
    let at_RG${n} = min(lane + ${n}u * OCTET, RG / 8u - 1u);
    var g_low${n} = mat2x4<f32>(sigmoid4(load_g_low4(at_RG${n} * 2u)), sigmoid4(load_g_low4(at_RG${n} * 2u + 1u)));
    if lane + ${n}u * OCTET >= RG / 8u {
        g_low${n} = mat2x4<f32>();
    }
#end
    var w: Channels;
    var a: Channels;
    var v: Channels;
    var g: Channels;
    for (var i = 0u; i < N; i++) {
        let row = h * N + i;
        var sums = vec4<f32>();
#unroll n in ceil_div(floor_div(RW, 8), 8)
        let w_low_row${n} = load_up8(row * (RW / 8u) + at_RW${n});
        sums.x += dot(w_low_row${n}[0], w_low${n}[0]) + dot(w_low_row${n}[1], w_low${n}[1]);
#end
#unroll n in ceil_div(floor_div(RA, 8), 8)
        let a_low_row${n} = load_up8(C * RW / 8u + row * (RA / 8u) + at_RA${n});
        sums.y += dot(a_low_row${n}[0], a_low${n}[0]) + dot(a_low_row${n}[1], a_low${n}[1]);
#end
#unroll n in ceil_div(floor_div(RV, 8), 8)
        let v_low_row${n} = load_up8(C * (RW + RA) / 8u + row * (RV / 8u) + at_RV${n});
        sums.z += dot(v_low_row${n}[0], v_low${n}[0]) + dot(v_low_row${n}[1], v_low${n}[1]);
#end
#unroll n in ceil_div(floor_div(RG, 8), 8)
        let g_low_row${n} = load_up8(C * (RW + RA + RV) / 8u + row * (RG / 8u) + at_RG${n});
        sums.w += dot(g_low_row${n}[0], g_low${n}[0]) + dot(g_low_row${n}[1], g_low${n}[1]);
#end
        let w_up = vec4<f32>(octet_sum(sums.x));
        let a_up = vec4<f32>(octet_sum(sums.y));
        let v_up = vec4<f32>(octet_sum(sums.z));
        let gate = vec4<f32>(octet_sum(sums.w));
#unroll n in ceil_div(N, 32)
        let is${n} = is_channel(lane, ${n}u, i);
        w[${n}] = select(w[${n}], w_up, is${n});
        a[${n}] = select(a[${n}], a_up, is${n});
        v[${n}] = select(v[${n}], v_up, is${n});
        g[${n}] = select(g[${n}], gate, is${n});
#end
    }

    var r: Channels;
    var k: Channels;
    var kk: Channels;
    var squares = vec4<f32>();
    var bonuses = vec4<f32>();
#unroll n in ceil_div(N, 32)
    let c${n} = h * (N / 4u) + lane + ${n}u * OCTET;
    let k_raw${n} = load_k4(c${n});
    w[${n}] = exp(-0.60653066 * sigmoid4(load_w_base4(c${n}) + w[${n}]));
    a[${n}] = sigmoid4(load_a_base4(c${n}) + a[${n}]);
    v[${n}] = value4(load_v4(c${n}), v[${n}], c${n});
    r[${n}] = load_r4(c${n});
    k[${n}] = k_raw${n} * (1.0 + (a[${n}] - 1.0) * load_k_a4(c${n}));
    kk[${n}] = k_raw${n} * load_k_k4(c${n});
    squares += kk[${n}] * kk[${n}];
    bonuses += r[${n}] * k[${n}] * load_r_k4(c${n});
#end
    let scale = 1.0 / max(sqrt(octet_sum(sum4(squares))), 1e-12);
    let bonus = octet_sum(sum4(bonuses));
#unroll n in ceil_div(N, 32)
    kk[${n}] = kk[${n}] * scale;
    a[${n}] = kk[${n}] * a[${n}];
#end

    let place = min(load_places(0u), B - 1u);
    // Padding belongs to no sequence and changes none.
    let is_padding = load_offsets(0u) == load_offsets(1u);
    var y: Channels;
    for (var i = 0u; i < N; i++) {
        let base = ((place * H + h) * N + i) * (N / 4u) + lane;
        var removed = vec4<f32>();
        var given = 0.0;
#unroll n in ceil_div(N, 32)
        let row${n} = load_state4(base + ${n}u * OCTET);
        removed -= row${n} * kk[${n}];
        given += sum4(select(vec4<f32>(), v[${n}], is_channel(lane, ${n}u, i)));
#end
        let sa = octet_sum(sum4(removed));
        let v_i = octet_sum(given);
        var read = vec4<f32>();
#unroll n in ceil_div(N, 32)
        let new${n} = row${n} * w[${n}] + sa * a[${n}] + v_i * k[${n}];
        read += new${n} * r[${n}];
        if !is_padding {
            store_state4(base + ${n}u * OCTET, new${n});
        }
#end
        let y_i = vec4<f32>(octet_sum(sum4(read)));
#unroll n in ceil_div(N, 32)
        y[${n}] = select(y[${n}], y_i, is_channel(lane, ${n}u, i));
#end
    }

    var total = vec4<f32>();
#unroll n in ceil_div(N, 32)
    total += y[${n}];
#end
    let mean = octet_sum(sum4(total)) / f32(N);
    var around = vec4<f32>();
#unroll n in ceil_div(N, 32)
    around += (y[${n}] - mean) * (y[${n}] - mean);
#end
    let deviation = sqrt(octet_sum(sum4(around)) / f32(N) + gn_eps);
#unroll n in ceil_div(N, 32)
    let gn${n} = (y[${n}] - mean) / deviation * load_gn_weight4(c${n}) + load_gn_bias4(c${n});
    store_y4(c${n}, (gn${n} + bonus * v[${n}]) * g[${n}]);
    if !is_padding {
        store_last4(place * (C / 4u) + c${n}, load_ln4(c${n}));
    }
#end
}
