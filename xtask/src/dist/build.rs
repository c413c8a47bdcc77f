//! Compiles the modules as static executables, because an updater must not depend on libraries that it updates. Each
//! contains the list of its crates, which vulnerability scanners read.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::cargo::cargo;
use host::command::{run, shell_in};
use host::directory;
use host::pool::side_by_side;
use host::script::{self, quoted};
use host::status::{Step, step};
use xshell::{Shell, cmd};

use super::cargo_home::cargo_home;
use super::modules::{Module, Workspace};
use super::processor;
use super::rust_source::{self, Active};
use super::toolchain::{Compiler, Toolchain};
use crate::target::{Target, variable};

/// Builds every module with each of `toolchains` for its target, with the cargo-auditable at the path `auditable`.
pub fn all(
    sh: &Shell,
    workspace: &Workspace,
    toolchains: &[(&'static Target, Toolchain)],
    auditable: Option<&Path>,
) -> Result<()> {
    let auditable = auditable.map(|program| Auditable::new(workspace, program)).transpose()?;
    for (target, toolchain) in toolchains {
        remove_other_toolchains(&workspace.target.join(target.triple(toolchain.libc)), toolchain)?;
    }
    // All targets of the active compiler in one call of cargo, which compiles macros and build scripts once. Each
    // other compiler has its own target directory.
    let (others, active): (Vec<_>, Vec<_>) =
        toolchains.iter().partition(|(_, toolchain)| matches!(toolchain.compiler, Compiler::Debian(_)));
    let groups = [active].into_iter().chain(others.into_iter().map(|other| vec![other]));
    for group in groups.filter(|group| !group.is_empty()) {
        // In two calls of cargo: it unites the features of what it builds together, and those of a program for
        // workstations would make the modules larger. Side by side, because the ends of both use one processor.
        let rustc = rustc(sh, workspace, &group)?;
        let mut workstations = group.clone();
        workstations.retain(|(target, _)| workspace.tools.iter().any(|tool| tool.is_for(target)));
        let calls = [("modules", &workspace.modules, &group), ("programs", &workspace.tools, &workstations)];
        let directory = sh.current_dir();
        let built = side_by_side(calls.len(), &calls, |(what, packages, group)| {
            if packages.is_empty() || group.is_empty() {
                return Ok(());
            }
            let sh = shell_in(&directory)?;
            let names: Vec<_> = group.iter().map(|(target, _)| target.debian).collect();
            step(format!("building the {what} for {}", names.join(", ")), |step| {
                build(&sh, step, workspace, packages, group, rustc.as_deref(), auditable.as_ref())
            })
        });
        built.into_iter().collect::<Result<()>>()?;
        step("checking the executables", |step| {
            let is_auditable = auditable.is_some();
            group.iter().try_for_each(|(target, toolchain)| check(sh, step, workspace, target, toolchain, is_auditable))
        })?;
    }
    Ok(())
}

/// Removes the build results of another toolchain. Cargo detects another compiler, but not another C library.
fn remove_other_toolchains(directory: &Path, toolchain: &Toolchain) -> Result<()> {
    let made_by = directory.join("made-by");
    if fs::read_to_string(&made_by).is_ok_and(|identity| identity == toolchain.identity) {
        return Ok(());
    }
    directory::empty(directory).context("removing the build results of another toolchain failed")?;
    fs::write(&made_by, &toolchain.identity).with_context(|| format!("writing {} failed", made_by.display()))
}

/// Builds `modules`, which have one profile, for the targets of `group`, which have the same compiler: `rustc`, or the
/// active one.
fn build(
    sh: &Shell,
    step: &Step,
    workspace: &Workspace,
    modules: &[Module],
    group: &[&(&'static Target, Toolchain)],
    rustc: Option<&Path>,
    auditable: Option<&Auditable>,
) -> Result<()> {
    let packages = modules.iter().flat_map(|module| ["--package", &module.name]);
    let profile = modules.first().map(Module::profile).unwrap_or_default();
    let cargo_build = match auditable {
        Some(Auditable { program, cargo }) => cmd!(sh, "{program} auditable build").env("CARGO", cargo),
        None => cmd!(sh, "cargo build"),
    };
    let mut command = cargo_build
        .args(["--profile", profile, "--locked"])
        .args(packages)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&workspace.root)?);
    for (target, toolchain) in group {
        let triple = target.triple(toolchain.libc);
        command = command
            .args(["--target", triple])
            .env("CARGO_TARGET_DIR", toolchain.target_directory(workspace, target))
            .env(variable(triple, "LINKER"), target.linker(toolchain.libc));
    }
    if let Some(rustc) = rustc {
        command = command.env("RUSTC", rustc);
    }
    cargo(step, command)?;
    Ok(())
}

/// cargo-auditable, and the cargo that it runs.
struct Auditable<'a> {
    program: &'a Path,
    cargo: PathBuf,
}

impl<'a> Auditable<'a> {
    /// Writes a script that runs cargo for cargo-auditable, `program`. cargo-auditable makes cargo start it, by its
    /// path, as the compiler of each crate of the workspace, and cargo puts that path into the hashes of these crates.
    /// The path depends on the user; the name in this script does not.
    fn new(workspace: &Workspace, program: &'a Path) -> Result<Self> {
        let cargo = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        let path = workspace.target.join("cargo");
        script::write(&path, &script_for(program, &cargo))?;
        Ok(Self { program, cargo: path })
    }
}

/// The text of a script that starts `cargo` with the file name of `program` as the wrapper of the compiler.
fn script_for(program: &Path, cargo: &Path) -> String {
    let (directory, name) = (program.parent().unwrap_or(program), program.file_name().unwrap_or_default());
    format!(
        "export RUSTC_WORKSPACE_WRAPPER={}\nPATH={}:$PATH exec {} \"$@\"\n",
        quoted(name),
        quoted(directory),
        quoted(cargo)
    )
}

/// The compiler for `group`, or `None` for the active one with its own sysroot.
fn rustc(sh: &Shell, workspace: &Workspace, group: &[&(&'static Target, Toolchain)]) -> Result<Option<PathBuf>> {
    let (mut targets, mut built) = (Vec::new(), false);
    for (target, toolchain) in group {
        let library = match &toolchain.compiler {
            Compiler::Debian(rustc) => return Ok(Some(rustc.clone())),
            Compiler::Active => None,
            Compiler::Source(library) => Some(library.as_path()),
        };
        built |= library.is_some();
        targets.push((target.triple(toolchain.libc), library));
    }
    let sysroot = || rust_source::sysroot(&Active::find(sh)?, &workspace.target.join("sysroot"), &targets);
    built.then(sysroot).transpose()
}

/// The flags of the compiler. They replace the flags of the user, so that packages are the same from every machine
/// and do not contain the paths of the build directories.
fn flags(root: &Path) -> Result<String> {
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        "-Cforce-unwind-tables=no".to_owned(), // nothing is unwound: a panic aborts
        format!("--remap-path-prefix={}=cargo", cargo_home()?.display()),
        format!("--remap-path-prefix={}=.", root.display()),
    ];
    Ok(flags.join("\x1f"))
}

/// Checks that the executables are static, run on the oldest processor of the target, and have the list of linked
/// crates if they are auditable.
fn check(
    sh: &Shell,
    step: &Step,
    workspace: &Workspace,
    target: &'static Target,
    toolchain: &Toolchain,
    is_auditable: bool,
) -> Result<()> {
    for module in workspace.packaged(&[target]).into_iter().map(|(module, _)| module) {
        let executable = toolchain.executable(workspace, module, target);
        let headers = run(step, cmd!(sh, "readelf --wide --program-headers --dynamic --sections {executable}"))?;
        ensure!(
            is_static(&headers),
            "executable is not static: {}: it needs an interpreter or a shared library: find the dependency that \
             links one",
            executable.display()
        );
        ensure!(
            !is_auditable || has_crates(&headers),
            "no list of crates in the executable: {}: it has no section {CRATES}: check the version of cargo-auditable",
            executable.display()
        );
        if let Some(processor) = &target.processor {
            processor::check(sh, step, &executable, processor)?;
        }
    }
    Ok(())
}

/// Whether the output of readelf names neither an interpreter nor a shared library.
fn is_static(headers: &str) -> bool {
    !headers.lines().any(|line| line.trim_start().starts_with("INTERP") || line.contains("(NEEDED)"))
}

/// The section with the list of linked crates. Its name is part of the format of cargo-auditable.
const CRATES: &str = ".dep-v0";

/// Whether the output of readelf lists the section [`CRATES`].
fn has_crates(headers: &str) -> bool {
    headers.lines().any(|line| line.trim_start().starts_with('[') && line.split_whitespace().any(|word| word == CRATES))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_list_of_crates_is_a_section() {
        assert!(has_crates(
            "  [ 6] .dep-v0           PROGBITS        0000000000403d30 003d30 000366 00   A  0   0  1\n"
        ));
        assert!(!has_crates("  [ 6] .rodata           PROGBITS        0000000000403d30 003d30\n  .dep-v0\n"));
    }

    #[test]
    fn an_interpreter_or_library_is_found() {
        assert!(is_static("  LOAD           0x000000\n 0x0000000c (INIT)  0x1000\n"));
        assert!(!is_static("  INTERP         0x000318\n"));
        assert!(!is_static(" 0x00000001 (NEEDED)  Shared library: [libc.so.6]\n"));
    }

    #[test]
    fn cargo_finds_the_wrapper_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let (wrapper, cargo) = (directory.path().join("it's a wrapper"), directory.path().join("a 'cargo'"));
        // Not files that the test writes: while another thread starts a process, those are busy.
        for program in [&wrapper, &cargo] {
            std::os::unix::fs::symlink("/bin/sh", program).unwrap();
        }
        let call = "\"$RUSTC_WORKSPACE_WRAPPER\" -c 'echo wrapped'; echo \"$RUSTC_WORKSPACE_WRAPPER\"";
        let script = script_for(&wrapper, &cargo);
        let output = Command::new("sh").args(["-c", &script, "script", "-c", call]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "wrapped\nit's a wrapper\n", "{output:?}");
    }

    #[test]
    fn another_c_library_removes_build_results() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("triple");
        let toolchain = |identity: &str| Toolchain::example(identity);
        remove_other_toolchains(&directory, &toolchain("libc 1")).unwrap();
        fs::write(directory.join("object"), "").unwrap();
        remove_other_toolchains(&directory, &toolchain("libc 1")).unwrap();
        assert!(directory.join("object").exists());
        remove_other_toolchains(&directory, &toolchain("libc 2")).unwrap();
        assert!(!directory.join("object").exists());
    }
}
