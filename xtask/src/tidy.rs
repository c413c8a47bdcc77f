//! That what the documentation names is there.

use std::fs;
use std::path::{Path, PathBuf};

/// The work tree.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_test_in_the_table_of_threats_exists() {
    let table = fs::read_to_string(root().join("docs/threats.md")).unwrap();
    let mut files = Vec::new();
    rust_files(&root().join("modules"), &mut files);
    let code: String = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let rows = table.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let tests: Vec<&str> =
        rows.flat_map(|row| row.split('`').skip(1).step_by(2)).filter(|name| name.contains('_')).collect();
    assert!(tests.len() > 20, "the table has only {} tests", tests.len());
    for test in tests {
        assert!(
            code.contains(&format!("fn {test}()")),
            "docs/threats.md names the test {test}, which does not exist"
        );
    }
}
