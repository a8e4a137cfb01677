// linear_matrices.wgsl by cooperative matrices of 16 x 16: GM x GN subgroups a workgroup, GM along the tokens and GN
// along
// the rows of the weight, each with TM x TN matrices of sums, of a share of the columns. All operands come straight
// from their buffers: what neighbours share, they find in the caches.
//
// halves [2, T, I] read, weight [O, I] read, y [PARTS, T, O] written; T is a multiple of 16 TM GM, O of 16 TN GN, I of
// 32 PARTS.
enable f16;
enable wgpu_cooperative_matrix;
override T: u32;
override I: u32;
override O: u32;
override TM: u32;
override TN: u32;
override GM: u32;
override GN: u32;
override PARTS: u32;
const SHARE: u32 = I / PARTS;
@group(0) @binding(0) var<storage, read> halves: array<f16>;
@group(0) @binding(1) var<storage, read> weight: array<f16>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(32 * GM * GN)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_id) subgroup: u32) {
    let t = (group.y * GM + subgroup / GN) * TM * 16u;
    let o = (group.x * GN + subgroup % GN) * TN * 16u;
#unroll m in TM
#unroll n in TN
    var sum${m}_${n}: coop_mat16x16<f32, C>;
#end
#end
    for (var k = group.z * SHARE; k < (group.z + 1u) * SHARE; k += 32u) {
#unroll h in 2
#unroll n in TN
        let w${h}_${n} = coopLoad<coop_mat16x16<f16, B>>(&weight[(o + ${n}u * 16u) * I + k + ${h}u * 16u], I);
#end
#unroll m in TM
        let high${h}_${m} = coopLoadT<coop_mat16x16<f16, A>>(&halves[(t + ${m}u * 16u) * I + k + ${h}u * 16u], I);
        let low${h}_${m} = coopLoadT<coop_mat16x16<f16, A>>(&halves[(T + t + ${m}u * 16u) * I + k + ${h}u * 16u], I);
#end
#end
#unroll h in 2
#unroll m in TM
#unroll n in TN
        sum${m}_${n} = coopMultiplyAdd(high${h}_${m}, w${h}_${n}, sum${m}_${n});
#end
#unroll n in TN
        sum${m}_${n} = coopMultiplyAdd(low${h}_${m}, w${h}_${n}, sum${m}_${n});
#end
#end
#end
    }
#unroll m in TM
#unroll n in TN
    coopStoreT(sum${m}_${n}, &y[(group.z * T + t + ${m}u * 16u) * O + o + ${n}u * 16u], O);
#end
#end
}
