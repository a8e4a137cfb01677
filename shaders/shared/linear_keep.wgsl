// The body of linear_keep.wgsl; see there.
override B: u32;
override C: u32;
override I: u32;
override ROWS: u32;
override THREADS: u32;
override CHUNKS: u32;
const SUMS: u32 = ROWS;
const I8: u32 = max(I / 8u, 1u);

fn linear_keep(group: u32) {
    let first = group * ROWS;
#unroll n in CHUNKS
    let at${n} = min(thread + ${n}u * THREADS, I8 - 1u);
#unroll r in ROWS
    let w${n}_${r} = load_weight8(min(first + ${r}u, C - 1u) * I8 + at${n});
#end
    let x${n}_0 = load_x4(at${n} * 2u);
    let x${n}_1 = load_x4(at${n} * 2u + 1u);
#end
#unroll r in ROWS
    var sum${r} = 0.0;
#unroll n in CHUNKS
    sum${r} += select(0.0, dot(w${n}_${r}[0], x${n}_0) + dot(w${n}_${r}[1], x${n}_1), thread + ${n}u * THREADS < I8);
#end
    put(${r}u, sum${r});
#end
    workgroupBarrier();
    let o = first + thread;
    if thread < ROWS && o < C {
        store_y(o, take(thread));
        // Padding belongs to no sequence and changes none.
        if load_offsets(0u) != load_offsets(1u) {
            store_last(min(load_places(0u), B - 1u) * C + o, load_ln(o));
        }
    }
}
