//! Unit files as systemd and podman's generator read them: sections, keys, values, and lines that go on.

/// A line with a key, or one without, such as a section's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The section that it is in.
    pub section: String,
    /// Empty where it has none.
    pub key: String,
    /// The value; or the whole line.
    pub value: String,
}

impl Line {
    /// A key of `section` with its value.
    pub fn new(section: &str, key: &str, value: &str) -> Self {
        Self { section: section.to_owned(), key: key.to_owned(), value: value.to_owned() }
    }
}

/// Takes `text` apart. Comments are left out, and a line that goes on is one.
pub fn parse(text: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut section = String::new();
    let mut open = String::new();
    for line in text.lines() {
        let trimmed = line.trim();
        // Also between the parts of one line.
        if trimmed.is_empty() && open.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(part) = line.strip_suffix('\\') {
            open += part;
            open.push(' ');
            continue;
        }
        let whole = std::mem::take(&mut open) + line;
        let whole = whole.trim();
        if let Some(name) = whole.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
            lines.push(Line::new(&section, "", whole));
        } else if let Some((key, value)) = whole.split_once('=') {
            lines.push(Line::new(&section, key.trim(), value.trim()));
        } else if !whole.is_empty() {
            lines.push(Line::new(&section, "", whole));
        }
    }
    lines
}

/// The text that has `lines`.
pub fn text(lines: &[Line]) -> String {
    let line = |Line { key, value, .. }: &Line| {
        if key.is_empty() { format!("{value}\n") } else { format!("{key}={value}\n") }
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_systemd_reads_them() {
        let lines = parse(
            "# Image=x\n[Container]\nImage = a:1\nExec=one \\\n# a comment\n  two=2\n\n; ServiceName=x\nLabel=a=b\n",
        );
        let expected = [
            Line::new("Container", "", "[Container]"),
            Line::new("Container", "Image", "a:1"),
            Line::new("Container", "Exec", "one    two=2"),
            Line::new("Container", "Label", "a=b"),
        ];
        assert_eq!(lines, expected);
        assert_eq!(parse(&text(&lines)), lines);
    }
}
