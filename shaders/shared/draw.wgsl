// The body of draw.wgsl for workgroups of any size; see there.
//
// Nothing is sorted. A filter keeps the best tokens, as many as reach a count (top_k) or a mass (top_p): the key of the
// last of them is found by halving the interval in which it lies, and each try adds up all that is above. Tokens weigh
// exp(logit - best), as on the host (generate::sample): filters come first, the temperature last. All sums are taken in
// one fixed order, so that a device always draws alike. Whatever steers a barrier is read by workgroupUniformLoad.
#import "shared/drawable.wgsl"
override V: u32;
override P: u32;

// Words of a rule, and their places: base::role::InputRole::DrawRules.
const WORDS: u32 = 7u;
const TEMPERATURE: u32 = 0u;
const TOP_K: u32 = 1u;
const TOP_P: u32 = 2u;
const MIN_P: u32 = 3u;
const SEED_LOW: u32 = 4u;
const SEED_HIGH: u32 = 5u;
const NUMBER: u32 = 6u;

// What filters have left: keys above `floor`, and of those equal to it the tokens up to `last`.
struct Cut { floor: u32, last: u32 }

// How many tokens, and the sum of their weights.
struct Total { count: u32, mass: f32 }

// A row of logits: where it begins, and its best logit.
struct Row { begin: u32, best: f32, best_key: u32 }

var<workgroup> words: array<u32, WORDS>;
var<workgroup> counts: array<u32, LANES>;
var<workgroup> masses: array<f32, LANES>;

fn is_left(key: u32, token: u32, cut: Cut) -> bool {
    return key > cut.floor || (key == cut.floor && token <= cut.last);
}

// How far a logit is over the best one: at most 0. Beside infinite ones, nothing else is left.
fn over_best(row: Row, logit: f32, key: u32) -> f32 {
    return select(logit - row.best, 0.0, key == row.best_key);
}

// What is so little that it underflows weighs nothing.
fn weight(over: f32) -> f32 {
    return select(exp(max(over, -87.0)), 0.0, over < -87.0);
}

fn workgroup_total(lane: u32, own: Total) -> Total {
    // The total before may still be being read.
    workgroupBarrier();
    counts[lane] = own.count;
    masses[lane] = own.mass;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            counts[lane] += counts[lane + half];
            masses[lane] += masses[lane + half];
        }
    }
    let count = workgroupUniformLoad(&counts[0]);
    return Total(count, workgroupUniformLoad(&masses[0]));
}

// Four tokens of a thread, and their logits: loads that do not wait for each other. Behind the last, it is the last.
const FOUR: vec4<u32> = vec4<u32>(0u, LANES, 2u * LANES, 3u * LANES);

fn four_logits(row: Row, tokens: vec4<u32>) -> vec4<f32> {
    let at = row.begin + min(tokens, vec4<u32>(V - 1u));
    return vec4<f32>(load_logits(at.x), load_logits(at.y), load_logits(at.z), load_logits(at.w));
}

// With one token more, if it is left and its key is at least `low`.
fn added(own: Total, row: Row, cut: Cut, low: u32, token: u32, logit: f32) -> Total {
    let key = key_of(logit);
    let counts = token < V && key >= low && is_left(key, token, cut);
    let mass = select(0.0, weight(over_best(row, logit, key)), counts);
    return Total(own.count + u32(counts), own.mass + mass);
}

// Of what is left, that with keys from `low` on.
fn total_above(lane: u32, row: Row, cut: Cut, low: u32) -> Total {
    var own = Total(0u, 0.0);
    for (var first = lane; first < V; first += 4u * LANES) {
        let tokens = first + FOUR;
        let logits = four_logits(row, tokens);
        own = added(own, row, cut, low, tokens.x, logits.x);
        own = added(own, row, cut, low, tokens.y, logits.y);
        own = added(own, row, cut, low, tokens.z, logits.z);
        own = added(own, row, cut, low, tokens.w, logits.w);
    }
    return workgroup_total(lane, own);
}

