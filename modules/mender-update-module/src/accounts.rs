//! The device's local accounts: user and group names and their numbers.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The users and groups in `/etc/passwd` and `/etc/group`. A static executable has no other name service.
///
/// ```
/// let accounts = mender_update_module::Accounts::read()?;
/// assert_eq!(accounts.user("root"), Some(0));
/// # anyhow::Ok(())
/// ```
pub struct Accounts {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl Accounts {
    /// Reads both files.
    pub fn read() -> Result<Self> {
        Ok(Self { users: table(Path::new("/etc/passwd"))?, groups: table(Path::new("/etc/group"))? })
    }

    /// The number of the user `name`, if it exists.
    pub fn user(&self, name: &str) -> Option<u32> {
        self.users.get(name).copied()
    }

    /// The number of the group `name`, if it exists.
    pub fn group(&self, name: &str) -> Option<u32> {
        self.groups.get(name).copied()
    }
}

fn table(path: &Path) -> Result<HashMap<String, u32>> {
    // Full names may be in any encoding.
    let text = fs::read(path).with_context(|| format!("reading {} failed", path.display()))?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// The names and numbers in a table with the form of `/etc/passwd`. Of two lines with one name, the first counts.
fn parse(table: &str) -> HashMap<String, u32> {
    let mut numbers = HashMap::new();
    for line in table.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(number))) = (fields.next(), fields.nth(1).map(str::parse)) {
            numbers.entry(name.to_owned()).or_insert(number);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_whole() {
        let table = parse(
            "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\n\nbroken\nodd:x:y\nroot:x:7\n",
        );
        assert_eq!(table.get("root"), Some(&0));
        assert_eq!(table.get("www-data"), Some(&33));
        for unknown in ["www", "broken", "odd", ""] {
            assert_eq!(table.get(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn users_and_groups_have_their_own_numbers() {
        let accounts = Accounts { users: parse("a:x:7\nb:x:8\n"), groups: parse("a:x:9:\n") };
        assert_eq!((accounts.user("a"), accounts.user("b"), accounts.user("c")), (Some(7), Some(8), None));
        assert_eq!((accounts.group("a"), accounts.group("b")), (Some(9), None));
    }

    #[test]
    fn a_table_is_read_in_any_encoding() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passwd");
        let error = table(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        fs::write(&path, b"a:x:7:7:J\xf6rg:/:/bin/sh\n").unwrap();
        assert_eq!(table(&path).unwrap(), HashMap::from([("a".to_owned(), 7)]));
    }
}
