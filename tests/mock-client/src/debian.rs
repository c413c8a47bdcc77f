//! A device that is a Debian system of its own, and packages for it.
//!
//! dpkg and apt are the real ones, run by chroot on a copy-on-write mount of one directory: nothing of the machine that
//! runs the tests is touched, and a device costs a few milliseconds. What it is not: there is no systemd in it, and what
//! is written lies in the directory of temporary files, whatever file system that is.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

use crate::Snapshot;

/// Where a module is installed.
const MODULES: &str = "usr/share/mender/modules/v3";

/// Directories whose content is nobody's business: what runs, logs, caches, and the client's own data.
const NOBODYS: [&str; 7] = ["proc", "dev", "tmp", "data", "var/log", "var/cache", "var/lib/apt/lists"];

/// Packages that the tests make have this for a maintainer, by which they are found.
const MAINTAINER: &str = "Test <test@example.org>";

/// A mounted Debian system; unmounted when it goes.
pub struct System {
    root: PathBuf,
}

impl System {
    /// Mounts `base` at `root`; what is written goes to `directory`.
    pub(crate) fn mount(base: &Path, directory: &Path, root: &Path) -> Result<Self> {
        let (upper, work) = (directory.join("upper"), directory.join("work"));
        for made in [&upper, &work] {
            fs::create_dir_all(made).with_context(|| format!("making {}", made.display()))?;
        }
        let options =
            format!("lowerdir={},upperdir={},workdir={}", base.display(), upper.display(), work.display());
        let options = std::ffi::CString::new(options).context("a path with a NUL byte")?;
        mount("overlay", root, "overlay", MountFlags::empty(), options.as_c_str())
            .with_context(|| format!("mounting {} copy-on-write: only root may", base.display()))?;
        let system = Self { root: root.to_owned() };
        let proc = root.join("proc");
        mount("proc", &proc, "proc", MountFlags::empty(), None)
            .with_context(|| format!("mounting {}", proc.display()))?;
        Ok(system)
    }

    /// Puts the module's executable where the client looks for it, and returns where that is inside. It is mounted there and
    /// not copied: a copy cannot be run as long as a process that another thread starts meanwhile has it open for writing.
    pub(crate) fn install(&self, module: &Path) -> Result<PathBuf> {
        let inside = Path::new(MODULES).join(module.file_name().context("the module has a name")?);
        let place = self.root.join(&inside);
        let placing = || format!("putting {} into the system", module.display());
        fs::create_dir_all(self.root.join(MODULES)).with_context(placing)?;
        fs::write(&place, "").with_context(placing)?;
        mount_bind(module, &place).with_context(placing)?;
        Ok(Path::new("/").join(inside))
    }

    /// What comes before a command to run it inside.
    pub(crate) fn chroot(&self) -> [OsString; 2] {
        ["/usr/sbin/chroot".into(), self.root.clone().into()]
    }

