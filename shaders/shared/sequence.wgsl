// Whether token `t` is the first of a sequence, one further on, or padding.
struct Position { sequence: u32, is_first: bool, is_padding: bool }

fn position(t: u32, sequences: u32) -> Position {
    // The first sequence that ends behind the token.
    var low = 0u;
    var high = sequences;
    while low < high {
        let middle = (low + high) / 2u;
        if t < load_offsets(middle + 1u) {
            high = middle;
        } else {
            low = middle + 1u;
        }
    }
    if low == sequences {
        return Position(0u, false, true);
    }
    let begin = load_offsets(low);
    return Position(low, t == begin, t < begin);
}
