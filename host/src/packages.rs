//! Debian packages that the host needs: what is missing, and how it is got.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use xshell::{Cmd, Shell, cmd};

use crate::apt;
use crate::command::run;
use crate::status::step;

/// Sees to it that every one of `packages` is installed: as root or with a sudo that asks nothing, else by
/// telling the person the one line to run.
///
/// # Errors
/// On a host without dpkg, where apt fails, and where neither root nor sudo may install: always with the
/// command line that would mend it.
pub fn ensure(sh: &Shell, packages: &[&str]) -> Result<()> {
    let missing = missing(sh, packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let Some(root) = privilege() else { bail!("{}", refusal(&missing)) };
    let apt_get = |arguments: &[&str]| {
        let (first, rest) = root;
        cmd!(sh, "{first} {rest...} DEBIAN_FRONTEND=noninteractive apt-get --quiet").args(arguments)
    };
    step(format!("installing Debian packages: {list}"), |step| {
        run(step, apt_get(&["update"]))?;
        let install = ["install", "--yes", "--no-install-recommends"];
        let plain = run(step, apt_get(&install).arg("--no-remove").args(missing));
        // One of a family that is installed from elsewhere, such as backports, keeps out its sisters from the
        // host's own release: then all of them come from that release.
        let Some(release) = plain.as_ref().err().and_then(|_| apt::codename().ok()) else { return plain };
        let same = packages.iter().map(|package| format!("{package}/{release}"));
        run(step, apt_get(&install).arg("--allow-downgrades").args(same)).or(plain)
    })
    .with_context(|| {
        format!("installing missing packages failed. Check the network, or run:\n    {}", remedy(&list))
    })?;
    Ok(())
}

/// Why [`ensure`] cannot succeed for this user, if it cannot: for a suite that is left out then.
///
/// # Errors
/// On a host without dpkg.
pub fn obstacle(sh: &Shell, packages: &[&str]) -> Result<Option<String>> {
    let missing = missing(sh, packages)?;
    Ok((!missing.is_empty() && privilege().is_none()).then(|| refusal(&missing)))
}

/// Whether this user is root, or has a sudo that asks nothing.
pub fn may_be_root() -> bool {
    privilege().is_some()
}

fn refusal(missing: &[&str]) -> String {
    let list = missing.join(" ");
    format!(
        "these Debian packages are missing: {list}\nThis user may not install them. Run:\n    {}",
        remedy(&list)
    )
}

/// The command line that installs `list`.
pub fn remedy(list: &str) -> String {
    format!("sudo apt-get update && sudo apt-get install --yes --no-install-recommends {list}")
}

/// `program` as a command that runs as root, for what only root may do.
///
/// # Errors
/// When this user is not root and sudo would ask for a password.
pub fn as_root<'a>(sh: &'a Shell, program: &str) -> Result<Cmd<'a>> {
    let (first, rest) =
        privilege().with_context(|| format!("{program} must run as root: use sudo, or run this as root"))?;
    Ok(cmd!(sh, "{first} {rest...} {program}"))
}

/// Those of `packages` that dpkg does not know as installed.
///
/// # Errors
/// On a host without dpkg.
pub fn missing<'a>(sh: &Shell, packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let format = "${binary:Package} ${db:Status-Status}\\n";
    let known = cmd!(sh, "dpkg-query --show --showformat={format} {packages...}")
        .quiet()
        .ignore_status()
        .ignore_stderr()
        .read()
        .context(
            "asking dpkg for installed packages: this toolkit needs Debian 12 or 13, or a relative of it",
        )?;
    Ok(absent(packages, &known))
}

/// Those of `packages` that `known`, lines of `name[:arch] status`, does not list as installed.
fn absent<'a>(packages: &[&'a str], known: &str) -> Vec<&'a str> {
    let installed: Vec<&str> = known
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .map(|name| name.split(':').next().unwrap_or(name))
        .collect();
    packages.iter().copied().filter(|package| !installed.contains(package)).collect()
}

/// The command, with its arguments, under which `VARIABLE=value program …` runs as root: plain env for root,
/// sudo where it asks no password.
fn privilege() -> Option<(&'static str, &'static [&'static str])> {
    let answer = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
        output.status.success().then_some(output.stdout)
    };
    if answer("id", &["-u"])?.trim_ascii() == b"0" {
        return Some(("env", &[]));
    }
    answer("sudo", &["--non-interactive", "true"]).map(|_| ("sudo", &["--non-interactive", "env"][..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count() {
        let known = "tar installed\nlibc6:amd64 installed\ncurl config-files\n";
        assert_eq!(absent(&["tar", "libc6", "curl", "zip"], known), ["curl", "zip"]);
    }
}