    /// A command inside.
    pub fn command(&self, words: &[&str]) -> Command {
        let [chroot, root] = self.chroot();
        let mut command = Command::new(chroot);
        command.arg(root).args(words).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// What `words`, run inside, says on standard output; it has to succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn ok(&self, words: &[&str]) -> Result<String> {
        let output = self.command(words).output().with_context(|| format!("starting {words:?}"))?;
        ensure!(output.status.success(), "{words:?} failed: {output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Installs packages with dpkg, as somebody without this module would.
    ///
    /// # Errors
    /// When dpkg fails.
    pub fn install_packages(&self, debs: &[Vec<u8>]) -> Result<()> {
        let paths: Vec<_> = (0..debs.len()).map(|number| format!("/tmp/{number}.deb")).collect();
        for (path, deb) in paths.iter().zip(debs) {
            fs::write(self.root.join(&path[1..]), deb).with_context(|| format!("writing {path}"))?;
        }
        let words: Vec<_> =
            ["dpkg", "--install"].into_iter().chain(paths.iter().map(String::as_str)).collect();
        self.ok(&words)?;
        paths.iter().try_for_each(|path| fs::remove_file(self.root.join(&path[1..])))?;
        Ok(())
    }

    /// Everything by which one can tell whether two moments of this system are the same: what dpkg and apt say, all of
    /// `/etc` and of dpkg's database, every file of the tests' packages, and the name of everything else. Left out are
    /// logs, caches, dpkg's locks and its backups of the database, the times of directories and of the database, and the
    /// file in which apt keeps what `apt-mark` says.
    ///
    /// # Errors
    /// When something cannot be read.
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
            // It exits with 1 where something differs, and says what.
            let said = self.command(&verify).output().context("starting dpkg --verify")?;
            snapshot = snapshot.with_text("dpkg --verify", said.stdout);
            for name in &names {
                for path in
                    self.ok(&["dpkg-query", "--listfiles", name])?.lines().filter(|path| *path != "/.")
                {
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

    /// What changes with every run of dpkg, and is none of what it is asked for.
    fn is_ephemeral(&self, path: &Path) -> bool {
        let inside = path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy();
        inside == "var/lib/apt/extended_states"
            || inside.ends_with("-old")
            || inside.starts_with("var/lib/dpkg/lock")
            || inside.ends_with("/triggers/Lock")
    }

    fn list(&self, directory: &Path, all: &mut String) -> Result<()> {
        let reading = || format!("listing {}", directory.display());
        let mut entries = fs::read_dir(directory).with_context(reading)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let inside = path.strip_prefix(&self.root)?.to_owned();
            if NOBODYS.iter().any(|directory| inside.starts_with(directory)) || self.is_ephemeral(&path) {
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
        // Lazily, with all that is mounted in it: whatever a module that was killed has left running must not keep the directory.
        if let Err(error) = unmount(&self.root, UnmountFlags::DETACH) {
            eprintln!("unmounting {}: {error}", self.root.display());
        }
    }
}

/// A package to be: the real dpkg-deb makes it.
#[derive(Clone, Debug, Default)]
pub struct Package {
    control: String,
    files: Vec<(String, String)>,
    conffiles: Vec<String>,
    scripts: Vec<(String, String)>,
    checksums: bool,
}

impl Package {
    /// An empty one, for every architecture.
    pub fn new(name: &str, version: &str) -> Self {
        let control = format!(
            "Package: {name}\nVersion: {version}\nMaintainer: {MAINTAINER}\nDescription: of a test\n"
        );
        Self { control, ..Self::default() }
    }

    /// Adds a field to its control data.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.control.push_str(&format!("{name}: {value}\n"));
        self
    }

    /// Adds the file `path`; executable if it begins with `#!`.
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

    /// Adds the maintainer script `name`, or another file about the package.
    #[must_use]
    pub fn script(mut self, name: &str, content: &str) -> Self {
        self.scripts.push((name.into(), format!("#!/bin/sh\n{content}\n")));
        self
    }

    /// Adds a list of its files' checksums, which Debian's packages have.
    #[must_use]
    pub fn checksums(mut self) -> Self {
        self.checksums = true;
        self
    }

    /// The package.
    ///
    /// # Errors
    /// When dpkg-deb does not make it.
    pub fn build(&self) -> Result<Vec<u8>> {
        let directory = tempfile::tempdir().context("making a directory for a package")?;
        let tree = directory.path().join("tree");
        let write = |path: PathBuf, content: &str| -> Result<()> {
            let writing = || format!("writing {}", path.display());
            fs::create_dir_all(path.parent().unwrap_or(&path)).with_context(writing)?;
            fs::write(&path, content).with_context(writing)?;
            let mode = if content.starts_with("#!") { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).with_context(writing)
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
                Command::new("md5sum").args(names).current_dir(&tree).output().context("starting md5sum")?;
            fs::write(tree.join("DEBIAN/md5sums"), sums.stdout).context("writing a package's checksums")?;
        }
        let deb = directory.path().join("package.deb");
        let built = Command::new("dpkg-deb")
            .args(["--root-owner-group", "--uniform-compression", "-Znone", "--build"])
            .args([&tree, &deb])
            .env("SOURCE_DATE_EPOCH", "1700000000") // the same package every time
            .output()
            .context("starting dpkg-deb: is dpkg installed?")?;
        ensure!(built.status.success(), "dpkg-deb: {}", String::from_utf8_lossy(&built.stderr));
        fs::read(&deb).with_context(|| format!("reading {}", deb.display()))
    }
}

/// Lets this thread, and those that it starts from now on, have mounts of their own, which nobody else sees: whatever ends
/// the process, none stays behind.
///
/// # Errors
/// When the kernel refuses: only root may.
pub fn own_mounts() -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).context("asking for mounts of our own")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).context("keeping mounts to ourselves")
}
