//! Documentation and code have the same settings and the same meta-data.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

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

/// The keys in the packaged settings with their defaults, which a test of each module compares with the code.
fn settings(module: &str) -> BTreeMap<String, String> {
    let text = read(&format!("debian/{module}/{module}.toml"));
    let keys = text.lines().take_while(|line| !line.starts_with("#[")).filter_map(|line| line.strip_prefix('#'));
    let keys = keys.filter_map(|line| line.split_once(" = "));
    keys.filter(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !COMMON.contains(key))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The differences between `defaults` and the column "default" of the tables in `text`.
fn wrong_defaults(text: &str, defaults: &BTreeMap<String, String>) -> Vec<String> {
    let mut findings = Vec::new();
    let mut column = None;
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells.get(1) == Some(&"key") {
            column = cells.iter().position(|cell| *cell == "default");
        }
        let Some(cell) = column.and_then(|column| cells.get(column)).filter(|_| line.starts_with("| `")) else {
            continue;
        };
        for key in keys_in_tables(line) {
            let default = defaults.get(&key).map_or("no default", String::as_str);
            if !shows(cell, default) {
                findings.push(format!("{key}: {cell} on the page, {default} in the packaged settings"));
            }
        }
    }
    findings
}

/// Whether a cell shows the value `default`: as its last code span, after what takes precedence over it; or as its
/// first word, if a condition follows.
fn shows(cell: &str, default: &str) -> bool {
    let value = default.trim_matches('"');
    match cell.split('`').skip(1).step_by(2).last() {
        Some(code) => code == default || (cell != format!("`{code}`") && code == value),
        None => cell.split([' ', ',']).next() == Some(value),
    }
}

/// The keys of the meta-data: the fields of the struct `MetaData` in the module's code.
fn meta_data(module: &str) -> BTreeSet<String> {
    fields("MetaData", &code(module))
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
        let defaults = settings(module);
        let keys: BTreeSet<String> = defaults.keys().cloned().collect();
        assert!(!keys.is_empty(), "debian/{module}/{module}.toml has no key");
        let readme = read(&format!("modules/{module}/README.md"));
        let pages = [
            (format!("modules/{module}/README.md"), section(&readme, "## Settings")),
            ("docs/reference/settings.md".to_owned(), section(&reference, &format!("## {module}"))),
        ];
        for (page, text) in pages {
            assert_eq!(keys_in_tables(text), keys, "{page}");
            assert_eq!(wrong_defaults(text, &defaults), Vec::<String>::new(), "{page}, {module}");
        }
    }
}

#[test]
fn defaults_are_compared() {
    let table = "| key | type | default | meaning |\n|---|---|---|---|\n| `a`, `b` | path | `\"/x\"` | `c` |\n";
    let defaults = |b: &str| [("a", "\"/x\""), ("b", b)].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    assert!(wrong_defaults(table, &defaults("\"/x\"")).is_empty());
    assert_eq!(wrong_defaults(table, &defaults("4")).len(), 1);
    assert!(shows("the artifact's, else `false`", "false") && shows("its own, usually `/tmp`", "\"/tmp\""));
    assert!(shows("podman, else docker", "\"podman\"") && !shows("podman, else docker", "\"docker\""));
    assert!(!shows("`4`", "16") && !shows("`4`", "\"4\""));
}

/// The code of a module, or of the library.
fn code(module: &str) -> String {
    let files = host::directory::files(&root().join("modules").join(module).join("src")).unwrap();
    let files = files.iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    files.map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn the_files_on_the_device_are_those_of_the_code() {
    let page = read("docs/reference/files.md");
    let update = section(&page, "## Of an update");
    let library = code("mender-update-module");
    let of_all = update.split("\n### ").next().unwrap_or_default();
    let mut records = BTreeSet::new();
    let sections = MODULES.map(|module| (module, section(update, &format!("### {module}"))));
    for (module, text) in [("mender-update-module", of_all)].into_iter().chain(sections) {
        let code = code(module);
        for path in keys_in_tables(text).iter().filter_map(|path| path.strip_prefix('…')) {
            for name in path.split('/').filter(|name| !name.is_empty() && name.chars().any(char::is_lowercase)) {
                // The code has the start of a name with a number.
                let name = name.split_once("-N.").map_or(name, |(start, _)| start);
                let constant = format!("\"{name}\"");
                assert!(code.contains(&constant) || library.contains(&constant), "files.md, {module}: {name}");
                records.insert(name.to_owned());
            }
        }
    }
    // What the library writes beside the journal.
    let names = library.split('"').filter(|text| text.strip_suffix(".json").is_some_and(|stem| !stem.is_empty()));
    for name in names.filter(|name| name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '.')) {
        assert!(records.contains(name), "docs/reference/files.md does not have {name}");
    }
    assert!(page.contains("`.mender-new`") && library.contains("\".mender-new\""), "the end of interrupted writes");
}

/// The exit codes of modules are those of `ExitCode::SUCCESS` and `FAILURE` and, of `--under-way`, 2; the code has no
/// other.
#[test]
fn the_exit_codes_are_those_of_the_code() {
    let page = read("docs/reference/files.md");
    let mut codes = BTreeSet::new();
    let mut program = "";
    for row in section(&page, "## Exit codes").lines().filter(|line| line.starts_with('|')).skip(2) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        program = if cells[1].is_empty() { program } else { cells[1] };
        if program.starts_with("module") || program.starts_with("`NAME ") {
            codes.extend(cells[2].split(", ").map(str::to_owned));
        }
    }
    assert_eq!(codes.iter().collect::<Vec<_>>(), ["0", "1", "2"], "docs/reference/files.md");
    let library = code("mender-update-module").replacen("ExitCode::from(2)", "", 1);
    assert!(library.contains("ExitCode::SUCCESS") && library.contains("ExitCode::FAILURE"));
    for module in MODULES.into_iter().chain(["mender-update-module"]) {
        for other in ["ExitCode::from(", "process::exit("] {
            let text = if module == "mender-update-module" { library.clone() } else { code(module) };
            assert!(!text.contains(other), "modules/{module} has {other}: describe the code in files.md");
        }
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
