//! The tracer: runs a program, and kills it or lets a system call fail at the N-th call that changes a directory.
//!
//! Calls are counted over the whole process tree, as a power loss stops a whole machine: shell scripts and the
//! programs that they start are interrupted at any of their calls. It is a prefix command, like strace, and exits as
//! the program does. After it has killed the program, it kills itself with SIGKILL.

mod call;
mod filter;
mod place;
mod reading;
mod recorder;
mod tracee;
mod tracing;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the tracer with these arguments.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    match tracing::run(arguments) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("tracer: {error:#}");
            ExitCode::from(125) // as env and timeout do: the program itself has not failed
        }
    }
}
