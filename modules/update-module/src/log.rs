//! The deployment log: what a module writes to stderr is what the Mender server shows for the deployment.

use std::fmt::Display;
use std::io::{self, Write};

/// The longest line that is written whole: Linux keeps writes of up to `PIPE_BUF` bytes to a pipe together.
pub(crate) const LINE_MAX: usize = 4096;

/// Writes one line to the deployment log, in one write: client 5 shows the parts of a line that came in several writes
/// as messages of their own. Control characters are escaped, so that no name can forge a line. A log that nobody reads
/// any more is no reason to fail.
pub fn say(line: impl Display) {
    write_line(escaped(&line.to_string()).as_bytes());
}

/// Writes `line`, without its newline, in one write; what is longer than [`LINE_MAX`] in several lines.
pub(crate) fn write_line(line: &[u8]) {
    let mut rest = line;
    loop {
        let (part, after) = rest.split_at(rest.len().min(LINE_MAX - 1));
        // Standard error has no buffer: one call is one write.
        let _ = io::stderr().write_all(&[part, b"\n"].concat());
        rest = after;
        if rest.is_empty() {
            return;
        }
    }
}

/// `text` without control characters other than tabs and newlines.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !matches!(character, '\t' | '\n') {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escaped("a\tb\nc \u{e4}"), "a\tb\nc \u{e4}");
        assert_eq!(escaped("a\rb\u{1b}[2Jc\0"), "a\\rb\\u{1b}[2Jc\\u{0}");
    }
}
