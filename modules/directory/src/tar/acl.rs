//! POSIX ACLs: converts the text of tar archives to the extended attribute of Linux.

use anyhow::{Context, Result, bail};
use mender_update_module::Accounts;

/// The version of the attribute's format, `POSIX_ACL_XATTR_VERSION` of Linux's `posix_acl_xattr.h`.
const VERSION: u32 = 2;

/// The ID of an entry without a name, `ACL_UNDEFINED_ID`.
const UNDEFINED_ID: u32 = u32::MAX;

/// One entry: tag, permissions, ID. The kernel requires the order of the tags.
type Entry = (u16, u16, u32);

/// Encodes an ACL such as `user::rw-,user:1000:r--,group::r--,mask::r--,other::r--`. Names are looked up in
/// `accounts`. A fourth field, if there is one, is the number for an unknown name.
///
/// # Errors
/// When an entry does not have this form, or names an account that the device does not have.
pub fn encode(text: &str, accounts: &Accounts) -> Result<Vec<u8>> {
    let mut entries = Vec::new();
    for line in text.split([',', '\n']) {
        // A comment about effective rights may follow a space.
        let line = line.split([' ', '\t', '#']).next().unwrap_or_default();
        if !line.is_empty() {
            entries.push(parse(line, accounts).with_context(|| format!("invalid ACL entry {line:?}"))?);
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
        bail!("its form is not TYPE:NAME:PERMISSIONS");
    };
    let permissions = bits(permissions)?;
    let id = |known: Option<u32>| {
        let number = || fields.clone().next().and_then(|number| number.parse().ok());
        let known = known.or_else(|| name.parse().ok()).or_else(number).filter(|id| *id != UNDEFINED_ID);
        known.with_context(|| {
            format!("no account {name:?} on this device: add it, or make the archive with --numeric-owner")
        })
    };
    Ok(match (kind, name) {
        ("user" | "u", "") => (0x01, permissions, UNDEFINED_ID),
        ("user" | "u", _) => (0x02, permissions, id(accounts.user(name))?),
        ("group" | "g", "") => (0x04, permissions, UNDEFINED_ID),
        ("group" | "g", _) => (0x08, permissions, id(accounts.group(name))?),
        ("mask" | "m", "") => (0x10, permissions, UNDEFINED_ID),
        ("other" | "o", "") => (0x20, permissions, UNDEFINED_ID),
        _ => bail!("unknown type"),
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
            _ => bail!("invalid permissions {permissions:?}: use a form such as rw-"),
        };
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_encoded_in_the_order_of_the_kernel() {
        let accounts = Accounts::read().unwrap();
        let text = "other::---,user::rwx,user:4242:r-x,user:root:rw-,mask::rwx\ngroup::r--\t#effective:r--";
        let bytes = encode(text, &accounts).unwrap();
        let expected: [(u16, u16, u32); 6] = [
            (0x01, 7, UNDEFINED_ID),
            (0x02, 5, 4242),
            (0x02, 6, 0),
            (0x04, 4, UNDEFINED_ID),
            (0x10, 7, UNDEFINED_ID),
            (0x20, 0, UNDEFINED_ID),
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
            assert!(encode(bad, &accounts).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn every_type_has_a_short_and_a_long_form() {
        let accounts = Accounts::read().unwrap();
        let entry = |line: &str| parse(line, &accounts).unwrap();
        for (forms, expected) in [
            (["user::r--", "u::r--"], (0x01, 4, UNDEFINED_ID)),
            (["user:7:-w-", "u:7:-w-"], (0x02, 2, 7)),
            (["group::--x", "g::--x"], (0x04, 1, UNDEFINED_ID)),
            (["group:root:rwx", "default:g:0:rwx"], (0x08, 7, 0)),
            (["mask::r-x", "m::r-x"], (0x10, 5, UNDEFINED_ID)),
            (["other::---", "o::---"], (0x20, 0, UNDEFINED_ID)),
            (["user:no-such-person:r--:8", "g:no-such-group:r--:8"], (0x02, 4, 8)),
        ] {
            let tag = |line: &str| (entry(line).1, entry(line).2);
            assert_eq!(forms.map(tag), [(expected.1, expected.2); 2], "{forms:?}");
            assert_eq!(entry(forms[0]).0, expected.0);
        }
        assert!(parse("user:4294967295:r--", &accounts).is_err(), "to the kernel, this is no account");
    }
}
