//! The filter of system calls: only those that may change a file stop a process. Every stop costs two switches between
//! processes, and a module makes a hundred times as many other calls.

use std::io;
use std::mem::offset_of;

use nix::libc::{self, BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W};
use nix::libc::{O_CREAT, O_TRUNC, SYS_open, SYS_openat, seccomp_data, sock_filter, sock_fprog};

use super::{call, reading};

/// The architecture of the numbers of calls: `AUDIT_ARCH_X86_64` of `linux/audit.h`.
const X86_64: u32 = 0xc000_003e;

/// A program of the kernel's seccomp filter, made before the fork: it must not be allocated after it.
pub struct Filter(Vec<sock_filter>);

impl Filter {
    /// The filter that stops a process at each call that may read a file.
    pub fn of_reads() -> Self {
        Self::new(reading::CALLS, &[])
    }

    /// The filter that stops a process at each call that may change a file, and at an `open` that may make or truncate
    /// one.
    pub fn of_changes() -> Self {
        Self::new(call::CALLS, &[(SYS_open, 1), (SYS_openat, 2)])
    }

    /// The filter for `calls`, and for those of `opens`, each with the index of its flags, that make or truncate files.
    fn new(calls: &[i64], opens: &[(i64, usize)]) -> Self {
        let [allow, stop] =
            [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_TRACE].map(|result| [statement(BPF_RET, result)]);
        let mut program = vec![load(offset_of!(seccomp_data, arch)), jump(BPF_JEQ, X86_64, 1, 0)];
        program.extend(allow);
        program.push(load(offset_of!(seccomp_data, nr)));
        for call in calls {
            program.push(jump(BPF_JEQ, *call as u32, 0, 1));
            program.extend(stop);
        }
        for (call, flags) in opens {
            // The lower half of the argument, as the processor is little-endian.
            let argument = offset_of!(seccomp_data, args) + 8 * flags;
            program.extend([jump(BPF_JEQ, *call as u32, 0, 4), load(argument)]);
            program.push(jump(BPF_JSET, (O_CREAT | O_TRUNC) as u32, 0, 1));
            program.extend(stop);
            program.extend(allow);
        }
        program.extend(allow);
        Self(program)
    }

    /// Installs the filter for this process and its children. The tracer must know of it before the next of the calls.
    ///
    /// Only bare system calls: it is called between fork and exec.
    #[expect(unsafe_code, reason = "neither nix nor rustix has seccomp(2)")]
    pub fn install(&self) -> io::Result<()> {
        let program = sock_fprog { len: self.0.len() as u16, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: the program and its length are valid until the call returns; the kernel copies it.
        let install = || unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) };
        if install() == 0 {
            return Ok(());
        }
        // Without privileges a filter is allowed to processes that cannot gain any.
        // SAFETY: a bare system call without pointers.
        let refused = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0;
        if refused || install() != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn load(offset: usize) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset as u32)
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// A jump over `jt` instructions if the test of the loaded value with `k` is true, else over `jf`.
fn jump(test: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | test | BPF_K) as u16, jt, jf, k }
}
