// ROWS rows of a weight of signed bytes, from `first` on, by the x of one token: row r goes into sum r, for whoever
// wants it after a barrier. Threads share columns out in eights, and ask for all that they need before anything else;
// rows beyond `last` are computed from it. Whoever imports this has totals, load_x4, load_codes2 and load_scales.
#import "shared/bytes_eight.wgsl"
override I8: u32;
override ROWS: u32;
override CHUNKS: u32;
override THREADS: u32;
const SUMS: u32 = ROWS;
// Scales of a row, one for 128 columns.
const BLOCKS: u32 = (I8 + 15u) / 16u;

fn products(first: u32, last: u32) {
#unroll n in CHUNKS
    let at${n} = min(thread + ${n}u * THREADS, I8 - 1u);
#unroll r in ROWS
    let w${n}_${r} = bitcast<vec2<u32>>(load_codes2(min(first + ${r}u, last) * I8 + at${n}));
    let s${n}_${r} = load_scales(min(first + ${r}u, last) * BLOCKS + at${n} / 16u);
#end
    let low${n} = load_x4(at${n} * 2u);
    let high${n} = load_x4(at${n} * 2u + 1u);
#end
#unroll n in CHUNKS
    let x${n} = eight_of(low${n}, high${n});
#end
#unroll r in ROWS
    var sum${r} = 0.0;
#unroll n in CHUNKS
    sum${r} += select(0.0, product_of(w${n}_${r}, x${n}) * s${n}_${r}, thread + ${n}u * THREADS < I8);
#end
    put(${r}u, sum${r});
#end
}
