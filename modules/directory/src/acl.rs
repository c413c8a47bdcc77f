//! POSIX ACLs: from the text that tar archives have to the extended attribute that Linux has.

use anyhow::{Context, Result, bail};
use mender_update_module::Accounts;

/// The version of the attribute's form, `POSIX_ACL_XATTR_VERSION` of Linux's `posix_acl_xattr.h`.
const VERSION: u32 = 2;

/// The id of an entry that names nobody.
const NOBODY_NAMED: u32 = u32::MAX;

/// One entry: tag, permissions, id. The tags' order is the one that the kernel insists on.
type Entry = (u16, u16, u32);

/// Encodes an ACL such as `user::rw-,user:1000:r--,group::r--,mask::r--,other::r--`. Names are looked up among
/// `accounts`; a fourth field, where there is one, is the number that goes with an unknown name.
///
/// # Errors
/// When an entry does not have this form, or names somebody whom the device does not know.
pub fn encode(text: &str, accounts: &Accounts) -> Result<Vec<u8>> {
    let mut entries = Vec::new();
    for line in text.split([',', '\n']) {
        // What follows a blank is a comment about effective rights.
        let line = line.split([' ', '\t', '#']).next().unwrap_or_default();
        if !line.is_empty() {
            entries.push(parse(line, accounts).with_context(|| format!("the ACL entry {line:?}"))?);
        }
    }
    entries.sort_unstable_by_key(|&(tag, _, id)| (tag, id));
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    Ok(bytes)
}

fn parse(line: &str, accounts: &Accounts) -> Result<Entry> {
    let mut fields = line.strip_prefix("default:").unwrap_or(line).split(':');
    let (Some(kind), Some(name), Some(permissions)) = (fields.next(), fields.next(), fields.next()) else {
        bail!("it does not have the form kind:name:permissions");
    };
    let permissions = bits(permissions)?;
    let id = |known: Option<u32>| {
        let number = || fields.clone().next().and_then(|number| number.parse().ok());
        let known = known.or_else(|| name.parse().ok()).or_else(number).filter(|id| *id != NOBODY_NAMED);
        known.with_context(|| {
            format!("this device has no account {name:?}: add it, or make the archive with --numeric-owner")
        })
    };
    Ok(match (kind, name) {
        ("user" | "u", "") => (0x01, permissions, NOBODY_NAMED),
        ("user" | "u", _) => (0x02, permissions, id(accounts.user(name))?),
        ("group" | "g", "") => (0x04, permissions, NOBODY_NAMED),
        ("group" | "g", _) => (0x08, permissions, id(accounts.group(name))?),
        ("mask" | "m", "") => (0x10, permissions, NOBODY_NAMED),
        ("other" | "o", "") => (0x20, permissions, NOBODY_NAMED),
        _ => bail!("its kind is unknown"),
    })
}

fn bits(permissions: &str) -> Result<u16> {
    let mut bits = 0;
    for letter in permissions.chars() {
        bits |= match letter {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            _ => bail!("{permissions:?} are no permissions such as rw-"),
        };
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_encoded_in_the_kernels_order() {
        let accounts = Accounts::read().unwrap();
        let text = "other::---,user::rwx,user:4242:r-x,user:root:rw-,mask::rwx\ngroup::r--\t#effective:r--";
        let bytes = encode(text, &accounts).unwrap();
        let expected: [(u16, u16, u32); 6] = [
            (0x01, 7, NOBODY_NAMED),
            (0x02, 5, 4242),
            (0x02, 6, 0),
            (0x04, 4, NOBODY_NAMED),
            (0x10, 7, NOBODY_NAMED),
            (0x20, 0, NOBODY_NAMED),
        ];
        let mut entries: Vec<_> = bytes[4..]
            .chunks(8)
            .map(|entry| {
                (
                    u16::from_le_bytes([entry[0], entry[1]]),
                    u16::from_le_bytes([entry[2], entry[3]]),
                    u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]),
                )
            })
            .collect();
        assert!(entries.is_sorted_by_key(|entry| (entry.0, entry.2)), "{entries:?}");
        entries.sort_unstable();
        assert_eq!(entries, expected);
        assert_eq!(bytes[..4], [2, 0, 0, 0]);
        for bad in ["user", "user::rwz", "king::rwx", "user:no-such-person:rwx", "other:root:r--"] {
            assert!(encode(bad, &accounts).is_err(), "{bad} was taken");
        }
    }
}
