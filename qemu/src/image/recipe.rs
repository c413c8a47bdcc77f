//! The inputs of an image, and the cache key computed from them.

use host::cache;

use crate::board::Board;

/// The version of the build procedure. Increase it for a change that no other input of the key shows.
const FORMAT: &str = "1";

/// The Debian release in the image.
pub(super) const RELEASE: &str = "trixie";

/// Names of the release on a mirror. While a mirror is updated, the index of one name can be inconsistent and that of
/// the other one valid. The build checks that the result is [`RELEASE`].
pub(super) const SUITES: &[&str] = &[RELEASE, "stable"];

/// Packages in addition to Debian's essential ones and apt.
pub(super) const PACKAGES: &[&str] = &[
    "attr",           // getfattr and setfattr, for the extended attributes that a rollback restores
    "busybox-static", // the only program of the initial RAM disk
    "dropbear-bin",
    "mender-client",
    "openssh-sftp-server", // scp
    "strace",              // stops a module at a chosen system call
    "systemd",
    "systemd-sysv",
];

/// Drivers in the initial RAM disk, which also gets their dependencies: for the card, its file system, and the network.
pub(super) const DRIVERS: &[&str] = &["sdhci-iproc", "bcm2835", "ext4", "phy-generic", "dwc2", "cdc_ether"];

/// Directories of `/usr/share` that are excluded from every package, because the card is small.
pub(super) const EXCLUDED: &[&str] = &["doc", "info", "lintian", "locale", "man", "zoneinfo"];

/// PID 1 of the initial RAM disk.
pub(super) const INIT: &str = include_str!("../../guest/init");
/// The script that configures the root file system.
pub(super) const CUSTOMIZE: &str = include_str!("../../guest/customize.sh");
/// The script that registers the board's architecture with the host's kernel.
pub(super) const BINFMT: &str = include_str!("../../guest/binfmt.sh");

macro_rules! guest_files {
    ($($path:literal),* $(,)?) => { &[$(($path, include_str!(concat!("../../guest/files/", $path)))),*] };
}

/// Files that are copied into the root file system: path and content.
pub(super) const FILES: &[(&str, &str)] = guest_files![
    "etc/containers/containers.conf",
    "etc/containers/storage.conf",
    "etc/mender/artifact_info",
    "etc/mender/mender.conf",
    "etc/systemd/journald.conf.d/pi.conf",
    "etc/systemd/system/pi.target",
    "etc/systemd/system/ready.service",
    "etc/systemd/system/ssh.service",
];

/// The cache key: the board's name, and a hash of the whole recipe.
pub(super) fn key(board: &Board) -> String {
    let board_row = format!("{board:?}");
    let lists = [SUITES, PACKAGES, DRIVERS, EXCLUDED].concat();
    let files = FILES.iter().flat_map(|(path, content)| [*path, *content]);
    let parts = [FORMAT, &board_row, INIT, CUSTOMIZE, BINFMT].into_iter().chain(lists).chain(files);
    let hash = cache::key(parts.map(str::as_bytes));
    format!("{}-{}", board.machine, &hash[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOARD: Board = Board {
        machine: "pi",
        qemu: "qemu",
        architecture: "arm64",
        binfmt: "aarch64",
        kernel: "linux",
        device_tree: "pi.dtb",
        device_type: "pi",
        console: "ttyS1",
        serial: 1,
        packages: &[],
        drivers: &[],
    };

    #[test]
    fn the_key_is_stable_and_depends_on_the_board() {
        assert_eq!(key(&BOARD), key(&BOARD));
        assert_ne!(key(&BOARD), key(&Board { kernel: "other", ..BOARD }));
        assert!(key(&BOARD).starts_with("pi-"));
    }
}
