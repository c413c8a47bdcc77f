//! The system calls of a module, by strace: recorded, and made to fail one at a time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use anyhow::{Result, ensure};

/// Every call that changes what is on a file system or orders when it gets there. `exit_group` stands for the moment
/// after the last of them.
const CHANGING: &str = "open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,copy_file_range,sendfile,splice,\
    truncate,ftruncate,fallocate,mkdir,mkdirat,mknod,mknodat,unlink,unlinkat,rmdir,rename,renameat,renameat2,\
    link,linkat,symlink,symlinkat,chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,utime,utimes,utimensat,\
    setxattr,lsetxattr,fsetxattr,removexattr,lremovexattr,fremovexattr,fsync,fdatasync,syncfs,sync,exit_group";

/// One call: strace counts each kind of its own, from 1.
#[derive(Debug)]
pub struct Call {
    name: String,
    number: usize,
    /// As strace showed it: for the report.
    shown: String,
}

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed instead of making the call.
    Kill,
    /// The call fails with this error.
    Error(&'static str),
}

impl Call {
    /// The faults to try at this call.
    pub fn faults(&self) -> &'static [Fault] {
        match self.name.as_str() {
            "exit_group" => &[Fault::Kill],
            _ => &[Fault::Kill, Fault::Error("ENOSPC"), Fault::Error("EIO")],
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.shown)
    }
}

/// The command that writes a module's calls to `log`.
pub fn recorder(log: &Path) -> Vec<OsString> {
    let mut command = strace("trace", CHANGING);
    command.extend(["-o".into(), log.into()]);
    command
}

/// The command under which `fault` happens at `call`.
pub fn injector(call: &Call, fault: Fault) -> Vec<OsString> {
    let what = match fault {
        Fault::Kill => "signal=SIGKILL".to_owned(),
        Fault::Error(error) => format!("error={error}"),
    };
    let mut command = strace("inject", &format!("{}:{what}:when={}", call.name, call.number));
    command.extend(["-o", "/dev/null"].map(Into::into));
    command
}

fn strace(verb: &str, expression: &str) -> Vec<OsString> {
    let expression = format!("{verb}={expression}").replace(' ', "");
    ["strace", "-qq", "-e", "signal=none", "-e", &expression].map(Into::into).to_vec()
}

/// The changing calls in strace's `log`, in order. Opening for reading changes nothing, and what goes to stdout and
/// stderr is the deployment log.
pub fn parse(log: &str) -> Result<Vec<Call>> {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in log.lines() {
        let Some((name, arguments)) = line.split_once('(') else { continue };
        let number = count.entry(name).and_modify(|number| *number += 1).or_insert(1);
        if changes(name, arguments) {
            calls.push(Call { name: name.to_owned(), number: *number, shown: line.to_owned() });
        }
    }
    ensure!(
        calls.last().is_some_and(|call| call.name == "exit_group"),
        "strace's log does not end with an exit:\n{log}"
    );
    Ok(calls)
}

fn changes(name: &str, arguments: &str) -> bool {
    match name {
        "open" | "openat" | "openat2" => ["O_CREAT", "O_TRUNC"].iter().any(|flag| arguments.contains(flag)),
        "write" | "writev" => !["1,", "2,"].iter().any(|log| arguments.starts_with(log)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_numbered_as_strace_counts_them() {
        let log = "openat(AT_FDCWD, \"/etc/x\", O_RDONLY) = 3\n\
                   openat(3, \"y\", O_WRONLY|O_CREAT|O_EXCL, 0600) = 4\n\
                   write(4, \"a\", 1) = 1\nwrite(2, \"log\", 3) = 3\nwrite(4, \"b\", 1) = 1\nexit_group(0) = ?\n";
        let calls: Vec<_> = parse(log).unwrap().into_iter().map(|call| (call.name, call.number)).collect();
        let expected = [("openat", 2), ("write", 1), ("write", 3), ("exit_group", 1)];
        assert_eq!(calls, expected.map(|(name, number)| (name.to_owned(), number)));
        assert!(parse("write(4, \"a\", 1) = 1\n").is_err(), "an unfinished log");
    }
}
