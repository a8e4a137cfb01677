// Whether token `t` is the first of a sequence, one further on, or padding.
struct Position { sequence: u32, is_first: bool, is_padding: bool }

fn position(t: u32, sequences: u32) -> Position {
    for (var s = 0u; s < sequences; s++) {
        if t < load_offsets(s + 1u) {
            return Position(s, t == load_offsets(s), t < load_offsets(s));
        }
    }
    return Position(0u, false, true);
}
