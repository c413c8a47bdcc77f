//! The changelogs of a release: `CHANGELOG.md`, and those of Debian's packages.

use std::fs;

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

use super::version::Version;
use crate::dist::source::tracked;

/// The heading of the section for the next release.
const NEXT: &str = "## Unreleased";

/// Moves the top section of `CHANGELOG.md` to `version`, and begins the changelogs of all packages with it.
pub fn release(sh: &Shell, version: &Version) -> Result<()> {
    let root = sh.current_dir();
    let date = |format: &str| {
        let date = cmd!(sh, "date --utc {format}").env("LC_ALL", "C").quiet().read();
        date.context("reading the date failed")
    };
    let (day, time) = (date("+%F")?, date("--rfc-email")?);
    let mut changelogs = vec![root.join("CHANGELOG.md")];
    changelogs.extend(tracked(sh, &["debian/*/changelog"])?.into_iter().map(|path| root.join(path)));
    for path in changelogs {
        let text = fs::read_to_string(&path).with_context(|| format!("reading {} failed", path.display()))?;
        let result =
            if path.ends_with("CHANGELOG.md") { moved(&text, version, &day) } else { debian(&text, version, &time) };
        let text = result.with_context(|| format!("changing {} failed", path.display()))?;
        fs::write(&path, text).with_context(|| format!("writing {} failed", path.display()))?;
    }
    Ok(())
}

/// `text` of `CHANGELOG.md` whose top section is that of `version`, released on the date `day`.
fn moved(text: &str, version: &Version, day: &str) -> Result<String> {
    let heading = text.lines().find(|line| line.starts_with("## ")).context("no section: add one for this release")?;
    ensure!(
        heading.to_lowercase().contains("unreleased"),
        "the top section is released: {heading:?}: add the section {NEXT:?} with the changes of {version} above it"
    );
    let section = text.split_once(heading).and_then(|(_, rest)| rest.split("\n## ").next()).unwrap_or_default();
    ensure!(!section.trim().is_empty(), "the section {heading:?} has no changes: list those of {version}");
    Ok(text.replacen(heading, &format!("{NEXT}\n\n## {version} – {day}"), 1))
}

/// `text` of a changelog of Debian that begins with `version` at `time`. An entry of this version gets the time only.
fn debian(text: &str, version: &Version, time: &str) -> Result<String> {
    let (package, rest) = text.split_once(" (").context("no version in the first line")?;
    let (present, _) = rest.split_once(") ").context("no version in the first line")?;
    let trailer = text.lines().find(|line| line.starts_with(" -- ")).context("no line that begins with \" -- \"")?;
    let (maintainer, _) = trailer.rsplit_once("  ").with_context(|| format!("no date in the line {trailer:?}"))?;
    let trailer_of_release = format!("{maintainer}  {time}");
    if present == version.to_string() {
        return Ok(text.replacen(trailer, &trailer_of_release, 1));
    }
    Ok(format!(
        "{package} ({version}) unstable; urgency=medium\n\n  * Version {version}: CHANGELOG.md of the source lists the \
         changes.\n\n{trailer_of_release}\n\n{text}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str =
        "p (0.1.0) unstable; urgency=medium\n\n  * First.\n\n -- A B <a@b>  Tue, 24 Nov 2026 08:00:00 +0000\n";

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn the_top_section_becomes_that_of_the_version() {
        let text = "# Changelog\n\n## 0.1.0 – unreleased\n\n- x\n\n## 0.0.9 – 2026-01-01\n";
        let expected = "# Changelog\n\n## Unreleased\n\n## 0.2.0 – 2026-11-27\n\n- x\n\n## 0.0.9 – 2026-01-01\n";
        let moved_once = moved(text, &version("0.2.0"), "2026-11-27").unwrap();
        assert_eq!(moved_once, expected);
        let error = moved(&moved_once, &version("0.3.0"), "2026-11-28").unwrap_err().to_string();
        assert!(error.contains("has no changes"), "{error}");
        let released = moved("## 0.0.9 – 2026-01-01\n\n- x\n", &version("0.2.0"), "2026-11-27");
        assert!(released.unwrap_err().to_string().contains("is released"));
        assert!(moved("# Changelog\n", &version("0.2.0"), "2026-11-27").is_err());
    }

    #[test]
    fn an_entry_is_added_once() {
        let time = "Fri, 27 Nov 2026 00:00:00 +0000";
        let added = debian(DEBIAN, &version("0.2.0"), time).unwrap();
        assert!(added.starts_with("p (0.2.0) unstable; urgency=medium\n\n  * Version 0.2.0: "), "{added}");
        assert!(added.ends_with(&format!("\n\n -- A B <a@b>  {time}\n\n{DEBIAN}")), "{added}");
        let dated = debian(DEBIAN, &version("0.1.0"), time).unwrap();
        assert_eq!(dated, DEBIAN.replace("Tue, 24 Nov 2026 08:00:00 +0000", time));
        assert!(debian("", &version("0.2.0"), time).is_err() && debian("p (1) x\n", &version("0.2.0"), time).is_err());
    }
}
