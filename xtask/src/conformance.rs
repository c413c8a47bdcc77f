//! `cargo xtask conformance`: does a module keep to the protocol?

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use conformance::{CASES, Payload, Subject};
use host::command::run;
use host::packages;
use host::status::step;
use xshell::{Shell, cmd};

use crate::dist::modules;

/// What the cases need on the host.
pub const HOST_PACKAGES: &[&str] = &["strace"];

/// Our own modules that the suite has payloads for.
const OURS: &[&str] = &["web-file"];

/// Try the protocol's sentences on a module, one by one.
#[derive(Args, Default)]
pub struct Conformance {
    /// The module's executable, a program or a script. Without it, our own are built and tried.
    #[arg(long, value_name = "PATH", requires = "payload")]
    module: Option<PathBuf>,
    /// What it is to install: a folder with settings.toml and files/, as those in tests/conformance/payloads.
    #[arg(long, value_name = "FOLDER")]
    payload: Option<PathBuf>,
    /// Only this case.
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
}

impl Conformance {
    /// Runs the cases, prints a table, and says how many there were.
    ///
    /// # Errors
    /// When a case fails, or could not be tried.
    pub fn run(self, sh: &Shell) -> Result<String> {
        packages::ensure(sh, HOST_PACKAGES)?;
        let subjects = match (&self.module, &self.payload) {
            (Some(module), Some(payload)) => vec![subject(sh, module.clone(), payload.clone())?],
            _ => ours(sh)?,
        };
        let (mut tried, mut failed) = (0, 0);
        for subject in &subjects {
            println!("{}", subject.module.display());
            let (cases, failures) = self.try_cases(subject)?;
            tried += cases;
            failed += failures;
        }
        ensure!(failed == 0, "{failed} of {tried} cases failed, see the table above");
        Ok(format!("{tried} cases, modules: {}", subjects.len()))
    }

    /// Prints a line for each case; how many were tried, and how many failed.
    fn try_cases(&self, subject: &Subject) -> Result<(usize, usize)> {
        let cases: Vec<_> =
            CASES.iter().filter(|case| self.case.as_deref().is_none_or(|name| name == case.name)).collect();
        let known = || CASES.iter().map(|case| case.name).collect::<Vec<_>>().join(", ");
        ensure!(!cases.is_empty(), "no such case; known are: {}", known());
        let mut failures = 0;
        for case in &cases {
            let (verdict, why) = match case.run(subject) {
                Ok(()) => ("ok  ", String::new()),
                Err(error) => ("FAIL", format!("\n         {error:#}")),
            };
            failures += usize::from(verdict == "FAIL");
            println!("    {verdict} {:<26} {}{why}", case.name, case.says);
        }
        Ok((cases.len(), failures))
    }
}

fn subject(sh: &Shell, module: PathBuf, payload: PathBuf) -> Result<Subject> {
    let module = sh.current_dir().join(module);
    ensure!(module.is_file(), "there is no module {}: give the path of its executable", module.display());
    let payload = sh.current_dir().join(payload);
    ensure!(payload.is_dir(), "there is no payload folder {}", payload.display());
    Ok(Subject { module, payload: Payload::read(&payload)? })
}

/// Builds our own modules.
fn ours(sh: &Shell) -> Result<Vec<Subject>> {
    let selected: Vec<_> = OURS.iter().flat_map(|name| ["--package", name]).collect();
    step("building our modules", |step| run(step, cmd!(sh, "cargo build {selected...}")))?;
    let metadata = modules::metadata(sh)?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target folder")?;
    OURS.iter()
        .map(|name| {
            subject(
                sh,
                Path::new(target).join("debug").join(name),
                format!("tests/conformance/payloads/{name}").into(),
            )
        })
        .collect()
}
