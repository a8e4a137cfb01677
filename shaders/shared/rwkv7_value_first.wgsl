// The value of the first layer.
override RV: u32 = 0;

fn value_low(i: u32) -> vec4<f32> {
    return vec4<f32>();
}

fn value(v: f32, up: f32, c: u32) -> f32 {
    return v;
}
