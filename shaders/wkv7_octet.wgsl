// wkv7.wgsl by eight lanes that are a workgroup and a subgroup: lane l has fours l, l + 8, ... of every row of the
// head's state, in registers from the first token to the last; N is a multiple of 32.
//
// state [B, H, N, N] read and written, r, w, k, v, kk, a [T, H N] read, offsets [S + 1] read, places [S] read,
// y [T, H N] written; bytes, formula and dispatch as there.
enable subgroups;
override T: u32;
override B: u32;
override S: u32;
override H: u32;
override N: u32;
const N4: u32 = max(N / 4u, 1u);
const FOURS: u32 = max(N / 32u, 1u);
#import "shared/octet.wgsl"

fn sum4(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let begin = load_offsets(group.y);
    let end = min(load_offsets(group.y + 1u), T);
    if begin < end {
        let base = (min(load_places(group.y), B - 1u) * H + group.x) * N * N4 + lane;
        // Row i's fours n are at i FOURS + n; every index is constant.
        var row: array<vec4<f32>, N * FOURS>;
        // Loops that choose, since a driver takes long to compile that many loads and stores.
        for (var i = 0u; i < N; i++) {
#unroll n in ceil_div(N, 32)
            let old${n} = load_state4(base + i * N4 + ${n}u * OCTET);
#unroll j in N
            row[${j} * FOURS + ${n}] = select(row[${j} * FOURS + ${n}], old${n}, i == ${j}u);
#end
#end
        }
        for (var t = begin; t < end; t++) {
            let at = (t * H + group.x) * N4 + lane;
            var v: array<vec4<f32>, FOURS>;
#unroll n in ceil_div(N, 32)
            let r${n} = load_r4(at + ${n}u * OCTET);
            let w${n} = load_w4(at + ${n}u * OCTET);
            let k${n} = load_k4(at + ${n}u * OCTET);
            let kk${n} = load_kk4(at + ${n}u * OCTET);
            let ka${n} = kk${n} * load_a4(at + ${n}u * OCTET);
            v[${n}] = load_v4(at + ${n}u * OCTET);
#end
#unroll b in ceil_div(N, 8)
            var y${b}: array<f32, OCTET>;
#unroll e in 8
            var removed${b}_${e} = vec4<f32>();
#unroll n in ceil_div(N, 32)
            removed${b}_${e} -= row[(8 * ${b} + ${e}) * FOURS + ${n}] * kk${n};
#end
            let sa${b}_${e} = octet_sum(sum4(removed${b}_${e}));
            let own${b}_${e} = v[(8 * ${b} + ${e}) / 32][${e} % 4];
            let v${b}_${e} = subgroupShuffle(own${b}_${e}, (8u * ${b}u + ${e}u) / 4u % OCTET);
            var read${b}_${e} = vec4<f32>();
#unroll n in ceil_div(N, 32)
            let kept${b}_${e}_${n} = row[(8 * ${b} + ${e}) * FOURS + ${n}] * w${n};
            let new${b}_${e}_${n} = kept${b}_${e}_${n} + sa${b}_${e} * ka${n} + v${b}_${e} * k${n};
            row[(8 * ${b} + ${e}) * FOURS + ${n}] = new${b}_${e}_${n};
            read${b}_${e} += new${b}_${e}_${n} * r${n};
#end
            y${b}[${e}] = sum4(read${b}_${e});
#end
            let sums${b} = octet_sums(lane, mat2x4<f32>(
                y${b}[0], y${b}[1], y${b}[2], y${b}[3], y${b}[4], y${b}[5], y${b}[6], y${b}[7],
            ));
            store_y((t * H + group.x) * N + ${b}u * OCTET + lane, sums${b});
#end
        }
        for (var i = 0u; i < N; i++) {
#unroll n in ceil_div(N, 32)
            var new${n} = vec4<f32>();
#unroll j in N
            new${n} = select(new${n}, row[${j} * FOURS + ${n}], i == ${j}u);
#end
            store_state4(base + i * N4 + ${n}u * OCTET, new${n});
#end
        }
    }
    if group.y == S - 1u {
        for (var t = load_offsets(S); t < T; t++) {
            for (var c = lane; c < N; c += OCTET) {
                store_y((t * H + group.x) * N + c, 0.0);
            }
        }
    }
}
