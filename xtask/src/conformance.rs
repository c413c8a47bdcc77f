//! `cargo xtask conformance`: whether a module conforms to the protocol.

mod subjects;
mod table;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use host::packages;
use host::status::step;
use mender_update_module_test::conformance::{CASES, Case};
use xshell::Shell;

use crate::record::{Record, both};
use subjects::{Skipped, Tested};
pub use subjects::{add_mocks, needs_debian, payload};
use table::{Column, Table};

/// What the cases need on the host.
pub const HOST_PACKAGES: &[&str] = &["strace"];

/// Checks that modules conform to the protocol, rule by rule
///
/// Takes about 4 minutes on 2 cores. The module deb needs root.
#[derive(Args, Default)]
pub struct Conformance {
    /// The module's executable, a program or a script [default: ours are built]
    #[arg(long, value_name = "PATH")]
    module: Option<PathBuf>,
    /// The payload that it installs [default: tests/payload of the module of that name]
    #[arg(long, value_name = "DIR", requires = "module")]
    payload: Option<PathBuf>,
    /// Checks this case only
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// Checks the shell modules of Debian's mender-client package too, or those in DIR: their failures are shown and
    /// do not count
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    upstream: Option<Option<PathBuf>>,
}

impl Conformance {
    /// The cases on `module` alone.
    pub fn of(module: PathBuf) -> Self {
        Self { module: Some(module), ..Self::default() }
    }

    /// The cases on `module` with the payload in `payload`.
    pub fn with(module: PathBuf, payload: PathBuf) -> Self {
        Self { payload: Some(payload), ..Self::of(module) }
    }

    /// Runs the cases, prints a table, and returns a summary.
    ///
    /// # Errors
    /// When one of our modules fails a case, or cannot be tested.
    pub fn run(self, sh: &Shell, record: &Record) -> Result<String> {
        let cases = self.cases()?;
        packages::ensure(sh, HOST_PACKAGES)?;
        let (ours, made) = match &self.module {
            Some(module) => (vec![subjects::one(sh, module, self.payload.as_deref())?], Ok(())),
            None => subjects::ours(sh, record)?,
        };
        let (upstream, skipped) = match &self.upstream {
            Some(directory) => subjects::upstream(sh, directory.as_deref())?,
            None => Default::default(),
        };
        let modules = ours.len();
        let columns = ours.into_iter().chain(upstream).map(|module| run_cases(module, &cases));
        let table = Table { cases: &cases, columns: columns.collect::<Result<_>>()? };
        println!("{table}");
        table.record(record);
        for Skipped { name, why } in skipped {
            println!("skipped: {name}: {why}");
        }
        let (tested, failed) = table.of_ours();
        let conform = || {
            ensure!(failed == 0, "{failed} of {tested} cases failed: see the table above");
            Ok(format!("{tested} cases, modules: {modules}"))
        };
        both(conform(), made)
    }

    fn cases(&self) -> Result<Vec<&'static Case>> {
        let wanted = |case: &&Case| self.case.as_deref().is_none_or(|name| name == case.name);
        let cases: Vec<_> = CASES.iter().filter(wanted).collect();
        let known = || CASES.iter().map(|case| case.name).collect::<Vec<_>>().join(", ");
        ensure!(!cases.is_empty(), "no such case: use one of {}", known());
        Ok(cases)
    }
}

fn run_cases(module: Tested, cases: &[&'static Case]) -> Result<Column> {
    step(format!("conformance of {}", module.title), |step| {
        let verdicts = cases.iter().map(|case| {
            step.detail(case.name);
            case.run(&module.subject)
        });
        let verdicts = verdicts.collect();
        Ok(Column { title: module.title, ours: module.ours, verdicts })
    })
}
