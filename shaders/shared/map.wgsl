// Functions that every map expression may call.
fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(-x)); }
fn silu(x: f32) -> f32 { return x / (1.0 + exp(-x)); }
fn square(x: f32) -> f32 { return x * x; }
// Some drivers compute tanh from exp(2x), which is inf / inf beyond 44.
fn tanh_safe(x: f32) -> f32 { return tanh(clamp(x, -20.0, 20.0)); }
