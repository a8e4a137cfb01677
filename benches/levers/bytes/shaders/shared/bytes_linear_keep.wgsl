// The body of bytes_linear_keep.wgsl; see there.
#import "shared/bytes_products.wgsl"
override B: u32;
override C: u32;

fn linear_keep(group: u32) {
    let first = group * ROWS;
    products(first, C - 1u);
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
