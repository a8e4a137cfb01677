// The value of later layers, into which the first layer's is mixed: of token and channel `at`, which has channel c.
override RV: u32;

fn value_low(i: u32) -> vec4<f32> {
    return load_v_low4(i);
}

fn value(up: f32, c: u32, at: u32) -> f32 {
    let v = load_v(at);
    return v + (load_v_first(at) - v) / (1.0 + exp(-(load_v_base(c) + up)));
}
