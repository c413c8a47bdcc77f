//! Architectures of device types.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, anyhow, ensure};

/// An architecture, under Debian's name; `armv6` is what Raspberry Pi OS calls armhf, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Architecture(&'static str);

/// The architectures: the name, and the name and the variants of images.
const ALL: [(&str, &str, &[&str]); 6] = [
    ("arm64", "arm64", &["", "v8"]),
    ("armhf", "arm", &["", "v7", "v6"]),
    (ARMV6, "arm", &["", "v6", "v5"]),
    ("armel", "arm", &["", "v5", "v6"]),
    ("amd64", "amd64", &["", "v1", "v2", "v3"]),
    ("i386", "386", &[""]),
];

/// The architecture of the first Raspberry Pis and of the Zero, whose packages are of armhf.
const ARMV6: &str = "armv6";

/// Device types and the architectures that they run, by meta-mender's and Yocto's names of machines. `*` at the end
/// stands for any text. The first row that matches applies.
const DEVICE_TYPES: [(&str, &[&str]); 34] = [
    ("raspberrypi0-2w-64*", &["arm64"]),
    ("raspberrypi0-2w*", &["armhf", "arm64"]),
    ("raspberrypi0*", &[ARMV6]),
    ("raspberrypi1*", &[ARMV6]),
    ("raspberrypi2*", &["armhf"]),
    ("raspberrypi3-64*", &["arm64"]),
    ("raspberrypi3*", &["armhf", "arm64"]),
    ("raspberrypi4-64*", &["arm64"]),
    ("raspberrypi4*", &["armhf", "arm64"]),
    ("raspberrypi5*", &["arm64"]),
    ("raspberrypi-armv7*", &["armhf"]),
    ("raspberrypi-armv8*", &["arm64"]),
    ("raspberrypi-cm3*", &["armhf"]),
    ("raspberrypi-cm*", &[ARMV6]),
    ("raspberrypi", &[ARMV6]),
    ("beaglebone*", &["armhf"]),
    ("beagleplay*", &["arm64"]),
    ("colibri-imx6*", &["armhf"]),
    ("colibri-imx7*", &["armhf"]),
    ("stm32mp1*", &["armhf"]),
    ("vexpress-qemu*", &["armhf"]),
    ("qemuarm64*", &["arm64"]),
    ("qemuarm*", &["armhf"]),
    ("qemux86-64*", &["amd64"]),
    ("qemux86*", &["i386"]),
    ("genericx86-64*", &["amd64"]),
    ("generic-x86_64*", &["amd64"]),
    ("genericarm64*", &["arm64"]),
    ("intel-corei7-64*", &["amd64"]),
    ("jetson-*", &["arm64"]),
    ("imx8*", &["arm64"]),
    ("verdin-imx8*", &["arm64"]),
    ("rock*", &["arm64"]),
    ("stm32mp2*", &["arm64"]),
];

impl FromStr for Architecture {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = ALL.iter().find(|(debian, ..)| *debian == name);
        found.map(|(debian, ..)| Self(debian)).ok_or_else(|| {
            let names: Vec<_> = ALL.iter().map(|(debian, ..)| *debian).collect();
            anyhow!("use one of {}", names.join(", "))
        })
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

impl Architecture {
    /// Whether devices of this architecture run a package for `debian`.
    pub fn runs_package(self, debian: &str) -> bool {
        self.0 == debian || debian == "all" || (self.0 == ARMV6 && debian == "armhf")
    }

    /// Whether devices of this architecture run an image for the architecture `name` and the variant `variant`.
    pub fn runs_image(self, name: &str, variant: &str) -> bool {
        ALL.iter().any(|(debian, image, variants)| *debian == self.0 && *image == name && variants.contains(&variant))
    }
}

/// The architectures of the devices of an artifact.
#[derive(Debug)]
pub struct Devices {
    /// Each device type with its architectures; none if they are not known.
    types: Vec<(String, Vec<Architecture>)>,
    /// The architectures in the options, which take precedence.
    given: Vec<Architecture>,
}

impl Devices {
    /// The devices of `types`, or of `given` if it is not empty.
    pub fn new(types: &[String], given: &[Architecture]) -> Self {
        let known = |name: &String| (name.clone(), architectures(name));
        Self { types: types.iter().map(known).collect(), given: given.to_vec() }
    }

