//! Tar archives of directories, made by GNU tar: the same tree gives the same archive.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::command::Words;
use crate::progress::step;

/// The options of an archive.
#[derive(Args, Clone, Debug, Default)]
pub struct Archive {
    /// Owner of all files, with :GROUP also their group, names or numbers [default: the numbers of the files]
    #[arg(long, value_name = "USER[:GROUP]")]
    pub owner: Option<String>,
    /// Modification time of all files, such as 2026-11-27 or @0 [default: that of each file, at most SOURCE_DATE_EPOCH]
    #[arg(long, value_name = "TIME")]
    pub mtime: Option<String>,
    /// Archives extended attributes
    #[arg(long)]
    pub xattrs: bool,
    /// Archives access control lists
    #[arg(long)]
    pub acls: bool,
    /// Archives holes in files as holes. The archive is another one at each run, and Mender's module needs GNU tar
    #[arg(long)]
    pub sparse: bool,
}

impl Archive {
    /// Writes the content of `directory` to the archive `to`, sorted by name. Temporary files are in `tmp`.
    ///
    /// # Errors
    /// When tar is not GNU tar, or cannot read a file.
    pub fn write(&self, directory: &Path, to: &Path, tmp: &Path) -> Result<()> {
        let version = Words::new("tar").args(["--version"]).output(tmp)?;
        ensure!(version.contains("GNU tar"), "tar is not GNU tar: install GNU tar, and put it first in PATH");
        let tar = self.command(directory, to, std::env::var("SOURCE_DATE_EPOCH").ok());
        // A path is that of a file with the time.
        if let Some(time) = self.mtime.as_ref().filter(|time| !time.starts_with(['/', '.'])) {
            // tar itself takes a mistake for a time long ago.
            let date = Words::new("date").args(["--date", time, "+%s"]).output(tmp);
            ensure!(date.is_ok(), "option --mtime {time} refused: use a date such as 2026-11-27, or @SECONDS");
        }
        let what = format!("archiving {}", directory.display());
        step(&what, Some(to), || tar.output(tmp)).with_context(|| format!("{what} failed"))?;
        Ok(())
    }

    /// Refuses options of the archive for `path`, which is an archive already.
    ///
    /// # Errors
    /// The option, and the remedy.
    pub fn refuse(&self, path: &Path) -> Result<()> {
        let given = [
            ("--owner", self.owner.is_some()),
            ("--mtime", self.mtime.is_some()),
            ("--xattrs", self.xattrs),
            ("--acls", self.acls),
            ("--sparse", self.sparse),
        ];
        let option = given.into_iter().find(|(_, given)| *given);
        ensure!(
            option.is_none(),
            "option {} refused: {} is an archive already: give a directory, or set it when you make the archive",
            option.unwrap_or_default().0,
            path.display()
        );
        Ok(())
    }

    fn command(&self, directory: &Path, to: &Path, epoch: Option<String>) -> Words {
        let mut tar = Words::new("tar").args(["--create", "--format=posix", "--sort=name"]);
        // Without the times of the access and of the change, and the process number in names of headers.
        tar = tar.args(["--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"]);
        let (owner, group) = match self.owner.as_deref() {
            Some(owner) => {
                owner.split_once(':').map_or((Some(owner), None), |(owner, group)| (Some(owner), Some(group)))
            }
            None => (None, None),
        };
        if owner.is_none() {
            tar = tar.args(["--numeric-owner"]);
        }
        tar = tar.args(owner.map(|owner| format!("--owner={}", with_number(owner))));
        tar = tar.args(group.or(owner).map(|group| format!("--group={}", with_number(group))));
        let epoch = epoch.map(|epoch| ["--clamp-mtime".to_owned(), format!("--mtime=@{epoch}")]);
        tar = match &self.mtime {
            Some(time) => tar.args([format!("--mtime={time}")]),
            None => tar.args(epoch.into_iter().flatten()),
        };
        tar = tar.args(self.xattrs.then_some("--xattrs"));
        tar = tar.args(self.acls.then_some("--acls"));
        // GNU tar stores such a file under a name with its process number, and other programs unpack it as that name.
        tar = tar.args(self.sparse.then_some("--sparse"));
        tar = tar.args([Path::new("--file"), to, Path::new("--directory"), directory]);
        tar.args(["."])
    }
}

/// `account` for tar, which has to know a number for every name: root is 0 on every device, and any other name is
/// looked up on the device.
fn with_number(account: &str) -> String {
    match account {
        "root" => "root:0".to_owned(),
        number if number.chars().all(|c| c.is_ascii_digit()) => format!("+{number}"),
        name => format!("{name}:0"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_same_tree_gives_the_same_archive() {
        let directory = tempfile::tempdir().unwrap();
        let archive = |name: &str, order: [&str; 2]| {
            let tree = directory.path().join(name);
            fs::create_dir(&tree).unwrap();
            for file in order {
                fs::write(tree.join(file), file).unwrap();
                fs::set_permissions(tree.join(file), fs::Permissions::from_mode(0o640)).unwrap();
            }
            fs::File::create(tree.join("holes")).unwrap().set_len(1 << 20).unwrap();
            let options =
                Archive { owner: Some("root".into()), mtime: Some("@7".into()), xattrs: true, ..Archive::default() };
            let to = directory.path().join(format!("{name}.tar"));
            options.write(&tree, &to, directory.path()).unwrap();
            fs::read(to).unwrap()
        };
        assert_eq!(archive("one", ["a", "b"]), archive("other", ["b", "a"]));
    }

    #[test]
    fn owners_and_times_are_options_of_tar() {
        let shown = |options: &Archive, epoch: Option<&str>| {
            options.command(Path::new("d"), Path::new("t"), epoch.map(str::to_owned)).shown()
        };
        let plain = shown(&Archive::default(), Some("5"));
        assert!(plain.contains("--numeric-owner --clamp-mtime --mtime=@5 --file t --directory d ."), "{plain}");
        let owner = Archive { owner: Some("www-data:33".into()), mtime: Some("@0".into()), ..Archive::default() };
        let shown = shown(&owner, Some("5"));
        assert!(shown.contains("--owner=www-data:0 --group=+33 --mtime=@0 --file"), "{shown}");
    }
}
