//! The administrator's commands before and after dpkg, which may remount a read-only file system: apt's
//! `DPkg::Pre-Invoke` and `DPkg::Post-Invoke`, and dpkg's `pre-invoke` and `post-invoke`. The rollback runs
//! them like the install.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use mender_update_module::{durable, log};
use rustix::fs::{StatVfsMountFlags, statvfs};
use serde::{Deserialize, Serialize};

use crate::dpkg::program;
use crate::paths::{is_directory, names};

/// dpkg's configuration.
const DPKG_CONFIGURATION: [&str; 2] = ["/etc/dpkg/dpkg.cfg", "/etc/dpkg/dpkg.cfg.d"];

/// The commands, in the order in which they run.
#[derive(Serialize, Deserialize)]
pub struct Hooks {
    before: Vec<String>,
    after: Vec<String>,
    /// Whether dpkg runs some of them itself: after that, a file system may be read-only again.
    dpkg_runs_some: bool,
}

impl Hooks {
    /// Reads the configuration of apt and dpkg.
    pub fn read() -> Result<Self> {
        let (mut before, mut after) = (apt_option("DPkg::Pre-Invoke")?, apt_option("DPkg::Post-Invoke")?);
        let text = dpkg_configuration()?;
        let (dpkg_before, dpkg_after) = (dpkg_option(&text, "pre-invoke"), dpkg_option(&text, "post-invoke"));
        let dpkg_runs_some = !dpkg_before.is_empty() || !dpkg_after.is_empty();
        before.extend(dpkg_before);
        after.extend(dpkg_after);
        Ok(Self { before, after, dpkg_runs_some })
    }

    /// Runs `work` between the commands.
    pub fn run_around<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        run(&self.before);
        let result = work();
        run(&self.after);
        result
    }

    /// Runs the commands before dpkg again, because dpkg has run those after it.
    pub fn repeat_before(&self) {
        if self.dpkg_runs_some {
            run(&self.before);
        }
    }

    /// Refuses an update of `paths` on a file system that is read-only and that the commands do not make
    /// writable.
    pub fn check_writable(&self, paths: &BTreeSet<PathBuf>) -> Result<()> {
        let directories = parent_directories(paths)?;
        if first_read_only(&directories)?.is_none() {
            return Ok(());
        }
        if let Some(directory) = self.run_around(|| first_read_only(&directories))? {
            let hooks = if self.before.is_empty() { "no command" } else { "none of the commands" };
            bail!(
                "update refused: {} is on a read-only file system, and {hooks} under apt's DPkg::Pre-Invoke \
                 makes it writable: remount it there (\"mount -o remount,rw …\"), and read-only again under \
                 DPkg::Post-Invoke",
                directory.display()
            );
        }
        Ok(())
    }
}

fn run(commands: &[String]) {
    for command in commands {
        if let Err(error) = program::change_under_lock("sh").args(["-c", command]).run() {
            log!("a pre-invoke or post-invoke command failed: {error:#}");
        }
    }
}

