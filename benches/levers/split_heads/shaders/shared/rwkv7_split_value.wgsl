// The value of later layers, into which the first layer's is mixed: value_from(c) is what channel c needs of memory, to
// be asked for early.
override RV: u32;

fn value_low(i: u32) -> vec4<f32> {
    return load_v_low4(i);
}

fn value_from(c: u32) -> vec2<f32> {
    return vec2<f32>(load_v_first(c), load_v_base(c));
}

fn value(v: f32, up: f32, from_memory: vec2<f32>) -> f32 {
    return v + (from_memory.x - v) * sigmoid(from_memory.y + up);
}
