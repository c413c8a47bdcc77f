//! The device's local accounts: names of owners and groups to numbers.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Users and groups as `/etc/passwd` and `/etc/group` name them. A static executable has no other name service, and
/// what an update installs belongs to local accounts.
pub struct Accounts {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl Accounts {
    /// Reads both tables.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read() -> Result<Self> {
        Ok(Self { users: table(Path::new("/etc/passwd"))?, groups: table(Path::new("/etc/group"))? })
    }

    /// The number of the user `name`, `None` where the device has no such user.
    pub fn user(&self, name: &str) -> Option<u32> {
        self.users.get(name).copied()
    }

    /// The number of the group `name`, `None` where the device has no such group.
    pub fn group(&self, name: &str) -> Option<u32> {
        self.groups.get(name).copied()
    }
}

fn table(path: &Path) -> Result<HashMap<String, u32>> {
    // A field of somebody's full name may be in any encoding.
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// Names and numbers of a table of the form of `/etc/passwd`; the first of two lines with one name counts.
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
}
