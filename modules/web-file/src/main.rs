//! The executable of the Mender Update Module `web-file`.

use std::process::ExitCode;

fn main() -> ExitCode {
    web_file::main()
}
