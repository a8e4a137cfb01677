// linear.wgsl by eight lanes that are a workgroup and a subgroup, as software drivers run them best: a workgroup per
// OCTET_ROWS rows of the weight and OCTET_TILE tokens. Each lane holds a part of the tokens' rows in registers while
// the weight's rows go by, one after the other; I is a multiple of eight.
//
// x [T, I] read, weight [O, I] read, y [T, O] written; formula as there. Bytes: O I of the weight's format per
// OCTET_TILE tokens, 4 T I per OCTET_ROWS rows of the weight. The order of summation is that of I alone.
enable subgroups;
override T: u32;
override I: u32;
override O: u32;
override OCTET_TILE: u32;
override OCTET_ROWS: u32;
override OCTET_PARTS: u32;
override OCTET_PART: u32;
const I8: u32 = max(I / 8u, 1u);
// Tiles of tokens lie along x, one after the other by the same rows. Blocks of rows lie along y, and where those are
// too many for one direction, in several layers along z.
const LAYERS: u32 = (O + 65535u * OCTET_ROWS - 1u) / (65535u * OCTET_ROWS);
const ACROSS: u32 = ((O + OCTET_ROWS - 1u) / OCTET_ROWS + LAYERS - 1u) / LAYERS;
#import "shared/octet.wgsl"
// Sums of a row of the weight, a token a lane. The loop that computes them says a bound of their index once more: a
// driver that sees the loop's counter alone unrolls it, and takes half a minute to compile a step.
var<private> sums: array<f32, OCTET_ROWS>;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let begin = (group.z * ACROSS + group.y) * OCTET_ROWS;
    let first = group.x * OCTET_TILE;
    for (var part = 0u; part < OCTET_PARTS; part++) {
#unroll n in OCTET_PART
        let eight${n} = lane + (part * OCTET_PART + ${n}u) * OCTET;
        let at${n} = min(eight${n}, I8 - 1u);
#unroll t in OCTET_TILE
        var a${n}_${t} = vec4<f32>();
        var b${n}_${t} = vec4<f32>();
#end
#end
        // A loop that chooses, since a driver takes long to compile that many loads.
        for (var t = 0u; t < OCTET_TILE; t++) {
            let row = min(first + t, T - 1u) * I8;
#unroll n in OCTET_PART
            let a${n} = select(vec4<f32>(), load_x4((row + at${n}) * 2u), eight${n} < I8);
            let b${n} = select(vec4<f32>(), load_x4((row + at${n}) * 2u + 1u), eight${n} < I8);
#unroll u in OCTET_TILE
            a${n}_${u} = select(a${n}_${u}, a${n}, t == ${u}u);
            b${n}_${u} = select(b${n}_${u}, b${n}, t == ${u}u);
#end
#end
        }
        for (var r = 0u; r < OCTET_ROWS; r++) {
            let row = min(begin + r, O - 1u) * I8;
#unroll t in OCTET_TILE
            var sum${t} = vec4<f32>();
#end
#unroll n in OCTET_PART
            let w${n} = load_weight8(row + at${n});
#unroll t in OCTET_TILE
            sum${t} += w${n}[0] * a${n}_${t} + w${n}[1] * b${n}_${t};
#end
#end
            var all: array<f32, max(OCTET_TILE, OCTET)>;
#unroll t in OCTET_TILE
            all[${t}] = (sum${t}.x + sum${t}.y) + (sum${t}.z + sum${t}.w);
#end
            let eight = mat2x4<f32>(all[0], all[1], all[2], all[3], all[4], all[5], all[6], all[7]);
            sums[min(r, OCTET_ROWS - 1u)] += octet_sums(lane, eight);
        }
    }
    let t = first + lane;
    if lane < OCTET_TILE && t < T {
        for (var r = 0u; r < min(OCTET_ROWS, O - begin); r++) {
            store_y(t * O + begin + r, sums[min(r, OCTET_ROWS - 1u)]);
        }
    }
}
