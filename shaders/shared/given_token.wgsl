// The step's first token, as it is given.
fn first_token() -> u32 {
    return load_tokens(0u);
}
