//! Names of payload files that mender-artifact accepts.

/// Whether mender-artifact accepts `name`: it refuses names outside of `^[\w\-.,]+$`.
pub fn is_accepted(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_accepted_char)
}

/// `name` with a hyphen instead of every character that mender-artifact refuses.
pub fn mapped(name: &str) -> String {
    name.chars().map(|c| if is_accepted_char(c) { c } else { '-' }).collect()
}

/// `name`, or if it `is_taken`, `name` with a number before its ending.
pub fn distinct(name: String, is_taken: impl Fn(&str) -> bool) -> String {
    let (stem, ending) = name.split_at(name.rfind('.').unwrap_or(name.len()));
    let numbered = (2..).map(|number| format!("{stem}-{number}{ending}"));
    let found = std::iter::once(name.clone()).chain(numbered).find(|name| !is_taken(name));
    found.unwrap_or(name)
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

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        let taken = ["app.tar", "app-2.tar", "app"];
        let name = |name: &str| distinct(name.to_owned(), |other| taken.contains(&other));
        assert_eq!([name("new.tar"), name("app.tar"), name("app")], ["new.tar", "app-3.tar", "app-2"]);
    }
}
