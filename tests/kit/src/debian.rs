//! A device that is a Debian system, and packages for it.
//!
//! dpkg and apt are real. They run by chroot in a copy-on-write mount of one directory: nothing on the machine that
//! runs the tests changes, and a device takes a few milliseconds. Limits: no systemd runs in it, and its files are on
//! the file system of the directory for temporary files.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount};

use crate::{Outcome, Snapshot};

/// The directory of the modules.
const MODULES: &str = "usr/share/mender/modules/v3";

/// Directories that are not compared: runtime data, logs, caches, and the client's data.
const NOT_COMPARED: [&str; 7] = ["proc", "dev", "tmp", "data", "var/log", "var/cache", "var/lib/apt/lists"];

/// The maintainer of the packages of tests; identifies them.
const MAINTAINER: &str = "Test <test@example.org>";

/// A mounted Debian system, unmounted when it is dropped.
pub struct System {
    root: PathBuf,
}

impl System {
    /// Mounts `base` at `root`; changes go to `directory`.
    pub(crate) fn mount(base: &Path, directory: &Path, root: &Path) -> Result<Self> {
        let (upper, work) = (directory.join("upper"), directory.join("work"));
        for made in [&upper, &work] {
            fs::create_dir_all(made).with_context(|| format!("making {} failed", made.display()))?;
        }
        // xino: a file keeps its inode number when it is changed for the first time, also if both directories are on
        // different file systems. Fault injection identifies files by their numbers.
        let options = [("lowerdir", base), ("upperdir", &upper), ("workdir", &work)];
        let options = options.map(|(name, path)| format!("{name}={}", path.display())).join(",") + ",xino=on";
        let options = std::ffi::CString::new(options).context("a path contains a NUL byte")?;
        mount("overlay", root, "overlay", MountFlags::empty(), options.as_c_str())
            .with_context(|| format!("mounting {} copy-on-write failed: run as root", base.display()))?;
        let system = Self { root: root.to_owned() };
        let proc = root.join("proc");
        mount("proc", &proc, "proc", MountFlags::empty(), None)
            .with_context(|| format!("mounting {} failed", proc.display()))?;
        Ok(system)
    }

    /// Installs the module's executable for the client, and returns its path in the system. The file is bind-mounted: a
    /// copy cannot be executed while a process that another thread forks still has it open for writing (ETXTBSY).
    pub(crate) fn install(&self, module: &Path) -> Result<PathBuf> {
        let inside = Path::new(MODULES).join(module.file_name().context("the path of the module has no file name")?);
        let path = self.root.join(&inside);
        let installing = || format!("installing {} in the Debian system failed", module.display());
        fs::create_dir_all(self.root.join(MODULES)).with_context(installing)?;
        fs::write(&path, "").with_context(installing)?;
        mount_bind(module, &path).with_context(installing)?;
        Ok(Path::new("/").join(inside))
    }

    /// The words before a command that runs it in the system.
    pub(crate) fn chroot(&self) -> [OsString; 2] {
        ["/usr/sbin/chroot".into(), self.root.clone().into()]
    }

