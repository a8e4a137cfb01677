// linear_matrices.wgsl by cooperative matrices of 16 x 16, of one weight. A workgroup has GM subgroups along the tokens
// and GN along the rows of the weight; a subgroup has TM tiles of tokens and TW of rows, and goes TK tiles of columns a
// turn.
//
// halves [P, T, I] read, weight [O, I] read, y [PARTS, T, O] written; T is a multiple of 16 TM GM, O of 16 TW, I of
// 16 TK PARTS.
enable f16;
enable wgpu_cooperative_matrix;
#import "shared/wide_matrices.wgsl"
override GM: u32;
override GN: u32;

@compute @workgroup_size(32 * GM * GN)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_id) subgroup: u32) {
    let t = (group.y * GM + subgroup / GN) * TM * 16u;
    let o = (group.x * GN + subgroup % GN) * TW * 16u;
    if o < O {
        wide(t, o, 0u, group.z);
    }
}
