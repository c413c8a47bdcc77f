//! Conformance to the protocol, and fault injection.

use std::process::ExitCode;

fn main() -> ExitCode {
    mender_update_module_test::Suite::new(env!("CARGO_BIN_EXE_fireplace"), "tests/payload").main()
}
