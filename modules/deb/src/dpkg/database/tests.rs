use super::*;
use crate::test_device::{error, installed, on_device, write, write_list, write_status};

#[test]
fn a_status_file_is_parsed_and_written_again() {
    let text = b"Package: a\nArchitecture: all\nDescription: x\n .\n \xe9\n\nPackage: b\nArchitecture: amd64\n\n";
    let stanzas = Stanza::all(text);
    assert_eq!(stanzas.len(), 2);
    let mut written = Vec::new();
    stanzas.iter().for_each(|stanza| push(&mut written, stanza));
    assert_eq!(written, text);
    assert!(Stanza::all(b"\n\n\n").is_empty());
}

#[test]
fn stanzas_are_replaced_and_others_stay() {
    let wanted = "Package: wanted\nStatus: hold ok not-installed\n\n";
    let text = format!("Package: a\nArchitecture: all\nVersion: 2\n\n{wanted}Package: b\nArchitecture: all\n\n");
    let previous = Stanza("Package: a\nArchitecture: arm64\nVersion: 1".into());
    let stanzas = BTreeMap::from([(PackageKey::from_apt("a"), Some(previous)), (PackageKey::from_apt("b"), None)]);
    let expected = format!("Package: a\nArchitecture: arm64\nVersion: 1\n\n{wanted}");
    assert_eq!(with_replaced(text.as_bytes(), &stanzas, "arm64"), expected.as_bytes());
}

#[test]
fn info_files_have_the_names_that_dpkg_uses() {
    let same = Stanza("Package: libc6\nArchitecture: amd64\nMulti-Arch: same".into());
    assert_eq!(info_file(&same, "list").unwrap(), Path::new("/var/lib/dpkg/info/libc6:amd64.list"));
    let foreign = Stanza("Package: a\nArchitecture: amd64\nMulti-Arch: foreign".into());
    assert_eq!(info_file(&foreign, "prerm").unwrap(), Path::new("/var/lib/dpkg/info/a.prerm"));
}

impl Database {
    /// The database of a device of the architecture `native`, with this status file.
    pub fn of(native: &str, status: &str) -> Self {
        Self { native: native.into(), stanzas: Stanza::all(status.as_bytes()) }
    }
}

const STATUS: &str = "Package: a\nStatus: install ok installed\nArchitecture: arm64\nVersion: 1:1\n\n\
                      Package: a\nStatus: install ok unpacked\nArchitecture: armhf\nVersion: 2\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 3\n\n\
                      Package: wanted\nStatus: install ok not-installed\nArchitecture: all\n";

#[test]
fn packages_are_found_by_name_and_architecture() {
    let database = Database::of("arm64", STATUS);
    let version = |name| database.find(&PackageKey::from_apt(name)).map(|found| found.field("Version"));
    assert_eq!(version("a"), Some(Some("1:1")));
    assert_eq!(version("a:armhf"), Some(Some("2")));
    assert_eq!(version("wanted"), Some(None));
    assert_eq!(version("other"), None);
    let known = |name| database.find_known(&PackageKey::from_apt(name)).map(|found| found.state());
    assert_eq!(["a", "gone", "wanted", "other"].map(known), [Some("installed"), Some("config-files"), None, None]);
    let installed = |name| database.installed_version(&PackageKey::from_apt(name));
    assert_eq!(["a", "a:armhf", "gone", "other"].map(installed), [Some("1:1"), None, None, None]);
    let all: Vec<_> = database.all().map(|(key, found)| format!("{key} {}", found.state())).collect();
    assert_eq!(all, ["a installed", "a:armhf unpacked", "gone config-files", "wanted not-installed"]);
}

#[test]
fn installed_and_unfinished_packages_are_told_apart() {
    let database = Database::of("arm64", STATUS);
    assert_eq!(database.deb_names_of_installed(), BTreeSet::from(["a_1%3a1_arm64.deb".into()]));
    let unfinished: Vec<_> = database.unfinished().map(|found| found.dpkg_name().unwrap()).collect();
    assert_eq!(unfinished, ["a:armhf"]);
}

#[test]
fn only_top_level_symlinks_into_usr_are_followed() {
    for same in ["/srv/x", "/local/x", "/", "srv/x"] {
        assert_eq!(merged_usr(Path::new(same)), Path::new(same));
    }
    if Path::new("/bin").is_symlink() {
        assert_eq!(merged_usr(Path::new("/bin/x")), Path::new("/usr/bin/x"));
    }
}

