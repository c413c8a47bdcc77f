//! Conformance, and a few faults of every kind in every sequence, as tests of cargo: `cargo xtask mutants` runs them on
//! each mutant. `cargo xtask conformance` and `cargo xtask crash` are the suites.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crash::Module;
use mender_update_module_test::conformance::{CASES, LIMIT, Payload, Subject};
use mender_update_module_test::fault_injection::{self, Scope, Tracer};

/// Faults of each kind in a sequence.
const POINTS: usize = 3;

/// Builds the executables, and returns their directory: cargo builds only those of a test's own package.
fn executables() -> &'static Path {
    static EXECUTABLES: OnceLock<PathBuf> = OnceLock::new();
    EXECUTABLES.get_or_init(|| {
        let packages =
            ["web-file", "directory", "container", "fake-engine", "mender-update-module-test"].map(|name| ["-p", name]);
        let mut cargo = Command::new(env!("CARGO"));
        let build = cargo.args(["build", "--quiet", "--locked"]).args(packages.as_flattened());
        assert!(build.current_dir(root()).status().unwrap().success(), "building the modules failed");
        env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned()
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

fn conforms(name: &str) {
    let payload = Payload::read(&root().join("modules").join(name).join("tests/payload")).unwrap();
    let subject = Subject { module: executables().join(name), payload, debian: None, limit: LIMIT };
    for case in CASES {
        case.run(&subject).unwrap_or_else(|error| panic!("{}: {error:#}", case.name));
    }
}

fn survives_faults(name: &str) {
    let payload = root().join("modules").join(name).join("tests/payload");
    let module = Module { executable: executables().join(name), plain: false, debian: None, payload };
    let tracer = Tracer::new(executables().join("mender-update-module-test"));
    let scope = Scope { sample: POINTS, ..Scope::ALL };
    for subject in crash::subjects(name, &module).unwrap() {
        for report in fault_injection::run(subject.as_ref(), &tracer, scope).unwrap() {
            assert!(report.violations.is_empty(), "{report}: {:#?}", report.violations);
        }
    }
}

macro_rules! proofs {
    ($($test:ident: $name:literal),*) => {
        $(mod $test {
            #[test]
            #[ignore = "part of cargo xtask mutants"]
            fn conforms() {
                super::conforms($name);
            }

            #[test]
            #[ignore = "part of cargo xtask mutants"]
            fn survives_faults() {
                super::survives_faults($name);
            }
        })*
    };
}

proofs!(web_file: "web-file", directory: "directory", container: "container");
