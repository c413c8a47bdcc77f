//! The expected files of every package that BitBake builds of the project's recipes. Missing and additional files are
//! errors.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use host::command::run;
use host::directory;
use host::status::Step;
use xshell::{Shell, cmd};

use crate::Layer;

/// Packages by name, each with its files. A symlink is `path -> target`.
type Lists = BTreeMap<String, BTreeSet<String>>;

/// The package formats.
const FORMATS: &[&str] = &["deb", "ipk", "rpm"];

/// The client's directory of modules.
pub const MODULES: &str = "/usr/share/mender/modules/v3";

/// The name of the package group with all modules.
pub const GROUP: &str = "packagegroup-mender-update-modules";

/// The recipe of a module that is not one of the project.
pub const EXAMPLE: &str = "mender-update-module-example";

/// Checks all packages in `deploy` that BitBake built of `recipes`, and returns their number.
///
/// # Errors
/// A package or a file is missing or unexpected. The error lists all of them.
pub fn check(sh: &Shell, step: &Step, layer: &Layer, deploy: &Path, recipes: &[String]) -> Result<usize> {
    let mut expected = Lists::new();
    for recipe in recipes {
        expected.extend(packages(layer, recipe)?);
    }
    for format in FORMATS {
        let differences = differences(&expected, &found(sh, step, &deploy.join(format))?);
        ensure!(
            differences.is_empty(),
            "unexpected packages in {}:\n{}",
            deploy.join(format).display(),
            differences.join("\n")
        );
    }
    Ok(expected.len() * FORMATS.len())
}

/// The expected packages of `recipe`.
fn packages(layer: &Layer, recipe: &str) -> Result<Lists> {
    let module = recipe.trim_start_matches("mender-update-module-").trim_end_matches("-bin");
    let mut files = BTreeMap::from([("", Vec::new()), ("-dbg", Vec::new()), ("-dev", Vec::new())]);
    if recipe == GROUP {
        files.insert("-ptest", Vec::new());
    } else if recipe == EXAMPLE {
        files.insert("", vec![format!("{MODULES}/{module}")]);
    } else {
        files.insert("", installed(layer, module)?);
        if recipe.ends_with("-bin") {
            files.insert("-doc", vec![format!("/usr/share/doc/{recipe}/{recipe}.spdx.json")]);
        } else {
            files.insert("-ptest", vec![format!("/usr/lib/{recipe}/ptest/run-ptest")]);
        }
    }
    Ok(files.into_iter().map(|(ending, files)| (format!("{recipe}{ending}"), BTreeSet::from_iter(files))).collect())
}

/// The files of a module with settings and a unit. The unit is enabled by a symlink for every target in WantedBy=.
fn installed(layer: &Layer, module: &str) -> Result<Vec<String>> {
    let unit = format!("mender-update-module-{module}-recover.service");
    let units = "/usr/lib/systemd/system";
    let source = layer.directory.with_file_name("debian").join(module).join(&unit);
    let text = fs::read_to_string(&source).with_context(|| format!("reading {} failed", source.display()))?;
    let targets = text.lines().filter_map(|line| line.strip_prefix("WantedBy="));
    let links = targets.flat_map(str::split_whitespace);
    let mut files: Vec<_> = links.map(|target| format!("{units}/{target}.wants/{unit} -> ../{unit}")).collect();
    ensure!(!files.is_empty(), "no WantedBy= in {}", source.display());
    files.extend([
        format!("/etc/mender-modules/{module}.toml"),
        format!("{units}/{unit}"),
        format!("{MODULES}/{module}"),
    ]);
    Ok(files)
}

