//! The executable of the Mender Update Module `directory`.

use std::process::ExitCode;

fn main() -> ExitCode {
    directory::main()
}
