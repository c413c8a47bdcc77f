//! Text of systemd unit files.

use anyhow::{Result, ensure};

/// A command line for a unit: systemd neither splits nor expands anything in `words`.
///
/// # Errors
/// For a word with a control character, which no unit can have.
pub fn command_line<S: AsRef<str>>(words: &[S]) -> Result<String> {
    let quoted: Result<Vec<_>> = words.iter().map(|word| quote(word.as_ref())).collect();
    Ok(quoted?.join(" "))
}

fn quote(word: &str) -> Result<String> {
    ensure!(
        !word.chars().any(char::is_control),
        "invalid word for a systemd unit: {word:?}: remove the control character"
    );
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) && !word.starts_with(['@', ':', '+']) {
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
