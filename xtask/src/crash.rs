//! `cargo xtask crash`: whether a module leaves exactly the previous or exactly the new version, whatever system call
//! it is interrupted at.

mod table;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use crash::{Module, PAYLOAD_TYPES, subjects};
use host::status::step;
use mender_update_module_test::fault_injection::{self, Report, Scope, Tracer};
use test_report::Verdict;
use xshell::Shell;

use crate::conformance::payload;
use crate::dist::modules;
use crate::record::{Record, both, case};
use crate::{build, debian, evidence, upstream};
use table::{Results, Whose};

/// Interrupts modules at every system call, makes every call fail, and loses every unsynced write
///
/// Takes about 25 minutes on 2 cores; --module deb takes hours without --sample, and needs root. The report is
/// target/crash/report.md.
#[derive(Args, Default)]
pub struct Crash {
    /// Tests this module only: the name of one of ours, or the path of an executable, with a slash in it
    #[arg(long, value_name = "NAME|PATH")]
    module: Option<String>,
    /// The payload that the executable installs [default: tests/payload of the module of that name]
    #[arg(long, value_name = "DIR", requires = "module")]
    payload: Option<PathBuf>,
    /// Injects at most N faults of each kind in a sequence, evenly spread [default: all]. Without --module the limit
    /// for container is 40, and for deb 4 faults of one kind in each sequence, because a run of all would take hours
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
    /// Shifts the sample by N, so that other faults are injected
    #[arg(long, value_name = "N", default_value_t, hide_default_value = true)]
    offset: u32,
    /// Interrupts the shell modules of Debian's mender-client package too, or those in DIR: a sample of crash points,
    /// without failing calls; their outcomes do not count
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    upstream: Option<Option<PathBuf>>,
    /// Writes the report to docs/evidence too
    #[arg(long, conflicts_with_all = ["module", "sample", "offset"])]
    write: bool,
    /// Whether faults of one kind only are injected in each sequence.
    #[arg(skip)]
    one_kind: bool,
}

/// Crash points in a sequence of an upstream module: shell scripts make ten times the calls.
const UPSTREAM_POINTS: usize = 150;

/// The module that is tested on a Debian system.
const DEB: &str = "deb";

/// Crash points, failing calls, losses of unsynced writes, and pairs in a sequence, of modules whose every step runs
/// programs, unless --module names them: apt and dpkg take seconds.
const SPREAD: &[(&str, u32)] = &[("container", 40), (DEB, 4)];

impl Crash {
    /// A sample of `points` on the executable `module` with the payload in `payload`.
    pub fn with(module: &Path, payload: PathBuf, points: u32) -> Self {
        let module = Some(module.display().to_string());
        Self { module, payload: Some(payload), sample: Some(points), ..Self::default() }
    }

    /// All faults; of modules with a limit the sample, shifted by `offset`.
    pub fn all(offset: u32) -> Self {
        Self { offset, ..Self::default() }
    }

    /// At most `points` of each kind in every sequence of every module, shifted by `offset`.
    pub fn sample(points: u32, offset: u32) -> Self {
        Self { sample: Some(points), offset, ..Self::default() }
    }

    /// One fault in every sequence of every module, shifted by `offset`.
    pub fn quick(offset: u32) -> Self {
        Self { one_kind: true, ..Self::sample(1, offset) }
    }

    /// Injects all faults, prints a table, writes `target/crash/report.md`, and returns a summary.
    ///
    /// # Errors
    /// When one of our modules has an inconsistent outcome, or cannot be tested.
    pub fn run(self, sh: &Shell, record: &Record) -> Result<String> {
        let metadata = modules::metadata(sh)?;
        let outside = self.outside(sh)?;
        let upstream = self.upstream_modules(sh)?;
        let mut names = if outside.is_some() { Vec::new() } else { self.names(sh)? };
        let made = debian::retain_testable(sh, &mut names, |name| name == DEB, record)?;
        let target = modules::target_directory(&metadata)?;
        let built = build::workspace(sh)?;
        let tracer = Tracer::new(built.join("mender-update-module-test"));
        let mut results = Results::default();
        for name in &names {
            let debian = if name == DEB { Some(debian::mountable(sh)?) } else { None };
            let (executable, payload) = (built.join(name), payload(sh, name));
            let module = Module { executable, plain: false, debian, payload };
            results.add(name, Whose::Ours, inject(name, &module, &tracer, self.scope(name), record)?);
        }
        if let Some((name, module)) = outside {
            results.add(&name, Whose::Ours, inject(&name, &module, &tracer, self.scope(&name), record)?);
        }
        let scope =
            Scope { failing_calls: false, lost_writes: false, pairs: false, sample: UPSTREAM_POINTS, ..Scope::ALL };
        for (name, executable) in upstream {
            let module = Module { executable, plain: true, debian: None, payload: payload(sh, name) };
            let reports = inject(name, &module, &tracer, scope, &Record::default())?;
            results.add(name, Whose::Upstream, reports);
        }
        println!("{}", results.summary());
        let report = target.join("crash/report.md");
        let text = results.markdown(UPSTREAM_POINTS);
        fs::create_dir_all(target.join("crash")).context("making the report's directory failed")?;
        let command = format!("\n\nMade by `{}`.\n", self.command());
        fs::write(&report, text.replacen("\n\n", &command, 1))
            .with_context(|| format!("writing {} failed", report.display()))?;
        // The page is of all modules.
        if self.write && made.is_ok() {
            evidence::write(sh, "crash", &format!("{} --write", self.command()), &text)?;
        }
        println!("full report: {}", report.display());
        let total = results.total(Whose::Ours);
        let consistent = || {
            ensure!(total.violations.is_empty(), "{total}: see {}", report.display());
            Ok(total.to_string())
        };
        both(consistent(), made)
    }

