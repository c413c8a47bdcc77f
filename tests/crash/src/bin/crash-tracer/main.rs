//! `crash-tracer`: runs a program, and cuts it short or makes it fail at the N-th system call that changes a directory.
//!
//! It counts over the whole process tree, as a machine that loses power stops as a whole: shell scripts and what they
//! start are cut at any of their calls. It is a prefix command, as strace is, and ends as the program does; after a
//! cut it is itself killed by SIGKILL.

#[cfg(target_arch = "x86_64")]
mod call;
#[cfg(target_arch = "x86_64")]
mod place;
#[cfg(target_arch = "x86_64")]
mod recorder;
#[cfg(target_arch = "x86_64")]
mod tracee;
#[cfg(target_arch = "x86_64")]
mod tracing;

use std::process::ExitCode;

#[cfg(target_arch = "x86_64")]
fn main() -> ExitCode {
    match tracing::run(std::env::args_os().skip(1).collect()) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("crash-tracer: {error:#}");
            ExitCode::from(125) // as env, timeout and the like: what failed is not the program
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn main() -> ExitCode {
    eprintln!("crash-tracer: it knows the registers and call numbers of x86_64 only");
    ExitCode::from(125)
}
