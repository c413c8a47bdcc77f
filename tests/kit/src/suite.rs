//! The suite of one module, as a test executable of its own.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::fs::{Access, access};

use crate::conformance::{self, CASES, Payload, Verdict};
use crate::fault_injection::{self, Report, Scope, Tracer};

/// The first argument that makes the executable the tracer of fault injection. It needs a process of its own.
pub(crate) const TRACER: &str = "--mender-update-module-tracer";

/// The number of crash points, of failing calls and of pairs in a sequence, unless [`Suite::sample`] says otherwise.
pub(crate) const SAMPLE: usize = 50;

/// Conformance and fault injection for one module.
///
/// The payload directory says what the module installs. Every part may be missing, and other names are refused:
///
/// | part | content |
/// |---|---|
/// | `settings.toml` | the settings of the device |
/// | `meta-data.json` | the artifact's meta-data |
/// | `files/` | the artifact's files; a directory `NAME.tar` becomes an archive of its content, `NAME.deb` a package |
/// | `previous/` | the previous version on the device, with paths relative to the device |
/// | `new/` | the device after the update: names, types and contents have to be exactly these |
/// | `installed/` | packages on a Debian system before the update, in the same forms as in `files/` |
///
/// In settings, meta-data and text files of the artifact, `@DEVICE@` becomes the path of the device, and `@UID@` and
/// `@GID@` become the user and group that run the suite. In settings, `@BESIDE@` becomes the directory of the
/// executable.
///
/// A payload directory in which no part names `@DEVICE@` is refused: the update would change the machine that runs the
/// suite. Exceptions are a directory without settings, meta-data and files, and one with packages in `installed/`.
pub struct Suite {
    module: PathBuf,
    payload: PathBuf,
    sample: usize,
}

impl Suite {
    /// The suite of the executable `module` with the payload directory `payload`. Relative paths start at the current
    /// directory, which `cargo test` sets to the directory of the package.
    pub fn new(module: impl Into<PathBuf>, payload: impl Into<PathBuf>) -> Self {
        Self { module: module.into(), payload: payload.into(), sample: SAMPLE }
    }

    /// Sets the largest number of crash points, of failing calls and of pairs in a sequence. Default: 50, evenly
    /// spread; `usize::MAX` for all.
    #[must_use]
    pub fn sample(mut self, sample: usize) -> Self {
        self.sample = sample;
        self
    }

    /// Runs the suite as a test executable: with the command line of `cargo test`, each case as one test.
    ///
    /// Call it in `main`, and do nothing before it: fault injection starts the same executable again, as its tracer.
    pub fn main(self) -> ExitCode {
        if let Some(end) = run_tracer() {
            return end;
        }
        let arguments = Arguments::from_args();
        // `cargo test NAME` gives the same filter to every test executable: one without a match is not an error.
        self.start(&arguments, |_| Ok(()))
    }

    /// Runs the tests that `arguments` select, if `check` accepts all tests.
    pub(crate) fn start(&self, arguments: &Arguments, check: impl FnOnce(&[Trial]) -> Result<()>) -> ExitCode {
        match self.tests().and_then(|tests| check(&tests).map(|()| tests)) {
            Ok(tests) => {
                if !arguments.list {
                    self.warn();
                }
                libtest_mimic::run(arguments, tests).exit_code()
            }
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        }
    }

    /// Names the parts of the payload that are missing, and what is not tested without them.
    fn warn(&self) {
        for line in Payload::read(&self.payload).iter().flat_map(Payload::untested) {
            eprintln!("payload: {line}");
        }
    }

    /// The absolute path of the module, which has to be an executable file.
    fn executable(&self) -> Result<PathBuf> {
        let shown = self.module.display();
        let path = self.module.canonicalize().with_context(|| format!("invalid module {shown}"))?;
        ensure!(!path.is_dir(), "invalid module {shown}: it is a directory: give the path of the executable");
        ensure!(path.is_file(), "invalid module {shown}: it is not a regular file: give the path of the executable");
        ensure!(
            access(&path, Access::EXEC_OK).is_ok(),
            "invalid module {shown}: it is not executable: run chmod +x {shown}"
        );
        Ok(path)
    }

    fn tests(&self) -> Result<Vec<Trial>> {
        let module = self.executable()?;
        let payload = self.payload.display();
        ensure!(self.payload.is_dir(), "no payload directory {payload}: give a directory with settings.toml or files/");
        let mut tests = Vec::new();
        for case in CASES {
            let (module, payload) = (module.clone(), Payload::read(&self.payload)?);
            tests.push(Trial::test(format!("conformance: {}", case.name), move || {
                let limit = conformance::LIMIT;
                let subject = conformance::Subject { module, payload, debian: None, limit };
                match case.run(&subject) {
                    Ok(Verdict::Passed) => Ok(()),
                    Ok(Verdict::NotApplicable) => {
                        println!("conformance: {}: not applicable without rollback", case.name);
                        Ok(())
                    }
                    Err(error) => Err(format!("{}: {error:#}", case.rule).into()),
                }
            }));
        }
        for subject in fault_injection::described(&module, &self.payload)? {
            let scope = Scope { sample: self.sample, ..Scope::ALL };
            let name = format!("fault injection: {}", subject.name());
            let test = Trial::test(name, move || inject(subject.as_ref(), scope));
            tests.push(test.with_ignored_flag(!cfg!(target_arch = "x86_64")));
        }
        Ok(tests)
    }
}

fn inject(subject: &dyn fault_injection::Subject, scope: Scope) -> Result<(), Failed> {
    let inject = || -> Result<Report> {
        let tracer = Tracer::new(env::current_exe().context("finding the own executable failed")?);
        let mut total = Report::default();
        fault_injection::run(subject, &tracer, scope)?.iter().for_each(|report| total += report);
        Ok(total)
    };
    let total = inject().map_err(|error| format!("{error:#}"))?;
    if total.violations.is_empty() {
        println!("fault injection: {}: {total}", subject.name());
        return Ok(());
    }
    let violations: String = total.violations.iter().map(|violation| format!("\n- {violation}")).collect();
    Err(format!("{total}{violations}").into())
}

/// Runs the tracer, if the command line asks for it.
pub(crate) fn run_tracer() -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next()? != TRACER {
        return None;
    }
    #[cfg(target_arch = "x86_64")]
    let end = fault_injection::tracer_main(arguments.collect());
    #[cfg(not(target_arch = "x86_64"))]
    let end = {
        eprintln!("tracer: the registers of this architecture are not supported: run it on x86_64");
        ExitCode::from(125)
    };
    Some(end)
}
