//! Yocto releases: checkouts of OE-Core, each with the BitBake of the same release.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::directory;

/// A release on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its series, such as `wrynose`.
    pub series: String,
    /// OE-Core's checkout.
    pub oe_core: PathBuf,
    /// BitBake's checkout.
    pub bitbake: PathBuf,
}

/// The layer meta-mender-core for `series` in `directory`, which is a checkout of meta-mender, or contains checkouts
/// one or two levels below.
pub fn meta_mender(directory: &Path, series: &str) -> Result<Option<PathBuf>> {
    let candidates = [vec![directory.to_owned()], directory::entries(directory)?].concat();
    let layers = candidates.iter().flat_map(|directory| [directory.clone(), directory.join("meta-mender")]);
    let is_it = |layer: &PathBuf| {
        let compatible = variable(&layer.join("conf/layer.conf"), "LAYERSERIES_COMPAT_mender");
        compatible.is_ok_and(|compatible| compatible.split_whitespace().any(|found| found == series))
    };
    Ok(layers.map(|directory| directory.join("meta-mender-core")).find(is_it))
}

/// The releases in `directory`, which contains the checkouts `openembedded-core` and `bitbake`, or directories with
/// such checkouts.
///
/// # Errors
/// No release was found, or the series of one is unknown.
pub fn releases(directory: &Path) -> Result<Vec<Release>> {
    let candidates = [vec![directory.to_owned()], directory::entries(directory)?].concat();
    let pair = |directory: &PathBuf| (directory.join("openembedded-core"), directory.join("bitbake"));
    let complete = |(oe_core, bitbake): &(PathBuf, PathBuf)| oe_core.join("meta").is_dir() && bitbake.is_dir();
    let found: Vec<_> = candidates.iter().map(pair).filter(complete).map(release).collect::<Result<_>>()?;
    ensure!(
        !found.is_empty(),
        "no Yocto release in {}: put checkouts of openembedded-core and bitbake there, or directories with both",
        directory.display()
    );
    Ok(found)
}

fn release((oe_core, bitbake): (PathBuf, PathBuf)) -> Result<Release> {
    let series = variable(&oe_core.join("meta/conf/layer.conf"), "LAYERSERIES_CORENAMES")?;
    Ok(Release { series, oe_core, bitbake })
}

/// The series with which the layer in `directory` is compatible.
pub fn compatible(directory: &Path) -> Result<Vec<String>> {
    let series = variable(&directory.join("conf/layer.conf"), "LAYERSERIES_COMPAT_rust-modules")?;
    Ok(series.split_whitespace().map(str::to_owned).collect())
}

/// The value of the variable `name` in the file `path`, which assigns it in one line.
fn variable(path: &Path, name: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {} failed", path.display()))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_prefix('=')).map(str::trim);
    let value = value.with_context(|| format!("no assignment of {name} in {}", path.display()))?;
    Ok(value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_mender_is_found_by_its_series() {
        let directory = tempfile::tempdir().unwrap();
        for (checkout, series) in [("meta-mender", "kirkstone"), ("b/meta-mender", "wrynose"), ("c", "scarthgap")] {
            let conf = directory.path().join(checkout).join("meta-mender-core/conf");
            fs::create_dir_all(&conf).unwrap();
            fs::write(conf.join("layer.conf"), format!("LAYERSERIES_COMPAT_mender = \"{series}\"\n")).unwrap();
        }
        let found = |series: &str| meta_mender(directory.path(), series).unwrap();
        assert_eq!(found("kirkstone"), Some(directory.path().join("meta-mender/meta-mender-core")));
        assert_eq!(found("wrynose"), Some(directory.path().join("b/meta-mender/meta-mender-core")));
        assert_eq!(found("scarthgap"), Some(directory.path().join("c/meta-mender-core")));
        assert_eq!(found("dunfell"), None);
    }

    #[test]
    fn one_or_several_releases_are_found() {
        let directory = tempfile::tempdir().unwrap();
        assert!(releases(directory.path()).unwrap_err().to_string().contains("openembedded-core and bitbake"));
        for (parent, series) in [("b", "wrynose"), ("a", "scarthgap")] {
            let conf = directory.path().join(parent).join("openembedded-core/meta/conf");
            fs::create_dir_all(&conf).unwrap();
            fs::create_dir(directory.path().join(parent).join("bitbake")).unwrap();
            fs::write(conf.join("layer.conf"), format!("X = \"1\"\nLAYERSERIES_CORENAMES = \"{series}\"\n")).unwrap();
        }
        let names = |found: Vec<Release>| found.into_iter().map(|release| release.series).collect::<Vec<_>>();
        assert_eq!(names(releases(directory.path()).unwrap()), ["scarthgap", "wrynose"]);
        assert_eq!(names(releases(&directory.path().join("b")).unwrap()), ["wrynose"]);
    }
}
