//! Documentation and code have the same settings and the same meta-data.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const MODULES: [&str; 4] = ["web-file", "directory", "deb", "container"];

/// Keys of every module, which have a page of their own.
const COMMON: [&str; 3] = ["datastore", "units", "health"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("reading {path} failed: {error}"))
}

/// The section with this heading, up to the next heading of the same level.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    let level = heading.split(' ').next().unwrap_or_default();
    rest.split(&format!("\n{level} ")).next().unwrap_or(rest)
}

/// The keys in the first column of the tables of `text`.
fn keys_in_tables(text: &str) -> BTreeSet<String> {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let codes = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    // Values are in quotation marks, keys are not.
    codes.filter(|code| !code.starts_with('"')).map(str::to_owned).collect()
}

/// The keys in the packaged settings, which a test of each module compares with the code.
fn settings(module: &str) -> BTreeSet<String> {
    let text = read(&format!("debian/{module}/{module}.toml"));
    let keys = text.lines().take_while(|line| !line.starts_with("#[")).filter_map(|line| line.strip_prefix('#'));
    let keys = keys.filter_map(|line| Some(line.split_once(" = ")?.0.to_owned()));
    keys.filter(|key| key.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !COMMON.contains(&key.as_str()))
        .collect()
}

/// The keys of the meta-data: the fields of the struct `MetaData` in the module's code.
fn meta_data(module: &str) -> BTreeSet<String> {
    let mut files: Vec<PathBuf> = host::directory::files(&root().join("modules").join(module).join("src")).unwrap();
    files.retain(|path| path.extension().is_some_and(|end| end == "rs"));
    let code: String = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    fields("MetaData", &code)
}

/// The fields of `pub struct NAME` in `code`, without private ones, which start with `_`, and with those of flattened
/// structs.
fn fields(name: &str, code: &str) -> BTreeSet<String> {
    let Some((_, rest)) = code.split_once(&format!("pub struct {name} {{")) else { return BTreeSet::new() };
    let mut keys = BTreeSet::new();
    let mut flattened = false;
    for line in rest.split("\n}").next().unwrap_or_default().lines().map(str::trim) {
        flattened |= line.starts_with("#[serde(flatten");
        let field = line.trim_start_matches("pub ").trim_end_matches(',').split_once(": ");
        let Some((key, kind)) = field.filter(|_| !line.starts_with(['/', '#'])) else { continue };
        if std::mem::take(&mut flattened) {
            keys.extend(fields(kind, code));
        } else if !key.starts_with('_') && !COMMON.contains(&key) {
            keys.insert(key.to_owned());
        }
    }
    keys
}

#[test]
fn every_settings_key_is_documented_and_no_other() {
    let reference = read("docs/reference/settings.md");
    for module in MODULES {
        let keys = settings(module);
        assert!(!keys.is_empty(), "debian/{module}/{module}.toml has no key");
        let readme = read(&format!("modules/{module}/README.md"));
        assert_eq!(keys_in_tables(section(&readme, "## Settings")), keys, "modules/{module}/README.md");
        assert_eq!(keys_in_tables(section(&reference, &format!("## {module}"))), keys, "docs/reference/settings.md");
    }
}

#[test]
fn every_meta_data_key_is_documented_and_no_other() {
    let reference = read("docs/reference/meta-data.md");
    for module in MODULES {
        let keys = meta_data(module);
        let readme = read(&format!("modules/{module}/README.md"));
        assert_eq!(keys_in_tables(section(&readme, "## Meta-data")), keys, "modules/{module}/README.md");
        assert_eq!(keys_in_tables(section(&reference, &format!("## {module}"))), keys, "docs/reference/meta-data.md");
    }
}
