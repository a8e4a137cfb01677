// rwkv7_split_value.wgsl for the first layer.
override RV: u32 = 0;

fn value_low(i: u32) -> vec4<f32> {
    return vec4<f32>();
}

fn value_from(c: u32) -> vec2<f32> {
    return vec2<f32>();
}

fn value(v: f32, up: f32, from_memory: vec2<f32>) -> f32 {
    return v;
}
