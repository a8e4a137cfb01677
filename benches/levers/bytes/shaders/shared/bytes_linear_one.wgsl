// The body of bytes_linear_one.wgsl; see there.
#import "shared/bytes_products.wgsl"
override O: u32;
// Workgroups lie along x, and where those are too many for one direction, in several layers along z.
const LAYERS: u32 = (O + 65535u * ROWS - 1u) / (65535u * ROWS);
const ACROSS: u32 = ((O + ROWS - 1u) / ROWS + LAYERS - 1u) / LAYERS;

fn linear_one(group: vec3<u32>) {
    let first = (group.z * ACROSS + group.x) * ROWS;
    products(first, O - 1u);
    workgroupBarrier();
    if thread < ROWS && first + thread < O {
        store_y(first + thread, take(thread));
    }
}
