//! Everything that decides what an image becomes, and the key made of it.

use host::cache;

use crate::board::Board;

/// Changed by hand when the way of building changes in a manner that nothing below shows.
const FORMAT: &str = "1";

/// The Debian release in the image.
pub(super) const RELEASE: &str = "trixie";

/// What the release may be asked for as. A mirror's index can be out of step with the signed list of one name
/// while that of the other is whole; the build checks that the result is [`RELEASE`].
pub(super) const SUITES: &[&str] = &[RELEASE, "stable"];

/// Packages beside Debian's essential ones and apt.
pub(super) const PACKAGES: &[&str] = &[
    "attr",           // getfattr and setfattr: rollback restores extended attributes
    "busybox-static", // the initial RAM disk's only program
    "dropbear-bin",
    "mender-client",
    "openssh-sftp-server", // scp
    "strace",              // cuts a module at a chosen system call
    "systemd",
    "systemd-sysv",
];

/// Drivers in the initial RAM disk, with what they depend on: the card, its file system, and USB's network.
pub(super) const DRIVERS: &[&str] = &["sdhci-iproc", "bcm2835", "ext4", "phy-generic", "dwc2", "cdc_ether"];

/// Left out of every package: an update never looks at them, and the card is small.
pub(super) const EXCLUDED: &[&str] = &["doc", "info", "lintian", "locale", "man", "zoneinfo"];

/// PID 1 of the initial RAM disk.
pub(super) const INIT: &str = include_str!("../../guest/init");
/// Turns the fresh root into an emulated Pi's.
pub(super) const CUSTOMIZE: &str = include_str!("../../guest/customize.sh");
/// Registers the board's architecture with the host's kernel.
pub(super) const BINFMT: &str = include_str!("../../guest/binfmt.sh");

macro_rules! guest_files {
    ($($path:literal),* $(,)?) => { &[$(($path, include_str!(concat!("../../guest/files/", $path)))),*] };
}

/// Files that go into the root as they are: where, and what.
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

/// The cache key: the board's name for people, and a hash of the whole recipe.
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
    fn the_key_is_stable_and_tells_boards_apart() {
        assert_eq!(key(&BOARD), key(&BOARD));
        assert_ne!(key(&BOARD), key(&Board { kernel: "other", ..BOARD }));
        assert!(key(&BOARD).starts_with("pi-"));
    }
}