// How many tokens up to `last` have this key.
fn count_equal(lane: u32, row: Row, key: u32, last: u32) -> u32 {
    var own = 0u;
    for (var token = lane; token < V; token += LANES) {
        own += select(0u, 1u, token <= last && key_of(load_logits(row.begin + token)) == key);
    }
    return workgroup_total(lane, Total(own, 0.0)).count;
}

// Of what is left, the best tokens, as few as reach `enough`, which is one at least. `all` is its total.
fn narrowed(lane: u32, row: Row, cut: Cut, all: Total, enough: Total) -> Cut {
    // What has keys from `low` on reaches it, what has keys from `high` on does not.
    var low = max(cut.floor, 1u);
    var high = select(row.best_key + 1u, low + 1u, enough.count >= all.count);
    var from_low = all;
    var from_high = Total(0u, 0.0);
    // Keys are spread as logarithms are, logits are not, so the logits' interval is halved as long as that leads on.
    var middle = key_of(row.best - 32.0);
    var by_value = true;
    loop {
        // What lies between is a single token, or all has one key.
        if from_low.count - from_high.count <= 1u || high - low <= 1u {
            break;
        }
        by_value = by_value && middle > low && middle < high;
        middle = select(low + (high - low) / 2u, middle, by_value);
        let from_middle = total_above(lane, row, cut, middle);
        if from_middle.count >= enough.count && from_middle.mass >= enough.mass {
            low = middle;
            from_low = from_middle;
        } else {
            high = middle;
            from_high = from_middle;
        }
        middle = key_of(0.5 * logit_of(low) + 0.5 * logit_of(high));
    }
    // Of equals, the lower tokens, as many as it takes.
    let last = select(NONE, cut.last, low == cut.floor);
    let equals = from_low.count - from_high.count;
    let each = weight(over_best(row, logit_of(low), low));
    let by_count = max(enough.count, from_high.count) - from_high.count;
    let by_mass = u32(ceil(clamp((enough.mass - from_high.mass) / max(each, 1e-38), 0.0, f32(equals))));
    let wanted = clamp(max(by_count, by_mass), 1u, max(equals, 1u));
    let is_split = wanted < equals;
    var first = select(last, 0u, is_split);
    var end = select(last, min(last, V - 1u), is_split);
    loop {
        if first >= end {
            break;
        }
        let middle_token = first + (end - first) / 2u;
        if count_equal(lane, row, low, middle_token) >= wanted {
            end = middle_token;
        } else {
            first = middle_token + 1u;
        }
    }
    return Cut(low, end);
}

// What top_k, top_p and min_p leave, each of what the one before has left.
fn filtered(lane: u32, row: Row) -> Cut {
    // Beside infinite logits, others have no weight.
    var cut = Cut(select(1u, INFINITE, row.best_key == INFINITE), NONE);
    let top_k = workgroupUniformLoad(&words[TOP_K]);
    if top_k > 0u {
        cut = narrowed(lane, row, cut, total_above(lane, row, cut, 1u), Total(top_k, 0.0));
    }
    let top_p = bitcast<f32>(workgroupUniformLoad(&words[TOP_P]));
    if top_p < 1.0 {
        let all = total_above(lane, row, cut, 1u);
        cut = narrowed(lane, row, cut, all, Total(1u, all.mass * top_p));
    }
    let min_p = bitcast<f32>(workgroupUniformLoad(&words[MIN_P]));
    if min_p > 0.0 {
        let least = key_of(row.best + log(min_p));
        cut = Cut(max(cut.floor, least), select(cut.last, NONE, least > cut.floor));
    }
    return cut;
}

// A number in 0 .. 1, a multiple of 2^-24, the same for equal seeds and numbers everywhere: pcg4d of Jarzynski and
// Olano, "Hash Functions for GPU Rendering", 2020, section 4.
fn uniform_number(seed_low: u32, seed_high: u32, number: u32) -> f32 {
    var v = vec4<u32>(seed_low, seed_high, number, 0u) * 1664525u + 1013904223u;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    v ^= v >> vec4<u32>(16u);
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return f32(v.x >> 8u) / 16777216.0;
}

