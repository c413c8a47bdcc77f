//! `fake-systemctl STATE UNITS_DIR ARGUMENTS...`: the mock of systemctl, see the library. Starting a unit starts its
//! container. A unit whose container exits at once is in a restart loop.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use fake_engine::{State, run_mock};

fn main() -> ExitCode {
    run_mock("fake-systemctl", 1, answer)
}

fn answer(words: &[&str]) -> Result<String> {
    let [directory, units_dir, options @ ..] = words else {
        bail!("usage: fake-systemctl STATE UNITS_DIR ARGUMENTS...")
    };
    let ((state, _lock), units_dir) = (State::open(directory)?, Path::new(units_dir));
    let command: Vec<_> = options.iter().filter(|word| !word.starts_with("--")).collect();
    let (verb, units) = command.split_first().context("no verb in the arguments")?;
    let units = units.iter().map(|unit| Unit::read(units_dir, unit)).collect::<Result<Vec<_>>>()?;
    match **verb {
        "daemon-reload" => {}
        "start" => {
            for unit in units {
                // A running container is not started again.
                let runs = state.running()?.iter().any(|(name, _)| *name == unit.container);
                if !runs {
                    state.start(&unit.container, &unit.image)?;
                }
            }
        }
        "stop" => units.iter().try_for_each(|unit| state.stop(&unit.container))?,
        "reset-failed" => {
            for unit in units {
                // A unit that has stopped without a failure is not loaded any more.
                ensure!(state.has_failed(&unit.container), "{}: unit not loaded", unit.path.display());
                state.reset_failed(&unit.container)?;
            }
        }
        "show" => return units.iter().map(|unit| unit.properties(&state)).collect(),
        _ => bail!("unsupported verb: {verb}"),
    }
    Ok(String::new())
}

struct Unit {
    path: PathBuf,
    container: String,
    image: String,
}

impl Unit {
    fn read(units_dir: &Path, unit: &str) -> Result<Self> {
        let path = units_dir.join(unit);
        let text = fs::read_to_string(&path).with_context(|| format!("unit {unit} not found"))?;
        let start =
            text.lines().find_map(|line| line.strip_prefix("ExecStart=")).context("the unit has no ExecStart")?;
        let words: Vec<_> = start.split_whitespace().collect();
        let is_id = |word: &&&str| word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit());
        let image = words.iter().find(is_id).context("the unit has no image ID in ExecStart")?;
        let name = words.iter().position(|word| *word == "--name").and_then(|at| words.get(at + 1));
        Ok(Self {
            path,
            container: name.context("the unit has no --name in ExecStart")?.to_string(),
            image: image.to_string(),
        })
    }

    fn properties(&self, state: &State) -> Result<String> {
        let runs = state.running()?.iter().any(|(name, _)| *name == self.container);
        let mode = state.mode(&self.image)?;
        let (active, sub, result, restarts) = match (runs, mode.as_str()) {
            (false, _) if state.has_failed(&self.container) => ("failed", "failed", "exit-code", 0),
            (false, _) => ("inactive", "dead", "success", 0),
            (true, "exit") => ("activating", "auto-restart", "exit-code", 3),
            (true, "once") if self.is_oneshot()? => ("active", "exited", "success", 0),
            (true, _) => ("active", "running", "success", 0),
        };
        Ok(format!("ActiveState={active}\nSubState={sub}\nResult={result}\nNRestarts={restarts}\n"))
    }

    fn is_oneshot(&self) -> Result<bool> {
        Ok(fs::read_to_string(&self.path)?.contains("Type=oneshot"))
    }
}
