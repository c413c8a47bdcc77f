//! Checks the processors on which an executable runs. Debian's architecture `armhf` does not define them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use host::command::run;
use host::status::{Step, step};
use xshell::{Shell, cmd};

use crate::target::Processor;

/// The values of `Tag_CPU_arch` in the output of readelf, up to ARMv6.
const UP_TO_ARMV6: &[&str] = &["Pre-v4", "v4", "v4T", "v5T", "v5TE", "v5TEJ", "v6"];

/// Checks by the build attributes of `executable` that `processor` has all its instructions.
///
/// # Errors
/// `executable` is for a newer processor.
pub fn check(sh: &Shell, step: &Step, executable: &Path, processor: &Processor) -> Result<()> {
    let attributes = run(step, cmd!(sh, "readelf --arch-specific {executable}"))?;
    check_attributes(&attributes).with_context(|| {
        format!("checking the build attributes of {} for {} failed", executable.display(), processor.cpu)
    })
}

/// Starts `executable` on an emulated `processor`, because build attributes do not prove that it runs.
///
/// # Errors
/// `executable` does not run there.
pub fn start(sh: &Shell, executable: &Path, processor: &Processor) -> Result<()> {
    let Processor { emulator, cpu, .. } = processor;
    let name = executable.file_name().unwrap_or_default().to_string_lossy();
    step(format!("starting {name} on an emulated {cpu}"), |step| {
        run(step, cmd!(sh, "{emulator} -cpu {cpu} {executable} --version")).map(drop)
    })
    .with_context(|| {
        format!("starting {} on {cpu} failed: find the instructions of a newer processor", executable.display())
    })
}

/// Checks `attributes`, the output of readelf. The linker writes the newest architecture of all objects there.
fn check_attributes(attributes: &str) -> Result<()> {
    let tag = attributes.lines().find_map(|line| line.trim().strip_prefix("Tag_CPU_arch: "));
    let architecture = tag.context("no Tag_CPU_arch in the output of readelf: not an ARM executable")?;
    ensure!(
        UP_TO_ARMV6.contains(&architecture),
        "Tag_CPU_arch is {architecture}, which is newer than ARMv6: \
         check the target's triple, the package of the C library, and assembly in dependencies"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn armv5_is_accepted_and_armv7_is_not() {
        let armv5 = "Attribute Section: aeabi\nFile Attributes\n  Tag_CPU_name: \"5TE\"\n  Tag_CPU_arch: v5TE\n  \
                     Tag_ARM_ISA_use: Yes\n  Tag_THUMB_ISA_use: Thumb-1\n";
        check_attributes(armv5).unwrap();
        let armv7 = "Attribute Section: aeabi\nFile Attributes\n  Tag_CPU_name: \"7-A\"\n  Tag_CPU_arch: v7\n  \
                     Tag_CPU_arch_profile: Application\n  Tag_ARM_ISA_use: Yes\n  Tag_FP_arch: VFPv3-D16\n";
        let error = check_attributes(armv7).unwrap_err().to_string();
        assert!(error.starts_with("Tag_CPU_arch is v7, which is newer than ARMv6"), "{error}");
        // Thumb-2 is not in every ARMv6; readelf prints nothing for amd64.
        for other in ["  Tag_CPU_arch: v6T2\n", "  Tag_CPU_arch_profile: Application\n", ""] {
            assert!(check_attributes(other).is_err(), "{other:?} was accepted");
        }
    }
}
