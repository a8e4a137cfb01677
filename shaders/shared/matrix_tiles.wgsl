// A tile of y = weight x by cooperative matrices of halves that add up in floats. Whoever imports it says how many
// subgroups lie along tokens and along rows of the weight; each has 32 of the one and 64 of the other.
//
// The weight is f16 and taken as it is. Of x nothing is dropped: x s = high + low, two halves of together 22 bits, with a
// power of two s for each token, and y s = weight high + weight low. s is 1 unless the largest |x| of some token of the
// tile lies where halves do not reach or lose bits. That is known once all of x went by, and then the tile is computed
// again, with s from that token's largest; other tokens keep theirs, and so their bits.
enable f16;
enable wgpu_cooperative_matrix;
enable subgroups;
override T: u32;
override I: u32;
override O: u32;
const TILE_T: u32 = 32u * SUBGROUPS_T;
const TILE_O: u32 = 64u * SUBGROUPS_O;
const THREADS: u32 = 32u * SUBGROUPS_T * SUBGROUPS_O;
// Inputs of a step. The rows of tiles have some room between them, so that the eight rows that are read at a time lie in
// different banks.
const DEPTH: u32 = 32u;
const PITCH: u32 = DEPTH / 4u + 2u;
const HALF: u32 = 16u * PITCH;
// What a thread brings of each tile in a step: so many vectors, so many rows apart.
const BRINGS_X: u32 = TILE_T * DEPTH / 4u / THREADS;
const APART_X: u32 = THREADS * 4u / DEPTH;
const BRINGS_W: u32 = TILE_O * DEPTH / 8u / THREADS;
const APART_W: u32 = THREADS * 8u / DEPTH;
// Between these, x s has its bits: 2^-4 and 2^15, as bits.
const LEAST_BITS: u32 = 123u << 23u;
const MOST_BITS: u32 = 142u << 23u;

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;

var<workgroup> high: array<vec4<f16>, TILE_T * PITCH>;
var<workgroup> low: array<vec4<f16>, TILE_T * PITCH>;
var<workgroup> rows: array<vec4<f16>, TILE_O * PITCH>;
var<workgroup> passing: array<f32, SUBGROUPS_T * SUBGROUPS_O * 256u>;
var<workgroup> largest: array<atomic<u32>, TILE_T>;
var<workgroup> scale: array<f32, TILE_T>;
var<workgroup> again: u32;

fn largest_of(x: vec4<f32>) -> f32 {
    let most = max(abs(x.xy), abs(x.zw));
    return max(most.x, most.y);
}

// Four inputs of a token, and eight of a row of the weight; 0 beyond the last.
fn inputs(token: u32, at: u32) -> vec4<f32> {
    let last = max(I / 4u, 1u) - 1u;
    return select(vec4<f32>(), load_x4(min(token, T - 1u) * (I / 4u) + min(at, last)), at <= last);
}

fn weights(row: u32, at: u32) -> mat2x4<f32> {
    return load_weight8(min(row, O - 1u) * (I / 8u) + min(at, max(I / 8u, 1u) - 1u));
}

fn put_inputs(at: u32, x: vec4<f32>, s: f32) {
    let scaled = x * s;
    let rounded = vec4<f16>(scaled);
    high[at] = rounded;
    low[at] = vec4<f16>(scaled - vec4<f32>(rounded));
}

fn put_weights(at: u32, w: mat2x4<f32>) {
    rows[at] = vec4<f16>(w[0]);
    rows[at + 1u] = vec4<f16>(w[1]);
}

// What each subgroup has in `passing` goes to y: 16 tokens from the tile's `token` on, and 16 rows of the weight.
fn hand_over(first_token: u32, token: u32, first_row: u32, subgroup: u32, lane: u32) {
    workgroupBarrier();
    let o = first_row + lane % 16u;
    for (var n = lane / 16u; n < 16u; n += 2u) {
        let t = first_token + token + n;
        if t < T && o < O {
            store_y(t * O + o, passing[subgroup * 256u + n * 16u + lane % 16u] / scale[token + n]);
        }
    }
    workgroupBarrier();
}

