// The value of later layers, into which the first layer's is mixed.
override RV: u32;

fn value_low(i: u32) -> vec4<f32> {
    return load_v_low4(i);
}

fn value(v: f32, up: f32, c: u32) -> f32 {
    return v + (load_v_first(c) - v) * sigmoid(load_v_base(c) + up);
}
