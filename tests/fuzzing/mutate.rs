//! Inputs that nobody would write, made from inputs that somebody wrote.
//!
//! Gets seeds and a random number generator, returns a seed with a few changes: bytes and ranges as they come; words,
//! numbers and punctuation as any text format has them, so that much of what comes out still parses. Equal generators
//! give equal inputs. Never knows a format.

use fastrand::Rng;

/// Bytes of the longest input.
const MAX_BYTES: usize = 128 << 10;

/// Numbers at the edges of what types hold.
const NUMBERS: [&str; 24] = [
    "0",
    "1",
    "2",
    "-1",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "1099511627776",
    "9007199254740993",
    "1152921504606846976",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e-45",
    "NaN",
    "inf",
    "0.5",
];

/// What can be wrapped around a part, again and again.
const WRAPS: [(&str, &str); 16] = [
    ("(", ")"),
    ("[", "]"),
    ("{", "}"),
    ("\"", "\""),
    ("Some(", ")"),
    ("/*", "*/"),
    ("If(\"1\", [", "], [])"),
    ("ForEach(\"i\", \"2\", [", "])"),
    ("min(1, ", ")"),
    ("abs(", ")"),
    ("vec2<", ">"),
    ("{\"a\":", "}"),
    ("if true {", "}"),
    ("!", ""),
    ("-", ""),
    ("1 + ", ""),
];

/// Words, runs of white space, and everything else byte by byte.
fn tokens(input: &[u8]) -> Vec<&[u8]> {
    let kind = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' => 0,
        b' ' | b'\n' | b'\t' => 1,
        // Bytes above ASCII stay with their character, mostly.
        128.. => 2,
        _ => 3,
    };
    input.chunk_by(|a, b| kind(a) == kind(b) && kind(a) != 3).collect()
}

/// All different words of the seeds.
pub fn words(seeds: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let is_word = |token: &&[u8]| token[0].is_ascii_alphanumeric();
    let mut words: Vec<Vec<u8>> =
        seeds.iter().flat_map(|seed| tokens(seed)).filter(is_word).map(<[u8]>::to_vec).collect();
    words.sort();
    words.dedup();
    words
}

/// One of the seeds with one to five changes.
pub fn mutated(random: &mut Rng, seeds: &[Vec<u8>], words: &[Vec<u8>]) -> Vec<u8> {
    let mut input = random.choice(seeds).expect("a seed").clone();
    for _ in 0..random.usize(1..=5) {
        input = match random.u32(0..12) {
            0 => flipped(random, input),
            1 => cut(random, input),
            2 => spliced(random, input, seeds),
            _ => retold(random, &input, words),
        };
        input.truncate(MAX_BYTES);
    }
    input
}

/// A range of a length, the short ones likelier.
fn range(random: &mut Rng, len: usize) -> std::ops::Range<usize> {
    let start = random.usize(0..=len);
    let most = match random.u32(0..8) {
        0 => len,
        1..=3 => 16,
        _ => 3,
    };
    start..(start + random.usize(0..=most)).min(len)
}

fn flipped(random: &mut Rng, mut input: Vec<u8>) -> Vec<u8> {
    if let Some(at) = (!input.is_empty()).then(|| random.usize(0..input.len())) {
        match random.u32(0..3) {
            0 => input[at] ^= 1 << random.u32(0..8),
            1 => input[at] = random.u8(..),
            _ => input.insert(at, random.u8(..)),
        }
    }
    input
}

fn cut(random: &mut Rng, mut input: Vec<u8>) -> Vec<u8> {
    let range = range(random, input.len());
    if random.bool() {
        input.drain(range);
    } else {
        input.truncate(range.start);
    }
    input
}

fn spliced(random: &mut Rng, mut input: Vec<u8>, seeds: &[Vec<u8>]) -> Vec<u8> {
    let other = random.choice(seeds).expect("a seed");
    let piece = other[range(random, other.len())].to_vec();
    let place = range(random, input.len());
    input.splice(place, piece);
    input
}

/// Changes among tokens.
fn retold(random: &mut Rng, input: &[u8], words: &[Vec<u8>]) -> Vec<u8> {
    let mut tokens = tokens(input);
    if tokens.is_empty() {
        return Vec::new();
    }
    let at = random.usize(0..tokens.len());
    let wrapped;
    match random.u32(0..8) {
        0 => drop(tokens.remove(at)),
        1 => tokens.insert(at, tokens[at]),
        2 => {
            let other = random.usize(0..tokens.len());
            tokens.swap(at, other);
        }
        3 => {
            let piece = tokens[range(random, tokens.len())].to_vec();
            tokens.splice(at..at, piece);
        }
        4 => {
            let count = [1, 2, 20, 130, 600, 20_000][random.usize(0..6)];
            let (open, close) = *random.choice(WRAPS.iter()).expect("a pair");
            let part = range(random, tokens.len());
            wrapped = [open.repeat(count).as_bytes(), &tokens[part.clone()].concat(), close.repeat(count).as_bytes()]
                .concat();
            tokens.splice(part, [wrapped.as_slice()]);
        }
        5 => {
            let numbers: Vec<usize> = (0..tokens.len()).filter(|at| tokens[*at][0].is_ascii_digit()).collect();
            if let Some(at) = random.choice(numbers) {
                tokens[at] = random.choice(NUMBERS.iter()).expect("a number").as_bytes();
            }
        }
        _ => {
            let named: Vec<usize> = (0..tokens.len()).filter(|at| tokens[*at][0].is_ascii_alphabetic()).collect();
            if let (Some(at), Some(word)) = (random.choice(named), random.choice(words.iter())) {
                tokens[at] = word;
            }
        }
    }
    tokens.concat()
}
