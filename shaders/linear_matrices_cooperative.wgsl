// linear_matrices.wgsl by cooperative matrices of 16 x 16, of several weights. A workgroup has GM subgroups along the
// tokens and GN along the rows of the weight; a subgroup has TM tiles of tokens and TW of rows up to row WIDE, TL beyond
// it, where weights are narrow, and goes TK tiles of columns a turn.
//
// halves [P, T, I] read, weight [O, I] read, y [PARTS, T, O] written; T is a multiple of 16 TM GM, WIDE of 64, rows
// beyond it of 16 TL, I of 16 TK PARTS; TL is at most two.
enable f16;
enable wgpu_cooperative_matrix;
#import "shared/segments.wgsl"
#import "shared/wide_matrices.wgsl"
override WIDE: u32;
override TL: u32;
override GM: u32;
override GN: u32;
const WIDE_TILES: u32 = WIDE / (16u * TW);
const TILES: u32 = WIDE_TILES + (O - WIDE) / (16u * TL);

fn narrow(t: u32, o: u32, mixture: u32, part: u32) {
#unroll m in min(TM, 4)
    let tiles${m} = mixture * (T / 16u) * (I / 16u) + (t / 16u + ${m}u) * (I / 16u);
#unroll n in min(TL, 2)
    var sum${m}_${n}: coop_mat16x16<f32, C>;
#end
#end
    for (var k = part * SHARE; k < (part + 1u) * SHARE; k += 16u * TK) {
#unroll h in min(TK, 4)
#unroll n in min(TL, 2)
        let w${h}_${n} = coopLoad<coop_mat16x16<f16, B>>(&weight[(o + ${n}u * 16u) * I + k + ${h}u * 16u], I);
#end
#unroll m in min(TM, 4)
        let at${h}_${m} = (tiles${m} + k / 16u + ${h}u) * 512u;
        let first${h}_${m} = coopLoadT<coop_mat16x16<f16, A>>(&halves[at${h}_${m}], 16u);
        let second${h}_${m} = coopLoadT<coop_mat16x16<f16, A>>(&halves[at${h}_${m} + 256u], 16u);
#end
#end
#unroll h in min(TK, 4)
#unroll m in min(TM, 4)
#unroll n in min(TL, 2)
        sum${m}_${n} = coopMultiplyAdd(first${h}_${m}, w${h}_${n}, sum${m}_${n});
#end
#unroll n in min(TL, 2)
        sum${m}_${n} = coopMultiplyAdd(second${h}_${m}, w${h}_${n}, sum${m}_${n});
#end
#end
#end
    }
#unroll m in min(TM, 4)
#unroll n in min(TL, 2)
    coopStoreT(sum${m}_${n}, &y[(part * T + t + ${m}u * 16u) * O + o + ${n}u * 16u], O);
#end
#end
}

@compute @workgroup_size(32 * GM * GN)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_id) subgroup: u32) {
    let t = (group.y * GM + subgroup / GN) * TM * 16u;
    let tile = group.x * GN + subgroup % GN;
    if tile < WIDE_TILES {
        let o = tile * TW * 16u;
        wide(t, o, segment_of(o, O).mixture, group.z);
    } else if tile < TILES {
        let o = WIDE + (tile - WIDE_TILES) * TL * 16u;
        narrow(t, o, segment_of(o, O).mixture, group.z);
    }
}