#[test]
fn the_status_file_is_read_with_and_without_dpkg() {
    on_device(|| {
        write_status(&[&installed("a", "1")]);
        let (with, without) = (Database::read().unwrap(), Database::read_without_dpkg().unwrap());
        assert_eq!(with.installed_version(&PackageKey::from_apt("a")), Some("1"));
        assert_eq!(without.installed_version(&PackageKey::from_apt("a")), Some("1"));
        assert_eq!((with.native.is_empty(), without.native.as_str()), (false, ""));
        fs::remove_file("/var/lib/dpkg/status").unwrap();
        assert!(error(Database::read()).contains("/var/lib/dpkg/status"));
    });
}

#[test]
fn dpkg_merges_the_updates_of_an_interrupted_run() {
    on_device(|| {
        write_status(&[&installed("a", "1")]);
        assert!(!is_interrupted().unwrap());
        check_finished().unwrap();
        write("/var/lib/dpkg/updates/0001", installed("a", "2"));
        assert!(is_interrupted().unwrap());
        assert!(error(check_finished()).contains("dpkg --configure -a"));
        merge_updates().unwrap();
        assert!(!is_interrupted().unwrap());
        assert_eq!(Database::read().unwrap().installed_version(&PackageKey::from_apt("a")), Some("2"));
    });
}

#[test]
fn unpacked_control_files_are_removed() {
    on_device(|| {
        write("/var/lib/dpkg/tmp.ci/control", "x");
        remove_unpacked_control_files(0).unwrap();
        assert!(!Path::new("/var/lib/dpkg/tmp.ci").exists());
    });
}

/// The names of the info files `paths`.
fn names(paths: Vec<PathBuf>) -> Vec<String> {
    paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn info_files_are_those_of_one_package() {
    on_device(|| {
        for name in ["a.prerm", "a.list", "a.b.list", "a:armhf.list", "ab.list", "orphan.list", "orphan:arm64.list"] {
            write(format!("/var/lib/dpkg/info/{name}"), "x");
        }
        let a = Stanza("Package: a\nArchitecture: arm64".into());
        assert_eq!(names(info_files(&a).unwrap()), ["a.list", "a.prerm"]);
        let same = Stanza("Package: a\nArchitecture: armhf\nMulti-Arch: same".into());
        assert_eq!(names(info_files(&same).unwrap()), ["a:armhf.list"]);
        let database = Database::of("arm64", STATUS);
        let keys = ["a", "orphan"].map(PackageKey::from_apt);
        let orphaned = database.orphaned_info_files(keys.iter()).unwrap();
        assert_eq!(names(orphaned), ["orphan.list", "orphan:arm64.list"]);
    });
}

#[test]
fn the_files_of_a_package_are_those_of_its_list() {
    on_device(|| {
        write_list("a", &["/.", "/srv", "/srv/a b"]);
        let a = Stanza("Package: a\nArchitecture: arm64".into());
        assert_eq!(files_of(&a).unwrap(), ["/", "/srv", "/srv/a b"].map(PathBuf::from));
        let other = Stanza("Package: other\nArchitecture: arm64".into());
        assert!(files_of(&other).unwrap().is_empty());
        fs::create_dir("/var/lib/dpkg/info/other.list").unwrap();
        assert!(error(files_of(&other)).contains("other.list"));
    });
}

#[test]
fn paths_belong_to_the_packages_that_list_them() {
    on_device(|| {
        write_list("a", &["/.", "/srv", "/srv/a"]);
        write_list("gone", &["/srv"]);
        write_list("wanted", &["/srv/a"]);
        let database = Database::of("arm64", STATUS);
        let paths = ["/srv", "/srv/a", "/srv/none"];
        let owners = database.owners(paths).unwrap();
        let of = |path| owners.of(Path::new(path)).iter().map(ToString::to_string).collect::<Vec<_>>();
        // Both architectures of `a` use the list of this name.
        assert_eq!(paths.map(of), [vec!["a", "a:armhf", "gone"], vec!["a", "a:armhf"], vec![]]);
    });
}

#[test]
fn the_status_file_is_replaced_only_where_a_stanza_differs() {
    use std::os::unix::fs::MetadataExt;
    on_device(|| {
        write_status(&[&installed("a", "2"), &installed("b", "1")]);
        let status = || fs::read("/var/lib/dpkg/status").unwrap();
        let inode = || fs::metadata("/var/lib/dpkg/status").unwrap().ino();
        let key = PackageKey::from_apt("a");
        let previous = Stanza(installed("a", "1").trim_end().into());
        let stanzas = BTreeMap::from([(key, Some(previous))]);
        restore_stanzas(&stanzas, 0).unwrap();
        assert_eq!(Stanza::all(&status())[0].field("Version"), Some("1"));
        let before = inode();
        restore_stanzas(&stanzas, 0).unwrap();
        assert_eq!(inode(), before);
        write("/var/lib/dpkg/updates/0001", installed("a", "3"));
        assert!(error(restore_stanzas(&stanzas, 0)).contains("dpkg --configure -a"));
    });
}