// A power of two that brings the largest to 2^13 and is the inverse of one.
fn scale_for(largest_bits: u32) -> f32 {
    let exponent = i32(largest_bits >> 23u);
    return bitcast<f32>(u32(clamp(267 - exponent, 1, 253)) << 23u);
}

fn tile_of_y(tile_t: u32, tile_o: u32, thread: u32, subgroup: u32, lane: u32) {
    let first_t = tile_t * TILE_T;
    let first_o = tile_o * TILE_O;
    let x_row = thread / (DEPTH / 4u);
    let x_column = thread % (DEPTH / 4u);
    let w_row = thread / (DEPTH / 8u);
    let w_column = thread % (DEPTH / 8u);
    let x_at = x_row * PITCH + x_column;
    let w_at = w_row * PITCH + w_column * 2u;
    let sub_t = subgroup / SUBGROUPS_O * 32u;
    let sub_o = subgroup % SUBGROUPS_O * 64u;
    if thread < TILE_T {
        scale[thread] = 1.0;
    }
    if thread + THREADS < TILE_T {
        scale[thread + THREADS] = 1.0;
    }
    var c00: Sum;
    var c01: Sum;
    var c02: Sum;
    var c03: Sum;
    var c10: Sum;
    var c11: Sum;
    var c12: Sum;
    var c13: Sum;
    for (var attempt = 0u; attempt < 2u; attempt++) {
        workgroupBarrier();
        c00 = Sum();
        c01 = Sum();
        c02 = Sum();
        c03 = Sum();
        c10 = Sum();
        c11 = Sum();
        c12 = Sum();
        c13 = Sum();
        var x0: vec4<f32>;
        var s0 = 1.0;
        var m0 = 0.0;
        var x1: vec4<f32>;
        var s1 = 1.0;
        var m1 = 0.0;
        var x2: vec4<f32>;
        var s2 = 1.0;
        var m2 = 0.0;
        var x3: vec4<f32>;
        var s3 = 1.0;
        var m3 = 0.0;
        var x4: vec4<f32>;
        var s4 = 1.0;
        var m4 = 0.0;
        var x5: vec4<f32>;
        var s5 = 1.0;
        var m5 = 0.0;
        var x6: vec4<f32>;
        var s6 = 1.0;
        var m6 = 0.0;
        var x7: vec4<f32>;
        var s7 = 1.0;
        var m7 = 0.0;
        var w0: mat2x4<f32>;
        var w1: mat2x4<f32>;
        var w2: mat2x4<f32>;
        var w3: mat2x4<f32>;
        s0 = scale[x_row + 0u * APART_X];
        s1 = scale[x_row + 1u * APART_X];
        s2 = scale[x_row + 2u * APART_X];
        s3 = scale[x_row + 3u * APART_X];
        if BRINGS_X > 4u {
            s4 = scale[x_row + 4u * APART_X];
            s5 = scale[x_row + 5u * APART_X];
            s6 = scale[x_row + 6u * APART_X];
            s7 = scale[x_row + 7u * APART_X];
        }
        x0 = inputs(first_t + x_row + 0u * APART_X, x_column);
        x1 = inputs(first_t + x_row + 1u * APART_X, x_column);
        x2 = inputs(first_t + x_row + 2u * APART_X, x_column);
        x3 = inputs(first_t + x_row + 3u * APART_X, x_column);
        if BRINGS_X > 4u {
            x4 = inputs(first_t + x_row + 4u * APART_X, x_column);
            x5 = inputs(first_t + x_row + 5u * APART_X, x_column);
            x6 = inputs(first_t + x_row + 6u * APART_X, x_column);
            x7 = inputs(first_t + x_row + 7u * APART_X, x_column);
        }
        w0 = weights(first_o + w_row + 0u * APART_W, w_column);
        w1 = weights(first_o + w_row + 1u * APART_W, w_column);
        if BRINGS_W > 2u {
            w2 = weights(first_o + w_row + 2u * APART_W, w_column);
            w3 = weights(first_o + w_row + 3u * APART_W, w_column);
        }
        for (var k = 0u; k < I; k += DEPTH) {
            put_inputs(x_at + 0u * APART_X * PITCH, x0, s0);
            put_inputs(x_at + 1u * APART_X * PITCH, x1, s1);
            put_inputs(x_at + 2u * APART_X * PITCH, x2, s2);
            put_inputs(x_at + 3u * APART_X * PITCH, x3, s3);
            if BRINGS_X > 4u {
                put_inputs(x_at + 4u * APART_X * PITCH, x4, s4);
                put_inputs(x_at + 5u * APART_X * PITCH, x5, s5);
                put_inputs(x_at + 6u * APART_X * PITCH, x6, s6);
                put_inputs(x_at + 7u * APART_X * PITCH, x7, s7);
            }
            m0 = max(m0, largest_of(x0));
            m1 = max(m1, largest_of(x1));
            m2 = max(m2, largest_of(x2));
            m3 = max(m3, largest_of(x3));
            if BRINGS_X > 4u {
                m4 = max(m4, largest_of(x4));
                m5 = max(m5, largest_of(x5));
                m6 = max(m6, largest_of(x6));
                m7 = max(m7, largest_of(x7));
            }
            put_weights(w_at + 0u * APART_W * PITCH, w0);
            put_weights(w_at + 1u * APART_W * PITCH, w1);
            if BRINGS_W > 2u {
                put_weights(w_at + 2u * APART_W * PITCH, w2);
                put_weights(w_at + 3u * APART_W * PITCH, w3);
            }
            workgroupBarrier();
            let next = k + DEPTH;
            x0 = inputs(first_t + x_row + 0u * APART_X, next / 4u + x_column);
            x1 = inputs(first_t + x_row + 1u * APART_X, next / 4u + x_column);
            x2 = inputs(first_t + x_row + 2u * APART_X, next / 4u + x_column);
            x3 = inputs(first_t + x_row + 3u * APART_X, next / 4u + x_column);
            if BRINGS_X > 4u {
                x4 = inputs(first_t + x_row + 4u * APART_X, next / 4u + x_column);
                x5 = inputs(first_t + x_row + 5u * APART_X, next / 4u + x_column);
                x6 = inputs(first_t + x_row + 6u * APART_X, next / 4u + x_column);
                x7 = inputs(first_t + x_row + 7u * APART_X, next / 4u + x_column);
            }
            w0 = weights(first_o + w_row + 0u * APART_W, next / 8u + w_column);
            w1 = weights(first_o + w_row + 1u * APART_W, next / 8u + w_column);
            if BRINGS_W > 2u {
                w2 = weights(first_o + w_row + 2u * APART_W, next / 8u + w_column);
                w3 = weights(first_o + w_row + 3u * APART_W, next / 8u + w_column);
            }
            for (var half = 0u; half < DEPTH / 4u; half += 4u) {
                let left = sub_t * PITCH + half;
                let high0 = coopLoadT<Left>(&high[left], PITCH);
                let high1 = coopLoadT<Left>(&high[left + HALF], PITCH);
                let low0 = coopLoadT<Left>(&low[left], PITCH);
                let low1 = coopLoadT<Left>(&low[left + HALF], PITCH);
                let right0 = coopLoad<Right>(&rows[(sub_o + 0u) * PITCH + half], PITCH);
                c00 = coopMultiplyAdd(low0, right0, c00);
                c10 = coopMultiplyAdd(low1, right0, c10);
                c00 = coopMultiplyAdd(high0, right0, c00);
                c10 = coopMultiplyAdd(high1, right0, c10);
                let right1 = coopLoad<Right>(&rows[(sub_o + 16u) * PITCH + half], PITCH);
                c01 = coopMultiplyAdd(low0, right1, c01);
                c11 = coopMultiplyAdd(low1, right1, c11);
                c01 = coopMultiplyAdd(high0, right1, c01);
                c11 = coopMultiplyAdd(high1, right1, c11);
                let right2 = coopLoad<Right>(&rows[(sub_o + 32u) * PITCH + half], PITCH);
                c02 = coopMultiplyAdd(low0, right2, c02);
                c12 = coopMultiplyAdd(low1, right2, c12);
                c02 = coopMultiplyAdd(high0, right2, c02);
                c12 = coopMultiplyAdd(high1, right2, c12);
                let right3 = coopLoad<Right>(&rows[(sub_o + 48u) * PITCH + half], PITCH);
                c03 = coopMultiplyAdd(low0, right3, c03);
                c13 = coopMultiplyAdd(low1, right3, c13);
                c03 = coopMultiplyAdd(high0, right3, c03);
                c13 = coopMultiplyAdd(high1, right3, c13);
            }
            workgroupBarrier();
        }
        // Once more only if some token's largest asks for it.
        if attempt == 0u {
            atomicMax(&largest[x_row + 0u * APART_X], bitcast<u32>(m0));
            atomicMax(&largest[x_row + 1u * APART_X], bitcast<u32>(m1));
            atomicMax(&largest[x_row + 2u * APART_X], bitcast<u32>(m2));
            atomicMax(&largest[x_row + 3u * APART_X], bitcast<u32>(m3));
            if BRINGS_X > 4u {
                atomicMax(&largest[x_row + 4u * APART_X], bitcast<u32>(m4));
                atomicMax(&largest[x_row + 5u * APART_X], bitcast<u32>(m5));
                atomicMax(&largest[x_row + 6u * APART_X], bitcast<u32>(m6));
                atomicMax(&largest[x_row + 7u * APART_X], bitcast<u32>(m7));
            }
            workgroupBarrier();
            for (var t = thread; t < TILE_T; t += THREADS) {
                let bits = atomicLoad(&largest[t]);
                if bits != 0u && (bits < LEAST_BITS || bits > MOST_BITS) {
                    scale[t] = scale_for(bits);
                    again = 1u;
                }
            }
        }
        if workgroupUniformLoad(&again) == 0u {
            break;
        }
    }
    coopStoreT(c00, &passing[subgroup * 256u], 16u);
    hand_over(first_t, sub_t + 0u, first_o + sub_o + 0u, subgroup, lane);
    coopStoreT(c01, &passing[subgroup * 256u], 16u);
    hand_over(first_t, sub_t + 0u, first_o + sub_o + 16u, subgroup, lane);
    coopStoreT(c02, &passing[subgroup * 256u], 16u);
    hand_over(first_t, sub_t + 0u, first_o + sub_o + 32u, subgroup, lane);
    coopStoreT(c03, &passing[subgroup * 256u], 16u);
    hand_over(first_t, sub_t + 0u, first_o + sub_o + 48u, subgroup, lane);
    coopStoreT(c10, &passing[subgroup * 256u], 16u);
    hand_over(first_t, sub_t + 16u, first_o + sub_o + 0u, subgroup, lane);
    coopStoreT(c11, &passing[subgroup * 256u], 16u);
    hand_over(first_t, sub_t + 16u, first_o + sub_o + 16u, subgroup, lane);
    coopStoreT(c12, &passing[subgroup * 256u], 16u);
    hand_over(first_t, sub_t + 16u, first_o + sub_o + 32u, subgroup, lane);
    coopStoreT(c13, &passing[subgroup * 256u], 16u);
    hand_over(first_t, sub_t + 16u, first_o + sub_o + 48u, subgroup, lane);
}