    /// The command `words`, run in the system.
    pub fn command(&self, words: &[&str]) -> Command {
        let [chroot, root] = self.chroot();
        let mut command = Command::new(chroot);
        command.arg(root).args(words).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// The standard output of the command `words`, run in the system.
    ///
    /// # Errors
    /// When the command fails.
    pub fn ok(&self, words: &[&str]) -> Result<String> {
        let shown = words.join(" ");
        let output = self.command(words).output().with_context(|| format!("starting {shown} failed"))?;
        let outcome = Outcome::from(output);
        ensure!(outcome.success(), "{shown} failed: {outcome}");
        Ok(outcome.stdout)
    }

    /// Installs packages with dpkg, without the module under test.
    pub fn install_packages(&self, debs: &[Vec<u8>]) -> Result<()> {
        let paths: Vec<_> = (0..debs.len()).map(|number| format!("/tmp/{number}.deb")).collect();
        for (path, deb) in paths.iter().zip(debs) {
            fs::write(self.root.join(&path[1..]), deb).with_context(|| format!("writing {path} failed"))?;
        }
        // Configuration files that were changed on the device are kept, without a question.
        let options = ["dpkg", "--force-confdef", "--force-confold", "--install"];
        let words: Vec<_> = options.into_iter().chain(paths.iter().map(String::as_str)).collect();
        self.ok(&words)?;
        paths.iter().try_for_each(|path| fs::remove_file(self.root.join(&path[1..])))?;
        Ok(())
    }

    /// The state of the system, for comparison: the output of dpkg and apt, all of `/etc` and of dpkg's database, every
    /// file of the tests' packages, and the names of all other files. Not included: logs, caches, dpkg's locks and its
    /// backups of the database, the times of directories and of the database, and apt's file behind `apt-mark`.
    pub fn state(&self) -> Result<Snapshot> {
        let format = "${binary:Package} ${db:Status-Abbrev} ${Version} ${Maintainer}\n${Conffiles}\n";
        let packages = self.ok(&["dpkg-query", "--show", "--showformat", format])?;
        let names: Vec<_> = packages
            .lines()
            .filter(|line| line.ends_with(MAINTAINER) && line.contains(" ii "))
            .filter_map(|line| line.split(' ').next())
            .collect();
        let mut snapshot = Snapshot::of(&self.root.join("etc"))?
            .and(Snapshot::of(&self.root.join("var/lib/dpkg"))?.without_times())
            .without(|path| self.is_ephemeral(path))
            .without_directory_times();
        if !names.is_empty() {
            let verify: Vec<_> = ["dpkg", "--verify"].into_iter().chain(names.iter().copied()).collect();
            // It exits with 1 if a file differs, and lists the differences.
            let output = self.command(&verify).output().context("starting dpkg --verify failed")?;
            snapshot = snapshot.with_text("dpkg --verify", output.stdout);
            for name in &names {
                for path in self.ok(&["dpkg-query", "--listfiles", name])?.lines().filter(|path| *path != "/.") {
                    let path = self.root.join(path.trim_start_matches('/'));
                    if !path.is_dir() {
                        snapshot = snapshot.and(Snapshot::of(&path)?);
                    }
                }
            }
        }
        let mut all = String::new();
        self.list(&self.root, &mut all)?;
        Ok(snapshot
            .with_text("dpkg-query", packages)
            .with_text("apt-mark showauto", self.ok(&["apt-mark", "showauto"])?)
            .with_text("names", all)
            .below(&self.root))
    }

    /// Whether `path` changes with every run of dpkg, whatever dpkg does.
    fn is_ephemeral(&self, path: &Path) -> bool {
        let inside = path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy();
        inside == "var/lib/apt/extended_states"
            || inside.ends_with("-old")
            || inside.starts_with("var/lib/dpkg/lock")
            || inside.ends_with("/triggers/Lock")
    }

    fn list(&self, directory: &Path, all: &mut String) -> Result<()> {
        let reading = || format!("listing {} failed", directory.display());
        let mut entries = fs::read_dir(directory).with_context(reading)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let inside = path.strip_prefix(&self.root)?.to_owned();
            if NOT_COMPARED.iter().any(|directory| inside.starts_with(directory)) || self.is_ephemeral(&path) {
                continue;
            }
            all.push_str(&format!("{}\n", inside.display()));
            if entry.file_type()?.is_dir() {
                self.list(&path, all)?;
            }
        }
        Ok(())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // Detached, with all mounts in it: a process that a killed module left running must not keep the directory
        // busy.
        if let Err(error) = unmount(&self.root, UnmountFlags::DETACH) {
            eprintln!("unmounting {} failed: {error}", self.root.display());
        }
    }
}

/// The description of a package, which the real dpkg-deb builds.
#[derive(Clone, Debug, Default)]
pub struct Package {
    control: String,
    files: Vec<(String, String)>,
    conffiles: Vec<String>,
    scripts: Vec<(String, String)>,
    checksums: bool,
}

