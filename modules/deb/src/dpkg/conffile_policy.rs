//! dpkg's options for configuration files that were changed on the device.

use crate::options::Conffiles;

/// The options that make dpkg follow `policy` for changed configuration files, without asking. All of them
/// are given, because they override the device's dpkg.cfg and `DPkg::Options`.
pub fn conffile_options(policy: Conffiles) -> &'static [&'static str] {
    match policy {
        Conffiles::Keep => &[
            "--no-force-confnew",
            "--no-force-confdef",
            "--no-force-confmiss",
            "--no-force-confask",
            "--force-confold",
        ],
        Conffiles::Replace => &[
            "--no-force-confold",
            "--no-force-confdef",
            "--no-force-confmiss",
            "--no-force-confask",
            "--force-confnew",
        ],
        Conffiles::Default => {
            &["--no-force-confnew", "--no-force-confmiss", "--no-force-confask", "--force-confdef", "--force-confold"]
        }
    }
}
