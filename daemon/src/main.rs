//! The binary: hands what was typed to the command line, and ends with its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(fieldspool::cli::run(std::env::args_os()))
}
