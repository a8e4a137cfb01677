// linear_matrices.wgsl by cooperative matrices of 16 x 16. A workgroup has BM tokens and BO rows of one weight: GM
// subgroups along the tokens and GN along the rows, each of TM and TW tiles. A turn brings KS columns of both to
// workgroup memory, and asks for the next turn's while those are multiplied.
//
// halves [P, T, I] read, weight [O, I] read, y [PARTS, T, O] written; T is a multiple of BM, I of KS PARTS, and every
// weight has a multiple of 16 rows.
enable f16;
enable wgpu_cooperative_matrix;
#import "shared/segments.wgsl"
override T: u32;
override I: u32;
override O: u32;
override PARTS: u32;
override TM: u32;
override TW: u32;
override GM: u32;
override GN: u32;
override KS: u32;
override LEFTS: u32;
override RIGHTS: u32;
const SHARE: u32 = I / PARTS;
const BM: u32 = 16u * TM * GM;
const BO: u32 = 16u * TW * GN;
const LANES: u32 = 32u * GM * GN;
// Fours of a row in workgroup memory: two more than a turn has, so that the rows of a tile lie in different banks.
const ROW: u32 = KS / 4u + 2u;
// Fours of a turn in a tile of 16 tokens, whose columns lie in tiles of 128 fours.
const TURN: u32 = KS * 8u;
@group(0) @binding(0) var<storage, read> halves: array<vec4<f16>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f16>>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
// Tokens' first halves, then their second ones.
var<workgroup> left: array<vec4<f16>, 2u * BM * ROW>;
var<workgroup> right: array<vec4<f16>, BO * ROW>;

// The first row of a workgroup, where its weight ends, and its mixture.
struct Rows { first: u32, end: u32, mixture: u32 }

fn rows_of(workgroup: u32) -> Rows {
    var rest = workgroup;
    var row = 0u;
    for (var weights = 0u; weights < 6u; weights += 1u) {
        let segment = segment_of(row, O);
        let tiles = (segment.rows + BO - 1u) / BO;
        if rest < tiles || row + segment.rows >= O {
            break;
        }
        rest -= tiles;
        row += segment.rows;
    }
    let segment = segment_of(row, O);
    return Rows(row + rest * BO, row + segment.rows, segment.mixture);
}

@compute @workgroup_size(32 * GM * GN)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(local_invocation_index) lane: u32,
) {
    let rows = rows_of(group.x);
    let t = group.y * BM;
    let start = group.z * SHARE;
    let in_left = subgroup / GN * TM * 16u;
    let in_right = subgroup % GN * TW * 16u;
#unroll m in min(TM, 4)
#unroll n in min(TW, 2)
    var sum${m}_${n}: coop_mat16x16<f32, C>;
#end
#end
    // What a lane brings: where it is, where it goes, and what the first turn has there.
    let tiles = (rows.mixture * (T / 16u) + t / 16u) * (I / 16u) + start / 16u;
#unroll i in min(LEFTS, 4)
    let tile_of${i} = (${i}u * LANES + lane) / TURN;
    let in_tile${i} = (${i}u * LANES + lane) % TURN;
    let from_left${i} = (tiles + tile_of${i} * (I / 16u)) * 128u + in_tile${i};
    let token${i} = in_tile${i} / 64u % 2u * BM + tile_of${i} * 16u + in_tile${i} % 64u / 4u;
    let to_left${i} = token${i} * ROW + in_tile${i} / 128u * 4u + in_tile${i} % 4u;
    var left${i} = halves[from_left${i}];
#end
#unroll i in min(RIGHTS, 4)
    let row${i} = (${i}u * LANES + lane) / (KS / 4u);
    let four${i} = (${i}u * LANES + lane) % (KS / 4u);
    // Rows beyond the last weight are of no use, and within it.
    let from_right${i} = (min(rows.first + row${i}, O - 1u) * I + start) / 4u + four${i};
    let to_right${i} = row${i} * ROW + four${i};
    var right${i} = weight[from_right${i}];
#end
    for (var k = 0u; k < SHARE; k += KS) {
        workgroupBarrier();
#unroll i in min(LEFTS, 4)
        left[to_left${i}] = left${i};
#end
#unroll i in min(RIGHTS, 4)
        right[to_right${i}] = right${i};
#end
        workgroupBarrier();
        let next = min(k + KS, SHARE - KS);
#unroll i in min(LEFTS, 4)
        left${i} = halves[from_left${i} + next * 8u];
#end
#unroll i in min(RIGHTS, 4)
        right${i} = weight[from_right${i} + next / 4u];
#end
#unroll h in min(KS / 16, 2)
#unroll n in min(TW, 2)
        let w${h}_${n} = coopLoad<coop_mat16x16<f16, B>>(&right[(in_right + ${n}u * 16u) * ROW + ${h}u * 4u], ROW);
#end
#unroll m in min(TM, 4)
        let first${h}_${m} = coopLoadT<coop_mat16x16<f16, A>>(&left[(in_left + ${m}u * 16u) * ROW + ${h}u * 4u], ROW);
#unroll n in min(TW, 2)
        sum${m}_${n} = coopMultiplyAdd(first${h}_${m}, w${h}_${n}, sum${m}_${n});
#end
        let second${h}_${m} =
            coopLoadT<coop_mat16x16<f16, A>>(&left[(BM + in_left + ${m}u * 16u) * ROW + ${h}u * 4u], ROW);
#unroll n in min(TW, 2)
        sum${m}_${n} = coopMultiplyAdd(second${h}_${m}, w${h}_${n}, sum${m}_${n});
#end
#end
#end
    }
#unroll n in min(TW, 2)
    let o${n} = rows.first + in_right + ${n}u * 16u;
    if o${n} < rows.end {
#unroll m in min(TM, 4)
        coopStoreT(sum${m}_${n}, &y[(group.z * T + t + in_left + ${m}u * 16u) * O + o${n}], O);
#end
    }
#end
}
