//! apt-get: simulates, downloads and carries out a transaction.

use std::path::Path;

use anyhow::{Context, Result, bail};
use mender_update_module::Program;
use mender_update_module::durable::Dir;

use crate::apt::{WITHOUT_SOURCES, arguments};
use crate::dpkg::conffile_policy::conffile_options;
use crate::dpkg::database::Database;
use crate::dpkg::program;
use crate::dpkg::stanza::PackageKey;
use crate::options::{Conffiles, Options};
use crate::payload::package::StagedPackage;

/// The packages that one transaction changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The packages that are installed, upgraded, downgraded or reinstalled.
    pub install: Vec<PackageKey>,
    /// The packages that are removed.
    pub remove: Vec<PackageKey>,
    /// The packages that are configured.
    pub configure: Vec<PackageKey>,
}

impl Transaction {
    /// Every package that is installed or removed.
    pub fn packages(&self) -> impl Iterator<Item = &PackageKey> {
        self.install.iter().chain(&self.remove)
    }
}

/// Finds out what apt would do to install `staged` and remove `remove`. Everything is allowed here: apt's own
/// refusal would not name the package, [`policy`](crate::checks::policy) does.
///
/// # Errors
/// When apt finds no solution: the unmet dependencies.
pub fn simulate(
    staged: &[StagedPackage],
    remove: &[PackageKey],
    options: &Options,
    database: &Database,
) -> Result<Transaction> {
    if staged.is_empty() && remove.is_empty() {
        return Ok(Transaction::default());
    }
    let mut apt = apt_get(staged, remove, options, database).args([
        "--simulate",
        "--allow-downgrades",
        "--allow-change-held-packages",
        "--allow-remove-essential",
    ]);
    let (status, output) = apt.answer()?;
    let output = String::from_utf8_lossy(&output);
    if !status.success() {
        let reasons = unmet_dependencies(&output).unwrap_or("see the lines of apt-get above");
        bail!("update refused: apt cannot install the artifact's packages: {reasons}");
    }
    parse(&output).with_context(|| format!("invalid output of apt-get --simulate: {output}"))
}

/// Installs `staged` and removes `remove`. The deployment log gets apt's output.
pub fn install(staged: &[StagedPackage], remove: &[PackageKey], options: &Options, database: &Database) -> Result<()> {
    if staged.is_empty() && remove.is_empty() {
        return Ok(());
    }
    let downgrade = options.allow_downgrade.then_some("--allow-downgrades");
    apt_get(staged, remove, options, database).args(downgrade).run()
}

/// Downloads the packages that the installation of `staged` needs into `directory`, which has the directory `partial`,
/// and changes nothing else, while this process holds the frontend lock. Leaves the reserve of `options` free.
pub fn download(
    staged: &[StagedPackage],
    remove: &[PackageKey],
    options: &Options,
    database: &Database,
    directory: &Path,
) -> Result<()> {
    let downgrade = options.allow_downgrade.then_some("--allow-downgrades");
    let apt = || {
        apt_get(staged, remove, options, database)
            .arg("-o")
            .arg(format!("Dir::Cache::Archives={}", directory.display()))
            // Otherwise apt takes the frontend lock itself, although it only downloads.
            .args(["-o", "Debug::NoLocking=true"])
            .args(downgrade)
    };
    let listed = apt().arg("--print-uris").output()?;
    let size = size_of_downloads(&String::from_utf8_lossy(&listed));
    Dir::open(directory)?.check_space(size, options.reserve).context("downloading packages failed")?;
    apt().arg("--download-only").run()
}

/// The size in bytes of the files that apt would download: its lines `'URI' NAME SIZE HASH`.
fn size_of_downloads(output: &str) -> u64 {
    let lines = output.lines().filter_map(|line| line.strip_prefix('\'')?.split_once("' "));
    let sizes = lines.filter_map(|(_, rest)| rest.split(' ').nth(1)?.parse::<u64>().ok());
    sizes.fold(0, u64::saturating_add)
}

