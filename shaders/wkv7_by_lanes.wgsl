// wkv7.wgsl with four lanes per row of the state; N is 32 or 64, and subgroups have at least four lanes.
//
// state [B, H, N, N] read and written, r, w, k, v, kk, a [T, H N] read, offsets [S + 1] read, places [S] read,
// y [T, H N] written; bytes and formula as there. A workgroup per 16 rows of a head's state and sequence. What all rows
// need of some tokens is brought to workgroup memory once, and asked for while the tokens before are computed. What a
// token waits for is the sum that the one before went into: y of the one before is summed along with it, and the
// vectors come from workgroup memory meanwhile.
enable subgroups;
override T: u32;
override S: u32;
override H: u32;
override N: u32;
const ROWS: u32 = 16u;
const N4: u32 = N / 4u;
const PARTS: u32 = max(N / ROWS, 1u);
// Tokens that are brought at a time.
const BLOCK: u32 = 8u;
const THREADS: u32 = 64u;

var<workgroup> all_r: array<vec4<f32>, BLOCK * N4>;
var<workgroup> all_w: array<vec4<f32>, BLOCK * N4>;
var<workgroup> all_k: array<vec4<f32>, BLOCK * N4>;
var<workgroup> all_kk: array<vec4<f32>, BLOCK * N4>;
var<workgroup> all_kka: array<vec4<f32>, BLOCK * N4>;
var<workgroup> all_v: array<vec2<f32>, BLOCK * ROWS / 2u>;

fn sum4(part: vec4<f32>) -> f32 {
    return (part.x + part.y) + (part.z + part.w);
}

// The sums over the four lanes of a row.
fn row_sums(own: vec2<f32>) -> vec2<f32> {
    let two = own + quadSwapX(own);
    return two + quadSwapY(two);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) lanes: u32,
    @builtin(subgroup_invocation_id) invocation: u32,
) {
    let thread = subgroup * lanes + invocation;
    let lane = thread % 4u;
    let own = thread / 4u;
    let i = group.x % PARTS * ROWS + own;
    let head = group.x / PARTS;
    let first = load_offsets(group.y);
    let end = load_offsets(group.y + 1u);
    if first < end {
        let base = ((load_places(group.y) * H + head) * N + i) * N4 + lane;
#unroll j in max(floor_div(N, 16), 1)
        var s${j} = load_state4(base + ${j}u * 4u);
#end
        let last = end - 1u;
#unroll b in max(floor_div(N, 32), 1)
        var at${b} = (min(first + (thread + ${b}u * THREADS) / N4, last) * H + head) * N4 + thread % N4;
        var r${b} = load_r4(at${b});
        var w${b} = load_w4(at${b});
        var k${b} = load_k4(at${b});
        var kk${b} = load_kk4(at${b});
        var a${b} = load_a4(at${b});
#end
        let column = (group.x % PARTS * ROWS) / 2u + thread % (ROWS / 2u);
        var v0 = load_v2((min(first + thread / (ROWS / 2u), last) * H + head) * (N / 2u) + column);
        // This lane's part of y of the token before.
        var before = 0.0;
        for (var begin = first; begin < end; begin += BLOCK) {
            let count = min(end - begin, BLOCK);
            let next = begin + BLOCK;
            workgroupBarrier();
#unroll b in max(floor_div(N, 32), 1)
            all_r[thread + ${b}u * THREADS] = r${b};
            all_w[thread + ${b}u * THREADS] = w${b};
            all_k[thread + ${b}u * THREADS] = k${b};
            all_kk[thread + ${b}u * THREADS] = kk${b};
            all_kka[thread + ${b}u * THREADS] = kk${b} * a${b};
#end
            all_v[thread] = v0;
            workgroupBarrier();
            if next < end {
#unroll b in max(floor_div(N, 32), 1)
                at${b} = (min(next + (thread + ${b}u * THREADS) / N4, last) * H + head) * N4 + thread % N4;
                r${b} = load_r4(at${b});
                w${b} = load_w4(at${b});
                k${b} = load_k4(at${b});
                kk${b} = load_kk4(at${b});
                a${b} = load_a4(at${b});
#end
                v0 = load_v2((min(next + thread / (ROWS / 2u), last) * H + head) * (N / 2u) + column);
            }
#unroll j in max(floor_div(N, 16), 1)
            var removed${j} = all_kk[lane + ${j}u * 4u];
#end
            for (var t = 0u; t < count; t++) {
                let at = t * N4 + lane;
                let then = min(t + 1u, BLOCK - 1u) * N4 + lane;
                var part = vec4<f32>();
#unroll j in max(floor_div(N, 16), 1)
                part -= s${j} * removed${j};
                removed${j} = all_kk[then + ${j}u * 4u];
                let w_${j} = all_w[at + ${j}u * 4u];
                let kka_${j} = all_kka[at + ${j}u * 4u];
                let k_${j} = all_k[at + ${j}u * 4u];
                let r_${j} = all_r[at + ${j}u * 4u];
#end
                let v = all_v[(t * ROWS + own) / 2u][own % 2u];
                let sums = row_sums(vec2(sum4(part), before));
                if lane == 0u && begin + t > first {
                    store_y(((begin + t - 1u) * H + head) * N + i, sums.y);
                }
                part = vec4<f32>();
#unroll j in max(floor_div(N, 16), 1)
                s${j} = s${j} * w_${j} + sums.x * kka_${j} + v * k_${j};
                part += s${j} * r_${j};
#end
                before = sum4(part);
            }
        }
        let y = row_sums(vec2(before, 0.0)).x;
        if lane == 0u {
            store_y((last * H + head) * N + i, y);
        }
#unroll j in max(floor_div(N, 16), 1)
        store_state4(base + ${j}u * 4u, s${j});
#end
    }
    if group.y == S - 1u && lane == 0u {
        for (var t = load_offsets(S); t < T; t++) {
            store_y((t * H + head) * N + i, 0.0);
        }
    }
}