    /// The device types whose architecture is not known, so that it is not checked.
    pub fn unchecked(&self) -> Vec<&str> {
        let unknown = self.types.iter().filter(|(_, known)| known.is_empty() && self.given.is_empty());
        unknown.map(|(name, _)| name.as_str()).collect()
    }

    /// Refuses `what`, which is for `architecture`, if devices do not run it as `runs` says.
    ///
    /// # Errors
    /// The device type, its architectures, and the remedy.
    pub fn require(&self, what: &str, architecture: &str, runs: impl Fn(Architecture) -> bool) -> Result<()> {
        let list = |all: &[Architecture]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        if !self.given.is_empty() {
            ensure!(
                self.given.iter().any(|given| runs(*given)),
                "wrong architecture: {what} is for {architecture}, and --architecture says {}: use one for that",
                list(&self.given)
            );
            return Ok(());
        }
        for (name, known) in self.types.iter().filter(|(_, known)| !known.is_empty()) {
            ensure!(
                known.iter().any(|architecture| runs(*architecture)),
                "wrong architecture: {what} is for {architecture}, and devices of type {name} are {}: use one for that, \
                 or give their architecture with --architecture",
                list(known)
            );
        }
        Ok(())
    }
}

/// The architectures of the device type `name`; none if it is not in the table.
fn architectures(name: &str) -> Vec<Architecture> {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    let row = DEVICE_TYPES.iter().find(|(pattern, _)| matches(pattern));
    row.into_iter().flat_map(|(_, names)| names.iter()).filter_map(|name| name.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(device_type: &str) -> Vec<String> {
        architectures(device_type).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn device_types_have_architectures() {
        assert_eq!(names("raspberrypi3"), ["armhf", "arm64"]);
        assert_eq!(names("raspberrypi4-64"), ["arm64"]);
        assert_eq!(names("qemux86-64"), ["amd64"]);
        assert_eq!(names("raspberrypi-cm"), ["armv6"]);
        assert!(names("my-board").is_empty());
        for (pattern, architectures) in DEVICE_TYPES {
            assert_eq!(names(pattern.trim_end_matches('*')), architectures, "{pattern}: an earlier row matches");
        }
    }

    #[test]
    fn packages_and_images_are_compared_with_every_device_type() {
        let devices = |types: &[&str], given: &[&str]| {
            let types: Vec<_> = types.iter().map(|name| (*name).to_owned()).collect();
            Devices::new(&types, &given.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>())
        };
        let package = |devices: &Devices, name: &str| devices.require("x.deb", name, |it| it.runs_package(name));
        let both = devices(&["raspberrypi2", "raspberrypi5"], &[]);
        package(&both, "all").unwrap();
        let error = package(&both, "arm64").unwrap_err().to_string();
        assert!(error.contains("devices of type raspberrypi2 are armhf"), "{error}");
        let own = devices(&["my-board"], &[]);
        package(&own, "riscv64").unwrap();
        assert_eq!(own.unchecked(), ["my-board"]);
        let given = devices(&["my-board"], &["armhf"]);
        assert!(given.unchecked().is_empty() && package(&given, "arm64").is_err());
        let image = |architecture: &str, variant: &str| {
            given.require("image", architecture, |it| it.runs_image(architecture, variant)).is_ok()
        };
        assert!(image("arm", "v7") && image("arm", "") && !image("arm64", "") && !image("arm", "v8"));
        let zero = devices(&["raspberrypi0-wifi"], &[]);
        package(&zero, "armhf").unwrap();
        let image = |variant: &str| zero.require("image", "arm", |it| it.runs_image("arm", variant));
        assert!(image("v6").is_ok() && image("").is_ok());
        assert!(image("v7").unwrap_err().to_string().contains("devices of type raspberrypi0-wifi are armv6"));
    }
}
