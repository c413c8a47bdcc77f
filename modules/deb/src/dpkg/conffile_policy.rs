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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_decides_about_all_five_options() {
        let decided = |policy| {
            let mut options = conffile_options(policy).to_vec();
            options.sort_unstable_by_key(|option| (option.starts_with("--no-"), *option));
            options
        };
        let (default, ask) = (["--no-force-confask", "--no-force-confmiss"], "--no-force-confdef");
        let [keep, replace, dpkg] = [Conffiles::Keep, Conffiles::Replace, Conffiles::Default].map(decided);
        assert_eq!(keep, ["--force-confold", default[0], ask, default[1], "--no-force-confnew"]);
        assert_eq!(replace, ["--force-confnew", default[0], ask, default[1], "--no-force-confold"]);
        assert_eq!(dpkg, ["--force-confdef", "--force-confold", default[0], default[1], "--no-force-confnew"]);
    }
}
