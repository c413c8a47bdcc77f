use std::path::PathBuf;
use std::process::Command;

use host::script;
use serde_json::json;

use super::*;
use crate::needs::refusal;

#[test]
fn the_command_is_shown_with_its_options() {
    let file = vec!["a.rs".into()];
    let mutants = Mutants { sample: Some(5), offset: 3, file, untried: true, unit_tests: true, jobs: 2, write: true };
    let options = "--sample 5 --offset 3 --file a.rs --untried --unit-tests --write";
    assert_eq!(mutants.command(), format!("cargo xtask mutants {options}"));
}

#[test]
fn the_part_of_a_mutant_is_that_of_its_file() {
    let files = ["mender-update-module/src/name.rs", "deb/src/name.rs", "web-file/src/deb/name.rs"];
    let parts = files.map(|file| Part::of(&format!("modules/{file}:1:2: replace f")));
    assert_eq!(parts, [Part::Library, Part::Deb, Part::Module]);
}

#[test]
fn a_name_is_no_regular_expression() {
    assert_eq!(regex_of("a.rs:1:2: f -> (b, c)"), r"^a\.rs:1:2: f \-> \(b, c\)$");
}

/// A cargo-mutants that finds two mutants, one of which no test notices. While it runs, another person commits
/// `changed`.
fn program(directory: &Path, changed: &str) -> PathBuf {
    let script = format!(
        "case \"$*\" in *--list*) printf 'modules/a/src/a.rs:%s: replace f\\n' 1 2; exit;; esac
while [ \"$1\" != --output ]; do shift; done
mkdir \"$2/mutants.out\"
printf x >> tries
(
    cd \"$2/mutants.out\"
    echo 'modules/a/src/a.rs:1: replace f' > caught.txt
    echo 'modules/a/src/a.rs:2: replace f' > missed.txt
    touch timeout.txt unviable.txt
    echo '[{{}}, {{}}]' > mutants.json
)
mkdir -p modules docs/evidence
echo x >> {changed}
git add {changed}
git -c user.name=a -c user.email=a@example.org commit --quiet --message x
exit 2
"
    );
    let [written, program] = ["script", "cargo-mutants"].map(|name| directory.join(name));
    script::write(&written, &script).unwrap();
    // Another process writes it: while another thread starts a process, a file that this one has written is busy.
    assert!(Command::new("cp").args([&written, &program]).status().unwrap().success());
    program
}

#[test]
fn outcomes_are_those_of_the_sources_at_the_beginning() {
    let unshare = Command::new(UNSHARE).args(isolation().unwrap()).arg("true").output().unwrap();
    if let Some(refusal) = refusal(&unshare) {
        return eprintln!("skipped: {refusal}");
    }
    for (changed, stages) in [("modules/a.rs", 1), ("docs/evidence/page.md", 3)] {
        let (directory, sh) = evidence::example_repository();
        let commit = evidence::commit(&sh).unwrap();
        let mutants = Mutants { write: true, ..Mutants::sample(10, 0) };
        let error = format!("{:#}", mutants.run_with(&sh, &program(directory.path(), changed)).unwrap_err());
        let expected = if stages == 1 { "was changed during the run" } else { "1 mutants are not noticed" };
        assert!(error.contains(expected), "{error}");
        assert_eq!(sh.read_file("tries").unwrap().len(), stages);
        let records = Records::open(&directory.path().join("docs/evidence/mutants.jsonl")).unwrap().all().unwrap();
        let record = |line: u32, outcome| json!({ "commit": commit, "mutant": format!("modules/a/src/a.rs:{line}: replace f"), "outcome": outcome });
        let all = [record(1, "caught"), record(2, "missed")];
        assert_eq!(records, all[..if stages == 1 { 1 } else { 2 }]);
    }
}