/// The project's packages in `directory`.
fn found(sh: &Shell, step: &Step, directory: &Path) -> Result<Lists> {
    let mut lists = Lists::new();
    for package in directory::files(directory)? {
        let file = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !file.starts_with("mender-update-module-") && !file.starts_with(GROUP) {
            continue;
        }
        if file.ends_with(".rpm") {
            let format = "%{NAME}\n[%{FILEMODES:perms}\t%{FILENAMES}\t%{FILELINKTOS}\n]";
            let listed = run(step, cmd!(sh, "rpm --query --package --queryformat {format} {package}"))?;
            let (name, files) = listed.split_once('\n').unwrap_or_default();
            lists.insert(name.to_owned(), files.lines().filter_map(of_rpm).collect());
        } else if file.ends_with(".deb") || file.ends_with(".ipk") {
            let name = file.split('_').next().unwrap_or_default().to_owned();
            let listed = run(step, cmd!(sh, "dpkg-deb --contents {package}"))?;
            lists.insert(name, listed.lines().filter_map(of_deb).collect());
        }
    }
    Ok(lists)
}

/// The file in a line of `dpkg-deb --contents`, unless it is a directory.
fn of_deb(line: &str) -> Option<String> {
    let mut fields = line.split_whitespace();
    let (mode, path) = (fields.next()?, fields.nth(4)?.trim_start_matches('.'));
    let rest: String = fields.map(|field| format!(" {field}")).collect();
    (!mode.starts_with('d')).then(|| format!("{path}{rest}"))
}

/// The file in a line of rpm's output, unless it is a directory.
fn of_rpm(line: &str) -> Option<String> {
    let mut fields = line.split('\t');
    let (mode, path) = (fields.next()?, fields.next()?);
    let target = fields.next().filter(|target| !target.is_empty());
    let file = target.map_or_else(|| path.to_owned(), |target| format!("{path} -> {target}"));
    (!mode.starts_with('d')).then_some(file)
}

/// A line for every package and every file that only one of the two lists has.
fn differences(expected: &Lists, found: &Lists) -> Vec<String> {
    let none = BTreeSet::new();
    let names: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let mut lines = Vec::new();
    for name in names {
        if !found.contains_key(name) {
            lines.push(format!("    {name}: the package is missing"));
            continue;
        }
        if !expected.contains_key(name) {
            lines.push(format!("    {name}: the package is unexpected"));
        }
        let (expected, found) = (expected.get(name).unwrap_or(&none), &found[name]);
        lines.extend(expected.difference(found).map(|file| format!("    {name}: missing {file}")));
        lines.extend(found.difference(expected).map(|file| format!("    {name}: unexpected {file}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_package_tools_are_parsed() {
        let of_deb = |line| of_deb(line).unwrap_or_default();
        assert_eq!(of_deb("-rw-r--r-- root/root 9 2026-03-09 12:59 ./etc/a.toml"), "/etc/a.toml");
        assert_eq!(of_deb("lrwxrwxrwx root/root 0 2026-03-09 12:59 ./etc/a -> ../b"), "/etc/a -> ../b");
        assert_eq!(of_deb("drwxr-xr-x root/root 0 2026-03-09 12:59 ./etc/"), "");
        let of_rpm = |line| of_rpm(line).unwrap_or_default();
        assert_eq!(of_rpm("-rw-r--r--\t/etc/a.toml\t"), "/etc/a.toml");
        assert_eq!(of_rpm("lrwxrwxrwx\t/etc/a\t../b"), "/etc/a -> ../b");
        assert_eq!(of_rpm("drwxr-xr-x\t/etc\t"), "");
    }

    #[test]
    fn every_difference_is_listed() {
        let lists = |lists: &[(&str, &[&str])]| -> Lists {
            let own = |files: &[&str]| files.iter().map(|&file| file.to_owned()).collect();
            lists.iter().map(|(name, files)| ((*name).to_owned(), own(files))).collect()
        };
        let expected = lists(&[("a", &["/1", "/2"]), ("a-bin", &["/1"])]);
        assert!(differences(&expected, &expected).is_empty());
        let found = lists(&[("a", &["/1", "/3"]), ("b", &[])]);
        let listed = differences(&expected, &found);
        let all = [
            "    a: missing /2",
            "    a: unexpected /3",
            "    a-bin: the package is missing",
            "    b: the package is unexpected",
        ];
        assert_eq!(listed, all);
    }
}
