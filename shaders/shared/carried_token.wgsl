// The step's first token, or the one that the step before has drawn for its sequence.
override B: u32;
// base::role::CARRIED: no vocabulary has it.
const CARRIED: u32 = 0xffffffffu;

fn first_token() -> u32 {
    let token = load_tokens(0u);
    if token == CARRIED {
        return load_next(min(load_places(0u), B - 1u));
    }
    return token;
}