fn apt_get(staged: &[StagedPackage], remove: &[PackageKey], options: &Options, database: &Database) -> Program {
    let always = [
        "Dpkg::Use-Pty=0".to_owned(),
        "APT::Sandbox::User=root".to_owned(), // apt's own user cannot read the staging directory
        // apt takes a larger number for a negative one, and waits without a limit.
        format!("DPkg::Lock::Timeout={}", options.lock_seconds.min(i32::MAX as u64)),
    ];
    let force = conffile_options(options.conffiles).iter().map(|option| format!("Dpkg::Options::={option}"));
    // Without --fix-broken, apt refuses to do anything while a package has unmet dependencies, even if the
    // payload has them.
    let repairs = database.unfinished().next().map(|_| "--fix-broken");
    program::change("apt-get")
        .args(repairs)
        .env(ucf_variable(options.conffiles), "1")
        .args(["--quiet", "--yes", "--reinstall", "--no-install-recommends"])
        .args(arguments(always.into_iter().chain(force)))
        .args(arguments(sources(options)))
        .arg("install")
        .args(staged.iter().map(|package| package.path.as_path()))
        .args(remove.iter().map(|key| format!("{key}-")))
}

/// apt's options about its sources: without network, it ignores them.
fn sources(options: &Options) -> impl Iterator<Item = &'static str> {
    WITHOUT_SOURCES.into_iter().filter(|_| !options.network)
}

/// Checks that apt can read all that the next update needs: its configuration, its preferences, and with network its
/// sources.
pub fn check_configuration(options: &Options) -> Result<()> {
    // This reads them, and does nothing else that could fail.
    let read = program::query("apt-mark").args(arguments(sources(options))).arg("showauto").output();
    read.map(drop).context("checking apt's configuration after the install failed")
}

/// The environment variable that makes ucf follow `policy` for changed configuration files.
fn ucf_variable(policy: Conffiles) -> &'static str {
    if policy == Conffiles::Replace { "UCF_FORCE_CONFFNEW" } else { "UCF_FORCE_CONFFOLD" }
}

/// The lines `Inst NAME …`, `Remv NAME …`, `Purg NAME …` and `Conf NAME …`.
fn parse(output: &str) -> Result<Transaction> {
    let mut transaction = Transaction::default();
    for line in output.lines() {
        let Some((word, rest)) = line.split_once(' ') else { continue };
        let list = match word {
            "Inst" => &mut transaction.install,
            "Remv" | "Purg" => &mut transaction.remove,
            "Conf" => &mut transaction.configure,
            _ => continue,
        };
        let name = rest.split(' ').next().filter(|name| !name.is_empty());
        list.push(PackageKey::from_apt(name.with_context(|| format!("{line:?}: no package name"))?));
    }
    Ok(transaction)
}

