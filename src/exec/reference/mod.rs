//! Executor on the CPU.
pub(crate) mod lower;
pub(crate) mod machine;
pub(crate) mod program;
#[cfg(test)]
mod tests;
pub(crate) mod watch;
