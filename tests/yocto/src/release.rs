//! Snapshots of Yocto releases: a checkout of OE-Core and the BitBake that goes with it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::folder;

/// A release at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its series, `wrynose`.
    pub series: String,
    /// OE-Core's checkout.
    pub oe_core: PathBuf,
    /// BitBake's checkout.
    pub bitbake: PathBuf,
}

/// The layer meta-mender-core for `series` in `folder`: a checkout of meta-mender, or a folder that has one or several, each in a
/// folder of its own or two levels down.
///
/// # Errors
/// When the folder cannot be read.
pub fn meta_mender(folder: &Path, series: &str) -> Result<Option<PathBuf>> {
    let candidates = [vec![folder.to_owned()], folder::entries(folder)?].concat();
    let layers = candidates.iter().flat_map(|folder| [folder.clone(), folder.join("meta-mender")]);
    let is_it = |layer: &PathBuf| {
        let compatible = variable(&layer.join("conf/layer.conf"), "LAYERSERIES_COMPAT_mender");
        compatible.is_ok_and(|compatible| compatible.split_whitespace().any(|found| found == series))
    };
    Ok(layers.map(|folder| folder.join("meta-mender-core")).find(is_it))
}

/// The releases in `folder`, which holds the checkouts `openembedded-core` and `bitbake`, or folders that each do.
///
/// # Errors
/// When it has none, or one that does not say its series.
pub fn releases(folder: &Path) -> Result<Vec<Release>> {
    let candidates = [vec![folder.to_owned()], folder::entries(folder)?].concat();
    let pair = |folder: &PathBuf| (folder.join("openembedded-core"), folder.join("bitbake"));
    let complete =
        |(oe_core, bitbake): &(PathBuf, PathBuf)| oe_core.join("meta").is_dir() && bitbake.is_dir();
    let found: Vec<_> = candidates.iter().map(pair).filter(complete).map(release).collect::<Result<_>>()?;
    ensure!(
        !found.is_empty(),
        "{} has no release: it needs checkouts openembedded-core and bitbake, or folders with them, one for each",
        folder.display()
    );
    Ok(found)
}

fn release((oe_core, bitbake): (PathBuf, PathBuf)) -> Result<Release> {
    let series = variable(&oe_core.join("meta/conf/layer.conf"), "LAYERSERIES_CORENAMES")?;
    Ok(Release { series, oe_core, bitbake })
}

/// The series that the layer in `folder` says it is compatible with.
///
/// # Errors
/// When it says none.
pub fn compatible(folder: &Path) -> Result<Vec<String>> {
    let series = variable(&folder.join("conf/layer.conf"), "LAYERSERIES_COMPAT_rust-modules")?;
    Ok(series.split_whitespace().map(str::to_owned).collect())
}

/// The value of `name`, assigned in one line of the file `path`.
fn variable(path: &Path, name: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let value =
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_prefix('=')).map(str::trim);
    let value = value.with_context(|| format!("{} does not set {name}", path.display()))?;
    Ok(value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_mender_is_chosen_by_its_series() {
        let folder = tempfile::tempdir().unwrap();
        for (place, series) in
            [("meta-mender", "kirkstone"), ("b/meta-mender", "wrynose"), ("c", "scarthgap")]
        {
            let conf = folder.path().join(place).join("meta-mender-core/conf");
            fs::create_dir_all(&conf).unwrap();
            fs::write(conf.join("layer.conf"), format!("LAYERSERIES_COMPAT_mender = \"{series}\"\n"))
                .unwrap();
        }
        let found = |series: &str| meta_mender(folder.path(), series).unwrap();
        assert_eq!(found("kirkstone"), Some(folder.path().join("meta-mender/meta-mender-core")));
        assert_eq!(found("wrynose"), Some(folder.path().join("b/meta-mender/meta-mender-core")));
        assert_eq!(found("scarthgap"), Some(folder.path().join("c/meta-mender-core")));
        assert_eq!(found("dunfell"), None);
    }

    #[test]
    fn releases_are_found_alone_and_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        assert!(releases(folder.path()).unwrap_err().to_string().contains("openembedded-core and bitbake"));
        for (place, series) in [("b", "wrynose"), ("a", "scarthgap")] {
            let conf = folder.path().join(place).join("openembedded-core/meta/conf");
            fs::create_dir_all(&conf).unwrap();
            fs::create_dir(folder.path().join(place).join("bitbake")).unwrap();
            fs::write(conf.join("layer.conf"), format!("X = \"1\"\nLAYERSERIES_CORENAMES = \"{series}\"\n"))
                .unwrap();
        }
        let names = |found: Vec<Release>| found.into_iter().map(|release| release.series).collect::<Vec<_>>();
        assert_eq!(names(releases(folder.path()).unwrap()), ["scarthgap", "wrynose"]);
        assert_eq!(names(releases(&folder.path().join("b")).unwrap()), ["wrynose"]);
    }
}
