//! Builds an image: the root file system by mmdebstrap, the kernel from its Debian package, an initial RAM disk, and an
//! SD card with two ext4 partitions. It needs no loop mounts and no input, so it works in a container.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use host::cache;
use host::command::run;
use host::packages::as_root;
use host::script::quoted;
use host::status::{Step, step};
use xshell::{Shell, cmd};

use super::recipe;
use crate::board::Board;
use crate::cpio::Archive;
use crate::partition;

pub(super) const CARD: &str = "card.img";
pub(super) const KERNEL: &str = "vmlinuz";
pub(super) const INITRD: &str = "initrd.img";
pub(super) const DEVICE_TREE: &str = "board.dtb";
pub(super) const SSH_KEY: &str = "ssh_key";

/// Builds the image of `board` in the empty directory `directory`.
pub(super) fn image(sh: &Shell, board: &Board, directory: &Path) -> Result<()> {
    let work = directory.join("work");
    fs::create_dir_all(&work)?;
    let work = Work { sh, board, directory, work: &work };
    let name = format!("image for {}: ", board.machine);
    step(format!("{name}registering {} programs", board.architecture), |step| work.binfmt(step))?;
    step(format!("{name}installing Debian {} {}", recipe::RELEASE, board.architecture), |step| work.root(step))?;
    step(format!("{name}kernel and initial RAM disk"), |step| work.kernel(step))?;
    step(format!("{name}SD card"), |step| work.card(step))?;
    step(format!("{name}cleaning up"), |step| run(step, as_root(sh, "rm")?.arg("-rf").arg(work.work)))?;
    Ok(())
}

struct Work<'a> {
    sh: &'a Shell,
    board: &'a Board,
    /// The directory of the image.
    directory: &'a Path,
    /// The directory of intermediate files, which is removed at the end.
    work: &'a Path,
}