    /// The executable that `--module PATH` names, and its payload.
    fn outside(&self, sh: &Shell) -> Result<Option<(String, Module)>> {
        let Some(path) = self.module.as_deref().filter(|module| module.contains('/')) else {
            ensure!(self.payload.is_none(), "--payload is for --module PATH: our modules have their payloads");
            return Ok(None);
        };
        let executable = sh.current_dir().join(path);
        ensure!(executable.is_file(), "no module {}: give the path of its executable", executable.display());
        let name = executable.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let payload = self.payload.as_ref().map_or_else(|| payload(sh, &name), |path| sh.current_dir().join(path));
        ensure!(
            payload.is_dir(),
            "no payload directory {}: make it, or name another with --payload",
            payload.display()
        );
        Ok(Some((name, Module { executable, plain: false, debian: None, payload })))
    }

    /// The faults for our module `name`.
    fn scope(&self, name: &str) -> Scope {
        let spread = SPREAD.iter().find(|(module, _)| *module == name && self.module.is_none());
        let sample = spread.map(|(_, sample)| *sample).into_iter().chain(self.sample).min();
        let sample = sample.map_or(usize::MAX, |sample| sample as usize);
        let one_kind = self.one_kind || name == DEB && spread.is_some();
        Scope { one_kind, sample, offset: self.offset as usize, ..Scope::ALL }
    }

    /// Our modules, or the one of the command line. A module without a payload is an error, so that it is not
    /// overlooked.
    fn names(&self, sh: &Shell) -> Result<Vec<String>> {
        let ours: Vec<_> = modules::workspace(sh)?.modules.into_iter().map(|module| module.name).collect();
        for name in &ours {
            ensure!(
                PAYLOAD_TYPES.contains(&name.as_str()) || payload(sh, name).is_dir(),
                "no fault injection for the module {name}: describe what it installs in modules/{name}/tests/payload, or \
                 implement Subject for it in tests/crash"
            );
        }
        let Some(wanted) = &self.module else { return Ok(ours) };
        let names: Vec<_> = ours.iter().filter(|name| *name == wanted).cloned().collect();
        let upstream = self.upstream.is_some() && PAYLOAD_TYPES.contains(&wanted.as_str());
        ensure!(upstream || !names.is_empty(), "no module {wanted}: use one of {}", ours.join(", "));
        Ok(names)
    }

    /// The upstream modules that are tested, and their executables; none without `--upstream`.
    fn upstream_modules(&self, sh: &Shell) -> Result<Vec<(&'static str, PathBuf)>> {
        let directory = match &self.upstream {
            Some(Some(directory)) => sh.current_dir().join(directory),
            Some(None) => upstream::modules(sh)?,
            None => return Ok(Vec::new()),
        };
        let modules: Vec<_> = PAYLOAD_TYPES
            .iter()
            .filter(|name| self.module.as_deref().is_none_or(|wanted| wanted == **name))
            .filter(|name| upstream::NOT_TRIED.iter().all(|(other, _)| other != *name))
            .map(|name| (*name, directory.join(name)))
            .filter(|(_, executable)| executable.is_file())
            .collect();
        ensure!(
            !modules.is_empty(),
            "no module in {}: give the directory that has {}",
            directory.display(),
            PAYLOAD_TYPES.join(", ")
        );
        Ok(modules)
    }

    /// The command that makes the report again.
    fn command(&self) -> String {
        let payload = self.payload.iter().map(|path| format!(" --payload {}", path.display()));
        let module = self.module.iter().map(|name| format!(" --module {name}")).chain(payload);
        let upstream = self.upstream.iter().map(|directory| match directory {
            Some(directory) => format!(" --upstream {}", directory.display()),
            None => " --upstream".to_owned(),
        });
        let sample = self.sample.iter().map(|sample| format!(" --sample {sample}"));
        let offset = (self.offset > 0).then(|| format!(" --offset {}", self.offset));
        format!("cargo xtask crash{}", module.chain(sample).chain(offset).chain(upstream).collect::<String>())
    }
}

fn inject(name: &str, module: &Module, tracer: &Tracer, scope: Scope, record: &Record) -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    for subject in subjects(name, module)? {
        if record.skips(name, subject.name()) {
            continue;
        }
        let shown = format!("fault injection: {}: {}", module.executable.display(), subject.name());
        let more = step(shown, |_| fault_injection::run(subject.as_ref(), tracer, scope))
            .with_context(|| format!("{}: {}", module.executable.display(), subject.name()))?;
        more.iter().for_each(|report| record.add(case(name, &report.sequence, verdict(report))));
        reports.extend(more);
    }
    Ok(reports)
}

/// The verdict on one sequence: its counts, or its violations.
fn verdict(report: &Report) -> Verdict {
    if report.violations.is_empty() {
        return Verdict::Passed(report.to_string());
    }
    let violations: String = report.violations.iter().map(|violation| format!("\n{violation}")).collect();
    Verdict::Failed(format!("{report}{violations}"))
}
