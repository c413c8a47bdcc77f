//! The administrator's commands around dpkg, which make a read-only system writable: apt's `DPkg::Pre-Invoke` and
//! `DPkg::Post-Invoke`, and dpkg's `pre-invoke` and `post-invoke`. The rollback runs them as the install does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use mender_update_module::{durable, log};
use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::dpkg;
use crate::staged::names;

/// Where dpkg is configured.
const DPKG: [&str; 2] = ["/etc/dpkg/dpkg.cfg", "/etc/dpkg/dpkg.cfg.d"];

/// The commands, in their order.
pub struct Hooks {
    before: Vec<String>,
    after: Vec<String>,
    /// dpkg runs these itself too, and then what it made writable may be read-only again.
    of_dpkg: bool,
}

impl Hooks {
    /// Reads those of this device.
    ///
    /// # Errors
    /// When apt does not tell, or a file of dpkg's cannot be read.
    pub fn read() -> Result<Self> {
        let (mut before, mut after) = (of_apt("DPkg::Pre-Invoke")?, of_apt("DPkg::Post-Invoke")?);
        let text = dpkg_configuration()?;
        let (own_before, own_after) = (option(&text, "pre-invoke"), option(&text, "post-invoke"));
        let of_dpkg = !own_before.is_empty() || !own_after.is_empty();
        before.extend(own_before);
        after.extend(own_after);
        Ok(Self { before, after, of_dpkg })
    }

    /// Runs `work` with the commands around it.
    ///
    /// # Errors
    /// Those of `work`. A command that fails is logged: whether it was needed, the work tells.
    pub fn around<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        run(&self.before);
        let done = work();
        run(&self.after);
        done
    }

    /// Runs the commands that come before dpkg once more, after dpkg has run those that come after it.
    pub fn reopen(&self) {
        if self.of_dpkg {
            run(&self.before);
        }
    }

    /// Refuses an update of `paths` on file systems that are read-only, and that these commands do not make writable.
    ///
    /// # Errors
    /// As said, with a path and the remedy.
    pub fn check_writable(&self, paths: &BTreeSet<PathBuf>) -> Result<()> {
        let places = directories(paths)?;
        if first_read_only(&places)?.is_none() {
            return Ok(());
        }
        if let Some(place) = self.around(|| first_read_only(&places))? {
            let hooks = if self.before.is_empty() { "no command" } else { "none of the commands" };
            bail!(
                "{} is on a read-only file system, and {hooks} under DPkg::Pre-Invoke of apt makes it writable: remount it \
                 there (\"mount -o remount,rw …\"), and under DPkg::Post-Invoke read-only again",
                place.display()
            );
        }
        Ok(())
    }
}

fn run(commands: &[String]) {
    for command in commands {
        if let Err(error) = dpkg::dpkg_tool("sh").args(["-c", command]).run() {
            log!("a command around dpkg failed: {error:#}");
        }
    }
}

/// The directories in which something is written for `paths`, each once. Nothing is for a directory that is there.
fn directories(paths: &BTreeSet<PathBuf>) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for path in paths {
        if durable::look_at(path)?.is_some_and(|found| found.is_dir()) {
            continue;
        }
        for parent in path.ancestors().skip(1) {
            if found.contains(parent) {
                break;
            }
            if durable::exists(parent)? && parent.is_dir() {
                found.insert(parent.to_owned());
                break;
            }
        }
    }
    Ok(found)
}

fn first_read_only(places: &BTreeSet<PathBuf>) -> Result<Option<&Path>> {
    for place in places {
        let system =
            statvfs(place).with_context(|| format!("examining the file system of {}", place.display()))?;
        if system.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

fn of_apt(name: &str) -> Result<Vec<String>> {
    let said = dpkg::look("apt-config").args(["dump", "--no-empty", "--format", "%v%n", name]).output()?;
    Ok(dpkg::text_of(said)?.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

fn dpkg_configuration() -> Result<String> {
    let [file, directory] = DPKG.map(Path::new);
    let mut text = String::new();
    let files = names(directory)?.into_iter().map(|name| directory.join(name));
    for path in files.chain([file.to_owned()]).filter(|path| path.is_file()) {
        let content = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        text.push_str(&String::from_utf8_lossy(&content));
        text.push('\n');
    }
    Ok(text)
}

/// The values of the option `name`, given as `name=value` or `name value`.
fn option(text: &str, name: &str) -> Vec<String> {
    let value = |line: &str| {
        let value = line.trim().strip_prefix(name)?;
        let value = value.strip_prefix(['=', ' ', '\t'])?.trim();
        Some(value.trim_matches('"').to_owned()).filter(|value| !value.is_empty())
    };
    text.lines().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_dpkg_are_found_in_both_forms() {
        let text =
            "# pre-invoke=no\npre-invoke=mount -o remount,rw /usr\n pre-invoke \"sh /x y\"\npre-invoked=z\n";
        assert_eq!(option(text, "pre-invoke"), ["mount -o remount,rw /usr", "sh /x y"]);
        assert!(option(text, "post-invoke").is_empty());
    }
}