impl Package {
    /// An empty package, for all architectures.
    pub fn new(name: &str, version: &str) -> Self {
        let control =
            format!("Package: {name}\nVersion: {version}\nMaintainer: {MAINTAINER}\nDescription: of a test\n");
        Self { control, ..Self::default() }
    }

    /// Adds a control field.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.control.push_str(&format!("{name}: {value}\n"));
        self
    }

    /// Adds the file `path`; executable if it starts with `#!`.
    #[must_use]
    pub fn file(mut self, path: &str, content: &str) -> Self {
        self.files.push((path.into(), content.into()));
        self
    }

    /// Adds the configuration file `path`.
    #[must_use]
    pub fn conffile(mut self, path: &str, content: &str) -> Self {
        self.conffiles.push(path.into());
        self.file(path, content)
    }

    /// Adds the maintainer script `name`, or another control file.
    #[must_use]
    pub fn script(mut self, name: &str, content: &str) -> Self {
        self.scripts.push((name.into(), format!("#!/bin/sh\n{content}\n")));
        self
    }

    /// Adds md5sums, as Debian's packages have.
    #[must_use]
    pub fn checksums(mut self) -> Self {
        self.checksums = true;
        self
    }

    /// Builds the package.
    ///
    /// # Errors
    /// When dpkg-deb is missing or fails.
    pub fn build(&self) -> Result<Vec<u8>> {
        let directory = tempfile::tempdir().context("making a directory for a package failed")?;
        let tree = directory.path().join("tree");
        let write = |path: PathBuf, content: &str| -> Result<()> {
            let writing = || format!("writing {} failed", path.display());
            fs::create_dir_all(path.parent().unwrap_or(&path)).with_context(writing)?;
            fs::write(&path, content).with_context(writing)?;
            let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
            // The package has the same permissions with any umask; dpkg-deb refuses some.
            let mut above = path.ancestors().skip(1).take_while(|above| above.starts_with(&tree));
            above.try_for_each(|above| set(above, 0o755)).with_context(writing)?;
            set(&path, if content.starts_with("#!") { 0o755 } else { 0o644 }).with_context(writing)
        };
        let architecture = if self.control.contains("\nArchitecture: ") { "" } else { "Architecture: all\n" };
        write(tree.join("DEBIAN/control"), &format!("{}{architecture}", self.control))?;
        if !self.conffiles.is_empty() {
            write(tree.join("DEBIAN/conffiles"), &(self.conffiles.join("\n") + "\n"))?;
        }
        for (name, content) in &self.scripts {
            write(tree.join("DEBIAN").join(name), content)?;
        }
        for (path, content) in &self.files {
            write(tree.join(path.trim_start_matches('/')), content)?;
        }
        if self.checksums {
            let names = self.files.iter().map(|(path, _)| path.trim_start_matches('/'));
            let sums =
                Command::new("md5sum").args(names).current_dir(&tree).output().context("starting md5sum failed")?;
            write(tree.join("DEBIAN/md5sums"), &String::from_utf8_lossy(&sums.stdout))?;
        }
        let deb = directory.path().join("package.deb");
        let built = Command::new("dpkg-deb")
            .args(["--root-owner-group", "--uniform-compression", "-Znone", "--build"])
            .args([&tree, &deb])
            .env("SOURCE_DATE_EPOCH", "1700000000") // reproducible
            .output()
            .context("starting dpkg-deb failed: install dpkg")?;
        ensure!(built.status.success(), "dpkg-deb failed: {}", String::from_utf8_lossy(&built.stderr));
        fs::read(&deb).with_context(|| format!("reading {} failed", deb.display()))
    }
}

/// Moves this thread, and threads that it starts later, to a mount namespace of their own: no mount outlives the
/// process.
///
/// # Errors
/// When the kernel refuses, which it does without root.
pub fn own_mounts() -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).context("making a mount namespace failed: run as root")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).context("making mounts private failed")
}
