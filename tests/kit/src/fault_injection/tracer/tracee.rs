//! A traced process that is stopped: its registers, memory and files.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;

/// A process that is stopped for the tracer.
#[derive(Clone, Copy, Debug)]
pub struct Tracee(pub Pid);

impl Tracee {
    /// The number and arguments of the call that is being entered.
    pub fn call(self) -> Result<(i64, [u64; 6])> {
        let registers = ptrace::getregs(self.0).context("reading the registers of a process failed")?;
        let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9];
        Ok((registers.orig_rax as i64, arguments))
    }

    /// The return value of the call that has just ended: negative for an error.
    pub fn result(self) -> Result<i64> {
        Ok(ptrace::getregs(self.0).context("reading the result of a call failed")?.rax as i64)
    }

    /// Lets the kernel skip the call that is being entered.
    pub fn skip_call(self) -> Result<()> {
        let mut registers = ptrace::getregs(self.0).context("reading the registers of a process failed")?;
        registers.orig_rax = u64::MAX;
        ptrace::setregs(self.0, registers).context("skipping a call failed")
    }

    /// Lets the call that has just ended return `error`.
    pub fn set_error(self, error: Errno) -> Result<()> {
        let mut registers = ptrace::getregs(self.0).context("reading the registers of a process failed")?;
        registers.rax = (-i64::from(error as i32)) as u64;
        ptrace::setregs(self.0, registers).context("setting the error of a call failed")
    }

    /// The text at `address`, up to its NUL.
    pub fn text(self, address: u64) -> Result<OsString> {
        const PAGE: u64 = 4096;
        let memory = self.memory()?;
        let mut text = Vec::new();
        // Up to the end of a page at a time: the one after the text may not be mapped.
        loop {
            let at = address + text.len() as u64;
            let mut rest = vec![0; (PAGE - at % PAGE) as usize];
            memory.read_exact_at(&mut rest, at).context("reading a path from the memory of a process failed")?;
            let end = rest.iter().position(|&byte| byte == 0);
            text.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
            if end.is_some() {
                return Ok(OsString::from_vec(text));
            }
        }
    }

    /// The 64 bits at `address`.
    pub fn number(self, address: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.memory()?
            .read_exact_at(&mut bytes, address)
            .context("reading a number from the memory of a process failed")?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A path to the file that is open as `fd`, also if its name was changed.
    pub fn fd(self, fd: i32) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{fd}", self.0))
    }

    /// The process's directory in `/proc`.
    pub fn own(self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.0))
    }

    /// A path to the working directory.
    pub fn cwd(self) -> PathBuf {
        self.own().join("cwd")
    }

    /// The root directory of the process, which differs after a chroot.
    pub fn root(self) -> Result<PathBuf> {
        fs::read_link(format!("/proc/{}/root", self.0)).context("reading the root directory of a process failed")
    }

    /// The position of `fd`.
    pub fn position(self, fd: i32) -> Result<u64> {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", self.0))
            .context("reading the position of a file failed")?;
        let position = info
            .lines()
            .find_map(|line| line.strip_prefix("pos:"))
            .context("reading the position of a file failed: no such line")?;
        position.trim().parse().context("reading the position of a file failed")
    }

    fn memory(self) -> Result<File> {
        File::open(format!("/proc/{}/mem", self.0)).context("opening the memory of a process failed")
    }
}
