//! What the cases are tried on: our modules and upstream's, each with its payload.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use conformance::{LIMIT, Payload, Subject};
use host::command::run;
use host::status::step;
use xshell::{Shell, cmd};

use crate::debian;
use crate::dist::modules;
use crate::upstream;

/// One directory for each module's payload.
pub const PAYLOADS: &str = "tests/conformance/payloads";

/// A module that is tried.
pub struct Tried {
    /// What it is called in the table.
    pub title: String,
    /// Whether it may fail nothing.
    pub ours: bool,
    /// The module and its payload.
    pub subject: Subject,
}

/// A module that is not.
pub struct NotTried {
    /// Its name.
    pub name: String,
    /// The reason, as the end of a sentence.
    pub why: String,
}

impl Tried {
    fn new(whose: &str, module: PathBuf, payload: &Path) -> Result<Self> {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let title = format!("{whose}: {name}");
        let subject = Subject { payload: Payload::read(payload)?, debian: None, limit: LIMIT, module };
        Ok(Self { title, ours: whose == "ours", subject })
    }
}

/// The module that the person names, with the payload directory that they name or that has its name.
pub fn one(sh: &Shell, module: &Path, payload: Option<&Path>) -> Result<Tried> {
    let module = sh.current_dir().join(module);
    ensure!(module.is_file(), "there is no module {}: give the path of its executable", module.display());
    let payload = match payload {
        Some(payload) => sh.current_dir().join(payload),
        None => sh.current_dir().join(PAYLOADS).join(module.file_name().unwrap_or_default()),
    };
    ensure!(
        payload.is_dir(),
        "there is no payload directory {}: make one, or name another with --payload",
        payload.display()
    );
    let mut tried = Tried::new("ours", module, &payload)?;
    if tried.subject.payload.needs_debian() {
        tried.subject.debian = Some(debian::mountable(sh)?);
    }
    Ok(tried)
}

/// Our own modules, built as the tests build them: everything that is packaged. The second list is of those that this user
/// cannot try.
pub fn ours(sh: &Shell) -> Result<(Vec<Tried>, Vec<NotTried>)> {
    let names = modules::workspace(sh)?.modules.into_iter().map(|module| module.name);
    let obstacle = debian::obstacle(sh)?;
    let (names, without): (Vec<_>, Vec<_>) =
        names.partition(|name| obstacle.is_none() || !needs_debian(sh, name));
    let why = format!("needs a Debian system: {}", obstacle.unwrap_or_default());
    let not_tried = without.into_iter().map(|name| NotTried { name, why: why.clone() }).collect();
    let built = build(sh, &names)?;
    let tried = names
        .iter()
        .map(|name| {
            let tried = one(sh, &built.join(name), None)?;
            ensure!(
                tried.subject.payload.says_what_is_new(),
                "{PAYLOADS}/{name} has no new/: say there what the module has to install"
            );
            Ok(tried)
        })
        .collect::<Result<_>>()?;
    Ok((tried, not_tried))
}

/// Builds the modules `names` as the tests build them, and the programs that are played; returns the directory of all those.
fn build(sh: &Shell, names: &[String]) -> Result<PathBuf> {
    let selected: Vec<_> = names.iter().flat_map(|name| ["--package", name]).collect();
    step("building what is tried", |step| {
        run(step, cmd!(sh, "cargo build --package fake-engine {selected...}"))
    })?;
    let metadata = modules::metadata(sh)?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(Path::new(target).join("debug"))
}

/// Puts the programs that are played, which a payload's settings name as `@BESIDE@`, beside `modules`, which were built elsewhere.
pub fn play_beside<'a>(sh: &Shell, modules: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let built = build(sh, &[])?;
    for module in modules {
        for program in ["fake-podman", "fake-systemctl"] {
            let beside = module.with_file_name(program);
            fs::copy(built.join(program), &beside)
                .with_context(|| format!("copying to {}", beside.display()))?;
        }
    }
    Ok(())
}

/// Whether the payload of module `name` is packages. One that cannot be read is told when it is tried.
pub fn needs_debian(sh: &Shell, name: &str) -> bool {
    Payload::read(&sh.current_dir().join(PAYLOADS).join(name)).is_ok_and(|payload| payload.needs_debian())
}

/// The modules in `directory`, or else those of Debian's package: those that can be tried, and the others.
pub fn upstream(sh: &Shell, directory: Option<&Path>) -> Result<(Vec<Tried>, Vec<NotTried>)> {
    let directory = match directory {
        Some(directory) => sh.current_dir().join(directory),
        None => upstream::modules(sh)?,
    };
    let (mut tried, mut not_tried) = (Vec::new(), Vec::new());
    for name in names(&directory)? {
        let payload = sh.current_dir().join(PAYLOADS).join(&name);
        let reason = upstream::NOT_TRIED.iter().find(|(other, _)| *other == name);
        if let Some((_, why)) = reason {
            not_tried.push(NotTried { name, why: (*why).to_owned() });
        } else if payload.is_dir() {
            tried.push(Tried::new("upstream", directory.join(&name), &payload)?);
        } else {
            not_tried.push(NotTried { why: format!("has no payload directory {PAYLOADS}/{name}"), name });
        }
    }
    ensure!(!tried.is_empty(), "{} has no module with a directory in {PAYLOADS}", directory.display());
    Ok((tried, not_tried))
}

/// The regular files in `directory`, in the order of their names.
fn names(directory: &Path) -> Result<Vec<String>> {
    let modules = host::directory::entries(directory)?.into_iter().filter(|path| path.is_file());
    Ok(modules.map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned()).collect())
}
