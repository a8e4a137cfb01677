// rwkv7_value.wgsl for four channels at a time.
override RV: u32;

fn value_low(i: u32) -> vec4<f32> {
    return load_v_low4(i);
}

fn value4(v: vec4<f32>, up: vec4<f32>, c: u32) -> vec4<f32> {
    return v + (load_v_first4(c) - v) * sigmoid4(load_v_base4(c) + up);
}
