//! `mender-update-module-test`: the suite for a module in any language.

use std::process::ExitCode;

fn main() -> ExitCode {
    mender_update_module_test::command_line()
}
