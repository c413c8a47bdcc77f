//! Every message in the reference of error messages is in the code.

use std::fs;
use std::path::Path;

/// Parts of messages that come from libraries.
const OF_LIBRARIES: &[&str] = &["unknown field ", "exit status"];

/// Words on the page that the code inserts, with the text of the page and that of the code. A number is a value anyway.
const VALUES: &[(&str, &str)] = &[
    ("longer than the announced", "… than the announced"),
    ("shorter than …", "… than the announced"),
    ("…/stream-next", "… stream-next"),
    ("none of the commands under", "… under"),
    ("stop failed: …, in the table", "… failed: …, in the table"),
    ("starting \"…\" failed", "starting … failed"),
    ("stopping units failed", "stopping units… failed"),
    ("starting units failed", "starting units… failed"),
    ("systemctl start failed", "systemctl … failed"),
];

/// Shorter parts of messages are not compared: they are in many texts.
const SHORTEST: usize = 8;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The messages on the page: the code spans in the first column of its tables.
fn messages(page: &str) -> Vec<&str> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

/// The texts of the string literals in Rust code, without comments and without the tests at the end of the file.
fn literals(code: &str) -> Vec<String> {
    let code = code.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let mut literals = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(['"', '\'', '/', 'r']) {
        let is_name = rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') && !rest[..at].ends_with('b');
        let found = &rest[at..];
        let hashes = found[1..].len() - found[1..].trim_start_matches('#').len();
        rest = if found.starts_with("//") {
            found.split_once('\n').map_or("", |(_, rest)| rest)
        } else if let Some(comment) = found.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, rest)| rest)
        } else if let Some(text) = found.strip_prefix('"') {
            let (literal, rest) = escaped(text);
            literals.push(literal);
            rest
        } else if found.starts_with('r') && !is_name && found[1 + hashes..].starts_with('"') {
            let (literal, rest) = found[2 + hashes..].split_once(&format!("\"{}", "#".repeat(hashes))).unwrap();
            literals.push(literal.to_owned());
            rest
        } else if let Some(escape) = found.strip_prefix("'\\") {
            // A letter, which can be a quotation mark.
            let length = escape.chars().next().map_or(0, char::len_utf8);
            escape[length..].split_once('\'').map_or("", |(_, rest)| rest)
        } else if found.starts_with('\'') && found.chars().nth(2) == Some('\'') {
            let length: usize = found.chars().take(3).map(char::len_utf8).sum();
            &found[length..]
        } else {
            &found[1..]
        };
    }
    literals
}

/// A string literal up to its quotation mark, and the code after it. The end of a line with `\` continues in the next.
fn escaped(code: &str) -> (String, &str) {
    let mut text = String::new();
    let mut rest = code;
    while let Some(at) = rest.find(['"', '\\']) {
        text.push_str(&rest[..at]);
        let Some(escape) = rest[at..].strip_prefix('\\') else { return (text, &rest[at + 1..]) };
        let letter = escape.chars().next().unwrap_or_default();
        rest = &escape[letter.len_utf8()..];
        match letter {
            '\n' => rest = rest.trim_start(),
            'n' => text.push('\n'),
            'x' => (text, rest) = (text + " ", &rest[2..]),
            letter => text.push(letter),
        }
    }
    (text, "")
}

/// The parts of a literal between its placeholders.
fn without_placeholders(literal: &str) -> Vec<String> {
    let literal = literal.replace("{{", "\u{1}").replace("}}", "\u{2}");
    let parts = literal.split('{').enumerate().map(|(number, part)| match part.split_once('}') {
        Some((_, text)) if number > 0 => text,
        _ => part,
    });
    parts.map(|part| part.replace('\u{1}', "{").replace('\u{2}', "}")).collect()
}

/// The parts of `message` that are in no part of a literal. A message is a chain of texts with `: ` between them.
fn missing(message: &str, texts: &[String]) -> Vec<String> {
    let message = VALUES.iter().fold(message.to_owned(), |message, (page, code)| message.replace(page, code));
    let is_known = |part: &str| part.trim().len() < SHORTEST || texts.iter().any(|text| text.contains(part.trim()));
    let parts = message.split('…').filter(|part| !is_known(part));
    let parts = parts.flat_map(|part| part.split(": ")).filter(|part| !is_known(part));
    let parts = parts.flat_map(|part| part.split(|letter: char| letter.is_ascii_digit()));
    parts.filter(|part| !is_known(part) && !OF_LIBRARIES.contains(part)).map(str::to_owned).collect()
}

#[test]
fn every_message_of_the_reference_is_in_the_code() {
    let mut texts = Vec::new();
    for file in host::directory::files(&root().join("modules")).unwrap() {
        let is_code = file.extension().is_some_and(|end| end == "rs");
        if is_code && !file.components().any(|part| part.as_os_str() == "tests") {
            let code = fs::read_to_string(&file).unwrap();
            texts.extend(literals(&code).iter().flat_map(|literal| without_placeholders(literal)));
        }
    }
    let page = fs::read_to_string(root().join("docs/reference/errors.md")).unwrap();
    let messages = messages(&page);
    assert!(messages.len() > 200, "the page has only {} messages", messages.len());
    let findings: Vec<String> = messages
        .into_iter()
        .map(|message| (message, missing(message, &texts)))
        .filter(|(_, missing)| !missing.is_empty())
        .map(|(message, missing)| format!("`{message}`: not in the code: {missing:?}"))
        .collect();
    assert!(findings.is_empty(), "{} messages:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn literals_of_every_form_are_found() {
    let code = r##"
        let a = "one \"two\"\n"; // "comment"
        let b: &'static str = r#"raw "x""#; /* "comment" */
        let c = ['"', '\'', '\\']; let d = "joined \
            text"; let e = br"bytes";
"##;
    assert_eq!(literals(code), ["one \"two\"\n", "raw \"x\"", "joined text", "bytes"]);
    assert_eq!(literals("let a = \"b\";\n#[cfg(test)]\nmod tests { \"c\" }"), ["b"]);
}

#[test]
fn messages_are_compared_without_their_values() {
    let texts = without_placeholders("reading {} failed{why:?}: {{x}} is damaged");
    assert_eq!(texts, ["reading ", " failed", ": {x} is damaged"]);
    assert!(missing("reading … failed: it … {x} is damaged", &texts).is_empty());
    assert_eq!(missing("cannot read …: {x} is damaged", &texts), ["cannot read "]);
}
