//! Executor on the CPU.
pub(crate) mod lower;
pub(crate) mod machine;
pub(crate) mod program;
pub(crate) mod watch;