// Sums of all threads up to each one, itself included, in `masses`; returns the sum of all.
fn workgroup_sums(lane: u32, own: f32) -> f32 {
    workgroupBarrier();
    masses[lane] = own;
    for (var distance = 1u; distance < LANES; distance *= 2u) {
        workgroupBarrier();
        let before = select(0.0, masses[lane - min(distance, lane)], lane >= distance);
        workgroupBarrier();
        masses[lane] += before;
    }
    return workgroupUniformLoad(&masses[LANES - 1u]);
}

// The first thread that something falls to and whose sum is above `limit`; if rounding leaves none, the last thread
// that something falls to; LANES if there is none at all. Follows workgroup_sums.
fn thread_at(lane: u32, own: f32, limit: f32) -> u32 {
    let order = select(2u * LANES - lane, lane, masses[lane] > limit);
    counts[lane] = select(3u * LANES, order, own > 0.0);
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            counts[lane] = min(counts[lane], counts[lane + half]);
        }
    }
    let found = workgroupUniformLoad(&counts[0]);
    return select(select(LANES, 2u * LANES - found, found <= 2u * LANES), found, found < LANES);
}

// The weight with which a token of this logit is drawn.
fn chance(row: Row, cut: Cut, temperature: f32, token: u32, logit: f32) -> f32 {
    let key = key_of(logit);
    let is_drawn = token < V && is_left(key, token, cut);
    return select(0.0, weight(over_best(row, logit, key) / temperature), is_drawn);
}

// One of what is left: first a thread is drawn, by the sum of its tokens, then one of them. Thread i has the tokens i,
// i + LANES, i + 2 LANES, …
fn drawn(lane: u32, row: Row, cut: Cut, temperature: f32, number: f32) -> u32 {
    var own = 0.0;
    for (var first = lane; first < V; first += 4u * LANES) {
        let tokens = first + FOUR;
        let logits = four_logits(row, tokens);
        own += chance(row, cut, temperature, tokens.x, logits.x);
        own += chance(row, cut, temperature, tokens.y, logits.y);
        own += chance(row, cut, temperature, tokens.z, logits.z);
        own += chance(row, cut, temperature, tokens.w, logits.w);
    }
    var limit = number * workgroup_sums(lane, own);
    let thread = thread_at(lane, own, limit);
    limit -= select(0.0, masses[max(thread, 1u) - 1u], thread > 0u);
    // That thread's tokens, shared among all threads in the same way.
    own = 0.0;
    for (var token = thread + lane * LANES; token < V; token += LANES * LANES) {
        own += chance(row, cut, temperature, token, load_logits(row.begin + token));
    }
    workgroup_sums(lane, own);
    let place = thread_at(lane, own, limit);
    limit -= select(0.0, masses[max(place, 1u) - 1u], place > 0u);
    var found = NONE;
    for (var token = thread + place * LANES; token < V; token += LANES * LANES) {
        let share = chance(row, cut, temperature, token, load_logits(row.begin + token));
        if share > 0.0 && (found == NONE || limit >= 0.0) {
            found = token;
            limit -= share;
        }
    }
    return found;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let r = group.x;
    if lane < WORDS {
        words[lane] = load_rules(WORDS * r + lane);
    }
    var best = Candidate(0u, NONE);
    for (var p = lane; p < P; p += LANES) {
        let token = load_best(r * P + p);
        if token < V {
            best = better(best, candidate(load_logits(r * V + token), token));
        }
    }
    best = workgroup_best(lane, best);
    var token = best.token;
    let temperature = bitcast<f32>(workgroupUniformLoad(&words[TEMPERATURE]));
    if temperature > 0.0 {
        let row = Row(r * V, logit_of(best.key), best.key);
        let number = uniform_number(words[SEED_LOW], words[SEED_HIGH], words[NUMBER]);
        // A divisor that no device takes for 0.
        token = drawn(lane, row, filtered(lane, row), max(temperature, 1e-37), number);
    }
    if lane == 0u {
        store_y(r, token);
        // Sequences without tokens are padding, and live nowhere.
        if load_offsets(r + 1u) > load_offsets(r) {
            store_next(load_places(r), token);
        }
    }
}
