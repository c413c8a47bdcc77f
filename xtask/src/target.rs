//! The table of targets: the names of each architecture, and the tools that build for it.

use anyhow::{Context, Result};
use qemu::Board;

/// An architecture for which packages are made.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// Debian's name, which is used on the command line and in the names of packages.
    pub debian: &'static str,
    /// Rust's name with musl. The linker and the C library are part of Rust.
    pub musl: &'static str,
    /// The C library of the packages that are tested: musl falls back to the GNU C library without rustup's target.
    pub libc: Libc,
    /// The way to build with the GNU C library.
    pub glibc: Glibc,
    /// A triple that cargo-deb maps to `debian`.
    pub packaged: &'static str,
    /// The oldest processor that it supports, if `debian` does not define it.
    pub processor: Option<Processor>,
    /// The emulated Raspberry Pi that tests it, if there is one.
    pub board: Option<Board>,
}

/// What builds executables with the GNU C library on Debian amd64.
#[derive(Debug, PartialEq, Eq)]
pub struct Glibc {
    /// Rust's name.
    pub triple: &'static str,
    /// Debian's name of the architecture whose packages contain Rust's standard library for `triple`.
    pub libraries: &'static str,
    /// The program that links.
    pub linker: &'static str,
    /// The Debian packages with the linker and the static C library.
    pub packages: &'static [&'static str],
}

/// A C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Libc {
    /// musl, which is part of Rust's targets with that name.
    Musl,
    /// The GNU C library of Debian.
    Glibc,
}

impl Libc {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Musl, Self::Glibc];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Musl => "musl",
            Self::Glibc => "glibc",
        }
    }
}

/// A processor of ARMv6, and the emulator that runs executables for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Processor {
    /// QEMU's name of the processor.
    pub cpu: &'static str,
    /// The program that runs executables for it.
    pub emulator: &'static str,
    /// The Debian package of this program.
    pub package: &'static str,
}

/// The packages of a container engine, with networking and compose. The tests need one board with them.
const CONTAINERS: &[&str] = &["crun", "dbus", "netavark", "podman", "podman-compose"];

/// All targets, in the order of tables.
pub const TARGETS: &[Target] = &[
    Target {
        debian: "arm64",
        musl: "aarch64-unknown-linux-musl",
        libc: Libc::Musl,
        glibc: Glibc {
            triple: "aarch64-unknown-linux-gnu",
            libraries: "arm64",
            linker: "aarch64-linux-gnu-gcc",
            packages: &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        },
        packaged: "aarch64-unknown-linux-gnu",
        processor: None,
        board: Some(Board {
            machine: "raspi3b",
            qemu: "qemu-system-aarch64",
            architecture: "arm64",
            binfmt: "aarch64",
            kernel: "linux-image-arm64",
            device_tree: "bcm2837-rpi-3-b.dtb",
            device_type: "raspberrypi3",
            console: "ttyS1", // Bluetooth uses the first serial line, ttyAMA0
            serial: 1,
            packages: CONTAINERS,
            drivers: &["overlay"],
        }),
    },
    // Debian's armhf is ARMv7. Raspberry Pi OS also uses that name for ARMv6 (Raspberry Pi 1 and Zero), and dpkg
    // installs our packages there. So they contain one static executable for ARMv5TE with floating point in software,
    // which runs on ARMv6 and newer. Its atomic operations and thread pointer use the kernel's user helpers: the
    // kernel of the device needs CONFIG_KUSER_HELPERS, which is enabled by default, and a 64-bit kernel also needs
    // CONFIG_COMPAT.
    Target {
        debian: "armhf",
        musl: "armv5te-unknown-linux-musleabi",
        libc: Libc::Glibc, // no executable with musl was run on a device yet
        glibc: Glibc {
            triple: "armv5te-unknown-linux-gnueabi",
            libraries: "armel",
            linker: "arm-linux-gnueabi-gcc",
            packages: &["gcc-arm-linux-gnueabi", "libc6-dev-armel-cross"],
        },
        packaged: "arm-unknown-linux-gnueabihf",
        processor: Some(Processor { cpu: "arm1176", emulator: "qemu-arm-static", package: "qemu-user-static" }),
        board: Some(Board {
            machine: "raspi2b",
            qemu: "qemu-system-arm",
            architecture: "armhf",
            binfmt: "arm",
            kernel: "linux-image-armmp",
            device_tree: "bcm2836-rpi-2-b.dtb",
            device_type: "raspberrypi2",
            console: "ttyAMA0",
            serial: 0,
            packages: &[],
            drivers: &[],
        }),
    },
    Target {
        debian: "amd64",
        musl: "x86_64-unknown-linux-musl",
        libc: Libc::Musl,
        glibc: Glibc {
            triple: "x86_64-unknown-linux-gnu",
            libraries: "amd64",
            linker: "x86_64-linux-gnu-gcc",
            packages: &["gcc", "libc6-dev"],
        },
        packaged: "x86_64-unknown-linux-gnu",
        processor: None,
        board: None,
    },
];

