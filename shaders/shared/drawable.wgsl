// What of a row of logits can be drawn, and which is best. Whoever imports this declares LANES, a power of two, and has
// workgroups of that size.

// No token.
const NONE: u32 = 0xffffffffu;

// Key of infinity, above all others.
const INFINITE: u32 = 0xff800000u;

// A token and the key of its logit.
struct Candidate { key: u32, token: u32 }

// A number that grows with the logit, as floats are ordered (IEEE 754, totalOrder); 0 for what is never drawn, which is
// minus infinity and what is not a number. Bits are compared, since comparisons of what is not a number mean nothing.
fn key_of(logit: f32) -> u32 {
    let bits = bitcast<u32>(logit);
    if (bits & 0x7fffffffu) > 0x7f800000u || bits == 0xff800000u {
        return 0u;
    }
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

// The logit that has this key; of 0, something that is none.
fn logit_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u));
}

fn candidate(logit: f32, token: u32) -> Candidate {
    let key = key_of(logit);
    return Candidate(key, select(token, NONE, key == 0u));
}

// The larger key, then the lower token.
fn better(a: Candidate, b: Candidate) -> Candidate {
    let is_b = b.key > a.key || (b.key == a.key && b.token < a.token);
    return Candidate(select(a.key, b.key, is_b), select(a.token, b.token, is_b));
}

var<workgroup> best_keys: array<u32, LANES>;
var<workgroup> best_tokens: array<u32, LANES>;

// The best of a workgroup's. To be called in uniform control flow; every thread gets it.
fn workgroup_best(lane: u32, own: Candidate) -> Candidate {
    workgroupBarrier();
    best_keys[lane] = own.key;
    best_tokens[lane] = own.token;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            let found = better(
                Candidate(best_keys[lane], best_tokens[lane]),
                Candidate(best_keys[lane + half], best_tokens[lane + half]),
            );
            best_keys[lane] = found.key;
            best_tokens[lane] = found.token;
        }
    }
    workgroupBarrier();
    return Candidate(best_keys[0], best_tokens[0]);
}