/// apt's lines about unmet dependencies: ` package : Depends: other (>= 1) but it is not installable`.
fn unmet_dependencies(output: &str) -> Option<&str> {
    let (_, reasons) = output.split_once("unmet dependencies:\n")?;
    Some(reasons.trim_end())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use mender_update_module_test::debian::Package;

    use super::*;
    use crate::test_device::{self, build, error, make_source, names, on_device, options, staged, write};

    #[test]
    fn lines_about_packages_are_parsed_and_others_ignored() {
        let output = "Reading package lists...\nThe following packages will be REMOVED:\n  a\n\
                    0 upgraded, 1 newly installed, 1 to remove and 0 not upgraded.\n\
                    Remv a [1.0] [x:armhf ]\nPurg gone [1]\nInst c (1.0 local-deb [all])\n\
                    Inst d:armhf [1.0] (2.0~rc1+x local-deb [armhf])\nConf c (1.0 local-deb [all])\n";
        let transaction = parse(output).unwrap();
        let names = |keys: &[PackageKey]| keys.iter().map(PackageKey::to_string).collect::<Vec<_>>();
        assert_eq!(names(&transaction.install), ["c", "d:armhf"]);
        assert_eq!(names(&transaction.remove), ["a", "gone"]);
        assert_eq!(names(&transaction.configure), ["c"]);
        assert_eq!(transaction.packages().count(), 4);
    }

    #[test]
    fn the_sizes_of_downloads_are_added() {
        let output = "Reading package lists...\n'http://h/it's/a_1.deb' a_1_all.deb 1000 SHA256:00\n\
                    'copy:/srv/./b.deb' b_1_all.deb 24 SHA256:11\n'file:/c' c.deb no-number\n";
        assert_eq!(size_of_downloads(output), 1024);
    }

    #[test]
    fn unmet_dependencies_are_found() {
        let output = "The following packages have unmet dependencies:\n b : Depends: a (>= 2.0) but 1.0 is \
                      to be installed\n";
        assert_eq!(unmet_dependencies(output), Some(" b : Depends: a (>= 2.0) but 1.0 is to be installed"));
        assert_eq!(unmet_dependencies("other"), None);
    }

    #[test]
    fn the_options_decide_about_sources_and_configuration_files() {
        let of = |network| sources(&Options { network, ..options() }).count();
        assert_eq!([false, true].map(of), [WITHOUT_SOURCES.len(), 0]);
        let variables = [Conffiles::Keep, Conffiles::Replace, Conffiles::Default].map(ucf_variable);
        assert_eq!(variables, ["UCF_FORCE_CONFFOLD", "UCF_FORCE_CONFFNEW", "UCF_FORCE_CONFFOLD"]);
        assert_eq!(arguments(["a=1", "b=2"]).collect::<Vec<_>>(), ["-o", "a=1", "-o", "b=2"]);
    }

    #[test]
    fn a_line_without_a_package_is_an_error() {
        assert!(error(parse("Inst \n")).contains("no package name"));
    }

    #[test]
    fn apt_installs_and_removes_packages() {
        on_device(|| {
            test_device::install(&[Package::new("gone", "1"), Package::new("gone2", "1")]);
            let staged = [staged("a", "", &[])];
            build(&Package::new("a", "2"), &staged[0].path);
            let (gone, database) = ([PackageKey::from_apt("gone")], Database::read().unwrap());
            let transaction = simulate(&staged, &gone, &options(), &database).unwrap();
            assert_eq!(
                (names(&transaction.install), names(&transaction.remove)),
                (vec!["a".into()], vec!["gone".into()])
            );
            let database = || Database::read().unwrap();
            let installed = || names(database().all().map(|(key, _)| key).collect::<Vec<_>>().iter());
            assert_eq!(installed(), ["gone", "gone2"]);
            install(&staged, &gone, &options(), &database()).unwrap();
            assert_eq!(installed(), ["a", "gone2"]);
            let gone = [PackageKey::from_apt("gone2")];
            assert_eq!(names(&simulate(&[], &gone, &options(), &database()).unwrap().remove), ["gone2"]);
            install(&[], &gone, &options(), &database()).unwrap();
            assert_eq!(installed(), ["a"]);
            install(&staged, &[], &options(), &database()).unwrap();
        });
    }

    #[test]
    fn nothing_to_do_needs_no_apt_and_no_solution_is_an_error() {
        on_device(|| {
            let staged = [staged("a", "", &[])];
            build(&Package::new("a", "2").field("Depends", "libmissing (>= 3)"), &staged[0].path);
            let database = Database::read().unwrap();
            let refused = error(simulate(&staged, &[], &options(), &database));
            assert!(refused.contains("a : Depends: libmissing (>= 3)"), "{refused}");
            check_configuration(&options()).unwrap();
            write("/etc/apt/apt.conf", "a \"b");
            assert!(check_configuration(&options()).is_err());
            assert!(simulate(&staged, &[], &options(), &database).is_err());
            assert_eq!(simulate(&[], &[], &options(), &database).unwrap(), Transaction::default());
            install(&[], &[], &options(), &database).unwrap();
        });
    }

    #[test]
    fn the_packages_that_the_payload_depends_on_are_downloaded() {
        on_device(|| {
            make_source();
            let options = Options { network: true, ..options() };
            let staged = [staged("a", "", &[])];
            build(&Package::new("a", "2").field("Depends", "lib"), &staged[0].path);
            fs::create_dir_all("/var/download/partial").unwrap();
            let database = Database::read().unwrap();
            let download = |options: &Options| download(&staged, &[], options, &database, Path::new("/var/download"));
            assert!(
                error(download(&Options { reserve: u64::MAX, ..options.clone() }))
                    .contains("downloading packages failed")
            );
            download(&options).unwrap();
            assert!(Path::new("/var/download/lib_1_all.deb").exists());
        });
    }
}
