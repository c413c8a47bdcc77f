//! The executable of the generators. Its name, or its first argument, says which generator runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    artifact_gen::main()
}
