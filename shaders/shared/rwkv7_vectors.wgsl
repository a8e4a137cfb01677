// The body of rwkv7_vectors.wgsl and rwkv7_vectors_first.wgsl; see there. Whoever imports this declares RV; value_low(i),
// which the value's low-rank input is in fours; and value(up, c, at), the value of token and channel `at`.
override T: u32;
override H: u32;
override N: u32;
override RW: u32;
override RA: u32;
override RG: u32;
override TOKENS: u32;
override FOURS: u32;
const C: u32 = H * N;
// A thread has every QUARTER-th of a head's channels and every 16th of a workgroup's tokens.
const QUARTER: u32 = max(N / 4u, 1u);
const THREADS: u32 = QUARTER * 16u;
const BLOCK: u32 = TOKENS * 16u;
// FOURS fours of a row are brought to workgroup memory at a time; a row has one more, so that neighbours' lie in other
// banks.
const EACH: u32 = max(THREADS / FOURS, 1u);
const ROW: u32 = FOURS + 1u;
var<workgroup> rows: array<vec4<f32>, N * ROW>;
var<workgroup> lows: array<vec4<f32>, BLOCK * ROW>;
var<workgroup> squares: array<f32, BLOCK * QUARTER>;
alias Sums = array<f32, TOKENS * 4u>;

fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(-x)); }

// Four numbers of what the second low-rank matrix of this kind is multiplied with: decay, rate, value or gate.
fn low(kind: u32, i: u32) -> vec4<f32> {
    switch kind {
        case 0u: { return tanh(clamp(load_w_low4(i), vec4(-20.0), vec4(20.0))); }
        case 1u: { return load_a_low4(i); }
        case 2u: { return value_low(i); }
        default: { return 1.0 / (1.0 + exp(-load_g_low4(i))); }
    }
}

// The products of this thread's tokens and channels with the matrix of this kind, which begins at row `first`, counting
// in columns of C. What comes next is asked for while products are summed.
fn lifted(kind: u32, rank: u32, first: u32, head: u32, token: u32, thread: u32) -> Sums {
    var sums: Sums;
    let q = thread % QUARTER;
    let g = thread / QUARTER;
    let fours = rank / 4u;
    let four = thread % FOURS;
    // A thread brings the same four of every EACH-th row.
    let own = thread / FOURS;
    let begin = C * first / 4u + (head * N + own) * fours + four;
#unroll n in max(floor_div(FOURS, 4), 1)
    var row${n} = load_up4(begin + ${n}u * (EACH * fours));
#end
#unroll n in max(ceil_div(4 * TOKENS * FOURS, N), 1)
    let t${n} = min(token + own + ${n}u * EACH, T - 1u) * fours + four;
    var low${n} = low(kind, t${n});
#end
    for (var k = 0u; k < fours; k += FOURS) {
        workgroupBarrier();
#unroll n in max(floor_div(FOURS, 4), 1)
        rows[(own + ${n}u * EACH) * ROW + four] = row${n};
#end
#unroll n in max(ceil_div(4 * TOKENS * FOURS, N), 1)
        if own + ${n}u * EACH < BLOCK {
            lows[(own + ${n}u * EACH) * ROW + four] = low${n};
        }
#end
        workgroupBarrier();
        // Beyond the last one, it is asked for again and not used.
        let next = min(k + FOURS, fours - FOURS);
#unroll n in max(floor_div(FOURS, 4), 1)
        row${n} = load_up4(begin + next + ${n}u * (EACH * fours));
#end
#unroll n in max(ceil_div(4 * TOKENS * FOURS, N), 1)
        low${n} = low(kind, t${n} + next);
#end
        for (var f = 0u; f < FOURS; f++) {
#unroll i in 4
            let w${i} = rows[(q + QUARTER * ${i}u) * ROW + f];
#end
#unroll j in TOKENS
            let x${j} = lows[(g + 16u * ${j}u) * ROW + f];
#unroll i in 4
            sums[${j} * 4 + ${i}] += dot(w${i}, x${j});
#end
#end
        }
    }
    return sums;
}

fn rwkv7_vectors(head: u32, token: u32, thread: u32) {
    let q = thread % QUARTER;
    let g = thread / QUARTER;
    let all = T * C;
    // Keys to be removed are of length 1 over the head.
#unroll j in TOKENS
    let t${j} = token + g + 16u * ${j}u;
    let is_in${j} = t${j} < T;
    // Of a token that there is not, another's are computed and not stored.
    let at${j} = min(t${j}, T - 1u) * C + head * N + q;
    var square${j} = 0.0;
#unroll i in 4
    let k${j}_${i} = load_k(at${j} + QUARTER * ${i}u);
    let kk${j}_${i} = k${j}_${i} * load_k_k(head * N + q + QUARTER * ${i}u);
    square${j} += kk${j}_${i} * kk${j}_${i};
#end
    squares[(g + 16u * ${j}u) * QUARTER + q] = square${j};
#end
    let w = lifted(0u, RW, 0u, head, token, thread);
#unroll j in TOKENS
    var norm${j} = 0.0;
    for (var n = 0u; n < QUARTER; n++) {
        norm${j} += squares[(g + 16u * ${j}u) * QUARTER + n];
    }
    let scale${j} = 1.0 / max(sqrt(norm${j}), 1e-12);
    if is_in${j} {
#unroll i in 4
        let c${j}_${i} = head * N + q + QUARTER * ${i}u;
        let w${j}_${i} = exp(-0.60653066 * sigmoid(load_w_base(c${j}_${i}) + w[${j} * 4 + ${i}]));
        store_y(at${j} + QUARTER * ${i}u, w${j}_${i});
        store_y(all + at${j} + QUARTER * ${i}u, kk${j}_${i} * scale${j});
#end
    }
#end
    let a = lifted(1u, RA, RW, head, token, thread);
#unroll j in TOKENS
    if is_in${j} {
#unroll i in 4
        let c${j}_${i} = head * N + q + QUARTER * ${i}u;
        let a${j}_${i} = sigmoid(load_a_base(c${j}_${i}) + a[${j} * 4 + ${i}]);
        store_y(2u * all + at${j} + QUARTER * ${i}u, a${j}_${i});
        store_y(3u * all + at${j} + QUARTER * ${i}u, k${j}_${i} * (1.0 + (a${j}_${i} - 1.0) * load_k_a(c${j}_${i})));
#end
    }
#end
    let gate = lifted(3u, RG, RW + RA + RV, head, token, thread);
#unroll j in TOKENS
    if is_in${j} {
#unroll i in 4
        store_y(4u * all + at${j} + QUARTER * ${i}u, gate[${j} * 4 + ${i}]);
#end
    }
#end
    if RV > 0u {
        let up = lifted(2u, RV, RW + RA, head, token, thread);
#unroll j in TOKENS
        if is_in${j} {
#unroll i in 4
            let at${j}_${i} = at${j} + QUARTER * ${i}u;
            let c${j}_${i} = head * N + q + QUARTER * ${i}u;
            store_y(5u * all + at${j}_${i}, value(up[${j} * 4 + ${i}], c${j}_${i}, at${j}_${i}));
#end
        }
#end
    }
}
