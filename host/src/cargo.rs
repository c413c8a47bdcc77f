//! Runs cargo and shows its progress.

use std::process::Command;

use anyhow::Result;

use crate::command::output_of;
use crate::status::Step;

/// Runs `command`, a call of cargo that compiles, as [`crate::command::run`] does, and shows the number of compiled
/// crates.
///
/// # Errors
/// As [`crate::command::run`].
pub fn cargo(step: &Step, command: impl Into<Command>) -> Result<String> {
    let mut command = command.into();
    // Without a terminal cargo shows its progress bar only by these settings. The width is mandatory.
    command.env("CARGO_TERM_PROGRESS_WHEN", "always").env("CARGO_TERM_PROGRESS_WIDTH", "100");
    let show = |line: &str| match progress(line) {
        Some(progress) => {
            step.progress(progress);
            false
        }
        None => {
            step.detail(line.trim());
            !line.trim().is_empty()
        }
    };
    let (output, result) = output_of(command, b"\r\n", &show)?;
    result.map(|()| output.stdout)
}

/// The progress in `line`, if it is cargo's bar: `Building [==>  ] 45/123: deb(bin), ...`.
fn progress(line: &str) -> Option<String> {
    let (_, rest) = line.trim_start().strip_prefix("Building [")?.split_once("] ")?;
    let (numbers, crates) = rest.split_once(':').unwrap_or((rest, ""));
    let (done, all) = numbers.trim().split_once('/')?;
    let (done, all): (u32, u32) = (done.parse().ok()?, all.parse().ok()?);
    let crates = crates.trim();
    let separator = if crates.is_empty() { "" } else { ": " };
    Some(format!("{done} of {all} crates compiled{separator}{crates}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::step;

    #[test]
    fn the_bar_of_cargo_is_progress() {
        let bar = "    Building [=======>            ] 45/123: deb(bin), web-file(bin)          ";
        assert_eq!(progress(bar).unwrap(), "45 of 123 crates compiled: deb(bin), web-file(bin)");
        assert_eq!(progress("Building [>  ] 0/7").unwrap(), "0 of 7 crates compiled");
        for other in ["   Compiling deb v0.1.0", "", "Building [>  ] x/7: a", "error: Building [=> ] 1/2: a"] {
            assert_eq!(progress(other), None, "{other}");
        }
    }

    #[test]
    fn cargo_shows_its_bar_without_a_terminal() {
        let directory = tempfile::tempdir().unwrap();
        let manifest = "[package]\nname = \"small\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n";
        crate::directory::write(&directory.path().join("Cargo.toml"), manifest).unwrap();
        crate::directory::write(&directory.path().join("src/lib.rs"), "").unwrap();
        let mut command = Command::new("cargo");
        command.args(["build", "--offline"]).current_dir(directory.path());
        command.env("CARGO_TARGET_DIR", directory.path().join("target"));
        command.env("CARGO_TERM_PROGRESS_WHEN", "always").env("CARGO_TERM_PROGRESS_WIDTH", "100");
        let bars = std::sync::atomic::AtomicUsize::new(0);
        let show = |line: &str| {
            bars.fetch_add(progress(line).is_some().into(), std::sync::atomic::Ordering::Relaxed);
            true
        };
        output_of(command, b"\r\n", &show).unwrap().1.unwrap();
        assert!(bars.into_inner() > 0);
        step("cargo", |step| cargo(step, Command::new("cargo"))).unwrap();
    }
}
