//! Text of systemd unit files.

use anyhow::{Result, ensure};

/// `words` as a command line of a unit: each in quotation marks, and nothing in it is expanded.
///
/// # Errors
/// For a word that no unit can have: one with a line break or another control character.
pub fn command_line<S: AsRef<str>>(words: &[S]) -> Result<String> {
    let quoted: Result<Vec<_>> = words.iter().map(|word| quoted(word.as_ref())).collect();
    Ok(quoted?.join(" "))
}

fn quoted(word: &str) -> Result<String> {
    ensure!(
        !word.chars().any(char::is_control),
        "{word:?} has a control character, which no systemd unit can have"
    );
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.starts_with(['@', ':', '+']) {
        return Ok(word.to_owned());
    }
    let mut text = String::from('"');
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '%' | '$' => text.extend([c, c]),
            _ => text.push(c),
        }
    }
    text.push('"');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_expanded_or_split() {
        let line = command_line(&["podman", "--env", "A=50% of \"$X\"", "", "a\\b"]).unwrap();
        assert_eq!(line, r#"podman --env "A=50%% of \"$$X\"" "" "a\\b""#);
        assert!(command_line(&["a\nExecStart=evil"]).is_err());
    }
}
