// y  = (a + exp(u + k) v) / (b + exp(u + k))
// a' = exp(w) a + exp(k) v
// b' = exp(w) b + exp(k)            with w = -exp(time_decay), u = time_first
//
// for each channel, token after token. Of a and b, which no float could hold, the state has aa = a exp(-pp) and
// bb = b exp(-pp), where pp is the largest exponent so far: so every exponential is of something at most 0, and one of
// each pair is 1. Before the first token pp is -1e30, beside which no k counts.
//
// time_decay, time_first [C] read, k, v [T, C] read, aa, bb, pp [B, C] read and written, offsets [S + 1] read,
// places [S] read, y [T, C] written; a thread per channel and sequence. Bytes per token: 8 C read, 4 C written; per
// sequence 24 C for the state, and time_decay and time_first.
// Source: RWKV-LM, RWKV-v4neo/src/model_run.py, `SA`; Peng et al., "RWKV", 2023, appendix.
override T: u32;
override S: u32;
override C: u32;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let c = id.x;
    if c >= C {
        return;
    }
    let begin = load_offsets(id.y);
    let end = load_offsets(id.y + 1u);
    if begin < end {
        let w = -exp(load_time_decay(c));
        let u = load_time_first(c);
        let place = load_places(id.y) * C + c;
        var a = load_aa(place);
        var b = load_bb(place);
        var p = load_pp(place);
        for (var t = begin; t < end; t++) {
            let k = load_k(t * C + c);
            let v = load_v(t * C + c);
            let now = max(p, u + k);
            let past_now = exp(p - now);
            let own_now = exp(u + k - now);
            store_y(t * C + c, (past_now * a + own_now * v) / (past_now * b + own_now));
            let next = max(p + w, k);
            let past = exp(p + w - next);
            let own = exp(k - next);
            a = past * a + own * v;
            b = past * b + own;
            p = next;
        }
        store_aa(place, a);
        store_bb(place, b);
        store_pp(place, p);
    }
    // Padding belongs to no sequence: the last one's threads give it a value, so that nothing reads what nobody wrote.
    if id.y == S - 1u {
        for (var t = load_offsets(S); t < T; t++) {
            store_y(t * C + c, 0.0);
        }
    }
}
