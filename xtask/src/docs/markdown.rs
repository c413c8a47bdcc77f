//! The parts of a page of Markdown that the tests of links need: prose, code spans, targets of links, anchors.

use std::collections::BTreeSet;

use super::fence::Fence;

/// The lines of `text` outside blocks of code. A block of code is one empty line.
pub fn prose(text: &str) -> Vec<&str> {
    let mut lines = text.lines();
    let mut prose = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(fence) = Fence::of(line) {
            lines.by_ref().find(|line| fence.is_ended_by(line));
            prose.push("");
        } else {
            prose.push(line);
        }
    }
    prose
}

/// The paragraphs of `text`, without blocks of code. A heading, an item of a list and a row of a table are paragraphs
/// of their own.
fn paragraphs(text: &str) -> Vec<String> {
    let mut paragraphs: Vec<String> = Vec::new();
    let mut ended = true;
    for line in prose(text) {
        let line = line.trim_start_matches([' ', '>']);
        let after_number = line.trim_start_matches(|letter: char| letter.is_ascii_digit());
        let is_numbered = after_number.len() < line.len() && after_number.starts_with(". ");
        ended |= is_numbered || ["#", "|", "- ", "* ", "+ "].iter().any(|start| line.starts_with(start));
        match paragraphs.last_mut().filter(|_| !ended) {
            Some(paragraph) => *paragraph = format!("{paragraph}\n{line}"),
            None => paragraphs.push(line.to_owned()),
        }
        ended = line.is_empty() || line.starts_with('#');
    }
    paragraphs
}

/// The prose and the code spans of a page.
#[derive(Default)]
pub struct Page {
    /// The prose, with "code" in place of each code span.
    text: String,
    /// The contents of the code spans.
    pub code: Vec<String>,
}

impl Page {
    pub fn of(text: &str) -> Self {
        let mut page = Self::default();
        for paragraph in paragraphs(text) {
            page.add(&paragraph);
            page.text.push('\n');
        }
        page
    }

    /// Adds a paragraph. A code span ends with as many backticks as it starts with; otherwise they are text.
    fn add(&mut self, paragraph: &str) {
        let mut rest = paragraph;
        while let Some(start) = rest.find(['`', '\\']) {
            let (before, from) = rest.split_at(start);
            self.text.push_str(before);
            let after = from.trim_start_matches('`');
            let ticks = &from[..from.len() - after.len()];
            if let Some(escaped) = from.strip_prefix('\\') {
                let length = 1 + escaped.chars().next().map_or(0, char::len_utf8);
                self.text.push_str(&from[..length]);
                rest = &from[length..];
            } else if let Some(end) = closing(after, ticks.len()) {
                self.code.push(after[..end].trim().to_owned());
                self.text.push_str("code");
                rest = &after[end + ticks.len()..];
            } else {
                self.text.push_str(ticks);
                rest = after;
            }
        }
        self.text.push_str(rest);
    }

    /// The targets of links and images: `[x](y)`, `[x][y]` with `[y]: target`, `<a href>` and `<img src>`. A label
    /// without target is in the list as `[y]`.
    pub fn links(&self) -> Vec<String> {
        let definitions: Vec<(String, &str)> = self.text.lines().filter_map(definition).collect();
        let defined: BTreeSet<&str> = definitions.iter().map(|(label, _)| label.as_str()).collect();
        let mut links: Vec<String> = definitions.iter().map(|(_, target)| (*target).to_owned()).collect();
        for rest in self.text.split("](").skip(1) {
            links.extend(rest.split_once(')').map(|(inner, _)| target(inner).to_owned()));
        }
        for (before, rest) in self.text.match_indices("][").map(|(at, _)| (&self.text[..at], &self.text[at + 2..])) {
            let second = rest.split(']').next().unwrap_or_default();
            let first = before.rsplit('[').next().unwrap_or_default();
            let label = label(if second.is_empty() { first } else { second });
            if !defined.contains(label.as_str()) {
                links.push(format!("[{label}]"));
            }
        }
        for attribute in ["href=", "src="] {
            links.extend(attributes(&self.text, attribute));
        }
        links
    }

