//! Names of payload files that mender-artifact accepts.

/// Whether mender-artifact accepts `name`: it refuses names outside of `^[\w\-.,]+$`.
pub fn is_accepted(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_accepted_char)
}

/// `name` with a hyphen instead of every character that mender-artifact refuses.
pub fn mapped(name: &str) -> String {
    name.chars().map(|c| if is_accepted_char(c) { c } else { '-' }).collect()
}

fn is_accepted_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-.,".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_characters_are_replaced() {
        assert!(is_accepted("app_1.0-1_arm64.deb") && !is_accepted("app_1+b1~rc1.deb") && !is_accepted(""));
        assert_eq!(mapped("app_1+b1~rc1.deb"), "app_1-b1-rc1.deb");
        assert_eq!(mapped("\u{e4} b"), "--b");
    }
}
