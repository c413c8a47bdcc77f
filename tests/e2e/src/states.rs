//! The states of the Update Module protocol, from the log of the client.
//!
//! With `--log-level debug` client 3.4 logs each call of a module. The device needs no further program for that. The
//! times in the log have a resolution of one second, so the time of a line is that at which the host received it. A
//! device that reads programs from its card for the first time sends lines up to ten seconds late: there the time in
//! the log is the upper bound. States of less than a second may then appear without a duration.

use std::time::{Duration, Instant};

use qemu::Line;

use crate::client::CLIENTS;

/// Before the date and time of a line.
const TIME: &str = "time=\"";
/// The resolution of the times in the log.
const RESOLUTION: Duration = Duration::from_secs(1);
/// In lines of the module's own output.
const OUTPUT: &str = "msg=\"Output (std";
/// In the line at which the client begins to stream the payload to the module, which is running then.
const STREAMING: &str = "msg=\"Executing ModuleInstaller.StoreUpdate\"";

/// A state of a module.
#[derive(Debug)]
pub struct State {
    /// The state, and the module in parentheses.
    pub name: String,
    /// When the module was called.
    pub start: Instant,
    /// When it ended.
    pub end: Instant,
}

/// The states in the log `lines`, of a client that ended at `end`.
pub fn parse(lines: &[Line], end: Instant) -> Vec<State> {
    let mut states: Vec<State> = Vec::new();
    let mut running = false;
    for (Line { text, .. }, time) in lines.iter().zip(times(lines)) {
        // The module has ended when the client logs something of its own.
        if running && text.contains("level=") && !text.contains(OUTPUT) && !text.contains(STREAMING) {
            states.iter_mut().next_back().into_iter().for_each(|state| state.end = time);
            running = false;
        }
        if let Some(name) = called(text) {
            states.push(State { name, start: time, end });
            running = true;
        }
    }
    states
}

/// The time of each line: when it was received, at the latest a second after the time in the log.
fn times(lines: &[Line]) -> Vec<Instant> {
    let first = lines.iter().find_map(|line| logged(&line.text)).unwrap_or_default();
    let since_first = |line: &Line| {
        // The log of a client may pass midnight.
        let seconds = (logged(&line.text)? + SECONDS_OF_DAY - first) % SECONDS_OF_DAY;
        Some(Duration::from_secs(seconds))
    };
    // No line was received before it was logged, so the smallest difference maps the device's time to the host's.
    let begin = lines.iter().filter_map(|line| line.received.checked_sub(since_first(line)?)).min();
    let latest = |line: &Line| Some(begin? + since_first(line)? + RESOLUTION);
    lines.iter().map(|line| latest(line).map_or(line.received, |latest| line.received.min(latest))).collect()
}

const SECONDS_OF_DAY: u64 = 24 * 60 * 60;

/// The time of the day in the line `text`, in seconds.
fn logged(text: &str) -> Option<u64> {
    let (_, time) = text.split_once(TIME)?;
    let (_, time) = time.split_once('T')?;
    let mut parts = time.split([':', 'Z']).map(|part| part.parse::<u64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    Some((hours * 60 + minutes) * 60 + seconds).filter(|time| *time < SECONDS_OF_DAY)
}

/// The state that the client calls in the line `text`.
fn called(text: &str) -> Option<String> {
    let (_, call) = CLIENTS.iter().find_map(|client| text.split_once(client.call))?;
    let mut words = call.split_whitespace();
    let (path, state) = (words.next()?, words.next()?);
    let module = path.rsplit('/').next()?;
    Some(format!("{state} ({module})"))
}

/// `text` without the lines of level debug, for errors that show the client's output.
pub fn without_debug_lines(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| !line.contains(" level=debug ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of client 3.4.0, installing an artifact; without some that have nothing to do with modules.
    const INSTALL: &str = include_str!("states/install.log");
    /// Lines of client 3.4.0, from the call of an ArtifactInstall that fails.
    const FAILING_INSTALL: &str = include_str!("states/failing-install.log");

    /// The lines of `log`, received every 10 ms from `start`.
    fn received(log: &str, start: Instant) -> Vec<Line> {
        let times = (0..).map(|number| start + Duration::from_millis(10) * number);
        let line = |(received, text): (Instant, &str)| Line { received, text: text.to_owned() };
        times.zip(log.split_inclusive('\n')).map(line).collect()
    }

    /// The states in `log`, each with the number of its first line and that of the line at which it ended.
    fn states(log: &str, end: u64) -> Vec<(String, u128, u128)> {
        let start = Instant::now();
        let number = |time: Instant| time.duration_since(start).as_millis() / 10;
        let states = parse(&received(log, start), start + Duration::from_millis(10 * end));
        states.into_iter().map(|state| (state.name, number(state.start), number(state.end))).collect()
    }

    #[test]
    fn an_install_has_its_states() {
        let expected = [
            ("Download (web-file)", 4, 7),
            ("SupportsRollback (web-file)", 10, 12),
            ("ArtifactInstall (web-file)", 15, 17),
            ("NeedsArtifactReboot (web-file)", 19, 21),
        ];
        assert_eq!(states(INSTALL, 30), expected.map(|(name, start, end)| (name.to_owned(), start, end)));
    }

    #[test]
    fn a_failing_install_has_its_rollback() {
        let names: Vec<_> = states(FAILING_INSTALL, 30).into_iter().map(|(name, ..)| name).collect();
        let expected = ["ArtifactInstall", "SupportsRollback", "ArtifactRollback", "ArtifactFailure", "Cleanup"];
        assert_eq!(names, expected.map(|state| format!("{state} (web-file)")));
    }

    #[test]
    fn a_state_that_loses_power_ends_with_it() {
        let interrupted: String = INSTALL.split_inclusive('\n').take(17).collect();
        let states = states(&interrupted, 25);
        assert_eq!(states.last().unwrap(), &("ArtifactInstall (web-file)".to_owned(), 15, 25));
    }

    #[test]
    fn the_time_in_the_log_is_the_upper_bound_of_a_late_line() {
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        let line =
            |received, time: &str| Line { received: after(received), text: format!("..time=\"2026-11-26T{time}Z\" x") };
        // The fourth line, which was not received late, shows that the second 23:59:58 began at 600 ms or before.
        let lines = [
            line(1000, "23:59:58"),
            line(9000, "23:59:58"),
            Line { received: after(9000), text: "0% 50%".to_owned() },
            line(2600, "00:00:00"),
            line(9100, "00:00:05"),
        ];
        assert_eq!(times(&lines), [1000, 1600, 9000, 2600, 8600].map(after));
    }

    #[test]
    fn times_are_those_of_the_day() {
        assert_eq!(logged("...time=\"2026-11-26T01:02:03Z\" level=info"), Some(3723));
        for text in ["", "time=\"\"", "time=\"2026-11-26T99:00:00Z\"", "time=\"2026-11-26Tx:00:00Z\""] {
            assert_eq!(logged(text), None, "{text}");
        }
    }

    #[test]
    fn other_logs_have_no_states() {
        let log = "Calling module: x y\nlevel=debug msg=\"Calling module: \n";
        assert_eq!(states(log, 9), []);
    }

    #[test]
    fn debug_lines_are_removed() {
        let rest = without_debug_lines(INSTALL);
        assert_eq!(rest.lines().count(), 5, "{rest}");
        assert!(rest.ends_with("Use 'commit' to update, or 'rollback' to roll back the update.\n"));
    }
}