    /// The anchors that GitHub and mdBook make of headings, and those of HTML.
    pub fn anchors(text: &str) -> BTreeSet<String> {
        let mut anchors = BTreeSet::new();
        for heading in prose(text).into_iter().filter_map(|line| line.strip_prefix('#')) {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
            // A heading that is there twice has a number.
            let numbered = (1..).map(|number| format!("{slug}-{number}"));
            let free = std::iter::once(slug.clone()).chain(numbered).find(|slug| !anchors.contains(slug));
            anchors.extend(free);
        }
        let text = Self::of(text).text;
        anchors.extend([" id=", " name="].iter().flat_map(|attribute| attributes(&text, attribute)));
        anchors
    }
}

/// The start of the first run of exactly `length` backticks in `text`.
fn closing(text: &str, length: usize) -> Option<usize> {
    let mut at = 0;
    while let Some(start) = text[at..].find('`').map(|start| at + start) {
        let run = text[start..].len() - text[start..].trim_start_matches('`').len();
        if run == length {
            return Some(start);
        }
        at = start + run;
    }
    None
}

/// A label of a link, for comparison.
fn label(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// The label and the target in `[label]: target`.
fn definition(line: &str) -> Option<(String, &str)> {
    let (name, rest) = line.strip_prefix('[')?.split_once("]: ")?;
    Some((label(name), target(rest)))
}

/// The target of a link without its title and angle brackets.
fn target(inner: &str) -> &str {
    let inner = inner.trim();
    match inner.strip_prefix('<') {
        Some(rest) => rest.split('>').next().unwrap_or(rest),
        None => inner.split_whitespace().next().unwrap_or_default(),
    }
}

/// The values of an attribute of HTML, in either kind of quotation marks.
fn attributes(text: &str, attribute: &str) -> Vec<String> {
    let values = text.split(attribute).skip(1).filter_map(|rest| {
        let quote = rest.chars().next().filter(|letter| matches!(letter, '"' | '\''))?;
        Some(rest[1..].split(quote).next()?.to_owned())
    });
    values.collect()
}

#[test]
fn links_of_every_form_are_found() {
    let links = |text: &str| Page::of(text).links();
    assert_eq!(links("[x](a.md#b) ![y](c.svg)"), ["a.md#b", "c.svg"]);
    assert_eq!(links("[x](faq.md \"title\") [y](<a b.md>)"), ["faq.md", "a b.md"]);
    assert_eq!(links("[x][Y] [y][] [x][z]\n\n[y]: a.md 'title'\n"), ["a.md", "[z]"]);
    assert_eq!(links("<a class=\"x\" href=\"a.md\">a</a> <img src='b.png'>"), ["a.md", "b.png"]);
}

#[test]
fn code_is_no_link_and_ends_with_its_paragraph() {
    let links = |text: &str| Page::of(text).links();
    assert!(links("`[x](a.md)`, ``[x`](a.md)``, `two\nlines [x](a.md)`").is_empty());
    assert!(links("```sh\n[x](a.md)\n```\n\n~~~\n```\n[x](a.md)\n~~~\n").is_empty());
    for text in
        ["a stray ` here\n\n[x](a.md) `code`", "- a `\n- [x](a.md) `", "| ` |\n| [x](a.md) ` |", "# a `\n[x](a.md)`"]
    {
        assert_eq!(links(text), ["a.md"], "{text}");
    }
    assert_eq!(links("a \\` [x](a.md) `code`"), ["a.md"]);
    assert_eq!(Page::of("a `b` ``c ` d``\n\n`e").code, ["b", "c ` d"]);
}

#[test]
fn anchors_are_those_of_headings_and_of_html() {
    let anchors = Page::anchors("# A `b` c\n## Two\n## Two\n<a id=\"own\"></a>\n```sh\n# no\n```\n");
    assert_eq!(anchors.iter().collect::<Vec<_>>(), ["a-b-c", "own", "two", "two-1"]);
}
