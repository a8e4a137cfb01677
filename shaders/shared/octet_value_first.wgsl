// rwkv7_value_first.wgsl for four channels at a time.
override RV: u32 = 0;

fn value_low(i: u32) -> vec4<f32> {
    return vec4<f32>();
}

fn value4(v: vec4<f32>, up: vec4<f32>, c: u32) -> vec4<f32> {
    return v;
}
