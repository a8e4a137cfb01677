// The sums of TM tiles of tokens from `t` on and of TW tiles of a weight's rows from `o` on, of one share of the columns.
// All operands come straight from their buffers: what neighbours share, they find in the caches. A tile of halves lies
// in one piece, which takes a quarter of the cache lines that 16 rows do. TM, TW and TK are at most four.
override T: u32;
override I: u32;
override O: u32;
override TM: u32;
override TW: u32;
override TK: u32;
override PARTS: u32;
const SHARE: u32 = I / PARTS;
@group(0) @binding(0) var<storage, read> halves: array<f16>;
@group(0) @binding(1) var<storage, read> weight: array<f16>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn wide(t: u32, o: u32, mixture: u32, part: u32) {
#unroll m in min(TM, 4)
    let tiles${m} = mixture * (T / 16u) * (I / 16u) + (t / 16u + ${m}u) * (I / 16u);
#unroll n in min(TW, 4)
    var sum${m}_${n}: coop_mat16x16<f32, C>;
#end
#end
    for (var k = part * SHARE; k < (part + 1u) * SHARE; k += 16u * TK) {
#unroll h in min(TK, 4)
#unroll n in min(TW, 4)
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
#unroll n in min(TW, 4)
        sum${m}_${n} = coopMultiplyAdd(first${h}_${m}, w${h}_${n}, sum${m}_${n});
#end
#unroll n in min(TW, 4)
        sum${m}_${n} = coopMultiplyAdd(second${h}_${m}, w${h}_${n}, sum${m}_${n});
#end
#end
#end
    }
#unroll m in min(TM, 4)
#unroll n in min(TW, 4)
    coopStoreT(sum${m}_${n}, &y[(part * T + t + ${m}u * 16u) * O + o + ${n}u * 16u], O);
#end
#end
}
