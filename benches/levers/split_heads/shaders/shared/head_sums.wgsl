// For each of a thread's eights, the sum over those of its head, N / 8 that follow each other, through workgroup
// memory: any N that eight divides.
const HEAD8: u32 = max(N / 8u, 1u);
var<workgroup> of_eights: array<f32, 2u * CHUNKS * THREADS>;

fn head_sums(sum: u32, values: Eights) -> Eights {
    let first = sum * CHUNKS * THREADS;
#unroll n in CHUNKS
    of_eights[first + ${n}u * THREADS + thread] = values[${n}];
#end
    workgroupBarrier();
    var sums: Eights;
#unroll n in CHUNKS
    let head${n} = first + eight(${n}u) / HEAD8 * HEAD8;
    for (var t = 0u; t < HEAD8; t++) {
        sums[${n}] += of_eights[head${n} + t];
    }
#end
    return sums;
}
