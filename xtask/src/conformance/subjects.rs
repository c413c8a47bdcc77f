//! The modules under test: ours and upstream's, each with its payload.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module_test::conformance::{LIMIT, Payload, Subject};
use xshell::Shell;

use crate::dist::modules;
use crate::record::Record;
use crate::{build, debian, upstream};

/// The payload directories of upstream modules that none of ours replaces.
const UPSTREAM_PAYLOADS: &str = "xtask/upstream";

/// A module under test.
pub struct Tested {
    /// Its title in the table.
    pub title: String,
    /// Whether its failures count.
    pub ours: bool,
    /// The module and its payload.
    pub subject: Subject,
}

/// A module that is not tested.
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// The reason.
    pub why: String,
}

impl Tested {
    fn new(whose: &str, module: PathBuf, payload: &Path) -> Result<Self> {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let title = format!("{whose}: {name}");
        let subject = Subject { payload: Payload::read(payload)?, debian: None, limit: LIMIT, module };
        Ok(Self { title, ours: whose == "ours", subject })
    }
}

/// The executable `module`, with the payload directory `payload` or that of the module of its name.
pub fn one(sh: &Shell, module: &Path, payload: Option<&Path>) -> Result<Tested> {
    let module = sh.current_dir().join(module);
    ensure!(module.is_file(), "no module {}: give the path of its executable", module.display());
    let payload = match payload {
        Some(payload) => sh.current_dir().join(payload),
        None => self::payload(sh, &module.file_name().unwrap_or_default().to_string_lossy()),
    };
    ensure!(payload.is_dir(), "no payload directory {}: make it, or name another with --payload", payload.display());
    let mut tested = Tested::new("ours", module, &payload)?;
    if tested.subject.payload.needs_debian() {
        tested.subject.debian = Some(debian::mountable(sh)?);
    }
    Ok(tested)
}

/// Our own modules: all that are packaged and can be tested here. The second result is that of making the Debian system
/// that one of them needs, for the end of the suite.
pub fn ours(sh: &Shell, record: &Record) -> Result<(Vec<Tested>, Result<()>)> {
    let mut names: Vec<_> = modules::workspace(sh)?.modules.into_iter().map(|module| module.name).collect();
    let made = debian::retain_testable(sh, &mut names, |name| needs_debian(sh, name), record)?;
    let built = build::workspace(sh)?;
    let tested = names
        .iter()
        .map(|name| {
            let tested = one(sh, &built.join(name), None)?;
            ensure!(
                tested.subject.payload.has_new(),
                "modules/{name}/tests/payload has no directory new/: put the content of the device after the update there"
            );
            Ok(tested)
        })
        .collect::<Result<_>>()?;
    Ok((tested, made))
}

/// Copies the mock programs, which settings of payloads name as `@BESIDE@`, to the directories of `modules`.
pub fn add_mocks<'a>(sh: &Shell, modules: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let built = build::workspace(sh)?;
    for module in modules {
        for program in ["fake-podman", "fake-systemctl"] {
            let beside = module.with_file_name(program);
            fs::copy(built.join(program), &beside)
                .with_context(|| format!("copying to {} failed", beside.display()))?;
        }
    }
    Ok(())
}

/// The payload directory of the module `name`: in its crate, or for upstream modules beside this command.
pub fn payload(sh: &Shell, name: &str) -> PathBuf {
    let own = sh.current_dir().join("modules").join(name).join("tests/payload");
    let upstream = sh.current_dir().join(UPSTREAM_PAYLOADS).join(name);
    if upstream.is_dir() { upstream } else { own }
}

/// Whether the payload of the module `name` is for a Debian system. One that cannot be read fails later, in the test.
pub fn needs_debian(sh: &Shell, name: &str) -> bool {
    Payload::read(&payload(sh, name)).is_ok_and(|payload| payload.needs_debian())
}

/// The modules in `directory`, or else those of Debian's package: those that can be tested, and the others.
pub fn upstream(sh: &Shell, directory: Option<&Path>) -> Result<(Vec<Tested>, Vec<Skipped>)> {
    let directory = match directory {
        Some(directory) => sh.current_dir().join(directory),
        None => upstream::modules(sh)?,
    };
    let (mut tested, mut skipped) = (Vec::new(), Vec::new());
    for name in names(&directory)? {
        let payload = payload(sh, &name);
        let reason = upstream::NOT_TRIED.iter().find(|(other, _)| *other == name);
        if let Some((_, why)) = reason {
            skipped.push(Skipped { name, why: (*why).to_owned() });
        } else if payload.is_dir() {
            tested.push(Tested::new("upstream", directory.join(&name), &payload)?);
        } else {
            skipped.push(Skipped { why: format!("no payload directory {UPSTREAM_PAYLOADS}/{name}"), name });
        }
    }
    ensure!(!tested.is_empty(), "no module with a payload directory in {}", directory.display());
    Ok((tested, skipped))
}

/// The names of the regular files in `directory`, sorted.
fn names(directory: &Path) -> Result<Vec<String>> {
    let modules = host::directory::entries(directory)?.into_iter().filter(|path| path.is_file());
    Ok(modules.map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned()).collect())
}
