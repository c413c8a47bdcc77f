//! Records the timeline of a scenario.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::time::Instant;

use qemu::Line;
use test_report::{Event, Kind, Timeline};

use crate::states;

/// The longest name of an event, in characters.
const LONGEST_NAME: usize = 160;

/// The record of a scenario that is running. Commands are recorded through a shared reference.
pub struct Recorder {
    begun: Instant,
    timeline: RefCell<Timeline>,
}

impl Recorder {
    /// The record of a scenario that begins now.
    pub fn new() -> Self {
        Self { begun: Instant::now(), timeline: RefCell::default() }
    }

    /// Does `work`, and records it as an event, also if it fails. The event has the first line of `name`.
    pub fn during<T>(&self, kind: Kind, name: &str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(kind, name, start, Instant::now());
        result
    }

    /// Records an event from `start` to `end`.
    pub fn add(&self, kind: Kind, name: &str, start: Instant, end: Instant) {
        let name = name.lines().next().unwrap_or_default();
        let shortened: String = name.chars().take(LONGEST_NAME).collect();
        let name = if shortened.len() < name.len() { shortened + "…" } else { shortened };
        let since = |time: Instant| time.saturating_duration_since(self.begun);
        self.timeline.borrow_mut().events.push(Event { kind, name, start: since(start), end: since(end) });
    }

    /// Records the states in the log `lines` of a client that ended, or lost power, at `end`.
    pub fn client(&self, lines: &[Line], end: Instant) {
        for state in states::parse(lines, end) {
            self.add(Kind::State, &state.name, state.start, state.end);
        }
    }

    /// Adds the console of a boot that has ended, which is in the file `log`.
    pub fn console(&self, log: &Path) {
        let console = &mut self.timeline.borrow_mut().console;
        if !console.is_empty() {
            console.push_str("\n--- next boot ---\n");
        }
        // A machine that did not start has no console.
        console.push_str(&String::from_utf8_lossy(&fs::read(log).unwrap_or_default()));
    }

    /// The timeline, with the journal of the last boot.
    pub fn finish(self, journal: String) -> Timeline {
        let mut timeline = self.timeline.into_inner();
        timeline.events.sort_by_key(|event| event.start);
        Timeline { journal, ..timeline }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_in_the_order_of_their_start() {
        let recorder = Recorder::new();
        let value = recorder
            .during(Kind::Command, "outer\nsecond line", || recorder.during(Kind::State, &"ü".repeat(500), || 7));
        assert_eq!(value, 7);
        let timeline = recorder.finish("journal".to_owned());
        let names: Vec<_> = timeline.events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names, ["outer", &("ü".repeat(LONGEST_NAME) + "…")]);
        assert!(timeline.events.iter().all(|event| event.start <= event.end));
        assert_eq!(timeline.journal, "journal");
    }

    #[test]
    fn the_console_has_every_boot() {
        let recorder = Recorder::new();
        let log = std::env::temp_dir().join(format!("console-{}", std::process::id()));
        for text in [&b"first \xff\n"[..], b"second\n"] {
            fs::write(&log, text).unwrap();
            recorder.console(&log);
        }
        fs::remove_file(&log).unwrap();
        let console = recorder.finish(String::new()).console;
        assert_eq!(console, "first \u{fffd}\n\n--- next boot ---\nsecond\n");
    }
}
