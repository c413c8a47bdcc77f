//! Debian packages on the host: which are missing, and how they are installed.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use xshell::{Cmd, Shell, cmd};

use crate::command::run;
use crate::status::step;
use crate::{apt, cache};

/// Installs those of `packages` that are missing, as root or with a sudo that needs no password.
///
/// # Errors
/// This user may not install packages, or apt failed. The error has the command line to run.
pub fn ensure(sh: &Shell, packages: &[&str]) -> Result<()> {
    let missing = missing(sh, packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let Some(root) = privilege() else { bail!("{}", refusal(&missing)) };
    // apt-get fails at once while another one runs.
    let _lock = cache::lock(&cache::directory()?.join("apt.lock"))?;
    let apt_get = |arguments: &[&str]| {
        let (first, rest) = root;
        cmd!(sh, "{first} {rest...} DEBIAN_FRONTEND=noninteractive apt-get --quiet").args(arguments)
    };
    step(format!("installing Debian packages: {list}"), |step| {
        run(step, apt_get(&["update"]))?;
        let install = ["install", "--yes", "--no-install-recommends", "--no-remove"];
        let plain = run(step, apt_get(&install).args(&missing));
        // A package that was installed from another source, such as backports, can conflict with those of the host's
        // release. Then it is replaced by that of the release.
        let Some(release) = plain.as_ref().err().and_then(|_| apt::codename().ok()) else { return plain };
        let policy = run(step, cmd!(sh, "apt-cache policy {packages...}").env("LC_ALL", "C"))?;
        let replaced: Vec<_> =
            from_elsewhere(&policy).into_iter().map(|package| format!("{package}/{release}")).collect();
        if replaced.is_empty() {
            return plain;
        }
        run(step, apt_get(&install).arg("--allow-downgrades").args(&missing).args(replaced)).or(plain)
    })
    .with_context(|| format!("installing Debian packages failed: check the network, or run\n    {}", remedy(&list)))?;
    Ok(())
}

/// The reason why [`ensure`] would fail for this user, or `None`. With a reason, a suite is skipped.
pub fn obstacle(sh: &Shell, packages: &[&str]) -> Result<Option<String>> {
    let missing = missing(sh, packages)?;
    Ok((!missing.is_empty() && privilege().is_none()).then(|| refusal(&missing)))
}

/// Whether this user is root, or has a sudo that needs no password.
pub fn may_be_root() -> bool {
    privilege().is_some()
}

fn refusal(missing: &[&str]) -> String {
    let list = missing.join(" ");
    format!("missing Debian packages, which this user may not install: {list}: run\n    {}", remedy(&list))
}

/// The command line that installs `list`.
pub fn remedy(list: &str) -> String {
    format!("sudo apt-get update && sudo apt-get install --yes --no-install-recommends {list}")
}

/// The command that runs `program` as root.
///
/// # Errors
/// This user is not root, and sudo needs a password.
pub fn as_root<'a>(sh: &'a Shell, program: &str) -> Result<Cmd<'a>> {
    let (first, rest) = privilege()
        .with_context(|| format!("{program} needs root: run the command as root, or run sudo --validate before it"))?;
    Ok(cmd!(sh, "{first} {rest...} {program}"))
}

/// Those of `packages` that are not installed.
pub fn missing<'a>(sh: &Shell, packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let format = "${binary:Package} ${db:Status-Status}\\n";
    let known = cmd!(sh, "dpkg-query --show --showformat={format} {packages...}")
        .quiet()
        .ignore_status()
        .ignore_stderr()
        .read()
        .context("reading installed packages with dpkg-query: use Debian 12 or 13, or a distribution based on it")?;
    Ok(absent(packages, &known))
}

/// Those of `packages` that `known`, with lines `name[:arch] status`, does not list as installed.
fn absent<'a>(packages: &[&'a str], known: &str) -> Vec<&'a str> {
    let installed: Vec<&str> = known
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .map(|name| name.split(':').next().unwrap_or(name))
        .collect();
    packages.iter().copied().filter(|package| !installed.contains(package)).collect()
}

/// The packages of `policy`, the output of `apt-cache policy`, whose installed version is in no configured archive, and
/// newer than all versions there. One that is older was in an archive before.
fn from_elsewhere(policy: &str) -> Vec<&str> {
    let (mut found, mut package) = (Vec::new(), "");
    let mut lines = policy.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with(' ')) {
            package = name;
        } else if line.trim() == "Version table:" && lines.next_if(|newest| newest.starts_with(" ***")).is_some() {
            // The archives that have this version follow, indented further than the next version.
            let mut has_archive = false;
            while let Some(source) = lines.next_if(|next| next.starts_with("       ")) {
                has_archive |= !source.ends_with(" /var/lib/dpkg/status");
            }
            if !has_archive {
                found.push(package);
            }
        }
    }
    found
}

/// The command and arguments that run `VARIABLE=value program …` as root: env for root, or sudo if it needs no
/// password.
fn privilege() -> Option<(&'static str, &'static [&'static str])> {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
        output.status.success().then_some(output.stdout)
    };
    if output("id", &["-u"])?.trim_ascii() == b"0" {
        return Some(("env", &[]));
    }
    output("sudo", &["--non-interactive", "true"]).map(|_| ("sudo", &["--non-interactive", "env"][..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_with_another_status_are_missing() {
        let known = "tar installed\nlibc6:amd64 installed\ncurl config-files\n";
        assert_eq!(absent(&["tar", "libc6", "curl", "zip"], known), ["curl", "zip"]);
    }

    #[test]
    fn packages_that_no_archive_has_are_from_elsewhere() {
        let policy = "\
qemu-utils:
  Installed: 10
  Candidate: 7
  Version table:
 *** 10 100
        100 /var/lib/dpkg/status
     7 500
        500 http://deb.debian.org bookworm/main
xz-utils:
  Installed: 5
  Candidate: 5
  Version table:
 *** 5 500
        500 http://deb.debian.org bookworm/main
        100 /var/lib/dpkg/status
git:
  Installed: (none)
  Candidate: 2
  Version table:
     2 500
        500 http://deb.debian.org bookworm/main
gpg:
  Installed: 2
  Candidate: 3
  Version table:
     3 500
        500 http://deb.debian.org bookworm-security/main
 *** 2 100
        100 /var/lib/dpkg/status
     1 500
        500 http://deb.debian.org bookworm/main
kmod:
  Installed: 2
  Candidate: 2
  Version table:
 *** 2 1001
       1001 http://example.org bookworm/main
        100 /var/lib/dpkg/status
";
        assert_eq!(from_elsewhere(policy), ["qemu-utils"]);
        assert!(from_elsewhere("").is_empty());
    }
}