/// The directories in which dpkg creates `paths`, each once. For an existing directory, it creates nothing.
fn parent_directories(paths: &BTreeSet<PathBuf>) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for path in paths {
        if is_directory(path)? {
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

fn first_read_only(directories: &BTreeSet<PathBuf>) -> Result<Option<&Path>> {
    for directory in directories {
        let system = statvfs(directory)
            .with_context(|| format!("examining the file system of {} failed", directory.display()))?;
        if system.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Ok(Some(directory));
        }
    }
    Ok(None)
}

fn apt_option(name: &str) -> Result<Vec<String>> {
    let output = program::query("apt-config").args(["dump", "--no-empty", "--format", "%v%n", name]).output()?;
    Ok(program::text(output)?.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

fn dpkg_configuration() -> Result<String> {
    let [file, directory] = DPKG_CONFIGURATION.map(Path::new);
    let mut text = String::new();
    let files = names(directory)?.into_iter().map(|name| directory.join(name));
    for path in files.chain([file.to_owned()]).filter(|path| path.is_file()) {
        let content = fs::read(&path).with_context(|| format!("reading {} failed", path.display()))?;
        text.push_str(&String::from_utf8_lossy(&content));
        text.push('\n');
    }
    Ok(text)
}

/// The values of dpkg's option `name`, in the form `name=value` or `name value`.
fn dpkg_option(text: &str, name: &str) -> Vec<String> {
    let value = |line: &str| {
        let value = line.trim().strip_prefix(name)?;
        let value = value.strip_prefix(['=', ' ', '\t'])?.trim();
        Some(value.trim_matches('"').to_owned()).filter(|value| !value.is_empty())
    };
    text.lines().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use rustix::mount::{MountFlags, mount};

    use super::*;
    use crate::test_device::{error, on_device, write};

    #[test]
    fn dpkgs_options_are_parsed_in_both_forms() {
        let text = "# pre-invoke=no\npre-invoke=mount -o remount,rw /usr\n pre-invoke \"sh /x y\"\npre-invoked=z\n";
        assert_eq!(dpkg_option(text, "pre-invoke"), ["mount -o remount,rw /usr", "sh /x y"]);
        assert!(dpkg_option(text, "post-invoke").is_empty());
    }

    #[test]
    fn the_commands_of_apt_and_dpkg_are_read_in_their_order() {
        on_device(|| {
            let read = || Hooks::read().unwrap();
            assert!(!read().dpkg_runs_some);
            write("/etc/apt/apt.conf.d/50x", "DPkg::Pre-Invoke { \"a\"; \"b\"; };\nDPkg::Post-Invoke { \"c\"; };\n");
            let Hooks { before, after, dpkg_runs_some } = read();
            assert_eq!((before, after, dpkg_runs_some), (vec!["a".into(), "b".into()], vec!["c".into()], false));
            write("/etc/dpkg/dpkg.cfg", "pre-invoke=e\n");
            assert!(read().dpkg_runs_some);
            write("/etc/dpkg/dpkg.cfg", "post-invoke=f");
            assert!(read().dpkg_runs_some);
            write("/etc/dpkg/dpkg.cfg.d/x", "pre-invoke=d\n");
            let Hooks { before, after, dpkg_runs_some } = read();
            assert_eq!((before.concat(), after.concat(), dpkg_runs_some), ("abd".into(), "cf".into(), true));
        });
    }

    /// Hooks that write to the file `to`.
    fn hooks(to: &Path, dpkg_runs_some: bool) -> Hooks {
        let echo = |word: &str| vec![format!("echo {word} >> {}", to.display())];
        Hooks { before: echo("before"), after: echo("after"), dpkg_runs_some }
    }

    #[test]
    fn work_is_done_between_the_commands() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let text = || fs::read_to_string(&log).unwrap_or_default();
        let seen = hooks(&log, false).run_around(|| Ok(text())).unwrap();
        assert_eq!((seen.as_str(), text().as_str()), ("before\n", "before\nafter\n"));
        fs::remove_file(&log).unwrap();
        hooks(&log, false).repeat_before();
        assert_eq!(text(), "");
        hooks(&log, true).repeat_before();
        assert_eq!(text(), "before\n");
    }

    #[test]
    fn a_read_only_file_system_is_refused_unless_a_command_makes_it_writable() {
        on_device(|| {
            let directory = Path::new("/srv/read-only");
            fs::create_dir(directory).unwrap();
            let paths = |path: &str| BTreeSet::from([PathBuf::from(path)]);
            let hooks = |before: &[&str]| Hooks {
                before: before.iter().map(ToString::to_string).collect(),
                after: Vec::new(),
                dpkg_runs_some: false,
            };
            mount("tmpfs", directory, "tmpfs", MountFlags::RDONLY, None).unwrap();
            hooks(&[]).check_writable(&paths("/srv/x")).unwrap();
            let refused = error(hooks(&[]).check_writable(&paths("/srv/read-only/a/b")));
            assert!(refused.contains("/srv/read-only is on") && refused.contains("no command"), "{refused}");
            let refused = error(hooks(&["true"]).check_writable(&paths("/srv/read-only/x")));
            assert!(refused.contains("none of the commands"), "{refused}");
            hooks(&["mount -o remount,rw /srv/read-only"]).check_writable(&paths("/srv/read-only/x")).unwrap();
        });
    }

    #[test]
    fn paths_are_made_in_the_closest_directory_that_exists() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("a/b")).unwrap();
        fs::write(path("file"), "").unwrap();
        let paths = ["a/b", "a/c/d", "a/e", "file/x"].map(path);
        let expected = [path("a"), directory.path().to_owned()];
        assert_eq!(parent_directories(&paths.into()).unwrap(), expected.into());
    }
}