/// The target with the Debian name `name`.
pub fn find(name: &str) -> Result<&'static Target> {
    TARGETS.iter().find(|target| target.debian == name).with_context(|| {
        let known: Vec<_> = TARGETS.iter().map(|target| target.debian).collect();
        format!("no such architecture: use one of {}", known.join(", "))
    })
}

/// All boards, in the order of the table.
pub fn boards() -> impl Iterator<Item = &'static Board> {
    TARGETS.iter().filter_map(|target| target.board.as_ref())
}

/// The board whose machine has the QEMU name `name`.
pub fn board(name: &str) -> Result<&'static Board> {
    boards().find(|board| board.machine == name).with_context(|| {
        let known: Vec<_> = boards().map(|board| board.machine).collect();
        format!("no such machine: use one of {}", known.join(", "))
    })
}

impl Target {
    /// Rust's name with `libc`.
    pub fn triple(&self, libc: Libc) -> &'static str {
        match libc {
            Libc::Musl => self.musl,
            Libc::Glibc => self.glibc.triple,
        }
    }

    /// The program that links with `libc`.
    pub fn linker(&self, libc: Libc) -> &'static str {
        match libc {
            Libc::Musl => "rust-lld",
            Libc::Glibc => self.glibc.linker,
        }
    }

    /// The Debian packages that building with `libc` needs, and the one with the emulator that starts the executable.
    pub fn needs(&self, libc: Libc) -> impl Iterator<Item = &'static str> {
        let emulator = self.processor.as_ref().map(|processor| processor.package);
        let packages = if libc == Libc::Glibc { self.glibc.packages } else { &[] };
        packages.iter().copied().chain(emulator)
    }
}

/// The name of cargo's environment variable for `setting` of the target `triple`.
pub fn variable(triple: &str, setting: &str) -> String {
    format!("CARGO_TARGET_{}_{setting}", triple.to_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_lists_the_known_architectures() {
        assert_eq!(find("armhf").unwrap().glibc.triple, "armv5te-unknown-linux-gnueabi");
        assert!(find("riscv64").unwrap_err().to_string().ends_with("arm64, armhf, amd64"));
    }

    #[test]
    fn armhf_supports_armv6_and_newer() {
        let armhf = find("armhf").unwrap();
        assert_eq!(armhf.triple(Libc::Musl), "armv5te-unknown-linux-musleabi");
        assert_eq!((armhf.triple(Libc::Glibc), armhf.glibc.libraries), ("armv5te-unknown-linux-gnueabi", "armel"));
        assert_eq!(armhf.processor.as_ref().unwrap().cpu, "arm1176"); // of the Raspberry Pi 1 and Zero
        assert!(Libc::ALL.iter().all(|libc| armhf.needs(*libc).any(|package| package == "qemu-user-static")));
    }

    #[test]
    fn musl_needs_no_cross_compiler() {
        let arm64 = find("arm64").unwrap();
        assert_eq!((arm64.needs(Libc::Musl).count(), arm64.linker(Libc::Musl)), (0, "rust-lld"));
        assert!(arm64.needs(Libc::Glibc).any(|package| package == arm64.glibc.packages[0]));
    }

    #[test]
    fn boards_have_the_architecture_of_their_target() {
        for target in TARGETS {
            assert!(target.board.as_ref().is_none_or(|board| board.architecture == target.debian));
        }
        assert!(board("raspi9").unwrap_err().to_string().ends_with("raspi3b, raspi2b"));
    }

    #[test]
    fn variables_have_the_names_of_cargo() {
        let variable = variable("aarch64-unknown-linux-gnu", "LINKER");
        assert_eq!(variable, "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER");
    }
}
