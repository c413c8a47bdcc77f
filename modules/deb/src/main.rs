//! The executable of the Mender Update Module `deb`.

use std::process::ExitCode;

fn main() -> ExitCode {
    deb::main()
}
