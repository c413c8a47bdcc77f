//! Names of projects and services, which become parts of paths, units and options.

use std::fmt;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// The longest name: a unit's name has two of them, and at most 255 bytes.
const LONGEST: usize = 100;

/// The name of a project or service: `a` to `z`, digits and hyphens, a letter or digit first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl TryFrom<String> for Name {
    type Error = anyhow::Error;

    fn try_from(name: String) -> Result<Self> {
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            !name.is_empty() && name.len() <= LONGEST && name.chars().all(is_allowed) && !name.starts_with('-'),
            "invalid name of a project or service: {name:?}: use a to z, 0 to 9 and hyphens, a letter or digit first, \
             at most {LONGEST} characters"
        );
        Ok(Self(name))
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_accepted() {
        for good in ["shop", "2048", "a-b-"] {
            assert!(Name::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "-rf", "..", "a/b", "Shop", "a.b", "a b", "a\n", "\u{e4}", &"a".repeat(101)] {
            assert!(Name::try_from(bad.to_owned()).is_err(), "{bad:?} was accepted");
        }
    }
}
