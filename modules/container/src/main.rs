//! The executable of the Mender Update Module `container`.

use std::process::ExitCode;

fn main() -> ExitCode {
    container::main()
}
