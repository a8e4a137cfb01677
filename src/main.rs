//! The `graphc` program: calls `cli`, prints the error, picks the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    graphc::cli::main()
}
