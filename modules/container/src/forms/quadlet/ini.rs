//! Unit files as systemd and podman's generator parse them: sections, keys, values, and continued lines.

/// A line with a key, or one without, such as the name of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its section.
    pub section: String,
    /// Empty for a line without a key.
    pub key: String,
    /// The value, or the whole line if it has no key.
    pub value: String,
}

impl Line {
    /// A line with a key.
    pub fn new(section: &str, key: &str, value: &str) -> Self {
        Self { section: section.to_owned(), key: key.to_owned(), value: value.to_owned() }
    }
}

/// Parses `text`. Comments are omitted, and a continued line is one line.
pub fn parse(text: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut section = String::new();
    let mut open = String::new();
    for line in text.lines() {
        let trimmed = line.trim();
        // A comment may also be between the parts of a continued line.
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

/// The text of `lines`.
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
    fn lines_are_parsed_as_systemd_parses_them() {
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