impl Work<'_> {
    fn binfmt(&self, step: &Step) -> Result<()> {
        // Two builds must not both find the registry missing and mount it.
        let _lock = cache::lock(&cache::directory()?.join("binfmt.lock"))?;
        let script = as_root(self.sh, "sh")?.args(["-c", recipe::BINFMT, "sh", self.board.binfmt]);
        run(step, script).context(
            "registering ARM programs with the kernel's binfmt_misc: run as root, and a container with --privileged",
        )?;
        Ok(())
    }

    /// Makes the root file system in the directory `root`, and downloads the kernel's package into `kernel`.
    fn root(&self, step: &Step) -> Result<()> {
        self.guest_files()?;
        let key = self.directory.join(SSH_KEY);
        run(step, cmd!(self.sh, "ssh-keygen -q -t ed25519 -C emulated-pi -N {EMPTY} -f {key}"))?;
        let mirror = host::apt::mirror(self.sh)?;
        let mut errors = String::new();
        for suite in recipe::SUITES {
            match run(step, self.mmdebstrap(suite, &mirror)?) {
                Ok(_) => return Ok(()),
                Err(error) => errors.push_str(&format!("\n{error:#}")),
            }
            run(step, as_root(self.sh, "rm")?.arg("-rf").arg(self.work.join("root")))?;
        }
        bail!("mmdebstrap failed: check the network; while the mirror is updated, try again later. Errors:{errors}")
    }

    fn guest_files(&self) -> Result<()> {
        for (path, content) in recipe::FILES {
            let file = self.work.join("files").join(path);
            self.sh.write_file(file, content)?;
        }
        self.sh.write_file(self.work.join("customize.sh"), recipe::CUSTOMIZE)?;
        self.sh.create_dir(self.work.join("kernel"))?;
        Ok(())
    }

    fn mmdebstrap(&self, suite: &str, mirror: &str) -> Result<Command> {
        let inside = |name: &str| quoted(self.work.join(name));
        let public_key = self.directory.join(format!("{SSH_KEY}.pub"));
        // mmdebstrap's own apt has the package lists. The kernel's package is unpacked and not installed.
        let kernel = format!(
            "cd {} && export APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" && \
             apt-get download $(apt-cache depends {} | sed -n 's/.*Depends: //p' | head -n 1)",
            inside("kernel"),
            self.board.kernel
        );
        let customize = format!(
            "sh {} \"$1\" {} {} {} {}",
            inside("customize.sh"),
            inside("files"),
            quoted(&public_key),
            self.board.device_type,
            recipe::RELEASE
        );
        let excluded =
            recipe::EXCLUDED.iter().map(|directory| format!("--dpkgopt=path-exclude=/usr/share/{directory}/*"));
        // In a mount namespace of its own, an interrupted build leaves no mounts. Removing its remains would otherwise
        // remove files of the host through them.
        let command = as_root(self.sh, "unshare")?
            .args(["--mount", "mmdebstrap"])
            .args(["--mode=root", "--variant=apt", "--format=directory"])
            .arg(format!("--architectures={}", self.board.architecture))
            .arg(format!("--include={}", [recipe::PACKAGES, self.board.packages].concat().join(",")))
            .arg("--aptopt=APT::Install-Recommends \"false\"")
            .arg("--aptopt=Acquire::Languages \"none\"")
            .arg("--aptopt=Acquire::Retries \"3\"")
            .arg("--aptopt=APT::Sandbox::User \"root\"") // the user _apt has no access to the cache directory
            .arg("--dpkgopt=force-unsafe-io") // an interrupted build is discarded
            .args(excluded)
            .arg(format!("--extract-hook={kernel}"))
            .arg(format!("--customize-hook={customize}"))
            .arg(suite)
            .arg(self.work.join("root"))
            .arg(mirror);
        Ok(command.into())
    }

    fn kernel(&self, step: &Step) -> Result<()> {
        let (sh, packages) = (self.sh, self.work.join("kernel"));
        let package = find(&packages, |path| path.extension().is_some_and(|extension| extension == "deb"))?;
        let tree = self.work.join("kernel-tree");
        run(step, cmd!(sh, "dpkg-deb --extract {package} {tree}"))?;
        let kernel = find(&tree.join("boot"), |path| name(path).starts_with("vmlinuz-"))?;
        let version = name(&kernel).trim_start_matches("vmlinuz-").to_owned();
        sh.copy_file(&kernel, self.directory.join(KERNEL))?;
        // Kernels of Debian 13 have their modules in usr/lib, earlier ones in lib.
        let lib = if tree.join("usr/lib/modules").exists() { tree.join("usr/lib") } else { tree.join("lib") };
        let file = self.board.device_tree;
        let found = cmd!(sh, "find {tree} -name {file}").quiet().read()?;
        let device_tree = found.lines().next().with_context(|| format!("no {file} in {}", package.display()))?;
        sh.copy_file(device_tree, self.directory.join(DEVICE_TREE))?;
        let initrd = self.initrd(step, &lib, &version)?;
        sh.write_file(self.directory.join(INITRD), initrd)?;
        Ok(())
    }

    /// The initial RAM disk: drivers, busybox and init.
    fn initrd(&self, step: &Step, lib: &Path, version: &str) -> Result<Vec<u8>> {
        let base = lib.parent().context("the directory of the kernel's modules has no parent")?;
        if !base.join("lib/modules").exists() {
            std::os::unix::fs::symlink("usr/lib", base.join("lib"))?;
        }
        run(step, cmd!(self.sh, "/usr/sbin/depmod -b {base} {version}"))?;
        let mut archive = Archive::default();
        for directory in ["bin", "dev", "proc", "root", "sys", "lib", "lib/modules"] {
            archive.directory(directory);
        }
        archive.file("init", recipe::INIT.as_bytes());
        let busybox = self.work.join("root/usr/bin/busybox");
        archive
            .file("bin/busybox", &fs::read(&busybox).with_context(|| format!("reading {} failed", busybox.display()))?);
        for (number, driver) in self.drivers(base, version)?.iter().enumerate() {
            let name = name(driver);
            // An emulated CPU would take seconds to decompress it.
            let content = if name.ends_with(".xz") {
                cmd!(self.sh, "xz --decompress --stdout {driver}").quiet().output()?.stdout
            } else {
                fs::read(driver).with_context(|| format!("reading {} failed", driver.display()))?
            };
            // The number gives the order in which init loads them.
            archive.file(&format!("lib/modules/{number:02}-{}", name.trim_end_matches(".xz")), &content);
        }
        Ok(archive.finish())
    }

    /// The files of all drivers, each after its dependencies.
    fn drivers(&self, base: &Path, version: &str) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for driver in recipe::DRIVERS.iter().chain(self.board.drivers) {
            let needed =
                cmd!(self.sh, "/usr/sbin/modprobe -d {base} -S {version} --show-depends {driver}").quiet().read()?;
            for file in needed.lines().filter_map(|line| line.strip_prefix("insmod ")) {
                let file = PathBuf::from(file.trim());
                // QEMU's CPU does not have the instructions of this driver. The generic driver is in the list too.
                if !files.contains(&file) && !name(&file).starts_with("crc32-arm-ce") {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }

    fn card(&self, step: &Step) -> Result<()> {
        let (root, data) = (self.work.join("root"), self.work.join("data"));
        // /data is a partition of its own, with the content of the root file system's /data.
        run(step, as_root(self.sh, "mv")?.arg(root.join("data")).arg(&data))?;
        run(step, as_root(self.sh, "mkdir")?.arg(root.join("data")))?;
        let card = self.directory.join(CARD);
        let file = File::create(&card).with_context(|| format!("creating {} failed", card.display()))?;
        file.set_len(partition::CARD)?;
        file.write_all_at(&partition::table(&[partition::ROOT, partition::DATA]), 0)?;
        drop(file);
        let file_systems = [(partition::ROOT, "root", &root), (partition::DATA, "data", &data)];
        for (partition, label, content) in file_systems {
            let (offset, size) = (partition.start, partition.size >> 10);
            run(
                step,
                as_root(self.sh, "/usr/sbin/mke2fs")?
                    .args(["-q", "-F", "-t", "ext4", "-L", label, "-d"])
                    .arg(content)
                    .args(["-E", &format!("offset={offset}")])
                    .arg(&card)
                    .arg(format!("{size}k")),
            )?;
        }
        Ok(())
    }
}

const EMPTY: &str = "";

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The first entry of `directory` that `wanted` accepts.
fn find(directory: &Path, wanted: impl Fn(&Path) -> bool) -> Result<PathBuf> {
    host::directory::entries(directory)?
        .into_iter()
        .find(|path| wanted(path))
        .with_context(|| format!("no file of the kernel's package in {}", directory.display()))
}
