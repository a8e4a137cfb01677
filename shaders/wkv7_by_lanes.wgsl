// wkv7.wgsl with eight lanes per two rows of the state; N is 32 or 64, and subgroups have at least eight lanes.
//
// state [B, H, N, N] read and written, r, w, k, v, kk, a [T, H N] read, offsets [S + 1] read, places [S] read,
// y [T, H N] written; bytes and formula as there. A workgroup per 16 rows of a head's state and sequence. What all rows
// need of some tokens is brought to workgroup memory once, and asked for while the tokens before are computed.
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

// The sums over the eight lanes of two rows.
fn row_sums(a: vec4<f32>, b: vec4<f32>) -> vec2<f32> {
    let own = vec2((a.x + a.y) + (a.z + a.w), (b.x + b.y) + (b.z + b.w));
    let two = own + quadSwapX(own);
    let four = two + quadSwapY(two);
    return four + subgroupShuffleXor(four, 4u);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) lanes: u32,
    @builtin(subgroup_invocation_id) invocation: u32,
) {
    let thread = subgroup * lanes + invocation;
    let lane = thread % 8u;
    let pair = thread / 8u;
    let i = group.x % PARTS * ROWS + pair * 2u;
    let head = group.x / PARTS;
    let first = load_offsets(group.y);
    let end = load_offsets(group.y + 1u);
    if first < end {
        let base = ((load_places(group.y) * H + head) * N + i) * N4 + lane;
#unroll j in max(floor_div(N, 32), 1)
        var s${j} = load_state4(base + ${j}u * 8u);
        var t${j} = load_state4(base + N4 + ${j}u * 8u);
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
            for (var t = 0u; t < count; t++) {
                let at = t * N4 + lane;
                var part_s = vec4<f32>();
                var part_t = vec4<f32>();
#unroll j in max(floor_div(N, 32), 1)
                let kk${j} = all_kk[at + ${j}u * 8u];
                part_s -= s${j} * kk${j};
                part_t -= t${j} * kk${j};
#end
                let sa = row_sums(part_s, part_t);
                let v = all_v[t * (ROWS / 2u) + pair];
                part_s = vec4<f32>();
                part_t = vec4<f32>();
#unroll j in max(floor_div(N, 32), 1)
                let w${j} = all_w[at + ${j}u * 8u];
                let kka${j} = all_kka[at + ${j}u * 8u];
                let k${j} = all_k[at + ${j}u * 8u];
                let r${j} = all_r[at + ${j}u * 8u];
                s${j} = s${j} * w${j} + sa.x * kka${j} + v.x * k${j};
                t${j} = t${j} * w${j} + sa.y * kka${j} + v.y * k${j};
                part_s += s${j} * r${j};
                part_t += t${j} * r${j};
#end
                let y = row_sums(part_s, part_t);
                if lane == 0u {
                    store_y2((((begin + t) * H + head) * N + i) / 2u, y);
                }
            }
        }
#unroll j in max(floor_div(N, 32), 1)
        store_state4(base + ${j}u * 8u, s${j});
        store_state4(base + N4 + ${j}u * 8u, t${j});
#end
    }
    if group.y == S - 1u && lane == 0u {
        for (var t = load_offsets(S); t < T; t++) {
            store_y2(((t * H + head) * N + i) / 2u, vec2<f32>());
        }
    }
}
